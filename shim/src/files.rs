//! How many descriptors the shim may have: as many as it is allowed, for a pod has many streams. Whom it
//! starts gets the limit that it was started with itself: programs that go through all descriptors
//! that could be, or use `select(2)`, rely on a low one.

use std::sync::OnceLock;

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, rlim_t, setrlimit};

use crate::log::note;

#[derive(Debug, Clone, Copy)]
struct Limit {
    soft: rlim_t,
    hard: rlim_t,
}

/// As it was found; unset in a process that has raised nothing.
static FOUND: OnceLock<Limit> = OnceLock::new();

/// Takes all that is allowed.
pub fn raise_limit() -> Result<(), Errno> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let found = FOUND.get_or_init(|| Limit { soft, hard });
    set(found.hard, found.hard)
}

/// Back to what was found.
pub fn restore_limit() -> Result<(), Errno> {
    FOUND.get().map_or(Ok(()), |found| set(found.soft, found.hard))
}

/// For as long as `start` runs, which starts a program that inherits it.
pub fn with_restored_limit<T>(start: impl FnOnce() -> T) -> Result<T, Errno> {
    let Some(found) = FOUND.get() else { return Ok(start()) };
    set(found.soft, found.hard)?;
    let started = start();
    if let Err(errno) = set(found.hard, found.hard) {
        note(&format!("setrlimit RLIMIT_NOFILE: {errno}"));
    }
    Ok(started)
}

fn set(soft: rlim_t, hard: rlim_t) -> Result<(), Errno> {
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard)
}
