//! One profile compiled by both, and the comparison of all its verdicts.

use std::collections::{BTreeMap, BTreeSet};

use libc::sock_filter;
use serde_json::Value;
use tare::seccomp::{Arch, Program};

use crate::bpf::{Call, End, Piece, by_number, run_from};
use crate::condition::{Condition, Kind, verdict};
use crate::generate::{Random, VALUES};
use crate::names::{MULTIPLEXERS, Numbers, names, rules, table_name};

const X32: u32 = 1 << 30;
const ENOSYS: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;

/// Architectures that a program tells apart; x32 is x86-64 to it.
pub(crate) const AUDITS: [Arch; 4] = [Arch::X86_64, Arch::X86, Arch::Aarch64, Arch::Arm];

/// A profile, both programs, and how libseccomp was told of it.
pub(crate) struct Case<'t> {
    pub(crate) name: String,
    pub(crate) wild: bool,
    pub(crate) host: Arch,
    pub(crate) document: Value,
    pub(crate) ours: Program,
    pub(crate) theirs: Vec<sock_filter>,
    /// Which name stood for which new one.
    pub(crate) stand_ins: Vec<(String, String)>,
    pub(crate) tables: &'t BTreeMap<&'static str, Numbers>,
}

#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) profiles: usize,
    pub(crate) compared: usize,
    pub(crate) refused_rules: usize,
    pub(crate) hung: usize,
    pub(crate) broken: usize,
    pub(crate) renamed: usize,
    pub(crate) longest: usize,
    pub(crate) longest_theirs: usize,
    pub(crate) most_jumps: usize,
    pub(crate) wild: usize,
    /// Of wild ones: libseccomp's verdict is that of no rule that matches.
    pub(crate) impossible: usize,
    /// Of wild ones: rules with several actions match, and libseccomp's tree has mixed them.
    pub(crate) merged: usize,
    pub(crate) wrong: Vec<String>,
}

