//! config-linux.md, seccomp: actions, comparisons, rules, architectures. Notify is in `seccomp_notify.rs`.
#![allow(clippy::unwrap_used)]

use spec_tests::{Bundle, Value, crun, differs, json, need, runc, runc_before};

/// What the tests filter: a call without effect, whose first argument may be anything.
const CALL: &str = "getpgid";

/// `SIGSYS` ends a process with this exit code.
const SIGSYS: i32 = 128 + 31;

fn filter(default: &str, rules: Value) -> Bundle {
    Bundle::new().linux(|l| {
        l["seccomp"] = json!({ "defaultAction": default, "syscalls": rules });
    })
}

fn rule(action: &str) -> Value {
    json!({ "names": [CALL], "action": action })
}

/// The answers of the filtered call for each value of its argument.
fn answers(bundle: Bundle, values: &[i64]) -> Vec<Value> {
    let number = libc::SYS_getpgid.to_string();
    let mut words = vec!["/probe".to_owned()];
    for value in values {
        for word in ["try", "syscall", &number, &value.to_string(), ","] {
            words.push(word.to_owned());
        }
    }
    words.pop();
    bundle.process(|p| p["args"] = json!(words)).run().ok().json_lines()
}

fn answer(bundle: Bundle) -> Value {
    answers(bundle, &[0]).remove(0)
}

/// The process group of init, 1.
fn allowed() -> Value {
    json!({ "ok": 1 })
}

#[test]
fn a_filter_is_loaded_and_is_the_only_one() {
    need!(root);
    let facts = filter("SCMP_ACT_ALLOW", json!([rule("SCMP_ACT_ERRNO")])).facts();
    assert_eq!((&facts["seccomp"], &facts["seccomp_filters"]), (&json!(2), &json!(1)));
}

#[test]
fn an_empty_filter_allows_all() {
    need!(root);
    assert_eq!(answer(filter("SCMP_ACT_ALLOW", json!([]))), allowed());
    assert_eq!(
        answer(Bundle::new().linux(|l| l["seccomp"] = json!({ "defaultAction": "SCMP_ACT_ALLOW" }))),
        allowed()
    );
}

#[test]
fn errno_is_eperm_unless_it_is_given() {
    need!(root);
    assert_eq!(
        answer(filter("SCMP_ACT_ALLOW", json!([rule("SCMP_ACT_ERRNO")]))),
        json!({ "errno": "EPERM" })
    );
    for (errno, name) in [(1, "EPERM"), (38, "ENOSYS"), (100, "ENETDOWN"), (133, "EHWPOISON")] {
        let mut with = rule("SCMP_ACT_ERRNO");
        with["errnoRet"] = json!(errno);
        assert_eq!(answer(filter("SCMP_ACT_ALLOW", json!([with]))), json!({ "errno": name }));
    }
}

#[test]
fn each_rule_has_an_errno_of_its_own() {
    need!(root);
    let rules = json!([
        { "names": ["getpgid"], "action": "SCMP_ACT_ERRNO", "errnoRet": 100 },
        { "names": ["getsid"], "action": "SCMP_ACT_ERRNO", "errnoRet": 101 },
        { "names": ["getpriority"], "action": "SCMP_ACT_ERRNO" },
    ]);
    let out = filter("SCMP_ACT_ALLOW", rules)
        .probe([
            "try", "syscall", "121", "0", ",", "try", "syscall", "124", "0", ",", "try", "syscall", "140",
            "0", "0",
        ])
        .run()
        .ok();
    let names: Vec<Value> = out.json_lines().into_iter().map(|l| l["errno"].clone()).collect();
    assert_eq!(names, ["ENETDOWN", "ENETUNREACH", "EPERM"]);
}

#[test]
fn kill_ends_the_process() {
    need!(root);
    for action in ["SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_KILL_THREAD", "SCMP_ACT_TRAP"] {
        let bundle = filter("SCMP_ACT_ALLOW", json!([rule(action)]));
        let out = bundle.probe(["try", "syscall", "121", "0", ",", "print", "alive"]).run();
        assert_eq!(out.code(), SIGSYS, "{action}: {out:#?}");
        assert_eq!(out.stdout, "", "{action}");
    }
}

