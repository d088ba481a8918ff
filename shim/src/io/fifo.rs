//! Streams that are FIFOs, which is what containerd's clients make. Without a terminal the container
//! has the FIFO itself as its stream: no byte goes through the shim.
//!
//! What the shim does is to hold them open: for reading and writing for an output, so that a reader
//! that goes away gives the container no EPIPE and another one can come; for writing for stdin, so
//! that a writer that goes away is not the end of the input. The ends are open files of their own,
//! because `O_NONBLOCK` belongs to the open file and the container's must block.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::stat::{Mode, SFlag, fstat};
use nix::unistd::{Gid, Uid, fchown};

use super::set::{Set, Source};
use crate::error::{Error, Result};
use crate::sys::io::bytes_in_pipe;

/// Whose the container's ends are to be: `io_uid` and `io_gid` of the options.
#[derive(Debug, Clone, Copy)]
pub(super) struct Owner {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

impl Owner {
    pub(super) fn give(self, fd: BorrowedFd<'_>, path: &Path) -> Result<()> {
        // 0 is the default and means nobody in particular: the client may have given it to another.
        if self.uid == 0 && self.gid == 0 {
            return Ok(());
        }
        fchown(fd, Some(Uid::from_raw(self.uid)), Some(Gid::from_raw(self.gid)))
            .map_err(|errno| Error::sys("chown", path.display(), errno))
    }
}

/// The file at `path`, which must be there: the shim makes no FIFOs, as the stock one.
pub(super) struct Found {
    file: OwnedFd,
    path: PathBuf,
    pub(super) is_fifo: bool,
}

impl Found {
    pub(super) fn at(path: &Path) -> Result<Self> {
        let failed = |errno| Error::sys("open", path.display(), errno);
        let file = open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()).map_err(failed)?;
        let mode = SFlag::from_bits_truncate(fstat(&file).map_err(failed)?.st_mode);
        Ok(Found { file, path: path.to_owned(), is_fifo: mode & SFlag::S_IFMT == SFlag::S_IFIFO })
    }

    pub(super) fn name(&self) -> String {
        self.path.display().to_string()
    }

    /// Opens the same file, whatever is at the path by now.
    pub(super) fn open(&self, flags: OFlag) -> Result<OwnedFd> {
        reopen(self.file.as_fd(), flags).map_err(|errno| Error::sys("open", self.path.display(), errno))
    }
}

fn reopen(file: BorrowedFd<'_>, flags: OFlag) -> nix::Result<OwnedFd> {
    let link = format!("/proc/self/fd/{}", file.as_raw_fd());
    open(link.as_str(), flags | OFlag::O_CLOEXEC | OFlag::O_NOCTTY, Mode::empty())
}

/// A FIFO to which the container, or the relay of its terminal, writes.
#[derive(Debug)]
pub(super) struct Fifo {
    path: PathBuf,
    held: Held,
}

#[derive(Debug)]
enum Held {
    /// For reading and writing.
    Open(OwnedFd),
    /// There are unread bytes and no reader, which is so when containerd is restarted just as the
    /// container ends. They live as long as somebody has the FIFO open, and a reader that comes finds
    /// them only if there is a writer when it opens.
    Unread {
        writer: OwnedFd,
        opened: Inotify,
    },
    Nothing,
}

impl Fifo {
    pub(super) fn open(found: &Found, owner: Owner) -> Result<Self> {
        let both = found.open(OFlag::O_RDWR | OFlag::O_NONBLOCK)?;
        owner.give(both.as_fd(), &found.path)?;
        Ok(Fifo { path: found.path.clone(), held: Held::Open(both) })
    }

    /// For the relay of a terminal.
    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        match &self.held {
            Held::Open(fd) => Some(fd.as_fd()),
            Held::Unread { .. } | Held::Nothing => None,
        }
    }

    /// Lets go, so that a reader sees the end when the last process of the container has let go too.
    /// If there are bytes that nobody can read now, they are kept for a reader to come.
    pub(super) fn release(&mut self, set: &mut Set) -> Result<()> {
        let Held::Open(both) = std::mem::replace(&mut self.held, Held::Nothing) else { return Ok(()) };
        self.held = unread(both, set).map_err(|errno| Error::sys("let go of", self.path.display(), errno))?;
        Ok(())
    }

    /// Somebody opened a FIFO, perhaps this one.
    pub(super) fn opened(&mut self, set: &Set) -> Result<()> {
        let Held::Unread { writer, opened } = &self.held else { return Ok(()) };
        match opened.read_events() {
            Ok(_) => {}
            Err(Errno::EAGAIN) => return Ok(()),
            Err(errno) => return Err(Error::sys("read", "inotify", errno)),
        }
        let failed = |errno| Error::sys("poll", self.path.display(), errno);
        if has_reader(writer.as_fd()).map_err(failed)? {
            self.close(set);
        }
        Ok(())
    }

    pub(super) fn close(&mut self, set: &Set) {
        if let Held::Unread { opened, .. } = &self.held {
            set.forget(opened.as_fd());
        }
        self.held = Held::Nothing;
    }
}

fn unread(both: OwnedFd, set: &mut Set) -> nix::Result<Held> {
    if bytes_in_pipe(both.as_fd())? == 0 {
        return Ok(Held::Nothing);
    }
    let opened = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
    let link = format!("/proc/self/fd/{}", both.as_raw_fd());
    opened.add_watch(link.as_str(), AddWatchFlags::IN_OPEN)?;
    let writer = reopen(both.as_fd(), OFlag::O_WRONLY | OFlag::O_NONBLOCK)?;
    drop(both);
    if has_reader(writer.as_fd())? {
        return Ok(Held::Nothing);
    }
    set.watch(opened.as_fd(), Source::Reader)?;
    Ok(Held::Unread { writer, opened })
}

/// A writing end has an error as long as there is no reader.
fn has_reader(writer: BorrowedFd<'_>) -> nix::Result<bool> {
    let mut fds = [PollFd::new(writer, PollFlags::empty())];
    poll(&mut fds, PollTimeout::ZERO)?;
    Ok(!fds[0].revents().is_some_and(|events| events.contains(PollFlags::POLLERR)))
}
