//! The standard streams of all processes.

use std::time::{Duration, Instant};

use nix::sys::epoll::EpollFlags;

use super::{Poll, Token};
use crate::error::{Error, Result};
use crate::io::{self, Given, Stdio};
use crate::log::note;
use crate::process::Names;
use crate::runtime::Target;
use crate::task::{Key, Tasks};

/// How long `Delete` waits for the last output, as the stock shim does.
const DRAIN: Duration = Duration::from_secs(10);

pub(super) struct Streams {
    namespace: String,
    loggers: bool,
    held: Vec<Held>,
    last: u32,
}

struct Held {
    number: u32,
    key: Key,
    stdio: Stdio,
    /// Why what waits for the logger cannot go on.
    failed: Option<Error>,
    /// `Delete` waits for the last output until then.
    draining: Option<Instant>,
    closed: bool,
}

impl Streams {
    pub(super) fn new(namespace: String, loggers: bool) -> Self {
        Self { namespace, loggers, held: Vec::new(), last: 0 }
    }

    pub(super) fn open(&mut self, key: &Key, names: &Names, target: &Target) -> Result<()> {
        let id = if key.exec_id.is_empty() { &*key.id } else { &key.exec_id };
        let stdio = Stdio::open(&io::Request {
            stdin: &names.stdin,
            stdout: &names.stdout,
            stderr: &names.stderr,
            terminal: names.terminal,
            io_uid: target.io_uid,
            io_gid: target.io_gid,
            id,
            namespace: &self.namespace,
            loggers: self.loggers,
        })
        .map_err(|error| error.context("failed to create init process I/O"))?;
        self.last = self.last.wrapping_add(1);
        let key = key.clone();
        self.held.push(Held { number: self.last, key, stdio, failed: None, draining: None, closed: false });
        Ok(())
    }

    fn find(&mut self, key: &Key) -> Option<&mut Held> {
        self.held.iter_mut().find(|held| held.key == *key && !held.closed)
    }

    /// What the new process gets, once all is ready for it; `None`: not yet.
    pub(super) fn take_given(&mut self, key: &Key) -> Option<Result<Given>> {
        let Some(held) = self.find(key) else {
            return Some(Err(Error::Unknown("its standard streams are closed".into())));
        };
        if let Some(error) = held.failed.take() {
            return Some(Err(error));
        }
        if !held.stdio.is_ready() {
            return None;
        }
        let taken = || Error::Unknown("its standard streams were given away already".into());
        Some(held.stdio.take_given().ok_or_else(taken))
    }

    pub(super) fn attach(&mut self, key: &Key) -> Result<()> {
        self.find(key).map_or(Ok(()), |held| held.stdio.attach())
    }

    pub(super) fn resize(&mut self, key: &Key, width: u16, height: u16) -> Result<()> {
        self.find(key).map_or(Ok(()), |held| held.stdio.resize(width, height))
    }

    pub(super) fn close_stdin(&mut self, key: &Key) {
        if let Some(held) = self.find(key) {
            held.stdio.close_stdin();
        }
    }

    pub(super) fn process_ended(&mut self, key: &Key) {
        if let Some(held) = self.find(key)
            && let Err(error) = held.stdio.process_ended()
        {
            note(&format!("standard streams of {}: {error}", key.id));
        }
    }

    pub(super) fn drain(&mut self, key: Key, tasks: &mut Tasks) {
        match self.find(&key) {
            Some(held) if !held.stdio.is_drained() => held.draining = Some(Instant::now() + DRAIN),
            _ => tasks.drained(&key),
        }
    }

    /// Stays until its logger has ended.
    pub(super) fn close(&mut self, key: &Key) {
        if let Some(held) = self.find(key) {
            held.closed = true;
            if let Err(error) = held.stdio.close() {
                note(&format!("standard streams of {}: {error}", key.id));
            }
        }
    }

    /// A logger of a process that is deleted has not ended yet: dropped, it would be killed, and what
    /// it has not written lost.
    pub(super) fn await_loggers(&self) -> bool {
        self.held.iter().any(|held| held.closed && held.stdio.awaits_logger())
    }

