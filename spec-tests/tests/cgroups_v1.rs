//! config-linux.md, control groups, on hierarchies of version 1.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

use spec_tests::call::eventually;
use spec_tests::need::skip;
use spec_tests::runtime::under_test;
use spec_tests::{
    Bundle, Container, Flavor, Value, crun, crun_before, differs, differs_at_times, json, need, runc_before,
};

const LEFT: &str = "leaves cgroups behind when it fails, if they are busy";

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display())).trim().to_owned()
}

fn resources(change: impl FnOnce(&mut Value)) -> Bundle {
    Bundle::new().linux(|l| change(&mut l["resources"])).probe(["wait"])
}

/// What a file of the container's cgroup says.
fn value(container: &Container, controller: &str, file: &str) -> String {
    read(&container.cgroup(controller).join(file))
}

/// A cgroup that the test made itself in some hierarchies; removed when dropped.
struct Made(Vec<PathBuf>);

impl Made {
    fn new(name: &str) -> Self {
        let mut made = Vec::new();
        for controller in ["memory", "cpu", "pids", "freezer", "devices"] {
            let path = Path::new("/sys/fs/cgroup").join(controller).join(name.trim_start_matches('/'));
            fs::create_dir(&path).unwrap();
            made.push(path);
        }
        Made(made)
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        for path in &self.0 {
            // The container's delete may have taken it already.
            if path.exists() {
                fs::remove_dir(path).expect("remove the test's own cgroup");
            }
        }
    }
}

// Where.

#[test]
fn an_absolute_path_is_below_the_root_of_each_hierarchy() {
    need!(root, cgroup_v1);
    let container = Bundle::new().probe(["wait"]).start();
    let pid = container.pid().to_string();
    for controller in ["memory", "cpu", "cpuset", "pids", "devices", "freezer", "blkio", "systemd"] {
        if need_controller(controller) {
            assert_eq!(value(&container, controller, "cgroup.procs"), pid, "{controller}");
        }
    }
}

fn need_controller(name: &str) -> bool {
    spec_tests::need::controller(name).is_ok()
}

#[test]
fn a_deep_path_is_made_and_removed() {
    need!(root, cgroup_v1, controller("memory"));
    let bundle = Bundle::new();
    let top = format!("deep-{}", bundle.id());
    let container = bundle.linux(|l| l["cgroupsPath"] = json!(format!("/{top}/a/b"))).probe(["wait"]).start();
    assert_eq!(value(&container, "memory", "cgroup.procs"), container.pid().to_string());
    container.delete_by_force().ok();
    drop(container);
    // What is above the container's own cgroup is nobody's: the peers leave it, and so the test removes it.
    for controller in fs::read_dir("/sys/fs/cgroup").unwrap() {
        let controller = controller.unwrap().path();
        // A name without files of cgroups is a place where nothing is mounted.
        if controller.join("cgroup.procs").exists() {
            remove(&controller.join(&top));
        }
    }
}

/// A tree of cgroups, from below.
fn remove(path: &Path) {
    for entry in fs::read_dir(path).into_iter().flatten() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            remove(&entry.path());
        }
    }
    if path.exists() {
        // A cgroup whose last process is just ending is busy.
        eventually("an empty cgroup can be removed", || fs::remove_dir(path).is_ok());
    }
}

