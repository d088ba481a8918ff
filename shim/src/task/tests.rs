//! Stories of the stock shim, told without processes: what goes in, and line by line what comes out.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use super::*;

#[derive(Default)]
struct World {
    tasks: Tasks,
    /// The work that was given out, by its words.
    jobs: HashMap<String, JobId>,
    calls: u32,
}

fn names() -> Names {
    Names { stdin: String::new(), stdout: "/out".into(), stderr: String::new(), terminal: false }
}

fn at(status: u32) -> Exit {
    Exit { status, at: SystemTime::UNIX_EPOCH + Duration::from_secs(1) }
}

fn create(id: &str) -> Request {
    let target = Target {
        id: id.into(),
        bundle: format!("/b/{id}"),
        root: "/r".into(),
        binary: None,
        systemd_cgroup: false,
        no_pivot_root: false,
        no_new_keyring: false,
        io_uid: 0,
        io_gid: 0,
    };
    let (checkpoint, notes) = (String::new(), Vec::new());
    let create = Create { target, rootfs: Vec::new(), names: names(), notes, checkpoint };
    Request::Create(Box::new(create))
}

fn exec() -> Request {
    Request::Exec(Box::new(Exec { names: names(), spec: b"{}".to_vec() }))
}

impl World {
    /// A call on the container `a`, or, as `a/e`, on an exec of it.
    fn call(&mut self, on: &str, request: Request) -> Vec<String> {
        let (id, exec_id) = on.split_once('/').unwrap_or((on, ""));
        self.calls += 1;
        self.tasks.call(Call { connection: 1, stream: self.calls }, id, exec_id, request);
        self.out()
    }

    fn done(&mut self, job: &str, answer: Result<Option<i32>>) -> Vec<String> {
        let id = self.jobs.remove(job).unwrap_or_else(|| panic!("no job {job}: {:?}", self.jobs));
        // What was said at birth is not changed by it.
        if let Ok(Some(pid)) = answer {
            self.tasks.born(id, pid, false);
        }
        self.tasks.done(id, answer.map(drop));
        self.out()
    }

    fn born(&mut self, job: &str, pid: i32) {
        self.tasks.born(self.jobs[job], pid, true);
        assert_eq!(self.out(), [""; 0]);
    }

    /// It is said when it was reaped already.
    fn born_and_gone(&mut self, job: &str, pid: i32) {
        self.tasks.born(self.jobs[job], pid, false);
        assert_eq!(self.out(), [""; 0]);
    }

    fn exited(&mut self, pid: i32, status: u32) -> Vec<String> {
        self.tasks.exited(pid, at(status));
        self.out()
    }

    fn drained(&mut self, on: &str) -> Vec<String> {
        let (id, exec_id) = on.split_once('/').unwrap_or((on, ""));
        self.tasks.drained(&Key { id: id.into(), exec_id: exec_id.into() });
        self.out()
    }

    fn out(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        while let Some(output) = self.tasks.next_output() {
            let line = match output {
                Output::Reply(call, Ok(reply)) => format!("{}: {}", call.stream, words(&reply)),
                Output::Reply(call, Err(error)) => format!("{}: error: {error}", call.stream),
                Output::Event(event) => format!("event {}", told(&event)),
                Output::Run { job, key, verb } => {
                    let verb = match verb {
                        Verb::Create(_) => "create",
                        Verb::Start => "start",
                        Verb::Exec(_) => "exec",
                        Verb::Pause => "pause",
                        Verb::Resume => "resume",
                        Verb::Update(_) => "update",
                        Verb::Kill { .. } => "kill",
                        Verb::Delete => "delete",
                    };
                    let words = format!("{verb} {}", on(&key));
                    self.jobs.insert(words.clone(), job);
                    format!("run {words}")
                }
                Output::Ended(key) => format!("ended {}", on(&key)),
                Output::Drain(key) => format!("drain {}", on(&key)),
                Output::Close(key) => format!("close {}", on(&key)),
                Output::Watch(id) => format!("watch {id}"),
                Output::Forget(id) => format!("forget {id}"),
                Output::EndRest(id) => format!("end rest of {id}"),
                Output::Signal { pid, signal, .. } => format!("signal {signal} to {pid}"),
                Output::Shutdown => "shutdown".into(),
                Output::Resize { key, width, height, .. } => format!("resize {} {width}x{height}", on(&key)),
                Output::CloseIo(_, key) => format!("close stdin of {}", on(&key)),
                Output::Pids(_, id) => format!("pids of {id}"),
                Output::Stats(_, id) => format!("stats of {id}"),
            };
            lines.push(line);
        }
        lines
    }

