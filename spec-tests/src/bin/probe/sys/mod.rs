//! The probe's raw system calls.

use std::ffi::{CStr, CString, c_char, c_int, c_long};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::SigSet;
use serde_json::{Value, json};

/// The C entry, not Rust's: std's would ignore SIGPIPE before the probe can look at its dispositions. glibc hands
/// std the arguments all the same, before `main`.
// SAFETY: no other symbol `main` exists (`no_main`), and the C runtime calls it with these two arguments.
#[unsafe(no_mangle)]
extern "C" fn main(_argc: c_int, _argv: *const *const c_char) -> c_int {
    let words: Vec<String> = std::env::args_os().skip(1).map(|w| w.to_string_lossy().into_owned()).collect();
    crate::run(&words)
}

/// A call by number with up to six integers.
pub(crate) fn syscall(number: c_long, arguments: [c_long; 6]) -> Result<c_long, Errno> {
    let [a, b, c, d, e, f] = arguments;
    // SAFETY: not provable: the test chooses the call, in a process whose only task is to show the answer.
    // Tests pass integers and null pointers, which the kernel refuses with EFAULT where it wants memory.
    Errno::result(unsafe { libc::syscall(number, a, b, c, d, e, f) })
}

pub(crate) fn wait_for_signal(set: &SigSet, limit: Duration) -> Result<c_int, Errno> {
    let limit = libc::timespec { tv_sec: libc::time_t::try_from(limit.as_secs()).unwrap_or(60), tv_nsec: 0 };
    loop {
        // SAFETY: both pointers are to live values of the right type; the kernel writes no siginfo through null.
        match Errno::result(unsafe {
            libc::sigtimedwait(set.as_ref(), std::ptr::null_mut(), &raw const limit)
        }) {
            // Being frozen and thawed (cgroup v2) interrupts the wait.
            Err(Errno::EINTR) => {}
            other => return other,
        }
    }
}

/// As the first process of a container: of what is orphaned there.
pub(crate) fn ignore_the_end_of_children() -> Result<(), Errno> {
    // SAFETY: takes two numbers; SIG_IGN is no function, so no code of ours runs in a handler.
    let before = unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
    if before == libc::SIG_ERR { Err(Errno::last()) } else { Ok(()) }
}

fn sleep_and_exit(time: Duration) -> ! {
    std::thread::sleep(time);
    // SAFETY: ends the process; nothing of it is used afterwards.
    unsafe { libc::_exit(0) }
}

pub(crate) fn fork_sleeper(time: Duration) -> Result<(), Errno> {
    // SAFETY: the probe has one thread, so its child may do all that it may.
    if Errno::result(unsafe { libc::fork() })? == 0 {
        sleep_and_exit(time);
    }
    Ok(())
}

/// In this process and in every child, for this long; a failed fork is tried again.
pub(crate) fn fork_without_end(time: Duration) {
    let end = std::time::Instant::now() + time;
    while std::time::Instant::now() < end {
        // SAFETY: the probe has one thread, so its child may do all that it may.
        unsafe { libc::fork() };
    }
}

pub(crate) fn fork_orphan(time: Duration) -> Result<(), Errno> {
    // SAFETY: the probe has one thread, so its child may do all that it may.
    let child = Errno::result(unsafe { libc::fork() })?;
    if child == 0 {
        // A caller that reads the output to its end does not have to wait for the orphan.
        // SAFETY: no value of this process owns a descriptor; the three standard ones are not used again.
        unsafe { libc::syscall(libc::SYS_close_range, 0u32, u32::MAX, 0u32) };
        let made = fork_sleeper(time).is_ok();
        // SAFETY: ends the process; nothing of it is used afterwards.
        unsafe { libc::_exit(i32::from(!made)) }
    }
    nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(child), None).map(drop)
}

/// Soft and hard limit; null is without limit.
pub(crate) fn rlimit(resource: u32) -> Value {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a live rlimit for the kernel to fill.
    if unsafe { libc::getrlimit(resource, &raw mut limit) } != 0 {
        return Value::Null;
    }
    let value = |n| {
        if n == libc::RLIM_INFINITY { Value::Null } else { json!(n) }
    };
    json!([value(limit.rlim_cur), value(limit.rlim_max)])
}

