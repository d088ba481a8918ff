//! Names and numbers of system calls. The tables are written by `generate.sh` from the kernel's
//! headers; a name that is in none of them is newer than they are, or of another architecture.

mod aarch64;
mod arm;
mod x32;
mod x86;
mod x86_64;

use super::Arch;

/// The number of `name` in the ABI of `arch`; x32's have bit 30 set.
pub(super) fn number(arch: Arch, name: &str) -> Option<u32> {
    let table = table(arch);
    let at = table.binary_search_by(|(n, _)| (*n).cmp(name)).ok()?;
    table.get(at).map(|&(_, number)| number)
}

fn table(arch: Arch) -> &'static [(&'static str, u32)] {
    match arch {
        Arch::X86_64 => x86_64::TABLE,
        Arch::X86 => x86::TABLE,
        Arch::X32 => x32::TABLE,
        Arch::Aarch64 => aarch64::TABLE,
        Arch::Arm => arm::TABLE,
    }
}

/// 32-bit x86 has two ways to the socket and System V IPC calls: their own numbers, where they have
/// one, and `socketcall(2)` or `ipc(2)` with the call as first argument. A rule for the name is for
/// both ways. Returns the multiplexer and the call's number in it
/// (`linux/net.h`, `linux/ipc.h`).
pub(super) fn multiplexed(arch: Arch, name: &str) -> Option<(u32, u64)> {
    const SOCKETCALL: u32 = 102;
    const IPC: u32 = 117;
    if arch != Arch::X86 {
        return None;
    }
    Some(match name {
        "socket" => (SOCKETCALL, 1),
        "bind" => (SOCKETCALL, 2),
        "connect" => (SOCKETCALL, 3),
        "listen" => (SOCKETCALL, 4),
        "accept" => (SOCKETCALL, 5),
        "getsockname" => (SOCKETCALL, 6),
        "getpeername" => (SOCKETCALL, 7),
        "socketpair" => (SOCKETCALL, 8),
        "send" => (SOCKETCALL, 9),
        "recv" => (SOCKETCALL, 10),
        "sendto" => (SOCKETCALL, 11),
        "recvfrom" => (SOCKETCALL, 12),
        "shutdown" => (SOCKETCALL, 13),
        "setsockopt" => (SOCKETCALL, 14),
        "getsockopt" => (SOCKETCALL, 15),
        "sendmsg" => (SOCKETCALL, 16),
        "recvmsg" => (SOCKETCALL, 17),
        "accept4" => (SOCKETCALL, 18),
        "recvmmsg" => (SOCKETCALL, 19),
        "sendmmsg" => (SOCKETCALL, 20),
        "semop" => (IPC, 1),
        "semget" => (IPC, 2),
        "semctl" => (IPC, 3),
        "semtimedop" => (IPC, 4),
        "msgsnd" => (IPC, 11),
        "msgrcv" => (IPC, 12),
        "msgget" => (IPC, 13),
        "msgctl" => (IPC, 14),
        "shmat" => (IPC, 21),
        "shmdt" => (IPC, 22),
        "shmget" => (IPC, 23),
        "shmctl" => (IPC, 24),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_sorted_so_that_every_name_is_found() {
        for arch in Arch::ALL {
            for &(name, nr) in table(arch) {
                assert_eq!(number(arch, name), Some(nr), "{arch:?} {name}");
            }
            assert!(table(arch).is_sorted_by(|a, b| a.0 < b.0), "{arch:?}");
        }
    }

    #[test]
    fn numbers_agree_with_libc() {
        for (name, nr) in [
            ("read", libc::SYS_read),
            ("clone3", libc::SYS_clone3),
            ("openat2", libc::SYS_openat2),
            ("ppoll", libc::SYS_ppoll),
            ("seccomp", libc::SYS_seccomp),
        ] {
            assert_eq!(Arch::host().and_then(|a| number(a, name)).map(i64::from), Some(nr), "{name}");
        }
    }

    #[test]
    fn the_same_name_has_its_own_number_in_each_abi() {
        for (name, x86_64, x86, x32, aarch64, arm) in [
            ("read", Some(0), Some(3), Some(0x4000_0000), Some(63), Some(3)),
            ("rt_sigaction", Some(13), Some(174), Some(0x4000_0200), Some(134), Some(174)),
            ("open", Some(2), Some(5), Some(0x4000_0002), None, Some(5)),
            ("socketcall", None, Some(102), None, None, None),
            ("cacheflush", None, None, None, None, Some(0xf0002)),
            ("clone3", Some(435), Some(435), Some(0x4000_01b3), Some(435), Some(435)),
        ] {
            assert_eq!(number(Arch::X86_64, name), x86_64, "{name}");
            assert_eq!(number(Arch::X86, name), x86, "{name}");
            assert_eq!(number(Arch::X32, name), x32, "{name}");
            assert_eq!(number(Arch::Aarch64, name), aarch64, "{name}");
            assert_eq!(number(Arch::Arm, name), arm, "{name}");
        }
    }
}
