//! Ends of containers that do not want to end, or that the kernel ends.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use spec_tests::call::eventually;
use spec_tests::fuse::Silent;
use spec_tests::{Bundle, Container, Flavor, crun, differs, json, need, runc, runtime};

/// In the host's pid namespace: the end of its first process does not end the others.
fn bomb() -> Bundle {
    let mut bundle = Bundle::new().probe(["bomb"]);
    bundle.config["linux"]["resources"]["pids"] = json!({ "limit": 200 });
    bundle.config["linux"]["namespaces"].as_array_mut().unwrap().retain(|n| n["type"] != "pid");
    bundle
}

fn pids(container: &Container) -> usize {
    let folder = container.cgroup("pids");
    std::fs::read_to_string(folder.join("cgroup.procs")).map_or(0, |text| text.lines().count())
}

#[test]
fn delete_by_force_ends_a_fork_bomb() {
    need!(root, controller("pids"));
    for _ in 0..3 {
        let container = bomb().start();
        container.wait_for_stdout("armed");
        eventually("the bomb to fill its cgroup", || pids(&container) > 150);
        container.delete_by_force().silent();
        assert_eq!(container.remains(), [""; 0]);
    }
}

#[test]
fn kill_all_ends_a_fork_bomb() {
    need!(root, controller("pids"));
    let container = bomb().start();
    container.wait_for_stdout("armed");
    eventually("the bomb to fill its cgroup", || pids(&container) > 150);
    container.call(["kill", "--all", container.id(), "KILL"]).silent();
    eventually("nobody left", || pids(&container) == 0);
}

#[test]
fn a_process_that_cannot_die_is_named_with_what_it_waits_for() {
    need!(root, fuse);
    if runtime::under_test().flavor != Flavor::Tare {
        return; // The words are ours.
    }
    let mut bundle = Bundle::new().probe(["print", "asking", ",", "try", "stat", "/data/name"]);
    let silent = Silent::mount(&bundle.dir().join("silent"));
    let mount =
        json!({ "destination": "/data", "type": "bind", "source": silent.text(), "options": ["bind"] });
    bundle.config["mounts"].as_array_mut().unwrap().push(mount);
    let container = bundle.start();
    let pid = container.pid();
    container.wait_for_stdout("asking");
    let mut delete = container.command(["delete", "--force", container.id()]);
    let output = delete.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{said}");
    for part in [&*format!("process {pid} (probe)"), "state D (disk sleep)", "request_wait_answer"] {
        assert!(said.contains(part), "no {part:?} in {said}");
    }
    // What it waits for goes, and with it the reason.
    drop(silent);
    container.delete_by_force().silent();
}

#[test]
fn a_create_that_the_kernel_kills_for_want_of_memory_says_so() {
    need!(root, controller("memory"));
    let mut container =
        Bundle::new().linux(|l| l["resources"]["memory"] = json!({ "limit": 16384 })).container();
    let begin = Instant::now();
    let output = container.create().refused();
    assert!(begin.elapsed() < Duration::from_secs(5), "{output:?}");
    differs(
        [runc("before 1.2 it only says that its pipe ended"), crun("it says that a file could not be read")],
        || {
            for part in ["OOM-killed", "16384"] {
                assert!(output.stderr.contains(part), "no {part:?} in {output:#?}");
            }
        },
    );
}
