//! One conversation with systemd over D-Bus: a socket, a few calls, an end by which it must be over.
//!
//! No thread, no global state, nothing that outlives the conversation; a process that lives for weeks
//! may hold a thousand of them one after the other.
//!
//! <https://dbus.freedesktop.org/doc/dbus-specification.html#auth-protocol>,
//! <https://www.freedesktop.org/software/systemd/man/latest/org.freedesktop.systemd1.html>

#[cfg(test)]
pub(super) mod tests;

use std::fmt;
use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, connect, sendmsg, socket};

use super::wire::{Kind, Message, PREFIX, Value};
use crate::error::{Error, Result};
use crate::sys::errno_text;

/// What a D-Bus server may be found at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Server {
    pub(super) at: At,
    /// A bus, which passes our messages on to systemd; not systemd's own socket.
    pub(super) is_bus: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum At {
    Path(PathBuf),
    Abstract(Vec<u8>),
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.at {
            At::Path(path) => path.display().fmt(f),
            At::Abstract(name) => write!(f, "@{}", String::from_utf8_lossy(name)),
        }
    }
}

/// Why a call has no result.
#[derive(Debug)]
pub(super) enum Failure {
    /// systemd answered, by an error with this name and text.
    Refused { name: String, text: String },
    /// There was no answer: the connection broke, or the time was over.
    Lost(String),
}

impl Failure {
    pub(super) fn is(&self, name: &str) -> bool {
        matches!(self, Failure::Refused { name: own, .. } if own == name)
    }
}

type Outcome<T> = std::result::Result<T, Failure>;

#[derive(Debug)]
pub(super) struct Connection {
    fd: OwnedFd,
    server: String,
    is_bus: bool,
    deadline: Instant,
    given: Duration,
    serial: u32,
    /// Read and not yet understood.
    buffer: Vec<u8>,
    /// Jobs that ended, with their results: the signal may come before the call that made the job
    /// returns.
    ended: Vec<(String, String)>,
}

const SYSTEMD: Object = Object {
    destination: "org.freedesktop.systemd1",
    path: "/org/freedesktop/systemd1",
    interface: "org.freedesktop.systemd1.Manager",
};
const PROPERTIES: Object = Object { interface: "org.freedesktop.DBus.Properties", ..SYSTEMD };
const BUS: Object = Object {
    destination: "org.freedesktop.DBus",
    path: "/org/freedesktop/DBus",
    interface: "org.freedesktop.DBus",
};

struct Object {
    destination: &'static str,
    path: &'static str,
    interface: &'static str,
}

const JOB_REMOVED: &str = "JobRemoved";

impl Connection {
    /// To the first server that takes us. `given` is for the whole conversation.
    pub(super) fn open(servers: &[Server], given: Duration) -> Result<Self> {
        let deadline = Instant::now() + given;
        let mut tried = Vec::new();
        for server in servers {
            let opened = connect_to(server, deadline)
                .map_err(|errno| errno_text(errno).to_owned())
                .and_then(|fd| Self::over(fd, server, deadline, given));
            match opened {
                Ok(connection) => return Ok(connection),
                Err(why) => tried.push(format!("{server}: {why}")),
            }
        }
        if tried.is_empty() {
            tried.push("neither XDG_RUNTIME_DIR nor DBUS_SESSION_BUS_ADDRESS is set".into());
        }
        Err(Error::Host { what: "cannot reach systemd over D-Bus".into(), why: tried.join(", ") })
    }

    fn over(
        fd: OwnedFd,
        server: &Server,
        deadline: Instant,
        given: Duration,
    ) -> std::result::Result<Self, String> {
        let mut connection = Connection {
            fd,
            server: server.to_string(),
            is_bus: server.is_bus,
            deadline,
            given,
            serial: 0,
            buffer: Vec::new(),
            ended: Vec::new(),
        };
        connection.authenticate()?;
        if connection.is_bus {
            connection.call(&BUS, "Hello", Vec::new()).map_err(|failure| match failure {
                Failure::Refused { text, .. } | Failure::Lost(text) => text,
            })?;
        }
        Ok(connection)
    }

