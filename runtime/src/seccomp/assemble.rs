//! A classic BPF program, written from its end to its beginning: jumps only go forward, so their
//! targets are there already and every distance is known when a jump is written.

use libc::sock_filter;

/// An instruction that is already written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Label(usize);

#[derive(Debug, Default)]
pub(super) struct Assembler {
    /// The last instruction of the program first.
    reversed: Vec<sock_filter>,
    /// The latest `ret` of each value.
    returns: Vec<(u32, Label)>,
}

/// How the accumulator is compared with the jump's constant, unsigned.
#[derive(Debug, Clone, Copy)]
pub(super) enum Compare {
    Equal,
    Greater,
    GreaterOrEqual,
}

const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const AND: u16 = (libc::BPF_ALU | libc::BPF_AND | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
const JUMP: u16 = (libc::BPF_JMP | libc::BPF_JA) as u16;

/// Conditional jumps reach 255 instructions; one is spared for the other branch's trampoline.
const REACH: usize = 254;

impl Assembler {
    /// `A = seccomp_data[offset]`, then on with what was written last.
    pub(super) fn load(&mut self, offset: u32) -> Label {
        self.push(LOAD, 0, 0, offset)
    }

    pub(super) fn and(&mut self, mask: u32) -> Label {
        self.push(AND, 0, 0, mask)
    }

    /// A `ret`, shared with the last one of the same value when a jump from here reaches it.
    pub(super) fn ret(&mut self, value: u32) -> Label {
        let known = self.returns.iter().position(|(v, _)| *v == value);
        if let Some((_, label)) = known.and_then(|i| self.returns.get(i))
            && self.distance(*label) <= REACH
        {
            return *label;
        }
        let label = self.push(RETURN, 0, 0, value);
        match known {
            Some(i) => self.returns[i].1 = label,
            None => self.returns.push((value, label)),
        }
        label
    }

    pub(super) fn jump(&mut self, compare: Compare, value: u32, yes: Label, no: Label) -> Label {
        let test = match compare {
            Compare::Equal => libc::BPF_JEQ,
            Compare::Greater => libc::BPF_JGT,
            Compare::GreaterOrEqual => libc::BPF_JGE,
        };
        let code = (libc::BPF_JMP | test | libc::BPF_K) as u16;
        let yes = self.near(yes);
        let no = self.near(no);
        let (jt, jf) = (self.distance(yes) as u8, self.distance(no) as u8);
        self.push(code, jt, jf, value)
    }

    /// What was written last must be `next` when the instruction before it falls through.
    pub(super) fn is_next(&self, next: Label) -> bool {
        next.0 + 1 == self.reversed.len()
    }

    /// Lets the next instruction written fall through to `target`.
    pub(super) fn fall_through_to(&mut self, target: Label) {
        if !self.is_next(target) {
            let distance = self.distance(target);
            self.push(JUMP, 0, 0, distance as u32);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.reversed.len()
    }

    pub(super) fn finish(mut self) -> Vec<sock_filter> {
        self.reversed.reverse();
        self.reversed
    }

    /// The target itself, or what stands in for it within a conditional jump's reach.
    fn near(&mut self, target: Label) -> Label {
        let distance = self.distance(target);
        if distance <= REACH {
            return target;
        }
        match self.reversed.get(target.0) {
            Some(instruction) if instruction.code == RETURN => self.ret(instruction.k),
            _ => self.push(JUMP, 0, 0, distance as u32),
        }
    }

    /// From an instruction written now, in instructions between it and the target.
    fn distance(&self, target: Label) -> usize {
        self.reversed.len() - target.0 - 1
    }

    fn push(&mut self, code: u16, jt: u8, jf: u8, k: u32) -> Label {
        self.reversed.push(sock_filter { code, jt, jf, k });
        Label(self.reversed.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_far_target_gets_a_trampoline_and_a_far_return_its_own_copy() {
        for filler in [0, 253, 254, 255, 256, 600] {
            let mut asm = Assembler::default();
            let ret = asm.ret(7);
            asm.ret(8);
            let far = asm.load(0);
            for _ in 0..filler {
                asm.and(1);
            }
            asm.jump(Compare::Equal, 3, far, ret);
            let program = asm.finish();
            let jump = &program[0];
            let yes = 1 + usize::from(jump.jt);
            let yes = if program[yes].code == JUMP { yes + 1 + program[yes].k as usize } else { yes };
            assert_eq!((program[yes].code, yes), (LOAD, program.len() - 3), "{filler}");
            let no = &program[1 + usize::from(jump.jf)];
            assert_eq!((no.code, no.k), (RETURN, 7), "{filler}");
        }
    }
}
