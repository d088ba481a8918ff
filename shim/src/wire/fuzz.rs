//! Bytes from both of containerd's sockets as no containerd sends them.

use std::time::{Duration, Instant};

use super::client::Client;
use super::frame::{Data, Frame, MAX_DATA, Outgoing, RESPONSE, Reader};
use super::messages::{
    Any, Empty, Request, Response, bootstrap, cgroup1, cgroup2, events, introspection, runc, task,
};
use super::server::Connection;
use super::status::{Code, Status};
use super::{Message, decode, encode};

const TASK_REQUESTS: &[u8] = include_bytes!("recorded/task_requests.bin");
const TASK_RESPONSES: &[u8] = include_bytes!("recorded/task_responses.bin");
const EVENTS_REQUESTS: &[u8] = include_bytes!("recorded/events_requests.bin");
const EVENTS_RESPONSES: &[u8] = include_bytes!("recorded/events_responses.bin");

fn frames(mut bytes: &[u8]) -> Vec<Frame> {
    let mut reader = Reader::default();
    std::iter::from_fn(|| reader.next(&mut bytes)).collect()
}

/// Each frame by itself: a whole conversation is too long an input to change much of it.
fn pieces(bytes: &[u8]) -> Vec<Vec<u8>> {
    let again = |frame: Frame| {
        let mut out = Outgoing::default();
        if let Data::Whole(data) = frame.data {
            assert!(out.push(frame.stream, frame.kind, frame.flags, &data));
        }
        out.to_send().to_vec()
    };
    frames(bytes).into_iter().map(again).collect()
}

#[test]
fn requests() {
    let seeds = pieces(TASK_REQUESTS).into_iter().chain([TASK_REQUESTS[..2000].to_vec()]);
    ::fuzz::target("ttrpc-requests").seeds(seeds).rounds(8000).run(|bytes| {
        let now = Instant::now();
        let mut connection = Connection::default();
        let calls = connection.received(bytes, now);
        // However the bytes were cut, they say the same, and are answered the same.
        let mut cut = Connection::default();
        let size = 1 + bytes.len() % 7;
        let of_cut: Vec<_> = bytes.chunks(size).flat_map(|piece| cut.received(piece, now)).collect();
        assert_eq!(calls, of_cut);
        assert_eq!(connection.to_send(), cut.to_send());
        // Each has one answer, and then nobody waits.
        let refused = frames(connection.to_send()).len();
        for (at, call) in calls.iter().enumerate() {
            match at % 2 {
                0 => connection.reply(call.stream, Ok(&call.payload)),
                _ => connection.reply(call.stream, Err(&Status::new(Code::NOT_FOUND, call.method.as_str()))),
            }
        }
        connection.expire(now + Duration::from_secs(1 << 40));
        let answers = frames(connection.to_send());
        let open = connection.deadline().is_none();
        assert!(open && answers.len() <= refused + calls.len(), "{} of {}", answers.len(), calls.len());
        assert!(answers.iter().all(|frame| frame.kind == RESPONSE));
        connection.sent(connection.to_send().len());
        assert!(connection.to_send().is_empty());
        !calls.is_empty()
    });
}

#[test]
fn answers() {
    let seeds = pieces(TASK_RESPONSES).into_iter().chain(pieces(EVENTS_RESPONSES));
    ::fuzz::target("ttrpc-answers").seeds(seeds).rounds(8000).run(|bytes| {
        let answers = Client::default().received(bytes);
        let mut cut = Client::default();
        let of_cut: Vec<_> = bytes.chunks(3).flat_map(|piece| cut.received(piece)).collect();
        assert_eq!(answers, of_cut);
        answers.iter().any(|(_, answer)| answer.is_ok())
    });
}

/// The start of each input says how much the frame pretends to have.
#[test]
fn lengths_that_lie() {
    ::fuzz::target("ttrpc-lengths")
        .seeds([[0, 0, 0, 3, 0, 0, 0, 1, 1, 0, b'a', b'b', b'c']])
        .rounds(20_000)
        .run(|bytes| {
            let mut reader = Reader::default();
            let mut rest = bytes;
            let mut taken = false;
            while let Some(frame) = reader.next(&mut rest) {
                match &frame.data {
                    Data::Whole(data) => assert!(data.len() <= bytes.len()),
                    Data::TooLong(length) => assert!(*length as usize > MAX_DATA),
                }
                taken = true;
            }
            assert!(rest.is_empty(), "what is not a whole frame waits in the reader");
            taken
        });
}

/// What is read can be written, and is then read as the same.
fn comes_back<M: Message>(bytes: &[u8]) -> bool {
    let Ok(message) = decode::<M>(bytes) else { return false };
    let written = encode(&message).expect("what was read can be written");
    let again = decode::<M>(&written).expect("what we write we can read");
    // Fields that are not known come in any order.
    assert_eq!(encode(&again).expect("once more").len(), written.len());
    true
}

#[test]
fn messages() {
    let readers: [fn(&[u8]) -> bool; 21] = [
        comes_back::<task::CreateTaskRequest>,
        comes_back::<task::ExecProcessRequest>,
        comes_back::<task::KillRequest>,
        comes_back::<task::UpdateTaskRequest>,
        comes_back::<task::StateRequest>,
        comes_back::<task::ResizePtyRequest>,
        comes_back::<task::PidsResponse>,
        comes_back::<task::DeleteResponse>,
        comes_back::<Request>,
        comes_back::<Response>,
        comes_back::<Any>,
        comes_back::<Empty>,
        comes_back::<runc::Options>,
        comes_back::<runc::CheckpointOptions>,
        comes_back::<runc::ProcessDetails>,
        comes_back::<bootstrap::BootstrapParams>,
        comes_back::<introspection::RuntimeInfo>,
        comes_back::<events::ForwardRequest>,
        comes_back::<events::TaskExit>,
        comes_back::<cgroup1::Metrics>,
        comes_back::<cgroup2::Metrics>,
    ];
    let payloads = |bytes: &[u8]| {
        let mut connection = Connection::default();
        connection.received(bytes, Instant::now()).into_iter().map(|call| call.payload).collect::<Vec<_>>()
    };
    let answers = frames(TASK_RESPONSES).into_iter().filter_map(|frame| match frame.data {
        Data::Whole(data) => decode::<Response>(&data).ok().map(|response| response.payload),
        Data::TooLong(_) => None,
    });
    let seeds = payloads(TASK_REQUESTS).into_iter().chain(payloads(EVENTS_REQUESTS)).chain(answers);
    ::fuzz::target("shim-messages").seeds(seeds).rounds(3000).run(|bytes| {
        // All of them, to the end.
        readers.iter().filter(|read| read(bytes)).count() > 0
    });
}
