//! Another program beside this process: `clone(2)` and `execve(2)` without the heap, so that
//! container init can run hooks too. (The standard library's `Command` allocates.)

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

use libc::{c_char, c_int, pid_t};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::wait::waitpid;
use nix::unistd::{Pid, pipe2, read};

/// Strings in the form that `execve(2)` takes: pointers with a null after the last.
pub struct Argv {
    strings: Vec<CString>,
    pointers: Vec<*const c_char>,
}

impl Argv {
    pub fn new(strings: Vec<CString>) -> Self {
        // A CString keeps its bytes on the heap: the pointers stay right when `strings` moves.
        let pointers = strings.iter().map(|s| s.as_ptr()).chain([ptr::null()]).collect();
        Self { strings, pointers }
    }

    pub fn strings(&self) -> &[CString] {
        &self.strings
    }

    /// Null-terminated; valid as long as `self`.
    pub fn as_ptr(&self) -> *const *const c_char {
        self.pointers.as_ptr()
    }
}

impl Clone for Argv {
    fn clone(&self) -> Self {
        Self::new(self.strings.clone())
    }
}

impl PartialEq for Argv {
    fn eq(&self, other: &Self) -> bool {
        self.strings == other.strings
    }
}

impl std::fmt::Debug for Argv {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.strings.fmt(f)
    }
}

/// What to execute and with what.
#[derive(Debug, Clone, Copy)]
pub struct Program<'a> {
    /// Not searched in PATH.
    pub path: &'a CStr,
    pub argv: &'a Argv,
    pub envp: &'a Argv,
    /// `None`: this process's.
    pub cwd: Option<&'a CStr>,
    /// Becomes 0, 1 and 2. No other descriptor is passed on.
    pub stdio: [BorrowedFd<'a>; 3],
}

/// A child that runs its program. Whoever spawns it waits for it.
#[derive(Debug)]
pub struct Spawned {
    pub pid: Pid,
    /// Readable when the program has ended.
    pub pidfd: OwnedFd,
}

/// Starts `program` with default SIGPIPE and no signal blocked; returns after its `execve`, whose
/// errors (and those of `chdir`) are ours. Allocates nothing.
pub fn spawn(program: &Program<'_>) -> Result<Spawned, Errno> {
    let (answer, mut report) = pipe2(OFlag::O_CLOEXEC)?;
    if report.as_raw_fd() < 3 {
        // Our caller has a standard descriptor closed: the new process would overwrite this one.
        let number = above_stdio(report.as_fd())?;
        // SAFETY: the fcntl has just made this descriptor for us, so nobody else owns it.
        report = unsafe { OwnedFd::from_raw_fd(number) };
    }
    let mut pidfd: c_int = -1;
    // SAFETY: without CLONE_VM the new process has its own copy of memory and goes on here on a
    // copy of this stack. `pidfd` is where CLONE_PIDFD writes (the parent_tid argument, third on
    // every architecture). The copy makes only system calls until it ends, so locks that other
    // threads of the original held do not matter.
    let pid = unsafe {
        libc::syscall(
            libc::SYS_clone,
            libc::c_long::from(libc::CLONE_PIDFD | libc::SIGCHLD),
            ptr::null::<u8>(),
            &raw mut pidfd,
            ptr::null::<u8>(),
            ptr::null::<u8>(),
        )
    };
    let pid = Errno::result(pid)?;
    if pid == 0 {
        let errno = become_program(program);
        fail(report.as_fd(), errno);
    }
    drop(report);
    // A pid fits: the syscall's result is a long only by its type.
    let pid = Pid::from_raw(pid as pid_t);
    // SAFETY: CLONE_PIDFD made this descriptor for us in the call above, which succeeded.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    let mut errno = [0; 4];
    let count = loop {
        match read(&answer, &mut errno) {
            Err(Errno::EINTR) => {}
            other => break other,
        }
    };
    if count == Ok(0) {
        return Ok(Spawned { pid, pidfd });
    }
    reap(pid)?;
    Err(count.map_or_else(|e| e, |_| Errno::from_raw(i32::from_ne_bytes(errno))))
}

fn reap(pid: Pid) -> Result<(), Errno> {
    loop {
        match waitpid(pid, None) {
            Err(Errno::EINTR) => {}
            other => return other.map(drop),
        }
    }
}

/// In the new process: comes back only with an error.
fn become_program(program: &Program<'_>) -> Errno {
    match prepare(program) {
        Err(errno) => errno,
        // SAFETY: the path is a C string, both arrays end with null and live in `program`; execve
        // does not return when it succeeds.
        Ok(()) => match Errno::result(unsafe {
            libc::execve(program.path.as_ptr(), program.argv.as_ptr(), program.envp.as_ptr())
        }) {
            Err(errno) => errno,
            Ok(_) => Errno::ENOEXEC,
        },
    }
}

fn prepare(program: &Program<'_>) -> Result<(), Errno> {
    // First all out of 0 to 2, so that no dup3 below overwrites what a later one needs.
    let mut high = [-1; 3];
    for (slot, fd) in high.iter_mut().zip(program.stdio) {
        *slot = above_stdio(fd)?;
    }
    // What the caller inherited without close-on-exec stays out of the program. A seccomp filter
    // may refuse it (startContainer hooks): then only what the container gets anyway is left open.
    // SAFETY: takes numbers, and only marks descriptors of this short-lived process, of which none is closed by it.
    let _ = unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    for (target, fd) in (0..).zip(high) {
        // SAFETY: numbers only; 0 to 2 of this short-lived process belong to nobody else.
        Errno::result(unsafe { libc::dup3(fd, target, 0) })?;
    }
    if let Some(cwd) = program.cwd {
        // SAFETY: `cwd` is NUL-terminated and outlives the call, which only reads it.
        Errno::result(unsafe { libc::chdir(cwd.as_ptr()) })?;
    }
    // Rust ignores SIGPIPE, and a runtime or shim blocks signals; both would survive execve.
    // SAFETY: SIG_DFL is a valid disposition for SIGPIPE, with which no code of ours is called.
    if unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) } == libc::SIG_ERR {
        return Err(Errno::last());
    }
    super::signal::set_mask(&nix::sys::signal::SigSet::empty())
}

/// A close-on-exec copy with a number of 3 or more.
fn above_stdio(fd: BorrowedFd<'_>) -> Result<c_int, Errno> {
    // SAFETY: takes and gives numbers, and touches no memory of ours.
    Errno::result(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 3) })
}

/// Tells the parent why there is no program, and ends.
fn fail(report: BorrowedFd<'_>, errno: Errno) -> ! {
    let bytes = (errno as i32).to_ne_bytes();
    // A failing write leaves only the exit status: nothing more can be told.
    nix::unistd::write(report, &bytes).ok();
    // SAFETY: ends this copy of the process at once, running nothing of the original's (no atexit, no destructors).
    unsafe { libc::_exit(127) }
}
