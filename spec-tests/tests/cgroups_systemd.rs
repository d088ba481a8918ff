//! Cgroups that systemd makes (`--systemd-cgroup`), on a host that runs it: as root with PID 1, as an ordinary user
//! with the user's own manager. <https://github.com/opencontainers/runc/blob/main/docs/systemd.md>
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use spec_tests::call::{Running, call, eventually};
use spec_tests::runtime::under_test;
use spec_tests::{Bundle, Container, Flavor, crun, differs, differs_at_times, json, need, runc, systemctl};

/// systemd that reads its units again writes the rounded times of all of them: who asks for that, and who looks at a
/// time that is not round, is alone.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The cgroup that the container's process is in, on v2.
fn cgroup(container: &Container) -> String {
    let text = fs::read_to_string(format!("/proc/{}/cgroup", container.pid())).unwrap();
    text.lines().find_map(|line| line.strip_prefix("0::")).unwrap().to_owned()
}

fn folder(container: &Container) -> PathBuf {
    Path::new("/sys/fs/cgroup").join(cgroup(container).trim_start_matches('/'))
}

fn value(folder: &Path, file: &str) -> String {
    let path = folder.join(file);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display())).trim().to_owned()
}

fn waiting() -> Bundle {
    Bundle::new().probe(["wait"])
}

#[track_caller]
fn assert_properties(container: &Container, expected: &[(&str, &str)]) {
    for (name, value) in expected {
        assert_eq!(container.unit_property(name), *value, "{name}");
    }
}

#[test]
fn a_container_is_a_scope_in_its_slice() {
    need!(root, systemd, cgroup_v2);
    let container = waiting().systemd("spec-a-b.slice").start();
    let unit = container.unit().unwrap();
    differs([crun("a sub-cgroup `container`")], || {
        assert_eq!(cgroup(&container), format!("/spec.slice/spec-a.slice/spec-a-b.slice/{unit}"));
    });
    assert_properties(
        &container,
        &[
            ("Slice", "spec-a-b.slice"),
            ("ActiveState", "active"),
            ("Delegate", "yes"),
            ("DefaultDependencies", "no"),
            ("Transient", "yes"),
        ],
    );
    assert!(call(systemctl(["stop", "spec-a-b.slice"])).ok().stderr.is_empty());
}

#[test]
fn without_a_slice_it_is_the_systems() {
    need!(root, systemd, cgroup_v2);
    differs([crun("asks systemd for a slice without a name")], || {
        let container = waiting().systemd("").start();
        assert_eq!(container.unit_property("Slice"), "system.slice");
    });
}

#[test]
fn without_a_path_the_scope_has_the_name_of_the_container() {
    need!(root, systemd, cgroup_v2);
    let bundle = waiting().systemd("").config(|c| {
        c["linux"].as_object_mut().unwrap().remove("cgroupsPath");
    });
    let id = bundle.id().to_owned();
    let container = bundle.start();
    let place = cgroup(&container);
    assert!(place.starts_with("/system.slice/") && place.contains(&format!("-{id}.scope")), "{place}");
    container.delete_by_force().ok();
    assert!(!Path::new("/sys/fs/cgroup").join(&place[1..]).exists());
}

#[test]
fn limits_are_in_the_files_and_in_the_unit_and_stay_when_systemd_is_reloaded() {
    need!(root, systemd, cgroup_v2, controller("memory"), controller("pids"), controller("cpu"));
    let _alone = alone();
    let container = waiting()
        .systemd("system.slice")
        .linux(|l| {
            l["resources"]["memory"] = json!({ "limit": 64 << 20, "reservation": 32 << 20 });
            l["resources"]["cpu"] = json!({ "quota": 20001, "period": 50000 });
            l["resources"]["pids"] = json!({ "limit": 33 });
        })
        .start();
    let folder = folder(&container);
    // What systemd has is rounded, and it may write that when it has read its units again.
    assert_eq!(value(&folder, "cpu.max"), "20001 50000");
    for _ in 0..2 {
        for (file, expected) in [("memory.max", "67108864"), ("memory.low", "33554432"), ("pids.max", "33")] {
            assert_eq!(value(&folder, file), expected, "{file}");
        }
        assert_properties(
            &container,
            &[
                ("MemoryMax", "67108864"),
                ("MemoryLow", "33554432"),
                ("CPUQuotaPerSecUSec", "410ms"),
                ("CPUQuotaPeriodUSec", "50ms"),
                ("TasksMax", "33"),
            ],
        );
        call(systemctl(["daemon-reload"])).ok();
    }
}

