//! Ends of containers that do not want to end, or that the kernel ends.
#![allow(clippy::unwrap_used)]
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
    need!(root, kernel_of_its_own, controller("pids"));
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
    need!(root, kernel_of_its_own, controller("pids"));
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
    let mut bundle = Bundle::new().probe(["try", "stat", "/data/name"]);
    let silent = Silent::mount(&bundle.dir().join("silent"));
    let mount =
        json!({ "destination": "/data", "type": "bind", "source": silent.text(), "options": ["bind"] });
    bundle.config["mounts"].as_array_mut().unwrap().push(mount);
    let container = bundle.start();
    let pid = container.pid();
    eventually("it asks", || silent.is_asked());
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
    let output = container.create().refused();
    differs(
        [runc("before 1.2 it only says that its pipe ended"), crun("it says that a file could not be read")],
        || {
            for part in ["OOM-killed", "16384"] {
                assert!(output.stderr.contains(part), "no {part:?} in {output:#?}");
            }
        },
    );
}

/// A creator dies, another container takes the place of its cgroup, and then the first is deleted: its record
/// names what is the other's by now.
#[test]
fn the_delete_of_a_dead_creator_kills_nobody_else() {
    need!(root, strace, controller("pids"));
    if runtime::under_test().flavor != Flavor::Tare {
        return; // runc and crun make the cgroup before they keep its name.
    }
    // In the host's pid namespace, where delete ends all whom the cgroup names.
    let shared = || Bundle::new().without_namespace("pid").probe(["wait"]);
    let mut dead = shared().container();
    dead.create_killed_at("clone3", 2);
    assert_eq!(dead.status(), "creating");
    let path = dead.config()["linux"]["cgroupsPath"].clone();
    let other = shared().linux(|l| l["cgroupsPath"] = path).start();
    // Neither who is in it is signalled ...
    dead.call(["kill", "--all", dead.id(), "KILL"]).refused().says("container not running");
    // ... nor by a delete, with its record and without.
    let record = dead.root().join(dead.id()).join("state.json");
    for _ in 0..2 {
        let refused = dead.delete_by_force().refused();
        refused.says("cgroup is still held by process").says(&other.pid().to_string());
        assert_eq!(other.status(), "running");
        std::fs::write(&record, "{").unwrap();
    }
    other.delete_by_force().silent();
    dead.delete_by_force().silent();
    assert_eq!(dead.remains(), [""; 0]);
}

#[test]
fn what_a_dead_creator_made_is_deleted() {
    need!(root, strace);
    if runtime::under_test().flavor != Flavor::Tare {
        return;
    }
    // The second clone is that of the first process (with the first it is asked for the system call), and the
    // third rename that of the record with this process.
    for (system_call, nth) in [("clone3", 2), ("rename", 3)] {
        let mut dead = Bundle::new().container();
        dead.create_killed_at(system_call, nth);
        assert!(!dead.cgroups().is_empty());
        dead.delete_by_force().silent();
        assert_eq!(dead.remains(), [""; 0]);
    }
}

#[test]
fn the_cgroup_of_all_is_no_place_for_a_container() {
    need!(root);
    if runtime::under_test().flavor == Flavor::Crun && need::cgroup_v2().is_ok() {
        // It takes it, and its `delete --force` then ends the machine.
        return;
    }
    differs([runc("sees processes in it"), crun("makes one below")], || {
        let output = Bundle::new().linux(|l| l["cgroupsPath"] = json!("/")).create_fails();
        output.says("/linux/cgroupsPath: ");
    });
}

/// By `--cgroup-manager disabled`, which the others do not have.
fn without_cgroup(bundle: Bundle) -> Container {
    let mut container = bundle.container();
    let create = container.command(["create", "--bundle"]);
    let mut command = std::process::Command::new(create.get_program());
    command.args(["--cgroup-manager", "disabled"]).args(create.get_args()).current_dir(container.dir());
    command.arg(container.bundle_path()).arg(container.id());
    container.create_by(command).silent();
    container.start().silent();
    container
}

#[test]
fn kill_all_of_a_container_without_a_cgroup_reaches_those_of_its_pid_namespace() {
    need!(root);
    if runtime::under_test().flavor != Flavor::Tare {
        return;
    }
    let container = without_cgroup(Bundle::new().probe(["wait"]));
    container.call(["--debug", "kill", "--all", container.id(), "CONT"]).ok();
    let warned = container.log();
    assert!(warned.contains("signal 18 went to the container's first process alone: "), "{warned}");
    container.call(["kill", "--all", container.id(), "KILL"]).silent();
    container.wait_for_status("stopped");
    // Nobody is left: that is no error, as with a cgroup.
    container.call(["kill", "--all", container.id(), "KILL"]).silent();
    container.delete().silent();
}

#[test]
fn who_is_not_known_without_a_cgroup_is_not_passed_over_in_silence() {
    need!(root);
    if runtime::under_test().flavor != Flavor::Tare {
        return;
    }
    let container = without_cgroup(Bundle::new().without_namespace("pid").probe(["wait"]));
    let refused = container.call(["kill", "--all", container.id(), "KILL"]).refused();
    refused.says("cannot signal all processes of a container that shares its pid namespace: ");
    assert_eq!(container.status(), "running");
    container.call(["--debug", "kill", container.id(), "KILL"]).ok();
    container.wait_for_status("stopped");
    container.call(["--debug", "delete", "--force", container.id()]).ok();
    let warned = container.log();
    for text in
        ["only the container's first process was killed: ", "processes of the container may be left: "]
    {
        assert!(warned.contains(text), "{warned}");
    }
}

/// The count of a cgroup that was there before is of what happened in it before.
#[test]
fn what_was_killed_for_want_of_memory_in_the_past_explains_nothing() {
    need!(root, cgroup_v1, controller("memory"));
    let hook = json!({ "path": "/bin/sh", "args": ["sh", "-c",
        "kill -KILL $(sed 's/.*\"pid\":\\([0-9]*\\).*/\\1/')"] });
    let mut container = Bundle::new().hook("createRuntime", hook).container();
    let folder = container.cgroup("memory");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("memory.limit_in_bytes"), "4194304").unwrap();
    let with_swap = folder.join("memory.memsw.limit_in_bytes");
    if with_swap.exists() {
        std::fs::write(&with_swap, "4194304").unwrap();
    }
    let eat = format!("echo $$ > {}/cgroup.procs; exec tail /dev/zero", folder.display());
    let eater = std::process::Command::new("sh").args(["-c", &eat]).status().unwrap();
    assert!(!eater.success());
    let events = std::fs::read_to_string(folder.join("memory.oom_control")).unwrap();
    assert!(events.contains("oom_kill 1"), "{events}");
    if with_swap.exists() {
        std::fs::write(&with_swap, "-1").unwrap();
    }
    std::fs::write(folder.join("memory.limit_in_bytes"), "-1").unwrap();
    let output = container.create().refused();
    let was_there = folder.exists();
    eventually("the cgroup is empty", || !folder.exists() || std::fs::remove_dir(&folder).is_ok());
    let takes_it = "takes what was there for its own, to remove and to count";
    differs([runc(takes_it), crun(takes_it)], || {
        assert!(was_there, "it was not the container's");
        assert!(!output.stderr.contains("OOM"), "{output:?}");
    });
}
