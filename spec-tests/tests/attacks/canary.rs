//! A folder of the host that no container has anything to do with, and what happens to it.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use spec_tests::rootless::USER;
use tempfile::TempDir;

const SECRET: &str = "of the host\n";

/// Anyone may write there, so that nothing but the runtime's own care protects it.
pub(crate) struct Canary {
    dir: TempDir,
    watch: Inotify,
    names: Vec<String>,
}

impl Canary {
    /// With a file `secret`, and empty files of these names.
    pub(crate) fn new<const N: usize>(names: [&str; N]) -> Self {
        let dir = tempfile::Builder::new().prefix("spec-canary-").tempdir().unwrap();
        let mut names: Vec<String> = names.into_iter().map(str::to_owned).collect();
        names.iter().for_each(|name| fs::write(dir.path().join(name), "").unwrap());
        fs::write(dir.path().join("secret"), SECRET).unwrap();
        names.push("secret".to_owned());
        names.sort();
        for name in &names {
            chown(dir.path().join(name), Some(USER), Some(USER)).unwrap();
        }
        chown(dir.path(), Some(USER), Some(USER)).unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let watch = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC).unwrap();
        let changes = AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_MOVE
            | AddWatchFlags::IN_MODIFY
            | AddWatchFlags::IN_ATTRIB;
        watch.add_watch(dir.path(), changes).unwrap();
        Canary { dir, watch, names }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn text(&self) -> &str {
        self.path().to_str().unwrap()
    }

    /// The file that no container may read.
    pub(crate) fn secret(&self) -> PathBuf {
        self.path().join("secret")
    }

    /// What was done to it since it is there, also what was taken back; nothing is the good answer.
    pub(crate) fn changes(&self) -> Vec<String> {
        let events = self.watch.read_events().unwrap_or_default();
        let mut changes: Vec<String> =
            events.into_iter().map(|event| format!("{:?} {:?}", event.mask, event.name)).collect();
        let mut names: Vec<String> = fs::read_dir(self.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        if names != self.names {
            changes.push(format!("it has {names:?}"));
        }
        if fs::read_to_string(self.secret()).unwrap_or_default() != SECRET {
            changes.push("the secret was written to".to_owned());
        }
        changes
    }

    #[track_caller]
    pub(crate) fn untouched(&self) {
        let changes = self.changes();
        assert!(changes.is_empty(), "{}: {changes:?}", self.text());
    }
}

/// Whether a test would notice: each kind of change is seen, also one that was taken back.
#[test]
fn a_canary_sees_what_is_done_to_it() {
    let canary = Canary::new(["ptmx"]);
    canary.untouched();
    fs::write(canary.path().join("new"), "").unwrap();
    fs::remove_file(canary.path().join("new")).unwrap();
    assert!(!canary.changes().is_empty());
    canary.untouched();
    fs::write(canary.secret(), "x").unwrap();
    assert!(canary.changes().iter().any(|change| change.contains("written")));
}
