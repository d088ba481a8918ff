//! Which file of a v1 hierarchy says what.
//! <https://docs.kernel.org/admin-guide/cgroup-v1/index.html>

use super::{Counter, Cpuset, Files, Hugetlb, IoEntry, IoTables, Stats, page_sizes, parse, pids, rdma};
use crate::error::Result;

/// What one controller counts; those that count nothing are passed over.
pub(super) fn read(files: &impl Files, controller: &str, stats: &mut Stats) -> Result<()> {
    match controller {
        "cpu" => cpu(files, stats)?,
        "cpuacct" => cpuacct(files, stats)?,
        "cpuset" => stats.cpuset = cpuset(files)?,
        "memory" => memory(files, stats)?,
        "pids" => stats.pids = pids(files)?,
        "blkio" => stats.io.tables = io_tables(files)?,
        "hugetlb" => hugetlb(files, stats)?,
        "rdma" => stats.rdma = rdma(files)?,
        _ => {}
    }
    Ok(())
}

fn cpu(files: &impl Files, stats: &mut Stats) -> Result<()> {
    let Some(stat) = files.read("cpu.stat", parse::flat)? else { return Ok(()) };
    let value = |name: &str| stat.get(name).copied().unwrap_or_default();
    stats.cpu.periods = value("nr_periods");
    stats.cpu.throttled_periods = value("nr_throttled");
    stats.cpu.throttled_time = value("throttled_time");
    stats.cpu.bursts = value("nr_bursts");
    stats.cpu.burst_time = value("burst_time");
    Ok(())
}

/// A hundredth of a second: `USER_HZ` is 100 for every process (`linux/param.h`).
const TICK: u64 = 10_000_000;

fn cpuacct(files: &impl Files, stats: &mut Stats) -> Result<()> {
    let cpu = &mut stats.cpu;
    if let Some(stat) = files.read("cpuacct.stat", parse::flat)? {
        let value = |name: &str| stat.get(name).copied().unwrap_or_default().saturating_mul(TICK);
        (cpu.user, cpu.kernel) = (value("user"), value("system"));
    }
    cpu.total = files.number("cpuacct.usage")?;
    cpu.per_cpu = files.read("cpuacct.usage_percpu", parse::numbers)?.unwrap_or_default();
    // Linux 4.7.
    (cpu.per_cpu_user, cpu.per_cpu_kernel) =
        files.read("cpuacct.usage_all", parse::usage_all)?.unwrap_or_default();
    Ok(())
}

fn cpuset(files: &impl Files) -> Result<Cpuset> {
    Ok(Cpuset {
        cpus: files.read("cpuset.cpus", parse::list)?.unwrap_or_default(),
        mems: files.read("cpuset.mems", parse::list)?.unwrap_or_default(),
        cpu_exclusive: files.number("cpuset.cpu_exclusive")?,
        mem_exclusive: files.number("cpuset.mem_exclusive")?,
        mem_hardwall: files.number("cpuset.mem_hardwall")?,
        memory_migrate: files.number("cpuset.memory_migrate")?,
        memory_pressure: files.number("cpuset.memory_pressure")?,
        memory_spread_page: files.number("cpuset.memory_spread_page")?,
        memory_spread_slab: files.number("cpuset.memory_spread_slab")?,
        sched_load_balance: files.number("cpuset.sched_load_balance")?,
        sched_relax_domain_level: files
            .read("cpuset.sched_relax_domain_level", |text| text.trim().parse().ok())?
            .unwrap_or_default(),
    })
}

fn memory(files: &impl Files, stats: &mut Stats) -> Result<()> {
    let Some(stat) = files.read("memory.stat", parse::flat)? else { return Ok(()) };
    let memory = &mut stats.memory;
    memory.stat = stat;
    memory.usage = counter(files, "memory")?.unwrap_or_default();
    memory.memory_and_swap = counter(files, "memory.memsw")?;
    memory.kernel = counter(files, "memory.kmem")?.unwrap_or_default();
    memory.kernel_tcp = counter(files, "memory.kmem.tcp")?.unwrap_or_default();
    memory.events = files.read("memory.oom_control", parse::flat)?.unwrap_or_default();
    Ok(())
}

/// `None` when the kernel counts no such thing.
fn counter(files: &impl Files, prefix: &str) -> Result<Option<Counter>> {
    let Some(usage) = files.read(&format!("{prefix}.usage_in_bytes"), parse::number)? else {
        return Ok(None);
    };
    Ok(Some(Counter {
        usage,
        limit: files.number(&format!("{prefix}.limit_in_bytes"))?,
        max_usage: files.number(&format!("{prefix}.max_usage_in_bytes"))?,
        failcnt: files.number(&format!("{prefix}.failcnt"))?,
    }))
}

fn hugetlb(files: &impl Files, stats: &mut Stats) -> Result<()> {
    for size in page_sizes(files)? {
        let pages = counter(files, &format!("hugetlb.{size}"))?.unwrap_or_default();
        let reserved = counter(files, &format!("hugetlb.{size}.rsvd"))?;
        stats.hugetlb.insert(size, Hugetlb { pages, reserved });
    }
    Ok(())
}

/// Where a table of [`IoTables`] is.
type Table = (&'static str, fn(&mut IoTables) -> &mut Vec<IoEntry>);

const SERVICED: fn(&mut IoTables) -> &mut Vec<IoEntry> = |t| &mut t.serviced;
const SERVICE_BYTES: fn(&mut IoTables) -> &mut Vec<IoEntry> = |t| &mut t.service_bytes;

/// Each scheduler counts in files of its own (CFQ's are gone since Linux 5.0). The first of these
/// families whose first table has entries is that of the devices here: runc's order.
const FAMILIES: &[&[Table]] = &[
    // BFQ, with CONFIG_BFQ_CGROUP_DEBUG.
    &[
        ("blkio.bfq.sectors_recursive", |t| &mut t.sectors),
        ("blkio.bfq.io_service_time_recursive", |t| &mut t.service_time),
        ("blkio.bfq.io_wait_time_recursive", |t| &mut t.wait_time),
        ("blkio.bfq.io_merged_recursive", |t| &mut t.merged),
        ("blkio.bfq.io_queued_recursive", |t| &mut t.queued),
        ("blkio.bfq.time_recursive", |t| &mut t.time),
        ("blkio.bfq.io_serviced_recursive", SERVICED),
        ("blkio.bfq.io_service_bytes_recursive", SERVICE_BYTES),
    ],
    &[("blkio.bfq.io_serviced_recursive", SERVICED), ("blkio.bfq.io_service_bytes_recursive", SERVICE_BYTES)],
    &[
        ("blkio.throttle.io_serviced_recursive", SERVICED),
        ("blkio.throttle.io_service_bytes_recursive", SERVICE_BYTES),
    ],
];

fn io_tables(files: &impl Files) -> Result<IoTables> {
    let mut tables = IoTables::default();
    for family in FAMILIES {
        for (file, table) in *family {
            let entries = files.read(file, parse::io_table)?.unwrap_or_default();
            if entries.is_empty() {
                break;
            }
            *table(&mut tables) = entries;
        }
        if tables != IoTables::default() {
            break;
        }
    }
    Ok(tables)
}
