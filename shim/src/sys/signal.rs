//! Dispositions of signals.

use nix::errno::Errno;

/// What the kernel's `rt_sigaction(2)` takes: the C library has another one, and it refuses to touch
/// the two signals that it keeps to itself.
#[repr(C)]
struct KernelAction {
    handler: usize,
    flags: libc::c_ulong,
    restorer: usize,
    mask: u64,
}

/// Every signal does what it does by default: who is started by us must not ignore what somebody
/// before us has ignored.
pub fn default_all() -> Result<(), Errno> {
    (1..=64)
        .filter(|signal| !matches!(*signal, libc::SIGKILL | libc::SIGSTOP))
        .try_for_each(|signal| dispose(signal, libc::SIG_DFL))
}

/// A write to a pipe that nobody reads fails and says so, and does not end the process. The standard
/// library gives the programs that it starts the default again.
pub fn ignore_sigpipe() -> Result<(), Errno> {
    dispose(libc::SIGPIPE, libc::SIG_IGN)
}

/// `handler` is `SIG_DFL` or `SIG_IGN`.
fn dispose(signal: libc::c_int, handler: usize) -> Result<(), Errno> {
    debug_assert!(handler == libc::SIG_DFL || handler == libc::SIG_IGN);
    let action = KernelAction { handler, flags: 0, restorer: 0, mask: 0 };
    // SAFETY: the kernel reads one `KernelAction`, whose layout is its own and whose mask has the
    // size that is passed; with `SIG_DFL` or `SIG_IGN` no code of ours is ever called.
    Errno::result(unsafe {
        libc::syscall(
            libc::SYS_rt_sigaction,
            signal,
            &raw const action,
            std::ptr::null_mut::<KernelAction>(),
            size_of::<u64>(),
        )
    })
    .map(drop)
}
