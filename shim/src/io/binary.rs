//! Streams that lead to a logger, `binary:///path?key=value`: a process that the shim starts, with
//! the reading ends of the container's stdout and stderr as its descriptors 3 and 4. When it is ready
//! it closes its descriptor 5 (`binary`), or writes a byte to it before that (`binary-v2`).
//!
//! The words and descriptors are containerd's: `core/runtime/v2/logging`, and `NewBinaryCmd` of the
//! stock shim.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawn};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::stat::Mode;
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use nix::unistd::{pipe2, read};

use super::set::{Set, Source};
use super::uri::Program;
use crate::error::{Error, Result};
use crate::files::with_restored_limit;
use crate::sys::io::{duplicate_above, pidfd_open, pidfd_send_signal};

/// How long a logger may take until it is ready: what the stock shim gives to all of a container's stdio.
const UNTIL_READY: Duration = Duration::from_secs(30);

/// Between SIGTERM and SIGKILL: the stock shim's number.
const UNTIL_KILLED: Duration = Duration::from_secs(12);

/// The logger's descriptors begin here.
const FIRST: RawFd = 3;

#[derive(Debug)]
pub(super) struct Logger {
    path: String,
    process: OwnedFd,
    state: State,
}

#[derive(Debug)]
enum State {
    Starting { ready: OwnedFd, deadline: TimerFd, says_ready: bool },
    Running,
    Ending { deadline: TimerFd },
    Ended,
}

impl Logger {
    /// Starts it. Gives the writing ends for stdout and stderr, which block.
    pub(super) fn start(
        program: Program,
        id: &str,
        namespace: &str,
        set: &mut Set,
    ) -> Result<(Self, [OwnedFd; 2])> {
        let pipe = || pipe2(OFlag::O_CLOEXEC).map_err(|errno| Error::sys("pipe", &program.path, errno));
        let ((out, container_out), (err, container_err), (ready, tells)) = (pipe()?, pipe()?, pipe()?);
        let deadline = timer(UNTIL_READY)?;
        let failed = |errno| Error::sys("start logger", &program.path, errno);
        set.watch(ready.as_fd(), Source::LoggerReady).map_err(failed)?;
        set.watch(deadline.as_fd(), Source::LoggerDeadline).map_err(failed)?;
        let process = spawn(&program, id, namespace, [out, err, tells]).map_err(failed)?;
        let state = State::Starting { ready, deadline, says_ready: program.says_ready };
        Ok((Logger { path: program.path, process, state }, [container_out, container_err]))
    }

    pub(super) fn is_ready(&self) -> bool {
        !matches!(self.state, State::Starting { .. })
    }

    pub(super) fn has_ended(&self) -> bool {
        matches!(self.state, State::Ended)
    }

    /// It has written to the pipe, or nobody has it open any more.
    pub(super) fn told(&mut self, set: &Set) -> Result<()> {
        let State::Starting { ready, deadline, says_ready } = &self.state else { return Ok(()) };
        let (strict, mut byte) = (*says_ready, [0]);
        let count = match read(ready, &mut byte) {
            Err(Errno::EINTR) => return Ok(()),
            Err(errno) => return Err(Error::sys("read from logger", &self.path, errno)),
            Ok(count) => count,
        };
        set.forget(ready.as_fd());
        set.forget(deadline.as_fd());
        self.state = State::Running;
        if strict && count == 0 {
            return Err(Error::Unknown(format!(
                "logging binary {} did not call ready (it may have crashed or exited prematurely)",
                self.path
            )));
        }
        Ok(())
    }

    pub(super) fn time_is_up(&mut self, set: &Set) -> Result<()> {
        match &self.state {
            State::Starting { ready, deadline, .. } => {
                set.forget(ready.as_fd());
                set.forget(deadline.as_fd());
                self.state = State::Running;
                let seconds = UNTIL_READY.as_secs();
                Err(Error::Unknown(format!("logging binary {} was not ready after {seconds} s", self.path)))
            }
            State::Ending { deadline } => {
                set.forget(deadline.as_fd());
                signal(self.process.as_fd(), Signal::SIGKILL, &self.path)
            }
            State::Running | State::Ended => Ok(()),
        }
    }

