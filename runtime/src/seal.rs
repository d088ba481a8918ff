//! Sealing: our own file cannot be written to through `/proc/<pid>/exe` (CVE-2019-5736).
//!
//! Between its clone and its program, the first process of a container and each that joins it is a program
//! of ours, and a container whose program is `/proc/self/exe` is one for as long as it likes. Whoever
//! opens that link comes to our file *by the mount that we run from*. So we run from a mount that
//! is read-only for ever: a private copy of ours, which no namespace holds, so that nobody can change its flags.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::stat::{Mode, fchmod};
use nix::sys::statvfs::{FsFlags, statvfs};
use nix::unistd::geteuid;

use crate::error::{Error, Result};
use crate::sys::exe::{self, Layout};
use crate::sys::mount::{At, MountAttr, attr, mount_setattr, open_tree_clone};
use crate::sys::spawn::Argv;

/// What is sealed, as errors name it.
pub const EXE: &str = "/proc/self/exe";

/// From now on we run from something that nobody can write to. Of one process of one thread, before it
/// bears others. Where that takes another start of the program (`execve`), this does not return: the
/// arguments and the environment are as they were, and the new program comes here again.
pub fn seal() -> Result<()> {
    match tree() {
        Ok(tree) => {
            let failed = match in_place(tree) {
                Ok(()) => return Ok(()),
                Err(errno) => errno,
            };
            // A kernel built without CONFIG_CHECKPOINT_RESTORE.
            let tree = self::tree().map_err(|_| not_sealed("replace", failed))?;
            Err(not_sealed("execute", execute(&tree)))
        }
        // Also when we are the program of a sealed mount, which cannot be copied.
        Err(_) if is_sealed()? => {
            name_again();
            Ok(())
        }
        Err(_) if nobody_could_write()? => Ok(()),
        Err(_) => {
            let copy = copy()?;
            Err(not_sealed("execute a copy of", execute(&copy)))
        }
    }
}

fn not_sealed(what: &str, errno: Errno) -> Error {
    Error::sys(what, EXE, errno).context("protect tare's own binary from the container")
}

/// A read-only copy of the mount of our file, of that file alone. As long as this descriptor is open,
/// the mount is one that its flags can be changed of.
fn tree() -> std::result::Result<OwnedFd, Errno> {
    let tree = open_tree_clone(At::Path(c"/proc/self/exe"), false, false)?;
    let read_only = MountAttr { set: attr::RDONLY, ..MountAttr::default() };
    mount_setattr(At::Fd(tree.as_fd()), false, &read_only)?;
    Ok(tree)
}

/// Without another start of the program.
fn in_place(tree: OwnedFd) -> std::result::Result<(), Errno> {
    let path = format!("/proc/self/fd/{}", tree.as_raw_fd());
    let raw = |e: io::Error| e.raw_os_error().map_or(Errno::EIO, Errno::from_raw);
    let file = File::open(path).map_err(raw)?;
    // From here on the mount is in no namespace.
    drop(tree);
    exe::replace(file.as_fd(), || {
        let mut buffer = [0; 1024];
        let length =
            File::open("/proc/self/stat").and_then(|mut stat| stat.read(&mut buffer)).map_err(raw)?;
        layout(&String::from_utf8_lossy(&buffer[..length])).ok_or(Errno::EBADMSG)
    })
}

/// `proc_pid_stat(5)`; the name of the program may hold anything.
fn layout(stat: &str) -> Option<Layout> {
    let fields: Vec<u64> =
        stat[stat.rfind(')')? + 1..].split_ascii_whitespace().map(|f| f.parse().unwrap_or(0)).collect();
    // As the manual counts them, from 1.
    let field = |number: usize| fields.get(number - 3).copied();
    Some(Layout {
        code: (field(26)?, field(27)?),
        start_stack: field(28)?,
        data: (field(45)?, field(46)?),
        start_brk: field(47)?,
        args: (field(48)?, field(49)?),
        env: (field(50)?, field(51)?),
    })
}

/// Does not return but with an error. What is executed is opened anew from `file`, whose own
/// descriptor is closed on the way: with that of a tree, the mount leaves the namespace that it was in.
fn execute(file: &OwnedFd) -> Errno {
    let strings = |words: Vec<Vec<u8>>| words.into_iter().filter_map(|w| CString::new(w).ok()).collect();
    let args = std::env::args_os().map(OsStringExt::into_vec).collect();
    let env =
        std::env::vars_os().map(|(name, value)| [name.into_vec(), value.into_vec()].join(&b'=')).collect();
    exe::execute(file.as_fd(), &Argv::new(strings(args)), &Argv::new(strings(env)))
}

