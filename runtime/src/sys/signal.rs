//! Signals by number: nix knows no real-time ones.

use libc::c_int;
use nix::errno::Errno;
use nix::unistd::Pid;

/// `kill(2)`. Only for a child of ours that is not yet reaped, or the number may be another's.
pub fn send(pid: Pid, signal: c_int) -> Result<(), Errno> {
    // SAFETY: numbers only.
    Errno::result(unsafe { libc::kill(pid.as_raw(), signal) }).map(drop)
}

/// SIGPIPE ends the process again: Rust ignores it, and that would outlive an exec.
pub fn default_sigpipe() -> Result<(), Errno> {
    // SAFETY: SIG_DFL is a valid disposition; no handler of ours is involved.
    if unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) } == libc::SIG_ERR {
        return Err(Errno::last());
    }
    Ok(())
}
