//! `update`: the limits of a container that is there, in the words of whichever version is at `/sys/fs/cgroup`.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::process::Command;

use spec_tests::call::{Output, Running};
use spec_tests::{
    Bundle, Container, Flavor, Value, crun, differs, differs_at_times, json, need, runc, runc_before,
};

fn with(change: impl FnOnce(&mut Value)) -> Container {
    let container = Bundle::new().linux(|l| change(&mut l["resources"])).probe(["wait"]).start();
    container.wait_for_stdout("ready");
    container
}

fn is_v2() -> bool {
    need::cgroup_v2().is_ok()
}

/// What a file says: `(v1's controller, v1's file)`, or the file of v2.
fn value(container: &Container, v1: (&str, &str), v2: &str) -> String {
    let path = if is_v2() { container.cgroup("").join(v2) } else { container.cgroup(v1.0).join(v1.1) };
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display())).trim().to_owned()
}

fn update(container: &Container, options: &[&str]) -> Output {
    let mut command = container.command(["update"]);
    command.args(options).arg(container.id());
    spec_tests::call::call(command)
}

fn update_by(container: &Container, document: &Value) -> Output {
    let mut command: Command = container.command(["update", "--resources", "-"]);
    command.arg(container.id());
    Running::spawn(command, document.to_string().as_bytes()).wait()
}

const LIMIT: (&str, &str) = ("memory", "memory.limit_in_bytes");
const MEMSW: (&str, &str) = ("memory", "memory.memsw.limit_in_bytes");
const QUOTA: (&str, &str) = ("cpu", "cpu.cfs_quota_us");
const PERIOD: (&str, &str) = ("cpu", "cpu.cfs_period_us");
const PIDS: (&str, &str) = ("pids", "pids.max");

/// One option, v1's file and what it then holds, v2's.
type Row = (&'static [&'static str], (&'static str, &'static str), &'static str, &'static str, &'static str);

#[test]
fn each_option_changes_its_file() {
    need!(root, controller("memory"), controller("cpu"), controller("pids"));
    let rows: &[Row] = &[
        (&["--memory", "104857600"], LIMIT, "104857600", "memory.max", "104857600"),
        (&["--memory", "64m"], LIMIT, "67108864", "memory.max", "67108864"),
        (&["--memory", "64MiB"], LIMIT, "67108864", "memory.max", "67108864"),
        (&["--memory=1.5g"], LIMIT, "1610612736", "memory.max", "1610612736"),
        (
            &["--memory-reservation", "32M"],
            ("memory", "memory.soft_limit_in_bytes"),
            "33554432",
            "memory.low",
            "33554432",
        ),
        (&["--cpu-period", "50000"], PERIOD, "50000", "cpu.max", "max 50000"),
        (&["--cpu-quota", "30000"], QUOTA, "30000", "cpu.max", "30000 50000"),
        (&["--cpu-quota", "-1"], QUOTA, "-1", "cpu.max", "max 50000"),
        (&["--pids-limit", "77"], PIDS, "77", "pids.max", "77"),
        (&["--pids-limit", "-1"], PIDS, "max", "pids.max", "max"),
    ];
    differs([crun("takes no sizes with units")], || {
        let container = with(|_| {});
        for (options, v1, on_v1, v2, on_v2) in rows {
            update(&container, options).silent();
            let expected = if is_v2() { on_v2 } else { on_v1 };
            assert_eq!(value(&container, *v1, v2), *expected, "{options:?}");
        }
    });
}

#[test]
fn shares_become_shares_or_a_weight() {
    need!(root, controller("cpu"));
    let container = with(|_| {});
    update(&container, &["--cpu-share", "512"]).silent();
    let found = value(&container, ("cpu", "cpu.shares"), "cpu.weight");
    // Two formulas are in use: a line, and since runc 1.4 a curve.
    let expected: &[&str] = if is_v2() { &["59", "20"] } else { &["512"] };
    assert!(expected.contains(&found.as_str()), "{found}");
}

#[test]
fn processors_and_memory_nodes() {
    need!(root, controller("cpuset"), cpus(2));
    let container = with(|_| {});
    update(&container, &["--cpuset-cpus", "1", "--cpuset-mems", "0"]).silent();
    assert_eq!(value(&container, ("cpuset", "cpuset.cpus"), "cpuset.cpus"), "1");
    assert_eq!(value(&container, ("cpuset", "cpuset.mems"), "cpuset.mems"), "0");
}

