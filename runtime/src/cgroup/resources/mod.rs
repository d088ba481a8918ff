//! `linux.resources` in the words of the kernel: which file gets which value, in which order.
//! Pure; each function answers for one controller on v1 or v2 and for nothing when nothing is asked.
//!
//! <https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#control-groups>,
//! <https://docs.kernel.org/admin-guide/cgroup-v2.html>,
//! <https://docs.kernel.org/admin-guide/cgroup-v1/index.html>

use std::borrow::Cow;

use crate::config::{Cpu, Memory};
use crate::error::Problem;

/// One value for one file of a cgroup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Write {
    pub(super) file: Cow<'static, str>,
    pub(super) value: String,
    /// What a new cgroup has anyway: written only into one that was there before.
    pub(super) default: bool,
    /// Two files bound each other (limit and limit with swap, quota and period): which of them can
    /// go first depends on what they hold. `EINVAL` here means: the next one first, then this.
    pub(super) after_next: bool,
    /// That there is no such file says the same as the value (no swap on this host).
    pub(super) may_lack: bool,
}

impl Write {
    pub(super) fn new(file: impl Into<Cow<'static, str>>, value: impl ToString) -> Self {
        Write {
            file: file.into(),
            value: value.to_string(),
            default: false,
            after_next: false,
            may_lack: false,
        }
    }

    fn default_if(self, default: bool) -> Self {
        Write { default, ..self }
    }

    fn after_next(self) -> Self {
        Write { after_next: true, ..self }
    }

    fn may_lack_if(self, may_lack: bool) -> Self {
        Write { may_lack, ..self }
    }
}

/// What cannot be had, collected so that the user hears of all at once.
pub(super) type Problems = Vec<Problem>;

fn refuse(problems: &mut Problems, pointer: &str, what: impl Into<String>) {
    problems.push(Problem { pointer: format!("/linux/resources/{pointer}"), what: what.into() });
}

/// 0 and absent both mean "not set" (runc).
fn asked(value: Option<i64>) -> Option<i64> {
    value.filter(|&v| v != 0)
}

fn or_max(value: i64) -> String {
    if value < 0 { "max".into() } else { value.to_string() }
}

/// `useHierarchy` has nothing to do: below our floor of Linux 5.12 lies 5.11, since which every memory
/// cgroup counts what is below it (bef8620cd8e0), and runc does not look at it either.
pub(super) fn memory_v1(memory: &Memory, problems: &mut Problems) -> Vec<Write> {
    let mut writes = Vec::new();
    let (limit, swap) = (asked(memory.limit), asked(memory.swap));
    // No limit on memory alone takes the limit with swap away too: "no limit" would fail otherwise.
    let swap_too = limit == Some(-1) && swap.is_none();
    if let (Some(limit), Some(swap)) = (limit, swap)
        && swap != -1
        && (limit == -1 || swap < limit)
    {
        refuse(problems, "memory/swap", SWAP_BELOW_LIMIT);
    }
    if let Some(limit) = limit {
        writes.push(Write {
            after_next: swap.is_some() || swap_too,
            ..Write::new("memory.limit_in_bytes", limit).default_if(limit == -1)
        });
    }
    if let Some(swap) = swap.or(swap_too.then_some(-1)) {
        writes.push(
            Write::new("memory.memsw.limit_in_bytes", swap).default_if(swap == -1).may_lack_if(swap_too),
        );
    }
    if let Some(reservation) = asked(memory.reservation) {
        writes.push(Write::new("memory.soft_limit_in_bytes", reservation).default_if(reservation == -1));
    }
    match memory.disable_oom_killer {
        Some(true) => writes.push(Write::new("memory.oom_control", 1)),
        Some(false) => writes.push(Write::new("memory.oom_control", 0).default_if(true)),
        None => {}
    }
    match memory.swappiness {
        Some(swappiness @ 0..=100) => writes.push(Write::new("memory.swappiness", swappiness)),
        Some(other) => refuse(
            problems,
            "memory/swappiness",
            format!("invalid value: {other}. valid memory swappiness range is 0-100"),
        ),
        None => {}
    }
    writes
}

const SWAP_BELOW_LIMIT: &str = "memory+swap limit should be >= memory limit";

