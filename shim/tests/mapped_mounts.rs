//! Root file systems with mapped ids. A user namespace is made by a clone, which needs a process of
//! one thread, and libtest has several.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use shim::mount::{Mount, mount_all, unmount_all};
use spec_tests::need;

fn main() {
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_PRIVATE | MsFlags::MS_REC, None::<&str>).unwrap();
    // All temporary files that it sees are its own.
    let folder = std::env::temp_dir();
    mount(Some("t"), &folder, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
    let tried = the_ids_of_a_root_are_mapped(&folder);
    nix::mount::umount2(&folder, nix::mount::MntFlags::MNT_DETACH).unwrap();
    if let Err(reason) = tried {
        need::skip("the_ids_of_a_root_are_mapped", "kernel(6, 3)", &reason);
    }
}

/// The error: why this kernel does not map the ids of a tmpfs.
fn the_ids_of_a_root_are_mapped(folder: &Path) -> Result<(), String> {
    let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    for layer in ["lower1", "lower2", "upper", "work", "rootfs"] {
        fs::create_dir(path(layer)).unwrap();
    }
    for (layer, owner) in [("lower1", 0), ("lower2", 7)] {
        let file = path(&format!("{layer}/{layer}"));
        fs::write(&file, layer).unwrap();
        chown(&file, Some(owner), Some(owner + 1)).unwrap();
    }
    let mount = |kind: &str, source: &str, options: &[&str]| Mount {
        kind: kind.to_owned(),
        source: source.to_owned(),
        target: String::new(),
        options: options.iter().map(|option| (*option).to_owned()).collect(),
    };
    let layers = [
        format!("lowerdir={}:{}", path("lower1"), path("lower2")),
        format!("upperdir={}", path("upper")),
        format!("workdir={}", path("work")),
    ];
    let rootfs = folder.join("rootfs");
    let ids = ["uidmap=0:100000:65536", "gidmap=0:200000:65536"];
    let before = temporary(folder);

    let overlay = [&layers[0], &layers[1], &layers[2], ids[0], ids[1]];
    let mounted = mount_all(&[mount("overlay", "overlay", &overlay)], &rootfs);
    if mounted.as_ref().is_err_and(|error| error.to_string().ends_with("invalid argument")) {
        need::kernel(6, 3)?;
    }
    mounted.unwrap();
    assert_eq!(owner(&rootfs.join("lower1")), (100_000, 200_001));
    assert_eq!(owner(&rootfs.join("lower2")), (100_007, 200_008));
    assert_eq!(temporary(folder), before, "the places of the layers are removed");
    unmount_all(&rootfs).unwrap();

    for options in [&["rbind", ids[0], ids[1]][..], &["bind", "ro", ids[0], ids[1]]] {
        mount_all(&[mount("bind", &path("lower2"), options)], &rootfs).unwrap();
        assert_eq!(owner(&rootfs.join("lower2")), (100_007, 200_008));
        let is_read_only = fs::write(rootfs.join("lower2"), "").is_err();
        assert_eq!(is_read_only, options[1] == "ro");
        unmount_all(&rootfs).unwrap();
        assert!(!rootfs.join("lower2").exists(), "both are unmounted");
    }

    // One word alone maps nothing, and a failure after a mapped mount leaves nothing.
    mount_all(&[mount("bind", &path("lower2"), &["bind", ids[0]])], &rootfs).unwrap();
    assert_eq!(owner(&rootfs.join("lower2")), (7, 8));
    unmount_all(&rootfs).unwrap();
    let mounts = [mount("bind", &path("lower2"), &["bind", ids[0], ids[1]]), mount("nosuchfs", "x", &[])];
    mount_all(&mounts, &rootfs).unwrap_err();
    assert!(!rootfs.join("lower2").exists());
    assert_eq!(temporary(folder), before);
    Ok(())
}

fn owner(path: &Path) -> (u32, u32) {
    let found = fs::metadata(path).unwrap();
    (found.uid(), found.gid())
}

fn temporary(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap();
    let mut names: Vec<String> =
        names.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}
