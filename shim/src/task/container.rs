//! One container: its first process and its execs.

use std::rc::Rc;

use super::calls::refuse;
use super::{Create, Key, Reply, Status, unsigned};
use crate::error::{Error, Result};
use crate::process::{Exit, Phase, Process};
use crate::runtime::{Mount, Target};

#[derive(Debug)]
pub(super) struct Container {
    pub(super) id: Rc<str>,
    pub(super) target: Rc<Target>,
    pub(super) init: Process,
    pub(super) execs: Vec<Process>,
    /// For the event, until it is sent.
    pub(super) rootfs: Vec<Mount>,
    pub(super) paused: bool,
    pub(super) pausing: bool,
    /// The first process was reaped; held back until all execs' exits are told.
    pub(super) held: Option<Exit>,
    /// The runtime has deleted it, and the exit of its first process is awaited.
    pub(super) deleted: bool,
}

impl Container {
    pub(super) fn new(id: Rc<str>, create: &Create) -> Self {
        Self {
            id,
            target: Rc::new(create.target.clone()),
            init: Process::init(create.names.clone()),
            execs: Vec::new(),
            rootfs: create.rootfs.clone(),
            paused: false,
            pausing: false,
            held: None,
            deleted: false,
        }
    }

    pub(super) fn processes(&self) -> impl Iterator<Item = &Process> {
        std::iter::once(&self.init).chain(&self.execs)
    }

    pub(super) fn processes_mut(&mut self) -> impl Iterator<Item = &mut Process> {
        std::iter::once(&mut self.init).chain(&mut self.execs)
    }

    pub(super) fn process_mut(&mut self, exec_id: &str) -> Result<&mut Process> {
        self.processes_mut()
            .find(|p| p.exec_id == exec_id)
            .ok_or_else(|| Error::NotFound(format!("process does not exist {exec_id}")))
    }

    pub(super) fn key(&mut self, exec_id: &str) -> Result<Key> {
        self.process_mut(exec_id)?;
        Ok(Key { id: self.id.clone(), exec_id: exec_id.into() })
    }

    pub(super) fn status(&self) -> Status {
        match self.init.phase() {
            Phase::Creating | Phase::Created | Phase::Starting => Status::Created,
            Phase::Stopped(_) => Status::Stopped,
            Phase::Running if self.pausing => Status::Pausing,
            Phase::Running if self.paused => Status::Paused,
            Phase::Running => Status::Running,
        }
    }

    pub(super) fn state(&mut self, exec_id: &str) -> Result<Reply> {
        let status = self.status();
        let bundle = self.target.bundle.clone();
        let id = if exec_id.is_empty() { self.id.to_string() } else { exec_id.to_owned() };
        let process = self.process_mut(exec_id)?;
        let status = match (status, process.phase()) {
            // With the container all that is in it stands still.
            (Status::Paused | Status::Pausing, _) => status,
            _ if exec_id.is_empty() => status,
            (_, Phase::Creating | Phase::Created | Phase::Starting) => Status::Created,
            (_, Phase::Running) => Status::Running,
            (_, Phase::Stopped(_)) => Status::Stopped,
        };
        let (pid, names) = (unsigned(process.pid()), process.names.clone());
        Ok(Reply::State { id, bundle, pid, status, names, exit: process.exit() })
    }

    /// The pid of an exec that can be sent a signal.
    pub(super) fn living_exec(&mut self, exec_id: &str) -> Result<i32> {
        let process = self.process_mut(exec_id)?;
        match process.pid() {
            Some(pid) if process.holds(pid) => Ok(pid),
            None if process.exit().is_none() => refuse("process not created"),
            _ => Err(Error::NotFound("process already finished".into())),
        }
    }
}
