//! The runtime's side: clones, answers what is asked, waits, and reaps what failed.

use std::cell::Cell;
use std::fmt;
use std::mem::replace;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;

use super::channel::{self, ParentEnd, Unheard};
use super::init::{self, Birth};
use super::joiner::{self, CLOSING, HIDING, JOINED, JoinerStep};
use super::protocol::{FromInit, JOINER, ToInit};
use crate::error::{Error, Result, StepFailure, StepKind};
use crate::plan::Program;
use crate::plan::step::Step;
use crate::sys::clone::{Clone, clone3};
use crate::sys::pidfd::{pidfd_getfd, pidfd_open, pidfd_send_signal};
use crate::sys::slots::{Slot, Slots};

/// Whose child a new process becomes.
#[derive(Clone, Default)]
pub enum Parentage {
    /// Ours: we wait for it.
    #[default]
    Ours,
    /// Our parent's (`CLONE_PARENT`): a shim forks a copy of itself to do the work, and reaps what is
    /// born. It is told each pid before the process is let go, so that no exit comes before its name.
    OurParents(Rc<dyn Fn(i32) -> Result<()>>),
}

impl Parentage {
    fn flag(&self) -> u64 {
        match self {
            Parentage::Ours => 0,
            Parentage::OurParents(_) => libc::CLONE_PARENT as u64,
        }
    }

    fn is_ours(&self) -> bool {
        matches!(self, Parentage::Ours)
    }

    fn announce(&self, pid: i32) -> Result<()> {
        match self {
            Parentage::Ours => Ok(()),
            Parentage::OurParents(announce) => announce(pid),
        }
    }
}

impl fmt::Debug for Parentage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_ours() { "Ours" } else { "OurParents" })
    }
}

/// What is cloned and how.
pub struct Spawn<'p> {
    pub parentage: &'p Parentage,
    pub steps: &'p [Step],
    pub program: &'p Program,
    /// Empty: init is cloned directly with `flags`.
    pub joiner: &'p [JoinerStep],
    pub flags: u64,
    /// The process that is cloned here, init or its joiner, is born in the cgroup of this slot.
    pub cgroup: Option<Slot>,
    /// By which it moves itself into others, when it is told to: [`Init::enter`].
    pub tasks: &'p [Slot],
    pub mask: SigSet,
}

/// The new process, not yet let go.
pub struct Init {
    pub pid: i32,
    pub pidfd: OwnedFd,
    /// Not yet itself: [`Init::born`].
    is_joiner: bool,
    channel: ParentEnd,
    steps: usize,
    ours: bool,
    /// What it said before the joiner had named it.
    early: Cell<Option<FromInit>>,
}

/// What a joiner may ask for, done by the runtime for the joiner's pid.
pub trait Answers {
    fn write_maps(&self, joiner: i32) -> Result<()>;
    fn write_offsets(&self, joiner: i32) -> Result<()>;
}

/// Clones. Does not return in the child.
pub fn spawn(spawn: &Spawn<'_>, slots: Slots, answers: &dyn Answers) -> Result<Init> {
    let init = clone(spawn, slots, answers)?;
    if init.is_joiner {
        return Ok(init);
    }
    match spawn.parentage.announce(init.pid) {
        Ok(()) => Ok(init),
        Err(error) => match init.kill() {
            Ok(()) => Err(error),
            Err(left) => Err(Error::Cleanup(vec![error, left])),
        },
    }
}

