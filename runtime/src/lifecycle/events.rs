//! `events`: what a container uses, and when the kernel kills in it for want of memory.

use std::time::{Duration, Instant};

use super::Runtime;
use super::status::status;
use crate::cgroup::{Happened, Stats};
use crate::config::id::ContainerId;
use crate::error::{Error, Lifecycle, Result};
use crate::state::{Dir, Record, Status};

#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    Stats(Box<Stats>),
    Oom,
}

/// Once, now.
pub fn stats(runtime: &Runtime, id: &ContainerId) -> Result<Stats> {
    of(runtime, id)?.cgroup.stats()
}

/// Gives `each` the statistics after every `interval`, and what happens between, until the container
/// has ended or `each` fails.
pub fn follow(
    runtime: &Runtime,
    id: &ContainerId,
    interval: Duration,
    each: &mut dyn FnMut(Event) -> Result<()>,
) -> Result<()> {
    let record = of(runtime, id)?;
    let mut watch = record.cgroup.watch()?;
    // An interval that no clock can hold never comes to its end.
    let mut next = Instant::now().checked_add(interval);
    loop {
        match watch.wait(next)? {
            Happened::Oom => each(Event::Oom)?,
            Happened::Ended => return Ok(()),
            Happened::Nothing => {
                each(Event::Stats(Box::new(record.cgroup.stats()?)))?;
                // Not one after another to make up for time that was lost, while the machine slept.
                next = next.and_then(|next| next.checked_add(interval)).map(|next| next.max(Instant::now()));
            }
        }
    }
}

fn of(runtime: &Runtime, id: &ContainerId) -> Result<Record> {
    let dir = Dir::open(&runtime.root, id)?;
    let record = dir.load()?;
    match status(&dir, &record)? {
        Status::Created | Status::Running | Status::Paused => {}
        Status::Creating | Status::Stopped => {
            return Err(Error::State { id: id.to_string(), why: Lifecycle::NoEvents });
        }
    }
    if record.cgroup.is_none() {
        return Err(Error::Host {
            what: format!("events of {id}"),
            why: "the container was made without a cgroup (--cgroup-manager disabled), so nothing is counted"
                .into(),
        });
    }
    Ok(record)
}
