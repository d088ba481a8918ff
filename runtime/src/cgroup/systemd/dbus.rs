//! One conversation with systemd over D-Bus: a socket, a few calls, an end by which it must be over.
//!
//! No thread, no global state, nothing that outlives the conversation; a process that lives for weeks
//! may hold a thousand of them one after the other.
//!
//! <https://dbus.freedesktop.org/doc/dbus-specification.html#auth-protocol>,
//! <https://www.freedesktop.org/software/systemd/man/latest/org.freedesktop.systemd1.html>

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

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::{UnixListener, UnixStream};
    use std::thread;

    const SOON: Duration = Duration::from_millis(50);
    const LATE: Duration = Duration::from_secs(20);

    /// The other end: a server of one client.
    pub(in super::super) struct Peer(UnixStream);

    impl Peer {
        fn line(&mut self) -> String {
            let mut line = Vec::new();
            while !line.ends_with(b"\r\n") {
                let mut byte = [0];
                self.0.read_exact(&mut byte).unwrap();
                line.push(byte[0]);
            }
            String::from_utf8(line).unwrap()
        }

        fn authenticate(&mut self) {
            // All of it before any answer: see `Connection::authenticate`.
            for expected in ["\0AUTH EXTERNAL\r\n", "DATA\r\n", "BEGIN\r\n"] {
                assert_eq!(self.line(), expected);
            }
            self.0.write_all(b"DATA\r\nOK 0123456789abcdef\r\n").unwrap();
        }

        /// The next call, or `None` when the client went away.
        pub(in super::super) fn call(&mut self) -> Option<Message> {
            let mut bytes = vec![0; PREFIX];
            self.0.read_exact(&mut bytes).ok()?;
            let mut prefix = [0; PREFIX];
            prefix.copy_from_slice(&bytes);
            bytes.resize(Message::length(&prefix).unwrap(), 0);
            self.0.read_exact(&mut bytes[PREFIX..]).unwrap();
            Message::from_bytes(&bytes).unwrap()
        }

        pub(in super::super) fn answer(&mut self, call: &Message, body: Vec<Value>) {
            let reply = Message {
                reply_to: Some(call.serial),
                body,
                ..Message::new(Kind::Return, 1000 + call.serial)
            };
            match self.0.write_all(&reply.to_bytes()) {
                // A client whose time was over is gone, and its own test says what it saw.
                Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {}
                other => other.unwrap(),
            }
        }

        pub(in super::super) fn refuse(&mut self, call: &Message, name: &str, text: &str) {
            let reply = Message {
                reply_to: Some(call.serial),
                error: name.into(),
                body: vec![Value::text(text)],
                ..Message::new(Kind::Error, 1000 + call.serial)
            };
            self.0.write_all(&reply.to_bytes()).unwrap();
        }

        pub(in super::super) fn job_removed(&mut self, job: &str, result: &str) {
            let signal = Message {
                path: SYSTEMD.path.into(),
                interface: SYSTEMD.interface.into(),
                member: JOB_REMOVED.into(),
                body: vec![
                    Value::Uint32(1),
                    Value::ObjectPath(job.into()),
                    Value::text("some.scope"),
                    Value::text(result),
                ],
                ..Message::new(Kind::Signal, 5000)
            };
            self.0.write_all(&signal.to_bytes()).unwrap();
        }
    }

    /// Talks to a server that does `serve` after the greeting. `given` is for what comes after it.
    pub(in super::super) fn with_server<T>(
        is_bus: bool,
        given: Duration,
        serve: impl FnOnce(&mut Peer) + Send + 'static,
        client: impl FnOnce(&mut Connection) -> T,
    ) -> T {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let server = thread::spawn(move || {
            let mut peer = Peer(listener.accept().unwrap().0);
            peer.authenticate();
            serve(&mut peer);
        });
        let servers = [Server { at: At::Path(path), is_bus }];
        // Greeting and authentication take as long as a busy machine makes them; what is tested comes after them.
        let mut connection = Connection::open(&servers, LATE).unwrap();
        (connection.given, connection.deadline) = (given, Instant::now() + given);
        let result = client(&mut connection);
        drop(connection);
        server.join().unwrap();
        result
    }

    #[test]
    fn a_job_is_waited_for_even_if_it_ends_before_its_call_returns() {
        for early in [true, false] {
            let serve = move |peer: &mut Peer| {
                let call = peer.call().unwrap();
                assert_eq!((&*call.member, &*call.interface), ("StopUnit", SYSTEMD.interface));
                peer.job_removed("/job/1", "failed");
                if early {
                    peer.job_removed("/job/2", "done");
                }
                peer.answer(&call, vec![Value::ObjectPath("/job/2".into())]);
                if !early {
                    peer.job_removed("/job/3", "canceled");
                    peer.job_removed("/job/2", "done");
                }
            };
            let result = with_server(false, LATE, serve, |connection| connection.job("StopUnit", vec![]));
            assert_eq!(result.unwrap(), "done", "{early}");
        }
    }

    #[test]
    fn on_a_bus_there_is_a_hello_and_a_match_before_the_subscription() {
        let serve = |peer: &mut Peer| {
            for member in ["Hello", "AddMatch", "Subscribe"] {
                let call = peer.call().unwrap();
                assert_eq!(call.member, member);
                peer.answer(&call, vec![]);
            }
        };
        with_server(true, LATE, serve, Connection::subscribe).unwrap();
        // On systemd's own socket nothing is said.
        with_server(false, LATE, |peer| assert!(peer.call().is_none()), Connection::subscribe).unwrap();
    }

    #[test]
    fn an_error_has_systemds_words_and_what_was_asked() {
        let serve = |peer: &mut Peer| {
            let call = peer.call().unwrap();
            peer.refuse(&call, "org.freedesktop.systemd1.NoSuchUnit", "Unit x.scope not loaded.");
        };
        let error = with_server(false, LATE, serve, |connection| {
            let failure = connection.manager("StopUnit", vec![]).unwrap_err();
            assert!(failure.is("org.freedesktop.systemd1.NoSuchUnit"));
            connection.explain("StopUnit", "x.scope", failure).to_string()
        });
        assert!(error.starts_with("systemd: StopUnit x.scope over /"), "{error}");
        assert!(
            error.ends_with(": Unit x.scope not loaded. (org.freedesktop.systemd1.NoSuchUnit)"),
            "{error}"
        );
    }

    #[test]
    fn a_server_that_falls_silent_is_not_waited_for_beyond_the_deadline() {
        let error = with_server(
            false,
            SOON,
            |peer| {
                let call = peer.call().unwrap();
                assert_eq!(call.member, "StartTransientUnit");
                assert!(peer.call().is_none(), "it hangs up");
            },
            |connection| {
                let failure = connection.job("StartTransientUnit", vec![]).unwrap_err();
                connection.explain("StartTransientUnit", "x.scope", failure).to_string()
            },
        );
        assert!(error.contains("StartTransientUnit x.scope over /"), "{error}");
        assert!(error.ends_with(": no answer within 50ms"), "{error}");
    }

    #[test]
    fn a_job_that_never_ends_is_not_waited_for_either() {
        let serve = |peer: &mut Peer| {
            let call = peer.call().unwrap();
            peer.answer(&call, vec![Value::ObjectPath("/job/2".into())]);
            assert!(peer.call().is_none());
        };
        let failure = with_server(false, SOON, serve, |connection| connection.job("StopUnit", vec![]));
        assert!(matches!(failure, Err(Failure::Lost(why)) if why == "no answer within 50ms"));
    }

    #[test]
    fn a_connection_that_ends_is_an_error() {
        let serve = |peer: &mut Peer| {
            peer.call().unwrap();
        };
        let failure = with_server(false, LATE, serve, |connection| connection.manager("Reload", vec![]));
        assert!(matches!(failure, Err(Failure::Lost(why)) if why == "the connection was closed"));
    }

    #[test]
    fn a_property_is_text() {
        let serve = |peer: &mut Peer| {
            let call = peer.call().unwrap();
            assert_eq!(call.interface, "org.freedesktop.DBus.Properties");
            assert_eq!(call.body, [Value::text(SYSTEMD.interface), Value::text("Version")]);
            peer.answer(&call, vec![Value::Variant(Box::new(Value::text("252.39-1")))]);
        };
        assert_eq!(with_server(false, LATE, serve, |c| c.property("Version")).unwrap(), "252.39-1");
    }

    #[test]
    fn where_nobody_listens_each_place_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let stale = folder.path().join("stale");
        drop(UnixListener::bind(&stale).unwrap());
        let at = |path: PathBuf| Server { at: At::Path(path), is_bus: false };
        let servers = [at(folder.path().join("absent")), at(stale)];
        let error = Connection::open(&servers, LATE).unwrap_err().to_string();
        assert!(error.starts_with("cannot reach systemd over D-Bus: /"), "{error}");
        assert!(error.contains("absent: no such file or directory, /"), "{error}");
        assert!(error.ends_with("stale: connection refused"), "{error}");
    }

    #[test]
    fn a_server_that_takes_us_not_is_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let server = thread::spawn(move || {
            let mut peer = listener.accept().unwrap().0;
            peer.write_all(b"REJECTED\r\n").unwrap();
            peer.read_to_end(&mut Vec::new()).unwrap();
        });
        let error = Connection::open(&[Server { at: At::Path(path), is_bus: false }], LATE).unwrap_err();
        assert!(error.to_string().contains("authentication was refused (\"REJECTED\")"), "{error}");
        server.join().unwrap();
    }

    #[test]
    fn a_full_queue_is_waited_for_no_longer_than_there_is_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let listener = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
        nix::sys::socket::bind(listener.as_raw_fd(), &UnixAddr::new(&path).unwrap()).unwrap();
        nix::sys::socket::listen(&listener, nix::sys::socket::Backlog::new(0).unwrap()).unwrap();
        let server = Server { at: At::Path(path), is_bus: false };
        let mut held = Vec::new();
        let errno = loop {
            match connect_to(&server, Instant::now() + SOON) {
                Ok(fd) => held.push(fd),
                Err(errno) => break errno,
            }
        };
        assert_eq!(errno, Errno::ETIMEDOUT);
    }
}
