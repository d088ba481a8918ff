//! The order of the child's steps, and why it is so. Written once, here.

use std::ffi::{CStr, CString};

use super::Program;
use super::build::Options;
use super::step::{HookKind, Step, Sync, hooks};
use crate::config::id::ContainerId;
use crate::config::{Config, Namespace, Process};
use crate::hooks::{ChildHook, Prepared, StateJson};
use crate::lsm::{self, Label};
use crate::namespace::plan::Plan as Namespaces;
use crate::privilege::Privilege;
use crate::rootfs::devices::{LINKS, Node, link_name};
use crate::rootfs::plan::{Mounts, propagation_attr, propagation_flags};
use crate::rootfs::sysctl::Write;
use crate::rootfs::{Change, Tree};
use crate::seccomp;
use crate::sys::mount::{MountAttr, attr};

/// What the facilities have planned.
pub(super) struct Parts<'a> {
    pub(super) id: &'a ContainerId,
    pub(super) config: &'a Config,
    pub(super) options: &'a Options,
    pub(super) namespaces: &'a Namespaces,
    /// The runtime may write the files of a process in `/proc` that nobody may look into.
    pub(super) undumpable_at_once: bool,
    pub(super) setup_ids: Option<(u32, u32)>,
    /// When the child opens it itself.
    pub(super) root: Option<Tree>,
    pub(super) mounts: &'a Mounts,
    pub(super) nodes: Vec<Node>,
    pub(super) sysctls: Vec<Write>,
    pub(super) labels: Vec<Label>,
    pub(super) filter: Option<seccomp::Program>,
    pub(super) privilege: Privilege,
    pub(super) program: &'a Program,
    pub(super) full_mounts: &'a [CString],
}

/// The steps of the container's first process.
pub(super) fn init(parts: &Parts<'_>) -> Vec<Step> {
    let mut steps = Vec::new();
    birth(parts, &mut steps);
    if parts.config.linux.namespaces.mount == Namespace::Inherit {
        steps.push(Step::Sync(Sync::Mounts));
        steps.extend(child_hooks(HookKind::CreateContainer, parts));
        open_proc(parts, &mut steps);
        steps.push(Step::ChangeRoot(root_path(parts)));
    } else {
        mounts(parts, &mut steps);
        // Hooks see the mounts, and still find the host's paths: before the pivot
        // (config.md, "createContainer Hooks").
        steps.push(Step::Sync(Sync::Mounts));
        steps.extend(child_hooks(HookKind::CreateContainer, parts));
        pivot(parts, &mut steps);
    }
    inside(parts, &mut steps);
    let process = &parts.config.process;
    privileges(process, parts.filter.as_ref(), &parts.privilege, parts.program, &[], &mut steps);
    steps.push(Step::Sync(Sync::Ready));
    steps.push(Step::WaitForStart);
    // After `start` and with the privileges of the process: as runc. (The specification says only
    // "in the container namespace, before the user-specified program".)
    steps.extend(child_hooks(HookKind::StartContainer, parts));
    steps.push(Step::Exec);
    steps
}

fn birth(parts: &Parts<'_>, steps: &mut Vec<Step>) {
    // Before all else: in a pid namespace that is not its own it is seen from its clone on (CVE-2016-9962).
    if parts.undumpable_at_once {
        steps.push(Step::Undumpable);
    }
    // A copy of the parent holds its end of the channel too, and the locks and fifos
    // of other containers; while it does, nobody learns of anybody's end.
    steps.push(Step::CloseFds { preserved: parts.options.preserve_fds });
    steps.push(Step::RestoreSignals);
    steps.push(Step::Sync(Sync::Go));
    // Until now an ordinary user's runtime had its id maps and its oom_score_adj to write, which are root's
    // with a process that is not dumpable (proc(5)).
    if !parts.undumpable_at_once {
        steps.push(Step::Undumpable);
    }
    if let Some((uid, gid)) = parts.setup_ids {
        steps.push(Step::SetupIds { uid, gid });
    }
    // A session of its own: signals for the caller's terminal are not for the container.
    steps.push(Step::NewSession);
    steps.extend(parts.namespaces.joins.iter().cloned().map(Step::Join));
    if parts.namespaces.late_cgroup {
        steps.push(Step::NewCgroupNamespace);
    }
    if !parts.options.no_new_keyring {
        let label = lsm::of_keys(&parts.labels).map(CStr::to_owned);
        steps.push(Step::SessionKeyring { name: keyring(parts.id), new: true, label });
    }
    if parts.config.linux.namespaces.network == Namespace::New {
        steps.push(Step::Loopback);
    }
}

