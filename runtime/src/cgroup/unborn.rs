//! The cgroups of a container whose first process nobody has written down yet: its creator may have
//! died before it made them, and whoever is in them by now can be somebody else. So nothing in them is
//! ever killed. It need not be: a first process that was not told to go ends with its creator.

use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::apply::{is_permission, refuse_in_use};
use super::folder::Folder;
use super::holder::holders;
use super::live::{is_populated, pids_below};
use super::paths::Paths;
use super::plan::{Group, Plan};
use super::systemd;
use crate::error::{Error, Result};

/// For a first process to see that its creator is gone, and to end.
const PATIENCE: Duration = Duration::from_secs(2);

/// What of the plan will be made by us, for the record that is written before the first of it is: a
/// cgroup that is there already is not ours to remove until our process is in it. One that is in use
/// is refused.
pub fn claim(plan: &Plan) -> Result<Paths> {
    let mut paths = Paths::none(plan.driver);
    for group in &plan.groups {
        if is_free(group)? {
            paths.add(group.place.clone());
        }
    }
    // A unit has its cgroups for as long as it is there: with one of them it may be there too.
    let all_are_free = paths.all().count() == plan.groups.len();
    paths.unit = plan.paths().unit.filter(|_| all_are_free);
    Ok(paths)
}

fn is_free(group: &Group) -> Result<bool> {
    match Folder::open_if_there(&group.place.folder) {
        Ok(None) => Ok(true),
        Ok(Some(folder)) => refuse_in_use(&folder).map(|()| false),
        // The container will go without.
        Err(error) if group.optional && is_permission(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Removes cgroups in which nobody is, and their unit if it is that of these cgroups. An error says who
/// holds one; then all of it stays. `warn` hears of a unit that may be left.
pub fn remove_unborn(paths: &Paths, warn: &mut dyn FnMut(String)) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    paths.all().try_for_each(|place| wait_until_empty(&place.folder, deadline))?;
    let stopped = systemd::stop_unborn(paths);
    paths.remove()?;
    if let Err(error) = stopped {
        warn(error.context("the container's cgroups are removed, its unit may be left").to_string());
    }
    Ok(())
}

fn wait_until_empty(folder: &Path, deadline: Instant) -> Result<()> {
    let mut pause = Duration::from_millis(1);
    while !pids_below(folder)?.is_empty() || is_populated(folder)? {
        if Instant::now() >= deadline {
            let Some(who) = holders(folder) else { continue };
            let busy = Error::sys("rmdir", folder.display(), Errno::EBUSY);
            return Err(busy.context(format!("cgroup is still held by {who}")));
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
    Ok(())
}
