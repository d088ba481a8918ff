//! runtime.md, lifecycle and operations: create, start, kill, delete, and what is refused in which state; with
//! runc's pause, resume and run.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::time::Duration;

use nix::sys::signal::Signal;
use spec_tests::call::{call, eventually};
use spec_tests::{
    Bundle, Container, crun, crun_before, differs, differs_at_times, json, need, runc, runc_before,
};

fn waiting() -> Container {
    let container = Bundle::new().probe(["wait"]).start();
    container.wait_for_stdout("ready");
    container
}

fn stopped() -> Container {
    let container = Bundle::new().probe(["exit", "0"]).start();
    container.wait_for_status("stopped");
    container
}

fn nothing_remains(container: &Container) {
    assert_eq!(container.remains(), Vec::<String>::new());
}

#[test]
fn run_gives_the_output_and_the_exit_code_of_the_process() {
    need!(root);
    let out = Bundle::new().probe(["print", "hello", ",", "error", "world", ",", "exit", "7"]).run();
    assert_eq!((out.code(), out.stdout.as_str(), out.stderr.as_str()), (7, "hello\n", "world\n"));
}

#[test]
fn run_deletes_the_container_when_it_ends() {
    need!(root);
    let container = Bundle::new().probe(["exit", "0"]).container();
    container.run().silent();
    nothing_remains(&container);
    container.call(["state", container.id()]).fails(1);
}

#[test]
fn run_with_keep_leaves_a_stopped_container() {
    need!(root);
    differs([crun_before("1.9", "has no --keep")], || {
        let container = Bundle::new().probe(["exit", "0"]).container();
        container.run_with(["--keep"]).silent();
        assert_eq!(container.status(), "stopped");
        container.delete().silent();
    });
}

#[test]
fn run_passes_stdin_to_the_process() {
    need!(root);
    let container = Bundle::new().probe(["cat"]).container();
    let out = container.spawn_run([], b"some\0bytes\n").wait().ok();
    assert_eq!(out.stdout, "some\0bytes\n");
}

#[test]
fn run_of_a_process_killed_by_signal_n_exits_with_128_and_n() {
    need!(root);
    differs_at_times([runc("a program runs before kill knows its container")], || {
        let container = Bundle::new().probe(["wait"]).container();
        let mut run = container.spawn_run([], b"");
        eventually("ready", || run.stdout().contains("ready"));
        container.kill("KILL").silent();
        assert_eq!(run.wait().code(), 137);
    });
}

#[test]
fn run_forwards_signals_to_the_process() {
    need!(root);
    let container = Bundle::new().probe(["trap", "100"]).container();
    let mut run = container.spawn_run([], b"");
    eventually("ready", || run.stdout().contains("ready"));
    // Looked for among others: Go's scheduler signals itself with SIGURG, which runc 1.1 forwards too.
    for signal in [Signal::SIGTERM, Signal::SIGUSR1, Signal::SIGHUP, Signal::SIGINT] {
        run.signal(signal);
        let line = format!("signal {}\n", signal as i32);
        eventually(&line, || run.stdout().contains(&line));
    }
    container.kill("KILL").silent();
    assert_eq!(run.wait().code(), 137);
}

#[test]
fn run_detached_returns_while_the_process_runs() {
    need!(root);
    let mut container = Bundle::new().probe(["wait"]).container();
    let mut command = container.command(["run", "--detach", "--bundle"]);
    command.arg(container.bundle_path()).arg(container.id());
    container.create_by(command).ok();
    assert_eq!(container.status(), "running");
    container.wait_for_stdout("ready");
}

#[test]
fn the_process_runs_only_after_start() {
    need!(root);
    let container = Bundle::new().probe(["wait"]).create();
    assert_eq!(container.status(), "created");
    assert_eq!(container.stdout(), "");
    container.start().silent();
    container.wait_for_stdout("ready");
    assert_eq!(container.status(), "running");
    container.kill("TERM").silent();
    container.wait_for_status("stopped");
    assert_eq!(container.stdout(), "ready\nsignal 15\n");
    container.delete().silent();
    nothing_remains(&container);
}

