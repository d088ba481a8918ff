//! The containers of one shim: what may happen when, and in which order the world hears of it.
//!
//! Nothing here touches the system. In go calls, exits by pid, and what the runtime answered; out come
//! replies, events and work to do ([`Output`]), in their order. The stock shim's subtleties are here:
//! an exit is told after the start that it ends; execs' exits before that of the first process; no exec
//! starts once that was reaped; deletion is told last.

mod answers;
mod calls;
mod container;
mod exits;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::rc::Rc;

use self::container::Container;
use crate::error::{Error, Result};
use crate::process::{Exit, Names, Phase};
use crate::runtime::{Mount, Target};
use crate::wire::messages::Any;

/// What `runc exec` ends with when it could not start the process.
const EXEC_FAILED: u32 = 255;

/// A request that has no reply yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    pub connection: u32,
    pub stream: u32,
}

/// A verb that the runtime is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JobId(pub u32);

/// Names a process: the container, and the exec, empty for the first process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    pub id: Rc<str>,
    pub exec_id: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Create {
    pub target: Target,
    pub rootfs: Vec<Mount>,
    pub names: Names,
    pub notes: Vec<Note>,
    pub checkpoint: String,
}

/// A file in the bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    pub name: &'static str,
    pub text: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exec {
    pub names: Names,
    /// The process document, JSON.
    pub spec: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    State,
    Create(Box<Create>),
    Start,
    Delete,
    Pids,
    Pause,
    Resume,
    Checkpoint,
    Kill {
        signal: i32,
        all: bool,
    },
    Exec(Box<Exec>),
    ResizePty {
        width: u16,
        height: u16,
    },
    CloseIo,
    /// `LinuxResources`, JSON.
    Update(Vec<u8>),
    Wait,
    Stats,
    Connect,
    Shutdown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Created,
    Running,
    Stopped,
    Paused,
    Pausing,
}

#[derive(Debug, PartialEq)]
pub enum Reply {
    State {
        id: String,
        bundle: String,
        pid: u32,
        status: Status,
        names: Names,
        exit: Option<Exit>,
    },
    Created {
        pid: u32,
    },
    Started {
        pid: u32,
    },
    Deleted {
        pid: u32,
        exit: Option<Exit>,
    },
    /// With the id of the exec, if it is one.
    Pids(Vec<(u32, Option<String>)>),
    Waited(Exit),
    Stats(Any),
    Connected {
        pid: u32,
    },
    Empty,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    Create { id: Rc<str>, bundle: String, rootfs: Vec<Mount>, names: Names, pid: u32 },
    Start { id: Rc<str>, pid: u32 },
    Exit { id: Rc<str>, process: String, pid: u32, exit: Exit },
    Delete { id: Rc<str>, pid: u32, exit: Option<Exit> },
    ExecAdded { id: Rc<str>, exec_id: String },
    ExecStarted { id: Rc<str>, exec_id: String, pid: u32 },
    Paused { id: Rc<str> },
    Resumed { id: Rc<str> },
    Oom { id: Rc<str> },
}

/// Work for the runtime.
#[derive(Debug, PartialEq, Eq)]
pub enum Verb {
    Create(Box<Create>),
    Start,
    Exec(Box<Exec>),
    Pause,
    Resume,
    Update(Vec<u8>),
    Kill { signal: i32, all: bool },
    Delete,
}

#[derive(Debug, PartialEq)]
pub enum Output {
    Reply(Call, Result<Reply>),
    Event(Event),
    /// Answered by [`Tasks::done`].
    Run {
        job: JobId,
        key: Key,
        verb: Verb,
    },
    /// The container runs, or soon will: its memory is to be watched.
    Watch(Rc<str>),
    /// To an exec, which has not been reaped.
    Signal {
        call: Call,
        pid: i32,
        signal: i32,
    },
    /// The first process has ended: nobody of the container may outlive it.
    EndRest(Rc<str>),
    Pids(Call, Rc<str>),
    Stats(Call, Rc<str>),
    Resize {
        call: Call,
        key: Key,
        width: u16,
        height: u16,
    },
    CloseIo(Call, Key),
    /// The process has ended: no more output than there is.
    Ended(Key),
    /// Answered by [`Tasks::drained`].
    Drain(Key),
    /// Nobody asks for this process any more.
    Close(Key),
    /// Nor for this container.
    Forget(Rc<str>),
    Shutdown,
}

#[derive(Debug)]
struct Job {
    id: JobId,
    /// The container's own, not only equal to it: the name may be given again while the job runs.
    container: Rc<str>,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Create(Call),
    Start(Call),
    Exec(Call, String),
    Pause(Call),
    Resume(Call),
    /// Nothing is told of it but to the caller.
    Plain(Call),
    Delete,
}

#[derive(Debug, Default)]
pub struct Tasks {
    containers: Vec<Container>,
    jobs: Vec<Job>,
    last_job: u32,
    /// Exits of unknown pids, while a process is being made whose pid is not known yet.
    strays: Vec<(i32, Exit)>,
    out: VecDeque<Output>,
}

fn unsigned(pid: Option<i32>) -> u32 {
    pid.and_then(|pid| u32::try_from(pid).ok()).unwrap_or(0)
}

impl Tasks {
    pub fn next_output(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    /// What the runtime works on.
    pub fn target(&self, id: &str) -> Option<Rc<Target>> {
        self.containers.iter().find(|c| &*c.id == id).map(|c| c.target.clone())
    }

    pub fn init_pid(&self, id: &str) -> Option<i32> {
        self.containers.iter().find(|c| &*c.id == id).and_then(|c| c.init.pid())
    }

    /// The container whose process this is, if it was not reaped yet.
    pub fn owner(&self, pid: i32) -> Option<Rc<str>> {
        self.containers.iter().find(|c| c.processes().any(|p| p.holds(pid))).map(|c| c.id.clone())
    }

    /// The exec of a container that has this pid.
    pub fn exec_id(&self, id: &str, pid: i32) -> Option<&str> {
        let container = self.containers.iter().find(|c| &*c.id == id)?;
        container.execs.iter().find(|p| p.holds(pid)).map(|p| p.exec_id.as_str())
    }

    /// A connection has closed: nobody listens to its replies.
    pub fn forget_calls(&mut self, connection: u32) {
        for process in self.containers.iter_mut().flat_map(Container::processes_mut) {
            process.forget(|call| call.connection == connection);
        }
    }

    fn find(&mut self, id: &str) -> Option<&mut Container> {
        self.containers.iter_mut().find(|c| &*c.id == id)
    }

    /// A container that its maker knows of.
    fn made(&mut self, id: &str) -> Result<&mut Container> {
        self.find(id)
            .filter(|c| c.init.phase() != Phase::Creating)
            .ok_or_else(|| Error::NotFound("container not created".into()))
    }

    fn run(&mut self, id: &Rc<str>, kind: Kind, exec_id: &str, verb: Verb) {
        self.last_job = self.last_job.wrapping_add(1);
        let job = JobId(self.last_job);
        self.jobs.push(Job { id: job, container: id.clone(), kind });
        let key = Key { id: id.clone(), exec_id: exec_id.into() };
        self.out.push_back(Output::Run { job, key, verb });
    }

    fn event(&mut self, event: Event) {
        self.out.push_back(Output::Event(event));
    }

    fn reply(&mut self, call: Call, reply: Reply) {
        self.out.push_back(Output::Reply(call, Ok(reply)));
    }
}
