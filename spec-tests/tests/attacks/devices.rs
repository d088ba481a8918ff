//! `/dev`: the devices that masks and terminals are made of, and a `/dev` that is a link.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use spec_tests::host_mount::HostMount;
use spec_tests::socket::Listener;
use spec_tests::terminal::Terminal;
use spec_tests::{
    Bundle, Container, Value, crun_before, differs, differs_at_times, json, need, runc, runc_before, youki,
};
use tempfile::TempDir;

use crate::Owner;
use crate::canary::Canary;
use crate::racer::Racer;

fn folder() -> TempDir {
    let dir = tempfile::Builder::new().prefix("spec-dev-").tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    dir
}

fn node(path: &Path, major: u64, minor: u64) {
    mknod(path, SFlag::S_IFCHR, Mode::from_bits_truncate(0o666), makedev(major, minor)).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o666)).unwrap();
}

/// What stands for the host's `core_pattern`: whoever reaches it by a mask reaches that.
const SENTINEL: &str = "/data/sentinel";

/// With the sentinel, and a secret to be masked.
fn masking() -> Bundle {
    Bundle::new()
        .writable()
        .rootfs(|r| {
            fs::write(r.join("data/sentinel"), "untouched").unwrap();
            fs::write(r.join("data/secret"), "secret").unwrap();
            fs::create_dir(r.join("data/secrets")).unwrap();
            fs::write(r.join("data/secrets/one"), "secret").unwrap();
        })
        .linux(|l| l["maskedPaths"] = json!(["/data/secret", "/data/secrets"]))
        .probe(["wait"])
}

/// Refused, or masked by the real null device and an empty folder.
fn is_masked(container: &mut Container) {
    if container.create().status.success() {
        // From outside: an image without devices has no terminal or file for a process to answer by.
        let inside = PathBuf::from(format!("/proc/{}/root/data", container.pid()));
        let mask = fs::metadata(inside.join("secret")).unwrap();
        let is_null = mask.file_type().is_char_device() && mask.rdev() == makedev(1, 3);
        assert!(is_null, "the mask is {mask:?}");
        assert_eq!(fs::read_dir(inside.join("secrets")).unwrap().count(), 0);
    }
    container.delete_by_force().ok();
}

/// Without any mount at `/dev` or below it: the image's own folder.
fn without_dev(bundle: Bundle) -> Bundle {
    bundle.config(|c| {
        c["mounts"]
            .as_array_mut()
            .unwrap()
            .retain(|m| !m["destination"].as_str().unwrap().starts_with("/dev"));
    })
}

fn with_dev_from(bundle: Bundle, source: &Path) -> Bundle {
    without_dev(bundle).mount(json!({
        "destination": "/dev", "type": "bind", "source": source, "options": ["rbind"],
    }))
}

/// CVE-2025-31133, CVE-2025-62161 (youki): the image's `/dev/null` is a link, and so the mask is what it leads to.
#[test]
fn a_null_device_of_the_image_masks_nothing() {
    need!(root);
    for owner in Owner::all("a_null_device_of_the_image_masks_nothing") {
        differs([runc_before("1.2.8", "binds /dev/null by its path")], || {
            let image = masking().rootfs(|r| symlink(SENTINEL, r.join("dev/null")).unwrap());
            is_masked(&mut owner.container(without_dev(image)));
            let dev = folder();
            symlink(SENTINEL, dev.path().join("null")).unwrap();
            is_masked(&mut owner.container(with_dev_from(masking(), dev.path())));
        });
    }
}

/// The same with a null device that is there when it is looked at.
#[test]
fn a_null_device_that_is_exchanged_masks_nothing() {
    need!(root);
    let dev = folder();
    node(&dev.path().join("null"), 1, 3);
    symlink(SENTINEL, dev.path().join("link")).unwrap();
    let mut container = with_dev_from(masking(), dev.path()).container();
    differs_at_times([runc_before("1.2.8", "binds /dev/null by its path")], || {
        Racer::exchanging(&dev.path().join("null"), &dev.path().join("link"))
            .against(|| is_masked(&mut container));
    });
}

/// CVE-2026-41579, CVE-2026-47766 (crun): the image's `/dev` is a link to a folder of the host, in which `ptmx` is
/// replaced and nodes and links are made.
#[test]
fn a_dev_that_is_a_link_leads_nowhere() {
    need!(root);
    differs(
        [
            runc("makes ptmx and links by their paths"),
            crun_before("1.28", "makes nodes by their paths"),
            youki("makes ptmx and links by their paths"),
        ],
        || {
            for owner in Owner::all("a_dev_that_is_a_link_leads_nowhere") {
                let canary = Canary::new(["ptmx"]);
                let climbing = "../".repeat(30) + canary.text().trim_start_matches('/');
                for target in [canary.text(), &climbing] {
                    for mounted in [true, false] {
                        let linked = Bundle::new()
                            .writable()
                            .rootfs(|r| {
                                fs::remove_dir(r.join("dev")).unwrap();
                                symlink(target, r.join("dev")).unwrap();
                            })
                            .process(|p| p["terminal"] = json!(false));
                        let bundle = if mounted { linked } else { without_dev(linked) };
                        // Made inside or refused.
                        owner.container(bundle).create();
                        canary.untouched();
                    }
                }
            }
        },
    );
}

