use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};

use super::*;
use crate::starts::starting;

/// In mounts of its own, which end with the thread. The working directory is the thread's own too.
fn in_own_mounts(test: impl FnOnce(&Path) + Send + 'static) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_owned();
    thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_FS).unwrap();
        let private = MsFlags::MS_PRIVATE | MsFlags::MS_REC;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
        mount(Some("t"), &path, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
        fs::create_dir(path.join("rootfs")).unwrap();
        test(&path);
        assert!(mounts_below(&path.join("rootfs")).unwrap().is_empty());
    })
    .join()
    .unwrap();
}

fn a_mount(kind: &str, source: &Path, target: &str, options: &[&str]) -> Mount {
    Mount {
        kind: kind.to_owned(),
        source: source.to_str().unwrap().to_owned(),
        target: target.to_owned(),
        options: options.iter().map(|option| (*option).to_owned()).collect(),
    }
}

fn folder_with(path: &Path, file: &str) -> PathBuf {
    fs::create_dir_all(path).unwrap();
    fs::write(path.join(file), file).unwrap();
    path.to_owned()
}

#[test]
fn an_overlay_of_more_layers_than_a_page_has_room_for() {
    in_own_mounts(|path| {
        let here = std::env::current_dir().unwrap();
        let count = 120;
        // Longer names than containerd's, so that fewer are needed.
        let snapshots = path.join("a-rather-long-name-for-the-folder-of-the-snapshots");
        let layer = |i: usize| snapshots.join(i.to_string()).join("fs");
        let layers: Vec<String> = (0..count)
            .map(|i| folder_with(&layer(i), &format!("layer{i}")).to_str().unwrap().to_owned())
            .collect();
        let (upper, work) = (folder_with(&path.join("upper"), "up"), folder_with(&path.join("work"), "x"));
        let (upper, work) = (format!("upperdir={}", upper.display()), format!("workdir={}", work.display()));
        let lower = format!("lowerdir={}", layers.join(":"));
        assert!(lower.len() > 2 * PAGE);
        let rootfs = path.join("rootfs");
        mount_all(&[a_mount("overlay", Path::new("overlay"), "", &[&upper, &work, &lower])], &rootfs)
            .unwrap();
        assert!((0..count).all(|i| rootfs.join(format!("layer{i}")).exists()));
        fs::write(rootfs.join("new"), "").unwrap();
        assert!(path.join("upper/new").exists());
        assert_eq!(std::env::current_dir().unwrap(), here);
        unmount_all(&rootfs).unwrap();
    });
}

