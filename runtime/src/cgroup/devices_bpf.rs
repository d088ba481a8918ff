//! A device policy as a program for v2, which has no `devices.allow`.
//!
//! The kernel runs it for each access with `struct bpf_cgroup_dev_ctx { access_type, major, minor }`
//! (`linux/bpf.h`), where `access_type` is `access << 16 | kind`; 1 allows, 0 denies.

use super::devices::{ALL, Devices, Kind, Policy};
use crate::sys::bpf::Instruction;

// linux/bpf_common.h, linux/bpf.h
const LOAD_WORD: u8 = 0x61; // LDX | MEM | W
const MOV32_IMM: u8 = 0xb4; // ALU | MOV | K
const MOV32_REG: u8 = 0xbc; // ALU | MOV | X
const AND32_IMM: u8 = 0x54; // ALU | AND | K
const RSH32_IMM: u8 = 0x74; // ALU | RSH | K
const JNE32_IMM: u8 = 0x56; // JMP32 | JNE | K
const JEQ32_IMM: u8 = 0x16; // JMP32 | JEQ | K
const EXIT: u8 = 0x95;

// Registers: 0 is the result, 1 the context.
const RESULT: u8 = 0;
const CONTEXT: u8 = 1;
const KIND: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;
const SCRATCH: u8 = 6;

const fn op(code: u8, dst: u8, src: u8, off: i16, imm: i32) -> Instruction {
    Instruction::new(code, dst, src, off, imm)
}

pub(super) fn compile(policy: &Policy) -> Vec<Instruction> {
    let mut program = vec![
        op(LOAD_WORD, KIND, CONTEXT, 0, 0),
        op(MOV32_REG, ACCESS, KIND, 0, 0),
        op(AND32_IMM, KIND, 0, 0, 0xffff),
        op(RSH32_IMM, ACCESS, 0, 0, 16),
        op(LOAD_WORD, MAJOR, CONTEXT, 4, 0),
        op(LOAD_WORD, MINOR, CONTEXT, 8, 0),
    ];
    for (devices, access) in &policy.exceptions {
        exception(&mut program, !policy.allow, devices, *access);
    }
    verdict(&mut program, policy.allow);
    program
}

/// `if it matches { return allow }`
fn exception(program: &mut Vec<Instruction>, allow: bool, devices: &Devices, access: u8) {
    let kind = match devices.kind {
        Kind::Block => 1,
        Kind::Char => 2,
    };
    let mut tests = vec![op(JNE32_IMM, KIND, 0, 0, kind)];
    // To be allowed, all that is wanted must be in the rule; to be denied, anything of it: v1 does
    // so (match_exception and match_exception_partial of security/device_cgroup.c), while runc's
    // program lets "rw" pass a rule that denies "w".
    let wanted = i32::from(if allow { ALL & !access } else { access });
    if allow && wanted != 0 {
        tests.push(op(MOV32_REG, SCRATCH, ACCESS, 0, 0));
        tests.push(op(AND32_IMM, SCRATCH, 0, 0, wanted));
        tests.push(op(JNE32_IMM, SCRATCH, 0, 0, 0));
    } else if !allow && access != ALL {
        tests.push(op(MOV32_REG, SCRATCH, ACCESS, 0, 0));
        tests.push(op(AND32_IMM, SCRATCH, 0, 0, wanted));
        tests.push(op(JEQ32_IMM, SCRATCH, 0, 0, 0));
    }
    for (register, number) in [(MAJOR, devices.major), (MINOR, devices.minor)] {
        if let Some(number) = number {
            tests.push(op(JNE32_IMM, register, 0, 0, number.cast_signed()));
        }
    }
    // A test that fails jumps behind this exception: the tests left, and the two of the verdict.
    let count = tests.len();
    for (index, test) in tests.into_iter().enumerate() {
        let (code, dst, src, _, imm) = test.parts();
        let jump = matches!(code, JNE32_IMM | JEQ32_IMM);
        let off = if jump { i16::try_from(count - index - 1 + 2).unwrap_or(i16::MAX) } else { 0 };
        program.push(op(code, dst, src, off, imm));
    }
    verdict(program, allow);
}

