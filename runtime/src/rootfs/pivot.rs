//! The container's root becomes the root.

use std::ffi::CStr;
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};
use nix::unistd::{chdir, chroot, fchdir, pivot_root};

use crate::sys::mount::{At, MountAttr, mount_setattr, move_mount};
use crate::sys::slots::{self, Slots};

/// Nothing that is mounted from now on reaches the host. With `receive` what the host mounts is still
/// seen: by the trees that are opened here, and not by the parent.
pub fn isolate(receive: bool) -> Result<(), Errno> {
    let propagation = if receive { libc::MS_SLAVE } else { libc::MS_PRIVATE };
    mount_setattr(At::Path(c"/"), true, &MountAttr { propagation, ..MountAttr::default() })
}

/// Attaches the detached root on top of `/`. The process's own root stays the one below, so paths
/// of the host are still found; the container's root is reached by its descriptor.
pub fn attach(slots: &Slots) -> Result<(), Errno> {
    move_mount(slots.get(slots::ROOT)?, At::Path(c"/"))
}

/// `pivot_root(".", ".")`: the old root ends up on top of the new one, and is taken off
/// (`pivot_root(2)`, "pivot_root(".", ".")").
pub fn pivot(slots: &Slots) -> Result<(), Errno> {
    fchdir(slots.get(slots::ROOT)?)?;
    pivot_root(c".", c".")?;
    umount2(c".", MntFlags::MNT_DETACH)?;
    chdir(c"/")
}

/// `--no-pivot`: where the host's root is an initramfs, which cannot be pivoted away. What shows
/// all of proc and sysfs on the host is taken off first, lest the container finds it below.
pub fn move_root(slots: &Slots, full: &[std::ffi::CString]) -> Result<(), Errno> {
    for path in full {
        match umount2(path.as_c_str(), MntFlags::MNT_DETACH) {
            // Not ours to take off in a user namespace: then the kernel locks it, and us out.
            Ok(()) | Err(Errno::EINVAL | Errno::EPERM | Errno::ENOENT) => {}
            Err(errno) => return Err(errno),
        }
    }
    fchdir(slots.get(slots::ROOT)?)?;
    chroot(c".")?;
    chdir(c"/")
}

/// Without a mount namespace of its own: only the root changes.
pub fn change_root(path: &CStr) -> Result<(), Errno> {
    chroot(path)?;
    chdir(c"/")
}

/// Sets flags or the propagation of the container's root mount.
pub fn set_root(slots: &Slots, recursive: bool, change: &MountAttr) -> Result<(), Errno> {
    mount_setattr(At::Fd(slots.get(slots::ROOT)?.as_fd()), recursive, change)
}
