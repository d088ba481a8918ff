//! A conversation of containerd 1.6.20 with its own shim and runc 1.1.5, recorded on both sockets:
//! run, exec, metrics, ps, pause, resume, kill, delete. What Go wrote is read, and written again byte for byte.

use std::time::{Duration, Instant};

use super::client::Client;
use super::frame::{Data, Frame, Outgoing, REQUEST, RESPONSE, Reader};
use super::messages::{Any, Empty, Request, Response, cgroup1, events, runc, task};
use super::server::{Call, Connection};
use super::{Message, Named, decode, encode, unpack};

const TASK_REQUESTS: &[u8] = include_bytes!("recorded/task_requests.bin");
const TASK_RESPONSES: &[u8] = include_bytes!("recorded/task_responses.bin");
const EVENTS_REQUESTS: &[u8] = include_bytes!("recorded/events_requests.bin");
const EVENTS_RESPONSES: &[u8] = include_bytes!("recorded/events_responses.bin");

fn frames(mut bytes: &[u8]) -> Vec<(u32, Vec<u8>)> {
    let mut reader = Reader::default();
    let frames = std::iter::from_fn(|| reader.next(&mut bytes))
        .map(|Frame { stream, data, .. }| match data {
            Data::Whole(data) => (stream, data),
            Data::TooLong(length) => panic!("{length}"),
        })
        .collect();
    assert!(reader.is_between_frames());
    frames
}

fn same<M: Message>(bytes: &[u8]) -> M {
    let message: M = decode(bytes).unwrap_or_else(|torn| panic!("{torn}"));
    assert_eq!(encode(&message).expect("encoded"), bytes, "{}", M::NAME);
    assert!(message.special_fields().unknown_fields().iter().next().is_none(), "{}", M::NAME);
    message
}

fn same_any<M: Named>(any: &Any) -> M {
    assert_eq!(any.type_url, M::FULL_NAME);
    same::<M>(&any.value);
    unpack(any).expect("whole").expect("of this type")
}

fn requests_and_answers() -> Vec<(Call, Vec<u8>)> {
    let mut connection = Connection::default();
    let answers = frames(TASK_RESPONSES);
    let calls = connection.received(TASK_REQUESTS, Instant::now());
    assert_eq!(calls.len(), answers.len());
    assert_eq!(connection.to_send(), b"", "nothing was wrong with a frame");
    let answer =
        |stream| answers.iter().find(|(answered, _)| *answered == stream).expect("answered").1.clone();
    calls
        .into_iter()
        .map(|call| {
            let answer = answer(call.stream);
            (call, answer)
        })
        .collect()
}

#[test]
fn all_that_was_asked_and_answered_is_written_again_as_go_wrote_it() {
    let mut seen = Vec::new();
    for (call, answer) in requests_and_answers() {
        assert_eq!(call.service, "containerd.task.v2.Task");
        let response: Response = same(&answer);
        let payload = response.payload.as_slice();
        match call.method.as_str() {
            "Create" => {
                let request: task::CreateTaskRequest = same(&call.payload);
                assert_eq!(request.bundle, "/run/tests/state/io.containerd.runtime.v2.task/default/c1");
                same_any::<runc::Options>(request.options.as_ref().expect("options"));
                assert_ne!(same::<task::CreateTaskResponse>(payload).pid, 0);
            }
            "Start" => {
                same::<task::StartRequest>(&call.payload);
                assert_ne!(same::<task::StartResponse>(payload).pid, 0);
            }
            "State" => {
                same::<task::StateRequest>(&call.payload);
                same::<task::StateResponse>(payload);
            }
            "Exec" => {
                let request: task::ExecProcessRequest = same(&call.payload);
                let spec = request.spec.as_ref().expect("a process");
                assert_eq!(spec.type_url, "types.containerd.io/opencontainers/runtime-spec/1/Process");
                same::<Empty>(payload);
            }
            "Stats" => {
                same::<task::StatsRequest>(&call.payload);
                let response: task::StatsResponse = same(payload);
                let metrics: cgroup1::Metrics = same_any(response.stats.as_ref().expect("statistics"));
                assert_eq!(metrics.pids.current, 1);
            }
            "Pids" => {
                same::<task::PidsRequest>(&call.payload);
                assert_eq!(same::<task::PidsResponse>(payload).processes.len(), 1);
            }
            "Delete" => {
                same::<task::DeleteRequest>(&call.payload);
                assert_ne!(same::<task::DeleteResponse>(payload).exited_at.seconds, 0);
            }
            "Wait" => {
                same::<task::WaitRequest>(&call.payload);
                same::<task::WaitResponse>(payload);
            }
            "Connect" => {
                same::<task::ConnectRequest>(&call.payload);
                same::<task::ConnectResponse>(payload);
            }
            "Kill" => {
                assert_eq!(same::<task::KillRequest>(&call.payload).signal, 9);
                same::<Empty>(payload);
            }
            "CloseIO" => {
                same::<task::CloseIORequest>(&call.payload);
                same::<Empty>(payload);
            }
            "Pause" => drop(same::<task::PauseRequest>(&call.payload)),
            "Resume" => drop(same::<task::ResumeRequest>(&call.payload)),
            "Shutdown" => drop(same::<task::ShutdownRequest>(&call.payload)),
            other => panic!("{other}"),
        }
        seen.push(call.method);
    }
    seen.sort();
    seen.dedup();
    let methods = [
        "CloseIO", "Connect", "Create", "Delete", "Exec", "Kill", "Pause", "Pids", "Resume", "Shutdown",
        "Start", "State", "Stats", "Wait",
    ];
    assert_eq!(seen, methods);
}