    /// A container `a` of pid 10 that runs; its calls have even numbers only by chance.
    fn running() -> Self {
        let mut world = World::default();
        world.call("a", create("a"));
        world.born("create a", 10);
        world.done("create a", Ok(Some(10)));
        world.call("a", Request::Start);
        world.done("start a", Ok(None));
        world.calls = 0;
        world
    }

    /// And an exec `e` of pid 20 in it.
    fn with_exec() -> Self {
        let mut world = World::running();
        world.call("a/e", exec());
        world.call("a/e", Request::Start);
        world.born("exec a/e", 20);
        world.done("exec a/e", Ok(Some(20)));
        world.calls = 0;
        world
    }
}

fn on(key: &Key) -> String {
    if key.exec_id.is_empty() { key.id.to_string() } else { format!("{}/{}", key.id, key.exec_id) }
}

fn words(reply: &Reply) -> String {
    match reply {
        Reply::State { pid, status, exit, .. } => {
            format!("{status:?} {pid}{}", exit.map_or(String::new(), |exit| format!(" ({})", exit.status)))
        }
        Reply::Created { pid } => format!("created {pid}"),
        Reply::Started { pid } => format!("started {pid}"),
        Reply::Deleted { pid, exit } => format!("deleted {pid} {:?}", exit.map(|exit| exit.status)),
        Reply::Waited(exit) => format!("waited {}", exit.status),
        Reply::Connected { pid } => format!("connected {pid}"),
        Reply::Empty => "ok".into(),
        Reply::Pids(_) | Reply::Stats(_) => "from the world".into(),
    }
}

fn told(event: &Event) -> String {
    match event {
        Event::Create { id, pid, .. } => format!("create {id} {pid}"),
        Event::Start { id, pid } => format!("start {id} {pid}"),
        Event::Exit { id, process, pid, exit } => format!("exit {id} {process} {pid} {}", exit.status),
        Event::Delete { id, pid, exit } => format!("delete {id} {pid} {:?}", exit.map(|exit| exit.status)),
        Event::ExecAdded { id, exec_id } => format!("exec-added {id} {exec_id}"),
        Event::ExecStarted { id, exec_id, pid } => format!("exec-started {id} {exec_id} {pid}"),
        Event::Paused { id } => format!("paused {id}"),
        Event::Resumed { id } => format!("resumed {id}"),
        Event::Oom { id } => format!("oom {id}"),
    }
}

#[test]
fn a_container_from_create_to_delete() {
    let mut world = World::default();
    assert_eq!(world.call("a", create("a")), ["run create a"]);
    world.born("create a", 10);
    assert_eq!(world.done("create a", Ok(Some(10))), ["event create a 10", "watch a", "1: created 10"]);
    assert_eq!(world.call("a", Request::State), ["2: Created 10"]);
    assert_eq!(world.call("a", Request::Wait), [""; 0]);
    assert_eq!(world.call("a", Request::Start), ["run start a"]);
    assert_eq!(world.done("start a", Ok(None)), ["event start a 10", "4: started 10"]);
    assert_eq!(world.call("a", Request::State), ["5: Running 10"]);
    assert_eq!(world.exited(10, 3), ["end rest of a", "ended a", "event exit a a 10 3", "3: waited 3"]);
    assert_eq!(world.call("a", Request::State), ["6: Stopped 10 (3)"]);
    assert_eq!(world.call("a", Request::Wait), ["7: waited 3"]);
    assert_eq!(world.call("a", Request::Delete), ["drain a"]);
    assert_eq!(world.drained("a"), ["run delete a"]);
    assert_eq!(
        world.done("delete a", Ok(None)),
        ["close a", "forget a", "event delete a 10 Some(3)", "8: deleted 10 Some(3)"]
    );
    assert_eq!(world.call("a", Request::State), ["9: error: container not created: not found"]);
    assert_eq!(world.call("a", Request::Shutdown), ["10: ok", "shutdown"]);
}

