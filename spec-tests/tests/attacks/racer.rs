//! The other side of a race.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use spec_tests::call::LIMIT;
use spec_tests::need::cpus;

/// Does one thing over and over in a thread of its own until it is dropped.
pub(crate) struct Racer {
    ends: Arc<AtomicBool>,
    turns: Arc<AtomicU32>,
    thread: Option<JoinHandle<()>>,
}

impl Racer {
    pub(crate) fn new(mut turn: impl FnMut() + Send + 'static) -> Self {
        let (ends, turns) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
        let (seen, counted) = (Arc::clone(&ends), Arc::clone(&turns));
        let thread = std::thread::spawn(move || {
            while !seen.load(Ordering::Relaxed) {
                turn();
                counted.fetch_add(1, Ordering::Relaxed);
            }
        });
        Racer { ends, turns, thread: Some(thread) }
    }

    /// Exchanges two names.
    pub(crate) fn exchanging(a: &Path, b: &Path) -> Self {
        let (a, b) = (a.to_owned(), b.to_owned());
        Racer::new(move || exchange(&a, &b))
    }

    /// Plays against it as long as a race lasts.
    ///
    /// # Panics
    /// As a round, or when the racer never had a turn.
    #[track_caller]
    pub(crate) fn against(self, mut round: impl FnMut()) {
        let rounds = for_a_while(&mut round);
        // A slow one is waited for.
        let begun = Instant::now();
        while self.turns.load(Ordering::Relaxed) == 0 && begun.elapsed() < LIMIT {
            round();
        }
        let turns = self.turns.load(Ordering::Relaxed);
        eprintln!("{rounds} rounds against {turns} turns");
        assert!(turns > 0, "the racer never had a turn");
    }
}

/// As many rounds as there is time for; how many there were.
pub(crate) fn for_a_while(mut round: impl FnMut()) -> u32 {
    // A thread without a processor of its own races little, however long.
    let alone = cpus(2).is_err();
    let usual = if alone { 0.3 } else { 1.0 };
    let seconds = std::env::var("ATTACK_SECONDS").map_or(usual, |text| text.parse().unwrap());
    let end = Instant::now() + Duration::from_secs_f64(seconds);
    let mut rounds = 0;
    while rounds == 0 || Instant::now() < end {
        round();
        rounds += 1;
    }
    rounds
}

impl Drop for Racer {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        let ended = self.thread.take().map(JoinHandle::join);
        // A second panic while the first unwinds would abort and hide both.
        assert!(std::thread::panicking() || matches!(ended, Some(Ok(()))), "the racer failed");
    }
}

fn exchange(a: &Path, b: &Path) {
    renameat2(AT_FDCWD, a, AT_FDCWD, b, RenameFlags::RENAME_EXCHANGE).expect("RENAME_EXCHANGE");
}

/// A shared volume in which `x` is now a folder, now a symbolic link, as its attacker likes.
pub(crate) struct Volume {
    dir: tempfile::TempDir,
    /// The folder, by whichever name.
    folder: File,
}

impl Volume {
    /// The link leads there.
    pub(crate) fn new(target: &Path) -> Self {
        let dir = tempfile::Builder::new().prefix("spec-volume-").tempdir().unwrap();
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(dir.path(), open).unwrap();
        fs::create_dir(dir.path().join("x")).unwrap();
        std::os::unix::fs::symlink(target, dir.path().join("link")).unwrap();
        let folder = File::open(dir.path().join("x")).unwrap();
        Volume { dir, folder }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// What is in the folder.
    pub(crate) fn folder(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.folder.as_raw_fd()))
    }

    /// Takes out of the folder what a container was given there.
    pub(crate) fn clear(&self) {
        for entry in fs::read_dir(self.folder()).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
        }
    }

    pub(crate) fn race(&self) -> Racer {
        Racer::exchanging(&self.path().join("x"), &self.path().join("link"))
    }
}

#[test]
fn a_volume_has_now_a_folder_and_now_a_link() {
    let volume = Volume::new(Path::new("/nowhere"));
    let x = volume.path().join("x");
    let (mut folders, mut links) = (0, 0);
    let racer = volume.race();
    let end = Instant::now() + Duration::from_secs(5);
    while (folders < 10 || links < 10) && Instant::now() < end {
        if fs::symlink_metadata(&x).unwrap().is_symlink() { links += 1 } else { folders += 1 }
    }
    drop(racer);
    assert!(folders >= 10 && links >= 10, "{folders} {links}");
}