#[test]
fn init_does_not_change_from_create_to_start() {
    need!(root);
    let container = Bundle::new().probe(["wait"]).create();
    let before = container.pid();
    container.start().silent();
    assert_eq!(container.pid(), before);
}

#[test]
fn changes_of_the_configuration_after_create_have_no_effect() {
    need!(root);
    let container = Bundle::new().probe(["print", "before"]).create();
    let mut config = container.config().clone();
    config["process"]["args"] = json!(["/probe", "print", "after"]);
    fs::write(container.bundle_path().join("config.json"), config.to_string()).unwrap();
    container.start().silent();
    container.wait_for_stdout("before");
}

#[test]
fn a_container_outlives_its_bundle() {
    need!(root);
    let container = waiting();
    fs::remove_file(container.bundle_path().join("config.json")).unwrap();
    assert_eq!(container.status(), "running");
    container.kill("KILL").silent();
    container.wait_for_status("stopped");
    container.delete().silent();
    nothing_remains(&container);
}

#[test]
fn a_second_container_of_the_same_id_is_refused_and_the_first_is_unharmed() {
    need!(root);
    let container = waiting();
    let mut again = container.command(["create", "--bundle"]);
    again.arg(container.bundle_path()).arg(container.id());
    call(again).fails(1).says("exist");
    assert_eq!(container.status(), "running");
    assert!(!container.cgroups().is_empty(), "the first one's cgroup");
    container.kill("TERM").silent();
    container.wait_for_stdout("signal 15");
}

#[test]
fn an_id_can_be_used_again_after_delete() {
    need!(root);
    let mut container = Bundle::new().probe(["exit", "0"]).container();
    for _ in 0..3 {
        container.create().silent();
        container.start().silent();
        container.wait_for_status("stopped");
        container.delete().silent();
        nothing_remains(&container);
    }
}

#[test]
fn start_of_a_running_container_is_refused() {
    need!(root);
    let container = waiting();
    let out = container.start().fails(1);
    assert_eq!(container.status(), "running");
    container.kill("TERM").silent();
    container.wait_for_stdout("signal 15");
    differs([crun("its own words, which no engine reads")], || {
        out.says("cannot start an already running container");
    });
}

#[test]
fn start_of_a_stopped_container_is_refused() {
    need!(root);
    let container = stopped();
    let out = container.start().fails(1);
    differs([crun("its own words, which no engine reads")], || {
        out.says("cannot start a container that has stopped");
    });
}

const NO_FILE: &str = "`No such file or directory`, which Podman takes as well";

#[test]
fn verbs_for_a_container_that_does_not_exist_say_so() {
    need!(root);
    let container = Bundle::new().container();
    for verb in ["state", "start", "kill", "delete", "pause", "resume"] {
        let out = container.call([verb, "absent"]).fails(1);
        differs([crun(NO_FILE)], || {
            out.says("does not exist");
        });
    }
}

#[test]
fn exec_in_a_container_that_does_not_exist_says_so() {
    need!(root);
    let container = Bundle::new().container();
    let out = container.call(["exec", "absent", "/probe"]);
    assert_ne!(out.code(), 0);
    differs([crun(NO_FILE)], || {
        out.says("does not exist");
    });
}

#[test]
fn delete_by_force_of_a_container_that_does_not_exist_succeeds() {
    need!(root);
    let container = Bundle::new().container();
    container.call(["delete", "--force", "absent"]).ok();
    container.call(["delete", "-f", "absent"]).ok();
}

