use std::os::unix::net::UnixListener;

use super::*;
use crate::starts::nothing_starts;
use crate::wire::messages::events::TaskOOM;
use crate::wire::server::Connection;
use crate::wire::status::{Code, Status};
use crate::wire::{decode, unpack};

/// containerd's side of one connection.
struct Containerd {
    stream: UnixStream,
    connection: Connection,
}

impl Containerd {
    fn accept(listener: &UnixListener) -> Self {
        let (stream, _) = listener.accept().expect("a connection");
        stream.set_nonblocking(true).expect("not blocking");
        Self { stream, connection: Connection::default() }
    }

    /// The stream and the container's id of each event that has come.
    fn events(&mut self) -> Vec<(u32, String)> {
        let mut bytes = [0; 4096];
        let mut events = Vec::new();
        while let Ok(n) = self.stream.read(&mut bytes) {
            if n == 0 {
                break;
            }
            for call in self.connection.received(&bytes[..n], Instant::now()) {
                assert_eq!((call.service.as_str(), call.method.as_str()), (SERVICE, METHOD));
                let request: ForwardRequest = decode(&call.payload).expect("a request");
                assert_eq!(request.envelope.namespace, "ns");
                let event = unpack::<TaskOOM>(&request.envelope.event).expect("whole").expect("an event");
                events.push((call.stream, event.container_id));
            }
        }
        events
    }

    fn answer(&mut self, stream: u32, answer: Result<&[u8], &Status>) {
        self.connection.reply(stream, answer);
        let n = self.stream.write(self.connection.to_send()).expect("written");
        self.connection.sent(n);
    }
}

fn oom(publisher: &mut Publisher, id: impl Into<String>) {
    let event = TaskOOM { container_id: id.into(), ..Default::default() };
    publisher.publish("/tasks/oom", &event, SystemTime::now()).expect("published");
}

