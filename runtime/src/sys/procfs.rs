//! Files of proc that are written to. A write to a path that begins with `/proc` lands wherever somebody
//! has mounted something (CVE-2025-52881: a label that went into another file, which takes everything).
//! So each file is opened below a folder that is known to be the root of a proc file system, on a way
//! that leaves neither that folder nor its mount and follows no link. Whose instance it is does not
//! matter then: a hostile one cannot lead a write astray, it can only make it fail.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::AT_FDCWD;
use nix::sys::stat::fstat;
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};

use super::fd::{openat2, readlinkat, resolve};
use super::mount::{fsconfig, fsconfig_create, fsmount, fsopen};
use super::slots::{self, Slots};

/// `PROCFS_ROOT_INO` of `linux/fs.h`.
const ROOT_INODE: u64 = 1;

const INSIDE: u64 = resolve::BENEATH | resolve::NO_XDEV | resolve::NO_SYMLINKS | resolve::NO_MAGICLINKS;

/// Room for the longest path below a process's folder, and its number.
const PATH_MAX: usize = 64;

/// `EXDEV` when `folder` is not the root of a proc file system.
fn verify(folder: BorrowedFd<'_>) -> Result<(), Errno> {
    let is_proc = fstatfs(folder)?.filesystem_type() == PROC_SUPER_MAGIC;
    if is_proc && fstat(folder)?.st_ino == ROOT_INODE { Ok(()) } else { Err(Errno::EXDEV) }
}

/// What is mounted at `/proc`: 2 µs. `EXDEV` when that is not the root of a proc file system.
pub fn mounted() -> Result<OwnedFd, Errno> {
    let folder = openat2(AT_FDCWD, c"/proc", libc::O_PATH | libc::O_DIRECTORY, 0, resolve::NO_SYMLINKS)?;
    verify(folder.as_fd())?;
    Ok(folder)
}

/// An instance for our pid namespace, mounted nowhere: about 60 µs, most of them when it is closed.
///
/// `EPERM` in a user namespace that sees no other proc wholly.
fn instance(processes_only: bool) -> Result<OwnedFd, Errno> {
    let context = fsopen(c"proc")?;
    if processes_only {
        // Linux 5.8.
        fsconfig(context.as_fd(), c"subset", Some(c"pid"))?;
    }
    fsconfig_create(context.as_fd())?;
    fsmount(context.as_fd(), 0)
}

/// Opens `path` below `root`.
pub fn open(root: BorrowedFd<'_>, path: &CStr, flags: libc::c_int) -> Result<OwnedFd, Errno> {
    openat2(root, path, flags, 0, INSIDE)
}

/// In one piece, as the files of proc want it.
pub fn write(file: BorrowedFd<'_>, bytes: &[u8]) -> Result<(), Errno> {
    match nix::unistd::write(file, bytes)? {
        n if n == bytes.len() => Ok(()),
        _ => Err(Errno::EIO),
    }
}

/// Sees to it that [`slots::PROC`] is the root of a proc file system: the one that was mounted for the
/// container, kept since before it was attached; else one of our own; else the one at `/proc`.
pub fn provide(slots: &mut Slots) -> Result<(), Errno> {
    if !slots.is_filled(slots::PROC) {
        let root = instance(false).or_else(|_| mounted())?;
        slots.keep(slots::PROC, root);
    }
    verify(slots.get(slots::PROC)?)
}

/// Opens a file of this thread's own folder for writing. It must be opened by the thread itself: the
/// kernel takes labels from nobody else.
///
/// Where a proc is at hand it is tried first, because it costs next to nothing; an instance of our own
/// comes last, for when there is none, or it is read-only, or something covers the file.
pub fn open_own(slots: &Slots, file: &CStr) -> Result<OwnedFd, Errno> {
    let kept = || {
        let root = slots.get(slots::PROC)?;
        verify(root)?;
        open_in_own_folder(root, file)
    };
    if let Ok(file) = kept() {
        return Ok(file);
    }
    let first = match mounted().and_then(|root| open_in_own_folder(root.as_fd(), file)) {
        Ok(file) => return Ok(file),
        Err(errno) => errno,
    };
    instance(true).and_then(|root| open_in_own_folder(root.as_fd(), file)).map_err(|_| first)
}

fn open_in_own_folder(root: BorrowedFd<'_>, file: &CStr) -> Result<OwnedFd, Errno> {
    // By its number in the pid namespace of this proc, which only the link knows; it is read, not followed.
    let link = open(root, c"thread-self", libc::O_PATH | libc::O_NOFOLLOW)?;
    let mut path = [0; PATH_MAX];
    let number = readlinkat(link.as_fd(), c"", &mut path)?;
    let file = file.to_bytes_with_nul();
    let rest = path.get_mut(number..=number + file.len()).ok_or(Errno::ENAMETOOLONG)?;
    rest[0] = b'/';
    rest[1..].copy_from_slice(file);
    let path = CStr::from_bytes_until_nul(&path).map_err(|_| Errno::ENAMETOOLONG)?;
    open(root, path, libc::O_WRONLY)
}

