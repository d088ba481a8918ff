//! A container's folder.

use std::fs::{self, DirBuilder, File};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::config::id::ContainerId;
use crate::error::{Error, Lifecycle, Result};
use crate::state::record::{self, Record};

/// The folder of one container: it exists as long as its id is taken.
#[derive(Debug, Clone)]
pub struct Dir {
    path: PathBuf,
    id: ContainerId,
}

/// A lock on a container's folder, until it is dropped.
///
/// The lock belongs to the open file (`flock(2)`), and a clone would share it: drop it before a clone,
/// or the container's first process holds it until its exec. Take it, read or change the record, let
/// go; never wait for a container, a hook or another lock under it.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Dir {
    /// Reserves `id`. Of two that come at once `mkdir(2)` lets one through.
    pub fn create(root: &Path, id: &ContainerId) -> Result<Self> {
        make_root(root)?;
        let dir = Self { path: root.join(id.as_str()), id: id.clone() };
        match DirBuilder::new().mode(0o711).create(&dir.path) {
            Ok(()) => Ok(dir),
            Err(e) if e.kind() == ErrorKind::AlreadyExists => Err(dir.error(Lifecycle::AlreadyExists)),
            Err(e) => Err(Error::io("mkdir", &dir.path, &e)),
        }
    }

    /// The folder of a container that should be there. It may be without a record: see [`Dir::load`].
    pub fn open(root: &Path, id: &ContainerId) -> Result<Self> {
        let dir = Self { path: root.join(id.as_str()), id: id.clone() };
        match fs::symlink_metadata(&dir.path) {
            Ok(meta) if meta.is_dir() => Ok(dir),
            Ok(_) => Err(Error::Record { path: dir.path, why: "it is not a folder".into() }),
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                Err(dir.error(Lifecycle::DoesNotExist))
            }
            Err(e) => Err(Error::io("stat", &dir.path, &e)),
        }
    }

    pub fn id(&self) -> &ContainerId {
        &self.id
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Waits until no other command changes this container. [`Lifecycle::DoesNotExist`] when it was
    /// deleted meanwhile, even if another one of its name was made.
    pub fn lock(&self) -> Result<Lock> {
        self.lock_as(File::lock)
    }

    /// Together with other readers.
    pub fn lock_shared(&self) -> Result<Lock> {
        self.lock_as(File::lock_shared)
    }

    fn lock_as(&self, how: fn(&File) -> std::io::Result<()>) -> Result<Lock> {
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(e) if e.kind() == ErrorKind::NotFound => return Err(self.error(Lifecycle::DoesNotExist)),
            Err(e) => return Err(Error::io("open", &self.path, &e)),
        };
        while let Err(error) = how(&file) {
            if error.kind() != ErrorKind::Interrupted {
                return Err(Error::io("flock", &self.path, &error));
            }
        }
        // A folder that was removed while we waited has no link any more; the lock is of no use then.
        let links = file.metadata().map_err(|e| Error::io("stat", &self.path, &e))?.nlink();
        if links == 0 { Err(self.error(Lifecycle::DoesNotExist)) } else { Ok(Lock { _file: file }) }
    }

    /// A folder without a record is left by a `create` that was killed between the two, or belongs to
    /// one that is just there: nothing has been made yet, so the container does not exist.
    pub fn load(&self) -> Result<Record> {
        Record::load(&self.record_path(), &self.id)?.ok_or_else(|| self.error(Lifecycle::DoesNotExist))
    }

    pub fn save(&self, record: &Record) -> Result<()> {
        record.save(&self.record_path())
    }

    /// Keeps a copy of the configuration, as it was read.
    pub fn save_config(&self, bytes: &[u8]) -> Result<()> {
        record::replace(&self.config_path(), bytes)
    }

    pub fn config_path(&self) -> PathBuf {
        self.path.join("config.json")
    }

    pub fn record_path(&self) -> PathBuf {
        self.path.join("state.json")
    }

    pub fn fifo_path(&self) -> PathBuf {
        self.path.join("exec.fifo")
    }

    /// Gives the id free. What is gone already is no error.
    pub fn remove(&self) -> Result<()> {
        match fs::remove_dir_all(&self.path) {
            Err(e) if e.kind() != ErrorKind::NotFound => Err(Error::io("remove", &self.path, &e)),
            _ => Ok(()),
        }
    }

    fn error(&self, why: Lifecycle) -> Error {
        Error::State { id: self.id.to_string(), why }
    }
}

/// The ids that are taken below `root`, in order. What no container could be named is passed over.
pub fn list(root: &Path) -> Result<Vec<ContainerId>> {
    let error = |e: &std::io::Error| Error::io("open", root, e);
    let mut ids = Vec::new();
    for entry in fs::read_dir(root).map_err(|e| error(&e))? {
        let entry = entry.map_err(|e| error(&e))?;
        let is_dir = entry.file_type().is_ok_and(|t| t.is_dir());
        if let Some(id) = entry.file_name().to_str().and_then(|name| ContainerId::new(name).ok())
            && is_dir
        {
            ids.push(id);
        }
    }
    ids.sort();
    Ok(ids)
}