#[test]
fn log_allows_and_trace_without_a_tracer_does_not_exist() {
    need!(root);
    assert_eq!(answer(filter("SCMP_ACT_ALLOW", json!([rule("SCMP_ACT_LOG")]))), allowed());
    let traced = answer(filter("SCMP_ACT_ALLOW", json!([rule("SCMP_ACT_TRACE")])));
    assert_eq!(traced, json!({ "errno": "ENOSYS" }));
}

#[test]
fn all_operators_compare_the_whole_argument() {
    need!(root);
    type Row = (&'static str, i64, i64, &'static [i64], &'static [bool]);
    const BIG: i64 = 0x1_0000_0005;
    let table: &[Row] = &[
        ("SCMP_CMP_EQ", 5, 0, &[4, 5, 6, BIG][..], &[false, true, false, false][..]),
        ("SCMP_CMP_NE", 5, 0, &[4, 5, 6, BIG], &[true, false, true, true]),
        ("SCMP_CMP_LT", 5, 0, &[4, 5, 6, BIG], &[true, false, false, false]),
        ("SCMP_CMP_LE", 5, 0, &[4, 5, 6, BIG], &[true, true, false, false]),
        ("SCMP_CMP_GE", 5, 0, &[4, 5, 6, BIG], &[false, true, true, true]),
        ("SCMP_CMP_GT", 5, 0, &[4, 5, 6, BIG], &[false, false, true, true]),
        // The mask is `value`, and what is left is compared with `valueTwo`.
        ("SCMP_CMP_MASKED_EQ", 6, 4, &[4, 5, 6, 12, BIG - 1], &[true, true, false, true, true]),
        // Both halves of the word count.
        ("SCMP_CMP_EQ", BIG, 0, &[5, BIG, BIG + (1 << 32)], &[false, true, false]),
        ("SCMP_CMP_GT", BIG, 0, &[5, BIG, BIG + 1, 1 << 40], &[false, false, true, true]),
        ("SCMP_CMP_LT", BIG, 0, &[6, 5, BIG, BIG - 1, 1 << 40], &[true, true, false, true, false]),
        ("SCMP_CMP_NE", BIG, 0, &[5, BIG, 1 << 32], &[true, false, true]),
        (
            "SCMP_CMP_MASKED_EQ",
            0xf_0000_000f,
            0x1_0000_0005,
            &[5, BIG, BIG + 16, BIG + 1],
            &[false, true, true, false],
        ),
        // Unsigned.
        ("SCMP_CMP_GT", 5, 0, &[-1], &[true]),
        ("SCMP_CMP_LT", 5, 0, &[-1], &[false]),
    ];
    for (op, value, two, values, expected) in table {
        let mut with = rule("SCMP_ACT_ERRNO");
        with["errnoRet"] = json!(100);
        with["args"] = json!([{ "index": 0, "op": op, "value": value, "valueTwo": two }]);
        let seen = answers(filter("SCMP_ACT_ALLOW", json!([with])), values);
        let seen: Vec<bool> = seen.iter().map(|a| a["errno"] == "ENETDOWN").collect();
        assert_eq!(seen, *expected, "{op} {value} {two} on {values:?}");
    }
}

#[test]
fn every_one_of_six_arguments_can_be_compared() {
    need!(root);
    for index in 0..6 {
        let mut with = rule("SCMP_ACT_ERRNO");
        with["args"] = json!([{ "index": index, "op": "SCMP_CMP_EQ", "value": 7 }]);
        let mut words = vec!["/probe", "try", "syscall", "121", "0", "0", "0", "0", "0", "0"];
        words[4 + index] = "7";
        if index == 0 {
            // Process 7 does not exist.
            words.extend([",", "try", "syscall", "121", "1", "7", "7", "7", "7", "7"]);
        }
        let out = filter("SCMP_ACT_ALLOW", json!([with])).process(|p| p["args"] = json!(words)).run().ok();
        assert_eq!(out.json_lines()[0], json!({ "errno": "EPERM" }), "argument {index}");
        if index == 0 {
            assert_eq!(out.json_lines()[1], allowed());
        }
    }
}

fn compare(index: u32, op: &str, value: u64) -> Value {
    json!({ "index": index, "op": op, "value": value })
}

#[test]
fn all_conditions_of_a_rule_must_hold_and_any_of_several_rules() {
    need!(root);
    let mut both = rule("SCMP_ACT_ERRNO");
    both["args"] = json!([compare(0, "SCMP_CMP_GE", 5), compare(1, "SCMP_CMP_EQ", 1)]);
    let mut other = rule("SCMP_ACT_ERRNO");
    other["args"] = json!([compare(0, "SCMP_CMP_EQ", 1), compare(1, "SCMP_CMP_EQ", 2)]);
    let out = filter("SCMP_ACT_ALLOW", json!([both, other]))
        .probe([
            "try", "syscall", "121", "0", "1", ",", "try", "syscall", "121", "6", "0", ",", "try", "syscall",
            "121", "6", "1", ",", "try", "syscall", "121", "1", "2", ",", "try", "syscall", "121", "1", "0",
        ])
        .run()
        .ok();
    let errors: Vec<Value> = out.json_lines().into_iter().map(|l| l["errno"].clone()).collect();
    assert_eq!(errors, [json!(null), json!("ESRCH"), json!("EPERM"), json!("EPERM"), json!(null)]);
}

/// libseccomp takes each argument once for a rule; the peers make it several rules.
#[test]
fn two_conditions_on_one_argument_hold_each_for_itself() {
    need!(root);
    let mut with = rule("SCMP_ACT_ERRNO");
    with["args"] = json!([compare(0, "SCMP_CMP_EQ", 0), compare(0, "SCMP_CMP_EQ", 1)]);
    let seen = answers(filter("SCMP_ACT_ALLOW", json!([with])), &[0, 1, 2]);
    let errors: Vec<Value> = seen.iter().map(|l| l["errno"].clone()).collect();
    assert_eq!(errors, ["EPERM", "EPERM", "ESRCH"]);
}

#[test]
fn names_that_no_kernel_knows_are_passed_over() {
    need!(root);
    let rules = json!([{ "names": ["no_such_call", CALL, "neither_this"], "action": "SCMP_ACT_ERRNO" }]);
    assert_eq!(answer(filter("SCMP_ACT_ALLOW", rules)), json!({ "errno": "EPERM" }));
}

#[test]
fn a_rule_that_does_what_the_default_does_is_taken() {
    need!(root);
    assert_eq!(answer(filter("SCMP_ACT_ALLOW", json!([rule("SCMP_ACT_ALLOW")]))), allowed());
}

/// All that a static program needs, and what the runtimes themselves call after loading the filter.
const MINIMAL: &[&str] = &[
    "access",
    "arch_prctl",
    "brk",
    "capget",
    "capset",
    "chdir",
    "clock_gettime",
    "clone",
    "close",
    "close_range",
    "dup",
    "dup2",
    "dup3",
    "epoll_create1",
    "epoll_ctl",
    "epoll_pwait",
    "execve",
    "exit",
    "exit_group",
    "faccessat",
    "faccessat2",
    "fchdir",
    "fchown",
    "fcntl",
    "fstat",
    "fstatfs",
    "futex",
    "getcwd",
    "getdents64",
    "getpid",
    "getppid",
    "getrandom",
    "getrlimit",
    "gettid",
    "getuid",
    "ioctl",
    "lseek",
    "madvise",
    "mmap",
    "mprotect",
    "mremap",
    "munmap",
    "nanosleep",
    "newfstatat",
    "open",
    "openat",
    "openat2",
    "poll",
    "prctl",
    "pread64",
    "prlimit64",
    "read",
    "readlink",
    "readlinkat",
    "rseq",
    "rt_sigaction",
    "rt_sigprocmask",
    "rt_sigreturn",
    "sched_getaffinity",
    "sched_yield",
    "set_robust_list",
    "set_tid_address",
    "setgid",
    "setgroups",
    "setuid",
    "sigaltstack",
    "stat",
    "statfs",
    "statx",
    "tgkill",
    "umask",
    "uname",
    "write",
];

#[test]
fn what_is_not_listed_gets_the_default_action() {
    need!(root);
    let rules = json!([{ "names": MINIMAL, "action": "SCMP_ACT_ALLOW" }]);
    let seen = answer(filter("SCMP_ACT_ERRNO", rules.clone()));
    assert_eq!(seen, json!({ "errno": "EPERM" }));
    let bundle = filter("SCMP_ACT_ERRNO", rules).linux(|l| l["seccomp"]["defaultErrnoRet"] = json!(100));
    assert_eq!(answer(bundle), json!({ "errno": "ENETDOWN" }));
}

/// Then the filter is loaded before the ids are set, and has to allow that; but only the calls that runc makes.
#[test]
fn without_no_new_privileges_a_profile_that_runc_takes_is_enough() {
    need!(root);
    differs([crun("calls setresgid")], || {
        let rules = json!([{ "names": MINIMAL, "action": "SCMP_ACT_ALLOW" }]);
        let bundle = filter("SCMP_ACT_ERRNO", rules).process(|p| p["noNewPrivileges"] = json!(false));
        assert_eq!(answer(bundle), json!({ "errno": "EPERM" }));
    });
}

/// What a program needs that writes one line, and nothing of what a runtime would like.
#[test]
fn a_profile_of_a_few_calls_starts_the_program() {
    need!(root);
    let few = [
        "execve",
        "brk",
        "arch_prctl",
        "set_tid_address",
        "set_robust_list",
        "rseq",
        "prlimit64",
        "readlink",
        "readlinkat",
        "getrandom",
        "mprotect",
        "mmap",
        "munmap",
        "write",
        "exit_group",
        "futex",
        "close",
        "fcntl",
        "fstatfs",
        "getdents64",
        "openat",
        "newfstatat",
        "read",
        "rt_sigreturn",
        "rt_sigprocmask",
        "epoll_ctl",
        "epoll_pwait",
        "tgkill",
        "nanosleep",
        "getpid",
        "stat",
        "rt_sigaction",
        "sigaltstack",
        "poll",
        "uname",
    ];
    let rules = json!([{ "names": few.as_slice(), "action": "SCMP_ACT_ALLOW" }]);
    let out = filter("SCMP_ACT_ERRNO", rules).probe(["print", "alive"]).run().ok();
    assert_eq!(out.stdout, "alive\n");
}

#[test]
fn without_no_new_privileges_a_filter_is_loaded_too() {
    need!(root);
    let bundle = filter("SCMP_ACT_ALLOW", json!([rule("SCMP_ACT_ERRNO")]))
        .process(|p| {
            p["noNewPrivileges"] = json!(false);
            p["user"] = json!({ "uid": 1000, "gid": 1000 });
        })
        .probe(["facts", ",", "try", "syscall", "121", "0"]);
    let lines = bundle.run().ok().json_lines();
    assert_eq!(lines[0]["no_new_privs"], 0);
    assert_eq!(lines[0]["capabilities"]["effective"], json!([]));
    assert_eq!(lines[1], json!({ "errno": "EPERM" }));
}

#[test]
fn a_process_of_exec_has_the_filter() {
    need!(root);
    let container = filter("SCMP_ACT_ALLOW", json!([rule("SCMP_ACT_ERRNO")])).probe(["wait"]).start();
    let lines = container.exec(["try", "syscall", "121", "0", ",", "facts"]).ok().json_lines();
    assert_eq!(lines[0], json!({ "errno": "EPERM" }));
    assert_eq!(lines[1]["seccomp"], 2);
}

#[test]
fn several_architectures_can_be_listed() {
    need!(root);
    let bundle = filter("SCMP_ACT_ALLOW", json!([rule("SCMP_ACT_ERRNO")])).linux(|l| {
        l["seccomp"]["architectures"] = json!([
            "SCMP_ARCH_X86_64",
            "SCMP_ARCH_X86",
            "SCMP_ARCH_X32",
            "SCMP_ARCH_AARCH64",
            "SCMP_ARCH_ARM"
        ]);
    });
    assert_eq!(answer(bundle), json!({ "errno": "EPERM" }));
}

/// A number with the bit of x32 is not the call that it resembles; no way around the filter.
#[test]
#[cfg(target_arch = "x86_64")]
fn a_number_of_x32_does_not_go_around_the_filter() {
    need!(root);
    let number = (0x4000_0000 | libc::SYS_getpgid).to_string();
    for architectures in
        [json!(["SCMP_ARCH_X86_64"]), json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"])]
    {
        let out = filter("SCMP_ACT_ALLOW", json!([rule("SCMP_ACT_ERRNO")]))
            .linux(|l| l["seccomp"]["architectures"] = architectures.clone())
            .probe(["try", "syscall", &number, "0"])
            .run();
        // Killed as a foreign architecture, refused, or unknown to the kernel; but never answered.
        let answered = out.status.success() && !out.json()["ok"].is_null();
        assert!(!answered, "{architectures}: {out:#?}");
    }
}

#[test]
fn the_flags_are_taken() {
    need!(root);
    differs([runc_before("1.2", "knows no flags")], || {
        for flags in
            [json!([]), json!(["SECCOMP_FILTER_FLAG_LOG"]), json!(["SECCOMP_FILTER_FLAG_SPEC_ALLOW"])]
        {
            let bundle = filter("SCMP_ACT_ALLOW", json!([rule("SCMP_ACT_ERRNO")]));
            let seen = answer(bundle.linux(|l| l["seccomp"]["flags"] = flags.clone()));
            assert_eq!(seen, json!({ "errno": "EPERM" }), "{flags}");
        }
    });
}

#[test]
fn words_that_are_unknown_are_refused() {
    need!(root);
    filter("SCMP_ACT_NONSENSE", json!([])).create_fails();
    filter("SCMP_ACT_ALLOW", json!([rule("SCMP_ACT_NONSENSE")])).create_fails();
    let mut with = rule("SCMP_ACT_ERRNO");
    with["args"] = json!([{ "index": 0, "op": "SCMP_CMP_NONSENSE", "value": 0 }]);
    filter("SCMP_ACT_ALLOW", json!([with])).create_fails();
    let mut seventh = rule("SCMP_ACT_ERRNO");
    seventh["args"] = json!([compare(6, "SCMP_CMP_EQ", 0)]);
    filter("SCMP_ACT_ALLOW", json!([seventh])).create_fails();
    filter("SCMP_ACT_ALLOW", json!([]))
        .linux(|l| l["seccomp"]["architectures"] = json!(["SCMP_ARCH_Z80"]))
        .create_fails();
    differs([crun("passes it over")], || {
        filter("SCMP_ACT_ALLOW", json!([rule("SCMP_ACT_ERRNO")]))
            .linux(|l| l["seccomp"]["flags"] = json!(["SECCOMP_FILTER_FLAG_NONSENSE"]))
            .create_fails();
    });
}

#[test]
fn a_rule_needs_a_name() {
    need!(root);
    differs([runc("a rule of nothing"), crun("a rule of nothing")], || {
        filter("SCMP_ACT_ALLOW", json!([{ "names": [], "action": "SCMP_ACT_ERRNO" }])).create_fails();
    });
}

#[test]
fn an_errno_for_an_action_without_one_is_refused() {
    need!(root);
    differs([runc("ignores it")], || {
        let mut with = rule("SCMP_ACT_KILL_PROCESS");
        with["errnoRet"] = json!(1);
        filter("SCMP_ACT_ALLOW", json!([with])).create_fails();
    });
}

/// A profile as large as the engines' default one, and that with conditions.
#[test]
fn a_large_profile_is_loaded() {
    need!(root);
    let mut rules = vec![json!({ "names": MINIMAL, "action": "SCMP_ACT_ALLOW" })];
    for value in 10..400 {
        let mut with = rule("SCMP_ACT_ERRNO");
        with["errnoRet"] = json!(100);
        with["args"] = json!([compare(0, "SCMP_CMP_EQ", value)]);
        rules.push(with);
    }
    let seen = answers(filter("SCMP_ACT_ALLOW", json!(rules)), &[0, 10, 399, 400]);
    let errors: Vec<Value> = seen.iter().map(|l| l["errno"].clone()).collect();
    assert_eq!(errors, [json!(null), json!("ENETDOWN"), json!("ENETDOWN"), json!("ESRCH")]);
}
