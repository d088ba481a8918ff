//! Runs classic BPF programs of seccomp: for one call, or for all numbers of an architecture at once.

use libc::sock_filter;

/// `struct seccomp_data`, without the instruction pointer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call {
    /// `AUDIT_ARCH_*`
    pub(crate) audit: u32,
    pub(crate) nr: u32,
    pub(crate) args: [u64; 6],
}

const LOAD: u32 = 0x20;
const AND: u32 = 0x54;
const RETURN: u32 = 0x06;
const JUMP: u32 = 0x05;
const NR: u32 = 0;
const ARCH: u32 = 4;

/// Whether a conditional jump of this opcode is taken.
fn holds(code: u32, a: u32, k: u32) -> bool {
    match code {
        0x15 => a == k,
        0x25 => a > k,
        0x35 => a >= k,
        0x45 => a & k != 0,
        _ => panic!("opcode {code:#x}"),
    }
}

/// As the kernel would. Gives the verdict and how many jumps it took.
pub(crate) fn run(filter: &[sock_filter], call: &Call) -> (u32, usize) {
    run_from(filter, 0, call)
}

/// From an instruction that does not need what was loaded before it.
pub(crate) fn run_from(filter: &[sock_filter], start: usize, call: &Call) -> (u32, usize) {
    let (mut a, mut pc, mut jumps) = (0u32, start, 0);
    loop {
        let i = &filter[pc];
        pc += 1;
        match u32::from(i.code) {
            LOAD => {
                a = match i.k {
                    NR => call.nr,
                    ARCH => call.audit,
                    16..=60 if i.k.is_multiple_of(4) => {
                        let arg = call.args[(i.k as usize - 16) / 8];
                        (if i.k.is_multiple_of(8) { arg } else { arg >> 32 }) as u32
                    }
                    offset => panic!("load of {offset}"),
                }
            }
            AND => a &= i.k,
            RETURN => return (i.k, jumps),
            JUMP => {
                jumps += 1;
                pc += i.k as usize;
            }
            code => {
                jumps += 1;
                pc += usize::from(if holds(code, a, i.k) { i.jt } else { i.jf });
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Verdict(u32),
    /// The instruction that loads the first argument.
    Arguments(usize),
}

/// Numbers from `first` to `last` that come to the same end by the same way.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Piece {
    pub(crate) first: u32,
    pub(crate) last: u32,
    pub(crate) end: End,
    pub(crate) jumps: usize,
}

#[derive(Clone, Copy)]
enum Loaded {
    Nothing,
    Number,
    Value(u32),
}

/// All 2^32 numbers of an architecture, in order: what is decided by the number alone, and where the
/// arguments are asked.
pub(crate) fn by_number(filter: &[sock_filter], audit: u32) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut ways = vec![(0usize, 0u32, u32::MAX, Loaded::Nothing, 0usize)];
    while let Some((mut pc, first, last, mut a, mut jumps)) = ways.pop() {
        let end = loop {
            let i = &filter[pc];
            pc += 1;
            match u32::from(i.code) {
                LOAD if i.k == NR => a = Loaded::Number,
                LOAD if i.k == ARCH => a = Loaded::Value(audit),
                LOAD => break Some(End::Arguments(pc - 1)),
                RETURN => break Some(End::Verdict(i.k)),
                JUMP => {
                    jumps += 1;
                    pc += i.k as usize;
                }
                code => {
                    jumps += 1;
                    let to = |holds| pc + usize::from(if holds { i.jt } else { i.jf });
                    match a {
                        Loaded::Value(value) => pc = to(holds(code, value, i.k)),
                        Loaded::Number => {
                            for (first, last, holds) in split(code, i.k, first, last) {
                                ways.push((to(holds), first, last, a, jumps));
                            }
                            break None;
                        }
                        Loaded::Nothing => panic!("a jump before a load"),
                    }
                }
            }
        };
        pieces.extend(end.map(|end| Piece { first, last, end, jumps }));
    }
    pieces.sort_by_key(|piece| piece.first);
    let whole = pieces.windows(2).all(|pair| pair[0].last + 1 == pair[1].first);
    assert!(whole && pieces[0].first == 0 && pieces.last().is_some_and(|p| p.last == u32::MAX));
    pieces
}

/// Whether, somewhere, the program compares the architecture with what can only be a number of a call.
pub(crate) fn takes_the_architecture_for_a_number(filter: &[sock_filter], audits: &[u32]) -> bool {
    audits.iter().any(|audit| {
        let mut ways = vec![(0usize, false)];
        let mut seen = vec![false; filter.len()];
        while let Some((pc, is_architecture)) = ways.pop() {
            let i = &filter[pc];
            let here = pc + 1;
            match u32::from(i.code) {
                LOAD if i.k == ARCH => ways.push((here, true)),
                RETURN => {}
                JUMP => ways.push((here + i.k as usize, is_architecture)),
                0x15 | 0x25 | 0x35 | 0x45 => {
                    let taken = here + usize::from(i.jt);
                    let passed = here + usize::from(i.jf);
                    if is_architecture {
                        if !audits.contains(&i.k) {
                            return true;
                        }
                        ways.push((if *audit == i.k { taken } else { passed }, true));
                    } else if !std::mem::replace(&mut seen[pc], true) {
                        ways.extend([(taken, false), (passed, false)]);
                    }
                }
                _ => ways.push((here, false)),
            }
        }
        false
    })
}

/// The parts of a range in which the jump is taken everywhere, or nowhere.
fn split(code: u32, k: u32, first: u32, last: u32) -> Vec<(u32, u32, bool)> {
    let edges = match code {
        0x15 => vec![Some(k), k.checked_add(1)],
        0x25 => vec![k.checked_add(1)],
        0x35 => vec![Some(k)],
        0x45 => {
            assert!(k.is_power_of_two() && k >= 1 << 28, "a bit test of {k:#x}");
            (1..=u32::MAX / k).map(|n| n.checked_mul(k)).collect()
        }
        _ => panic!("opcode {code:#x} on the number"),
    };
    let mut parts = Vec::new();
    let mut from = first;
    for edge in edges.into_iter().flatten().filter(|edge| *edge > first && *edge <= last) {
        parts.push((from, edge - 1, holds(code, from, k)));
        from = edge;
    }
    parts.push((from, last, holds(code, from, k)));
    parts
}

#[test]
fn all_numbers_at_once_are_the_numbers_one_by_one() {
    let instruction = |code: u32, jt, jf, k| sock_filter { code: code as u16, jt, jf, k };
    let filter = [
        instruction(LOAD, 0, 0, ARCH),
        instruction(0x15, 1, 0, 7),
        instruction(RETURN, 0, 0, 99),
        instruction(LOAD, 0, 0, NR),
        instruction(0x45, 6, 0, 1 << 30),
        instruction(0x25, 1, 0, 20),
        instruction(0x35, 2, 1, 10),
        instruction(JUMP, 0, 0, 3),
        instruction(0x15, 2, 0, 3),
        instruction(RETURN, 0, 0, 1),
        instruction(RETURN, 0, 0, 2),
        instruction(RETURN, 0, 0, 3),
    ];
    for audit in [7, 8] {
        let pieces = by_number(&filter, audit);
        let numbers = (0..40).chain([u32::MAX, 1 << 31, 1 << 30, (1 << 30) - 1, 3 << 30, (3 << 30) - 1]);
        for nr in numbers {
            let piece = pieces.iter().find(|p| p.first <= nr && nr <= p.last).unwrap();
            let (verdict, jumps) = run(&filter, &Call { audit, nr, args: [0; 6] });
            assert_eq!((piece.end, piece.jumps), (End::Verdict(verdict), jumps), "{nr:#x}");
        }
    }
}
