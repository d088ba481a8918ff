//! Signals by number: nix knows no real-time ones.

use nix::errno::Errno;
use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};

/// `kill(2)`. A number that is reaped may be another's by now: for a child of ours that is not, or for
/// what a cgroup has just listed.
///
/// `pid` is a single process: 0 and negative numbers, which mean groups and all, are `EINVAL`.
pub fn kill(pid: i32, signal: i32) -> Result<(), Errno> {
    if pid <= 0 {
        return Err(Errno::EINVAL);
    }
    // SAFETY: two numbers; the call touches no memory of ours.
    Errno::result(unsafe { libc::kill(pid, signal) }).map(drop)
}

/// The signals that are blocked. Not by nix's `thread_get_mask`, nor is the next one by `thread_set_mask`: behind
/// them is `pthread_sigmask(3)`, which gives its error as its result, and they look for it in `errno`.
pub fn mask() -> Result<SigSet, Errno> {
    let mut mask = SigSet::empty();
    sigprocmask(SigmaskHow::SIG_SETMASK, None, Some(&mut mask))?;
    Ok(mask)
}

/// These as well from now on; those of before.
pub fn block(more: &SigSet) -> Result<SigSet, Errno> {
    let mut before = SigSet::empty();
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(more), Some(&mut before))?;
    Ok(before)
}

/// Exactly these are blocked from now on.
pub fn set_mask(mask: &SigSet) -> Result<(), Errno> {
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(mask), None)
}

/// SIGPIPE ends the process again: Rust ignores it, and that would outlive an exec.
pub fn default_sigpipe() -> Result<(), Errno> {
    // SAFETY: SIG_DFL is a valid disposition for SIGPIPE, with which no code of ours is called.
    if unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) } == libc::SIG_ERR {
        return Err(Errno::last());
    }
    Ok(())
}
