//! `clone3(2)`, `unshare(2)`, `execve(2)` and the end of a process.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;

use super::cvt;
use super::spawn::Argv;

pub const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// What may be asked of [`clone3`]: all else would share memory or more with the child, or have the kernel
/// write where we say nothing of.
const FLAGS: u64 = (libc::CLONE_NEWUSER
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWTIME
    | libc::CLONE_PARENT) as u64;

/// Who returns from [`clone3`].
pub enum Clone {
    Parent { pid: i32, pidfd: OwnedFd },
    Child(OneThread),
}

/// That this process has one thread, as each has that [`clone3`] or [`clone_sibling`] has just borne. What runs there
/// starts none.
pub struct OneThread(());

/// `clone3(2)` without shared memory: the child goes on in a copy of this process.
///
/// Safe to call because it refuses (`EINVAL`) when the process has more than one thread: the
/// child of a threaded process could find locks held by threads that it does not have.
///
/// `flags` are `CLONE_NEW*` and `CLONE_PARENT`; others are `EINVAL`. With `cgroup`, the folder of one, the child is
/// born in it (Linux 5.7). With `CLONE_PARENT` it ends with the caller's own signal.
///
/// `EBUSY` when the cgroup may hold no processes, `ENOSPC` at a namespace limit, `EPERM` without
/// the privilege or when user namespaces are forbidden.
/// <https://man7.org/linux/man-pages/man2/clone.2.html>
pub fn clone3(flags: u64, cgroup: Option<BorrowedFd<'_>>) -> Result<Clone, Errno> {
    if flags & !FLAGS != 0 {
        return Err(Errno::EINVAL);
    }
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
    // SAFETY: `args` outlives the call and its size is passed; the one address in it is that of `pidfd`, an int as
    // CLONE_PIDFD writes it. No stack is given and memory is not shared (`FLAGS` has no CLONE_VM), so the child runs
    // on its own copy of this stack. The process has one thread (above), so no lock is held by another.
    let pid = cvt(unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size) })? as i32;
    if pid == 0 {
        return Ok(Clone::Child(OneThread(())));
    }
    // SAFETY: the clone has succeeded and we are the parent: then the kernel has stored a new descriptor, which
    // nobody else owns.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Clone::Parent { pid, pidfd })
}

/// `clone(2)` of a child of our parent, which goes on in a copy of this process (`None`, there). The older call and
/// nothing else: filters of seccomp let it pass for `fork(3)`, and answer [`clone3`] with `ENOSYS`, because they cannot
/// look at its arguments, and `unshare`, by which threads could be counted, with `EPERM`.
///
/// <https://man7.org/linux/man-pages/man2/clone.2.html>
pub fn clone_sibling(_: &OneThread) -> Result<Option<i32>, Errno> {
    let (flags, none) = (libc::CLONE_PARENT as libc::c_ulong, 0 as libc::c_ulong);
    // SAFETY: memory is not shared (no CLONE_VM) and no stack is given, so the child runs on its own copy of this
    // stack; no flag has the kernel write to an address, and all of them are null, in whatever order the machine takes
    // them. The process has one thread (`OneThread`), so no lock is held by another.
    match cvt(unsafe { libc::syscall(libc::SYS_clone, flags, none, none, none, none) })? {
        0 => Ok(None),
        pid => Ok(Some(pid as i32)),
    }
}

/// `EINVAL` unless this process has one thread: `unshare(CLONE_THREAD)` does nothing else.
pub(super) fn alone() -> Result<(), Errno> {
    // SAFETY: takes a number and touches no memory of ours; it changes nothing, neither when it succeeds.
    cvt(unsafe { libc::syscall(libc::SYS_unshare, libc::CLONE_THREAD) }).map(drop)
}

/// `setns(2)`: with a pidfd several kinds at once (Linux 5.8).
///
/// <https://man7.org/linux/man-pages/man2/setns.2.html>
pub fn setns(fd: BorrowedFd<'_>, kinds: libc::c_int) -> Result<(), Errno> {
    // SAFETY: takes two numbers and touches no memory of ours.
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
    // SAFETY: `path` is NUL-terminated; both arrays end in null and hold pointers to NUL-terminated strings that
    // `args`, `env` and `last`, which are borrowed until after the call, keep alive. It is only read.
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
        // SAFETY: a new anonymous mapping at an address of the kernel's choice replaces no memory that anybody has.
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
        // SAFETY: the mapping holds `len` pointers, is zeroed (null is a value), page-aligned and never unmapped, and
        // only this struct knows it, which is borrowed as long as the slice is.
        unsafe { std::slice::from_raw_parts_mut(self.start, self.len) }
    }
}

/// `_exit(2)`: no handlers, no flushing; for children.
pub fn exit_now(status: i32) -> ! {
    // SAFETY: takes a number and does not return: no value of ours is used afterwards.
    unsafe { libc::_exit(status) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_share_memory_with_the_child_is_refused() {
        let shared = [
            libc::CLONE_VM,
            libc::CLONE_FILES,
            libc::CLONE_VFORK,
            libc::CLONE_CHILD_SETTID,
            libc::CLONE_SETTLS,
        ];
        for flag in shared {
            assert!(matches!(clone3(flag as u64, None), Err(Errno::EINVAL)), "{flag:#x}");
        }
        assert!(matches!(clone3(CLONE_INTO_CGROUP, None), Err(Errno::EINVAL)));
    }

    #[test]
    fn a_longer_environment_has_all_of_the_shorter_and_the_last() {
        let env = Argv::new(vec![c"A=1".into(), c"B=2".into()]);
        let mut page = env.with_last(c"C=3").unwrap();
        let array = page.as_mut();
        assert_eq!(array.len(), 4);
        let text = |pointer: &*const libc::c_char| {
            // SAFETY: not null (see the next line), and the strings live to the end of the test.
            unsafe { CStr::from_ptr(*pointer) }.to_str().unwrap().to_owned()
        };
        assert!(array[3].is_null() && array[..3].iter().all(|pointer| !pointer.is_null()));
        assert_eq!(array[..3].iter().map(text).collect::<Vec<_>>(), ["A=1", "B=2", "C=3"]);
    }
}
