//! config-linux.md, namespaces: new, joined by path and inherited; time offsets, host and domain name, network.
#![allow(clippy::unwrap_used)]

use std::fs;

use spec_tests::namespaces::{self, Holder, KINDS, own};
use spec_tests::{
    Bundle, Container, Value, crun, crun_before, differs, differs_at_times, json, need, runc, runc_before,
    tare_not_yet,
};

const NO_TIME: &str = "knows no time namespace";
const NO_OFFSETS: &str = "does not set the offsets";

/// A bundle whose only namespace is that of mounts: no runtime works without.
fn only_mounts() -> Bundle {
    let mut bundle = Bundle::new().config(|c| {
        // The host's own names are to be kept, and sysfs and mqueue belong to namespaces.
        c.as_object_mut().unwrap().remove("hostname");
        c["linux"]["namespaces"] = json!([{ "type": "mount" }]);
    });
    bundle.config["mounts"].as_array_mut().unwrap().retain(|m| m["type"] != "mqueue");
    bundle
}

#[test]
fn a_namespace_without_a_path_is_new() {
    need!(root, userns);
    for (kind, file) in namespaces::here() {
        let body = || {
            let bundle = match kind {
                "mount" => only_mounts(),
                "user" => Bundle::new().userns(100_000, 65_536),
                _ => only_mounts().namespace(kind, None),
            };
            let facts = bundle.facts();
            let seen = facts["namespaces"][file].as_str().unwrap();
            assert!(seen.starts_with(file) && seen != own(file), "{kind}: {seen}");
        };
        if kind == "time" { differs([runc_before("1.2", NO_TIME)], body) } else { body() }
    }
}

#[test]
fn namespaces_that_are_not_listed_are_those_of_the_runtime() {
    need!(root);
    let facts = only_mounts().facts();
    for (kind, file) in namespaces::here() {
        if kind != "mount" {
            assert_eq!(facts["namespaces"][file], own(file), "{kind}");
        }
    }
    assert_ne!(facts["pid"], 1);
    assert_eq!(facts["hostname"], fs::read_to_string("/proc/sys/kernel/hostname").unwrap().trim());
}

#[test]
fn a_namespace_with_a_path_is_joined() {
    need!(root);
    let holder = Holder::new(["--net", "--ipc", "--uts", "--cgroup"]);
    for (kind, file) in KINDS.iter().filter(|(kind, _)| ["network", "ipc", "uts", "cgroup"].contains(kind)) {
        let path = holder.path(file);
        let facts = Bundle::new()
            .config(|c| {
                if *kind == "uts" {
                    c.as_object_mut().unwrap().remove("hostname");
                }
            })
            .namespace(kind, path.to_str())
            .facts();
        assert_eq!(facts["namespaces"][file], holder.link(file), "{kind}");
    }
}

#[test]
fn a_joined_namespace_outlives_the_container_unchanged() {
    need!(root);
    let holder = Holder::new(["--uts"]);
    let before = holder.link("uts");
    Bundle::new().namespace("uts", holder.path("uts").to_str()).run().ok();
    assert_eq!(holder.link("uts"), before);
}

#[test]
fn a_joined_time_namespace_has_its_offsets() {
    need!(root, timens);
    let holder = Holder::new(["--time", "--boottime", "1000000"]);
    differs([runc_before("1.2", NO_TIME), crun_before("1.9", "cannot join one")], || {
        let path = holder.path("time_for_children");
        let facts = Bundle::new().namespace("time", path.to_str()).facts();
        assert_eq!(facts["namespaces"]["time"], holder.link("time_for_children"));
        assert!(facts["clocks"]["boottime"].as_i64().unwrap() > 1_000_000, "{}", facts["clocks"]);
    });
}

/// A container that only waits, whose namespaces others join.
fn sandbox(bundle: Bundle) -> (Container, i32) {
    let container = bundle.probe(["wait"]).start();
    let pid = container.pid();
    (container, pid)
}

#[test]
fn the_namespaces_of_another_container_are_joined_as_in_a_pod() {
    need!(root);
    let (sandbox, pid) = sandbox(Bundle::new().config(|c| c["hostname"] = json!("pod")));
    let path = |file: &str| format!("/proc/{pid}/ns/{file}");
    let facts = Bundle::new()
        .config(|c| {
            c.as_object_mut().unwrap().remove("hostname");
        })
        .namespace("network", Some(&path("net")))
        .namespace("ipc", Some(&path("ipc")))
        .namespace("uts", Some(&path("uts")))
        .namespace("pid", Some(&path("pid")))
        .facts();
    for file in ["net", "ipc", "uts", "pid"] {
        let link = fs::read_link(path(file)).unwrap();
        assert_eq!(facts["namespaces"][file], json!(link), "{file}");
    }
    assert_ne!(facts["namespaces"]["mnt"], json!(fs::read_link(path("mnt")).unwrap()));
    assert_eq!(facts["hostname"], "pod");
    assert!(facts["pid"].as_i64().unwrap() > 1, "{}", facts["pid"]);
    drop(sandbox);
}

