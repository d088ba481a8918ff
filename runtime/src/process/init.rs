//! Everything that runs between the clone and the container's program, from top to bottom. The plan
//! has decided all; this walks it. No allocation, no locks, no panics: only system calls.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::signal::SigSet;
use nix::sys::stat::{Mode, umask};
use nix::unistd::{chdir, read, setsid, write};

use super::channel::InitEnd;
use super::protocol::{FromInit, ToInit};
use crate::error::{StepFailure, StepKind};
use crate::hooks::{self, ChildHook, HookFailure};
use crate::lsm::{self, selinux};
use crate::namespace::apply as namespace;
use crate::plan::Program;
use crate::plan::step::{HookKind, Step, Sync};
use crate::privilege::apply::{self as privilege, Home};
use crate::rootfs::{apply as rootfs, masked, pivot, resolve, sysctl};
use crate::sys::clone::{OneThread, clone_sibling, execve, exit_now};
use crate::sys::slots::{self, Slot, Slots};
use crate::sys::{errno_text, fd, keyctl, prctl, procfs, signal, tty};
use crate::{limits, seccomp, terminal};

/// What init takes with it from the parent, all made before the clone.
pub struct Birth<'p> {
    pub steps: &'p [Step],
    pub program: &'p Program,
    pub slots: Slots,
    pub channel: InitEnd,
    /// The signals that were blocked before the runtime blocked more.
    pub mask: SigSet,
    /// Room for the numbers of descriptors: see [`Birth::scratch_for`].
    pub scratch: Vec<RawFd>,
    /// By which it moves itself (`cgroup::Entry`).
    pub tasks: &'p [Slot],
}

/// After `Ready` nobody listens any more.
const FAILED_TO_EXEC: i32 = 255;

struct Child<'p> {
    birth: Birth<'p>,
    one_thread: OneThread,
    /// Our pid as the runtime sees it.
    pid: i32,
    home: Option<Home>,
    program: usize,
    in_cwd: bool,
    ready: bool,
}

impl Birth<'_> {
    pub fn scratch_for(slots: &Slots) -> Vec<RawFd> {
        vec![-1; slots.len() + 1]
    }
}

/// The child's whole life until its program: never returns.
pub fn run(birth: Birth<'_>, one_thread: OneThread) -> ! {
    crate::sys::alloc_guard::forbid();
    let steps = birth.steps;
    let mut child = Child { birth, one_thread, pid: 0, home: None, program: 0, in_cwd: false, ready: false };
    for (index, step) in steps.iter().enumerate() {
        if let Err(failure) = child.walk(step) {
            child.fail(index, step, failure);
        }
    }
    // A plan ends with Exec, which does not come back.
    exit_now(FAILED_TO_EXEC)
}

