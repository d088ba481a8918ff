//! What std and nix leave to raw descriptors and raw system calls. The only `unsafe` of this crate.

pub(crate) mod bpf;
pub(crate) mod enosys;

use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

/// One message and the descriptor that came with it (`SCM_RIGHTS`, unix(7)).
///
/// # Errors
/// `ENOMSG` when no descriptor came.
pub(crate) fn receive_fd(stream: &UnixStream) -> nix::Result<OwnedFd> {
    let mut bytes = [0; 4096];
    let mut control = nix::cmsg_space!([i32; 4]);
    let mut parts = [IoSliceMut::new(&mut bytes)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(stream.as_raw_fd(), &mut parts, Some(&mut control), flags)?;
    for part in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(fds) = part
            && let Some(fd) = fds.first()
        {
            // SAFETY: the kernel made this descriptor for us in the call above; nothing else knows or closes it.
            return Ok(unsafe { OwnedFd::from_raw_fd(*fd) });
        }
    }
    Err(nix::Error::ENOMSG)
}
