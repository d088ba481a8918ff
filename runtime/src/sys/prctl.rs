//! `prctl(2)`, capabilities and ids: the calls that give privilege away.

use nix::errno::Errno;

use super::cvt;

fn prctl(option: libc::c_int, argument: libc::c_ulong, third: libc::c_ulong) -> Result<libc::c_long, Errno> {
    let unused: libc::c_ulong = 0;
    // SAFETY: this function is private, and none of the options that are used here takes a pointer. The arguments that an
    // option does not use are zero in the width that the kernel reads, as it asks.
    cvt(unsafe { libc::syscall(libc::SYS_prctl, option, argument, third, unused, unused) })
}

/// `PR_SET_NO_NEW_PRIVS`.
pub fn set_no_new_privs() -> Result<(), Errno> {
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0).map(drop)
}

/// `PR_SET_DUMPABLE` to 0: others of our user may not look into this process (`ptrace(2)`).
pub fn set_undumpable() -> Result<(), Errno> {
    prctl(libc::PR_SET_DUMPABLE, 0, 0).map(drop)
}

/// `PR_SET_KEEPCAPS`: permitted capabilities survive the next change of ids.
pub fn set_keep_capabilities(on: bool) -> Result<(), Errno> {
    prctl(libc::PR_SET_KEEPCAPS, on.into(), 0).map(drop)
}

/// `PR_CAPBSET_DROP`.
pub fn drop_bounding(capability: u8) -> Result<(), Errno> {
    prctl(libc::PR_CAPBSET_DROP, capability.into(), 0).map(drop)
}

/// `PR_CAP_AMBIENT_RAISE`. `EPERM` when it is not both permitted and inheritable.
pub fn raise_ambient(capability: u8) -> Result<(), Errno> {
    prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE as libc::c_ulong, capability.into()).map(drop)
}

/// `PR_SET_CHILD_SUBREAPER`.
pub fn set_child_subreaper(on: bool) -> Result<(), Errno> {
    prctl(libc::PR_SET_CHILD_SUBREAPER, on.into(), 0).map(drop)
}

/// `_LINUX_CAPABILITY_VERSION_3`: sets of 64 bits, in two halves.
const VERSION_3: u32 = 0x2008_0522;

#[repr(C)]
struct CapHeader {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct CapData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// `capset(2)` of this thread: bit N of each set for capability N.
///
/// <https://man7.org/linux/man-pages/man2/capset.2.html>
pub fn capset(effective: u64, permitted: u64, inheritable: u64) -> Result<(), Errno> {
    let mut header = CapHeader { version: VERSION_3, pid: 0 };
    let half = |shift: u32| CapData {
        effective: (effective >> shift) as u32,
        permitted: (permitted >> shift) as u32,
        inheritable: (inheritable >> shift) as u32,
    };
    let data = [half(0), half(32)];
    // SAFETY: version 3 reads two data structs, which `data` has, and may write the version that it wishes into the
    // header; both outlive the call.
    cvt(unsafe { libc::syscall(libc::SYS_capset, &raw mut header, data.as_ptr()) }).map(drop)
}

/// The permitted set of this thread, by `capget(2)`.
///
/// <https://man7.org/linux/man-pages/man2/capget.2.html>
pub fn permitted() -> Result<u64, Errno> {
    let mut header = CapHeader { version: VERSION_3, pid: 0 };
    let mut data = [CapData::default(); 2];
    // SAFETY: version 3 writes two data structs; header and data outlive the call.
    cvt(unsafe { libc::syscall(libc::SYS_capget, &raw mut header, data.as_mut_ptr()) })?;
    Ok(u64::from(data[0].permitted) | u64::from(data[1].permitted) << 32)
}

/// `setgroups(2)`, `setgid(2)`, `setuid(2)` of this thread alone: the C library's versions signal all
/// threads, which a process with one thread need not pay for.
pub fn setgroups(groups: &[u32]) -> Result<(), Errno> {
    // SAFETY: the kernel reads `groups.len()` numbers from `groups`, which outlives the call.
    cvt(unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) }).map(drop)
}

/// All three group ids, with `CAP_SETGID`. (`setresgid(2)` would do without, and a seccomp filter that
/// is loaded already, made for runc, need not have it.)
pub fn setgid(gid: u32) -> Result<(), Errno> {
    // SAFETY: takes a number and touches no memory of ours.
    cvt(unsafe { libc::syscall(libc::SYS_setgid, gid) }).map(drop)
}

/// All three user ids, with `CAP_SETUID`.
pub fn setuid(uid: u32) -> Result<(), Errno> {
    // SAFETY: takes a number and touches no memory of ours.
    cvt(unsafe { libc::syscall(libc::SYS_setuid, uid) }).map(drop)
}
