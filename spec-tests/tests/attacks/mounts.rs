//! Where mounts are made, and what is made for them, while somebody exchanges folders of a shared volume for links.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use spec_tests::facts::{has, mount_at};
use spec_tests::runtime::under_test;
use spec_tests::{Bundle, Flavor, Value, crun, differs, differs_at_times, json, need, runc_before, youki};

use crate::Owner;
use crate::canary::Canary;
use crate::racer::{Volume, for_a_while};

fn bind(source: &Path, destination: &str) -> Value {
    json!({ "destination": destination, "type": "bind", "source": source, "options": ["rbind"] })
}

fn folder() -> tempfile::TempDir {
    let dir = tempfile::Builder::new().prefix("spec-source-").tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    dir
}

/// CVE-2021-30465, as it was published. Three volumes: the attacker's, in which a folder is at times a link; one that
/// is mounted on that folder, and on the parent of the third one's source if the link is followed on the host; it
/// has a link to `/` in the place of that source, so that the third mount would bring the host's root.
#[test]
fn no_exchanged_folder_leads_a_mount_to_the_host() {
    need!(root);
    let canary = Canary::new([]);
    let third = folder();
    fs::create_dir(third.path().join("source")).unwrap();
    fs::write(third.path().join("source/mark"), "third").unwrap();
    let second = folder();
    symlink("/", second.path().join("source")).unwrap();
    let bundle = |volume: &Volume| {
        Bundle::new()
            .writable()
            .mount(bind(volume.path(), "/vol"))
            .mount(bind(second.path(), "/vol/x"))
            .mount(bind(&third.path().join("source"), "/data"))
            .probe([
                "try",
                "read",
                "/data/mark",
                ",",
                "try",
                "read",
                &format!("/data{}", canary.text()),
                ",",
                "facts",
            ])
    };
    for owner in Owner::all("no_exchanged_folder_leads_a_mount_to_the_host") {
        let volume = Volume::new(third.path());
        let container = owner.container(bundle(&volume));
        volume.race().against(|| {
            let out = container.run();
            if !out.status.success() {
                return;
            }
            let lines = out.json_lines();
            assert_eq!(lines[0], json!({ "ok": "third" }));
            assert_eq!(lines[1], json!({ "errno": "ENOENT" }));
            assert_eq!(
                mount_at(&lines[2], "/data")["root"].as_str().unwrap().rsplit('/').next(),
                Some("source")
            );
        });
    }
}

/// The same with the racer where it was in life: a container that shares the volume.
#[test]
fn no_folder_that_a_container_exchanges_leads_a_mount_to_the_host() {
    need!(root);
    let canary = Canary::new([]);
    let volume = Volume::new(canary.path());
    let attacker = Bundle::new()
        .writable()
        .mount(bind(volume.path(), "/vol"))
        .probe(["exchange", "/vol/x", "/vol/link"])
        .start();
    attacker.wait_for_stdout("racing");
    let mut container = Bundle::new()
        .writable()
        .mount(bind(volume.path(), "/vol"))
        .mount(json!({ "destination": "/vol/x/made", "type": "tmpfs", "source": "tmpfs" }))
        .probe(["exit", "0"])
        .container();
    differs_at_times([runc_before("1.1.14", "makes folders and files where the link leads")], || {
        for_a_while(|| {
            container.create();
            container.delete_by_force().ok();
            canary.untouched();
        });
    });
    assert!(!attacker.stderr().contains("probe"), "{}", attacker.stderr());
}

/// A mount that is found again by its path to get its flags: another one gets them. Options that are longer than
/// fsconfig(2) takes are what keeps a runtime from setting the flags first.
#[test]
fn a_mount_has_its_flags_while_its_folder_is_exchanged() {
    need!(root);
    let layers = folder();
    let upper = layers.path().join("u".repeat(150)).join("u".repeat(150));
    for name in ["lower", "work"] {
        fs::create_dir(layers.path().join(name)).unwrap();
    }
    fs::create_dir_all(&upper).unwrap();
    let at = layers.path().display();
    let options = json!([
        "nosuid",
        "nodev",
        "noexec",
        "ro",
        format!("lowerdir={at}/lower"),
        format!("workdir={at}/work"),
        format!("upperdir={}", upper.display()),
    ]);
    // The link leads to a mount that then would be protected in its place.
    let volume = Volume::new(Path::new("/vol"));
    let container = Bundle::new()
        .writable()
        .mount(bind(volume.path(), "/vol"))
        .mount(json!({ "destination": "/vol/x", "type": "overlay", "source": "overlay", "options": options }))
        .container();
    let are_set = |facts: &Value| {
        let mounts = facts["mounts"].as_array().unwrap().iter();
        for mount in mounts.filter(|m| m["type"] == "overlay") {
            for flag in ["nosuid", "nodev", "noexec", "ro"] {
                assert!(has(&mount["options"], flag), "{flag}: {mount}");
            }
        }
    };
    let alone = container.run();
    // Options of that length are too much for one peer.
    if under_test().flavor != Flavor::Youki {
        are_set(&alone.ok().json());
    }
    differs_at_times([crun("sets ro by the path")], || {
        volume.race().against(|| {
            let out = container.run();
            if out.status.success() {
                are_set(&out.json());
            }
        });
    });
}