pub(super) fn memory_v2(memory: &Memory, problems: &mut Problems) -> Vec<Write> {
    let mut writes = Vec::new();
    let (limit, swap) = (asked(memory.limit), asked(memory.swap));
    if let Some(swap) = swap_v2(limit, swap, problems) {
        let plain = swap <= 0;
        // memory.swap.max is not there without swap, and then it is 0 and unlimited at once.
        writes.push(Write::new("memory.swap.max", or_max(swap)).default_if(swap < 0).may_lack_if(plain));
    }
    if let Some(limit) = limit {
        writes.push(Write::new("memory.max", or_max(limit)).default_if(limit < 0));
    }
    if let Some(reservation) = asked(memory.reservation) {
        // Best-effort protection is what comes nearest to a soft limit: runc and crun do the same.
        writes.push(Write::new("memory.low", or_max(reservation)));
    }
    if memory.swappiness.is_some() {
        refuse(problems, "memory/swappiness", "cgroup v2 has no swappiness for a cgroup");
    }
    if memory.disable_oom_killer == Some(true) {
        refuse(problems, "memory/disableOOMKiller", "the OOM killer cannot be disabled on cgroup v2");
    }
    writes
}

/// The specification's `swap` is memory and swap together, v2's is swap alone.
fn swap_v2(limit: Option<i64>, swap: Option<i64>, problems: &mut Problems) -> Option<i64> {
    match (limit, swap) {
        // No limit on memory takes the one on swap away too, as on v1.
        (Some(-1), None) | (_, Some(-1)) => Some(-1),
        (_, None) => None,
        (Some(-1), Some(swap)) => Some(swap),
        (None, Some(_)) => {
            refuse(problems, "memory/swap", "unable to set swap limit without memory limit");
            None
        }
        (Some(limit), Some(swap)) if swap < limit => {
            refuse(problems, "memory/swap", SWAP_BELOW_LIMIT);
            None
        }
        (Some(limit), Some(swap)) => Some(swap - limit),
    }
}

pub(super) fn cpu_v1(cpu: &Cpu, problems: &mut Problems) -> Vec<Write> {
    let mut writes = Vec::new();
    if let Some(shares) = cpu.shares.filter(|&s| s != 0) {
        // The kernel would cut these off without a word.
        match shares {
            0..2 => refuse(problems, "cpu/shares", "the minimum allowed cpu-shares is 2"),
            2..=MAX_SHARES => writes.push(Write::new("cpu.shares", shares).default_if(shares == 1024)),
            _ => refuse(problems, "cpu/shares", format!("the maximum allowed cpu-shares is {MAX_SHARES}")),
        }
    }
    let quota = asked(cpu.quota);
    if let Some(period) = cpu.period.filter(|&p| p != 0) {
        let write = Write::new("cpu.cfs_period_us", period).default_if(period == DEFAULT_PERIOD);
        writes.push(if quota.is_some() { write.after_next() } else { write });
    }
    if let Some(quota) = quota {
        writes.push(Write::new("cpu.cfs_quota_us", quota).default_if(quota == -1));
    }
    if let Some(burst) = cpu.burst {
        writes.push(Write::new("cpu.cfs_burst_us", burst).default_if(burst == 0).may_lack_if(burst == 0));
    }
    if let Some(period) = cpu.realtime_period.filter(|&p| p != 0) {
        writes.push(Write::new("cpu.rt_period_us", period));
    }
    if let Some(runtime) = asked(cpu.realtime_runtime) {
        writes.push(Write::new("cpu.rt_runtime_us", runtime));
    }
    if let Some(idle) = cpu.idle {
        writes.push(Write::new("cpu.idle", idle).default_if(idle == 0).may_lack_if(idle == 0));
    }
    writes
}

/// `MAX_SHARES` of `kernel/sched/sched.h`
const MAX_SHARES: u64 = 1 << 18;
const DEFAULT_PERIOD: u64 = 100_000;

pub(super) fn cpu_v2(cpu: &Cpu, problems: &mut Problems) -> Vec<Write> {
    let mut writes = Vec::new();
    if let Some(shares) = cpu.shares.filter(|&s| s != 0) {
        let weight = weight(shares);
        let write = Write::new("cpu.weight", weight).default_if(weight == 100);
        // An idle cgroup takes no weight: before it becomes one, or after it was one.
        writes.push(if cpu.idle.is_some() { write.after_next() } else { write });
    }
    if let Some(idle) = cpu.idle {
        writes.push(Write::new("cpu.idle", idle).default_if(idle == 0).may_lack_if(idle == 0));
    }
    let (quota, period) = (asked(cpu.quota), cpu.period.filter(|&p| p != 0));
    if quota.is_some() || period.is_some() {
        let (quota, period) = (quota.unwrap_or(-1), period.unwrap_or(DEFAULT_PERIOD));
        let write = Write::new("cpu.max", format!("{} {period}", or_max(quota)))
            .default_if(quota < 0 && period == DEFAULT_PERIOD);
        // A burst above the quota is refused, whichever of them comes last.
        writes.push(if cpu.burst.is_some() { write.after_next() } else { write });
    }
    if let Some(burst) = cpu.burst {
        writes.push(Write::new("cpu.max.burst", burst).default_if(burst == 0).may_lack_if(burst == 0));
    }
    if cpu.realtime_runtime.is_some_and(|r| r != 0) {
        refuse(problems, "cpu/realtimeRuntime", "cgroup v2 has no real-time limits");
    }
    if cpu.realtime_period.is_some_and(|p| p != 0) {
        refuse(problems, "cpu/realtimePeriod", "cgroup v2 has no real-time limits");
    }
    writes
}

