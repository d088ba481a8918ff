//! Signals by number: nix knows no real-time ones.

use nix::errno::Errno;

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

/// SIGPIPE ends the process again: Rust ignores it, and that would outlive an exec.
pub fn default_sigpipe() -> Result<(), Errno> {
    // SAFETY: SIG_DFL is a valid disposition for SIGPIPE, with which no code of ours is called.
    if unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) } == libc::SIG_ERR {
        return Err(Errno::last());
    }
    Ok(())
}