#[test]
fn a_user_namespace_and_those_that_it_owns_are_joined_together() {
    need!(root, userns);
    let (sandbox, pid) = sandbox(Bundle::new().userns(100_000, 65_536));
    let path = |file: &str| format!("/proc/{pid}/ns/{file}");
    differs([runc_before("1.1.11", "wants mappings also here")], || {
        let facts = Bundle::new()
            // For the owner of the rootfs.
            .userns(100_000, 65_536)
            .config(|c| {
                c.as_object_mut().unwrap().remove("hostname");
            })
            .linux(|l| {
                l.as_object_mut().unwrap().remove("uidMappings");
                l.as_object_mut().unwrap().remove("gidMappings");
            })
            .namespace("user", Some(&path("user")))
            .namespace("pid", Some(&path("pid")))
            .namespace("network", Some(&path("net")))
            .namespace("ipc", Some(&path("ipc")))
            .facts();
        for file in ["user", "net", "ipc", "pid"] {
            let link = fs::read_link(path(file)).unwrap();
            assert_eq!(facts["namespaces"][file], json!(link), "{file}");
        }
        assert_eq!(facts["uid_map"], json!([["0", "100000", "65536"]]));
        assert_eq!(facts["uid"][0], 0);
    });
    drop(sandbox);
}

#[test]
fn a_new_user_namespace_joins_a_network_of_the_host() {
    need!(root, userns);
    let holder = Holder::new(["--net"]);
    let mut bundle = Bundle::new().userns(100_000, 65_536).namespace("network", holder.path("net").to_str());
    // sysfs belongs to the owner of the network namespace, mount(2) gives EPERM.
    bundle.config["mounts"].as_array_mut().unwrap().retain(|m| m["type"] != "sysfs" && m["type"] != "cgroup");
    let facts = bundle.facts();
    assert_eq!(facts["namespaces"]["net"], holder.link("net"));
}

#[test]
fn a_new_user_namespace_maps_its_ids() {
    need!(root, userns);
    let facts = Bundle::new().userns(100_000, 1000).facts();
    assert_eq!(facts["uid_map"], json!([["0", "100000", "1000"]]));
    assert_eq!(facts["gid_map"], json!([["0", "100000", "1000"]]));
    assert_eq!(facts["uid"], json!([0, 0, 0, 0]));
    assert_eq!(facts["setgroups"], "allow");
}

#[test]
fn several_ranges_of_ids_can_be_mapped() {
    need!(root, userns);
    let map: Vec<Value> =
        (0..20).map(|n| json!({ "containerID": n * 10, "hostID": 100_000 + n * 1000, "size": 10 })).collect();
    let facts = Bundle::new()
        .userns(100_000, 10)
        .linux(|l| {
            l["uidMappings"] = json!(map);
            l["gidMappings"] = json!(map);
        })
        .process(|p| p["user"] = json!({ "uid": 155, "gid": 166 }))
        .facts();
    assert_eq!(facts["uid_map"].as_array().unwrap().len(), 20);
    assert_eq!(facts["uid_map"][19], json!(["190", "119000", "10"]));
    assert_eq!((&facts["uid"][0], &facts["gid"][0]), (&json!(155), &json!(166)));
}

#[test]
fn an_id_that_is_not_mapped_is_refused() {
    need!(root, userns);
    Bundle::new().userns(100_000, 1000).process(|p| p["user"]["uid"] = json!(1000)).create_fails();
}

#[test]
fn a_user_namespace_without_mappings_or_mappings_without_one_are_refused() {
    need!(root, userns);
    Bundle::new().namespace("user", None).create_fails();
    let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 10 }]);
    differs([runc("ignores them"), crun("ignores them")], || {
        Bundle::new().linux(|l| l["uidMappings"] = map).create_fails();
    });
}

#[test]
fn overlapping_mappings_are_refused() {
    need!(root, userns);
    let map = json!([
        { "containerID": 0, "hostID": 100_000, "size": 10 },
        { "containerID": 5, "hostID": 200_000, "size": 10 },
    ]);
    differs_at_times([runc("leaves the cgroup, which its first process has not left yet")], || {
        Bundle::new()
            .userns(100_000, 10)
            .linux(|l| {
                l["uidMappings"] = map.clone();
                l["gidMappings"] = map;
            })
            .create_fails();
    });
}

// Time.

