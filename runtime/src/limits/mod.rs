//! What the container's process gets of the machine, and how much: one knob per file.
//!
//! All but the personality is set by the runtime, by pid: in a new user namespace the process
//! itself may not raise a limit even to what its creator may have.

pub mod affinity;
pub mod ioprio;
pub mod oom;
pub mod personality;
pub mod rlimits;
pub mod sched;

use nix::unistd::Pid;

use crate::config::{IoPriority, Process, Rlimit};
use crate::error::Result;
use crate::sys::sched::SchedAttr;

use affinity::Mask;

/// What the runtime sets for a process that it has cloned and that waits.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    /// Before the process is moved into the container's cgroup.
    pub initial_affinity: Option<Mask>,
    /// After it; `None`: all that the cgroup has.
    pub affinity: Option<Mask>,
    pub scheduler: Option<SchedAttr>,
    pub io_priority: Option<IoPriority>,
    pub oom_score_adj: Option<i32>,
    pub rlimits: Vec<Rlimit>,
}

impl Limits {
    /// For the container's first process: `execCPUAffinity` is not for it.
    pub fn of_init(process: &Process) -> Self {
        Self {
            initial_affinity: None,
            affinity: None,
            scheduler: process.scheduler.as_ref().map(sched::plan),
            io_priority: process.io_priority,
            oom_score_adj: process.oom_score_adj,
            rlimits: process.rlimits.clone(),
        }
    }

    pub fn of_exec(process: &Process) -> Self {
        let affinity = process.exec_cpu_affinity.as_ref();
        let mask = |list: &Option<Vec<u32>>| list.as_deref().map(Mask::new);
        Self {
            initial_affinity: affinity.and_then(|affinity| mask(&affinity.initial)),
            affinity: affinity.and_then(|affinity| mask(&affinity.final_)),
            ..Self::of_init(process)
        }
    }

    /// Before the process is in the container's cgroup.
    pub fn apply_initial(&self, pid: Pid) -> Result<()> {
        self.initial_affinity.as_ref().map_or(Ok(()), |mask| affinity::apply(pid, mask))
    }

    /// One line for each effect of [`Limits::apply`].
    pub fn describe(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if let Some(score) = self.oom_score_adj {
            lines.push(format!("set its oom_score_adj to {score}"));
        }
        if let Some(scheduler) = &self.scheduler {
            lines.push(format!(
                "set its scheduling policy to {}, nice {}, priority {}, flags {:#x}",
                scheduler.policy, scheduler.nice, scheduler.priority, scheduler.flags
            ));
        }
        if let Some(io) = &self.io_priority {
            lines.push(format!("set its I/O priority to class {}, priority {}", io.class, io.priority));
        }
        lines
    }

    /// The same for those of [`Limits::apply_rlimits`].
    pub fn describe_rlimits(&self) -> Vec<String> {
        let line = |l: &Rlimit| format!("set its {} to {}:{}", l.name, l.soft, l.hard);
        self.rlimits.iter().map(line).collect()
    }

    /// When the process is in the container's cgroup.
    pub fn apply(&self, pid: Pid) -> Result<()> {
        // Affinity before the policy: the kernel refuses SCHED_DEADLINE to a process that may not
        // run everywhere (sched(7)).
        match &self.affinity {
            Some(mask) => affinity::apply(pid, mask)?,
            None => affinity::reset(pid)?,
        }
        if let Some(attr) = &self.scheduler {
            sched::apply(pid, attr)?;
        }
        if let Some(priority) = self.io_priority {
            ioprio::apply(pid, priority)?;
        }
        if let Some(score) = self.oom_score_adj {
            oom::apply(pid, score)?;
        }
        Ok(())
    }

    /// Last of all, when the process has nothing more to set up: its own limits would stop it.
    pub fn apply_rlimits(&self, pid: Pid) -> Result<()> {
        self.rlimits.iter().try_for_each(|limit| rlimits::apply(pid, limit))
    }
}

#[cfg(test)]
mod tests;
