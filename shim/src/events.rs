//! What containerd is told unasked, in order, across its restarts.
//!
//! One event is on its way at a time: containerd takes the requests of one connection side by side, so
//! two could change places. An event that containerd refuses is tried again, five times, and then
//! given up, as the stock shim does. While nobody is there to refuse it, it waits.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, socket};

use crate::wire::client::Client;
use crate::wire::messages::events::{Envelope, ForwardRequest};
use crate::wire::{MessageField, Named, Torn, encode, pack, timestamp};

const SERVICE: &str = "containerd.services.events.ttrpc.v1.Events";
const METHOD: &str = "Forward";
/// For more than this nobody has asked for a long time: the oldest go.
const QUEUE: usize = 2048;
const TRIES: u32 = 5;
/// How long containerd may take for one event.
const PATIENCE: Duration = Duration::from_secs(5);

/// An event that will not be delivered, for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    pub topic: &'static str,
    pub why: String,
}

#[derive(Debug)]
struct Event {
    topic: &'static str,
    /// A `ForwardRequest`.
    request: Vec<u8>,
    refused: u32,
}

/// The queue and the conversation, without the socket.
#[derive(Debug)]
struct Conversation {
    namespace: String,
    queue: VecDeque<Event>,
    client: Client,
    /// The stream on which the first of the queue is on its way, and until when an answer is awaited.
    waiting: Option<(u32, Instant)>,
    /// Nothing is tried before this.
    not_before: Option<Instant>,
    failed: u32,
    lost: Vec<Lost>,
}

impl Conversation {
    fn push(&mut self, topic: &'static str, request: Vec<u8>) {
        if self.queue.len() == QUEUE {
            // Not the first, when it is on its way: its answer would be taken for the next one's.
            let oldest = usize::from(self.waiting.is_some());
            if let Some(event) = self.queue.remove(oldest) {
                self.lost.push(Lost { topic: event.topic, why: format!("{QUEUE} newer events wait") });
            }
        }
        self.queue.push_back(Event { topic, request, refused: 0 });
    }

    fn wants_to_send(&self, now: Instant) -> bool {
        self.waiting.is_none() && !self.queue.is_empty() && self.not_before.is_none_or(|time| time <= now)
    }

    fn send_first(&mut self, now: Instant) {
        while let (None, Some(event)) = (self.waiting, self.queue.front()) {
            let metadata = [("containerd-namespace-ttrpc", self.namespace.as_str())];
            match self.client.call(SERVICE, METHOD, &event.request, &metadata, PATIENCE) {
                Ok(stream) => self.waiting = Some((stream, now + PATIENCE)),
                Err(torn) => self.give_up(torn.to_string()),
            }
        }
    }

    fn received(&mut self, bytes: &[u8], now: Instant) {
        for (stream, answer) in self.client.received(bytes) {
            if self.waiting.is_none_or(|(waiting, _)| waiting != stream) {
                continue;
            }
            match answer {
                Ok(_) => {
                    self.waiting = None;
                    self.not_before = None;
                    self.failed = 0;
                    self.queue.pop_front();
                }
                Err(status) => self.refused(status.to_string(), now),
            }
        }
    }

    /// Containerd was there, and did not take the event.
    fn refused(&mut self, why: String, now: Instant) {
        self.waiting = None;
        let Some(event) = self.queue.front_mut() else { return };
        event.refused += 1;
        if event.refused > TRIES {
            self.give_up(why);
        } else {
            self.not_before = Some(now + Duration::from_secs(event.refused.into()));
        }
    }

    /// Containerd is not there, or does not answer.
    fn disconnected(&mut self, now: Instant) {
        self.client = Client::default();
        self.waiting = None;
        self.failed = (self.failed + 1).min(TRIES);
        self.not_before = Some(now + Duration::from_secs(self.failed.into()));
    }

    fn give_up(&mut self, why: String) {
        self.not_before = None;
        if let Some(event) = self.queue.pop_front() {
            self.lost.push(Lost { topic: event.topic, why });
        }
    }

    fn deadline(&self) -> Option<Instant> {
        match (self.waiting, self.queue.is_empty()) {
            (Some((_, until)), _) => Some(until),
            (None, false) => self.not_before,
            (None, true) => None,
        }
    }

    fn is_late(&self, now: Instant) -> bool {
        self.waiting.is_some_and(|(_, until)| until <= now)
    }
}