#[test]
fn a_relative_path_and_none_have_a_place_of_their_own_that_is_gone_afterwards() {
    need!(root, cgroup_v1, controller("memory"));
    for path in [Some("relative"), None] {
        let mut bundle = Bundle::new();
        let id = bundle.id().to_owned();
        match path {
            Some(_) => bundle.config["linux"]["cgroupsPath"] = json!(format!("relative-{id}")),
            None => drop(bundle.config["linux"].as_object_mut().unwrap().remove("cgroupsPath")),
        }
        let container = bundle.probe(["wait"]).start();
        let cgroups = read(Path::new(&format!("/proc/{}/cgroup", container.pid())));
        let memory = cgroups.lines().find_map(|l| l.split_once(":memory:")).unwrap().1.to_owned();
        assert!(memory.contains(&id), "{memory}");
        assert_ne!(memory, format!("/{id}/{id}"));
        let own = read(Path::new("/proc/self/cgroup"));
        let own = own.lines().find_map(|l| l.split_once(":memory:")).unwrap().1;
        assert_ne!(memory, own, "a cgroup of its own");
        container.delete_by_force().ok();
        let place = format!("/sys/fs/cgroup/memory{memory}");
        assert!(!Path::new(&place).exists(), "{place}");
    }
}

#[test]
fn dots_in_the_path_do_not_leave_the_hierarchy() {
    need!(root, cgroup_v1, controller("memory"));
    let bundle = Bundle::new();
    let name = format!("dots-{}", bundle.id());
    let mut container = bundle
        .linux(|l| l["cgroupsPath"] = json!(format!("/../../../../{name}")))
        .probe(["wait"])
        .container();
    if container.create().status.success() {
        let cgroups = read(Path::new(&format!("/proc/{}/cgroup", container.pid())));
        assert!(cgroups.contains(&format!(":memory:/{name}")), "{cgroups}");
    }
    container.delete_by_force();
    assert!(!Path::new("/sys/fs/cgroup/memory").join(&name).exists());
    let outside = Path::new("/").join(&name);
    differs([crun("makes a directory on the host")], || {
        let there = outside.exists();
        if there {
            fs::remove_dir_all(&outside).unwrap();
        }
        assert!(!there, "made {}", outside.display());
    });
}

// Values.

#[test]
fn the_values_of_every_controller_are_written() {
    need!(root, cgroup_v1, controller("memory"), controller("cpu"), controller("pids"), controller("cpuset"));
    let container = resources(|r| {
        r["memory"] = json!({ "limit": 104_857_600, "reservation": 52_428_800, "swappiness": 10 });
        r["cpu"] = json!({ "shares": 512, "quota": 50_000, "period": 100_000, "cpus": "0", "mems": "0" });
        r["pids"] = json!({ "limit": 77 });
    })
    .start();
    for (controller, file, expected) in [
        ("memory", "memory.limit_in_bytes", "104857600"),
        ("memory", "memory.soft_limit_in_bytes", "52428800"),
        ("memory", "memory.swappiness", "10"),
        ("cpu", "cpu.shares", "512"),
        ("cpu", "cpu.cfs_quota_us", "50000"),
        ("cpu", "cpu.cfs_period_us", "100000"),
        ("cpuset", "cpuset.cpus", "0"),
        ("cpuset", "cpuset.mems", "0"),
        ("pids", "pids.max", "77"),
    ] {
        assert_eq!(value(&container, controller, file), expected, "{file}");
    }
    assert_eq!(container.exec(["facts"]).ok().json()["affinity"], json!([0]));
}

#[test]
fn without_values_the_defaults_of_the_kernel_stay() {
    need!(root, cgroup_v1, controller("memory"), controller("cpu"), controller("pids"), controller("cpuset"));
    let container = Bundle::new().probe(["wait"]).start();
    for (controller, file) in
        [("memory", "memory.limit_in_bytes"), ("cpu", "cpu.cfs_quota_us"), ("cpuset", "cpuset.cpus")]
    {
        let above = Path::new("/sys/fs/cgroup").join(controller).join(file);
        assert_eq!(value(&container, controller, file), read(&above), "{file}");
    }
    assert_eq!(value(&container, "pids", "pids.max"), "max");
    assert_eq!(value(&container, "cpu", "cpu.shares"), "1024");
}

