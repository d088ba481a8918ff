//! containerd's connections: usually one.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use nix::sys::epoll::EpollFlags;

use super::{Poll, Token};
use crate::bootstrap::socket::is_same_user;
use crate::error::{Error, Result};
use crate::log::note;
use crate::service::{self, SERVICES};
use crate::task::{Call, Reply, Request, Tasks};
use crate::wire::server;
use crate::wire::status::{Code, Status};

/// Large enough for nearly every request, small enough to lie on the stack.
const READ: usize = 4096;
/// After which time those who could not be taken are looked at again.
const AGAIN: Duration = Duration::from_millis(100);

pub(super) struct Connections {
    listener: UnixListener,
    namespace: String,
    open: Vec<Open>,
    last: u32,
    /// There was no descriptor for who waits: not looked at before that time.
    full: Option<Instant>,
    /// The shim ends: it takes no more containers.
    ends: bool,
}

struct Open {
    number: u32,
    stream: UnixStream,
    server: server::Connection,
    /// What the epoll set waits for.
    flags: EpollFlags,
    /// The other side is gone, or talks nonsense.
    over: bool,
}

impl Connections {
    pub(super) fn new(listener: OwnedFd, namespace: String) -> Result<Self> {
        let listener = UnixListener::from(listener);
        listener.set_nonblocking(true).map_err(|e| failed("listen", &e))?;
        Ok(Self { listener, namespace, open: Vec::new(), last: 0, full: None, ends: false })
    }

    pub(super) fn accept(&mut self, poll: &Poll) {
        loop {
            let stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    if self.full.take().is_some() {
                        self.watch_listener(poll, EpollFlags::EPOLLIN);
                    }
                    return;
                }
                Err(e) if matches!(e.kind(), ErrorKind::Interrupted | ErrorKind::ConnectionAborted) => {
                    continue;
                }
                // Too many descriptors: those who wait are still there when there is one again, and
                // would be told of in every turn until then.
                Err(e) => {
                    if self.full.replace(Instant::now() + AGAIN).is_none() {
                        note(&format!("accept: {e}"));
                        self.watch_listener(poll, EpollFlags::empty());
                    }
                    return;
                }
            };
            // What is wrong with one of them is nothing to the others.
            match self.admit(stream, poll) {
                Ok(()) => {}
                Err(error) => note(&format!("a connection is refused: {error}")),
            }
        }
    }

    fn watch_listener(&self, poll: &Poll, flags: EpollFlags) {
        if let Err(error) = poll.watch(self.listener.as_fd(), Token::Listener, flags) {
            note(&format!("the shim's socket: {error}"));
        }
    }

    fn admit(&mut self, stream: UnixStream, poll: &Poll) -> Result<()> {
        if !is_same_user(&stream).map_err(|e| Error::sys("getsockopt", "SO_PEERCRED", e))? {
            return Err(Error::failed("it is another user's"));
        }
        stream.set_nonblocking(true).map_err(|e| failed("accept", &e))?;
        self.last = self.last.wrapping_add(1);
        let (number, flags) = (self.last, EpollFlags::EPOLLIN);
        poll.watch(stream.as_fd(), Token::Connection(number), flags)?;
        let server = server::Connection::default();
        self.open.push(Open { number, stream, server, flags, over: false });
        Ok(())
    }

    /// Nobody who looks for a shim shall find this one any more.
    pub(super) fn end(&mut self) {
        self.ends = true;
        let removed = self.listener.local_addr().and_then(|address| match address.as_pathname() {
            Some(path) => std::fs::remove_file(path),
            None => Ok(()),
        });
        match removed {
            Err(e) if e.kind() != ErrorKind::NotFound => note(&format!("remove the socket: {e}")),
            _ => {}
        }
    }

    pub(super) fn readable(&mut self, number: u32, flags: EpollFlags, tasks: &mut Tasks) {
        let Some(open) = self.open.iter_mut().find(|open| open.number == number) else { return };
        if !flags.intersects(EpollFlags::EPOLLIN | EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR) {
            return;
        }
        let mut buffer = [0; READ];
        let calls = match open.stream.read(&mut buffer) {
            Ok(0) => {
                open.over = true;
                return;
            }
            Ok(count) => open.server.received(&buffer[..count], Instant::now()),
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => return,
            Err(_) => {
                open.over = true;
                return;
            }
        };
        for call in calls {
            let from = Call { connection: number, stream: call.stream };
            let decoded = if SERVICES.contains(&call.service.as_str()) {
                service::decode(&call.method, &call.payload, &self.namespace)
                    .ok_or_else(|| Status::new(Code::UNIMPLEMENTED, format!("method {}", call.method)))
            } else {
                Err(Status::new(Code::UNIMPLEMENTED, format!("service {}", call.service)))
            };
            match decoded {
                Ok(Ok(decoded)) if self.ends && matches!(decoded.request, Request::Create(_)) => {
                    let error = Error::Precondition("the shim is shutting down".into());
                    open.server.reply(call.stream, Err(&status(&error)));
                }
                Ok(Ok(decoded)) => tasks.call(from, &decoded.id, &decoded.exec_id, decoded.request),
                Ok(Err(error)) => open.server.reply(call.stream, Err(&status(&error))),
                Err(status) => open.server.reply(call.stream, Err(&status)),
            }
        }
    }

    /// An answer for somebody who has gone goes nowhere.
    pub(super) fn reply(&mut self, call: Call, reply: Result<Reply>) {
        let Some(open) = self.open.iter_mut().find(|open| open.number == call.connection) else { return };
        match reply.and_then(service::encode) {
            Ok(payload) => open.server.reply(call.stream, Ok(&payload)),
            Err(error) => open.server.reply(call.stream, Err(&status(&error))),
        }
    }

    /// Sends what the sockets take, and forgets who has gone.
    pub(super) fn flush(&mut self, poll: &Poll, tasks: &mut Tasks) {
        for open in &mut self.open {
            open.flush();
            if !open.over
                && let Err(error) = open.watch(poll)
            {
                note(&format!("a connection is given up: {error}"));
                open.over = true;
            }
        }
        self.open.retain(|open| {
            if open.over {
                tasks.forget_calls(open.number);
            }
            !open.over
        });
    }

    pub(super) fn are_flushed(&self) -> bool {
        self.open.iter().all(|open| open.server.to_send().is_empty())
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.open.iter().filter_map(|open| open.server.deadline()).chain(self.full).min()
    }

    pub(super) fn expire(&mut self, now: Instant, poll: &Poll) {
        if self.full.is_some_and(|until| until <= now) {
            self.accept(poll);
        }
        self.open.iter_mut().for_each(|open| open.server.expire(now));
    }
}

