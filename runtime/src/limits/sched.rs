//! The scheduling policy.

use nix::unistd::Pid;

use crate::config::Scheduler;
use crate::error::{Error, Result};
use crate::sys::sched::{SchedAttr, set_scheduler};

pub fn plan(scheduler: &Scheduler) -> SchedAttr {
    SchedAttr {
        size: 0,
        policy: scheduler.policy,
        flags: scheduler.flags,
        nice: scheduler.nice,
        priority: scheduler.priority,
        runtime: scheduler.runtime,
        deadline: scheduler.deadline,
        period: scheduler.period,
    }
}

pub fn apply(pid: Pid, attr: &SchedAttr) -> Result<()> {
    set_scheduler(pid, attr)
        .map_err(|errno| Error::sys("set the scheduling policy", format!("{}", attr.policy), errno))
}
