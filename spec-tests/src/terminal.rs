//! The master's side of a pseudoterminal, read with a limit in time.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::call::LIMIT;

#[derive(Debug)]
pub struct Terminal {
    master: File,
    /// All that was read up to now.
    text: String,
}

impl From<OwnedFd> for Terminal {
    fn from(master: OwnedFd) -> Self {
        Terminal { master: File::from(master), text: String::new() }
    }
}

impl AsFd for Terminal {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.master.as_fd()
    }
}

impl Terminal {
    /// Types these bytes.
    pub fn write(&mut self, bytes: &[u8]) {
        self.master.write_all(bytes).expect("write to the terminal");
    }

    /// Reads until this text is there; gives all that was read since the beginning.
    #[track_caller]
    pub fn read_until(&mut self, text: &str) -> &str {
        let started = Instant::now();
        while !self.text.contains(text) {
            assert!(self.read_some(started), "the terminal ended without {text:?}: {:?}", self.text);
        }
        &self.text
    }

    /// Reads until the last slave is closed; gives all that was read since the beginning.
    #[track_caller]
    pub fn read_all(&mut self) -> &str {
        let started = Instant::now();
        while self.read_some(started) {}
        &self.text
    }

    /// Whether there was something; read says EIO when no slave is open any more.
    #[track_caller]
    fn read_some(&mut self, started: Instant) -> bool {
        let left = LIMIT.saturating_sub(started.elapsed());
        let left = PollTimeout::try_from(left).expect("a few seconds");
        let mut fds = [PollFd::new(self.master.as_fd(), PollFlags::POLLIN)];
        let ready = poll(&mut fds, left).expect("poll");
        assert!(ready > 0, "nothing more on the terminal within {LIMIT:?}: {:?}", self.text);
        let mut part = [0; 4096];
        match self.master.read(&mut part) {
            Ok(0) | Err(_) => false,
            Ok(n) => {
                self.text.push_str(&String::from_utf8_lossy(&part[..n]));
                true
            }
        }
    }
}
