//! How the process is scheduled: CPU, block devices, which processors.

use super::read::Node;
use super::{ExecCpuAffinity, IoPriority, Scheduler};

/// `sched(7)`; 4 is a policy that was never merged, the kernel refuses it.
const POLICIES: &[(&str, u32)] = &[
    ("SCHED_OTHER", 0),
    ("SCHED_FIFO", 1),
    ("SCHED_RR", 2),
    ("SCHED_BATCH", 3),
    ("SCHED_ISO", 4),
    ("SCHED_IDLE", 5),
    ("SCHED_DEADLINE", 6),
];
const FIFO: u32 = 1;
const RR: u32 = 2;
const DEADLINE: u32 = 6;

/// `linux/sched.h`
const FLAGS: &[(&str, u64)] = &[
    ("SCHED_FLAG_RESET_ON_FORK", 0x01),
    ("SCHED_FLAG_RECLAIM", 0x02),
    ("SCHED_FLAG_DL_OVERRUN", 0x04),
    ("SCHED_FLAG_KEEP_POLICY", 0x08),
    ("SCHED_FLAG_KEEP_PARAMS", 0x10),
    ("SCHED_FLAG_UTIL_CLAMP_MIN", 0x20),
    ("SCHED_FLAG_UTIL_CLAMP_MAX", 0x40),
];

/// `linux/ioprio.h`
const IO_CLASSES: &[(&str, u8)] = &[("IOPRIO_CLASS_RT", 1), ("IOPRIO_CLASS_BE", 2), ("IOPRIO_CLASS_IDLE", 3)];

/// More processors than any kernel is built for (`NR_CPUS` is 8192 at most on x86).
const CPUS_MAX: u32 = 1 << 16;

pub(super) fn scheduler(process: &Node) -> Option<Scheduler> {
    let node = process.object("scheduler")?;
    let policy = node.required_word("policy", POLICIES, "a scheduling policy")?;
    let scheduler = Scheduler {
        policy,
        nice: node.integer_in("nice", -20, 19).unwrap_or(0),
        priority: node.integer("priority").unwrap_or(0),
        flags: node
            .each("flags", |flag| flag.as_word(FLAGS, "a flag of a scheduler"))
            .into_iter()
            .fold(0, |all, flag| all | flag),
        runtime: node.integer("runtime").unwrap_or(0),
        deadline: node.integer("deadline").unwrap_or(0),
        period: node.integer("period").unwrap_or(0),
    };
    let static_priority = matches!(policy, FIFO | RR);
    if static_priority && !(1..=99).contains(&scheduler.priority) && !node.is_bad("priority") {
        node.problem_at("priority", format!("{} is not from 1 to 99", scheduler.priority));
    }
    if !static_priority && scheduler.priority != 0 {
        node.refuse_at("priority", "is for SCHED_FIFO and SCHED_RR only");
    }
    for (key, value) in
        [("runtime", scheduler.runtime), ("deadline", scheduler.deadline), ("period", scheduler.period)]
    {
        if policy != DEADLINE && value != 0 {
            node.refuse_at(key, "is for SCHED_DEADLINE only");
        }
    }
    Some(scheduler)
}

pub(super) fn io_priority(process: &Node) -> Option<IoPriority> {
    let node = process.object("ioPriority")?;
    let class = node.required_word("class", IO_CLASSES, "an I/O class")?;
    Some(IoPriority { class, priority: node.integer_in("priority", 0, 7).unwrap_or(0) })
}

pub(super) fn exec_cpu_affinity(process: &Node) -> Option<ExecCpuAffinity> {
    let node = process.object("execCPUAffinity")?;
    let list = |key| {
        let text = node.string(key)?;
        let cpus = cpu_list(text);
        if cpus.is_none() {
            node.refuse_at(key, "is not a list of CPUs such as 0-3,5");
        }
        cpus
    };
    let affinity = ExecCpuAffinity { initial: list("initial"), final_: list("final") };
    (affinity != ExecCpuAffinity::default()).then_some(affinity)
}

/// `0-3,5` as sorted numbers.
fn cpu_list(text: &str) -> Option<Vec<u32>> {
    let mut cpus = Vec::new();
    for range in text.split(',') {
        let range = range.trim();
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last) = (cpu(first)?, cpu(last)?);
        if first > last {
            return None;
        }
        cpus.extend(first..=last);
    }
    cpus.sort_unstable();
    cpus.dedup();
    Some(cpus)
}

fn cpu(text: &str) -> Option<u32> {
    // Rust's own parser takes a leading plus too.
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok().filter(|cpu| *cpu < CPUS_MAX)
}

#[cfg(test)]
mod tests {
    use super::cpu_list;

    #[test]
    fn lists_of_cpus() {
        for (text, cpus) in [
            ("0", &[0][..]),
            ("0-3,5", &[0, 1, 2, 3, 5]),
            ("5,0-1,1", &[0, 1, 5]),
            ("7-7", &[7]),
            ("0, 2", &[0, 2]),
        ] {
            assert_eq!(cpu_list(text).as_deref(), Some(cpus), "{text}");
        }
        for text in ["", ",", "3-1", "a", "1-", "-1", "0,", "+1", "1--2", "0-4294967295", "99999999999"] {
            assert_eq!(cpu_list(text), None, "{text}");
        }
    }
}
