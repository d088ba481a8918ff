//! The two ends of the conversation. Each can say only what its side may say.

use std::io::IoSliceMut;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixCredentials, recvmsg, setsockopt,
    socketpair, sockopt,
};
use nix::unistd::{read, write};

use super::protocol::{FromInit, SIZE, ToInit};
use crate::sys::scm::{recv_with_fds, send_with_fds};

/// The runtime's end.
pub struct ParentEnd(OwnedFd);

/// Why there is no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unheard {
    Errno(Errno),
    /// Another one than was listened to has said this.
    Stranger(FromInit),
}

impl From<Errno> for Unheard {
    fn from(errno: Errno) -> Self {
        Unheard::Errno(errno)
    }
}

/// The end of init, and before it of the joiner. No allocation.
pub struct InitEnd(OwnedFd);

pub fn pair() -> Result<(ParentEnd, InitEnd), Errno> {
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
    Ok((ParentEnd(ours), InitEnd(theirs)))
}

impl ParentEnd {
    pub fn send(&self, message: ToInit) -> Result<(), Errno> {
        send(self.0.as_fd(), &message.encode())
    }

    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// From now on the kernel says of each message who has written it: [`ParentEnd::receive_from`].
    pub fn ask_who_speaks(&self) -> Result<(), Errno> {
        setsockopt(&self.0, sockopt::PassCred, &true)
    }

    /// The next message, if it is `sender`'s. Whoever may look into a process may take its end of the channel, but
    /// nobody can say that he is a process that he does not see (`SCM_CREDENTIALS`, unix(7)).
    pub fn receive_from(&self, sender: i32) -> Result<Option<FromInit>, Unheard> {
        let mut bytes = [0; SIZE];
        let mut space = nix::cmsg_space!(UnixCredentials);
        let (length, by) = loop {
            let mut buffer = [IoSliceMut::new(&mut bytes)];
            match recvmsg::<()>(self.0.as_raw_fd(), &mut buffer, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)
            {
                // As in `receive`.
                Err(Errno::EINTR | Errno::ECONNRESET) => {}
                Err(errno) => return Err(errno.into()),
                Ok(got) => {
                    // Not even read where there is a descriptor beside: the sender sends none.
                    let by = got.cmsgs().ok().and_then(|mut messages| {
                        messages.find_map(|message| match message {
                            ControlMessageOwned::ScmCredentials(by) => Some(by.pid()),
                            _ => None,
                        })
                    });
                    break (got.bytes, by);
                }
            }
        };
        if length == 0 {
            return Ok(None);
        }
        let message = FromInit::decode(&bytes[..length]).ok_or(Errno::EBADMSG)?;
        if by == Some(sender) { Ok(Some(message)) } else { Err(Unheard::Stranger(message)) }
    }

    /// `None` when the other side is gone.
    pub fn receive(&self) -> Result<Option<FromInit>, Errno> {
        let Some(bytes) = receive(self.0.as_fd())? else { return Ok(None) };
        FromInit::decode(&bytes).map(Some).ok_or(Errno::EBADMSG)
    }

    /// The next message, with the descriptor that came with it.
    pub fn receive_descriptor(&self) -> Result<(Option<FromInit>, Option<OwnedFd>), Errno> {
        let (mut bytes, mut descriptor) = ([0; SIZE], [None]);
        let got = recv_with_fds(self.0.as_fd(), &mut bytes, &mut descriptor)?;
        if got.bytes == 0 {
            return Ok((None, None));
        }
        let message = FromInit::decode(&bytes[..got.bytes]).ok_or(Errno::EBADMSG)?;
        let [descriptor] = descriptor;
        Ok((Some(message), descriptor))
    }
}

impl InitEnd {
    /// By `sendmsg`, which a filter may not let through.
    pub fn send_descriptor(&self, message: FromInit, descriptor: BorrowedFd<'_>) -> Result<(), Errno> {
        send_with_fds(self.0.as_fd(), &message.encode(), &[descriptor]).map(drop)
    }

    pub fn send(&self, message: FromInit) -> Result<(), Errno> {
        send(self.0.as_fd(), &message.encode())
    }

    pub fn receive(&self) -> Result<Option<ToInit>, Errno> {
        let Some(bytes) = receive(self.0.as_fd())? else { return Ok(None) };
        ToInit::decode(&bytes).map(Some).ok_or(Errno::EBADMSG)
    }

    pub fn number(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

fn send(fd: BorrowedFd<'_>, bytes: &[u8]) -> Result<(), Errno> {
    loop {
        match write(fd, bytes) {
            Err(Errno::EINTR) => {}
            // A packet goes whole or not at all (unix(7)).
            other => return other.map(drop),
        }
    }
}

fn receive(fd: BorrowedFd<'_>) -> Result<Option<[u8; SIZE]>, Errno> {
    let mut bytes = [0; SIZE];
    loop {
        match read(fd, &mut bytes) {
            // The other side died without reading all that was sent to it. That is said once, and before what
            // it had to say itself, which is still to be read (sock_error() in the kernel's unix_stream_recv).
            Err(Errno::EINTR | Errno::ECONNRESET) => {}
            Ok(0) => return Ok(None),
            Ok(SIZE) => return Ok(Some(bytes)),
            Ok(_) => return Err(Errno::EBADMSG),
            Err(errno) => return Err(errno),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{StepFailure, StepKind};

    #[test]
    fn who_speaks_is_the_kernels_to_say() {
        let (ours, theirs) = pair().unwrap();
        ours.ask_who_speaks().unwrap();
        let own = i32::try_from(std::process::id()).unwrap();
        theirs.send(FromInit::Joined).unwrap();
        assert_eq!(ours.receive_from(own), Ok(Some(FromInit::Joined)));
        theirs.send(FromInit::Born { pid: 1 }).unwrap();
        assert_eq!(ours.receive_from(own + 1), Err(Unheard::Stranger(FromInit::Born { pid: 1 })));
        theirs.send_descriptor(FromInit::Ready, theirs.0.as_fd()).unwrap();
        assert_eq!(ours.receive_from(own), Err(Unheard::Stranger(FromInit::Ready)));
        drop(theirs);
        assert_eq!(ours.receive_from(own), Ok(None));
    }

    #[test]
    fn the_last_word_of_one_that_died_without_reading_is_heard() {
        let (ours, theirs) = pair().unwrap();
        let failed = FromInit::Failed { step: 4, failure: StepFailure::new(StepKind::Errno, Errno::EIO) };
        ours.send(ToInit::Go { pid: 1 }).unwrap();
        theirs.send(failed).unwrap();
        drop(theirs);
        assert_eq!(ours.receive(), Ok(Some(failed)));
        assert_eq!(ours.receive(), Ok(None));
    }
}
