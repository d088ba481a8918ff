//! Rules that every plan keeps, and what the host is asked before any effect.

use std::path::Path;

use serde_json::{Value, json};

use super::step::Sync;
use super::{Options, Plan, Program, Step, build, exec};
use crate::cgroup::Driver;
use crate::config::id::ContainerId;
use crate::config::{Config, Process};
use crate::host::{CgroupLayout, Facts, Hierarchy};
use crate::privilege::Privilege;
use crate::seccomp::{Arch, compile};

fn facts() -> Facts {
    Facts {
        kernel: (6, 1),
        euid: 0,
        egid: 0,
        capabilities: (1 << 41) - 1,
        last_capability: 40,
        in_user_namespace: false,
        rootless: false,
        apparmor: false,
        selinux: false,
        cgroup: CgroupLayout {
            v1: Vec::new(),
            v2: Some(Hierarchy {
                controllers: vec!["memory".into()],
                mountpoint: "/cg".into(),
                mount_root: "/".into(),
                own: "/own".into(),
            }),
        },
        systemd_cgroup: None,
        newuidmap: None,
        newgidmap: None,
        setgroups_denied: false,
        full_mounts: Vec::new(),
    }
}

fn plan(facts: &Facts, change: impl FnOnce(&mut Value)) -> Result<Plan, String> {
    let mut document = json!({
        "ociVersion": "1.3.0",
        "process": { "args": ["sh"], "cwd": "/", "user": { "uid": 0, "gid": 0 } },
        "root": { "path": "rootfs" },
        "linux": { "namespaces": [{ "type": "mount" }, { "type": "pid" }] },
    });
    change(&mut document);
    let text = document.to_string();
    let config = Config::from_slice(text.as_bytes(), Path::new("config.json"), Path::new("/bundle"));
    let options = Options {
        bundle: "/bundle".into(),
        driver: Driver::Cgroupfs,
        no_pivot: false,
        no_new_keyring: false,
        preserve_fds: 0,
        env: Vec::new(),
    };
    let id = ContainerId::new("box").unwrap();
    build(&id, &config.unwrap(), facts, &options).map_err(|error| error.to_string())
}

fn position(plan: &Plan, wanted: impl Fn(&Step) -> bool) -> usize {
    plan.steps.iter().position(wanted).unwrap()
}

fn seccomp(document: &mut Value) {
    document["linux"]["seccomp"] = json!({ "defaultAction": "SCMP_ACT_ALLOW" });
}

#[test]
fn a_filter_comes_before_the_privilege_goes_or_as_late_as_it_can() {
    let is_filter = |step: &Step| matches!(step, Step::Seccomp(_));
    let privileged = plan(&facts(), seccomp).unwrap();
    let drop = position(&privileged, |step| matches!(step, Step::DropBounding(_)));
    assert_eq!(position(&privileged, is_filter) + 1, drop);

    let late = plan(&facts(), |document| {
        seccomp(document);
        document["process"]["noNewPrivileges"] = json!(true);
    });
    let late = late.unwrap();
    let ready = position(&late, |step| matches!(step, Step::Sync(Sync::Ready)));
    assert_eq!(position(&late, is_filter) + 1, ready);
    let promise = position(&late, |step| matches!(step, Step::NoNewPrivs));
    assert!(promise < ready);
}

#[test]
fn every_plan_begins_with_closed_doors_and_ends_with_the_program() {
    let namespaces = [json!([]), json!([{ "type": "mount" }]), json!([{ "type": "pid" }, { "type": "uts" }])];
    for namespaces in namespaces {
        let plan = plan(&facts(), |document| document["linux"]["namespaces"] = namespaces.clone()).unwrap();
        assert!(matches!(plan.steps[..2], [Step::Undumpable, Step::CloseFds { .. }]), "{namespaces}");
        assert!(matches!(plan.steps.last(), Some(Step::Exec)), "{namespaces}");
        let meetings: Vec<_> = plan
            .steps
            .iter()
            .filter_map(|step| match step {
                Step::Sync(sync) => Some(*sync),
                _ => None,
            })
            .collect();
        assert_eq!(meetings, [Sync::Go, Sync::Mounts, Sync::Ready], "{namespaces}");
        let ready = position(&plan, |step| matches!(step, Step::Sync(Sync::Ready)));
        // Whatever can fail has been tried while somebody listens.
        assert!(matches!(plan.steps[ready..], [_, Step::WaitForStart, Step::Exec]), "{namespaces}");
    }
}