fn clone(spawn: &Spawn<'_>, mut slots: Slots, answers: &dyn Answers) -> Result<Init> {
    let (ours, theirs) = channel::pair().map_err(|e| Error::sys("socketpair", "", e))?;
    if !spawn.joiner.is_empty() {
        ours.ask_who_speaks().map_err(|e| Error::sys("setsockopt SO_PASSCRED", "", e))?;
    }
    let scratch = Birth::scratch_for(&slots);
    let cgroup = match spawn.cgroup {
        // The new process does not keep it: a folder of the host's.
        Some(slot) => Some(slots.take(slot).map_err(|e| Error::sys("open", "the cgroup", e))?),
        None => None,
    };
    let birth = Birth {
        steps: spawn.steps,
        program: spawn.program,
        slots,
        channel: theirs,
        mask: spawn.mask,
        scratch,
        tasks: spawn.tasks,
    };
    let steps = spawn.steps.len();
    let of_whom = spawn.parentage.flag();
    let is_ours = spawn.parentage.is_ours();
    let cgroup = cgroup.as_ref().map(crate::sys::fd::borrow);
    let init = |pid, pidfd, channel, early| {
        let early = Cell::new(early);
        Init { pid, pidfd, is_joiner: false, channel, steps, ours: is_ours, early }
    };
    if spawn.joiner.is_empty() {
        return match clone3(spawn.flags | of_whom, cgroup).map_err(|e| Error::sys("clone3", "", e))? {
            Clone::Child(one_thread) => init::run(birth, one_thread),
            Clone::Parent { pid, pidfd } => Ok(init(pid, pidfd, ours, None)),
        };
    }
    // Init is the joiner's sibling: as the joiner is ours or our parent's, so is init.
    match clone3(of_whom, cgroup).map_err(|e| Error::sys("clone3", "", e))? {
        Clone::Child(one_thread) => joiner::run(spawn.joiner, birth, one_thread),
        Clone::Parent { pid, pidfd } => {
            // Else the end of the joiner would never be seen.
            drop(birth);
            let Some(born) = with_joiner(pid, pidfd.as_fd(), &ours, spawn, answers).transpose() else {
                return Ok(Init { is_joiner: true, ..init(pid, pidfd, ours, None) });
            };
            let reaped = reap_joiner(pid, pidfd.as_fd(), is_ours);
            let (pid, early) = born?;
            reaped?;
            let pidfd = pidfd_open(pid).map_err(|e| Error::sys("pidfd_open", pid, e))?;
            Ok(init(pid, pidfd, ours, early))
        }
    }
}

fn reap_joiner(pid: i32, pidfd: BorrowedFd<'_>, ours: bool) -> Result<()> {
    let reaped = if ours {
        waitpid(Pid::from_raw(pid), None).map(drop)
    } else {
        // Our parent reaps it; it must be out of the container's way before we go on.
        ended(pidfd)
    };
    reaped.map_err(|e| Error::sys("wait for", "the joiner", e))
}

/// Waits for the end of a process that may be another's child.
fn ended(pidfd: BorrowedFd<'_>) -> std::result::Result<(), Errno> {
    loop {
        match poll(&mut [PollFd::new(pidfd, PollFlags::POLLIN)], PollTimeout::NONE) {
            Err(Errno::EINTR) => {}
            other => return other.map(drop),
        }
    }
}

/// The pid of init, and what it has said already. `None`: the joiner goes on as init.
fn with_joiner(
    joiner: i32,
    pidfd: BorrowedFd<'_>,
    channel: &ParentEnd,
    spawn: &Spawn<'_>,
    answers: &dyn Answers,
) -> Result<Option<(i32, Option<FromInit>)>> {
    let done = || channel.send(ToInit::Done).map_err(|e| Error::sys("answer", "the joiner", e));
    let answered = |answer: Result<()>| match answer.and_then(|()| done()) {
        // It has ended since it asked: what it had to say, or how it ended, is heard next.
        Err(error) if matches!(error.errno(), Some(Errno::ESRCH | Errno::EPIPE)) => Ok(()),
        other => other,
    };
    let answer = || {
        let mut early = None;
        loop {
            let heard = match hear(channel, pidfd, Some(joiner)) {
                // Init was faster than the one that is to name it.
                Err(Unheard::Stranger(failed @ FromInit::Failed { step, .. })) if step & JOINER == 0 => {
                    early = Some(failed);
                    continue;
                }
                other => other.map_err(|e| unheard("the joiner", e))?,
            };
            match heard {
                Some(FromInit::NeedMaps) => answered(answers.write_maps(joiner))?,
                Some(FromInit::NeedOffsets) => answered(answers.write_offsets(joiner))?,
                Some(FromInit::Born { pid }) => return Ok(Some((pid, early))),
                Some(FromInit::Joined) => return Ok(None),
                Some(FromInit::Failed { step, failure }) if step & JOINER != 0 => {
                    return Err(joiner_failure(spawn, step, failure));
                }
                Some(
                    FromInit::Failed { .. }
                    | FromInit::Entered
                    | FromInit::Mounts
                    | FromInit::Listener { .. }
                    | FromInit::Ready,
                ) => {
                    return Err(Error::Protocol("the joiner spoke out of turn".into()));
                }
                None => return Err(Error::Protocol(format!("the joiner {} without a word", end_of(joiner)))),
            }
        }
    };
    let born = answer();
    if born.is_err() {
        // It may wait for an answer that does not come. If it has gone already, so much the better.
        let _gone = pidfd_send_signal(pidfd, libc::SIGKILL);
    }
    born
}

