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
    // SAFETY: takes numbers and touches no memory of ours. That no owner closes one of them a second time is on the
    // callers, all of which run in a child that never returns to the code of its owners: init and the joiner
    // (`process::init`), slots of what such a child has opened, and the shim's copy of itself.
    cvt(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) }).map(drop)
}

/// Borrows a descriptor by its number, for steps that hold numbers (slots). Of a number below zero it is one that nobody
/// has, and every call with it `EBADF`.
pub fn borrow(fd: &RawFd) -> BorrowedFd<'_> {
    // Not AT_FDCWD, with which paths would be looked up where the process happens to be.
    let number = if *fd < 0 { RawFd::MIN } else { *fd };
    // SAFETY: it is not -1, the one number that the type excludes. Numbers are kept where a descriptor stays open
    // until the process execs or ends (slots, the shim's copy), or beside its owner for the length of one
    // call (`process::parent`). One that was closed all the same would make calls fail or meet another
    // file, but no memory wrong.
    unsafe { BorrowedFd::borrow_raw(number) }
}

/// `getdents64(2)` into `buffer`; 0 at the end.
pub fn getdents64(dir: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<usize, Errno> {
    // SAFETY: the kernel writes at most `buffer.len()` bytes into `buffer`, which is ours alone for the call.
    cvt(unsafe { libc::syscall(libc::SYS_getdents64, dir.as_raw_fd(), buffer.as_mut_ptr(), buffer.len()) })
        .map(|n| n as usize)
}

/// `faccessat2(2)` with `AT_EACCESS`: may the effective user execute `path`?
///
/// Linux 5.8. <https://man7.org/linux/man-pages/man2/faccessat.2.html>
pub fn may_execute(path: &CStr) -> Result<(), Errno> {
    // SAFETY: `path` is NUL-terminated and outlives the call, which only reads it; the rest are numbers.
    cvt(unsafe {
        libc::syscall(libc::SYS_faccessat2, libc::AT_FDCWD, path.as_ptr(), libc::X_OK, libc::AT_EACCESS)
    })
    .map(drop)
}

/// `getcwd(2)` as the kernel answers it: a path that is outside of the root begins with
/// `(unreachable)`, which the C library would hide behind `ENOENT`.
pub fn getcwd(buffer: &mut [u8]) -> Result<usize, Errno> {
    // SAFETY: the kernel writes at most `buffer.len()` bytes into `buffer`, which is ours alone for the call.
    cvt(unsafe { libc::syscall(libc::SYS_getcwd, buffer.as_mut_ptr(), buffer.len()) }).map(|n| n as usize)
}

/// `fsetxattr(2)`.
pub fn fsetxattr(fd: BorrowedFd<'_>, name: &CStr, value: &[u8]) -> Result<(), Errno> {
    let (name, data) = (name.as_ptr(), value.as_ptr().cast());
    // SAFETY: `name` is NUL-terminated, the kernel reads `value.len()` bytes of `value`; both outlive the call.
    cvt(unsafe { libc::fsetxattr(fd.as_raw_fd(), name, data, value.len(), 0) }.into()).map(drop)
}

/// `readlinkat(2)` into `buffer`.
pub fn readlinkat(dir: BorrowedFd<'_>, name: &CStr, buffer: &mut [u8]) -> Result<usize, Errno> {
    // SAFETY: `name` is NUL-terminated and only read; the kernel writes at most `buffer.len()` bytes into `buffer`, which
    // is ours alone for the call.
    cvt(unsafe {
        libc::syscall(libc::SYS_readlinkat, dir.as_raw_fd(), name.as_ptr(), buffer.as_mut_ptr(), buffer.len())
    })
    .map(|n| n as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_is_none_is_no_folder_to_begin_at() {
        for number in [-1, libc::AT_FDCWD, RawFd::MIN] {
            let opened = openat2(borrow(&number), c".", libc::O_PATH, 0, 0);
            assert_eq!(opened.map(drop), Err(Errno::EBADF), "{number}");
        }
    }
}
