//! How a process gets into the container's cgroups by itself.
//!
//! To move another process, or a whole one, the kernel first keeps every fork, exec and exit of the machine away,
//! and to come by that lock it waits for a grace period of RCU: about 10 ms. A thread that moves itself alone, by a
//! `0` in `tasks` of v1, needs no lock (since Linux 5.4; `cgroup_procs_write_start`), and neither does a birth by
//! `CLONE_INTO_CGROUP`. So a container's first process is born into the cgroup of v2, and moves itself on v1 while it
//! waits for `Go`: not sooner, for what it was made of is not the container's to pay for. A process that joins a
//! container may have nothing of the host's open there: its joiner goes in before it joins, and bears it inside.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;

use super::apply::is_permission;
use super::folder::Folder;
use crate::error::{Error, Result};

const TASKS: &str = "tasks";

/// Open before the clone. Without any of both somebody else has to move it when it is there.
#[derive(Debug, Default)]
pub struct Entry {
    pub tasks: Vec<Tasks>,
    /// For `CLONE_INTO_CGROUP`.
    pub v2: Option<OwnedFd>,
}

/// Of a cgroup of v1.
#[derive(Debug)]
pub struct Tasks {
    pub fd: OwnedFd,
    pub file: PathBuf,
}

impl Entry {
    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty() && self.v2.is_none()
    }

    /// What the child could not write to, by its answer.
    pub fn refused(&self, index: i32, errno: Errno) -> Error {
        let tasks = usize::try_from(index).ok().and_then(|index| self.tasks.get(index));
        let file = tasks.map_or_else(|| TASKS.into(), |tasks| tasks.file.clone());
        Error::Cgroup { file, value: "0".into(), errno }
    }

    /// `None` for one whose `tasks` is not ours to write, though `cgroup.procs` may be.
    pub(super) fn of_v1<'p>(folders: impl Iterator<Item = &'p Path>) -> Result<Option<Self>> {
        let mut tasks = Vec::new();
        for path in folders {
            match Folder::open(path)?.open_file(TASKS, OFlag::O_WRONLY) {
                Ok(fd) => tasks.push(Tasks { fd, file: path.join(TASKS) }),
                Err(error) if is_permission(&error) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        Ok(Some(Self { tasks, v2: None }))
    }
}
