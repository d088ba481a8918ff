//! Streams that are files, `file:///path`, which are appended to.

use std::os::fd::OwnedFd;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

use crate::error::{Error, Result};

/// Opens the file to append to it. It is made if it is not there, with the folders above it.
pub(super) fn append_to(path: &Path) -> Result<OwnedFd> {
    if let Some(folder) = path.parent() {
        let failed = |error: std::io::Error| {
            // The standard library makes up an error without number only where a path is invalid.
            let errno = error.raw_os_error().map_or(Errno::EINVAL, Errno::from_raw);
            Error::sys("create folder", folder.display(), errno)
        };
        std::fs::create_dir_all(folder).map_err(failed)?;
    }
    // Not to wait, if it is no file: for a carrier, or for a reader of a FIFO.
    let flags = OFlag::O_WRONLY | OFlag::O_APPEND | OFlag::O_CREAT | OFlag::O_NONBLOCK;
    open(path, flags | OFlag::O_CLOEXEC | OFlag::O_NOCTTY, Mode::from_bits_truncate(0o644))
        .map_err(|errno| Error::sys("open", path.display(), errno))
}

/// What an empty name means.
pub(super) fn null() -> Result<OwnedFd> {
    open("/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty())
        .map_err(|errno| Error::sys("open", "/dev/null", errno))
}
