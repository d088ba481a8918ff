//! The execution domain, `LINUX` or `LINUX32`: set by the container's process itself.

use nix::errno::Errno;

use crate::sys::sched::set_personality;

/// Run by the child.
pub fn apply(persona: u32) -> Result<(), Errno> {
    set_personality(persona).map(drop)
}
