//! The one thread's one loop: whatever happens to the shim happens here, and nothing here waits but
//! for the next thing to happen.
//!
//! What it means is decided in [`Tasks`]; this carries bytes and descriptors between it and the world.

mod connections;
mod ending;
mod streams;
mod work;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::prctl::set_child_subreaper;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use self::connections::Connections;
use self::ending::Ending;
use self::streams::Streams;
use self::work::Works;
use crate::error::{Error, Result};
use crate::events::Publisher;
use crate::log::note;
use crate::oom::Watcher;
use crate::service;
use crate::sys::memory::Program;
use crate::sys::wait;
use crate::task::{Output, Reply, Tasks};

/// How long nothing has to happen before the shim takes less room: longer than the pauses between the calls of one
/// start or exec.
const REST: Duration = Duration::from_millis(20);

pub struct Setup {
    /// Bound and listening.
    pub listener: OwnedFd,
    pub namespace: String,
    pub publisher: Publisher,
    /// Whether a caller may have a logger executed (`binary://`).
    pub loggers: bool,
}

/// Until `Shutdown` is called, or a signal asks for the end.
pub fn serve(setup: Setup) -> Result<()> {
    let mut serving = Loop::new(setup)?;
    while !serving.is_over() {
        serving.turn()?;
    }
    Ok(())
}

/// What an event of the epoll set is about: the kind, and the number of the one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    Listener,
    Signals,
    Publisher,
    Connection(u32),
    Work(u32),
    Stream(u32),
    Memory(u32),
}

impl Token {
    fn to_number(self) -> u64 {
        let (kind, number) = match self {
            Token::Listener => (0, 0),
            Token::Signals => (1, 0),
            Token::Publisher => (2, 0),
            Token::Connection(number) => (3, number),
            Token::Work(number) => (4, number),
            Token::Stream(number) => (5, number),
            Token::Memory(number) => (6, number),
        };
        kind << 32 | u64::from(number)
    }

    fn from_number(token: u64) -> Self {
        let number = u32::try_from(token & u64::from(u32::MAX)).unwrap_or(0);
        match token >> 32 {
            0 => Token::Listener,
            1 => Token::Signals,
            2 => Token::Publisher,
            3 => Token::Connection(number),
            4 => Token::Work(number),
            5 => Token::Stream(number),
            _ => Token::Memory(number),
        }
    }
}

/// The set of descriptors that the loop waits for.
struct Poll(Epoll);

impl Poll {
    /// Once for each descriptor; to ask again for one that is in the set changes what it waits for.
    fn watch(&self, fd: BorrowedFd<'_>, token: Token, flags: EpollFlags) -> Result<()> {
        let mut event = EpollEvent::new(flags, token.to_number());
        let done = match self.0.add(fd, event) {
            Err(Errno::EEXIST) => self.0.modify(fd, &mut event),
            other => other,
        };
        done.map_err(|e| Error::sys("epoll_ctl", "", e))
    }

    fn wait(&self, events: &mut [EpollEvent], until: Option<Instant>) -> Result<usize> {
        let timeout = match until {
            None => EpollTimeout::NONE,
            Some(until) => {
                // Rounded up: not to wake before the time and find nothing to do.
                let left = until.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
                EpollTimeout::try_from(left).unwrap_or(EpollTimeout::MAX)
            }
        };
        match self.0.wait(events, timeout) {
            Err(Errno::EINTR) => Ok(0),
            other => other.map_err(|e| Error::sys("epoll_wait", "", e)),
        }
    }
}

struct Loop {
    poll: Poll,
    signals: SignalFd,
    connections: Connections,
    works: Works,
    streams: Streams,
    memory: Vec<Memory>,
    next_memory: u32,
    tasks: Tasks,
    publisher: Publisher,
    /// What the set waits for on the publisher's connection, and which one that is.
    published: Option<(u32, EpollFlags)>,
    ending: Option<Ending>,
    program: Program,
    /// When the pages of the program are given back, unless something happens before.
    rest: Option<Instant>,
}

/// A watched container.
struct Memory {
    number: u32,
    id: Rc<str>,
    watcher: Watcher,
}

