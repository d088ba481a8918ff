//! Both shims where systemd makes the cgroups of containers (`SystemdCgroup`): for a machine that it runs.

use std::path::{Path, PathBuf};

use integration::shim::{self, Stage, Streams, Task};
use integration::story::{SIGKILL, shims};
use integration::{call, eventually, need};
use serde_json::{Value, json};

fn play(story: impl Fn(&Stage)) {
    for path in shims() {
        eprintln!("{}", path.display());
        story(&Stage::with_systemd(&path));
    }
}

fn sleeper<'s>(stage: &'s Stage, script: &str, edit: impl FnOnce(&mut Value)) -> Task<'s> {
    let task = stage.created(stage.bundle("c", &["sh", "-c", script], edit), Streams::default());
    task.start("").expect("start");
    task
}

/// The one cgroup of the process with that pid.
fn cgroup(pid: u64) -> PathBuf {
    let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("its cgroup");
    let path = text.trim().strip_prefix("0::/").unwrap_or_else(|| panic!("{text}"));
    Path::new("/sys/fs/cgroup").join(path)
}

/// What systemd says of the container's unit.
fn property(stage: &Stage, name: &str) -> String {
    let mut systemctl = stage.sandbox.command("systemctl");
    call(systemctl.args(["show", "--value", "--property", name, &stage.scope("c")]))
        .ok()
        .out
        .trim()
        .to_owned()
}

fn unit_is_gone(stage: &Stage) {
    eventually("the unit's end", || (property(stage, "LoadState") == "not-found").then_some(()));
    assert!(!Path::new("/sys/fs/cgroup/system.slice").join(stage.scope("c")).exists());
}

#[test]
fn a_scope_holds_the_container_and_what_is_executed_in_it() {
    need!(root, systemd, program(shim::STOCK), program("busybox"));
    play(|stage| {
        let task = sleeper(stage, "exec sleep 1000", |config| {
            config["linux"]["resources"]["memory"] = json!({ "limit": 64 << 20 });
        });
        let init = task.call("State", &task.request("")).expect("state").number(3);
        let scope = Path::new("/sys/fs/cgroup/system.slice").join(stage.scope("c"));
        assert_eq!(cgroup(init), scope);
        task.exec("e1", &["sleep", "1000"]).expect("exec");
        let exec = task.start("e1").expect("start").number(1);
        assert_eq!(cgroup(exec), scope);
        assert_eq!(
            (property(stage, "ActiveState").as_str(), property(stage, "MemoryMax").as_str()),
            ("active", "67108864")
        );
        // What is changed is changed in the unit too, or systemd would put the old limit back.
        let resources = json!({ "memory": { "limit": 96 << 20 } }).to_string();
        let url = "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources";
        let update = integration::proto::Message::new().bytes(1, "c").any(2, url, resources);
        task.call("Update", &update).expect("update");
        assert_eq!(property(stage, "MemoryMax"), "100663296");
        assert_eq!(std::fs::read_to_string(scope.join("memory.max")).expect("the limit"), "100663296\n");
        task.call("Pause", &task.request("")).expect("pause");
        assert_eq!(task.status(""), "PAUSED");
        task.call("Resume", &task.request("")).expect("resume");
        task.kill("", SIGKILL).expect("kill");
        assert_eq!((task.wait("e1"), task.wait("")), (137, 137));
        task.delete("e1").expect("delete");
        task.delete("").expect("delete");
        task.shutdown();
        unit_is_gone(stage);
        stage.expect_events(&[
            "create c pid=init",
            "start c pid=init",
            "exec-added c id=e1",
            "exec-started c id=e1 pid=e1",
            "paused c",
            "resumed c",
            "exit c id=e1 pid=e1 status=137",
            "exit c id=c pid=init status=137",
            "delete c id= pid=init status=137",
        ]);
    });
}

#[test]
fn memory_that_runs_out_in_a_scope_is_told() {
    need!(root, systemd, program(shim::STOCK), program("busybox"));
    play(|stage| {
        let script = "(a=x; while true; do a=$a$a; done); sleep 1000";
        let task = sleeper(stage, script, |config| {
            config["linux"]["resources"]["memory"] = json!({ "limit": 16 << 20, "swap": 16 << 20 });
        });
        eventually("the event", || stage.told().contains(&"oom c".to_owned()).then_some(()));
        assert_eq!(task.status(""), "RUNNING");
        task.kill("", SIGKILL).expect("kill");
        assert_eq!(task.wait(""), 137);
        task.delete("").expect("delete");
        task.shutdown();
        unit_is_gone(stage);
        stage.expect_events(&[
            "create c pid=init",
            "start c pid=init",
            "oom c",
            "exit c id=c pid=init status=137",
            "delete c id= pid=init status=137",
        ]);
    });
}

#[test]
fn delete_after_a_shim_that_was_killed_ends_the_scope() {
    need!(root, systemd, program(shim::STOCK), program("busybox"));
    play(|stage| {
        let task = sleeper(stage, "exec sleep 1000", |_| ());
        // A shim that is killed takes with it what it has not told yet.
        eventually("its events", || (stage.told().len() == 2).then_some(()));
        call(stage.sandbox.command("kill").args(["-KILL", &stage.shims()[0].to_string()])).ok();
        eventually("the shim has ended", || stage.shims().is_empty().then_some(()));
        assert_eq!(property(stage, "ActiveState"), "active");
        let bundle = task.bundle.dir.to_string_lossy().into_owned();
        let reply = stage
            .command(&task.bundle, &["-id", "c", "-bundle", &bundle, "delete"])
            .output()
            .expect("delete");
        assert!(reply.status.success(), "{reply:?}");
        unit_is_gone(stage);
    });
}
