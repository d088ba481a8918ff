//! `sethostname(2)` and `setdomainname(2)`, of bytes as they are.

use std::ffi::CStr;

use nix::errno::Errno;

use super::cvt;

/// `sethostname(2)`.
pub fn sethostname(name: &CStr) -> Result<(), Errno> {
    // SAFETY: the kernel reads `count_bytes` bytes of `name`, which has them and outlives the call.
    cvt(unsafe { libc::syscall(libc::SYS_sethostname, name.as_ptr(), name.count_bytes()) }).map(drop)
}

/// `setdomainname(2)`.
pub fn setdomainname(name: &CStr) -> Result<(), Errno> {
    // SAFETY: the kernel reads `count_bytes` bytes of `name`, which has them and outlives the call.
    cvt(unsafe { libc::syscall(libc::SYS_setdomainname, name.as_ptr(), name.count_bytes()) }).map(drop)
}
