//! The eBPF programs of this kernel, whoever loaded them.

use nix::errno::Errno;

/// `BPF_PROG_GET_NEXT_ID`, `enum bpf_cmd` of linux/bpf.h.
const PROG_GET_NEXT_ID: libc::c_int = 11;

/// The members of `union bpf_attr` for the commands `BPF_*_GET_NEXT_ID`.
#[repr(C)]
struct NextId {
    start_id: u32,
    next_id: u32,
    open_flags: u32,
}

/// How many there are; a program lives as long as a cgroup or a descriptor holds it.
///
/// # Errors
/// `EPERM` without `CAP_SYS_ADMIN`, `ENOSYS` on a kernel without bpf(2).
/// <https://man7.org/linux/man-pages/man2/bpf.2.html>
pub fn programs() -> Result<usize, Errno> {
    let mut attr = NextId { start_id: 0, next_id: 0, open_flags: 0 };
    let mut count = 0;
    loop {
        // SAFETY: `attr` lives until the call has returned, and its size is passed; the kernel writes `next_id` alone.
        let result = unsafe {
            libc::syscall(libc::SYS_bpf, PROG_GET_NEXT_ID, &raw mut attr, std::mem::size_of::<NextId>())
        };
        match Errno::result(result) {
            Ok(_) => count += 1,
            Err(Errno::ENOENT) => return Ok(count),
            Err(error) => return Err(error),
        }
        attr.start_id = attr.next_id;
    }
}
