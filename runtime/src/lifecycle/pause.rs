//! `pause` and `resume`: the processes of the container stand still, and go on.

use super::Runtime;
use super::status::{is_dying, status};
use crate::config::id::ContainerId;
use crate::error::{Error, Lifecycle, Result};
use crate::state::{Dir, Status};

pub fn pause(runtime: &Runtime, id: &ContainerId) -> Result<()> {
    let dir = Dir::open(&runtime.root, id)?;
    let _lock = dir.lock()?;
    let record = dir.load()?;
    let not_running = || Err(Error::State { id: id.to_string(), why: Lifecycle::NotRunning });
    match status(&dir, &record)? {
        Status::Created | Status::Running => {}
        Status::Creating | Status::Paused | Status::Stopped => return not_running(),
    }
    let frozen = record.cgroup.freeze();
    // Whoever kills sends the signal and thaws what he finds frozen; we freeze and thaw what we find
    // killed. In whichever order the two meet, one of them sees the other.
    match record.init.map_or(Ok(true), is_dying) {
        Ok(false) => frozen,
        dying => {
            record.cgroup.thaw()?;
            dying.and_then(|_| not_running())
        }
    }
}

pub fn resume(runtime: &Runtime, id: &ContainerId) -> Result<()> {
    let dir = Dir::open(&runtime.root, id)?;
    let _lock = dir.lock()?;
    let record = dir.load()?;
    match status(&dir, &record)? {
        Status::Paused => record.cgroup.thaw(),
        Status::Creating | Status::Created | Status::Running | Status::Stopped => {
            Err(Error::State { id: id.to_string(), why: Lifecycle::NotPaused })
        }
    }
}
