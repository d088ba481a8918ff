//! Labels of the security modules: what the process becomes at its exec, and what its keys and mounts
//! are called. <https://github.com/opencontainers/runtime-spec/blob/main/config.md#linux-process>

pub mod apparmor;
pub mod selinux;

use std::ffi::{CStr, CString};

use nix::errno::Errno;

use crate::config::Process;
use crate::error::{Problem, StepFailure};
use crate::sys::slots::Slots;

/// Which of the modules are on, as far as somebody asks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Enabled {
    pub apparmor: bool,
    pub selinux: bool,
}

/// What takes effect at the next exec.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Label {
    AppArmor(apparmor::Profile),
    SELinux(CString),
}

/// The labels of a process, in the order in which they are written. Problems have pointers below the
/// process.
pub fn plan(process: &Process, enabled: Enabled) -> Result<Vec<Label>, Vec<Problem>> {
    let mut labels = Vec::new();
    let mut problems = Vec::new();
    let mut problem = |pointer: &str, what: &str| {
        problems.push(Problem { pointer: pointer.into(), what: what.into() });
    };
    if let Some(profile) = &process.apparmor_profile {
        match apparmor::plan(profile, enabled.apparmor) {
            Ok(profile) => labels.extend(profile.map(Label::AppArmor)),
            Err(what) => problem("/apparmorProfile", what),
        }
    }
    if let Some(label) = &process.selinux_label {
        match selinux::plan(enabled.selinux) {
            Ok(()) => labels.push(Label::SELinux(label.clone())),
            Err(what) => problem("/selinuxLabel", what),
        }
    }
    if problems.is_empty() { Ok(labels) } else { Err(problems) }
}

/// What the session keyring is labelled with: as the process, or with nothing.
pub fn of_keys(labels: &[Label]) -> Option<&CStr> {
    labels.iter().find_map(|label| match label {
        Label::SELinux(label) => Some(label.as_c_str()),
        Label::AppArmor(_) => None,
    })
}

pub fn apply(label: &Label, slots: &Slots) -> Result<(), StepFailure> {
    match label {
        Label::AppArmor(profile) => apparmor::apply(profile, slots),
        Label::SELinux(label) => Ok(selinux::apply(label, slots)?),
    }
}

/// What is not there is not a file that is missing to whoever reads the message.
fn absent(errno: Errno) -> Errno {
    if errno == Errno::ENOENT { Errno::EOPNOTSUPP } else { errno }
}

#[cfg(test)]
mod tests;
