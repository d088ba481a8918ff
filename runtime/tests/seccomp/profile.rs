//! A profile as `compile` takes it, from the specification's JSON.

use serde_json::Value;
use tare::config::{ArgOperator, ArgTest, Seccomp, SeccompAction, SyscallRule};
use tare::seccomp::Arch;

pub(crate) fn profile(v: &Value) -> Seccomp {
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
        flags: v.get("flags").map(strings),
        listener_path: v["listenerPath"].as_str().map(Into::into),
        listener_metadata: v["listenerMetadata"].as_str().map(Into::into),
        syscalls: v["syscalls"].as_array().into_iter().flatten().map(rule).collect(),
    }
}

pub(crate) fn arch(v: &Value) -> Arch {
    match v.as_str().unwrap() {
        "x86_64" => Arch::X86_64,
        "x86" => Arch::X86,
        "aarch64" => Arch::Aarch64,
        "arm" => Arch::Arm,
        other => panic!("{other}"),
    }
}
