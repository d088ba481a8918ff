//! Profiles that nobody would write: the kernel takes the program, and its verdict is one that the profile
//! itself gives.
//!
//! The model reads the profile as the specification has it, rule by rule, without numbers in ranges, jumps or
//! halves of words. Where rules with different actions match one call, any of their actions is right here:
//! which one it is, the tables that libseccomp made say (`tests/seccomp_vectors.rs`).

use std::path::Path;

use serde_json::{Value, json};

use super::{Arch, compile, names};
use crate::config::{ArgOperator, ArgTest, Config, Seccomp, SeccompAction, SyscallRule};

#[path = "../../tests/seccomp/interpreter.rs"]
mod interpreter;

use interpreter::Data;

fn seccomp(profile: &[u8]) -> Option<Seccomp> {
    let profile: Value = serde_json::from_slice(profile).ok()?;
    let document = json!({
        "ociVersion": "1.3.0",
        "process": { "args": ["sh"], "cwd": "/", "user": { "uid": 0, "gid": 0 } },
        "root": { "path": "rootfs" },
        "linux": { "namespaces": [{ "type": "mount" }], "seccomp": profile },
    });
    let config =
        Config::from_slice(document.to_string().as_bytes(), Path::new("config.json"), Path::new("/bundle"));
    config.ok()?.linux.seccomp
}

fn verdict(action: SeccompAction, errno: Option<u32>) -> u32 {
    let data = errno.unwrap_or(libc::EPERM as u32);
    match action {
        SeccompAction::KillThread => libc::SECCOMP_RET_KILL_THREAD,
        SeccompAction::KillProcess => libc::SECCOMP_RET_KILL_PROCESS,
        SeccompAction::Trap => libc::SECCOMP_RET_TRAP,
        SeccompAction::Errno => libc::SECCOMP_RET_ERRNO | data,
        SeccompAction::Trace => libc::SECCOMP_RET_TRACE | data,
        SeccompAction::Allow => libc::SECCOMP_RET_ALLOW,
        SeccompAction::Log => libc::SECCOMP_RET_LOG,
        SeccompAction::Notify => libc::SECCOMP_RET_USER_NOTIF,
    }
}

fn holds(test: &ArgTest, args: &[u64; 6], is_64_bit: bool) -> bool {
    let cut = |number: u64| if is_64_bit { number } else { number & u64::from(u32::MAX) };
    let (arg, value) = (cut(args[usize::from(test.index)]), cut(test.value));
    match test.operator {
        ArgOperator::NotEqual => arg != value,
        ArgOperator::LessThan => arg < value,
        ArgOperator::LessOrEqual => arg <= value,
        ArgOperator::Equal => arg == value,
        ArgOperator::GreaterOrEqual => arg >= value,
        ArgOperator::GreaterThan => arg > value,
        // What is not in the mask is not looked at, in the second operand neither.
        ArgOperator::MaskedEqual => arg & value == cut(test.value_two) & value,
    }
}

fn matches(rule: &SyscallRule, args: &[u64; 6], is_64_bit: bool) -> bool {
    let twice = |(at, test): (usize, &ArgTest)| rule.args[..at].iter().any(|t| t.index == test.index);
    let mut tests = rule.args.iter();
    if rule.args.iter().enumerate().any(twice) {
        // As runc reads it: then each is an alternative.
        tests.any(|test| holds(test, args, is_64_bit))
    } else {
        tests.all(|test| holds(test, args, is_64_bit))
    }
}

/// The verdicts that the profile may mean for a call of an ABI that it lists.
fn meant(seccomp: &Seccomp, arch: Arch, nr: u32, args: &[u64; 6]) -> Vec<u32> {
    let is_for = |rule: &&SyscallRule| rule.names.iter().any(|name| names::number(arch, name) == Some(nr));
    let matching = seccomp.syscalls.iter().filter(is_for).filter(|r| matches(r, args, arch.is_64_bit()));
    let default = verdict(seccomp.default_action, seccomp.default_errno_ret);
    // A rule that says what the default says is none.
    let mut found: Vec<u32> =
        matching.map(|rule| verdict(rule.action, rule.errno_ret)).filter(|v| *v != default).collect();
    if found.is_empty() {
        // The second: for what is newer than the profile.
        found = vec![default, libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32];
    }
    found
}

