//! Each profile is compiled twice, by us and by libseccomp (`seccomp/oracle.py`), and both programs are
//! asked about every number of every architecture, with arguments at the edges of the conditions.
//!
//! What runc adds to libseccomp's program, ENOSYS for calls newer than the profile, is modelled here;
//! and a name that the installed libseccomp is too old to know is given to it by another name, which
//! the profile does not use: its verdicts there are those that the new name must have.
//!
//! `SEED` chooses the generated profiles, `PROFILES` their number.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tare::seccomp::{Arch, compile};

use crate::bpf::{Call, by_number, run};
use crate::case::{AUDITS, Case, Tally};
use crate::generate::Random;
use crate::names::{Numbers, meeting, table_name, tables};
use crate::oracle::{Oracle, decode, known_to, with_old_names};

#[test]
fn our_numbers_are_libseccomps() {
    let Some(mut oracle) = Oracle::start() else { return };
    let ours = tables();
    let theirs = known_to(&mut oracle, &ours);
    let mut agreed = 0;
    for (arch, numbers) in &theirs {
        for (name, number) in numbers {
            let own = ours[arch].get(name);
            assert_eq!(own, Some(number), "{arch} {name}");
            agreed += 1;
        }
    }
    println!("{agreed} numbers agree");
    assert!(agreed > 1800, "{agreed}");
}

fn number_from(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).map_or(otherwise, |text| text.parse().unwrap())
}

/// The profiles of engines and of services.
fn stored() -> Vec<(String, Arch, Value)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/seccomp/profiles");
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let read = |path: std::path::PathBuf| {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let host = if name.ends_with("arm64") { Arch::Aarch64 } else { Arch::X86_64 };
        (name, host, serde_json::from_slice(&fs::read(&path).unwrap()).unwrap())
    };
    files.into_iter().map(read).collect()
}

/// libseccomp's verdicts and ours.
struct Play<'t> {
    oracle: Oracle,
    known: BTreeMap<&'static str, Numbers>,
    tables: &'t BTreeMap<&'static str, Numbers>,
    tally: Tally,
    making: Duration,
    comparing: Duration,
}

impl<'t> Play<'t> {
    fn new(mut oracle: Oracle, tables: &'t BTreeMap<&'static str, Numbers>) -> Self {
        let known = known_to(&mut oracle, tables);
        let (making, comparing) = (Duration::ZERO, Duration::ZERO);
        Self { oracle, known, tables, tally: Tally::default(), making, comparing }
    }

    fn play(&mut self, case: Candidate, random: &mut Random) -> Option<Case<'t>> {
        let start = Instant::now();
        let case = self.make(case);
        let made = Instant::now();
        if let Some(case) = &case {
            case.compare(random, &mut self.tally);
        }
        self.making += made - start;
        self.comparing += made.elapsed();
        case
    }

    /// Both programs; `None` when libseccomp makes none that can be asked.
    fn make(&mut self, Candidate { name, wild, host, mut document }: Candidate) -> Option<Case<'t>> {
        let tally = &mut self.tally;
        let (for_oracle, stand_ins) = with_old_names(&document, &self.known, self.tables);
        let answer = self.oracle.ask(&json!({ "host": table_name(host), "profile": for_oracle }));
        if answer["hung"] == true {
            tally.hung += 1;
            return None;
        }
        let refused = answer["refused"].as_array().unwrap().iter().map(|i| i.as_u64().unwrap() as usize);
        for i in refused.rev() {
            document["syscalls"].as_array_mut().unwrap().remove(i);
            tally.refused_rules += 1;
        }
        let theirs = decode(answer["program"].as_str().unwrap());
        if crate::bpf::takes_the_architecture_for_a_number(&theirs, &AUDITS.map(Arch::audit)) {
            tally.broken += 1;
            return None;
        }
        let ours = compile(&crate::profile::profile(&document), host).unwrap();
        *if wild { &mut tally.wild } else { &mut tally.profiles } += 1;
        tally.renamed += stand_ins.len();
        tally.longest = tally.longest.max(ours.filter.len());
        tally.longest_theirs = tally.longest_theirs.max(theirs.len());
        Some(Case { name, wild, host, document, ours, theirs, stand_ins, tables: self.tables })
    }
}

/// A profile that is to be played.
struct Candidate {
    name: String,
    /// Of a kind that libseccomp does not get right.
    wild: bool,
    host: Arch,
    document: Value,
}

/// Those of engines and of services. No engine's program is longer than libseccomp's; libseccomp's chain
/// of a short list may be shorter than a search.
#[test]
fn real_profiles_have_libseccomps_verdicts_in_fewer_instructions_and_ten_jumps() {
    let Some(oracle) = Oracle::start() else { return };
    let tables = tables();
    let mut play = Play::new(oracle, &tables);
    for (name, host, document) in stored() {
        let candidate = Candidate { name: name.clone(), wild: false, host, document };
        let case = play.play(candidate, &mut Random(1)).expect("a program");
        let (ours, theirs) = (case.ours.filter.len(), case.theirs.len());
        let pieces = AUDITS.map(|arch| by_number(&case.ours.filter, arch.audit()));
        let jumps = pieces.iter().flatten().map(|piece| piece.jumps).max().unwrap();
        println!(
            "{name}: {ours} instructions, libseccomp {theirs}; {jumps} jumps before a verdict or an argument"
        );
        assert!(
            ours <= theirs || name.starts_with("systemd"),
            "{name}: {ours} instructions, libseccomp {theirs}"
        );
        assert!(jumps <= 10, "{name}: {jumps}");
    }
    let tally = play.tally;
    println!("{} profiles, {} verdicts compared", tally.profiles, tally.compared);
    assert_eq!(tally.wrong, Vec::<String>::new());
}

