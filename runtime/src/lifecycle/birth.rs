//! The birth of a container, from its bundle to a process that waits for `start`: the common part of
//! `create` and `run`.

use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use nix::sys::signal::SigSet;
use nix::unistd::Pid;

use super::checks::{check_rootfs, check_sysctls};
use super::lent::{hook_log, lend_entry, make_starter, open_namespaces, open_trees, read_log};
use super::status::identify;
use super::{CreateRequest, Runtime};
use crate::cgroup;
use crate::config::id::ContainerId;
use crate::config::{Config, Namespace};
use crate::error::{Error, Result};
use crate::hooks::{self, StateJson};
use crate::host::{self, Facts, require_system_calls};
use crate::plan::step::Step;
use crate::plan::{self, Options, Plan};
use crate::process::agent;
use crate::process::joiner::JoinerStep;
use crate::process::listen_fds;
use crate::process::notify_socket;
use crate::process::parent::{self, Answers, Arrived, Failing, Init, Spawn};
use crate::process::userns::UserNamespaces;
use crate::state::{Dir, Record, SCHEMA, Stage};
use crate::sys::procfs;
use crate::sys::slots::{self, Slots};
use crate::terminal::socket::{PidfdOf, connect_to, send_pidfd};
use crate::undo::Undo;

/// Whoever bears the container decides these.
pub(super) struct How {
    /// The socket that the pty's master goes to.
    pub(super) console: Option<OwnedFd>,
    /// The signals that the container's process must have blocked: those that we inherited.
    pub(super) mask: SigSet,
    /// We start it ourselves, at once: no other process will come and open the fifo.
    pub(super) start_follows: bool,
}

/// A container that waits for `start`.
pub(super) struct Born {
    pub(super) init: Init,
    pub(super) config: Config,
    /// With `start_follows`: one byte written here is the start.
    pub(super) starter: Option<File>,
    pub(super) notify_folder: Option<PathBuf>,
}

/// All that is known before the first effect.
pub(super) struct Conception {
    bytes: Vec<u8>,
    pub(super) config: Config,
    pub(super) plan: Plan,
    notify_folder: Option<PathBuf>,
}

/// Reads and plans, without any effect. First of all it looks at the descriptors that the caller
/// passes on: before anything is opened the numbers must be the caller's.
pub(super) fn conceive(
    runtime: &Runtime,
    request: &CreateRequest,
    facts: Option<Facts>,
) -> Result<Conception> {
    let passed = listen_fds::passed(&request.listen, Pid::this(), request.preserve_fds)?;
    let (bytes, file) = Config::read(&request.bundle, request.config.as_deref())?;
    let mut config = Config::from_slice(&bytes, &file, &request.bundle)?;
    let mut facts = match facts {
        Some(facts) => Facts { rootless: runtime.rootless.unwrap_or(facts.rootless), ..facts },
        None => {
            let mut facts = probe(runtime)?;
            let asked = &config.process;
            facts.apparmor = asked.apparmor_profile.is_some() && host::lsm::apparmor();
            let asks_selinux = asked.selinux_label.is_some() || config.linux.mount_label.is_some();
            facts.selinux = asks_selinux && host::lsm::selinux();
            facts
        }
    };
    if request.no_pivot {
        facts.probe_full_mounts()?;
    }
    let mut env = passed.env;
    let notify_folder = request
        .notify_socket
        .as_ref()
        .map(|_| notify_socket::folder(&runtime.root.join(request.id.as_str())));
    if let Some(folder) = &notify_folder {
        let (mount, variable) = notify_socket::in_container(folder)?;
        config.mounts.push(mount);
        env.push(variable);
    }
    let options = Options {
        bundle: request.bundle.clone(),
        driver: runtime.cgroup_manager,
        no_pivot: request.no_pivot,
        no_new_keyring: request.no_new_keyring,
        preserve_fds: u32::try_from(passed.fds.len()).unwrap_or(u32::MAX),
        env,
    };
    let plan = plan::build(&request.id, &config, &facts, &options)?;
    Ok(Conception { bytes, config, plan, notify_folder })
}

/// What this host can do, for containers that this caller makes.
pub(super) fn probe(runtime: &Runtime) -> Result<Facts> {
    let mut facts = Facts::probe()?;
    facts.rootless = runtime.rootless.unwrap_or(facts.rootless);
    if runtime.cgroup_manager == cgroup::Driver::Systemd {
        facts.systemd_cgroup = Some(cgroup::manager_cgroup(&facts)?);
    }
    Ok(facts)
}

pub(super) fn bear(
    runtime: &Runtime,
    request: &CreateRequest,
    conception: Conception,
    how: How,
) -> Result<Born> {
    require_system_calls()?;
    check_rootfs(&conception.config.root.path)?;
    check_sysctls(&conception.config)?;
    conception.plan.warnings.iter().for_each(|warning| runtime.warn(warning.clone()));
    let mut undo = Undo::new();
    match effects(runtime, request, how, conception, &mut undo) {
        Ok(born) => {
            undo.forget();
            Ok(born)
        }
        Err(error) => Err(undo.unwind(error)),
    }
}