/// The words of a process, or `None` when it has ended. Not only by the end of the channel: one that it may have borne
/// already has the same one.
/// With `sender`, only his.
fn hear(
    channel: &ParentEnd,
    process: BorrowedFd<'_>,
    sender: Option<i32>,
) -> std::result::Result<Option<FromInit>, Unheard> {
    let mut timeout = PollTimeout::NONE;
    loop {
        let mut fds =
            [PollFd::new(channel.as_fd(), PollFlags::POLLIN), PollFd::new(process, PollFlags::POLLIN)];
        match poll(&mut fds, timeout) {
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
            Ok(_) if fds[0].any() == Some(true) => {
                return match sender {
                    Some(sender) => channel.receive_from(sender),
                    None => Ok(channel.receive()?),
                };
            }
            // Its last words may have come after `poll` had looked for some, and before it saw the end.
            Ok(_) if timeout == PollTimeout::NONE => timeout = PollTimeout::ZERO,
            Ok(_) => return Ok(None),
        }
    }
}

fn unheard(whom: &str, why: Unheard) -> Error {
    match why {
        Unheard::Errno(errno) => Error::sys("read from", whom, errno),
        Unheard::Stranger(_) => Error::Protocol("another process spoke in the place of the joiner".into()),
    }
}

/// How a process ended, or is about to; it stays to be reaped. Of another's child only that.
fn end_of(pid: i32) -> String {
    match waitid(Id::Pid(Pid::from_raw(pid)), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT) {
        Ok(WaitStatus::Signaled(_, signal, _)) => format!("was ended by {signal}"),
        Ok(WaitStatus::Exited(_, status)) => format!("ended with status {status}"),
        _ => "ended".into(),
    }
}

fn joiner_failure(spawn: &Spawn<'_>, step: u16, failure: StepFailure) -> Error {
    let index = usize::from(step & !JOINER);
    let what = match spawn.joiner.get(index) {
        Some(JoinerStep::EnterCgroup { file, .. }) => {
            return Error::Cgroup { file: file.clone(), value: "0".into(), errno: failure.errno };
        }
        Some(JoinerStep::Join(join)) => {
            format!("join {} namespace {}", join.kind.word(), join.path.to_string_lossy())
        }
        Some(JoinerStep::JoinAll { .. }) => "join the namespaces of the container".into(),
        Some(JoinerStep::UnshareUser) => "make a user namespace".into(),
        Some(JoinerStep::UnshareTime) => "make a time namespace".into(),
        None if index == usize::from(CLOSING) => "close_range".into(),
        None if index == usize::from(JOINED) => "answer the runtime".into(),
        None if index == usize::from(HIDING) => "prctl PR_SET_DUMPABLE".into(),
        _ => "clone3".into(),
    };
    Error::Sys { operation: what, object: String::new(), errno: failure.errno }
}

/// Where the conversation is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrived {
    Mounts,
    /// A filter is loaded that notifies: its listener has this number.
    Listener(i32),
    Ready,
    /// By its joiner: [`Init::born`].
    Born(i32),
    /// The channel closed: with the exec, or with the process itself. Which of them, its exit status
    /// tells; before `Ready` it can only be the latter.
    Executed,
}

impl Init {
    /// Until now we spoke with its joiner, which ends. It is itself from here on, and waits for [`Init::go`].
    pub fn born(&mut self, pid: i32, parentage: &Parentage) -> Result<()> {
        let pidfd = pidfd_open(pid).map_err(|e| Error::sys("pidfd_open", pid, e))?;
        let (joiner, its_pidfd) = (replace(&mut self.pid, pid), replace(&mut self.pidfd, pidfd));
        self.is_joiner = false;
        reap_joiner(joiner, its_pidfd.as_fd(), self.ours)?;
        parentage.announce(pid)
    }