#[test]
fn an_exit_that_comes_before_the_runtime_is_done_is_told_after_the_start() {
    let mut world = World::default();
    world.call("a", create("a"));
    world.born("create a", 10);
    world.done("create a", Ok(Some(10)));
    world.call("a", Request::Start);
    assert_eq!(world.exited(10, 0), [""; 0]);
    assert_eq!(world.call("a", Request::State), ["3: Created 10"]);
    assert_eq!(
        world.done("start a", Ok(None)),
        ["event start a 10", "2: started 10", "end rest of a", "ended a", "event exit a a 10 0"]
    );
    // The same for an exec, whose exit comes before anybody knows its pid.
    let mut world = World::running();
    world.call("a/e", exec());
    world.call("a/e", Request::Start);
    world.exited(20, 7);
    assert_eq!(
        world.done("exec a/e", Ok(Some(20))),
        ["event exec-started a e 20", "2: started 20", "ended a/e", "event exit a e 20 7"]
    );
}

#[test]
fn an_exit_of_somebody_unknown_is_not_taken_for_one_of_a_later_process() {
    let mut world = World::running();
    // Nobody awaits a pid.
    world.exited(20, 9);
    world.call("a/e", exec());
    world.call("a/e", Request::Start);
    assert_eq!(world.done("exec a/e", Ok(Some(20))), ["event exec-started a e 20", "2: started 20"]);
    // And what was said at birth counts, not what is remembered of a number.
    world.call("a/f", exec());
    world.call("a/f", Request::Start);
    world.exited(30, 9);
    world.born("exec a/f", 30);
    assert_eq!(world.done("exec a/f", Ok(Some(30))), ["event exec-started a f 30", "4: started 30"]);
    assert_eq!(world.exited(30, 1), ["ended a/f", "event exit a f 30 1"]);
    assert_eq!(world.exited(30, 2), [""; 0], "the number is another's now");
}

#[test]
fn an_exit_that_comes_before_the_birth_is_said_is_not_lost() {
    let mut world = World::running();
    world.call("a/e", exec());
    world.call("a/e", Request::Start);
    world.exited(77, 9);
    world.born_and_gone("exec a/e", 77);
    // The number is another's now.
    assert_eq!(world.exited(77, 1), [""; 0]);
    assert_eq!(
        world.done("exec a/e", Ok(Some(77))),
        ["event exec-started a e 77", "2: started 77", "ended a/e", "event exit a e 77 9"]
    );
    assert_eq!(
        world.exited(10, 0),
        ["end rest of a", "ended a", "event exit a a 10 0"],
        "no exec holds it back"
    );
    // The same for the first process, which then exits as soon as it was made.
    let mut world = World::default();
    world.call("a", create("a"));
    world.exited(77, 9);
    world.born_and_gone("create a", 77);
    assert_eq!(world.done("create a", Ok(Some(77))).last().map(String::as_str), Some("event exit a a 77 9"));
}

#[test]
fn a_pid_is_free_for_another_once_it_was_reaped_though_its_exit_is_held_back() {
    let mut world = World::with_exec();
    world.call("b", create("b"));
    world.born("create b", 11);
    world.done("create b", Ok(Some(11)));
    world.call("b", Request::Start);
    world.done("start b", Ok(None));
    assert_eq!(world.exited(10, 5), ["end rest of a"]);
    assert_eq!(world.tasks.owner(10), None);
    world.call("b/f", exec());
    world.call("b/f", Request::Start);
    world.born("exec b/f", 10);
    world.done("exec b/f", Ok(Some(10)));
    assert_eq!(world.exited(10, 3), ["ended b/f", "event exit b f 10 3"]);
    assert_eq!(world.exited(20, 0), ["ended a/e", "event exit a e 20 0", "ended a", "event exit a a 10 5"]);
}

