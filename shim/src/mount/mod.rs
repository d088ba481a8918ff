//! What a task's root file system is made of: the mounts that the request to create names, and their
//! end.
//!
//! Targets are looked up inside the root and opened, and the calls work on the descriptors: what an
//! image's links say leads nowhere else.

mod mapped;
mod options;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::Mode;
use nix::unistd::fchdir;

use self::mapped::Mapping;
use self::options::{Options, PAGE};
use crate::error::{Error, Result};
use crate::sys::loopdev;

/// A mount of a request to create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// The file system's type.
    pub kind: String,
    pub source: String,
    /// Inside the root; empty for the root itself.
    pub target: String,
    pub options: Vec<String>,
}

/// Mounts all onto `rootfs`, in this order, or none. It may wait for devices and helper programs, and
/// changes the working directory for as long as it takes: for a forked copy of the shim.
pub fn mount_all(mounts: &[Mount], rootfs: &Path) -> Result<()> {
    let mut done = Vec::new();
    for each in mounts {
        if let Err(error) = each.mount(rootfs, &mut done) {
            let failed = format!("failed to mount rootfs component {}", each.describe());
            // All of them, whatever becomes of one.
            let undone: Vec<Error> = done.iter().rev().filter_map(|mount| mount.undo(rootfs).err()).collect();
            let error = error.context(&failed);
            return Err(match undone.first() {
                None => error,
                Some(also) => {
                    Error::of(error.code(), format!("{} (and then: {})", error.text(), also.text()))
                }
            });
        }
    }
    Ok(())
}

impl Mount {
    fn describe(&self) -> String {
        let at = if self.target.is_empty() { String::new() } else { format!(" on {}", self.target) };
        format!("{} {:?}{at}", self.kind, self.source)
    }

    fn open_target(&self, rootfs: &Path) -> Result<OwnedFd> {
        let failed = |errno| Error::sys("open", rootfs.join(&self.target).display(), errno);
        let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
        let root = open(rootfs, flags | OFlag::O_DIRECTORY, Mode::empty()).map_err(failed)?;
        let inside = self.target.trim_start_matches('/');
        if inside.is_empty() {
            return Ok(root);
        }
        let how = OpenHow::new().flags(flags).resolve(ResolveFlag::RESOLVE_IN_ROOT);
        openat2(&root, inside, how).map_err(failed)
    }

    fn undo(&self, rootfs: &Path) -> Result<()> {
        // The descriptor is of the mount itself, and makes it busy.
        let top = self.open_target(rootfs)?;
        umount2(link(&top).as_str(), MntFlags::MNT_DETACH)
            .map_err(|errno| Error::sys("unmount", self.describe(), errno))
    }

    fn mount<'a>(&'a self, rootfs: &Path, done: &mut Vec<&'a Mount>) -> Result<()> {
        if let Some((helper, kind)) = self.helper() {
            self.run(helper, kind, rootfs)?;
            done.push(self);
            return Ok(());
        }
        let mut options = Options::parse(&self.options);
        let mapping = Mapping::of(&options)?;
        let is_overlay = self.kind == "overlay";
        let layers = match &mapping {
            Some(mapping) if is_overlay => Some(mapping.layers(&mut options)?),
            _ => None,
        };
        let folder = if is_overlay { options.shorten() } else { None };
        let data = options.data.join(",");
        if data.len() >= PAGE {
            let length = data.len();
            return Err(Error::invalid(format!(
                "mount options is too long: {length} bytes of at most {}",
                PAGE - 1
            )));
        }
        // A remount without data has no first call.
        if !options.flags.contains(MsFlags::MS_REMOUNT) || !data.is_empty() {
            // Free again by itself when it is unmounted, and held until it is mounted.
            let device = if options.is_loop { Some(self.attach_loop(&options)?) } else { None };
            let source = device.as_ref().map_or(Path::new(&self.source), |device| &device.path);
            let target = self.open_target(rootfs)?;
            let _inside = folder.as_deref().map(WorkingDirectory::enter).transpose()?;
            call("mount", Some(source), &target, &self.kind, options.flags, &data)?;
            if !options.flags.contains(MsFlags::MS_REMOUNT) {
                done.push(self);
            }
        }
        drop(layers);
        if !options.propagation.is_empty() {
            let target = self.open_target(rootfs)?;
            call("set the propagation", None, &target, "", options.propagation, "")?;
        }
        self.remount_bind(options.flags, rootfs)?;
        if let Some(mapping) = mapping.filter(|_| !is_overlay) {
            mapping.cover(self.open_target(rootfs)?.as_fd())?;
            // There are two now, one on the other.
            done.push(self);
        }
        Ok(())
    }

    /// A bind mount takes no flags from its first call.
    fn remount_bind(&self, flags: MsFlags, rootfs: &Path) -> Result<()> {
        let changing = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        if !flags.contains(MsFlags::MS_BIND) || !flags.intersects(changing) {
            return Ok(());
        }
        let target = self.open_target(rootfs)?;
        let flags = flags | MsFlags::MS_REMOUNT;
        match call("remount", None, &target, "", flags, "") {
            // In a user namespace, the flags that the mount has must stay.
            Err(Error::Sys { errno: Errno::EPERM, .. }) => {
                let locked = loopdev::locked_flags(target.as_fd())
                    .map_err(|errno| Error::sys("statfs", rootfs.display(), errno))?;
                call("remount", None, &target, "", flags | MsFlags::from_bits_truncate(locked), "")
            }
            other => other,
        }
    }

    fn attach_loop(&self, options: &Options) -> Result<loopdev::Device> {
        let read_only = options.flags.contains(MsFlags::MS_RDONLY);
        loopdev::attach(Path::new(&self.source), loopdev::Options { read_only, direct_io: options.direct_io })
            .map_err(|error| Error::io("attach to a loop device", Path::new(&self.source), &error))
    }

    /// `fuse3.fuse-overlayfs` is mounted by `mount.fuse3 … -t fuse-overlayfs`.
    fn helper(&self) -> Option<(&'static str, &str)> {
        let helpers = [("fuse.", "mount.fuse"), ("fuse3.", "mount.fuse3")];
        helpers.into_iter().find_map(|(prefix, helper)| Some((helper, self.kind.strip_prefix(prefix)?)))
    }

    fn run(&self, helper: &str, kind: &str, rootfs: &Path) -> Result<()> {
        // It needs a path, and the client that names such a type has made the root itself.
        let target = rootfs.join(self.target.trim_start_matches('/'));
        let mut command = Command::new(helper);
        command.arg(&self.source).arg(&target);
        for option in self.options.iter().filter(|option| !option.starts_with("X-containerd.")) {
            command.args(["-o", option]);
        }
        let output = command.args(["-t", kind]).output();
        let output = output.map_err(|error| Error::io("run", Path::new(helper), &error))?;
        if output.status.success() {
            return Ok(());
        }
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        Err(Error::Unknown(format!("mount helper {helper}: {}: {}", output.status, said.trim())))
    }
}