    /// It is in its cgroups when this returns; `refused` knows by its number the one that it could not enter.
    pub fn enter(
        &self,
        describe: &dyn Fn(usize) -> Failing,
        refused: &dyn Fn(i32, Errno) -> Error,
    ) -> Result<()> {
        self.send(ToInit::Enter)?;
        match self.receive()? {
            Some(FromInit::Entered) => Ok(()),
            Some(FromInit::Failed { failure, .. }) if failure.kind == StepKind::NotInCgroup => {
                Err(refused(failure.value, failure.errno))
            }
            Some(FromInit::Failed { step, failure }) => {
                let index = usize::from(step);
                Err(step_error(describe(index), index, self.steps, failure, &String::new))
            }
            Some(_) => Err(Error::Protocol("the container's first process spoke out of turn".into())),
            None => Err(self.end()),
        }
    }

    /// The listener is with its agent: the process may go on.
    pub fn agent_told(&self) -> Result<()> {
        self.send(ToInit::Done)
    }

    pub fn go(&self) -> Result<()> {
        self.send(ToInit::Go { pid: self.pid })
    }

    pub fn hooks_done(&self) -> Result<()> {
        self.send(ToInit::HooksDone)
    }

    /// A copy of its descriptor of this number; it keeps none, and waits for [`Init::agent_told`]. `sends`: where we may not take it, the
    /// process can send it.
    pub fn take_listener(&self, number: i32, sends: bool) -> Result<OwnedFd> {
        let failed = |operation: &str, errno| Error::sys(operation, "the seccomp listener", errno);
        match pidfd_getfd(self.pidfd.as_fd(), number) {
            Ok(listener) => self.send(ToInit::ListenerTaken).map(|()| listener),
            // Nobody but who has CAP_SYS_PTRACE takes anything out of a process that cannot be dumped.
            Err(Errno::EPERM) if sends => {
                self.send(ToInit::SendListener)?;
                match self.channel.receive_descriptor().map_err(|errno| failed("receive", errno))? {
                    (Some(FromInit::Listener { .. }), Some(listener)) => Ok(listener),
                    (Some(FromInit::Failed { failure, .. }), _) => Err(failed("send", failure.errno)),
                    (Some(_), _) => {
                        Err(Error::Protocol("the process sent something else than its listener".into()))
                    }
                    (None, _) => Err(self.end()),
                }
            }
            Err(errno) => Err(failed("pidfd_getfd", errno)),
        }
    }

    fn send(&self, message: ToInit) -> Result<()> {
        // One that has died says why when it is next listened to.
        match self.channel.send(message) {
            Ok(()) | Err(Errno::EPIPE | Errno::ECONNRESET) => Ok(()),
            Err(errno) => Err(Error::sys("write to", "the container's first process", errno)),
        }
    }

    fn receive(&self) -> Result<Option<FromInit>> {
        let early = self.early.take();
        let received = match early {
            Some(early) => Ok(Some(early)),
            // What it has borne can be looked into, and so the channel be taken.
            None => hear(&self.channel, self.pidfd.as_fd(), self.is_joiner.then_some(self.pid)),
        };
        received.map_err(|e| unheard("the container's first process", e))
    }

    /// Waits for the next meeting point. `describe` gives the words of a step, `hook_output` what its
    /// hooks printed.
    pub fn wait(
        &self,
        describe: &dyn Fn(usize) -> Failing,
        hook_output: &dyn Fn() -> String,
    ) -> Result<Arrived> {
        match self.receive()? {
            Some(FromInit::Mounts) => Ok(Arrived::Mounts),
            Some(FromInit::Listener { number }) => Ok(Arrived::Listener(number)),
            Some(FromInit::Ready) => Ok(Arrived::Ready),
            Some(FromInit::Born { pid }) if self.is_joiner => Ok(Arrived::Born(pid)),
            Some(FromInit::Failed { step, failure }) => {
                let index = usize::from(step);
                Err(step_error(describe(index), index, self.steps, failure, hook_output))
            }
            Some(
                FromInit::NeedMaps
                | FromInit::NeedOffsets
                | FromInit::Born { .. }
                | FromInit::Joined
                | FromInit::Entered,
            ) => Err(Error::Protocol("the container's first process spoke out of turn".into())),
            None => Ok(Arrived::Executed),
        }
    }

