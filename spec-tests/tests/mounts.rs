//! config.md, mounts: types, options, propagation, order; destinations that are links or absent.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

use nix::mount::MsFlags;
use spec_tests::call::eventually;
use spec_tests::facts::{has, mount_at};
use spec_tests::host_mount::HostMount;
use spec_tests::{Bundle, Value, crun, crun_before, crun_since, differs, json, need, runc, runc_before};

fn bind(source: &Path, destination: &str, options: &[&str]) -> Value {
    json!({ "destination": destination, "type": "bind", "source": source, "options": options })
}

fn tmpfs(destination: &str, options: &[&str]) -> Value {
    json!({ "destination": destination, "type": "tmpfs", "source": "tmpfs", "options": options })
}

fn temp() -> tempfile::TempDir {
    let dir = tempfile::Builder::new().prefix("spec-source-").tempdir().unwrap();
    fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    dir
}

/// What a container with this one more mount sees at its destination.
fn seen(mount: Value) -> Value {
    let destination = mount["destination"].as_str().unwrap().to_owned();
    let facts = Bundle::new().mount(mount).facts();
    mount_at(&facts, &destination).clone()
}

// Types.

#[test]
fn a_bind_mount_shows_the_source_whatever_its_type_is() {
    need!(root);
    let source = temp();
    fs::write(source.path().join("file"), "text").unwrap();
    for kind in [json!("bind"), json!("none"), json!("rbind"), json!("whatever"), json!(null)] {
        let mut mount = bind(source.path(), "/data", &["bind"]);
        match &kind {
            Value::Null => {
                mount.as_object_mut().unwrap().remove("type");
            }
            kind => mount["type"] = kind.clone(),
        }
        let out = Bundle::new().mount(mount).probe(["try", "read", "/data/file"]).run().ok();
        assert_eq!(out.json(), json!({ "ok": "text" }), "type {kind}");
    }
}

#[test]
fn rbind_takes_the_mounts_below_the_source_and_bind_does_not() {
    need!(root);
    let source = temp();
    let below = HostMount::tmpfs(&source.path().join("below"), MsFlags::empty());
    fs::write(below.path().join("file"), "text").unwrap();
    for (option, expected) in [("rbind", json!({ "ok": ["file"] })), ("bind", json!({ "ok": [] }))] {
        let out = Bundle::new()
            .mount(bind(source.path(), "/data", &[option]))
            .probe(["try", "list", "/data/below"])
            .run()
            .ok();
        assert_eq!(out.json(), expected, "{option}");
    }
}

#[test]
fn a_relative_source_is_relative_to_the_bundle() {
    need!(root);
    let bundle = Bundle::new();
    fs::create_dir(bundle.bundle_path().join("here")).unwrap();
    fs::write(bundle.bundle_path().join("here/file"), "text").unwrap();
    let out = bundle
        .mount(bind(Path::new("here"), "/data", &["bind"]))
        .probe(["try", "read", "/data/file"])
        .run()
        .ok();
    assert_eq!(out.json(), json!({ "ok": "text" }));
}

#[test]
fn a_source_that_is_a_link_is_followed() {
    need!(root);
    let source = temp();
    fs::create_dir(source.path().join("real")).unwrap();
    fs::write(source.path().join("real/file"), "text").unwrap();
    symlink("real", source.path().join("link")).unwrap();
    let out = Bundle::new()
        .mount(bind(&source.path().join("link"), "/data", &["bind"]))
        .probe(["try", "read", "/data/file"])
        .run()
        .ok();
    assert_eq!(out.json(), json!({ "ok": "text" }));
}

#[test]
fn a_bind_mount_can_be_written_to_and_the_host_sees_it() {
    need!(root);
    let source = temp();
    Bundle::new()
        .mount(bind(source.path(), "/data", &["rbind", "rw"]))
        .probe(["try", "create", "/data/new", "text"])
        .run()
        .ok();
    assert_eq!(fs::read_to_string(source.path().join("new")).unwrap(), "text");
}

#[test]
fn a_tmpfs_has_its_size_and_mode() {
    need!(root);
    let options = ["size=64k", "mode=0750", "uid=7", "gid=8"];
    let out = Bundle::new()
        .mount(tmpfs("/data", &options))
        .probe(["try", "stat", "/data", ",", "facts"])
        .run()
        .ok();
    let lines = out.json_lines();
    let stat = &lines[0]["ok"];
    assert_eq!((&stat["uid"], &stat["gid"]), (&json!(7), &json!(8)));
    differs([runc_before("1.1.8", "the mode of the directory below wins")], || {
        assert_eq!(stat["mode"], 0o750);
    });
    let mount = mount_at(&lines[1], "/data");
    assert_eq!(mount["type"], "tmpfs");
    assert!(has(&mount["super"], "size=64k"), "{mount}");
}

