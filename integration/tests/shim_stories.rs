//! Stories of a container, told by a shim's events. The test plays containerd to the shim: it starts it with the words
//! and bytes of containerd, calls its Task service, and takes its events. Each story is played to the shim under test
//! (`SHIM`) and to containerd's own, and both must tell the same list.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::Instant;

use integration::proto::{Fields, Message};
use integration::shim::{self, Bundle, Dialect, Stage, Streams, TASK_V3, Task};
use integration::story::{SIGKILL, plain, sleeper, sleeper_with, to_the_end, tracing, without_pid_namespace};
use integration::ttrpc::code;
use integration::{call, eventually, need, story};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::{Value, json};
use spec_tests::agent::{Agent, Answer};

story! {
    fn run_to_exit_0(stage) {
        let task = stage.created(stage.bundle("c", &["true"], plain), Streams::default());
        assert_eq!(task.status(""), "CREATED");
        task.start("").expect("start");
        to_the_end(&task, 0);
    }
    tells ["create c pid=init", "start c pid=init", "exit c id=c pid=init status=0", "delete c id= pid=init status=0"]
}

story! {
    fn an_exit_code_is_kept(stage) {
        let task = stage.created(stage.bundle("c", &["sh", "-c", "exit 7"], plain), Streams::default());
        task.start("").expect("start");
        to_the_end(&task, 7);
    }
    tells ["create c pid=init", "start c pid=init", "exit c id=c pid=init status=7", "delete c id= pid=init status=7"]
}

story! {
    fn killed_by_a_signal(stage) {
        let task = sleeper(stage);
        assert_eq!(task.status(""), "RUNNING");
        task.kill("", SIGKILL).expect("kill");
        to_the_end(&task, 137);
    }
    tells [
        "create c pid=init", "start c pid=init", "exit c id=c pid=init status=137", "delete c id= pid=init status=137",
    ]
}

story! {
    fn a_real_time_signal_arrives(stage) {
        // 37 is SIGRTMIN+3, by which systemd in a container is told to halt.
        let script = "trap 'exit 3' 37; touch /tmp/ready; while true; do sleep 0.05; done";
        let task = stage.created(stage.bundle("c", &["sh", "-c", script], plain), Streams::default());
        task.start("").expect("start");
        let ready = stage.sandbox.path("rootfs/tmp/ready");
        eventually("the trap is set", || ready.exists().then_some(()));
        task.kill("", 37).expect("kill");
        to_the_end(&task, 3);
    }
    tells ["create c pid=init", "start c pid=init", "exit c id=c pid=init status=3", "delete c id= pid=init status=3"]
}

story! {
    /// The program has ended before the caller of Start has its answer, most times: Start comes before Exit all the same.
    fn an_exit_before_the_answer_of_start(stage) {
        for round in 0..10 {
            let id = format!("c{round}");
            let task = stage.created(stage.bundle(&id, &["true"], plain), Streams::default());
            task.start("").expect("start");
            to_the_end(&task, 0);
        }
    }
    tells (0..10).flat_map(|round| [
        format!("create c{round} pid=init"),
        format!("start c{round} pid=init"),
        format!("exit c{round} id=c{round} pid=init status=0"),
        format!("delete c{round} id= pid=init status=0"),
    ]).collect::<Vec<_>>().iter().map(String::as_str).collect::<Vec<_>>()
}

story! {
    fn an_exec_is_added_started_and_ends(stage) {
        let task = sleeper(stage);
        task.exec("e1", &["sh", "-c", "exit 4"]).expect("exec");
        assert_eq!(task.status("e1"), "CREATED");
        let again = task.exec("e1", &["true"]).expect_err("an id is taken once");
        assert_eq!(again.code, code::ALREADY_EXISTS, "{again:?}");
        task.start("e1").expect("start");
        assert_eq!(task.wait("e1"), 4);
        assert_eq!(task.delete("e1").expect("delete").number(2), 4);
        task.kill("", SIGKILL).expect("kill");
        to_the_end(&task, 137);
    }
    tells [
        "create c pid=init", "start c pid=init",
        "exec-added c id=e1", "exec-started c id=e1 pid=e1", "exit c id=e1 pid=e1 status=4",
        "exit c id=c pid=init status=137", "delete c id= pid=init status=137",
    ]
}

