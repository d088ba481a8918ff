//! config-linux.md, seccomp: `SCMP_ACT_NOTIFY`, with an agent that answers.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::fd::AsRawFd;
use std::path::PathBuf;

use nix::errno::Errno;
use spec_tests::agent::{Agent, Answer, Call, Seen};
use spec_tests::call::{Running, call};
use spec_tests::socket::Listener;
use spec_tests::terminal::Terminal;
use spec_tests::{
    Bundle, Container, Flavor, Value, crun, differs, differs_at_times, json, need, runc, runc_before, runtime,
};

/// A call without effect.
const CALL: &str = "getpgid";
const NUMBER: i64 = libc::SYS_getpgid;

/// What an agent makes of it.
const EMULATED: i64 = 4242;

/// Where the agent of a bundle listens.
fn agent_path(bundle: &Bundle) -> PathBuf {
    bundle.dir().join("agent")
}

/// These calls are the agent's to answer; all others are allowed.
fn notifying<const N: usize>(names: [&str; N]) -> Bundle {
    let bundle = Bundle::new();
    let path = agent_path(&bundle);
    bundle.linux(|l| {
        l["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "listenerPath": path,
            "listenerMetadata": "meta \"data\"",
            "syscalls": [{ "names": names.as_slice(), "action": "SCMP_ACT_NOTIFY" }],
        });
    })
}

fn emulate(call: &Call) -> Answer {
    match call.args[0] {
        13 => Answer::Errno(Errno::ENETDOWN),
        14 => Answer::Continue,
        _ => Answer::Value(EMULATED),
    }
}

/// What the probe says that [`emulate`] answered.
fn emulated() -> [Value; 3] {
    [json!({ "ok": EMULATED }), json!({ "errno": "ENETDOWN" }), json!({ "errno": "ESRCH" })]
}

/// By its number on x86-64.
const ASK: [&str; 14] =
    ["try", "syscall", "121", "0", ",", "try", "syscall", "121", "13", ",", "try", "syscall", "121", "14"];

/// The numbers of open descriptors that are a listener.
fn listeners(pid: i32) -> Vec<PathBuf> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|fd| fs::read_link(fd).is_ok_and(|to| to.ends_with("anon_inode:seccomp notify"))).collect()
}

#[test]
fn an_agent_answers_for_the_kernel() {
    need!(root);
    for no_new_privs in [true, false] {
        let bundle = notifying([CALL]).process(|p| p["noNewPrivileges"] = json!(no_new_privs));
        let agent = Agent::at(&agent_path(&bundle), 1, emulate);
        let container = bundle.probe(ASK).container();
        let out = container.run().ok();
        assert_eq!(out.json_lines(), emulated(), "noNewPrivileges {no_new_privs}");
        let Seen { states, calls } = agent.seen();
        assert_eq!(states.len(), 1);
        assert!(calls.iter().all(|call| call.number == NUMBER), "{calls:?}");
        assert_eq!(calls.iter().map(|call| call.args[0]).collect::<Vec<_>>(), [0, 13, 14]);
    }
}

#[test]
fn the_listener_is_sent_to_the_agent_with_the_state() {
    need!(root);
    differs([crun("sends the descriptor in another way without no_new_privs")], || {
        for no_new_privs in [true, false] {
            let bundle = notifying([CALL])
                .config(|c| c["annotations"] = json!({ "org.example": "noted" }))
                .process(|p| p["noNewPrivileges"] = json!(no_new_privs));
            let listener = Listener::bind(&agent_path(&bundle));
            let container = bundle.probe(["wait"]).create();
            let (message, fds) = listener.receive_to_the_end();
            let state: Value = serde_json::from_slice(&message).unwrap();
            assert!(state["ociVersion"].as_str().unwrap().starts_with("1."), "{state}");
            assert_eq!(state["fds"], json!(["seccompFd"]));
            assert_eq!(state["pid"], container.pid());
            assert_eq!(state["metadata"], "meta \"data\"");
            let inner = &state["state"];
            assert!(inner["ociVersion"].as_str().unwrap().starts_with("1."), "{state}");
            assert_eq!(inner["id"], container.id());
            assert_eq!(inner["status"], "creating");
            assert_eq!(inner["pid"], container.pid());
            assert_eq!(inner["bundle"], json!(container.bundle_path()));
            assert_eq!(inner["annotations"]["org.example"], "noted");
            assert_eq!(fds.len(), 1);
            let target = fs::read_link(format!("/proc/self/fd/{}", fds[0].as_raw_fd())).unwrap();
            assert_eq!(target.to_str().unwrap(), "anon_inode:seccomp notify");
            container.start().silent();
            container.wait_for_stdout("ready");
        }
    });
}

