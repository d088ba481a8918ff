//! `linux.seccomp`.
//! <https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#seccomp>

use std::path::PathBuf;

use super::read::Node;
use super::{ArgOperator, ArgTest, Seccomp, SeccompAction, SyscallRule};

const ACTIONS: &[(&str, SeccompAction)] = &[
    ("SCMP_ACT_KILL", SeccompAction::KillThread),
    ("SCMP_ACT_KILL_PROCESS", SeccompAction::KillProcess),
    ("SCMP_ACT_KILL_THREAD", SeccompAction::KillThread),
    ("SCMP_ACT_TRAP", SeccompAction::Trap),
    ("SCMP_ACT_ERRNO", SeccompAction::Errno),
    ("SCMP_ACT_TRACE", SeccompAction::Trace),
    ("SCMP_ACT_ALLOW", SeccompAction::Allow),
    ("SCMP_ACT_LOG", SeccompAction::Log),
    ("SCMP_ACT_NOTIFY", SeccompAction::Notify),
];

const OPERATORS: &[(&str, ArgOperator)] = &[
    ("SCMP_CMP_NE", ArgOperator::NotEqual),
    ("SCMP_CMP_LT", ArgOperator::LessThan),
    ("SCMP_CMP_LE", ArgOperator::LessOrEqual),
    ("SCMP_CMP_EQ", ArgOperator::Equal),
    ("SCMP_CMP_GE", ArgOperator::GreaterOrEqual),
    ("SCMP_CMP_GT", ArgOperator::GreaterThan),
    ("SCMP_CMP_MASKED_EQ", ArgOperator::MaskedEqual),
];

const ARCHITECTURES: &[(&str, &str)] = &words([
    "SCMP_ARCH_X86",
    "SCMP_ARCH_X86_64",
    "SCMP_ARCH_X32",
    "SCMP_ARCH_ARM",
    "SCMP_ARCH_AARCH64",
    "SCMP_ARCH_LOONGARCH64",
    "SCMP_ARCH_M68K",
    "SCMP_ARCH_MIPS",
    "SCMP_ARCH_MIPS64",
    "SCMP_ARCH_MIPS64N32",
    "SCMP_ARCH_MIPSEL",
    "SCMP_ARCH_MIPSEL64",
    "SCMP_ARCH_MIPSEL64N32",
    "SCMP_ARCH_PARISC",
    "SCMP_ARCH_PARISC64",
    "SCMP_ARCH_PPC",
    "SCMP_ARCH_PPC64",
    "SCMP_ARCH_PPC64LE",
    "SCMP_ARCH_RISCV64",
    "SCMP_ARCH_S390",
    "SCMP_ARCH_S390X",
    "SCMP_ARCH_SH",
    "SCMP_ARCH_SHEB",
]);

const FLAGS: &[(&str, &str)] = &words([
    "SECCOMP_FILTER_FLAG_TSYNC",
    "SECCOMP_FILTER_FLAG_LOG",
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
]);

/// A table of words that stand for themselves.
const fn words<const N: usize>(names: [&'static str; N]) -> [(&'static str, &'static str); N] {
    let mut table = [("", ""); N];
    let mut i = 0;
    while i < N {
        table[i] = (names[i], names[i]);
        i += 1;
    }
    table
}

pub(super) fn read(seccomp: &Node) -> Option<Seccomp> {
    let default_action = seccomp.required_word("defaultAction", ACTIONS, "an action");
    let word = |table, what| move |node: &Node| node.as_word(table, what).map(str::to_owned);
    let read = Seccomp {
        default_action: default_action.unwrap_or(SeccompAction::Errno),
        default_errno_ret: errno(seccomp, "defaultErrnoRet", default_action),
        architectures: seccomp.each("architectures", word(ARCHITECTURES, "an architecture")),
        flags: seccomp.get("flags").map(|_| seccomp.each("flags", word(FLAGS, "a flag of a filter"))),
        // `exec` connects to it as well, from wherever it is called.
        listener_path: seccomp
            .string("listenerPath")
            .and_then(|_| seccomp.get("listenerPath")?.as_absolute_path())
            .and_then(|path| path.into_string().ok())
            .map(PathBuf::from),
        listener_metadata: seccomp.string("listenerMetadata").map(str::to_owned),
        syscalls: seccomp.each_object("syscalls", rule),
    };
    default_action.is_some().then_some(read)
}

fn rule(node: &Node) -> Option<SyscallRule> {
    if node.is_empty_list("names") {
        node.problem_at("names", "has no name of a syscall");
    }
    let names = node.each("names", |name| {
        let text = name.as_str()?;
        if text.is_empty() {
            name.refuse("is not the name of a syscall");
        }
        Some(text.to_owned())
    });
    let action = node.required_word("action", ACTIONS, "an action");
    let errno_ret = errno(node, "errnoRet", action);
    let args = node.each_object("args", argument);
    Some(SyscallRule { names, action: action?, errno_ret, args })
}

/// "When the action does not support an errno, the runtime MUST print an error message and fail."
/// What comes from a variable that was never set, a zero, is no errno.
fn errno(node: &Node, key: &str, action: Option<SeccompAction>) -> Option<u32> {
    // The filter's return value has 16 bits for it.
    let errno = node.integer_in(key, 0, 0xffff)?;
    match action? {
        SeccompAction::Errno | SeccompAction::Trace => Some(errno),
        _ if errno == 0 => None,
        _ => {
            node.refuse_at(key, "is for the actions SCMP_ACT_ERRNO and SCMP_ACT_TRACE only");
            None
        }
    }
}

fn argument(node: &Node) -> Option<ArgTest> {
    let index = node.required("index").and_then(|_| node.integer_in("index", 0, 5));
    let value = node.required_integer("value");
    let value_two = node.integer("valueTwo").unwrap_or(0);
    let operator = node.required_word("op", OPERATORS, "an operator");
    Some(ArgTest { index: index?, value: value?, value_two, operator: operator? })
}
