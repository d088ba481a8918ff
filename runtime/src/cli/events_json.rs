//! The line of an event: runc's, field by field and in its order, as its readers have types for it.
//! What is 0 and absent in runc's is absent here.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};

use crate::cgroup::stats::{
    Counter, Cpu, Cpuset, Hugetlb, Io, IoDevice, IoEntry, Memory, Pids, Pressure, Stall, Stats,
};
use crate::config::id::ContainerId;
use crate::error::{Error, Result};
use crate::lifecycle::events::Event;

pub(super) fn line(id: &ContainerId, event: &Event) -> Result<String> {
    let (kind, data) = match event {
        Event::Oom => ("oom", None),
        Event::Stats(stats) => ("stats", Some(data(stats))),
    };
    let line = Line { kind, id: id.as_str(), data };
    serde_json::to_string(&line).map(|line| line + "\n").map_err(|e| Error::Protocol(e.to_string()))
}

#[derive(Serialize)]
struct Line<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Data<'a>>,
}

#[derive(Serialize)]
struct Data<'a> {
    cpu: CpuData<'a>,
    cpuset: CpusetData<'a>,
    memory: MemoryData<'a>,
    pids: PidsData,
    blkio: IoData<'a>,
    hugetlb: BTreeMap<&'a str, HugetlbData>,
    intel_rdt: Nothing,
    network_interfaces: (),
}

/// Of Intel RDT nothing is measured: `{}`.
#[derive(Serialize)]
struct Nothing {}

#[derive(Serialize)]
struct CpuData<'a> {
    usage: Usage<'a>,
    throttling: Throttling,
    #[serde(skip_serializing_if = "Option::is_none")]
    psi: Option<Psi>,
}

#[derive(Serialize)]
struct Usage<'a> {
    #[serde(skip_serializing_if = "is_zero")]
    total: u64,
    #[serde(skip_serializing_if = "<[u64]>::is_empty")]
    percpu: &'a [u64],
    #[serde(skip_serializing_if = "<[u64]>::is_empty")]
    percpu_kernel: &'a [u64],
    #[serde(skip_serializing_if = "<[u64]>::is_empty")]
    percpu_user: &'a [u64],
    kernel: u64,
    user: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Throttling {
    #[serde(skip_serializing_if = "is_zero")]
    periods: u64,
    #[serde(skip_serializing_if = "is_zero")]
    throttled_periods: u64,
    #[serde(skip_serializing_if = "is_zero")]
    throttled_time: u64,
}

#[derive(Serialize)]
struct Psi {
    some: PsiData,
    full: PsiData,
}

#[derive(Serialize)]
struct PsiData {
    #[serde(serialize_with = "as_go")]
    avg10: f64,
    #[serde(serialize_with = "as_go")]
    avg60: f64,
    #[serde(serialize_with = "as_go")]
    avg300: f64,
    total: u64,
}

/// Go writes a whole number without a point.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn as_go<S: Serializer>(value: &f64, serializer: S) -> std::result::Result<S::Ok, S::Error> {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole and a percentage")]
    if value.fract() == 0.0 && (0.0..1e6).contains(value) {
        serializer.serialize_u64(*value as u64)
    } else {
        serializer.serialize_f64(*value)
    }
}

#[derive(Serialize)]
struct CpusetData<'a> {
    #[serde(skip_serializing_if = "<[u16]>::is_empty")]
    cpus: &'a [u16],
    cpu_exclusive: u64,
    #[serde(skip_serializing_if = "<[u16]>::is_empty")]
    mems: &'a [u16],
    mem_hardwall: u64,
    mem_exclusive: u64,
    memory_migrate: u64,
    memory_spread_page: u64,
    memory_spread_slab: u64,
    memory_pressure: u64,
    sched_load_balance: u64,
    sched_relax_domain_level: i64,
}

#[derive(Serialize)]
struct MemoryData<'a> {
    #[serde(skip_serializing_if = "is_zero")]
    cache: u64,
    usage: Amount,
    swap: Amount,
    kernel: Amount,
    #[serde(rename = "kernelTCP")]
    kernel_tcp: Amount,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    raw: &'a BTreeMap<String, u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    psi: Option<Psi>,
}

#[derive(Serialize)]
struct Amount {
    limit: u64,
    #[serde(skip_serializing_if = "is_zero")]
    usage: u64,
    #[serde(skip_serializing_if = "is_zero")]
    max: u64,
    failcnt: u64,
}

#[derive(Serialize)]
struct PidsData {
    #[serde(skip_serializing_if = "is_zero")]
    current: u64,
    #[serde(skip_serializing_if = "is_zero")]
    limit: u64,
}

type Table<'a> = Vec<IoRow<'a>>;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct IoData<'a> {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    io_service_bytes_recursive: Table<'a>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    io_serviced_recursive: Table<'a>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    io_queue_recursive: Table<'a>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    io_service_time_recursive: Table<'a>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    io_wait_time_recursive: Table<'a>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    io_merged_recursive: Table<'a>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    io_time_recursive: Table<'a>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    sectors_recursive: Table<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    psi: Option<Psi>,
}

