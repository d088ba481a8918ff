//! What is remembered of a container between two commands: `state.json` of its folder.
//!
//! A shim lives for weeks with the code it was linked with, while the command on disk is replaced:
//! both write the same folders. So each release reads what the release before it and the one after it
//! write. The rule that makes it so:
//!
//! * a field may be added at any time: readers ignore what they do not know, and a field that an
//!   earlier release did not write has a default;
//! * `schema` goes up by one when a field that was there before changes its meaning or goes away, and
//!   that release still reads the old form;
//! * a reader takes its own [`SCHEMA`], the one before and the one after, and refuses all others by name.
//!
//! `tests/state/` keeps one file as each release wrote it.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::cgroup::Paths;
use crate::config::id::ContainerId;
use crate::error::{Error, Result};
use crate::state::time;

/// Of the records that this release writes.
pub const SCHEMA: u32 = 1;

/// A record is a few kilobytes; annotations are the caller's, who may not make us read without end.
const LARGEST: u64 = 16 << 20;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub schema: u32,
    pub id: String,
    pub stage: Stage,
    pub oci_version: String,
    /// Absolute.
    pub bundle: PathBuf,
    /// Absolute, as in the configuration: a name on the host, not proof of what is mounted.
    pub rootfs: PathBuf,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    #[serde(with = "time::rfc3339")]
    pub created: SystemTime,
    /// Effective user id of the creator.
    pub owner: u32,
    /// The container's first process; `None` until it is cloned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init: Option<Init>,
    pub cgroup: Paths,
    /// It shares its pid namespace: then the end of init is not the end of the others.
    #[serde(default)]
    pub shared_pid_namespace: bool,
    /// There are hooks to read from the configuration at `start`, and at `delete`.
    #[serde(default = "yes")]
    pub poststart: bool,
    #[serde(default = "yes")]
    pub poststop: bool,
    /// `--no-new-keyring`: then `exec` joins no session keyring either.
    #[serde(default)]
    pub no_new_keyring: bool,
}

/// Of a record that does not say: then the configuration does.
fn yes() -> bool {
    true
}

/// How far `create` came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// From the first effect on: what is named here may exist and must be undone by `delete --force`.
    Creating,
    /// `create` succeeded.
    Created,
}

/// A process by the two numbers that name it for as long as the machine runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Init {
    pub pid: i32,
    /// Field 22 of `/proc/<pid>/stat`, clock ticks after boot: a reused pid has another one.
    pub start_time: u64,
}

impl Record {
    /// Replaces the record at `path`, so that a reader sees the old one or the new one, whole.
    ///
    /// No `fsync`: the folder is on a tmpfs, and what it tells does not outlive the machine either.
    pub(super) fn save(&self, path: &Path) -> Result<()> {
        let json = serde_json::to_vec(self)
            .map_err(|e| Error::Record { path: path.to_owned(), why: e.to_string() })?;
        replace(path, &json)
    }

    /// Reads and checks. `None` when there is no such file.
    pub(super) fn load(path: &Path, id: &ContainerId) -> Result<Option<Self>> {
        let Some(text) = read(path)? else { return Ok(None) };
        Self::parse(&text, id).map(Some).map_err(|why| Error::Record { path: path.to_owned(), why })
    }

    fn parse(text: &[u8], id: &ContainerId) -> std::result::Result<Self, String> {
        // Before all else, and by itself: the rest of a record from another age need not fit.
        #[derive(Deserialize)]
        struct Version {
            schema: u32,
        }
        let Version { schema } = serde_json::from_slice(text).map_err(|e| e.to_string())?;
        if !(SCHEMA.saturating_sub(1).max(1)..=SCHEMA + 1).contains(&schema) {
            return Err(format!(
                "schema {schema} is not one that this version reads ({SCHEMA} and its neighbours)"
            ));
        }
        let record: Self = serde_json::from_slice(text).map_err(|e| e.to_string())?;
        record.check(id)?;
        Ok(record)
    }

