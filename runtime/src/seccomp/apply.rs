//! Loads the program. Runs in the child: no allocation.

use nix::errno::Errno;

use super::Program;
use crate::sys::seccomp;

/// From here on every syscall of the caller, and of what it executes, is judged. Needs
/// `CAP_SYS_ADMIN` or `no_new_privs`.
pub fn load(program: &Program) -> Result<(), Errno> {
    seccomp::set_mode_filter(program.flags, &program.filter)
}