impl Open {
    fn flush(&mut self) {
        while !self.server.to_send().is_empty() && !self.over {
            match self.stream.write(self.server.to_send()) {
                Ok(count) => self.server.sent(count),
                Err(e) if e.kind() == ErrorKind::WouldBlock => return,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(_) => self.over = true,
            }
        }
    }

    fn watch(&mut self, poll: &Poll) -> Result<()> {
        let mut flags = EpollFlags::empty();
        flags.set(EpollFlags::EPOLLIN, self.server.wants_bytes());
        flags.set(EpollFlags::EPOLLOUT, !self.server.to_send().is_empty());
        if flags == self.flags {
            return Ok(());
        }
        self.flags = flags;
        poll.watch(self.stream.as_fd(), Token::Connection(self.number), flags)
    }
}

fn status(error: &Error) -> Status {
    let code = match error.code() {
        crate::error::Code::Unknown => Code::UNKNOWN,
        crate::error::Code::InvalidArgument => Code::INVALID_ARGUMENT,
        crate::error::Code::NotFound => Code::NOT_FOUND,
        crate::error::Code::AlreadyExists => Code::ALREADY_EXISTS,
        crate::error::Code::FailedPrecondition => Code::FAILED_PRECONDITION,
        crate::error::Code::Unimplemented => Code::UNIMPLEMENTED,
    };
    Status::new(code, error.to_string())
}

fn failed(operation: &str, error: &std::io::Error) -> Error {
    Error::io(operation, std::path::Path::new("the shim's socket"), error)
}
