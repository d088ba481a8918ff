//! A container of the runtime under test, made the way a user makes one by hand.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{Outcome, call, runtime};

/// A bundle in a directory of its own, with `--root` and an id that nothing else has. Dropped, it is deleted by
/// force, and the test fails if the host still shows it.
#[derive(Debug)]
pub struct Container {
    dir: TempDir,
    pub id: String,
}

impl Container {
    /// A writable root filesystem of busybox.
    pub fn busybox(args: &[&str]) -> Self {
        let container = Self::empty();
        crate::busybox(&container.bundle().join("rootfs"));
        container.configure(|config| {
            config["process"]["args"] = json!(args);
            config["root"]["readonly"] = json!(false);
        });
        container
    }

    /// Debian 12, read-only, with room in `/tmp` and `/run`.
    pub fn debian(args: &[&str]) -> Self {
        let container = Self::empty();
        container.configure(|config| {
            config["process"]["args"] = json!(args);
            config["root"] = json!({ "path": crate::debian(), "readonly": true });
            let mounts = config["mounts"].as_array_mut().expect("mounts");
            for destination in ["/tmp", "/run"] {
                mounts.push(json!({ "destination": destination, "type": "tmpfs", "source": "tmpfs" }));
            }
        });
        container
    }

    /// The configuration that the runtime's own `spec` writes, without its terminal.
    fn empty() -> Self {
        let dir = tempfile::Builder::new().prefix("integration-").tempdir().expect("a directory");
        let id = dir.path().file_name().expect("a name").to_string_lossy().into_owned();
        let container = Self { dir, id };
        std::fs::create_dir(container.bundle()).expect("the bundle");
        std::fs::create_dir(container.root()).expect("the root");
        call(Command::new(runtime::path()).args(["spec", "--bundle"]).arg(container.bundle())).ok();
        container.configure(|config| config["process"]["terminal"] = json!(false));
        container
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn bundle(&self) -> PathBuf {
        self.dir.path().join("bundle")
    }

    pub fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    /// Edits `config.json`.
    ///
    /// # Panics
    /// When it is not there.
    pub fn configure(&self, edit: impl FnOnce(&mut Value)) {
        let path = self.bundle().join("config.json");
        let text = std::fs::read_to_string(&path).expect("config.json");
        let mut config: Value = serde_json::from_str(&text).expect("config.json");
        edit(&mut config);
        std::fs::write(&path, config.to_string()).expect("config.json");
    }

    /// `RUNTIME --root R VERB OPTIONS… ID`, with the bundle for the verbs that take one.
    pub fn command(&self, verb: &str, options: &[&str]) -> Command {
        let mut command = Command::new(runtime::path());
        command.arg("--root").arg(self.root()).arg(verb).args(options);
        if ["create", "run"].contains(&verb) {
            command.arg("--bundle").arg(self.bundle());
        }
        command.arg(&self.id).stdin(Stdio::null());
        command
    }

    /// Runs a verb to its end.
    #[track_caller]
    pub fn call(&self, verb: &str, options: &[&str]) -> Outcome {
        call(&mut self.command(verb, options))
    }

    /// `exec` of a command line.
    #[track_caller]
    pub fn exec(&self, args: &[&str]) -> Outcome {
        call(self.command("exec", &[]).args(args))
    }

    /// `kill` with a signal's name.
    #[track_caller]
    pub fn kill(&self, signal: &str) -> Outcome {
        call(self.command("kill", &[]).arg(signal))
    }

    /// What `state` says.
    ///
    /// # Panics
    /// When it says no document.
    #[track_caller]
    pub fn state(&self) -> Value {
        let state = self.call("state", &[]).ok();
        serde_json::from_str(&state.out).unwrap_or_else(|error| panic!("{error}: {state:?}"))
    }

    /// The pid outside of the container's first process.
    ///
    /// # Panics
    /// When the state has none.
    #[track_caller]
    pub fn pid(&self) -> i32 {
        let pid = self.state()["pid"].as_i64().expect("a pid");
        i32::try_from(pid).expect("a pid")
    }

    /// What the host shows of the container: mounts, cgroups, files of the runtime; empty after `delete`.
    pub fn traces(&self) -> Vec<String> {
        let mountinfo = std::fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
        let dir = self.dir.path().to_string_lossy().into_owned();
        let mounts = mountinfo.lines().filter(|line| line.contains(&dir)).map(|line| format!("mount {line}"));
        let mut traces: Vec<String> = mounts.collect();
        cgroups_named(Path::new("/sys/fs/cgroup"), &self.id, 4, &mut traces);
        for entry in std::fs::read_dir(self.root()).expect("the root").flatten() {
            traces.push(format!("file {}", entry.path().display()));
        }
        traces
    }
}

/// Cgroups with the id in their name, up to `depth` below `dir`.
fn cgroups_named(dir: &Path, id: &str, depth: u32, found: &mut Vec<String>) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        if entry.file_name().to_string_lossy().contains(id) {
            found.push(format!("cgroup {}", entry.path().display()));
        } else if depth > 1 {
            cgroups_named(&entry.path(), id, depth - 1, found);
        }
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let deleted = self.call("delete", &["--force"]);
        let traces = self.traces();
        if !std::thread::panicking() {
            assert!(traces.is_empty(), "left behind: {traces:#?}; delete --force: {deleted:?}");
        }
    }
}