/// Driven by the loop: it polls [`Self::fd`] and calls [`Self::turn`] when that is ready, at
/// [`Self::deadline`], and after each [`Self::publish`].
#[derive(Debug)]
pub struct Publisher {
    address: PathBuf,
    conversation: Conversation,
    connection: Option<UnixStream>,
    /// How many connections were made.
    made: u32,
}

impl Publisher {
    /// `address`: containerd's ttrpc socket. There is no connection until there is an event.
    pub fn new(address: &str, namespace: &str) -> Self {
        let conversation = Conversation {
            namespace: namespace.to_owned(),
            queue: VecDeque::new(),
            client: Client::default(),
            waiting: None,
            not_before: None,
            failed: 0,
            lost: Vec::new(),
        };
        Self { address: socket_path(address).to_owned(), conversation, connection: None, made: 0 }
    }

    /// Puts an event that has happened at `time` at the end of the queue.
    pub fn publish<E: Named>(
        &mut self,
        topic: &'static str,
        event: &E,
        time: SystemTime,
    ) -> Result<(), Torn> {
        let envelope = Envelope {
            timestamp: MessageField::some(timestamp(time)),
            namespace: self.conversation.namespace.clone(),
            topic: topic.to_owned(),
            event: MessageField::some(pack(event)?),
            ..Default::default()
        };
        let request = ForwardRequest { envelope: MessageField::some(envelope), ..Default::default() };
        self.conversation.push(topic, encode(&request)?);
        Ok(())
    }

    /// What there is to poll, which connection that is, and whether it is polled for writing too. It may change with
    /// each [`Self::turn`].
    pub fn fd(&self) -> Option<(BorrowedFd<'_>, u32, bool)> {
        let connection = self.connection.as_ref()?;
        Some((connection.as_fd(), self.made, !self.conversation.client.to_send().is_empty()))
    }

    /// When [`Self::turn`] has to be called though the descriptor is not ready.
    pub fn deadline(&self) -> Option<Instant> {
        self.conversation.deadline()
    }

    /// Whether all events are delivered or given up.
    pub fn is_empty(&self) -> bool {
        self.conversation.queue.is_empty()
    }

    /// The events that were given up since the last call.
    pub fn take_lost(&mut self) -> Vec<Lost> {
        std::mem::take(&mut self.conversation.lost)
    }

    /// Does what can be done without waiting.
    pub fn turn(&mut self, now: Instant) {
        if self.conversation.is_late(now) {
            // It stands still, which is no refusal. Its late answer must not meet a later event.
            self.hang_up(now);
        }
        if let Some(connection) = &mut self.connection
            && read_all(connection, &mut self.conversation, now).is_err()
        {
            self.lost_connection(now);
        }
        if self.conversation.wants_to_send(now) && (self.connection.is_some() || self.connect(now)) {
            self.conversation.send_first(now);
        }
        if let Some(connection) = &mut self.connection
            && write_all(connection, &mut self.conversation.client).is_err()
        {
            self.lost_connection(now);
        }
    }

    /// An answer could not be heard on this connection. Another try comes with another one.
    pub fn hang_up(&mut self, now: Instant) {
        self.connection = None;
        self.conversation.disconnected(now);
    }

    fn connect(&mut self, now: Instant) -> bool {
        match connect(&self.address) {
            Ok(stream) => {
                self.connection = Some(stream);
                self.made = self.made.wrapping_add(1);
            }
            Err(_) => self.conversation.disconnected(now),
        }
        self.connection.is_some()
    }

    fn lost_connection(&mut self, now: Instant) {
        self.connection = None;
        // One that was idle is simply gone; the next event makes another.
        if self.conversation.waiting.is_some() {
            self.conversation.disconnected(now);
        } else {
            self.conversation.client = Client::default();
        }
    }
}

/// To a local socket no connection is ever under way: it is there, it is refused, or (`EAGAIN`) as many
/// wait as may, where a blocking socket would wait too.
fn connect(path: &Path) -> nix::Result<UnixStream> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    nix::sys::socket::connect(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(socket.into())
}

/// containerd gives a path, the bootstrap protocol an address.
fn socket_path(address: &str) -> &Path {
    Path::new(address.strip_prefix("unix://").unwrap_or(address))
}

fn read_all(stream: &mut UnixStream, conversation: &mut Conversation, now: Instant) -> std::io::Result<()> {
    let mut bytes = [0; 512];
    loop {
        match stream.read(&mut bytes) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(n) => conversation.received(&bytes[..n], now),
            Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

fn write_all(stream: &mut UnixStream, client: &mut Client) -> std::io::Result<()> {
    while !client.to_send().is_empty() {
        match stream.write(client.to_send()) {
            Ok(n) => client.sent(n),
            Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