/// `sched_getattr(2)` of the caller.
pub(crate) fn scheduler() -> Value {
    // size, policy, flags, nice, priority, runtime, deadline, period, util_min, util_max: 56 bytes, 14 words.
    let mut attr = [0u32; 14];
    // SAFETY: the buffer has the 56 bytes that are announced.
    let result = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, attr.as_mut_ptr(), 56u32, 0u32) };
    if let Err(errno) = Errno::result(result) {
        return json!({ "errno": format!("{errno:?}") });
    }
    let wide = |at: usize| u64::from(attr[at]) | u64::from(attr[at + 1]) << 32;
    json!({
        "policy": attr[1], "flags": wide(2), "nice": attr[4].cast_signed(), "priority": attr[5],
        "runtime": wide(6), "deadline": wide(8), "period": wide(10),
    })
}

/// The description of the session keyring, as `type;uid;gid;perm;name`; keyctl(2).
pub(crate) fn session_keyring() -> Result<String, Errno> {
    const KEYCTL_DESCRIBE: c_long = 6;
    of_session_keyring(KEYCTL_DESCRIBE)
}

/// What a security module calls it.
pub(crate) fn session_keyring_label() -> Result<String, Errno> {
    const KEYCTL_GET_SECURITY: c_long = 17;
    of_session_keyring(KEYCTL_GET_SECURITY)
}

fn of_session_keyring(question: c_long) -> Result<String, Errno> {
    const KEY_SPEC_SESSION_KEYRING: c_long = -3;
    let mut text = [0u8; 256];
    // SAFETY: the buffer has the length that is announced.
    let result = unsafe {
        libc::syscall(libc::SYS_keyctl, question, KEY_SPEC_SESSION_KEYRING, text.as_mut_ptr(), text.len())
    };
    Errno::result(result)?;
    let text = CStr::from_bytes_until_nul(&text).map_err(|_| Errno::EOVERFLOW)?;
    Ok(text.to_string_lossy().into_owned())
}

/// `uname(2)`: nodename and domainname, without `/proc`.
pub(crate) fn names() -> (String, String) {
    // SAFETY: an utsname is arrays of bytes, for which zeros are a value.
    let mut name: libc::utsname = unsafe { std::mem::zeroed() };
    // SAFETY: `name` is a live utsname for the kernel to fill.
    unsafe { libc::uname(&raw mut name) };
    let text = |field: &[c_char]| -> String {
        field.iter().take_while(|c| **c != 0).map(|c| char::from(c.cast_unsigned())).collect()
    };
    (text(&name.nodename), text(&name.domainname))
}

/// Rows and columns of the terminal on this descriptor.
pub(crate) fn window_size(fd: c_int) -> Option<[u16; 2]> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: `size` is a live winsize for the kernel to fill.
    let result = unsafe { libc::ioctl(fd, libc::TIOCGWINSZ, &raw mut size) };
    (result == 0).then_some([size.ws_row, size.ws_col])
}

pub(crate) fn parent_death_signal() -> c_int {
    let mut signal: c_int = 0;
    // SAFETY: `signal` is a live int for the kernel to fill.
    unsafe { libc::prctl(libc::PR_GET_PDEATHSIG, &raw mut signal) };
    signal
}

/// The thread's memory policy and its nodes' mask; `get_mempolicy(2)`.
pub(crate) fn memory_policy() -> Value {
    let (mut mode, mut nodes): (c_int, [u64; 16]) = (0, [0; 16]);
    // SAFETY: an int and 1,024 bits are there for the kernel to fill, as announced.
    let result = unsafe {
        libc::syscall(libc::SYS_get_mempolicy, &raw mut mode, nodes.as_mut_ptr(), 1024usize, 0usize, 0usize)
    };
    match Errno::result(result) {
        Ok(_) => json!({ "mode": mode, "nodes": nodes[0] }),
        Err(errno) => json!({ "errno": format!("{errno:?}") }),
    }
}

/// `execve(2)` with the caller's environment; comes back only with an error.
pub(crate) fn exec(path: &CStr, arguments: &[CString]) -> Errno {
    match nix::unistd::execv(path, arguments) {
        Ok(never) => match never {},
        Err(errno) => errno,
    }
}