#[test]
fn delete_of_a_running_container_is_refused_and_has_no_effect() {
    need!(root);
    let container = waiting();
    let out = container.delete().fails(1);
    assert_eq!(container.status(), "running");
    container.kill("TERM").silent();
    container.wait_for_stdout("signal 15");
    differs([crun("its own words, which no engine reads")], || {
        out.says(&format!("cannot delete container {} that is not stopped: running", container.id()));
    });
}

/// The specification forbids it, and every engine relies on it: runc and crun end the waiting init.
#[test]
fn delete_of_a_created_container_ends_it() {
    need!(root);
    let container = Bundle::new().create();
    let pid = container.pid();
    container.delete().silent();
    nothing_remains(&container);
    eventually("init gone", || gone(pid));
}

/// Gone, or dead and not yet reaped by whoever inherited it.
fn gone(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .map_or(true, |stat| stat.contains(") Z ") || stat.contains(") X "))
}

#[test]
fn delete_by_force_ends_a_running_container() {
    need!(root);
    let container = Bundle::new().probe(["children", "3", ",", "wait"]).start();
    container.wait_for_stdout("ready");
    let pid = container.pid();
    container.delete_by_force().silent();
    nothing_remains(&container);
    assert!(gone(pid), "init is alive");
}

#[test]
fn delete_of_a_stopped_container_leaves_nothing_and_works_once() {
    need!(root);
    let container = stopped();
    container.delete().silent();
    nothing_remains(&container);
    container.delete().fails(1);
}

#[test]
fn delete_leaves_the_bundle_alone() {
    need!(root);
    let container = stopped();
    container.delete().silent();
    assert!(container.bundle_path().join("config.json").exists());
    assert!(container.rootfs_path().join("probe").exists());
}

#[test]
fn a_container_whose_init_was_killed_from_outside_is_stopped() {
    need!(root);
    let container = waiting();
    let pid = nix::unistd::Pid::from_raw(container.pid());
    nix::sys::signal::kill(pid, Signal::SIGKILL).unwrap();
    container.wait_for_status("stopped");
    container.delete().silent();
    nothing_remains(&container);
}

#[test]
fn a_created_container_whose_init_was_killed_is_stopped() {
    need!(root);
    differs_at_times(
        [runc_before("1.2", "on cgroup v2 leaves the cgroup while the dead init is not reaped")],
        || {
            let container = Bundle::new().create();
            let pid = nix::unistd::Pid::from_raw(container.pid());
            nix::sys::signal::kill(pid, Signal::SIGKILL).unwrap();
            container.wait_for_status("stopped");
            container.start().fails(1);
            container.delete().silent();
        },
    );
}

#[test]
fn kill_takes_names_and_numbers() {
    need!(root);
    let words =
        [("TERM", 15), ("SIGTERM", 15), ("SIGUSR1", 10), ("15", 15), ("USR2", 12), ("1", 1), ("WINCH", 28)];
    let container = Bundle::new().probe(["trap", "100"]).start();
    container.wait_for_stdout("ready");
    let mut expected = "ready\n".to_owned();
    for (word, number) in words {
        container.kill(word).silent();
        expected += &format!("signal {number}\n");
        eventually(word, || container.stdout() == expected);
    }
    container.call(["kill", container.id()]).silent();
    container.wait_for_stdout(&(expected + "signal 15\n"));
}

#[test]
fn kill_takes_lower_case_names() {
    need!(root);
    differs([crun("refuses them or sends nothing")], || {
        let container = waiting();
        container.kill("sigusr1").silent();
        container.wait_for_stdout("ready\nsignal 10\n");
    });
}

#[test]
fn kill_of_a_stopped_container_is_refused() {
    need!(root);
    let container = stopped();
    let out = container.kill("TERM").fails(1);
    differs([crun_before("1.21", "`the container is not running`, which engines take as well")], || {
        out.says("container not running");
    });
}

#[test]
fn kill_with_an_unknown_signal_is_refused() {
    need!(root);
    differs([crun("takes any word")], || {
        let container = waiting();
        for word in ["FOO", "SIGFOO", "1x", "15 "] {
            container.kill(word).fails(1).says("unknown signal");
        }
        assert_eq!(container.stdout(), "ready\n");
    });
}