#[test]
fn the_connection_is_closed_after_the_state() {
    need!(root);
    let known = [runc_before("1.2", "leaves it to its garbage collector"), crun("keeps it to its end")];
    differs_at_times(known, || {
        let bundle = notifying([CALL]);
        let listener = Listener::bind(&agent_path(&bundle));
        let container = bundle.probe(["wait"]).container();
        let _running = container.spawn_run([], b"");
        let (message, _fds) = listener.receive_to_the_end();
        let state: Value = serde_json::from_slice(&message).unwrap();
        assert_eq!(state["state"]["id"], container.id());
    });
}

/// Else a call would wait for ever when the agent has gone, and the container could answer itself.
#[test]
fn nobody_but_the_agent_holds_the_listener() {
    need!(root);
    differs([crun("sends it only at start")], || {
        let bundle = notifying([CALL]);
        let listener = Listener::bind(&agent_path(&bundle));
        let number = NUMBER.to_string();
        let container = bundle.probe(["facts", ",", "try", "syscall", &number, "0"]).create();
        let (_, fds) = listener.receive();
        assert_eq!(listeners(container.pid()), Vec::<PathBuf>::new());
        drop(fds);
        container.start().silent();
        container.wait_for_status("stopped");
        let out = container.stdout();
        let mut lines = out.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let facts = lines.next().unwrap();
        assert_eq!(facts["fds"].as_object().unwrap().len(), 3, "{}", facts["fds"]);
        assert_eq!(lines.next().unwrap(), json!({ "errno": "ENOSYS" }));
    });
}

#[test]
fn a_process_of_exec_has_a_listener_of_its_own() {
    need!(root);
    differs([crun("does not say the pid of the first process")], || {
        let bundle = notifying([CALL]);
        let path = agent_path(&bundle);
        let listener = Listener::bind(&path);
        let container = bundle.probe(["wait"]).start();
        let first = listener.receive();
        drop(listener);
        fs::remove_file(&path).unwrap();
        for detached in [false, true] {
            let agent = Agent::at(&path, 1, emulate);
            if detached {
                container.exec_with(["--detach"], ["try", "syscall", "121", "0"]).ok();
            } else {
                assert_eq!(container.exec(ASK).ok().json_lines(), emulated());
            }
            let Seen { states, calls } = agent.seen();
            assert_eq!(calls.len(), if detached { 1 } else { 3 });
            let state = &states[0];
            assert_eq!(state["fds"], json!(["seccompFd"]));
            assert_eq!(state["metadata"], "meta \"data\"");
            assert_ne!(state["pid"], container.pid());
            assert_eq!(state["state"]["id"], container.id());
            assert_eq!(state["state"]["status"], "running");
            assert_eq!(state["state"]["pid"], container.pid());
            fs::remove_file(&path).unwrap();
        }
        drop(first);
    });
}

#[test]
fn the_state_that_an_exec_tells_is_the_containers() {
    need!(root);
    let bundle = notifying([CALL]);
    let listener = Listener::bind(&agent_path(&bundle));
    let container = bundle.probe(["wait"]).create();
    differs([runc("says running"), crun("sends the first listener only at start")], || {
        let _first = listener.receive();
        let exec = container.command(["exec", container.id(), "/probe", "print", "done"]);
        let mut running = Running::spawn(exec, b"");
        let (state, _fds) = listener.receive_json();
        running.wait().ok();
        assert_eq!(state["state"]["status"], "created");
    });
}

#[test]
fn a_container_with_a_terminal_has_an_agent_too() {
    need!(root);
    let bundle = notifying([CALL]).process(|p| p["terminal"] = json!(true));
    let agent = Agent::at(&agent_path(&bundle), 1, emulate);
    let mut container = bundle.probe(ASK).container();
    let console = container.dir().join("console");
    let socket = Listener::bind(&console);
    container.create_with(["--console-socket", console.to_str().unwrap()]).silent();
    let (_, mut fds) = socket.receive();
    container.start().silent();
    let mut master = Terminal::from(fds.remove(0));
    let text = master.read_all();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines, emulated());
    assert_eq!(agent.seen().calls.len(), 3);
}

/// What the process itself calls between the filter and its program is the agent's as well.
#[test]
fn calls_of_the_process_before_its_program_wait_for_the_agent() {
    need!(root);
    let names = ["read", "close", "sendmsg", "execve", "recvmsg", "exit_group"];
    for no_new_privs in [true, false] {
        let bundle = notifying(names).process(|p| p["noNewPrivileges"] = json!(no_new_privs));
        let agent = Agent::at(&agent_path(&bundle), 2, |_| Answer::Continue);
        let container = bundle.probe(["wait"]).start();
        let out = container.exec(["print", "alive"]).ok();
        assert_eq!(out.stdout, "alive\n", "noNewPrivileges {no_new_privs}");
        container.kill("KILL").ok();
        let Seen { calls, .. } = agent.seen();
        let asked = |number| calls.iter().any(|call| call.number == number);
        assert!(asked(libc::SYS_execve) && asked(libc::SYS_read), "{calls:?}");
    }
}

