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
                &["-a", "+c 10:229 rw", "+b 8:* r"][..],
                &[
                    (CHAR, r | w, 1, 3, true),
                    (CHAR, r, 136, 77, true),
                    (CHAR, m, 99, 99, true),
                    (BLOCK, m, 99, 99, true),
                    (CHAR, r, 99, 99, false),
                    (CHAR, r | w, 10, 200, true),
                    (CHAR, r | w, 10, 229, true),
                    (CHAR, r, 10, 229, true),
                    (BLOCK, r, 10, 229, false),
                    (CHAR, r, 10, 228, false),
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

    /// The kernel's own list (`security/device_cgroup.c`), as one writes line after line into
    /// `devices.allow` and `devices.deny`: nothing of our normal form is in it.
    #[derive(Default)]
    struct Kernel {
        allows: bool,
        exceptions: Vec<(u32, Option<u32>, Option<u32>, u32)>,
    }

    impl Kernel {
        /// `devcgroup_update_access`
        fn write(&mut self, allow: bool, line: &str) {
            let mut fields = line.split([' ', ':']);
            let kind = match fields.next().unwrap() {
                "b" => BLOCK,
                "c" => CHAR,
                _ => {
                    *self = Kernel { allows: allow, exceptions: Vec::new() };
                    return;
                }
            };
            let mut number = || fields.next().filter(|&n| n != "*").map(|n| n.parse().unwrap());
            let (major, minor) = (number(), number());
            let letters = fields.next().unwrap();
            let bits = [('m', MKNOD), ('r', READ), ('w', WRITE)];
            let access: u32 =
                bits.iter().filter(|(l, _)| letters.contains(*l)).map(|(_, b)| u32::from(*b)).sum();
            let same =
                |e: &&mut (u32, Option<u32>, Option<u32>, u32)| (e.0, e.1, e.2) == (kind, major, minor);
            match self.exceptions.iter_mut().find(same) {
                // dev_exception_rm, dev_exception_add
                Some(held) if allow == self.allows => held.3 &= !access,
                Some(held) => held.3 |= access,
                None if allow == self.allows => {}
                None => self.exceptions.push((kind, major, minor, access)),
            }
            self.exceptions.retain(|e| e.3 != 0);
        }

        /// `devcgroup_check_permission`
        fn allows(&self, kind: u32, access: u32, major: u32, minor: u32) -> bool {
            let mut about = self
                .exceptions
                .iter()
                .filter(|e| e.0 == kind && e.1.is_none_or(|n| n == major) && e.2.is_none_or(|n| n == minor));
            match self.allows {
                true => !about.any(|e| e.3 & access != 0),
                false => about.any(|e| e.3 & access == access),
            }
        }
    }

    /// Marsaglia's xorshift: the same lists each time.
    struct Numbers(u32);

    impl Numbers {
        fn one_of<T: Copy>(&mut self, items: &[T]) -> T {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 17;
            self.0 ^= self.0 << 5;
            items[self.0 as usize % items.len()]
        }

        fn rule(&mut self) -> String {
            if self.one_of(&[true, false, false, false, false, false]) {
                return self.one_of(&["+a", "-a"]).into();
            }
            let sign = self.one_of(&["+", "-"]);
            let kind = self.one_of(&["b", "c"]);
            let (major, minor) = (self.one_of(&MAJORS), self.one_of(&MINORS));
            let access = self.one_of(&["r", "w", "m", "rw", "rm", "wm", "rwm"]);
            format!("{sign}{kind} {major}:{minor} {access}")
        }
    }

    const MAJORS: [&str; 5] = ["*", "1", "8", "10", "4294967295"];
    const MINORS: [&str; 4] = ["*", "3", "200", "4294967295"];

    #[test]
    fn the_program_and_the_lines_for_v1_mean_what_the_rules_mean_to_the_kernel() {
        let mut numbers = Numbers(20_151_118);
        let (mut said, mut refused) = (0, 0);
        for _ in 0..3000 {
            let count = numbers.one_of(&[1, 2, 3, 4, 6, 8]);
            let rules: Vec<String> = (0..count).map(|_| numbers.rule()).collect();
            let parsed: Vec<_> = rules.iter().map(|rule| super::super::devices::tests::rule(rule)).collect();
            let mut problems = Vec::new();
            let policy = Policy::new(&parsed, &[], &mut problems);
            if !problems.is_empty() {
                refused += 1;
                continue;
            }
            said += 1;
            let mut model = Kernel::default();
            for rule in &rules {
                model.write(rule.starts_with('+'), &rule[1..]);
            }
            for line in ["c *:* m", "b *:* m", "c 1:3 rwm", "c 1:5 rwm", "c 1:7 rwm", "c 1:8 rwm"]
                .into_iter()
                .chain(["c 1:9 rwm", "c 5:0 rwm", "c 5:2 rwm", "c 136:* rwm", "c 10:200 rwm"])
            {
                model.write(true, line);
            }
            // A cgroup below one that may do everything begins with that.
            let mut written = Kernel { allows: true, exceptions: Vec::new() };
            for write in policy.writes() {
                written.write(write.file == "devices.allow", &write.value);
            }
            let program = compile(&policy);
            for kind in [BLOCK, CHAR] {
                for access in 1..8 {
                    for major in [0, 1, 5, 8, 10, 136, u32::MAX] {
                        for minor in [0, 2, 3, 200, u32::MAX] {
                            let expected = model.allows(kind, access, major, minor);
                            let verdict = run(&program, kind, access, major, minor);
                            assert_eq!(verdict, expected, "{rules:?}: {kind} {major}:{minor} {access}");
                            let verdict = written.allows(kind, access, major, minor);
                            assert_eq!(verdict, expected, "v1 {rules:?}: {kind} {major}:{minor} {access}");
                        }
                    }
                }
            }
        }
        assert!(said > 1000 && refused > 100, "{said} lists said, {refused} refused");
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