    fn check(&self, id: &ContainerId) -> std::result::Result<(), String> {
        if self.id != id.as_str() {
            return Err(format!("it is the record of another container, {:?}", self.id));
        }
        for (name, path) in [("bundle", &self.bundle), ("rootfs", &self.rootfs)] {
            if !path.is_absolute() {
                return Err(format!("{name} {path:?} is not an absolute path"));
            }
        }
        match self.init {
            Some(init) if init.pid <= 0 => Err(format!("{} is not a process id", init.pid)),
            None if self.stage == Stage::Created => Err("it is created but names no process".into()),
            _ => Ok(()),
        }
    }
}

fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    let size = match fs::metadata(path) {
        Ok(meta) => meta.len(),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::io("stat", path, &e)),
    };
    if size > LARGEST {
        return Err(Error::Record { path: path.to_owned(), why: format!("{size} bytes are too many") });
    }
    match fs::read(path) {
        Ok(text) => Ok(Some(text)),
        // Deleted in between.
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::io("read", path, &e)),
    }
}

/// A new file beside `path`, then `rename(2)` over it.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    // The pid keeps two writers apart; a process has one thread that writes.
    let beside = path.with_extension(format!("{}.tmp", process::id()));
    let result = write_new(&beside, bytes)
        .and_then(|()| fs::rename(&beside, path).map_err(|e| Error::io("rename", &beside, &e)));
    if result.is_err() {
        // The first error is the one to tell; what cannot be removed here goes with the folder.
        drop(fs::remove_file(&beside));
    }
    result
}

