//! What mounts become, as the words of `describe`: those that the parent opens, the child's steps in
//! order, and what is read-only only late.

use std::path::Path;

use serde_json::{Value, json};

use super::{CgroupMounts, Input, Mounts, Shown, plan, root_tree};
use crate::config::Config;
use crate::error::Problem;
use crate::rootfs::{MountStep, options};
use crate::sys::slots;

const FIRST: usize = 20;

fn config(mounts: Value, linux: Value) -> Config {
    let document = json!({
        "ociVersion": "1.3.0",
        "process": { "args": ["sh"], "cwd": "/", "user": { "uid": 0, "gid": 0 } },
        "root": { "path": "rootfs" },
        "mounts": mounts,
        "linux": linux,
    });
    let text = document.to_string();
    Config::from_slice(text.as_bytes(), Path::new("config.json"), Path::new("/bundle")).unwrap()
}

fn own_mounts() -> Value {
    json!({ "namespaces": [{ "type": "mount" }, { "type": "network" }, { "type": "pid" }, { "type": "ipc" }] })
}

fn rootless() -> Value {
    json!({
        "namespaces": [{ "type": "mount" }, { "type": "user" }],
        "uidMappings": [{ "containerID": 0, "hostID": 1000, "size": 1 }],
        "gidMappings": [{ "containerID": 0, "hostID": 1000, "size": 1 }],
    })
}

fn planned(config: &Config, privileged: bool, cgroups: &CgroupMounts) -> Result<Mounts, Vec<Problem>> {
    plan(&Input {
        config,
        bundle: Path::new("/bundle"),
        privileged,
        cgroups,
        first_slot: FIRST,
        kernel: (6, 6),
    })
}

fn mounts(mounts: Value, linux: Value, privileged: bool) -> Mounts {
    planned(&config(mounts, linux), privileged, &CgroupMounts::default()).unwrap()
}

fn words(steps: &[MountStep]) -> Vec<String> {
    steps.iter().map(MountStep::to_string).collect()
}

fn trees(mounts: &Mounts) -> Vec<String> {
    mounts.trees.iter().map(|(_, tree)| tree.to_string()).collect()
}

fn problems(mount: Value, linux: Value, privileged: bool) -> Vec<String> {
    let config = config(json!([mount]), linux);
    let problems = planned(&config, privileged, &CgroupMounts::default()).unwrap_err();
    problems.into_iter().map(|p| format!("{} {}", p.pointer, p.what)).collect()
}

/// What one word does to a bind mount, after the propagation that every one has.
const BIND: &[(&str, &str)] = &[
    ("atime", " relatime"),
    ("dev", " dev"),
    ("diratime", " diratime"),
    ("exec", " exec"),
    ("noatime", " noatime"),
    ("nodev", " nodev"),
    ("nodiratime", " nodiratime"),
    ("noexec", " noexec"),
    ("norelatime", " strictatime"),
    ("nostrictatime", " relatime"),
    ("nosuid", " nosuid"),
    ("nosymfollow", " nosymfollow"),
    ("ratime", " recursively relatime"),
    ("rdev", " recursively dev"),
    ("rdiratime", " recursively diratime"),
    ("relatime", " relatime"),
    ("rexec", " recursively exec"),
    ("rnoatime", " recursively noatime"),
    ("rnodev", " recursively nodev"),
    ("rnodiratime", " recursively nodiratime"),
    ("rnoexec", " recursively noexec"),
    ("rnorelatime", " recursively strictatime"),
    ("rnostrictatime", " recursively relatime"),
    ("rnosuid", " recursively nosuid"),
    ("rnosymfollow", " recursively nosymfollow"),
    ("ro", " ro"),
    ("rrelatime", " recursively relatime"),
    ("rro", " recursively ro"),
    ("rrw", " recursively rw"),
    ("rstrictatime", " recursively strictatime"),
    ("rsuid", " recursively suid"),
    ("rsymfollow", " recursively symfollow"),
    ("rw", " rw"),
    ("strictatime", " strictatime"),
    ("suid", " suid"),
    ("symfollow", " symfollow"),
    ("defaults", ""),
    ("loud", ""),
    ("silent", ""),
];

/// Words with tests of their own.
const OTHERS: &[&str] = &[
    "bind",
    "rbind",
    "private",
    "rprivate",
    "slave",
    "rslave",
    "shared",
    "rshared",
    "unbindable",
    "runbindable",
    "idmap",
    "ridmap",
    "remount",
    "tmpcopyup",
    "src-nofollow",
    "dest-nofollow",
];