story! {
    fn an_exec_where_others_may_look_into_any_process(stage) {
        let task = sleeper_with(stage, tracing);
        for (exec, args, status) in [("e1", ["sh", "-c", "exit 4"], 4), ("e2", ["sh", "-c", "kill -9 $$"], 137)] {
            task.exec(exec, &args).expect("exec");
            task.start(exec).expect("start");
            assert_eq!(task.wait(exec), status);
            assert_eq!(task.delete(exec).expect("delete").number(2), status);
        }
        task.exec("e3", &["/no/such/program"]).expect("exec");
        let refused = task.start("e3").expect_err("there is no such program");
        assert!(refused.message.contains("no such file or directory"), "{refused:?}");
        task.delete("e3").expect("delete");
        task.kill("", SIGKILL).expect("kill");
        to_the_end(&task, 137);
    }
    tells [
        "create c pid=init", "start c pid=init",
        "exec-added c id=e1", "exec-started c id=e1 pid=e1", "exit c id=e1 pid=e1 status=4",
        "exec-added c id=e2", "exec-started c id=e2 pid=e2", "exit c id=e2 pid=e2 status=137",
        "exec-added c id=e3",
        "exit c id=c pid=init status=137", "delete c id= pid=init status=137",
    ]
}

story! {
    /// Another process answers the container's calls: it has the filter's listener before the program runs.
    fn a_seccomp_agent_answers_the_container_and_an_exec(stage) {
        let path = stage.sandbox.path("agent");
        let agent = Agent::at(&path, 2, |_| Answer::Value(0));
        // It says that the folder was made, and it was not.
        let script = |status: u32| format!("mkdir /tmp/told && [ ! -e /tmp/told ] && exit {status}");
        let bundle = stage.bundle("c", &["sh", "-c", &format!("until [ -e /tmp/go ]; do sleep 0.05; done; {}", script(5))], |config| {
            let rule = json!({ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY" });
            config["linux"]["seccomp"] =
                json!({ "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": path, "syscalls": [rule] });
        });
        let task = stage.created(bundle, Streams::default());
        task.start("").expect("start");
        task.exec("e1", &["sh", "-c", &script(6)]).expect("exec");
        task.start("e1").expect("start");
        assert_eq!(task.wait("e1"), 6);
        task.delete("e1").expect("delete");
        std::fs::write(stage.sandbox.path("rootfs/tmp/go"), "").expect("a file");
        to_the_end(&task, 5);
        let ids: Vec<_> = agent.seen().states.iter().map(|state| state["state"]["id"].clone()).collect();
        assert_eq!(ids, ["c", "c"]);
    }
    tells [
        "create c pid=init", "start c pid=init",
        "exec-added c id=e1", "exec-started c id=e1 pid=e1", "exit c id=e1 pid=e1 status=6",
        "exit c id=c pid=init status=5", "delete c id= pid=init status=5",
    ]
}

story! {
    /// The end of a pid namespace ends the execs in it: theirs are told before the container's.
    fn an_exec_ends_with_its_container(stage) {
        let task = sleeper(stage);
        task.exec("e1", &["sleep", "1000"]).expect("exec");
        task.start("e1").expect("start");
        task.kill("", SIGKILL).expect("kill");
        assert_eq!(task.wait("e1"), 137);
        assert_eq!(task.wait(""), 137);
        let late = task.exec("late", &["true"]).and_then(|_| task.start("late"));
        assert!(late.is_err(), "an exec in a container that has ended: {late:?}");
        task.delete("e1").expect("delete");
        task.delete("").expect("delete");
        task.shutdown();
    }
    tells if stage.told().iter().any(|line| line == "exec-added c id=late") {
        // The shim of containerd 1.6 takes it and refuses its start.
        vec![
            "create c pid=init", "start c pid=init", "exec-added c id=e1", "exec-started c id=e1 pid=e1",
            "exit c id=e1 pid=e1 status=137", "exit c id=c pid=init status=137",
            "exec-added c id=late", "delete c id= pid=init status=137",
        ]
    } else {
        vec![
            "create c pid=init", "start c pid=init", "exec-added c id=e1", "exec-started c id=e1 pid=e1",
            "exit c id=e1 pid=e1 status=137", "exit c id=c pid=init status=137", "delete c id= pid=init status=137",
        ]
    }
}

story! {
    /// Without a pid namespace of its own nothing ends an exec with the container but the shim.
    fn an_exec_that_would_outlive_its_container(stage) {
        let bundle = stage.bundle("c", &["sleep", "1000"], without_pid_namespace);
        let task = stage.created(bundle, Streams::default());
        task.start("").expect("start");
        task.exec("e1", &["sleep", "1000"]).expect("exec");
        task.start("e1").expect("start");
        task.kill("", SIGKILL).expect("kill");
        assert_eq!((task.wait("e1"), task.wait("")), (137, 137));
        task.delete("e1").expect("delete");
        task.delete("").expect("delete");
        task.shutdown();
    }
    tells {
        let (exec, init) = ("exit c id=e1 pid=e1 status=137", "exit c id=c pid=init status=137");
        // That of containerd 1.6 has the order wrong here; the contract, and newer ones, have init's exit last.
        let wrong = shim::is_stock(&stage.shim) && stage.told().get(4).is_some_and(|line| line == init);
        let (first, second) = if wrong { (init, exec) } else { (exec, init) };
        [
            "create c pid=init", "start c pid=init", "exec-added c id=e1", "exec-started c id=e1 pid=e1",
            first, second, "delete c id= pid=init status=137",
        ]
    }
}

story! {
    fn two_execs_end_in_their_own_order(stage) {
        let task = sleeper(stage);
        for exec in ["e1", "e2"] {
            task.exec(exec, &["sleep", "1000"]).expect("exec");
            task.start(exec).expect("start");
        }
        task.kill("e2", SIGKILL).expect("kill");
        assert_eq!(task.wait("e2"), 137);
        assert_eq!(task.status("e1"), "RUNNING");
        task.kill("e1", 15).expect("kill");
        assert_eq!(task.wait("e1"), 143);
        for exec in ["e1", "e2"] {
            task.delete(exec).expect("delete");
        }
        task.kill("", SIGKILL).expect("kill");
        to_the_end(&task, 137);
    }
    tells [
        "create c pid=init", "start c pid=init",
        "exec-added c id=e1", "exec-started c id=e1 pid=e1", "exec-added c id=e2", "exec-started c id=e2 pid=e2",
        "exit c id=e2 pid=e2 status=137", "exit c id=e1 pid=e1 status=143",
        "exit c id=c pid=init status=137", "delete c id= pid=init status=137",
    ]
}

story! {
    fn an_exec_of_no_program_is_refused(stage) {
        let task = sleeper(stage);
        task.exec("e1", &["/no/such/program"]).expect("exec");
        let refused = task.start("e1").expect_err("there is no such program");
        assert!(refused.message.contains("no such file or directory"), "{refused:?}");
        assert!(refused.message.contains("OCI runtime exec failed"), "{refused:?}");
        assert_eq!(refused.code, code::UNKNOWN, "{refused:?}");
        task.delete("e1").expect("delete");
        assert_eq!(task.status(""), "RUNNING");
        task.kill("", SIGKILL).expect("kill");
        to_the_end(&task, 137);
    }
    tells [
        "create c pid=init", "start c pid=init", "exec-added c id=e1",
        "exit c id=c pid=init status=137", "delete c id= pid=init status=137",
    ]
}

story! {
    fn a_program_that_is_not_there_fails_create(stage) {
        let task = stage.task(stage.bundle("c", &["/no/such/program"], plain), Streams::default());
        let refused = task.create().expect_err("there is no such program");
        assert!(refused.message.contains("OCI runtime create failed"), "{refused:?}");
        assert!(refused.message.contains("/no/such/program"), "{refused:?}");
        assert!(refused.message.contains("no such file or directory"), "{refused:?}");
        assert_eq!(refused.code, code::UNKNOWN, "{refused:?}");
        let unknown = task.call("State", &task.request("")).expect_err("nothing was created");
        assert_eq!(unknown.code, code::NOT_FOUND, "{unknown:?}");
        task.shutdown();
    }
    tells []
}

story! {
    fn paused_and_resumed(stage) {
        let task = sleeper(stage);
        task.exec("e1", &["sleep", "1000"]).expect("exec");
        task.start("e1").expect("start");
        task.call("Pause", &task.request("")).expect("pause");
        assert_eq!((task.status(""), task.status("e1")), ("PAUSED", "PAUSED"));
        task.call("Resume", &task.request("")).expect("resume");
        assert_eq!((task.status(""), task.status("e1")), ("RUNNING", "RUNNING"));
        task.kill("e1", SIGKILL).expect("kill");
        assert_eq!(task.wait("e1"), 137);
        task.delete("e1").expect("delete");
        task.kill("", SIGKILL).expect("kill");
        to_the_end(&task, 137);
    }
    tells [
        "create c pid=init", "start c pid=init", "exec-added c id=e1", "exec-started c id=e1 pid=e1",
        "paused c", "resumed c", "exit c id=e1 pid=e1 status=137",
        "exit c id=c pid=init status=137", "delete c id= pid=init status=137",
    ]
}

story! {
    fn words_about_what_is_not_there(stage) {
        let task = stage.created(stage.bundle("c", &["true"], plain), Streams::default());
        let unknown = task.call("State", &Message::new().bytes(1, "other")).expect_err("no such container");
        assert_eq!((unknown.code, unknown.message.contains("not found")), (code::NOT_FOUND, true), "{unknown:?}");
        let unimplemented = task.call("NoSuchMethod", &Message::new()).expect_err("no such method");
        assert_eq!(unimplemented.code, code::UNIMPLEMENTED, "{unimplemented:?}");
    }
    tells ["create c pid=init"]
}

story! {
    fn a_kill_after_the_end_and_a_delete_before_it(stage) {
        let task = sleeper(stage);
        let early = task.delete("").expect_err("it runs");
        assert_eq!(task.status(""), "RUNNING");
        // Newer shims answer FAILED_PRECONDITION.
        assert!([code::UNKNOWN, code::FAILED_PRECONDITION].contains(&early.code), "{early:?}");
        assert!(early.message.contains("cannot delete a running process"), "{early:?}");
        let no_exec = task.kill("e1", SIGKILL).expect_err("no such exec");
        assert_eq!(no_exec.code, code::NOT_FOUND, "{no_exec:?}");
        task.kill("", SIGKILL).expect("kill");
        assert_eq!(task.wait(""), 137);
        let late = task.kill("", SIGKILL).expect_err("it has ended");
        // Docker reads these words.
        assert_eq!((late.code, late.message.as_str()), (code::NOT_FOUND, "process already finished: not found"));
        to_the_end(&task, 137);
    }
    tells [
        "create c pid=init", "start c pid=init", "exit c id=c pid=init status=137", "delete c id= pid=init status=137",
    ]
}

/// Two containers whose annotations name one pod.
fn pod(stage: &Stage) -> (Task<'_>, Task<'_>) {
    let in_pod =
        |config: &mut Value| config["annotations"] = json!({ "io.kubernetes.cri.sandbox-id": "pod" });
    let pod = stage.created(stage.bundle("pod", &["sleep", "1000"], in_pod), Streams::default());
    let member = stage.task(stage.bundle("member", &["sleep", "1000"], in_pod), Streams::default());
    (pod, member)
}

story! {
    fn a_pod_has_one_shim(stage) {
        let (pod, member) = pod(stage);
        assert_eq!(pod.socket, member.socket, "the second start answers with the first one's address");
        member.create().expect("create");
        assert_eq!(stage.shims().len(), 1);
        member.start("").expect("start");
        member.kill("", SIGKILL).expect("kill");
        assert_eq!(member.wait(""), 137);
        member.delete("").expect("delete");
        // Another one is there: the shim stays.
        member.call("Shutdown", &Message::new().bytes(1, "member")).expect("shutdown");
        assert_eq!(pod.status(""), "CREATED");
        pod.start("").expect("start");
        pod.kill("", SIGKILL).expect("kill");
        to_the_end(&pod, 137);
    }
    tells [
        "create pod pid=init", "create member pid=init", "start member pid=init",
        "exit member id=member pid=init status=137", "delete member id= pid=init status=137",
        "start pod pid=init", "exit pod id=pod pid=init status=137", "delete pod id= pid=init status=137",
    ]
}

story! {
    fn pids_name_their_execs(stage) {
        let task = sleeper(stage);
        task.exec("e1", &["sleep", "1000"]).expect("exec");
        let exec = task.start("e1").expect("start").number(1);
        let connect = task.call("Connect", &Message::new().bytes(1, "c")).expect("connect");
        assert_eq!(connect.number(1), stage.shims()[0]);
        let pids = task.call("Pids", &Message::new().bytes(1, "c")).expect("pids").messages(1);
        let detail = |process: &Fields| process.message(2).message(2).text(1);
        let mut named: Vec<_> = pids.iter().map(|process| (process.number(1), detail(process))).collect();
        named.sort();
        let mut wanted = vec![(connect.number(2), String::new()), (exec, "e1".into())];
        wanted.sort();
        assert_eq!(named, wanted);
        task.kill("", SIGKILL).expect("kill");
        assert_eq!(task.wait("e1"), 137);
        task.delete("e1").expect("delete");
        to_the_end(&task, 137);
    }
    tells [
        "create c pid=init", "start c pid=init", "exec-added c id=e1", "exec-started c id=e1 pid=e1",
        "exit c id=e1 pid=e1 status=137", "exit c id=c pid=init status=137", "delete c id= pid=init status=137",
    ]
}

/// A FIFO of the sandbox's directory, and this test's end of it.
fn fifo(stage: &Stage, name: &str) -> (String, std::fs::File) {
    let path = stage.sandbox.path(name);
    (path.to_string_lossy().into_owned(), shim::fifo(&path))
}

/// What comes, until `len` bytes or 15 seconds of silence.
fn read(file: &mut std::fs::File, len: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut chunk = vec![0; 65536];
    while bytes.len() < len {
        let ready = poll(&mut [PollFd::new(file.as_fd(), PollFlags::POLLIN)], PollTimeout::from(15_000u16))
            .expect("poll");
        if ready == 0 {
            break;
        }
        let count = file.read(&mut chunk).expect("read");
        bytes.extend_from_slice(&chunk[..count]);
    }
    bytes
}

story! {
    fn what_goes_in_by_a_fifo_comes_out(stage) {
        let ((stdin, mut into), (stdout, mut out), (stderr, mut err)) =
            (fifo(stage, "stdin"), fifo(stage, "stdout"), fifo(stage, "stderr"));
        let streams = Streams { stdin, stdout, stderr, terminal: false };
        let script = "cat; echo the end >&2; exit 6";
        let task = stage.created(stage.bundle("c", &["sh", "-c", script], plain), streams);
        task.start("").expect("start");
        into.write_all(b"line\n").expect("write");
        assert_eq!(read(&mut out, 5), b"line\n");
        // The shim holds stdin open until it is told, whoever else has closed it.
        drop(into);
        assert_eq!(task.status(""), "RUNNING");
        task.call("CloseIO", &task.request("").number(3, 1)).expect("close");
        assert_eq!(read(&mut err, 8), b"the end\n");
        to_the_end(&task, 6);
    }
    tells [
        "create c stdin=stdin stdout=stdout stderr=stderr pid=init", "start c pid=init",
        "exit c id=c pid=init status=6", "delete c id= pid=init status=6",
    ]
}

story! {
    fn a_terminal_is_sized_and_read_by_fifos(stage) {
        let ((stdin, mut into), (stdout, mut out)) = (fifo(stage, "stdin"), fifo(stage, "stdout"));
        let streams = Streams { stdin, stdout, stderr: String::new(), terminal: true };
        let script = "read line; stty size; echo got $line; exit 8";
        let bundle = stage.bundle("c", &["sh", "-c", script], |config| config["process"]["terminal"] = json!(true));
        let task = stage.created(bundle, streams);
        task.call("ResizePty", &task.request("").number(3, 100).number(4, 40)).expect("resize");
        task.start("").expect("start");
        into.write_all(b"word\n").expect("write");
        let wanted = "word\r\n40 100\r\ngot word\r\n";
        assert_eq!(String::from_utf8_lossy(&read(&mut out, wanted.len())), wanted);
        to_the_end(&task, 8);
    }
    tells [
        "create c stdin=stdin stdout=stdout terminal pid=init", "start c pid=init",
        "exit c id=c pid=init status=8", "delete c id= pid=init status=8",
    ]
}

story! {
    fn a_file_takes_what_is_said(stage) {
        let path = stage.sandbox.path("output");
        let both = shim::file_uri(&path);
        let streams = Streams { stdout: both.clone(), stderr: both, ..Streams::default() };
        let script = "echo hello; sleep 0.3; echo again >&2";
        let task = stage.created(stage.bundle("c", &["sh", "-c", script], plain), streams);
        task.start("").expect("start");
        assert_eq!(task.wait(""), 0);
        task.delete("").expect("delete");
        task.shutdown();
        let said = std::fs::read_to_string(path).expect("the output");
        // That of containerd 1.7 closes the file when the first of the two streams has ended.
        let cut = shim::is_stock(&stage.shim) && said == "hello\n";
        assert!(said == "hello\nagain\n" || cut, "{said:?}");
    }
    tells [
        "create c stdout=output stderr=output pid=init", "start c pid=init",
        "exit c id=c pid=init status=0", "delete c id= pid=init status=0",
    ]
}

story! {
    /// containerd calls `delete` for a shim that is gone.
    fn delete_cleans_up_after_a_shim_that_was_killed(stage) {
        let task = sleeper(stage);
        // A shim that is killed takes with it what it has not told yet.
        eventually("its events", || (stage.told().len() == 2).then_some(()));
        let shim = stage.shims()[0];
        let inside = |program: &str, word: &str| call(stage.sandbox.command(program).arg(word));
        call(stage.sandbox.command("kill").args(["-KILL", &shim.to_string()])).ok();
        eventually("the shim has ended", || stage.shims().is_empty().then_some(()));
        let bundle = task.bundle.dir.to_string_lossy().into_owned();
        let mut delete = stage.command(&task.bundle, &["-id", "c", "-bundle", &bundle, "delete"]);
        let reply = delete.output().expect("delete");
        assert!(reply.status.success(), "{reply:?}");
        let reply = Fields::decode(&reply.stdout).unwrap_or_else(|error| panic!("{error}: {reply:?}"));
        assert_eq!(reply.number(2), 137, "{reply:?}");
        eventually("its container has ended", || {
            let left = stage.processes().into_iter().filter(|(.., state, name)| name == "sleep" && *state != 'Z');
            // The sandbox's own first process sleeps too.
            (left.count() == 1).then_some(())
        });
        let mounts = inside("cat", "/proc/self/mountinfo").ok().out;
        assert!(!mounts.contains("/bundles/c"), "{mounts}");
    }
    tells ["create c pid=init", "start c pid=init"]
}

story! {
    /// What was left behind by a shim that is gone does not keep the next one from its socket.
    fn a_socket_that_nobody_serves_is_taken_over(stage) {
        let task = sleeper(stage);
        // A shim that is killed takes with it what it has not told yet.
        eventually("its events", || (stage.told().len() == 2).then_some(()));
        let shim = stage.shims()[0];
        call(stage.sandbox.command("kill").args(["-KILL", &shim.to_string()])).ok();
        eventually("the shim has ended", || stage.shims().is_empty().then_some(()));
        assert!(task.socket.exists());
        let again = stage.start(&task.bundle);
        assert_eq!((again == task.socket, stage.shims().len()), (true, 1));
    }
    tells ["create c pid=init", "start c pid=init"]
}

/// A hook that waits for the test: while it does, the shim answers for the pod's other container.
#[test]
fn state_answers_while_a_hook_runs() {
    need!(root, program(shim::STOCK), program("busybox"));
    if shim::is_stock(shim::path()) {
        integration::need::skip("another shim", "containerd's holds its lock while the runtime runs");
        return;
    }
    let stage = Stage::new(shim::path());
    let (pod, _) = pod(&stage);
    let gate = stage.sandbox.path("gate");
    let mut gate_end = shim::fifo(&gate);
    let hook = format!("echo reached > {0}.reached; read line < {0}", gate.display());
    let bundle = stage.bundle("slow", &["true"], |config| {
        config["annotations"] = json!({ "io.kubernetes.cri.sandbox-id": "pod" });
        config["hooks"] = json!({ "createRuntime": [{ "path": "/bin/sh", "args": ["sh", "-c", hook] }] });
    });
    let slow = stage.task(bundle, Streams::default());
    std::thread::scope(|scope| {
        let creating = scope.spawn(|| slow.create());
        let reached = gate.with_extension("reached");
        eventually("the hook runs", || reached.exists().then_some(()));
        let mut client = pod.client();
        let mut took: Vec<_> = (0..50)
            .map(|_| {
                let begun = Instant::now();
                let state = client.call("State", &pod.request("")).expect("state");
                assert_eq!(state.number(4), 1, "created");
                begun.elapsed()
            })
            .collect();
        assert!(!creating.is_finished(), "the hook still waits");
        took.sort_unstable();
        println!("State during a hook: median {:?}, longest {:?}", took[25], took[49]);
        gate_end.write_all(b"go\n").expect("the gate");
        creating.join().expect("create").expect("create");
    });
    slow.start("").expect("start");
    assert_eq!(slow.wait(""), 0);
}

/// The address in what `start` printed.
type Parser = fn(&[u8]) -> String;

/// How containerd reads the reply of `start`: 1.6, 1.7 to 2.2, and 2.3 and later.
fn parsers() -> [(&'static str, Parser); 3] {
    fn bare(reply: &[u8]) -> String {
        String::from_utf8_lossy(reply).trim().to_owned()
    }
    /// JSON with a version that is known, else the bare address.
    fn json(reply: &[u8]) -> String {
        match serde_json::from_slice::<Value>(reply.trim_ascii()) {
            Ok(params) => {
                assert!(params["version"].as_u64().is_some_and(|version| version <= 2), "{params}");
                params["address"].as_str().unwrap_or_default().to_owned()
            }
            Err(_) => bare(reply),
        }
    }
    /// A `BootstrapResult` that has an address, else as before.
    fn params(reply: &[u8]) -> String {
        let reply = reply.trim_ascii();
        match Fields::decode(reply) {
            Ok(result) if !result.text(2).is_empty() => {
                assert_eq!(result.text(3), "ttrpc", "{result:?}");
                result.text(2)
            }
            _ => json(reply),
        }
    }
    [("1.6", bare), ("1.7", json), ("2.3", params)]
}

/// The bootstrap of containerd 2.3 and later, of which no distribution has a package yet: its bytes, then the whole
/// life by the third version of the Task service.
#[test]
fn the_newest_dialect_is_understood() {
    need!(root, program("busybox"));
    if shim::is_stock(shim::path()) {
        integration::need::skip("another shim", "Debian's is older than 2.3");
        return;
    }
    let stage = Stage::new(shim::path());
    for (generation, parse) in parsers() {
        let old = stage.bundle(&format!("words-{generation}"), &["true"], plain);
        let new = stage.bundle(&format!("params-{generation}"), &["true"], plain);
        let replies = [(old, Dialect::Words), (new, Dialect::Params)];
        for (bundle, dialect) in replies {
            // Only the newest asks in the newest form.
            if dialect == Dialect::Params && generation != "2.3" {
                continue;
            }
            let reply = stage.start_reply(&bundle, dialect).ok();
            assert_eq!(reply.err, "");
            let address = parse(reply.out.as_bytes());
            let path = address.strip_prefix("unix://").unwrap_or_else(|| panic!("{generation}: {address:?}"));
            ends_well(&stage, bundle, stage.sandbox.outside(path));
        }
    }
}

fn ends_well(stage: &Stage, bundle: Bundle, socket: PathBuf) {
    for service in [TASK_V3, shim::TASK_V2] {
        let mut client = integration::ttrpc::Client::connect(&socket, service).expect("the socket");
        let unknown =
            client.call("State", &Message::new().bytes(1, &bundle.id)).expect_err("nothing was created");
        assert_eq!(unknown.code, code::NOT_FOUND, "{service}: {unknown:?}");
    }
    let task = Task { stage, bundle, stdio: Streams::default(), socket, service: TASK_V3 };
    task.create().expect("create");
    task.start("").expect("start");
    assert_eq!(task.wait(""), 0);
    task.delete("").expect("delete");
    task.shutdown();
}

/// `-info` with the runtime's options on stdin answers a bare `RuntimeInfo`.
#[test]
fn info_is_readable_by_containerd() {
    need!(root);
    if shim::is_stock(shim::path()) {
        integration::need::skip("another shim", "that of containerd 1.6 knows no -info");
        return;
    }
    let mut stdin = tempfile::tempfile().expect("a file");
    let options = Message::new().bytes(1, "containerd.runc.v1.Options").bytes(2, Message::new());
    stdin.write_all(options.as_ref()).and_then(|()| std::io::Seek::rewind(&mut stdin)).expect("a file");
    let mut command = std::process::Command::new(shim::path());
    let output = command.arg("-info").stdin(stdin).output().expect("-info");
    assert!(output.status.success(), "{output:?}");
    let info = Fields::decode(&output.stdout).expect("a RuntimeInfo");
    // name, version { version, revision }, options, features, annotations
    assert!(info.text(1).starts_with("io.containerd."), "{info:?}");
    assert!(!info.message(2).text(1).is_empty(), "{info:?}");
    let features = info.message(4);
    assert_eq!(features.text(1), "types.containerd.io/opencontainers/runtime-spec/1/features/Features");
    let document: Value = serde_json::from_slice(features.bytes(2)).expect("the features");
    assert!(document["ociVersionMin"].is_string(), "{document}");
}
