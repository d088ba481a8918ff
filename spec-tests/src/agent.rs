//! A seccomp agent: answers the syscalls of which a container's filter notifies.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::thread::JoinHandle;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::Value;

use crate::call::LIMIT;
use crate::socket::Listener;
use crate::sys::{answer_notification, receive_notification};

/// A syscall that waits.
#[derive(Debug, Clone, Copy)]
pub struct Call {
    pub number: i64,
    pub args: [u64; 6],
}

#[derive(Debug, Clone, Copy)]
pub enum Answer {
    /// The call returns this, and the kernel does nothing.
    Value(i64),
    Errno(Errno),
    /// The kernel does what was asked.
    Continue,
}

/// What an agent has seen when all of the container's processes were gone.
#[derive(Debug)]
pub struct Seen {
    /// The container process states, as sent.
    pub states: Vec<Value>,
    pub calls: Vec<Call>,
}

/// An agent with a thread of its own.
#[derive(Debug)]
pub struct Agent(JoinHandle<Seen>);

impl Agent {
    /// Waits at `path` for so many listeners and answers each to its end.
    pub fn at(path: &Path, listeners: usize, answer: fn(&Call) -> Answer) -> Self {
        let socket = Listener::bind(path);
        Agent(std::thread::spawn(move || {
            let mut seen = Seen { states: Vec::new(), calls: Vec::new() };
            let mut answering = Vec::new();
            for _ in 0..listeners {
                let (state, mut fds) = socket.receive_json();
                seen.states.push(state);
                assert_eq!(fds.len(), 1, "one descriptor with the state");
                let listener = fds.remove(0);
                answering.push(std::thread::spawn(move || answer_all(&listener, answer)));
            }
            seen.calls = answering.into_iter().flat_map(|thread| thread.join().expect("answers")).collect();
            seen
        }))
    }

    /// To be called when the container has ended.
    ///
    /// # Panics
    /// As the agent did.
    #[track_caller]
    pub fn seen(self) -> Seen {
        self.0.join().expect("the agent")
    }
}

/// Until no process is left that could ask.
fn answer_all(listener: &OwnedFd, answer: fn(&Call) -> Answer) -> Vec<Call> {
    let mut calls = Vec::new();
    loop {
        let mut fds = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
        let ready = poll(&mut fds, PollTimeout::try_from(LIMIT).expect("a few seconds")).expect("poll");
        assert!(ready > 0, "nothing asked and nobody gone within {LIMIT:?}");
        let events = fds[0].revents().expect("events");
        if !events.contains(PollFlags::POLLIN) {
            return calls;
        }
        let asked = match receive_notification(listener.as_fd()) {
            // Who asked was killed meanwhile.
            Err(Errno::ENOENT | Errno::EINTR) => continue,
            other => other.expect("a notification"),
        };
        let call = Call { number: asked.data.nr.into(), args: asked.data.args };
        calls.push(call);
        let (val, error, flags) = match answer(&call) {
            Answer::Value(value) => (value, 0, 0),
            Answer::Errno(errno) => (0, -(errno as i32), 0),
            Answer::Continue => (0, 0, libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32),
        };
        match answer_notification(
            listener.as_fd(),
            libc::seccomp_notif_resp { id: asked.id, val, error, flags },
        ) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(errno) => panic!("answer a notification: {errno}"),
        }
    }
}
