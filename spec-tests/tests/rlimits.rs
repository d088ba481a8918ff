//! config.md, process.rlimits.

use spec_tests::{Bundle, Value, crun, crun_before, differs, json, need, runc_before};

fn with(rlimits: Value) -> Bundle {
    Bundle::new().process(|p| p["rlimits"] = rlimits)
}

#[test]
fn every_limit_can_be_set() {
    need!(root);
    let names = [
        "RLIMIT_AS",
        "RLIMIT_CORE",
        "RLIMIT_CPU",
        "RLIMIT_DATA",
        "RLIMIT_FSIZE",
        "RLIMIT_LOCKS",
        "RLIMIT_MEMLOCK",
        "RLIMIT_MSGQUEUE",
        "RLIMIT_NICE",
        "RLIMIT_NOFILE",
        "RLIMIT_NPROC",
        "RLIMIT_RSS",
        "RLIMIT_RTPRIO",
        "RLIMIT_RTTIME",
        "RLIMIT_SIGPENDING",
        "RLIMIT_STACK",
    ];
    // Lowered only, which needs no capability; large enough for the probe. Some may be 0 already.
    let value = |name: &str| match name {
        "RLIMIT_CORE" | "RLIMIT_NICE" | "RLIMIT_RTPRIO" => (0, 0),
        "RLIMIT_AS" | "RLIMIT_DATA" | "RLIMIT_STACK" => (1_u64 << 30, 1_u64 << 31),
        "RLIMIT_FSIZE" => (1 << 20, 1 << 21),
        "RLIMIT_MEMLOCK" => (4096, 65536),
        _ => (500, 600),
    };
    let rlimits: Vec<Value> = names
        .iter()
        .map(|name| json!({ "type": name, "soft": value(name).0, "hard": value(name).1 }))
        .collect();
    let facts = with(json!(rlimits)).facts();
    for name in names {
        assert_eq!(facts["rlimits"][name], json!([value(name).0, value(name).1]), "{name}");
    }
}

#[test]
fn exec_gets_the_limits_too() {
    need!(root);
    let container =
        with(json!([{ "type": "RLIMIT_NOFILE", "soft": 77, "hard": 99 }])).probe(["wait"]).start();
    let facts = container.exec(["facts"]).ok().json();
    differs([crun("exec has the caller's")], || {
        assert_eq!(facts["rlimits"]["RLIMIT_NOFILE"], json!([77, 99]));
    });
}

#[test]
fn limits_that_are_not_configured_are_the_callers() {
    need!(root);
    let container = with(json!([])).container();
    let command = container.command(["run", "--bundle"]);
    let mut command = spec_tests::call::through_shell(&command, "ulimit -n 321; exec \"$@\"");
    command.arg(container.bundle_path()).arg(container.id());
    let facts = spec_tests::call::call(command).ok().json();
    assert_eq!(facts["rlimits"]["RLIMIT_NOFILE"], json!([321, 321]));
}

#[test]
fn the_file_size_limit_does_not_hit_the_runtime_itself() {
    need!(root);
    let facts = with(json!([{ "type": "RLIMIT_FSIZE", "soft": 65536, "hard": 65536 }])).facts();
    assert_eq!(facts["rlimits"]["RLIMIT_FSIZE"], json!([65536, 65536]));
}

#[test]
fn an_unknown_limit_is_refused() {
    need!(root);
    with(json!([{ "type": "RLIMIT_FOO", "soft": 1, "hard": 1 }])).create_fails().says("RLIMIT_FOO");
}

#[test]
fn the_same_limit_twice_is_refused() {
    need!(root);
    let differences = [runc_before("2", "takes it"), crun_before("2", "takes it")];
    differs(differences, || {
        let limit = json!({ "type": "RLIMIT_NOFILE", "soft": 100, "hard": 100 });
        with(json!([limit, limit])).create_fails().says("RLIMIT_NOFILE");
    });
}

#[test]
fn a_soft_limit_above_the_hard_one_is_refused() {
    need!(root);
    with(json!([{ "type": "RLIMIT_NOFILE", "soft": 200, "hard": 100 }])).create_fails();
}
