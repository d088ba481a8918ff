//! Which security modules are on.

use nix::sys::statfs::FsType;
use nix::sys::statfs::statfs;
use nix::sys::statvfs::FsFlags;

use super::read_text;

/// The module says so itself; securityfs need not be mounted for a profile to be applied.
pub fn apparmor() -> bool {
    read_text("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.starts_with('Y'))
}

/// A policy is loaded, and this process may have to do with it: an engine's container sees the file system
/// read-only, or not at all. As libselinux decides it.
pub fn selinux() -> bool {
    const SELINUX_MAGIC: FsType = FsType(0xf97c_ff8c_u32 as libc::__fsword_t);
    let there = statfs("/sys/fs/selinux")
        .is_ok_and(|fs| fs.filesystem_type() == SELINUX_MAGIC && !fs.flags().contains(FsFlags::ST_RDONLY));
    // Without a policy everything is the kernel's.
    there
        && read_text("/proc/self/attr/current")
            .is_ok_and(|own| own.trim_end_matches(['\0', '\n']) != "kernel")
}
