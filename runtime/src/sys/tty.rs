//! Terminals: `ioctl_tty(2)`, `pts(4)`.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use libc::{c_int, c_ulong, winsize};
use nix::errno::Errno;

/// 0, 1 and 2, without the standard library's buffers.
pub fn standard_streams() -> [BorrowedFd<'static>; 3] {
    // SAFETY: Rust's start-up code opens /dev/null for those that are closed, and nobody owns (so
    // nobody closes) them: they are only ever replaced.
    [0, 1, 2].map(|fd| unsafe { BorrowedFd::borrow_raw(fd) })
}

/// Lets the other end of the pseudo-terminal be opened.
pub fn unlock(master: BorrowedFd<'_>) -> Result<(), Errno> {
    let locked: c_int = 0;
    // SAFETY: TIOCSPTLCK reads an int, which `locked` is and which outlives the call.
    Errno::result(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &raw const locked) }).map(drop)
}

/// Opens the other end without a path that could lead elsewhere. Linux 4.13.
pub fn peer(master: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: TIOCGPTPEER takes a number where others take an address.
    let fd = Errno::result(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags) })?;
    // SAFETY: the call has just made this descriptor for us, so nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Rows and columns.
pub fn size(terminal: BorrowedFd<'_>) -> Result<(u16, u16), Errno> {
    let mut size = winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCGWINSZ writes a winsize, which `size` is and which outlives the call.
    Errno::result(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) })?;
    Ok((size.ws_row, size.ws_col))
}

pub fn set_size(terminal: BorrowedFd<'_>, rows: u16, columns: u16) -> Result<(), Errno> {
    let size = winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCSWINSZ reads a winsize, which `size` is and which outlives the call.
    Errno::result(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) }).map(drop)
}

/// Makes the terminal that of our session, which we lead and which has none yet; it is not taken
/// from another session. `EPERM` otherwise.
pub fn make_controlling(terminal: BorrowedFd<'_>) -> Result<(), Errno> {
    let steal: c_ulong = 0;
    // SAFETY: TIOCSCTTY takes a number where others take an address.
    Errno::result(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSCTTY, steal) }).map(drop)
}