#[test]
fn without_a_mount_namespace_nothing_is_mounted_and_the_root_is_a_folder() {
    let plan =
        plan(&facts(), |document| document["linux"]["namespaces"] = json!([{ "type": "pid" }])).unwrap();
    assert!(plan.trees.is_empty());
    let touches = |step: &Step| {
        matches!(
            step,
            Step::Mount(_) | Step::IsolateMounts { .. } | Step::AttachRoot | Step::Node(_) | Step::Pivot
        )
    };
    assert!(!plan.steps.iter().any(touches));
    assert_eq!(position(&plan, |s| matches!(s, Step::ChangeRoot(path) if *path == *c"/bundle/rootfs")), 7);
}

#[test]
fn what_would_change_the_hosts_mounts_is_refused() {
    for (pointer, value) in [
        ("/mounts", json!([{ "destination": "/m", "type": "tmpfs" }])),
        ("/linux/devices", json!([{ "path": "/dev/x", "type": "c", "major": 1, "minor": 3 }])),
        ("/linux/rootfsPropagation", json!("rslave")),
        ("/root/readonly", json!(true)),
    ] {
        let refused = plan(&facts(), |document| {
            document["linux"]["namespaces"] = json!([{ "type": "pid" }]);
            let (parent, key) = pointer.rsplit_once('/').unwrap();
            document.pointer_mut(parent).unwrap()[key] = value;
        });
        let expected =
            format!("config.json {pointer}: needs a mount namespace: it would change the host's mounts");
        assert_eq!(refused.err(), Some(expected));
    }
}

#[test]
fn a_host_that_cannot_do_it_is_told_apart_by_what_it_lacks() {
    let old = Facts { kernel: (5, 11), ..facts() };
    let too_old = "config.json: Linux 5.11 is too old: tare needs 5.12 (mount_setattr, openat2, clone3)";
    let user = Facts { euid: 1000, egid: 1000, capabilities: 0, rootless: true, ..facts() };
    let no_user = "config.json /linux/namespaces: an unprivileged user needs a user namespace \
                   (see `tare spec --rootless`)";
    for (facts, expected) in [
        (facts(), None),
        (Facts { kernel: (5, 12), ..facts() }, None),
        (old, Some(too_old)),
        (user, Some(no_user)),
    ] {
        assert_eq!(plan(&facts, |_| ()).err().as_deref(), expected);
    }
}

#[test]
fn groups_that_may_not_be_set_are_refused_and_groups_that_are_not_asked_for_are_kept() {
    let user = Facts { euid: 1000, egid: 1000, capabilities: 0, rootless: true, ..facts() };
    let rootless = |groups: Value| {
        plan(&user, |document| {
            document["process"]["user"]["additionalGids"] = groups;
            document["linux"]["namespaces"] = json!([{ "type": "mount" }, { "type": "user" }]);
            for map in ["uidMappings", "gidMappings"] {
                document["linux"][map] = json!([{ "containerID": 0, "hostID": 1000, "size": 1 }]);
            }
        })
    };
    let error = rootless(json!([5])).err().unwrap();
    let expected = "config.json /process/user/additionalGids: an unprivileged user without subordinate gids may not set groups";
    assert_eq!(error, expected);
    let plan = rootless(json!([])).unwrap();
    let description = plan.describe();
    assert!(description.parent.contains(&"deny setgroups".to_owned()));
    assert!(description.child.contains(&"keep groups, become 0:0".to_owned()));
    // Only when the id maps, whose files would be root's otherwise, are written.
    let go = position(&plan, |step| matches!(step, Step::Sync(Sync::Go)));
    assert!(matches!(plan.steps[go + 1], Step::Undumpable));
}

/// The steps of a process that joins, and whether it is born last.
fn joining(document: &Value, process: &Value, other_user_namespace: bool) -> (bool, Vec<String>) {
    let config =
        Config::from_slice(document.to_string().as_bytes(), Path::new("config.json"), Path::new("/"));
    let config = config.unwrap();
    let (process, _) = Process::from_slice(process.to_string().as_bytes(), Path::new("process")).unwrap();
    let filter = config.linux.seccomp.as_ref().map(|profile| compile(profile, Arch::X86_64).unwrap());
    let born_last = exec::is_born_last(&config, other_user_namespace, &process, filter.as_ref());
    let program = Program::new(&process.args, Vec::new());
    let privilege = Privilege::plan(&process.user, process.capabilities, 40, false);
    let steps = exec::steps(&exec::Input {
        id: &ContainerId::new("box").unwrap(),
        process: &process,
        labels: &[],
        filter: filter.as_ref(),
        privilege: &privilege,
        program: &program,
        preserve_fds: 0,
        undumpable_at_once: true,
        setup_ids: None,
        join_keyring: true,
        personality: None,
        born_last,
        change_root: None,
    });
    (born_last, steps.iter().map(ToString::to_string).collect())
}