#[test]
fn a_tmpfs_without_a_mode_keeps_that_of_the_directory_below() {
    need!(root);
    differs([crun_before("1.21", "the tmpfs's own 1777")], || {
        let out = Bundle::new()
            .rootfs(|r| {
                fs::set_permissions(r.join("data"), std::os::unix::fs::PermissionsExt::from_mode(0o711))
                    .unwrap();
            })
            .mount(tmpfs("/data", &[]))
            .probe(["try", "stat", "/data"])
            .run()
            .ok();
        assert_eq!(out.json()["ok"]["mode"], 0o711);
    });
}

#[test]
fn tmpcopyup_brings_what_was_below() {
    need!(root);
    let out = Bundle::new()
        .rootfs(|r| {
            fs::create_dir_all(r.join("data/deep/er")).unwrap();
            fs::write(r.join("data/deep/file"), "text").unwrap();
            fs::set_permissions(
                r.join("data/deep/file"),
                std::os::unix::fs::PermissionsExt::from_mode(0o604),
            )
            .unwrap();
            std::os::unix::fs::chown(r.join("data/deep/file"), Some(3), Some(4)).unwrap();
            symlink("deep/file", r.join("data/link")).unwrap();
        })
        .mount(tmpfs("/data", &["tmpcopyup"]))
        .probe([
            "try",
            "read",
            "/data/link",
            ",",
            "try",
            "stat",
            "/data/deep/file",
            ",",
            "try",
            "create",
            "/data/deep/er/new",
            "",
            ",",
            "facts",
        ])
        .run()
        .ok();
    let lines = out.json_lines();
    assert_eq!(lines[0], json!({ "ok": "text" }));
    let stat = &lines[1]["ok"];
    assert_eq!((&stat["mode"], &stat["uid"], &stat["gid"]), (&json!(0o604), &json!(3), &json!(4)));
    assert_eq!(lines[2], json!({ "ok": true }));
    assert_eq!(mount_at(&lines[3], "/data")["type"], "tmpfs");
}

#[test]
fn tmpcopyup_does_not_change_the_rootfs() {
    need!(root);
    let bundle = Bundle::new()
        .writable()
        .rootfs(|r| fs::write(r.join("data/file"), "before").unwrap())
        .mount(tmpfs("/data", &["tmpcopyup"]))
        .probe(["try", "write", "/data/file", "after.", ",", "try", "create", "/data/new", ""]);
    let container = bundle.container();
    container.run().ok();
    assert_eq!(fs::read_to_string(container.rootfs_path().join("data/file")).unwrap(), "before");
    assert!(!container.rootfs_path().join("data/new").exists());
}

#[test]
fn the_default_mounts_have_their_types_and_flags() {
    need!(root);
    let facts = Bundle::new().facts();
    for (target, kind, flags) in [
        ("/proc", "proc", &["rw", "relatime"][..]),
        ("/dev", "tmpfs", &["nosuid"]),
        ("/dev/pts", "devpts", &["nosuid", "noexec"]),
        ("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev"]),
        ("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        ("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
        // Read-only as well, but on v1 the peers leave the tmpfs around the hierarchies writable.
        ("/sys/fs/cgroup", "", &["nosuid", "noexec", "nodev"]),
    ] {
        let mount = mount_at(&facts, target);
        assert!(kind.is_empty() || mount["type"] == kind, "{target} {mount}");
        for flag in flags {
            assert!(has(&mount["options"], flag), "{target} lacks {flag}: {mount}");
        }
    }
    let dev = mount_at(&facts, "/dev");
    assert!(!has(&dev["options"], "relatime") && has(&dev["super"], "size=65536k"), "{dev}");
    let pts = mount_at(&facts, "/dev/pts");
    for word in ["gid=5", "mode=620", "ptmxmode=666"] {
        assert!(has(&pts["super"], word), "{word}: {pts}");
    }
}

#[test]
fn nothing_of_the_host_is_mounted_in_the_container() {
    need!(root);
    let facts = Bundle::new().facts();
    let known = ["/proc", "/dev", "/sys"];
    for mount in facts["mounts"].as_array().unwrap() {
        let target = mount["target"].as_str().unwrap();
        let inside = target == "/" || known.iter().any(|k| Path::new(target).starts_with(k));
        assert!(inside, "a mount that nobody asked for: {mount}");
    }
}