impl Child<'_> {
    fn walk(&mut self, step: &Step) -> Result<(), StepFailure> {
        let slots = &mut self.birth.slots;
        match step {
            Step::CloseFds { preserved } => close_others(&mut self.birth, *preserved)?,
            Step::RestoreSignals => restore_signals(&self.birth.mask)?,
            Step::Sync(sync) => self.meet(*sync)?,
            Step::Undumpable => prctl::set_undumpable()?,
            Step::SetupIds { uid, gid } => setup_ids(*uid, *gid)?,
            Step::NewSession => drop(setsid()?),
            Step::Join(join) => namespace::join(join, slots)?,
            Step::NewCgroupNamespace => namespace::enter_new_cgroup_namespace()?,
            Step::SessionKeyring { name, new, label: None } => session_keyring(name, *new)?,
            Step::SessionKeyring { name, new, label: Some(label) } => {
                selinux::label_new_keys(label, slots)?;
                session_keyring(name, *new)?;
                selinux::label_new_keys(c"", slots)?;
            }
            Step::Loopback => namespace::loopback_up()?,
            Step::Hostname(name) => namespace::set_hostname(name)?,
            Step::Domainname(name) => namespace::set_domainname(name)?,
            Step::IsolateMounts { receive } => pivot::isolate(*receive)?,
            Step::OpenRoot(tree) => {
                let root = rootfs::open_tree(tree, None)?;
                slots.keep(slots::ROOT, root);
            }
            Step::AttachRoot => pivot::attach(slots)?,
            Step::Mount(mount) => rootfs::mount(mount, slots)?,
            Step::OpenDev => rootfs::open_dev(slots)?,
            Step::Umask(mask) => drop(umask(Mode::from_bits_truncate(*mask))),
            Step::Node(node) => rootfs::make_node(node, slots)?,
            Step::Link { name, to } => rootfs::make_link(slots.get(slots::DEV)?, name, to)?,
            Step::Ptmx => rootfs::make_ptmx(slots.get(slots::DEV)?)?,
            Step::MakeDirectory(path) => {
                drop(resolve::open(slots.get(slots::ROOT)?, path, resolve::Make::Directory)?);
            }
            Step::Hook { hook, .. } => run_hook(hook, self.pid, slots)?,
            Step::OpenNull => masked::open_null(slots)?,
            Step::OpenProc => procfs::provide(slots)?,
            Step::CloseProc => slots.close(slots::PROC),
            Step::Label(label) => lsm::apply(label, slots)?,
            Step::Pivot => pivot::pivot(slots)?,
            Step::MoveRoot(full) => pivot::move_root(slots, full)?,
            Step::ChangeRoot(path) => pivot::change_root(path)?,
            Step::Console { size, bind } => console(slots, *size, *bind)?,
            Step::ControllingTerminal => tty::make_controlling(tty::standard_streams()[0])?,
            Step::GiveStdio(uid) => terminal::stdio::give_to(*uid)?,
            Step::Sysctl(write) => sysctl::write(slots.get(slots::PROC)?, &write.path, &write.value)?,
            Step::ReadonlyPath(path) => masked::make_readonly(slots.get(slots::ROOT)?, path)?,
            Step::MaskPath { path, label } => masked::mask(slots, path, label.as_deref())?,
            Step::SetRoot(change) => pivot::set_root(slots, change.recursive, &change.attr)?,
            Step::Personality(persona) => limits::personality::apply(*persona)?,
            Step::FindHome { uid } => self.home = Some(Home::of(*uid)?),
            Step::NoNewPrivs => prctl::set_no_new_privs()?,
            Step::Seccomp(filter) => {
                if let Some(listener) = seccomp::apply::load(filter)? {
                    self.give(listener)?;
                }
            }
            Step::DropBounding(to) => privilege::drop_bounding(to)?,
            // What is wrong with it the second try will say, with the rights of the process.
            Step::TryCwd(path) => self.in_cwd = chdir(path.as_c_str()).is_ok(),
            Step::BecomeUser(to) => privilege::become_user(to)?,
            Step::Capabilities(to) => privilege::set_capabilities(to)?,
            Step::Cwd(path) => self.enter_cwd(path)?,
            Step::FindProgram { candidates, named } => {
                self.program = privilege::find_program(candidates, *named)?;
            }
            Step::Birth => self.bear()?,
            Step::WaitForStart => wait_for_start(slots)?,
            Step::Exec => return Err(self.exec().into()),
        }
        Ok(())
    }

    fn meet(&mut self, sync: Sync) -> Result<(), StepFailure> {
        let channel = &self.birth.channel;
        match sync {
            Sync::Go => match channel.receive()? {
                Some(ToInit::Go { pid }) => self.pid = pid,
                Some(ToInit::Enter) => {
                    self.enter_cgroups()?;
                    self.birth.channel.send(FromInit::Entered)?;
                    return self.meet(sync);
                }
                other => return Err(unexpected(other)),
            },
            Sync::Mounts => {
                channel.send(FromInit::Mounts)?;
                match channel.receive()? {
                    Some(ToInit::HooksDone) => {}
                    other => return Err(unexpected(other)),
                }
            }
            Sync::Ready => {
                channel.send(FromInit::Ready)?;
                self.ready = true;
            }
            Sync::Executing => channel.send(FromInit::Ready)?,
        }
        Ok(())
    }

    /// The failure says which of them.
    fn enter_cgroups(&mut self) -> Result<(), StepFailure> {
        for (index, slot) in (0..).zip(self.birth.tasks) {
            let entered = enter_cgroup(&mut self.birth.slots, *slot);
            entered.map_err(|errno| StepFailure { kind: StepKind::NotInCgroup, errno, value: index })?;
        }
        Ok(())
    }

    /// To the runtime, which takes it out of here where it may (`process::agent` says why so). Only the
    /// agent is to hold it: when he is gone, notifications fail and do not wait for ever.
    fn give(&self, listener: OwnedFd) -> Result<(), StepFailure> {
        let channel = &self.birth.channel;
        let message = FromInit::Listener { number: listener.as_raw_fd() };
        channel.send(message)?;
        match channel.receive()? {
            Some(ToInit::ListenerTaken) => {}
            Some(ToInit::SendListener) => channel.send_descriptor(message, listener.as_fd())?,
            other => return Err(unexpected(other)),
        }
        drop(listener);
        // Nothing of the program runs before there is an agent.
        match channel.receive()? {
            Some(ToInit::Done) => Ok(()),
            other => Err(unexpected(other)),
        }
    }

    /// Goes on in the child, which ends when nobody lets it go.
    fn bear(&self) -> Result<(), StepFailure> {
        match clone_sibling(&self.one_thread)? {
            None => Ok(()),
            Some(pid) => {
                self.birth.channel.send(FromInit::Born { pid })?;
                exit_now(0)
            }
        }
    }

    fn enter_cwd(&self, path: &CStr) -> Result<(), StepFailure> {
        if !self.in_cwd {
            chdir(path)?;
        }
        // A folder of the host that was still open would be found outside of the root, whoever went
        // there: so it is looked at in any case.
        privilege::is_inside()
    }

    fn exec(&self) -> Errno {
        let program = self.birth.program;
        let home = self.home.as_ref().map(Home::as_cstr);
        match program.candidates.get(self.program) {
            Some(path) => execve(path, &program.args, &program.env, home),
            None => Errno::ENOENT,
        }
    }

    /// To the runtime while it listens; afterwards on standard error, in runc's words, where the
    /// engine's log of the container shows it.
    fn fail(&self, index: usize, step: &Step, failure: StepFailure) -> ! {
        if !self.ready {
            let step = u16::try_from(index).unwrap_or(u16::MAX);
            // When nobody hears it there is nothing left to do but to go.
            let _sent = self.birth.channel.send(FromInit::Failed { step, failure });
            exit_now(1);
        }
        let what: [&[u8]; 2] = match step {
            Step::Exec => {
                [b"exec ", self.birth.program.candidates.get(self.program).map_or(b"", |p| p.to_bytes())]
            }
            Step::Hook { kind: HookKind::StartContainer, hook, .. } => {
                [b"error running startContainer hook ", hook.program.path.to_bytes()]
            }
            _ => [b"wait for start", b""],
        };
        let why: &[u8] = match failure.kind {
            StepKind::HookTimeout => b"it ran longer than its timeout",
            StepKind::HookStatus if failure.value < 0 => b"it was ended by a signal",
            StepKind::HookStatus => b"it ended with another status than 0",
            _ => errno_text(failure.errno).as_bytes(),
        };
        for part in [what[0], what[1], b": ", why, b"\n"] {
            let _written = write(std::io::stderr().as_fd(), part);
        }
        exit_now(FAILED_TO_EXEC)
    }
}

