//! The steps of a process that joins a running container. Pure.

use std::ffi::{CStr, CString};

use super::Program;
use super::order::{keyring, may_precede, privileges};
use super::step::{Step, Sync};
use crate::config::id::ContainerId;
use crate::config::{Capabilities, Config, Namespace, Process};
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
    /// There may be processes in the container's pid namespace that look into any other: [`is_born_last`].
    pub born_last: bool,
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
        if !input.born_last {
            steps.push(Step::ControllingTerminal);
        }
    }
    steps.push(Step::GiveStdio(input.process.user.uid));
    if let Some(persona) = input.personality {
        steps.push(Step::Personality(persona));
    }
    // Before the rights that an own instance of proc may need are gone, and before the filter.
    steps.extend(input.labels.iter().cloned().map(Step::Label));
    if input.born_last {
        steps.push(Step::CloseProc);
    }
    let birth = if input.born_last { birth(input.process) } else { Vec::new() };
    privileges(input.process, input.filter, input.privilege, input.program, &birth, &mut steps);
    steps.push(Step::Sync(Sync::Executing));
    steps.push(Step::Exec);
    steps
}

fn birth(process: &Process) -> Vec<Step> {
    // A session is of a pid namespace, and its terminal with it.
    let mut steps = vec![Step::Birth, Step::Sync(Sync::Go), Step::NewSession];
    if process.terminal {
        steps.push(Step::ControllingTerminal);
    }
    steps
}

/// `CAP_SYS_PTRACE`: `linux/capability.h`.
const PTRACE: u64 = 1 << 19;

/// Whether a process that joins should be born into the container's pid namespace as the last of all, when it has no more rights than
/// its program. One who has `CAP_SYS_PTRACE` in our user namespace can take over any process that it sees
/// (CVE-2016-9962), and with it all rights that it still has; one outside of its pid namespace it does not see.
///
/// Not where that hides nothing (the container has our pid namespace) or nothing needs to be hidden (a user namespace of its own);
/// and not where a filter that has to be loaded early would forbid the birth, or notifies an agent, who is told the pid.
pub fn is_born_last(
    config: &Config,
    other_user_namespace: bool,
    process: &Process,
    filter: Option<&seccomp::Program>,
) -> bool {
    // For root, execve adds the inheritable ones to the bounding set (capabilities(7)).
    let sees_all = |sets: Capabilities| (sets.bounding | sets.permitted | sets.inheritable) & PTRACE != 0;
    let spies = match &config.linux.namespaces.pid {
        Namespace::Inherit => false,
        // Whoever else is in it.
        Namespace::Join(_) => true,
        Namespace::New => config.process.capabilities.is_some_and(sees_all),
    };
    let early = filter.filter(|_| !process.no_new_privileges);
    spies && !other_user_namespace && early.is_none_or(may_precede)
}