#[test]
fn an_overlay_takes_its_layers_as_options() {
    need!(root);
    let dir = temp();
    for name in ["a", "b", "upper", "work"] {
        fs::create_dir(dir.path().join(name)).unwrap();
    }
    fs::write(dir.path().join("a/file"), "a").unwrap();
    fs::write(dir.path().join("b/file"), "b").unwrap();
    fs::write(dir.path().join("b/other"), "b").unwrap();
    let at = dir.path().display();
    let options =
        [format!("lowerdir={at}/a:{at}/b"), format!("upperdir={at}/upper"), format!("workdir={at}/work")];
    let mount = json!({ "destination": "/data", "type": "overlay", "source": "overlay", "options": options });
    let out = Bundle::new()
        .mount(mount)
        .probe([
            "try",
            "read",
            "/data/file",
            ",",
            "try",
            "read",
            "/data/other",
            ",",
            "try",
            "create",
            "/data/new",
            "text",
        ])
        .run()
        .ok();
    assert_eq!(out.json_lines(), [json!({ "ok": "a" }), json!({ "ok": "b" }), json!({ "ok": true })]);
    assert_eq!(fs::read_to_string(dir.path().join("upper/new")).unwrap(), "text");
}

/// mount(2) takes one page of options; an image with many layers has more.
#[test]
fn an_overlay_may_have_more_options_than_a_page() {
    need!(root, kernel(6, 5));
    differs([runc("one page of mount(2)"), crun("one page of mount(2)")], || {
        let dir = temp();
        let mut layers = Vec::new();
        for n in 0..40 {
            let layer = dir.path().join(format!("{n}-{}", "x".repeat(120)));
            fs::create_dir(&layer).unwrap();
            fs::write(layer.join(format!("file{n}")), "").unwrap();
            layers.push(layer.to_str().unwrap().to_owned());
        }
        let option = format!("lowerdir={}", layers.join(":"));
        assert!(option.len() > 4096);
        let mount =
            json!({ "destination": "/data", "type": "overlay", "source": "overlay", "options": [option] });
        let out = Bundle::new().mount(mount).probe(["try", "list", "/data"]).run().ok();
        assert_eq!(out.json()["ok"].as_array().unwrap().len(), 40);
    });
}

#[test]
fn the_cgroup_mount_shows_the_containers_own_cgroup() {
    need!(root, cgroup_v1, controller("memory"));
    let out = Bundle::new()
        .linux(|l| l["resources"]["memory"] = json!({ "limit": 67_108_864 }))
        .probe([
            "try",
            "read",
            "/sys/fs/cgroup/memory/memory.limit_in_bytes",
            ",",
            "try",
            "mkdir",
            "/sys/fs/cgroup/memory/new",
        ])
        .run()
        .ok();
    assert_eq!(out.json_lines(), [json!({ "ok": "67108864\n" }), json!({ "errno": "EROFS" })]);
}

#[test]
fn the_cgroup_mount_of_v2_shows_the_containers_own_cgroup() {
    need!(root, cgroup_v2);
    let out = Bundle::new().probe(["try", "read", "/sys/fs/cgroup/cgroup.procs"]).run().ok();
    assert_eq!(out.json(), json!({ "ok": "1\n" }));
}

#[test]
fn an_unknown_file_system_is_an_error_that_names_it() {
    need!(root);
    let mount = json!({ "destination": "/data", "type": "nosuchfs", "source": "x" });
    let out = Bundle::new().mount(mount).create_fails().says("o such device");
    differs([runc("names the destination"), crun("names the destination")], || {
        out.says("nosuchfs");
    });
}

#[test]
fn an_unknown_option_of_a_file_system_is_an_error() {
    need!(root);
    Bundle::new().mount(tmpfs("/data", &["nonsense=1"])).create_fails();
}

#[test]
fn a_missing_source_is_an_error_that_names_it() {
    need!(root);
    Bundle::new()
        .mount(bind(Path::new("/no/such/source"), "/data", &["bind"]))
        .create_fails()
        .says("/no/such/source")
        .says("o such file or directory");
}

// Options.

#[test]
fn every_flag_can_be_set() {
    need!(root);
    let table: &[(&[&str], &[&str])] = &[
        (&["ro"], &["ro"]),
        (&["rw"], &["rw"]),
        (&["nosuid"], &["nosuid"]),
        (&["nodev"], &["nodev"]),
        (&["noexec"], &["noexec"]),
        (&["noatime"], &["noatime"]),
        (&["nodiratime"], &["nodiratime"]),
        (&["relatime"], &["relatime"]),
        (&["ro", "nosuid", "nodev", "noexec", "noatime"], &["ro", "nosuid", "nodev", "noexec", "noatime"]),
    ];
    let source = temp();
    for (options, expected) in table {
        for mount in [tmpfs("/data", options), bind(source.path(), "/data", &[&["bind"], *options].concat())]
        {
            let kind = mount["type"].clone();
            let seen = seen(mount);
            for flag in *expected {
                assert!(has(&seen["options"], flag), "{kind} {options:?}: {seen}");
            }
        }
    }
}

