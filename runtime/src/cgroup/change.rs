//! One write into a file of a cgroup, and what undoes it.

use nix::errno::Errno;

use super::folder::{Folder, is_gone};
use super::resources::Write;
use crate::error::{Error, Result};

pub(super) struct Change<'a> {
    pub(super) folder: &'a Folder,
    pub(super) write: &'a Write,
    before: Vec<Old>,
}

/// What a file held.
#[derive(Debug, PartialEq, Eq)]
struct Old {
    file: String,
    value: String,
    /// What an empty set of processors or memory nodes stood for.
    in_force: Option<String>,
}

impl Old {
    fn new(file: &str, value: impl Into<String>) -> Self {
        Old { file: file.into(), value: value.into(), in_force: None }
    }
}

impl<'a> Change<'a> {
    /// `None`: that there is no such file says the same.
    pub(super) fn look(folder: &'a Folder, write: &'a Write) -> Result<Option<Self>> {
        let failed = |errno| Error::Cgroup {
            file: folder.path().join(&*write.file),
            value: write.value.clone(),
            errno,
        };
        match folder.read_if_there(&write.file).and_then(|text| match text {
            Some(text) => look_before(folder, write, &text).map(Some),
            None => Ok(None),
        }) {
            Ok(Some(before)) => Ok(Some(Change { folder, write, before })),
            Ok(None) if write.may_lack => Ok(None),
            Ok(None) => Err(failed(Errno::ENOENT)),
            Err(error) => {
                let errno = error.errno().unwrap_or(Errno::EIO);
                Err(failed(errno).context("what it holds cannot be read, and so could not be put back"))
            }
        }
    }

    /// Of files of which a kernel has one; that the last of them is not there is the error.
    pub(super) fn look_for_first(folder: &'a Folder, writes: &'a [Write]) -> Result<Option<Self>> {
        let Some((last, others)) = writes.split_last() else { return Ok(None) };
        for write in others {
            match Self::look(folder, write) {
                Err(error) if is_gone(&error) => {}
                other => return other,
            }
        }
        Self::look(folder, last)
    }

    /// The kernel refuses to empty a cpuset that has processes: nothing else may fail after it.
    pub(super) fn is_last(&self) -> bool {
        self.write.file.starts_with("cpuset.")
    }

    pub(super) fn old(&self) -> impl Iterator<Item = (&str, &str)> {
        self.before.iter().map(|old| (&*old.file, &*old.value))
    }

    /// What the kernel makes of another file by this write: who is idle no more has a weight again.
    pub(super) fn brings(&self) -> Option<(&str, &str)> {
        if self.write.file != "cpu.idle" || self.write.value != "0" {
            return None;
        }
        let weight = self.old().find(|(file, _)| *file != "cpu.idle");
        // It was idle: the kernel gives it what a new cgroup has.
        let default = WEIGHTS.into_iter().find(|(file, _)| self.folder.has(file));
        weight.or(default)
    }

    pub(super) fn undoes_the_same(&self, other: &Self) -> bool {
        self.folder.path() == other.folder.path() && self.before == other.before
    }

    pub(super) fn set(&self) -> Result<()> {
        self.folder.write(&self.write.file, &self.write.value).map_err(|error| match error.errno() {
            Some(Errno::EBUSY) => self.busy(error),
            _ => error,
        })
    }

    /// A memory limit of v1 that cannot be reached: in runc's words.
    fn busy(&self, error: Error) -> Error {
        let number = |file: &str| self.folder.read_value(file).unwrap_or_else(|error| error.to_string());
        let (usage, peak) = match &*self.write.file {
            "memory.limit_in_bytes" => ("memory.usage_in_bytes", "memory.max_usage_in_bytes"),
            "memory.memsw.limit_in_bytes" => {
                ("memory.memsw.usage_in_bytes", "memory.memsw.max_usage_in_bytes")
            }
            _ => return error,
        };
        error.context(format!(
            "unable to set memory limit to {} (current usage: {}, peak usage: {})",
            self.write.value,
            number(usage),
            number(peak)
        ))
    }

    pub(super) fn put_back(&self, failed: &mut Vec<Error>) {
        for old in &self.before {
            if let Err(error) = self.put_back_one(old) {
                failed.push(error.context("the limits of before could not be put back"));
            }
        }
    }

    fn put_back_one(&self, old: &Old) -> Result<()> {
        let now = self.folder.read(&old.file)?;
        // What was not changed can be something that the kernel would not take.
        if before(&old.file, &now, &self.write.value).as_deref() == Some(&*old.value) {
            return Ok(());
        }
        let Some(in_force) = &old.in_force else { return self.folder.write(&old.file, &old.value) };
        // A write of nothing is none.
        match self.folder.write(&old.file, "\n") {
            Err(error) if error.errno() == Some(Errno::ENOSPC) => {
                self.folder.write(&old.file, in_force)?;
                Err(error.context(format!("it has {in_force:?} now, which was in force before")))
            }
            other => other,
        }
    }
}