#[test]
fn unified_resources_are_told_to_systemd_too() {
    need!(root, systemd, cgroup_v2, controller("memory"), controller("pids"), controller("cpu"));
    let _alone = alone();
    let container = waiting()
        .systemd("system.slice")
        .linux(|l| {
            l["resources"]["unified"] = json!({
                "memory.high": "50331648", "memory.max": "max", "cpu.weight": "42", "cpu.max": "max 50000",
                "pids.max": "44", "memory.oom.group": "1",
            });
        })
        .start();
    let folder = folder(&container);
    for _ in 0..2 {
        for (file, expected) in
            [("memory.high", "50331648"), ("cpu.weight", "42"), ("pids.max", "44"), ("memory.oom.group", "1")]
        {
            assert_eq!(value(&folder, file), expected, "{file}");
        }
        call(systemctl(["daemon-reload"])).ok();
    }
    assert_properties(&container, &[("MemoryHigh", "50331648"), ("CPUWeight", "42"), ("TasksMax", "44")]);
}

#[test]
fn an_update_changes_the_unit_too() {
    need!(root, systemd, cgroup_v2, controller("memory"), controller("pids"), controller("cpu"));
    let _alone = alone();
    let container = waiting()
        .systemd("system.slice")
        .linux(|l| l["resources"]["memory"] = json!({ "limit": 64 << 20 }))
        .start();
    let limits =
        ["--memory", "104857600", "--pids-limit", "55", "--cpu-quota", "30000", "--cpu-period", "60000"];
    let words = ["update"].into_iter().chain(limits).chain([container.id()]);
    call(container.command(words)).ok();
    let folder = folder(&container);
    for _ in 0..2 {
        for (file, expected) in [("memory.max", "104857600"), ("pids.max", "55"), ("cpu.max", "30000 60000")]
        {
            assert_eq!(value(&folder, file), expected, "{file}");
        }
        let properties = [("MemoryMax", "104857600"), ("TasksMax", "55"), ("CPUQuotaPerSecUSec", "500ms")];
        assert_properties(&container, &properties);
        call(systemctl(["daemon-reload"])).ok();
    }
}

#[test]
fn a_refused_update_leaves_the_files_and_the_unit() {
    need!(
        root,
        systemd,
        cgroup_v2,
        controller("memory"),
        controller("pids"),
        controller("cpu"),
        kernel(5, 15)
    );
    let _alone = alone();
    let has_cpuset = need::controller("cpuset").is_ok();
    let all_or_nothing = "writes what comes before the failure";
    let files = ["memory.max", "cpu.max", "cpu.idle", "cpu.weight", "pids.max", "cpuset.cpus"];
    let properties =
        ["MemoryMax", "CPUQuotaPerSecUSec", "CPUQuotaPeriodUSec", "CPUWeight", "TasksMax", "AllowedCPUs"];
    differs([runc(all_or_nothing), crun(all_or_nothing)], || {
        for cpu in [
            // 15.001 %: systemd makes 16 % of it.
            json!({ "quota": 30_000, "period": 50_000 }),
            json!({ "idle": 1 }),
            json!({ "cpus": "0" }),
        ] {
            if !has_cpuset && !cpu["cpus"].is_null() {
                continue;
            }
            let container = waiting()
                .systemd("system.slice")
                .linux(|l| {
                    l["resources"]["cpu"] = json!({ "quota": 15_001, "period": 100_000, "shares": 700 });
                    l["resources"]["pids"] = json!({ "limit": 33 });
                })
                .start();
            let folder = folder(&container);
            let there = files.iter().filter(|file| folder.join(file).exists());
            let there: Vec<&str> = there.copied().collect();
            let values = || {
                let files = there.iter().map(|file| value(&folder, file));
                let properties = properties.iter().map(|name| container.unit_property(name));
                files.chain(properties).collect::<Vec<_>>()
            };
            let before = values();
            let document = json!({ "memory": { "limit": 100_000_000 }, "cpu": cpu,
                                   "pids": { "limit": 9_000_000_000_i64 } });
            let mut command = container.command(["update", "--resources", "-"]);
            command.arg(container.id());
            let out = Running::spawn(command, document.to_string().as_bytes()).wait().refused();
            assert_eq!(values(), before, "{document}");
            assert!(!out.stderr.contains("could not be put back"), "{document}: {out:#?}");
        }
    });
}

