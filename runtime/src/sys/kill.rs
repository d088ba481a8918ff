//! `kill(2)` with any number: nix knows no real-time signals, and a container may stop with one.

use nix::errno::Errno;

/// `pid` is a single process: 0 and negative numbers, which mean groups and all, are `EINVAL`.
pub fn kill(pid: i32, signal: i32) -> Result<(), Errno> {
    if pid <= 0 {
        return Err(Errno::EINVAL);
    }
    // SAFETY: two numbers; the call touches no memory of ours.
    Errno::result(unsafe { libc::kill(pid, signal) }).map(drop)
}
