//! Changes the limits of cgroups that are there: all of a plan, or nothing of it.
//!
//! What the files hold is read before the first of them is written, and put back when one does not
//! take its value. Nothing is frozen for it, and no device rule is touched.

use nix::errno::Errno;

use super::apply::check_usage;
use super::folder::{Folder, is_gone};
use super::paths::{Paths, Place};
use super::plan::{Plan, Step};
use super::resources::Write;
use crate::config::Resources;
use crate::error::{Error, Result};

/// Carries out a plan for cgroups that are there ([`plan_update`](super::plan_update)).
pub fn update(paths: &Paths, plan: &Plan) -> Result<()> {
    let mut folders = Vec::with_capacity(plan.groups.len());
    for group in &plan.groups {
        folders.push((Folder::open(&group.place.folder)?, &group.steps));
    }
    let mut changes = Vec::new();
    for (folder, steps) in &folders {
        for step in *steps {
            match step {
                Step::Write(write) => changes.extend(Change::look(folder, write)?),
                Step::FirstThere(writes) => changes.extend(Change::look_for_first(folder, writes)?),
                Step::CheckUsage { limit, swap } => check_usage(folder, *limit, *swap)?,
                // No update changes what a container may do with devices.
                Step::Devices(_) => {}
            }
        }
    }
    let mut memory = None;
    if let Some(change) = changes.iter().find(|change| change.write.file == "memory.max") {
        memory = Some(Memory::look(change)?);
    }
    set_unit(paths, changes.iter().map(|change| (&*change.write.file, &*change.write.value)))?;
    let mut written = Vec::new();
    let result = write_all(&changes, &mut written)
        .and_then(|()| memory.as_ref().map_or(Ok(()), |memory| memory.nobody_was_killed()));
    let Err(error) = result else { return Ok(()) };
    let mut failed: Vec<Error> = written.iter().rev().filter_map(|change| change.put_back().err()).collect();
    let before = changes.iter().flat_map(|change| {
        let file = &*change.write.file;
        change.before.iter().map(move |value| (file, &**value))
    });
    failed.extend(set_unit(paths, before).err());
    if failed.is_empty() {
        return Err(error);
    }
    failed.insert(0, error);
    Err(Error::Cleanup(failed))
}

/// The manager hears of all that there will be before any of it is there: it may refuse, and then
/// nothing has changed.
fn set_unit<'a>(paths: &Paths, values: impl Iterator<Item = (&'a str, &'a str)>) -> Result<()> {
    super::set(paths, &values.collect::<Vec<_>>())
}

/// One write, and what undoes it.
struct Change<'a> {
    folder: &'a Folder,
    write: &'a Write,
    before: Vec<String>,
}

impl<'a> Change<'a> {
    /// `None`: that there is no such file says the same.
    fn look(folder: &'a Folder, write: &'a Write) -> Result<Option<Self>> {
        let failed = |errno| Error::Cgroup {
            file: folder.path().join(&*write.file),
            value: write.value.clone(),
            errno,
        };
        match folder.read_if_there(&write.file) {
            Ok(Some(text)) => {
                let before = before(&write.file, &text, &write.value);
                Ok(Some(Change { folder, write, before }))
            }
            Ok(None) if write.may_lack => Ok(None),
            Ok(None) => Err(failed(Errno::ENOENT)),
            Err(error) => {
                let errno = error.errno().unwrap_or(Errno::EIO);
                Err(failed(errno).context("what it holds cannot be read, and so could not be put back"))
            }
        }
    }

    /// Of files of which a kernel has one; that the last of them is not there is the error.
    fn look_for_first(folder: &'a Folder, writes: &'a [Write]) -> Result<Option<Self>> {
        let Some((last, others)) = writes.split_last() else { return Ok(None) };
        for write in others {
            match Self::look(folder, write) {
                Err(error) if is_gone(&error) => {}
                other => return other,
            }
        }
        Self::look(folder, last)
    }

    fn set(&self) -> Result<()> {
        self.folder.write(&self.write.file, &self.write.value).map_err(|error| match error.errno() {
            Some(Errno::EBUSY) => self.busy(error),
            _ => error,
        })
    }

    /// A memory limit of v1 that cannot be reached: in runc's words.
    fn busy(&self, error: Error) -> Error {
        let number = |file: &str| self.folder.read_value(file).unwrap_or_else(|_| "unknown".into());
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

    fn put_back(&self) -> Result<()> {
        self.before
            .iter()
            .try_for_each(|value| self.folder.write(&self.write.file, value))
            .map_err(|error| error.context("the limits of before could not be put back"))
    }
}

fn write_all<'a, 'b>(changes: &'b [Change<'a>], written: &mut Vec<&'b Change<'a>>) -> Result<()> {
    let mut set = |change: &'b Change<'a>| -> Result<()> {
        // Also a write that failed: files with many keys may have taken a part.
        written.push(change);
        change.set()
    };
    // What the kernel refuses beside a neighbour's old value is tried again after the neighbour.
    let mut postponed: Vec<&Change<'_>> = Vec::new();
    for change in changes {
        match set(change) {
            Err(error) if change.write.after_next && error.errno() == Some(Errno::EINVAL) => {
                postponed.push(change);
            }
            result => {
                result?;
                while let Some(earlier) = postponed.pop() {
                    set(earlier)?;
                }
            }
        }
    }
    // Nothing came after it that could have helped: let the kernel say once more why not.
    postponed.pop().map_or(Ok(()), set)
}

