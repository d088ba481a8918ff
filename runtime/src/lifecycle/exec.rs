//! `exec`: another process in a container that runs.

use std::ffi::CString;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::SigSet;
use nix::unistd::{Pid, geteuid};

use super::birth::failing;
use super::checks::check_terminal;
use super::process::of_exec;
use super::start::stored_config;
use super::status::status;
use super::{ExecRequest, Runtime, pid_file};
use crate::cgroup::{self, Entry};
use crate::config::id::ContainerId;
use crate::config::{Config, IdMapping, Namespace, Process};
use crate::error::{Error, Lifecycle, Result};
use crate::hooks::StateJson;
use crate::host::{self, require_system_calls};
use crate::limits::Limits;
use crate::lsm;
use crate::namespace::idmap::first_id;
use crate::namespace::{Kind, plan::of};
use crate::plan::{self, Program, Step};
use crate::privilege::{self, Privilege};
use crate::process::agent;
use crate::process::foreground::Foreground;
use crate::process::joiner::JoinerStep;
use crate::process::listen_fds;
use crate::process::parent::{self, Answers, Arrived, Init, Parentage, Spawn};
use crate::seccomp;
use crate::state::{self, Dir, Record, Status};
use crate::sys::pidfd::pidfd_open;
use crate::sys::procfs;
use crate::sys::signal;
use crate::sys::slots::{self, Slots};
use crate::terminal::socket::{PidfdOf, connect_to, send_pidfd};

/// The exit code: the process's, or 0 when detached.
pub fn exec(runtime: &Runtime, request: &ExecRequest) -> Result<u8> {
    // Before we open anything: the numbers must be the caller's.
    let passed = listen_fds::passed(&request.listen, Pid::this(), request.preserve_fds)?;
    require_system_calls()?;
    let dir = Dir::open(&runtime.root, &request.id)?;
    // Not while a `kill --all` has them stand still. It must be let go before the clone.
    let lock = dir.lock_shared()?;
    let record = dir.load()?;
    let now = status(&dir, &record)?;
    drop(lock);
    let refuse = |why| Err(Error::State { id: request.id.to_string(), why });
    match now {
        Status::Stopped | Status::Creating => return refuse(Lifecycle::ExecStopped),
        Status::Paused if !request.ignore_paused => return refuse(Lifecycle::ExecPaused),
        Status::Paused | Status::Created | Status::Running => {}
    }
    let Some(init) = record.init else { return refuse(Lifecycle::ExecStopped) };
    let config = stored_config(&dir, &record.bundle)?;
    let mut process = of_exec(&request.process, &config, runtime)?;
    // As runc: a process that names none is confined as the container is.
    process.apparmor_profile = process.apparmor_profile.or_else(|| config.process.apparmor_profile.clone());
    process.selinux_label = process.selinux_label.or_else(|| config.process.selinux_label.clone());
    let mut warnings = Vec::new();
    process.capabilities = process.capabilities.map(|sets| plan::build::possible(sets, &mut warnings));
    warnings.into_iter().for_each(|warning| runtime.warn(warning));
    check_terminal(process.terminal, request.detach, request.console_socket.is_some())?;
    let container = Container::look(init, now, &config, &record)?;
    let plan = Plan::new(&request.id, &container, &process, &passed, &runtime.parentage)?;
    if request.detach { detached(request, &container, &plan) } else { attached(request, &container, &plan) }
        .map_err(super::create::unable_to_start)
}

/// How long a program may take to begin after `start` has returned.
const BEGINNING: Duration = Duration::from_secs(10);

fn namespace(path: &Path) -> Result<u64> {
    fs::metadata(path).map(|m| m.ino()).map_err(|e| Error::io("stat", path, &e))
}

