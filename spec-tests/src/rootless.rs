//! Containers of an ordinary user: a user namespace with one id, no cgroup of the host.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::json;

use crate::bundle::Bundle;
use crate::runtime::under_test;

/// Who calls the runtime.
pub const USER: u32 = 1000;

/// The bundle of this configuration, changed as `spec --rootless` changes the default one, and given to the user.
#[must_use]
pub fn rootless(bundle: Bundle) -> Bundle {
    bundle
        .without_namespace("network")
        .without_namespace("cgroup")
        .userns(USER, 1)
        .config(|c| {
            if let Some(linux) = c["linux"].as_object_mut() {
                linux.remove("cgroupsPath");
                linux.remove("resources");
            }
            let Some(mounts) = c["mounts"].as_array_mut() else { return };
            for mount in mounts.iter_mut() {
                match mount["destination"].as_str() {
                    // gid=5 has no mapping.
                    Some("/dev/pts") => {
                        if let Some(options) = mount["options"].as_array_mut() {
                            options.retain(|o| o != "gid=5");
                        }
                    }
                    // A new sysfs belongs to a new network namespace.
                    Some("/sys") if mount["type"] == "sysfs" => {
                        *mount = json!({ "destination": "/sys", "type": "none", "source": "/sys",
                                         "options": ["rbind", "nosuid", "noexec", "nodev", "ro"] });
                    }
                    _ => {}
                }
            }
            mounts.retain(|m| m["type"] != "cgroup");
        })
        .as_user(USER, USER)
}

/// Whether the user can execute the runtime where it lies.
pub(crate) fn reachable() -> bool {
    static REACHABLE: OnceLock<bool> = OnceLock::new();
    *REACHABLE.get_or_init(|| {
        let mut check = Command::new("setpriv");
        check.args(["--reuid", "1000", "--regid", "1000", "--clear-groups"]);
        let out = check.arg(&under_test().path).arg("--version").output().expect("setpriv");
        out.status.success()
    })
}

/// The runtime's file; a name without a slash is found as the shell does.
pub(crate) fn runtime_file() -> PathBuf {
    let name = Path::new(&under_test().path);
    if name.components().count() > 1 {
        return name.to_owned();
    }
    let path = std::env::var_os("PATH").expect("PATH");
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|p| p.exists()).expect("the runtime in PATH")
}