/// Flags of the file system, which go to `fsconfig(2)`.
const SUPERBLOCK: &[&str] = &[
    "acl",
    "async",
    "dirsync",
    "iversion",
    "lazytime",
    "mand",
    "noacl",
    "noiversion",
    "nolazytime",
    "nomand",
    "sync",
];

#[test]
fn each_flag_changes_the_tree_before_it_is_attached() {
    for (word, change) in BIND {
        let mount = json!({ "destination": "/m", "source": "/h", "options": ["bind", word] });
        let found = mounts(json!([mount]), own_mounts(), true);
        let comma = if change.is_empty() { "" } else { "," };
        assert_eq!(trees(&found), [format!("/h recursively slave{comma}{change}")], "{word}");
        assert_eq!(words(&found.steps), ["attach /h on /m"], "{word}");
    }
}

#[test]
fn each_flag_of_a_file_system_goes_to_the_file_system() {
    for word in SUPERBLOCK {
        let mount = json!({ "destination": "/m", "type": "ext4", "source": "/dev/sdb", "options": [word] });
        let found = mounts(json!([mount]), own_mounts(), true);
        assert_eq!(words(&found.steps), [format!("mount ext4 on /m {word}")]);
    }
}

#[test]
fn there_is_a_test_for_each_word() {
    for word in options::names() {
        let known =
            BIND.iter().any(|(w, _)| *w == word) || OTHERS.contains(&word) || SUPERBLOCK.contains(&word);
        assert!(known, "{word}");
    }
}

#[test]
fn of_words_that_contradict_each_other_the_last_counts() {
    for (options, expected) in [
        (&["bind", "ro", "rw"][..], "/h recursively slave, rw"),
        (&["bind", "rw", "ro"], "/h recursively slave, ro"),
        (&["bind", "noatime", "strictatime"], "/h recursively slave, strictatime"),
        (&["bind", "rro", "rrw", "nosuid"], "/h recursively slave, nosuid, recursively rw"),
        (&["bind", "rbind"], "/h and all below recursively slave"),
        (&["rbind", "bind"], "/h recursively slave"),
        (&["bind", "rprivate", "shared"], "/h recursively slave, shared"),
        // A plain flag and the recursive one are two wishes, not a contradiction.
        (&["rbind", "ro", "rrw"], "/h and all below recursively slave, ro, recursively rw"),
    ] {
        let mount = json!({ "destination": "/m", "source": "/h", "options": options });
        assert_eq!(trees(&mounts(json!([mount]), own_mounts(), true)), [expected], "{options:?}");
    }
}

#[test]
fn propagation_of_a_bind_follows_what_the_root_has() {
    // rootfsPropagation, the mount's words, and what is done to the tree in this order.
    for (root, options, expected) in [
        (None, &["bind"][..], "/h recursively slave"),
        (None, &["rbind"], "/h and all below recursively slave"),
        (None, &["bind", "private"], "/h private"),
        (None, &["rbind", "private"], "/h and all below recursively slave, private"),
        (None, &["rbind", "rprivate"], "/h and all below recursively private"),
        (None, &["rbind", "rslave"], "/h and all below recursively slave"),
        (None, &["rbind", "slave"], "/h and all below recursively slave, slave"),
        (None, &["rbind", "rshared"], "/h and all below recursively slave, recursively shared"),
        (None, &["bind", "unbindable"], "/h recursively slave, unbindable"),
        (Some("private"), &["rbind"], "/h and all below recursively private"),
        (Some("rprivate"), &["rbind", "rshared"], "/h and all below recursively private, recursively shared"),
        (Some("slave"), &["rbind"], "/h and all below slave"),
        (Some("rslave"), &["rbind", "rslave"], "/h and all below recursively slave"),
        // Only here a mount in the container may appear on the host: that is what was asked for.
        (Some("shared"), &["rbind"], "/h and all below"),
        (Some("rshared"), &["rbind", "rshared"], "/h and all below recursively shared"),
        (Some("rshared"), &["rbind", "rslave"], "/h and all below recursively slave"),
        // Could not be attached if it were unbindable already.
        (Some("unbindable"), &["bind"], "/h recursively private"),
    ] {
        let mut linux = own_mounts();
        linux["rootfsPropagation"] = json!(root);
        let mount = json!({ "destination": "/m", "source": "/h", "options": options });
        assert_eq!(trees(&mounts(json!([mount]), linux, true)), [expected], "{root:?} {options:?}");
    }
}