/// `start` returns before the program runs, and until then the process is not dumpable: only root may look
/// into it. An ordinary user waits for the program.
fn namespace_of_init(init: state::Init, status: Status) -> Result<u64> {
    let path = PathBuf::from(format!("/proc/{}/ns/user", init.pid));
    let begun = Instant::now();
    loop {
        match namespace(&path) {
            Err(error) if error.errno() == Some(Errno::EACCES) && !geteuid().is_root() => {
                if status != Status::Running || begun.elapsed() >= BEGINNING {
                    let why =
                        "its program does not run yet, and only root may look into the process before that";
                    return Err(error.context(why));
                }
            }
            other => return other,
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The container that is joined, as it is now.
struct Container<'a> {
    config: &'a Config,
    record: &'a Record,
    init: state::Init,
    status: Status,
    pidfd: OwnedFd,
    /// Its user namespace is another one than ours.
    other_user_namespace: bool,
    setgroups_denied: bool,
}

impl<'a> Container<'a> {
    fn look(init: state::Init, status: Status, config: &'a Config, record: &'a Record) -> Result<Self> {
        let stopped = || Error::State { id: record.id.clone(), why: Lifecycle::ExecStopped };
        let pidfd = pidfd_open(init.pid).map_err(|e| match e {
            Errno::ESRCH => stopped(),
            other => Error::sys("pidfd_open", init.pid, other),
        })?;
        let other_user_namespace = config.linux.namespaces.user != Namespace::Inherit
            && namespace_of_init(init, status)? != namespace(Path::new("/proc/self/ns/user"))?;
        let setgroups_denied = other_user_namespace
            && fs::read_to_string(format!("/proc/{}/setgroups", init.pid))
                .is_ok_and(|t| t.starts_with("deny"));
        // What was read above was of this very process if it still lives.
        if !super::status::is_alive(init)? {
            return Err(stopped());
        }
        Ok(Self { config, record, init, status, pidfd, other_user_namespace, setgroups_denied })
    }

    /// The specification's document.
    fn state(&self) -> Vec<u8> {
        let Record { id, oci_version, bundle, annotations, .. } = self.record;
        StateJson::new(oci_version, id, self.status.as_str(), bundle, annotations)
            .with_pid(self.init.pid.unsigned_abs())
    }

    /// What the joiner enters: what the container does not share with its runtime.
    fn kinds(&self) -> libc::c_int {
        Kind::ALL
            .into_iter()
            .filter(|kind| match kind {
                Kind::User => self.other_user_namespace,
                other => *of(&self.config.linux.namespaces, *other) != Namespace::Inherit,
            })
            .fold(0, |kinds, kind| kinds | kind.flag())
    }

    fn setup_ids(&self) -> Result<Option<(u32, u32)>> {
        if !self.other_user_namespace {
            return Ok(None);
        }
        let id = |file: &str| {
            let path = PathBuf::from(format!("/proc/{}/{file}", self.init.pid));
            let text = fs::read_to_string(&path).map_err(|e| Error::io("read", &path, &e))?;
            Ok::<_, Error>(first_id(&parse_map(&text)))
        };
        Ok(Some((id("uid_map")?, id("gid_map")?)))
    }
}

fn parse_map(text: &str) -> Vec<IdMapping> {
    text.lines()
        .filter_map(|line| {
            let mut numbers = line.split_ascii_whitespace().map(str::parse);
            let (Ok(container_id), Ok(host_id), Ok(size)) =
                (numbers.next()?, numbers.next()?, numbers.next()?)
            else {
                return None;
            };
            Some(IdMapping { container_id, host_id, size })
        })
        .collect()
}

struct Plan {
    steps: Vec<Step>,
    program: Program,
    joiner: Vec<JoinerStep>,
    limits: Limits,
    parentage: Parentage,
    born_last: bool,
}

impl Plan {
    fn new(
        id: &ContainerId,
        container: &Container<'_>,
        process: &Process,
        passed: &listen_fds::Passed,
        parentage: &Parentage,
    ) -> Result<Self> {
        let config = container.config;
        let mut env = privilege::environment(&process.env);
        env.extend(passed.env.iter().cloned());
        let program = Program::new(&process.args, env);
        let facts_last = crate::host::last_capability()?;
        let privilege = Privilege::plan(
            &process.user,
            process.capabilities,
            facts_last,
            container.setgroups_denied || crate::host::setgroups_denied(),
        );
        let filter = match (&config.linux.seccomp, seccomp::Arch::host()) {
            (Some(profile), Some(arch)) => Some(
                seccomp::compile(profile, arch)
                    .map_err(|problems| Error::Config { file: "config.json".into(), problems })?,
            ),
            _ => None,
        };
        let enabled = lsm::Enabled {
            apparmor: process.apparmor_profile.is_some() && host::lsm::apparmor(),
            selinux: process.selinux_label.is_some() && host::lsm::selinux(),
        };
        let labels = lsm::plan(process, enabled)
            .map_err(|problems| Error::Config { file: "process".into(), problems })?;
        let root = config.linux.namespaces.mount == Namespace::Inherit;
        let limits = Limits::of_exec(process);
        // Another user could not write to the files in /proc of what is born so.
        let born_last = geteuid().is_root()
            && plan::exec::is_born_last(config, container.other_user_namespace, process, filter.as_ref());
        let steps = plan::exec::steps(&plan::exec::Input {
            id,
            process,
            labels: &labels,
            filter: filter.as_ref(),
            privilege: &privilege,
            program: &program,
            preserve_fds: u32::try_from(passed.fds.len()).unwrap_or(u32::MAX),
            undumpable_at_once: geteuid().is_root() || limits.oom_score_adj.is_none(),
            setup_ids: container.setup_ids()?,
            join_keyring: !container.record.no_new_keyring,
            personality: config.linux.personality,
            born_last,
            change_root: root.then(|| c_path(&config.root.path)),
        });
        let mut joiner = vec![JoinerStep::JoinAll { init: slots::INIT, kinds: container.kinds() }];
        if !born_last {
            joiner.push(JoinerStep::Clone { flags: 0, cgroup: None });
        }
        Ok(Self { steps, program, joiner, limits, parentage: parentage.clone(), born_last })
    }
}

fn c_path(path: &Path) -> CString {
    use std::os::unix::ffi::OsStrExt;
    CString::new(path.as_os_str().as_bytes()).unwrap_or_default()
}

fn detached(request: &ExecRequest, container: &Container<'_>, plan: &Plan) -> Result<u8> {
    let mask = signal::mask().map_err(|e| Error::sys("sigprocmask", "", e))?;
    let console = match &request.console_socket {
        Some(path) => Some(connect_to("console socket", path)?),
        None => None,
    };
    let process = execute(request, container, plan, console, mask, None)?;
    if let Some(path) = &request.pid_file
        && let Err(error) = pid_file::write(path, process.pid)
    {
        // Nobody would know of it.
        return Err(match process.kill() {
            Ok(()) => error,
            Err(left) => Error::Cleanup(vec![error, left]),
        });
    }
    Ok(0)
}

fn attached(request: &ExecRequest, container: &Container<'_>, plan: &Plan) -> Result<u8> {
    let terminal = plan.steps.iter().any(|step| matches!(step, Step::Console { .. }));
    let (mut foreground, console) = Foreground::prepare(terminal, false)?;
    let mask = *foreground.original_mask();
    let process = execute(request, container, plan, console, mask, Some(&mut foreground))?;
    if let Some(path) = &request.pid_file {
        pid_file::write(path, process.pid)?;
    }
    foreground.wait(Pid::from_raw(process.pid), process.pidfd.as_fd(), None)
}

/// Until its program runs: only then is there nothing left that could fail.
fn execute(
    request: &ExecRequest,
    container: &Container<'_>,
    plan: &Plan,
    console: Option<OwnedFd>,
    mask: SigSet,
    foreground: Option<&mut Foreground>,
) -> Result<Init> {
    let (mut process, is_inside) = bear(request, container, plan, console.as_ref(), mask)?;
    drop(console);
    match lead(request, container, plan, &mut process, is_inside, foreground) {
        Ok(()) => Ok(process),
        Err(error) => match process.kill() {
            Ok(()) => Err(error),
            Err(left) => Err(Error::Cleanup(vec![error, left])),
        },
    }
}

/// Also says whether it was born in the container's cgroups.
fn bear(
    request: &ExecRequest,
    container: &Container<'_>,
    plan: &Plan,
    console: Option<&OwnedFd>,
    mask: SigSet,
) -> Result<(Init, bool)> {
    let cgroups = &container.record.cgroup;
    let mut entry = cgroups.entry_for_exec(&request.cgroup)?;
    let mut born = spawn(container, plan, console, &entry, mask);
    let failed_by = |born: &Result<Init>, errno| born.as_ref().is_err_and(|e| e.errno() == Some(errno));
    if failed_by(&born, Errno::EBUSY) && entry.v2.is_some() && request.cgroup.is_empty() {
        // The container has handed controllers to cgroups of its own: where its first process is there is room.
        entry.v2 = Some(cgroups.open_of_init(container.init.pid)?);
        born = spawn(container, plan, console, &entry, mask);
    }
    if failed_by(&born, Errno::EAGAIN) && !entry.tasks.is_empty() {
        // Its limit of processes has no room for a joiner beside the new one; who is moved in is not measured by it.
        entry = Entry::default();
        born = spawn(container, plan, console, &entry, mask);
    }
    Ok((born?, !entry.is_empty()))
}

fn enter_cgroups(entry: &Entry, slots: &mut Slots) -> Vec<JoinerStep> {
    let step = |tasks: &cgroup::Tasks| JoinerStep::EnterCgroup {
        tasks: slots.lend_more(&tasks.fd),
        file: tasks.file.clone(),
    };
    entry.tasks.iter().map(step).collect()
}

fn spawn(
    container: &Container<'_>,
    plan: &Plan,
    console: Option<&OwnedFd>,
    entry: &Entry,
    mask: SigSet,
) -> Result<Init> {
    let mut slots = Slots::new(0);
    slots.lend(slots::INIT, &container.pidfd);
    if let Some(console) = console {
        slots.lend(slots::CONSOLE, console);
    }
    if let Some(cgroup) = &entry.v2 {
        slots.lend(slots::CGROUP, cgroup);
    }
    // Who is not in the container's pid namespace does not find himself in its proc.
    let proc = match plan.born_last {
        true => Some(procfs::mounted().map_err(|e| Error::sys("open", "/proc", e))?),
        false => None,
    };
    if let Some(proc) = &proc {
        slots.lend(slots::PROC, proc);
    }
    let mut joiner = enter_cgroups(entry, &mut slots);
    joiner.extend(plan.joiner.iter().cloned());
    let spawn = Spawn {
        parentage: &plan.parentage,
        steps: &plan.steps,
        program: &plan.program,
        joiner: &joiner,
        flags: 0,
        // The joiner, while it sees the host's cgroups: from inside a cgroup namespace that is ENOENT
        // under nsdelegate (cgroups(7)). What it clones is where it is, and has no folder of a cgroup open.
        cgroup: entry.v2.as_ref().map(|_| slots::CGROUP),
        tasks: &[],
        mask,
    };
    parent::spawn(&spawn, slots, &NoQuestions)
}

fn lead(
    request: &ExecRequest,
    container: &Container<'_>,
    plan: &Plan,
    process: &mut Init,
    is_inside: bool,
    foreground: Option<&mut Foreground>,
) -> Result<()> {
    let pid = Pid::from_raw(process.pid);
    plan.limits.apply_initial(pid)?;
    if !is_inside {
        container.record.cgroup.join_for_exec(process.pid, container.init.pid, &request.cgroup)?;
    }
    // The terminal comes before the program; when it does not come, there is an error to read.
    let attach = || foreground.map_or(Ok(()), Foreground::attach);
    // Resource limits while it stands still and is as privileged as we are: they may be raised as far as we may.
    let attached = if plan.born_last {
        plan.limits.apply_rlimits(pid)?;
        process.go()?;
        let attached = attach();
        be_born(plan, process)?;
        // Not all of these limits are passed on to a child (sched(7), SCHED_FLAG_RESET_ON_FORK).
        plan.limits.apply(Pid::from_raw(process.pid))?;
        hand_out(request, process)?;
        process.go()?;
        attached
    } else {
        plan.limits.apply(pid)?;
        plan.limits.apply_rlimits(pid)?;
        hand_out(request, process)?;
        process.go()?;
        attach()
    };
    executed(container, plan, process)?;
    attached
}

fn hand_out(request: &ExecRequest, process: &Init) -> Result<()> {
    match &request.pidfd_socket {
        Some(path) => send_pidfd(path, process.pidfd.as_fd(), PidfdOf::Exec),
        None => Ok(()),
    }
}

fn be_born(plan: &Plan, process: &mut Init) -> Result<()> {
    let failing = |index: usize| failing(&plan.steps, &plan.program, index);
    match process.wait(&failing, &String::new)? {
        Arrived::Born(pid) => process.born(pid, &plan.parentage),
        Arrived::Executed => Err(process.end()),
        _ => Err(Error::Protocol("the joiner spoke out of turn".into())),
    }
}

/// Whether its program runs now: the end of the channel says so only of a process that had come so far.
fn executed(container: &Container<'_>, plan: &Plan, process: &Init) -> Result<()> {
    let failing = |index: usize| failing(&plan.steps, &plan.program, index);
    for expected in [Arrived::Ready, Arrived::Executed] {
        let mut arrived = process.wait(&failing, &String::new)?;
        if let Arrived::Listener(listener) = arrived {
            agent::hand_over(process, listener, agent::of(&plan.steps)?, &container.state())?;
            arrived = process.wait(&failing, &String::new)?;
        }
        match arrived {
            arrived if arrived == expected => {}
            Arrived::Executed => return Err(process.end()),
            _ => return Err(Error::Protocol("the process spoke out of turn".into())),
        }
    }
    Ok(())
}

/// The joiner of an exec makes no namespaces, so it asks for nothing.
struct NoQuestions;

impl Answers for NoQuestions {
    fn write_maps(&self, _joiner: i32) -> Result<()> {
        Err(Error::Protocol("the joiner of an exec asked for id maps".into()))
    }

    fn write_offsets(&self, _joiner: i32) -> Result<()> {
        Err(Error::Protocol("the joiner of an exec asked for clock offsets".into()))
    }
}