fn pair() -> (tempfile::TempDir, UnixListener, Publisher) {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("ttrpc");
    let listener = UnixListener::bind(&path).expect("bound");
    let publisher = Publisher::new(&format!("unix://{}", path.display()), "ns");
    (dir, listener, publisher)
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn events_come_one_by_one_in_order() {
    let (_dir, listener, mut publisher) = pair();
    let now = Instant::now();
    assert!(publisher.fd().is_none() && publisher.deadline().is_none(), "nothing to do, nothing to poll");
    for id in ["a", "b", "c"] {
        oom(&mut publisher, id);
    }
    publisher.turn(now);
    let mut containerd = Containerd::accept(&listener);
    for id in ["a", "b", "c"] {
        let events = containerd.events();
        assert_eq!(events.len(), 1, "{id}");
        assert_eq!(events[0].1, id);
        containerd.answer(events[0].0, Ok(b""));
        publisher.turn(now);
    }
    assert!(publisher.is_empty());
    assert_eq!(publisher.deadline(), None);
    assert_eq!(publisher.take_lost(), []);
}

#[test]
fn across_a_restart_of_containerd_no_event_is_lost_and_the_order_is_kept() {
    let (dir, listener, mut publisher) = pair();
    let mut now = Instant::now();
    oom(&mut publisher, "a");
    publisher.turn(now);
    let mut containerd = Containerd::accept(&listener);
    assert_eq!(containerd.events().len(), 1);
    // It dies before it has answered, and stays away for an hour.
    let _closed = nothing_starts();
    drop((containerd, listener));
    std::fs::remove_file(dir.path().join("ttrpc")).expect("removed");
    for id in ["b", "c"] {
        oom(&mut publisher, id);
    }
    let gone = now;
    let mut waits = Vec::new();
    publisher.turn(now);
    while now - gone < 3600 * SECOND {
        let next = publisher.deadline().expect("another try");
        waits.push((next - now).as_secs());
        now = next;
        publisher.turn(now);
    }
    assert_eq!(waits[..6], [1, 2, 3, 4, 5, 5]);
    let listener = UnixListener::bind(dir.path().join("ttrpc")).expect("bound");
    publisher.turn(publisher.deadline().expect("another try"));
    let mut containerd = Containerd::accept(&listener);
    let mut ids = Vec::new();
    while let Some((stream, id)) = containerd.events().pop() {
        ids.push(id);
        containerd.answer(stream, Ok(b""));
        publisher.turn(now);
    }
    assert_eq!(ids, ["a", "b", "c"]);
    assert!(publisher.is_empty());
    assert_eq!(publisher.take_lost(), []);
}

#[test]
fn an_idle_connection_that_ends_is_replaced_at_once() {
    let (_dir, listener, mut publisher) = pair();
    let now = Instant::now();
    oom(&mut publisher, "a");
    publisher.turn(now);
    let mut containerd = Containerd::accept(&listener);
    let (stream, _) = containerd.events().pop().expect("an event");
    containerd.answer(stream, Ok(b""));
    publisher.turn(now);
    let _closed = nothing_starts();
    drop(containerd);
    publisher.turn(now);
    assert!(publisher.fd().is_none() && publisher.deadline().is_none());
    oom(&mut publisher, "b");
    publisher.turn(now);
    assert_eq!(Containerd::accept(&listener).events()[0].1, "b");
}

#[test]
fn what_is_refused_five_times_more_is_given_up_and_the_next_one_sent() {
    let (_dir, listener, mut publisher) = pair();
    let mut now = Instant::now();
    oom(&mut publisher, "bad");
    oom(&mut publisher, "good");
    publisher.turn(now);
    let mut containerd = Containerd::accept(&listener);
    let mut waits = Vec::new();
    for _ in 0..=TRIES {
        let (stream, id) = containerd.events().pop().expect("an event");
        assert_eq!(id, "bad");
        containerd.answer(stream, Err(&Status::new(Code::INVALID_ARGUMENT, "no")));
        publisher.turn(now);
        if let Some((_, id)) = publisher.conversation.waiting.map(|(stream, _)| (stream, "good")) {
            assert_eq!(containerd.events()[0].1, id);
            break;
        }
        let next = publisher.deadline().expect("another try");
        waits.push((next - now).as_secs());
        now = next;
        publisher.turn(now);
    }
    assert_eq!(waits, [1, 2, 3, 4, 5]);
    assert_eq!(publisher.take_lost(), [Lost { topic: "/tasks/oom", why: "no (INVALID_ARGUMENT)".into() }]);
}

#[test]
fn a_containerd_that_does_not_answer_is_left_for_a_new_connection() {
    let (_dir, listener, mut publisher) = pair();
    let now = Instant::now();
    oom(&mut publisher, "a");
    publisher.turn(now);
    let _silent = Containerd::accept(&listener);
    assert_eq!(publisher.deadline(), Some(now + PATIENCE));
    publisher.turn(now + PATIENCE);
    assert_eq!(publisher.deadline(), Some(now + PATIENCE + SECOND));
    publisher.turn(now + PATIENCE + SECOND);
    assert_eq!(Containerd::accept(&listener).events()[0].1, "a");
}

#[test]
fn a_containerd_that_stands_still_for_an_hour_loses_no_event() {
    let (_dir, listener, mut publisher) = pair();
    let start = Instant::now();
    let mut now = start;
    oom(&mut publisher, "a");
    publisher.turn(now);
    let mut silent = Vec::new();
    while now - start < 3600 * SECOND {
        // It takes connections, or the kernel does, and says nothing.
        if publisher.fd().is_some() {
            silent.push(Containerd::accept(&listener));
        }
        now = publisher.deadline().expect("another try");
        publisher.turn(now);
    }
    assert!(silent.len() > 300, "{}", silent.len());
    assert_eq!(publisher.take_lost(), []);
    if publisher.fd().is_none() {
        publisher.turn(publisher.deadline().expect("another try"));
    }
    let mut awake = Containerd::accept(&listener);
    let (stream, id) = awake.events().pop().expect("an event");
    assert_eq!(id, "a");
    awake.answer(stream, Ok(b""));
    publisher.turn(now);
    assert!(publisher.is_empty());
}

#[test]
fn a_connection_that_cannot_be_heard_is_replaced_after_a_while() {
    let (_dir, listener, mut publisher) = pair();
    let now = Instant::now();
    oom(&mut publisher, "a");
    publisher.turn(now);
    let _closed = nothing_starts();
    drop(Containerd::accept(&listener));
    publisher.hang_up(now);
    assert!(publisher.fd().is_none() && !publisher.is_empty());
    assert_eq!(publisher.deadline(), Some(now + SECOND));
    publisher.turn(now + SECOND);
    assert_eq!(Containerd::accept(&listener).events()[0].1, "a");
}

#[test]
fn the_queue_has_an_end_and_the_oldest_that_is_not_on_its_way_goes() {
    let (_dir, listener, mut publisher) = pair();
    let now = Instant::now();
    oom(&mut publisher, "0");
    publisher.turn(now);
    for id in 1..QUEUE + 2 {
        oom(&mut publisher, id.to_string());
    }
    assert_eq!(publisher.take_lost().len(), 2);
    let mut containerd = Containerd::accept(&listener);
    let mut ids = Vec::new();
    while let Some((stream, id)) = containerd.events().pop() {
        ids.push(id);
        containerd.answer(stream, Ok(b""));
        publisher.turn(now);
    }
    assert_eq!(ids.len(), QUEUE);
    assert_eq!(ids[..3], ["0", "3", "4"]);
}

#[test]
fn a_containerd_whose_queue_is_full_does_not_make_the_shim_wait() {
    let (_dir, listener, mut publisher) = pair();
    nix::sys::socket::listen(&listener, nix::sys::socket::Backlog::new(0).expect("a backlog"))
        .expect("listening");
    let path = publisher.address.clone();
    let waiting: Vec<UnixStream> = std::iter::from_fn(|| connect(&path).ok()).collect();
    oom(&mut publisher, "a");
    publisher.turn(Instant::now());
    assert!(publisher.fd().is_none() && publisher.deadline().is_some());
    drop(waiting);
}