#[test]
fn kill_ends_a_created_container() {
    need!(root);
    let container = Bundle::new().create();
    container.kill("KILL").silent();
    container.wait_for_status("stopped");
    container.delete().silent();
}

#[test]
fn kill_all_reaches_every_process_of_a_container_without_a_pid_namespace() {
    need!(root);
    let container = Bundle::new().without_namespace("pid").probe(["children", "3", ",", "wait"]).start();
    container.wait_for_stdout("ready");
    let procs = container.cgroup("pids").join("cgroup.procs");
    assert_eq!(fs::read_to_string(&procs).unwrap().lines().count(), 4);
    container.call(["kill", "--all", container.id(), "KILL"]).silent();
    eventually("an empty cgroup", || fs::read_to_string(&procs).unwrap().is_empty());
    container.wait_for_status("stopped");
    container.delete().silent();
    nothing_remains(&container);
}

#[test]
fn delete_of_a_stopped_container_ends_processes_left_without_a_pid_namespace() {
    need!(root);
    differs_at_times([runc_before("1.2", "on cgroup v2 removes the cgroup while it is busy")], || {
        let container =
            Bundle::new().without_namespace("pid").probe(["children", "2", ",", "print", "done"]).start();
        container.wait_for_status("stopped");
        container.delete_by_force().silent();
        nothing_remains(&container);
    });
}

#[test]
fn the_end_of_init_ends_every_process_of_the_pid_namespace() {
    need!(root);
    let container = Bundle::new().probe(["orphan", ",", "children", "2", ",", "wait"]).start();
    container.wait_for_stdout("ready");
    let procs = container.cgroup("pids").join("cgroup.procs");
    assert_eq!(fs::read_to_string(&procs).unwrap().lines().count(), 4);
    container.kill("TERM").silent();
    eventually("an empty cgroup", || fs::read_to_string(&procs).unwrap().is_empty());
}

#[test]
fn a_paused_container_is_frozen_until_it_is_resumed() {
    need!(root, freezer);
    let container = waiting();
    container.call(["pause", container.id()]).silent();
    assert_eq!(container.status(), "paused");
    container.kill("TERM").silent();
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(container.stdout(), "ready\n");
    container.call(["resume", container.id()]).silent();
    container.wait_for_stdout("signal 15");
}

#[test]
fn a_paused_container_refuses_start_delete_and_exec() {
    need!(root, freezer);
    let container = waiting();
    container.call(["pause", container.id()]).silent();
    container.start().fails(1);
    container.delete().fails(1);
    assert_ne!(container.exec(["exit", "0"]).code(), 0);
    assert_eq!(container.status(), "paused");
    container.call(["resume", container.id()]).silent();
}

#[test]
fn a_paused_container_is_deleted_by_force() {
    need!(root, freezer);
    let container = waiting();
    container.call(["pause", container.id()]).silent();
    container.delete_by_force().silent();
    nothing_remains(&container);
}

#[test]
fn resume_of_a_container_that_is_not_paused_is_refused() {
    need!(root, freezer);
    let container = waiting();
    let out = container.call(["resume", container.id()]);
    differs([crun("resumes it once more")], || {
        out.fails(1);
    });
}

#[test]
fn pause_of_a_stopped_container_is_refused() {
    need!(root, freezer);
    let container = stopped();
    container.call(["pause", container.id()]).fails(1);
}

#[test]
fn containers_do_not_see_each_other() {
    need!(root);
    let (a, b) = (waiting(), waiting());
    a.kill("USR1").silent();
    a.wait_for_stdout("signal 10");
    a.wait_for_status("stopped");
    a.delete().silent();
    assert_eq!((b.status().as_str(), b.stdout().as_str()), ("running", "ready\n"));
}
