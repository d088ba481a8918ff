//! One process of a container: its first one, or one that was added by exec.

use std::time::SystemTime;

use crate::error::{Error, Result};
use crate::task::Call;

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// As a shell has it: 128 and the signal.
    pub status: u32,
    pub at: SystemTime,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The runtime makes the container.
    Creating,
    /// It waits for `start`; of an exec: it was only asked for.
    Created,
    /// The runtime starts it.
    Starting,
    Running,
    Stopped(Exit),
}

/// What the caller gave for standard input, output and error: paths and URIs, empty for none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    pub stdin: String,
    pub stdout: String,
    pub stderr: String,
    pub terminal: bool,
}

#[derive(Debug)]
pub struct Process {
    /// Empty for the container's first.
    pub exec_id: String,
    pub names: Names,
    /// The document of an exec, until it is started.
    pub spec: Vec<u8>,
    phase: Phase,
    pid: Option<i32>,
    /// Its number may be another's since.
    is_reaped: bool,
    /// It ended before the world was told that it runs.
    early: Option<Exit>,
    waiters: Vec<Call>,
    /// Who waits for its deletion.
    pub deleters: Vec<Call>,
}

impl Process {
    /// The first process of a container that is about to be made.
    pub fn init(names: Names) -> Self {
        let (waiters, deleters) = (Vec::new(), Vec::new());
        let (exec_id, spec) = (String::new(), Vec::new());
        let (pid, is_reaped, early) = (None, false, None);
        Self { exec_id, names, spec, phase: Phase::Creating, pid, is_reaped, early, waiters, deleters }
    }

    pub fn exec(exec_id: String, names: Names, spec: Vec<u8>) -> Self {
        Self { exec_id, spec, phase: Phase::Created, ..Self::init(names) }
    }

    pub fn phase(&self) -> Phase {
        self.phase
    }

    pub fn pid(&self) -> Option<i32> {
        self.pid
    }

    pub fn exit(&self) -> Option<Exit> {
        match self.phase {
            Phase::Stopped(exit) => Some(exit),
            _ => None,
        }
    }

    /// Its pid is its own: it has not been reaped. Of one that could not be started nothing more is told.
    pub fn holds(&self, pid: i32) -> bool {
        self.pid == Some(pid) && !self.is_reaped && self.exit().is_none()
    }

    /// It runs in the container, or soon will.
    pub fn is_under_way(&self) -> bool {
        matches!(self.phase, Phase::Starting | Phase::Running)
    }

    /// The runtime is at work on it and has not said its pid: an exit of somebody unknown may be its.
    pub fn awaits_pid(&self) -> bool {
        self.pid.is_none() && matches!(self.phase, Phase::Creating | Phase::Starting)
    }

    pub fn is_deleting(&self) -> bool {
        !self.deleters.is_empty()
    }

    /// The runtime has said its pid. `exit`: it had been reaped already, by the number alone.
    pub fn born(&mut self, pid: i32, exit: Option<Exit>) {
        if self.pid.is_none() {
            self.pid = Some(pid);
            self.is_reaped = exit.is_some();
            self.early = exit;
        }
    }

    pub fn created(&mut self) {
        self.phase = Phase::Created;
    }

    pub fn starting(&mut self) -> Result<()> {
        let what = match self.phase {
            _ if self.is_deleting() => "deleted",
            Phase::Created => {
                self.phase = Phase::Starting;
                return Ok(());
            }
            Phase::Creating => "new",
            Phase::Starting | Phase::Running => "running",
            Phase::Stopped(_) => "stopped",
        };
        Err(Error::Precondition(format!("cannot start a {what} process")))
    }

    pub fn running(&mut self) {
        self.phase = Phase::Running;
    }

    /// It was reaped. `true` when this is its end; else the runtime is still at work on it, and
    /// [`Process::take_early`] has it later.
    pub fn reaped(&mut self, exit: Exit) -> bool {
        self.is_reaped = true;
        if matches!(self.phase, Phase::Creating | Phase::Starting) {
            self.early = Some(exit);
            return false;
        }
        true
    }

    pub fn take_early(&mut self) -> Option<Exit> {
        self.early.take()
    }

    /// Its end is known to the world from now on. The calls that waited for it.
    pub fn stopped(&mut self, exit: Exit) -> Vec<Call> {
        self.phase = Phase::Stopped(exit);
        std::mem::take(&mut self.waiters)
    }

    /// The exit, or `None`: the call is answered when it comes.
    pub fn wait(&mut self, call: Call) -> Option<Exit> {
        let exit = self.exit();
        if exit.is_none() {
            self.waiters.push(call);
        }
        exit
    }

    /// Whether it may be deleted.
    pub fn check_delete(&self) -> Result<()> {
        match self.phase {
            Phase::Created | Phase::Stopped(_) => Ok(()),
            Phase::Creating | Phase::Starting | Phase::Running => {
                Err(Error::Precondition("cannot delete a running process".into()))
            }
        }
    }

    /// Takes a call that is not answered any more out of all lists.
    pub fn forget(&mut self, gone: impl Fn(Call) -> bool) {
        self.waiters.retain(|call| !gone(*call));
    }
}