#[test]
fn the_root_is_always_private_and_what_is_below_as_it_was_asked() {
    for (root, expected) in [
        (None, "/r and all below (not followed) recursively slave, private"),
        (Some("rprivate"), "/r and all below (not followed) recursively private, private"),
        (Some("slave"), "/r and all below (not followed) slave, private"),
        (Some("rshared"), "/r and all below (not followed) private"),
        (Some("runbindable"), "/r and all below (not followed) recursively private, private"),
    ] {
        let mut linux = own_mounts();
        linux["rootfsPropagation"] = json!(root);
        assert_eq!(root_tree(&config(json!([]), linux), c"/r".into()).to_string(), expected, "{root:?}");
    }
}

#[test]
fn a_new_file_system_has_flags_data_and_its_own_propagation() {
    for (kind, options, expected) in [
        (
            "tmpfs",
            &["nosuid", "strictatime", "mode=755"][..],
            "mount tmpfs on /m nosuid strictatime mode=755",
        ),
        ("tmpfs", &["rnoexec", "rw", "suid"], "mount tmpfs on /m noexec"),
        (
            "tmpfs",
            &["tmpcopyup", "rslave"],
            "mount tmpfs on /m recursively slave with a copy of what it covers",
        ),
        ("ext4", &["ro", "data=ordered"], "mount ext4 on /m ro ro data=ordered"),
        ("mqueue", &["ro"], "mount mqueue on /m ro"),
        (
            "proc",
            &["hidepid=2", "subset=pid"],
            "mount proc on /m (through no symbolic link) hidepid=2 subset=pid",
        ),
        ("sysfs", &["ro"], "mount sysfs on /m (through no symbolic link) ro"),
        // Its superblock is the host's: were that read-only, the host's /dev would be.
        ("devtmpfs", &["ro"], "mount devtmpfs on /m ro"),
        // One option with commas is as many as mount(8) would see; an escaped comma is none.
        (
            "overlay",
            &["lowerdir=/a:/b\\,c,index=off", ""],
            "mount overlay on /m lowerdir=/a:/b\\,c index=off",
        ),
    ] {
        let source = if kind == "ext4" { "/dev/sda1" } else { "s" };
        let mount = json!({ "destination": "/m", "type": kind, "source": source, "options": options });
        let found = mounts(json!([mount]), own_mounts(), true);
        assert_eq!(words(&found.steps), [expected]);
        assert_eq!(found.trees, []);
    }
}

#[test]
fn what_is_still_written_to_is_made_read_only_late() {
    for (kind, destination, late) in [
        ("tmpfs", "/m", &["change /m: ro"][..]),
        ("tmpfs", "/dev", &["change /dev: ro"]),
        ("ext4", "/m", &[]),
    ] {
        let mount = json!({ "destination": destination, "type": kind, "options": ["ro", "nosuid"] });
        let found = mounts(json!([mount]), own_mounts(), true);
        assert_eq!(words(&found.late), late, "{kind}");
        let now = words(&found.steps)[0].contains(" ro");
        assert_eq!(now, late.is_empty(), "{kind}: read-only once, at one time");
    }
}

#[test]
fn a_value_that_fsconfig_cannot_take_goes_by_mount() {
    let layers = |length: usize| format!("lowerdir={}", "l".repeat(length));
    for (length, long) in [(255, false), (256, true)] {
        let option = layers(length);
        let mount = json!({ "destination": "/m", "type": "overlay", "options": ["ro", "xino=off", option] });
        let found = mounts(json!([mount]), own_mounts(), true);
        let MountStep::New(new) = &found.steps[0] else { panic!("{:?}", found.steps) };
        let data = new.long_data.as_ref().map(|data| data.to_str().unwrap().to_owned());
        assert_eq!(data, long.then(|| format!("xino=off,{}", layers(length))));
        assert_eq!(words(&found.steps)[0].ends_with("(by mount(2))"), long);
    }
}