impl Loop {
    fn new(setup: Setup) -> Result<Self> {
        let failed = |what: &'static str| move |errno| Error::sys(what, "", errno);
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(failed("epoll_create1"))?;
        let poll = Poll(epoll);
        crate::sys::signal::default_all().map_err(failed("rt_sigaction"))?;
        // Who is orphaned in a container comes to us, and is reaped.
        set_child_subreaper(true).map_err(failed("prctl"))?;
        let mut mask = SigSet::empty();
        // SIGPIPE: a write says so itself.
        for signal in [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT, Signal::SIGPIPE] {
            mask.add(signal);
        }
        mask.thread_set_mask().map_err(failed("sigprocmask"))?;
        let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
            .map_err(failed("signalfd"))?;
        poll.watch(signals.as_fd(), Token::Signals, EpollFlags::EPOLLIN)?;
        poll.watch(setup.listener.as_fd(), Token::Listener, EpollFlags::EPOLLIN)?;
        Ok(Self {
            poll,
            signals,
            connections: Connections::new(setup.listener, setup.namespace.clone())?,
            works: Works::default(),
            streams: Streams::new(setup.namespace, setup.loggers),
            memory: Vec::new(),
            next_memory: 0,
            tasks: Tasks::default(),
            publisher: setup.publisher,
            published: None,
            ending: None,
            program: Program::find(),
            rest: None,
        })
    }

    fn is_over(&self) -> bool {
        self.ending.is_some_and(|ending| {
            let is_sent = self.connections.are_flushed() && self.publisher.is_empty();
            ending.is_over(Instant::now(), is_sent, !self.streams.await_loggers())
        })
    }

    /// Waits for something to happen, and does what follows from it.
    fn turn(&mut self) -> Result<()> {
        let mut events = [EpollEvent::empty(); 16];
        let deadline = self.deadline();
        let first = [deadline, self.rest].into_iter().flatten().min();
        let mut count = self.poll.wait(&mut events, first)?;
        if count == 0 && self.rest.take_if(|rest| *rest <= Instant::now()).is_some() {
            // Only to take less room: no reason to leave the containers alone.
            if let Err(errno) = self.program.give_back() {
                note(&format!("{}; the program keeps its pages", Error::sys("madvise", "", errno)));
            }
            // At once: each function that is called before brings a part of the program back.
            count = self.poll.wait(&mut events, deadline)?;
        }
        if count > 0 {
            self.rest = Some(Instant::now() + REST);
        }
        for event in &events[..count] {
            self.happened(Token::from_number(event.data()), event.events())?;
        }
        self.expire(Instant::now());
        self.carry_out();
        self.connections.flush(&self.poll, &mut self.tasks);
        self.publish();
        Ok(())
    }

