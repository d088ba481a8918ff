//! What std and nix leave to raw descriptors.

use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
#[cfg(target_arch = "x86_64")]
use std::os::unix::process::CommandExt;
#[cfg(target_arch = "x86_64")]
use std::process::Command;

use nix::errno::Errno;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

/// One message with the descriptors that came with it (`SCM_RIGHTS`, unix(7)).
pub(crate) fn receive(stream: &UnixStream) -> nix::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut bytes = vec![0; 65536];
    let mut control = nix::cmsg_space!([i32; 16]);
    let mut parts = [IoSliceMut::new(&mut bytes)];
    let message =
        recvmsg::<()>(stream.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::MSG_CMSG_CLOEXEC)?;
    let mut fds = Vec::new();
    for part in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(raw) = part {
            for fd in raw {
                // SAFETY: the kernel made this descriptor for us in the call above, and nothing else knows it.
                fds.push(unsafe { OwnedFd::from_raw_fd(fd) });
            }
        }
    }
    let length = message.bytes;
    bytes.truncate(length);
    Ok((bytes, fds))
}

/// A command that the thread which spawns it will trace: it stops after its execve(2) (ptrace(2), `PTRACE_TRACEME`).
#[cfg(target_arch = "x86_64")]
pub(crate) fn traced(command: &mut Command) -> &mut Command {
    let trace = || nix::sys::ptrace::traceme().map_err(std::io::Error::from);
    // SAFETY: what runs between fork and exec is one system call, which is safe there (signal-safety(7)): it
    // allocates nothing, takes no lock, and touches no memory but errno; nor does the error, which is a number.
    unsafe { command.pre_exec(trace) }
}

/// The next syscall that waits for an answer (`SECCOMP_IOCTL_NOTIF_RECV`, seccomp_unotify(2)).
pub(crate) fn receive_notification(listener: BorrowedFd<'_>) -> nix::Result<libc::seccomp_notif> {
    // SAFETY: plain integers, of which zero is a valid value; the kernel wants zeros.
    let mut notification: libc::seccomp_notif = unsafe { std::mem::zeroed() };
    // SAFETY: the request writes one `seccomp_notif`, which lives here.
    let result = unsafe {
        libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV as _, &raw mut notification)
    };
    Errno::result(result).map(|_| notification)
}

/// Its answer (`SECCOMP_IOCTL_NOTIF_SEND`).
pub(crate) fn answer_notification(
    listener: BorrowedFd<'_>,
    mut answer: libc::seccomp_notif_resp,
) -> nix::Result<()> {
    // SAFETY: the request reads one `seccomp_notif_resp`, which lives here.
    let result =
        unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND as _, &raw mut answer) };
    Errno::result(result).map(drop)
}