#[test]
fn burst_and_idle() {
    need!(root, controller("cpu"), kernel(5, 15));
    differs([runc_before("1.2", "knows neither"), crun("has no option for either")], || {
        let container = with(|r| r["cpu"] = json!({ "quota": 50_000, "period": 100_000 }));
        update(&container, &["--cpu-burst", "20000"]).silent();
        assert_eq!(value(&container, ("cpu", "cpu.cfs_burst_us"), "cpu.max.burst"), "20000");
        update(&container, &["--cpu-idle", "1"]).silent();
        assert_eq!(value(&container, ("cpu", "cpu.idle"), "cpu.idle"), "1");
        update(&container, &["--cpu-idle", "0"]).silent();
        assert_eq!(value(&container, ("cpu", "cpu.idle"), "cpu.idle"), "0");
    });
}

#[test]
fn the_weight_of_block_io() {
    need!(root, block_io);
    let container = with(|_| {});
    let folder = container.cgroup("blkio");
    let file = ["blkio.weight", "blkio.bfq.weight", "io.bfq.weight", "io.weight"];
    let Some(file) = file.into_iter().find(|file| folder.join(file).exists()) else {
        spec_tests::need::skip("the_weight_of_block_io", "weight", "no scheduler with weights");
        return;
    };
    differs([crun("looks for blkio.weight alone")], || {
        update(&container, &["--blkio-weight", "300"]).silent();
        let found = fs::read_to_string(folder.join(file)).unwrap();
        // io.weight has another scale.
        let expected = if file == "io.weight" { "2930" } else { "300" };
        assert_eq!(found.split_ascii_whitespace().last(), Some(expected), "{file}");
    });
}

#[test]
fn what_is_not_mentioned_stays() {
    need!(root, controller("memory"), controller("cpu"), controller("pids"));
    let container = with(|r| {
        r["memory"] = json!({ "limit": 104_857_600 });
        r["cpu"] = json!({ "quota": 40_000, "period": 80_000 });
        r["pids"] = json!({ "limit": 30 });
    });
    let on_v2 = [crun("writes cpu.max anew, without what it was not told")];
    differs(if is_v2() { &on_v2[..] } else { &[] }, || {
        for options in
            [&["--memory", "209715200"][..], &["--cpu-quota", "20000"], &["--cpu-period", "160000"]]
        {
            update(&container, options).silent();
        }
        assert_eq!(value(&container, LIMIT, "memory.max"), "209715200");
        let cpu = if is_v2() {
            value(&container, QUOTA, "cpu.max")
        } else {
            format!("{} {}", value(&container, QUOTA, ""), value(&container, PERIOD, ""))
        };
        assert_eq!(cpu, "20000 160000");
        assert_eq!(value(&container, PIDS, "pids.max"), "30");
    });
}

#[test]
fn swap_is_a_limit_of_memory_and_swap_together() {
    need!(root, controller("memory"), swap_limit);
    let container = with(|r| r["memory"] = json!({ "limit": 52_428_800, "swap": 52_428_800 }));
    // Up: the sum first; down: the limit first.
    for (limit, sum) in [(200u64, 300u64), (60, 60), (400, 500), (30, 50)] {
        let (limit_word, sum_word) = (format!("{limit}m"), format!("{sum}m"));
        let options = ["--memory", &limit_word, "--memory-swap", &sum_word];
        differs([crun("takes no sizes with units")], || {
            update(&container, &options).silent();
            assert_eq!(value(&container, LIMIT, "memory.max"), (limit << 20).to_string());
            let expected = if is_v2() { (sum - limit) << 20 } else { sum << 20 };
            assert_eq!(value(&container, MEMSW, "memory.swap.max"), expected.to_string());
        });
    }
}

#[test]
fn no_limit_on_memory_is_none_on_swap_either() {
    need!(root, controller("memory"), swap_limit);
    let container = with(|r| r["memory"] = json!({ "limit": 52_428_800, "swap": 104_857_600 }));
    if !is_v2() && spec_tests::runtime::under_test().flavor == Flavor::Crun {
        // It leaves the limit of both together, below which no limit of one can be lifted.
        update(&container, &["--memory", "-1"]).refused();
        return;
    }
    differs([crun("leaves the limit of swap")], || {
        update(&container, &["--memory", "-1"]).silent();
        for found in [value(&container, LIMIT, "memory.max"), value(&container, MEMSW, "memory.swap.max")] {
            assert!(found == "max" || found.parse::<u64>().unwrap() > 1 << 60, "{found}");
        }
    });
}

