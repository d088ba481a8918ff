//! One connection of a ttrpc server: bytes in, calls out; answers in, bytes out.

use std::time::{Duration, Instant};

use super::frame::{DATA, Data, Frame, MAX_DATA, Outgoing, REQUEST, RESPONSE, Reader, STREAMING};
use super::messages::{Request, Response};
use super::status::{Code, Status};
use super::{MessageField, decode, encode};

/// Above this much that the other side has not read, nothing more is read from it.
const BACKLOG: usize = 256 << 10;

/// What somebody asks for. It is answered by [`Connection::reply`] with the same stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    pub stream: u32,
    pub service: String,
    pub method: String,
    pub payload: Vec<u8>,
}

#[derive(Debug, Default)]
pub struct Connection {
    reader: Reader,
    out: Outgoing,
    /// The calls that have no answer yet, each with the end of the caller's patience.
    open: Vec<(u32, Option<Instant>)>,
    last: u32,
}

impl Connection {
    /// The calls that `bytes` complete. What is wrong with a frame is answered at once, in the words
    /// of the Go implementation, and the connection goes on.
    pub fn received(&mut self, mut bytes: &[u8], now: Instant) -> Vec<Call> {
        let mut calls = Vec::new();
        while let Some(frame) = self.reader.next(&mut bytes) {
            let stream = frame.stream;
            match self.accept(frame, now) {
                Ok(call) => calls.extend(call),
                Err(status) => self.send(stream, Err(&status)),
            }
        }
        calls
    }

    fn accept(&mut self, frame: Frame, now: Instant) -> Result<Option<Call>, Status> {
        let Frame { stream, kind, flags, data } = frame;
        let data = match data {
            Data::Whole(data) => data,
            Data::TooLong(length) => {
                let text = format!("message length {length} exceed maximum message size of {MAX_DATA}");
                return Err(Status::new(Code::RESOURCE_EXHAUSTED, text));
            }
        };
        if stream.is_multiple_of(2) {
            return Err(invalid("StreamID must be odd for client initiated streams"));
        }
        match kind {
            REQUEST => self.begin(stream, flags, &data, now).map(Some),
            DATA => match self.close(stream) {
                // A call has one request: who sends more data has taken the method for a stream.
                true => Err(Status::new(Code::UNIMPLEMENTED, "streams are not served")),
                false => Err(invalid("StreamID is no longer active")),
            },
            // Kinds to come are passed over, as the protocol asks.
            _ => Ok(None),
        }
    }

    fn begin(&mut self, stream: u32, flags: u8, data: &[u8], now: Instant) -> Result<Call, Status> {
        if stream <= self.last {
            return Err(invalid("StreamID cannot be re-used and must increment"));
        }
        self.last = stream;
        let request: Request =
            decode(data).map_err(|torn| invalid(format!("unmarshal request error: {torn}")))?;
        if flags & STREAMING != 0 {
            return Err(Status::new(Code::UNIMPLEMENTED, format!("method {}", request.method)));
        }
        let patience =
            u64::try_from(request.timeout_nano).ok().filter(|&nanos| nanos > 0).map(Duration::from_nanos);
        self.open.push((stream, patience.and_then(|patience| now.checked_add(patience))));
        Ok(Call { stream, service: request.service, method: request.method, payload: request.payload })
    }

    /// Answers a call. An answer to a call whose time has run out goes nowhere.
    pub fn reply(&mut self, stream: u32, answer: Result<&[u8], &Status>) {
        if self.close(stream) {
            self.send(stream, answer);
        }
    }

    /// Answers the calls whose time has run out by `now`, as Go's contexts do.
    pub fn expire(&mut self, now: Instant) {
        let late = |&(_, deadline): &(u32, Option<Instant>)| deadline.is_some_and(|deadline| deadline <= now);
        let streams: Vec<u32> = self.open.iter().copied().filter(late).map(|(stream, _)| stream).collect();
        for stream in streams {
            self.reply(stream, Err(&Status::new(Code::DEADLINE_EXCEEDED, "context deadline exceeded")));
        }
    }

    /// When [`Self::expire`] has next to be called.
    pub fn deadline(&self) -> Option<Instant> {
        self.open.iter().filter_map(|&(_, deadline)| deadline).min()
    }

