//! config.md, hooks, and the places in the lifecycle where they run.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::time::Duration;

use spec_tests::call::eventually;
use spec_tests::runtime::Difference;
use spec_tests::{Bundle, Value, crun, differs, differs_at_times, json, need, runc, runc_before};

/// A hook that runs a script of the host's shell, after it has read the state.
fn script(text: &str) -> Value {
    shell(&format!("cat > /dev/null; {text}"))
}

fn shell(text: &str) -> Value {
    json!({ "path": "/bin/sh", "args": ["sh", "-c", text] })
}

fn saves_state(dir: &Path, kind: &str) -> Value {
    shell(&format!("cat > {}/{kind}.json; echo {kind} >> {}/order", dir.display(), dir.display()))
}

fn read_json(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn hooks_run_in_their_order_and_get_the_state() {
    need!(root);
    let mut bundle =
        Bundle::new().probe(["wait"]).config(|c| c["annotations"] = json!({ "some": "value/with" }));
    let dir = bundle.dir().to_owned();
    let kinds = ["prestart", "createRuntime", "createContainer", "poststop"];
    for kind in kinds {
        bundle = bundle.hook(kind, saves_state(&dir, kind));
    }
    let container = bundle.create();
    let order = || fs::read_to_string(dir.join("order")).unwrap_or_default();
    assert_eq!(order(), "prestart\ncreateRuntime\ncreateContainer\n");
    let pid = container.pid();
    container.start().silent();
    container.wait_for_stdout("ready");
    container.kill("TERM").silent();
    container.wait_for_status("stopped");
    assert_eq!(order(), "prestart\ncreateRuntime\ncreateContainer\n");
    container.delete().silent();
    assert_eq!(order(), "prestart\ncreateRuntime\ncreateContainer\npoststop\n");
    for kind in kinds {
        let state = read_json(&dir.join(format!("{kind}.json")));
        assert_eq!(state["id"], container.id(), "{kind}");
        assert_eq!(state["bundle"], container.bundle_path().to_str().unwrap(), "{kind}");
        assert_eq!(state["annotations"], json!({ "some": "value/with" }), "{kind}");
        assert!(state["ociVersion"].is_string(), "{kind}");
        let (status, pid) = if kind == "poststop" { ("stopped", 0) } else { ("creating", pid) };
        // The specification does not say whose view of pids createContainer has; runc's is the container's.
        let pids = if kind == "createContainer" { vec![i64::from(pid), 1] } else { vec![i64::from(pid)] };
        differs_if(kind == "createContainer", [crun("has no pid yet")], || {
            assert!(pids.contains(&state["pid"].as_i64().unwrap_or(0)), "{kind}: {state}");
        });
        differs_if(kind != "poststop", [crun("says created")], || {
            assert_eq!(state["status"], status, "{kind}");
        });
    }
}

/// `differs`, for one of several rounds.
fn differs_if<const N: usize>(declared: bool, known: [Difference; N], body: impl FnOnce()) {
    if declared { differs(known, body) } else { body() }
}

#[test]
fn poststart_hooks_run_after_start() {
    need!(root);
    differs([runc_before("1.5", "runs them in create")], || {
        let bundle = Bundle::new().probe(["wait"]);
        let dir = bundle.dir().to_owned();
        let container = bundle.hook("poststart", saves_state(&dir, "poststart")).create();
        std::thread::sleep(Duration::from_millis(50));
        assert!(!dir.join("order").exists());
        container.start().silent();
        container.wait_for_stdout("ready");
        eventually("poststart", || dir.join("order").exists());
        let state = read_json(&dir.join("poststart.json"));
        assert_eq!(state["status"], "running");
        assert_eq!(state["pid"], container.pid());
    });
}

#[test]
fn a_failing_poststart_hook_is_an_error_of_start_and_stops_the_container() {
    need!(root);
    differs([runc_before("1.5", "runs them in create"), crun("only warns")], || {
        let container = Bundle::new().probe(["wait"]).hook("poststart", script("exit 3")).create();
        container.start().fails(1).says("poststart");
        eventually("the end", || container.state()["status"] == "stopped");
    });
}

#[test]
fn hooks_of_a_kind_run_in_the_listed_order() {
    need!(root);
    let bundle = Bundle::new();
    let order = bundle.dir().join("order");
    let append = |n: u32| script(&format!("echo {n} >> {}", order.display()));
    let bundle = bundle
        .hook("createRuntime", append(1))
        .hook("createRuntime", append(2))
        .hook("createRuntime", append(3));
    let container = bundle.container();
    container.run().ok();
    assert_eq!(fs::read_to_string(&order).unwrap(), "1\n2\n3\n");
}

#[test]
fn create_hooks_run_before_the_process_and_start_hooks_before_its_program() {
    need!(root);
    let out = Bundle::new()
        .writable()
        .hook(
            "startContainer",
            json!({ "path": "/probe", "args": ["/probe", "try", "create", "/data/made", "by hook"] }),
        )
        .probe(["try", "read", "/data/made"])
        .run()
        .ok();
    let last: Value = serde_json::from_str(out.stdout.lines().last().unwrap()).unwrap();
    assert_eq!(last, json!({ "ok": "by hook" }));
}

#[test]
fn start_container_hooks_wait_for_start() {
    need!(root);
    let container = Bundle::new()
        .writable()
        .hook(
            "startContainer",
            json!({ "path": "/probe", "args": ["/probe", "try", "create", "/data/made", ""] }),
        )
        .probe(["wait"])
        .create();
    assert!(!container.rootfs_path().join("data/made").exists());
    container.start().silent();
    container.wait_for_stdout("ready");
    assert!(container.rootfs_path().join("data/made").exists());
}

#[test]
fn hooks_run_in_the_namespaces_of_their_kind() {
    need!(root);
    let bundle = Bundle::new().probe(["facts", ",", "wait"]);
    let dir = bundle.dir().to_owned();
    let save = |kind: &str| {
        script(&format!("readlink /proc/self/ns/mnt /proc/self/ns/net > {}/{kind}", dir.display()))
    };
    let container = bundle
        .hook("prestart", save("prestart"))
        .hook("createRuntime", save("createRuntime"))
        .hook("createContainer", save("createContainer"))
        .hook("poststart", save("poststart"))
        .start();
    container.wait_for_stdout("ready");
    let facts: Value = serde_json::from_str(container.stdout().lines().next().unwrap()).unwrap();
    let inside = |name: &str| facts["namespaces"][name].as_str().unwrap().to_owned();
    let outside =
        |name: &str| fs::read_link(format!("/proc/self/ns/{name}")).unwrap().to_str().unwrap().to_owned();
    let host = format!("{}\n{}\n", outside("mnt"), outside("net"));
    for kind in ["prestart", "createRuntime", "poststart"] {
        assert_eq!(fs::read_to_string(dir.join(kind)).unwrap(), host, "{kind}");
    }
    let container_side = format!("{}\n{}\n", inside("mnt"), inside("net"));
    assert_eq!(fs::read_to_string(dir.join("createContainer")).unwrap(), container_side);
}

#[test]
fn a_hook_gets_its_own_arguments_and_environment() {
    need!(root);
    let bundle = Bundle::new();
    let dir = bundle.dir().display().to_string();
    let text = format!(
        "tr '\\0' '\\n' < /proc/$$/environ > {dir}/environ; tr '\\0' '\\n' < /proc/$$/cmdline | head -1 > {dir}/name"
    );
    let hook = json!({ "path": "/bin/sh", "args": ["another name", "-c", text], "env": ["A=1", "PATH=/usr/bin:/bin"] });
    let path = bundle.dir().to_owned();
    let container = bundle.hook("createRuntime", hook).container();
    container.run().ok();
    assert_eq!(fs::read_to_string(path.join("environ")).unwrap(), "A=1\nPATH=/usr/bin:/bin\n");
    assert_eq!(fs::read_to_string(path.join("name")).unwrap(), "another name\n");
}

#[test]
fn a_hook_that_fails_before_the_container_is_created_fails_create() {
    need!(root);
    for kind in ["prestart", "createRuntime", "createContainer"] {
        let mut container = Bundle::new().hook(kind, script("echo the reason >&2; exit 3")).container();
        let out = container.create().refused();
        assert!(out.stderr.to_lowercase().contains("hook"), "{kind}: {out:#?}");
        container.call(["state", container.id()]).fails(1);
        assert_eq!(container.remains(), Vec::<String>::new(), "{kind}");
    }
}

#[test]
fn a_hook_need_not_read_the_state() {
    need!(root);
    differs_at_times([crun("fails when the hook ends before it has written")], || {
        let large = "x".repeat(300_000);
        Bundle::new()
            .config(|c| c["annotations"] = json!({ "large": large }))
            .hook("createRuntime", shell("exec <&-; sleep 0.1; exit 0"))
            .probe(["exit", "0"])
            .run()
            .ok();
    });
}

#[test]
fn what_a_failing_hook_said_is_in_the_message() {
    need!(root);
    let differences = [runc_before("1.2", "does not name the kind"), crun("leaves the hook its own stderr")];
    differs(differences, || {
        let out = Bundle::new().hook("createRuntime", script("echo the reason >&2; exit 3")).create_fails();
        assert!(out.stderr.contains("createRuntime hook #0"), "{out:#?}");
        assert!(out.stderr.contains("the reason"), "{out:#?}");
        assert!(out.stderr.contains("exit status 3"), "{out:#?}");
    });
}

#[test]
fn a_hook_that_does_not_exist_fails_create() {
    need!(root);
    Bundle::new().hook("createRuntime", json!({ "path": "/nowhere/hook" })).create_fails();
}

#[test]
fn a_hook_with_a_relative_path_is_refused() {
    need!(root);
    differs([runc("looks it up"), crun("looks it up")], || {
        let out = Bundle::new().hook("createRuntime", json!({ "path": "true" })).create_fails();
        assert!(out.stderr.contains("absolute"), "{out:#?}");
    });
}

/// config.md: "If set, timeout MUST be greater than zero."
#[test]
fn a_timeout_of_zero_or_less_is_refused() {
    need!(root);
    differs([crun("takes it for none")], || {
        for timeout in [0, -1] {
            let mut hook = script("exit 0");
            hook["timeout"] = json!(timeout);
            Bundle::new().hook("createRuntime", hook).create_fails();
        }
    });
}

#[test]
fn a_hook_that_takes_longer_than_its_timeout_is_ended() {
    need!(root);
    let mut hook = script("exec sleep 600");
    hook["timeout"] = json!(1);
    let out = Bundle::new().hook("createRuntime", hook).create_fails();
    let seconds = out.elapsed.as_secs_f64();
    assert!(seconds >= 0.9, "{seconds}");
}

#[test]
fn a_hook_that_fails_after_the_process_ended_does_not_stop_delete() {
    need!(root);
    let bundle = Bundle::new().probe(["exit", "0"]);
    let mark = bundle.dir().join("mark");
    let container = bundle
        .hook("poststop", script("exit 1"))
        .hook("poststop", script(&format!("touch {}", mark.display())))
        .start();
    container.wait_for_status("stopped");
    // The specification asks for a warning; the exit code is the runtime's choice.
    container.delete();
    assert_eq!(container.remains(), Vec::<String>::new());
    differs([runc("stops at the first failure")], || assert!(mark.exists(), "the second hook did not run"));
}

#[test]
fn a_start_container_hook_that_fails_keeps_the_program_from_running() {
    need!(root);
    let out = Bundle::new()
        .hook("startContainer", json!({ "path": "/probe", "args": ["/probe", "exit", "3"] }))
        .probe(["print", "program"])
        .run();
    assert_ne!(out.code(), 0);
    assert!(!out.stdout.contains("program"), "{out:#?}");
}
