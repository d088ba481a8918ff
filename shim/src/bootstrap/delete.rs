//! `delete`: what is left of a container whose shim is gone.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::Deserialize;

use super::socket;
use super::words::Words;
use crate::error::{Error, Result};
use crate::wire::messages::task::DeleteResponse;
use crate::wire::{MessageField, encode, timestamp};

/// 128 + SIGKILL.
const KILLED: u32 = 137;

/// What the shim had written down of a container in its bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remains {
    pub id: String,
    pub namespace: String,
    pub bundle: PathBuf,
    /// The options' `root`; empty: the default.
    pub root: String,
    /// `binary_name`, or what the file `runtime` names; empty: the one that is linked in.
    pub binary: String,
    pub systemd_cgroup: bool,
    /// 0 when it is not known.
    pub pid: u32,
}

/// The file `options.json`, with the names that Go gives the fields.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Options {
    root: String,
    binary_name: String,
    systemd_cgroup: bool,
}

impl Remains {
    pub fn read(words: &Words, cwd: &Path) -> Result<Self> {
        // The working directory may be another container's of the same group.
        let bundle = match words.bundle.as_str() {
            "" => cwd.parent().unwrap_or(cwd).join(&words.id),
            given => PathBuf::from(given),
        };
        let read = |name: &str| match fs::read_to_string(bundle.join(name)) {
            Ok(text) => Ok(text),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
            Err(e) => Err(Error::io("read", &bundle.join(name), &e)),
        };
        let options = match read("options.json")?.as_str() {
            "" => Options::default(),
            text => serde_json::from_str(text)
                .map_err(|e| Error::invalid(format!("{}/options.json: {e}", bundle.display())))?,
        };
        let runtime = read("runtime")?;
        Ok(Self {
            id: words.id.clone(),
            namespace: words.namespace.clone(),
            root: options.root,
            binary: if options.binary_name.is_empty() { runtime } else { options.binary_name },
            systemd_cgroup: options.systemd_cgroup,
            pid: read("init.pid")?.trim().parse().unwrap_or(0),
            bundle,
        })
    }
}

/// What takes the container away: the runtime, and the mounts of its root file system.
pub trait Cleaner {
    fn delete_container(&self, remains: &Remains) -> Result<()>;
    fn unmount(&self, rootfs: &Path) -> Result<()>;
}

/// The reply, and what could not be done: that is for standard error, where containerd takes it for warnings.
pub fn delete(remains: &Remains, cleaner: &impl Cleaner) -> Result<(Vec<u8>, Vec<Error>)> {
    let mut failed = Vec::new();
    failed.extend(cleaner.delete_container(remains).err());
    failed.extend(cleaner.unmount(&remains.bundle.join("rootfs")).err());
    failed.extend(remove_dead_socket(&remains.bundle).err());
    let response = DeleteResponse {
        pid: remains.pid,
        exit_status: KILLED,
        exited_at: MessageField::some(timestamp(SystemTime::now())),
        ..Default::default()
    };
    let reply = encode(&response).map_err(|torn| Error::Unknown(torn.to_string()))?;
    Ok((reply, failed))
}

/// Of the group: others of it may be served there, and another shim of it may be about to begin.
fn remove_dead_socket(bundle: &Path) -> Result<()> {
    let Ok(address) = fs::read_to_string(bundle.join("address")) else { return Ok(()) };
    address.trim().strip_prefix("unix://").map_or(Ok(()), |path| socket::remove_dead(Path::new(path)))
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::wire::decode;

    #[derive(Default)]
    struct Fake {
        done: RefCell<Vec<String>>,
        fails: bool,
    }

    impl Fake {
        fn note(&self, what: String) -> Result<()> {
            self.done.borrow_mut().push(what);
            if self.fails { Err(Error::Unknown("busy".into())) } else { Ok(()) }
        }
    }

    impl Cleaner for Fake {
        fn delete_container(&self, remains: &Remains) -> Result<()> {
            self.note(format!("delete {}", remains.id))
        }

        fn unmount(&self, rootfs: &Path) -> Result<()> {
            self.note(format!("unmount {}", rootfs.file_name().expect("a name").display()))
        }
    }

    fn words(bundle: &Path) -> Words {
        Words {
            id: "c1".into(),
            namespace: "ns".into(),
            bundle: bundle.display().to_string(),
            ..Words::default()
        }
    }

    #[test]
    fn what_the_shim_wrote_down_is_found() {
        let dir = tempfile::tempdir().expect("a folder");
        for (name, text) in [
            ("options.json", r#"{"root":"/r","systemd_cgroup":true,"new":1}"#),
            ("runtime", "/bin/crun"),
            ("init.pid", "42"),
        ] {
            fs::write(dir.path().join(name), text).expect("written");
        }
        let remains = Remains::read(&words(dir.path()), Path::new("/elsewhere")).expect("read");
        assert_eq!((remains.root.as_str(), remains.binary.as_str(), remains.pid), ("/r", "/bin/crun", 42));
        assert!(remains.systemd_cgroup);
    }

    #[test]
    fn an_empty_bundle_is_enough() {
        let dir = tempfile::tempdir().expect("a folder");
        let remains = Remains::read(&words(dir.path()), Path::new("/")).expect("read");
        assert_eq!((remains.root.as_str(), remains.binary.as_str(), remains.pid), ("", "", 0));
        let beside = Words { bundle: String::new(), ..words(dir.path()) };
        assert_eq!(Remains::read(&beside, Path::new("/x/other")).expect("read").bundle, Path::new("/x/c1"));
    }

    #[test]
    fn it_goes_to_its_end_and_answers_whatever_fails() {
        let dir = tempfile::tempdir().expect("a folder");
        fs::write(dir.path().join("init.pid"), "42").expect("written");
        let remains = Remains::read(&words(dir.path()), Path::new("/")).expect("read");
        for fails in [false, true] {
            let fake = Fake { fails, ..Fake::default() };
            let (reply, failed) = delete(&remains, &fake).expect("answered");
            assert_eq!(fake.done.take(), ["delete c1", "unmount rootfs"]);
            assert_eq!(failed.len(), if fails { 2 } else { 0 });
            let reply: DeleteResponse = decode(&reply).expect("a response");
            assert_eq!((reply.pid, reply.exit_status), (42, 137));
            assert_ne!(reply.exited_at.seconds, 0);
        }
    }

    #[test]
    fn a_dead_ones_socket_goes_and_a_living_ones_stays() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("s");
        fs::write(dir.path().join("address"), format!("unix://{}", path.display())).expect("written");
        let remains = Remains::read(&words(dir.path()), Path::new("/")).expect("read");
        let listener = std::os::unix::net::UnixListener::bind(&path).expect("bound");
        delete(&remains, &Fake::default()).expect("answered");
        assert!(path.exists());
        let _closed = crate::starts::nothing_starts();
        drop(listener);
        delete(&remains, &Fake::default()).expect("answered");
        assert!(!path.exists());
    }
}