#[derive(Serialize)]
struct IoRow<'a> {
    #[serde(skip_serializing_if = "is_zero")]
    major: u64,
    #[serde(skip_serializing_if = "is_zero")]
    minor: u64,
    #[serde(skip_serializing_if = "str::is_empty")]
    op: &'a str,
    #[serde(skip_serializing_if = "is_zero")]
    value: u64,
}

#[derive(Serialize)]
struct HugetlbData {
    #[serde(skip_serializing_if = "is_zero")]
    usage: u64,
    #[serde(skip_serializing_if = "is_zero")]
    max: u64,
    failcnt: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(value: &u64) -> bool {
    *value == 0
}

fn data(stats: &Stats) -> Data<'_> {
    Data {
        cpu: cpu(&stats.cpu),
        cpuset: cpuset(&stats.cpuset),
        memory: memory(&stats.memory),
        pids: pids(stats.pids),
        blkio: io(&stats.io),
        hugetlb: stats.hugetlb.iter().map(|(size, pages)| (size.as_str(), hugetlb(pages))).collect(),
        intel_rdt: Nothing {},
        network_interfaces: (),
    }
}

fn cpu(cpu: &Cpu) -> CpuData<'_> {
    CpuData {
        usage: Usage {
            total: cpu.total,
            percpu: &cpu.per_cpu,
            percpu_kernel: &cpu.per_cpu_kernel,
            percpu_user: &cpu.per_cpu_user,
            kernel: cpu.kernel,
            user: cpu.user,
        },
        throttling: Throttling {
            periods: cpu.periods,
            throttled_periods: cpu.throttled_periods,
            throttled_time: cpu.throttled_time,
        },
        psi: cpu.pressure.map(psi),
    }
}

fn psi(pressure: Pressure) -> Psi {
    let data = |s: Stall| PsiData { avg10: s.avg10, avg60: s.avg60, avg300: s.avg300, total: s.total };
    Psi { some: data(pressure.some), full: data(pressure.full) }
}

fn cpuset(cpuset: &Cpuset) -> CpusetData<'_> {
    CpusetData {
        cpus: &cpuset.cpus,
        cpu_exclusive: cpuset.cpu_exclusive,
        mems: &cpuset.mems,
        mem_hardwall: cpuset.mem_hardwall,
        mem_exclusive: cpuset.mem_exclusive,
        memory_migrate: cpuset.memory_migrate,
        memory_spread_page: cpuset.memory_spread_page,
        memory_spread_slab: cpuset.memory_spread_slab,
        memory_pressure: cpuset.memory_pressure,
        sched_load_balance: cpuset.sched_load_balance,
        sched_relax_domain_level: cpuset.sched_relax_domain_level,
    }
}

fn memory(memory: &Memory) -> MemoryData<'_> {
    let stat = |name| memory.stat.get(name).copied();
    let swap = match (memory.memory_and_swap, memory.swap) {
        (Some(both), _) => both,
        // v2 counts swap alone; here it is memory and swap, as on v1. The peaks of two cannot be added.
        (None, swap) if !memory.stat.is_empty() && stat("cache").is_none() => {
            let swap = swap.unwrap_or_default();
            Counter {
                limit: swap.limit.saturating_add(memory.usage.limit),
                usage: swap.usage.saturating_add(memory.usage.usage),
                ..Counter::default()
            }
        }
        _ => Counter::default(),
    };
    MemoryData {
        // The page cache is `cache` on v1, `file` on v2.
        cache: stat("cache").or(stat("file")).unwrap_or_default(),
        usage: amount(memory.usage),
        swap: amount(swap),
        kernel: amount(memory.kernel),
        kernel_tcp: amount(memory.kernel_tcp),
        raw: &memory.stat,
        psi: memory.pressure.map(psi),
    }
}

fn amount(counter: Counter) -> Amount {
    Amount { limit: counter.limit, usage: counter.usage, max: counter.max_usage, failcnt: counter.failcnt }
}

fn pids(pids: Pids) -> PidsData {
    PidsData { current: pids.current, limit: pids.limit.unwrap_or_default() }
}

fn io(io: &Io) -> IoData<'_> {
    let tables = &io.tables;
    IoData {
        io_service_bytes_recursive: table(&tables.service_bytes, &io.devices, "rbytes", "wbytes"),
        io_serviced_recursive: table(&tables.serviced, &io.devices, "rios", "wios"),
        io_queue_recursive: rows(&tables.queued),
        io_service_time_recursive: rows(&tables.service_time),
        io_wait_time_recursive: rows(&tables.wait_time),
        io_merged_recursive: rows(&tables.merged),
        io_time_recursive: rows(&tables.time),
        sectors_recursive: rows(&tables.sectors),
        psi: io.pressure.map(psi),
    }
}