fn with_offsets(bundle: Bundle, monotonic: i64, boottime: i64) -> Bundle {
    bundle.namespace("time", None).linux(|l| {
        l["timeOffsets"] = json!({
            "monotonic": { "secs": monotonic, "nanosecs": 0 },
            "boottime": { "secs": boottime, "nanosecs": 500_000_000 },
        });
    })
}

fn check_offsets(facts: &Value, monotonic: i64, boottime: i64) {
    use nix::time::{ClockId, clock_gettime};
    let offsets = &facts["timens_offsets"];
    assert_eq!(offsets[0], json!(["monotonic", monotonic.to_string(), "0"]));
    assert_eq!(offsets[1], json!(["boottime", boottime.to_string(), "500000000"]));
    let host = clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap().tv_sec();
    let seen = facts["clocks"]["monotonic"].as_i64().unwrap();
    assert!((seen - host - monotonic).abs() < 60, "{seen} on a host at {host}");
    let host = clock_gettime(ClockId::CLOCK_BOOTTIME).unwrap().tv_sec();
    let seen = facts["clocks"]["boottime"].as_i64().unwrap();
    assert!((seen - host - boottime).abs() < 60, "{seen} on a host at {host}");
}

#[test]
fn the_clocks_of_a_time_namespace_have_their_offsets() {
    need!(root, timens);
    differs([runc_before("1.2", NO_TIME), crun_before("1.9", NO_OFFSETS)], || {
        check_offsets(&with_offsets(Bundle::new(), 100_000, 7_000_000).facts(), 100_000, 7_000_000);
    });
}

#[test]
fn a_new_user_namespace_can_have_time_offsets() {
    need!(root, userns, timens);
    differs([runc_before("1.2", NO_TIME), crun_before("1.9", NO_OFFSETS)], || {
        let bundle = with_offsets(Bundle::new().userns(100_000, 1000), 5000, 6000);
        check_offsets(&bundle.facts(), 5000, 6000);
    });
}

#[test]
fn time_offsets_need_a_time_namespace() {
    need!(root);
    differs([runc_before("1.2", NO_TIME), crun_before("1.21", "ignores them")], || {
        Bundle::new()
            .linux(|l| l["timeOffsets"] = json!({ "monotonic": { "secs": 1, "nanosecs": 0 } }))
            .create_fails();
    });
}

#[test]
fn a_process_of_exec_has_the_clocks_of_the_container() {
    need!(root, timens);
    differs([runc_before("1.2", NO_TIME), crun_before("1.9", NO_OFFSETS)], || {
        let container = with_offsets(Bundle::new(), 100_000, 7_000_000).probe(["wait"]).start();
        check_offsets(&container.exec(["facts"]).ok().json(), 100_000, 7_000_000);
    });
}

// Cgroup.

#[test]
fn the_root_of_a_cgroup_namespace_is_the_containers_cgroup() {
    need!(root);
    let bundle = Bundle::new().namespace("cgroup", None).probe(["facts", ",", "wait"]);
    let container = bundle.start();
    container.wait_for_stdout("ready");
    let created: Value = serde_json::from_str(container.stdout().lines().next().unwrap()).unwrap();
    let executed = container.exec(["facts"]).ok().json();
    for facts in [created, executed] {
        for line in facts["cgroups"].as_array().unwrap() {
            let line = line.as_str().unwrap();
            // On a hybrid host runc leaves the unified hierarchy alone.
            if !line.starts_with("0::") || spec_tests::need::cgroup_v2().is_ok() {
                assert!(line.ends_with(":/"), "{line}");
            }
        }
    }
}

#[test]
fn without_a_cgroup_namespace_the_hosts_paths_are_seen() {
    need!(root);
    let bundle = Bundle::new().without_namespace("cgroup");
    let id = bundle.id().to_owned();
    let facts = bundle.facts();
    assert!(facts["cgroups"].to_string().contains(&id), "{}", facts["cgroups"]);
}

// Network.

#[test]
fn the_loopback_of_a_new_network_is_up() {
    need!(root);
    let out = Bundle::new().probe(["try", "read", "/sys/class/net/lo/flags", ",", "facts"]).run().ok();
    let lines = out.json_lines();
    // IFF_UP and IFF_LOOPBACK.
    assert_eq!(lines[0], json!({ "ok": "0x9\n" }));
    assert_eq!(lines[1]["interfaces"].as_array().unwrap().iter().filter(|i| *i == "lo").count(), 1);
}

#[test]
fn the_loopback_is_up_in_a_user_namespace_too() {
    need!(root, userns);
    let bundle = Bundle::new().userns(100_000, 1000).probe(["try", "read", "/sys/class/net/lo/flags"]);
    assert_eq!(bundle.run().ok().json(), json!({ "ok": "0x9\n" }));
}