/// Shares (2 to 262144, by default 1024) as weight (1 to 10000, by default 100): runc 1.4's curve
/// through these three points, which crun took too. The straight line of before made 39 of the
/// default. <https://github.com/opencontainers/runc/pull/4785>
pub(super) fn weight(shares: u64) -> u64 {
    match shares {
        0..=2 => 1,
        MAX_SHARES.. => 10_000,
        _ => {
            #[expect(clippy::cast_precision_loss, reason = "below 2^18")]
            let l = (shares as f64).log2();
            let exponent = (l * l + 125.0 * l) / 612.0 - 7.0 / 34.0;
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "1 to 10000")]
            let weight = 10f64.powf(exponent).ceil() as u64;
            weight
        }
    }
}

/// The same files on v1 and v2.
pub(super) fn cpuset(cpu: &Cpu) -> Vec<Write> {
    let set = |file: &'static str, list: &Option<String>| {
        list.as_ref().filter(|l| !l.is_empty()).map(|list| Write::new(file, list))
    };
    set("cpuset.cpus", &cpu.cpus).into_iter().chain(set("cpuset.mems", &cpu.mems)).collect()
}

/// The same file on v1 and v2.
pub(super) fn pids(limit: Option<i64>) -> Vec<Write> {
    let write = match limit {
        None => return Vec::new(),
        // 0 is a limit, not "none" (specification 1.3). The kernel would refuse the clone of init
        // itself with 0; with 1 it has the same effect for the container: no second task.
        Some(0) => Write::new("pids.max", 1),
        Some(limit) => Write::new("pids.max", or_max(limit)).default_if(limit < 0),
    };
    vec![write]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `file=value`, with `?` for "only if it was there before", `>` for "after the next if it must
    /// be", `~` for "may lack".
    fn show(writes: &[Write]) -> Vec<String> {
        let mark = |on: bool, mark: &'static str| if on { mark } else { "" };
        let show = |w: &Write| {
            let (d, a, l) = (mark(w.default, "?"), mark(w.after_next, ">"), mark(w.may_lack, "~"));
            format!("{}={}{d}{a}{l}", w.file, w.value)
        };
        writes.iter().map(show).collect()
    }

    /// What `plan` writes; panics on problems.
    fn ok(plan: impl FnOnce(&mut Problems) -> Vec<Write>) -> Vec<String> {
        let mut problems = Problems::new();
        let writes = plan(&mut problems);
        assert_eq!(problems, []);
        show(&writes)
    }

    fn refused(plan: impl FnOnce(&mut Problems) -> Vec<Write>) -> Vec<String> {
        let mut problems = Problems::new();
        plan(&mut problems);
        problems.iter().map(|p| format!("{}: {}", p.pointer, p.what)).collect()
    }

    fn memory(limit: i64, swap: i64) -> Memory {
        Memory { limit: Some(limit), swap: Some(swap), ..Memory::default() }
    }

    #[test]
    fn memory_and_swap() {
        for (limit, swap, v1, v2) in [
            (0, 0, &[][..], &[][..]),
            (100, 0, &["memory.limit_in_bytes=100"], &["memory.max=100"]),
            (
                100,
                300,
                &["memory.limit_in_bytes=100>", "memory.memsw.limit_in_bytes=300"],
                &["memory.swap.max=200", "memory.max=100"],
            ),
            (
                100,
                100,
                &["memory.limit_in_bytes=100>", "memory.memsw.limit_in_bytes=100"],
                &["memory.swap.max=0~", "memory.max=100"],
            ),
            (
                100,
                -1,
                &["memory.limit_in_bytes=100>", "memory.memsw.limit_in_bytes=-1?"],
                &["memory.swap.max=max?~", "memory.max=100"],
            ),
            (
                -1,
                0,
                &["memory.limit_in_bytes=-1?>", "memory.memsw.limit_in_bytes=-1?~"],
                &["memory.swap.max=max?~", "memory.max=max?"],
            ),
        ] {
            assert_eq!(ok(|p| memory_v1(&memory(limit, swap), p)), v1, "{limit} {swap}");
            assert_eq!(ok(|p| memory_v2(&memory(limit, swap), p)), v2, "{limit} {swap}");
        }
    }

    #[test]
    fn swap_that_cannot_be() {
        let below = ["/linux/resources/memory/swap: memory+swap limit should be >= memory limit"];
        assert_eq!(refused(|p| memory_v1(&memory(100, 99), p)), below);
        assert_eq!(refused(|p| memory_v2(&memory(100, 99), p)), below);
        let alone = ["/linux/resources/memory/swap: unable to set swap limit without memory limit"];
        assert_eq!(refused(|p| memory_v2(&memory(0, 99), p)), alone);
    }

    #[test]
    fn other_memory_settings() {
        let all = Memory {
            reservation: Some(7),
            swappiness: Some(60),
            disable_oom_killer: Some(true),
            ..Memory::default()
        };
        assert_eq!(
            ok(|p| memory_v1(&all, p)),
            ["memory.soft_limit_in_bytes=7", "memory.oom_control=1", "memory.swappiness=60"]
        );
        assert_eq!(refused(|p| memory_v2(&all, p)).len(), 2);
        let reservation = Memory { reservation: Some(7), ..Memory::default() };
        assert_eq!(ok(|p| memory_v2(&reservation, p)), ["memory.low=7"]);
        let wild = Memory { swappiness: Some(101), ..Memory::default() };
        assert_eq!(refused(|p| memory_v1(&wild, p)).len(), 1);
    }

    #[test]
    fn shares_become_weight_as_with_runc() {
        for (shares, expected) in [
            (0, 1),
            (1, 1),
            (2, 1),
            (3, 2),
            (512, 59),
            (1024, 100),
            (2048, 174),
            (262_143, 10_000),
            (262_144, 10_000),
            (u64::MAX, 10_000),
        ] {
            assert_eq!(weight(shares), expected, "{shares}");
        }
    }

    #[test]
    fn cpu_time() {
        let cpu = Cpu {
            shares: Some(512),
            quota: Some(50_000),
            period: Some(200_000),
            burst: Some(10_000),
            idle: Some(1),
            ..Cpu::default()
        };
        assert_eq!(
            ok(|p| cpu_v1(&cpu, p)),
            [
                "cpu.shares=512",
                "cpu.cfs_period_us=200000>",
                "cpu.cfs_quota_us=50000",
                "cpu.cfs_burst_us=10000",
                "cpu.idle=1"
            ]
        );
        assert_eq!(
            ok(|p| cpu_v2(&cpu, p)),
            ["cpu.weight=59>", "cpu.idle=1", "cpu.max=50000 200000>", "cpu.max.burst=10000"]
        );
        let quota = Cpu { quota: Some(50_000), ..Cpu::default() };
        assert_eq!(ok(|p| cpu_v2(&quota, p)), ["cpu.max=50000 100000"]);
        let none = Cpu { shares: Some(1024), quota: Some(-1), ..Cpu::default() };
        assert_eq!(ok(|p| cpu_v2(&none, p)), ["cpu.weight=100?", "cpu.max=max 100000?"]);
        assert_eq!(ok(|p| cpu_v1(&none, p)), ["cpu.shares=1024?", "cpu.cfs_quota_us=-1?"]);
        let zero = Cpu { shares: Some(0), quota: Some(0), period: Some(0), ..Cpu::default() };
        assert_eq!(ok(|p| cpu_v1(&zero, p)), [""; 0]);
        assert_eq!(ok(|p| cpu_v2(&zero, p)), [""; 0]);
    }

    #[test]
    fn shares_that_the_kernel_would_cut_off() {
        for (shares, what) in [
            (1, "the minimum allowed cpu-shares is 2"),
            (262_145, "the maximum allowed cpu-shares is 262144"),
        ] {
            let cpu = Cpu { shares: Some(shares), ..Cpu::default() };
            assert_eq!(refused(|p| cpu_v1(&cpu, p)), [format!("/linux/resources/cpu/shares: {what}")]);
        }
    }

    #[test]
    fn real_time_is_for_v1() {
        let cpu = Cpu { realtime_runtime: Some(900), realtime_period: Some(1000), ..Cpu::default() };
        assert_eq!(ok(|p| cpu_v1(&cpu, p)), ["cpu.rt_period_us=1000", "cpu.rt_runtime_us=900"]);
        assert_eq!(refused(|p| cpu_v2(&cpu, p)).len(), 2);
    }

    #[test]
    fn processors_and_tasks() {
        let cpu = Cpu { cpus: Some("0-1".into()), mems: Some("".into()), ..Cpu::default() };
        assert_eq!(show(&cpuset(&cpu)), ["cpuset.cpus=0-1"]);
        for (limit, expected) in [(-1, "max?"), (-7, "max?"), (0, "1"), (1, "1"), (64, "64")] {
            assert_eq!(show(&pids(Some(limit))), [format!("pids.max={expected}")]);
        }
        assert_eq!(pids(None), []);
    }
}
