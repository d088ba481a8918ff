//! What a container uses, in containerd's messages: each field from where the stock shim has it
//! (github.com/containerd/cgroups, `cgroup1` and `cgroup2`).

mod blkio;

use std::collections::BTreeMap;
use std::path::Path;

use tare::cgroup::stats::{Counter, Pressure, RdmaDevice, Stall};
use tare::cgroup::{Paths, Place, Stats};

use self::blkio::Devices;
use crate::error::{Error, Result};
use crate::wire::messages::{Any, cgroup1, cgroup2};
use crate::wire::{self, MessageField};

pub fn metrics(stats: &Stats, paths: &Paths) -> Result<Any> {
    let packed = if paths.v1.is_empty() {
        wire::pack(&v2(stats, &huge_page_sizes()?))
    } else {
        let folder = |controller: &str| folder_of(paths, controller);
        let blkio = folder("blkio").map(|folder| blkio::read(folder, &block_devices()?)).transpose()?;
        wire::pack(&v1(stats, |controller| folder(controller).is_some(), blkio))
    };
    packed.map_err(|torn| Error::Unknown(torn.to_string()))
}

/// In the hierarchy of v1 that has the controller.
fn folder_of<'a>(paths: &'a Paths, controller: &str) -> Option<&'a Path> {
    let has = |place: &&Place| place.controllers.iter().any(|name| name == controller);
    paths.v1.iter().find(has).map(|place| &*place.folder)
}

fn block_devices() -> Result<Devices> {
    let table = Path::new("/proc/partitions");
    let text = std::fs::read_to_string(table).map_err(|error| Error::io("read", table, &error))?;
    Ok(blkio::devices(&text))
}

/// That the host has: the stock shim tells of each, whether or not a controller counts them.
fn huge_page_sizes() -> Result<Vec<String>> {
    let folder = Path::new("/sys/kernel/mm/hugepages");
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        // A kernel without huge pages.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io("list", folder, &error)),
    };
    let mut sizes = Vec::new();
    for entry in entries {
        let name = entry.map_err(|error| Error::io("list", folder, &error))?.file_name();
        sizes.extend(name.to_str().and_then(page_size));
    }
    Ok(sizes)
}

/// `hugepages-2048kB` is `2MB`.
fn page_size(name: &str) -> Option<String> {
    let size: u64 = name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
    Some(match size {
        size if size >= 1 << 20 => format!("{}GB", size >> 20),
        size if size >= 1 << 10 => format!("{}MB", size >> 10),
        size => format!("{size}KB"),
    })
}

/// A controller that the container has no cgroup of has no message.
fn v1(stats: &Stats, has: impl Fn(&str) -> bool, blkio: Option<cgroup1::BlkIOStat>) -> cgroup1::Metrics {
    fn when<T>(has: bool, message: T) -> MessageField<T> {
        MessageField::from_option(has.then_some(message))
    }
    // A hybrid host may count them on v2, of which these metrics do not speak.
    let hugetlb = stats.hugetlb.iter().filter(|_| has("hugetlb")).map(|(size, huge)| cgroup1::HugetlbStat {
        usage: huge.pages.usage,
        max: huge.pages.max_usage,
        failcnt: huge.pages.failcnt,
        pagesize: size.clone(),
        ..Default::default()
    });
    cgroup1::Metrics {
        hugetlb: hugetlb.collect(),
        pids: when(
            has("pids"),
            cgroup1::PidsStat {
                current: stats.pids.current,
                // No limit is 0 here, and the greatest number on v2.
                limit: stats.pids.limit.unwrap_or_default(),
                ..Default::default()
            },
        ),
        cpu: MessageField::some(cgroup1::CPUStat {
            usage: MessageField::some(cgroup1::CPUUsage {
                total: stats.cpu.total,
                kernel: stats.cpu.kernel,
                user: stats.cpu.user,
                per_cpu: stats.cpu.per_cpu.clone(),
                ..Default::default()
            }),
            throttling: MessageField::some(cgroup1::Throttle {
                periods: stats.cpu.periods,
                throttled_periods: stats.cpu.throttled_periods,
                throttled_time: stats.cpu.throttled_time,
                ..Default::default()
            }),
            ..Default::default()
        }),
        memory: when(has("memory"), memory_v1(stats)),
        blkio: MessageField::from_option(blkio),
        // A device that came or went in between is in one of the two alone.
        rdma: when(
            has("rdma") && stats.rdma.current.len() == stats.rdma.limit.len(),
            cgroup1::RdmaStat {
                current: stats.rdma.current.iter().map(rdma_v1).collect(),
                limit: stats.rdma.limit.iter().map(rdma_v1).collect(),
                ..Default::default()
            },
        ),
        memory_oom_control: when(
            has("memory"),
            cgroup1::MemoryOomControl {
                oom_kill_disable: number(&stats.memory.events, "oom_kill_disable"),
                under_oom: number(&stats.memory.events, "under_oom"),
                oom_kill: number(&stats.memory.events, "oom_kill"),
                ..Default::default()
            },
        ),
        ..Default::default()
    }
}

