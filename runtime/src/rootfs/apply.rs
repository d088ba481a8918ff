//! [`MountStep`]s and device nodes, done: a few system calls each, on descriptors below the
//! container's root. No allocation: the child runs this (and the parent, for trees).

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::mount::MsFlags;
use nix::sys::stat::{FchmodatFlags, FileStat, Mode, SFlag, fchmodat, fstat, fstatat, mknodat};
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchownat, symlinkat, unlinkat};

use super::devices::{How, Node};
use super::resolve::{self, Make};
use super::{Change, MountStep, NewMount, Rule, Source, Target, Tree, copy_up};
use crate::error::{StepFailure, StepKind};
use crate::sys::fd::fsetxattr;
use crate::sys::mount::{At, MountAttr, attr, fsconfig, fsconfig_create, fsmount, fsopen};
use crate::sys::mount::{mount_setattr, move_mount, open_tree_clone};
use crate::sys::slots::{self, Slots};

/// Opens a tree of the host, changed as it asks. `userns` is for `idmap`.
pub fn open_tree(tree: &Tree, userns: Option<BorrowedFd<'_>>) -> Result<OwnedFd, Errno> {
    let open = |path| open_tree_clone(At::Path(path), tree.recursive, tree.nofollow);
    let fd = match (open(&tree.source), &tree.instead) {
        (Err(Errno::ENOENT), Some(instead)) => open(instead)?,
        (done, _) => done?,
    };
    if let (Some(idmap), Some(userns)) = (&tree.idmap, userns) {
        let map =
            MountAttr { set: attr::IDMAP, userns_fd: userns.as_raw_fd() as u64, ..MountAttr::default() };
        mount_setattr(At::Fd(fd.as_fd()), idmap.recursive, &map)?;
    }
    apply_changes(fd.as_fd(), &tree.changes)?;
    Ok(fd)
}

pub fn apply_changes(mount: BorrowedFd<'_>, changes: &[Change]) -> Result<(), Errno> {
    changes.iter().try_for_each(|change| mount_setattr(At::Fd(mount), change.recursive, &change.attr))
}

pub fn mount(step: &MountStep, slots: &mut Slots) -> Result<(), StepFailure> {
    match step {
        MountStep::New(new) => mount_new(new, slots),
        MountStep::Attach { source, target } => attach(source, target, slots),
        MountStep::SetAttr { path, changes } => {
            let mount = resolve::open_existing(slots.get(slots::ROOT)?, path, 0)?;
            Ok(apply_changes(mount.as_fd(), changes)?)
        }
        MountStep::Symlink { path, to } => {
            let (parent, name) = resolve::open_parent(slots.get(slots::ROOT)?, path)?;
            Ok(symlinkat(to.as_c_str(), &parent, name)?)
        }
    }
}