/// v2 has swap alone in its file: the limit that is in force is the one to take off.
#[test]
fn swap_without_a_limit_is_counted_from_the_limit_there_is() {
    need!(root, controller("memory"), swap_limit);
    let container = with(|r| r["memory"] = json!({ "limit": 52_428_800 }));
    let wants_both = "wants the limit beside it";
    let known = if is_v2() { vec![runc(wants_both), crun(wants_both)] } else { Vec::new() };
    differs(known, || {
        update(&container, &["--memory-swap", "104857600"]).silent();
        let expected = if is_v2() { "52428800" } else { "104857600" };
        assert_eq!(value(&container, MEMSW, "memory.swap.max"), expected);
    });
}

#[test]
fn a_document_on_standard_input_is_what_docker_sends() {
    need!(root, controller("memory"), controller("pids"), controller("cpu"));
    let container = with(|_| {});
    let document = json!({
        "memory": { "limit": 67_108_864, "reservation": 33_554_432 },
        "cpu": { "quota": 40_000, "period": 80_000 },
        "pids": { "limit": 22 },
        "blockIO": {},
    });
    update_by(&container, &document).silent();
    assert_eq!(value(&container, LIMIT, "memory.max"), "67108864");
    assert_eq!(value(&container, QUOTA, "cpu.max"), if is_v2() { "40000 80000" } else { "40000" });
    assert_eq!(value(&container, PIDS, "pids.max"), "22");
    // With a document the options are not looked at.
    let mut command = container.command(["update", "--pids-limit", "99", "--resources", "-"]);
    command.arg(container.id());
    Running::spawn(command, json!({ "memory": { "limit": 134_217_728 } }).to_string().as_bytes()).wait().ok();
    assert_eq!(value(&container, PIDS, "pids.max"), "22");
    assert_eq!(value(&container, LIMIT, "memory.max"), "134217728");
}

#[test]
fn unified_files_of_v2() {
    need!(root, cgroup_v2, controller("memory"), controller("pids"), controller("cpu"));
    let container = with(|_| {});
    let unified = json!({ "pids.max": "10", "cpu.weight": "16", "memory.high": "67108864" });
    update_by(&container, &json!({ "unified": unified })).silent();
    for (file, expected) in [("pids.max", "10"), ("cpu.weight", "16"), ("memory.high", "67108864")] {
        assert_eq!(value(&container, ("", ""), file), expected);
    }
}

#[test]
fn a_refused_update_leaves_every_old_limit() {
    need!(root, controller("memory"), controller("cpu"), controller("pids"));
    let all_or_nothing = "writes what comes before the failure";
    let container = with(|r| {
        r["memory"] = json!({ "limit": 104_857_600 });
        r["cpu"] = json!({ "quota": 40_000, "period": 80_000, "shares": 200 });
        r["pids"] = json!({ "limit": 30 });
    });
    let files = [
        (LIMIT, "memory.max"),
        (("memory", "memory.soft_limit_in_bytes"), "memory.low"),
        (QUOTA, "cpu.max"),
        (PERIOD, "cpu.max"),
        (("cpu", "cpu.shares"), "cpu.weight"),
        (("cpuset", "cpuset.cpus"), "cpuset.cpus"),
        (PIDS, "pids.max"),
    ];
    let files = || files.iter().filter(|(v1, v2)| there(&container, *v1, v2));
    let values = || -> Vec<String> { files().map(|(v1, v2)| value(&container, *v1, v2)).collect() };
    let before = values();
    // Each is refused by the kernel, after others have been taken.
    let documents = [
        json!({ "memory": { "limit": 209_715_200, "reservation": 4096 }, "cpu": { "quota": 1 } }),
        json!({ "memory": { "limit": 209_715_200 }, "cpu": { "shares": 300, "period": 50 } }),
        json!({ "memory": { "limit": 209_715_200 }, "cpu": { "shares": 300, "cpus": "0-4000" } }),
        json!({ "memory": { "limit": 209_715_200 }, "pids": { "limit": 9_000_000_000_i64 } }),
    ];
    differs([runc(all_or_nothing), crun(all_or_nothing)], || {
        for document in documents {
            update_by(&container, &document).refused();
            assert_eq!(values(), before, "{document}");
        }
    });
}

