//! config.md, root; config-linux.md, rootfs mount propagation.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::symlink;

use nix::mount::MsFlags;
use spec_tests::facts::{has, mount_at};
use spec_tests::host_mount::HostMount;
use spec_tests::{Bundle, crun, differs, json, need, runc};

const WRITE: [&str; 4] = ["try", "create", "/new", ""];

#[test]
fn a_read_only_root_cannot_be_written_to() {
    need!(root);
    for (readonly, expected) in [
        (json!(true), json!({ "errno": "EROFS" })),
        (json!(false), json!({ "ok": true })),
        (json!(null), json!({ "ok": true })),
    ] {
        let out = Bundle::new()
            .config(|c| match &readonly {
                serde_json::Value::Null => drop(c["root"].as_object_mut().unwrap().remove("readonly")),
                given => c["root"]["readonly"] = given.clone(),
            })
            .capabilities(["CAP_DAC_OVERRIDE"])
            .probe(WRITE)
            .run()
            .ok();
        assert_eq!(out.json(), expected, "readonly {readonly}");
    }
}

#[test]
fn mounts_on_a_read_only_root_can_be_written_to() {
    need!(root);
    let tmpfs = json!({ "destination": "/data", "type": "tmpfs", "source": "tmpfs" });
    let out = Bundle::new()
        .mount(tmpfs)
        .probe(["try", "create", "/data/new", "", ",", "try", "create", "/dev/shm/new", ""])
        .run()
        .ok();
    assert_eq!(out.json_lines(), [json!({ "ok": true }), json!({ "ok": true })]);
}

#[test]
fn a_read_only_root_keeps_the_hosts_directory_writable() {
    need!(root);
    let container = Bundle::new().container();
    container.run().ok();
    fs::write(container.rootfs_path().join("new"), "").unwrap();
}

#[test]
fn the_root_is_a_mount_of_its_own_and_nothing_of_the_host_is_seen() {
    need!(root);
    let out = Bundle::new().probe(["try", "list", "/", ",", "facts", ",", "try", "list", "/.."]).run().ok();
    let lines = out.json_lines();
    let expected = json!({ "ok": ["data", "dev", "etc", "probe", "proc", "run", "sys", "tmp"] });
    assert_eq!(lines[0], expected);
    assert_eq!(lines[2], expected);
    let root = mount_at(&lines[1], "/");
    assert!(root["root"].as_str().unwrap().ends_with("bundle/rootfs"), "{root}");
    let first = lines[1]["mounts"].as_array().unwrap().iter().filter(|m| m["target"] == "/").count();
    assert_eq!(first, 1, "one root");
}

#[test]
fn the_working_directory_cannot_be_outside_after_chroot() {
    need!(root);
    let out = Bundle::new()
        .writable()
        .capabilities(["CAP_SYS_CHROOT", "CAP_DAC_OVERRIDE"])
        .probe([
            "try",
            "chroot",
            "/data",
            ",",
            "try",
            "chdir",
            "../../../../..",
            ",",
            "try",
            "chroot",
            ".",
            ",",
            "try",
            "list",
            "/",
        ])
        .run()
        .ok();
    let last = out.json_lines().pop().unwrap();
    assert_eq!(last, json!({ "ok": ["data", "dev", "etc", "probe", "proc", "run", "sys", "tmp"] }));
}

#[test]
fn no_pivot_moves_the_root_instead() {
    need!(root);
    let container = Bundle::new().probe(["try", "list", "/", ",", "facts"]).container();
    let lines = container.run_with(["--no-pivot"]).ok().json_lines();
    assert_eq!(lines[0]["ok"].as_array().unwrap().len(), 8);
    assert!(mount_at(&lines[1], "/")["root"].as_str().unwrap().ends_with("bundle/rootfs"));
}

#[test]
fn the_path_may_be_absolute_or_relative_to_the_bundle() {
    need!(root);
    for absolute in [true, false] {
        let mut bundle = Bundle::new();
        let elsewhere = bundle.dir().join("elsewhere");
        fs::rename(bundle.rootfs_path(), &elsewhere).unwrap();
        bundle.config["root"]["path"] = if absolute { json!(elsewhere) } else { json!("../elsewhere") };
        let facts = bundle.facts();
        assert!(
            mount_at(&facts, "/")["root"].as_str().unwrap().ends_with("/elsewhere"),
            "absolute {absolute}"
        );
    }
}

