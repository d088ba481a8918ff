//! Verdicts of compiled profiles, held against tables that libseccomp made (`seccomp/oracle.py`),
//! and against vectors written by hand.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::bpf::Call;
use crate::profile::{arch, profile};
use serde_json::{Value, json};
use tare::seccomp::{Agent, Arch, Program, compile};

/// Runs the program as the kernel would. Gives the verdict and how many jumps it took.
fn run(program: &Program, arch: Arch, nr: u32, args: [u64; 6]) -> (u32, usize) {
    crate::bpf::run(&program.filter, &Call { audit: arch.audit(), nr, args })
}

fn arguments(v: &Value) -> [u64; 6] {
    let mut args = [0; 6];
    for (to, from) in args.iter_mut().zip(v.as_array().into_iter().flatten()) {
        *to = from.as_u64().unwrap();
    }
    args
}

fn number(v: &Value) -> u32 {
    u32::try_from(v.as_u64().unwrap()).unwrap()
}

/// The numbers that the tables were made for, in their order (`probes` in `oracle.py`).
fn probes(arch: Arch) -> Vec<u32> {
    const X32: u32 = 1 << 30;
    let mut numbers: Vec<u32> = (0..480).chain([511, 512, 547, 548, 600, 0xEFFFF]).collect();
    numbers.extend(0xF0000..0xF0008);
    if arch == Arch::X86_64 {
        numbers.push(X32 - 1);
        numbers.extend(X32..X32 + 560);
    }
    numbers.extend([0x7FFF_FFFF, 0x8000_0000, 0xBFFF_FFFF, 0xC000_0000, 0xFFFF_FFFE, 0xFFFF_FFFF]);
    numbers
}

/// Two rules of one syscall match and have different actions; libseccomp's tree has merged parts of
/// them (`_db_tree_add`), and which part the arguments meet decides. Ours asks whole rules.
const LIBSECCOMP_MERGED: [(&str, u32); 2] = [("generated 41", 451), ("generated 42", 19)];

#[test]
fn verdicts_are_those_of_libseccomp() {
    let cases: Value = serde_json::from_str(include_str!("libseccomp.json")).unwrap();
    let mut wrong = Vec::new();
    let mut compared = 0;
    for case in cases.as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        let program = compile(&profile(&case["profile"]), arch(&case["host"])).unwrap();
        let mut bases: BTreeMap<&str, Vec<u32>> = BTreeMap::new();
        for table in case["tables"].as_array().unwrap() {
            let (arch, args) = (arch(&table["arch"]), arguments(&table["args"]));
            let base = bases.get(table["arch"].as_str().unwrap());
            let expected = expand(&table["cells"], &probes(arch), base);
            for (nr, expected) in probes(arch).into_iter().zip(&expected) {
                compared += 1;
                let (verdict, _) = run(&program, arch, nr, args);
                if verdict != *expected && !LIBSECCOMP_MERGED.contains(&(name, nr)) {
                    wrong.push(format!("{name}: {arch:?} {nr} {args:x?}: {verdict:#x}, not {expected:#x}"));
                }
            }
            bases.entry(table["arch"].as_str().unwrap()).or_insert(expected);
        }
    }
    assert!(compared > 100_000, "{compared}");
    assert!(wrong.is_empty(), "{} of {compared} differ:\n{}", wrong.len(), wrong.join("\n"));
}

/// The verdict of each probe: changes along the numbers in an ABI's first table, and what differs
/// from that one in the others.
fn expand(cells: &Value, probes: &[u32], base: Option<&Vec<u32>>) -> Vec<u32> {
    let mut cells = cells.as_array().unwrap().iter().map(|c| (number(&c[0]), number(&c[1]))).peekable();
    let mut current = 0;
    let expand = |(i, nr): (usize, &u32)| match cells.next_if(|(at, _)| at == nr) {
        Some((_, verdict)) => {
            current = verdict;
            verdict
        }
        None => base.map_or(current, |base| base[i]),
    };
    let expanded = probes.iter().enumerate().map(expand).collect();
    assert!(cells.next().is_none(), "a number that is not probed");
    expanded
}

/// Docker's profile and Podman's: about ten comparisons without arguments, a few more with.
#[test]
fn a_verdict_takes_about_ten_jumps() {
    for text in [include_str!("profiles/docker_amd64.json"), include_str!("profiles/podman_amd64.json")] {
        let program = compile(&profile(&serde_json::from_str(text).unwrap()), Arch::X86_64).unwrap();
        let jumps = |arch, nr| run(&program, arch, nr, [0; 6]).1;
        let all: Vec<usize> = (0..460).map(|nr| jumps(Arch::X86_64, nr)).collect();
        let mean = all.iter().sum::<usize>() as f64 / all.len() as f64;
        assert!(mean < 10.0, "{mean}");
        // personality has five alternatives of 64 bits.
        assert!(all.iter().max() <= Some(&20), "{:?}", all.iter().max());
    }
}