/// Of what the kernel changes itself with another file, and what it would not take back.
#[test]
fn a_refused_update_leaves_what_hangs_together() {
    need!(root, controller("cpu"), controller("pids"), kernel(5, 15));
    let all_or_nothing = "writes what comes before the failure";
    const IDLE: (&str, &str) = ("cpu", "cpu.idle");
    const SHARES: (&str, &str) = ("cpu", "cpu.shares");
    const CPUS: (&str, &str) = ("cpuset", "cpuset.cpus");
    const MEMS: (&str, &str) = ("cpuset", "cpuset.mems");
    let files = [
        (IDLE, "cpu.idle"),
        (SHARES, "cpu.weight"),
        (QUOTA, "cpu.max"),
        (PERIOD, "cpu.max"),
        (("cpu", "cpu.cfs_burst_us"), "cpu.max.burst"),
        (CPUS, "cpuset.cpus"),
        (MEMS, "cpuset.mems"),
        (PIDS, "pids.max"),
    ];
    let too_many = json!({ "limit": 9_000_000_000_i64 });
    let has_cpuset = need::controller("cpuset").is_ok();
    let started = |idle: &str| {
        let container = with(|r| {
            r["cpu"] = json!({ "quota": 40_000, "period": 80_000, "shares": 700, "burst": 10_000 });
        });
        update(&container, &["--cpu-idle", idle]).silent();
        container
    };
    differs([runc(all_or_nothing), crun(all_or_nothing)], || {
        let containers = [started("0"), started("1")];
        for (idle, cpu) in [
            (0, json!({ "idle": 1 })),
            (0, json!({ "idle": 1, "shares": 300 })),
            (0, json!({ "idle": 0, "shares": 300 })),
            (1, json!({ "idle": 0 })),
            (1, json!({ "idle": 0, "shares": 512 })),
            (1, json!({ "shares": 512 })),
            (0, json!({ "quota": 15_001, "period": 70_000, "burst": 12_000 })),
            (0, json!({ "quota": 90_000, "period": 90_000, "burst": 60_000 })),
            (0, json!({ "cpus": "0" })),
            (0, json!({ "cpus": "0", "mems": "0", "idle": 1 })),
        ] {
            if !has_cpuset && !cpu["cpus"].is_null() {
                continue;
            }
            let container: &Container = &containers[idle];
            let files = || files.iter().filter(|(v1, v2)| there(container, *v1, v2));
            let values = || -> Vec<String> { files().map(|(v1, v2)| value(container, *v1, v2)).collect() };
            let before = values();
            let out = update_by(container, &json!({ "cpu": cpu, "pids": too_many })).refused();
            assert_eq!(values(), before, "{cpu}");
            assert!(!out.stderr.contains("could not be put back"), "{cpu}: {out:#?}");
        }
    });
}

/// A cpuset that has processes cannot be emptied: what it stood for is put in its place.
#[test]
fn processors_that_were_nobodys_choice_stay_in_force() {
    need!(root, cgroup_v2, controller("cpuset"), cpus(2));
    let all_or_nothing = "writes what comes before the failure";
    let container = with(|_| {});
    let in_force = || value(&container, ("", ""), "cpuset.cpus.effective");
    let before = in_force();
    differs([runc(all_or_nothing), crun(all_or_nothing)], || {
        let document = json!({ "cpu": { "cpus": "0", "mems": "1000" } });
        let out = update_by(&container, &document).refused().says("cpuset.mems");
        assert_eq!(in_force(), before);
        out.says(&format!("it has {before:?} now, which was in force before"));
    });
}

fn there(container: &Container, v1: (&str, &str), v2: &str) -> bool {
    if is_v2() { container.cgroup("").join(v2).exists() } else { container.cgroup(v1.0).join(v1.1).exists() }
}

#[test]
fn a_limit_below_the_usage_is_refused_with_the_usage() {
    need!(root, controller("memory"), no_swap);
    let body = || {
        let container = Bundle::new().probe(["hold", "32"]).start();
        container.wait_for_stdout("ready");
        let before = value(&container, LIMIT, "memory.max");
        let out = update(&container, &["--pids-limit", "20", "--memory", "1m"]).refused();
        assert!(out.stderr.contains("unable to set memory limit to 1048576"), "{out:#?}");
        assert!(out.stderr.contains("usage: "), "{out:#?}");
        assert_eq!(value(&container, LIMIT, "memory.max"), before);
        if need::controller("pids").is_ok() {
            assert_eq!(value(&container, PIDS, "pids.max"), "max");
        }
    };
    if is_v2() {
        differs(
            [runc("does not say that the container is killed"), crun("does not say that it is killed")],
            body,
        );
    } else {
        differs([crun("says nothing of the usage")], body);
    }
}

#[test]
fn check_before_update_spares_the_container() {
    need!(root, cgroup_v2, controller("memory"));
    differs([runc_before("1.2", "does not know it"), crun("does not say why")], || {
        let container = Bundle::new().probe(["hold", "32"]).start();
        container.wait_for_stdout("ready");
        let document = json!({ "memory": { "limit": 1_048_576, "checkBeforeUpdate": true } });
        update_by(&container, &document).refused().says("rejecting memory limit 1048576 <= usage");
        assert_eq!(container.status(), "running");
        assert_eq!(value(&container, LIMIT, "memory.max"), "max");
    });
}

