use super::*;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread;

const SOON: Duration = Duration::from_millis(500);
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
        let reply =
            Message { reply_to: Some(call.serial), body, ..Message::new(Kind::Return, 1000 + call.serial) };
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
    assert!(error.ends_with(": Unit x.scope not loaded. (org.freedesktop.systemd1.NoSuchUnit)"), "{error}");
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
    assert!(error.ends_with(": no answer within 500ms"), "{error}");
}

#[test]
fn a_job_that_never_ends_is_not_waited_for_either() {
    let serve = |peer: &mut Peer| {
        let call = peer.call().unwrap();
        peer.answer(&call, vec![Value::ObjectPath("/job/2".into())]);
        assert!(peer.call().is_none());
    };
    let failure = with_server(false, SOON, serve, |connection| connection.job("StopUnit", vec![]));
    assert!(matches!(failure, Err(Failure::Lost(why)) if why == "no answer within 500ms"));
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
