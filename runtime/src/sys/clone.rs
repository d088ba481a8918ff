//! `clone3(2)`, `unshare(2)`, `execve(2)` and the end of a process.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;

use super::cvt;
use super::spawn::Argv;

pub const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Who returns from [`clone3`].
pub enum Clone {
    Parent { pid: i32, pidfd: OwnedFd },
    Child,
}

/// `clone3(2)` without shared memory: the child goes on in a copy of this process.
///
/// Safe to call because it refuses (`EINVAL`) when the process has more than one thread: the
/// child of a threaded process could find locks held by threads that it does not have.
///
/// `flags` are `CLONE_NEW*`, `CLONE_PARENT` and [`CLONE_INTO_CGROUP`] (then `cgroup` is the
/// cgroup's folder, Linux 5.7). With `CLONE_PARENT` the child ends with the caller's own signal.
///
/// `EBUSY` when the cgroup may hold no processes, `ENOSPC` at a namespace limit, `EPERM` without
/// the privilege or when user namespaces are forbidden.
/// <https://man7.org/linux/man-pages/man2/clone.2.html>
pub fn clone3(flags: u64, cgroup: Option<BorrowedFd<'_>>) -> Result<Clone, Errno> {
    alone()?;
    let mut pidfd: RawFd = -1;
    // SAFETY: `clone_args` is a plain struct of integers, for which zero is a value.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = flags | libc::CLONE_PIDFD as u64;
    args.pidfd = (&raw mut pidfd) as u64;
    if flags & libc::CLONE_PARENT as u64 == 0 {
        args.exit_signal = libc::SIGCHLD as u64;
    }
    if let Some(cgroup) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    let size = size_of::<libc::clone_args>();
    // SAFETY: `args` outlives the call and its size is passed; no stack is given and memory is not
    // shared, so the child runs on its own copy of this stack; the process has one thread (above).
    let pid = cvt(unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size) })? as i32;
    if pid == 0 {
        return Ok(Clone::Child);
    }
    // SAFETY: the kernel stored a new descriptor, which nobody else owns.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Clone::Parent { pid, pidfd })
}

/// `EINVAL` unless this process has one thread: `unshare(CLONE_THREAD)` does nothing else.
fn alone() -> Result<(), Errno> {
    // SAFETY: no pointers.
    cvt(unsafe { libc::syscall(libc::SYS_unshare, libc::CLONE_THREAD) }).map(drop)
}

/// `setns(2)`: with a pidfd several kinds at once (Linux 5.8).
///
/// <https://man7.org/linux/man-pages/man2/setns.2.html>
pub fn setns(fd: BorrowedFd<'_>, kinds: libc::c_int) -> Result<(), Errno> {
    // SAFETY: no pointers.
    cvt(unsafe { libc::syscall(libc::SYS_setns, fd.as_raw_fd(), kinds) }).map(drop)
}

/// `execve(2)`; returns only when it failed. `last` is one more variable of the environment, known
/// only after the clone.
///
/// <https://man7.org/linux/man-pages/man2/execve.2.html>
pub fn execve(path: &CStr, args: &Argv, env: &Argv, last: Option<&CStr>) -> Errno {
    let longer;
    let env = match last.map(|last| env.with_last(last)) {
        None => env.as_ptr(),
        Some(Ok(page)) => {
            longer = page;
            longer.as_ptr()
        }
        Some(Err(errno)) => return errno,
    };
    // SAFETY: `path` is NUL-terminated; both arrays end in null and hold pointers into strings
    // that their owners keep alive during the call.
    unsafe { libc::execve(path.as_ptr(), args.as_ptr(), env) };
    Errno::last()
}

impl Argv {
    /// A copy with one more entry, on an anonymous mapping: the child may not allocate.
    fn with_last(&self, last: &CStr) -> Result<PointerPage, Errno> {
        let count = self.strings().len();
        let mut page = PointerPage::new(count + 2)?;
        let array = page.as_mut();
        for (entry, string) in array.iter_mut().zip(self.strings()) {
            *entry = string.as_ptr();
        }
        array[count] = last.as_ptr();
        Ok(page)
    }
}

/// Anonymous memory for pointers, all null at first. Never unmapped: `execve` does, or `_exit`.
struct PointerPage {
    start: *mut *const libc::c_char,
    len: usize,
}

impl PointerPage {
    fn new(len: usize) -> Result<Self, Errno> {
        let bytes = len * size_of::<*const libc::c_char>();
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a new anonymous mapping at an address of the kernel's choice touches nothing.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), bytes, prot, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(Errno::last());
        }
        Ok(Self { start: start.cast(), len })
    }

    fn as_ptr(&self) -> *const *const libc::c_char {
        self.start
    }

    fn as_mut(&mut self) -> &mut [*const libc::c_char] {
        // SAFETY: the mapping holds `len` pointers, is zeroed (null is a value), page-aligned, and
        // only this struct knows it.
        unsafe { std::slice::from_raw_parts_mut(self.start, self.len) }
    }
}

/// `_exit(2)`: no handlers, no flushing; for children.
pub fn exit_now(status: i32) -> ! {
    // SAFETY: does not return, takes no pointers.
    unsafe { libc::_exit(status) }
}