#[test]
fn strictatime_has_neither_relatime_nor_noatime() {
    need!(root);
    let seen = seen(tmpfs("/data", &["strictatime"]));
    assert!(seen["type"] == "tmpfs", "{seen}");
    assert!(!has(&seen["options"], "relatime") && !has(&seen["options"], "noatime"), "{seen}");
}

#[test]
fn nosymfollow_can_be_set() {
    need!(root, kernel(5, 10));
    differs([crun("does not know nosymfollow")], || {
        let seen = seen(tmpfs("/data", &["nosymfollow"]));
        assert!(has(&seen["options"], "nosymfollow"), "{seen}");
    });
}

#[test]
fn options_of_the_super_block_reach_it() {
    need!(root);
    let seen = seen(tmpfs("/data", &["sync", "mand", "nomand", "async", "sync"]));
    assert!(has(&seen["super"], "sync"), "{seen}");
}

#[test]
fn the_last_of_two_words_of_a_flag_counts() {
    need!(root);
    differs([crun("ro stays")], || {
        for (set, clear) in
            [("ro", "rw"), ("nosuid", "suid"), ("nodev", "dev"), ("noexec", "exec"), ("noatime", "atime")]
        {
            let cleared = seen(tmpfs("/data", &[set, clear]));
            assert!(cleared["type"] == "tmpfs" && !has(&cleared["options"], set), "{set},{clear}: {cleared}");
            let set_again = seen(tmpfs("/data", &[clear, set]));
            assert!(has(&set_again["options"], set), "{clear},{set}: {set_again}");
        }
    });
}

#[test]
fn words_that_mean_nothing_by_themselves_are_taken() {
    need!(root);
    let source = temp();
    let of_bind = seen(bind(source.path(), "/data", &["rbind", "defaults", "rw"]));
    assert!(has(&of_bind["options"], "rw"), "{of_bind}");
    differs([runc_before("1.2", "passes it to tmpfs")], || {
        assert_eq!(seen(tmpfs("/data", &["defaults"]))["type"], "tmpfs");
    });
}

/// A bind mount keeps what its source's mount has: only the words that are given change something.
#[test]
fn a_bind_mount_changes_only_the_flags_that_are_given() {
    need!(root);
    let dir = temp();
    let source = HostMount::tmpfs(&dir.path().join("source"), MsFlags::MS_NOEXEC | MsFlags::MS_NODEV);
    let seen = seen(bind(source.path(), "/data", &["bind", "nosuid"]));
    differs([runc_before("1.2", "a remount drops the others"), crun("a remount drops the others")], || {
        for flag in ["nosuid", "noexec", "nodev"] {
            assert!(has(&seen["options"], flag), "{flag}: {seen}");
        }
    });
}

#[test]
fn a_clearing_word_takes_a_flag_of_the_source_away() {
    need!(root);
    let dir = temp();
    let source = HostMount::tmpfs(&dir.path().join("source"), MsFlags::MS_NOEXEC | MsFlags::MS_RDONLY);
    let seen = seen(bind(source.path(), "/data", &["bind", "exec", "rw"]));
    differs([runc_before("1.2", "does not remount for clearing words alone")], || {
        assert!(!has(&seen["options"], "noexec") && has(&seen["options"], "rw"), "{seen}");
    });
}

#[test]
fn a_flag_is_not_for_the_mounts_below_and_a_recursive_one_is() {
    need!(root, kernel(5, 12));
    let source = temp();
    let _below = HostMount::tmpfs(&source.path().join("below"), MsFlags::empty());
    let known = [crun("mount_setattr refuses its rnoatime")];
    differs(known, || recursive_flags(source.path()));
}

fn recursive_flags(source: &Path) {
    for (option, flag) in
        [("ro", "ro"), ("nosuid", "nosuid"), ("nodev", "nodev"), ("noexec", "noexec"), ("noatime", "noatime")]
    {
        let plain = Bundle::new().mount(bind(source, "/data", &["rbind", option])).facts();
        assert!(has(&mount_at(&plain, "/data")["options"], flag), "{option}");
        assert!(!has(&mount_at(&plain, "/data/below")["options"], flag), "{option} is not recursive");
        let recursive = format!("r{option}");
        let facts = Bundle::new().mount(bind(source, "/data", &["rbind", &recursive])).facts();
        for target in ["/data", "/data/below"] {
            assert!(has(&mount_at(&facts, target)["options"], flag), "{recursive} at {target}");
        }
    }
}

