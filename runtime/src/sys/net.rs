//! `netdevice(7)`: the one interface that a new network namespace has.

use std::os::fd::AsRawFd;

use nix::errno::Errno;

use super::{cvt, cvt_fd};

/// Brings the loopback interface of this network namespace up (`netdevice(7)`).
pub fn loopback_up() -> Result<(), Errno> {
    // SAFETY: takes numbers and touches no memory of ours.
    let socket = cvt_fd(unsafe {
        libc::syscall(libc::SYS_socket, libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0)
    })?;
    // SAFETY: `ifreq` is a plain struct with a union of integers, for which zero is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l' as libc::c_char;
    request.ifr_name[1] = b'o' as libc::c_char;
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: the request reads an `ifreq` with a NUL-terminated name, which outlives the call.
    cvt(unsafe { libc::syscall(libc::SYS_ioctl, socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) })
        .map(drop)
}