/// Others may pass but not look: a container's first process may be mapped to any user and must reach
/// its fifo. Below a user's own `$XDG_RUNTIME_DIR` nobody else passes anyway.
fn make_root(root: &Path) -> Result<()> {
    let mode = if nix::unistd::geteuid().is_root() { 0o711 } else { 0o700 };
    match DirBuilder::new().recursive(true).mode(mode).create(root) {
        // Something is there; that it is no folder shows in the name of what could not be made in it.
        Err(e) if e.kind() == ErrorKind::AlreadyExists => Ok(()),
        other => other.map_err(|e| Error::io("mkdir", root, &e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::errno::Errno;
    use std::os::unix::fs::PermissionsExt;
    use std::sync::mpsc;
    use std::time::Duration;

    fn id(name: &str) -> ContainerId {
        ContainerId::new(name).unwrap()
    }

    fn why(error: Error) -> Lifecycle {
        match error {
            Error::State { why, .. } => why,
            other => panic!("{other}"),
        }
    }

    #[test]
    fn an_id_is_reserved_once_and_free_again_when_removed() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().join("not/yet/there");
        let dir = Dir::create(&root, &id("a")).unwrap();
        assert_eq!(why(Dir::create(&root, &id("a")).unwrap_err()), Lifecycle::AlreadyExists);
        dir.save_config(b"{}").unwrap();
        fs::create_dir(dir.path().join("more")).unwrap();
        dir.remove().unwrap();
        dir.remove().unwrap();
        assert_eq!(why(Dir::open(&root, &id("a")).unwrap_err()), Lifecycle::DoesNotExist);
        Dir::create(&root, &id("a")).unwrap();
    }

    #[test]
    fn of_many_creators_at_once_one_wins() {
        let root = tempfile::tempdir().unwrap();
        let won: usize = std::thread::scope(|s| {
            let all: Vec<_> =
                (0..8).map(|_| s.spawn(|| Dir::create(root.path(), &id("a")).is_ok())).collect();
            all.into_iter().map(|t| usize::from(t.join().unwrap())).sum()
        });
        assert_eq!(won, 1);
    }

    #[test]
    fn nobody_else_can_list_the_root_or_read_a_configuration() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().join("tare");
        let dir = Dir::create(&root, &id("a")).unwrap();
        dir.save_config(b"{}").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode(&root) & 0o066, 0);
        assert_eq!(mode(dir.path()) & 0o066, 0);
        assert_eq!(mode(&dir.config_path()), 0o600);
    }

    #[test]
    fn a_folder_without_a_record_is_no_container_but_can_be_opened_and_removed() {
        let root = tempfile::tempdir().unwrap();
        Dir::create(root.path(), &id("a")).unwrap();
        let dir = Dir::open(root.path(), &id("a")).unwrap();
        assert_eq!(why(dir.load().unwrap_err()), Lifecycle::DoesNotExist);
        dir.remove().unwrap();
    }

    #[test]
    fn a_torn_record_is_named() {
        let root = tempfile::tempdir().unwrap();
        let dir = Dir::create(root.path(), &id("a")).unwrap();
        fs::write(dir.record_path(), "{\"schema\":1,").unwrap();
        let error = dir.load().unwrap_err().to_string();
        assert!(error.contains(&dir.record_path().display().to_string()), "{error}");
    }

    #[test]
    fn only_folders_with_the_name_of_a_container_are_listed() {
        let root = tempfile::tempdir().unwrap();
        for name in ["b", "a", "not an id"] {
            fs::create_dir(root.path().join(name)).unwrap();
        }
        fs::write(root.path().join("file"), "").unwrap();
        assert_eq!(list(root.path()).unwrap(), [id("a"), id("b")]);
        assert_eq!(list(&root.path().join("none")).unwrap_err().errno(), Some(Errno::ENOENT));
    }

    #[test]
    fn a_lock_keeps_others_out_until_it_is_dropped() {
        let root = tempfile::tempdir().unwrap();
        let dir = Dir::create(root.path(), &id("a")).unwrap();
        let shared = (dir.lock_shared().unwrap(), dir.lock_shared().unwrap());
        let (tx, rx) = mpsc::channel();
        std::thread::scope(|s| {
            s.spawn(|| {
                let lock = dir.lock().unwrap();
                tx.send(()).unwrap();
                drop(lock);
            });
            assert!(rx.recv_timeout(Duration::from_millis(100)).is_err(), "locked out");
            drop(shared);
            rx.recv_timeout(Duration::from_secs(10)).unwrap();
        });
    }

    #[test]
    fn whoever_waited_for_a_container_that_was_deleted_is_told_so() {
        let root = tempfile::tempdir().unwrap();
        let dir = Dir::create(root.path(), &id("a")).unwrap();
        let held = dir.lock().unwrap();
        std::thread::scope(|s| {
            let waiting = s.spawn(|| Dir::open(root.path(), &id("a")).unwrap().lock());
            std::thread::sleep(Duration::from_millis(50));
            dir.remove().unwrap();
            Dir::create(root.path(), &id("a")).unwrap();
            drop(held);
            match waiting.join().unwrap() {
                Err(error) => assert_eq!(why(error), Lifecycle::DoesNotExist),
                // It came so late that it found the new one.
                Ok(_lock) => assert!(Dir::open(root.path(), &id("a")).is_ok()),
            }
        });
    }
}
