//! Loads the program. Runs in the child: no allocation.

use std::os::fd::OwnedFd;

use nix::errno::Errno;

use super::Program;
use crate::sys::seccomp;

/// From here on every syscall of the caller, and of what it executes, is judged. Needs
/// `CAP_SYS_ADMIN` or `no_new_privs`. Where there is an agent, it gives the listener for him.
pub fn load(program: &Program) -> Result<Option<OwnedFd>, Errno> {
    seccomp::set_mode_filter(program.flags, &program.filter)
}
