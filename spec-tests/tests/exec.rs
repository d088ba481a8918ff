//! `exec`, which the specification does not have and every engine needs: as runc's.
#![allow(clippy::unwrap_used)]

use std::fs;

use nix::sys::signal::Signal;
use spec_tests::call::{Running, call, eventually};
use spec_tests::{Bundle, Container, Value, crun, crun_before, differs, json, need, runc};

fn running() -> Container {
    let container = Bundle::new().probe(["facts", ",", "trap", "100"]).start();
    container.wait_for_stdout("ready");
    container
}

/// The same, and one whose processes may look into any other: there tare bears the new one last.
fn both() -> [Container; 2] {
    [Bundle::new(), Bundle::new().capabilities(["CAP_CHOWN", "CAP_SYS_PTRACE"])].map(|bundle| {
        let container = bundle.probe(["facts", ",", "trap", "100"]).start();
        container.wait_for_stdout("ready");
        container
    })
}

fn facts_of_init(container: &Container) -> Value {
    serde_json::from_str(container.stdout().lines().next().unwrap()).unwrap()
}

#[test]
fn exec_gives_the_output_and_the_exit_code() {
    need!(root);
    for container in both() {
        let out = container.exec(["print", "out", ",", "error", "err", ",", "exit", "42"]);
        assert_eq!((out.code(), out.stdout.as_str(), out.stderr.as_str()), (42, "out\n", "err\n"));
    }
}

#[test]
fn exec_passes_stdin() {
    need!(root);
    let container = running();
    let mut command = container.command(["exec"]);
    command.args([container.id(), "/probe", "cat"]);
    assert_eq!(Running::spawn(command, b"input").wait().ok().stdout, "input");
}

#[test]
fn exec_joins_every_namespace_and_cgroup_and_has_the_same_privileges() {
    need!(root);
    for container in both() {
        is_as_init(&container);
    }
}

#[track_caller]
fn is_as_init(container: &Container) {
    let (init, exec) = (facts_of_init(container), container.exec(["facts"]).ok().json());
    for fact in [
        "namespaces",
        "cgroups",
        "capabilities",
        "uid",
        "gid",
        "groups",
        "umask",
        "cwd",
        "hostname",
        "seccomp",
        "oom_score_adj",
        "mounts",
        "env",
    ] {
        assert_eq!(exec[fact], init[fact], "{fact}");
    }
    differs([crun("clears no_new_privs")], || assert_eq!(exec["no_new_privs"], init["no_new_privs"]));
    assert_ne!(exec["pid"], 1);
    for fact in ["ppid", "tracer", "parent_death_signal", "ignored", "blocked", "dumpable"] {
        assert_eq!(exec[fact], init[fact], "{fact}");
    }
    differs([crun_before("1.21", "makes no session")], || assert_eq!(exec["sid"], exec["pid"]));
}

#[test]
fn options_set_directory_environment_user_and_groups() {
    need!(root);
    let container = running();
    let options =
        ["--cwd", "/data", "--env", "A=1", "--env", "B=2", "--user", "1000:1001", "--additional-gids", "7"];
    let mut command = container.command(["exec"]);
    command.args(options).args([container.id(), "/probe", "facts"]);
    let out = call(command);
    differs([crun("has no --additional-gids")], || {
        let facts = out.ok().json();
        assert_eq!(facts["cwd"], "/data");
        assert_eq!((&facts["env"]["A"], &facts["env"]["B"]), (&json!("1"), &json!("2")));
        assert_eq!((&facts["uid"][0], &facts["gid"][0]), (&json!(1000), &json!(1001)));
        assert!(facts["groups"].as_array().unwrap().contains(&json!(7)), "{}", facts["groups"]);
    });
}

#[test]
fn options_add_capabilities_and_forbid_new_privileges() {
    need!(root);
    let container = Bundle::new().process(|p| p["noNewPrivileges"] = json!(false)).probe(["wait"]).start();
    assert_eq!(container.exec(["facts"]).ok().json()["no_new_privs"], 0);
    let facts = container.exec_with(["--no-new-privs", "--cap", "CAP_SYS_CHROOT"], ["facts"]).ok().json();
    assert_eq!(facts["no_new_privs"], 1);
    let bounding = facts["capabilities"]["bounding"].as_array().unwrap();
    assert!(bounding.contains(&json!("CAP_SYS_CHROOT")), "{bounding:?}");
}

