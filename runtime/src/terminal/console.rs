//! The pseudo-terminal, made by the container's process after it has its root: no allocation.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::{Mode, fstat, major, minor};
use nix::sys::statfs::{FsType, fstatfs};
use nix::unistd::{dup2_stderr, dup2_stdin, dup2_stdout};

use crate::config::ConsoleSize;
use crate::sys::scm::send_with_fds;
use crate::sys::tty;

/// Also the data of the message that carries the master: engines want some, and this is its name.
const PTMX: &std::ffi::CStr = c"/dev/pts/ptmx";

/// `fs/devpts/inode.c`: the inode of ptmx; `linux/magic.h`: the file system.
const PTMX_INODE: u64 = 2;
const DEVPTS_MAGIC: i64 = 0x1cd1;

/// Both ends.
#[derive(Debug)]
pub struct Pty {
    pub master: OwnedFd,
    /// For `/dev/console` a mount of this very file is cloned (`open_tree(2)` with
    /// `AT_EMPTY_PATH`): its path is in the container's hands.
    pub slave: OwnedFd,
}

/// Makes one in the devpts of our root.
///
/// What lies at `/dev/pts/ptmx` came from an image and a configuration. `EXDEV` when it is not on
/// a devpts, `ENODEV` when it is not its ptmx: opening it must not have reached another device,
/// and the master must not be a file that the container also holds (CVE-2025-52565).
pub fn open_pty() -> Result<Pty, Errno> {
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
    from_ptmx(open(PTMX, flags, Mode::empty())?)
}

fn from_ptmx(master: OwnedFd) -> Result<Pty, Errno> {
    if fstatfs(&master)?.filesystem_type() != FsType(DEVPTS_MAGIC) {
        return Err(Errno::EXDEV);
    }
    let stat = fstat(&master)?;
    if stat.st_ino != PTMX_INODE || (major(stat.st_rdev), minor(stat.st_rdev)) != (5, 2) {
        return Err(Errno::ENODEV);
    }
    tty::unlock(master.as_fd())?;
    let slave = tty::peer(master.as_fd())?;
    Ok(Pty { master, slave })
}

impl Pty {
    pub fn set_size(&self, size: ConsoleSize) -> Result<(), Errno> {
        tty::set_size(self.master.as_fd(), size.height, size.width)
    }

    /// One message: the name of the master, and the master. Its modes are left to the receiver.
    pub fn send_master(&self, socket: BorrowedFd<'_>) -> Result<(), Errno> {
        send_with_fds(socket, PTMX.to_bytes(), &[self.master.as_fd()]).map(drop)
    }

    /// Makes the slave our standard streams; both ends are then closed.
    pub fn adopt(self) -> Result<(), Errno> {
        dup2_stdin(&self.slave)?;
        dup2_stdout(&self.slave)?;
        dup2_stderr(&self.slave)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::scm::recv_with_fds;
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
    use nix::unistd::{read, write};

    fn pty() -> Option<Pty> {
        match open_pty() {
            // Containers of build machines mount devpts with ptmxmode=000 or not at all.
            Err(Errno::ENOENT | Errno::EACCES) => {
                spec_tests::need::skip_this("ptmx", "no usable /dev/pts/ptmx");
                None
            }
            other => Some(other.unwrap()),
        }
    }

    #[test]
    fn the_master_that_arrives_speaks_to_the_slave_and_has_the_size() {
        let Some(pty) = pty() else { return };
        pty.set_size(ConsoleSize { height: 11, width: 22 }).unwrap();
        let (ours, theirs) =
            socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC).unwrap();
        pty.send_master(ours.as_fd()).unwrap();
        let mut slots = [None];
        let mut name = [0; 64];
        let got = recv_with_fds(theirs.as_fd(), &mut name, &mut slots).unwrap();
        assert_eq!(&name[..got.bytes], b"/dev/pts/ptmx");
        let master = slots[0].take().unwrap();
        assert_eq!(tty::size(pty.slave.as_fd()), Ok((11, 22)));
        write(&pty.slave, b"hello\n").unwrap();
        let mut text = [0; 16];
        let count = read(&master, &mut text).unwrap();
        assert_eq!(&text[..count], b"hello\r\n");
    }

    #[test]
    fn what_is_not_ptmx_on_a_devpts_is_refused() {
        let open = |path| open(path, OFlag::O_RDWR | OFlag::O_NOCTTY, Mode::empty()).unwrap();
        assert_eq!(from_ptmx(open("/dev/null")).unwrap_err(), Errno::EXDEV);
        let Some(pty) = pty() else { return };
        assert_eq!(from_ptmx(pty.slave).unwrap_err(), Errno::ENODEV);
    }
}
