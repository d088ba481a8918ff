//! config-linux.md, control groups, on the unified hierarchy. On a host of version 1, give the tests a mount of it:
//! see the crate's documentation.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use spec_tests::{Bundle, Container, Value, crun, crun_before, differs, json, need, runc, runc_before};

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display())).trim().to_owned()
}

fn value(container: &Container, file: &str) -> String {
    read(&container.cgroup("").join(file))
}

fn resources(change: impl FnOnce(&mut Value)) -> Bundle {
    Bundle::new().linux(|l| change(&mut l["resources"])).probe(["wait"])
}

// Where.

#[test]
fn an_absolute_path_is_below_the_root() {
    need!(root, cgroup_v2);
    let container = Bundle::new().probe(["wait"]).start();
    assert_eq!(value(&container, "cgroup.procs"), container.pid().to_string());
    container.delete_by_force().ok();
    assert!(container.cgroups().is_empty());
}

#[test]
fn without_a_path_there_is_a_cgroup_of_its_own_that_is_gone_afterwards() {
    need!(root, cgroup_v2);
    let mut bundle = Bundle::new();
    let id = bundle.id().to_owned();
    bundle.config["linux"].as_object_mut().unwrap().remove("cgroupsPath");
    let container = bundle.probe(["wait"]).start();
    let cgroups = read(Path::new(&format!("/proc/{}/cgroup", container.pid())));
    let place = cgroups.lines().find_map(|l| l.strip_prefix("0::")).unwrap().to_owned();
    assert!(place.contains(&id), "{place}");
    container.delete_by_force().ok();
    assert!(!Path::new(&format!("/sys/fs/cgroup{place}")).exists());
}

#[test]
fn the_namespace_shows_the_root_and_exec_is_in_it() {
    need!(root, cgroup_v2);
    let container = Bundle::new().probe(["wait"]).start();
    let facts = container.exec(["facts"]).ok().json();
    assert!(facts["cgroups"].as_array().unwrap().contains(&json!("0::/")), "{}", facts["cgroups"]);
}

#[test]
fn cgroups_that_the_container_made_are_removed_too() {
    need!(root, cgroup_v2);
    let container = Bundle::new().probe(["wait"]).start();
    let below = container.cgroup("").join("made/inside");
    fs::create_dir_all(&below).unwrap();
    fs::write(below.join("cgroup.procs"), container.pid().to_string()).unwrap();
    container.delete_by_force().ok();
    assert!(!container.cgroup("").exists());
}

#[test]
fn exec_works_where_the_top_cgroup_may_have_no_processes() {
    need!(root, cgroup_v2, controller("pids"));
    let container = Bundle::new().probe(["wait"]).start();
    let top = container.cgroup("");
    let below = top.join("init");
    fs::create_dir(&below).unwrap();
    fs::write(below.join("cgroup.procs"), container.pid().to_string()).unwrap();
    // From now on processes in the top cgroup are EBUSY.
    fs::write(top.join("cgroup.subtree_control"), "+pids").unwrap();
    let facts = container.exec(["facts"]).ok().json();
    assert!(facts["cgroups"].as_array().unwrap().contains(&json!("0::/init")), "{}", facts["cgroups"]);
}

#[test]
fn a_cgroup_with_processes_in_it_is_refused() {
    need!(root, cgroup_v2);
    differs([runc_before("1.2", "warns"), crun("takes it")], || {
        let first = Bundle::new().probe(["wait"]).start();
        let path = first.config()["linux"]["cgroupsPath"].clone();
        let mut second = Bundle::new().linux(|l| l["cgroupsPath"] = path).container();
        second.create().refused();
        second.delete_by_force();
        assert_eq!(first.status(), "running");
        drop(first);
    });
}

#[test]
fn a_frozen_cgroup_is_refused() {
    need!(root, cgroup_v2, freezer);
    let bundle = Bundle::new().probe(["wait"]);
    let path = Path::new("/sys/fs/cgroup").join(bundle.id());
    fs::create_dir(&path).unwrap();
    fs::write(path.join("cgroup.freeze"), "1").unwrap();
    let mut container = bundle.container();
    differs([crun("hangs or takes it")], || {
        container.create().refused();
    });
    if path.exists() {
        fs::write(path.join("cgroup.freeze"), "0").unwrap();
    }
    container.delete_by_force();
    if path.exists() {
        fs::remove_dir(&path).unwrap();
    }
}

// Values.

#[test]
fn the_values_of_every_controller_are_written() {
    need!(root, cgroup_v2, controller("memory"), controller("cpu"), controller("pids"));
    let container = resources(|r| {
        r["memory"] = json!({ "limit": 104_857_600, "reservation": 52_428_800, "swap": 209_715_200 });
        r["cpu"] = json!({ "shares": 1024, "quota": 50_000, "period": 100_000 });
        r["pids"] = json!({ "limit": 77 });
    })
    .start();
    for (file, expected) in [
        ("memory.max", "104857600"),
        ("memory.low", "52428800"),
        // Swap alone, where the configuration has the sum.
        ("memory.swap.max", "104857600"),
        ("cpu.max", "50000 100000"),
        ("pids.max", "77"),
    ] {
        assert_eq!(value(&container, file), expected, "{file}");
    }
    // 39 by the linear formula, 100 by that of runc 1.3.2 and crun 1.23.
    let weight = value(&container, "cpu.weight");
    assert!(["39", "100"].contains(&weight.as_str()), "{weight}");
}

