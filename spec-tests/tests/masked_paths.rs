//! config-linux.md, masked and read-only paths.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::symlink;

use spec_tests::facts::{has, mount_at};
use spec_tests::{Bundle, Value, crun, crun_before, differs, json, need, runc, runc_before};

fn masking(paths: Value) -> Bundle {
    Bundle::new().linux(|l| l["maskedPaths"] = paths)
}

fn read_only(paths: Value) -> Bundle {
    Bundle::new().linux(|l| l["readonlyPaths"] = paths)
}

#[test]
fn a_masked_file_is_empty_and_a_masked_directory_too() {
    need!(root);
    let out = masking(json!(["/data/file", "/data/directory"]))
        .rootfs(|r| {
            fs::write(r.join("data/file"), "secret").unwrap();
            fs::create_dir(r.join("data/directory")).unwrap();
            fs::write(r.join("data/directory/file"), "secret").unwrap();
            fs::write(r.join("data/other"), "open").unwrap();
        })
        .probe([
            "try",
            "read",
            "/data/file",
            ",",
            "try",
            "list",
            "/data/directory",
            ",",
            "try",
            "create",
            "/data/directory/new",
            "",
            ",",
            "try",
            "read",
            "/data/other",
        ])
        .run()
        .ok();
    let lines = out.json_lines();
    assert_eq!(lines[0], json!({ "ok": "" }));
    assert_eq!(lines[1], json!({ "ok": [] }));
    assert_eq!(lines[2], json!({ "errno": "EROFS" }));
    assert_eq!(lines[3], json!({ "ok": "open" }));
}

/// The mask of a file is /dev/null: what is written goes nowhere, and it is the real one.
#[test]
fn what_is_written_to_a_masked_file_is_lost() {
    need!(root);
    let bundle = masking(json!(["/data/file"]))
        .writable()
        .rootfs(|r| fs::write(r.join("data/file"), "secret").unwrap())
        .probe(["try", "write", "/data/file", "new", ",", "try", "stat", "/data/file"]);
    let container = bundle.container();
    let lines = container.run().ok().json_lines();
    assert_eq!(lines[1]["ok"]["device"], json!([1, 3]));
    assert_eq!(fs::read_to_string(container.rootfs_path().join("data/file")).unwrap(), "secret");
}

#[test]
fn the_default_masks_and_read_only_paths_hold() {
    need!(root);
    let facts = Bundle::new().facts();
    for path in ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware", "/proc/acpi"] {
        let there = std::path::Path::new(path).exists();
        assert_eq!(!mount_at(&facts, path).is_null(), there, "{path}");
    }
    for path in ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"] {
        if std::path::Path::new(path).exists() {
            let mount = mount_at(&facts, path);
            assert!(has(&mount["options"], "ro") && mount["type"] == "proc", "{path}: {mount}");
        }
    }
}

#[test]
fn paths_that_are_absent_are_passed_over_and_not_made() {
    need!(root);
    let container = masking(json!(["/absent/file", "/data/absent", "/proc/absent"]))
        .writable()
        .linux(|l| l["readonlyPaths"] = json!(["/absent/other", "/data/other"]))
        .probe(["try", "stat", "/data/absent", ",", "try", "stat", "/absent"])
        .container();
    let lines = container.run().ok().json_lines();
    assert_eq!(lines, [json!({ "errno": "ENOENT" }), json!({ "errno": "ENOENT" })]);
    assert!(!container.rootfs_path().join("absent").exists());
}

#[test]
fn a_path_below_a_file_is_passed_over() {
    need!(root);
    let bundle = masking(json!(["/data/file/below"])).rootfs(|r| fs::write(r.join("data/file"), "").unwrap());
    differs([runc("ENOTDIR is an error"), crun("ENOTDIR is an error")], || {
        bundle.run().ok();
    });
}

#[test]
fn a_read_only_path_can_be_read_only() {
    need!(root);
    let out = read_only(json!(["/data", "/tmp/file"]))
        .writable()
        .rootfs(|r| {
            fs::write(r.join("data/file"), "text").unwrap();
            fs::write(r.join("tmp/file"), "text").unwrap();
        })
        .probe([
            "try",
            "read",
            "/data/file",
            ",",
            "try",
            "write",
            "/data/file",
            "x",
            ",",
            "try",
            "create",
            "/data/new",
            "",
            ",",
            "try",
            "write",
            "/tmp/file",
            "x",
            ",",
            "try",
            "create",
            "/tmp/new",
            "",
        ])
        .run()
        .ok();
    let lines = out.json_lines();
    assert_eq!(lines[0], json!({ "ok": "text" }));
    assert_eq!(lines[1], json!({ "errno": "EROFS" }));
    assert_eq!(lines[2], json!({ "errno": "EROFS" }));
    assert_eq!(lines[3], json!({ "errno": "EROFS" }));
    assert_eq!(lines[4], json!({ "ok": true }));
}

