//! Standard streams that are not the container's terminal.

use std::os::fd::BorrowedFd;

use nix::errno::Errno;
use nix::sys::stat::{SFlag, fstat, major, minor};
use nix::unistd::{Uid, fchown};

use crate::sys::tty::standard_streams;

/// Gives the standard streams to the container's user, so that it can open `/dev/stdout` and its
/// terminal again; the group stays, a devpts may have set it. Run by the child, before it drops
/// its capabilities; `uid` is the container's.
pub fn give_to(uid: u32) -> Result<(), Errno> {
    standard_streams().into_iter().try_for_each(|stream| give(stream, uid))
}

fn give(stream: BorrowedFd<'_>, uid: u32) -> Result<(), Errno> {
    let stat = fstat(stream)?;
    let is_null = SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) == SFlag::S_IFCHR
        && (major(stat.st_rdev), minor(stat.st_rdev)) == (1, 3);
    // /dev/null is everybody's: its owner on the host must not change.
    if is_null || stat.st_uid == uid {
        return Ok(());
    }
    match fchown(stream, Some(Uid::from_raw(uid)), None) {
        // A stream whose owner our user namespace does not have, or on a read-only file system:
        // leave it, as runc does. The container works with it, it only cannot open it again.
        Ok(()) | Err(Errno::EPERM | Errno::EINVAL | Errno::EROFS) => Ok(()),
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