fn write_new(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    let mut file = match options.open(path) {
        // Of a writer with our pid that was killed.
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
            fs::remove_file(path).map_err(|e| Error::io("unlink", path, &e))?;
            options.open(path)
        }
        other => other,
    }
    .map_err(|e| Error::io("open", path, &e))?;
    file.write_all(bytes).map_err(|e| Error::io("write", path, &e))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::{Driver, Manager, Place, Unit};
    use std::time::{Duration, UNIX_EPOCH};

    fn record() -> Record {
        Record {
            schema: SCHEMA,
            id: "web".into(),
            stage: Stage::Created,
            oci_version: "1.3.0".into(),
            bundle: "/bundles/web".into(),
            rootfs: "/bundles/web/rootfs".into(),
            annotations: BTreeMap::from([("org.example/a".into(), "\"<&>\u{7}".into())]),
            created: UNIX_EPOCH + Duration::new(1_795_262_400, 123_456_789),
            owner: 0,
            init: Some(Init { pid: 4711, start_time: u64::MAX }),
            cgroup: Paths {
                driver: Driver::Cgroupfs,
                v1: Vec::new(),
                v2: Some(Place {
                    controllers: Vec::new(),
                    folder: "/sys/fs/cgroup/web".into(),
                    name: "/web".into(),
                }),
                unit: None,
            },
            shared_pid_namespace: true,
            poststart: false,
            poststop: true,
            no_new_keyring: true,
        }
    }

    fn id() -> ContainerId {
        ContainerId::new("web").unwrap()
    }

    #[test]
    fn a_record_comes_back_as_it_was_saved() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.json");
        let creating = Record {
            stage: Stage::Creating,
            init: None,
            cgroup: Paths::none(Driver::Disabled),
            annotations: BTreeMap::new(),
            ..record()
        };
        let unit = Some(Unit { name: "tare-web.scope".into(), manager: Manager::User });
        let of_systemd =
            Record { cgroup: Paths { driver: Driver::Systemd, unit, ..record().cgroup }, ..record() };
        for record in [creating, record(), of_systemd] {
            record.save(&path).unwrap();
            assert_eq!(Record::load(&path, &id()).unwrap(), Some(record));
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file is left");
    }

    #[test]
    fn a_leftover_of_a_killed_writer_is_no_obstacle() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.json");
        fs::write(path.with_extension(format!("{}.tmp", process::id())), "torn").unwrap();
        record().save(&path).unwrap();
        assert!(Record::load(&path, &id()).unwrap().is_some());
    }

    #[test]
    fn each_way_a_record_can_be_wrong_is_named() {
        let good = serde_json::to_value(record()).unwrap();
        let with = |key: &str, value: serde_json::Value| {
            let mut v = good.clone();
            v[key] = value;
            v.to_string()
        };
        let whole = good.to_string();
        for (text, needle) in [
            (String::new(), "EOF"),
            (whole[..whole.len() / 2].to_owned(), "EOF"),
            (format!("{whole}x"), "trailing characters"),
            ("{}".into(), "missing field `schema`"),
            (with("schema", 3.into()), "schema 3"),
            (with("schema", 0.into()), "schema 0"),
            (with("schema", (-1).into()), "-1"),
            (with("id", "other".into()), "another container, \"other\""),
            (with("bundle", "b".into()), "bundle \"b\" is not an absolute path"),
            (with("created", "yesterday".into()), "\"yesterday\" is not a time"),
            (with("init", serde_json::json!({"pid": -1, "start_time": 1})), "-1 is not a process id"),
            (with("init", serde_json::Value::Null), "names no process"),
            (with("stage", "running".into()), "unknown variant `running`"),
        ] {
            let why = Record::parse(text.as_bytes(), &id()).unwrap_err();
            assert!(why.contains(needle), "{text}: {why}");
        }
    }

    #[test]
    fn a_record_of_the_next_release_is_read() {
        let mut next = serde_json::to_value(record()).unwrap();
        next["schema"] = (SCHEMA + 1).into();
        next["something_new"] = serde_json::json!([1, 2]);
        let read = Record::parse(next.to_string().as_bytes(), &id()).unwrap();
        assert_eq!(Record { schema: SCHEMA, ..read }, record());
    }

    #[test]
    fn a_name_that_is_not_text_is_an_error_and_leaves_the_record_alone() {
        use std::os::unix::ffi::OsStrExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.json");
        record().save(&path).unwrap();
        let bad = Record { bundle: std::ffi::OsStr::from_bytes(b"/\xff").into(), ..record() };
        assert!(matches!(bad.save(&path), Err(Error::Record { .. })));
        assert_eq!(Record::load(&path, &id()).unwrap(), Some(record()));
    }
}

#[cfg(test)]
mod fuzz {
    use super::*;

    #[test]
    fn records() {
        let seeds = [include_str!("../../tests/state/0.1.0.json")];
        let id = ContainerId::new("web").unwrap();
        let web = seeds.map(|text| {
            let mut record: serde_json::Value = serde_json::from_str(text).unwrap();
            record["id"] = "web".into();
            record.to_string()
        });
        ::fuzz::target("records").json().seeds(web).rounds(5000).run(|bytes| {
            let Ok(record) = Record::parse(bytes, &id) else { return false };
            assert!(record.bundle.is_absolute() && record.rootfs.is_absolute());
            // What a command reads, the next one can read.
            let again = serde_json::to_vec(&record).unwrap();
            assert_eq!(Record::parse(&again, &id).as_ref(), Ok(&record));
            true
        });
    }

    #[test]
    fn moments() {
        let seeds = ["2026-11-21T12:30:59.000000001Z", "1970-01-01T00:00:00Z", "2024-02-29T23:59:59.5Z"];
        ::fuzz::target("moments").seeds(seeds).rounds(20_000).run(|bytes| {
            let Ok(text) = std::str::from_utf8(bytes) else { return false };
            let Some(moment) = time::from_rfc3339(text) else { return false };
            assert_eq!(time::from_rfc3339(&time::to_rfc3339(moment)), Some(moment));
            true
        });
    }
}