/// As runc names it: `keyctl show` on the host tells whose it is.
pub(super) fn keyring(id: &ContainerId) -> CString {
    CString::new(format!("_ses.{id}")).unwrap_or_default()
}

fn mounts(parts: &Parts<'_>, steps: &mut Vec<Step>) {
    // Before anything is mounted: nothing of the container reaches the host's mount table.
    steps.push(Step::IsolateMounts { receive: parts.root.is_some() });
    if let Some(root) = &parts.root {
        steps.push(Step::OpenRoot(root.clone()));
    }
    steps.push(Step::AttachRoot);
    steps.extend(parts.mounts.steps.iter().cloned().map(Step::Mount));
    if !parts.mounts.dev_is_bound {
        steps.push(Step::OpenDev);
        // Modes of nodes are as the configuration says.
        steps.push(Step::Umask(0));
        steps.extend(parts.nodes.iter().cloned().map(Step::Node));
        steps.push(Step::Umask(0o022));
        steps.extend(LINKS.map(|(path, to)| Step::Link { name: link_name(path), to: to.to_owned() }));
        steps.push(Step::Ptmx);
    }
    // As runc: a working directory that is not there is made, with the privilege of the runtime.
    if parts.config.process.cwd.as_c_str() != c"/" {
        steps.push(Step::MakeDirectory(parts.config.process.cwd.clone()));
    }
}

/// Before the pivot: where the container mounts none, it may be that the host's can be used.
fn open_proc(parts: &Parts<'_>, steps: &mut Vec<Step>) {
    if writes_to_proc(parts) {
        steps.push(Step::OpenProc);
    }
}

fn writes_to_proc(parts: &Parts<'_>) -> bool {
    !parts.sysctls.is_empty() || !parts.labels.is_empty()
}

fn pivot(parts: &Parts<'_>, steps: &mut Vec<Step>) {
    // The host's own, while it can still be reached: an image could bring a false one (CVE-2025-31133).
    if !parts.config.linux.masked_paths.is_empty() {
        steps.push(Step::OpenNull);
    }
    open_proc(parts, steps);
    steps.push(if parts.options.no_pivot { Step::MoveRoot(parts.full_mounts.to_vec()) } else { Step::Pivot });
}

fn inside(parts: &Parts<'_>, steps: &mut Vec<Step>) {
    let config = parts.config;
    let process = &config.process;
    let own_mounts = config.linux.namespaces.mount != Namespace::Inherit;
    if process.terminal {
        // In the container's own devpts, so that its number means there what it says.
        let bind = own_mounts && !parts.mounts.dev_is_bound;
        steps.push(Step::Console { size: process.console_size, bind });
        steps.push(Step::ControllingTerminal);
    }
    steps.push(Step::GiveStdio(process.user.uid));
    if let Some(name) = &config.hostname {
        steps.push(Step::Hostname(name.clone()));
    }
    if let Some(name) = &config.domainname {
        steps.push(Step::Domainname(name.clone()));
    }
    // After the last hook that runs as the runtime does, and before paths of proc are covered. They act
    // at the next exec, startContainer hooks' too: those are programs of the image.
    steps.extend(parts.labels.iter().cloned().map(Step::Label));
    // Before /proc/sys becomes read-only.
    steps.extend(parts.sysctls.iter().cloned().map(Step::Sysctl));
    if writes_to_proc(parts) {
        steps.push(Step::CloseProc);
    }
    if own_mounts {
        steps.extend(parts.mounts.late.iter().cloned().map(Step::Mount));
        steps.extend(config.linux.readonly_paths.iter().cloned().map(Step::ReadonlyPath));
        let label = &config.linux.mount_label;
        let mask = |path: &CString| Step::MaskPath { path: path.clone(), label: label.clone() };
        steps.extend(config.linux.masked_paths.iter().map(mask));
        if config.root.readonly {
            let read_only = MountAttr { set: attr::RDONLY, ..MountAttr::default() };
            steps.push(Step::SetRoot(Change { recursive: false, attr: read_only }));
        }
        // On the root of the container, now that it is the root, and on it alone: what is mounted in it
        // has its own word in its options.
        if let Some(word) = config.linux.rootfs_propagation {
            let (kind, _) = propagation_flags(word);
            steps.push(Step::SetRoot(Change { recursive: false, attr: propagation_attr(kind) }));
        }
    }
    if let Some(persona) = config.linux.personality {
        steps.push(Step::Personality(persona));
    }
}