fn effects(
    runtime: &Runtime,
    request: &CreateRequest,
    how: How,
    conception: Conception,
    undo: &mut Undo<'_>,
) -> Result<Born> {
    let Conception { bytes, config, plan, notify_folder } = conception;
    let dir = Dir::create(&runtime.root, &request.id)?;
    let gone = dir.clone();
    undo.push(move || gone.remove());
    // Before all other effects: what is made from now on is named here, for `delete --force`.
    // Not what is another's: a creator that dies before it is told so must not have it deleted.
    let ours = cgroup::claim(&plan.cgroup)?;
    let mut record = first_record(request, &config, ours);
    dir.save(&record)?;
    dir.save_config(&bytes)?;
    if notify_folder.is_some() {
        notify_socket::make_folder(dir.path())?;
    }
    let cgroup = cgroup::create(&plan.cgroup, undo)?;
    record.cgroup = cgroup.paths().clone();

    let mut slots = Slots::new(plan.slots);
    let userns = UserNamespaces::make(plan.trees.iter().filter_map(|(_, tree)| tree.idmap.as_ref()))?;
    let _trees = open_trees(&plan, &userns, &mut slots)?;
    drop(userns);
    let _namespaces = open_namespaces(&plan, &mut slots)?;
    let starter = make_starter(&dir, how.start_follows, &mut slots)?;
    let console = match (how.console, &request.console_socket) {
        (Some(console), _) => Some(console),
        (None, Some(path)) if config.process.terminal => Some(connect_to("console socket", path)?),
        _ => None,
    };
    if let Some(console) = &console {
        slots.lend(slots::CONSOLE, console);
    }
    let log = hook_log(&plan.steps, &mut slots)?;
    let entry = match &plan.namespaces.joiner {
        // Who moves itself has files of the host's open, and might be seen where it has joined others.
        Some(_) if !cgroup.paths().is_unified() => cgroup::Entry::default(),
        _ => cgroup.entry()?,
    };
    let joiner = joiner_steps(&plan, entry.v2.is_some());
    let spawn = Spawn {
        parentage: &runtime.parentage,
        steps: &plan.steps,
        program: &plan.program,
        joiner: &joiner,
        flags: plan.namespaces.clone_flags,
        cgroup: (entry.v2.is_some() && joiner.is_empty()).then_some(slots::CGROUP),
        tasks: &lend_entry(&entry, &mut slots),
        mask: how.mask,
    };
    let spawned = parent::spawn(&spawn, slots, &Questions(&plan));
    let init = spawned.map_err(|error| explain_oom(error, &cgroup))?;
    drop(console);
    let made = (&cgroup, &entry);
    let grown = grow(request, &config, &plan, made, &dir, &mut record, &init, log.as_ref(), undo);
    match grown {
        Ok(()) => Ok(Born { init, config, starter: starter.theirs, notify_folder }),
        Err(error) => {
            let error = init.explain(error);
            let error = if init.was_killed() { explain_oom(error, &cgroup) } else { error };
            let killed = init.kill();
            // runtime.md, "Lifecycle": a container whose hook failed goes on to its poststop hooks.
            let state = state_of(&request.id, &config, &request.bundle, "stopped").with_pid(0);
            for failed in killed.err().into_iter().chain(run_poststop(&config, &state, &request.bundle)) {
                runtime.warn(failed.to_string());
            }
            Err(error)
        }
    }
}

/// A process that the kernel killed for want of memory cannot say so itself.
fn explain_oom(error: Error, cgroup: &cgroup::Created) -> Error {
    match cgroup.oom_kills() {
        Ok(Some(kills)) => {
            error.context(format!("container init was OOM-killed (memory limit too low?): {}", kills.account))
        }
        Ok(None) => error,
        Err(unread) => Error::Cleanup(vec![error, unread]),
    }
}

/// What is left over when a hook fails is only worth a warning (config.md, "Poststop").
pub(super) fn run_poststop(config: &Config, state: &[u8], bundle: &Path) -> Vec<Error> {
    config
        .hooks
        .poststop
        .iter()
        .filter_map(|hook| hooks::run_all("poststop", std::slice::from_ref(hook), state, bundle).err())
        .collect()
}

pub(super) fn state_of(id: &ContainerId, config: &Config, bundle: &Path, status: &str) -> StateJson {
    StateJson::new(&config.oci_version, id.as_str(), status, bundle, &config.annotations)
}

fn first_record(request: &CreateRequest, config: &Config, cgroup: cgroup::Paths) -> Record {
    Record {
        schema: SCHEMA,
        id: request.id.to_string(),
        stage: Stage::Creating,
        oci_version: config.oci_version.clone(),
        bundle: request.bundle.clone(),
        rootfs: config.root.path.clone(),
        annotations: config.annotations.clone(),
        created: SystemTime::now(),
        owner: nix::unistd::geteuid().as_raw(),
        init: None,
        cgroup,
        shared_pid_namespace: config.linux.namespaces.pid != Namespace::New,
        poststart: !config.hooks.poststart.is_empty(),
        poststop: !config.hooks.poststop.is_empty(),
        no_new_keyring: request.no_new_keyring,
    }
}