    /// Whether nobody waits for an answer and all answers are sent.
    pub fn is_idle(&self) -> bool {
        self.open.is_empty() && self.out.to_send().is_empty()
    }

    /// Whether to read more: not from somebody who asks and does not read the answers.
    pub fn wants_bytes(&self) -> bool {
        self.out.to_send().len() < BACKLOG
    }

    pub fn to_send(&self) -> &[u8] {
        self.out.to_send()
    }

    /// The socket has taken `n` bytes of [`Self::to_send`].
    pub fn sent(&mut self, n: usize) {
        self.out.sent(n);
    }

    fn close(&mut self, stream: u32) -> bool {
        let found = self.open.iter().position(|&(open, _)| open == stream);
        found.map(|at| self.open.swap_remove(at)).is_some()
    }

    fn send(&mut self, stream: u32, answer: Result<&[u8], &Status>) {
        let response = match answer {
            Ok(payload) => Response { payload: payload.to_vec(), ..Default::default() },
            Err(status) => Response { status: MessageField::some(status.to_message()), ..Default::default() },
        };
        let sent = match encode(&response) {
            Ok(data) => self.out.push(stream, RESPONSE, 0, &data),
            Err(_) => false,
        };
        if !sent {
            // What is too long for a frame: a payload, or the text of an error.
            let text = format!("answer exceeds maximum message size of {MAX_DATA}");
            self.send(stream, Err(&Status::new(Code::RESOURCE_EXHAUSTED, text)));
        }
    }
}

