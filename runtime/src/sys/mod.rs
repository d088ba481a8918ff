//! The door to the kernel: what nix lacks, and nothing else. The only `unsafe` of the crate is
//! below this module. Descriptors and `&CStr` in, `Result<_, Errno>` out; nothing here allocates
//! where the child uses it, between clone and exec.

pub mod alloc_guard;
pub mod bpf;
pub mod clone;
pub mod environment;
mod errno;
pub mod exe;
pub mod fd;
pub mod keyctl;
pub mod mount;
pub mod net;
pub mod pidfd;
pub mod prctl;
pub mod probe;
pub mod procfs;
pub mod sched;
pub mod scm;
pub mod seccomp;
pub mod signal;
pub mod slots;
pub mod spawn;
pub mod tty;
pub mod uts;

use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;

pub use errno::errno_text;

/// The C convention: -1 and `errno`.
fn cvt(result: libc::c_long) -> Result<libc::c_long, Errno> {
    if result == -1 { Err(Errno::last()) } else { Ok(result) }
}

/// The same for calls that return a new descriptor.
fn cvt_fd(result: libc::c_long) -> Result<OwnedFd, Errno> {
    let fd = cvt(result)?;
    // SAFETY: only called with the result of a system call that returns a new descriptor, which
    // nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}
