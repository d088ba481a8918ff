//! The steps of a process that joins a running container. Pure.

use std::ffi::{CStr, CString};

use super::Program;
use super::order::{keyring, privileges};
use super::step::{Step, Sync};
use crate::config::Process;
use crate::config::id::ContainerId;
use crate::lsm::{self, Label};
use crate::privilege::Privilege;
use crate::seccomp;

/// What `exec` depends on beside the process itself.
pub struct Input<'a> {
    pub id: &'a ContainerId,
    pub process: &'a Process,
    pub labels: &'a [Label],
    pub filter: Option<&'a seccomp::Program>,
    pub privilege: &'a Privilege,
    pub program: &'a Program,
    pub preserve_fds: u32,
    /// Nobody has to write to the files of the new process in `/proc` who is not root.
    pub undumpable_at_once: bool,
    /// An id that is mapped, when the container has another user namespace than we.
    pub setup_ids: Option<(u32, u32)>,
    pub join_keyring: bool,
    pub personality: Option<u32>,
    /// The container has no mount namespace of its own: its root is only a folder.
    pub change_root: Option<CString>,
}

pub fn steps(input: &Input<'_>) -> Vec<Step> {
    let mut steps = Vec::new();
    if input.undumpable_at_once {
        steps.push(Step::Undumpable);
    }
    steps.push(Step::CloseFds { preserved: input.preserve_fds });
    steps.push(Step::RestoreSignals);
    steps.push(Step::Sync(Sync::Go));
    if !input.undumpable_at_once {
        steps.push(Step::Undumpable);
    }
    if let Some((uid, gid)) = input.setup_ids {
        steps.push(Step::SetupIds { uid, gid });
    }
    steps.push(Step::NewSession);
    if input.join_keyring {
        let label = lsm::of_keys(input.labels).map(CStr::to_owned);
        steps.push(Step::SessionKeyring { name: keyring(input.id), new: false, label });
    }
    if let Some(root) = &input.change_root {
        steps.push(Step::ChangeRoot(root.clone()));
    }
    if input.process.terminal {
        steps.push(Step::Console { size: input.process.console_size, bind: false });
    }
    steps.push(Step::GiveStdio(input.process.user.uid));
    if let Some(persona) = input.personality {
        steps.push(Step::Personality(persona));
    }
    // Before the rights that an own instance of proc may need are gone, and before the filter.
    steps.extend(input.labels.iter().cloned().map(Step::Label));
    privileges(input.process, input.filter, input.privilege, input.program, &mut steps);
    steps.push(Step::Sync(Sync::Executing));
    steps.push(Step::Exec);
    steps
}
