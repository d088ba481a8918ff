//! A file that may hang (`remote.rs`) is opened and written by a process of its own: a forked copy of the shim, which
//! does nothing else and may wait. The container has one pipe to it, as to a logger.
//!
//! It ends when nobody can write any more, and so outlives the shim if that is killed.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::SigSet;
use nix::unistd::{dup2_stdin, dup2_stdout, pipe2, read, write};
use tare::sys::clone::{Clone, clone3, exit_now};
use tare::sys::fd::close_range;

use super::file;
use super::relay::not_blocking;
use super::set::{Set, Source};
use crate::error::{Code, Error, Result};
use crate::log::note;
use crate::sys::memory::Program;

#[derive(Debug)]
pub(super) struct Carrier {
    path: String,
    process: OwnedFd,
    /// `None`: the file is open, or never will be.
    answer: Option<File>,
    heard: Vec<u8>,
    has_ended: bool,
}

impl Carrier {
    /// Gives the writing end, which blocks.
    pub(super) fn start(path: &Path, set: &mut Set) -> Result<(Self, OwnedFd)> {
        let name = path.display().to_string();
        let failed = |operation: &'static str| {
            let name = name.clone();
            move |errno| Error::sys(operation, name, errno)
        };
        let pipe = || pipe2(OFlag::O_CLOEXEC).map_err(failed("pipe"));
        let ((bytes, container), (answer, tell)) = (pipe()?, pipe()?);
        not_blocking(answer.as_fd()).map_err(failed("fcntl"))?;
        let process = match clone3(0, None).map_err(failed("clone3"))? {
            Clone::Child(_) => live(path, bytes, tell),
            Clone::Parent { pidfd, .. } => pidfd,
        };
        set.watch(answer.as_fd(), Source::CarrierTells).map_err(failed("watch"))?;
        set.watch(process.as_fd(), Source::CarrierEnd).map_err(failed("watch"))?;
        let answer = Some(File::from(answer));
        Ok((Carrier { path: name, process, answer, heard: Vec::new(), has_ended: false }, container))
    }

    pub(super) fn is_ready(&self) -> bool {
        self.answer.is_none()
    }

    pub(super) fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// The error is why the file could not be opened.
    pub(super) fn told(&mut self, set: &Set) -> Result<()> {
        let Some(answer) = &mut self.answer else { return Ok(()) };
        match answer.read_to_end(&mut self.heard) {
            Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(e) => self.heard = [&[Code::Unknown as u8], e.to_string().as_bytes()].concat(),
            Ok(_) => {}
        }
        set.forget(answer.as_fd());
        self.answer = None;
        match self.heard.split_first() {
            Some((&OPEN, _)) => Ok(()),
            Some((code, text)) => {
                let code = Code::from_byte(*code).unwrap_or(Code::Unknown);
                Err(Error::of(code, String::from_utf8_lossy(text).into_owned()))
            }
            None => Err(Error::Unknown(format!("who was to open {} was killed", self.path))),
        }
    }

    pub(super) fn look_for_end(&mut self, set: &Set) {
        let mut fds = [PollFd::new(self.process.as_fd(), PollFlags::POLLIN)];
        if !self.has_ended && poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0) {
            set.forget(self.process.as_fd());
            self.has_ended = true;
        }
    }
}

/// Of the answer: no code of an error.
const OPEN: u8 = 0;

/// Nothing here is ever dropped.
fn live(path: &Path, bytes: OwnedFd, tell: OwnedFd) -> ! {
    let opened = settle([bytes.as_raw_fd(), tell.as_raw_fd()]).and_then(|()| file::append_to(path));
    let answer = match &opened {
        Ok(_) => vec![OPEN],
        Err(error) => [&[error.code() as u8], error.text().as_bytes()].concat(),
    };
    let told = File::from(tell).write_all(&answer);
    match opened {
        Ok(file) if told.is_ok() => carry(&bytes, &file, path),
        _ => exit_now(1),
    }
    exit_now(0)
}

/// Only the log stays, and what is named.
fn settle(mut kept: [RawFd; 2]) -> Result<()> {
    let failed = |what: &'static str| move |errno| Error::sys(what, "", errno);
    SigSet::empty().thread_set_mask().map_err(failed("sigprocmask"))?;
    let path = Path::new("/dev/null");
    let null = File::options().read(true).write(true).open(path).map_err(|e| Error::io("open", path, &e))?;
    dup2_stdin(&null).map_err(failed("dup2"))?;
    dup2_stdout(&null).map_err(failed("dup2"))?;
    // Closed below with all others.
    let _number = null.into_raw_fd();
    kept.sort_unstable();
    let mut next = 3;
    for number in kept {
        if number > next {
            close_range(next, number - 1).map_err(failed("close_range"))?;
        }
        next = number + 1;
    }
    close_range(next, RawFd::MAX).map_err(failed("close_range"))?;
    crate::files::restore_limit().map_err(failed("setrlimit"))
}

/// What the file does not take is told of once, and dropped: the container must not hang on a full disk.
fn carry(bytes: &OwnedFd, file: &OwnedFd, path: &Path) {
    // Of the program it needs little from now on.
    if let Err(errno) = Program::find().give_back() {
        note(&Error::sys("madvise", "", errno).to_string());
    }
    let (mut page, mut has_failed) = ([0; 4096], false);
    loop {
        let count = match read(bytes, &mut page) {
            Ok(0) => return,
            Ok(count) => count,
            Err(Errno::EINTR) => continue,
            Err(errno) => return note(&Error::sys("read for", path.display(), errno).to_string()),
        };
        if let Err(errno) = write_all(file.as_fd(), &page[..count])
            && !std::mem::replace(&mut has_failed, true)
        {
            note(&Error::sys("write to", path.display(), errno).to_string());
        }
    }
}

fn write_all(file: BorrowedFd<'_>, mut bytes: &[u8]) -> nix::Result<()> {
    while !bytes.is_empty() {
        match write(file, bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}