fn unexpected(message: Option<ToInit>) -> StepFailure {
    match message {
        None => StepFailure::new(StepKind::ParentGone, Errno::EPIPE),
        Some(_) => StepFailure::new(StepKind::Unexpected, Errno::EBADMSG),
    }
}

/// By the file `tasks` of v1, which does not stay open: a container has no use for its host's cgroups.
pub(super) fn enter_cgroup(slots: &mut Slots, tasks: Slot) -> Result<(), Errno> {
    let file = slots.get(tasks)?;
    // `0` is whoever writes it.
    while let Err(errno) = write(file, b"0") {
        if errno != Errno::EINTR {
            return Err(errno);
        }
    }
    slots.close(tasks);
    Ok(())
}

/// Closes the gaps between what is kept.
pub(super) fn close_others(birth: &mut Birth<'_>, preserved: u32) -> Result<(), Errno> {
    let scratch = &mut birth.scratch[..];
    let open = birth.slots.open_numbers(scratch).len();
    scratch[open] = birth.channel.number();
    let keep = &mut scratch[..=open];
    keep.sort_unstable();
    let mut next = 3 + RawFd::try_from(preserved).map_err(|_| Errno::EINVAL)?;
    for &mut kept in keep {
        if kept > next {
            fd::close_range(next, kept - 1)?;
        }
        next = next.max(kept + 1);
    }
    fd::close_range(next, RawFd::MAX)
}

