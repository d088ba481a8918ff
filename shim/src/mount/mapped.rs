//! Root file systems whose ids are mapped by the kernel (`uidmap=`, `gidmap=`), for pods with a user
//! namespace: their files keep the owners that they have on disk. Linux 5.12, overlays 5.19.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};
use nix::unistd::mkdtemp;
use tare::config::IdMapping;
use tare::process::userns::UserNamespaces;
use tare::rootfs::{Idmap, UserNamespace};
use tare::sys::mount::{At, MountAttr, attr, mount_setattr, move_mount, open_tree_clone};

use super::options::Options;
use crate::error::{Error, Result};

/// The words' user namespace.
pub(super) struct Mapping {
    idmap: Idmap,
    namespaces: UserNamespaces,
}

impl Mapping {
    /// `None` when not both words are there: then, as with containerd, nothing is mapped.
    pub(super) fn of(options: &Options) -> Result<Option<Self>> {
        let (Some(uids), Some(gids)) = (&options.uid_map, &options.gid_map) else { return Ok(None) };
        let userns = UserNamespace::Mapped { uids: parse(uids)?, gids: parse(gids)? };
        let idmap = Idmap { recursive: false, userns };
        let namespaces = UserNamespaces::make([&idmap].into_iter())
            .map_err(|error| Error::Unknown(format!("map the ids of a mount: {error}")))?;
        Ok(Some(Mapping { idmap, namespaces }))
    }

    fn open(&self, path: &Path) -> Result<OwnedFd> {
        let failed = |errno| Error::sys("map the ids of", path.display(), errno);
        let namespace = self.namespaces.of(&self.idmap).ok_or_else(|| failed(Errno::EINVAL))?;
        let name = CString::new(path.as_os_str().as_bytes()).map_err(|_| failed(Errno::EINVAL))?;
        let tree = open_tree_clone(At::Path(&name), false, false).map_err(failed)?;
        let userns_fd = u64::try_from(namespace.as_raw_fd()).map_err(|_| failed(Errno::EBADF))?;
        let map = MountAttr { set: attr::IDMAP, userns_fd, ..MountAttr::default() };
        mount_setattr(At::Fd(tree.as_fd()), false, &map).map_err(failed)?;
        Ok(tree)
    }

    /// The mount on `target` once more, mapped, on itself.
    pub(super) fn cover(&self, target: BorrowedFd<'_>) -> Result<()> {
        let link = PathBuf::from(format!("/proc/self/fd/{}", target.as_raw_fd()));
        let tree = self.open(&link)?;
        move_mount(tree.as_fd(), At::Fd(target))
            .map_err(|errno| Error::sys("attach", "a mapped mount", errno))
    }

    /// An overlay cannot be mapped itself: its layers are, each in a place of its own, which it needs
    /// only while it is mounted.
    pub(super) fn layers(&self, options: &mut Options) -> Result<Layers> {
        const LOWER: &str = "lowerdir=";
        let template = std::env::temp_dir().join("tare-layers-XXXXXX");
        let folder = mkdtemp(&template).map_err(|errno| Error::sys("mkdtemp", template.display(), errno))?;
        let mut layers = Layers { folder, count: 0 };
        let lower = options.data.iter_mut().find(|word| word.starts_with(LOWER));
        let lower = lower.ok_or_else(|| Error::invalid("an overlay with mapped ids has no lowerdir"))?;
        let mut places = Vec::new();
        for source in lower[LOWER.len()..].split(':') {
            let place = layers.folder.join(layers.count.to_string());
            std::fs::create_dir(&place).map_err(|error| Error::io("create", &place, &error))?;
            layers.count += 1;
            let tree = self.open(Path::new(source))?;
            let failed = |errno| Error::sys("attach", place.display(), errno);
            let name = CString::new(place.as_os_str().as_bytes()).map_err(|_| failed(Errno::EINVAL))?;
            move_mount(tree.as_fd(), At::Path(&name)).map_err(failed)?;
            places.push(place.display().to_string());
        }
        *lower = format!("{LOWER}{}", places.join(":"));
        Ok(layers)
    }
}

/// Where the mapped layers of an overlay are, until it is mounted.
pub(super) struct Layers {
    folder: PathBuf,
    count: usize,
}

impl Drop for Layers {
    fn drop(&mut self) {
        for place in (0..self.count).map(|number| self.folder.join(number.to_string())) {
            // EINVAL: this one was not attached. Only what is empty is removed: never a layer.
            umount2(&place, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW).ok();
            std::fs::remove_dir(&place).ok();
        }
        std::fs::remove_dir(&self.folder).ok();
    }
}

/// `0:100000:65536,…`: container's, host's, how many.
fn parse(list: &str) -> Result<Vec<IdMapping>> {
    let mapping = |text: &str| {
        let numbers: Option<Vec<u32>> = text.split(':').map(|number| number.parse().ok()).collect();
        match numbers?[..] {
            [container_id, host_id, size] => Some(IdMapping { container_id, host_id, size }),
            _ => None,
        }
    };
    let mappings: Option<Vec<IdMapping>> = list.split(',').map(mapping).collect();
    mappings.ok_or_else(|| {
        Error::invalid(format!("{list:?} is no list of mappings (container's id:host's id:how many)"))
    })
}

#[cfg(test)]
mod fuzz {
    use super::*;

    #[test]
    fn mappings() {
        ::fuzz::target("mount-mappings").seeds(["0:100000:65536", "0:1:2,3:4:5"]).rounds(10_000).run(
            |bytes| {
                let Ok(text) = std::str::from_utf8(bytes) else { return false };
                let Ok(mappings) = parse(text) else { return false };
                assert_eq!(mappings.len(), text.split(',').count());
                true
            },
        );
    }
}