#[test]
fn unlimited_is_minus_one() {
    need!(root, cgroup_v1, controller("memory"), controller("cpu"), controller("pids"));
    differs([crun("writes -1 to pids.max")], || {
        let container = resources(|r| {
            r["memory"] = json!({ "limit": -1 });
            r["cpu"] = json!({ "quota": -1 });
            r["pids"] = json!({ "limit": -1 });
        })
        .start();
        assert!(value(&container, "memory", "memory.limit_in_bytes").len() > 15);
        assert_eq!(value(&container, "cpu", "cpu.cfs_quota_us"), "-1");
        assert_eq!(value(&container, "pids", "pids.max"), "max");
    });
}

#[test]
fn memory_and_swap_are_set_in_an_order_that_the_kernel_takes() {
    need!(root, cgroup_v1, controller("memory"));
    if !Path::new("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes").exists() {
        skip("memory_and_swap", "memsw", "no memory.memsw.limit_in_bytes");
        return;
    }
    let container = resources(|r| r["memory"] = json!({ "limit": 52_428_800, "swap": 104_857_600 })).start();
    assert_eq!(value(&container, "memory", "memory.limit_in_bytes"), "52428800");
    assert_eq!(value(&container, "memory", "memory.memsw.limit_in_bytes"), "104857600");
}

#[test]
fn swap_below_the_memory_limit_is_refused() {
    need!(root, cgroup_v1, controller("memory"));
    differs_at_times([crun(LEFT)], || {
        resources(|r| r["memory"] = json!({ "limit": 104_857_600, "swap": 52_428_800 })).create_fails();
    });
}

#[test]
fn the_oom_killer_can_be_disabled() {
    need!(root, cgroup_v1, controller("memory"));
    let container =
        resources(|r| r["memory"] = json!({ "limit": 52_428_800, "disableOOMKiller": true })).start();
    assert!(value(&container, "memory", "memory.oom_control").contains("oom_kill_disable 1"));
}

#[test]
fn a_burst_is_written() {
    need!(root, cgroup_v1, controller("cpu"), kernel(5, 14));
    differs([runc_before("1.2", "knows no burst"), crun_before("1.9", "knows no burst")], || {
        let container =
            resources(|r| r["cpu"] = json!({ "quota": 50_000, "period": 100_000, "burst": 20_000 })).start();
        assert_eq!(value(&container, "cpu", "cpu.cfs_burst_us"), "20000");
    });
}

#[test]
fn a_burst_above_the_quota_is_refused() {
    need!(root, cgroup_v1, controller("cpu"), kernel(5, 14));
    let known = [runc_before("1.2", "knows no burst"), crun_before("1.9", "knows no burst")];
    differs(known, || {
        resources(|r| r["cpu"] = json!({ "quota": 50_000, "period": 100_000, "burst": 60_000 }))
            .create_fails();
    });
}

#[test]
fn a_group_can_be_idle() {
    need!(root, cgroup_v1, controller("cpu"), kernel(5, 15));
    let container = resources(|r| r["cpu"] = json!({ "idle": 1 })).start();
    differs([runc_before("1.2", "knows no idle")], || {
        assert_eq!(value(&container, "cpu", "cpu.idle"), "1");
    });
}

#[test]
fn throttles_of_block_devices_are_written() {
    need!(root, cgroup_v1, controller("blkio"));
    let Some((major, minor)) = block_device() else {
        skip("throttles_of_block_devices_are_written", "disk", "no whole disk in /sys/block");
        return;
    };
    let rate = |n: u64| json!([{ "major": major, "minor": minor, "rate": n }]);
    let container = resources(|r| {
        r["blockIO"] = json!({
            "throttleReadBpsDevice": rate(1_048_576), "throttleWriteBpsDevice": rate(2_097_152),
            "throttleReadIOPSDevice": rate(100), "throttleWriteIOPSDevice": rate(200),
        });
    })
    .start();
    for (file, rate) in [
        ("blkio.throttle.read_bps_device", 1_048_576),
        ("blkio.throttle.write_bps_device", 2_097_152),
        ("blkio.throttle.read_iops_device", 100),
        ("blkio.throttle.write_iops_device", 200),
    ] {
        assert_eq!(value(&container, "blkio", file), format!("{major}:{minor} {rate}"), "{file}");
    }
}

