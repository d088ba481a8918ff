//! The other end of a container's terminal, as containerd's shim and conmon hold it.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// The socket of `--console-socket`.
#[derive(Debug)]
pub struct ConsoleSocket {
    listener: UnixListener,
    pub path: PathBuf,
}

impl ConsoleSocket {
    /// # Panics
    /// When the socket cannot be made there.
    pub fn new(dir: &Path) -> Self {
        let path = dir.join("console.sock");
        Self { listener: UnixListener::bind(&path).expect("the console socket"), path }
    }

    /// The terminal that the runtime has sent.
    ///
    /// # Panics
    /// When none came.
    pub fn terminal(&self) -> Terminal {
        self.listener.set_nonblocking(true).expect("non-blocking");
        let (stream, _) = self.listener.accept().expect("the runtime connected");
        Terminal::received(&stream)
    }
}

/// A pseudo terminal's master and all that was read from it.
#[derive(Debug)]
pub struct Terminal {
    master: File,
    seen: Vec<u8>,
    /// Up to where the transcript was matched.
    at: usize,
}

impl Terminal {
    fn received(stream: &UnixStream) -> Self {
        let fd = crate::sys::receive_fd(stream).expect("a descriptor through the console socket");
        Self { master: File::from(fd), seen: Vec::new(), at: 0 }
    }

    /// Types a line.
    ///
    /// # Panics
    /// When the terminal is gone.
    pub fn send(&mut self, line: &str) {
        self.master.write_all(format!("{line}\n").as_bytes()).expect("write to the terminal");
    }

    /// Types a letter with the control key.
    ///
    /// # Panics
    /// When the terminal is gone.
    pub fn press(&mut self, letter: u8) {
        self.master.write_all(&[letter & 31]).expect("write to the terminal");
    }

    /// Reads until the text comes, after what was matched before.
    ///
    /// # Panics
    /// When it does not come within 15 seconds.
    #[track_caller]
    pub fn expect(&mut self, text: &str) {
        let begun = Instant::now();
        loop {
            let unread = String::from_utf8_lossy(&self.seen[self.at..]).into_owned();
            if let Some(found) = unread.find(text) {
                self.at += found + text.len();
                return;
            }
            assert!(begun.elapsed() < Duration::from_secs(15), "no {text:?} in {unread:?}");
            assert!(self.read() || unread.contains(text), "the terminal ended without {text:?}: {unread:?}");
        }
    }

    /// Reads to the end, which comes when the last process has closed the terminal.
    pub fn rest(&mut self) -> String {
        let begun = Instant::now();
        while self.read() && begun.elapsed() < Duration::from_secs(15) {}
        String::from_utf8_lossy(&self.seen[self.at..]).into_owned()
    }

    /// Takes what is there, waiting a moment; `false` at the end.
    fn read(&mut self) -> bool {
        let mut ready = [PollFd::new(self.master.as_fd(), PollFlags::POLLIN)];
        if poll(&mut ready, PollTimeout::from(100u8)).expect("poll") == 0 {
            return true;
        }
        let mut bytes = [0; 4096];
        // EIO: no process has the terminal open any more (pty(7)).
        match self.master.read(&mut bytes) {
            Ok(count) if count > 0 => {
                self.seen.extend_from_slice(&bytes[..count]);
                true
            }
            _ => false,
        }
    }
}
