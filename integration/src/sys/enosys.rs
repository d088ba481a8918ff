//! A filter that takes system calls away.

use nix::errno::Errno;

/// A command with an immediate operand: `BPF_STMT` of linux/filter.h.
const fn statement(code: u32, k: u32) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt: 0, jf: 0, k }
}

/// Continues with the next instruction if the accumulator is `k`, else skips it.
const fn unless_equal_skip_one(k: u32) -> libc::sock_filter {
    libc::sock_filter { code: (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16, jt: 0, jf: 1, k }
}

/// From now on, for this process and all it starts, each of these system calls answers `ENOSYS`, as a kernel that does not
/// have it would.
///
/// The numbers are of this machine's own architecture; a program of another one (32 bit) is not filtered.
///
/// # Errors
/// `EACCES` without `CAP_SYS_ADMIN` and without `no_new_privs`.
/// <https://man7.org/linux/man-pages/man2/seccomp.2.html>
pub fn take_away(numbers: &[libc::c_long]) -> Result<(), Errno> {
    let load = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    let answer = libc::BPF_RET | libc::BPF_K;
    let architecture = std::mem::offset_of!(libc::seccomp_data, arch) as u32;
    let number = std::mem::offset_of!(libc::seccomp_data, nr) as u32;
    let enosys = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;

    let mut program = vec![
        statement(load, architecture),
        libc::sock_filter {
            code: (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16,
            jt: 1,
            jf: 0,
            k: AUDIT_ARCH,
        },
        statement(answer, libc::SECCOMP_RET_ALLOW),
        statement(load, number),
    ];
    for number in numbers {
        program.push(unless_equal_skip_one(*number as u32));
        program.push(statement(answer, enosys));
    }
    program.push(statement(answer, libc::SECCOMP_RET_ALLOW));

    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: `filter` and the `program` it points to live until the call has returned; the kernel copies both and
    // checks the program before it uses it.
    let result =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const filter) };
    Errno::result(result).map(drop)
}

/// `AUDIT_ARCH_*` of linux/audit.h: the ELF machine, 64 bit, little endian.
#[cfg(target_arch = "x86_64")]
const AUDIT_ARCH: u32 = libc::EM_X86_64 as u32 | 0x8000_0000 | 0x4000_0000;
#[cfg(target_arch = "aarch64")]
const AUDIT_ARCH: u32 = libc::EM_AARCH64 as u32 | 0x8000_0000 | 0x4000_0000;
