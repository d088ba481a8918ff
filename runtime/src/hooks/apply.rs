//! Runs one hook: by the runtime, and by container init between clone and exec. So: no allocation.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Pid, pipe2, read, write};

use super::{ChildHook, HookFailure, PidMember, Prepared};
use crate::sys::spawn::{Program, Spawned, spawn};

/// An output of the hook that must be read while it runs, or it would wait for us.
pub(super) struct Drain<'a> {
    /// Non-blocking. Whoever runs the hook holds the other end too, so it has no end.
    pub(super) fd: BorrowedFd<'a>,
    pub(super) take: &'a mut dyn FnMut(&[u8]),
}

/// Runs `hook` in the caller's namespaces and folder, `pid` in its state, and waits for it.
/// Its output goes to `log`, which somebody else must read (or which cannot fill up).
pub fn run_in_child(hook: &ChildHook, pid: u32, log: BorrowedFd<'_>) -> Result<(), HookFailure> {
    let mut member = PidMember::EMPTY;
    run(&hook.program, None, [log, log], hook.state.parts(pid, &mut member), &mut [])
}

/// Starts the program with `state` on its standard input and waits for its end; after its timeout
/// it is killed. At most two `drains`.
///
/// A grandchild that keeps an output open does not hold us up: what the hook itself has written is
/// in the pipe when it ends, and is taken then.
pub(super) fn run(
    hook: &Prepared,
    cwd: Option<&CStr>,
    [stdout, stderr]: [BorrowedFd<'_>; 2],
    state: [&[u8]; 3],
    drains: &mut [Drain<'_>],
) -> Result<(), HookFailure> {
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC).map_err(HookFailure::Start)?;
    fcntl(&writer, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map_err(HookFailure::Start)?;
    // `reader` stays open here until the end: so a hook that does not read its input gives us no
    // EPIPE, and no SIGPIPE, which has its default effect in init by now.
    let mut input = Input { writer: Some(writer), state };
    input.feed().map_err(HookFailure::Start)?;
    let child = spawn(&Program {
        path: &hook.path,
        argv: &hook.argv,
        envp: &hook.envp,
        cwd,
        stdio: [reader.as_fd(), stdout, stderr],
    })
    .map_err(HookFailure::Start)?;
    let deadline = hook.timeout.map(|timeout| Instant::now() + timeout);
    let waited = wait(&child, &mut input, deadline, drains);
    if !matches!(waited, Ok(true)) {
        // Not yet reaped, so the number is still its own; an error would mean that it has ended.
        kill(child.pid, Signal::SIGKILL).ok();
    }
    let status = reap(child.pid);
    for drain in drains {
        drain.rest();
    }
    match (waited, status) {
        (Ok(false), _) => Err(HookFailure::TimedOut),
        (Err(errno), _) | (_, Err(errno)) => Err(HookFailure::Start(errno)),
        (Ok(true), Ok(WaitStatus::Exited(_, 0))) => Ok(()),
        (Ok(true), Ok(WaitStatus::Exited(_, status))) => Err(HookFailure::Exited(status as u8)),
        (Ok(true), Ok(WaitStatus::Signaled(_, signal, _))) => Err(HookFailure::Signaled(signal as i32)),
        // Without WUNTRACED and ptrace, waitpid gives no other.
        (Ok(true), Ok(_)) => Err(HookFailure::Start(Errno::ECHILD)),
    }
}

/// Until the hook has ended (true) or the time is over (false).
fn wait(
    child: &Spawned,
    input: &mut Input<'_>,
    deadline: Option<Instant>,
    drains: &mut [Drain<'_>],
) -> Result<bool, Errno> {
    loop {
        let left = match deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())) {
            None => PollTimeout::NONE,
            Some(Duration::ZERO) => return Ok(false),
            // Rounded up, or the last millisecond would be a busy loop; a longer wait than poll
            // knows is begun again.
            Some(left) => {
                PollTimeout::try_from(left + Duration::from_micros(999)).unwrap_or(PollTimeout::MAX)
            }
        };
        let ended = {
            // What is not there is one more look at the pidfd.
            let pidfd = child.pidfd.as_fd();
            let mut of_drains = drains.iter().map(|drain| drain.fd);
            let in_slot = |fd| PollFd::new(fd, PollFlags::POLLIN);
            let mut fds = [
                in_slot(pidfd),
                in_slot(of_drains.next().unwrap_or(pidfd)),
                in_slot(of_drains.next().unwrap_or(pidfd)),
                match &input.writer {
                    Some(writer) => PollFd::new(writer.as_fd(), PollFlags::POLLOUT),
                    None => in_slot(pidfd),
                },
            ];
            match poll(&mut fds, left) {
                Ok(_) => fds[0].any().unwrap_or(false),
                Err(Errno::EINTR) => false,
                Err(errno) => return Err(errno),
            }
        };
        if ended {
            return Ok(true);
        }
        input.feed()?;
        for drain in drains.iter_mut() {
            drain.some();
        }
    }
}

fn reap(pid: Pid) -> Result<WaitStatus, Errno> {
    loop {
        match waitpid(pid, None) {
            Err(Errno::EINTR) => {}
            other => return other,
        }
    }
}

/// What the hook has not yet been given of its state.
struct Input<'a> {
    /// `None` when all is written: the hook then sees the end.
    writer: Option<OwnedFd>,
    state: [&'a [u8]; 3],
}

impl Input<'_> {
    /// Writes as much as goes.
    fn feed(&mut self) -> Result<(), Errno> {
        let Some(writer) = &self.writer else { return Ok(()) };
        for part in &mut self.state {
            while !part.is_empty() {
                match write(writer, part) {
                    Ok(count) => *part = &part[count..],
                    Err(Errno::EINTR) => {}
                    Err(Errno::EAGAIN) => return Ok(()),
                    Err(errno) => return Err(errno),
                }
            }
        }
        self.writer = None;
        Ok(())
    }
}

impl Drain<'_> {
    /// One read, so that a hook that writes without end does not keep us from seeing the clock.
    /// 0 when nothing is there. (After an error only the message has less.)
    fn some(&mut self) -> usize {
        let mut buffer = [0; 4096];
        let count = read(self.fd, &mut buffer).unwrap_or(0);
        (self.take)(&buffer[..count]);
        count
    }

    /// What is still in the pipe: at most what one holds, since a grandchild may go on writing.
    fn rest(&mut self) {
        let mut left: usize = 1 << 20;
        while left > 0 {
            match self.some() {
                0 => return,
                count => left = left.saturating_sub(count),
            }
        }
    }
}