#[test]
fn a_dev_that_is_exchanged_for_a_link_leads_nowhere() {
    need!(root);
    differs_at_times(
        [
            runc("makes ptmx and links by their paths"),
            crun_before("1.28", "makes nodes by their paths"),
            youki("makes ptmx and links by their paths"),
        ],
        || {
            let canary = Canary::new(["ptmx"]);
            let bundle = Bundle::new().writable().rootfs(|r| symlink(canary.path(), r.join("link")).unwrap());
            let mut container = without_dev(bundle).container();
            let rootfs = container.rootfs_path();
            Racer::exchanging(&rootfs.join("dev"), &rootfs.join("link")).against(|| {
                container.create();
                container.delete_by_force().ok();
                canary.untouched();
            });
        },
    );
}

/// A terminal whose `/dev/pts` is from there.
fn in_terminal(pts: &Path, option: &str) -> Bundle {
    let mut bundle = Bundle::new()
        .writable()
        .rootfs(|r| fs::write(r.join("data/sentinel"), "untouched").unwrap())
        .linux(|l| l["rootfsPropagation"] = json!("rslave"))
        .process(|p| {
            p["terminal"] = json!(true);
            p["user"] = json!({ "uid": 1000, "gid": 1000 });
        })
        .probe(["try", "stat", "/dev/console", ",", "try", "write", "/dev/console", "\n"]);
    for old in bundle.config["mounts"].as_array_mut().unwrap() {
        if old["destination"] == "/dev/pts" {
            *old = json!({ "destination": "/dev/pts", "type": "bind", "source": pts, "options": ["rbind", option] });
        }
    }
    bundle
}

/// Refused, or a console that is a pseudo-terminal; and the sentinel neither written to nor given away.
fn has_a_console_of_its_own(container: &mut Container) {
    let path = container.dir().join("console");
    let listener = Listener::bind(&path);
    let out = container.create_with(["--console-socket", path.to_str().unwrap()]);
    if out.status.success() {
        let (_, mut fds) = listener.receive();
        container.start().ok();
        container.wait_for_status("stopped");
        // First of all: whose terminal is another file says nothing here.
        is_untouched(container);
        let mut terminal = Terminal::from(fds.remove(0));
        let text = terminal.read_all();
        let stat: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        let is_pty = stat["ok"]["type"] == "char" && stat["ok"]["device"][0] == 136;
        assert!(is_pty || stat["errno"] == "ENOENT", "{stat}");
    }
    container.delete_by_force().ok();
    drop(listener);
    fs::remove_file(path).unwrap();
    is_untouched(container);
}

/// Neither written to nor given away.
#[track_caller]
fn is_untouched(container: &Container) {
    let sentinel = container.rootfs_path().join("data/sentinel");
    assert_eq!(fs::read_to_string(&sentinel).unwrap(), "untouched");
    assert_eq!(fs::metadata(&sentinel).unwrap().uid(), 0, "it was given to the user");
}

/// CVE-2025-52565: `/dev/console` is bound from `/dev/pts/0`, which is a link.
#[test]
fn a_console_is_not_bound_from_a_link() {
    need!(root);
    // A ptmx that is no link and no devpts, with false terminals beside it.
    let pts = folder();
    node(&pts.path().join("ptmx"), 5, 2);
    for number in 0..4 {
        symlink(SENTINEL, pts.path().join(number.to_string())).unwrap();
    }
    has_a_console_of_its_own(&mut in_terminal(pts.path(), "rprivate").container());
}

/// A folder with a devpts, over which there are at times links in the place of terminals.
#[test]
fn a_console_is_not_bound_from_a_folder_that_is_exchanged() {
    need!(root);
    let dir = folder();
    let shared = HostMount::tmpfs(&dir.path().join("shared"), MsFlags::empty()).shared();
    let (pts, links) = (shared.path().join("pts"), dir.path().join("links"));
    fs::create_dir(&pts).unwrap();
    fs::create_dir(&links).unwrap();
    for number in 0..4 {
        symlink(SENTINEL, links.join(number.to_string())).unwrap();
    }
    let mut container = in_terminal(&pts, "rslave").container();
    let data = Some("newinstance,ptmxmode=0666,mode=0666");
    mount(Some("devpts"), &pts, Some("devpts"), MsFlags::empty(), data).unwrap();
    let racer = Racer::new(move || {
        mount(Some(&links), &pts, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
        umount2(&pts, MntFlags::MNT_DETACH).unwrap();
    });
    racer.against(|| has_a_console_of_its_own(&mut container));
    drop(shared);
}