#[test]
fn a_path_that_is_a_link_is_refused() {
    need!(root);
    let bundle = Bundle::new();
    let elsewhere = bundle.dir().join("elsewhere");
    fs::rename(bundle.rootfs_path(), &elsewhere).unwrap();
    symlink(&elsewhere, bundle.rootfs_path()).unwrap();
    differs([crun("follows it")], || {
        bundle.create_fails().says("invalid rootfs");
    });
}

#[test]
fn the_hosts_root_is_refused_as_root() {
    need!(root);
    let mounts = || fs::read_to_string("/proc/self/mountinfo").unwrap();
    let at_root = |line: &&str| line.split(' ').nth(4) == Some("/");
    let root_line = |text: String| text.lines().find(at_root).unwrap().to_owned();
    let before = root_line(mounts());
    Bundle::new().config(|c| c["root"]["path"] = json!("/")).create_fails();
    assert_eq!(root_line(mounts()), before);
}

#[test]
fn the_root_may_be_a_mount_point_itself() {
    need!(root);
    let bundle = Bundle::new();
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let rootfs = HostMount::tmpfs(&dir.path().join("rootfs"), MsFlags::empty()).shared();
    for name in ["dev", "proc", "sys", "data"] {
        fs::create_dir(rootfs.path().join(name)).unwrap();
    }
    fs::copy(bundle.rootfs_path().join("probe"), rootfs.path().join("probe")).unwrap();
    let facts = bundle.config(|c| c["root"]["path"] = json!(rootfs.path())).facts();
    let root = mount_at(&facts, "/");
    assert_eq!((&root["type"], &root["root"]), (&json!("tmpfs"), &json!("/")));
    assert!(has(&root["options"], "ro"), "{root}");
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let line = table.lines().find(|l| l.contains(rootfs.text())).unwrap();
    assert!(line.contains(" rw,"), "the host's own mount is as before: {line}");
}

/// The tags of the root of a container whose rootfs is a shared mount of the host.
fn root_tags(word: &str) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let source = HostMount::tmpfs(&dir.path().join("rootfs"), MsFlags::empty()).shared();
    let mut bundle = Bundle::new().linux(|l| l["rootfsPropagation"] = json!(word));
    for name in ["dev", "proc", "sys"] {
        fs::create_dir(source.path().join(name)).unwrap();
    }
    fs::copy(bundle.rootfs_path().join("probe"), source.path().join("probe")).unwrap();
    bundle.config["root"]["path"] = json!(source.path());
    let facts = bundle.facts();
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let own: Vec<&str> = table.lines().filter(|l| l.contains(source.text())).collect();
    assert_eq!(own.len(), 1, "a mount of the container on the host: {own:#?}");
    serde_json::from_value(mount_at(&facts, "/")["propagation"].clone()).unwrap()
}

#[test]
fn the_propagation_of_the_root_is_as_configured() {
    need!(root);
    for word in ["private", "rprivate"] {
        assert!(root_tags(word).is_empty(), "{word}");
    }
    // It may have been made private before, so that nothing leaks: then it is the slave of nothing.
    for word in ["slave", "rslave"] {
        assert!(root_tags(word).iter().all(|t| t.starts_with("master:")), "{word}");
    }
    differs([runc("leaves it private")], || {
        assert_eq!(root_tags("unbindable"), ["unbindable"]);
        for word in ["shared", "rshared"] {
            assert!(root_tags(word).iter().any(|t| t.starts_with("shared:")), "{word}");
        }
    });
}

#[test]
fn an_unknown_propagation_is_refused() {
    need!(root);
    differs([crun("ignores it")], || {
        Bundle::new().linux(|l| l["rootfsPropagation"] = json!("nonsense")).create_fails();
    });
}

#[test]
fn a_root_in_a_directory_that_only_root_may_enter_works_without_user_namespace() {
    need!(root);
    let bundle = Bundle::new();
    fs::set_permissions(bundle.dir(), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    bundle.facts();
}
