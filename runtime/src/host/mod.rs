//! What this machine and this process can do: probed once, passed in, never asked again.
//! A plan is a function of a `Config` and these `Facts`; `tare plan --facts FILE` plans for another
//! machine, and the golden plans of the tests are for machines that are written down.

mod cgroups;
pub mod lsm;
mod mounts;

use std::fs;
use std::path::{Path, PathBuf};

use nix::unistd::{getegid, geteuid};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Everything that a plan may depend on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// `uname(2)` release, major and minor.
    pub kernel: (u32, u32),
    pub euid: u32,
    pub egid: u32,
    /// Permitted capabilities, bit N for number N.
    pub capabilities: u64,
    /// The highest capability of this kernel (`/proc/sys/kernel/cap_last_cap`).
    pub last_capability: u8,
    /// Not the initial user namespace (`/proc/self/uid_map` is not the whole range).
    pub in_user_namespace: bool,
    /// Cgroups that may not be made, and of which nothing was asked, are gone without.
    pub rootless: bool,
    /// The security modules are on; only looked up for a configuration that asks something of them.
    pub apparmor: bool,
    pub selinux: bool,
    pub cgroup: CgroupLayout,
    /// The cgroup of the systemd that is to make the container's: only looked up for
    /// `--systemd-cgroup`.
    #[serde(default)]
    pub systemd_cgroup: Option<PathBuf>,
    /// Found on PATH, for mappings that an unprivileged user may not write himself.
    pub newuidmap: Option<PathBuf>,
    pub newgidmap: Option<PathBuf>,
    /// `setgroups(2)` is denied in this user namespace.
    pub setgroups_denied: bool,
    /// Where all of proc or sysfs is mounted; only looked up for `--no-pivot`.
    pub full_mounts: Vec<PathBuf>,
}

impl Facts {
    /// Some small files and system calls: about 50 µs.
    pub fn probe() -> Result<Self> {
        let uid_map = read_text("/proc/self/uid_map")?;
        let in_user_namespace = uid_map.split_ascii_whitespace().ne(["0", "0", "4294967295"]);
        let euid = geteuid().as_raw();
        let may_need_programs = euid != 0 || in_user_namespace;
        let program = |name| may_need_programs.then(|| on_path(name)).flatten();
        Ok(Self {
            kernel: kernel()?,
            euid,
            egid: getegid().as_raw(),
            capabilities: capabilities()?,
            last_capability: last_capability()?,
            in_user_namespace,
            rootless: euid != 0 || in_user_namespace,
            apparmor: false,
            selinux: false,
            cgroup: CgroupLayout::probe()?,
            systemd_cgroup: None,
            newuidmap: program("newuidmap"),
            newgidmap: program("newgidmap"),
            setgroups_denied: setgroups_denied(),
            full_mounts: Vec::new(),
        })
    }

    /// What `tare plan` assumes for an ordinary user: that root will do it.
    pub fn as_root(mut self) -> Self {
        if self.euid != 0 && !self.in_user_namespace {
            self.euid = 0;
            self.egid = 0;
            self.rootless = false;
            self.capabilities = u64::MAX >> (63 - u32::from(self.last_capability));
        }
        self
    }

    /// For `--no-pivot`: where all of proc or sysfs can be seen.
    pub fn probe_full_mounts(&mut self) -> Result<()> {
        self.full_mounts = mounts::full_mounts(&mounts::read(Path::new(mounts::MOUNT_TABLE))?);
        Ok(())
    }
}

/// `setgroups(2)` is denied in our user namespace.
pub fn setgroups_denied() -> bool {
    read_text("/proc/self/setgroups").is_ok_and(|text| text.starts_with("deny"))
}

fn read_text(path: &str) -> Result<String> {
    fs::read_to_string(path).map_err(|e| Error::io("read", Path::new(path), &e))
}

fn kernel() -> Result<(u32, u32)> {
    let uname = nix::sys::utsname::uname().map_err(|e| Error::sys("uname", "", e))?;
    let release = uname.release().to_string_lossy();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => Ok((major, minor)),
        _ => Err(Error::Host {
            what: format!("kernel release {release:?}"),
            why: "does not begin with two numbers".into(),
        }),
    }
}

fn capabilities() -> Result<u64> {
    crate::sys::prctl::permitted().map_err(|e| Error::sys("capget", "", e))
}

/// Refuses to begin what could only fail half-way, for want of a system call (see `KERNEL.md`).
pub fn require_system_calls() -> Result<()> {
    match crate::sys::probe::missing() {
        None => Ok(()),
        Some(call) => Err(Error::Host {
            what: format!("system call {call}"),
            why: "function not implemented: this kernel, or a filter around tare, does not have it; \
                  tare needs Linux 5.12"
                .into(),
        }),
    }
}

/// The highest capability that this kernel knows.
pub fn last_capability() -> Result<u8> {
    let path = "/proc/sys/kernel/cap_last_cap";
    let text = read_text(path)?;
    text.trim().parse().map_err(|_| Error::Protocol(format!("{path}: {text:?} is no number")))
}

/// Only for the set-user-ID programs of package uidmap.
fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into());
    std::env::split_paths(&path)
        .filter(|folder| folder.is_absolute())
        .map(|f| f.join(name))
        .find(|p| p.is_file())
}

/// How the control groups are mounted here, and where this process is in each.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupLayout {
    /// Each v1 hierarchy that is mounted.
    pub v1: Vec<Hierarchy>,
    /// The v2 hierarchy, where it is mounted (`/sys/fs/cgroup`, or `/sys/fs/cgroup/unified` on a hybrid host).
    pub v2: Option<Hierarchy>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hierarchy {
    /// v1: the controllers and the name of the hierarchy (`name=systemd`), as in `/proc/self/cgroup`.
    /// v2: `cgroup.controllers` of its root.
    pub controllers: Vec<String>,
    pub mountpoint: PathBuf,
    /// The folder of the hierarchy that is mounted there: `/` but in a container.
    pub mount_root: PathBuf,
    /// Where this process is, from `/proc/self/cgroup`.
    pub own: PathBuf,
}

impl Hierarchy {
    /// Our own cgroup's folder; the mount point, when it is not below what is mounted there.
    pub fn own_folder(&self) -> PathBuf {
        match self.own.strip_prefix(&self.mount_root) {
            Ok(below) => self.mountpoint.join(below),
            Err(_) => self.mountpoint.clone(),
        }
    }
}

impl CgroupLayout {
    /// Only v2: `/sys/fs/cgroup` itself is the unified hierarchy.
    pub fn is_unified(&self) -> bool {
        self.v1.is_empty() && self.v2.is_some()
    }
}