    pub(super) fn ready(&mut self, number: u32, tasks: &mut Tasks) {
        let Some(held) = self.held.iter_mut().find(|held| held.number == number) else { return };
        // Asked before: a logger that has died is not waited for either.
        let was_ready = held.stdio.is_ready();
        if let Err(error) = held.stdio.ready() {
            if was_ready || held.closed {
                note(&format!("standard streams of {}: {error}", held.key.id));
            } else {
                held.failed = Some(error);
            }
        }
        if held.draining.is_some() && held.stdio.is_drained() {
            held.draining = None;
            let key = held.key.clone();
            tasks.drained(&key);
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.held.iter().filter_map(|held| held.draining).min()
    }

    pub(super) fn expire(&mut self, now: Instant, tasks: &mut Tasks) {
        for held in &mut self.held {
            if held.draining.is_some_and(|until| until <= now) {
                held.draining = None;
                note(&format!("output of {} is not drained after {} s", held.key.id, DRAIN.as_secs()));
                tasks.drained(&held.key);
            }
        }
    }

    /// Descriptors come and go with all that happens to the streams.
    pub(super) fn watch(&mut self, poll: &Poll) {
        self.held.retain(|held| !(held.closed && held.stdio.is_closed()));
        for held in &mut self.held {
            let Some(fd) = held.stdio.poll_fd() else { continue };
            let watched = poll.watch(fd, Token::Stream(held.number), EpollFlags::EPOLLIN);
            if let Err(error) = watched
                && held.failed.is_none()
            {
                note(&format!("standard streams of {}: {error}", held.key.id));
                held.failed = Some(error);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    use super::*;
    use crate::starts;

    fn key(exec_id: &str) -> Key {
        Key { id: "c1".into(), exec_id: exec_id.into() }
    }

    /// A process whose outputs go to a logger that is this script.
    fn with_logger(folder: &Path, scheme: &str, script: &str, key: &Key) -> Streams {
        let path = folder.join("logger");
        starts::script(&path, script);
        let names = Names {
            stdin: String::new(),
            stdout: format!("{scheme}://{}", path.display()),
            stderr: String::new(),
            terminal: false,
        };
        let target = Target {
            id: "c1".into(),
            bundle: String::new(),
            root: "/r".into(),
            binary: None,
            systemd_cgroup: false,
            no_pivot_root: false,
            no_new_keyring: false,
            io_uid: 0,
            io_gid: 0,
        };
        let mut streams = Streams::new("ns".into(), true);
        starts::starting(|| streams.open(key, &names, &target)).unwrap();
        streams
    }

    /// What the loop does, for the only process that there is.
    fn next(streams: &mut Streams) {
        let mut fds = Vec::new();
        fds.extend(streams.held[0].stdio.poll_fd().map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
        poll(&mut fds, PollTimeout::NONE).unwrap();
        streams.ready(streams.held[0].number, &mut Tasks::default());
    }

    #[test]
    fn a_process_whose_logger_does_not_become_ready_is_not_begun() {
        for key in [key(""), key("e1")] {
            let folder = tempfile::tempdir().unwrap();
            let mut streams = with_logger(folder.path(), "binary-v2", "exit 1", &key);
            let given = loop {
                match streams.take_given(&key) {
                    Some(given) => break given,
                    None => next(&mut streams),
                }
            };
            let error = given.expect_err("the logger is dead").to_string();
            assert!(error.contains("did not call ready"), "{error}");
        }
    }

    #[test]
    fn a_logger_of_a_deleted_process_is_awaited_until_it_has_written_all() {
        let folder = tempfile::tempdir().unwrap();
        let flushed = folder.path().join("flushed");
        // What it has not written yet takes it a while.
        let script = format!(
            "trap 'sleep 0.2; : >{}; exit' TERM; exec 5>&-; while :; do sleep 0.01; done",
            flushed.display()
        );
        let mut streams = with_logger(folder.path(), "binary", &script, &key(""));
        while streams.take_given(&key("")).is_none() {
            next(&mut streams);
        }
        assert!(!streams.await_loggers(), "it does not keep a shim that is told to end");
        streams.close(&key(""));
        while streams.await_loggers() {
            next(&mut streams);
        }
        drop(streams);
        assert!(flushed.exists());
    }
}
