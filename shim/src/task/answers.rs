//! What the runtime has done.

use std::rc::Rc;

use super::{Call, EXEC_FAILED, Event, Job, JobId, Key, Kind, Output, Reply, Tasks, unsigned};
use crate::error::Result;
use crate::process::Exit;

impl Tasks {
    /// The runtime has said which process it makes.
    pub fn born(&mut self, job: JobId, pid: i32) {
        let Some(job) = self.jobs.iter().find(|j| j.id == job) else { return };
        let Some(container) = self.containers.iter_mut().find(|c| c.id == job.container) else { return };
        let exec_id = match &job.kind {
            Kind::Exec(_, exec_id) => exec_id.as_str(),
            _ => "",
        };
        if let Ok(process) = container.process_mut(exec_id) {
            process.born(pid);
        }
    }

    /// The runtime is done. The pid is that of a new process, where one was made.
    pub fn done(&mut self, job: JobId, answer: Result<Option<i32>>) {
        let Some(at) = self.jobs.iter().position(|j| j.id == job) else { return };
        let Job { container: id, kind, .. } = self.jobs.remove(at);
        match kind {
            Kind::Create(call) => self.create_done(call, &id, answer),
            Kind::Start(call) => self.start_done(call, &id, answer.map(drop)),
            Kind::Exec(call, exec_id) => self.exec_done(call, &id, &exec_id, answer),
            Kind::Pause(call) => {
                let Some(container) = self.find(&id) else { return };
                container.pausing = false;
                // It may have ended under it; then there is nothing that stands still.
                container.paused =
                    answer.is_ok() && container.held.is_none() && container.init.exit().is_none();
                self.answer(call, answer.map(drop), Event::Paused { id });
            }
            Kind::Resume(call) => {
                let Some(container) = self.find(&id) else { return };
                container.paused &= answer.is_err();
                self.answer(call, answer.map(drop), Event::Resumed { id });
            }
            Kind::Plain(call) => self.out.push_back(Output::Reply(call, answer.map(|_| Reply::Empty))),
            Kind::Delete => self.delete_done(&id, answer.map(drop)),
        }
        if !self.awaits_pids() {
            self.strays = Vec::new();
        }
    }

    fn answer(&mut self, call: Call, answer: Result<()>, event: Event) {
        if answer.is_ok() {
            self.event(event);
        }
        self.out.push_back(Output::Reply(call, answer.map(|()| Reply::Empty)));
    }

    fn create_done(&mut self, call: Call, id: &Rc<str>, answer: Result<Option<i32>>) {
        let pid = match answer {
            Ok(pid) => pid,
            Err(error) => {
                self.containers.retain(|c| c.id != *id);
                self.out.push_back(Output::Close(Key { id: id.clone(), exec_id: String::new() }));
                self.out.push_back(Output::Forget(id.clone()));
                self.out.push_back(Output::Reply(call, Err(error)));
                return;
            }
        };
        let Some(container) = self.containers.iter_mut().find(|c| c.id == *id) else { return };
        container.init.created();
        let early = container.init.settle(pid, &self.strays);
        let pid = unsigned(container.init.pid());
        let event = Event::Create {
            id: id.clone(),
            bundle: container.target.bundle.clone(),
            rootfs: std::mem::take(&mut container.rootfs),
            names: container.init.names.clone(),
            pid,
        };
        self.event(event);
        self.out.push_back(Output::Watch(id.clone()));
        self.reply(call, Reply::Created { pid });
        self.late(id, "", early);
    }

    fn start_done(&mut self, call: Call, id: &Rc<str>, answer: Result<()>) {
        let Some(container) = self.find(id) else { return };
        let early = container.init.take_early();
        let pid = unsigned(container.init.pid());
        match answer {
            Ok(()) => {
                container.init.running();
                self.event(Event::Start { id: id.clone(), pid });
                self.reply(call, Reply::Started { pid });
            }
            Err(error) => {
                container.init.created();
                self.out.push_back(Output::Reply(call, Err(error)));
            }
        }
        self.late(id, "", early);
    }

    fn exec_done(&mut self, call: Call, id: &Rc<str>, exec_id: &str, answer: Result<Option<i32>>) {
        let Some(container) = self.containers.iter_mut().find(|c| c.id == *id) else { return };
        let Ok(process) = container.process_mut(exec_id) else { return };
        match answer {
            Ok(pid) => {
                process.running();
                let early = process.settle(pid, &self.strays);
                let pid = unsigned(process.pid());
                let (id, exec) = (id.clone(), exec_id.to_owned());
                self.event(Event::ExecStarted { id: id.clone(), exec_id: exec, pid });
                self.reply(call, Reply::Started { pid });
                self.late(&id, exec_id, early);
            }
            Err(error) => {
                // It never ran: nothing is told of its end, but nobody shall wait for it in vain.
                let exit = Exit { status: EXEC_FAILED, at: std::time::SystemTime::now() };
                let waiters = process.stopped(exit);
                self.out.push_back(Output::Ended(Key { id: id.clone(), exec_id: exec_id.into() }));
                self.out.push_back(Output::Reply(call, Err(error)));
                self.answer_waiters(waiters, exit);
                self.release_held(id);
            }
        }
    }

    /// An exit that came while the runtime was at work is told now.
    fn late(&mut self, id: &Rc<str>, exec_id: &str, exit: Option<Exit>) {
        if let Some(exit) = exit {
            self.ended(id, exec_id, exit);
        } else {
            self.release_held(id);
        }
    }

    fn delete_done(&mut self, id: &Rc<str>, answer: Result<()>) {
        let Some(container) = self.find(id) else { return };
        if let Err(error) = answer {
            for call in std::mem::take(&mut container.init.deleters) {
                self.out.push_back(Output::Reply(call, Err(error.clone())));
            }
            return;
        }
        container.deleted = true;
        self.finish_delete(id);
    }

    /// Deletion is told last: after the exit of a process that the deletion has ended.
    pub(super) fn finish_delete(&mut self, id: &Rc<str>) {
        let Some(at) = self.containers.iter().position(|c| c.id == *id && c.deleted) else { return };
        let init = &self.containers[at].init;
        if init.pid().is_some() && init.exit().is_none() {
            return;
        }
        let container = self.containers.remove(at);
        for process in container.processes() {
            self.out.push_back(Output::Close(Key { id: id.clone(), exec_id: process.exec_id.clone() }));
        }
        self.out.push_back(Output::Forget(id.clone()));
        let (pid, exit) = (unsigned(container.init.pid()), container.init.exit());
        self.event(Event::Delete { id: id.clone(), pid, exit });
        for call in container.init.deleters {
            self.reply(call, Reply::Deleted { pid, exit });
        }
    }
}