fn number(table: &BTreeMap<String, u64>, name: &str) -> u64 {
    table.get(name).copied().unwrap_or_default()
}

fn memory_v1(stats: &Stats) -> cgroup1::MemoryStat {
    let entry = |counter: Counter| {
        MessageField::some(cgroup1::MemoryEntry {
            limit: counter.limit,
            usage: counter.usage,
            max: counter.max_usage,
            failcnt: counter.failcnt,
            ..Default::default()
        })
    };
    let memory = &stats.memory;
    let stat = |name: &str| number(&memory.stat, name);
    // The stock shim ends at the first file that is absent, and reads that of swap before these two.
    let of_kernel = |counter| if memory.memory_and_swap.is_some() { counter } else { Counter::default() };
    cgroup1::MemoryStat {
        cache: stat("cache"),
        rss: stat("rss"),
        rss_huge: stat("rss_huge"),
        mapped_file: stat("mapped_file"),
        dirty: stat("dirty"),
        writeback: stat("writeback"),
        pg_pg_in: stat("pgpgin"),
        pg_pg_out: stat("pgpgout"),
        pg_fault: stat("pgfault"),
        pg_maj_fault: stat("pgmajfault"),
        inactive_anon: stat("inactive_anon"),
        active_anon: stat("active_anon"),
        inactive_file: stat("inactive_file"),
        active_file: stat("active_file"),
        unevictable: stat("unevictable"),
        hierarchical_memory_limit: stat("hierarchical_memory_limit"),
        hierarchical_swap_limit: stat("hierarchical_memsw_limit"),
        total_cache: stat("total_cache"),
        total_rss: stat("total_rss"),
        total_rss_huge: stat("total_rss_huge"),
        total_mapped_file: stat("total_mapped_file"),
        total_dirty: stat("total_dirty"),
        total_writeback: stat("total_writeback"),
        total_pg_pg_in: stat("total_pgpgin"),
        total_pg_pg_out: stat("total_pgpgout"),
        total_pg_fault: stat("total_pgfault"),
        total_pg_maj_fault: stat("total_pgmajfault"),
        total_inactive_anon: stat("total_inactive_anon"),
        total_active_anon: stat("total_active_anon"),
        total_inactive_file: stat("total_inactive_file"),
        total_active_file: stat("total_active_file"),
        total_unevictable: stat("total_unevictable"),
        usage: entry(memory.usage),
        swap: entry(memory.memory_and_swap.unwrap_or_default()),
        kernel: entry(of_kernel(memory.kernel)),
        kernel_tcp: entry(of_kernel(memory.kernel_tcp)),
        ..Default::default()
    }
}

fn rdma_v1(device: &RdmaDevice) -> cgroup1::RdmaEntry {
    cgroup1::RdmaEntry {
        device: device.device.clone(),
        hca_handles: device.hca_handles,
        hca_objects: device.hca_objects,
        ..Default::default()
    }
}