#[test]
fn a_joined_network_is_left_as_it_is() {
    need!(root);
    let holder = Holder::new(["--net"]);
    let out = Bundle::new()
        .namespace("network", holder.path("net").to_str())
        .probe(["try", "read", "/sys/class/net/lo/flags"])
        .run()
        .ok();
    assert_eq!(out.json(), json!({ "ok": "0x8\n" }));
}

// Host and domain name.

#[test]
fn host_and_domain_name_are_set() {
    need!(root);
    let facts = Bundle::new().config(|c| c["hostname"] = json!("a-host.of.mine")).facts();
    assert_eq!(facts["hostname"], "a-host.of.mine");
    differs([runc_before("1.2", "knows no domainname")], || {
        let facts = Bundle::new().config(|c| c["domainname"] = json!("a.domain")).facts();
        assert_eq!((&facts["hostname"], &facts["domainname"]), (&json!("spec"), &json!("a.domain")));
    });
}

#[test]
fn host_and_domain_name_are_set_in_a_user_namespace() {
    need!(root, userns);
    let facts = Bundle::new().userns(100_000, 1000).facts();
    assert_eq!(facts["hostname"], "spec");
}

#[test]
fn host_and_domain_name_need_an_uts_namespace() {
    need!(root);
    let before = own("uts");
    Bundle::new().without_namespace("uts").create_fails();
    differs([runc_before("1.2", "knows no domainname")], || {
        Bundle::new()
            .without_namespace("uts")
            .config(|c| {
                c.as_object_mut().unwrap().remove("hostname");
                c["domainname"] = json!("of-the-host");
            })
            .create_fails();
    });
    assert_eq!(own("uts"), before);
    assert!(!fs::read_to_string("/proc/sys/kernel/domainname").unwrap().contains("of-the-host"));
}

#[test]
fn a_hostname_that_is_too_long_is_an_error() {
    need!(root);
    Bundle::new().config(|c| c["hostname"] = json!("h".repeat(65))).create_fails();
    let longest = "h".repeat(64);
    assert_eq!(Bundle::new().config(|c| c["hostname"] = json!(longest)).facts()["hostname"], longest);
}

// What is refused.

#[test]
fn a_path_that_is_missing_relative_or_of_another_kind_is_refused() {
    need!(root);
    let holder = Holder::new(["--net", "--ipc"]);
    let relative = format!("../..{}", holder.path("net").display());
    let other = holder.path("ipc").display().to_string();
    for path in ["/no/such/namespace", "/etc/passwd", &other, &relative] {
        Bundle::new().namespace("network", Some(path)).create_fails();
    }
}

#[test]
fn a_namespace_that_is_the_runtimes_own_may_be_joined_by_path() {
    need!(root);
    let path = format!("/proc/{}/ns/net", std::process::id());
    let facts = Bundle::new().namespace("network", Some(&path)).facts();
    assert_eq!(facts["namespaces"]["net"], own("net"));
}

// Network devices.

/// One end of a pair of interfaces on the host; dropping it takes both away, wherever the other is.
struct Pair {
    kept: String,
    moved: String,
}

impl Pair {
    fn new(tag: &str) -> Option<Self> {
        let unique = std::process::id() % 100_000;
        let (kept, moved) = (format!("k{tag}{unique}"), format!("m{tag}{unique}"));
        let status = std::process::Command::new("ip")
            .args(["link", "add", &kept, "type", "veth", "peer", "name", &moved])
            .stderr(std::process::Stdio::null())
            .status();
        status.is_ok_and(|s| s.success()).then_some(Pair { kept, moved })
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        // Already gone when the other end's namespace ended first.
        std::process::Command::new("ip").args(["link", "del", &self.kept]).status().expect("ip");
    }
}

const NO_DEVICES: &str = "knows no netDevices";

#[test]
fn network_devices_are_moved_and_renamed() {
    need!(root);
    let Some(pair) = Pair::new("a") else {
        spec_tests::need::skip("network_devices_are_moved_and_renamed", "veth", "ip link add failed");
        return;
    };
    differs([runc_before("1.4", NO_DEVICES), crun(NO_DEVICES), tare_not_yet(NO_DEVICES)], || {
        let mut devices = json!({});
        devices[pair.moved.as_str()] = json!({ "name": "ctr0" });
        let facts = Bundle::new().linux(|l| l["netDevices"] = devices).facts();
        assert!(facts["interfaces"].as_array().unwrap().contains(&json!("ctr0")), "{}", facts["interfaces"]);
    });
}

#[test]
fn a_network_device_that_is_missing_is_an_error() {
    need!(root);
    differs([runc_before("1.4", NO_DEVICES), crun(NO_DEVICES), tare_not_yet(NO_DEVICES)], || {
        Bundle::new()
            .linux(|l| l["netDevices"] = json!({ "nosuchdev0": {} }))
            .create_fails()
            .says("nosuchdev0");
    });
}