fn mount_new(new: &NewMount, slots: &mut Slots) -> Result<(), StepFailure> {
    let at = open_target(slots.get(slots::ROOT)?, &new.target, Make::Directory)?;
    if new.long_data.is_some() {
        return Ok(mount_long(new, at.as_fd(), slots)?);
    }
    let mut bound = false;
    let mount = match make(new) {
        Ok(mount) => mount,
        Err(Errno::EPERM) => match &new.fallback {
            Some(tree) => {
                // The host's own, with its label.
                bound = true;
                open_tree(tree, None)?
            }
            None => return Err(Errno::EPERM.into()),
        },
        Err(errno) => return Err(errno.into()),
    };
    if new.inherit_mode {
        let mode = Mode::from_bits_truncate(fstat(&at)?.st_mode & 0o7777);
        fchmodat(&mount, c".", mode, FchmodatFlags::FollowSymlink)?;
    }
    if let (Some(label), false) = (&new.label, bound) {
        // What fsmount gives can be mounted, and not changed.
        let folder =
            openat(&mount, c".", OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
        fsetxattr(folder.as_fd(), c"security.selinux", label.to_bytes())?;
    }
    if new.copy_up {
        copy_up::copy(at.as_fd(), mount.as_fd())?;
    }
    apply_changes(mount.as_fd(), &new.changes)?;
    move_mount(mount.as_fd(), At::Fd(at.as_fd()))?;
    if let Some(slot) = new.keep {
        slots.keep(slot, mount);
    }
    Ok(())
}

fn make(new: &NewMount) -> Result<OwnedFd, Errno> {
    let context = fsopen(&new.fs_type)?;
    if let Some(source) = &new.source {
        fsconfig(context.as_fd(), c"source", Some(source))?;
    }
    for (key, value) in &new.parameters {
        fsconfig(context.as_fd(), key, value.as_deref())?;
    }
    fsconfig_create(context.as_fd())?;
    fsmount(context.as_fd(), new.attrs)
}

/// By `mount(2)`, which takes a page of data: overlays of many layers.
fn mount_long(new: &NewMount, at: BorrowedFd<'_>, slots: &Slots) -> Result<(), Errno> {
    let mut path = [0u8; 32];
    let path = fd_path(at, &mut path)?;
    nix::mount::mount(
        new.source.as_deref(),
        path,
        Some(new.fs_type.as_c_str()),
        flags(new.attrs),
        new.long_data.as_deref(),
    )?;
    if new.changes.is_empty() {
        return Ok(());
    }
    // By its path, because `at` is below it. Another mount may be there by now, whose propagation is then what
    // this one's should be; the flags that protect are on already.
    let mount = resolve::open_existing(slots.get(slots::ROOT)?, &new.target.path, 0)?;
    apply_changes(mount.as_fd(), &new.changes)
}

/// `MOUNT_ATTR_*` as `mount(2)` takes them.
fn flags(attrs: u64) -> MsFlags {
    const TABLE: [(u64, MsFlags); 6] = [
        (attr::RDONLY, MsFlags::MS_RDONLY),
        (attr::NOSUID, MsFlags::MS_NOSUID),
        (attr::NODEV, MsFlags::MS_NODEV),
        (attr::NOEXEC, MsFlags::MS_NOEXEC),
        (attr::NODIRATIME, MsFlags::MS_NODIRATIME),
        (attr::NOSYMFOLLOW, MsFlags::from_bits_retain(libc::MS_NOSYMFOLLOW)),
    ];
    let times = match attrs & attr::ATIME {
        attr::NOATIME => MsFlags::MS_NOATIME,
        attr::STRICTATIME => MsFlags::MS_STRICTATIME,
        _ => MsFlags::MS_RELATIME,
    };
    TABLE.iter().filter(|(attr, _)| attrs & attr != 0).fold(times, |all, (_, flag)| all | *flag)
}

/// `/proc/self/fd/N`, for calls that take no descriptor. The host's `/proc`: before the pivot.
fn fd_path<'b>(fd: BorrowedFd<'_>, buffer: &'b mut [u8; 32]) -> Result<&'b CStr, Errno> {
    use std::io::Write;
    let len = buffer.len() as u64;
    let mut cursor = std::io::Cursor::new(&mut buffer[..]);
    write!(cursor, "/proc/self/fd/{}\0", fd.as_raw_fd()).map_err(|_| Errno::ENAMETOOLONG)?;
    debug_assert!(cursor.position() <= len);
    CStr::from_bytes_until_nul(buffer).map_err(|_| Errno::ENAMETOOLONG)
}

/// What the parent has opened, or what is opened now and kept in `opened`.
fn tree_of<'s>(
    source: &Source,
    slots: &'s Slots,
    opened: &'s mut Option<OwnedFd>,
) -> Result<BorrowedFd<'s>, Errno> {
    match source {
        Source::Parent { slot, .. } => slots.get(*slot),
        Source::Child(tree) => Ok(OwnedFd::as_fd(opened.insert(open_tree(tree, None)?))),
    }
}

fn attach(source: &Source, target: &Target, slots: &Slots) -> Result<(), StepFailure> {
    let mut opened = None;
    let tree = tree_of(source, slots, &mut opened)?;
    if target.rule == Rule::ProcAlone && fstatfs(tree)?.filesystem_type() != PROC_SUPER_MAGIC {
        return Err(StepFailure::new(StepKind::OverProc, Errno::EPERM));
    }
    let make = if is_kind(&fstat(tree)?, SFlag::S_IFDIR) { Make::Directory } else { Make::File };
    let at = open_target(slots.get(slots::ROOT)?, target, make)?;
    Ok(move_mount(tree, At::Fd(at.as_fd()))?)
}