/// For the runtime: writes a file of another process's folder.
pub fn write_of(pid: i32, file: &str, text: &str) -> Result<(), Errno> {
    write(open_of(pid, file, libc::O_WRONLY)?.as_fd(), text.as_bytes())
}

/// For the runtime: reads a file of another process's folder.
pub fn read_of(pid: i32, file: &str) -> Result<String, Errno> {
    let mut text = String::new();
    let read = File::from(open_of(pid, file, libc::O_RDONLY)?).read_to_string(&mut text);
    read.map_err(|e| e.raw_os_error().map_or(Errno::EIO, Errno::from_raw))?;
    Ok(text)
}

fn open_of(pid: i32, file: &str, flags: libc::c_int) -> Result<OwnedFd, Errno> {
    let path = CString::new(format!("{pid}/{file}")).map_err(|_| Errno::EINVAL)?;
    open(mounted()?.as_fd(), &path, flags)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;

    #[test]
    fn only_the_root_of_a_proc_file_system_is_one() {
        for (path, verdict) in [
            ("/proc", Ok(())),
            ("/proc/self", Err(Errno::EXDEV)),
            ("/proc/sys", Err(Errno::EXDEV)),
            ("/sys", Err(Errno::EXDEV)),
            ("/", Err(Errno::EXDEV)),
        ] {
            assert_eq!(verify(File::open(path).unwrap().as_fd()), verdict, "{path}");
        }
    }

    #[test]
    fn a_file_of_our_own_is_that_of_this_thread() {
        let slots = Slots::new(0);
        let file = open_own(&slots, c"comm").unwrap();
        let there = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).unwrap();
        let own = std::fs::read_link("/proc/thread-self").unwrap();
        assert_eq!(there, std::path::Path::new("/proc").join(own).join("comm"));
        assert_eq!(open_own(&slots, c"nothing").unwrap_err(), Errno::ENOENT);
        let long = CString::new("x".repeat(PATH_MAX)).unwrap();
        assert_eq!(open_own(&slots, &long).unwrap_err(), Errno::ENAMETOOLONG);
    }

    #[test]
    fn links_and_ways_out_are_not_followed() {
        let root = mounted().unwrap();
        for (path, errno) in [
            (c"self/comm", Errno::ELOOP),
            (c"1/root", Errno::ELOOP),
            (c"../etc/passwd", Errno::EXDEV),
            (c"/etc/passwd", Errno::EXDEV),
        ] {
            assert_eq!(open(root.as_fd(), path, libc::O_RDONLY).unwrap_err(), errno, "{path:?}");
        }
    }

    #[test]
    fn what_is_mounted_over_a_file_is_not_written_to() {
        use nix::mount::{MsFlags, mount};
        if !nix::unistd::geteuid().is_root() {
            return eprintln!("SKIPPED: needs root");
        }
        // A thread of its own, which may have mounts of its own.
        std::thread::spawn(|| {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
            let none = None::<&str>;
            mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
            let slots = Slots::new(0);
            let own = std::fs::read_link("/proc/thread-self").unwrap();
            let own = std::path::Path::new("/proc").join(own);
            let false_file = tempfile::NamedTempFile::new().unwrap();
            let cover =
                |path: &std::path::Path| mount(Some(false_file.path()), path, none, MsFlags::MS_BIND, none);
            cover(&own.join("comm")).unwrap();
            // Found all the same, in an instance of our own.
            write(open_own(&slots, c"comm").unwrap().as_fd(), b"covered").unwrap();
            let status = std::fs::read_to_string(own.join("status")).unwrap();
            assert!(status.starts_with("Name:\tcovered\n"), "{status}");
            // The runtime has only the host's.
            let pid = i32::try_from(std::process::id()).unwrap();
            cover(&std::path::Path::new("/proc").join(pid.to_string()).join("oom_score_adj")).unwrap();
            assert_eq!(write_of(pid, "oom_score_adj", "0"), Err(Errno::EXDEV));
            assert_eq!(read_of(pid, "oom_score_adj"), Err(Errno::EXDEV));
            // Nor is a folder taken for proc that is mounted in its place.
            let folder = tempfile::tempdir().unwrap();
            mount(Some(folder.path()), "/proc", none, MsFlags::MS_BIND, none).unwrap();
            assert_eq!(mounted().unwrap_err(), Errno::EXDEV);
            assert_eq!(std::fs::read(false_file.path()).unwrap(), b"");
        })
        .join()
        .unwrap();
    }

    #[test]
    fn a_process_is_read_and_written_by_its_number() {
        let own = i32::try_from(std::process::id()).unwrap();
        let score = read_of(own, "oom_score_adj").unwrap();
        write_of(own, "oom_score_adj", score.trim_end()).unwrap();
        assert_eq!(write_of(own, "oom_score_adj", "nonsense"), Err(Errno::EINVAL));
        assert_eq!(read_of(0, "stat"), Err(Errno::ENOENT));
    }
}
