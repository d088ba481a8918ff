//! A bundle under construction.

use std::fs;
use std::os::unix::fs::{PermissionsExt, lchown};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sys::stat::{Mode, umask};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::call::Output;
use crate::container::Container;
use crate::{runtime, spec};

/// A root filesystem with the probe in it, and the configuration that a test changes before it is written.
#[derive(Debug)]
pub struct Bundle {
    pub(crate) dir: TempDir,
    pub(crate) id: String,
    pub(crate) user: Option<(u32, u32)>,
    pub(crate) systemd: bool,
    pub config: Value,
}

impl Default for Bundle {
    fn default() -> Self {
        Self::new()
    }
}

impl Bundle {
    /// A new directory that other users may enter (those of a user namespace must), a rootfs, an unused id.
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        // What a test makes is for users of containers as well, whatever the caller's own files are.
        umask(Mode::from_bits_retain(0o022));
        let id = format!("spec-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let dir = tempfile::Builder::new().prefix("spec-").tempdir().expect("a temporary directory");
        let open = fs::Permissions::from_mode(0o755);
        fs::set_permissions(dir.path(), open.clone()).expect("chmod");
        let mut config = spec::default();
        config["linux"]["cgroupsPath"] = json!(format!("/{id}"));
        let bundle = Bundle { dir, id, user: None, systemd: false, config };
        let rootfs = bundle.rootfs_path();
        for name in ["dev", "etc", "proc", "sys", "tmp", "run", "data"] {
            fs::create_dir_all(rootfs.join(name)).expect("mkdir");
        }
        fs::set_permissions(rootfs.join("tmp"), fs::Permissions::from_mode(0o1777)).expect("chmod");
        let (from, to) = (runtime::probe(), rootfs.join("probe"));
        // A link where the file system is the same one: a hundred tests need no hundred copies.
        if fs::hard_link(&from, &to).is_err() {
            fs::copy(&from, &to).expect("copy the probe");
            fs::set_permissions(&to, open).expect("chmod");
        }
        bundle
    }

    /// The temporary directory; the bundle is in it, and sockets or files of a test may be.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The bundle's directory, with `config.json`.
    pub fn bundle_path(&self) -> PathBuf {
        self.dir.path().join("bundle")
    }

    pub fn rootfs_path(&self) -> PathBuf {
        self.bundle_path().join("rootfs")
    }

    pub fn id(&self) -> &str {
        &self.id
    }

    /// Uses another id than the generated one, for tests of ids. It need not be unique: `--root` is.
    #[must_use]
    pub fn with_id(mut self, id: &str) -> Self {
        id.clone_into(&mut self.id);
        self
    }

    /// Changes any part of the configuration.
    #[must_use]
    pub fn config(mut self, change: impl FnOnce(&mut Value)) -> Self {
        change(&mut self.config);
        self
    }

    #[must_use]
    pub fn process(self, change: impl FnOnce(&mut Value)) -> Self {
        self.config(|c| change(&mut c["process"]))
    }

    #[must_use]
    pub fn linux(self, change: impl FnOnce(&mut Value)) -> Self {
        self.config(|c| change(&mut c["linux"]))
    }

    /// The whole of `process.args`.
    #[must_use]
    pub fn args<const N: usize>(self, args: [&str; N]) -> Self {
        self.process(|p| p["args"] = json!(args.as_slice()))
    }

    /// The probe as the process, with these words. See `src/bin/probe` for its verbs; `,` stands between two.
    #[must_use]
    pub fn probe<const N: usize>(self, words: [&str; N]) -> Self {
        let args: Vec<&str> = std::iter::once("/probe").chain(words).collect();
        self.process(|p| p["args"] = json!(args))
    }

    /// One more environment variable, `NAME=value`.
    #[must_use]
    pub fn env(self, variable: &str) -> Self {
        self.process(|p| push(&mut p["env"], json!(variable)))
    }

    /// The same capabilities in every set but `ambient`, which is emptied.
    #[must_use]
    pub fn capabilities<const N: usize>(self, names: [&str; N]) -> Self {
        let names = json!(names.as_slice());
        self.process(|p| {
            p["capabilities"] =
                json!({ "bounding": names, "effective": names, "permitted": names, "inheritable": names });
        })
    }

    /// One more mount, after the default ones.
    #[must_use]
    pub fn mount(self, mount: Value) -> Self {
        self.config(|c| push(&mut c["mounts"], mount))
    }

