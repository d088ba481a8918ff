//! The descriptors of one process's stdio that are waited for, as a set that can itself be waited
//! for: the loop polls one descriptor for each process at most, and knows none of what is inside.

use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use crate::error::{Error, Result};

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// The master of a terminal.
    Console,
    /// The FIFO whose bytes go to the terminal.
    ConsoleInput,
    /// Where the terminal's bytes go.
    ConsoleOutput,
    /// A pipe or file whose bytes are carried to another.
    Carried,
    CarriedTo,
    /// Somebody opened the FIFO of stdout or stderr, in which unread bytes are.
    Reader,
    /// The logger says that it is ready.
    LoggerReady,
    LoggerEnd,
    /// The logger's time is up.
    LoggerDeadline,
    /// Whether the file could be opened.
    CarrierTells,
    CarrierEnd,
}

impl Source {
    const ALL: [Source; 11] = [
        Source::Console,
        Source::ConsoleInput,
        Source::ConsoleOutput,
        Source::Carried,
        Source::CarriedTo,
        Source::Reader,
        Source::LoggerReady,
        Source::LoggerEnd,
        Source::LoggerDeadline,
        Source::CarrierTells,
        Source::CarrierEnd,
    ];

    fn event(self) -> EpollEvent {
        // What is relayed is told of once for each change: the hangup of a terminal that nobody has
        // open now would be told of without end, and cannot be masked.
        let flags = match self {
            Source::Console => EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLET,
            Source::ConsoleInput | Source::Carried => EpollFlags::EPOLLIN | EpollFlags::EPOLLET,
            Source::ConsoleOutput | Source::CarriedTo => EpollFlags::EPOLLOUT | EpollFlags::EPOLLET,
            _ => EpollFlags::EPOLLIN,
        };
        EpollEvent::new(flags, self as u64)
    }
}

/// Made when there is something to wait for: most containers' stdio never needs it.
#[derive(Debug, Default)]
pub(super) struct Set {
    epoll: Option<Epoll>,
}

impl Set {
    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.epoll.as_ref().map(|epoll| epoll.0.as_fd())
    }

    /// Files that are always ready (regular ones, `/dev/null`) cannot be waited for, and need not be.
    pub(super) fn watch(&mut self, fd: BorrowedFd<'_>, source: Source) -> nix::Result<()> {
        let epoll = match &mut self.epoll {
            Some(epoll) => epoll,
            none => none.insert(Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?),
        };
        match epoll.add(fd, source.event()) {
            Err(Errno::EPERM) => Ok(()),
            other => other,
        }
    }

    /// To be told once more of what is told of once for each change.
    pub(super) fn watch_again(&self, fd: BorrowedFd<'_>, source: Source) -> nix::Result<()> {
        self.epoll.as_ref().map_or(Ok(()), |epoll| epoll.modify(fd, &mut source.event()))
    }

    /// Before `fd` is closed: a copy of it in another process would keep it in the set.
    pub(super) fn forget(&self, fd: BorrowedFd<'_>) {
        if let Some(epoll) = &self.epoll {
            // ENOENT: it was never in the set, being always ready.
            epoll.delete(fd).ok();
        }
    }

    pub(super) fn ready(&self) -> Result<Vec<Source>> {
        let Some(epoll) = &self.epoll else { return Ok(Vec::new()) };
        let mut events = [EpollEvent::empty(); 8];
        match epoll.wait(&mut events, EpollTimeout::ZERO) {
            Ok(count) => {
                let source = |event: &EpollEvent| Source::ALL.into_iter().find(|&s| s as u64 == event.data());
                Ok(events[..count].iter().filter_map(source).collect())
            }
            Err(Errno::EINTR) => Ok(Vec::new()),
            Err(errno) => Err(Error::sys("epoll_wait", "stdio", errno)),
        }
    }
}