/// Arguments that lie at the borders of the rule's tests.
fn arguments(rule: &SyscallRule, random: &mut ::fuzz::random::Random) -> [u64; 6] {
    let mut args = [0; 6];
    for test in &rule.args {
        let near = [
            test.value,
            test.value.wrapping_add(1),
            test.value.wrapping_sub(1),
            test.value_two,
            test.value ^ (1 << 32),
            test.value_two | !test.value,
            test.value << 32,
            u64::MAX,
        ];
        if let (Some(number), false) = (random.of(&near), random.once_in(8)) {
            args[usize::from(test.index)] = *number;
        }
    }
    args
}

fn judge(seccomp: &Seccomp, host: Arch, random: &mut ::fuzz::random::Random) -> bool {
    let Ok(program) = compile(seccomp, host) else { return false };
    interpreter::check(&program.filter);
    let abis: Vec<Arch> = Arch::ALL
        .into_iter()
        .filter(|arch| {
            *arch == host
                || host.family().contains(arch)
                    && seccomp.architectures.iter().any(|name| Arch::from_scmp(name) == Some(*arch))
        })
        .collect();
    for rule in seccomp.syscalls.iter().take(64) {
        for name in rule.names.iter().take(16) {
            for &arch in &abis {
                let Some(nr) = names::number(arch, name) else { continue };
                // 32-bit x86 has two ways to these, and rules of the one count for the other.
                if arch == Arch::X86 && matches!(nr, 102 | 117) {
                    continue;
                }
                let args = arguments(rule, random);
                let data = Data { arch: arch.audit(), nr, args };
                let (verdict, _) = interpreter::run(&program.filter, &data);
                let meant = meant(seccomp, arch, nr, &args);
                assert!(
                    meant.contains(&verdict),
                    "{arch:?} {name} {args:x?}: {verdict:#x}, not of {meant:x?}"
                );
            }
        }
    }
    // Of numbers that nobody has named there is a verdict, too.
    for nr in [0, 1, 499, 600, 1 << 30, (1 << 31) - 1, 1 << 31, u32::MAX, random.number() as u32] {
        for arch in [0, Arch::X86_64.audit(), Arch::X86.audit(), Arch::Aarch64.audit(), Arch::Arm.audit()] {
            interpreter::run(&program.filter, &Data { arch, nr, args: [u64::MAX; 6] });
        }
    }
    true
}

#[test]
fn profiles() {
    let vectors: Value = serde_json::from_str(include_str!("../../tests/seccomp/vectors.json")).unwrap();
    let vectors = vectors.as_array().unwrap().iter().map(|case| case["profile"].to_string());
    let docker = include_str!("../../tests/seccomp/profiles/docker_amd64.json").to_owned();
    let words = [
        "SCMP_ACT_ALLOW",
        "SCMP_ACT_KILL_PROCESS",
        "SCMP_ACT_TRACE",
        "SCMP_ACT_LOG",
        "SCMP_ARCH_X32",
        "SCMP_ARCH_ARM",
        "SCMP_CMP_MASKED_EQ",
        "SCMP_CMP_NE",
        "SCMP_CMP_LT",
        "SCMP_CMP_GT",
        "socketcall",
        "ipc",
    ];
    let target =
        ::fuzz::target("seccomp-profiles").json().seeds(vectors).seed(docker).words(&words).rounds(800);
    target.run(|bytes| {
        let Some(seccomp) = seccomp(bytes) else { return false };
        let mut random = ::fuzz::random::Random::new(bytes.len() as u64);
        [Arch::X86_64, Arch::Aarch64].into_iter().all(|host| judge(&seccomp, host, &mut random))
    });
}
