//! A mount of the host that a test makes, for sources of containers.

use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// A tmpfs; dropping it unmounts it with all that is on it.
#[derive(Debug)]
pub struct HostMount {
    path: PathBuf,
}

impl HostMount {
    /// On this directory, which is made when it is absent. Private: nothing of it goes anywhere by itself.
    pub fn tmpfs(path: &Path, flags: MsFlags) -> Self {
        std::fs::create_dir_all(path).expect("mkdir");
        mount(Some("tmpfs"), path, Some("tmpfs"), flags, Some("mode=755")).expect("mount a tmpfs");
        let mounted = HostMount { path: path.to_owned() };
        mounted.propagation(MsFlags::MS_PRIVATE);
        mounted
    }

    /// Makes it the first of a peer group.
    #[must_use]
    pub fn shared(self) -> Self {
        self.propagation(MsFlags::MS_SHARED);
        self
    }

    fn propagation(&self, flag: MsFlags) {
        mount(None::<&str>, &self.path, None::<&str>, flag, None::<&str>).expect("set the propagation");
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn text(&self) -> &str {
        self.path.to_str().expect("UTF-8")
    }
}

impl Drop for HostMount {
    fn drop(&mut self) {
        umount2(&self.path, MntFlags::MNT_DETACH).expect("unmount the tmpfs");
    }
}
