//! What is asked for.

use std::rc::Rc;

use super::{
    Call, Container, Create, Event, Exec, Key, Kind, Output, Reply, Request, Status, Tasks, Verb, unsigned,
};
use crate::error::{Error, Result};
use crate::process::Process;

impl Tasks {
    pub fn call(&mut self, call: Call, id: &str, exec_id: &str, request: Request) {
        if let Err(error) = self.try_call(call, id, exec_id, request) {
            self.out.push_back(Output::Reply(call, Err(error)));
        }
    }

    fn try_call(&mut self, call: Call, id: &str, exec_id: &str, request: Request) -> Result<()> {
        match request {
            Request::Create(create) => return self.create(call, create),
            Request::Shutdown => {
                self.reply(call, Reply::Empty);
                if self.containers.is_empty() {
                    self.out.push_back(Output::Shutdown);
                }
                return Ok(());
            }
            Request::Connect => {
                let pid = self.containers.iter().find(|c| &*c.id == id).and_then(|c| c.init.pid());
                self.reply(call, Reply::Connected { pid: unsigned(pid) });
                return Ok(());
            }
            Request::Start => return self.start(call, id, exec_id),
            Request::Delete => return self.delete(call, id, exec_id),
            Request::Exec(exec) => return self.exec(call, id, exec_id, *exec),
            Request::Pause => return self.pause(call, id),
            Request::Resume => return self.resume(call, id),
            Request::Update(resources) => return self.update(call, id, resources),
            Request::Kill { signal, all } if exec_id.is_empty() => {
                let id = self.made(id)?.id.clone();
                self.run(&id, Kind::Plain(call), "", Verb::Kill { signal, all });
                return Ok(());
            }
            _ => {}
        }
        let container = self.made(id)?;
        let id = container.id.clone();
        let output = match request {
            Request::State => Output::Reply(call, container.state(exec_id)),
            Request::Wait => match container.process_mut(exec_id)?.wait(call) {
                Some(exit) => Output::Reply(call, Ok(Reply::Waited(exit))),
                None => return Ok(()),
            },
            Request::Kill { signal, .. } => {
                Output::Signal { call, pid: container.living_exec(exec_id)?, signal }
            }
            Request::ResizePty { width, height } => {
                let key = container.key(exec_id)?;
                let stopped = container.process_mut(exec_id)?.exit().is_some();
                if stopped && !exec_id.is_empty() {
                    return Err(Error::Precondition("cannot resize a stopped container".into()));
                }
                Output::Resize { call, key, width, height }
            }
            Request::CloseIo => Output::CloseIo(call, container.key(exec_id)?),
            Request::Pids => Output::Pids(call, id),
            Request::Stats => Output::Stats(call, id),
            _ => {
                return Err(Error::Unimplemented("checkpoint is not supported yet by tare".into()));
            }
        };
        self.out.push_back(output);
        Ok(())
    }

    fn create(&mut self, call: Call, create: Box<Create>) -> Result<()> {
        let id: Rc<str> = create.target.id.as_str().into();
        if self.containers.iter().any(|c| c.id == id) {
            return Err(Error::AlreadyExists(format!("container {id}")));
        }
        if !create.checkpoint.is_empty() {
            return Err(Error::Unimplemented(
                "restore from a checkpoint is not supported yet by tare".into(),
            ));
        }
        self.containers.push(Container::new(id.clone(), &create));
        self.run(&id, Kind::Create(call), "", Verb::Create(create));
        Ok(())
    }

    fn start(&mut self, call: Call, id: &str, exec_id: &str) -> Result<()> {
        let container = self.made(id)?;
        let id = container.id.clone();
        if exec_id.is_empty() {
            container.init.starting()?;
            self.run(&id, Kind::Start(call), "", Verb::Start);
            return Ok(());
        }
        let ended = container.held.is_some() || container.init.exit().is_some();
        let process = container.process_mut(exec_id)?;
        if ended {
            return Err(Error::Precondition(format!("container {id} init process is not running")));
        }
        process.starting()?;
        let exec = Exec { names: process.names.clone(), spec: std::mem::take(&mut process.spec) };
        self.run(&id, Kind::Exec(call, exec_id.into()), exec_id, Verb::Exec(Box::new(exec)));
        Ok(())
    }