fn block_device() -> Option<(u64, u64)> {
    let mut disks: Vec<PathBuf> = fs::read_dir("/sys/block").ok()?.flatten().map(|e| e.path()).collect();
    disks.sort();
    let numbers = disks.iter().rev().find_map(|d| fs::read_to_string(d.join("dev")).ok())?;
    let (major, minor) = numbers.trim().split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[test]
fn a_value_that_the_kernel_refuses_is_an_error_and_leaves_nothing() {
    need!(root, cgroup_v1, controller("cpuset"), controller("cpu"));
    differs_at_times([crun(LEFT)], || {
        resources(|r| r["cpu"] = json!({ "cpus": "999" })).create_fails();
        resources(|r| r["cpu"] = json!({ "period": 1 })).create_fails();
    });
}

#[test]
fn a_memory_limit_below_what_a_process_needs_is_an_error() {
    need!(root, cgroup_v1, controller("memory"));
    resources(|r| r["memory"] = json!({ "limit": 4096 })).create_fails();
}

// Effects.

#[test]
fn the_limit_of_processes_holds() {
    need!(root, cgroup_v1, controller("pids"));
    let out = resources(|r| r["pids"] = json!({ "limit": 5 })).probe(["children", "20"]).run().ok();
    let seen = out.json();
    assert_eq!(seen["errno"], "EAGAIN");
    assert_eq!(seen["children"], 4, "and init itself");
}

#[test]
fn a_limit_of_one_process_has_room_for_one() {
    need!(root, cgroup_v1, controller("pids"));
    if under_test().flavor != Flavor::Tare {
        return;
    }
    let container = resources(|r| r["pids"] = json!({ "limit": 1 })).start();
    assert_eq!(value(&container, "pids", "pids.current"), "1");
    // One that is moved in is not measured by the limit.
    container.exec(["facts"]).ok();
    assert_eq!(value(&container, "pids", "pids.current"), "1");
}

#[test]
fn the_limit_of_memory_holds() {
    need!(root, cgroup_v1, controller("memory"), swap_limit);
    let bundle = resources(|r| r["memory"] = json!({ "limit": 33_554_432, "swap": 33_554_432 }));
    let out = bundle.probe(["memory", "100"]).run();
    assert_eq!(out.code(), 137, "{out:#?}");
}

#[test]
fn a_process_of_exec_is_in_the_cgroup() {
    need!(root, cgroup_v1, controller("pids"), controller("memory"), controller("cpu"), freezer);
    let container = Bundle::new().probe(["wait"]).start();
    container.call(["exec", "--detach", container.id(), "/probe", "wait"]).ok();
    for controller in ["pids", "memory", "cpu", "freezer", "devices"] {
        assert_eq!(value(&container, controller, "cgroup.procs").lines().count(), 2, "{controller}");
    }
}

#[test]
fn update_changes_the_values() {
    need!(root, cgroup_v1, controller("memory"), controller("pids"), controller("cpu"));
    let container = resources(|r| r["pids"] = json!({ "limit": 10 })).start();
    container
        .call([
            "update",
            "--memory",
            "104857600",
            "--pids-limit",
            "20",
            "--cpu-share",
            "300",
            "--cpu-quota",
            "40000",
            "--cpu-period",
            "90000",
            container.id(),
        ])
        .ok();
    for (controller, file, expected) in [
        ("memory", "memory.limit_in_bytes", "104857600"),
        ("pids", "pids.max", "20"),
        ("cpu", "cpu.shares", "300"),
        ("cpu", "cpu.cfs_quota_us", "40000"),
        ("cpu", "cpu.cfs_period_us", "90000"),
    ] {
        assert_eq!(value(&container, controller, file), expected, "{file}");
    }
}

/// Up: memsw first; down: limit first (the kernel keeps limit <= memsw).
#[test]
fn update_moves_memory_and_swap_up_and_down() {
    need!(root, cgroup_v1, controller("memory"));
    if !Path::new("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes").exists() {
        skip("update_moves_memory_and_swap", "memsw", "no memory.memsw.limit_in_bytes");
        return;
    }
    let container = resources(|r| r["memory"] = json!({ "limit": 52_428_800, "swap": 52_428_800 })).start();
    for size in [209_715_200, 62_914_560, 419_430_400] {
        let text = size.to_string();
        container.call(["update", "--memory", &text, "--memory-swap", &text, container.id()]).ok();
        assert_eq!(value(&container, "memory", "memory.limit_in_bytes"), text);
        assert_eq!(value(&container, "memory", "memory.memsw.limit_in_bytes"), text);
    }
}

#[test]
fn update_reads_a_document_of_resources() {
    need!(root, cgroup_v1, controller("pids"));
    let container = resources(|r| r["pids"] = json!({ "limit": 10 })).start();
    let file = container.dir().join("resources.json");
    fs::write(&file, json!({ "pids": { "limit": 33 } }).to_string()).unwrap();
    container.call(["update", "--resources", file.to_str().unwrap(), container.id()]).ok();
    assert_eq!(value(&container, "pids", "pids.max"), "33");
}

// Groups that are not fit, and what is left.

#[test]
fn a_cgroup_with_processes_in_it_is_refused() {
    need!(root, cgroup_v1, controller("memory"));
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
fn an_empty_cgroup_that_is_there_is_taken() {
    need!(root, cgroup_v1, controller("memory"), controller("pids"), controller("freezer"));
    let bundle = Bundle::new().probe(["wait"]);
    let made = Made::new(bundle.id());
    let container = bundle.start();
    assert_eq!(value(&container, "memory", "cgroup.procs"), container.pid().to_string());
    drop(container);
    drop(made);
}

#[test]
fn a_frozen_cgroup_is_refused() {
    need!(root, cgroup_v1, controller("freezer"), controller("memory"), controller("pids"));
    if under_test().flavor == Flavor::Crun {
        skip("a_frozen_cgroup_is_refused", "a runtime that looks", "crun moves into it and waits for ever");
        return;
    }
    let bundle = Bundle::new();
    let made = Made::new(bundle.id());
    let freezer = Path::new("/sys/fs/cgroup/freezer").join(bundle.id());
    fs::write(freezer.join("freezer.state"), "FROZEN").unwrap();
    let mut container = bundle.probe(["wait"]).container();
    let out = container.create();
    if freezer.exists() {
        fs::write(freezer.join("freezer.state"), "THAWED").unwrap();
    }
    container.delete_by_force();
    drop(made);
    drop(container);
    out.refused();
}

#[test]
fn cgroups_that_the_container_made_are_removed_too() {
    need!(root, cgroup_v1, controller("memory"));
    let container = Bundle::new().probe(["wait"]).start();
    let below = container.cgroup("memory").join("made/inside");
    fs::create_dir_all(&below).unwrap();
    container.delete_by_force().ok();
    assert!(!container.cgroup("memory").exists());
}

#[test]
fn a_process_that_moved_into_a_cgroup_below_is_ended_too() {
    need!(root, cgroup_v1, controller("memory"));
    let container = Bundle::new().without_namespace("pid").probe(["wait"]).start();
    let pid = container.pid();
    let below = container.cgroup("memory").join("below");
    fs::create_dir(&below).unwrap();
    fs::write(below.join("cgroup.procs"), pid.to_string()).unwrap();
    container.delete_by_force().ok();
    assert!(!container.cgroup("memory").exists());
}