#[test]
fn mounts_are_done_in_the_order_of_the_document() {
    let list = json!([
        { "destination": "/a", "type": "tmpfs" },
        { "destination": "/a/b", "type": "bind", "source": "relative/path" },
        { "destination": "/a", "type": "none", "options": ["remount", "ro", "rslave"] },
        { "destination": "/c", "type": "none", "source": "/h", "options": ["rbind", "src-nofollow", "dest-nofollow"] },
    ]);
    let found = mounts(list, own_mounts(), true);
    let steps =
        ["mount tmpfs on /a", "attach /bundle/relative/path on /a/b", "change /a: ro, recursively slave"];
    assert_eq!(words(&found.steps)[..3], steps);
    assert_eq!(words(&found.steps)[3], "attach /h on /c (not followed)");
    assert_eq!(
        trees(&found),
        ["/bundle/relative/path recursively slave", "/h and all below (not followed) recursively slave"]
    );
    let slots: Vec<_> = found.trees.iter().map(|(slot, _)| *slot).collect();
    assert_eq!(slots, [FIRST, FIRST + 1]);
}

#[test]
fn a_dev_of_the_host_is_left_alone() {
    for (mount, bound) in [
        (json!({ "destination": "/dev", "type": "bind", "source": "/dev" }), true),
        (json!({ "destination": "/dev", "source": "/dev", "options": ["rbind"] }), true),
        (json!({ "destination": "/dev", "type": "tmpfs" }), false),
        (json!({ "destination": "/dev/shm", "type": "bind", "source": "/dev/shm" }), false),
    ] {
        assert_eq!(mounts(json!([mount]), own_mounts(), true).dev_is_bound, bound, "{mount}");
    }
}

#[test]
fn only_harmless_files_of_proc_may_be_covered() {
    for (destination, allowed) in [
        ("/proc/uptime", true),
        ("/proc/sys/kernel/ns_last_pid", true),
        ("/proc/sys", false),
        ("/proc/self", false),
    ] {
        let mount = json!({ "destination": destination, "type": "bind", "source": "/h" });
        let found = mounts(json!([mount]), own_mounts(), true);
        let MountStep::Attach { target, .. } = &found.steps[0] else { panic!("{:?}", found.steps) };
        assert_eq!(target.rule == super::Rule::KnownProcFile, allowed, "{destination}");
    }
}

#[test]
fn on_proc_itself_is_proc_or_a_bind_mount_of_one() {
    let bound = json!({ "destination": "/proc", "type": "bind", "source": "/proc" });
    let found = mounts(json!([bound]), own_mounts(), true);
    let MountStep::Attach { target, .. } = &found.steps[0] else { panic!("{:?}", found.steps) };
    assert_eq!(target.rule, super::Rule::ProcAlone);
    for (destination, kind) in
        [("/proc", "tmpfs"), ("//proc/.", "overlay"), ("proc/", "cgroup"), ("/a/../proc", "tmpfs")]
    {
        let mount = json!({ "destination": destination, "type": kind, "source": "x" });
        let found = problems(mount, own_mounts(), true);
        assert_eq!(found, ["/mounts/0/type must be proc: nothing else is mounted on /proc"]);
    }
}

#[test]
fn the_proc_that_later_steps_write_through_is_the_one_at_its_place() {
    for (destination, kept) in [("/proc", Some(slots::PROC)), ("/other", None)] {
        let mount = json!({ "destination": destination, "type": "proc" });
        let found = mounts(json!([mount]), own_mounts(), true);
        let MountStep::New(new) = &found.steps[0] else { panic!("{:?}", found.steps) };
        assert_eq!(new.keep, kept);
    }
}

#[test]
fn the_label_of_mounts_is_given_to_those_that_take_one() {
    let label = "u:object_r:t:s0:c1,c2";
    let mut config = own_mounts();
    config["mountLabel"] = json!(label);
    let tmpfs = |option: &str| json!({ "type": "tmpfs", "options": ["size=1", option] });
    let long = format!("lowerdir={}", "l".repeat(300));
    for (mount, expected) in [
        (tmpfs("rw"), " size=1 context=u:object_r:t:s0:c1,c2"),
        (json!({ "type": "devpts" }), " context=u:object_r:t:s0:c1,c2"),
        (json!({ "type": "mqueue" }), " labelled u:object_r:t:s0:c1,c2"),
        (json!({ "type": "proc" }), " (through no symbolic link)"),
        (json!({ "type": "sysfs" }), " (through no symbolic link)"),
        // Its own word counts, with or without the quotes of mount(8).
        (tmpfs("context=\"a:b:c:d:e,f\""), " size=1 context=a:b:c:d:e,f"),
        (tmpfs("rootcontext=a:b:c:d"), " size=1 rootcontext=a:b:c:d"),
    ] {
        let mut mount = mount;
        mount["destination"] = json!("/m");
        let found = mounts(json!([mount]), config.clone(), true);
        let kind = mount["type"].as_str().unwrap();
        assert_eq!(words(&found.steps), [format!("mount {kind} on /m{expected}")]);
    }
    let overlay = json!([{ "destination": "/m", "type": "overlay", "options": [long] }]);
    let found = mounts(overlay, config.clone(), true);
    let MountStep::New(new) = &found.steps[0] else { panic!("{:?}", found.steps) };
    let data = new.long_data.as_ref().unwrap().to_str().unwrap();
    assert!(data.ends_with(",context=\"u:object_r:t:s0:c1,c2\""), "{data}");
    let bind = json!([{ "destination": "/m", "source": "/h", "options": ["bind"] }]);
    let found = mounts(bind, config, true);
    assert_eq!(words(&found.steps), ["attach /h on /m"]);
}

