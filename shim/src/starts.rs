//! For tests. They run beside each other, and what one of them starts has a copy of all that the others have open, until
//! it is executed.

use std::fs::{self, File, Permissions};
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use nix::fcntl::OFlag;
use nix::unistd::pipe2;

use crate::sys::io::duplicate_above;

static STARTS: RwLock<()> = RwLock::new(());

/// For what starts a program. Returns when that has none of our descriptors any more: the kernel lets the parent go on
/// a moment before it closes them, one after the other, of which the last is ours.
pub(crate) fn starting<T>(start: impl FnOnce() -> T) -> T {
    let _alone = STARTS.write().unwrap_or_else(PoisonError::into_inner);
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC).expect("a pipe");
    let last = duplicate_above(writer.as_fd(), 900).expect("a descriptor above all others");
    drop(writer);
    let started = start();
    drop(last);
    assert_eq!(File::from(reader).read(&mut [0]).expect("the end"), 0);
    started
}

/// As long as it is held, what is closed is closed: nobody else has it.
pub(crate) fn nothing_starts() -> RwLockReadGuard<'static, ()> {
    STARTS.read().unwrap_or_else(PoisonError::into_inner)
}

/// One that can be executed at once: nobody has it open for writing (`ETXTBSY`).
pub(crate) fn script(path: &Path, text: &str) {
    let _closed = nothing_starts();
    fs::write(path, format!("#!/bin/sh\n{text}\n")).expect("written");
    fs::set_permissions(path, Permissions::from_mode(0o755)).expect("set");
}