fn container(capability: &str, pids: Value, profile: Value) -> Value {
    let set = json!([capability]);
    json!({
        "ociVersion": "1.3.0",
        "process": { "args": ["sh"], "cwd": "/", "user": { "uid": 0, "gid": 0 },
                     "capabilities": { "bounding": set, "permitted": set } },
        "root": { "path": "rootfs" },
        "linux": { "namespaces": [{ "type": "mount" }, pids], "seccomp": profile },
    })
}

#[test]
fn a_process_is_born_last_where_another_may_look_into_any() {
    let allow = || json!({ "defaultAction": "SCMP_ACT_ALLOW" });
    let own = || json!({ "type": "pid" });
    let without = |call: &str| {
        let rule = json!({ "names": [call], "action": "SCMP_ACT_ERRNO" });
        json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule] })
    };
    let notifying = json!({ "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/agent",
                            "syscalls": [{ "names": ["mkdir"], "action": "SCMP_ACT_NOTIFY" }] });
    let (trace, chown) = ("CAP_SYS_PTRACE", "CAP_CHOWN");
    let cases = [
        (container(trace, own(), allow()), false, true, true),
        (container(chown, own(), allow()), false, false, false),
        (container(chown, json!({ "type": "pid", "path": "/proc/7/ns/pid" }), allow()), false, true, true),
        // There, it is no capability over us.
        (container(trace, own(), allow()), true, false, false),
        // It is seen as long as we are.
        (container(trace, json!({ "type": "uts" }), allow()), false, false, false),
        (container(trace, own(), without("clone3")), false, true, true),
        // Loaded before the birth, unless there is no_new_privs.
        (container(trace, own(), without("clone")), false, false, true),
        (container(trace, own(), without("setsid")), false, false, true),
        (container(trace, own(), notifying), false, false, true),
    ];
    for (document, other_user_namespace, born_last, born_last_without_new_privileges) in cases {
        for (no_new_privileges, expected) in [(false, born_last), (true, born_last_without_new_privileges)] {
            let process = json!({ "args": ["sh"], "cwd": "/", "noNewPrivileges": no_new_privileges });
            let (is_born_last, _) = joining(&document, &process, other_user_namespace);
            assert_eq!(is_born_last, expected, "no_new_privs {no_new_privileges}: {document}");
        }
    }
}

#[test]
fn what_is_born_last_has_no_more_rights_than_its_program() {
    let plain = json!({ "defaultAction": "SCMP_ACT_ALLOW" });
    let notifying = json!({ "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/agent",
                            "syscalls": [{ "names": ["mkdir"], "action": "SCMP_ACT_NOTIFY" }] });
    let silent = json!({ "defaultAction": "SCMP_ACT_ALLOW",
                         "syscalls": [{ "names": ["chdir"], "action": "SCMP_ACT_ERRNO" }] });
    for (profile, no_new_privileges, before) in [
        (&plain, false, true),
        (&plain, true, true),
        // It is told a pid.
        (&notifying, true, false),
        (&silent, true, false),
    ] {
        let document = container("CAP_SYS_PTRACE", json!({ "type": "pid" }), profile.clone());
        let process =
            json!({ "args": ["/sh"], "cwd": "/", "noNewPrivileges": no_new_privileges, "terminal": true });
        let (_, steps) = joining(&document, &process, false);
        let birth = steps.iter().position(|step| step.starts_with("clone")).unwrap();
        let filter = steps.iter().position(|step| step.contains("seccomp filter")).unwrap();
        assert_eq!(filter < birth, before, "{steps:#?}");
        let behind: Vec<_> = steps[birth + 1..].iter().filter(|step| **step != steps[filter]).collect();
        assert_eq!(
            behind,
            [
                "wait until the runtime says go",
                "setsid",
                "make it the controlling terminal",
                "chdir to cwd \"/\" (inside the root)",
                "umask 0022",
                "find the program: /sh",
                "tell the runtime that only the program is left",
                "execve",
            ]
        );
        let capabilities = steps.iter().position(|step| step.starts_with("capabilities")).unwrap();
        let proc = steps.iter().position(|step| step == "close proc").unwrap();
        assert!(capabilities < birth && proc < birth, "{steps:#?}");
    }
}
