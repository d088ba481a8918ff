//! To be told when the kernel kills for want of memory, and when the container ends.
//!
//! v1 counts in an eventfd, which it also wakes when the cgroup is removed. On v2 the files of events
//! themselves can be waited for: they have an exceptional condition when one of their values has changed
//! since the last read of the same open file.
//!
//! <https://docs.kernel.org/admin-guide/cgroup-v1/memory.html#oom-control>,
//! <https://docs.kernel.org/admin-guide/cgroup-v2.html#memory-interface-files>

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::Instant;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::uio::pread;

use super::folder::{Folder, is_gone};
use super::paths::Paths;
use crate::error::{Error, Result};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Happened {
    /// The kernel killed a process of the container for want of memory, or (v1) would have.
    Oom,
    /// No process is left.
    Ended,
    /// The time is up.
    Nothing,
}

/// Watches one container.
#[derive(Debug)]
pub struct Watch {
    oom: Option<Oom>,
    end: End,
}

#[derive(Debug)]
enum Oom {
    V1 { counter: EventFd, control: Events },
    V2 { events: Events, kills: u64 },
}

#[derive(Debug)]
enum End {
    /// `cgroup.events`
    V2(Events),
    /// Nobody tells: looked up with each event.
    V1(Box<Paths>),
}

impl Paths {
    /// From now on. A host that does not count memory reports no shortage of it, only the end.
    pub fn watch(&self) -> Result<Watch> {
        if let Some(place) = self.v2.as_ref().filter(|_| self.is_unified()) {
            let folder = Folder::open(&place.folder)?;
            let oom = Events::open_if_there(&folder, "memory.events")?.map(|events| {
                let kills = events.value("oom_kill")?.unwrap_or_default();
                Ok::<_, Error>(Oom::V2 { events, kills })
            });
            let missing = || Error::sys("open", place.folder.join("cgroup.events").display(), Errno::ENOENT);
            let end = Events::open_if_there(&folder, "cgroup.events")?.ok_or_else(missing)?;
            return Ok(Watch { oom: oom.transpose()?, end: End::V2(end) });
        }
        let missing = || Error::Host {
            what: "cannot watch the container".into(),
            why: "it has no cgroup of its own".into(),
        };
        let oom = match self.v1_with("memory") {
            Some(place) => Some(Oom::v1(&Folder::open(&place.folder)?)?),
            None if self.is_none() => return Err(missing()),
            None => None,
        };
        Ok(Watch { oom, end: End::V1(Box::new(self.clone())) })
    }
}

impl Oom {
    fn v1(folder: &Folder) -> Result<Self> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let counter = EventFd::from_flags(flags).map_err(|e| Error::sys("eventfd", "", e))?;
        let path = folder.path().join("memory.oom_control");
        let control = Events { file: folder.open_file("memory.oom_control", OFlag::O_RDONLY)?, path };
        let value = format!("{} {}", counter.as_fd().as_raw_fd(), control.file.as_raw_fd());
        folder.write("cgroup.event_control", &value)?;
        Ok(Oom::V1 { counter, control })
    }

    fn fd(&self) -> (BorrowedFd<'_>, PollFlags) {
        match self {
            Oom::V1 { counter, .. } => (counter.as_fd(), PollFlags::POLLIN),
            Oom::V2 { events, .. } => (events.file.as_fd(), PollFlags::POLLPRI),
        }
    }

    /// Whether it happened since the last call.
    fn happened(&mut self) -> Result<bool> {
        match self {
            Oom::V1 { counter, control } => match counter.read() {
                // It is also woken when the cgroup is removed.
                Ok(_) => Ok(control.value("under_oom")?.is_some()),
                Err(Errno::EAGAIN) => Ok(false),
                Err(errno) => Err(Error::sys("read", "eventfd", errno)),
            },
            Oom::V2 { events, kills } => {
                let now = events.value("oom_kill")?.unwrap_or(*kills);
                let more = now > *kills;
                *kills = now;
                Ok(more)
            }
        }
    }
}

impl End {
    fn happened(&self) -> Result<bool> {
        match self {
            End::V2(events) => Ok(events.value("populated")?.is_none_or(|populated| populated == 0)),
            End::V1(paths) => paths.is_empty(),
        }
    }
}

impl Watch {
    /// Waits for the next that happens. `until` `None`: as long as it takes.
    pub fn wait(&mut self, until: Option<Instant>) -> Result<Happened> {
        loop {
            // In this order: who was killed as the last one was killed all the same.
            if self.oom.as_mut().map_or(Ok(false), Oom::happened)? {
                return Ok(Happened::Oom);
            }
            if self.end.happened()? {
                return Ok(Happened::Ended);
            }
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Ok(Happened::Nothing);
            }
            // Rounded up, so that it does not wake a little too early many times over. A time that poll
            // cannot express is cut: then we come round once more.
            let wait = left.map_or(PollTimeout::NONE, |left| {
                let millis = left.as_nanos().div_ceil(1_000_000);
                PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX)
            });
            let mut fds: Vec<PollFd<'_>> = Vec::with_capacity(2);
            if let Some(oom) = &self.oom {
                let (fd, flags) = oom.fd();
                fds.push(PollFd::new(fd, flags));
            }
            if let End::V2(events) = &self.end {
                fds.push(PollFd::new(events.file.as_fd(), PollFlags::POLLPRI));
            }
            match poll(&mut fds, wait) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(Error::sys("poll", "events of the container", errno)),
            }
        }
    }
}

/// A file of names and counts, open: it has an exceptional condition since the last read.
#[derive(Debug)]
pub(super) struct Events {
    pub(super) file: OwnedFd,
    path: PathBuf,
}

impl Events {
    pub(super) fn open_if_there(folder: &Folder, name: &str) -> Result<Option<Self>> {
        match folder.open_file(name, OFlag::O_RDONLY) {
            Ok(file) => Ok(Some(Events { file, path: folder.path().join(name) })),
            Err(error) if is_gone(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// `None` when the cgroup is gone.
    pub(super) fn value(&self, name: &str) -> Result<Option<u64>> {
        // Half a dozen short lines.
        let mut buffer = [0; 1024];
        let length = loop {
            match pread(&self.file, &mut buffer, 0) {
                Ok(length) => break length,
                Err(Errno::EINTR) => {}
                Err(Errno::ENODEV) => return Ok(None),
                Err(errno) => return Err(Error::sys("read", self.path.display(), errno)),
            }
        };
        let text = String::from_utf8_lossy(&buffer[..length]);
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
        Ok(Some(value.unwrap_or_default()))
    }
}