fn verdict(program: &mut Vec<Instruction>, allow: bool) {
    program.push(op(MOV32_IMM, RESULT, 0, 0, allow.into()));
    program.push(op(EXIT, 0, 0, 0, 0));
}

#[cfg(test)]
mod tests {
    use super::super::devices::tests::policy;
    use super::super::devices::{MKNOD, READ, WRITE};
    use super::*;

    /// Runs a program as the kernel would; panics on what its verifier would refuse.
    fn run(program: &[Instruction], kind: u32, access: u32, major: u32, minor: u32) -> bool {
        let context = [access << 16 | kind, major, minor];
        let mut registers = [None::<u32>; 11];
        let mut at = 0;
        for _ in 0..program.len() {
            let (code, dst, src, off, imm) = program[at].parts();
            let (d, s) = (dst as usize, src as usize);
            let operand = imm.cast_unsigned();
            let value = |r: usize| registers[r].expect("read before written");
            at += 1;
            let mut jump = false;
            match code {
                LOAD_WORD => {
                    assert_eq!(src, CONTEXT);
                    registers[d] = Some(context[usize::try_from(off).unwrap() / 4]);
                }
                MOV32_IMM => registers[d] = Some(operand),
                MOV32_REG => registers[d] = Some(value(s)),
                AND32_IMM => registers[d] = Some(value(d) & operand),
                RSH32_IMM => registers[d] = Some(value(d) >> operand),
                JNE32_IMM => jump = value(d) != operand,
                JEQ32_IMM => jump = value(d) == operand,
                EXIT => return value(0) == 1,
                other => panic!("unknown instruction {other:#x}"),
            }
            if jump {
                at += usize::try_from(off).expect("only forwards");
            }
        }
        panic!("ran over the end");
    }

    const BLOCK: u32 = 1;
    const CHAR: u32 = 2;

    #[test]
    fn verdicts() {
        let (m, r, w) = (u32::from(MKNOD), u32::from(READ), u32::from(WRITE));
        for (rules, cases) in [
            (
                &["-a", "+c 10:200 rw", "+b 8:* r"][..],
                &[
                    (CHAR, r | w, 1, 3, true),
                    (CHAR, r, 136, 77, true),
                    (CHAR, m, 99, 99, true),
                    (BLOCK, m, 99, 99, true),
                    (CHAR, r, 99, 99, false),
                    (CHAR, r | w, 10, 200, true),
                    (CHAR, r, 10, 200, true),
                    (BLOCK, r, 10, 200, false),
                    (CHAR, r, 10, 201, false),
                    (BLOCK, r, 8, 0, true),
                    (BLOCK, r, 8, 1_048_575, true),
                    (BLOCK, r | w, 8, 0, false),
                    (BLOCK, w, 8, 0, false),
                ][..],
            ),
            (
                &["+a", "-b 8:0 w", "-c 4294967295:1 rwm"],
                &[
                    (BLOCK, r, 8, 0, true),
                    (BLOCK, w, 8, 0, false),
                    (BLOCK, r | w, 8, 0, false),
                    (BLOCK, w, 8, 1, true),
                    (CHAR, m, u32::MAX, 1, false),
                    (CHAR, m, u32::MAX, 2, true),
                ],
            ),
            (&["-a", "+a"], &[(BLOCK, r | w, 8, 0, true), (CHAR, m, 1, 1, true)]),
        ] {
            let program = compile(&policy(rules));
            for &(kind, access, major, minor, allowed) in cases {
                let verdict = run(&program, kind, access, major, minor);
                assert_eq!(verdict, allowed, "{rules:?}: {kind} {major}:{minor} {access}");
            }
        }
    }

    #[test]
    fn every_path_ends() {
        let program = compile(&policy(&["-a", "+c 10:200 rw"]));
        for kind in [0, BLOCK, CHAR, 3] {
            for access in 0..8 {
                for major in [0, 1, 5, 10, 136] {
                    for minor in [0, 2, 3, 200] {
                        run(&program, kind, access, major, minor);
                    }
                }
            }
        }
    }
}
