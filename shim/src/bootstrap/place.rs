//! Where the server lives: its cgroup, its turn when memory is short.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use crate::error::{Error, Result};

const CGROUPS: &str = "/sys/fs/cgroup";
/// The kernel's greatest `oom_score_adj`.
const WORST: i32 = 1000;

/// Puts the server into the cgroup of the options (`shim_cgroup`). It has to be there.
pub fn join_cgroup(cgroup: &str, pid: u32) -> Result<()> {
    join_below(Path::new(CGROUPS), cgroup, pid)
}

fn join_below(mount: &Path, cgroup: &str, pid: u32) -> Result<()> {
    let relative = cgroup.trim_start_matches('/');
    let join = |procs: &Path| match fs::write(procs, pid.to_string()) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(false),
        Err(e) => Err(Error::io("join cgroup", procs, &e)),
    };
    let mut joined = false;
    if mount.join("cgroup.controllers").exists() {
        joined = join(&mount.join(relative).join("cgroup.procs"))?;
    } else {
        // v1: in each hierarchy where it exists. Some have a second name, as a link.
        for entry in fs::read_dir(mount).map_err(|e| Error::io("list", mount, &e))? {
            let entry = entry.map_err(|e| Error::io("list", mount, &e))?;
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                joined |= join(&entry.path().join(relative).join("cgroup.procs"))?;
            }
        }
    }
    if joined {
        Ok(())
    } else {
        Err(Error::NotFound(format!("failed to load cgroup {cgroup}: no such cgroup")))
    }
}

/// The server goes before containerd, and so does what it watches over: one more than containerd's score.
pub fn adjust_oom_score(containerd: u32, server: u32) -> Result<()> {
    let path = |pid: u32| Path::new("/proc").join(pid.to_string()).join("oom_score_adj");
    let from = path(containerd);
    let text = fs::read_to_string(&from).map_err(|e| Error::io("read", &from, &e))?;
    let score: i32 = text
        .trim()
        .parse()
        .map_err(|_| Error::invalid(format!("{}: {text:?} is no number", from.display())))?;
    let to = path(server);
    fs::write(&to, next_score(score).to_string()).map_err(|e| Error::io("write", &to, &e))
}

fn next_score(score: i32) -> i32 {
    (score + 1).min(WORST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_score_has_an_end() {
        assert_eq!([-999, 0, 999, 1000].map(next_score), [-998, 1, 1000, 1000]);
    }

    fn folder(mount: &Path, path: &str) -> std::path::PathBuf {
        let folder = mount.join(path);
        fs::create_dir_all(&folder).expect("made");
        fs::write(folder.join("cgroup.procs"), "").expect("written");
        folder.join("cgroup.procs")
    }

    #[test]
    fn on_v1_each_hierarchy_that_has_the_cgroup_is_joined() {
        let mount = tempfile::tempdir().expect("a folder");
        let joined = [folder(mount.path(), "memory/shims"), folder(mount.path(), "cpu,cpuacct/shims")];
        folder(mount.path(), "pids");
        fs::remove_file(mount.path().join("pids/cgroup.procs")).expect("removed");
        join_below(mount.path(), "/shims", 7).expect("joined");
        for procs in joined {
            assert_eq!(fs::read_to_string(procs).expect("read"), "7");
        }
    }

    #[test]
    fn on_v2_there_is_one() {
        let mount = tempfile::tempdir().expect("a folder");
        fs::write(mount.path().join("cgroup.controllers"), "").expect("written");
        let procs = folder(mount.path(), "a/shims");
        join_below(mount.path(), "a/shims", 7).expect("joined");
        assert_eq!(fs::read_to_string(procs).expect("read"), "7");
    }
}