/// What was nosuid, nodev or noexec before is so afterwards.
#[test]
fn a_read_only_path_keeps_the_flags_of_its_mount() {
    need!(root);
    let tmpfs = json!({ "destination": "/data", "type": "tmpfs", "source": "tmpfs",
                        "options": ["nosuid", "noexec", "nodev"] });
    let facts = read_only(json!(["/data"])).mount(tmpfs).facts();
    let mount = mount_at(&facts, "/data");
    differs([crun_before("1.9", "drops them")], || {
        for flag in ["ro", "nosuid", "noexec", "nodev"] {
            assert!(has(&mount["options"], flag), "{flag}: {mount}");
        }
    });
}

#[test]
fn sysctls_cannot_be_written_by_default() {
    need!(root);
    let out = Bundle::new().probe(["try", "write", "/proc/sys/kernel/shm_rmid_forced", "0"]).run().ok();
    assert_eq!(out.json(), json!({ "errno": "EROFS" }));
}

/// Links of an image lead inside the image.
#[test]
fn masks_through_links_stay_in_the_rootfs() {
    need!(root);
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("file"), "of the host").unwrap();
    let target = outside.path().to_owned();
    let out = masking(json!(["/link/file", "/relative"]))
        .rootfs(|r| {
            symlink(&target, r.join("link")).unwrap();
            symlink("../../../data/file", r.join("relative")).unwrap();
            fs::write(r.join("data/file"), "secret").unwrap();
        })
        .probe(["try", "read", "/data/file", ",", "facts"])
        .run()
        .ok();
    let lines = out.json_lines();
    assert_eq!(lines[0], json!({ "ok": "" }));
    assert_eq!(fs::read_to_string(outside.path().join("file")).unwrap(), "of the host");
    assert_eq!(
        fs::read_to_string("/proc/self/mountinfo").unwrap().matches(target.to_str().unwrap()).count(),
        0
    );
}

/// CVE-2025-31133: the mask's source is /dev/null, which an image or a mount may have replaced.
#[test]
fn a_null_device_that_is_a_link_masks_nothing_else() {
    need!(root);
    let source = tempfile::tempdir().unwrap();
    symlink("/proc/sys/kernel/core_pattern", source.path().join("null")).unwrap();
    fs::set_permissions(source.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let mut bundle = masking(json!(["/data/file"]))
        .rootfs(|r| fs::write(r.join("data/file"), "secret").unwrap())
        .probe(["try", "read", "/data/file", ",", "facts"]);
    for mount in bundle.config["mounts"].as_array_mut().unwrap() {
        if mount["destination"] == "/dev" {
            *mount = json!({ "destination": "/dev", "type": "bind", "source": source.path(), "options": ["rbind"] });
        }
    }
    bundle.config["mounts"]
        .as_array_mut()
        .unwrap()
        .retain(|m| !m["destination"].as_str().unwrap().starts_with("/dev/"));
    let container = bundle.container();
    let out = container.run();
    // Refused is good too; what must not be is a way to write to the core pattern.
    differs([runc_before("1.2.8", "the link is the mask")], || {
        if out.status.success() {
            let facts = &out.json_lines()[1];
            let mount = mount_at(facts, "/data/file");
            assert_ne!(mount["root"], "/sys/kernel/core_pattern", "{mount}");
        }
    });
}

#[test]
fn the_masks_hold_in_a_user_namespace() {
    need!(root, userns);
    let out = masking(json!(["/data/file", "/data/directory"]))
        .rootfs(|r| {
            fs::write(r.join("data/file"), "secret").unwrap();
            fs::create_dir(r.join("data/directory")).unwrap();
            fs::write(r.join("data/directory/file"), "secret").unwrap();
        })
        .userns(100_000, 65_536)
        .probe([
            "try",
            "read",
            "/data/file",
            ",",
            "try",
            "list",
            "/data/directory",
            ",",
            "try",
            "umount",
            "/data/file",
        ])
        .run()
        .ok();
    let lines = out.json_lines();
    assert_eq!(lines[0], json!({ "ok": "" }));
    assert_eq!(lines[1], json!({ "ok": [] }));
    assert_eq!(lines[2], json!({ "errno": "EPERM" }));
}

#[test]
fn relative_paths_are_refused() {
    need!(root);
    differs([runc("takes them as relative to the root"), crun("takes them as relative to the root")], || {
        masking(json!(["data/file"])).create_fails();
        read_only(json!(["data/file"])).create_fails();
    });
}
