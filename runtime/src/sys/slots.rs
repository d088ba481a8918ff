//! Descriptors that one step opens and a later one uses. A plan is made before anything is open,
//! so it names slots; the table is made before the clone and only overwritten after it.

use std::os::fd::{AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};

use nix::errno::Errno;

use super::fd::borrow;

/// An index into [`Slots`].
pub type Slot = usize;

/// The root of the container, a detached tree until it is attached.
pub const ROOT: Slot = 0;
/// `/dev` in the container.
pub const DEV: Slot = 1;
/// The container's own proc mount, opened when it was made.
pub const PROC: Slot = 2;
/// The exec fifo, `O_PATH`.
pub const FIFO: Slot = 3;
/// The socket to which the pty's master goes.
pub const CONSOLE: Slot = 4;
/// A copy of the host's `/dev/null`, verified, until it is attached.
pub const NULL: Slot = 5;
/// Where hooks in the container's namespaces print.
pub const HOOK_LOG: Slot = 6;
/// init's pidfd (exec).
pub const INIT: Slot = 7;
/// The empty read-only folder that hides folders.
pub const EMPTY: Slot = 8;
/// The cgroup that the process is born in.
pub const CGROUP: Slot = 9;
/// The same when it hides the first file: others get copies of it.
pub const NULL_ATTACHED: Slot = 10;
/// The first one without a name: trees and namespaces, as the plan counts them, then the cgroups of v1.
pub const FIRST_FREE: Slot = 11;

/// Numbers of open descriptors, -1 where there is none (yet). Not owned: what the parent opened it
/// owns elsewhere; what the child opened ends with it.
pub struct Slots(Vec<RawFd>);

impl Slots {
    pub fn new(count: usize) -> Self {
        Self(vec![-1; count.max(FIRST_FREE)])
    }

    /// `EBADF` when nothing was put there: a plan that uses a slot before it is filled.
    pub fn get(&self, slot: Slot) -> Result<BorrowedFd<'_>, Errno> {
        match self.0.get(slot) {
            Some(fd) if *fd >= 0 => Ok(borrow(fd)),
            _ => Err(Errno::EBADF),
        }
    }

    pub fn is_filled(&self, slot: Slot) -> bool {
        self.get(slot).is_ok()
    }

    /// The child's: the descriptor stays open until it execs or exits, or the slot is closed.
    pub fn keep(&mut self, slot: Slot, fd: OwnedFd) {
        self.0[slot] = fd.into_raw_fd();
    }

    /// The parent's: it goes on owning `fd`.
    pub fn lend(&mut self, slot: Slot, fd: &impl AsRawFd) {
        self.0[slot] = fd.as_raw_fd();
    }

    /// The number, which stays open, and the table forgets: whoever closes all but what is in the
    /// table closes it.
    pub fn take(&mut self, slot: Slot) -> Result<RawFd, Errno> {
        self.get(slot)?;
        Ok(std::mem::replace(&mut self.0[slot], -1))
    }

    /// The same, in a new slot behind all others.
    pub fn lend_more(&mut self, fd: &impl AsRawFd) -> Slot {
        self.0.push(fd.as_raw_fd());
        self.0.len() - 1
    }

    /// From one slot to another.
    pub fn rename(&mut self, from: Slot, to: Slot) {
        self.0[to] = std::mem::replace(&mut self.0[from], -1);
    }

    /// Closes what is there.
    pub fn close(&mut self, slot: Slot) {
        let fd = std::mem::replace(&mut self.0[slot], -1);
        if fd >= 0 {
            // Nothing to be done about an error of close(2): the number is free all the same.
            let _closed = super::fd::close_range(fd, fd);
        }
    }

    /// The open numbers, ascending, written into the front of `out`, which must hold all slots.
    pub fn open_numbers<'a>(&self, out: &'a mut [RawFd]) -> &'a mut [RawFd] {
        let mut n = 0;
        for fd in self.0.iter().filter(|fd| **fd >= 0) {
            out[n] = *fd;
            n += 1;
        }
        &mut out[..n]
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
