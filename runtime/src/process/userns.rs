//! User namespaces that exist only to map the ids of a mount (`MOUNT_ATTR_IDMAP`).

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::sys::wait::waitpid;
use nix::unistd::{Pid, read};

use crate::error::{Error, Result};
use crate::namespace::idmap::{IdMaps, Writer};
use crate::rootfs::{Idmap, UserNamespace};
use crate::sys::clone::{Clone, clone3, exit_now};

/// One for each mapping that is asked for.
pub struct UserNamespaces(Vec<(UserNamespace, File)>);

impl UserNamespaces {
    pub fn make<'a>(idmaps: impl Iterator<Item = &'a Idmap>) -> Result<Self> {
        let mut made: Vec<(UserNamespace, File)> = Vec::new();
        for idmap in idmaps {
            if made.iter().any(|(have, _)| *have == idmap.userns) {
                continue;
            }
            let file = match &idmap.userns {
                UserNamespace::At(path) => {
                    let path = Path::new(std::ffi::OsStr::from_bytes(path.to_bytes()));
                    File::open(path).map_err(|e| Error::io("open user namespace", path, &e))?
                }
                UserNamespace::Mapped { uids, gids } => new(&IdMaps {
                    uids: uids.clone(),
                    gids: gids.clone(),
                    uid_writer: Writer::Ourselves,
                    gid_writer: Writer::Ourselves,
                    deny_setgroups: false,
                })?,
            };
            made.push((idmap.userns.clone(), file));
        }
        Ok(Self(made))
    }

    pub fn of(&self, idmap: &Idmap) -> Option<BorrowedFd<'_>> {
        self.0.iter().find(|(have, _)| *have == idmap.userns).map(|(_, file)| file.as_fd())
    }
}

/// A namespace lives as long as something is open of it: a child is its first process for a moment.
fn new(maps: &IdMaps) -> Result<File> {
    let failed = |e| Error::sys("make a user namespace", "for an idmapped mount", e);
    let (theirs, ours) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).map_err(failed)?;
    match clone3(libc::CLONE_NEWUSER as u64, None).map_err(failed)? {
        Clone::Child(_) => {
            // Until the parent lets go of its end, by intent or by its death.
            drop(ours);
            let _end = read(&theirs, &mut [0]);
            exit_now(0)
        }
        Clone::Parent { pid, .. } => {
            drop(theirs);
            let path = format!("/proc/{pid}/ns/user");
            let path = Path::new(&path);
            let namespace =
                maps.write(pid).and_then(|()| File::open(path).map_err(|e| Error::io("open", path, &e)));
            drop(ours);
            waitpid(Pid::from_raw(pid), None).map_err(failed)?;
            namespace
        }
    }
}
