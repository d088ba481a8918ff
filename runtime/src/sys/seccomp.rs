//! `seccomp(2)`.

use std::os::fd::OwnedFd;

use libc::{c_ulong, sock_filter, sock_fprog};
use nix::errno::Errno;

use super::{cvt, cvt_fd};

/// `SECCOMP_SET_MODE_FILTER`. With `SECCOMP_FILTER_FLAG_NEW_LISTENER` it gives the listener, which is
/// close-on-exec.
///
/// Linux 3.17, the listener 5.0.
/// `EACCES`: neither `CAP_SYS_ADMIN` nor `no_new_privs`. `EINVAL`: a program that the kernel's
/// checker does not take, or an unknown flag. `EBUSY`: a filter that is there already has a listener.
/// <https://man7.org/linux/man-pages/man2/seccomp.2.html>
pub fn set_mode_filter(flags: c_ulong, filter: &[sock_filter]) -> Result<Option<OwnedFd>, Errno> {
    let Ok(len) = u16::try_from(filter.len()) else { return Err(Errno::E2BIG) };
    let program = sock_fprog { len, filter: filter.as_ptr().cast_mut() };
    // SAFETY: `program` and the `len` instructions it points to outlive the call; the kernel copies
    // them and writes to neither.
    let result =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program) };
    if flags & libc::SECCOMP_FILTER_FLAG_NEW_LISTENER != 0 {
        return cvt_fd(result).map(Some);
    }
    cvt(result).map(|_| None)
}