    fn exec(&mut self, call: Call, id: &str, exec_id: &str, exec: Exec) -> Result<()> {
        let container = self.made(id)?;
        // It names files in the bundle.
        if exec_id.is_empty() || exec_id.contains('/') {
            return Err(Error::invalid(format!("{exec_id:?} is no id for an exec")));
        }
        if container.execs.iter().any(|p| p.exec_id == exec_id) {
            return Err(Error::AlreadyExists(format!("id {exec_id}")));
        }
        match container.status() {
            Status::Paused | Status::Pausing => return refuse("cannot exec in a paused state"),
            Status::Stopped => return refuse("cannot exec in a stopped state"),
            Status::Created | Status::Running => {}
        }
        container.execs.push(Process::exec(exec_id.into(), exec.names, exec.spec));
        let id = container.id.clone();
        self.event(Event::ExecAdded { id, exec_id: exec_id.into() });
        self.reply(call, Reply::Empty);
        Ok(())
    }

    fn pause(&mut self, call: Call, id: &str) -> Result<()> {
        let container = self.made(id)?;
        match container.status() {
            Status::Running => {}
            Status::Created => return refuse("cannot pause task in created state"),
            Status::Paused | Status::Pausing => return refuse("cannot pause a paused container"),
            Status::Stopped => return refuse("cannot pause a stopped container"),
        }
        container.pausing = true;
        let id = container.id.clone();
        self.run(&id, Kind::Pause(call), "", Verb::Pause);
        Ok(())
    }

    fn resume(&mut self, call: Call, id: &str) -> Result<()> {
        let container = self.made(id)?;
        match container.status() {
            Status::Paused => {}
            Status::Created => return refuse("cannot resume task in created state"),
            Status::Running | Status::Pausing => return refuse("cannot resume a running process"),
            Status::Stopped => return refuse("cannot resume a stopped container"),
        }
        let id = container.id.clone();
        self.run(&id, Kind::Resume(call), "", Verb::Resume);
        Ok(())
    }

    fn update(&mut self, call: Call, id: &str, resources: Vec<u8>) -> Result<()> {
        let container = self.made(id)?;
        if container.status() == Status::Stopped {
            return refuse("cannot update a stopped container");
        }
        let id = container.id.clone();
        self.run(&id, Kind::Plain(call), "", Verb::Update(resources));
        Ok(())
    }

    fn delete(&mut self, call: Call, id: &str, exec_id: &str) -> Result<()> {
        let container = self.made(id)?;
        if exec_id.is_empty() && matches!(container.status(), Status::Paused | Status::Pausing) {
            return refuse("cannot delete a paused process");
        }
        let key = container.key(exec_id)?;
        let process = container.process_mut(exec_id)?;
        process.check_delete()?;
        process.deleters.push(call);
        if process.deleters.len() > 1 {
            return Ok(());
        }
        // What never ran has nothing in its pipes.
        if process.exit().is_some() {
            self.out.push_back(Output::Drain(key));
        } else {
            self.drained(&key);
        }
        Ok(())
    }

    /// The process that is being deleted has no output left, or took too long over it.
    pub fn drained(&mut self, key: &Key) {
        let Some(container) = self.containers.iter_mut().find(|c| c.id == key.id) else { return };
        if key.exec_id.is_empty() {
            let id = container.id.clone();
            self.run(&id, Kind::Delete, "", Verb::Delete);
            return;
        }
        let Some(at) = container.execs.iter().position(|p| p.exec_id == key.exec_id) else { return };
        let process = container.execs.remove(at);
        self.out.push_back(Output::Close(key.clone()));
        for call in process.deleters.iter().copied() {
            self.reply(call, Reply::Deleted { pid: unsigned(process.pid()), exit: process.exit() });
        }
    }
}

pub(super) fn refuse<T>(why: &str) -> Result<T> {
    Err(Error::Precondition(why.into()))
}