/// systemd makes 16 % of it, and writes that when it hears of anything else.
#[test]
fn time_on_the_processors_is_not_rounded_by_a_change_of_something_else() {
    need!(root, systemd, cgroup_v2, controller("cpu"), controller("pids"));
    let _alone = alone();
    let time = json!({ "quota": 15_001, "period": 100_000 });
    let container = waiting().systemd("system.slice").linux(|l| l["resources"]["cpu"] = time).start();
    call(container.command(["update", "--pids-limit", "55", container.id()])).ok();
    let folder = folder(&container);
    assert_eq!(value(&folder, "pids.max"), "55");
    differs_at_times([runc("lets systemd round it"), crun("lets systemd round it")], || {
        assert_eq!(value(&folder, "cpu.max"), "15001 100000");
    });
}

#[test]
fn processors_and_time_are_both_what_was_asked_for() {
    need!(root, systemd, cgroup_v2, controller("cpu"), controller("cpuset"));
    let _alone = alone();
    let container = waiting().systemd("system.slice").start();
    let options = ["--cpu-quota", "15001", "--cpu-period", "100000", "--cpuset-cpus", "0"];
    call(container.command(["update"].into_iter().chain(options).chain([container.id()]))).ok();
    let folder = folder(&container);
    assert_eq!(value(&folder, "cpuset.cpus"), "0");
    differs_at_times([runc("lets systemd round it"), crun("lets systemd round it")], || {
        assert_eq!(value(&folder, "cpu.max"), "15001 100000");
    });
    assert_properties(&container, &[("AllowedCPUs", "0"), ("CPUQuotaPerSecUSec", "160ms")]);
}

#[test]
fn who_is_idle_no_more_is_not_made_so_again() {
    need!(root, systemd, cgroup_v2, controller("cpu"), kernel(5, 15));
    let container = waiting().systemd("system.slice").start();
    for idle in ["1", "0"] {
        call(container.command(["update", "--cpu-idle", idle, container.id()])).ok();
        assert_eq!(value(&folder(&container), "cpu.idle"), idle);
    }
    // It writes all of a unit's properties when one of them changes.
    call(systemctl(["set-property", "--runtime", &container.unit().unwrap(), "TasksMax=100"])).ok();
    eventually("systemd has written", || value(&folder(&container), "pids.max") == "100");
    differs_at_times([runc("does not tell systemd"), crun("does not tell systemd")], || {
        assert_eq!(value(&folder(&container), "cpu.idle"), "0");
    });
}

#[test]
fn the_limit_of_a_container_in_which_the_kernel_kills_can_be_raised() {
    need!(root, systemd, cgroup_v2, controller("memory"));
    let limit = json!({ "limit": 16 << 20, "swap": 16 << 20 });
    let container = waiting().systemd("system.slice").linux(|l| l["resources"]["memory"] = limit).start();
    let folder = folder(&container);
    // Ended with the container.
    let mut storm = Command::new("sh")
        .args(["-c", "echo $$ > \"$0\"; while :; do tail /dev/zero; done"])
        .arg(folder.join("cgroup.procs"))
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let kills = || {
        let text = value(&folder, "memory.events");
        text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.parse::<u64>().ok()).unwrap()
    };
    eventually("the kernel kills", || kills() > 0);
    for limit in 17..27 {
        let before = kills();
        call(container.command(["update", "--memory", &format!("{limit}m"), container.id()])).ok();
        assert_eq!(value(&folder, "memory.max"), (limit << 20).to_string());
        eventually("the kernel kills again", || kills() > before);
    }
    container.delete_by_force().ok();
    storm.wait().unwrap();
}

#[test]
fn annotations_are_properties_of_the_unit() {
    need!(root, systemd, cgroup_v2);
    let container = waiting()
        .systemd("system.slice")
        .config(|c| {
            c["annotations"] = json!({
                "org.systemd.property.TimeoutStopSec": "uint64 7",
                "org.systemd.property.Description": "'a box of ours'",
                "org.systemd.property.After": "['basic.target', 'sysinit.target']",
                "org.systemd.property.SendSIGHUP": "true",
            });
        })
        .start();
    assert_properties(&container, &[("TimeoutStopUSec", "7s"), ("SendSIGHUP", "yes")]);
    differs([crun("puts its own description over it")], || {
        assert_properties(&container, &[("Description", "a box of ours")]);
    });
    let after = container.unit_property("After");
    assert!(after.contains("basic.target") && after.contains("sysinit.target"), "{after}");
}