impl Case<'_> {
    /// The ABIs of the filter.
    pub(crate) fn listed(&self) -> BTreeSet<&'static str> {
        let family: &[&str] =
            if self.host == Arch::Aarch64 { &["aarch64", "arm"] } else { &["x86_64", "x86", "x32"] };
        let words = self.document["architectures"].as_array().into_iter().flatten();
        let named = words.map(|w| w.as_str().unwrap().trim_start_matches("SCMP_ARCH_").to_lowercase());
        let named: BTreeSet<String> = named.chain([family[0].to_owned()]).collect();
        family.iter().copied().filter(|arch| named.contains(*arch)).collect()
    }

    /// The newest call that the profile names in an ABI; ARM's private ones are of no age.
    pub(crate) fn newest(&self, abi: &str) -> Option<u32> {
        let numbers = rules(&self.document).flat_map(names).filter_map(|name| self.tables[abi].get(name));
        numbers.copied().filter(|nr| abi != "arm" || *nr < 0xf_0000).max().filter(|nr| *nr != 0)
    }

    /// runc's stub: which numbers of an architecture never come to libseccomp's program.
    pub(crate) fn too_new(&self, audit: &str) -> Vec<(u32, u32)> {
        let permits = ["SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_TRACE"];
        if permits.iter().any(|action| self.document["defaultAction"] == *action) {
            return Vec::new();
        }
        let listed = self.listed();
        let mut ranges = Vec::new();
        for abi in [audit, "x32"] {
            let Some(newest) = self.newest(abi).filter(|_| listed.contains(abi)) else { continue };
            match (audit, abi) {
                // By bit 30, with and without bit 31.
                ("x86_64", "x86_64") => ranges.extend([(newest + 1, X32 - 1), (2 * X32, 3 * X32 - 1)]),
                ("x86_64", "x32") => ranges.extend([(newest + 1, 2 * X32 - 1), (3 * X32, u32::MAX)]),
                (_, "x32") => {}
                _ => ranges.push((newest + 1, u32::MAX)),
            }
        }
        ranges
    }

    /// ARM's private calls that the profile names.
    pub(crate) fn private(&self, audit: &str) -> Vec<u32> {
        if audit != "arm" {
            return Vec::new();
        }
        let numbers = rules(&self.document).flat_map(names).filter_map(|name| self.tables["arm"].get(name));
        numbers.copied().filter(|nr| *nr >= 0xf_0000).collect()
    }

    /// Numbers for which libseccomp is asked about another one: that of the name's stand-in, and for the
    /// stand-in that of the new name, which it does not know.
    pub(crate) fn exchanged(&self, audit: &str) -> BTreeMap<u32, u32> {
        let mut pairs = BTreeMap::new();
        let abis = if audit == "x86_64" { vec!["x86_64", "x32"] } else { vec![audit] };
        for abi in abis {
            for (new, old) in &self.stand_ins {
                let old = self.tables[abi][old];
                // One that nobody has.
                match self.tables[abi].get(new) {
                    Some(new) => pairs.extend([(*new, old), (old, *new)]),
                    None => drop(pairs.insert(old, (old & X32) + 4000)),
                }
            }
        }
        pairs
    }

    /// The conditions of the rules for a number, each with its action; a multiplexer's with the call
    /// in front.
    pub(crate) fn rules_of(&self, audit: &str, nr: u32) -> Vec<(Vec<Condition>, &Value)> {
        let abi = if audit == "x86_64" && nr & X32 != 0 { "x32" } else { audit };
        let mut found = Vec::new();
        let multiplexer = MULTIPLEXERS.iter().find(|(mux, _)| abi == "x86" && *mux == nr);
        for rule in rules(&self.document) {
            let args: Vec<Condition> =
                rule["args"].as_array().into_iter().flatten().map(Condition::from).collect();
            let indices: BTreeSet<usize> = args.iter().map(|c| c.index).collect();
            let groups: Vec<Vec<Condition>> =
                if indices.len() < args.len() { args.iter().map(|c| vec![*c]).collect() } else { vec![args] };
            for name in names(rule) {
                if self.tables[abi].get(name) == Some(&nr) {
                    found.extend(groups.iter().map(|group| (group.clone(), rule)));
                }
                let call = multiplexer.and_then(|(_, names)| names.iter().position(|n| *n == name));
                if let Some(call) = call {
                    let first = Condition { index: 0, kind: Kind::Equal, value: call as u64, two: 0 };
                    found.extend(groups.iter().map(|group| {
                        let others = group.iter().copied().filter(|c| c.index != 0);
                        (std::iter::once(first).chain(others).collect(), rule)
                    }));
                }
            }
        }
        found
    }

    /// The verdicts of all rules that match, or the default's: what any reading of the profile allows.
    pub(crate) fn possible(&self, audit: &str, nr: u32, args: &[u64; 6]) -> BTreeSet<u32> {
        let wide = nr & X32 == 0 && matches!(audit, "x86_64" | "aarch64");
        let rules = self.rules_of(audit, nr);
        let matching = rules.iter().filter(|(conditions, _)| conditions.iter().all(|c| c.holds(args, wide)));
        let found: BTreeSet<u32> =
            matching.map(|(_, rule)| verdict(&rule["action"], &rule["errnoRet"])).collect();
        if found.is_empty() { BTreeSet::from([self.default()]) } else { found }
    }

    pub(crate) fn default(&self) -> u32 {
        verdict(&self.document["defaultAction"], &self.document["defaultErrnoRet"])
    }

    /// Compares all verdicts.
    pub(crate) fn compare(&self, random: &mut Random, tally: &mut Tally) {
        for arch in AUDITS {
            self.compare_in(arch, random, tally);
        }
    }

    pub(crate) fn compare_in(&self, arch: Arch, random: &mut Random, tally: &mut Tally) {
        let audit = table_name(arch);
        let ours = by_number(&self.ours.filter, arch.audit());
        let theirs = by_number(&self.theirs, arch.audit());
        tally.most_jumps = tally.most_jumps.max(ours.iter().map(|piece| piece.jumps).max().unwrap_or(0));
        let (exchanged, too_new, private) = (self.exchanged(audit), self.too_new(audit), self.private(audit));
        let mut edges: BTreeSet<u32> = ours.iter().chain(&theirs).map(|piece| piece.first).collect();
        let alone = exchanged.keys().chain(&private);
        edges.extend(alone.flat_map(|nr| [*nr, nr + 1]));
        edges.extend(too_new.iter().flat_map(|(first, last)| [Some(*first), last.checked_add(1)]).flatten());
        let edges: Vec<u32> = edges.into_iter().collect();
        for (i, &first) in edges.iter().enumerate() {
            let last = edges.get(i + 1).map_or(u32::MAX, |next| next - 1);
            let own = piece(&ours, first);
            let asked = exchanged.get(&first).copied().unwrap_or(first);
            let their = piece(&theirs, asked);
            let stub =
                too_new.iter().any(|(from, to)| (*from..=*to).contains(&first)) && !private.contains(&first);
            let their_end = if stub { End::Verdict(ENOSYS) } else { their.end };
            if let (End::Verdict(own), End::Verdict(their)) = (own.end, their_end) {
                tally.compared += 1;
                self.judge(audit, first, &[0; 6], own, their, tally);
                continue;
            }
            // Numbers with the same way through both programs: their ends stand for all.
            for nr in BTreeSet::from([first, last]) {
                for args in self.arguments(audit, nr, random) {
                    let call = Call { audit: arch.audit(), nr, args };
                    let end = |end: End, filter: &[sock_filter], nr: u32| match end {
                        End::Verdict(verdict) => verdict,
                        End::Arguments(pc) => run_from(filter, pc, &Call { nr, ..call }).0,
                    };
                    let own = end(own.end, &self.ours.filter, nr);
                    let their = end(their_end, &self.theirs, if first == last { asked } else { nr });
                    tally.compared += 1;
                    self.judge(audit, nr, &args, own, their, tally);
                }
            }
        }
    }

    pub(crate) fn judge(
        &self,
        audit: &str,
        nr: u32,
        args: &[u64; 6],
        own: u32,
        their: u32,
        tally: &mut Tally,
    ) {
        if own == their {
            return;
        }
        let possible = self.possible(audit, nr, args);
        // Ours is right by any reading of the profile, or it is wrong.
        if self.wild && possible.contains(&own) && !possible.contains(&their) {
            tally.impossible += 1;
        } else if self.wild && possible.contains(&own) && possible.len() > 1 {
            tally.merged += 1;
        } else {
            tally.wrong.push(format!(
                "{}: {audit} {nr:#x} {args:x?}: {own:#x}, not {their:#x}; possible {possible:x?}",
                self.name
            ));
        }
    }

    /// At the edges of every condition on this number.
    pub(crate) fn arguments(&self, audit: &str, nr: u32, random: &mut Random) -> Vec<[u64; 6]> {
        let rules = self.rules_of(audit, nr);
        let mut chosen = vec![[0; 6], [u64::MAX; 6]];
        let filled = |random: &mut Random| -> [u64; 6] {
            std::array::from_fn(|_| {
                let value = *random.one(VALUES);
                *random.one(&[0, 1, 1 << 32, u64::MAX, value])
            })
        };
        chosen.extend((0..3).map(|_| filled(random)));
        for (i, (conditions, _)) in rules.iter().enumerate() {
            let mut exact = filled(random);
            conditions.iter().for_each(|c| exact[c.index] = c.satisfied(random));
            chosen.push(exact);
            for condition in conditions {
                for value in condition.edges() {
                    let mut args = exact;
                    args[condition.index] = value;
                    chosen.push(args);
                }
            }
            // Where two rules meet.
            for _ in 0..2.min(i) {
                let mut both = exact;
                rules[random.below(i)].0.iter().for_each(|c| both[c.index] = c.satisfied(random));
                chosen.push(both);
            }
        }
        chosen
    }
}

pub(crate) fn piece(pieces: &[Piece], nr: u32) -> &Piece {
    &pieces[pieces.partition_point(|piece| piece.last < nr)]
}