    /// When there is something to do though nothing has happened.
    fn deadline(&self) -> Option<Instant> {
        [
            self.connections.deadline(),
            self.streams.deadline(),
            self.publisher.deadline(),
            self.ending.map(|ending| ending.deadline(Instant::now())),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    fn happened(&mut self, token: Token, flags: EpollFlags) -> Result<()> {
        match token {
            Token::Listener => self.connections.accept(&self.poll),
            Token::Connection(number) => self.connections.readable(number, flags, &mut self.tasks),
            Token::Signals => self.signalled()?,
            Token::Work(number) => self.hear(number),
            Token::Stream(number) => self.streams.ready(number, &mut self.tasks),
            // Its turn comes with every turn of the loop.
            Token::Publisher => {}
            Token::Memory(number) => {
                if let Some(at) = self.memory.iter().position(|memory| memory.number == number) {
                    self.count_oom(at);
                }
            }
        }
        // In the order in which it happened: what one event leads to is done before the next is looked at.
        self.carry_out();
        Ok(())
    }

    fn expire(&mut self, now: Instant) {
        self.connections.expire(now, &self.poll);
        self.streams.expire(now, &mut self.tasks);
    }

    fn publish(&mut self) {
        let now = Instant::now();
        self.publisher.turn(now);
        for lost in self.publisher.take_lost() {
            note(&format!("event {} is lost: {}", lost.topic, lost.why));
        }
        let Some((fd, number, writing)) = self.publisher.fd() else { return };
        let mut flags = EpollFlags::EPOLLIN;
        flags.set(EpollFlags::EPOLLOUT, writing);
        if self.published.replace((number, flags)) == Some((number, flags)) {
            return;
        }
        if let Err(error) = self.poll.watch(fd, Token::Publisher, flags) {
            note(&format!("the connection for events: {error}"));
            self.published = None;
            self.publisher.hang_up(now);
        }
    }

    fn signalled(&mut self) -> Result<()> {
        while let Some(signal) = self.signals.read_signal().map_err(|e| Error::sys("read", "signals", e))? {
            let number = i32::try_from(signal.ssi_signo).unwrap_or(0);
            if number == libc::SIGTERM || number == libc::SIGINT {
                self.end();
            }
        }
        self.reap()
    }

    /// All that have ended, whoever they are. A pid is its own until it is reaped: so what the copies
    /// have said of new processes is heard first.
    fn reap(&mut self) -> Result<()> {
        while let Some(pid) = wait::peek().map_err(|e| Error::sys("waitid", "", e))? {
            if self.tasks.owner(pid).is_none() {
                self.hear_all();
            }
            if let Some(id) = self.tasks.owner(pid)
                && let Some(at) = self.memory.iter().position(|memory| memory.id == id)
            {
                // That memory was short is told before the end that came of it.
                self.count_oom(at);
            }
            if let Some(status) = wait::reap(pid).map_err(|e| Error::sys("waitid", pid, e))? {
                self.tasks.exited(pid, service::exit(status));
            }
            self.carry_out();
        }
        Ok(())
    }

    fn count_oom(&mut self, at: usize) {
        let memory = &mut self.memory[at];
        match memory.watcher.drain() {
            Ok(times) => (0..times).for_each(|_| self.tasks.oom(&memory.id)),
            Err(error) => note(&format!("memory of {}: {error}", memory.id)),
        }
    }

    fn end(&mut self) {
        if self.ending.is_none() {
            self.connections.end();
            self.ending = Some(Ending::asked(Instant::now()));
        }
    }

    /// When there is nothing left to do, what waited for its streams may have become possible.
    fn next_output(&mut self) -> Option<Output> {
        let next = self.tasks.next_output();
        if next.is_some() {
            return next;
        }
        self.begin_those_ready();
        self.tasks.next_output()
    }

    /// All that [`Tasks`] wants done.
    fn carry_out(&mut self) {
        while let Some(output) = self.next_output() {
            match output {
                Output::Reply(call, reply) => self.connections.reply(call, reply),
                Output::Event(event) => {
                    if let Err(torn) = service::tell(&mut self.publisher, event) {
                        note(&format!("an event is lost: {torn}"));
                    }
                }
                Output::Run { job, key, verb } => self.begin(job, key, verb),
                Output::EndRest(id) => self.end_rest(&id),
                Output::Watch(id) => {
                    if let Err(error) = self.watch_memory(id) {
                        note(&format!("memory is not watched: {error}"));
                    }
                }
                Output::Signal { call, pid, signal } => {
                    let sent = tare::sys::signal::kill(pid, signal).map_err(|errno| match errno {
                        Errno::ESRCH => Error::NotFound("process already finished".into()),
                        other => Error::sys("exec kill error", "", other),
                    });
                    self.connections.reply(call, sent.map(|()| Reply::Empty));
                }
                Output::Pids(call, id) => {
                    let pids = self.pids(&id);
                    self.connections.reply(call, pids);
                }
                Output::Stats(call, id) => {
                    let stats = self.stats(&id);
                    self.connections.reply(call, stats);
                }
                Output::Resize { call, key, width, height } => {
                    let done = self.streams.resize(&key, width, height);
                    self.connections.reply(call, done.map(|()| Reply::Empty));
                }
                Output::CloseIo(call, key) => {
                    self.streams.close_stdin(&key);
                    self.connections.reply(call, Ok(Reply::Empty));
                }
                Output::Ended(key) => self.streams.process_ended(&key),
                Output::Drain(key) => self.streams.drain(key, &mut self.tasks),
                Output::Close(key) => {
                    self.streams.close(&key);
                    self.remove_pid_file(&key);
                }
                Output::Forget(id) => self.memory.retain(|memory| memory.id != id),
                Output::Shutdown => self.end(),
            }
        }
        self.streams.watch(&self.poll);
    }
}