fn invalid(message: impl Into<String>) -> Status {
    Status::new(Code::INVALID_ARGUMENT, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::client::Client;

    fn request(stream: u32, timeout: i64) -> Vec<u8> {
        let request = Request {
            service: "containerd.task.v2.Task".into(),
            method: "State".into(),
            payload: vec![10, 1, b'a'],
            timeout_nano: timeout,
            ..Default::default()
        };
        let mut out = Outgoing::default();
        assert!(out.push(stream, REQUEST, 0, &encode(&request).expect("encoded")));
        out.to_send().to_vec()
    }

    fn frame(stream: u32, kind: u8, flags: u8, data: &[u8]) -> Vec<u8> {
        let mut out = Outgoing::default();
        assert!(out.push(stream, kind, flags, data));
        out.to_send().to_vec()
    }

    /// (stream, code or 0, text or payload) of all that the connection has to say.
    fn answers(connection: &mut Connection) -> Vec<(u32, i32, String)> {
        let bytes = connection.to_send().to_vec();
        connection.sent(bytes.len());
        let mut rest = bytes.as_slice();
        let mut reader = Reader::default();
        let mut answers = Vec::new();
        while let Some(frame) = reader.next(&mut rest) {
            assert_eq!((frame.kind, frame.flags), (RESPONSE, 0));
            let Data::Whole(data) = frame.data else { panic!("too long") };
            let response: Response = decode(&data).expect("a response");
            answers.push(match response.status.as_ref() {
                Some(status) => (frame.stream, status.code.value(), status.message.clone()),
                None => (frame.stream, 0, String::from_utf8(response.payload).expect("text")),
            });
        }
        assert!(reader.is_between_frames());
        answers
    }

    #[test]
    fn a_call_is_answered_on_its_stream() {
        let mut connection = Connection::default();
        let now = Instant::now();
        let calls = connection.received(&[request(1, 0), request(3, 0)].concat(), now);
        assert_eq!(calls.iter().map(|call| call.stream).collect::<Vec<_>>(), [1, 3]);
        assert_eq!(
            (calls[0].service.as_str(), calls[0].method.as_str()),
            ("containerd.task.v2.Task", "State")
        );
        assert_eq!(calls[0].payload, [10, 1, b'a']);
        assert!(!connection.is_idle());
        connection.reply(3, Ok(b"three"));
        connection.reply(1, Err(&Status::new(Code::NOT_FOUND, "no such task")));
        assert_eq!(answers(&mut connection), [(3, 0, "three".into()), (1, 5, "no such task".into())]);
        assert!(connection.is_idle());
    }

    #[test]
    fn each_cut_of_a_conversation_gives_the_same_calls() {
        let bytes = [request(1, 0), request(3, 5), request(5, 0)].concat();
        let now = Instant::now();
        let whole = Connection::default().received(&bytes, now);
        for at in 0..bytes.len() {
            let mut connection = Connection::default();
            let mut calls = connection.received(&bytes[..at], now);
            calls.extend(connection.received(&bytes[at..], now));
            assert_eq!(calls, whole, "{at}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_frame_is_answered_and_the_connection_goes_on() {
        let torn = frame(7, REQUEST, 0, &[10, 200, 1]);
        let streaming = {
            let mut bytes = request(9, 0);
            bytes[9] = 2;
            bytes
        };
        let cases = [
            (request(2, 0), 2, 3, "StreamID must be odd for client initiated streams"),
            (request(1, 0), 1, 3, "StreamID cannot be re-used and must increment"),
            (frame(5, DATA, 0, b""), 5, 3, "StreamID is no longer active"),
            (frame(3, DATA, 1, b""), 3, 12, "streams are not served"),
            (torn, 7, 3, "unmarshal request error: "),
            (streaming, 9, 12, "method State"),
        ];
        let now = Instant::now();
        let mut connection = Connection::default();
        assert_eq!(connection.received(&[request(1, 0), request(3, 0)].concat(), now).len(), 2);
        for (bytes, stream, code, text) in cases {
            assert_eq!(connection.received(&bytes, now), []);
            let answers = answers(&mut connection);
            assert_eq!(answers.len(), 1, "{text}");
            assert_eq!((answers[0].0, answers[0].1), (stream, code), "{text}");
            assert!(answers[0].2.starts_with(text), "{}", answers[0].2);
        }
        assert_eq!(connection.received(&frame(11, 9, 0, b"kind to come"), now), []);
        assert_eq!(connection.received(&request(13, 0), now).len(), 1);
        // The first call is still open; the third was ended by the data.
        connection.reply(1, Ok(b""));
        connection.reply(3, Ok(b""));
        assert_eq!(answers(&mut connection), [(1, 0, String::new())]);
    }

    #[test]
    fn a_call_ends_with_its_callers_patience() {
        let now = Instant::now();
        let mut connection = Connection::default();
        connection
            .received(&[request(1, 2_000), request(3, 0), request(5, 1_000), request(7, -1)].concat(), now);
        assert_eq!(connection.deadline(), Some(now + Duration::from_nanos(1_000)));
        connection.expire(now + Duration::from_nanos(1_000));
        assert_eq!(answers(&mut connection), [(5, 4, "context deadline exceeded".into())]);
        assert_eq!(connection.deadline(), Some(now + Duration::from_nanos(2_000)));
        connection.reply(5, Ok(b"late"));
        assert_eq!(answers(&mut connection), []);
    }

    #[test]
    fn an_answer_that_fits_no_frame_becomes_an_error() {
        let mut connection = Connection::default();
        connection.received(&request(1, 0), Instant::now());
        connection.reply(1, Ok(&vec![b'x'; MAX_DATA]));
        assert_eq!(answers(&mut connection)[0].1, 8);
    }

    #[test]
    fn who_does_not_read_is_not_read_from() {
        let mut connection = Connection::default();
        connection.received(&request(1, 0), Instant::now());
        connection.reply(1, Ok(&vec![b'x'; BACKLOG]));
        assert!(!connection.wants_bytes());
        connection.sent(1000);
        assert!(connection.wants_bytes());
    }

    #[test]
    fn the_client_and_the_server_understand_each_other() {
        let (mut client, mut server) = (Client::default(), Connection::default());
        let ok = client.call("s", "m", b"in", &[], Duration::from_secs(5)).expect("called");
        let bad = client.call("s", "m", b"in", &[], Duration::from_secs(5)).expect("called");
        for call in server.received(client.to_send(), Instant::now()) {
            let answer = Status::new(Code::ABORTED, "no");
            server.reply(call.stream, if call.stream == ok { Ok(b"out") } else { Err(&answer) });
        }
        assert_eq!(
            client.received(server.to_send()),
            [(ok, Ok(b"out".to_vec())), (bad, Err(Status::new(Code::ABORTED, "no")))]
        );
    }
}