#[test]
fn a_state_larger_than_any_buffer_arrives_whole() {
    need!(root);
    let text = "x".repeat(600_000);
    let bundle = notifying([CALL]).config(|c| c["annotations"] = json!({ "org.example": text }));
    let agent = Agent::at(&agent_path(&bundle), 1, emulate);
    bundle.probe(["print", "done"]).run().ok();
    assert_eq!(agent.seen().states[0]["state"]["annotations"]["org.example"], text);
}

#[test]
fn an_agent_that_is_not_there_is_an_error() {
    need!(root);
    let out = notifying([CALL]).create_fails();
    if runtime::under_test().flavor == Flavor::Tare {
        out.says("seccomp agent").says("/agent: no such file or directory");
    }
    // Of an exec too, and only of it.
    let bundle = notifying([CALL]);
    let path = agent_path(&bundle);
    let listener = Listener::bind(&path);
    let container = bundle.probe(["wait"]).start();
    let _first = listener.receive();
    drop(listener);
    let out = container.exec(["print", "never"]).refused();
    assert_eq!(out.stdout, "");
    if runtime::under_test().flavor == Flavor::Tare {
        out.says("/agent: connection refused");
    }
    assert_eq!(container.status(), "running");
    let others = others(&container);
    assert_eq!(others, 0, "processes that exec has left");
}

/// Processes in the container beside its first one.
fn others(container: &Container) -> usize {
    let ps = container.call(["ps", "--format", "json", container.id()]).ok();
    ps.json().as_array().unwrap().len() - 1
}

#[test]
fn a_path_of_an_agent_is_ignored_when_nothing_notifies() {
    need!(root);
    differs([crun("connects all the same")], || {
        let bundle =
            notifying([CALL]).linux(|l| l["seccomp"]["syscalls"][0]["action"] = json!("SCMP_ACT_ERRNO"));
        bundle.probe(["print", "alive"]).run().ok();
    });
}

#[test]
fn metadata_without_a_path_is_refused() {
    need!(root);
    let without = |action: &str| {
        notifying([CALL]).linux(|l| {
            let seccomp = l["seccomp"].as_object_mut().unwrap();
            seccomp.remove("listenerPath");
            l["seccomp"]["syscalls"][0]["action"] = json!(action);
        })
    };
    differs([crun("drops the action")], || drop(without("SCMP_ACT_NOTIFY").create_fails()));
    differs([runc("ignores it"), crun("ignores it")], || drop(without("SCMP_ACT_ERRNO").create_fails()));
}

#[test]
fn notify_cannot_hold_the_runtimes_own_write_nor_be_the_default() {
    need!(root);
    differs([crun("lets it hang")], || {
        let bundle = notifying(["write"]);
        let _listener = Listener::bind(&agent_path(&bundle));
        bundle.create_fails();
    });
    differs([crun("lets it hang")], || {
        let bundle = notifying([CALL]).linux(|l| l["seccomp"]["defaultAction"] = json!("SCMP_ACT_NOTIFY"));
        let _listener = Listener::bind(&agent_path(&bundle));
        bundle.create_fails();
    });
}

#[test]
fn the_flag_of_killable_waits_needs_a_listener() {
    need!(root, kernel(5, 19));
    let flags = json!(["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]);
    let with_flag = |bundle: Bundle| bundle.linux(|l| l["seccomp"]["flags"] = flags.clone());
    differs([runc_before("1.3", "knows no such flag")], || {
        let bundle = with_flag(notifying([CALL]));
        let agent = Agent::at(&agent_path(&bundle), 1, emulate);
        bundle.probe(["print", "alive"]).run().ok();
        agent.seen();
    });
    let without = notifying([CALL]).linux(|l| l["seccomp"]["syscalls"] = json!([]));
    with_flag(without).create_fails();
}

#[test]
fn an_exec_in_a_terminal_has_an_agent_too() {
    need!(root);
    let bundle = notifying([CALL]);
    let path = agent_path(&bundle);
    let agent = Agent::at(&path, 2, emulate);
    let container = bundle.probe(["wait"]).start();
    let console = container.dir().join("console");
    let socket = Listener::bind(&console);
    let mut command = container.command(["exec", "--tty", "--detach", "--console-socket"]);
    command.arg(&console).args([container.id(), "/probe"]).args(ASK);
    call(command).ok();
    let (_, mut fds) = socket.receive();
    let mut master = Terminal::from(fds.remove(0));
    let lines: Vec<Value> = master.read_all().lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(lines, emulated());
    container.kill("KILL").ok();
    assert_eq!(agent.seen().calls.len(), 3);
}
