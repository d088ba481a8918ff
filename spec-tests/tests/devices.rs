//! config-linux.md, devices: the default ones, those of the configuration, and which may be opened.
#![allow(clippy::unwrap_used)]

use spec_tests::{Bundle, Value, crun, crun_before, differs, differs_at_times, json, need, runc};

/// Name and minor number; the major number is 1 but for tty (5).
const DEFAULT: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

fn stats<const N: usize>(bundle: Bundle, paths: [&str; N]) -> Vec<Value> {
    let mut words: Vec<&str> = vec!["/probe"];
    for path in paths {
        words.extend(["try", "stat", path, ","]);
    }
    words.pop();
    let words = json!(words);
    bundle.process(|p| p["args"] = words).run().ok().json_lines()
}

fn device(path: &str, kind: &str, major: u32, minor: u32) -> Value {
    json!({ "path": path, "type": kind, "major": major, "minor": minor })
}

fn allow(kind: &str, major: u32, minor: u32, access: &str) -> Value {
    json!({ "allow": true, "type": kind, "major": major, "minor": minor, "access": access })
}

#[test]
fn the_default_devices_are_there() {
    need!(root);
    for (name, major, minor) in DEFAULT {
        let stat = &stats(Bundle::new(), [&format!("/dev/{name}")])[0]["ok"];
        assert_eq!(stat["type"], "char", "{name}");
        assert_eq!(stat["device"], json!([major, minor]), "{name}");
        assert_eq!(
            (&stat["mode"], &stat["uid"], &stat["gid"]),
            (&json!(0o666), &json!(0), &json!(0)),
            "{name}"
        );
    }
}

#[test]
fn the_default_devices_work() {
    need!(root);
    let out = Bundle::new()
        .probe([
            "try",
            "write",
            "/dev/null",
            "x",
            ",",
            "try",
            "read",
            "/dev/null",
            ",",
            "try",
            "take",
            "/dev/zero",
            "3",
            ",",
            "try",
            "write",
            "/dev/full",
            "x",
            ",",
            "try",
            "take",
            "/dev/urandom",
            "2",
            ",",
            "try",
            "open",
            "/dev/random",
            "r",
            ",",
            "try",
            "open",
            "/dev/tty",
            "r",
        ])
        .run()
        .ok();
    let lines = out.json_lines();
    assert_eq!(lines[0], json!({ "ok": true }));
    assert_eq!(lines[1], json!({ "ok": "" }));
    assert_eq!(lines[2], json!({ "ok": [0, 0, 0] }));
    assert_eq!(lines[3], json!({ "errno": "ENOSPC" }));
    assert_eq!(lines[4]["ok"].as_array().unwrap().len(), 2);
    assert_eq!(lines[5], json!({ "ok": true }));
    // Allowed, but there is no terminal.
    assert_eq!(lines[6], json!({ "errno": "ENXIO" }));
}

#[test]
fn the_default_links_are_there() {
    need!(root);
    for (name, target) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
        ("ptmx", "pts/ptmx"),
    ] {
        let out = Bundle::new().probe(["try", "readlink", &format!("/dev/{name}")]).run().ok();
        let seen = out.json()["ok"].as_str().unwrap().to_owned();
        assert!(seen == target || seen == format!("/dev/{target}"), "{name} -> {seen}");
    }
}

#[test]
fn a_pty_can_be_opened() {
    need!(root);
    let out =
        Bundle::new().probe(["try", "open", "/dev/ptmx", "rw", ",", "try", "list", "/dev/pts"]).run().ok();
    assert_eq!(out.json_lines(), [json!({ "ok": true }), json!({ "ok": ["ptmx"] })]);
}

#[test]
fn the_default_devices_are_there_in_a_user_namespace_and_work() {
    need!(root, userns);
    let mut seen = stats(
        Bundle::new().userns(100_000, 65_536),
        ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"],
    );
    for ((name, major, minor), stat) in DEFAULT.iter().zip(seen.drain(..)) {
        assert_eq!(stat["ok"]["device"], json!([major, minor]), "{name}");
        assert_eq!(stat["ok"]["mode"], 0o666, "{name}");
    }
    let out = Bundle::new()
        .userns(100_000, 65_536)
        .probe([
            "try",
            "write",
            "/dev/null",
            "x",
            ",",
            "try",
            "take",
            "/dev/zero",
            "1",
            ",",
            "try",
            "open",
            "/dev/ptmx",
            "rw",
        ])
        .run()
        .ok();
    assert_eq!(out.json_lines(), [json!({ "ok": true }), json!({ "ok": [0] }), json!({ "ok": true })]);
}