fn joiner_steps(plan: &Plan, into_cgroup: bool) -> Vec<JoinerStep> {
    let Some(joiner) = &plan.namespaces.joiner else { return Vec::new() };
    let mut steps: Vec<_> = joiner.joins.iter().cloned().map(JoinerStep::Join).collect();
    if joiner.unshare_user {
        steps.push(JoinerStep::UnshareUser);
    }
    if joiner.unshare_time {
        steps.push(JoinerStep::UnshareTime);
    }
    steps.push(JoinerStep::Clone {
        flags: plan.namespaces.clone_flags,
        cgroup: into_cgroup.then_some(slots::CGROUP),
    });
    steps
}

/// What the joiner asks for.
struct Questions<'p>(&'p Plan);

impl Answers for Questions<'_> {
    fn write_maps(&self, joiner: i32) -> Result<()> {
        self.0.id_maps.as_ref().map_or(Ok(()), |maps| maps.write(joiner))
    }

    fn write_offsets(&self, joiner: i32) -> Result<()> {
        if self.0.timens_offsets.is_empty() {
            return Ok(());
        }
        procfs::write_of(joiner, "timens_offsets", &self.0.timens_offsets)
            .map_err(|e| Error::sys("write", format!("/proc/{joiner}/timens_offsets"), e))
    }
}

/// From the clone to `Ready`.
#[allow(clippy::too_many_arguments)]
fn grow(
    request: &CreateRequest,
    config: &Config,
    plan: &Plan,
    (cgroup, entry): (&cgroup::Created, &cgroup::Entry),
    dir: &Dir,
    record: &mut Record,
    init: &Init,
    log: Option<&File>,
    undo: &mut Undo<'_>,
) -> Result<()> {
    let pid = Pid::from_raw(init.pid);
    if let (Some(maps), false) = (&plan.id_maps, maps_are_the_joiners(plan)) {
        maps.write(init.pid)?;
    }
    plan.limits.apply_initial(pid)?;
    if entry.is_empty() {
        cgroup::adopt(&plan.cgroup, cgroup, init.pid, undo)?;
    } else if !entry.tasks.is_empty() {
        let describe = |index: usize| failing(&plan.steps, &plan.program, index);
        init.enter(&describe, &|index, errno| entry.refused(index, errno))?;
    }
    plan.limits.apply(pid)?;
    record.init = Some(identify(init.pid)?);
    dir.save(record)?;
    init.go()?;

    let output = || read_log(log);
    let describe = |index: usize| failing(&plan.steps, &plan.program, index);
    expect(init, init.wait(&describe, &output)?, Arrived::Mounts)?;
    // The process stands still here, and is still as privileged as we are: a limit is not in the
    // way of its own mounts, and may be raised as far as we may.
    plan.limits.apply_rlimits(pid)?;
    if !(plan.prestart.is_empty() && plan.create_runtime.is_empty()) {
        let state = state_of(&request.id, config, &request.bundle, "creating");
        let state = state.with_pid(init.pid.unsigned_abs());
        hooks::run_all("prestart", &plan.prestart, &state, &request.bundle)?;
        hooks::run_all("createRuntime", &plan.create_runtime, &state, &request.bundle)?;
    }
    init.hooks_done()?;
    let mut arrived = init.wait(&describe, &output)?;
    if let Arrived::Listener(listener) = arrived {
        let state = state_of(&request.id, config, &request.bundle, "creating");
        let state = state.with_pid(init.pid.unsigned_abs());
        agent::hand_over(init, listener, agent::of(&plan.steps)?, &state)?;
        arrived = init.wait(&describe, &output)?;
    }
    expect(init, arrived, Arrived::Ready)?;
    if let Some(path) = &request.pidfd_socket {
        send_pidfd(path, init.pidfd.as_fd(), PidfdOf::Init)?;
    }
    record.stage = Stage::Created;
    dir.save(record)
}

fn maps_are_the_joiners(plan: &Plan) -> bool {
    plan.namespaces.joiner.as_ref().is_some_and(|joiner| joiner.unshare_user)
}

fn expect(init: &Init, arrived: Arrived, expected: Arrived) -> Result<()> {
    match arrived {
        _ if arrived == expected => Ok(()),
        Arrived::Executed => Err(init.end()),
        Arrived::Mounts | Arrived::Listener(_) | Arrived::Ready | Arrived::Born(_) => {
            Err(Error::Protocol("the container's first process spoke out of turn".into()))
        }
    }
}

/// The words for a step.
pub(super) fn failing(steps: &[Step], program: &plan::Program, index: usize) -> Failing {
    match steps.get(index) {
        Some(Step::FindProgram { .. } | Step::Exec) => {
            Failing::Program(program.args.strings().first().map_or_else(String::new, text))
        }
        Some(Step::Hook { kind, index, hook }) => {
            Failing::Hook { kind: kind.word(), index: *index, path: text(&hook.program.path) }
        }
        Some(step) => Failing::Other(step.to_string()),
        None => Failing::Other(format!("unknown step {index}")),
    }
}

fn text(string: &CString) -> String {
    string.to_string_lossy().into_owned()
}