/// A limit of v2 is always taken: the kernel kills until it is kept.
struct Memory<'a> {
    folder: &'a Folder,
    limit: &'a str,
    usage: String,
    killed: u64,
}

impl<'a> Memory<'a> {
    fn look(change: &Change<'a>) -> Result<Self> {
        let usage = change.folder.read_value("memory.current")?;
        Ok(Memory {
            folder: change.folder,
            limit: &change.write.value,
            usage,
            killed: killed(change.folder)?,
        })
    }

    fn nobody_was_killed(&self) -> Result<()> {
        let killed = killed(self.folder)?.saturating_sub(self.killed);
        if killed == 0 {
            return Ok(());
        }
        Err(Error::Host {
            what: format!("unable to set memory limit to {} (usage: {})", self.limit, self.usage),
            why: format!(
                "the kernel killed {killed} process(es) of {} to get below it",
                self.folder.path().display()
            ),
        })
    }
}

fn killed(folder: &Folder) -> Result<u64> {
    let text = folder.read_if_there("memory.events")?.unwrap_or_default();
    let count = text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok());
    Ok(count.unwrap_or_default())
}

/// What is written to a file to have it hold what it held: `text`, before `value` was written.
fn before(file: &str, text: &str, value: &str) -> Vec<String> {
    if file == "memory.oom_control" {
        let line = text.lines().find_map(|line| line.strip_prefix("oom_kill_disable "));
        return line.map(|value| vec![value.trim().to_owned()]).unwrap_or_default();
    }
    let Some(default) = unset(file) else {
        // An empty list of processors is written as a line of its own: a write of nothing is none.
        let text = text.trim_end();
        return vec![if text.is_empty() { "\n".into() } else { text.to_owned() }];
    };
    // A weight without a device is that of all others.
    let mut words = value.split_ascii_whitespace();
    let key = match (words.next(), words.next()) {
        (Some(key), Some(_)) => key,
        _ => "default",
    };
    let line = text.lines().find(|line| line.split_ascii_whitespace().next() == Some(key));
    match (line, text.trim_end()) {
        (Some(line), _) => vec![line.trim_end().to_owned()],
        (None, weight) if key == "default" => vec![weight.to_owned()],
        (None, _) => vec![format!("{key} {default}")],
    }
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

/// Fills in what goes into one file with what was asked for, from what the kernel has: the state of
/// truth is there, not in a document of long ago.
pub fn complete(paths: &Paths, resources: &mut Resources) -> Result<()> {
    let Some(place) = &paths.v2 else { return Ok(()) };
    let cpu = &mut resources.cpu;
    let (quota, period) = (cpu.quota.filter(|&q| q != 0), cpu.period.filter(|&p| p != 0));
    if paths.v1_with("cpu").is_none()
        && quota.is_some() != period.is_some()
        && let Some((old_quota, old_period)) = bandwidth(place)?
    {
        // 0 is asked for where one is: then it is the default.
        cpu.quota = cpu.quota.or(Some(old_quota));
        cpu.period = cpu.period.or(Some(old_period));
    }
    let memory = &mut resources.memory;
    if paths.v1_with("memory").is_none()
        && memory.swap.is_some_and(|swap| swap > 0)
        && memory.limit.is_none_or(|limit| limit == 0)
        && let Some(limit) = value(place, "memory.max")?
    {
        memory.limit = Some(limit.parse().unwrap_or(-1));
    }
    Ok(())
}

/// `max 100000`: quota (-1 for none) and period.
fn bandwidth(place: &Place) -> Result<Option<(i64, u64)>> {
    let Some(text) = value(place, "cpu.max")? else { return Ok(None) };
    let Some((quota, period)) = text.split_once(' ') else { return Ok(None) };
    Ok(period.parse().ok().map(|period| (quota.parse().unwrap_or(-1), period)))
}

fn value(place: &Place, file: &str) -> Result<Option<String>> {
    let text = Folder::open(&place.folder)?.read_if_there(file)?;
    Ok(text.map(|text| text.trim_end().to_owned()))
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
            ("cpuset.cpus", "\n", "0", "\n"),
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
            assert_eq!(before(file, text, value), [expected], "{file} {text:?} {value:?}");
        }
    }
}
