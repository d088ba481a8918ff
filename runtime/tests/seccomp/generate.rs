//! Profiles made up from a seed, and arguments that stand at the edges of their conditions.

use std::collections::BTreeSet;

use serde_json::{Value, json};

/// SplitMix64: the same numbers on every machine.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    pub(crate) fn one<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }

    /// In so many of a hundred cases.
    fn percent(&mut self, n: usize) -> bool {
        self.below(100) < n
    }
}

/// Calls that a profile is likely to look into, those with two ways on x86, and new ones.
const INTERESTING: &[&str] = &[
    "read",
    "write",
    "open",
    "close",
    "personality",
    "clone",
    "clone3",
    "socket",
    "accept4",
    "accept",
    "bind",
    "send",
    "recv",
    "socketcall",
    "ipc",
    "shmat",
    "shmget",
    "semop",
    "semtimedop",
    "msgctl",
    "ioctl",
    "fcntl",
    "futex",
    "keyctl",
    "unshare",
    "setns",
    "mount",
    "umount2",
    "umount",
    "ptrace",
    "bpf",
    "prctl",
    "arch_prctl",
    "rt_sigaction",
    "preadv",
    "readv",
    "execve",
    "openat2",
    "statx",
    "time",
    "stat64",
    "mmap2",
    "mmap",
    "_llseek",
    "chown32",
    "uselib",
    "process_vm_readv",
    "rt_sigqueueinfo",
    "timer_create",
    "cacheflush",
    "set_tls",
    "cachestat",
    "fchmodat2",
    "mseal",
    "listmount",
    "file_getattr",
    "futex_waitv",
    "memfd_secret",
];

pub(crate) const VALUES: &[u64] = &[
    0,
    1,
    2,
    3,
    8,
    16,
    40,
    0x7f,
    0xffff,
    0x2_0000,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    1 << 32,
    (1 << 32) + 8,
    0x7fff_ffff_ffff_ffff,
    u64::MAX,
];

const OPERATORS: &[&str] = &[
    "SCMP_CMP_NE",
    "SCMP_CMP_LT",
    "SCMP_CMP_LE",
    "SCMP_CMP_EQ",
    "SCMP_CMP_GE",
    "SCMP_CMP_GT",
    "SCMP_CMP_MASKED_EQ",
];

const ACTIONS: &[&str] = &[
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_KILL",
    "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_KILL_THREAD",
    "SCMP_ACT_LOG",
    "SCMP_ACT_NOTIFY",
    "SCMP_ACT_TRACE",
    "SCMP_ACT_TRAP",
];

/// A profile and the architecture of its machine. `names` are all that there are; `meeting` says which
/// of them come to one number. With `wild` also what libseccomp does not get right.
pub(crate) fn profile(
    random: &mut Random,
    names: &[String],
    meeting: fn(&str) -> &str,
    wild: bool,
) -> (&'static str, Value) {
    let default = *random.one(&[
        "SCMP_ACT_ERRNO",
        "SCMP_ACT_ERRNO",
        "SCMP_ACT_ERRNO",
        "SCMP_ACT_KILL_PROCESS",
        "SCMP_ACT_KILL",
        "SCMP_ACT_ALLOW",
        "SCMP_ACT_ALLOW",
        "SCMP_ACT_LOG",
        "SCMP_ACT_TRAP",
        "SCMP_ACT_TRACE",
    ]);
    let host = if random.percent(17) { "aarch64" } else { "x86_64" };
    let family: &[&str] = if host == "aarch64" { &["AARCH64", "ARM"] } else { &["X32", "X86_64", "X86"] };
    let listed: Vec<_> =
        family.iter().filter(|_| random.percent(80)).map(|a| format!("SCMP_ARCH_{a}")).collect();
    let mut made = json!({ "defaultAction": default, "architectures": listed, "listenerPath": "/agent" });
    if matches!(default, "SCMP_ACT_ERRNO" | "SCMP_ACT_TRACE") && random.percent(50) {
        made["defaultErrnoRet"] = json!(random.one(&[1, 13, 38]));
    }
    // Half of them have one action for all conditions, as most real ones have.
    let mixed = random.percent(50);
    let one = *random.one(&["SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO"]);
    let mut rules: Vec<Value> = Vec::new();
    for _ in 0..4 + random.below(20) {
        let action = if mixed { *random.one(ACTIONS) } else { one };
        let rule = rule(random, names, action, INTERESTING);
        let understood = |other: &Value| are_understood(&rule, other, meeting);
        if wild || is_understood(&rule) && rules.iter().all(understood) {
            rules.push(rule);
        }
    }
    made["syscalls"] = json!(rules);
    (host, made)
}

