//! Namespaces of the tests' own process, and ones that a test holds open for containers to join.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::call::eventually;

/// The kinds as the configuration names them, and as `/proc/<pid>/ns` does.
pub const KINDS: [(&str, &str); 8] = [
    ("pid", "pid"),
    ("network", "net"),
    ("ipc", "ipc"),
    ("uts", "uts"),
    ("mount", "mnt"),
    ("user", "user"),
    ("cgroup", "cgroup"),
    ("time", "time"),
];

/// Those of [`KINDS`] that the kernel has: one for a machine without a vDSO has no time namespaces.
pub fn here() -> impl Iterator<Item = (&'static str, &'static str)> {
    KINDS.into_iter().filter(|(_, file)| std::path::Path::new("/proc/self/ns").join(file).exists())
}

/// What the link of a namespace of the tests' own process says, for example `net:[4026531840]`.
pub fn own(file: &str) -> String {
    let link = std::fs::read_link(format!("/proc/self/ns/{file}")).expect("a namespace");
    link.to_string_lossy().into_owned()
}

/// A sleeping process in new namespaces; dropping it ends them, unless a container is in them.
#[derive(Debug)]
pub struct Holder {
    child: Child,
}

impl Holder {
    /// With these options of unshare(1), for example `--net`.
    pub fn new<const N: usize>(options: [&str; N]) -> Self {
        let child = Command::new("unshare")
            .args(options)
            .args(["sleep", "60"])
            .stdin(Stdio::null())
            .spawn()
            .expect("unshare");
        let holder = Holder { child };
        let program = format!("/proc/{}/comm", holder.child.id());
        eventually("unshare executes sleep", || {
            std::fs::read_to_string(&program).is_ok_and(|name| name.trim() == "sleep")
        });
        holder
    }

    /// The path of a namespace, by the name of its file.
    pub fn path(&self, file: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/ns/{file}", self.child.id()))
    }

    pub fn link(&self, file: &str) -> String {
        std::fs::read_link(self.path(file)).expect("a namespace").to_string_lossy().into_owned()
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        self.child.kill().expect("end the holder");
        self.child.wait().expect("reap the holder");
    }
}
