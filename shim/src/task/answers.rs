//! What the runtime has done.

use std::rc::Rc;

use super::{Call, EXEC_FAILED, Event, Job, JobId, Key, Kind, Output, Reply, Tasks, unsigned};
use crate::error::{Error, Result};
use crate::process::Exit;

impl Tasks {
    /// The runtime has said which process it makes. `lives`: it has not been reaped; else its exit
    /// is among those of unknown processes, unless it is no child of ours.
    pub fn born(&mut self, job: JobId, pid: i32, lives: bool) {
        let Some(job) = self.jobs.iter().find(|j| j.id == job) else { return };
        let Some(container) = self.containers.iter_mut().find(|c| Rc::ptr_eq(&c.id, &job.container)) else {
            return;
        };
        let exec_id = match &job.kind {
            Kind::Exec(_, exec_id) => exec_id.as_str(),
            _ => "",
        };
        if let Ok(process) = container.process_mut(exec_id) {
            let stray = self.strays.iter().rev().find(|(stray, _)| !lives && *stray == pid);
            process.born(pid, stray.map(|(_, exit)| *exit));
        }
    }

    /// The runtime is done; of a process that it has made [`Self::born`] was told before.
    pub fn done(&mut self, job: JobId, answer: Result<()>) {
        let Some(at) = self.jobs.iter().position(|j| j.id == job) else { return };
        let Job { container: id, kind, .. } = self.jobs.remove(at);
        if self.containers.iter().any(|c| Rc::ptr_eq(&c.id, &id)) {
            self.apply(kind, id, answer);
        } else {
            self.too_late(kind, answer);
        }
        if !self.awaits_pids() {
            self.strays = Vec::new();
        }
    }

    /// The container has ended and was deleted meanwhile; one of its name would be another.
    fn too_late(&mut self, kind: Kind, answer: Result<()>) {
        let (call, answer) = match kind {
            Kind::Plain(call) => (call, answer.map(|()| Reply::Empty)),
            Kind::Create(call)
            | Kind::Start(call)
            | Kind::Exec(call, _)
            | Kind::Pause(call)
            | Kind::Resume(call) => {
                (call, answer.and_then(|()| Err(Error::Precondition("container was deleted".into()))))
            }
            // Who asked was answered when it went.
            Kind::Delete => return,
        };
        self.out.push_back(Output::Reply(call, answer));
    }

    fn apply(&mut self, kind: Kind, id: Rc<str>, answer: Result<()>) {
        match kind {
            Kind::Create(call) => self.create_done(call, &id, answer),
            Kind::Start(call) => self.start_done(call, &id, answer),
            Kind::Exec(call, exec_id) => self.exec_done(call, &id, &exec_id, answer),
            Kind::Pause(call) => {
                let Some(container) = self.find(&id) else { return };
                container.pausing = false;
                // It may have ended under it; then there is nothing that stands still.
                container.paused =
                    answer.is_ok() && container.held.is_none() && container.init.exit().is_none();
                self.answer(call, answer, Event::Paused { id });
            }
            Kind::Resume(call) => {
                let Some(container) = self.find(&id) else { return };
                container.paused &= answer.is_err();
                self.answer(call, answer, Event::Resumed { id });
            }
            Kind::Plain(call) => self.out.push_back(Output::Reply(call, answer.map(|()| Reply::Empty))),
            Kind::Delete => self.delete_done(&id, answer),
        }
    }

    fn answer(&mut self, call: Call, answer: Result<()>, event: Event) {
        if answer.is_ok() {
            self.event(event);
        }
        self.out.push_back(Output::Reply(call, answer.map(|()| Reply::Empty)));
    }

    fn create_done(&mut self, call: Call, id: &Rc<str>, answer: Result<()>) {
        if let Err(error) = answer {
            self.containers.retain(|c| c.id != *id);
            self.out.push_back(Output::Close(Key { id: id.clone(), exec_id: String::new() }));
            self.out.push_back(Output::Forget(id.clone()));
            self.out.push_back(Output::Reply(call, Err(error)));
            return;
        }
        let Some(container) = self.containers.iter_mut().find(|c| c.id == *id) else { return };
        container.init.created();
        let early = container.init.take_early();
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

    fn exec_done(&mut self, call: Call, id: &Rc<str>, exec_id: &str, answer: Result<()>) {
        let Some(container) = self.containers.iter_mut().find(|c| c.id == *id) else { return };
        let Ok(process) = container.process_mut(exec_id) else { return };
        match answer {
            Ok(()) => {
                process.running();
                let early = process.take_early();
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