#[test]
fn without_privilege_the_child_opens_trees_itself() {
    let list = json!([{ "destination": "/m", "source": "/h", "options": ["rbind", "ro"] }]);
    let found = mounts(list, rootless(), false);
    assert_eq!(trees(&found), [""; 0]);
    assert_eq!(words(&found.steps), ["bind /h and all below recursively slave, ro on /m"]);
}

#[test]
fn what_a_user_namespace_may_not_mount_anew_has_the_hosts_instead() {
    // The namespaces of network, processes and messages are the host's here.
    for (kind, fallback) in [
        ("sysfs", Some("/sys and all below recursively nosuid")),
        ("proc", Some("/proc and all below recursively nosuid")),
        ("mqueue", Some("/dev/mqueue and all below recursively nosuid")),
        ("tmpfs", None),
    ] {
        let list = json!([{ "destination": "/m", "type": kind, "options": ["nosuid"] }]);
        let suffix =
            fallback.map(|f| format!(" (or, where that is forbidden, bind {f})")).unwrap_or_default();
        let rule = if ["sysfs", "proc"].contains(&kind) { " (through no symbolic link)" } else { "" };
        let expected = format!("mount {kind} on /m{rule} nosuid{suffix}");
        assert_eq!(words(&mounts(list.clone(), rootless(), false).steps), [expected]);
        // Root of the host may mount all of them; and who owns the namespace may.
        let plain = format!("mount {kind} on /m{rule} nosuid");
        let as_root = json!({ "namespaces": [{ "type": "mount" }] });
        assert_eq!(words(&mounts(list.clone(), as_root, true).steps)[0], plain);
        let mut owner = rootless();
        for owned in ["network", "pid", "ipc"] {
            owner["namespaces"].as_array_mut().unwrap().push(json!({ "type": owned }));
        }
        assert_eq!(words(&mounts(list, owner, false).steps), [plain]);
    }
}

fn cgroup_words(options: &[&str], cgroups: &CgroupMounts) -> [Vec<String>; 3] {
    let mount =
        json!({ "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": options });
    let found = planned(&config(json!([mount]), own_mounts()), true, cgroups).unwrap();
    [trees(&found), words(&found.steps), words(&found.late)]
}

fn shown(folder: &str) -> Shown {
    Shown { folder: folder.into(), own: None }
}

#[test]
fn on_v2_the_containers_own_cgroup_is_bound() {
    let cgroups = CgroupMounts { unified: Some(shown("/cg/own/box")), ..CgroupMounts::default() };
    let [trees, steps, late] = cgroup_words(&["ro", "nosuid", "rprivate"], &cgroups);
    assert_eq!(trees, ["/cg/own/box ro nosuid, recursively private"]);
    assert_eq!(steps, ["attach /cg/own/box on /sys/fs/cgroup"]);
    assert_eq!(late, [""; 0]);
}

