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
    let default = KernelAction { handler: libc::SIG_DFL, flags: 0, restorer: 0, mask: 0 };
    for signal in (1..=64).filter(|signal| !matches!(*signal, libc::SIGKILL | libc::SIGSTOP)) {
        // SAFETY: the kernel reads one `KernelAction`, whose layout is its own and whose mask has the
        // size that is passed; with `SIG_DFL` no code of ours is ever called.
        Errno::result(unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                &raw const default,
                std::ptr::null_mut::<KernelAction>(),
                size_of::<u64>(),
            )
        })?;
    }
    Ok(())
}
