//! Policy to program. The numbers of an ABI are cut into ranges of one verdict, and the program
//! finds the range by halving: about seven jumps for a profile of four hundred syscalls, where
//! neighbours mostly share their verdict. Where only single numbers stand out of one range, the last
//! few are told apart by equality: a jump for each, where its two edges would need two.

use libc::sock_filter;

use super::Arch;
use super::assemble::{Assembler, Compare, Label};
use super::policy::{Abi, Action, Policy, Rule, Test, Verdict};
use crate::config::ArgOperator;
use crate::error::Problem;

/// Offsets into `struct seccomp_data` (`linux/seccomp.h`).
const NR: u32 = 0;
const ARCH: u32 = 4;
const ARGS: u32 = 16;

/// `__X32_SYSCALL_BIT`
const X32: u32 = 1 << 30;

/// The numbers from `first` to the next range's first, or to the end.
struct Range<'a> {
    first: u32,
    verdict: Cut<'a>,
}

#[derive(Clone, Copy, PartialEq)]
enum Cut<'a> {
    Action(Action),
    Rules(&'a [Rule]),
}

pub(super) fn assemble(policy: &Policy) -> Result<Vec<sock_filter>, Vec<Problem>> {
    let mut writer = Writer { asm: Assembler::default(), default: policy.default, shared: Vec::new() };
    let x32 = policy.abis.iter().find(|abi| abi.arch == Arch::X32);
    // Of an ABI that the profile does not list nothing is let through: libseccomp's default
    // (SCMP_FLTATR_ACT_BADARCH), which runc leaves as it is.
    let mut next = writer.asm.ret(Action::KILL_THREAD.0);
    for abi in policy.abis.iter().rev() {
        let mut ranges = Ranges::default();
        match abi.arch {
            Arch::X32 => continue,
            Arch::X86_64 => x86_64(policy.default, abi, x32, &mut ranges),
            _ => ranges.abi(abi, policy.default, u32::MAX),
        }
        let search = writer.search(&ranges.0, None);
        writer.asm.fall_through_to(search);
        let section = writer.asm.load(NR);
        next = writer.asm.jump(Compare::Equal, abi.arch.audit(), section, next);
    }
    let mut asm = writer.asm;
    asm.fall_through_to(next);
    asm.load(ARCH);
    // BPF_MAXINSNS
    if asm.len() > libc::BPF_MAXINSNS as usize {
        let what = format!("the filter needs {} instructions, the kernel takes 4096", asm.len());
        return Err(vec![Problem { pointer: "/linux/seccomp/syscalls".into(), what }]);
    }
    Ok(asm.finish())
}

/// x86-64 and x32 share one `AUDIT_ARCH_*`.
fn x86_64<'a>(default: Action, abi: &'a Abi, x32: Option<&'a Abi>, ranges: &mut Ranges<'a>) {
    const BOTH_HIGH_BITS: u32 = 0b11 << 30;
    ranges.abi(abi, default, X32 - 1);
    let Some(x32) = x32 else {
        let kill = Cut::Action(Action::KILL_THREAD);
        ranges.push(X32, kill);
        // Bit 31 without bit 30 is nobody's number.
        ranges.push(1 << 31, if abi.newest.is_some() { Cut::Action(Action::ENOSYS) } else { kill });
        ranges.push(BOTH_HIGH_BITS, kill);
        // -1: a tracer skips the call so, and the filter is asked again (seccomp(2)).
        return ranges.push(u32::MAX, Cut::Action(default));
    };
    ranges.abi(x32, default, (1 << 31) - 1);
    ranges.push(1 << 31, unknown(abi, default));
    ranges.push(BOTH_HIGH_BITS, unknown(x32, default));
}

fn unknown<'a>(abi: &Abi, default: Action) -> Cut<'a> {
    Cut::Action(if abi.newest.is_some() { Action::ENOSYS } else { default })
}

#[derive(Default)]
struct Ranges<'a>(Vec<Range<'a>>);

impl<'a> Ranges<'a> {
    /// All of an ABI's numbers up to `last`.
    fn abi(&mut self, abi: &'a Abi, default: Action, last: u32) {
        let base = if abi.arch == Arch::X32 { X32 } else { 0 };
        let gap = |first: u32| match abi.newest {
            Some(newest) if first > newest => unknown(abi, default),
            _ => Cut::Action(default),
        };
        self.push(base, gap(base));
        for (number, verdict) in &abi.syscalls {
            self.push(
                *number,
                match verdict {
                    Verdict::Always(action) => Cut::Action(*action),
                    Verdict::Rules(rules) => Cut::Rules(rules),
                },
            );
            if *number < last {
                self.push(number + 1, gap(number + 1));
            }
        }
    }

    fn push(&mut self, first: u32, verdict: Cut<'a>) {
        if self.0.last().is_some_and(|range| range.first == first) {
            self.0.pop();
        }
        if self.0.last().is_none_or(|range| range.verdict != verdict) {
            self.0.push(Range { first, verdict });
        }
    }
}

