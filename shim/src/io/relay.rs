//! A stream that the container may not hold itself: it has one end of a pipe, and the shim carries
//! the bytes between the other end and where they come from or go to.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::pipe2;

use super::fifo::Fifo;
use super::pump::{Pump, Step, has_room};
use super::set::{Set, Source};
use crate::error::{Error, Result};

/// How many steps at most before the loop serves the others again.
const ROUNDS: usize = 64;

#[derive(Debug)]
pub(super) struct Relay {
    /// For messages.
    name: String,
    /// `None`: it has ended.
    ends: Option<Ends>,
    /// The sink's, which is held open for readers to come.
    fifo: Option<Fifo>,
    is_input: bool,
    pump: Pump,
    /// The source had nothing more when it was looked at last.
    is_drained: bool,
    has_failed: bool,
}

#[derive(Debug)]
struct Ends {
    source: OwnedFd,
    sink: OwnedFd,
}

impl Relay {
    /// From the container to `sink`. Gives the container's end too.
    pub(super) fn from_container(sink: OwnedFd, name: &str, set: &mut Set) -> Result<(Self, OwnedFd)> {
        let (source, container) = pipe(name)?;
        Self::start(source, sink, name, false, set).map(|relay| (relay, container))
    }

    /// The sink is this FIFO's.
    pub(super) fn hold(&mut self, fifo: Fifo) {
        self.fifo = Some(fifo);
    }

    /// From `source` to the container. Gives the container's end too.
    pub(super) fn to_container(source: OwnedFd, name: &str, set: &mut Set) -> Result<(Self, OwnedFd)> {
        let (container, sink) = pipe(name)?;
        Self::start(source, sink, name, true, set).map(|relay| (relay, container))
    }

    fn start(source: OwnedFd, sink: OwnedFd, name: &str, is_input: bool, set: &mut Set) -> Result<Self> {
        let failed = |errno| Error::sys("relay", name, errno);
        for end in [&source, &sink] {
            not_blocking(end.as_fd()).map_err(failed)?;
        }
        set.watch(source.as_fd(), Source::Carried).map_err(failed)?;
        set.watch(sink.as_fd(), Source::CarriedTo).map_err(failed)?;
        let ends = Some(Ends { source, sink });
        let (name, pump) = (name.to_owned(), Pump::default());
        Ok(Relay { name, ends, fifo: None, is_input, pump, is_drained: false, has_failed: false })
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ends.is_none()
    }

    /// Nothing was left to carry when it was looked at last.
    pub(super) fn is_drained(&self) -> bool {
        self.is_drained || self.has_ended()
    }

    /// Carries what there is, as long as there is room, or until others have waited long enough.
    /// The error is the first that the sink gave; what could not be written is dropped, because the
    /// container must not hang on a full disk.
    pub(super) fn carry(&mut self, set: &mut Set) -> Result<()> {
        let mut result = Ok(());
        for _ in 0..ROUNDS {
            let Some(ends) = &self.ends else { return result };
            self.is_drained = false;
            match self.pump.step(ends.source.as_fd(), ends.sink.as_fd()) {
                Step::Moved => {}
                Step::Waits => {
                    self.is_drained = self.pump.is_empty() && has_room(ends.sink.as_fd(), &self.name)?;
                    return result;
                }
                Step::SourceEnded | Step::HungUp => result = result.and(self.end(set)),
                // The container reads no more.
                Step::SinkFailed(Errno::EPIPE) => result = result.and(self.end(set)),
                Step::SinkFailed(errno) => {
                    self.pump.clear();
                    if !self.has_failed {
                        self.has_failed = true;
                        result = Err(Error::sys("write to", &self.name, errno));
                    }
                }
            }
        }
        if let Some(ends) = &self.ends {
            let again = set.watch_again(ends.source.as_fd(), Source::Carried);
            result = result.and(again.map_err(|errno| Error::sys("watch", &self.name, errno)));
        }
        result
    }

    /// It reads no more.
    pub(super) fn process_ended(&mut self, set: &mut Set) -> Result<()> {
        if self.is_input { self.end(set) } else { Ok(()) }
    }

    fn end(&mut self, set: &mut Set) -> Result<()> {
        if let Some(ends) = self.ends.take() {
            set.forget(ends.source.as_fd());
            set.forget(ends.sink.as_fd());
        }
        self.fifo.as_mut().map_or(Ok(()), |fifo| fifo.release(set))
    }

    /// Somebody opened a FIFO, perhaps this one.
    pub(super) fn opened(&mut self, set: &Set) -> Result<()> {
        self.fifo.as_mut().map_or(Ok(()), |fifo| fifo.opened(set))
    }

    /// Carries on, but not to a reader that does not read.
    pub(super) fn close(&mut self, set: &mut Set) {
        if self.fifo.is_none() || (self.is_drained && !self.has_ended()) {
            return;
        }
        if let Some(ends) = self.ends.take() {
            set.forget(ends.source.as_fd());
            set.forget(ends.sink.as_fd());
        }
        if let Some(mut fifo) = self.fifo.take() {
            fifo.close(set);
        }
    }
}

/// Both ends block: the container's must, and the flag belongs to each end alone.
fn pipe(name: &str) -> Result<(OwnedFd, OwnedFd)> {
    pipe2(OFlag::O_CLOEXEC).map_err(|errno| Error::sys("pipe", name, errno))
}

pub(super) fn not_blocking(fd: BorrowedFd<'_>) -> nix::Result<()> {
    let flags = OFlag::from_bits_truncate(fcntl(fd, FcntlArg::F_GETFL)?);
    fcntl(fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK)).map(drop)
}