#[test]
fn what_systemd_would_not_understand_is_refused() {
    need!(root, systemd, cgroup_v2);
    differs([crun("takes any path")], || {
        let path =
            |path: &str| waiting().systemd("").linux(|l| l["cgroupsPath"] = json!(path)).create_fails();
        path("/a/b").says("expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups");
        path("a--b.slice:spec:x").says("invalid slice name: a--b.slice");
    });
    for (key, value, why) in [
        ("Ab", "5", "too short"),
        ("A-b-c", "5", "non-alphabetic"),
        ("Description", "no quotes", "is not a value"),
        // systemd's own words.
        ("NoSuchThing", "5", "NoSuchThing"),
    ] {
        let annotations = json!({ format!("org.systemd.property.{key}"): value });
        let output = waiting().systemd("").config(|c| c["annotations"] = annotations).create_fails();
        differs_at_times([runc("has words of its own"), crun("has words of its own")], || {
            output.clone().says(why);
        });
    }
}

#[test]
fn device_rules_are_the_same_after_systemd_was_reloaded() {
    need!(root, systemd, cgroup_v2, capability(21));
    let _alone = alone();
    let container = waiting()
        .systemd("system.slice")
        .linux(|l| {
            // Behind 600 is no driver: what the rules let through gets ENXIO.
            let node = |path: &str, major: u32, minor: u32| {
                json!({ "path": path, "type": "c", "major": major, "minor": minor, "fileMode": 0o666 })
            };
            l["devices"] =
                json!([node("/dev/full2", 1, 7), node("/dev/readable", 600, 1), node("/dev/denied", 600, 2)]);
            l["resources"]["devices"] = json!([
                { "allow": false, "access": "rwm" },
                { "allow": true, "type": "c", "major": 600, "minor": 1, "access": "r" },
            ]);
        })
        .start();
    let tries = || {
        [("/dev/full2", "rw"), ("/dev/readable", "r"), ("/dev/readable", "w"), ("/dev/denied", "r")]
            .map(|(path, mode)| container.exec(["try", "open", path, mode]).ok().json())
    };
    let before = tries();
    assert_eq!(before[0], json!({ "ok": true }));
    assert_eq!(before[1], json!({ "errno": "ENXIO" }));
    assert_eq!(before[2], json!({ "errno": "EPERM" }));
    assert_eq!(before[3], json!({ "errno": "EPERM" }));
    call(systemctl(["daemon-reload"])).ok();
    assert_eq!(tries(), before);
    // It writes a unit's properties also when one of them changes.
    call(systemctl(["set-property", "--runtime", &container.unit().unwrap(), "CPUWeight=50"])).ok();
    assert_eq!(tries(), before);
}

#[test]
fn rules_that_only_deny_are_kept_too() {
    need!(root, systemd, cgroup_v2, capability(21));
    let _alone = alone();
    let container = waiting()
        .systemd("system.slice")
        .linux(|l| {
            l["devices"] = json!([
                { "path": "/dev/readable", "type": "c", "major": 600, "minor": 1, "fileMode": 0o666 }
            ]);
            l["resources"]["devices"] = json!([
                { "allow": true, "access": "rwm" },
                { "allow": false, "type": "c", "major": 600, "minor": 1, "access": "rw" },
            ]);
        })
        .container();
    let mut container = container;
    differs([crun("systemd has no rules that deny")], || {
        container.create().silent();
        container.start().silent();
        for _ in 0..2 {
            let tried = container.exec(["try", "open", "/dev/readable", "r"]).ok().json();
            assert_eq!(tried, json!({ "errno": "EPERM" }));
            call(systemctl(["daemon-reload"])).ok();
        }
    });
}

#[test]
fn exec_is_in_the_scope_and_the_namespace_shows_the_root() {
    need!(root, systemd, cgroup_v2);
    let container = waiting().systemd("system.slice").start();
    let facts = container.exec(["facts"]).ok().json();
    assert!(facts["cgroups"].as_array().unwrap().contains(&json!("0::/")), "{}", facts["cgroups"]);
}

