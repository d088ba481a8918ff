//! `events`: statistics and shortages of memory, one JSON object in each line.
#![allow(clippy::unwrap_used)]

use spec_tests::call::{Running, eventually};
use spec_tests::{Bundle, Container, Value, crun, differs, json, need, runc_before};

fn waiting() -> Container {
    let container = Bundle::new().probe(["wait"]).start();
    container.wait_for_stdout("ready");
    container
}

fn events(container: &Container, options: &[&str]) -> Running {
    let mut command = container.command(["events"]);
    command.args(options).arg(container.id());
    Running::spawn(command, b"")
}

fn lines(running: &Running) -> Vec<Value> {
    let text = running.stdout();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

const NONE: &str = "has no events";

#[test]
fn statistics_have_the_keys_that_readers_have_types_for() {
    need!(root, controller("memory"), controller("pids"), controller("cpu"), swap_limit);
    differs([crun(NONE)], || {
        let container = Bundle::new()
            .linux(|l| {
                l["resources"] = json!({ "memory": { "limit": 104_857_600 }, "pids": { "limit": 40 } });
            })
            // What is 0 is left out.
            .probe(["burn", "50", ",", "hold", "2"])
            .start();
        container.wait_for_stdout("ready");
        let out = container.call(["events", "--stats", container.id()]).ok();
        assert!(out.stderr.is_empty(), "{out:#?}");
        assert_eq!(out.stdout.lines().count(), 1);
        assert!(
            out.stdout.starts_with(&format!(
                "{{\"type\":\"stats\",\"id\":\"{}\",\"data\":{{\"cpu\":{{\"usage\":{{",
                container.id()
            )),
            "{out:#?}"
        );
        let data = &out.json()["data"];
        let keys: Vec<&String> = data.as_object().unwrap().keys().collect();
        assert_eq!(keys.len(), 8, "{keys:?}");
        for (pointer, expected) in [
            ("/memory/usage/limit", json!(104_857_600)),
            ("/memory/usage/failcnt", json!(0)),
            ("/pids/current", json!(1)),
            ("/pids/limit", json!(40)),
            ("/intel_rdt", json!({})),
            ("/network_interfaces", json!(null)),
        ] {
            assert_eq!(data.pointer(pointer), Some(&expected), "{pointer}");
        }
        for pointer in ["/cpu/usage/total", "/memory/usage/usage", "/memory/swap/limit"] {
            assert!(data.pointer(pointer).and_then(Value::as_u64).unwrap() > 0, "{pointer} of {data}");
        }
        for pointer in [
            "/cpu/usage/kernel",
            "/cpu/usage/user",
            "/cpu/throttling",
            "/cpuset",
            "/blkio",
            "/hugetlb",
            "/memory/kernel",
            "/memory/kernelTCP",
        ] {
            assert!(data.pointer(pointer).is_some(), "{pointer} of {data}");
        }
        let raw = data["memory"]["raw"].as_object().unwrap();
        let used = if need::cgroup_v2().is_ok() { "anon" } else { "rss" };
        assert!(raw[used].is_u64(), "{data}");
        if need::cgroup_v1().is_ok() {
            assert!(!data["cpu"]["usage"]["percpu"].as_array().unwrap().is_empty());
            assert!(!data["cpuset"]["cpus"].as_array().unwrap().is_empty());
        }
    });
}

#[test]
fn statistics_come_again_and_again_until_the_container_is_gone() {
    need!(root, controller("memory"));
    differs([crun(NONE)], || {
        let container = waiting();
        let mut running = events(&container, &["--interval", "50ms"]);
        eventually("three statistics", || lines(&running).len() >= 3);
        container.kill("KILL").ok();
        container.wait_for_status("stopped");
        container.delete().ok();
        running.wait().ok();
        for line in lines(&running) {
            assert_eq!((&line["type"], &line["id"]), (&json!("stats"), &json!(container.id())));
        }
    });
}

#[test]
fn a_process_that_is_killed_for_want_of_memory_is_reported() {
    need!(root, controller("memory"), swap_limit);
    differs([crun(NONE)], || {
        let container = Bundle::new()
            .linux(|l| l["resources"]["memory"] = json!({ "limit": 20_971_520, "swap": 20_971_520 }))
            .probe(["wait"])
            .start();
        container.wait_for_stdout("ready");
        let mut running = events(&container, &["--interval", "50ms"]);
        eventually("it watches", || !lines(&running).is_empty());
        assert_eq!(container.exec(["memory", "64"]).code(), 137);
        let oom = json!({ "type": "oom", "id": container.id() });
        eventually("an oom event", || lines(&running).contains(&oom));
        assert_eq!(container.status(), "running");
        container.kill("KILL").ok();
        container.wait_for_status("stopped");
        container.delete().ok();
        running.wait().ok();
    });
}

#[test]
fn intervals_are_durations_of_go_and_above_zero() {
    need!(root, controller("memory"));
    differs([crun(NONE)], || {
        let container = waiting();
        for interval in ["0", "0s", "-5s"] {
            let option = format!("--interval={interval}");
            container
                .call(["events", &option, container.id()])
                .fails(1)
                .says("duration interval must be greater than 0");
        }
        for interval in ["often", "5", "5x"] {
            container.call(["events", "--interval", interval, container.id()]).refused();
        }
        for interval in ["1h", "1m30s", "1.5s", "100ms", "5us"] {
            container.call(["events", "--stats", "--interval", interval, container.id()]).ok();
        }
    });
}

#[test]
fn a_paused_container_is_counted() {
    need!(root, controller("memory"), freezer);
    differs([crun(NONE)], || {
        let container = waiting();
        container.call(["pause", container.id()]).ok();
        container.call(["events", "--stats", container.id()]).ok().json();
        assert_eq!(container.status(), "paused");
        container.call(["resume", container.id()]).ok();
    });
}

#[test]
fn what_has_stopped_has_no_events() {
    need!(root);
    differs([crun(NONE)], || {
        let container = Bundle::new().probe(["exit", "0"]).start();
        container.wait_for_status("stopped");
        let words = format!("container with id {} is not running", container.id());
        container.call(["events", container.id()]).fails(1).says(&words);
        container.call(["events", "--stats", container.id()]).fails(1);
        container.call(["events", "--stats", "nobody"]).fails(1).says("does not exist");
    });
}

#[test]
fn pressure_is_shown_where_the_kernel_measures_it() {
    need!(root, cgroup_v2, controller("memory"));
    let measured = std::path::Path::new("/proc/pressure/cpu").exists();
    let known = [crun(NONE), runc_before("1.2", "does not read it")];
    // What no kernel measures nobody misses.
    differs(if measured { &known[..] } else { &known[..1] }, || {
        let container = waiting();
        let data = container.call(["events", "--stats", container.id()]).ok().json()["data"].clone();
        assert_eq!(container.cgroup("").join("cpu.pressure").exists(), measured);
        for part in ["cpu", "memory", "blkio"] {
            assert_eq!(data[part]["psi"]["some"]["total"].is_u64(), measured, "{part} of {data}");
        }
    });
}