    /// For the one that must not have come to its end yet.
    pub fn end(&self) -> Error {
        let how = end_of(self.pid);
        Error::Protocol(format!("the container's first process {how} before it was ready"))
    }

    /// `error`, and that it has ended, if it is that what failed.
    pub fn explain(&self, error: Error) -> Error {
        match error.errno() {
            Some(Errno::ESRCH) => {
                error.context(format!("the container's first process {}", end_of(self.pid)))
            }
            _ => error,
        }
    }

    /// It ended by `SIGKILL`, before anybody reaped it. How another's child ended is not ours to read:
    /// that it has ended says that it may have been so.
    pub fn was_killed(&self) -> bool {
        if !self.ours {
            let mut fds = [PollFd::new(self.pidfd.as_fd(), PollFlags::POLLIN)];
            return poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0);
        }
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT | WaitPidFlag::WNOHANG;
        let ended = waitid(Id::Pid(Pid::from_raw(self.pid)), flags);
        matches!(ended, Ok(WaitStatus::Signaled(_, Signal::SIGKILL, _)))
    }

    /// Ends it after a failure, and reaps it if it is ours.
    pub fn kill(&self) -> Result<()> {
        match pidfd_send_signal(self.pidfd.as_fd(), libc::SIGKILL) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(errno) => return Err(Error::sys("kill", self.pid, errno)),
        }
        if !self.ours {
            return ended(self.pidfd.as_fd()).map_err(|e| Error::sys("wait for", self.pid, e));
        }
        loop {
            match waitpid(Pid::from_raw(self.pid), None) {
                Err(Errno::EINTR) => {}
                Ok(_) | Err(Errno::ECHILD) => return Ok(()),
                Err(errno) => return Err(Error::sys("wait for", self.pid, errno)),
            }
        }
    }
}

/// The words for a step that failed.
pub enum Failing {
    Program(String),
    Hook { kind: &'static str, index: usize, path: String },
    Other(String),
}

/// A failed step in words. Those that engines match are runc's: `exec: "x": executable file not
/// found in $PATH`.
fn step_error(
    failing: Failing,
    index: usize,
    count: usize,
    failure: StepFailure,
    hook_output: &dyn Fn() -> String,
) -> Error {
    let errno = failure.errno;
    match (failing, failure.kind) {
        (Failing::Program(program), StepKind::NotInPath) => Error::Host {
            what: format!("exec: {program:?}"),
            why: "executable file not found in $PATH".into(),
        },
        (Failing::Program(program), _) => Error::sys(format!("exec: {program:?}"), "", errno),
        (Failing::Hook { kind, index, path }, how) => {
            let output = hook_output();
            let why = match (how, failure.value) {
                (StepKind::HookTimeout, _) => "it ran longer than its timeout".to_owned(),
                (StepKind::HookStatus, value) if value < 0 => format!("signal {}", -value),
                (StepKind::HookStatus, value) => format!("exit status {value}"),
                _ => format!("fork/exec: {}", crate::sys::errno_text(errno)),
            };
            let why = if output.is_empty() { why } else { format!("{why}, output: {}", output.trim_end()) };
            Error::Hook { kind, index, path, why }
        }
        (Failing::Other(what), kind) => {
            Error::Step { index: index + 1, count, what, errno, detail: detail(kind).into() }
        }
    }
}

fn detail(kind: StepKind) -> &'static str {
    match kind {
        StepKind::NotOrdinaryDirectory => {
            "must be mounted on an ordinary directory, reached through no symbolic link"
        }
        StepKind::OverProc => {
            "is in the place of /proc or inside it, where it could change what the process may do"
        }
        StepKind::CwdOutside => {
            "the current working directory is outside of the container's mount namespace root"
        }
        StepKind::WrongDevice => "what is there is not that device",
        StepKind::NotDevpts => "the container has no devpts of its own at /dev/pts",
        StepKind::ProfileNotLoaded => "no profile of this name is loaded",
        StepKind::ParentGone => "the runtime went away",
        StepKind::Unexpected => "the runtime spoke out of turn",
        StepKind::NotInCgroup => "it could not move itself into its cgroup",
        StepKind::Errno | StepKind::NotInPath | StepKind::HookStatus | StepKind::HookTimeout => "",
    }
}