/// Finds or makes the place, and refuses what the target's rule forbids.
fn open_target(root: BorrowedFd<'_>, target: &Target, make: Make) -> Result<OwnedFd, StepFailure> {
    if target.nofollow
        && let Ok(link) = resolve::open_existing(root, &target.path, libc::O_NOFOLLOW)
    {
        return Ok(link);
    }
    if target.rule == Rule::Ordinary {
        return match resolve::open_ordinary_directory(root, &target.path) {
            Ok(fd) => Ok(fd),
            Err(Errno::ENOENT) => {
                drop(resolve::open(root, &target.path, Make::Directory)?);
                Ok(resolve::open_ordinary_directory(root, &target.path)?)
            }
            Err(errno @ (Errno::ELOOP | Errno::ENOTDIR)) => {
                Err(StepFailure::new(StepKind::NotOrdinaryDirectory, errno))
            }
            Err(errno) => Err(errno.into()),
        };
    }
    let at = resolve::open(root, &target.path, make)?;
    if target.rule == Rule::Usual && fstatfs(&at)?.filesystem_type() == PROC_SUPER_MAGIC {
        return Err(StepFailure::new(StepKind::OverProc, Errno::EPERM));
    }
    Ok(at)
}

fn is_kind(stat: &FileStat, kind: SFlag) -> bool {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == kind
}

/// Opens `/dev` of the container, made when missing, for the nodes and links to come.
pub fn open_dev(slots: &mut Slots) -> Result<(), Errno> {
    let dev = resolve::open(slots.get(slots::ROOT)?, c"/dev", Make::Directory)?;
    slots.keep(slots::DEV, dev);
    Ok(())
}

pub fn make_node(node: &Node, slots: &Slots) -> Result<(), StepFailure> {
    let parent;
    let (dir, name) = match node.name_in_dev() {
        Some(name) => (slots.get(slots::DEV)?, name),
        None => {
            let (found, name) = resolve::open_parent(slots.get(slots::ROOT)?, &node.device.path)?;
            parent = found;
            (parent.as_fd(), name)
        }
    };
    match &node.how {
        How::Mknod => mknod(node, dir, name),
        How::Bind(source) => {
            let mut opened = None;
            let tree = tree_of(source, slots, &mut opened)?;
            let at = resolve::open(dir, name, Make::File)?;
            Ok(move_mount(tree, At::Fd(at.as_fd()))?)
        }
    }
}

/// The umask is 0 here (`order.rs`). What is there already must be that very device.
fn mknod(node: &Node, dir: BorrowedFd<'_>, name: &CStr) -> Result<(), StepFailure> {
    let kind = SFlag::from_bits_truncate(node.file_type());
    let mode = Mode::from_bits_truncate(node.device.mode);
    match mknodat(dir, name, kind, mode, node.rdev()) {
        Ok(()) => {}
        Err(Errno::EEXIST) => {
            let there = fstatat(dir, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
            if !is_kind(&there, kind) || there.st_rdev != node.rdev() {
                return Err(StepFailure::new(StepKind::WrongDevice, Errno::EEXIST));
            }
            fchmodat(dir, name, mode, FchmodatFlags::NoFollowSymlink).or_else(|errno| match errno {
                // Before Linux 6.6 the flag is unknown; the node was just seen to be no link.
                Errno::EOPNOTSUPP => fchmodat(dir, name, mode, FchmodatFlags::FollowSymlink),
                other => Err(other),
            })?;
        }
        Err(errno) => return Err(errno.into()),
    }
    if (node.device.uid, node.device.gid) != (0, 0) {
        let (uid, gid) = (Uid::from_raw(node.device.uid), Gid::from_raw(node.device.gid));
        fchownat(dir, name, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW)?;
    }
    Ok(())
}

/// A link in `/dev`; one that is there already stays.
pub fn make_link(dev: BorrowedFd<'_>, name: &CStr, to: &CStr) -> Result<(), Errno> {
    match symlinkat(to, dev, name) {
        Err(Errno::EEXIST) => Ok(()),
        other => other,
    }
}

/// `/dev/ptmx` is the one of the container's own devpts, whatever the image has there.
pub fn make_ptmx(dev: BorrowedFd<'_>) -> Result<(), Errno> {
    match unlinkat(dev, c"ptmx", UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => {}
        Err(errno) => return Err(errno),
    }
    symlinkat(c"pts/ptmx", dev, c"ptmx")
}

/// Binds the pty's slave on `/dev/console`.
pub fn bind_console(slots: &Slots, slave: BorrowedFd<'_>) -> Result<(), Errno> {
    let at = resolve::open(slots.get(slots::DEV)?, c"console", Make::File)?;
    let tree = open_tree_clone(At::Fd(slave), false, false)?;
    move_mount(tree.as_fd(), At::Fd(at.as_fd()))
}