#[test]
fn the_servers_frames_are_gos() {
    let mut connection = Connection::default();
    let calls = requests_and_answers();
    connection.received(TASK_REQUESTS, Instant::now());
    for (stream, answer) in frames(TASK_RESPONSES) {
        assert!(calls.iter().any(|(call, _)| call.stream == stream));
        let response: Response = same(&answer);
        connection.reply(stream, Ok(&response.payload));
    }
    assert_eq!(connection.to_send(), TASK_RESPONSES);
}

#[test]
fn the_events_are_read_and_written_as_go_wrote_them() {
    let mut topics = Vec::new();
    for (_, data) in frames(EVENTS_REQUESTS) {
        let request: Request = same(&data);
        assert_eq!(
            (request.service.as_str(), request.method.as_str()),
            ("containerd.services.events.ttrpc.v1.Events", "Forward")
        );
        let forward: events::ForwardRequest = same(&request.payload);
        let envelope = forward.envelope;
        assert_eq!(envelope.namespace, "default");
        let event = envelope.event.as_ref().expect("an event");
        match envelope.topic.as_str() {
            "/tasks/create" => drop(same_any::<events::TaskCreate>(event)),
            "/tasks/start" => drop(same_any::<events::TaskStart>(event)),
            "/tasks/exec-added" => drop(same_any::<events::TaskExecAdded>(event)),
            "/tasks/exec-started" => drop(same_any::<events::TaskExecStarted>(event)),
            "/tasks/exit" => drop(same_any::<events::TaskExit>(event)),
            "/tasks/paused" => drop(same_any::<events::TaskPaused>(event)),
            "/tasks/resumed" => drop(same_any::<events::TaskResumed>(event)),
            "/tasks/delete" => drop(same_any::<events::TaskDelete>(event)),
            other => panic!("{other}"),
        }
        topics.push(envelope.topic.clone());
    }
    let last = |topic: &str| topics.iter().rposition(|other| other == topic);
    assert!(
        last("/tasks/start") < last("/tasks/exit") && last("/tasks/exit") < last("/tasks/delete"),
        "{topics:?}"
    );
}

#[test]
fn the_clients_frames_are_gos() {
    // But for the timeout, which is what was left of it, and so another each time.
    let mut client = Client::default();
    let mut expected = Outgoing::default();
    for (stream, data) in frames(EVENTS_REQUESTS) {
        let mut request: Request = same(&data);
        assert!(request.timeout_nano > 0);
        request.timeout_nano = 5_000_000_000;
        assert!(expected.push(stream, REQUEST, 0, &encode(&request).expect("encoded")));
        let namespace = [("containerd-namespace-ttrpc", "default")];
        let sent = client.call(
            &request.service,
            &request.method,
            &request.payload,
            &namespace,
            Duration::from_secs(5),
        );
        assert_eq!(sent, Ok(stream));
    }
    assert_eq!(client.to_send(), expected.to_send());
    let answers = client.received(EVENTS_RESPONSES);
    assert_eq!(answers.len(), frames(EVENTS_REQUESTS).len());
    assert!(answers.iter().all(|(_, answer)| *answer == Ok(vec![])));
    assert_eq!(EVENTS_RESPONSES[8], RESPONSE);
}
