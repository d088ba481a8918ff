//! What init does for its namespaces once it is in them.

use std::ffi::CStr;

use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};

use super::plan::Join;
use crate::sys::clone::setns;
use crate::sys::slots::Slots;
use crate::sys::{net, uts};

pub fn join(join: &Join, slots: &Slots) -> Result<(), Errno> {
    setns(slots.get(join.slot)?, join.kind.flag())
}

pub fn enter_new_cgroup_namespace() -> Result<(), Errno> {
    unshare(CloneFlags::CLONE_NEWCGROUP)
}

/// `lo` of a new network namespace is down; every program expects it up.
pub fn loopback_up() -> Result<(), Errno> {
    net::loopback_up()
}

pub fn set_hostname(name: &CStr) -> Result<(), Errno> {
    uts::sethostname(name)
}

pub fn set_domainname(name: &CStr) -> Result<(), Errno> {
    uts::setdomainname(name)
}