fn link(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

fn call(
    what: &str,
    source: Option<&Path>,
    target: &OwnedFd,
    kind: &str,
    flags: MsFlags,
    data: &str,
) -> Result<()> {
    mount(source, link(target).as_str(), Some(kind), flags, Some(data)).map_err(|errno| {
        let of = source.map_or_else(String::new, |source| source.display().to_string());
        Error::sys(what, of, errno)
    })
}

/// Somewhere else, until it is dropped.
struct WorkingDirectory {
    before: OwnedFd,
}

impl WorkingDirectory {
    fn enter(folder: &str) -> Result<Self> {
        let failed = |errno| Error::sys("change to", folder, errno);
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let before = open(".", flags, Mode::empty()).map_err(failed)?;
        let there = open(folder, flags, Mode::empty()).map_err(failed)?;
        fchdir(&there).map_err(failed)?;
        Ok(WorkingDirectory { before })
    }
}

impl Drop for WorkingDirectory {
    fn drop(&mut self) {
        // Where we came from is open: only a lost right to enter it could be in the way, and this
        // process gives up none.
        fchdir(&self.before).ok();
    }
}

/// Unmounts whatever is mounted on `rootfs` and below it. Nothing there is no error. It does not wait:
/// what is in use is detached.
pub fn unmount_all(rootfs: &Path) -> Result<()> {
    let (Some(parent), Some(name)) = (rootfs.parent(), rootfs.file_name()) else {
        return Err(Error::invalid(format!("{:?} is no root file system", rootfs.display().to_string())));
    };
    // The kernel names mounts without the links of the way. The root itself is not followed.
    let root = match parent.canonicalize() {
        Ok(parent) => parent.join(name),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::io("find", parent, &error)),
    };
    let mut mounted = mounts_below(&root)?;
    // The deepest first; of those on one folder, each call takes the topmost.
    mounted.sort_by_key(|path| std::cmp::Reverse(path.as_os_str().len()));
    let mut result = Ok(());
    for path in mounted {
        let failed = |errno| Error::sys("unmount", path.display(), errno);
        result = result.and(unmount(&path).map_err(failed));
    }
    result
}

fn unmount(path: &Path) -> nix::Result<()> {
    let flags = MntFlags::UMOUNT_NOFOLLOW;
    let unmounted = match umount2(path, flags) {
        Err(Errno::EBUSY) => umount2(path, flags | MntFlags::MNT_DETACH),
        other => other,
    };
    match unmounted {
        // Gone with another by propagation.
        Err(Errno::EINVAL | Errno::ENOENT) => Ok(()),
        other => other,
    }
}

/// One for each mount.
fn mounts_below(root: &Path) -> Result<Vec<PathBuf>> {
    let table = Path::new("/proc/thread-self/mountinfo");
    let mut text = Vec::new();
    File::open(table)
        .and_then(|mut file| std::io::Read::read_to_end(&mut file, &mut text))
        .map_err(|error| Error::io("read", table, &error))?;
    let at = |line: &[u8]| line.split(|&byte| byte == b' ').nth(4).map(unescape);
    let paths = text.split(|&byte| byte == b'\n').filter_map(at);
    Ok(paths.filter(|path| path.starts_with(root)).collect())
}

/// `\040` is a space.
fn unescape(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, after)) = rest.split_first() {
        let octal = |digits: &[u8]| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok();
        rest = match (byte, after.get(..3).and_then(octal)) {
            (b'\\', Some(escaped)) => {
                bytes.push(escaped);
                &after[3..]
            }
            _ => {
                bytes.push(byte);
                after
            }
        };
    }
    PathBuf::from(std::ffi::OsString::from_vec(bytes))
}