fn rows<'a>(entries: &'a [IoEntry]) -> Table<'a> {
    let row = |e: &'a IoEntry| IoRow { major: e.major, minor: e.minor, op: &e.op, value: e.value };
    entries.iter().map(row).collect()
}

/// v2's counters come in the tables of v1; there is a table for no others.
fn table<'a>(entries: &'a [IoEntry], devices: &[IoDevice], read: &str, write: &str) -> Table<'a> {
    let mut table = rows(entries);
    for &IoDevice { major, minor, ref counters } in devices {
        for (op, key) in [("Read", read), ("Write", write)] {
            table.extend(counters.get(key).map(|&value| IoRow { major, minor, op, value }));
        }
    }
    table
}

fn hugetlb(pages: &Hugetlb) -> HugetlbData {
    let Counter { usage, max_usage, failcnt, .. } = pages.pages;
    HugetlbData { usage, max: max_usage, failcnt }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(stats: Stats) -> String {
        line(&ContainerId::new("web").unwrap(), &Event::Stats(Box::new(stats))).unwrap()
    }

    #[test]
    fn an_oom_event_has_no_data() {
        let text = line(&ContainerId::new("web").unwrap(), &Event::Oom).unwrap();
        assert_eq!(text, "{\"type\":\"oom\",\"id\":\"web\"}\n");
    }

    #[test]
    fn what_is_nothing_is_as_with_runc() {
        assert_eq!(
            of(Stats::default()),
            "{\"type\":\"stats\",\"id\":\"web\",\"data\":{\
             \"cpu\":{\"usage\":{\"kernel\":0,\"user\":0},\"throttling\":{}},\
             \"cpuset\":{\"cpu_exclusive\":0,\"mem_hardwall\":0,\"mem_exclusive\":0,\"memory_migrate\":0,\
             \"memory_spread_page\":0,\"memory_spread_slab\":0,\"memory_pressure\":0,\
             \"sched_load_balance\":0,\"sched_relax_domain_level\":0},\
             \"memory\":{\"usage\":{\"limit\":0,\"failcnt\":0},\"swap\":{\"limit\":0,\"failcnt\":0},\
             \"kernel\":{\"limit\":0,\"failcnt\":0},\"kernelTCP\":{\"limit\":0,\"failcnt\":0}},\
             \"pids\":{},\"blkio\":{},\"hugetlb\":{},\"intel_rdt\":{},\"network_interfaces\":null}}\n"
        );
    }

    #[test]
    fn swap_of_v2_is_shown_as_that_of_v1() {
        let usage = Counter { limit: u64::MAX, usage: 100, max_usage: 200, failcnt: 0 };
        let stat = BTreeMap::from([("file".to_owned(), 7)]);
        for (swap, expected) in [
            (None, r#""swap":{"limit":18446744073709551615,"usage":100,"failcnt":0}"#),
            (
                Some(Counter { limit: 50, usage: 5, max_usage: 9, failcnt: 0 }),
                r#""swap":{"limit":18446744073709551615,"usage":105,"failcnt":0}"#,
            ),
        ] {
            let text = of(Stats {
                memory: Memory { usage, swap, stat: stat.clone(), ..Memory::default() },
                ..Stats::default()
            });
            assert!(text.contains(expected), "{text}");
            assert!(text.contains(r#""memory":{"cache":7,"usage":{"limit":18446744073709551615,"usage":100,"max":200,"failcnt":0}"#), "{text}");
        }
    }

    #[test]
    fn devices_of_v2_come_in_the_tables_of_v1() {
        let counters = [("rbytes", 1), ("wbytes", 2), ("rios", 3), ("dios", 5)];
        let counters = counters.map(|(name, value)| (name.to_owned(), value)).into();
        let devices = vec![IoDevice { major: 8, minor: 0, counters }];
        let text = of(Stats { io: Io { devices, ..Io::default() }, ..Stats::default() });
        assert!(
            text.contains(
                r#""blkio":{"ioServiceBytesRecursive":[{"major":8,"op":"Read","value":1},{"major":8,"op":"Write","value":2}],"ioServicedRecursive":[{"major":8,"op":"Read","value":3}]}"#
            ),
            "{text}"
        );
    }

    #[test]
    fn pressure_has_numbers_as_go_writes_them() {
        let some = Stall { avg10: 0.25, avg60: 3.0, avg300: 0.0, total: 7 };
        let pressure = Some(Pressure { some, full: Stall::default() });
        let text = of(Stats { cpu: Cpu { pressure, ..Cpu::default() }, ..Stats::default() });
        assert!(
            text.contains(
                r#""psi":{"some":{"avg10":0.25,"avg60":3,"avg300":0,"total":7},"full":{"avg10":0,"avg60":0,"avg300":0,"total":0}}"#
            ),
            "{text}"
        );
    }
}
