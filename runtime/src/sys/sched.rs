//! What a process gets of the processor and its limits: `sched(7)`, `ioprio_set(2)`,
//! `prlimit(2)`, `personality(2)`.

use std::mem::size_of;

use libc::c_int;
use nix::errno::Errno;
use nix::unistd::Pid;

/// `struct sched_attr` of `sched_setattr(2)`, first version (the kernel takes any size it knows).
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SchedAttr {
    pub size: u32,
    pub policy: u32,
    pub flags: u64,
    pub nice: i32,
    pub priority: u32,
    pub runtime: u64,
    pub deadline: u64,
    pub period: u64,
}

/// Sets policy and parameters; `attr.size` is filled in here.
///
/// `EPERM` also for `SCHED_DEADLINE` when the affinity is not all processors, `EBUSY` when it does not fit.
/// <https://man7.org/linux/man-pages/man2/sched_setattr.2.html>
pub fn set_scheduler(pid: Pid, attr: &SchedAttr) -> Result<(), Errno> {
    let mut attr = SchedAttr { size: size_of::<SchedAttr>() as u32, ..*attr };
    // SAFETY: the kernel reads `size` bytes, which is exactly the structure, and may write its own idea of `size`
    // into it; it is a copy that outlives the call.
    let result = unsafe { libc::syscall(libc::SYS_sched_setattr, pid.as_raw(), &raw mut attr, 0) };
    Errno::result(result).map(drop)
}

/// `mask`: bit N of the whole for processor N. The kernel takes off those that do not exist or are
/// not in the cpuset of the process; `EINVAL` when none is left.
/// <https://man7.org/linux/man-pages/man2/sched_setaffinity.2.html>
pub fn set_affinity(pid: Pid, mask: &[u64]) -> Result<(), Errno> {
    // SAFETY: the kernel reads the bytes of `mask`, whose length is given and which outlives the call.
    let result =
        unsafe { libc::syscall(libc::SYS_sched_setaffinity, pid.as_raw(), size_of_val(mask), mask.as_ptr()) };
    Errno::result(result).map(drop)
}

/// Fills `mask`; gives how many of its words the kernel has written. `EINVAL` when it is too short.
#[cfg(test)]
pub fn affinity(pid: Pid, mask: &mut [u64]) -> Result<usize, Errno> {
    // SAFETY: the kernel writes at most the bytes of `mask`, whose length is given.
    let result = unsafe {
        libc::syscall(libc::SYS_sched_getaffinity, pid.as_raw(), size_of_val(mask), mask.as_mut_ptr())
    };
    Ok(usize::try_from(Errno::result(result)?).unwrap_or(0) / size_of::<u64>())
}

const IOPRIO_WHO_PROCESS: c_int = 1;
const IOPRIO_CLASS_SHIFT: u32 = 13;

/// `class`: `IOPRIO_CLASS_*`; `priority`: 0, the best, to 7.
/// <https://man7.org/linux/man-pages/man2/ioprio_set.2.html>
pub fn set_io_priority(pid: Pid, class: u8, priority: u8) -> Result<(), Errno> {
    let value = (c_int::from(class) << IOPRIO_CLASS_SHIFT) | c_int::from(priority);
    // SAFETY: takes numbers and touches no memory of ours.
    let result = unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, pid.as_raw(), value) };
    Errno::result(result).map(drop)
}

/// Class and priority.
#[cfg(test)]
pub fn io_priority(pid: Pid) -> Result<(u8, u8), Errno> {
    // SAFETY: takes numbers and touches no memory of ours.
    let value = unsafe { libc::syscall(libc::SYS_ioprio_get, IOPRIO_WHO_PROCESS, pid.as_raw()) };
    let value = Errno::result(value)?;
    Ok(((value >> IOPRIO_CLASS_SHIFT) as u8, (value & 7) as u8))
}

/// `EPERM` for a higher hard limit without `CAP_SYS_RESOURCE` in the user namespace of the process.
/// <https://man7.org/linux/man-pages/man2/prlimit.2.html>
pub fn set_rlimit(pid: Pid, resource: u32, soft: u64, hard: u64) -> Result<(), Errno> {
    let limit = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
    let none: *mut libc::rlimit64 = std::ptr::null_mut();
    // SAFETY: the kernel reads `limit`, which outlives the call, and writes nothing through a null pointer.
    let result =
        unsafe { libc::syscall(libc::SYS_prlimit64, pid.as_raw(), resource, &raw const limit, none) };
    Errno::result(result).map(drop)
}

/// Soft and hard.
#[cfg(test)]
pub fn rlimit(pid: Pid, resource: u32) -> Result<(u64, u64), Errno> {
    let mut limit = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    let none: *const libc::rlimit64 = std::ptr::null();
    // SAFETY: the kernel writes `limit`, which outlives the call, and reads nothing through a null pointer.
    let result = unsafe { libc::syscall(libc::SYS_prlimit64, pid.as_raw(), resource, none, &raw mut limit) };
    Errno::result(result)?;
    Ok((limit.rlim_cur, limit.rlim_max))
}

/// The execution domain of this process, kept over `execve`; gives the one before.
/// <https://man7.org/linux/man-pages/man2/personality.2.html>
pub fn set_personality(persona: u32) -> Result<u32, Errno> {
    // SAFETY: takes a number and touches no memory of ours.
    let before = unsafe { libc::syscall(libc::SYS_personality, libc::c_ulong::from(persona)) };
    Ok(Errno::result(before)? as u32)
}