#[test]
fn a_recursive_clearing_word_takes_the_flag_of_the_mounts_below_away() {
    need!(root, kernel(5, 12));
    let source = temp();
    let below = HostMount::tmpfs(&source.path().join("below"), MsFlags::MS_NOEXEC | MsFlags::MS_NOSUID);
    let facts = Bundle::new().mount(bind(source.path(), "/data", &["rbind", "rexec"])).facts();
    let seen = mount_at(&facts, "/data/below");
    assert!(!has(&seen["options"], "noexec") && has(&seen["options"], "nosuid"), "{seen}");
    drop(below);
}

// Propagation.

#[test]
fn propagation_is_private_unless_a_word_says_otherwise() {
    need!(root);
    let dir = temp();
    let source = HostMount::tmpfs(&dir.path().join("source"), MsFlags::empty()).shared();
    for (words, starts) in [
        (&["rbind", "rprivate"][..], ""),
        (&["rbind", "private"], ""),
        (&["rbind", "rslave"], "master:"),
        (&["rbind", "slave"], "master:"),
        (&["rbind", "rshared"], "shared:"),
        (&["rbind", "shared"], "shared:"),
        (&["rbind", "runbindable"], "unbindable"),
        (&["bind", "unbindable"], "unbindable"),
    ] {
        let rootfs = if starts == "shared:" { "rshared" } else { "rslave" };
        let facts = Bundle::new()
            // What is private for the whole container (crun's default) is the slave of nothing.
            .linux(|l| l["rootfsPropagation"] = json!(rootfs))
            .mount(bind(source.path(), "/data", words))
            .facts();
        let seen = mount_at(&facts, "/data");
        let tags: Vec<&str> =
            seen["propagation"].as_array().unwrap().iter().map(|t| t.as_str().unwrap()).collect();
        if starts.is_empty() {
            assert!(tags.is_empty(), "{words:?}: {tags:?}");
        } else {
            assert!(tags.iter().any(|t| t.starts_with(starts)), "{words:?}: {tags:?}");
        }
    }
}

/// A container with the source at /data, which may mount there.
fn with_shared_source(source: &HostMount, word: &str, rootfs: Value) -> spec_tests::Container {
    Bundle::new()
        .mount(bind(source.path(), "/data", &["rbind", word]))
        .capabilities(["CAP_SYS_ADMIN", "CAP_DAC_OVERRIDE"])
        .linux(|l| l["rootfsPropagation"] = rootfs)
        .probe(["wait"])
        .start()
}

fn container_sees(container: &spec_tests::Container, target: &str) -> bool {
    !mount_at(&container.exec(["facts"]).ok().json(), target).is_null()
}

fn host_sees(path: &Path) -> bool {
    fs::read_to_string("/proc/self/mountinfo").unwrap().contains(&format!(" {} ", path.display()))
}

#[test]
fn a_slave_gets_later_mounts_of_the_host_and_gives_none() {
    need!(root);
    let dir = temp();
    let source = HostMount::tmpfs(&dir.path().join("source"), MsFlags::empty()).shared();
    fs::create_dir(source.path().join("own")).unwrap();
    let container = with_shared_source(&source, "rslave", json!("rslave"));
    let later = HostMount::tmpfs(&source.path().join("later"), MsFlags::empty());
    assert!(container_sees(&container, "/data/later"));
    container.exec(["try", "mount", "tmpfs", "/data/own", "tmpfs", "0"]).ok();
    assert!(container_sees(&container, "/data/own"), "the container may mount for itself");
    assert!(!host_sees(&source.path().join("own")));
    drop(later);
}

#[test]
fn a_private_mount_gets_no_later_mounts_and_gives_none() {
    need!(root);
    let dir = temp();
    let source = HostMount::tmpfs(&dir.path().join("source"), MsFlags::empty()).shared();
    fs::create_dir(source.path().join("own")).unwrap();
    let container = with_shared_source(&source, "rprivate", json!(null));
    let later = HostMount::tmpfs(&source.path().join("later"), MsFlags::empty());
    assert!(!container_sees(&container, "/data/later"));
    container.exec(["try", "mount", "tmpfs", "/data/own", "tmpfs", "0"]).ok();
    assert!(!host_sees(&source.path().join("own")));
    drop(later);
}

#[test]
fn a_shared_mount_goes_both_ways_when_the_rootfs_is_shared() {
    need!(root);
    let dir = temp();
    let source = HostMount::tmpfs(&dir.path().join("source"), MsFlags::empty()).shared();
    fs::create_dir(source.path().join("own")).unwrap();
    let container = with_shared_source(&source, "rshared", json!("rshared"));
    let later = HostMount::tmpfs(&source.path().join("later"), MsFlags::empty());
    assert!(container_sees(&container, "/data/later"));
    container.exec(["try", "mount", "tmpfs", "/data/own", "tmpfs", "0"]).ok();
    assert!(host_sees(&source.path().join("own")));
    nix::mount::umount2(&source.path().join("own"), nix::mount::MntFlags::MNT_DETACH).unwrap();
    drop(later);
}

