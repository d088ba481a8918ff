//! A path inside the container's root: found, or made, without ever leaving the root, whatever
//! symbolic links a hostile image holds and whoever renames meanwhile. The kernel does the walk
//! (`openat2` with `RESOLVE_IN_ROOT`); what is missing is made one component at a time, each below a
//! folder that the kernel found. No allocation: the child runs this.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag};
use nix::sys::stat::Mode;

use crate::sys::fd::{openat2, resolve};

const PATH_MAX: usize = libc::PATH_MAX as usize;
/// As many symbolic links as the kernel itself follows (`path_resolution(7)`).
const MAX_LINKS: usize = 40;

/// What to make at the end of a path where there is nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Make {
    Nothing,
    Directory,
    File,
}

/// Opens `path` in `root` (`O_PATH`), making what is missing when asked to.
pub fn open(root: BorrowedFd<'_>, path: &CStr, make: Make) -> Result<OwnedFd, Errno> {
    let found = open_existing(root, path, 0);
    if make == Make::Nothing || !matches!(found, Err(Errno::ENOENT)) {
        return found;
    }
    let mut todo = PathBuffer::new(path.to_bytes())?;
    for _ in 0..MAX_LINKS {
        match make_missing(root, &mut todo, make)? {
            Made::All => return open_existing(root, todo.as_cstr(), 0),
            Made::LinkFollowed => {}
        }
    }
    Err(Errno::ELOOP)
}

/// Opens `path` in `root` as it is; `flags` are added to `O_PATH`.
pub fn open_existing(root: BorrowedFd<'_>, path: &CStr, flags: libc::c_int) -> Result<OwnedFd, Errno> {
    openat2(root, path, libc::O_PATH | flags, 0, resolve::IN_ROOT | resolve::NO_MAGICLINKS)
}

/// Opens the folder `path`, of which no component may be a symbolic link or a mount's magic one:
/// what `/proc` and `/sys` are mounted on (CVE-2019-19921).
pub fn open_ordinary_directory(root: BorrowedFd<'_>, path: &CStr) -> Result<OwnedFd, Errno> {
    let how = resolve::IN_ROOT | resolve::NO_MAGICLINKS | resolve::NO_SYMLINKS;
    openat2(root, path, libc::O_PATH | libc::O_DIRECTORY, 0, how)
}

/// The folder that `path` is in, made when missing, and the last component.
pub fn open_parent<'p>(root: BorrowedFd<'_>, path: &'p CStr) -> Result<(OwnedFd, &'p CStr), Errno> {
    let bytes = path.to_bytes();
    let cut = bytes.iter().rposition(|b| *b == b'/').map_or(0, |at| at + 1);
    let name = CStr::from_bytes_with_nul(&path.to_bytes_with_nul()[cut..]).map_err(|_| Errno::EINVAL)?;
    let parent = PathBuffer::new(&bytes[..cut])?;
    Ok((open(root, parent.as_cstr(), Make::Directory)?, name))
}

enum Made {
    All,
    /// A dangling link was in the way: the buffer now holds the path with the link's target in
    /// place of the link.
    LinkFollowed,
}

fn make_missing(root: BorrowedFd<'_>, todo: &mut PathBuffer, make: Make) -> Result<Made, Errno> {
    let mut folder: Option<OwnedFd> = None;
    let mut at = 0;
    while let Some((start, end)) = todo.component(at) {
        let last = todo.component(end).is_none();
        let parent = folder.as_ref().map_or(root, AsFd::as_fd);
        // The whole prefix and not the name alone: `..` and links are the kernel's business.
        let found = todo.with_cut(end, |prefix| open_existing(root, prefix, 0));
        let next = match found {
            Ok(fd) => fd,
            Err(Errno::ENOENT) => {
                let made = todo.with_name(start, end, |name| {
                    if last && make == Make::File {
                        make_file(parent, name)
                    } else {
                        make_directory(parent, name)
                    }
                });
                match made {
                    // Somebody made it meanwhile, or a dangling link is there.
                    Ok(()) | Err(Errno::EEXIST) => {}
                    Err(errno) => return Err(errno),
                }
                match todo.with_cut(end, |prefix| open_existing(root, prefix, 0)) {
                    Ok(fd) => fd,
                    Err(Errno::ENOENT) => {
                        todo.splice_link(parent, start, end)?;
                        return Ok(Made::LinkFollowed);
                    }
                    Err(errno) => return Err(errno),
                }
            }
            Err(errno) => return Err(errno),
        };
        folder = Some(next);
        at = end;
    }
    Ok(Made::All)
}