/// Files of which each changes what the others hold.
const WEIGHTS: [(&str, &str); 2] = [("cpu.weight", "100"), ("cpu.shares", "1024")];

fn look_before(folder: &Folder, write: &Write, text: &str) -> Result<Vec<Old>> {
    let file = &*write.file;
    match file {
        "cpu.idle" | "cpu.weight" | "cpu.weight.nice" | "cpu.shares" => weight(folder),
        "cpuset.cpus" | "cpuset.mems" if text.trim_end().is_empty() => {
            let in_force = folder.read_if_there(&format!("{file}.effective"))?;
            let in_force = in_force.map(|text| text.trim_end().to_owned());
            Ok(vec![Old { in_force, ..Old::new(file, "") }])
        }
        _ => Ok(before(file, text, &write.value).into_iter().map(|value| Old::new(file, value)).collect()),
    }
}

/// The kernel forgets the weight of who becomes idle, and gives the idle none but its own.
fn weight(folder: &Folder) -> Result<Vec<Old>> {
    let mut before = Vec::new();
    if let Some(idle) = folder.read_if_there("cpu.idle")? {
        before.push(Old::new("cpu.idle", idle.trim_end()));
    }
    if before.iter().any(|idle| idle.value == "1") {
        return Ok(before);
    }
    for (file, _) in WEIGHTS {
        if let Some(text) = folder.read_if_there(file)? {
            before.push(Old::new(file, text.trim_end()));
        }
    }
    Ok(before)
}

/// What is written to a file to have it hold what it held: `text`, before `value` was written.
fn before(file: &str, text: &str, value: &str) -> Option<String> {
    if file == "memory.oom_control" {
        let line = text.lines().find_map(|line| line.strip_prefix("oom_kill_disable "))?;
        return Some(line.trim().to_owned());
    }
    let Some(default) = unset(file) else { return Some(text.trim_end().to_owned()) };
    // A weight without a device is that of all others.
    let mut words = value.split_ascii_whitespace();
    let key = match (words.next(), words.next()) {
        (Some(key), Some(_)) => key,
        _ => "default",
    };
    let line = text.lines().find(|line| line.split_ascii_whitespace().next() == Some(key));
    Some(match (line, text.trim_end()) {
        (Some(line), _) => line.trim_end().to_owned(),
        (None, weight) if key == "default" => weight.to_owned(),
        (None, _) => format!("{key} {default}"),
    })
}