/// Not even while it is set up does anything of the container show on the host, also from a shared source.
#[test]
fn the_hosts_mount_table_never_changes() {
    need!(root);
    let dir = temp();
    let source = HostMount::tmpfs(&dir.path().join("source"), MsFlags::empty()).shared();
    fs::create_dir(source.path().join("inner")).unwrap();
    let rootfs = source.path().join("rootfs");
    let own = |text: String| -> Vec<String> {
        text.lines().filter(|l| l.contains(source.text())).map(str::to_owned).collect()
    };
    let table = || own(fs::read_to_string("/proc/self/mountinfo").unwrap());
    let before = table();
    let mut bundle = Bundle::new()
        .mount(bind(source.path(), "/data", &["rbind", "rshared"]))
        // On the shared mount itself.
        .mount(tmpfs("/data/inner", &[]))
        .probe(["wait"]);
    // The rootfs also lies on the shared mount.
    fs::rename(bundle.rootfs_path(), &rootfs).unwrap_or_else(|_| copy(&bundle.rootfs_path(), &rootfs));
    bundle.config["root"]["path"] = json!(rootfs);
    let container = bundle.start();
    assert_eq!(table(), before);
    drop(container);
    assert_eq!(table(), before);
}

/// A small tree of directories and files.
fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    fs::set_permissions(to, fs::metadata(from).unwrap().permissions()).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

// Order and destinations.

#[test]
fn mounts_are_made_in_the_listed_order() {
    need!(root);
    let out = Bundle::new()
        .mount(tmpfs("/data", &["size=1m"]))
        .mount(tmpfs("/data/in", &["size=2m"]))
        .mount(tmpfs("/data", &["size=3m"]))
        .probe(["facts", ",", "try", "list", "/data"])
        .run()
        .ok();
    let lines = out.json_lines();
    let sizes: Vec<&str> = lines[0]["mounts"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|m| m["target"].as_str().unwrap().starts_with("/data"))
        .filter_map(|m| {
            m["super"].as_array().unwrap().iter().find_map(|o| o.as_str().unwrap().strip_prefix("size="))
        })
        .collect();
    assert_eq!(sizes, ["1024k", "2048k", "3072k"]);
    assert_eq!(lines[1], json!({ "ok": [] }), "the third covers the second");
}

#[test]
fn a_relative_destination_is_relative_to_the_root() {
    need!(root);
    for destination in ["data", "./data", "data/../data", "/data/../../../data"] {
        let facts = Bundle::new().mount(tmpfs(destination, &[])).facts();
        assert_eq!(mount_at(&facts, "/data")["type"], "tmpfs", "{destination}");
    }
}

#[test]
fn a_missing_destination_is_made_a_directory_or_a_file_as_the_source_is() {
    need!(root);
    let source = temp();
    fs::write(source.path().join("file"), "text").unwrap();
    let container = Bundle::new()
        .writable()
        .mount(bind(source.path(), "/new/directory", &["bind"]))
        .mount(bind(&source.path().join("file"), "/other/new/file", &["bind"]))
        .mount(tmpfs("/third/directory", &[]))
        .probe(["try", "read", "/new/directory/file", ",", "try", "read", "/other/new/file", ",", "facts"])
        .container();
    let lines = container.run().ok().json_lines();
    assert_eq!((&lines[0], &lines[1]), (&json!({ "ok": "text" }), &json!({ "ok": "text" })));
    assert_eq!(mount_at(&lines[2], "/third/directory")["type"], "tmpfs");
    assert!(fs::metadata(container.rootfs_path().join("other/new/file")).unwrap().is_file());
    assert_eq!(fs::metadata(container.rootfs_path().join("new/directory")).unwrap().mode() & 0o777, 0o755);
}

#[test]
fn destinations_through_links_stay_in_the_rootfs() {
    need!(root);
    let outside = temp();
    let target = outside.path().to_str().unwrap();
    differs([crun("follows no dangling link")], || {
        through_links(target, outside.path());
    });
}

