//! Verdicts of compiled profiles, held against tables that libseccomp made (`seccomp/oracle.py`),
//! against vectors written by hand, and against the kernel.
#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::time::Instant;

use serde_json::Value;
use tare::config::{ArgOperator, ArgTest, Seccomp, SeccompAction, SyscallRule};
use tare::seccomp::{Arch, Program, compile};

/// `struct seccomp_data`, without the instruction pointer.
#[derive(Debug, Clone, Copy)]
struct Call {
    arch: Arch,
    nr: u32,
    args: [u64; 6],
}

/// Runs the program as the kernel would, after the kernel's own checks of it. Returns the verdict
/// and how many jumps it took.
fn run(program: &Program, call: &Call) -> (u32, usize) {
    let load = |offset: u32| match offset {
        0 => call.nr,
        4 => call.arch.audit(),
        16..=60 if offset.is_multiple_of(4) => {
            let arg = call.args[(offset as usize - 16) / 8];
            (if offset.is_multiple_of(8) { arg } else { arg >> 32 }) as u32
        }
        _ => panic!("load of {offset}"),
    };
    let (mut a, mut pc, mut jumps) = (0u32, 0usize, 0);
    loop {
        let i = &program.filter[pc];
        pc += 1;
        let mut jump_if = |holds: bool| {
            jumps += 1;
            pc += usize::from(if holds { i.jt } else { i.jf });
        };
        match u32::from(i.code) {
            0x20 => a = load(i.k),
            0x54 => a &= i.k,
            0x06 => return (i.k, jumps),
            0x05 => pc += i.k as usize,
            0x15 => jump_if(a == i.k),
            0x25 => jump_if(a > i.k),
            0x35 => jump_if(a >= i.k),
            code => panic!("opcode {code:#x}"),
        }
    }
}

fn profile(v: &Value) -> Seccomp {
    let action = |v: &Value| match v.as_str().unwrap() {
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => SeccompAction::KillThread,
        "SCMP_ACT_KILL_PROCESS" => SeccompAction::KillProcess,
        "SCMP_ACT_TRAP" => SeccompAction::Trap,
        "SCMP_ACT_ERRNO" => SeccompAction::Errno,
        "SCMP_ACT_TRACE" => SeccompAction::Trace,
        "SCMP_ACT_ALLOW" => SeccompAction::Allow,
        "SCMP_ACT_LOG" => SeccompAction::Log,
        "SCMP_ACT_NOTIFY" => SeccompAction::Notify,
        other => panic!("{other}"),
    };
    let number = |v: &Value| v.as_u64().map(|n| u32::try_from(n).unwrap());
    let strings = |v: &Value| -> Vec<String> {
        v.as_array().into_iter().flatten().map(|s| s.as_str().unwrap().to_owned()).collect()
    };
    let test = |v: &Value| ArgTest {
        index: u8::try_from(v["index"].as_u64().unwrap()).unwrap(),
        value: v["value"].as_u64().unwrap(),
        value_two: v["valueTwo"].as_u64().unwrap_or(0),
        operator: match v["op"].as_str().unwrap() {
            "SCMP_CMP_NE" => ArgOperator::NotEqual,
            "SCMP_CMP_LT" => ArgOperator::LessThan,
            "SCMP_CMP_LE" => ArgOperator::LessOrEqual,
            "SCMP_CMP_EQ" => ArgOperator::Equal,
            "SCMP_CMP_GE" => ArgOperator::GreaterOrEqual,
            "SCMP_CMP_GT" => ArgOperator::GreaterThan,
            "SCMP_CMP_MASKED_EQ" => ArgOperator::MaskedEqual,
            other => panic!("{other}"),
        },
    };
    let rule = |v: &Value| SyscallRule {
        names: strings(&v["names"]),
        action: action(&v["action"]),
        errno_ret: number(&v["errnoRet"]),
        args: v["args"].as_array().into_iter().flatten().map(test).collect(),
    };
    Seccomp {
        default_action: action(&v["defaultAction"]),
        default_errno_ret: number(&v["defaultErrnoRet"]),
        architectures: strings(&v["architectures"]),
        flags: strings(&v["flags"]),
        listener_path: v["listenerPath"].as_str().map(Into::into),
        listener_metadata: v["listenerMetadata"].as_str().map(Into::into),
        syscalls: v["syscalls"].as_array().into_iter().flatten().map(rule).collect(),
    }
}