fn v2(stats: &Stats, huge_page_sizes: &[String]) -> cgroup2::Metrics {
    let hugetlb = huge_page_sizes.iter().map(|size| {
        let pages = stats.hugetlb.get(size).map(|huge| huge.pages).unwrap_or_default();
        cgroup2::HugeTlbStat {
            current: pages.usage,
            max: pages.limit,
            pagesize: size.clone(),
            failcnt: pages.failcnt,
            ..Default::default()
        }
    });
    let devices = stats.io.devices.iter().map(|device| cgroup2::IOEntry {
        major: device.major,
        minor: device.minor,
        rbytes: number(&device.counters, "rbytes"),
        wbytes: number(&device.counters, "wbytes"),
        rios: number(&device.counters, "rios"),
        wios: number(&device.counters, "wios"),
        ..Default::default()
    });
    let events = &stats.memory.events;
    let memory_events = cgroup2::MemoryEvents {
        low: number(events, "low"),
        high: number(events, "high"),
        max: number(events, "max"),
        oom: number(events, "oom"),
        oom_kill: number(events, "oom_kill"),
        oom_group_kill: number(events, "oom_group_kill"),
        ..Default::default()
    };
    cgroup2::Metrics {
        pids: MessageField::some(cgroup2::PidsStat {
            current: stats.pids.current,
            limit: stats.pids.limit.unwrap_or(u64::MAX),
            ..Default::default()
        }),
        cpu: MessageField::some(cgroup2::CPUStat {
            usage_usec: stats.cpu.total / 1000,
            user_usec: stats.cpu.user / 1000,
            system_usec: stats.cpu.kernel / 1000,
            nr_periods: stats.cpu.periods,
            nr_throttled: stats.cpu.throttled_periods,
            throttled_usec: stats.cpu.throttled_time / 1000,
            psi: pressure(stats.cpu.pressure),
            nr_bursts: stats.cpu.bursts,
            burst_usec: stats.cpu.burst_time / 1000,
            ..Default::default()
        }),
        memory: MessageField::some(memory_v2(stats)),
        rdma: MessageField::some(cgroup2::RdmaStat {
            current: stats.rdma.current.iter().map(rdma_v2).collect(),
            limit: stats.rdma.limit.iter().map(rdma_v2).collect(),
            ..Default::default()
        }),
        io: MessageField::some(cgroup2::IOStat {
            usage: devices.collect(),
            psi: pressure(stats.io.pressure),
            ..Default::default()
        }),
        hugetlb: hugetlb.collect(),
        memory_events: MessageField::from_option((!events.is_empty()).then_some(memory_events)),
        ..Default::default()
    }
}

fn memory_v2(stats: &Stats) -> cgroup2::MemoryStat {
    let memory = &stats.memory;
    let swap = memory.swap.unwrap_or_default();
    let stat = |name: &str| number(&memory.stat, name);
    cgroup2::MemoryStat {
        anon: stat("anon"),
        file: stat("file"),
        kernel_stack: stat("kernel_stack"),
        slab: stat("slab"),
        sock: stat("sock"),
        shmem: stat("shmem"),
        file_mapped: stat("file_mapped"),
        file_dirty: stat("file_dirty"),
        file_writeback: stat("file_writeback"),
        anon_thp: stat("anon_thp"),
        inactive_anon: stat("inactive_anon"),
        active_anon: stat("active_anon"),
        inactive_file: stat("inactive_file"),
        active_file: stat("active_file"),
        unevictable: stat("unevictable"),
        slab_reclaimable: stat("slab_reclaimable"),
        slab_unreclaimable: stat("slab_unreclaimable"),
        pgfault: stat("pgfault"),
        pgmajfault: stat("pgmajfault"),
        workingset_refault: stat("workingset_refault"),
        workingset_activate: stat("workingset_activate"),
        workingset_nodereclaim: stat("workingset_nodereclaim"),
        pgrefill: stat("pgrefill"),
        pgscan: stat("pgscan"),
        pgsteal: stat("pgsteal"),
        pgactivate: stat("pgactivate"),
        pgdeactivate: stat("pgdeactivate"),
        pglazyfree: stat("pglazyfree"),
        pglazyfreed: stat("pglazyfreed"),
        thp_fault_alloc: stat("thp_fault_alloc"),
        thp_collapse_alloc: stat("thp_collapse_alloc"),
        usage: memory.usage.usage,
        usage_limit: memory.usage.limit,
        swap_usage: swap.usage,
        swap_limit: swap.limit,
        max_usage: memory.usage.max_usage,
        swap_max_usage: swap.max_usage,
        psi: pressure(memory.pressure),
        ..Default::default()
    }
}