#[test]
fn every_verdict_on_generated_profiles_is_libseccomps() {
    let Some(oracle) = Oracle::start() else { return };
    let tables = tables();
    let all: BTreeSet<String> = tables.values().flat_map(Numbers::keys).cloned().collect();
    let all: Vec<String> = all.into_iter().collect();
    let seed = number_from("SEED", 20_250_101);
    let count = number_from("PROFILES", 2000) as usize;
    println!("SEED={seed} PROFILES={count}");
    let mut play = Play::new(oracle, &tables);
    for n in 0.. {
        if play.tally.profiles == count {
            break;
        }
        let wild = n % 8 == 7;
        let mut random = Random(seed.wrapping_add(n).wrapping_mul(0x0100_0000_01b3));
        let (host, document) = crate::generate::profile(&mut random, &all, meeting, wild);
        let name = format!("{} {n}", if wild { "wild" } else { "generated" });
        let host = crate::profile::arch(&json!(host));
        play.play(Candidate { name, wild, host, document }, &mut random);
    }
    let Play { tally, making, comparing, .. } = play;
    println!(
        "{} profiles, {} verdicts compared, over all 2^32 numbers of {} architectures",
        tally.profiles,
        tally.compared,
        AUDITS.len()
    );
    println!(
        "longest program {} (libseccomp's {}), at most {} jumps before a verdict or an argument",
        tally.longest, tally.longest_theirs, tally.most_jumps
    );
    println!(
        "{} names newer than libseccomp, {} rules that it refuses, {} profiles that it hangs in, {} whose program \
         it breaks",
        tally.renamed, tally.refused_rules, tally.hung, tally.broken
    );
    println!(
        "{} wild profiles beside: {} verdicts of no rule that matches, {} mixed ones",
        tally.wild, tally.impossible, tally.merged
    );
    println!("{making:?} to make them, {comparing:?} to compare");
    let shown = &tally.wrong[..tally.wrong.len().min(40)];
    assert!(tally.wrong.is_empty(), "{} differ:\n{}", tally.wrong.len(), shown.join("\n"));
    // The exceptions stay exceptions.
    assert!((tally.impossible + tally.merged) * 200 < tally.compared, "{tally:?}");
    assert!((tally.broken + tally.hung) * 20 < tally.profiles, "{tally:?}");
    assert!(tally.most_jumps <= 14, "{}", tally.most_jumps);
}

/// A process joins a container before it is born there, if its filter lets it: `Program::bears`.
#[test]
fn a_filter_lets_a_process_be_born_if_its_program_does() {
    let tables = tables();
    let names: BTreeSet<String> = tables.values().flat_map(Numbers::keys).cloned().collect();
    let names: Vec<String> = names.into_iter().collect();
    let calls = [
        ("clone", [libc::CLONE_PARENT as u64, 0, 0, 0, 0, 0]),
        ("ioctl", [0, libc::TIOCSCTTY, 0, 0, 0, 0]),
        ("setsid", [0; 6]),
        ("read", [3, 0x7fff_0000_1000, 16, 0, 0, 0]),
        ("write", [3, 0x7fff_0000_1000, 16, 0, 0, 0]),
        ("chdir", [0x7fff_0000_1000, 0, 0, 0, 0, 0]),
        ("getcwd", [0x7fff_0000_1000, 4096, 0, 0, 0, 0]),
        ("umask", [0o22, 0, 0, 0, 0, 0]),
        ("newfstatat", [libc::AT_FDCWD as u64, 0x7fff_0000_1000, 0x7fff_0000_2000, 0, 0, 0]),
        ("faccessat2", [libc::AT_FDCWD as u64, 0x7fff_0000_1000, 1, 0x200, 0, 0]),
        ("exit_group", [0; 6]),
    ];
    let generated = (0..400).map(|n| {
        let mut random = Random(n);
        let (host, mut document) = crate::generate::profile(&mut random, &names, meeting, false);
        // Of most profiles as they are some call would be missing.
        if n % 2 == 0 {
            document["syscalls"].as_array_mut().unwrap().truncate((n / 2) as usize % 4);
            document["defaultAction"] = "SCMP_ACT_ALLOW".into();
            document.as_object_mut().unwrap().remove("defaultErrnoRet");
        }
        (format!("generated {n}"), crate::profile::arch(&json!(host)), document)
    });
    let mut verdicts = BTreeMap::new();
    for (name, host, document) in stored().into_iter().chain(generated) {
        let program = compile(&crate::profile::profile(&document), host).unwrap();
        let passes = |(call, args): &(&str, [u64; 6])| {
            let nr = tables[table_name(host)][*call];
            let (verdict, _) = run(&program.filter, &Call { audit: host.audit(), nr, args: *args });
            [libc::SECCOMP_RET_ALLOW, libc::SECCOMP_RET_LOG].contains(&verdict)
        };
        let all_pass = calls.iter().all(passes);
        // Rules for arguments that are addresses are not judged: they may hold or not.
        assert!(all_pass || !program.bears, "{name}: {document}");
        *verdicts.entry((all_pass, program.bears)).or_insert(0) += 1;
        let engines = ["docker", "podman", "containerd"].iter().any(|engine| name.starts_with(engine));
        assert!(!engines || program.bears, "{name}");
    }
    println!("(all pass, is said to let it): {verdicts:?}");
    assert!(verdicts[&(true, true)] > 50 && verdicts[&(false, false)] > 50, "{verdicts:?}");
}
