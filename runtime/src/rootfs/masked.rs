//! `maskedPaths` and `readonlyPaths` (config-linux.md): what is not there is passed over.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::stat::{SFlag, fstat};

use super::resolve;
use crate::error::{StepFailure, StepKind};
use crate::sys::mount::{At, MountAttr, attr, fsconfig, fsconfig_create, fsmount, fsopen};
use crate::sys::mount::{mount_setattr, move_mount, open_tree_clone};
use crate::sys::slots::{self, Slots};

/// Opens the host's `/dev/null` and makes sure that it is just that (CVE-2025-31133: a `/dev/null`
/// of the image's choice would be mounted over what should be hidden).
pub fn open_null(slots: &mut Slots) -> Result<(), StepFailure> {
    let fd = resolve::open_host(c"/dev/null", libc::O_PATH | libc::O_NOFOLLOW)?;
    let stat = fstat(&fd)?;
    let is_char = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFCHR;
    if !is_char || stat.st_rdev != libc::makedev(1, 3) {
        return Err(StepFailure::new(StepKind::WrongDevice, Errno::ENODEV));
    }
    // A copy, now: after the pivot the original is in no namespace of ours, and cannot be copied.
    slots.keep(slots::NULL, open_tree_clone(At::Fd(fd.as_fd()), false, false)?);
    Ok(())
}

/// A folder is covered by an empty read-only one, anything else by `/dev/null`.
/// `label`: of the folder (`linux.mountLabel`).
pub fn mask(slots: &mut Slots, path: &CStr, label: Option<&CStr>) -> Result<(), Errno> {
    let target = match resolve::open_existing(slots.get(slots::ROOT)?, path, 0) {
        Ok(fd) => fd,
        Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(()),
        Err(errno) => return Err(errno),
    };
    let is_dir = SFlag::from_bits_truncate(fstat(&target)?.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR;
    // One cover serves all: the first is attached itself, the others are copies of it. (A copy of a
    // mount that is not attached is refused before Linux 6.15.)
    if !is_dir {
        if slots.is_filled(slots::NULL) {
            move_mount(slots.get(slots::NULL)?, At::Fd(target.as_fd()))?;
            slots.rename(slots::NULL, slots::NULL_ATTACHED);
            return Ok(());
        }
        let cover = open_tree_clone(At::Fd(slots.get(slots::NULL_ATTACHED)?), false, false)?;
        return move_mount(cover.as_fd(), At::Fd(target.as_fd()));
    }
    if slots.is_filled(slots::EMPTY) {
        let cover = open_tree_clone(At::Fd(slots.get(slots::EMPTY)?), false, false)?;
        return move_mount(cover.as_fd(), At::Fd(target.as_fd()));
    }
    let context = fsopen(c"tmpfs")?;
    fsconfig(context.as_fd(), c"source", Some(c"tmpfs"))?;
    fsconfig(context.as_fd(), c"size", Some(c"0k"))?;
    fsconfig(context.as_fd(), c"nr_inodes", Some(c"1"))?;
    fsconfig(context.as_fd(), c"mode", Some(c"555"))?;
    if let Some(label) = label {
        fsconfig(context.as_fd(), c"context", Some(label))?;
    }
    fsconfig_create(context.as_fd())?;
    let cover = fsmount(context.as_fd(), attr::RDONLY | attr::NOSUID | attr::NODEV | attr::NOEXEC)?;
    move_mount(cover.as_fd(), At::Fd(target.as_fd()))?;
    slots.keep(slots::EMPTY, cover);
    Ok(())
}

/// A copy of the path's own mount, read-only, on top of it.
pub fn make_readonly(root: BorrowedFd<'_>, path: &CStr) -> Result<(), Errno> {
    let target = match resolve::open_existing(root, path, 0) {
        Ok(fd) => fd,
        Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(()),
        Err(errno) => return Err(errno),
    };
    let copy = open_tree_clone(At::Fd(target.as_fd()), true, false)?;
    let read_only = MountAttr { set: attr::RDONLY, ..MountAttr::default() };
    mount_setattr(At::Fd(copy.as_fd()), false, &read_only)?;
    move_mount(copy.as_fd(), At::Fd(target.as_fd()))
}