fn through_links(target: &str, outside: &Path) {
    for (link, below) in [
        // Absolute and there, relative with too many dots, dangling, and one that the host has.
        ("/data", "/data"),
        ("../../../../../../data", "/data"),
        ("/nowhere/at/all", "/nowhere/at/all"),
        (target, target),
    ] {
        let container = Bundle::new()
            .writable()
            .rootfs(|r| symlink(link, r.join("link")).unwrap())
            .mount(tmpfs("/link/sub", &[]))
            .container();
        let facts = container.run().ok().json();
        assert_eq!(mount_at(&facts, &format!("{below}/sub"))["type"], "tmpfs", "{link}");
        assert!(!outside.join("sub").exists(), "{link}: made on the host");
    }
}

#[test]
fn a_destination_that_is_a_link_itself_is_followed_inside_the_rootfs() {
    need!(root);
    let outside = temp();
    let target = outside.path().join("escape");
    differs([crun("follows no dangling link")], || linked_destinations(&target));
}

fn linked_destinations(target: &Path) {
    for link in [Path::new("/data"), Path::new("../../../data"), target] {
        let container = Bundle::new()
            .writable()
            .rootfs(|r| symlink(link, r.join("link")).unwrap())
            .mount(tmpfs("/link", &[]))
            .container();
        let facts = container.run().ok().json();
        let expected = if link == target { target.to_str().unwrap() } else { "/data" };
        assert_eq!(mount_at(&facts, expected)["type"], "tmpfs", "{}", link.display());
        assert!(!target.exists(), "made on the host");
    }
}

#[test]
fn a_loop_of_links_is_an_error() {
    need!(root);
    let mut container = Bundle::new()
        .writable()
        .rootfs(|r| {
            symlink("/b", r.join("a")).unwrap();
            symlink("/a", r.join("b")).unwrap();
        })
        .mount(tmpfs("/a/sub", &[]))
        .container();
    container.create().refused();
}

/// CVE-2019-19921: an image chooses where /proc is.
#[test]
fn proc_and_sys_on_a_link_are_refused() {
    need!(root);
    for name in ["proc", "sys"] {
        Bundle::new()
            .rootfs(|r| {
                fs::remove_dir(r.join(name)).unwrap();
                symlink("/data", r.join(name)).unwrap();
            })
            .create_fails();
    }
}

/// CVE-2019-16884 and its kin: what lies over a file of /proc may be whatever the image likes.
#[test]
fn mounts_inside_proc_are_refused() {
    need!(root);
    let source = temp();
    fs::write(source.path().join("file"), "").unwrap();
    differs([crun("leaves it to the caller")], || {
        for destination in ["/proc/sysrq-trigger", "/proc/self/attr/exec", "/proc/sys/kernel/core_pattern"] {
            let mount = bind(&source.path().join("file"), destination, &["bind"]);
            Bundle::new().mount(mount).create_fails().says("/proc");
        }
    });
}

#[test]
fn a_link_to_proc_does_not_help_to_mount_inside_it() {
    need!(root);
    let source = temp();
    differs([crun("leaves it to the caller")], || {
        Bundle::new()
            .rootfs(|r| symlink("/proc/self", r.join("link")).unwrap())
            .mount(bind(source.path(), "/link/attr", &["bind"]))
            .create_fails();
    });
}

#[test]
fn the_files_of_lxcfs_may_be_mounted_over_proc() {
    need!(root);
    let source = temp();
    let file = source.path().join("file");
    fs::write(&file, "mine").unwrap();
    for name in ["cpuinfo", "diskstats", "meminfo", "stat", "swaps", "uptime", "loadavg"] {
        let destination = format!("/proc/{name}");
        if !Path::new(&destination).exists() {
            continue;
        }
        let out = Bundle::new()
            .mount(bind(&file, &destination, &["bind"]))
            .probe(["try", "read", &destination])
            .run()
            .ok();
        assert_eq!(out.json(), json!({ "ok": "mine" }), "{destination}");
    }
}

// Id mappings.

/// Owner and group of the file that the host's 0 and 5 own, behind a mount with these words.
fn owners(bundle: Bundle, mount: impl FnOnce(Value) -> Value) -> (Value, Value) {
    let source = temp();
    fs::write(source.path().join("file"), "").unwrap();
    fs::write(source.path().join("five"), "").unwrap();
    std::os::unix::fs::chown(source.path().join("five"), Some(5), Some(5)).unwrap();
    let mount = mount(bind(source.path(), "/data", &["rbind"]));
    let out =
        bundle.mount(mount).probe(["try", "stat", "/data/file", ",", "try", "stat", "/data/five"]).run().ok();
    let lines = out.json_lines();
    (lines[0]["ok"]["uid"].clone(), lines[1]["ok"]["gid"].clone())
}

const IDMAP: &str = "has no idmapped mounts of the specification";