#[test]
fn a_process_file_describes_the_whole_process() {
    need!(root);
    let container = running();
    let names = json!(["CAP_CHOWN"]);
    let process = json!({
        "args": ["/probe", "facts"], "cwd": "/tmp", "env": ["ONLY=this"], "user": { "uid": 5, "gid": 6, "umask": 0o77 },
        "capabilities": { "bounding": names, "permitted": names, "effective": names, "inheritable": names, "ambient": names },
        "rlimits": [{ "type": "RLIMIT_CORE", "soft": 0, "hard": 0 }], "noNewPrivileges": true, "oomScoreAdj": 500,
    });
    let path = container.dir().join("process.json");
    fs::write(&path, process.to_string()).unwrap();
    let mut command = container.command(["exec", "--process"]);
    command.arg(&path).arg(container.id());
    let facts = call(command).ok().json();
    assert_eq!(facts["cwd"], "/tmp");
    assert_eq!(facts["env"]["ONLY"], "this");
    assert_eq!(facts["env"].get("PATH"), None);
    assert_eq!((&facts["uid"][0], &facts["gid"][0]), (&json!(5), &json!(6)));
    differs([runc("keeps the container's")], || assert_eq!(facts["umask"], 0o77));
    assert_eq!(facts["capabilities"]["effective"], names);
    assert_eq!(facts["rlimits"]["RLIMIT_CORE"], json!([0, 0]));
}

#[test]
fn a_detached_process_outlives_the_call_and_its_pid_is_written() {
    need!(root);
    for container in both() {
        let path = container.dir().join("pid");
        let mut command = container.command(["exec", "--detach", "--pid-file"]);
        command.arg(&path).args([container.id(), "/probe", "wait"]);
        let mut exec = Running::spawn(command, b"");
        exec.wait().ok();
        eventually("ready", || exec.stdout().contains("ready"));
        // go-runc parses the whole file as a number: no newline.
        let pid: i32 = fs::read_to_string(&path).unwrap().parse().unwrap();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGUSR2).unwrap();
        eventually("the signal", || exec.stdout().contains("signal 12"));
    }
}

#[test]
fn exec_forwards_signals() {
    need!(root);
    let container = running();
    let mut command = container.command(["exec"]);
    command.args([container.id(), "/probe", "trap", "100"]);
    let mut exec = Running::spawn(command, b"");
    eventually("ready", || exec.stdout().contains("ready"));
    exec.signal(Signal::SIGTERM);
    // Looked for among others: Go's scheduler signals itself with SIGURG, which runc 1.1 forwards too.
    eventually("the signal", || exec.stdout().contains("signal 15\n"));
    container.kill("KILL").silent();
    assert_eq!(exec.wait().code(), 137);
}

#[test]
fn options_after_the_id_belong_to_the_program() {
    need!(root);
    let container = running();
    let mut command = container.command(["exec"]);
    command.args([container.id(), "/probe", "print", "--cwd"]);
    assert_eq!(call(command).ok().stdout, "--cwd\n");
}

#[test]
fn a_program_that_does_not_exist_is_exit_code_255_and_the_words_engines_read() {
    need!(root);
    let container = running();
    let by_path = call(exec_of(&container, "/absent"));
    let by_name = call(exec_of(&container, "absent"));
    let differences = || [crun("exit code 1, other words")];
    differs(differences(), || {
        by_path.fails(255).says("no such file or directory").says("exec failed");
    });
    differs(differences(), || {
        by_name.fails(255).says("executable file not found in $PATH");
    });
}

#[test]
fn a_program_that_may_not_be_executed_is_exit_code_255_and_the_words_engines_read() {
    need!(root);
    let container =
        Bundle::new().rootfs(|r| fs::write(r.join("data/file"), "").unwrap()).probe(["wait"]).start();
    let out = call(exec_of(&container, "/data/file"));
    differs([crun("exit code 1, upper case")], || {
        out.fails(255).says("permission denied");
    });
}

fn exec_of(container: &Container, program: &str) -> std::process::Command {
    let mut command = container.command(["exec"]);
    command.args([container.id(), program]);
    command
}

#[test]
fn exec_in_a_stopped_container_is_refused() {
    need!(root);
    let container = Bundle::new().probe(["exit", "0"]).start();
    container.wait_for_status("stopped");
    let out = container.exec(["exit", "0"]);
    differs([crun("its own words, and exit code 1")], || {
        out.fails(255).says("cannot exec in a stopped container");
    });
}

#[test]
fn exec_in_a_created_container_works() {
    need!(root);
    let container = Bundle::new().probe(["wait"]).create();
    assert_eq!(container.exec(["print", "before"]).ok().stdout, "before\n");
    assert_eq!(container.status(), "created");
    container.start().silent();
}

#[test]
fn exec_without_a_program_is_refused() {
    need!(root);
    let container = running();
    assert_ne!(container.call(["exec", container.id()]).code(), 0);
}

#[test]
fn exec_leaves_no_process_when_its_own_ends() {
    need!(root);
    for container in both() {
        container.exec(["orphan"]).ok();
        let procs = fs::read_to_string(container.cgroup("pids").join("cgroup.procs")).unwrap();
        // Init and the orphan, which is the container's business; nothing of the runtime.
        assert_eq!(procs.lines().count(), 2);
    }
}