/// What is executed by a descriptor is called by its number until Linux 6.14.
fn name_again() {
    let own = std::env::args_os().next().map(std::path::PathBuf::from);
    let name = own.as_deref().and_then(Path::file_name).map(|name| name.to_owned().into_vec());
    if let Some(Ok(name)) = name.map(CString::new) {
        // A name for those who look on.
        let _named = exe::set_name(&name);
    }
}

/// The copy of an ordinary user, who can have no mount of his own: memory with seals.
fn copy() -> Result<OwnedFd> {
    const SEALS: SealFlag = SealFlag::F_SEAL_SEAL
        .union(SealFlag::F_SEAL_SHRINK)
        .union(SealFlag::F_SEAL_GROW)
        .union(SealFlag::F_SEAL_WRITE);
    // Linux 6.3, where `vm.memfd_noexec` may ask for it; older ones do not know the flag.
    const MFD_EXEC: MFdFlags = MFdFlags::from_bits_retain(0x10);
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let memory = match memfd_create(c"tare", flags | MFD_EXEC) {
        Err(Errno::EINVAL) => memfd_create(c"tare", flags),
        other => other,
    }
    .map_err(|errno| not_sealed("make a copy of", errno))?;
    let path = Path::new(EXE);
    let failed = |e: io::Error| Error::io("copy", path, &e).context("protect tare's own binary");
    let mut from = File::open(path).map_err(failed)?;
    let mut to = File::from(memory);
    io::copy(&mut from, &mut to).map_err(failed)?;
    fchmod(&to, Mode::S_IRUSR | Mode::S_IXUSR)
        .map_err(|errno| not_sealed("make executable a copy of", errno))?;
    fcntl(&to, FcntlArg::F_ADD_SEALS(SEALS)).map_err(|errno| not_sealed("seal a copy of", errno))?;
    Ok(to.into())
}

/// We run from what [`seal`] makes: a read-only mount that is in no namespace, or sealed memory. A
/// read-only mount of the host's does not count: it may be writable tomorrow, for who has it open.
fn is_sealed() -> Result<bool> {
    let path = Path::new(EXE);
    let name = fs::read_link(path).map_err(|e| Error::io("read", path, &e))?;
    // The root of a mount without a place has no other name; the second is that of a file which was replaced.
    if name == Path::new("/") || name == Path::new("/ (deleted)") {
        let stat = statvfs(path).map_err(|e| Error::sys("statvfs", EXE, e))?;
        return Ok(stat.flags().contains(FsFlags::ST_RDONLY));
    }
    let file = File::open(path).map_err(|e| Error::io("open", path, &e))?;
    let seals = match fcntl(&file, FcntlArg::F_GET_SEALS) {
        Ok(seals) => SealFlag::from_bits_retain(seals),
        // No file in memory.
        Err(_) => return Ok(false),
    };
    Ok(seals.contains(SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_SEAL))
}

/// We are an ordinary user and our file is root's: who is in our containers has no more rights over
/// it than we, since the host's root is nobody in a user namespace of ours.
fn nobody_could_write() -> Result<bool> {
    let path = Path::new(EXE);
    let file = fs::metadata(path).map_err(|e| Error::io("stat", path, &e))?;
    Ok(!geteuid().is_root() && is_roots_alone(file.uid(), file.mode()))
}

/// The group's bits are also the mask of an access control list.
fn is_roots_alone(owner: u32, mode: u32) -> bool {
    owner == 0 && mode & 0o022 == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_numbers_are_found_behind_any_name() {
        let mut stat = "4711 (a) b) (c) R".to_owned();
        (4..=52).for_each(|number| stat.push_str(&format!(" {number}")));
        let expected = Layout {
            code: (26, 27),
            start_stack: 28,
            data: (45, 46),
            start_brk: 47,
            args: (48, 49),
            env: (50, 51),
        };
        assert_eq!(layout(&stat), Some(expected));
        assert_eq!(layout("4711 (a) R 1 2 3"), None);
        assert_eq!(layout("no such file"), None);
    }

    #[test]
    fn a_file_that_others_may_write_needs_a_copy() {
        assert!(is_roots_alone(0, 0o100_755));
        assert!(is_roots_alone(0, 0o100_555));
        assert!(!is_roots_alone(1000, 0o100_755));
        assert!(!is_roots_alone(0, 0o100_775));
        assert!(!is_roots_alone(0, 0o100_757));
    }
}
