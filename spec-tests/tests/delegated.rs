//! Control groups that were delegated to an ordinary user: by systemd to the user's manager, or by hand. The tests
//! themselves run as the user, in a cgroup beside which they may make others.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

use spec_tests::{Bundle, Container, json, need};

/// The cgroup around our own, as the root of the hierarchy sees it.
fn above() -> PathBuf {
    let own = fs::read_to_string("/proc/self/cgroup").unwrap();
    let own = own.lines().find_map(|line| line.strip_prefix("0::")).unwrap();
    Path::new(own).parent().unwrap().to_owned()
}

/// `spec --rootless`: the user is root inside, and nothing of the host changes hands. The cgroup is beside ours.
fn rootless() -> Bundle {
    let (uid, gid) = (nix::unistd::getuid().as_raw(), nix::unistd::getgid().as_raw());
    let bundle = Bundle::new().without_namespace("network").namespace("user", None);
    let path = above().join(bundle.id());
    bundle.config(|c| {
        let linux = c["linux"].as_object_mut().unwrap();
        linux.insert("cgroupsPath".to_owned(), json!(path));
        linux.insert("uidMappings".to_owned(), json!([{ "containerID": 0, "hostID": uid, "size": 1 }]));
        linux.insert("gidMappings".to_owned(), json!([{ "containerID": 0, "hostID": gid, "size": 1 }]));
        linux.remove("resources");
        for mount in c["mounts"].as_array_mut().unwrap() {
            match mount["destination"].as_str().unwrap() {
                // gid=5 has no mapping.
                "/dev/pts" => mount["options"].as_array_mut().unwrap().retain(|o| o != "gid=5"),
                // A new sysfs belongs to a new network namespace.
                "/sys" => {
                    *mount = json!({ "destination": "/sys", "type": "none", "source": "/sys",
                                     "options": ["rbind", "nosuid", "noexec", "nodev", "ro"] });
                }
                _ => {}
            }
        }
        c["mounts"].as_array_mut().unwrap().retain(|m| m["type"] != "cgroup");
    })
}

fn value(container: &Container, file: &str) -> String {
    fs::read_to_string(container.cgroup("").join(file)).unwrap().trim().to_owned()
}

#[test]
fn the_limits_of_a_user_stand_in_the_users_cgroup() {
    need!(delegated_cgroup);
    let container = rootless()
        .linux(|l| {
            l["resources"] = json!({
                "memory": { "limit": 64 << 20, "reservation": 32 << 20 },
                "pids": { "limit": 16 },
                "cpu": { "shares": 512, "quota": 20_000, "period": 50_000 },
            });
        })
        .probe(["wait"])
        .start();
    for (file, expected) in [
        ("memory.max", "67108864"),
        ("memory.low", "33554432"),
        ("pids.max", "16"),
        ("cpu.max", "20000 50000"),
        ("cgroup.procs", container.pid().to_string().as_str()),
    ] {
        assert_eq!(value(&container, file), expected, "{file}");
    }
    container.delete_by_force().ok();
    assert!(!container.cgroup("").exists());
}

#[test]
fn a_process_of_exec_is_in_the_users_cgroup_too() {
    need!(delegated_cgroup);
    let container = rootless().probe(["wait"]).start();
    container.wait_for_stdout("ready");
    let facts = container.exec(["facts"]).ok().json();
    let seen = facts["cgroups"].as_array().unwrap();
    assert!(seen.contains(&json!("0::/")), "{seen:?}");
}

#[test]
fn a_container_of_a_user_is_paused_and_resumed() {
    need!(delegated_cgroup);
    let container = rootless().probe(["wait"]).start();
    container.call(["pause", container.id()]).ok();
    assert_eq!((container.status(), value(&container, "cgroup.freeze")), ("paused".into(), "1".into()));
    container.call(["resume", container.id()]).ok();
    assert_eq!((container.status(), value(&container, "cgroup.freeze")), ("running".into(), "0".into()));
}

#[test]
fn every_process_of_a_users_container_is_killed_with_it() {
    need!(delegated_cgroup);
    let container = rootless().probe(["wait"]).start();
    let below = container.cgroup("").join("below");
    fs::create_dir(&below).unwrap();
    fs::write(below.join("cgroup.procs"), container.pid().to_string()).unwrap();
    container.delete_by_force().ok();
    assert!(!below.exists());
}

/// Not even root's: nothing there may be written to.
#[test]
fn a_cgroup_of_somebody_else_is_refused() {
    need!(delegated_cgroup);
    let bundle = rootless();
    let path = format!("/not-ours-{}", bundle.id());
    let out = bundle.linux(|l| l["cgroupsPath"] = json!(path)).create_fails();
    out.says("ermission denied");
    assert!(!Path::new("/sys/fs/cgroup").join(path.trim_start_matches('/')).exists());
}

/// systemd hands users the controllers that its `Delegate=` names, and never this one.
#[test]
fn a_controller_that_is_not_handed_down_is_named_and_who_could_change_that() {
    need!(delegated_cgroup, controller("hugetlb"));
    let handed_down = fs::read_to_string(format!("/sys/fs/cgroup{}/cgroup.controllers", above().display()));
    assert!(!handed_down.unwrap().contains("hugetlb"), "this machine delegates more than it should");
    let limits = json!({ "hugepageLimits": [{ "pageSize": "2MB", "limit": 0 }] });
    let out = rootless().linux(|l| l["resources"] = limits).create_fails();
    out.clone().says("hugetlb.2MB.max").says("controller hugetlb is not available here: /sys/fs/cgroup");
    out.says("Delegate=cpu cpuset io memory pids").says("echo +hugetlb >/sys/fs/cgroup");
}