#[test]
fn a_container_sees_its_own_cgroup() {
    need!(root, systemd, cgroup_v2);
    for bundle in [waiting(), waiting().userns(200_000, 65_536), waiting().without_namespace("cgroup")] {
        let container = bundle
            .systemd("system.slice")
            .mount(json!({ "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
                           "options": ["nosuid", "noexec", "nodev", "relatime", "ro"] }))
            .start();
        let inside = format!("/proc/{}/root/sys/fs/cgroup/cgroup.procs", container.pid());
        let procs = fs::read_to_string(&inside).unwrap_or_else(|e| panic!("{inside}: {e}"));
        // Without a cgroup namespace runc and crun show all of the host's.
        let own = container.config()["linux"]["namespaces"].as_array().unwrap();
        if own.iter().any(|n| n["type"] == "cgroup") {
            assert!(procs.lines().any(|pid| pid == container.pid().to_string()), "{procs:?}");
        }
    }
}

#[test]
fn what_cannot_be_created_leaves_no_unit() {
    need!(root, systemd, cgroup_v2);
    // Dropping what could not be created checks for the unit.
    waiting().systemd("system.slice").args(["/no/such/program"]).create_fails();
    let hook = json!({ "path": "/bin/false" });
    waiting().systemd("system.slice").hook("createRuntime", hook).create_fails();
}

#[test]
fn a_unit_of_another_container_is_left_alone() {
    need!(root, systemd, cgroup_v2);
    let first = waiting().systemd("system.slice").start();
    let path = first.config()["linux"]["cgroupsPath"].clone();
    let second = Bundle::new().systemd("").linux(|l| l["cgroupsPath"] = path).probe(["wait"]);
    let mut second = second.container();
    second.create().refused();
    assert_eq!(first.unit_property("ActiveState"), "active");
    assert_eq!(first.status(), "running");
    second.call(["delete", "--force", second.id()]);
    assert_eq!(first.status(), "running");
    first.delete_by_force().ok();
}

#[test]
fn of_a_creator_that_was_killed_delete_by_force_leaves_nothing() {
    need!(root, systemd, cgroup_v2);
    // It stays in the scope, so that systemd does not end it by itself.
    let hold = r#"pid=$(sed 's/.*"pid": *\([0-9]*\).*/\1/')
        echo $$ > "/sys/fs/cgroup$(sed -n 's/^0:://p' "/proc/$pid/cgroup")/cgroup.procs"
        kill -KILL $PPID
        exec sleep 1000 < /dev/null > /dev/null 2>&1"#;
    let hook = json!({ "path": "/bin/sh", "args": ["sh", "-c", hold] });
    let mut container = waiting().systemd("system.slice").hook("createRuntime", hook).container();
    assert_eq!(container.create().code(), 128 + 9, "the hook kills the creator");
    assert_eq!(container.unit_property("ActiveState"), "active");
    container.delete_by_force().ok();
    assert!(container.remains().is_empty(), "{:?}", container.remains());
}

/// By its record it has a scope, which another container has by now: at the same place, or, as the name of a
/// scope does not tell its slice, in another.
#[test]
fn the_delete_of_a_dead_creator_leaves_the_scope_of_another_alone() {
    need!(root, systemd, cgroup_v2, strace);
    if under_test().flavor != Flavor::Tare {
        return; // runc and crun make the cgroup before they keep its name.
    }
    for (slice, is_held) in [("system.slice", true), ("spec-other.slice", false)] {
        let mut dead = waiting().systemd("system.slice").container();
        dead.create_killed_at("clone3", 2);
        let path = format!("{slice}:spec:{}", dead.id());
        let other = waiting().systemd("").linux(|l| l["cgroupsPath"] = json!(path)).start();
        let deleted = dead.delete_by_force();
        assert_eq!(deleted.status.success(), !is_held, "{deleted:?}");
        assert_eq!(other.unit_property("ActiveState"), "active");
        assert_eq!(other.status(), "running");
        other.delete_by_force().ok();
        dead.delete_by_force().ok();
        assert!(dead.remains().is_empty(), "{:?}", dead.remains());
    }
    call(systemctl(["stop", "spec-other.slice"]));
}

#[test]
fn what_a_dead_creator_had_started_is_deleted() {
    need!(root, systemd, cgroup_v2, strace);
    if under_test().flavor != Flavor::Tare {
        return;
    }
    // A slice does not end by itself.
    for name in ["spec-dead.slice", "dead"] {
        let path = format!("system.slice:spec:{name}");
        let mut dead = waiting().systemd("").linux(|l| l["cgroupsPath"] = json!(path)).container();
        // First and second are the record and the configuration; this is the record with the first process,
        // which has a unit by now.
        dead.create_killed_at("rename", 3);
        dead.delete_by_force().silent();
        assert!(dead.remains().is_empty(), "{:?}", dead.remains());
        let left = call(systemctl(["show", "--value", "--property", "ActiveState", "spec-dead.slice"])).ok();
        assert_eq!(left.stdout.trim(), "inactive");
    }
}

