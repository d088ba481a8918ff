//! `pidfd_open(2)`, `pidfd_getfd(2)`, `pidfd_send_signal(2)`: a process that cannot become another one.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;

use super::{cvt, cvt_fd};

/// Linux 5.3. `ESRCH` when there is no such process.
/// <https://man7.org/linux/man-pages/man2/pidfd_open.2.html>
pub fn pidfd_open(pid: i32) -> Result<OwnedFd, Errno> {
    // SAFETY: takes two numbers and touches no memory of ours.
    cvt_fd(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })
}

/// A copy of another process's descriptor, close-on-exec.
///
/// Linux 5.6. `EPERM`: as with `ptrace(2)`, a process that cannot be dumped needs `CAP_SYS_PTRACE`.
/// <https://man7.org/linux/man-pages/man2/pidfd_getfd.2.html>
pub fn pidfd_getfd(pidfd: BorrowedFd<'_>, number: i32) -> Result<OwnedFd, Errno> {
    // SAFETY: takes numbers and touches no memory of ours; what it returns is a new descriptor, which nobody else owns.
    cvt_fd(unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), number, 0) })
}

/// Linux 5.1. `ESRCH` when it has ended and was reaped.
/// <https://man7.org/linux/man-pages/man2/pidfd_send_signal.2.html>
pub fn pidfd_send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> Result<(), Errno> {
    let no_info = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: a null `info` asks the kernel to fill it in as `kill(2)` does; nothing is read or written through it.
    cvt(unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, no_info, 0) })
        .map(drop)
}
