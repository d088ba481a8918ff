//! `update`: other limits for a container that is there.

use super::Runtime;
use super::status::status;
use crate::cgroup;
use crate::config::Resources;
use crate::config::id::ContainerId;
use crate::error::{Error, Lifecycle, Result};
use crate::host::Facts;
use crate::state::{Dir, Status};

/// All that `resources` asks for, or nothing of it. What it does not mention stays; device rules stay
/// in any case.
///
/// A paused container stays paused: on both versions limits can be changed without stopping anybody,
/// so nothing is frozen here and nothing thawed.
pub fn update(runtime: &Runtime, id: &ContainerId, resources: &Resources) -> Result<()> {
    let dir = Dir::open(&runtime.root, id)?;
    // Two updates at once would read each other's half as what was there before.
    let _lock = dir.lock()?;
    let record = dir.load()?;
    match status(&dir, &record)? {
        Status::Created | Status::Running | Status::Paused => {}
        Status::Creating | Status::Stopped => {
            return Err(Error::State { id: id.to_string(), why: Lifecycle::NotRunning });
        }
    }
    let mut resources = resources.clone();
    cgroup::complete(&record.cgroup, &mut resources)?;
    let plan = cgroup::plan_update(&record.cgroup, &resources, &Facts::probe()?)?;
    cgroup::update(&record.cgroup, &plan)
}
