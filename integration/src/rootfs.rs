//! Root filesystems, made once and kept under `.cache/` of the repository.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use crate::outcome::{call, call_within};

/// A root filesystem of busybox: every command of it, a `/etc/passwd`, and empty directories. Made for each caller, who
/// may write to it.
///
/// # Panics
/// When there is no static busybox.
pub fn busybox(rootfs: &Path) {
    for dir in ["bin", "dev", "etc", "home", "proc", "root", "sys", "tmp", "var"] {
        std::fs::create_dir_all(rootfs.join(dir)).expect("a directory of the root filesystem");
    }
    let program = ["/usr/bin/busybox", "/bin/busybox"].into_iter().find(|path| Path::new(path).exists());
    let program = program.expect("busybox-static (integration/install.sh engines)");
    std::fs::copy(program, rootfs.join("bin/busybox")).expect("busybox");
    for name in call(Command::new(program).arg("--list")).ok().out.lines().filter(|name| *name != "busybox") {
        std::os::unix::fs::symlink("busybox", rootfs.join("bin").join(name)).expect("a link to busybox");
    }
    std::fs::write(
        rootfs.join("etc/passwd"),
        "root:x:0:0:root:/root:/bin/sh\nguest:x:1000:1000::/home:/bin/sh\n",
    )
    .expect("passwd");
    std::fs::write(rootfs.join("etc/group"), "root:x:0:\nguest:x:1000:\n").expect("group");
}

/// Debian 12's smallest root filesystem, shared: to be mounted read-only.
///
/// # Panics
/// When mmdebstrap fails.
pub fn debian() -> &'static Path {
    static DEBIAN: OnceLock<PathBuf> = OnceLock::new();
    DEBIAN.get_or_init(|| {
        let cache = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name(".cache");
        let rootfs = cache.join("debian-12");
        if !rootfs.exists() {
            std::fs::create_dir_all(&cache).expect("the cache");
            // Made beside and renamed: half a root filesystem is never taken for one.
            let new = tempfile::tempdir_in(&cache).expect("a directory in the cache");
            let made = new.path().join("rootfs");
            let mut mmdebstrap = Command::new("mmdebstrap");
            mmdebstrap.args(["--quiet", "--variant=minbase"]);
            for docs in ["doc", "man", "locale", "info"] {
                mmdebstrap.arg(format!("--dpkgopt=path-exclude=/usr/share/{docs}/*"));
            }
            call_within(Duration::from_secs(900), mmdebstrap.arg("bookworm").arg(&made)).ok();
            std::fs::rename(&made, &rootfs).expect("rename");
        }
        rootfs
    })
}