#[test]
fn the_processors_are_set() {
    need!(root, cgroup_v2, controller("cpuset"));
    let container = resources(|r| r["cpu"] = json!({ "cpus": "0", "mems": "0" })).start();
    assert_eq!(value(&container, "cpuset.cpus"), "0");
    assert_eq!(container.exec(["facts"]).ok().json()["affinity"], json!([0]));
}

#[test]
fn a_huge_page_limit_is_written() {
    need!(root, cgroup_v2, controller("hugetlb"));
    let container =
        resources(|r| r["hugepageLimits"] = json!([{ "pageSize": "2MB", "limit": 4_194_304 }])).start();
    assert_eq!(value(&container, "hugetlb.2MB.max"), "4194304");
}

#[test]
fn a_huge_page_limit_is_one_of_reservations_too() {
    need!(root, cgroup_v2, controller("hugetlb"));
    const NO: &str = "limits no reservations";
    differs([runc_before("1.1.10", NO), crun(NO)], || {
        // What the kubelet sends: nothing of this size.
        let container =
            resources(|r| r["hugepageLimits"] = json!([{ "pageSize": "2MB", "limit": 0 }])).start();
        assert_eq!(value(&container, "hugetlb.2MB.max"), "0");
        assert_eq!(value(&container, "hugetlb.2MB.rsvd.max"), "0");
    });
}

#[test]
fn the_limit_of_processes_holds() {
    need!(root, cgroup_v2, controller("pids"));
    let out = resources(|r| r["pids"] = json!({ "limit": 5 })).probe(["children", "20"]).run().ok();
    assert_eq!(out.json(), json!({ "children": 4, "errno": "EAGAIN" }));
}

#[test]
fn the_limit_of_memory_holds() {
    need!(root, cgroup_v2, controller("memory"));
    let bundle = resources(|r| r["memory"] = json!({ "limit": 33_554_432, "swap": 33_554_432 }));
    assert_eq!(bundle.probe(["memory", "100"]).run().code(), 137);
}

#[test]
fn check_before_update_refuses_a_limit_below_the_usage() {
    need!(root, cgroup_v2, controller("memory"));
    let container = resources(|r| r["memory"] = json!({ "limit": 104_857_600, "checkBeforeUpdate": true }))
        .probe(["hold", "50"])
        .start();
    container.wait_for_stdout("ready");
    let file = container.dir().join("resources.json");
    let document = json!({ "memory": { "limit": 8_388_608, "checkBeforeUpdate": true } });
    fs::write(&file, document.to_string()).unwrap();
    differs([runc_before("1.2", "knows no checkBeforeUpdate"), crun_before("1.7", "does not check")], || {
        container.call(["update", "--resources", file.to_str().unwrap(), container.id()]).refused();
        assert_eq!(container.status(), "running");
    });
}

// Unified.

#[test]
fn unified_values_are_written_as_they_are() {
    need!(root, cgroup_v2, controller("pids"));
    let container = resources(|r| r["unified"] = json!({ "pids.max": "66" })).start();
    assert_eq!(value(&container, "pids.max"), "66");
}

#[test]
fn unified_values_of_the_core_are_written() {
    need!(root, cgroup_v2);
    let container = resources(|r| r["unified"] = json!({ "cgroup.max.depth": "3" })).start();
    assert_eq!(value(&container, "cgroup.max.depth"), "3");
}

#[test]
fn unified_values_of_an_absent_controller_or_file_are_errors() {
    need!(root, cgroup_v2);
    resources(|r| r["unified"] = json!({ "nosuchcontroller.max": "1" })).create_fails();
    resources(|r| r["unified"] = json!({ "cgroup.nosuchfile": "1" })).create_fails();
}

#[test]
fn unified_keys_do_not_leave_the_cgroup() {
    need!(root, cgroup_v2);
    resources(|r| r["unified"] = json!({ "../cgroup.procs": "0" })).create_fails();
}

#[test]
fn a_limit_whose_controller_is_absent_is_an_error() {
    need!(root, cgroup_v2);
    let limits = [
        ("memory", json!({ "memory": { "limit": 104_857_600 } })),
        ("cpuset", json!({ "cpu": { "cpus": "0" } })),
        ("pids", json!({ "pids": { "limit": 10 } })),
        ("cpu", json!({ "cpu": { "shares": 512 } })),
    ];
    let absent = limits.into_iter().filter(|(name, _)| spec_tests::need::controller(name).is_err());
    let absent: Vec<_> = absent.collect();
    if absent.is_empty() {
        let test = "a_limit_whose_controller_is_absent_is_an_error";
        spec_tests::need::skip(test, "absent_controller", "every controller is there");
    }
    for (_, limit) in absent {
        resources(|r| r.as_object_mut().unwrap().extend(limit.as_object().unwrap().clone())).create_fails();
    }
}

#[test]
fn settings_that_only_version_1_has_are_refused() {
    need!(root, cgroup_v2);
    for (section, value) in
        [("memory", json!({ "swappiness": 10 })), ("network", json!({ "classID": 1_048_577 }))]
    {
        differs([runc("ignores them"), crun_before("1.21", "ignores some")], || {
            resources(|r| r[section] = value).create_fails();
        });
    }
}
