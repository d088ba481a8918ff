//! Which of a syscall's rules is asked first, when several match and their actions differ. The
//! specification does not say; libseccomp's order is neither the profile's nor one by strictness,
//! but profiles are written until they work with it: Podman's has four overlapping rules for
//! `socket`. It comes from a tree of 32-bit comparisons (`src/db.c`): rules that begin with the
//! same comparison share a branch, and branches of one fork are sorted.

use std::cmp::Reverse;
use std::ops::Range;

use super::policy::{Rule, Test};
use crate::config::ArgOperator;

/// One comparison of 32 bits.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Node {
    half: (u8, Half),
    kind: Kind,
    mask: u32,
    value: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Half {
    Low,
    High,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Equal,
    Masked,
    /// Also "less or equal", which is its denial.
    Greater,
    /// Also "less than".
    GreaterOrEqual,
}

/// Where `rule` goes into `rules`, which are in order.
pub(super) fn position(rules: &[Rule], rule: &Rule) -> usize {
    let mut range = 0..rules.len();
    for (depth, (node, operator)) in nodes(rule).enumerate() {
        match branch(rules, range, depth, node, operator) {
            Branch::Same(inner) => range = inner,
            Branch::New(at) => return at,
        }
    }
    // It is the beginning of others: it includes them, and comes first.
    range.start
}

enum Branch {
    Same(Range<usize>),
    New(usize),
}

/// The rules of `range` agree in all nodes before `depth`.
fn branch(rules: &[Rule], range: Range<usize>, depth: usize, node: Node, operator: ArgOperator) -> Branch {
    let at_depth = |i: usize| rules.get(i).and_then(|rule| nodes(rule).nth(depth));
    let mut start = range.start;
    while start < range.end {
        let Some((first, first_operator)) = at_depth(start) else {
            // This rule ends here and includes the new one.
            start += 1;
            continue;
        };
        let same = |i: &usize| at_depth(*i).is_some_and(|(other, _)| other == first);
        let end = start + (start..range.end).take_while(same).count();
        if first == node {
            return Branch::Same(start..end);
        }
        if goes_before((node, operator), (first, first_operator)) {
            return Branch::New(start);
        }
        start = end;
    }
    Branch::New(range.end)
}

/// The higher argument, its high half; equality before "less" before "greater"; the nearer bound,
/// the greater value of two equalities. What is not told apart so stays in the profile's order.
fn goes_before(new: (Node, ArgOperator), old: (Node, ArgOperator)) -> bool {
    let key = |(node, operator): (Node, ArgOperator)| {
        let (rank, value) = match operator {
            ArgOperator::Equal | ArgOperator::MaskedEqual | ArgOperator::NotEqual => {
                (2, i64::from(node.value))
            }
            ArgOperator::LessThan | ArgOperator::LessOrEqual => (1, -i64::from(node.value)),
            ArgOperator::GreaterThan | ArgOperator::GreaterOrEqual => (0, i64::from(node.value)),
        };
        Reverse((node.half, rank, value))
    };
    key(new) < key(old)
}

fn nodes(rule: &Rule) -> impl Iterator<Item = (Node, ArgOperator)> {
    rule.tests.iter().flat_map(|test| {
        let high = test.wide.then(|| node(test, Half::High));
        high.into_iter().chain([node(test, Half::Low)]).map(|node| (node, test.operator))
    })
}

fn node(test: &Test, half: Half) -> Node {
    let kind = match (test.operator, half) {
        (ArgOperator::Equal | ArgOperator::NotEqual, _) => Kind::Equal,
        (ArgOperator::MaskedEqual, _) => Kind::Masked,
        (_, Half::High) | (ArgOperator::GreaterThan | ArgOperator::LessOrEqual, _) => Kind::Greater,
        (ArgOperator::GreaterOrEqual | ArgOperator::LessThan, _) => Kind::GreaterOrEqual,
    };
    let shift = if half == Half::High { 32 } else { 0 };
    let cut = |value: u64| (value >> shift) as u32;
    Node { half: (test.index, half), kind, mask: cut(test.mask), value: cut(test.value) }
}