#[test]
fn what_cannot_be_read_is_refused() {
    need!(root, controller("memory"));
    let container = with(|_| {});
    let before = value(&container, LIMIT, "memory.max");
    for (options, text) in [
        (&["--memory", "12x"][..], "invalid value for memory: invalid size: '12x'"),
        (&["--memory-swap", "lots"], "invalid value for memory-swap"),
        (&["--cpu-quota", "all"], "invalid value for cpu-quota"),
        (&["--cpu-period", "-1"], "invalid value for cpu-period"),
        (&["--l3-cache-schema", "L3:0=f"], "Intel RDT/CAT: l3 cache schema is not enabled"),
        (&["--mem-bw-schema", "MB:0=20"], "Intel RDT/MBA: memory bandwidth schema is not enabled"),
    ] {
        differs([crun("has words of its own")], || {
            update(&container, options).fails(1).says(text);
        });
    }
    for document in ["", "{", "[]", r#"{"memory":{"limit":"1m"}}"#] {
        let mut command = container.command(["update", "-r", "-"]);
        command.arg(container.id());
        differs_at_times([crun("takes what is no object for one without properties")], || {
            Running::spawn(command, document.as_bytes()).wait().refused();
        });
    }
    update(&container, &["--resources", "/nowhere.json"]).refused();
    assert_eq!(value(&container, LIMIT, "memory.max"), before);
}

#[test]
fn obsolete_options_are_taken_and_do_nothing() {
    need!(root, controller("memory"));
    let container = with(|_| {});
    differs([crun("takes no sizes with units")], || {
        update(&container, &["--kernel-memory", "10m", "--kernel-memory-tcp", "10m"]).ok();
    });
}

#[test]
fn a_paused_container_stays_paused_and_no_other_is_stopped() {
    need!(root, freezer, controller("pids"));
    let container = with(|_| {});
    update(&container, &["--pids-limit", "20"]).silent();
    assert_eq!(container.status(), "running");
    container.call(["pause", container.id()]).ok();
    update(&container, &["--pids-limit", "21"]).silent();
    assert_eq!(container.status(), "paused");
    assert_eq!(value(&container, PIDS, "pids.max"), "21");
    container.call(["resume", container.id()]).ok();
}

#[test]
fn a_created_container_can_be_changed_and_a_stopped_one_not() {
    need!(root, controller("pids"));
    let mut container = Bundle::new().probe(["exit", "0"]).container();
    container.create().ok();
    update(&container, &["--pids-limit", "23"]).silent();
    assert_eq!(value(&container, PIDS, "pids.max"), "23");
    container.start().ok();
    container.wait_for_status("stopped");
    differs([crun("has words of its own")], || {
        update(&container, &["--pids-limit", "24"]).fails(1).says("container not running");
    });
}

#[test]
fn what_does_not_exist_cannot_be_changed() {
    need!(root);
    let container = Bundle::new().container();
    differs([crun("names the file that is missing")], || {
        update(&container, &["--pids-limit", "24"]).fails(1).says("does not exist");
    });
}

#[test]
fn rules_for_devices_stay() {
    need!(root, controller("pids"));
    // Behind 600 is no driver: what the rules let through gets ENXIO.
    let node = |path: &str, minor: u32| json!({ "path": path, "type": "c", "major": 600, "minor": minor, "fileMode": 0o666 });
    let container = Bundle::new()
        .linux(|l| {
            l["devices"] = json!([node("/dev/allowed", 1), node("/dev/denied", 2)]);
            l["resources"]["devices"] = json!([
                { "allow": false, "access": "rwm" },
                { "allow": true, "type": "c", "major": 600, "minor": 1, "access": "r" },
            ]);
        })
        .probe(["wait"])
        .start();
    let open = || {
        [("/dev/allowed", "r"), ("/dev/allowed", "w"), ("/dev/denied", "r")]
            .map(|(path, mode)| container.exec(["try", "open", path, mode]).ok().json())
    };
    let expected = ["ENXIO", "EPERM", "EPERM"].map(|errno| json!({ "errno": errno }));
    differs_at_times([runc("opens none of them on version 2")], || {
        assert_eq!(open(), expected);
        differs([crun("puts the document's rules in the place of the container's")], || {
            for allow in [true, false] {
                let devices = json!([{ "allow": allow, "access": "rwm" }]);
                update_by(&container, &json!({ "pids": { "limit": 40 }, "devices": devices })).ok();
                assert_eq!(open(), expected, "{allow}");
            }
        });
    });
}
