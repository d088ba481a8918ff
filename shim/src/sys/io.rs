//! Terminals, pipes and the processes at their other ends: `ioctl_tty(2)`, `ioctl_pipe`,
//! `pidfd_open(2)`.

use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use libc::{c_int, winsize};
use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use nix::unistd::Pid;

/// How many columns and rows the terminal has.
pub fn set_terminal_size(terminal: BorrowedFd<'_>, columns: u16, rows: u16) -> Result<(), Errno> {
    let size = winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCSWINSZ reads a winsize, which `size` is and which outlives the call.
    Errno::result(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) }).map(drop)
}

/// How many bytes are in a pipe or FIFO, from either of its ends.
pub fn bytes_in_pipe(pipe: BorrowedFd<'_>) -> Result<usize, Errno> {
    let mut bytes: c_int = 0;
    // SAFETY: FIONREAD writes an int, which `bytes` is and which outlives the call.
    Errno::result(unsafe { libc::ioctl(pipe.as_raw_fd(), libc::FIONREAD, &raw mut bytes) })?;
    Ok(usize::try_from(bytes).unwrap_or_default())
}

/// `pidfd_open(2)`: readable when the process has ended. It must be a child that is not reaped yet,
/// or the number may mean another process already.
///
/// Linux 5.3.
/// <https://man7.org/linux/man-pages/man2/pidfd_open.2.html>
pub fn pidfd_open(pid: Pid) -> Result<OwnedFd, Errno> {
    // SAFETY: takes and gives numbers, and touches no memory of ours.
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) })?;
    // SAFETY: the call has just made this descriptor for us, so nobody else owns it; a descriptor fits a RawFd.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// `pidfd_send_signal(2)`. `ESRCH` when the process has ended.
///
/// Linux 5.1.
/// <https://man7.org/linux/man-pages/man2/pidfd_send_signal.2.html>
pub fn pidfd_send_signal(process: BorrowedFd<'_>, signal: Signal) -> Result<(), Errno> {
    let no_info = std::ptr::null::<libc::siginfo_t>();
    let (fd, signal) = (process.as_raw_fd(), signal as c_int);
    // SAFETY: the kernel fills in the information itself when the pointer is null; the rest are numbers.
    Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, signal, no_info, 0) }).map(drop)
}

/// A copy of the descriptor with a number of at least `least`, close-on-exec.
pub fn duplicate_above(fd: BorrowedFd<'_>, least: RawFd) -> Result<OwnedFd, Errno> {
    // SAFETY: takes and gives numbers, and touches no memory of ours.
    let copy = Errno::result(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, least) })?;
    // SAFETY: the call has just made this descriptor for us, so nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

/// The first descriptor of the next message of the socket, close-on-exec; whatever else came is
/// dropped. `None`: the message has none, or the other end is closed. `EAGAIN`: there is no message.
pub fn received_fd(socket: BorrowedFd<'_>) -> Result<Option<OwnedFd>, Errno> {
    let mut data = [0; 4096];
    // As many as a message can have (SCM_MAX_FD): of one that is cut off nix gives none, and those that came along
    // would stay open.
    let mut space = nix::cmsg_space!([RawFd; 253]);
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
    let mut slices = [IoSliceMut::new(&mut data)];
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut slices, Some(&mut space), flags)?;
    let mut fds = Vec::new();
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(numbers) = control {
            // SAFETY: the kernel has just installed these descriptors for us; nobody else owns them,
            // and each is taken once.
            fds.extend(numbers.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
        }
    }
    Ok(fds.into_iter().next())
}

/// Columns and rows.
#[cfg(test)]
pub fn terminal_size(terminal: BorrowedFd<'_>) -> Result<(u16, u16), Errno> {
    let mut size = winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCGWINSZ writes a winsize, which `size` is and which outlives the call.
    Errno::result(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) })?;
    Ok((size.ws_col, size.ws_row))
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::fd::AsFd;

    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

    use super::*;

    #[test]
    fn of_many_descriptors_the_first_is_taken_and_none_is_left_open() {
        for count in [1, 2, 3, 253] {
            let (ours, theirs) =
                socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
                    .expect("a pair");
            let (reader, writer) = nix::unistd::pipe2(OFlag::O_CLOEXEC).expect("a pipe");
            tare::sys::scm::send_with_fds(theirs.as_fd(), b"x", &vec![writer.as_fd(); count]).expect("sent");
            let _closed = crate::starts::nothing_starts();
            drop(writer);
            let first = received_fd(ours.as_fd()).expect("received").expect("a descriptor");
            fcntl(&reader, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).expect("set");
            let mut reader = std::fs::File::from(reader);
            let while_it_is_open = reader.read(&mut [0]).expect_err("a writer is there").kind();
            assert_eq!(while_it_is_open, std::io::ErrorKind::WouldBlock);
            drop(first);
            assert_eq!(reader.read(&mut [0]).expect("the end"), 0, "of {count}");
        }
    }
}