/// Rust ignores SIGPIPE and the runtime blocks signals; both would outlive the exec.
fn restore_signals(mask: &SigSet) -> Result<(), Errno> {
    signal::default_sigpipe()?;
    signal::set_mask(mask)
}

fn setup_ids(uid: u32, gid: u32) -> Result<(), Errno> {
    // Groups of the host's do not belong here; where they cannot be left, the process keeps none of
    // their rights either, because they are not mapped.
    match prctl::setgroups(&[]) {
        Ok(()) | Err(Errno::EPERM) => {}
        Err(errno) => return Err(errno),
    }
    prctl::setgid(gid)?;
    prctl::setuid(uid)
}

/// A kernel without keyrings, or one where they are forbidden to us, has none to leak.
fn session_keyring(name: &CStr, new: bool) -> Result<(), Errno> {
    let serial = match keyctl::join_session_keyring(name) {
        Ok(serial) => serial,
        Err(Errno::ENOSYS) => return Ok(()),
        Err(errno) => return Err(errno),
    };
    if !new {
        return Ok(());
    }
    // The process may become another user, who is to find his keyring: as runc.
    keyctl::add_permissions(serial, keyctl::USER_SEARCH)
}

fn run_hook(hook: &ChildHook, pid: i32, slots: &Slots) -> Result<(), StepFailure> {
    let log = slots.get(slots::HOOK_LOG)?;
    hooks::apply::run_in_child(hook, pid.unsigned_abs(), log).map_err(|failure| match failure {
        HookFailure::Start(errno) => errno.into(),
        HookFailure::TimedOut => StepFailure::new(StepKind::HookTimeout, Errno::ETIMEDOUT),
        HookFailure::Exited(status) => {
            StepFailure { kind: StepKind::HookStatus, errno: Errno::ECHILD, value: status.into() }
        }
        HookFailure::Signaled(number) => {
            StepFailure { kind: StepKind::HookStatus, errno: Errno::ECHILD, value: -number }
        }
    })
}

fn console(
    slots: &mut Slots,
    size: Option<crate::config::ConsoleSize>,
    bind: bool,
) -> Result<(), StepFailure> {
    let pty = terminal::console::open_pty().map_err(|errno| match errno {
        Errno::ENOENT => StepFailure::from(errno),
        other => StepFailure::new(StepKind::NotDevpts, other),
    })?;
    if let Some(size) = size {
        pty.set_size(size)?;
    }
    pty.send_master(slots.get(slots::CONSOLE)?)?;
    slots.close(slots::CONSOLE);
    if bind {
        rootfs::bind_console(slots, pty.slave.as_fd())?;
    }
    Ok(pty.adopt()?)
}

/// Open since before the clone, for reading and writing: so nothing has to be opened now, when
/// there may be no proc and a filter, and `read` never sees the end of the file.
fn wait_for_start(slots: &mut Slots) -> Result<(), Errno> {
    let mut byte = [0];
    loop {
        match read(slots.get(slots::FIFO)?, &mut byte) {
            Err(Errno::EINTR) => {}
            other => return other.map(drop),
        }
    }
}
