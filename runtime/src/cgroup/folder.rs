//! The folder of a cgroup, open: its files are read and written below its descriptor, so that each
//! costs no second walk of the path.

use std::fs::DirEntry;
use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::error::{Error, Result};

pub(super) const PROCS: &str = "cgroup.procs";

#[derive(Debug)]
pub(super) struct Folder {
    fd: OwnedFd,
    path: PathBuf,
}

impl Folder {
    /// Not `O_PATH`: `BPF_PROG_ATTACH` takes none.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let fd = nix::fcntl::open(path, flags, Mode::empty())
            .map_err(|errno| Error::sys("open cgroup", path.display(), errno))?;
        Ok(Folder { fd, path: path.to_owned() })
    }

    /// `None` when there is no such cgroup.
    pub(super) fn open_if_there(path: &Path) -> Result<Option<Self>> {
        match Self::open(path) {
            Err(error) if is_gone(&error) => Ok(None),
            other => other.map(Some),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    pub(super) fn into_fd(self) -> OwnedFd {
        self.fd
    }

    pub(super) fn open_file(&self, file: &str, flags: OFlag) -> Result<OwnedFd> {
        openat(&self.fd, file, flags | OFlag::O_CLOEXEC, Mode::empty())
            .map_err(|errno| Error::sys("open", self.path.join(file).display(), errno))
    }

    pub(super) fn read(&self, file: &str) -> Result<String> {
        let fd = self.open_file(file, OFlag::O_RDONLY)?;
        let mut text = Vec::new();
        let mut chunk = [0; 4096];
        loop {
            match nix::unistd::read(&fd, &mut chunk) {
                Ok(0) => return Ok(String::from_utf8_lossy(&text).into_owned()),
                Ok(n) => text.extend_from_slice(&chunk[..n]),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(Error::sys("read", self.path.join(file).display(), errno)),
            }
        }
    }

    /// `None` when there is no such file, or the cgroup is being removed under us.
    pub(super) fn read_if_there(&self, file: &str) -> Result<Option<String>> {
        match self.read(file) {
            Err(error) if is_gone(&error) => Ok(None),
            other => other.map(Some),
        }
    }

    pub(super) fn has(&self, file: &str) -> bool {
        self.path.join(file).exists()
    }

    pub(super) fn open_to_write(&self, file: &str) -> nix::Result<OwnedFd> {
        openat(&self.fd, file, OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty())
    }

    pub(super) fn write(&self, file: &str, value: &str) -> Result<()> {
        self.open_to_write(file).and_then(|fd| write_once(fd.as_fd(), value)).map_err(|errno| Error::Cgroup {
            file: self.path.join(file),
            value: value.into(),
            errno,
        })
    }

    /// `0-3`, or nothing: without the newline.
    pub(super) fn read_value(&self, file: &str) -> Result<String> {
        self.read(file).map(|text| text.trim_end().to_owned())
    }

    /// The cgroups below, by name.
    pub(super) fn children(&self) -> Result<Vec<PathBuf>> {
        let mut children = Vec::new();
        for entry in self.entries()? {
            if entry.file_type().map_err(|error| self.not_listed(&error))?.is_dir() {
                children.push(entry.path());
            }
        }
        Ok(children)
    }

    /// None when the cgroup is being removed under us.
    pub(super) fn entries(&self) -> Result<Vec<DirEntry>> {
        match std::fs::read_dir(&self.path).and_then(Iterator::collect) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
            other => other.map_err(|error| self.not_listed(&error)),
        }
    }

    fn not_listed(&self, error: &std::io::Error) -> Error {
        Error::io("list cgroup", &self.path, error)
    }
}

/// A value goes in one `write`: the kernel takes each for a whole one.
pub(super) fn write_once(fd: BorrowedFd<'_>, value: &str) -> nix::Result<()> {
    loop {
        match nix::unistd::write(fd, value.as_bytes()) {
            Err(Errno::EINTR) => {}
            other => return other.map(drop),
        }
    }
}

pub(super) fn rmdir(path: &Path) -> nix::Result<()> {
    unlinkat(AT_FDCWD, path, UnlinkatFlags::RemoveDir)
}

/// There is no such thing any more: `ENODEV` is what an open file of a removed cgroup answers.
pub(super) fn is_gone(error: &Error) -> bool {
    matches!(error.errno(), Some(Errno::ENOENT | Errno::ENODEV))
}
