//! runtime.md, state: the document that `state` prints.
#![allow(clippy::unwrap_used)]

use std::fs;

use spec_tests::call::call;
use spec_tests::{Bundle, crun, differs, json, need};

#[test]
fn state_has_every_property_of_the_specification() {
    need!(root);
    let container = Bundle::new()
        .probe(["wait"])
        .config(|c| c["annotations"] = json!({ "org.example.key": "some value", "empty": "" }))
        .start();
    let state = container.state();
    assert_eq!(state["id"], container.id());
    assert_eq!(state["status"], "running");
    assert_eq!(state["bundle"], container.bundle_path().to_str().unwrap());
    differs([crun("as it stands in config.json")], || {
        assert_eq!(state["rootfs"], container.rootfs_path().to_str().unwrap());
    });
    assert_eq!(state["annotations"], json!({ "org.example.key": "some value", "empty": "" }));
    let version: Vec<u32> =
        state["ociVersion"].as_str().unwrap().split(['.', '-']).map_while(|n| n.parse().ok()).collect();
    assert_eq!((version.len(), version[0]), (3, 1), "a version as in SemVer: {state}");
    // RFC 3339 in UTC, with the fraction that Go prints.
    let created = state["created"].as_str().unwrap();
    assert!(created.len() >= 20 && created.ends_with('Z') && created.as_bytes()[10] == b'T', "{created}");
}

#[test]
fn pid_is_the_init_as_the_host_numbers_it() {
    need!(root);
    let container = Bundle::new().probe(["wait"]).start();
    let status = fs::read_to_string(format!("/proc/{}/status", container.pid())).unwrap();
    let line = status.lines().find(|l| l.starts_with("NSpid:")).unwrap();
    assert_eq!(line.split_whitespace().last(), Some("1"), "init of its pid namespace: {line}");
}

#[test]
fn state_follows_the_life_of_the_container() {
    need!(root);
    let container = Bundle::new().probe(["wait"]).create();
    let created = container.state();
    assert_eq!(created["status"], "created");
    assert!(created["pid"].as_i64().unwrap() > 0);
    container.start().silent();
    let running = container.state();
    assert_eq!(running["status"], "running");
    assert_eq!(running["pid"], created["pid"]);
    assert_eq!(running["created"], created["created"]);
    container.wait_for_stdout("ready");
    container.kill("TERM").silent();
    container.wait_for_status("stopped");
    assert_eq!(container.state()["pid"], 0);
}

#[test]
fn no_annotations_are_absent_or_an_empty_map() {
    need!(root);
    let state = Bundle::new().create().state();
    assert!(state.get("annotations").is_none_or(|a| a == &json!({})), "{state}");
}

#[test]
fn the_bundle_is_absolute_also_when_it_was_given_relative() {
    need!(root);
    let mut container = Bundle::new().container();
    let mut command = container.command(["create", "--bundle", "bundle"]);
    command.arg(container.id());
    container.create_by(command).silent();
    assert_eq!(container.state()["bundle"], container.bundle_path().to_str().unwrap());
}

#[test]
fn the_bundle_is_the_working_directory_unless_given() {
    need!(root);
    let mut container = Bundle::new().container();
    let mut command = container.command(["create"]);
    command.arg(container.id()).current_dir(container.bundle_path());
    container.create_by(command).silent();
    assert_eq!(container.state()["bundle"], container.bundle_path().to_str().unwrap());
}

#[test]
fn state_is_indented_by_two_as_runc_prints_it() {
    need!(root);
    let container = Bundle::new().create();
    let out = container.call(["state", container.id()]).ok();
    assert_eq!(out.stderr, "");
    differs([crun("its own order and a newline")], || {
        assert!(out.stdout.starts_with("{\n  \"ociVersion\": \""), "{}", out.stdout);
        assert!(out.stdout.ends_with("\n}"), "{}", out.stdout);
        let keys = ["ociVersion", "id", "pid", "status", "bundle", "rootfs", "created", "owner"];
        let places: Vec<_> = keys.iter().map(|k| out.stdout.find(&format!("\n  \"{k}\":"))).collect();
        assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{}", out.stdout);
    });
}

#[test]
fn state_needs_an_id() {
    need!(root);
    let container = Bundle::new().container();
    let out = call(container.command(["state"]));
    assert_ne!(out.code(), 0);
    assert!(!out.stderr.is_empty());
}
