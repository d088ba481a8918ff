//! Bytes from one descriptor to another without waiting: inside the kernel where it can
//! (`splice(2)`), else by one page of ours. Nothing is read that has no place to go, so whoever
//! writes waits as soon as whoever reads does.

use std::os::fd::BorrowedFd;

use nix::errno::Errno;
use nix::fcntl::{SpliceFFlags, splice};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{read, write};

use crate::error::{Error, Result};

/// What a terminal holds at most, and a page.
const SIZE: usize = 4096;

#[derive(Debug, Default)]
pub(super) struct Pump {
    /// Only where the kernel does not splice these two: a terminal to a file or a device.
    page: Option<Box<Page>>,
}

#[derive(Debug)]
struct Page {
    bytes: [u8; SIZE],
    start: usize,
    end: usize,
}

/// What a step did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Moved,
    /// There is nothing to read, or no room to write.
    Waits,
    /// The source has ended, and all that it gave is written.
    SourceEnded,
    /// The terminal at either end has nobody at its other side now.
    HungUp,
    /// Nothing can be written any more.
    SinkFailed(Errno),
}

impl Pump {
    /// Whether no bytes are held that are not written yet.
    pub(super) fn is_empty(&self) -> bool {
        self.page.as_ref().is_none_or(|page| page.start == page.end)
    }

    /// What is held can never be written.
    pub(super) fn clear(&mut self) {
        if let Some(page) = &mut self.page {
            page.start = page.end;
        }
    }

    pub(super) fn step(&mut self, source: BorrowedFd<'_>, sink: BorrowedFd<'_>) -> Step {
        if let Some(page) = &mut self.page {
            return page.step(source, sink);
        }
        match again(|| splice(source, None, sink, None, SIZE, SpliceFFlags::SPLICE_F_NONBLOCK)) {
            Ok(0) => Step::SourceEnded,
            Ok(_) => Step::Moved,
            Err(Errno::EAGAIN) => Step::Waits,
            Err(Errno::EIO) => Step::HungUp,
            // Nothing was moved: the kernel refuses before it reads.
            Err(Errno::EINVAL | Errno::ENOSYS) => {
                let page = Page { bytes: [0; SIZE], start: 0, end: 0 };
                self.page.insert(Box::new(page)).step(source, sink)
            }
            Err(errno) => Step::SinkFailed(errno),
        }
    }
}

impl Page {
    fn step(&mut self, source: BorrowedFd<'_>, sink: BorrowedFd<'_>) -> Step {
        if self.start == self.end {
            match again(|| read(source, &mut self.bytes)) {
                Ok(0) => return Step::SourceEnded,
                Ok(count) => (self.start, self.end) = (0, count),
                Err(Errno::EAGAIN) => return Step::Waits,
                Err(_) => return Step::HungUp,
            }
        }
        match again(|| write(sink, &self.bytes[self.start..self.end])) {
            Ok(count) => {
                self.start += count;
                Step::Moved
            }
            Err(Errno::EAGAIN) => Step::Waits,
            Err(errno) => Step::SinkFailed(errno),
        }
    }
}

fn again(mut call: impl FnMut() -> nix::Result<usize>) -> nix::Result<usize> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            other => return other,
        }
    }
}

/// Whether bytes could be written, so that it is the source that has none.
pub(super) fn has_room(sink: BorrowedFd<'_>, name: &str) -> Result<bool> {
    let mut fds = [PollFd::new(sink, PollFlags::POLLOUT)];
    poll(&mut fds, PollTimeout::ZERO).map_err(|errno| Error::sys("poll", name, errno))?;
    Ok(fds[0].revents().is_some_and(|events| events.contains(PollFlags::POLLOUT)))
}