fn make_directory(parent: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno> {
    nix::sys::stat::mkdirat(parent, name, Mode::from_bits_truncate(0o755))
}

fn make_file(parent: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno> {
    let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    nix::fcntl::openat(parent, name, flags, Mode::from_bits_truncate(0o644)).map(drop)
}

/// Opens `path` of the host, for the few things that come from there.
pub fn open_host(path: &CStr, flags: libc::c_int) -> Result<OwnedFd, Errno> {
    openat2(AT_FDCWD, path, flags, 0, 0)
}

/// A path on the stack that can be cut short for a moment.
struct PathBuffer {
    bytes: [u8; PATH_MAX],
    len: usize,
}

impl PathBuffer {
    fn new(path: &[u8]) -> Result<Self, Errno> {
        let mut new = Self { bytes: [0; PATH_MAX], len: 0 };
        new.push(path)?;
        Ok(new)
    }

    fn push(&mut self, more: &[u8]) -> Result<(), Errno> {
        // One byte stays for the NUL.
        if self.len + more.len() >= PATH_MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        self.bytes[self.len..self.len + more.len()].copy_from_slice(more);
        self.len += more.len();
        self.bytes[self.len] = 0;
        Ok(())
    }

    fn as_cstr(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.bytes).unwrap_or(c".")
    }

    /// The next component at or after `at`: where it starts and ends.
    fn component(&self, at: usize) -> Option<(usize, usize)> {
        let path = &self.bytes[..self.len];
        let start = at + path[at..].iter().position(|b| *b != b'/')?;
        let end = path[start..].iter().position(|b| *b == b'/').map_or(self.len, |n| start + n);
        Some((start, end))
    }

    fn with_cut<T>(&mut self, end: usize, f: impl FnOnce(&CStr) -> T) -> T {
        self.with_name(0, end, f)
    }

    fn with_name<T>(&mut self, start: usize, end: usize, f: impl FnOnce(&CStr) -> T) -> T {
        let saved = std::mem::replace(&mut self.bytes[end], 0);
        let done = f(CStr::from_bytes_until_nul(&self.bytes[start..]).unwrap_or(c"."));
        self.bytes[end] = saved;
        done
    }

    /// Puts the target of the link at `start..end` in its place; the rest of the path stays.
    fn splice_link(&mut self, parent: BorrowedFd<'_>, start: usize, end: usize) -> Result<(), Errno> {
        let mut target = [0u8; PATH_MAX];
        let len = self.with_name(start, end, |name| read_link(parent, name, &mut target))?;
        let target = &target[..len];
        let keep = if target.first() == Some(&b'/') { 0 } else { start };
        let mut spliced = PathBuffer::new(&self.bytes[..keep])?;
        spliced.push(target)?;
        spliced.push(&self.bytes[end..self.len])?;
        *self = spliced;
        Ok(())
    }
}

fn read_link(parent: BorrowedFd<'_>, name: &CStr, out: &mut [u8]) -> Result<usize, Errno> {
    crate::sys::fd::readlinkat(parent, name, out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CString;
    use std::fs::{self, File};
    use std::os::unix::fs::symlink;

    #[test]
    fn what_is_missing_is_made_inside_the_root_only() {
        let dir = tempfile::tempdir().unwrap();
        let outside = dir.path().join("outside");
        let root = dir.path().join("root");
        fs::create_dir_all(&outside).unwrap();
        fs::create_dir_all(root.join("etc")).unwrap();
        symlink("/run", root.join("etc/absolute")).unwrap();
        symlink("../var/deep", root.join("etc/relative")).unwrap();
        symlink("../../../outside", root.join("etc/escape")).unwrap();
        symlink("loop", root.join("etc/loop")).unwrap();
        let fd = File::open(&root).unwrap();
        for (path, make, made) in [
            ("/a/b/c", Make::Directory, "a/b/c"),
            ("/a/b/file", Make::File, "a/b/file"),
            ("/etc/absolute/x", Make::Directory, "run/x"),
            ("/etc/relative/y", Make::File, "var/deep/y"),
            ("/etc/escape/z", Make::Directory, "outside/z"),
            ("/../../up", Make::Directory, "up"),
        ] {
            let path = CString::new(path).unwrap();
            open(fd.as_fd(), &path, make).unwrap_or_else(|e| panic!("{path:?}: {e}"));
            let made = fs::metadata(root.join(made)).unwrap_or_else(|e| panic!("{path:?}: {e}"));
            assert_eq!(made.is_dir(), make == Make::Directory, "{path:?}");
        }
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
        assert_eq!(open(fd.as_fd(), c"/etc/loop/x", Make::Directory).unwrap_err(), Errno::ELOOP);
        assert_eq!(open(fd.as_fd(), c"/nothing", Make::Nothing).unwrap_err(), Errno::ENOENT);
        assert_eq!(open(fd.as_fd(), c"/a/b/file/x", Make::Directory).unwrap_err(), Errno::ENOTDIR);
    }

    #[test]
    fn an_ordinary_directory_has_no_link_on_its_way() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("real")).unwrap();
        symlink("real", dir.path().join("proc")).unwrap();
        let fd = File::open(dir.path()).unwrap();
        assert!(open_ordinary_directory(fd.as_fd(), c"/real").is_ok());
        assert_eq!(open_ordinary_directory(fd.as_fd(), c"/proc").unwrap_err(), Errno::ELOOP);
    }
}