/// libseccomp drops the load of the number behind a condition whose mask is 0; and several conditions on
/// one argument are several rules for one call.
fn is_understood(rule: &Value) -> bool {
    let indices: BTreeSet<u64> = tests(rule).filter_map(|test| test["index"].as_u64()).collect();
    let masks = tests(rule).all(|test| test["op"] != "SCMP_CMP_MASKED_EQ" || test["value"] != 0);
    masks && (indices.len() == tests(rule).count() || compares_alike(rule))
}

/// libseccomp merges the conditions of two rules for one call into a tree. With comparisons other than
/// for equality it then answers, now and then, with a rule that does not match, or none where one does.
fn are_understood(rule: &Value, other: &Value, meeting: fn(&str) -> &str) -> bool {
    // What several names come to is conditional on the one that is meant.
    let conditional =
        |rule: &Value| tests(rule).next().is_some() || names_of(rule).any(|name| meeting(name) != name);
    let meets = |name: &str| names_of(other).any(|other| meeting(other) == meeting(name));
    !conditional(rule)
        || !conditional(other)
        || (compares_alike(rule) && compares_alike(other))
        || !names_of(rule).any(meets)
}

fn compares_alike(rule: &Value) -> bool {
    tests(rule).all(|test| test["op"] == "SCMP_CMP_EQ")
}

fn tests(rule: &Value) -> impl Iterator<Item = &Value> {
    rule["args"].as_array().into_iter().flatten()
}

fn names_of(rule: &Value) -> impl Iterator<Item = &str> {
    rule["names"].as_array().into_iter().flatten().filter_map(Value::as_str)
}

/// A rule for some of `interesting` and of `names`.
pub(crate) fn rule(
    random: &mut Random,
    names: &[String],
    action: &str,
    interesting: &[&'static str],
) -> Value {
    let mut args = Vec::new();
    for _ in 0..*random.one(&[0, 0, 1, 1, 1, 1, 2, 2, 3]) {
        let operator = *random.one(OPERATORS);
        let mut test = json!({
            "index": random.one(&[0, 0, 0, 1, 2, 5]), "value": random.one(VALUES), "op": operator,
        });
        if operator == "SCMP_CMP_MASKED_EQ" {
            test["valueTwo"] = json!(random.one(VALUES));
        }
        args.push(test);
    }
    let count = *random.one(if args.is_empty() { &[1, 2, 5, 40][..] } else { &[1, 1, 2, 5] });
    let mut chosen: Vec<&str> = (0..count)
        .map(|_| {
            let known = names.is_empty() || random.percent(60);
            if known { *random.one(interesting) } else { random.one(names).as_str() }
        })
        // It may not notify.
        .filter(|name| *name != "write" || action != "SCMP_ACT_NOTIFY")
        .collect();
    chosen.sort_unstable();
    chosen.dedup();
    if chosen.is_empty() {
        chosen.push("read");
    }
    let mut rule = json!({ "names": chosen, "action": action });
    if matches!(action, "SCMP_ACT_ERRNO" | "SCMP_ACT_TRACE") {
        rule["errnoRet"] = json!(random.one(&[1, 22, 38]));
    }
    if !args.is_empty() {
        rule["args"] = json!(args);
    }
    rule
}
