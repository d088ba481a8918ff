//! Who has ended.

use std::rc::Rc;

use super::{Call, Event, Key, Output, Reply, Tasks, unsigned};
use crate::process::{Exit, Process};

impl Tasks {
    /// A child was reaped.
    pub fn exited(&mut self, pid: i32, exit: Exit) {
        let Some(id) = self.owner(pid) else {
            if self.awaits_pids() {
                self.strays.push((pid, exit));
            }
            return;
        };
        let Some(container) = self.find(&id) else { return };
        let Some(process) = container.processes_mut().find(|p| p.holds(pid)) else { return };
        if process.reaped(exit) {
            let exec_id = process.exec_id.clone();
            self.ended(&id, &exec_id, exit);
        }
    }

    pub(super) fn awaits_pids(&self) -> bool {
        self.containers.iter().any(|c| c.processes().any(Process::awaits_pid))
    }

    /// A process that the world knows to be there has ended.
    pub(super) fn ended(&mut self, id: &Rc<str>, exec_id: &str, exit: Exit) {
        let Some(container) = self.find(id) else { return };
        if !exec_id.is_empty() {
            self.tell_exit(id, exec_id, exit);
            self.release_held(id);
            return;
        }
        container.held = Some(exit);
        self.out.push_back(Output::EndRest(id.clone()));
        self.release_held(id);
    }

    /// The exit of the first process goes out when none of the execs runs any more.
    pub(super) fn release_held(&mut self, id: &Rc<str>) {
        let Some(container) = self.find(id) else { return };
        if container.execs.iter().any(Process::is_under_way) {
            return;
        }
        let Some(exit) = container.held.take() else { return };
        container.paused = false;
        self.tell_exit(id, "", exit);
        self.finish_delete(id);
    }

    fn tell_exit(&mut self, id: &Rc<str>, exec_id: &str, exit: Exit) {
        let Some(container) = self.find(id) else { return };
        let Ok(process) = container.process_mut(exec_id) else { return };
        let waiters = process.stopped(exit);
        let pid = unsigned(process.pid());
        let named = if exec_id.is_empty() { id.to_string() } else { exec_id.to_owned() };
        self.out.push_back(Output::Ended(Key { id: id.clone(), exec_id: exec_id.into() }));
        self.event(Event::Exit { id: id.clone(), process: named, pid, exit });
        self.answer_waiters(waiters, exit);
    }

    pub(super) fn answer_waiters(&mut self, waiters: Vec<Call>, exit: Exit) {
        for call in waiters {
            self.reply(call, Reply::Waited(exit));
        }
    }

    /// The kernel killed a process of this container for want of memory.
    pub fn oom(&mut self, id: &Rc<str>) {
        if self.find(id).is_some() {
            self.event(Event::Oom { id: id.clone() });
        }
    }
}
