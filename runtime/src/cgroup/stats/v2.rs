//! Which file of a v2 cgroup says what.
//! <https://docs.kernel.org/admin-guide/cgroup-v2.html>

use super::{Counter, Files, Hugetlb, Stats, page_sizes, parse, pids, rdma};
use crate::error::Result;

/// What the controllers count that are `ours`; the others are in hierarchies of v1.
pub(super) fn read(files: &impl Files, ours: impl Fn(&str) -> bool, stats: &mut Stats) -> Result<()> {
    if ours("cpu") && ours("cpuacct") {
        cpu(files, stats)?;
    }
    if ours("memory") {
        memory(files, stats)?;
    }
    if ours("pids") {
        stats.pids = pids(files)?;
    }
    if ours("blkio") {
        stats.io.devices = files.read("io.stat", parse::io_stat)?.unwrap_or_default();
        stats.io.pressure = files.read("io.pressure", parse::pressure)?;
    }
    if ours("hugetlb") {
        hugetlb(files, stats)?;
    }
    if ours("rdma") {
        stats.rdma = rdma(files)?;
    }
    Ok(())
}

fn cpu(files: &impl Files, stats: &mut Stats) -> Result<()> {
    let cpu = &mut stats.cpu;
    // There without the controller too, then with the times alone.
    if let Some(stat) = files.read("cpu.stat", parse::flat)? {
        let value = |name: &str| stat.get(name).copied().unwrap_or_default();
        let time = |name: &str| value(name).saturating_mul(1000);
        cpu.total = time("usage_usec");
        cpu.user = time("user_usec");
        cpu.kernel = time("system_usec");
        cpu.periods = value("nr_periods");
        cpu.throttled_periods = value("nr_throttled");
        cpu.throttled_time = time("throttled_usec");
        cpu.bursts = value("nr_bursts");
        cpu.burst_time = time("burst_usec");
    }
    cpu.pressure = files.read("cpu.pressure", parse::pressure)?;
    Ok(())
}

fn memory(files: &impl Files, stats: &mut Stats) -> Result<()> {
    let memory = &mut stats.memory;
    memory.pressure = files.read("memory.pressure", parse::pressure)?;
    let Some(stat) = files.read("memory.stat", parse::flat)? else { return Ok(()) };
    memory.stat = stat;
    memory.usage = counter(files, "memory")?.unwrap_or_default();
    memory.swap = counter(files, "memory.swap")?;
    memory.events = files.read("memory.events", parse::flat)?.unwrap_or_default();
    Ok(())
}

/// `None` when the kernel counts no such thing.
fn counter(files: &impl Files, prefix: &str) -> Result<Option<Counter>> {
    let Some(usage) = files.read(&format!("{prefix}.current"), parse::number)? else { return Ok(None) };
    Ok(Some(Counter {
        usage,
        limit: files.number(&format!("{prefix}.max"))?,
        // Memory since Linux 5.19, swap since 6.5.
        max_usage: files.number(&format!("{prefix}.peak"))?,
        failcnt: 0,
    }))
}

fn hugetlb(files: &impl Files, stats: &mut Stats) -> Result<()> {
    for size in page_sizes(files)? {
        let mut pages = counter(files, &format!("hugetlb.{size}"))?.unwrap_or_default();
        let events = files.read(&format!("hugetlb.{size}.events"), parse::flat)?.unwrap_or_default();
        pages.failcnt = events.get("max").copied().unwrap_or_default();
        let reserved = counter(files, &format!("hugetlb.{size}.rsvd"))?;
        stats.hugetlb.insert(size, Hugetlb { pages, reserved });
    }
    Ok(())
}
