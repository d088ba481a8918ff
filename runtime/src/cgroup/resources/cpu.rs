//! Time on the processors.
//! <https://docs.kernel.org/scheduler/sched-bwc.html>,
//! <https://docs.kernel.org/scheduler/sched-rt-group.html>

use super::{Problems, Write, asked, or_max, refuse};
use crate::config::Cpu;

pub(in super::super) fn cpu_v1(cpu: &Cpu, problems: &mut Problems) -> Vec<Write> {
    let mut writes = Vec::new();
    if let Some(shares) = cpu.shares.filter(|&s| s != 0) {
        // The kernel would cut these off without a word.
        match shares {
            0..2 => refuse(problems, "cpu/shares", "the minimum allowed cpu-shares is 2"),
            2..=MAX_SHARES => {
                let write = Write::new("cpu.shares", shares).default_if(shares == 1024);
                // An idle cgroup takes no shares: before it becomes one, or after it was one.
                writes.push(if cpu.idle.is_some() { write.after_next() } else { write });
            }
            _ => refuse(problems, "cpu/shares", format!("the maximum allowed cpu-shares is {MAX_SHARES}")),
        }
    }
    if let Some(idle) = cpu.idle {
        writes.push(Write::new("cpu.idle", idle).default_if(idle == 0).may_lack_if(idle == 0));
    }
    let quota = asked(cpu.quota);
    if let Some(period) = cpu.period.filter(|&p| p != 0) {
        let write = Write::new("cpu.cfs_period_us", period).default_if(period == DEFAULT_PERIOD);
        writes.push(if quota.is_some() { write.after_next() } else { write });
    }
    if let Some(quota) = quota {
        let write = Write::new("cpu.cfs_quota_us", quota).default_if(quota == -1);
        // A burst above the quota is refused, whichever of them comes last.
        writes.push(if cpu.burst.is_some() { write.after_next() } else { write });
    }
    if let Some(burst) = cpu.burst {
        writes.push(Write::new("cpu.cfs_burst_us", burst).default_if(burst == 0).may_lack_if(burst == 0));
    }
    let runtime = asked(cpu.realtime_runtime);
    if let Some(period) = cpu.realtime_period.filter(|&p| p != 0) {
        let write = Write::new("cpu.rt_period_us", period);
        // No more time than the period has: a shorter one may have to wait for the shorter time.
        writes.push(if runtime.is_some() { write.after_next() } else { write });
    }
    if let Some(runtime) = runtime {
        writes.push(Write::new("cpu.rt_runtime_us", runtime));
    }
    writes
}

/// `MAX_SHARES` of `kernel/sched/sched.h`
const MAX_SHARES: u64 = 1 << 18;
const DEFAULT_PERIOD: u64 = 100_000;

pub(in super::super) fn cpu_v2(cpu: &Cpu, problems: &mut Problems) -> Vec<Write> {
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
        // As on v1.
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
pub(in super::super) fn weight(shares: u64) -> u64 {
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

#[cfg(test)]
mod tests {
    use super::super::tests::{ok, refused};
    use super::*;

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
                "cpu.shares=512>",
                "cpu.idle=1",
                "cpu.cfs_period_us=200000>",
                "cpu.cfs_quota_us=50000>",
                "cpu.cfs_burst_us=10000",
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
        assert_eq!(ok(|p| cpu_v1(&cpu, p)), ["cpu.rt_period_us=1000>", "cpu.rt_runtime_us=900"]);
        assert_eq!(refused(|p| cpu_v2(&cpu, p)).len(), 2);
    }
}