#[test]
fn every_wrong_thing_of_a_profile_is_named_at_once() {
    let pointers = |json: Value| -> Vec<String> {
        let problems = compile(&profile(&json), Arch::X86_64).unwrap_err();
        problems.into_iter().map(|p| p.pointer.strip_prefix("/linux/seccomp/").unwrap().to_owned()).collect()
    };
    let waits = "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV";
    let wrong = serde_json::json!({
        "defaultAction": "SCMP_ACT_NOTIFY",
        "flags": ["SECCOMP_FILTER_FLAG_LOG", waits],
        "syscalls": [
            { "names": ["read", ""], "action": "SCMP_ACT_ALLOW" },
            { "names": ["write"], "action": "SCMP_ACT_ERRNO", "errnoRet": 65536 },
            { "names": ["open", "write"], "action": "SCMP_ACT_NOTIFY" },
        ],
    });
    assert_eq!(
        pointers(wrong),
        [
            "defaultAction",
            "syscalls/2/names/1",
            "listenerPath",
            "flags/1",
            "syscalls/0/names/1",
            "syscalls/1/errnoRet",
        ]
    );
    let alone = serde_json::json!({
        "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 65536, "flags": [waits], "listenerMetadata": "x",
    });
    assert_eq!(pointers(alone), ["listenerMetadata", "flags/0", "defaultErrnoRet"]);
}

#[test]
fn a_profile_that_notifies_has_an_agent_and_a_listener() {
    let profile_with = |action: &str| {
        json!({
            "defaultAction": "SCMP_ACT_ERRNO", "flags": ["SECCOMP_FILTER_FLAG_TSYNC"], "listenerPath": "/a",
            "listenerMetadata": "m", "syscalls": [{ "names": ["mkdir"], "action": action }],
        })
    };
    let program = compile(&profile(&profile_with("SCMP_ACT_NOTIFY")), Arch::X86_64).unwrap();
    assert_eq!(program.flags, libc::SECCOMP_FILTER_FLAG_NEW_LISTENER);
    let agent = Agent { path: "/a".into(), metadata: Some("m".into()), sendmsg: false };
    assert_eq!(program.agent, Some(agent));
    assert_eq!(run(&program, Arch::X86_64, 83, [0; 6]).0, libc::SECCOMP_RET_USER_NOTIF);
    for (default, rule, passes) in [
        ("SCMP_ACT_ALLOW", json!({ "names": ["read"], "action": "SCMP_ACT_ERRNO" }), true),
        ("SCMP_ACT_ALLOW", json!({ "names": ["sendmsg"], "action": "SCMP_ACT_NOTIFY" }), false),
        ("SCMP_ACT_ERRNO", json!({ "names": ["sendmsg"], "action": "SCMP_ACT_LOG" }), true),
        (
            "SCMP_ACT_ERRNO",
            json!({ "names": ["sendmsg"], "action": "SCMP_ACT_ALLOW",
                    "args": [{ "index": 2, "value": 0, "op": "SCMP_CMP_EQ" }] }),
            false,
        ),
    ] {
        let mut document = profile_with("SCMP_ACT_NOTIFY");
        document["defaultAction"] = default.into();
        document["syscalls"].as_array_mut().unwrap().push(rule);
        let agent = compile(&profile(&document), Arch::X86_64).unwrap().agent.unwrap();
        assert_eq!(agent.sendmsg, passes, "{document}");
    }
    let program = compile(&profile(&profile_with("SCMP_ACT_ALLOW")), Arch::X86_64).unwrap();
    assert_eq!((program.flags, program.agent), (0, None));
}

#[test]
fn hand_written_vectors_hold() {
    let cases: Value = serde_json::from_str(include_str!("vectors.json")).unwrap();
    for case in cases.as_array().unwrap() {
        let program = compile(&profile(&case["profile"]), arch(&case["host"])).unwrap();
        for v in case["verdicts"].as_array().unwrap() {
            let verdict = match v[3].as_str().unwrap() {
                "allow" => libc::SECCOMP_RET_ALLOW,
                "log" => libc::SECCOMP_RET_LOG,
                "trap" => libc::SECCOMP_RET_TRAP,
                "kill thread" => libc::SECCOMP_RET_KILL_THREAD,
                "kill process" => libc::SECCOMP_RET_KILL_PROCESS,
                other => match other.split_once(' ').unwrap() {
                    ("errno", n) => libc::SECCOMP_RET_ERRNO | n.parse::<u32>().unwrap(),
                    ("trace", n) => libc::SECCOMP_RET_TRACE | n.parse::<u32>().unwrap(),
                    _ => panic!("{other}"),
                },
            };
            assert_eq!(
                run(&program, arch(&v[0]), number(&v[1]), arguments(&v[2])).0,
                verdict,
                "{}: {v}",
                case["name"]
            );
        }
    }
}