    /// `EXTERNAL` without an identity: the server takes it from the socket's credentials. So it need
    /// not be known what our number is outside of the user namespace that we may be in.
    ///
    /// `BEGIN` goes along, as sd-bus does it. Behind the answer, and so maybe in one read with the
    /// first call, it would bring that call out of systemd's sight: what systemd has read together
    /// with `BEGIN` it looks at no sooner than when more comes.
    fn authenticate(&mut self) -> std::result::Result<(), String> {
        self.send(b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n")?;
        for expected in ["DATA", "OK"] {
            let line = self.line()?;
            if line.split(' ').next() != Some(expected) {
                return Err(format!("authentication was refused ({line:?})"));
            }
        }
        Ok(())
    }

    fn line(&mut self) -> std::result::Result<String, String> {
        const LONGEST: usize = 1 << 10;
        loop {
            if let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\r\n") {
                let line = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
                self.buffer.drain(..end + 2);
                return Ok(line);
            }
            if self.buffer.len() > LONGEST {
                return Err("it does not speak D-Bus".into());
            }
            self.receive()?;
        }
    }

    /// Waits for the socket, at most as long as there is time.
    fn wait(&self, flags: PollFlags) -> std::result::Result<(), String> {
        loop {
            let left = self.deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(format!("no answer within {:?}", self.given));
            }
            let mut fds = [PollFd::new(self.fd.as_fd(), flags)];
            // Rounded up: with 0 it would spin through the last millisecond.
            let wait = i32::try_from(left.as_millis() + 1).unwrap_or(i32::MAX);
            match poll(&mut fds, PollTimeout::try_from(wait).unwrap_or(PollTimeout::MAX)) {
                Ok(0) | Err(Errno::EINTR) => {}
                Ok(_) => return Ok(()),
                Err(errno) => return Err(format!("poll: {}", errno_text(errno))),
            }
        }
    }

    fn send(&mut self, mut bytes: &[u8]) -> std::result::Result<(), String> {
        while !bytes.is_empty() {
            // Whatever SIGPIPE does in the process that we are in, a closed socket is an error here.
            let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
            match sendmsg::<()>(self.fd.as_raw_fd(), &[IoSlice::new(bytes)], &[], flags, None) {
                Ok(count) => bytes = &bytes[count..],
                Err(Errno::EAGAIN) => self.wait(PollFlags::POLLOUT)?,
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(format!("send: {}", errno_text(errno))),
            }
        }
        Ok(())
    }

    /// At least one byte more.
    fn receive(&mut self) -> std::result::Result<(), String> {
        let mut chunk = [0; 8192];
        loop {
            match nix::unistd::read(&self.fd, &mut chunk) {
                Ok(0) => return Err("the connection was closed".into()),
                Ok(count) => {
                    self.buffer.extend_from_slice(&chunk[..count]);
                    return Ok(());
                }
                Err(Errno::EAGAIN) => self.wait(PollFlags::POLLIN)?,
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(format!("read: {}", errno_text(errno))),
            }
        }
    }

    fn next_message(&mut self) -> std::result::Result<Message, String> {
        loop {
            while self.buffer.len() < PREFIX {
                self.receive()?;
            }
            let mut prefix = [0; PREFIX];
            prefix.copy_from_slice(&self.buffer[..PREFIX]);
            let malformed = |why: super::wire::Malformed| format!("its answer cannot be read: {}", why.0);
            let length = Message::length(&prefix).map_err(malformed)?;
            while self.buffer.len() < length {
                self.receive()?;
            }
            let message = Message::from_bytes(&self.buffer[..length]).map_err(malformed)?;
            self.buffer.drain(..length);
            if let Some(message) = message {
                return Ok(message);
            }
        }
    }

    /// Anything else than a reply is put aside if it is the end of a job, and passed over if not.
    fn reply(&mut self, serial: u32) -> std::result::Result<Message, String> {
        loop {
            let message = self.next_message()?;
            match message.kind {
                Kind::Return | Kind::Error if message.reply_to == Some(serial) => return Ok(message),
                Kind::Signal => self.note(&message),
                _ => {}
            }
        }
    }

    fn note(&mut self, signal: &Message) {
        if signal.interface != SYSTEMD.interface || signal.member != JOB_REMOVED {
            return;
        }
        // id, job, unit, result
        if let [_, job, _, result] = &signal.body[..]
            && let (Some(job), Some(result)) = (job.as_str(), result.as_str())
        {
            self.ended.push((job.to_owned(), result.to_owned()));
        }
    }

    fn call(&mut self, object: &Object, member: &str, body: Vec<Value>) -> Outcome<Vec<Value>> {
        self.serial += 1;
        let message = Message {
            path: object.path.into(),
            interface: object.interface.into(),
            member: member.into(),
            destination: object.destination.into(),
            body,
            ..Message::new(Kind::Call, self.serial)
        };
        let reply = self.send(&message.to_bytes()).and_then(|()| self.reply(message.serial));
        let reply = reply.map_err(Failure::Lost)?;
        if reply.kind == Kind::Return {
            return Ok(reply.body);
        }
        let text = reply.body.first().and_then(Value::as_str).unwrap_or(&reply.error).to_owned();
        Err(Failure::Refused { name: reply.error, text })
    }

    /// A method of systemd's manager.
    pub(super) fn manager(&mut self, method: &str, body: Vec<Value>) -> Outcome<Vec<Value>> {
        self.call(&SYSTEMD, method, body)
    }

    /// A property of systemd's manager.
    pub(super) fn property(&mut self, name: &str) -> Outcome<String> {
        let body = vec![Value::text(SYSTEMD.interface), Value::text(name)];
        let reply = self.call(&PROPERTIES, "Get", body)?;
        match reply.first() {
            Some(Value::Variant(value)) if value.as_str().is_some() => {
                Ok(value.as_str().unwrap_or_default().to_owned())
            }
            _ => Err(Failure::Lost(format!("property {name} is not text"))),
        }
    }

    /// Before a job is made: a bus tells nobody of its end who did not ask for it. On systemd's own
    /// socket everybody is told.
    pub(super) fn subscribe(&mut self) -> Outcome<()> {
        if !self.is_bus {
            return Ok(());
        }
        let rule = format!(
            "type='signal',sender='{}',path='{}',interface='{}',member='{JOB_REMOVED}'",
            SYSTEMD.destination, SYSTEMD.path, SYSTEMD.interface
        );
        self.call(&BUS, "AddMatch", vec![Value::String(rule)])?;
        self.manager("Subscribe", Vec::new()).map(drop)
    }

    /// A method that makes a job, to the job's end: its result, `done` if all went well.
    pub(super) fn job(&mut self, method: &str, body: Vec<Value>) -> Outcome<String> {
        let reply = self.manager(method, body)?;
        let Some(job) = reply.first().and_then(Value::as_str).map(str::to_owned) else {
            return Err(Failure::Lost(format!("{method} named no job")));
        };
        loop {
            if let Some(at) = self.ended.iter().position(|(ended, _)| *ended == job) {
                return Ok(self.ended.swap_remove(at).1);
            }
            self.ended.clear();
            let message = self.next_message().map_err(Failure::Lost)?;
            if message.kind == Kind::Signal {
                self.note(&message);
            }
        }
    }

    /// The words for what failed: what was asked, of which unit, over which socket, for how long.
    pub(super) fn explain(&self, method: &str, unit: &str, failure: Failure) -> Error {
        let what = format!("systemd: {method} {unit} over {}", self.server);
        match failure {
            Failure::Refused { name, text } => Error::Host { what, why: format!("{text} ({name})") },
            Failure::Lost(why) => Error::Host { what, why },
        }
    }
}

/// Not blocking: a server that does not accept any more lets a blocking `connect` wait for ever once
/// its queue is full.
fn connect_to(server: &Server, deadline: Instant) -> nix::Result<OwnedFd> {
    let address = match &server.at {
        At::Path(path) => UnixAddr::new(path),
        At::Abstract(name) => UnixAddr::new_abstract(name),
    }?;
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    let mut pause = Duration::from_millis(1);
    loop {
        match connect(fd.as_raw_fd(), &address) {
            Ok(()) => return Ok(fd),
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) if Instant::now() < deadline => {
                std::thread::sleep(pause);
                pause = (pause * 2).min(Duration::from_millis(50));
            }
            Err(Errno::EAGAIN) => return Err(Errno::ETIMEDOUT),
            Err(errno) => return Err(errno),
        }
    }
}
