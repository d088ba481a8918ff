//! config-linux.md, sysctl.
#![allow(clippy::unwrap_used)]

use std::fs;

use spec_tests::{Bundle, Value, crun, differs, differs_at_times, json, need, runc};

fn with(name: &str, value: &str) -> Bundle {
    let mut sysctl = json!({});
    sysctl[name] = json!(value);
    Bundle::new().linux(|l| l["sysctl"] = sysctl)
}

fn value(bundle: Bundle, file: &str) -> Value {
    bundle.probe(["try", "read", &format!("/proc/sys/{file}")]).run().ok().json()["ok"].clone()
}

fn host(file: &str) -> String {
    fs::read_to_string(format!("/proc/sys/{file}")).unwrap()
}

#[test]
fn parameters_of_the_containers_namespaces_are_set() {
    need!(root);
    for (name, text) in [
        ("net.ipv4.ip_unprivileged_port_start", "80"),
        ("net.ipv4.ping_group_range", "0\t10"),
        ("kernel.shm_rmid_forced", "1"),
        ("kernel.msgmax", "16384"),
        ("kernel.sem", "32001\t1024000001\t501\t32001"),
        ("fs.mqueue.msg_max", "20"),
    ] {
        let file = name.replace('.', "/");
        let before = host(&file);
        assert_eq!(value(with(name, text), &file), format!("{text}\n"), "{name}");
        assert_eq!(host(&file), before, "{name} of the host");
    }
}

#[test]
fn slashes_stand_for_dots() {
    need!(root);
    let bundle = with("net/ipv4/ip_unprivileged_port_start", "81");
    assert_eq!(value(bundle, "net/ipv4/ip_unprivileged_port_start"), "81\n");
}

#[test]
fn several_parameters_are_set_in_a_user_namespace() {
    need!(root, userns);
    let bundle = Bundle::new().userns(100_000, 65_536).linux(|l| {
        l["sysctl"] = json!({ "net.ipv4.ip_unprivileged_port_start": "82", "net.ipv4.ip_forward": "1" });
    });
    let out = bundle
        .probe([
            "try",
            "read",
            "/proc/sys/net/ipv4/ip_unprivileged_port_start",
            ",",
            "try",
            "read",
            "/proc/sys/net/ipv4/ip_forward",
        ])
        .run()
        .ok();
    assert_eq!(out.json_lines(), [json!({ "ok": "82\n" }), json!({ "ok": "1\n" })]);
}

#[test]
fn parameters_of_the_host_are_refused() {
    need!(root);
    let before = host("vm/swappiness");
    with("vm.swappiness", before.trim()).create_fails().says("vm.swappiness");
    with("kernel.pid_max", host("kernel/pid_max").trim()).create_fails();
    with("fs.file-max", host("fs/file-max").trim()).create_fails();
    assert_eq!(host("vm/swappiness"), before);
}

#[test]
fn parameters_of_a_namespace_that_is_the_hosts_are_refused() {
    need!(root);
    let port = "net/ipv4/ip_unprivileged_port_start";
    let before = host(port);
    with("net.ipv4.ip_unprivileged_port_start", before.trim()).without_namespace("network").create_fails();
    let mut bundle =
        with("kernel.shm_rmid_forced", host("kernel/shm_rmid_forced").trim()).without_namespace("ipc");
    bundle.config["mounts"].as_array_mut().unwrap().retain(|m| m["type"] != "mqueue");
    bundle.create_fails();
    differs([crun("sees that there is a path")], || {
        let path = format!("/proc/{}/ns/net", std::process::id());
        with("net.ipv4.ip_unprivileged_port_start", before.trim())
            .namespace("network", Some(&path))
            .create_fails();
    });
    assert_eq!(host(port), before);
}

#[test]
fn the_domain_name_is_of_the_uts_namespace() {
    need!(root);
    let before = host("kernel/domainname");
    assert_eq!(value(with("kernel.domainname", "a.domain"), "kernel/domainname"), "a.domain\n");
    assert_eq!(host("kernel/domainname"), before);
}

#[test]
fn a_hostname_by_sysctl_that_contradicts_is_refused() {
    need!(root);
    with("kernel.hostname", "other").create_fails();
}

#[test]
fn a_value_that_the_kernel_refuses_is_an_error() {
    need!(root);
    with("net.ipv4.ip_unprivileged_port_start", "nonsense").create_fails();
    with("net.ipv4.no_such_parameter", "1").create_fails().says("no_such_parameter");
}

#[test]
fn a_name_does_not_leave_proc_sys() {
    need!(root);
    for name in ["net/../kernel/pid_max", "net/../../self/oom_score_adj", "/net/ipv4/../../kernel/pid_max"] {
        with(name, host("kernel/pid_max").trim()).create_fails();
    }
}

const NO_NULL: &str = "does not start where the root's file system has no devices";

#[test]
fn a_parameter_is_set_without_a_mount_namespace_and_without_a_proc_of_its_own() {
    need!(root);
    differs_at_times([crun(NO_NULL)], in_every_way);
}

fn in_every_way() {
    let name = "net.ipv4.ip_unprivileged_port_start";
    let file = "/proc/sys/net/ipv4/ip_unprivileged_port_start";
    let read = |bundle: Bundle| bundle.probe(["try", "read", file]).run().ok().json();
    let mounts = |bundle: Bundle, mounts: Value| bundle.config(|c| c["mounts"] = mounts);
    // The host's, which shows each process the parameters of its own namespace.
    let proc = json!([{ "destination": "/proc", "type": "bind", "source": "/proc", "options": ["rbind"] }]);
    differs_at_times([runc(NO_NULL)], || {
        assert_eq!(read(mounts(with(name, "83"), proc))["ok"], "83\n");
    });
    // Nothing to read there: that it starts says that the parameter was written.
    differs([runc("writes to the container's /proc")], || {
        assert_eq!(read(mounts(with(name, "84"), json!([])))["errno"], "ENOENT");
    });
    differs([runc("writes to the container's /proc")], || {
        let bare = mounts(with(name, "85"), json!([])).without_namespace("mount").config(|c| {
            c["root"]["readonly"] = json!(false);
            for key in ["maskedPaths", "readonlyPaths"] {
                c["linux"].as_object_mut().unwrap().remove(key);
            }
        });
        assert_eq!(read(bare)["errno"], "ENOENT");
    });
}