struct Writer<'a> {
    asm: Assembler,
    default: Action,
    /// What was written for these rules already: calls of one list often share their conditions.
    shared: Vec<(&'a [Rule], Label)>,
}

impl<'a> Writer<'a> {
    /// `end` is the first number behind the ranges, `None` when they go to the last one.
    fn search(&mut self, ranges: &[Range<'a>], end: Option<u32>) -> Label {
        let middle = ranges.len() / 2;
        match ranges {
            [] => self.asm.ret(self.default.0),
            [range] => self.found(range.verdict),
            _ => {
                if let Some(label) = self.singles(ranges, end) {
                    return label;
                }
                let (below, above) = ranges.split_at(middle);
                let from_here_on = self.search(above, end);
                let below = self.search(below, Some(above[0].first));
                self.asm.jump(Compare::GreaterOrEqual, above[0].first, from_here_on, below)
            }
        }
    }

    /// One verdict, but for a few single numbers: as many jumps as halving would take, in half the
    /// instructions. `None` where it is otherwise.
    fn singles(&mut self, ranges: &[Range<'a>], end: Option<u32>) -> Option<Label> {
        const MOST: usize = 4;
        let is_single = |i: usize| {
            let next = ranges.get(i + 1).map_or(end, |next| Some(next.first));
            next == ranges[i].first.checked_add(1)
        };
        let stand_out = |common: Cut<'a>| ranges.iter().filter(|range| range.verdict != common).count();
        let common = ranges.iter().take(2).map(|range| range.verdict).find(|&common| {
            let are_single = (0..ranges.len()).all(|i| ranges[i].verdict == common || is_single(i));
            are_single && stand_out(common) <= MOST
        })?;
        let rest = self.found(common);
        let singles = ranges.iter().filter(|range| range.verdict != common);
        Some(singles.fold(rest, |otherwise, range| {
            let verdict = self.found(range.verdict);
            self.asm.jump(Compare::Equal, range.first, verdict, otherwise)
        }))
    }

    fn found(&mut self, verdict: Cut<'a>) -> Label {
        let rules = match verdict {
            Cut::Action(action) => return self.asm.ret(action.0),
            Cut::Rules(rules) => rules,
        };
        if let Some((_, label)) = self.shared.iter().find(|(known, _)| *known == rules) {
            return *label;
        }
        let label = first_match(&mut self.asm, rules, self.default);
        self.shared.push((rules, label));
        label
    }
}

fn first_match(asm: &mut Assembler, rules: &[Rule], default: Action) -> Label {
    rules.iter().rev().fold(asm.ret(default.0), |otherwise, rule| {
        let matched = asm.ret(rule.action.0);
        rule.tests.iter().rev().fold(matched, |holds, test| ask(asm, test, holds, otherwise))
    })
}

/// A test of 64 bits is one or two of 32.
fn ask(asm: &mut Assembler, test: &Test, yes: Label, no: Label) -> Label {
    match test.operator {
        ArgOperator::Equal | ArgOperator::MaskedEqual => equal(asm, test, yes, no),
        ArgOperator::NotEqual => equal(asm, test, no, yes),
        ArgOperator::GreaterThan => greater(asm, test, Compare::Greater, yes, no),
        ArgOperator::GreaterOrEqual => greater(asm, test, Compare::GreaterOrEqual, yes, no),
        ArgOperator::LessThan => greater(asm, test, Compare::GreaterOrEqual, no, yes),
        ArgOperator::LessOrEqual => greater(asm, test, Compare::Greater, no, yes),
    }
}

fn equal(asm: &mut Assembler, test: &Test, yes: Label, no: Label) -> Label {
    let ((high, low), (mask_high, mask_low)) = (halves(test.value), halves(test.mask));
    let mut next = yes;
    if mask_low != 0 {
        asm.jump(Compare::Equal, low, next, no);
        next = load_masked(asm, test.index, 0, mask_low);
    }
    if mask_high != 0 {
        asm.jump(Compare::Equal, high, next, no);
        next = load_masked(asm, test.index, 4, mask_high);
    }
    next
}

fn greater(asm: &mut Assembler, test: &Test, compare: Compare, yes: Label, no: Label) -> Label {
    let ((high, low), (mask_high, mask_low)) = (halves(test.value), halves(test.mask));
    asm.jump(compare, low, yes, no);
    let low = load_masked(asm, test.index, 0, mask_low);
    if mask_high == 0 {
        return low;
    }
    let same = asm.jump(Compare::Equal, high, low, no);
    asm.jump(Compare::Greater, high, yes, same);
    load_masked(asm, test.index, 4, mask_high)
}

fn load_masked(asm: &mut Assembler, argument: u8, half: u32, mask: u32) -> Label {
    if mask != u32::MAX {
        asm.and(mask);
    }
    asm.load(ARGS + 8 * u32::from(argument) + half)
}

/// High and low half. The ABIs here are all little-endian, so the low half comes first in memory.
fn halves(value: u64) -> (u32, u32) {
    ((value >> 32) as u32, value as u32)
}
