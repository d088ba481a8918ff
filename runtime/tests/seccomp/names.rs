//! Names and numbers of system calls: our tables, and which calls come to one number.

use std::collections::BTreeMap;

use serde_json::Value;
use tare::seccomp::Arch;

/// Our tables, as text.
pub(crate) const TABLES: [(Arch, &str, &str); 5] = [
    (Arch::X86_64, "x86_64", include_str!("../../src/seccomp/names/x86_64.rs")),
    (Arch::X86, "x86", include_str!("../../src/seccomp/names/x86.rs")),
    (Arch::X32, "x32", include_str!("../../src/seccomp/names/x32.rs")),
    (Arch::Aarch64, "aarch64", include_str!("../../src/seccomp/names/aarch64.rs")),
    (Arch::Arm, "arm", include_str!("../../src/seccomp/names/arm.rs")),
];

/// 32-bit x86's `socketcall` and `ipc`, and the calls that go through them, by their numbers there.
pub(crate) const MULTIPLEXERS: [(u32, &[&str]); 2] = [
    (
        102,
        &[
            "",
            "socket",
            "bind",
            "connect",
            "listen",
            "accept",
            "getsockname",
            "getpeername",
            "socketpair",
            "send",
            "recv",
            "sendto",
            "recvfrom",
            "shutdown",
            "setsockopt",
            "getsockopt",
            "sendmsg",
            "recvmsg",
            "accept4",
            "recvmmsg",
            "sendmmsg",
        ],
    ),
    (
        117,
        &[
            "",
            "semop",
            "semget",
            "semctl",
            "semtimedop",
            "",
            "",
            "",
            "",
            "",
            "",
            "msgsnd",
            "msgrcv",
            "msgget",
            "msgctl",
            "",
            "",
            "",
            "",
            "",
            "",
            "shmat",
            "shmdt",
            "shmget",
            "shmctl",
        ],
    ),
];

pub(crate) type Numbers = BTreeMap<String, u32>;

pub(crate) fn tables() -> BTreeMap<&'static str, Numbers> {
    let parse = |text: &str| -> Numbers {
        let rows = text.lines().filter_map(|line| {
            let (name, number) = line.trim().strip_prefix("(\"")?.strip_suffix("),")?.split_once("\", ")?;
            Some((name.to_owned(), number.parse().unwrap()))
        });
        rows.collect()
    };
    TABLES.iter().map(|(_, name, text)| (*name, parse(text))).collect()
}

pub(crate) fn table_name(arch: Arch) -> &'static str {
    TABLES.iter().find(|(a, ..)| *a == arch).unwrap().1
}

pub(crate) fn rules(document: &Value) -> impl Iterator<Item = &Value> {
    document["syscalls"].as_array().unwrap().iter()
}

pub(crate) fn names(rule: &Value) -> impl Iterator<Item = &str> {
    rule["names"].as_array().unwrap().iter().map(|name| name.as_str().unwrap())
}

pub(crate) fn multiplexed(name: &str) -> bool {
    MULTIPLEXERS.iter().any(|(_, names)| names.contains(&name))
}

/// What stands for a call when rules meet: on x86 those of one multiplexer do.
pub(crate) fn meeting(name: &str) -> &str {
    match MULTIPLEXERS.iter().find(|(_, names)| names.contains(&name)) {
        Some((102, _)) => "socketcall",
        Some(_) => "ipc",
        None => name,
    }
}
