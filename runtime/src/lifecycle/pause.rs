//! `pause` and `resume`: the processes of the container stand still, and go on.

use super::Runtime;
use super::status::status;
use crate::config::id::ContainerId;
use crate::error::{Error, Lifecycle, Result};
use crate::state::{Dir, Status};

pub fn pause(runtime: &Runtime, id: &ContainerId) -> Result<()> {
    let dir = Dir::open(&runtime.root, id)?;
    let _lock = dir.lock()?;
    let record = dir.load()?;
    match status(&dir, &record)? {
        Status::Created | Status::Running => record.cgroup.freeze(),
        Status::Creating | Status::Paused | Status::Stopped => {
            Err(Error::State { id: id.to_string(), why: Lifecycle::NotRunning })
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
