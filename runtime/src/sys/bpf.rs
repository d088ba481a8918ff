//! `bpf(2)`, as far as the device filter of a cgroup needs it.
//!
//! <https://man7.org/linux/man-pages/man2/bpf.2.html>

use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;

/// One instruction as the kernel takes it (`struct bpf_insn`): a byte of operation, four bits each
/// of destination and source register, a jump of 16 bits and an operand of 32.
#[repr(transparent)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instruction(u64);

impl Instruction {
    pub const fn new(code: u8, dst: u8, src: u8, off: i16, imm: i32) -> Self {
        let registers = (dst & 0xf) | src << 4;
        let bytes_of_off = off.to_ne_bytes();
        let bytes_of_imm = imm.to_ne_bytes();
        Self(u64::from_ne_bytes([
            code,
            registers,
            bytes_of_off[0],
            bytes_of_off[1],
            bytes_of_imm[0],
            bytes_of_imm[1],
            bytes_of_imm[2],
            bytes_of_imm[3],
        ]))
    }

    /// (code, dst, src, off, imm)
    pub const fn parts(self) -> (u8, u8, u8, i16, i32) {
        let b = self.0.to_ne_bytes();
        (
            b[0],
            b[1] & 0xf,
            b[1] >> 4,
            i16::from_ne_bytes([b[2], b[3]]),
            i32::from_ne_bytes([b[4], b[5], b[6], b[7]]),
        )
    }
}

// enum bpf_cmd, bpf_prog_type, bpf_attach_type and flags: linux/bpf.h
const PROG_LOAD: libc::c_int = 5;
const PROG_ATTACH: libc::c_int = 8;
const PROG_DETACH: libc::c_int = 9;
const PROG_GET_FD_BY_ID: libc::c_int = 13;
const PROG_QUERY: libc::c_int = 16;
const TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_CGROUP_DEVICE: u32 = 6;
const ALLOW_MULTI: u32 = 1 << 1;
const REPLACE: u32 = 1 << 2;

#[repr(C)]
struct Load {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
}

#[repr(C)]
struct Attach {
    target_fd: u32,
    attach_bpf_fd: u32,
    attach_type: u32,
    attach_flags: u32,
    replace_bpf_fd: u32,
}

#[repr(C)]
struct Query {
    target_fd: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    prog_cnt: u32,
    /// What follows in the union must be zero, and padding of the compiler's need not be.
    rest: u32,
}

/// `BPF_PROG_LOAD` of a `BPF_PROG_TYPE_CGROUP_DEVICE`. Linux 4.15.
///
/// `EINVAL`/`EACCES`: the verifier refuses the program. `EPERM`: no `CAP_SYS_ADMIN` in the initial
/// user namespace.
pub fn load_device_program(instructions: &[Instruction]) -> Result<OwnedFd, Errno> {
    let mut attr = Load {
        prog_type: TYPE_CGROUP_DEVICE,
        insn_cnt: u32::try_from(instructions.len()).map_err(|_| Errno::E2BIG)?,
        insns: instructions.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log_buf: 0,
        kern_version: 0,
        prog_flags: 0,
    };
    let fd = bpf(PROG_LOAD, &mut attr)?;
    // SAFETY: the kernel has just made this descriptor for us (PROG_LOAD returns one or an
    // error), so nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// `BPF_PROG_ATTACH`: beside those of other folders (`BPF_F_ALLOW_MULTI`); with `replace` in the
/// place of that one, with no moment between. Replacing: Linux 5.6.
pub fn attach_device_program(
    cgroup: BorrowedFd<'_>,
    program: BorrowedFd<'_>,
    replace: Option<BorrowedFd<'_>>,
) -> Result<(), Errno> {
    let mut attr = Attach {
        target_fd: number(cgroup),
        attach_bpf_fd: number(program),
        attach_type: ATTACH_CGROUP_DEVICE,
        attach_flags: ALLOW_MULTI | if replace.is_some() { REPLACE } else { 0 },
        replace_bpf_fd: replace.map_or(0, number),
    };
    bpf(PROG_ATTACH, &mut attr).map(drop)
}

/// `BPF_PROG_DETACH`
pub fn detach_device_program(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>) -> Result<(), Errno> {
    let mut attr = Attach {
        target_fd: number(cgroup),
        attach_bpf_fd: number(program),
        attach_type: ATTACH_CGROUP_DEVICE,
        attach_flags: 0,
        replace_bpf_fd: 0,
    };
    bpf(PROG_DETACH, &mut attr).map(drop)
}

/// `BPF_PROG_QUERY`: the numbers of the device programs that are attached to this very cgroup.
///
/// `ENOSPC` when there are more than `ids` has room for (the kernel's own limit is 64).
pub fn device_programs<'a>(cgroup: BorrowedFd<'_>, ids: &'a mut [u32; 64]) -> Result<&'a [u32], Errno> {
    let mut attr = Query {
        target_fd: number(cgroup),
        attach_type: ATTACH_CGROUP_DEVICE,
        query_flags: 0,
        attach_flags: 0,
        prog_ids: ids.as_mut_ptr() as u64,
        prog_cnt: 64,
        rest: 0,
    };
    bpf(PROG_QUERY, &mut attr)?;
    Ok(&ids[..(attr.prog_cnt as usize).min(64)])
}

/// `BPF_PROG_GET_FD_BY_ID`. `ENOENT` when it is gone.
pub fn program_by_id(id: u32) -> Result<OwnedFd, Errno> {
    // struct { prog_id, next_id, open_flags }
    let fd = bpf(PROG_GET_FD_BY_ID, &mut [id, 0, 0])?;
    // SAFETY: the kernel has just made this descriptor for us (the command returns one or an error), so nobody
    // else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn number(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}

fn bpf<T>(command: libc::c_int, attr: &mut T) -> Result<RawFd, Errno> {
    // SAFETY: `attr` lives until the call returns, nobody else has it and its true size is passed, so the kernel touches
    // nothing beyond it (what it does not know must be zero, else E2BIG); it has no padding, all of which would be read.
    // The addresses in it are of slices and strings that the callers above hold for as long, with their lengths.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<T>()) };
    Errno::result(result).and_then(|fd| RawFd::try_from(fd).map_err(|_| Errno::EBADF))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes that nobody has set would go to the kernel, which on some versions refuses what is not zero.
    #[test]
    fn no_structure_has_padding() {
        assert_eq!(size_of::<Load>(), 7 * 4 + 3 * 8 - 4);
        assert_eq!(size_of::<Attach>(), 5 * 4);
        assert_eq!(size_of::<Query>(), 6 * 4 + 8);
    }

    #[test]
    fn an_instruction_comes_apart_as_it_was_put_together() {
        let parts = (0x55, 2, 9, -3, i32::MIN);
        let (code, dst, src, off, imm) = parts;
        assert_eq!(Instruction::new(code, dst, src, off, imm).parts(), parts);
    }
}
