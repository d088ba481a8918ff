//! `waitid(2)` for any child. nix's loses one that a real-time signal has ended: it knows no such signal.

use nix::errno::Errno;

/// A child that has ended, not reaped yet; `None`: there is none for now.
pub fn peek() -> Result<Option<i32>, Errno> {
    wait(libc::P_ALL, 0, libc::WNOWAIT).map(|ended| ended.map(|(pid, _)| pid))
}

/// Whether it is a child of ours that was not reaped yet: a number may be in use by somebody else.
pub fn is_child(pid: i32) -> Result<bool, Errno> {
    let id = libc::id_t::try_from(pid).map_err(|_| Errno::EINVAL)?;
    match ask(libc::P_PID, id, libc::WNOWAIT) {
        Ok(_) => Ok(true),
        Err(Errno::ECHILD) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// Reaps that child. Its status as a shell has it: 128 and the signal, for one that was killed.
pub fn reap(pid: i32) -> Result<Option<u32>, Errno> {
    let id = libc::id_t::try_from(pid).map_err(|_| Errno::EINVAL)?;
    wait(libc::P_PID, id, 0).map(|ended| ended.map(|(_, status)| status))
}

fn wait(of: libc::idtype_t, id: libc::id_t, flags: libc::c_int) -> Result<Option<(i32, u32)>, Errno> {
    match ask(of, id, flags) {
        Err(Errno::ECHILD) => Ok(None),
        other => other,
    }
}

fn ask(of: libc::idtype_t, id: libc::id_t, flags: libc::c_int) -> Result<Option<(i32, u32)>, Errno> {
    // SAFETY: `siginfo_t` is plain integers and pointers that the kernel fills in; zero is a value, and
    // a pid of zero is how `WNOHANG` says that nobody has ended.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let flags = libc::WEXITED | libc::WNOHANG | flags;
    loop {
        // SAFETY: `info` outlives the call, which only writes to it.
        match Errno::result(unsafe { libc::waitid(of, id, &raw mut info, flags) }) {
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
            Ok(_) => break,
        }
    }
    // SAFETY: of the members, a successful `waitid` fills in this one (or leaves it zero).
    let pid = unsafe { info.si_pid() };
    // SAFETY: a successful `waitid` fills in this one, too, or leaves it zero.
    let status = unsafe { info.si_status() };
    if pid == 0 {
        return Ok(None);
    }
    let status = u32::try_from(status).unwrap_or(0);
    Ok(Some((pid, if info.si_code == libc::CLD_EXITED { status } else { 128 + status })))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::starts::starting;

    #[test]
    fn a_child_is_one_until_it_was_reaped() {
        let mut child = starting(|| Command::new("sleep").arg("60").spawn()).expect("sleep");
        let pid = i32::try_from(child.id()).expect("a pid");
        assert_eq!(is_child(pid), Ok(true));
        child.kill().expect("killed");
        assert_eq!(is_child(pid), Ok(true));
        child.wait().expect("reaped");
        assert_eq!(is_child(pid), Ok(false));
        assert_eq!(is_child(1), Ok(false));
    }
}
