//! Descriptors: what nix lacks, or has only with an allocation.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::errno::Errno;

use super::{cvt, cvt_fd};

/// `openat2(2)` flags of `struct open_how`.
pub mod resolve {
    pub const NO_XDEV: u64 = 0x01;
    pub const NO_MAGICLINKS: u64 = 0x02;
    pub const NO_SYMLINKS: u64 = 0x04;
    pub const BENEATH: u64 = 0x08;
    pub const IN_ROOT: u64 = 0x10;
}

/// `openat2(2)`; `O_CLOEXEC` is always added. Tries again on `EAGAIN`, which the kernel answers when
/// something was renamed meanwhile and it could not prove that the path stayed inside; a racer can
/// keep this up only by luck, so after many tries the answer stands.
///
/// Linux 5.6. <https://man7.org/linux/man-pages/man2/openat2.2.html>
pub fn openat2(
    dir: BorrowedFd<'_>,
    path: &CStr,
    flags: libc::c_int,
    mode: u32,
    resolve: u64,
) -> Result<OwnedFd, Errno> {
    // SAFETY: `open_how` is a plain struct of integers, for which zero is a value.
    let mut how: libc::open_how = unsafe { std::mem::zeroed() };
    how.flags = (flags | libc::O_CLOEXEC) as u64;
    how.mode = u64::from(mode);
    how.resolve = resolve;
    let mut tries = 0;
    loop {
        // SAFETY: `path` is NUL-terminated, `how` outlives the call and its size is passed; the
        // kernel only reads both.
        let done = cvt_fd(unsafe {
            libc::syscall(
                libc::SYS_openat2,
                dir.as_raw_fd(),
                path.as_ptr(),
                &raw const how,
                size_of::<libc::open_how>(),
            )
        });
        match done {
            Err(Errno::EAGAIN | Errno::EINTR) if tries < 1000 => tries += 1,
            other => return other,
        }
    }
}

/// `close_range(2)`.
///
/// Linux 5.9. <https://man7.org/linux/man-pages/man2/close_range.2.html>
pub fn close_range(first: RawFd, last: RawFd) -> Result<(), Errno> {
    // SAFETY: no pointers. That the descriptors in the range belong to nobody any more is what the
    // caller says by calling; only the child after clone does, which has forgotten its owners.
    cvt(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) }).map(drop)
}

/// Borrows a descriptor by its number, for steps that hold numbers (slots).
pub fn borrow(fd: &RawFd) -> BorrowedFd<'_> {
    // SAFETY: slots hold numbers of descriptors that are open until the process execs or exits, or
    // -1, which `borrow_raw` must not get and the kernel would answer with EBADF.
    unsafe { BorrowedFd::borrow_raw(if *fd < 0 { libc::AT_FDCWD } else { *fd }) }
}

/// `getdents64(2)` into `buffer`; 0 at the end.
pub fn getdents64(dir: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<usize, Errno> {
    // SAFETY: the kernel writes at most `buffer.len()` bytes into `buffer`.
    cvt(unsafe { libc::syscall(libc::SYS_getdents64, dir.as_raw_fd(), buffer.as_mut_ptr(), buffer.len()) })
        .map(|n| n as usize)
}

/// `faccessat2(2)` with `AT_EACCESS`: may the effective user execute `path`?
///
/// Linux 5.8. <https://man7.org/linux/man-pages/man2/faccessat.2.html>
pub fn may_execute(path: &CStr) -> Result<(), Errno> {
    // SAFETY: `path` is NUL-terminated and only read.
    cvt(unsafe {
        libc::syscall(libc::SYS_faccessat2, libc::AT_FDCWD, path.as_ptr(), libc::X_OK, libc::AT_EACCESS)
    })
    .map(drop)
}

/// `getcwd(2)` as the kernel answers it: a path that is outside of the root begins with
/// `(unreachable)`, which the C library would hide behind `ENOENT`.
pub fn getcwd(buffer: &mut [u8]) -> Result<usize, Errno> {
    // SAFETY: the kernel writes at most `buffer.len()` bytes into `buffer`.
    cvt(unsafe { libc::syscall(libc::SYS_getcwd, buffer.as_mut_ptr(), buffer.len()) }).map(|n| n as usize)
}

/// `readlinkat(2)` into `buffer`.
pub fn readlinkat(dir: BorrowedFd<'_>, name: &CStr, buffer: &mut [u8]) -> Result<usize, Errno> {
    // SAFETY: `name` is NUL-terminated; the kernel writes at most `buffer.len()` bytes.
    cvt(unsafe {
        libc::syscall(libc::SYS_readlinkat, dir.as_raw_fd(), name.as_ptr(), buffer.as_mut_ptr(), buffer.len())
    })
    .map(|n| n as usize)
}