#[test]
fn devices_of_the_configuration_have_their_type_mode_and_owner() {
    need!(root);
    let mut fifo = json!({ "path": "/dev/deep/er/fifo", "type": "p", "fileMode": 0o640, "uid": 1, "gid": 2 });
    fifo["major"] = json!(0);
    fifo["minor"] = json!(0);
    let mut char = device("/dev/char", "c", 600, 7);
    char["fileMode"] = json!(0o600);
    let mut unbuffered = device("/dev/unbuffered", "u", 600, 8);
    unbuffered["uid"] = json!(9);
    let block = device("/dev/sub/block", "b", 600, 9);
    let seen = stats(
        Bundle::new().linux(|l| l["devices"] = json!([fifo, char, unbuffered, block])),
        ["/dev/deep/er/fifo", "/dev/char", "/dev/unbuffered", "/dev/sub/block"],
    );
    let fields = |n: usize| {
        let s = &seen[n]["ok"];
        (s["type"].clone(), s["mode"].clone(), s["uid"].clone(), s["gid"].clone(), s["device"].clone())
    };
    assert_eq!(fields(0).0, "fifo");
    assert_eq!((fields(0).1, fields(0).2, fields(0).3), (json!(0o640), json!(1), json!(2)));
    assert_eq!(fields(1), (json!("char"), json!(0o600), json!(0), json!(0), json!([600, 7])));
    assert_eq!((fields(2).0, fields(2).2, fields(2).4), (json!("char"), json!(9), json!([600, 8])));
    assert_eq!((fields(3).0, fields(3).4), (json!("block"), json!([600, 9])));
}

#[test]
fn a_mode_is_not_cut_by_the_callers_umask() {
    need!(root);
    let mut char = device("/dev/char", "c", 600, 7);
    char["fileMode"] = json!(0o666);
    let container = Bundle::new()
        .linux(|l| l["devices"] = json!([char]))
        .probe(["try", "stat", "/dev/char", ",", "try", "stat", "/dev/null"])
        .container();
    let mut command = container.command(["run", "--bundle"]);
    command.arg(container.bundle_path()).arg(container.id());
    let out =
        spec_tests::call::call(spec_tests::call::through_shell(&command, "umask 077; exec \"$@\"")).ok();
    for line in out.json_lines() {
        assert_eq!(line["ok"]["mode"], 0o666);
    }
}

#[test]
fn a_device_of_the_host_is_bound_in_a_user_namespace() {
    need!(root, userns);
    let seen = stats(
        Bundle::new()
            .userns(100_000, 65_536)
            .linux(|l| l["devices"] = json!([device("/dev/full", "c", 1, 7)])),
        ["/dev/full"],
    );
    assert_eq!(seen[0]["ok"]["device"], json!([1, 7]));
}

#[test]
fn a_default_device_may_be_listed_with_a_mode_of_its_own() {
    need!(root);
    let mut listed = device("/dev/null", "c", 1, 3);
    listed["fileMode"] = json!(0o622);
    differs([runc("cannot open it itself")], || {
        let seen = stats(Bundle::new().linux(|l| l["devices"] = json!([listed])), ["/dev/null"]);
        assert_eq!((&seen[0]["ok"]["mode"], &seen[0]["ok"]["device"]), (&json!(0o622), &json!([1, 3])));
    });
}

#[test]
fn an_unknown_or_missing_type_is_refused() {
    need!(root);
    differs([crun("takes it for a character device")], || {
        Bundle::new().linux(|l| l["devices"] = json!([device("/dev/x", "z", 1, 3)])).create_fails();
        let untyped = json!({ "path": "/dev/x", "major": 1, "minor": 3 });
        Bundle::new().linux(|l| l["devices"] = json!([untyped])).create_fails();
    });
}

#[test]
fn a_device_where_another_file_is_is_refused() {
    need!(root);
    differs([runc("leaves the other file"), crun("leaves the other file")], || {
        Bundle::new().linux(|l| l["devices"] = json!([device("/probe", "c", 1, 3)])).create_fails();
    });
}

#[test]
fn a_link_below_dev_does_not_lead_a_device_out_of_the_rootfs() {
    need!(root);
    let outside = tempfile::tempdir().unwrap();
    let target = outside.path().to_owned();
    let mut container = Bundle::new()
        .writable()
        .rootfs(|r| std::os::unix::fs::symlink(&target, r.join("link")).unwrap())
        .linux(|l| l["devices"] = json!([device("/link/char", "c", 600, 1)]))
        .container();
    // Made at the same path inside or refused, but not outside.
    container.create();
    assert!(!outside.path().join("char").exists());
}

// Which may be opened.

