//! `tmpcopyup`: a new tmpfs begins with a copy of the folder that it will cover. Stack buffers and
//! a bounded depth: the child runs this.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{FchmodatFlags, FileStat, Mode, SFlag, fchmod, fchmodat, fstatat, mkdirat, mknodat};
use nix::unistd::{Gid, Uid, fchown, fchownat, read, symlinkat, write};

use crate::sys::fd::{getdents64, readlinkat};

/// Deeper trees are refused (`ELOOP`): each level costs stack.
const MAX_DEPTH: usize = 64;

/// Copies what is in `from` into `to`, and the owner and mode of the folder itself.
pub fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<(), Errno> {
    // Both are only places so far (O_PATH): to be read and changed they must be opened.
    let from = open_dir(from, c".")?;
    let to = open_dir(to, c".")?;
    let stat = nix::sys::stat::fstat(&from)?;
    copy_dir(from.as_fd(), to.as_fd(), 0)?;
    own(to.as_fd(), &stat)
}

fn copy_dir(from: BorrowedFd<'_>, to: BorrowedFd<'_>, depth: usize) -> Result<(), Errno> {
    if depth == MAX_DEPTH {
        return Err(Errno::ELOOP);
    }
    let mut buffer = [0u8; 2048];
    loop {
        let len = getdents64(from, &mut buffer)?;
        if len == 0 {
            return Ok(());
        }
        let mut at = 0;
        while at < len {
            let (name, next) = entry(&buffer[at..len])?;
            if name != c"." && name != c".." {
                copy_one(from, to, name, depth)?;
            }
            at += next;
        }
    }
}

/// `struct linux_dirent64`: ino u64, off u64, reclen u16, type u8, name.
fn entry(record: &[u8]) -> Result<(&CStr, usize), Errno> {
    let length = record.get(16..18).ok_or(Errno::EIO)?;
    let length = usize::from(u16::from_ne_bytes([length[0], length[1]]));
    let name = record.get(19..length).ok_or(Errno::EIO)?;
    let name = CStr::from_bytes_until_nul(name).map_err(|_| Errno::EIO)?;
    Ok((name, length))
}

fn copy_one(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &CStr, depth: usize) -> Result<(), Errno> {
    let stat = fstatat(from, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
    let kind = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT;
    match kind {
        SFlag::S_IFDIR => {
            mkdirat(to, name, Mode::S_IRWXU)?;
            let below = open_dir(to, name)?;
            copy_dir(open_dir(from, name)?.as_fd(), below.as_fd(), depth + 1)?;
            own(below.as_fd(), &stat)
        }
        SFlag::S_IFREG => copy_file(from, to, name, &stat),
        SFlag::S_IFLNK => {
            let mut target = [0u8; libc::PATH_MAX as usize];
            let len = readlinkat(from, name, &mut target[..libc::PATH_MAX as usize - 1])?;
            let target = CStr::from_bytes_until_nul(&target[..=len]).map_err(|_| Errno::EIO)?;
            symlinkat(target, to, name)?;
            own_at(to, name, &stat)
        }
        _ => {
            mknodat(to, name, kind, mode_of(&stat), stat.st_rdev)?;
            own_at(to, name, &stat)?;
            fchmodat(to, name, mode_of(&stat), FchmodatFlags::FollowSymlink)
        }
    }
}

fn copy_file(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &CStr, stat: &FileStat) -> Result<(), Errno> {
    let source = openat(from, name, OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())?;
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
    let copy = openat(to, name, flags, Mode::S_IRUSR | Mode::S_IWUSR)?;
    let mut buffer = [0u8; 16384];
    loop {
        let len = read(&source, &mut buffer)?;
        if len == 0 {
            return own(copy.as_fd(), stat);
        }
        let mut done = 0;
        while done < len {
            done += write(&copy, &buffer[done..len])?;
        }
    }
}

fn open_dir(at: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
    openat(
        at,
        name,
        OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC,
        Mode::empty(),
    )
}

fn mode_of(stat: &FileStat) -> Mode {
    Mode::from_bits_truncate(stat.st_mode & 0o7777)
}

/// The mode last: a change of owner clears the set-user-ID bit.
fn own(fd: BorrowedFd<'_>, stat: &FileStat) -> Result<(), Errno> {
    fchown(fd, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
    fchmod(fd, mode_of(stat))
}

fn own_at(dir: BorrowedFd<'_>, name: &CStr, stat: &FileStat) -> Result<(), Errno> {
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    fchownat(dir, name, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW)
}