#[test]
fn idmap_with_mappings_of_its_own_needs_no_user_namespace() {
    need!(root, kernel(5, 12));
    differs([runc_before("1.2", IDMAP)], || {
        for word in ["idmap", "ridmap"] {
            let map = json!([{ "containerID": 0, "hostID": 1000, "size": 10 }]);
            let seen = owners(Bundle::new(), |mut m| {
                m["options"] = json!(["rbind", word]);
                m["uidMappings"] = map.clone();
                m["gidMappings"] = map;
                m
            });
            assert_eq!(seen, (json!(1000), json!(1005)), "{word}");
        }
    });
}

#[test]
fn idmap_without_mappings_uses_those_of_the_container() {
    need!(root, userns, kernel(5, 12));
    differs([runc_before("1.2", IDMAP)], || {
        let seen = owners(Bundle::new().userns(100_000, 1000), |mut m| {
            m["options"] = json!(["rbind", "idmap"]);
            m
        });
        assert_eq!(seen, (json!(0), json!(5)));
    });
}

#[test]
fn without_idmap_the_hosts_owners_are_nobody_in_a_user_namespace() {
    need!(root, userns);
    let seen = owners(Bundle::new().userns(100_000, 1000), |m| m);
    assert_eq!(seen, (json!(65534), json!(65534)));
}

#[test]
fn mappings_of_a_mount_stand_together_and_on_bind_mounts_only() {
    need!(root, kernel(5, 12));
    let map = json!([{ "containerID": 0, "hostID": 1000, "size": 10 }]);
    let source = temp();
    differs([runc_before("1.2", IDMAP), crun_since("1.21", "maps a tmpfs")], || {
        let mut one = bind(source.path(), "/data", &["bind", "idmap"]);
        one["uidMappings"] = map.clone();
        Bundle::new().mount(one).create_fails();
        let mut none = tmpfs("/data", &[]);
        none["uidMappings"] = map.clone();
        none["gidMappings"] = map.clone();
        Bundle::new().mount(none).create_fails();
    });
}

// With a user namespace.

#[test]
fn every_type_can_be_mounted_in_a_user_namespace() {
    need!(root, userns);
    let facts = Bundle::new().userns(100_000, 65_536).mount(tmpfs("/data", &["tmpcopyup"])).facts();
    for (target, kind) in [
        ("/proc", "proc"),
        ("/sys", "sysfs"),
        ("/dev/mqueue", "mqueue"),
        ("/dev/pts", "devpts"),
        ("/data", "tmpfs"),
    ] {
        assert_eq!(mount_at(&facts, target)["type"], kind, "{target}");
    }
}

/// The host's root reads it, but no id of the namespace could.
#[test]
fn a_source_that_only_the_hosts_root_can_reach_is_mounted_in_a_user_namespace() {
    need!(root, userns);
    let source = temp();
    fs::create_dir(source.path().join("closed")).unwrap();
    fs::create_dir(source.path().join("closed/open")).unwrap();
    fs::write(source.path().join("closed/open/file"), "text").unwrap();
    fs::set_permissions(source.path().join("closed"), std::os::unix::fs::PermissionsExt::from_mode(0o700))
        .unwrap();
    let out = Bundle::new()
        .userns(100_000, 65_536)
        .mount(bind(&source.path().join("closed/open"), "/data", &["bind"]))
        .probe(["try", "read", "/data/file"])
        .run()
        .ok();
    assert_eq!(out.json(), json!({ "ok": "text" }));
}

/// mount_namespaces(7): flags of a mount of the host are locked in a lesser user namespace.
#[test]
fn locked_flags_of_the_source_stay_in_a_user_namespace() {
    need!(root, userns);
    let dir = temp();
    let source = HostMount::tmpfs(&dir.path().join("source"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV);
    differs([runc_before("1.2", "tries to clear them"), crun("clears them")], || {
        let facts = Bundle::new()
            .userns(100_000, 65_536)
            .mount(bind(source.path(), "/data", &["rbind", "ro"]))
            .facts();
        let seen = mount_at(&facts, "/data");
        for flag in ["ro", "nosuid", "nodev"] {
            assert!(has(&seen["options"], flag), "{flag}: {seen}");
        }
    });
}

#[test]
fn many_mounts_are_made() {
    need!(root);
    let mut bundle = Bundle::new();
    for n in 0..200 {
        bundle = bundle.mount(tmpfs(&format!("/data{n}"), &[]));
    }
    let facts = bundle.writable().facts();
    assert_eq!(mount_at(&facts, "/data0")["type"], "tmpfs");
    assert_eq!(mount_at(&facts, "/data199")["type"], "tmpfs");
    eventually("no mount of the test is left on the host", || {
        !fs::read_to_string("/proc/self/mountinfo").unwrap().contains("/data199")
    });
}