    /// Asks it to end, and sees to it that it does.
    pub(super) fn end(&mut self, set: &mut Set) -> Result<()> {
        match &self.state {
            State::Ending { .. } | State::Ended => return Ok(()),
            State::Starting { ready, deadline, .. } => {
                set.forget(ready.as_fd());
                set.forget(deadline.as_fd());
            }
            State::Running => {}
        }
        let deadline = timer(UNTIL_KILLED)?;
        let failed = |errno| Error::sys("watch logger", &self.path, errno);
        set.watch(self.process.as_fd(), Source::LoggerEnd).map_err(failed)?;
        set.watch(deadline.as_fd(), Source::LoggerDeadline).map_err(failed)?;
        self.state = State::Ending { deadline };
        signal(self.process.as_fd(), Signal::SIGTERM, &self.path)
    }

    /// The process is gone; who reaps it is not our business.
    pub(super) fn ended(&mut self, set: &Set) {
        set.forget(self.process.as_fd());
        if let State::Ending { deadline } = &self.state {
            set.forget(deadline.as_fd());
        }
        self.state = State::Ended;
    }
}

impl Drop for Logger {
    fn drop(&mut self) {
        if !self.has_ended() {
            // Nobody is left to hear of an error, and no signal fails that the process could still get.
            signal(self.process.as_fd(), Signal::SIGKILL, &self.path).ok();
        }
    }
}

fn signal(process: BorrowedFd<'_>, signal: Signal, path: &str) -> Result<()> {
    match pidfd_send_signal(process, signal) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(errno) => Err(Error::sys(format!("send {signal} to logger"), path, errno)),
    }
}

fn timer(time: Duration) -> Result<TimerFd> {
    let failed = |errno| Error::sys("timerfd", "logger", errno);
    let flags = TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK;
    let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags).map_err(failed)?;
    let once = Expiration::OneShot(TimeSpec::from_duration(time));
    timer.set(once, TimerSetTimeFlags::empty()).map_err(failed)?;
    Ok(timer)
}

fn spawn(program: &Program, id: &str, namespace: &str, descriptors: [OwnedFd; 3]) -> nix::Result<OwnedFd> {
    let string = |text: String| CString::new(text).map_err(|_| Errno::EINVAL);
    let args: nix::Result<Vec<CString>> =
        [program.path.clone()].into_iter().chain(program.args.iter().cloned()).map(string).collect();
    let own = [format!("CONTAINER_ID={id}"), format!("CONTAINER_NAMESPACE={namespace}")];
    let more = program.env.iter().map(|(name, value)| format!("{name}={value}"));
    let env: nix::Result<Vec<CString>> = own.into_iter().chain(more).map(string).collect();

    let mut files = PosixSpawnFileActions::init()?;
    files.add_open(0, "/dev/null", OFlag::O_RDONLY, Mode::empty())?;
    files.add_open(1, "/dev/null", OFlag::O_WRONLY, Mode::empty())?;
    files.add_open(2, "/dev/null", OFlag::O_WRONLY, Mode::empty())?;
    // From above all three numbers, so that none is overwritten before it is copied.
    let above = descriptors
        .iter()
        .map(|fd| duplicate_above(fd.as_fd(), FIRST + 3))
        .collect::<nix::Result<Vec<OwnedFd>>>()?;
    for (number, fd) in (FIRST..).zip(&above) {
        files.add_dup2(fd.as_raw_fd(), number)?;
    }
    // Rust ignores SIGPIPE, and the shim blocks what it takes from a signalfd.
    let mut attributes = PosixSpawnAttr::init()?;
    attributes.set_flags(PosixSpawnFlags::POSIX_SPAWN_SETSIGDEF | PosixSpawnFlags::POSIX_SPAWN_SETSIGMASK)?;
    attributes.set_sigdefault(&SigSet::all())?;
    attributes.set_sigmask(&SigSet::empty())?;
    let (args, env) = (args?, env?);
    let pid = with_restored_limit(|| posix_spawn(program.path.as_str(), &files, &attributes, &args, &env))??;
    // It is our child and not reaped: this thread is the one that would.
    pidfd_open(pid)
}