#[test]
fn an_ended_container_is_deleted_with_its_unit() {
    need!(root, systemd, cgroup_v2);
    let container = Bundle::new().systemd("system.slice").probe(["exit", "3"]).start();
    container.wait_for_status("stopped");
    container.delete().ok();
    assert!(container.remains().is_empty(), "{:?}", container.remains());
}

#[test]
fn what_the_kernel_killed_for_its_memory_leaves_no_failed_unit() {
    need!(root, systemd, cgroup_v2, controller("memory"));
    let container = Bundle::new()
        .systemd("system.slice")
        .linux(|l| l["resources"]["memory"] = json!({ "limit": 16 << 20, "swap": 16 << 20 }))
        .probe(["memory", "64"])
        .start();
    container.wait_for_status("stopped");
    container.delete().ok();
    assert!(container.remains().is_empty(), "{:?}", container.remains());
}

#[test]
fn twenty_at_once() {
    need!(root, systemd, cgroup_v2);
    std::thread::scope(|scope| {
        // runc needs more time than a call has here for so many on one processor.
        for _ in 0..if under_test().flavor == Flavor::Runc { 3 } else { 20 } {
            scope.spawn(|| {
                let container = waiting().systemd("spec-many.slice").start();
                assert_eq!(container.status(), "running");
                container.delete_by_force().ok();
                assert!(container.remains().is_empty(), "{:?}", container.remains());
            });
        }
    });
    call(systemctl(["stop", "spec-many.slice"]));
}

#[test]
fn without_systemd_it_is_refused() {
    need!(root);
    if Path::new("/run/systemd/system").exists() {
        spec_tests::need::skip("without_systemd_it_is_refused", "no_systemd", "it is there");
        return;
    }
    differs([crun("in its own words")], || {
        let output = waiting().systemd("system.slice").create_fails();
        output.says("systemd not running on this host, cannot use systemd cgroups manager");
    });
}

/// The container of `spec --rootless`, in which only this user's id is there.
fn of_the_user() -> Bundle {
    let (uid, gid) = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
    waiting().without_namespace("network").userns(uid, 1).systemd("").config(|c| {
        c["linux"]["gidMappings"] = json!([{ "containerID": 0, "hostID": gid, "size": 1 }]);
        c["linux"]["resources"] = json!({});
        for mount in c["mounts"].as_array_mut().unwrap() {
            match mount["destination"].as_str().unwrap() {
                // gid=5 has no mapping.
                "/dev/pts" => mount["options"].as_array_mut().unwrap().retain(|o| o != "gid=5"),
                "/sys" => {
                    *mount = json!({ "destination": "/sys", "type": "none", "source": "/sys",
                                     "options": ["rbind", "nosuid", "noexec", "nodev", "ro"] });
                }
                _ => {}
            }
        }
    })
}

#[test]
fn a_user_has_containers_with_limits_in_a_scope_of_his_own_manager() {
    need!(systemd_user, cgroup_v2);
    let container = of_the_user()
        .linux(|l| {
            l["resources"]["memory"] = json!({ "limit": 64 << 20 });
            l["resources"]["pids"] = json!({ "limit": 33 });
        })
        .start();
    let uid = nix::unistd::geteuid();
    let place = cgroup(&container);
    let manager = format!("/user.slice/user-{uid}.slice/user@{uid}.service/user.slice/");
    assert!(place.starts_with(&manager), "{place}");
    assert_properties(
        &container,
        &[("Slice", "user.slice"), ("MemoryMax", "67108864"), ("TasksMax", "33"), ("Delegate", "yes")],
    );
    let folder = folder(&container);
    assert_eq!(value(&folder, "memory.max"), "67108864");
    assert_eq!(value(&folder, "pids.max"), "33");
    container.exec(["facts"]).ok();
    container.delete_by_force().ok();
    eventually("the cgroup is gone", || !folder.exists());
    assert!(container.remains().is_empty(), "{:?}", container.remains());
}

#[test]
fn a_user_names_a_slice() {
    need!(systemd_user, cgroup_v2);
    let container = of_the_user().systemd("spec-mine.slice").start();
    assert!(cgroup(&container).contains("/spec.slice/spec-mine.slice/"), "{}", cgroup(&container));
}