fn rdma_v2(device: &RdmaDevice) -> cgroup2::RdmaEntry {
    cgroup2::RdmaEntry {
        device: device.device.clone(),
        hca_handles: device.hca_handles,
        hca_objects: device.hca_objects,
        ..Default::default()
    }
}

fn pressure(pressure: Option<Pressure>) -> MessageField<cgroup2::PSIStats> {
    let data = |stall: Stall| {
        MessageField::some(cgroup2::PSIData {
            avg10: stall.avg10,
            avg60: stall.avg60,
            avg300: stall.avg300,
            total: stall.total,
            ..Default::default()
        })
    };
    MessageField::from_option(pressure.map(|pressure| cgroup2::PSIStats {
        some: data(pressure.some),
        full: data(pressure.full),
        ..Default::default()
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tare::cgroup::stats::{Hugetlb, IoDevice};

    /// The names of a table, each with a number of its own.
    fn numbered(names: &str) -> BTreeMap<String, u64> {
        names.split_whitespace().zip(1..).map(|(name, number)| (name.to_owned(), number)).collect()
    }

    fn counter(first: u64) -> Counter {
        Counter { limit: first, usage: first + 1, max_usage: first + 2, failcnt: first + 3 }
    }

    fn stall(first: u64) -> Stall {
        let avg = first as f64;
        Stall { avg10: avg, avg60: avg + 1.0, avg300: avg + 2.0, total: first + 3 }
    }

    fn stats() -> Stats {
        let mut stats = Stats::default();
        stats.cpu.total = 11_999;
        stats.cpu.kernel = 12_000;
        stats.cpu.user = 13_000;
        stats.cpu.per_cpu = vec![5, 6];
        (stats.cpu.periods, stats.cpu.throttled_periods, stats.cpu.throttled_time) = (14, 15, 16_000);
        (stats.cpu.bursts, stats.cpu.burst_time) = (17, 18_000);
        stats.memory.usage = counter(100);
        stats.pids.current = 3;
        stats.hugetlb.insert("2MB".into(), Hugetlb { pages: counter(200), reserved: None });
        stats.rdma.current = vec![RdmaDevice { device: "mlx".into(), hca_handles: 1, hca_objects: 2 }];
        stats.rdma.limit = vec![RdmaDevice { device: "mlx".into(), hca_handles: u32::MAX, hca_objects: 4 }];
        stats
    }

    #[test]
    fn the_numbers_of_v1_are_where_the_stock_shim_has_them() {
        let mut stats = stats();
        stats.memory.memory_and_swap = Some(counter(110));
        (stats.memory.kernel, stats.memory.kernel_tcp) = (counter(120), counter(130));
        stats.memory.stat = numbered(
            "cache rss rss_huge mapped_file dirty writeback pgpgin pgpgout pgfault pgmajfault
             inactive_anon active_anon inactive_file active_file unevictable
             hierarchical_memory_limit hierarchical_memsw_limit total_cache total_rss total_rss_huge
             total_mapped_file total_dirty total_writeback total_pgpgin total_pgpgout total_pgfault
             total_pgmajfault total_inactive_anon total_active_anon total_inactive_file
             total_active_file total_unevictable",
        );
        stats.memory.events = numbered("oom_kill_disable under_oom oom_kill");
        let metrics = v1(&stats, |_| true, None);

        // The wire has the fields in the order of their numbers: in `memory`, 1 to 32 are the table above.
        let memory = numbers_of(&wire::encode(&metrics.memory.clone().unwrap()).unwrap());
        assert_eq!(memory[..32], (1..=32).map(|n| (n, n)).collect::<Vec<_>>());
        let entries =
            [&metrics.memory.usage, &metrics.memory.swap, &metrics.memory.kernel, &metrics.memory.kernel_tcp];
        let entries = entries.map(|entry| (entry.limit, entry.usage, entry.max, entry.failcnt));
        assert_eq!(entries, [100, 110, 120, 130].map(|n| (n, n + 1, n + 2, n + 3)));
        let oom = &metrics.memory_oom_control;
        assert_eq!((oom.oom_kill_disable, oom.under_oom, oom.oom_kill), (1, 2, 3));
        let (usage, throttling) = (&metrics.cpu.usage, &metrics.cpu.throttling);
        assert_eq!(
            (usage.total, usage.kernel, usage.user, &usage.per_cpu[..]),
            (11_999, 12_000, 13_000, &[5, 6][..])
        );
        let throttling = (throttling.periods, throttling.throttled_periods, throttling.throttled_time);
        assert_eq!(throttling, (14, 15, 16_000));
        assert_eq!((metrics.pids.current, metrics.pids.limit), (3, 0));
        let huge = &metrics.hugetlb[0];
        assert_eq!((huge.usage, huge.max, huge.failcnt, huge.pagesize.as_str()), (201, 202, 203, "2MB"));
        assert_eq!((metrics.rdma.current[0].hca_objects, metrics.rdma.limit[0].hca_handles), (2, u32::MAX));
    }

    #[test]
    fn the_numbers_of_v2_are_where_the_stock_shim_has_them() {
        let mut stats = stats();
        stats.memory.usage.limit = u64::MAX;
        stats.memory.swap = Some(counter(110));
        stats.memory.stat = numbered(
            "anon file kernel_stack slab sock shmem file_mapped file_dirty file_writeback anon_thp
             inactive_anon active_anon inactive_file active_file unevictable slab_reclaimable
             slab_unreclaimable pgfault pgmajfault workingset_refault workingset_activate
             workingset_nodereclaim pgrefill pgscan pgsteal pgactivate pgdeactivate pglazyfree
             pglazyfreed thp_fault_alloc thp_collapse_alloc",
        );
        stats.memory.events = numbered("low high max oom oom_kill oom_group_kill");
        stats.memory.pressure = Some(Pressure { some: stall(20), full: stall(30) });
        stats.io.devices =
            vec![IoDevice { major: 8, minor: 1, counters: numbered("rbytes wbytes rios wios dbytes") }];
        let metrics = v2(&stats, &["2MB".to_owned(), "1GB".to_owned()]);

        let memory = numbers_of(&wire::encode(&metrics.memory.clone().unwrap()).unwrap());
        let rest = [(32, 101), (33, u64::MAX), (34, 111), (35, 110), (36, 102), (37, 112)];
        assert_eq!(memory[..37], (1..=31).map(|n| (n, n)).chain(rest).collect::<Vec<_>>());
        let events = numbers_of(&wire::encode(&metrics.memory_events.clone().unwrap()).unwrap());
        assert_eq!(events, (1..=6).map(|n| (n, n)).collect::<Vec<_>>());
        let full = &metrics.memory.psi.full;
        assert_eq!((full.avg10, full.avg60, full.avg300, full.total), (30.0, 31.0, 32.0, 33));
        assert!(metrics.cpu.psi.is_none() && metrics.io.psi.is_none());
        let cpu = numbers_of(&wire::encode(&metrics.cpu.clone().unwrap()).unwrap());
        assert_eq!(cpu, [(1, 11), (2, 13), (3, 12), (4, 14), (5, 15), (6, 16), (8, 17), (9, 18)]);
        let io = numbers_of(&wire::encode(&metrics.io.usage[0]).unwrap());
        assert_eq!(io, [(1, 8), (2, 1), (3, 1), (4, 2), (5, 3), (6, 4)]);
        assert_eq!((metrics.pids.current, metrics.pids.limit), (3, u64::MAX));
        let huge: Vec<_> =
            metrics.hugetlb.iter().map(|h| (h.pagesize.as_str(), h.current, h.max, h.failcnt)).collect();
        assert_eq!(huge, [("2MB", 201, 200, 203), ("1GB", 0, 0, 0)]);
        assert_eq!((metrics.rdma.current[0].hca_handles, metrics.rdma.limit[0].hca_objects), (1, 4));
    }

    #[test]
    fn what_is_not_counted_is_zero() {
        let metrics = v2(&Stats::default(), &[]);
        assert_eq!((metrics.memory.swap_limit, metrics.memory.max_usage), (0, 0));
        assert!(metrics.memory_events.is_none());
    }

    #[test]
    fn sizes_of_pages_have_the_kernels_names() {
        for (name, size) in [
            ("hugepages-64kB", Some("64KB")),
            ("hugepages-2048kB", Some("2MB")),
            ("hugepages-1048576kB", Some("1GB")),
            ("hugepages-x", None),
        ] {
            assert_eq!(page_size(name).as_deref(), size, "{name}");
        }
    }

    #[test]
    fn a_controller_that_is_not_there_has_no_message_on_v1() {
        let blkio = || Some(cgroup1::BlkIOStat::default());
        let present = |controllers: &str| {
            let metrics = v1(
                &stats(),
                |name| controllers.contains(name),
                controllers.contains("blkio").then(blkio).flatten(),
            );
            let all = [
                ("pids", metrics.pids.is_some()),
                ("memory", metrics.memory.is_some() && metrics.memory_oom_control.is_some()),
                ("blkio", metrics.blkio.is_some()),
                ("rdma", metrics.rdma.is_some()),
                ("cpu", metrics.cpu.usage.is_some() && metrics.cpu.throttling.is_some()),
            ];
            all.into_iter().filter(|(_, is)| *is).map(|(name, _)| name).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(present("pids memory blkio rdma"), "pids memory blkio rdma cpu");
        assert_eq!(present("memory"), "memory cpu");
        assert_eq!(present(""), "cpu");
    }

    #[test]
    fn without_an_account_of_swap_the_kernels_memory_is_not_told_on_v1() {
        let mut stats = stats();
        stats.memory.kernel = counter(120);
        let memory = memory_v1(&stats);
        assert_eq!((memory.usage.usage, memory.swap.usage, memory.kernel.usage), (101, 0, 0));
    }

    #[test]
    fn this_host_can_be_told_of() {
        let mut paths = Paths::none(tare::cgroup::Driver::Cgroupfs);
        let place = Place { controllers: vec!["blkio".into()], folder: "/absent".into(), name: "/c".into() };
        for (v1, name) in [(vec![], "v2"), (vec![place], "v1")] {
            paths.v1 = v1;
            let any = metrics(&Stats::default(), &paths).unwrap();
            assert_eq!(any.type_url, format!("io.containerd.cgroups.{name}.Metrics"));
        }
    }

    /// The numbers of a message on the wire, with their fields; those of inner messages are left out.
    fn numbers_of(mut bytes: &[u8]) -> Vec<(u64, u64)> {
        fn varint(bytes: &mut &[u8]) -> u64 {
            let mut value = 0;
            for shift in (0..).step_by(7) {
                let (&byte, rest) = bytes.split_first().unwrap();
                *bytes = rest;
                value |= u64::from(byte & 0x7f) << shift;
                if byte < 0x80 {
                    break;
                }
            }
            value
        }
        let mut numbers = Vec::new();
        while !bytes.is_empty() {
            let tag = varint(&mut bytes);
            let value = varint(&mut bytes);
            match tag & 7 {
                0 => numbers.push((tag >> 3, value)),
                2 => bytes = &bytes[usize::try_from(value).unwrap()..],
                other => panic!("wire type {other}"),
            }
        }
        numbers
    }
}
