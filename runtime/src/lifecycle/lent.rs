//! What a container's first process is lent: opened before its clone, each in its slot.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use nix::fcntl::OFlag;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::stat::Mode;
use nix::unistd::{mkfifo, pipe2};

use crate::cgroup;
use crate::error::{Error, Result};
use crate::plan::Plan;
use crate::plan::step::Step;
use crate::process::userns::UserNamespaces;
use crate::rootfs;
use crate::state::Dir;
use crate::sys::slots::{self, Slot, Slots};

pub(super) fn open_trees(plan: &Plan, userns: &UserNamespaces, slots: &mut Slots) -> Result<Vec<OwnedFd>> {
    let mut open = Vec::with_capacity(plan.trees.len());
    for (slot, tree) in &plan.trees {
        let map = tree.idmap.as_ref().and_then(|idmap| userns.of(idmap));
        let what = if *slot == slots::ROOT { "open rootfs" } else { "mount source" };
        let fd = rootfs::apply::open_tree(tree, map)
            .map_err(|e| Error::sys(what, tree.source.to_string_lossy(), e))?;
        slots.lend(*slot, &fd);
        open.push(fd);
    }
    Ok(open)
}

pub(super) fn open_namespaces(plan: &Plan, slots: &mut Slots) -> Result<Vec<File>> {
    let joins = plan.namespaces.joiner.as_ref().map_or(&plan.namespaces.joins, |joiner| &joiner.joins);
    let mut open = Vec::with_capacity(joins.len());
    for join in joins {
        let path = PathBuf::from(std::ffi::OsStr::from_bytes(join.path.to_bytes()));
        let what = format!("open {} namespace", join.kind.word());
        let file = File::open(&path).map_err(|e| Error::io(what, &path, &e))?;
        slots.lend(join.slot, &file);
        open.push(file);
    }
    Ok(open)
}

/// Both ends of what the container waits on.
pub(super) struct Starter {
    _ours: OwnedFd,
    pub(super) theirs: Option<File>,
}

pub(super) fn make_starter(dir: &Dir, start_follows: bool, slots: &mut Slots) -> Result<Starter> {
    if start_follows {
        let (read, write) = pipe2(OFlag::O_CLOEXEC).map_err(|e| Error::sys("pipe2", "", e))?;
        slots.lend(slots::FIFO, &read);
        return Ok(Starter { _ours: read, theirs: Some(File::from(write)) });
    }
    let path = dir.fifo_path();
    mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR).map_err(|e| Error::sys("mkfifo", path.display(), e))?;
    // For writing too: then it neither waits for another end nor ever sees the end of the file.
    let fifo = File::options()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NOFOLLOW)
        .open(&path)
        .map_err(|e| Error::io("open", &path, &e))?;
    slots.lend(slots::FIFO, &fifo);
    Ok(Starter { _ours: fifo.into(), theirs: None })
}

/// Where hooks in the container print: memory, which no amount of output can block, read only when
/// one fails.
pub(super) fn hook_log(steps: &[Step], slots: &mut Slots) -> Result<Option<File>> {
    if !steps.iter().any(|step| matches!(step, Step::Hook { .. })) {
        return Ok(None);
    }
    let memory =
        memfd_create(c"hook output", MFdFlags::MFD_CLOEXEC).map_err(|e| Error::sys("memfd_create", "", e))?;
    slots.lend(slots::HOOK_LOG, &memory);
    Ok(Some(File::from(memory)))
}

pub(super) fn read_log(log: Option<&File>) -> String {
    const MOST: u64 = 16 * 1024;
    let mut bytes = Vec::new();
    if let Some(mut log) = log
        && log.seek(SeekFrom::Start(0)).and_then(|_| log.take(MOST).read_to_end(&mut bytes)).is_err()
    {
        return "(its output could not be read)".into();
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The slots of v1's.
pub(super) fn lend_entry(entry: &cgroup::Entry, slots: &mut Slots) -> Vec<Slot> {
    if let Some(fd) = &entry.v2 {
        slots.lend(slots::CGROUP, fd);
    }
    entry.tasks.iter().map(|tasks| slots.lend_more(&tasks.fd)).collect()
}