/// No driver has a number as high as 600: opening is EPERM when the cgroup forbids it, and ENXIO when it does not.
fn opens(rules: &Value, access: &str) -> Value {
    Bundle::new()
        .linux(|l| {
            l["devices"] = json!([device("/dev/char", "c", 600, 1)]);
            l["resources"]["devices"] = rules.clone();
        })
        .probe(["try", "open", "/dev/char", access])
        .run()
        .ok()
        .json()["errno"]
        .clone()
}

#[test]
fn a_device_that_no_rule_allows_cannot_be_opened() {
    need!(root, controller("devices"));
    for access in ["r", "w", "rw"] {
        assert_eq!(opens(&json!([{ "allow": false, "access": "rwm" }]), access), "EPERM", "{access}");
    }
}

#[test]
fn a_rule_allows_what_it_says() {
    need!(root, controller("devices"));
    differs_at_times([crun_before("1.9", "leaves cgroups behind")], rules_one_by_one);
}

fn rules_one_by_one() {
    let deny = json!({ "allow": false, "access": "rwm" });
    for (rule, r, w) in [
        (allow("c", 600, 1, "rwm"), "ENXIO", "ENXIO"),
        (allow("c", 600, 1, "r"), "ENXIO", "EPERM"),
        (allow("c", 600, 1, "w"), "EPERM", "ENXIO"),
        (allow("c", 600, 2, "rwm"), "EPERM", "EPERM"),
        (allow("b", 600, 1, "rwm"), "EPERM", "EPERM"),
        (json!({ "allow": true, "type": "c", "major": 600, "access": "rwm" }), "ENXIO", "ENXIO"),
        (json!({ "allow": true, "type": "c", "major": 600, "minor": -1, "access": "rw" }), "ENXIO", "ENXIO"),
        (json!({ "allow": true, "type": "c", "minor": 1, "access": "rw" }), "ENXIO", "ENXIO"),
    ] {
        let rules = json!([deny, rule]);
        assert_eq!(opens(&rules, "r"), r, "read with {rule}");
        assert_eq!(opens(&rules, "w"), w, "write with {rule}");
    }
}

#[test]
fn rules_apply_in_the_listed_order() {
    need!(root, controller("devices"));
    let deny_all = json!({ "allow": false, "access": "rwm" });
    let yes = allow("c", 600, 1, "rwm");
    let mut no = yes.clone();
    no["allow"] = json!(false);
    assert_eq!(opens(&json!([deny_all, yes, no]), "rw"), "EPERM");
    assert_eq!(opens(&json!([deny_all, no, yes]), "rw"), "ENXIO");
    assert_eq!(opens(&json!([yes, deny_all]), "rw"), "EPERM", "a later rule for all takes it back");
}

#[test]
fn an_exception_from_what_is_allowed_in_general_holds() {
    need!(root, controller("devices"));
    let all = json!({ "allow": true, "access": "rwm" });
    let mut no = allow("c", 600, 1, "rw");
    no["allow"] = json!(false);
    assert_eq!(opens(&json!([all]), "rw"), "ENXIO");
    assert_eq!(opens(&json!([all, no]), "rw"), "EPERM");
}

#[test]
fn a_device_that_a_rule_denies_is_there_all_the_same() {
    need!(root);
    let all = json!({ "allow": true, "access": "rwm" });
    for minor in [5, -1] {
        let denied = json!({ "allow": false, "type": "c", "major": 600, "minor": minor, "access": "rwm" });
        let bundle = Bundle::new().linux(|l| {
            l["devices"] = json!([device("/dev/denied", "c", 600, 5)]);
            l["resources"]["devices"] = json!([all, denied]);
        });
        let on_v1 = [crun("makes devices under the rules for them")];
        differs(if need::cgroup_v1().is_ok() { &on_v1[..] } else { &[] }, || {
            let stats = stats(bundle, ["/dev/denied"]);
            assert_eq!(stats[0]["ok"]["device"], json!([600, 5]), "{minor}");
        });
    }
}

#[test]
fn nodes_can_be_made_but_not_used() {
    need!(root, controller("devices"));
    let out = Bundle::new()
        .capabilities(["CAP_MKNOD"])
        .probe(["try", "mknod", "/dev/new", "c", "600", "5", ",", "try", "open", "/dev/new", "rw"])
        .run()
        .ok();
    assert_eq!(out.json_lines(), [json!({ "ok": true }), json!({ "errno": "EPERM" })]);
}

#[test]
fn a_process_of_exec_is_bound_by_the_same_rules() {
    need!(root, controller("devices"));
    let container = Bundle::new()
        .linux(|l| l["devices"] = json!([device("/dev/char", "c", 600, 1)]))
        .probe(["wait"])
        .start();
    let out = container.exec(["try", "open", "/dev/char", "rw", ",", "try", "open", "/dev/null", "rw"]);
    assert_eq!(out.ok().json_lines(), [json!({ "errno": "EPERM" }), json!({ "ok": true })]);
}
