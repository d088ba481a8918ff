//! The smallest limit of memory with which a container starts.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::outcome::call_within;

/// Between two limits that are told apart: the kernel counts in pages.
const PAGE: u64 = 4096;
/// runc needs a few MiB.
const MOST: u64 = 64 << 20;
/// What a limit must let pass to be one with which a container starts; at the edge it is a matter of chance.
const TIMES: usize = 3;

/// A root filesystem of one static program, and what starts it.
#[derive(Debug)]
pub struct SmallLimit {
    dir: TempDir,
    /// Does the kernel's part alone: `integration/bench/floor.c`.
    floor: PathBuf,
}

impl SmallLimit {
    /// `idle` ends at once: `integration/bench/idle.c`.
    ///
    /// # Errors
    /// When the bundle cannot be made.
    pub fn new(floor: &Path, idle: &Path) -> std::io::Result<Self> {
        let dir = tempfile::Builder::new().prefix("small-limit-").tempdir()?;
        let rootfs = dir.path().join("rootfs");
        for name in ["dev", "proc", "sys"] {
            std::fs::create_dir_all(rootfs.join(name))?;
        }
        std::fs::copy(idle, rootfs.join("idle"))?;
        Ok(Self { dir, floor: floor.to_owned() })
    }

    fn id(&self) -> String {
        self.dir.path().file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// In bytes, of the bare system calls; none if they fail with any limit.
    pub fn of_floor(&self) -> Option<u64> {
        smallest(|limit| {
            let mut command = Command::new(&self.floor);
            command.arg("-m").arg(limit.to_string()).arg(self.dir.path().join("rootfs")).arg(self.id());
            succeeds(command.arg("/idle"))
        })
    }

    /// In bytes, of this runtime's `run`; none if it fails with any limit. `entrance` goes before it on the command line:
    /// what a runtime needs around it on this host.
    ///
    /// # Errors
    /// When the runtime's own `spec` does not make a bundle.
    pub fn of(&self, entrance: &[&Path], runtime: &Path) -> std::io::Result<Option<u64>> {
        let bundle = self.dir.path().join("bundle");
        std::fs::create_dir_all(&bundle)?;
        let path = bundle.join("config.json");
        if path.exists() {
            std::fs::remove_file(&path)?;
        }
        if !succeeds(Command::new(runtime).args(["spec", "--bundle"]).arg(&bundle)) {
            // crun's knows no such option.
            Command::new(runtime).arg("spec").current_dir(&bundle).status()?;
        }
        let mut config: Value = serde_json::from_str(&std::fs::read_to_string(&path)?)?;
        config["process"]["terminal"] = json!(false);
        config["process"]["args"] = json!(["/idle"]);
        config["root"]["path"] = json!(self.dir.path().join("rootfs"));
        let words = entrance.iter().copied().chain([runtime]).collect::<Vec<_>>();
        let command = |verb: &[&str]| {
            let mut command = Command::new(words[0]);
            command.args(&words[1..]).arg("--root").arg(self.dir.path().join("root")).args(verb);
            command
        };
        Ok(smallest(|limit| {
            config["linux"]["resources"]["memory"] = json!({ "limit": limit });
            std::fs::write(&path, config.to_string()).is_ok() && {
                let started = succeeds(command(&["run", "--bundle"]).arg(&bundle).arg(self.id()));
                if !started {
                    // Some leave what failed; there is nothing to delete otherwise, and that is no news.
                    succeeds(command(&["delete", "--force"]).arg(self.id()));
                }
                started
            }
        }))
    }
}

/// Whether containers can be given a limit of memory here.
pub fn has_memory_controller() -> bool {
    let unified = statfs("/sys/fs/cgroup").is_ok_and(|fs| fs.filesystem_type() == CGROUP2_SUPER_MAGIC);
    if unified {
        let list = std::fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default();
        list.split_whitespace().any(|controller| controller == "memory")
    } else {
        Path::new("/sys/fs/cgroup/memory").exists()
    }
}

fn succeeds(command: &mut Command) -> bool {
    call_within(Duration::from_secs(30), command.stdin(Stdio::null())).code == 0
}

/// By bisection: below it one of a few tries fails.
fn smallest(mut starts: impl FnMut(u64) -> bool) -> Option<u64> {
    let mut always = |limit: u64| (0..TIMES).all(|_| starts(limit));
    if !always(MOST) {
        return None;
    }
    let (mut fails, mut passes) = (0, MOST / PAGE);
    while passes - fails > 1 {
        let middle = u64::midpoint(fails, passes);
        if always(middle * PAGE) { passes = middle } else { fails = middle }
    }
    Some(passes * PAGE)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_smallest_that_passes_is_found() {
        for edge in [1, 4096, 4097, 200_000, 64 << 20] {
            let found = super::smallest(|limit| limit >= edge).expect("one");
            assert!(found >= edge && found < edge + 4096, "{found} for {edge}");
        }
        assert_eq!(super::smallest(|_| false), None);
    }
}