#[test]
fn binds_are_read_only_and_recursive_when_asked() {
    in_own_mounts(|path| {
        let source = folder_with(&path.join("source"), "file");
        fs::create_dir(source.join("below")).unwrap();
        mount(Some("t"), &source.join("below"), Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
        fs::write(source.join("below/inner"), "").unwrap();
        let rootfs = path.join("rootfs");
        for (options, inner, writable) in [
            (&["bind"][..], false, true),
            (&["bind", "ro"], false, false),
            (&["rbind", "ro", "rprivate"], true, false),
            (&["rbind", "rw"], true, true),
        ] {
            mount_all(&[a_mount("bind", &source, "", options)], &rootfs).unwrap();
            assert_eq!(rootfs.join("below/inner").exists(), inner, "{options:?}");
            assert_eq!(fs::write(rootfs.join("file"), "").is_ok(), writable, "{options:?}");
            unmount_all(&rootfs).unwrap();
        }
    });
}

#[test]
fn mounts_stack_and_go_inside_the_root_whatever_links_say() {
    in_own_mounts(|path| {
        let base = folder_with(&path.join("base"), "base");
        let outside = folder_with(&path.join("outside"), "outside");
        fs::create_dir(base.join("data")).unwrap();
        std::os::unix::fs::symlink("/data", base.join("link")).unwrap();
        std::os::unix::fs::symlink(&outside, base.join("out")).unwrap();
        let rootfs = path.join("rootfs");
        let more = folder_with(&path.join("more"), "more");
        let mounts = [
            a_mount("bind", &base, "", &["bind"]),
            a_mount("bind", &base, "", &["bind"]),
            a_mount("bind", &more, "/link", &["bind", "ro", "nosuid"]),
        ];
        mount_all(&mounts, &rootfs).unwrap();
        assert_eq!(mounts_below(&rootfs).unwrap().len(), 3);
        assert!(rootfs.join("data/more").exists());
        // In use: it is detached.
        let _held = File::open(rootfs.join("data/more")).unwrap();
        unmount_all(&rootfs).unwrap();
        assert!(mounts_below(&rootfs).unwrap().is_empty());
        // The link's target is not there inside.
        let mounts = [a_mount("bind", &base, "", &["bind"]), a_mount("bind", &more, "/out", &["bind"])];
        mount_all(&mounts, &rootfs).unwrap_err();
        assert!(!outside.join("more").exists());
    });
}

#[test]
fn all_are_mounted_or_none() {
    in_own_mounts(|path| {
        let base = folder_with(&path.join("base"), "base");
        let rootfs = path.join("rootfs");
        let good = || a_mount("bind", &base, "", &["bind"]);
        for (bad, named) in [
            (a_mount("nosuchfs", Path::new("none"), "", &[]), "nosuchfs"),
            (a_mount("bind", Path::new("/absent"), "", &["bind"]), "no such file or directory"),
            (a_mount("bind", &base, "absent", &["bind"]), "absent"),
            (a_mount("tmpfs", Path::new("t"), "", &["size=many"]), "tmpfs"),
            (a_mount("overlay", Path::new("o"), "", &["lowerdir=/a", &"x".repeat(5000)]), "too long"),
            (a_mount("ext4", &base.join("base"), "", &["loop"]), "ext4"),
            (a_mount("bind", &base, "", &["bind", "uidmap=0:1:2", "gidmap=0:1"]), "0:1"),
            (a_mount("fuse3.absent", &base, "", &[]), "mount.fuse3"),
        ] {
            // A helper is started.
            let error = starting(|| mount_all(&[good(), good(), bad], &rootfs)).unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
            assert!(mounts_below(&rootfs).unwrap().is_empty(), "after: {error}");
        }
    });
}

#[test]
fn a_file_is_mounted_by_a_loop_device_that_is_free_again_after() {
    in_own_mounts(|path| {
        let image = path.join("image");
        let made = starting(|| Command::new("mkfs.ext4").args(["-q"]).arg(&image).arg("4m").spawn());
        if !made.and_then(|mut child| child.wait()).is_ok_and(|status| status.success()) {
            spec_tests::need::skip_this("mkfs.ext4", "not installed");
            return;
        }
        let attached = || {
            let files = fs::read_dir("/sys/block").unwrap().filter_map(std::result::Result::ok);
            let backing =
                files.filter_map(|entry| fs::read_to_string(entry.path().join("loop/backing_file")).ok());
            backing.filter(|file| Path::new(file.trim_end()) == image).count()
        };
        let rootfs = path.join("rootfs");
        for options in [&["loop"][..], &["loop", "ro"]] {
            mount_all(&[a_mount("ext4", &image, "", options)], &rootfs).unwrap();
            assert!(rootfs.join("lost+found").exists());
            assert_eq!(fs::write(rootfs.join("x"), "").is_ok(), options.len() == 1);
            assert_eq!(attached(), 1);
            unmount_all(&rootfs).unwrap();
            // Only when nobody has it open any more: udev looks at each that changes.
            let end = Instant::now() + Duration::from_secs(20);
            while attached() > 0 {
                assert!(Instant::now() < end, "it is not free after {options:?}");
                thread::sleep(Duration::from_millis(5));
            }
        }
    });
}

#[test]
fn nothing_to_unmount_is_no_error() {
    in_own_mounts(|path| {
        unmount_all(&path.join("rootfs")).unwrap();
        unmount_all(&path.join("absent/rootfs")).unwrap();
        unmount_all(Path::new("/")).unwrap_err();
        // Another with the same beginning stays.
        let other = folder_with(&path.join("rootfs2"), "file");
        mount(Some("t"), &other, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
        unmount_all(&path.join("rootfs")).unwrap();
        assert!(!other.join("file").exists());
    });
}

#[test]
fn names_with_spaces_are_found() {
    in_own_mounts(|path| {
        let odd = path.join("rootfs/a b\\c");
        fs::create_dir(&odd).unwrap();
        mount(Some("t"), &odd, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
        unmount_all(&path.join("rootfs")).unwrap();
    });
}