#[test]
fn what_ends_after_its_container_was_deleted_is_answered_and_changes_no_other_of_its_name() {
    let mut world = World::running();
    world.call("a", Request::Pause);
    world.exited(10, 137);
    world.call("a", Request::Delete);
    world.drained("a");
    world.done("delete a", Ok(None));
    world.call("a", create("a"));
    world.born("create a", 11);
    world.done("create a", Ok(Some(11)));
    world.call("a", Request::Start);
    world.done("start a", Ok(None));
    assert_eq!(world.done("pause a", Ok(None)), ["1: error: container was deleted: failed precondition"]);
    assert_eq!(world.call("a", Request::State), ["5: Running 11"]);
    // And what the job itself failed with goes on to the caller.
    world.call("a", Request::Pause);
    world.exited(11, 137);
    world.call("a", Request::Delete);
    world.drained("a");
    world.done("delete a", Ok(None));
    assert_eq!(world.done("pause a", Err(Error::Unknown("EBUSY".into()))), ["6: error: EBUSY"]);
}

#[test]
fn a_container_that_is_killed_before_its_start_exits_all_the_same() {
    let mut world = World::default();
    world.call("a", create("a"));
    world.done("create a", Ok(Some(10)));
    assert_eq!(world.exited(10, 137), ["end rest of a", "ended a", "event exit a a 10 137"]);
    assert_eq!(
        world.call("a", Request::Start),
        ["2: error: cannot start a stopped process: failed precondition"]
    );
    world.call("a", Request::Delete);
    world.drained("a");
    assert_eq!(world.done("delete a", Ok(None)).last().map(String::as_str), Some("3: deleted 10 Some(137)"));
}

#[test]
fn the_deletion_of_what_was_only_created_is_told_after_the_exit_that_it_brings() {
    let mut world = World::default();
    world.call("a", create("a"));
    world.done("create a", Ok(Some(10)));
    assert_eq!(world.call("a", Request::Delete), ["run delete a"]);
    assert_eq!(world.done("delete a", Ok(None)), [""; 0]);
    assert_eq!(
        world.exited(10, 137),
        [
            "end rest of a",
            "ended a",
            "event exit a a 10 137",
            "close a",
            "forget a",
            "event delete a 10 Some(137)",
            "2: deleted 10 Some(137)"
        ]
    );
}

#[test]
fn the_exit_of_the_first_process_waits_for_those_of_all_execs() {
    let mut world = World::with_exec();
    world.call("a/f", exec());
    world.call("a/f", Request::Start);
    world.call("a", Request::Wait);
    assert_eq!(world.exited(10, 137), ["end rest of a"]);
    assert_eq!(world.call("a", Request::State), ["4: Running 10"]);
    assert_eq!(world.exited(20, 137), ["ended a/e", "event exit a e 20 137"]);
    assert_eq!(
        world.done("exec a/f", Err(Error::Unknown("gone".into()))),
        ["ended a/f", "2: error: gone", "ended a", "event exit a a 10 137", "3: waited 137"]
    );
}

#[test]
fn no_exec_is_started_once_the_first_process_was_reaped() {
    let mut world = World::with_exec();
    world.call("a/f", exec());
    world.exited(10, 0);
    let refused = "container a init process is not running: failed precondition";
    assert_eq!(world.call("a/f", Request::Start), [format!("2: error: {refused}")]);
    world.exited(20, 0);
    assert_eq!(world.call("a/f", Request::Start), [format!("3: error: {refused}")]);
    assert_eq!(world.call("a/g", exec()), ["4: error: cannot exec in a stopped state: failed precondition"]);
}

