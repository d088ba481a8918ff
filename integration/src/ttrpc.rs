//! ttrpc: containerd's calls over a unix socket. A client that plays containerd to a shim, and the server of containerd
//! that takes a shim's events.
//!
//! A frame is a length, a stream number and a kind, then a protobuf message
//! (<https://github.com/containerd/ttrpc/blob/main/PROTOCOL.md>).

use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::proto::{Fields, Message};

const REQUEST: u8 = 1;
pub const RESPONSE: u8 = 2;

/// The codes of gRPC that shims answer with.
pub mod code {
    pub const UNKNOWN: u64 = 2;
    pub const INVALID_ARGUMENT: u64 = 3;
    pub const NOT_FOUND: u64 = 5;
    pub const ALREADY_EXISTS: u64 = 6;
    pub const FAILED_PRECONDITION: u64 = 9;
    pub const UNIMPLEMENTED: u64 = 12;
}

/// A call that was refused.
#[derive(Debug, Clone, PartialEq)]
pub struct Refusal {
    pub code: u64,
    pub message: String,
}

/// One connection, one call after the other.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
    service: String,
    last: u32,
}

impl Client {
    /// # Errors
    /// When nobody listens there.
    pub fn connect(socket: &Path, service: &str) -> io::Result<Self> {
        let stream = UnixStream::connect(socket)?;
        // Longer than any call of a test takes.
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        Ok(Self { stream, service: service.to_owned(), last: 0 })
    }

    /// # Errors
    /// The server's status when it is not OK.
    ///
    /// # Panics
    /// When the connection breaks, or an answer does not come or is none.
    #[track_caller]
    pub fn call(&mut self, method: &str, request: &Message) -> Result<Fields, Refusal> {
        let sent = self.send(method, request);
        let stream = self.last;
        let answer = sent.and_then(|()| read(&mut self.stream));
        let (number, kind, answer) = answer.unwrap_or_else(|error| panic!("{method}: {error}"));
        assert_eq!((number, kind), (stream, RESPONSE), "{method}");
        let status = answer.message(1);
        match status.number(1) {
            0 => Ok(answer.message(2)),
            code => Err(Refusal { code, message: status.text(2) }),
        }
    }

    /// A call of which nobody reads the answer.
    ///
    /// # Errors
    /// When the connection breaks.
    pub fn send(&mut self, method: &str, request: &Message) -> io::Result<()> {
        // A client's streams have odd numbers, each higher than the last.
        self.last = if self.last == 0 { 1 } else { self.last + 2 };
        let call = Message::new().bytes(1, &self.service).bytes(2, method).bytes(3, request);
        write(&mut self.stream, self.last, REQUEST, &call)
    }
}

/// One frame.
///
/// # Errors
/// When the other end is gone.
pub fn write(stream: &mut UnixStream, number: u32, kind: u8, message: &Message) -> io::Result<()> {
    let payload = message.as_ref();
    let len = u32::try_from(payload.len()).map_err(io::Error::other)?;
    let mut frame = [&len.to_be_bytes()[..], &number.to_be_bytes(), &[kind, 0]].concat();
    frame.extend_from_slice(payload);
    stream.write_all(&frame)
}

/// The next frame: the number of its stream, its kind and its message.
///
/// # Errors
/// When there is none, or it holds no message.
pub fn read(stream: &mut UnixStream) -> io::Result<(u32, u8, Fields)> {
    let mut header = [0; 10];
    stream.read_exact(&mut header)?;
    let word = |at: usize| header[at..at + 4].iter().fold(0, |word, byte| word << 8 | u32::from(*byte));
    let mut payload = vec![0; word(0) as usize];
    stream.read_exact(&mut payload)?;
    Ok((word(4), header[8], Fields::decode(&payload).map_err(io::Error::other)?))
}

/// An event as containerd gets it (`containerd.services.events.ttrpc.v1`).
#[derive(Debug, Clone)]
pub struct Envelope {
    pub namespace: String,
    pub topic: String,
    pub type_url: String,
    pub seconds: u64,
    pub event: Fields,
}

/// containerd's side of the events: takes all, keeps them in the order in which they came.
#[derive(Debug, Clone, Default)]
pub struct Events(Arc<Mutex<Vec<Envelope>>>);

impl Events {
    /// Serves on the socket for as long as the test's process lives.
    ///
    /// # Panics
    /// When the socket cannot be made.
    pub fn serve(socket: &Path) -> Self {
        let events = Self::default();
        let listener = UnixListener::bind(socket).expect("the socket of the events");
        let taker = events.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let taker = taker.clone();
                std::thread::spawn(move || taker.take(stream));
            }
        });
        events
    }

    fn take(&self, mut stream: UnixStream) {
        while let Ok((number, REQUEST, request)) = read(&mut stream) {
            let called = (request.text(1), request.text(2));
            let known = called == ("containerd.services.events.ttrpc.v1.Events".into(), "Forward".into());
            let status = if known { 0 } else { code::UNIMPLEMENTED };
            if known && let Ok(forward) = Fields::decode(request.bytes(3)) {
                self.0.lock().expect("the events").push(envelope(&forward.message(1)));
            }
            let status = Message::new().number(1, status).bytes(2, if known { "" } else { "only Forward" });
            if write(&mut stream, number, RESPONSE, &Message::new().message(1, &status)).is_err() {
                return;
            }
        }
    }

    /// All until now.
    ///
    /// # Panics
    /// Never: nobody panics with the list in hand.
    pub fn all(&self) -> Vec<Envelope> {
        self.0.lock().expect("the events").clone()
    }
}

fn envelope(fields: &Fields) -> Envelope {
    let any = fields.message(4);
    Envelope {
        namespace: fields.text(2),
        topic: fields.text(3),
        type_url: any.text(1),
        seconds: fields.message(1).number(1),
        event: any.message(2),
    }
}