/// CVE-2024-45310: what is missing on the way to a mount, a node or the working directory is made on the host.
#[test]
fn nothing_that_is_missing_is_made_on_the_host() {
    need!(root);
    let file = folder();
    fs::write(file.path().join("file"), "").unwrap();
    for owner in Owner::all("nothing_that_is_missing_is_made_on_the_host") {
        let canary = Canary::new([]);
        // The end of a long way up, and the folder by its name.
        let climbing = "../".repeat(30) + canary.text().trim_start_matches('/');
        for target in [canary.path(), Path::new(&climbing)] {
            let volume = Volume::new(target);
            let devices = json!([{ "path": "/vol/x/e/null", "type": "c", "major": 1, "minor": 3 }]);
            let bundle = Bundle::new()
                .writable()
                .mount(bind(volume.path(), "/vol"))
                .mount(bind(&file.path().join("file"), "/vol/x/a/file"))
                .mount(json!({ "destination": "/vol/x/b/c", "type": "tmpfs", "source": "tmpfs" }))
                .linux(|l| l["devices"] = devices)
                .process(|p| p["cwd"] = json!("/vol/x/d"))
                .probe(["exit", "0"]);
            let mut container = owner.container(bundle);
            if owner == Owner::User {
                std::os::unix::fs::chown(volume.path().join("x"), Some(1000), Some(1000)).unwrap();
            }
            differs_at_times([runc_before("1.1.14", "makes folders and files where the link leads")], || {
                volume.race().against(|| {
                    container.create();
                    container.delete_by_force().ok();
                    volume.clear();
                    canary.untouched();
                });
            });
        }
    }
}

/// CVE-2023-25809: a container without a cgroup namespace, of an ordinary user above all, writes to the host's cgroups.
#[test]
fn no_cgroup_of_the_host_can_be_written_to() {
    need!(root);
    differs([youki("ignores ro")], || {
        for owner in Owner::all("no_cgroup_of_the_host_can_be_written_to") {
            let mut bundle = Bundle::new().without_namespace("cgroup").probe(["wait"]);
            if owner == Owner::User {
                bundle = spec_tests::rootless(bundle);
            }
            // `spec --rootless` has no such mount; engines add it.
            bundle.config["mounts"].as_array_mut().unwrap().retain(|m| m["type"] != "cgroup");
            let mut container = bundle
                .mount(json!({ "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
                           "options": ["nosuid", "noexec", "nodev", "relatime", "ro"] }))
                .container();
            if !container.create().status.success() {
                continue;
            }
            container.start().ok();
            container.wait_for_stdout("ready");
            let facts = container.exec(["facts"]).ok().json();
            let mounts = facts["mounts"].as_array().unwrap();
            // What another one covers, and what lies below that, cannot be reached.
            let covers = |m: &&Value| m["target"] == "/sys/fs/cgroup";
            let is_covered = |m: &Value| mounts.iter().filter(covers).any(|other| other["parent"] == m["id"]);
            let top = mounts.iter().filter(covers).find(|m| !is_covered(m)).unwrap();
            let mut cgroups: Vec<_> =
                mounts.iter().filter(|m| m["parent"] == top["id"]).chain([top]).collect();
            cgroups.retain(|m| m["type"] != "tmpfs");
            assert!(!cgroups.is_empty(), "{owner:?}: {mounts:#?}");
            for mount in cgroups {
                let target = mount["target"].as_str().unwrap();
                // Not by the rights of the host's user alone, who may own cgroups there.
                assert!(has(&mount["options"], "ro"), "{owner:?} {mount}");
                let made = container.exec(["try", "mkdir", &format!("{target}/attack")]).ok().json();
                assert!(
                    ["EROFS", "EACCES", "EPERM"].contains(&made["errno"].as_str().unwrap_or("")),
                    "{target} {made}"
                );
            }
        }
    });
}