#[test]
fn execs_are_named_once_and_deleted_without_an_event() {
    let mut world = World::with_exec();
    assert_eq!(world.call("a/e", exec()), ["1: error: id e: already exists"]);
    assert_eq!(
        world.call("a/e", Request::Delete),
        ["2: error: cannot delete a running process: failed precondition"]
    );
    assert_eq!(world.call("a/e", Request::State), ["3: Running 20"]);
    world.exited(20, 4);
    // Two at once, and each is answered.
    assert_eq!(world.call("a/e", Request::Delete), ["drain a/e"]);
    assert_eq!(world.call("a/e", Request::Delete), [""; 0]);
    assert_eq!(world.drained("a/e"), ["close a/e", "4: deleted 20 Some(4)", "5: deleted 20 Some(4)"]);
    assert_eq!(world.call("a/e", Request::State), ["6: error: process does not exist e: not found"]);
    assert_eq!(world.call("a/e", exec()), ["event exec-added a e", "7: ok"]);
    // Never started: nothing to drain.
    assert_eq!(world.call("a/e", Request::Delete), ["close a/e", "8: deleted 0 None"]);
}

#[test]
fn an_exec_has_a_name_that_is_no_path() {
    let mut world = World::running();
    for (number, name) in ["", "../e"].into_iter().enumerate() {
        let out = world.call(&format!("a/{name}"), exec());
        let number = number + 1;
        assert_eq!(out, [format!("{number}: error: {name:?} is no id for an exec: invalid argument")]);
    }
}

#[test]
fn an_exec_that_could_not_be_started_is_not_waited_for() {
    let mut world = World::running();
    assert_eq!(world.call("a/e", exec()), ["event exec-added a e", "1: ok"]);
    world.call("a/e", Request::Wait);
    world.call("a/e", Request::Start);
    let gone = Error::Unknown("OCI runtime exec failed: exec: \"x\": not found in $PATH".into());
    assert_eq!(
        world.done("exec a/e", Err(gone)),
        ["ended a/e", "3: error: OCI runtime exec failed: exec: \"x\": not found in $PATH", "2: waited 255"]
    );
    // What was to become it is reaped later, or was before.
    for reaped_first in [false, true] {
        let mut world = World::running();
        world.call("a/e", exec());
        world.call("a/e", Request::Start);
        world.born("exec a/e", 20);
        if reaped_first {
            assert_eq!(world.exited(20, 1), [""; 0]);
        }
        world.done("exec a/e", Err(Error::Unknown("gone".into())));
        assert_eq!(world.exited(20, 1), [""; 0]);
        assert_eq!(world.call("a/e", Request::State), ["3: Stopped 20 (255)"]);
    }
    assert_eq!(
        world.call("a/e", Request::Kill { signal: 9, all: false }),
        ["4: error: process already finished: not found"]
    );
}

#[test]
fn signals_go_to_whom_they_are_for_and_to_nobody_else() {
    let mut world = World::with_exec();
    assert_eq!(world.call("a", Request::Kill { signal: 34, all: false }), ["run kill a"]);
    let gone = Error::NotFound("process already finished".into());
    assert_eq!(world.done("kill a", Err(gone)), ["1: error: process already finished: not found"]);
    assert_eq!(world.call("a/e", Request::Kill { signal: 34, all: true }), ["signal 34 to 20"]);
    world.call("a/f", exec());
    assert_eq!(
        world.call("a/f", Request::Kill { signal: 9, all: false }),
        ["4: error: process not created: failed precondition"]
    );
    world.exited(20, 0);
    assert_eq!(
        world.call("a/e", Request::Kill { signal: 9, all: false }),
        ["5: error: process already finished: not found"]
    );
    assert_eq!(
        world.call("b", Request::Kill { signal: 9, all: false }),
        ["6: error: container not created: not found"]
    );
}

#[test]
fn what_is_paused_stands_still_with_all_its_execs() {
    let mut world = World::with_exec();
    assert_eq!(world.call("a", Request::Pause), ["run pause a"]);
    assert_eq!(world.call("a", Request::State), ["2: Pausing 10"]);
    assert_eq!(
        world.call("a", Request::Pause),
        ["3: error: cannot pause a paused container: failed precondition"]
    );
    assert_eq!(world.done("pause a", Ok(None)), ["event paused a", "1: ok"]);
    assert_eq!(world.call("a", Request::State), ["4: Paused 10"]);
    assert_eq!(world.call("a/e", Request::State), ["5: Paused 20"]);
    assert_eq!(world.call("a/f", exec()), ["6: error: cannot exec in a paused state: failed precondition"]);
    assert_eq!(
        world.call("a", Request::Delete),
        ["7: error: cannot delete a paused process: failed precondition"]
    );
    assert_eq!(world.call("a", Request::Update(b"{}".to_vec())), ["run update a"]);
    assert_eq!(world.call("a", Request::Resume), ["run resume a"]);
    assert_eq!(world.done("resume a", Ok(None)), ["event resumed a", "9: ok"]);
    assert_eq!(world.call("a", Request::State), ["10: Running 10"]);
    assert_eq!(world.done("update a", Ok(None)), ["8: ok"]);
    // One that could not be paused runs on.
    world.call("a", Request::Pause);
    assert_eq!(world.done("pause a", Err(Error::Unknown("EBUSY".into()))), ["11: error: EBUSY"]);
    assert_eq!(world.call("a", Request::State), ["12: Running 10"]);
}

