//! `process.apparmorProfile`.

use std::ffi::{CStr, CString};
use std::os::fd::AsFd;

use nix::errno::Errno;

use super::absent;
use crate::error::{StepFailure, StepKind};
use crate::sys::procfs;
use crate::sys::slots::Slots;

/// Its own file, and not `attr/exec`, which belongs to the module that comes first where there are
/// several. Linux 5.8, and so always where tare runs.
const FILE: &CStr = c"attr/apparmor/exec";

/// The words for the kernel: `exec docker-default`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile(CString);

impl Profile {
    pub fn name(&self) -> &CStr {
        let words = self.0.as_bytes_with_nul();
        CStr::from_bytes_with_nul(&words[b"exec ".len()..]).unwrap_or(c"")
    }
}

/// Where AppArmor is off every process is unconfined: who asks for that has it.
pub fn plan(profile: &CStr, enabled: bool) -> Result<Option<Profile>, &'static str> {
    match (enabled, profile.to_bytes()) {
        (_, b"") | (false, b"unconfined") => Ok(None),
        (false, _) => {
            Err("apparmor profile is specified in config, but apparmor is disabled or not supported")
        }
        (true, name) => {
            let words = [b"exec ", name].concat();
            Ok(CString::new(words).ok().map(Profile))
        }
    }
}

pub fn apply(profile: &Profile, slots: &Slots) -> Result<(), StepFailure> {
    let file = procfs::open_own(slots, FILE).map_err(absent)?;
    match procfs::write(file.as_fd(), profile.0.as_bytes()) {
        Err(Errno::ENOENT) => Err(StepFailure::new(StepKind::ProfileNotLoaded, Errno::ENOENT)),
        other => Ok(other?),
    }
}