#[test]
fn on_v1_a_tmpfs_holds_each_hierarchy_and_is_read_only_late() {
    let cgroups = CgroupMounts {
        late: false,
        unified: None,
        hierarchies: [("cpu,cpuacct", "/cg/cpu,cpuacct/box"), ("memory", "/cg/memory/box")]
            .map(|(name, folder)| (name.to_owned(), shown(folder)))
            .into(),
        links: [("cpu", "cpu,cpuacct")].map(|(a, b)| (a.to_owned(), b.to_owned())).into(),
    };
    let [trees, steps, late] = cgroup_words(&["nosuid", "ro"], &cgroups);
    assert_eq!(
        trees,
        ["/cg/cpu,cpuacct/box recursively slave, ro nosuid", "/cg/memory/box recursively slave, ro nosuid"]
    );
    assert_eq!(
        steps,
        [
            "mount tmpfs on /sys/fs/cgroup nosuid mode=755",
            "attach /cg/cpu,cpuacct/box on /sys/fs/cgroup/cpu,cpuacct",
            "attach /cg/memory/box on /sys/fs/cgroup/memory",
            "link /sys/fs/cgroup/cpu to cpu,cpuacct",
        ]
    );
    assert_eq!(late, ["change /sys/fs/cgroup: ro"]);
    assert_eq!(cgroup_words(&["nosuid"], &cgroups)[2], [""; 0]);
}

#[test]
fn an_idmap_is_the_mounts_own_or_the_containers() {
    let mapped = json!([{ "containerID": 0, "hostID": 7000, "size": 10 }]);
    let with_user = || {
        let mut linux = rootless();
        linux["uidMappings"][0]["size"] = json!(50);
        linux
    };
    let joined = json!({ "namespaces": [{ "type": "mount" }, { "type": "user", "path": "/u" }] });
    for (options, maps, linux, expected) in [
        (&["bind"][..], true, own_mounts(), ", idmapped uids 0 7000 10 gids 0 7000 10 recursively slave"),
        (
            &["rbind", "ridmap"],
            true,
            own_mounts(),
            " and all below, all idmapped uids 0 7000 10 gids 0 7000 10 recursively slave",
        ),
        (&["bind", "idmap"], false, with_user(), ", idmapped uids 0 1000 50 gids 0 1000 1 recursively slave"),
        (&["bind", "idmap"], true, with_user(), ", idmapped uids 0 7000 10 gids 0 7000 10 recursively slave"),
        (&["bind", "idmap"], false, joined, ", idmapped as /u recursively slave"),
        (&["bind"], false, with_user(), " recursively slave"),
    ] {
        let mut mount = json!({ "destination": "/m", "source": "/h", "options": options });
        if maps {
            mount["uidMappings"] = mapped.clone();
            mount["gidMappings"] = mapped.clone();
        }
        assert_eq!(trees(&mounts(json!([mount]), linux, true)), [format!("/h{expected}")], "{options:?}");
    }
}

#[test]
fn what_cannot_be_is_named_with_its_place() {
    let ids = json!([{ "containerID": 0, "hostID": 7000, "size": 10 }]);
    for (mount, privileged, expected) in [
        (
            json!({ "destination": "/m", "type": "bind" }),
            true,
            "/mounts/0/source is missing, and a bind mount needs one",
        ),
        (
            json!({ "destination": "/m", "source": "/h", "options": ["bind", "size=1k"] }),
            true,
            "/mounts/0/options \"size=1k\" is not an option of a bind mount",
        ),
        (
            json!({ "destination": "/m", "type": "tmpfs", "options": ["idmap"] }),
            true,
            "/mounts/0/options idmap needs a bind mount: only those can be idmapped",
        ),
        (
            json!({ "destination": "/m", "type": "ext4", "options": ["tmpcopyup"] }),
            true,
            "/mounts/0/options tmpcopyup needs a mount of type tmpfs",
        ),
        (
            json!({ "destination": "/m", "source": "/h", "options": ["bind"], "uidMappings": ids, "gidMappings": ids }),
            false,
            "/mounts/0/options idmap needs the privilege of the host's root",
        ),
        (
            json!({ "destination": "/sys/fs/cgroup", "type": "cgroup2" }),
            true,
            "/mounts/0/type this host has no cgroup mounted that the container could see",
        ),
    ] {
        assert_eq!(problems(mount, rootless(), privileged), [expected]);
    }
}

#[test]
fn all_problems_come_at_once() {
    let list = json!([{ "destination": "/a", "type": "bind" }, { "destination": "/b", "type": "tmpfs" }, { "destination": "/c", "type": "bind" }]);
    let problems = planned(&config(list, own_mounts()), true, &CgroupMounts::default()).unwrap_err();
    let pointers: Vec<_> = problems.iter().map(|p| p.pointer.as_str()).collect();
    assert_eq!(pointers, ["/mounts/0/source", "/mounts/2/source"]);
}