#[test]
fn every_waiter_is_answered_and_those_who_have_gone_are_forgotten() {
    let mut world = World::running();
    for connection in [1, 2, 1] {
        world.calls += 1;
        world.tasks.call(Call { connection, stream: world.calls }, "a", "", Request::Wait);
    }
    world.tasks.forget_calls(2);
    assert_eq!(world.exited(10, 0)[3..], ["1: waited 0", "3: waited 0"]);
}

#[test]
fn a_create_that_failed_leaves_its_name_free() {
    let mut world = World::default();
    world.call("a", create("a"));
    assert_eq!(world.call("a", create("a")), ["2: error: container a: already exists"]);
    assert_eq!(world.call("a", Request::State), ["3: error: container not created: not found"]);
    assert_eq!(world.call("a", Request::Shutdown), ["4: ok"], "somebody is being born");
    world.born("create a", 10);
    assert_eq!(world.exited(10, 1), [""; 0]);
    assert_eq!(
        world.done("create a", Err(Error::Unknown("a hook failed".into()))),
        ["close a", "forget a", "1: error: a hook failed"]
    );
    assert_eq!(world.call("a", create("a")), ["run create a"]);
}

#[test]
fn a_delete_that_failed_can_be_tried_again() {
    let mut world = World::running();
    world.exited(10, 0);
    world.call("a", Request::Delete);
    world.drained("a");
    assert_eq!(world.done("delete a", Err(Error::Unknown("EBUSY".into()))), ["1: error: EBUSY"]);
    assert_eq!(world.call("a", Request::Delete), ["drain a"]);
}

#[test]
fn memory_that_ran_out_is_told_of_containers_that_are_there() {
    let mut world = World::running();
    world.tasks.oom(&"a".into());
    world.tasks.oom(&"b".into());
    assert_eq!(world.out(), ["event oom a"]);
}

#[test]
fn what_does_not_fit_the_state_is_refused() {
    let mut world = World::default();
    world.call("a", create("a"));
    world.done("create a", Ok(Some(10)));
    let refused = |world: &mut World, request| {
        let out = world.call("a", request);
        assert_eq!(out.len(), 1, "{out:?}");
        out[0].split_once(": error: ").map(|(_, text)| text.to_owned()).unwrap_or_else(|| panic!("{out:?}"))
    };
    assert_eq!(
        refused(&mut world, Request::Pause),
        "cannot pause task in created state: failed precondition"
    );
    assert_eq!(
        refused(&mut world, Request::Resume),
        "cannot resume task in created state: failed precondition"
    );
    assert_eq!(
        refused(&mut world, Request::Checkpoint),
        "checkpoint is not supported yet by tare: not implemented"
    );
    world.call("a", Request::Start);
    assert_eq!(refused(&mut world, Request::Start), "cannot start a running process: failed precondition");
    assert_eq!(refused(&mut world, Request::Delete), "cannot delete a running process: failed precondition");
    world.done("start a", Ok(None));
    assert_eq!(refused(&mut world, Request::Resume), "cannot resume a running process: failed precondition");
    world.exited(10, 0);
    assert_eq!(refused(&mut world, Request::Pause), "cannot pause a stopped container: failed precondition");
    assert_eq!(
        refused(&mut world, Request::Update(Vec::new())),
        "cannot update a stopped container: failed precondition"
    );
}
