//! The mount calls that work on descriptors: `open_tree`, `move_mount`, `fsopen` and its kin,
//! `mount_setattr`. nix has none of them.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::ptr;

use nix::errno::Errno;

use super::{cvt, cvt_fd};

const OPEN_TREE_CLONE: libc::c_uint = 1;
const OPEN_TREE_CLOEXEC: libc::c_uint = libc::O_CLOEXEC as libc::c_uint;
const MOVE_MOUNT_F_EMPTY_PATH: libc::c_uint = 0x4;
const MOVE_MOUNT_T_EMPTY_PATH: libc::c_uint = 0x40;
const FSOPEN_CLOEXEC: libc::c_uint = 1;
const FSMOUNT_CLOEXEC: libc::c_uint = 1;
const FSCONFIG_SET_FLAG: libc::c_uint = 0;
const FSCONFIG_SET_STRING: libc::c_uint = 1;
const FSCONFIG_CMD_CREATE: libc::c_uint = 6;
const AT_RECURSIVE: libc::c_uint = 0x8000;

/// `MOUNT_ATTR_*` of `mount_setattr(2)`.
pub mod attr {
    pub const RDONLY: u64 = 0x1;
    pub const NOSUID: u64 = 0x2;
    pub const NODEV: u64 = 0x4;
    pub const NOEXEC: u64 = 0x8;
    /// The mask of the three access time modes; `relatime` is 0.
    pub const ATIME: u64 = 0x70;
    pub const NOATIME: u64 = 0x10;
    pub const STRICTATIME: u64 = 0x20;
    pub const NODIRATIME: u64 = 0x80;
    pub const IDMAP: u64 = 0x10_0000;
    pub const NOSYMFOLLOW: u64 = 0x20_0000;
}

/// What `mount_setattr(2)` reads; all zero changes nothing.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MountAttr {
    pub set: u64,
    pub clear: u64,
    /// One of `MS_PRIVATE`, `MS_SLAVE`, `MS_SHARED`, `MS_UNBINDABLE`, or 0.
    pub propagation: u64,
    /// With [`attr::IDMAP`]: a descriptor of the user namespace.
    pub userns_fd: u64,
}

/// A path relative to a folder, or the object of a descriptor itself.
#[derive(Clone, Copy)]
pub enum At<'a> {
    Path(&'a CStr),
    Fd(BorrowedFd<'a>),
}

impl At<'_> {
    fn raw(&self) -> (libc::c_int, *const libc::c_char, libc::c_uint) {
        match self {
            At::Path(path) => (libc::AT_FDCWD, path.as_ptr(), 0),
            At::Fd(fd) => (fd.as_raw_fd(), c"".as_ptr(), libc::AT_EMPTY_PATH as libc::c_uint),
        }
    }
}

/// `open_tree(2)` with `OPEN_TREE_CLONE`: a detached copy of a mount, and with `recursive` of all
/// below it. `nofollow`: a symbolic link at the end is the object itself.
///
/// Linux 5.2. `EINVAL` when the tree is not recursive but has locked mounts below (user namespaces).
/// <https://man7.org/linux/man-pages/man2/open_tree.2.html>
pub fn open_tree_clone(at: At<'_>, recursive: bool, nofollow: bool) -> Result<OwnedFd, Errno> {
    let (dir, path, empty) = at.raw();
    let mut flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | empty;
    if recursive {
        flags |= AT_RECURSIVE;
    }
    if nofollow {
        flags |= libc::AT_SYMLINK_NOFOLLOW as libc::c_uint;
    }
    // SAFETY: `path` points to a NUL-terminated string that outlives the call, which only reads it.
    cvt_fd(unsafe { libc::syscall(libc::SYS_open_tree, dir, path, flags) })
}

/// `move_mount(2)`: attaches the detached `tree` on `target`.
///
/// Linux 5.2. `ENOTDIR` when one is a folder and the other is not.
/// <https://man7.org/linux/man-pages/man2/move_mount.2.html>
pub fn move_mount(tree: BorrowedFd<'_>, target: At<'_>) -> Result<(), Errno> {
    let (dir, path, empty) = target.raw();
    let to = if empty == 0 { 0 } else { MOVE_MOUNT_T_EMPTY_PATH };
    // SAFETY: both paths are NUL-terminated strings that outlive the call, which only reads them.
    cvt(unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            tree.as_raw_fd(),
            c"".as_ptr(),
            dir,
            path,
            MOVE_MOUNT_F_EMPTY_PATH | to,
        )
    })
    .map(drop)
}

/// `mount_setattr(2)` on the mount of `at`, with `recursive` on all below it too.
///
/// Linux 5.12. `EPERM` when a flag is locked by a more privileged user namespace, `EINVAL` when the
/// mount is not ours, or an idmapped file system does not support it.
/// <https://man7.org/linux/man-pages/man2/mount_setattr.2.html>
pub fn mount_setattr(at: At<'_>, recursive: bool, change: &MountAttr) -> Result<(), Errno> {
    let (dir, path, mut flags) = at.raw();
    if recursive {
        flags |= AT_RECURSIVE;
    }
    let change: *const MountAttr = change;
    // SAFETY: `change` and `path` outlive the call, the size passed is that of `change`; the kernel
    // only reads both.
    cvt(unsafe { libc::syscall(libc::SYS_mount_setattr, dir, path, flags, change, size_of::<MountAttr>()) })
        .map(drop)
}

/// `fsopen(2)`: a context in which a new file system is configured.
///
/// Linux 5.2. `ENODEV` when the kernel has no such file system.
/// <https://man7.org/linux/man-pages/man2/fsopen.2.html>
pub fn fsopen(fs_type: &CStr) -> Result<OwnedFd, Errno> {
    // SAFETY: `fs_type` is NUL-terminated and outlives the call, which only reads it.
    cvt_fd(unsafe { libc::syscall(libc::SYS_fsopen, fs_type.as_ptr(), FSOPEN_CLOEXEC) })
}

/// `fsconfig(2)`: one option, `key` or `key=value`. The kernel takes values of up to 255 bytes.
///
/// <https://man7.org/linux/man-pages/man2/fsconfig.2.html>
pub fn fsconfig(context: BorrowedFd<'_>, key: &CStr, value: Option<&CStr>) -> Result<(), Errno> {
    let (command, value) = match value {
        Some(value) => (FSCONFIG_SET_STRING, value.as_ptr()),
        None => (FSCONFIG_SET_FLAG, ptr::null()),
    };
    // SAFETY: `key` and `value` are NUL-terminated (or null, which the flag command asks for) and
    // outlive the call, which only reads them.
    cvt(unsafe { libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), command, key.as_ptr(), value, 0) })
        .map(drop)
}

/// `fsconfig(2)` with `FSCONFIG_CMD_CREATE`: the superblock is made.
pub fn fsconfig_create(context: BorrowedFd<'_>) -> Result<(), Errno> {
    let none = ptr::null::<libc::c_char>();
    // SAFETY: the command asks for null in the place of key and value, which both are; the rest are numbers.
    cvt(unsafe { libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), FSCONFIG_CMD_CREATE, none, none, 0) })
        .map(drop)
}

/// `fsmount(2)`: a detached mount of the file system that was made in `context`.
///
/// <https://man7.org/linux/man-pages/man2/fsmount.2.html>
pub fn fsmount(context: BorrowedFd<'_>, attrs: u64) -> Result<OwnedFd, Errno> {
    // SAFETY: takes numbers and touches no memory of ours.
    cvt_fd(unsafe { libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), FSMOUNT_CLOEXEC, attrs) })
}
