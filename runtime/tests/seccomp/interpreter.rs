// A kernel's part in seccomp: its checks of a program, and the program's run.

/// `struct seccomp_data`, without the instruction pointer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Data {
    /// `AUDIT_ARCH_*`
    pub(crate) arch: u32,
    pub(crate) nr: u32,
    pub(crate) args: [u64; 6],
}

const LOAD: u16 = 0x20;
const AND: u16 = 0x54;
const RETURN: u16 = 0x06;
const JUMP: u16 = 0x05;
const JUMP_IF_EQUAL: u16 = 0x15;
const JUMP_IF_GREATER: u16 = 0x25;
const JUMP_IF_GREATER_OR_EQUAL: u16 = 0x35;

/// What `bpf_check_classic` and `seccomp_check_filter` ask of the instructions that we use: not too many, no jump out
/// of the program (they only go forward), loads of aligned words inside the data, a return at the end.
///
/// # Panics
/// When the kernel would refuse the program.
pub(crate) fn check(filter: &[libc::sock_filter]) {
    assert!((1..=4096).contains(&filter.len()), "{} instructions", filter.len());
    for (at, i) in filter.iter().enumerate() {
        let left = filter.len() - at - 1;
        match i.code {
            LOAD => assert!(i.k.is_multiple_of(4) && i.k < 64, "{at}: load of {}", i.k),
            AND | RETURN => {}
            JUMP => assert!((i.k as usize) < left, "{at}: jump by {}", i.k),
            JUMP_IF_EQUAL | JUMP_IF_GREATER | JUMP_IF_GREATER_OR_EQUAL => {
                assert!(usize::from(i.jt.max(i.jf)) < left, "{at}: jump by {} or {}", i.jt, i.jf);
            }
            code => panic!("{at}: opcode {code:#x}"),
        }
    }
    assert_eq!(filter.last().map(|i| i.code), Some(RETURN), "no return at the end");
}

/// The verdict, and how many jumps it took. The program is a checked one.
pub(crate) fn run(filter: &[libc::sock_filter], data: &Data) -> (u32, usize) {
    let load = |offset: u32| match offset {
        0 => data.nr,
        4 => data.arch,
        8 | 12 => 0,
        _ => {
            let arg = data.args[(offset as usize - 16) / 8];
            (if offset.is_multiple_of(8) { arg } else { arg >> 32 }) as u32
        }
    };
    let (mut a, mut pc, mut jumps) = (0_u32, 0, 0);
    loop {
        let i = &filter[pc];
        pc += 1;
        let mut jump_if = |holds: bool| {
            jumps += 1;
            pc += usize::from(if holds { i.jt } else { i.jf });
        };
        match i.code {
            LOAD => a = load(i.k),
            AND => a &= i.k,
            RETURN => return (i.k, jumps),
            JUMP => pc += i.k as usize,
            JUMP_IF_EQUAL => jump_if(a == i.k),
            JUMP_IF_GREATER => jump_if(a > i.k),
            JUMP_IF_GREATER_OR_EQUAL => jump_if(a >= i.k),
            code => unreachable!("opcode {code:#x}"),
        }
    }
}