    /// One more hook of this kind, for example `prestart`.
    #[must_use]
    pub fn hook(self, kind: &str, hook: Value) -> Self {
        self.config(|c| push(&mut c["hooks"][kind], hook))
    }

    /// The namespace entry of this type; added if absent. `path` null or absent makes a new one.
    #[must_use]
    pub fn namespace(self, kind: &str, path: Option<&str>) -> Self {
        let mut entry = json!({ "type": kind });
        if let Some(path) = path {
            entry["path"] = json!(path);
        }
        self.without_namespace(kind).linux(|l| push(&mut l["namespaces"], entry))
    }

    #[must_use]
    pub fn without_namespace(self, kind: &str) -> Self {
        self.linux(|l| {
            if let Some(list) = l["namespaces"].as_array_mut() {
                list.retain(|n| n["type"] != kind);
            }
        })
    }

    /// A new user namespace: `size` ids from `host` on, beginning with 0 inside. The rootfs changes hands.
    #[must_use]
    pub fn userns(self, host: u32, size: u32) -> Self {
        let map = json!([{ "containerID": 0, "hostID": host, "size": size }]);
        for entry in walk(&self.rootfs_path()) {
            // The probe may be a link to the one build of it: its owner stays.
            if !entry.ends_with("probe") {
                lchown(&entry, Some(host), Some(host)).expect("chown the rootfs");
            }
        }
        self.namespace("user", None).linux(|l| {
            l["uidMappings"] = map.clone();
            l["gidMappings"] = map;
        })
    }

    #[must_use]
    pub fn writable(self) -> Self {
        self.config(|c| c["root"]["readonly"] = json!(false))
    }

    /// Changes the rootfs on disk, for example to add a file.
    #[must_use]
    pub fn rootfs(self, change: impl FnOnce(&Path)) -> Self {
        change(&self.rootfs_path());
        self
    }

    /// Calls the runtime as this ordinary user, who gets the directory.
    #[must_use]
    pub fn as_user(mut self, uid: u32, gid: u32) -> Self {
        for entry in walk(self.dir.path()) {
            if !entry.ends_with("probe") {
                lchown(&entry, Some(uid), Some(gid)).expect("chown the bundle");
            }
        }
        self.user = Some((uid, gid));
        self
    }

    /// systemd makes the cgroup: `spec-ID.scope` in this slice (of the user's manager, if we are not root).
    #[must_use]
    pub fn systemd(mut self, slice: &str) -> Self {
        self.systemd = true;
        let path = format!("{slice}:spec:{}", self.id);
        self.linux(|l| l["cgroupsPath"] = json!(path))
    }

    /// Writes `config.json`; nothing is called yet.
    pub fn container(self) -> Container {
        let text = serde_json::to_vec_pretty(&self.config).expect("JSON");
        fs::write(self.bundle_path().join("config.json"), text).expect("write config.json");
        Container::new(self)
    }

    /// `create`, which must succeed.
    #[track_caller]
    pub fn create(self) -> Container {
        let mut container = self.container();
        container.create().silent();
        container
    }

    /// `create` and `start`, which must succeed.
    #[track_caller]
    pub fn start(self) -> Container {
        let container = self.create();
        container.start().silent();
        container
    }

    /// `run` in the foreground to the end of the process, then `delete`.
    #[track_caller]
    pub fn run(self) -> Output {
        self.container().run()
    }

    /// `create`, which must fail; the rest is cleaned up and checked.
    #[track_caller]
    pub fn create_fails(self) -> Output {
        self.container().create().refused()
    }

    /// What the probe sees in a container of this configuration.
    #[track_caller]
    pub fn facts(self) -> Value {
        self.run().ok().json()
    }
}

fn push(list: &mut Value, item: Value) {
    match list.as_array_mut() {
        Some(items) => items.push(item),
        None => *list = json!([item]),
    }
}

/// A directory and all that is below it, no link followed.
fn walk(top: &Path) -> Vec<PathBuf> {
    let mut found = vec![top.to_owned()];
    let mut next = 0;
    while let Some(path) = found.get(next) {
        if fs::symlink_metadata(path).is_ok_and(|m| m.is_dir()) {
            let entries = fs::read_dir(path).expect("read a directory");
            found.extend(entries.map(|e| e.expect("an entry").path()).collect::<Vec<_>>());
        }
        next += 1;
    }
    found
}
