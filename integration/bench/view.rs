//! What `/sys/fs/cgroup` shows the runtimes. crun refuses a host with both versions, so all get the same pure view.

use std::path::Path;
use std::process::Command;

use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};

pub(crate) struct View {
    pub(crate) name: &'static str,
    /// What is started, with the command to run there as its arguments.
    pub(crate) entrance: Command,
}

pub(crate) fn of_this_host() -> Vec<View> {
    if statfs("/sys/fs/cgroup").is_ok_and(|fs| fs.filesystem_type() == CGROUP2_SUPER_MAGIC) {
        return vec![View { name: "cgroup v2", entrance: Command::new("env") }];
    }
    let v1 = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("v1-view.sh"));
    let mut v2 = Command::new("unshare");
    v2.args(["--mount", "--propagation", "private", "sh", "-ec"]);
    v2.arg("umount -R /sys/fs/cgroup; mount -t cgroup2 none /sys/fs/cgroup; exec \"$@\"").arg("_");
    vec![
        View { name: "cgroup v1", entrance: v1 },
        View {
            name: "cgroup v2 (a mount of it beside v1, which holds the controllers: no limits)",
            entrance: v2,
        },
    ]
}