fn arch(v: &Value) -> Arch {
    match v.as_str().unwrap() {
        "x86_64" => Arch::X86_64,
        "x86" => Arch::X86,
        "aarch64" => Arch::Aarch64,
        "arm" => Arch::Arm,
        other => panic!("{other}"),
    }
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
    let cases: Value = serde_json::from_str(include_str!("seccomp/libseccomp.json")).unwrap();
    let mut wrong = Vec::new();
    let mut compared = 0;
    for case in cases.as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        let program = compile(&profile(&case["profile"]), arch(&case["host"])).unwrap();
        let mut bases: HashMap<&str, Vec<u32>> = HashMap::new();
        for table in case["tables"].as_array().unwrap() {
            let (arch, args) = (arch(&table["arch"]), arguments(&table["args"]));
            let base = bases.get(table["arch"].as_str().unwrap());
            let expected = expand(&table["cells"], &probes(arch), base);
            for (nr, expected) in probes(arch).into_iter().zip(&expected) {
                compared += 1;
                let (verdict, _) = run(&program, &Call { arch, nr, args });
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
    for text in [
        include_str!("seccomp/profiles/docker_amd64.json"),
        include_str!("seccomp/profiles/podman_amd64.json"),
    ] {
        let program = compile(&profile(&serde_json::from_str(text).unwrap()), Arch::X86_64).unwrap();
        let jumps = |arch, nr| run(&program, &Call { arch, nr, args: [0; 6] }).1;
        let all: Vec<usize> = (0..460).map(|nr| jumps(Arch::X86_64, nr)).collect();
        let mean = all.iter().sum::<usize>() as f64 / all.len() as f64;
        assert!(mean < 10.0, "{mean}");
        // personality has five alternatives of 64 bits.
        assert!(all.iter().max() <= Some(&20), "{:?}", all.iter().max());
    }
}

#[test]
fn every_wrong_thing_of_a_profile_is_named_at_once() {
    let json = serde_json::json!({
        "defaultAction": "SCMP_ACT_NOTIFY",
        "flags": ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"],
        "listenerPath": "/run/agent.sock",
        "listenerMetadata": "x",
        "syscalls": [
            { "names": ["read", ""], "action": "SCMP_ACT_ALLOW" },
            { "names": ["write"], "action": "SCMP_ACT_ERRNO", "errnoRet": 65536 },
            { "names": ["open"], "action": "SCMP_ACT_NOTIFY" },
        ],
    });
    let problems = compile(&profile(&json), Arch::X86_64).unwrap_err();
    let pointers: Vec<&str> = problems.iter().map(|p| p.pointer.as_str()).collect();
    assert_eq!(
        pointers,
        [
            "/linux/seccomp/listenerPath",
            "/linux/seccomp/listenerMetadata",
            "/linux/seccomp/flags/1",
            "/linux/seccomp/defaultAction",
            "/linux/seccomp/syscalls/0/names/1",
            "/linux/seccomp/syscalls/1/errnoRet",
            "/linux/seccomp/syscalls/2/action",
        ]
    );
}

#[test]
fn hand_written_vectors_hold() {
    let cases: Value = serde_json::from_str(include_str!("seccomp/vectors.json")).unwrap();
    for case in cases.as_array().unwrap() {
        let program = compile(&profile(&case["profile"]), arch(&case["host"])).unwrap();
        for v in case["verdicts"].as_array().unwrap() {
            let call = Call { arch: arch(&v[0]), nr: number(&v[1]), args: arguments(&v[2]) };
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
            assert_eq!(run(&program, &call).0, verdict, "{}: {v}", case["name"]);
        }
    }
}

#[test]
fn flags_and_warnings_go_along() {
    let compiled = |flags: &[&str]| {
        let json = serde_json::json!({
            "defaultAction": "SCMP_ACT_ALLOW", "flags": flags, "architectures": ["SCMP_ARCH_MIPS"],
            "syscalls": [{ "names": ["no_such_call"], "action": "SCMP_ACT_ERRNO" }],
        });
        compile(&profile(&json), Arch::X86_64).unwrap()
    };
    let (tsync, log) = ("SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_LOG");
    assert_eq!(compiled(&[]).flags, libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW);
    assert_eq!(compiled(&[tsync]).flags, 0);
    assert_eq!(compiled(&[tsync, log]).flags, libc::SECCOMP_FILTER_FLAG_LOG);
    let warnings = compiled(&[]).warnings.join("\n");
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
        let call = Call { arch: Arch::X86_64, nr: 16, args: [value, 0, 0, 0, 0, 0] };
        assert_eq!(run(&program, &call).0, verdict, "{value}");
    }
}

/// Its own figure, printed with `--nocapture`; the bound is wide, for slow machines and debug builds.
#[test]
fn docker_s_profile_compiles_in_well_under_a_millisecond() {
    let docker = profile(&serde_json::from_str(include_str!("seccomp/profiles/docker_amd64.json")).unwrap());
    let best = (0..50).map(|_| {
        let start = Instant::now();
        let program = compile(&docker, Arch::X86_64).unwrap();
        (start.elapsed(), program.filter.len())
    });
    let (best, len) = best.min().unwrap();
    println!("{len} instructions in {best:?}");
    assert!(best.as_millis() < if cfg!(debug_assertions) { 20 } else { 1 }, "{best:?}");
}

/// The kernel takes the program, and judges as the interpreter does.
#[test]
#[cfg(target_arch = "x86_64")]
fn the_kernel_judges_alike() {
    let json = serde_json::json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [
            { "names": ["getppid"], "action": "SCMP_ACT_ERRNO", "errnoRet": 77 },
            { "names": ["personality"], "action": "SCMP_ACT_ERRNO", "errnoRet": 78,
              "args": [{ "index": 0, "value": 0xffff_ffff_u32, "op": "SCMP_CMP_NE" }] },
            { "names": ["getpriority"], "action": "SCMP_ACT_ERRNO", "errnoRet": 79,
              "args": [{ "index": 1, "value": 0xff_0000_0000_u64, "valueTwo": 0x1_0000_0000_u64,
                         "op": "SCMP_CMP_MASKED_EQ" }] },
        ],
    });
    let program = compile(&profile(&json), Arch::X86_64).unwrap();
    let calls: [(libc::c_long, u64, u64); 5] = [
        (libc::SYS_getppid, 0, 0),
        (libc::SYS_personality, 0xffff_ffff, 0),
        (libc::SYS_personality, 8, 0),
        (libc::SYS_getpriority, 0, 0),
        (libc::SYS_getpriority, 0, 0x1_0000_0000),
    ];
    let mut expected = [0; 5];
    for (expected, (nr, a, b)) in expected.iter_mut().zip(calls) {
        let call = Call { arch: Arch::X86_64, nr: nr as u32, args: [a, b, 0, 0, 0, 0] };
        let verdict = run(&program, &call).0;
        *expected = if verdict == libc::SECCOMP_RET_ALLOW { 0 } else { (verdict & 0xffff) as i32 };
    }
    assert_eq!(expected, [77, 0, 78, 0, 79]);
    // SAFETY: the child only makes system calls and exits: it takes no lock that another thread of
    // the test may have held at the fork.
    let child = unsafe { libc::fork() };
    assert!(child >= 0);
    if child == 0 {
        // SAFETY: plain numbers.
        unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
        let loaded = tare::seccomp::apply::load(&program).is_ok();
        let wrong = calls.iter().zip(expected).position(|((nr, a, b), expected)| {
            // SAFETY: none of these calls takes a pointer.
            let result = unsafe { libc::syscall(*nr, *a, *b) };
            let errno =
                if result == -1 { std::io::Error::last_os_error().raw_os_error().unwrap_or(0) } else { 0 };
            errno != expected
        });
        let code = if loaded { wrong.map_or(0, |i| 1 + i as i32) } else { 99 };
        // SAFETY: ends the child without running the test harness's exit handlers.
        unsafe { libc::_exit(code) };
    }
    let mut status = 0;
    // SAFETY: `status` is ours to write.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert!(libc::WIFEXITED(status), "{status:#x}");
    assert_eq!(libc::WEXITSTATUS(status), 0, "99: not loaded; else the call that was judged otherwise");
}
