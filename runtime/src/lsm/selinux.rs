//! `process.selinuxLabel`, `linux.mountLabel`.

use std::ffi::CStr;
use std::os::fd::AsFd;

use nix::errno::Errno;

use super::absent;
use crate::sys::procfs;
use crate::sys::slots::Slots;

/// For both labels.
pub fn plan(enabled: bool) -> Result<(), &'static str> {
    if enabled {
        Ok(())
    } else {
        Err("selinux label is specified in config, but selinux is disabled or not supported")
    }
}

pub fn apply(label: &CStr, slots: &Slots) -> Result<(), Errno> {
    write(slots, c"attr/exec", label)
}

/// Keys that this process makes from now on, keyrings too, have this label; with an empty one the
/// policy's again.
pub fn label_new_keys(label: &CStr, slots: &Slots) -> Result<(), Errno> {
    write(slots, c"attr/keycreate", label)
}

fn write(slots: &Slots, file: &CStr, label: &CStr) -> Result<(), Errno> {
    let file = procfs::open_own(slots, file).map_err(absent)?;
    procfs::write(file.as_fd(), label.to_bytes())
}