#[test]
fn flags_and_warnings_go_along() {
    let json = serde_json::json!({
        "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_MIPS"],
        "syscalls": [{ "names": ["no_such_call"], "action": "SCMP_ACT_ERRNO" }],
    });
    let plain = compile(&profile(&json), Arch::X86_64).unwrap();
    let compiled = |flags: &[&str]| {
        let mut json = json.clone();
        json["flags"] = serde_json::json!(flags);
        compile(&profile(&json), Arch::X86_64).unwrap()
    };
    let (tsync, log) = ("SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_LOG");
    assert_eq!(plain.flags, libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW);
    // An empty list is somebody's word.
    assert_eq!(compiled(&[]).flags, 0);
    assert_eq!(compiled(&[tsync]).flags, 0);
    assert_eq!(compiled(&[tsync, log]).flags, libc::SECCOMP_FILTER_FLAG_LOG);
    let warnings = plain.warnings.join("\n");
    assert!(warnings.contains("SCMP_ARCH_MIPS") && warnings.contains("no_such_call"), "{warnings}");
}

#[test]
fn a_profile_beyond_the_kernels_limit_is_refused_and_not_truncated() {
    let rules: Vec<Value> = (0..1500)
        .map(|n| {
            let args = [serde_json::json!({ "index": 0, "value": n, "op": "SCMP_CMP_EQ" })];
            serde_json::json!({ "names": ["ioctl"], "action": "SCMP_ACT_ALLOW", "args": args })
        })
        .collect();
    let with = |rules: &[Value]| {
        profile(&serde_json::json!({ "defaultAction": "SCMP_ACT_ERRNO", "syscalls": rules }))
    };
    let problems = compile(&with(&rules), Arch::X86_64).unwrap_err();
    assert_eq!(problems[0].pointer, "/linux/seccomp/syscalls");
    // A long one that fits needs trampolines all the way.
    let program = compile(&with(&rules[..900]), Arch::X86_64).unwrap();
    for (value, verdict) in [(0, libc::SECCOMP_RET_ALLOW), (899, libc::SECCOMP_RET_ALLOW), (900, 0x50001)] {
        assert_eq!(run(&program, Arch::X86_64, 16, [value, 0, 0, 0, 0, 0]).0, verdict, "{value}");
    }
}

/// To sort as many rules as there may be by comparing each with all would take minutes.
#[test]
fn more_rules_than_instructions_are_refused_before_they_are_sorted() {
    let rule = |n: u32| {
        let args = [serde_json::json!({ "index": 0, "value": n, "op": "SCMP_CMP_EQ" })];
        serde_json::json!({ "names": ["ioctl"], "action": "SCMP_ACT_ALLOW", "args": args })
    };
    let with = |rules: &[Value]| {
        profile(&serde_json::json!({ "defaultAction": "SCMP_ACT_ERRNO", "syscalls": rules }))
    };
    let mut rules: Vec<Value> = (0..100_000).map(rule).collect();
    let problems = compile(&with(&rules), Arch::X86_64).unwrap_err();
    assert!(
        problems[0].what.contains("syscall 16 has more rules than the 4096 instructions"),
        "{problems:?}"
    );
    // One without conditions decides alone, wherever it stands.
    rules.push(serde_json::json!({ "names": ["ioctl"], "action": "SCMP_ACT_LOG" }));
    let program = compile(&with(&rules), Arch::X86_64).unwrap();
    assert_eq!(run(&program, Arch::X86_64, 16, [7; 6]).0, libc::SECCOMP_RET_LOG);
}

/// Its own figure, printed with `--nocapture`; the bound is wide, for slow machines and debug builds.
#[test]
fn docker_s_profile_compiles_in_well_under_a_millisecond() {
    let docker = profile(&serde_json::from_str(include_str!("profiles/docker_amd64.json")).unwrap());
    let best = (0..50).map(|_| {
        let start = Instant::now();
        let program = compile(&docker, Arch::X86_64).unwrap();
        (start.elapsed(), program.filter.len())
    });
    let (best, len) = best.min().unwrap();
    println!("{len} instructions in {best:?}");
    assert!(best.as_millis() < if cfg!(debug_assertions) { 20 } else { 1 }, "{best:?}");
}
