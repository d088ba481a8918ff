//! Standard streams that are not the container's terminal.

use std::os::fd::{BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, FcntlArg, OFlag, fcntl, openat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, major, minor};
use nix::unistd::{Uid, dup2_stderr, dup2_stdin, dup2_stdout, fchown};

use crate::sys::tty::standard_streams;

/// Gives the standard streams to the container's user, so that it can open `/dev/stdout` and its
/// terminal again; the group stays, a devpts may have set it. In the place of the host's `/dev/null`
/// comes the container's own. Run by the child inside its root, before it drops its capabilities;
/// `uid` is the container's.
pub fn give_to(uid: u32) -> Result<(), Errno> {
    let [stdin, stdout, stderr] = standard_streams();
    if give(stdin, uid)? == Stream::Null {
        own_null(stdin)?.map_or(Ok(()), dup2_stdin)?;
    }
    if give(stdout, uid)? == Stream::Null {
        own_null(stdout)?.map_or(Ok(()), dup2_stdout)?;
    }
    if give(stderr, uid)? == Stream::Null {
        own_null(stderr)?.map_or(Ok(()), dup2_stderr)?;
    }
    Ok(())
}

#[derive(PartialEq, Eq)]
enum Stream {
    Null,
    Other,
}

fn is_null(stat: &FileStat) -> bool {
    SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) == SFlag::S_IFCHR
        && (major(stat.st_rdev), minor(stat.st_rdev)) == (1, 3)
}

/// The `/dev/null` inside, open as `stream` is: with the host's, root of the container could change the
/// mode and the owner of the host's file (`fchmod(2)`). `None` when inside there is no such device, or
/// it may not be opened.
fn own_null(stream: BorrowedFd<'_>) -> Result<Option<OwnedFd>, Errno> {
    let mode = OFlag::from_bits_truncate(fcntl(stream, FcntlArg::F_GETFL)?) & OFlag::O_ACCMODE;
    // What stands there may be anything: it is neither followed nor waited for, nor does it become ours.
    let flags = mode | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let Ok(own) = openat(AT_FDCWD, c"/dev/null", flags, Mode::empty()) else { return Ok(None) };
    if !is_null(&fstat(&own)?) {
        return Ok(None);
    }
    fcntl(&own, FcntlArg::F_SETFL(mode))?;
    Ok(Some(own))
}

fn give(stream: BorrowedFd<'_>, uid: u32) -> Result<Stream, Errno> {
    let stat = fstat(stream)?;
    // /dev/null is everybody's: its owner on the host must not change.
    if is_null(&stat) {
        return Ok(Stream::Null);
    }
    if stat.st_uid == uid {
        return Ok(Stream::Other);
    }
    match fchown(stream, Some(Uid::from_raw(uid)), None) {
        // A stream whose owner our user namespace does not have, or on a read-only file system:
        // leave it, as runc does. The container works with it, it only cannot open it again.
        Ok(()) | Err(Errno::EPERM | Errno::EINVAL | Errno::EROFS) => Ok(Stream::Other),
        Err(errno) => Err(errno),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::unistd::{geteuid, pipe};
    use std::os::fd::AsFd;

    #[test]
    fn a_stream_gets_the_user_and_keeps_its_group_but_null_stays() {
        if !geteuid().is_root() {
            return spec_tests::need::skip_this("root", "not root");
        }
        let (reader, _writer) = pipe().unwrap();
        let gid = fstat(&reader).unwrap().st_gid;
        give(reader.as_fd(), 1234).unwrap();
        let stat = fstat(&reader).unwrap();
        assert_eq!((stat.st_uid, stat.st_gid), (1234, gid));
        let null = std::fs::File::open("/dev/null").unwrap();
        let owner = fstat(&null).unwrap().st_uid;
        give(null.as_fd(), owner + 1).unwrap();
        assert_eq!(fstat(&null).unwrap().st_uid, owner);
    }
}