/// Files that hold a value for each of many keys, mostly devices: what a key that was not there is
/// given to be forgotten.
fn unset(file: &str) -> Option<&'static str> {
    Some(match file {
        "io.max" => "rbps=max wbps=max riops=max wiops=max",
        "io.latency" => "target=0",
        "io.weight" | "io.bfq.weight" | "blkio.bfq.weight" => "default",
        "blkio.bfq.weight_device" | "blkio.weight_device" | "blkio.leaf_weight_device" => "0",
        "rdma.max" => "hca_handle=max hca_object=max",
        "misc.max" | "dmem.max" => "max",
        "dmem.min" | "dmem.low" | "net_prio.ifpriomap" => "0",
        _ if file.starts_with("blkio.throttle.") => "0",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_file_is_put_back_in_its_own_form() {
        const IO_MAX: &str = "8:16 rbps=2097152 wbps=max riops=max wiops=120\n";
        for (file, text, value, expected) in [
            ("memory.max", "max\n", "100", "max"),
            ("memory.limit_in_bytes", "9223372036854771712\n", "100", "9223372036854771712"),
            ("cpu.max", "max 100000\n", "50000 100000", "max 100000"),
            ("cpu.cfs_quota_us", "-1\n", "1", "-1"),
            ("cpuset.cpus", "\n", "0", ""),
            ("cpuset.cpus", "0-3\n", "0", "0-3"),
            ("memory.oom_control", "oom_kill_disable 1\nunder_oom 0\noom_kill 0\n", "0", "1"),
            ("io.max", IO_MAX, "8:16 rbps=1", "8:16 rbps=2097152 wbps=max riops=max wiops=120"),
            ("io.max", IO_MAX, "8:0 rbps=1", "8:0 rbps=max wbps=max riops=max wiops=max"),
            ("io.weight", "default 100\n8:0 200\n", "300", "default 100"),
            ("io.weight", "default 100\n8:0 200\n", "default 300", "default 100"),
            ("io.weight", "default 100\n8:0 200\n", "8:0 300", "8:0 200"),
            ("io.weight", "default 100\n", "8:0 300", "8:0 default"),
            ("io.bfq.weight", "default 100\n", "200", "default 100"),
            ("io.bfq.weight", "100\n", "200", "100"),
            ("blkio.bfq.weight", "100\n", "200", "100"),
            ("blkio.bfq.weight_device", "default 100\n8:0 500\n", "8:0 600", "8:0 500"),
            ("blkio.throttle.read_bps_device", "", "8:0 600", "8:0 0"),
            ("blkio.throttle.read_bps_device", "8:0 500\n8:16 7\n", "8:16 600", "8:16 7"),
            (
                "rdma.max",
                "mlx4_0 hca_handle=2 hca_object=max\n",
                "mlx4_0 hca_handle=9",
                "mlx4_0 hca_handle=2 hca_object=max",
            ),
            ("rdma.max", "", "mlx4_0 hca_handle=9", "mlx4_0 hca_handle=max hca_object=max"),
            ("net_prio.ifpriomap", "lo 0\neth0 5\n", "eth0 7", "eth0 5"),
            ("misc.max", "res_a max\nres_b 4\n", "res_b 9", "res_b 4"),
        ] {
            assert_eq!(before(file, text, value).as_deref(), Some(expected), "{file} {text:?} {value:?}");
        }
    }

    fn folder_with(files: &[(&str, &str)]) -> (tempfile::TempDir, Folder) {
        let dir = tempfile::tempdir().unwrap();
        for (file, text) in files {
            std::fs::write(dir.path().join(file), text).unwrap();
        }
        let folder = Folder::open(dir.path()).unwrap();
        (dir, folder)
    }

    #[test]
    fn who_becomes_idle_or_ends_to_be_has_a_weight_to_come_back() {
        const V2: &[(&str, &str)] =
            &[("cpu.idle", "0\n"), ("cpu.weight", "170\n"), ("cpu.weight.nice", "-2\n")];
        const V2_IDLE: &[(&str, &str)] =
            &[("cpu.idle", "1\n"), ("cpu.weight", "0\n"), ("cpu.weight.nice", "19\n")];
        const V1: &[(&str, &str)] = &[("cpu.idle", "0\n"), ("cpu.shares", "700\n")];
        const V1_IDLE: &[(&str, &str)] = &[("cpu.idle", "1\n"), ("cpu.shares", "3\n")];
        const OLD: &[(&str, &str)] = &[("cpu.weight", "170\n")];
        for (files, write, old, brings) in [
            (V2, ("cpu.idle", "1"), &[("cpu.idle", "0"), ("cpu.weight", "170")][..], None),
            (V2, ("cpu.idle", "0"), &[("cpu.idle", "0"), ("cpu.weight", "170")], Some(("cpu.weight", "170"))),
            (V2, ("cpu.weight", "9"), &[("cpu.idle", "0"), ("cpu.weight", "170")], None),
            // A whole number of nice is not every weight.
            (V2, ("cpu.weight.nice", "9"), &[("cpu.idle", "0"), ("cpu.weight", "170")], None),
            (V2_IDLE, ("cpu.idle", "0"), &[("cpu.idle", "1")], Some(("cpu.weight", "100"))),
            (V2_IDLE, ("cpu.weight", "9"), &[("cpu.idle", "1")], None),
            (V1, ("cpu.idle", "1"), &[("cpu.idle", "0"), ("cpu.shares", "700")], None),
            (V1_IDLE, ("cpu.idle", "0"), &[("cpu.idle", "1")], Some(("cpu.shares", "1024"))),
            (V1_IDLE, ("cpu.shares", "9"), &[("cpu.idle", "1")], None),
            (OLD, ("cpu.weight", "9"), &[("cpu.weight", "170")], None),
        ] {
            let (_dir, folder) = folder_with(files);
            let write = Write::new(write.0, write.1);
            let change = Change::look(&folder, &write).unwrap().unwrap();
            assert_eq!(change.old().collect::<Vec<_>>(), old, "{files:?} {write:?}");
            assert_eq!(change.brings(), brings, "{files:?} {write:?}");
        }
    }

    #[test]
    fn what_holds_what_it_held_is_not_written() {
        let (dir, folder) = folder_with(&[("cpu.idle", "1\n"), ("cpu.weight", "0\n")]);
        let write = Write::new("cpu.weight", "50");
        let change = Change::look(&folder, &write).unwrap().unwrap();
        let file = dir.path().join("cpu.idle");
        for (now, expected) in [("1\n", "1\n"), ("0\n", "1\n")] {
            std::fs::write(&file, now).unwrap();
            let mut failed = Vec::new();
            change.put_back(&mut failed);
            assert!(failed.is_empty(), "{failed:?}");
            assert_eq!(std::fs::read_to_string(&file).unwrap(), expected);
        }
    }
}
