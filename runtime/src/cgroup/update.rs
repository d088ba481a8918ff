//! Changes the limits of cgroups that are there: all of a plan, or nothing of it.
//!
//! What the files hold is read before the first of them is written, and put back when one does not
//! take its value. Nothing is frozen for it, and no device rule is touched.

use nix::errno::Errno;

use super::apply::check_usage;
use super::change::Change;
use super::folder::Folder;
use super::paths::{Paths, Place};
use super::plan::{Plan, Step};
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
    changes.sort_by_key(Change::is_last);
    let (first, last) = match changes.partition_point(|change| !change.is_last()) {
        0 => (&changes[..], &[][..]),
        count => changes.split_at(count),
    };
    // The manager hears of what there will be before any of it is there: it may refuse, and then
    // nothing has changed.
    tell(paths, first)?;
    let mut written = Vec::new();
    let result = write_all(first, &mut written)
        .and_then(|()| tell(paths, last))
        .and_then(|()| write_all(last, &mut written));
    let Err(error) = result else { return Ok(()) };
    let mut failed = Vec::new();
    // And again the manager first: what it makes of a value, it writes.
    let before: Vec<_> = changes.iter().flat_map(Change::old).collect();
    failed.extend(super::set_back(paths, &before).err());
    // It may have written what we had not come to.
    let untouched = |change: &&Change<'_>| !written.iter().any(|other| other.undoes_the_same(change));
    let untouched = changes.iter().rev().filter(untouched);
    untouched.chain(written.iter().rev().copied()).for_each(|change| change.put_back(&mut failed));
    if failed.is_empty() {
        return Err(error);
    }
    failed.insert(0, error);
    Err(Error::Cleanup(failed))
}

fn tell(paths: &Paths, changes: &[Change<'_>]) -> Result<()> {
    // What is asked for itself comes after what follows from another, and counts.
    let asked = changes.iter().map(|change| (&*change.write.file, &*change.write.value));
    let values: Vec<_> = changes.iter().filter_map(Change::brings).chain(asked).collect();
    super::set(paths, &values)
}

fn write_all<'a, 'b>(changes: &'b [Change<'a>], written: &mut Vec<&'b Change<'a>>) -> Result<()> {
    let mut set = |change: &'b Change<'a>| -> Result<()> {
        // Also a write that failed: files with many keys may have taken a part. Of many attempts the
        // last is the one whose turn it is when all are undone.
        written.retain(|earlier| !earlier.undoes_the_same(change));
        written.push(change);
        if change.write.file != "memory.max" {
            return change.set();
        }
        let before = Memory::look(change.folder)?;
        change.set()?;
        before.nobody_was_killed(change)
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
#[derive(Clone, Copy, PartialEq, Eq)]
struct Memory {
    limit: u64,
    usage: u64,
    /// How often this very cgroup, not one below it, was at its limit with nothing to reclaim.
    oom: u64,
    killed: u64,
}

impl Memory {
    fn look(folder: &Folder) -> Result<Self> {
        let events = |file: &str, name: &str| -> Result<u64> {
            let text = folder.read(file)?;
            let count = text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
            Ok(count.unwrap_or_default())
        };
        Ok(Memory {
            limit: folder.read_value("memory.max")?.parse().unwrap_or(u64::MAX),
            usage: folder.read_value("memory.current")?.parse().unwrap_or(u64::MAX),
            oom: events("memory.events.local", "oom ")?,
            killed: events("memory.events", "oom_kill ")?,
        })
    }

    fn nobody_was_killed(self, change: &Change<'_>) -> Result<()> {
        let killed = self.killed_until(Memory::look(change.folder)?);
        if killed == 0 {
            return Ok(());
        }
        Err(Error::Host {
            what: format!("unable to set memory limit to {} (usage: {})", change.write.value, self.usage),
            why: format!(
                "the kernel killed {killed} process(es) of {} to get below it",
                change.folder.path().display()
            ),
        })
    }

    /// How many the new limit has killed. It kills nobody that is above the old one, or above what was
    /// used: who died meanwhile died of the old one, or of one further down.
    fn killed_until(self, after: Memory) -> u64 {
        if after.limit >= self.limit.min(self.usage) || after.oom == self.oom {
            return 0;
        }
        after.killed.saturating_sub(self.killed)
    }
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
        // Nobody asks for the limit that is there: it is not one to be checked.
        if memory.check_before_update == Some(true) {
            check_usage(&Folder::open(&place.folder)?, None, memory.swap)?;
            memory.check_before_update = None;
        }
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
    use crate::cgroup::Driver;

    #[test]
    fn more_swap_alone_is_not_checked_against_the_limit_that_is_there() {
        let dir = tempfile::tempdir().unwrap();
        for (file, text) in [("memory.max", "4096\n"), ("memory.current", "4096\n")] {
            std::fs::write(dir.path().join(file), text).unwrap();
        }
        let mut paths = Paths::none(Driver::Cgroupfs);
        paths.add(Place { controllers: Vec::new(), folder: dir.path().into(), name: "/box".into() });
        for (swap, refused) in [
            (8192, None),
            (4096, Some("rejecting memory+swap limit 4096 <= usage 4096")),
            (100, Some("rejecting memory+swap limit 100 <= usage 4096")),
        ] {
            let mut resources = Resources::default();
            resources.memory.swap = Some(swap);
            resources.memory.check_before_update = Some(true);
            let result = complete(&paths, &mut resources).map_err(|error| error.to_string());
            match refused {
                None => {
                    assert_eq!(result, Ok(()));
                    assert_eq!(resources.memory.limit, Some(4096));
                    assert_eq!(resources.memory.check_before_update, None, "the limit would be checked");
                }
                Some(why) => assert!(result.as_ref().is_err_and(|e| e.contains(why)), "{result:?}"),
            }
        }
    }

    #[test]
    fn a_limit_has_killed_only_where_it_is_below_the_usage() {
        let state = |limit, usage, oom, killed| Memory { limit, usage, oom, killed };
        let max = u64::MAX;
        for (before, after, expected) in [
            (state(max, 30, 0, 0), state(10, 9, 1, 1), 1),
            (state(max, 30, 5, 7), state(10, 9, 6, 9), 2),
            (state(max, 30, 0, 0), state(10, 9, 1, 0), 0),
            // Raised while the kernel kills for the old limit.
            (state(16, 16, 3, 3), state(31, 20, 4, 4), 0),
            (state(16, 17, 3, 3), state(17, 17, 4, 4), 0),
            (state(16, 16, 3, 3), state(max, 20, 5, 5), 0),
            // Lowered, but to more than is used.
            (state(64, 16, 3, 3), state(32, 16, 4, 4), 0),
            // The limit of a cgroup below it.
            (state(64, 48, 0, 3), state(32, 30, 0, 4), 0),
        ] {
            assert_eq!(before.killed_until(after), expected, "{} -> {}", before.limit, after.limit);
        }
    }
}