fn child_hooks(kind: HookKind, parts: &Parts<'_>) -> Vec<Step> {
    // startContainer hooks without an environment get the container's, as with runc.
    let env = match kind {
        HookKind::CreateContainer => &[][..],
        HookKind::StartContainer => parts.program.env.strings(),
    };
    // runtime.md, "State": created is what it is when `create` has come to its end.
    let status = match kind {
        HookKind::CreateContainer => "creating",
        HookKind::StartContainer => "created",
    };
    let config = parts.config;
    let state = StateJson::new(
        &config.oci_version,
        parts.id.as_str(),
        status,
        &parts.options.bundle,
        &config.annotations,
    );
    hooks(kind, &parts.config.hooks)
        .iter()
        .enumerate()
        .map(|(index, hook)| Step::Hook {
            kind,
            index,
            hook: ChildHook { program: Prepared::new(hook, env), state: state.clone() },
        })
        .collect()
}

/// From the runtime's privilege to the process's. The same for init and exec; `birth` is what a process does that
/// only comes to be with the rights of its program.
pub(super) fn privileges(
    process: &Process,
    filter: Option<&seccomp::Program>,
    privilege: &Privilege,
    program: &Program,
    birth: &[Step],
    steps: &mut Vec<Step>,
) {
    if program.find_home {
        steps.push(Step::FindHome { uid: privilege.uid });
    }
    if process.no_new_privileges {
        steps.push(Step::NoNewPrivs);
    } else if let Some(filter) = filter {
        // Without no_new_privs a filter needs CAP_SYS_ADMIN, which is about to go (seccomp(2)).
        steps.push(Step::Seccomp(filter.clone()));
    }
    steps.push(Step::DropBounding(privilege.clone()));
    // runc tries both: before, for a folder that only root may enter, and after, for one that only
    // the user may enter (a home on NFS).
    steps.push(Step::TryCwd(process.cwd.clone()));
    steps.push(Step::BecomeUser(privilege.clone()));
    steps.push(Step::Capabilities(privilege.clone()));
    let late = filter.filter(|_| process.no_new_privileges);
    let before_birth = late.filter(|filter| !birth.is_empty() && may_precede(filter));
    steps.extend(before_birth.cloned().map(Step::Seccomp));
    // Before the paths that may lead through `/proc/self`.
    steps.extend(birth.iter().cloned());
    steps.push(Step::Cwd(process.cwd.clone()));
    steps.push(Step::Umask(process.user.umask.unwrap_or(0o022)));
    // With the rights that the program will have, and while there is somebody to tell.
    let named = process.args.first().is_some_and(|program| program.to_bytes().contains(&b'/'));
    steps.push(Step::FindProgram { candidates: program.candidates.clone(), named });
    if before_birth.is_none() {
        // As late as can be: what follows needs as few calls as can be.
        steps.extend(late.cloned().map(Step::Seccomp));
    }
}

/// A birth: what must come after it is the answer of an agent, who is told the pid.
pub(super) fn may_precede(filter: &seccomp::Program) -> bool {
    filter.bears && filter.agent.is_none()
}

fn root_path(parts: &Parts<'_>) -> CString {
    use std::os::unix::ffi::OsStrExt;
    CString::new(parts.config.root.path.as_os_str().as_bytes()).unwrap_or_default()
}
