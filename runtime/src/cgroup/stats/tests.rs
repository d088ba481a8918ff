//! Against texts as Linux 6.18 (v1) and 6.12 (v2) wrote them.

use super::*;

/// Files by name.
struct Recorded(&'static [(&'static str, &'static str)]);

impl Files for Recorded {
    fn text(&self, file: &str) -> Result<Option<String>> {
        Ok(self.0.iter().find(|(name, _)| *name == file).map(|(_, text)| (*text).to_owned()))
    }

    fn names(&self, prefix: &str) -> Result<Vec<String>> {
        let names = self.0.iter().map(|(name, _)| (*name).to_owned());
        Ok(names.filter(|name| name.starts_with(prefix)).collect())
    }
}

fn of_v1(controllers: &[&str], files: &'static [(&'static str, &'static str)]) -> Stats {
    let mut stats = Stats::default();
    for controller in controllers {
        v1::read(&Recorded(files), controller, &mut stats).unwrap();
    }
    stats
}

fn of_v2(files: &'static [(&'static str, &'static str)]) -> Stats {
    let mut stats = Stats::default();
    v2::read(&Recorded(files), |_| true, &mut stats).unwrap();
    stats
}

fn map(entries: &[(&str, u64)]) -> BTreeMap<String, u64> {
    entries.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect()
}

#[test]
fn processor_time_of_v1() {
    let stats = of_v1(
        &["cpu", "cpuacct"],
        &[
            (
                "cpu.stat",
                "nr_periods 10\nnr_throttled 2\nthrottled_time 3500\nwait_sum 9\ncurrent_bw 1\nnr_bursts 4\n\
                 burst_time 50\n",
            ),
            ("cpuacct.stat", "user 3\nsystem 2\n"),
            ("cpuacct.usage", "15087219\n"),
            ("cpuacct.usage_percpu", "12439892 2647327 \n"),
            ("cpuacct.usage_all", "cpu user system\n0 4000000 8000000\n1 0 4000000\n"),
        ],
    );
    let expected = Cpu {
        total: 15_087_219,
        kernel: 20_000_000,
        user: 30_000_000,
        per_cpu: vec![12_439_892, 2_647_327],
        per_cpu_kernel: vec![8_000_000, 4_000_000],
        per_cpu_user: vec![4_000_000, 0],
        periods: 10,
        throttled_periods: 2,
        throttled_time: 3500,
        bursts: 4,
        burst_time: 50,
        pressure: None,
    };
    assert_eq!(stats, Stats { cpu: expected, ..Stats::default() });
}

#[test]
fn memory_of_v1_with_swap_and_without() {
    let stats = of_v1(
        &["memory"],
        &[
            ("memory.stat", "cache 16384\nrss 49152\nhierarchical_memory_limit 99999744\n"),
            ("memory.usage_in_bytes", "811008\n"),
            ("memory.limit_in_bytes", "99999744\n"),
            ("memory.max_usage_in_bytes", "2232320\n"),
            ("memory.failcnt", "7\n"),
            ("memory.memsw.usage_in_bytes", "811009\n"),
            ("memory.memsw.limit_in_bytes", "9223372036854771712\n"),
            ("memory.memsw.max_usage_in_bytes", "2232321\n"),
            ("memory.memsw.failcnt", "0\n"),
            ("memory.kmem.usage_in_bytes", "491520\n"),
            ("memory.kmem.tcp.usage_in_bytes", "1\n"),
            ("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n"),
        ],
    );
    let counter = |limit, usage, max_usage, failcnt| Counter { limit, usage, max_usage, failcnt };
    let expected = Memory {
        usage: counter(99_999_744, 811_008, 2_232_320, 7),
        memory_and_swap: Some(counter(9_223_372_036_854_771_712, 811_009, 2_232_321, 0)),
        swap: None,
        kernel: counter(0, 491_520, 0, 0),
        kernel_tcp: counter(0, 1, 0, 0),
        stat: map(&[("cache", 16_384), ("rss", 49_152), ("hierarchical_memory_limit", 99_999_744)]),
        events: map(&[("oom_kill_disable", 0), ("under_oom", 0), ("oom_kill", 3)]),
        pressure: None,
    };
    assert_eq!(stats.memory, expected);
    let without = of_v1(&["memory"], &[("memory.stat", ""), ("memory.usage_in_bytes", "1\n")]);
    assert_eq!(without.memory.memory_and_swap, None);
}

#[test]
fn processors_and_nodes_of_v1() {
    let stats = of_v1(
        &["cpuset"],
        &[
            ("cpuset.cpus", "0-2,5\n"),
            ("cpuset.mems", "0\n"),
            ("cpuset.sched_load_balance", "1\n"),
            ("cpuset.sched_relax_domain_level", "-1\n"),
        ],
    );
    let expected = Cpuset {
        cpus: vec![0, 1, 2, 5],
        mems: vec![0],
        sched_load_balance: 1,
        sched_relax_domain_level: -1,
        ..Cpuset::default()
    };
    assert_eq!(stats.cpuset, expected);
}

fn entry(minor: u64, op: &str, value: u64) -> IoEntry {
    IoEntry { major: 254, minor, op: op.into(), value }
}

#[test]
fn block_devices_of_v1_are_counted_where_the_scheduler_counts() {
    let throttle: &[_] = &[
        ("blkio.bfq.io_serviced_recursive", "Total 0\n"),
        ("blkio.bfq.io_service_bytes_recursive", "Total 0\n"),
        ("blkio.throttle.io_serviced_recursive", "254:0 Read 2\n254:0 Write 1\n254:0 Total 3\nTotal 3\n"),
        ("blkio.throttle.io_service_bytes_recursive", "254:0 Read 8192\nTotal 8192\n"),
    ];
    let tables = of_v1(&["blkio"], throttle).io.tables;
    assert_eq!(tables.serviced, [entry(0, "Read", 2), entry(0, "Write", 1), entry(0, "Total", 3)]);
    assert_eq!(tables.service_bytes, [entry(0, "Read", 8192)]);
    let bfq: &[_] = &[
        ("blkio.bfq.sectors_recursive", "254:16 24\nTotal 24\n"),
        ("blkio.bfq.io_service_time_recursive", "254:16 Read 5\nTotal 5\n"),
        ("blkio.throttle.io_serviced_recursive", "254:0 Read 2\nTotal 2\n"),
    ];
    let tables = of_v1(&["blkio"], bfq).io.tables;
    assert_eq!((tables.sectors, tables.service_time), (vec![entry(16, "", 24)], vec![entry(16, "Read", 5)]));
    assert_eq!(tables.serviced, [], "another family");
}

#[test]
fn tasks_huge_pages_and_rdma_of_v1() {
    let stats = of_v1(
        &["pids", "hugetlb", "rdma"],
        &[
            ("pids.current", "3\n"),
            ("pids.max", "max\n"),
            ("hugetlb.2MB.usage_in_bytes", "2097152\n"),
            ("hugetlb.2MB.limit_in_bytes", "4194304\n"),
            ("hugetlb.2MB.max_usage_in_bytes", "2097152\n"),
            ("hugetlb.2MB.failcnt", "1\n"),
            ("hugetlb.2MB.rsvd.usage_in_bytes", "0\n"),
            ("rdma.current", "mlx4_0 hca_handle=2 hca_object=2000\n"),
            ("rdma.max", "mlx4_0 hca_handle=3 hca_object=max\n"),
        ],
    );
    assert_eq!(stats.pids, Pids { current: 3, limit: None });
    let pages = Counter { limit: 4_194_304, usage: 2_097_152, max_usage: 2_097_152, failcnt: 1 };
    let expected = Hugetlb { pages, reserved: Some(Counter::default()) };
    assert_eq!(stats.hugetlb, BTreeMap::from([("2MB".to_owned(), expected)]));
    let device =
        |hca_handles, hca_objects| vec![RdmaDevice { device: "mlx4_0".into(), hca_handles, hca_objects }];
    assert_eq!(stats.rdma, Rdma { current: device(2, 2000), limit: device(3, u32::MAX) });
}

const PRESSURE: &str =
    "some avg10=0.22 avg60=0.17 avg300=1.11 total=58761459\nfull avg10=0.00 avg60=0.13 avg300=0.96 total=5\n";

#[test]
fn all_of_v2() {
    let stats = of_v2(&[
        (
            "cpu.stat",
            "usage_usec 106\nuser_usec 100\nsystem_usec 6\nnice_usec 0\nnr_periods 5\nnr_throttled 1\n\
             throttled_usec 9\nnr_bursts 2\nburst_usec 3\n",
        ),
        ("cpu.pressure", PRESSURE),
        ("memory.stat", "anon 4096\nfile 8192\n"),
        ("memory.current", "40960\n"),
        ("memory.max", "max\n"),
        ("memory.peak", "50000\n"),
        ("memory.swap.current", "0\n"),
        ("memory.swap.max", "1048576\n"),
        ("memory.events", "low 0\nhigh 0\nmax 2\noom 1\noom_kill 1\noom_group_kill 0\n"),
        ("pids.current", "1\n"),
        ("pids.max", "50\n"),
        ("io.stat", "254:0 rbytes=4096 wbytes=0 rios=1 wios=0 dbytes=0 dios=0\n254:16 \n"),
        ("io.pressure", "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\n"),
        ("hugetlb.2MB.current", "0\n"),
        ("hugetlb.2MB.max", "max\n"),
        ("hugetlb.2MB.events", "max 4\n"),
        ("hugetlb.1GB.current", "0\n"),
        ("hugetlb.1GB.max", "max\n"),
    ]);
    let some = Stall { avg10: 0.22, avg60: 0.17, avg300: 1.11, total: 58_761_459 };
    let full = Stall { avg10: 0.0, avg60: 0.13, avg300: 0.96, total: 5 };
    let cpu = Cpu {
        total: 106_000,
        user: 100_000,
        kernel: 6000,
        periods: 5,
        throttled_periods: 1,
        throttled_time: 9000,
        bursts: 2,
        burst_time: 3000,
        pressure: Some(Pressure { some, full }),
        ..Cpu::default()
    };
    assert_eq!(stats.cpu, cpu);
    let memory = Memory {
        usage: Counter { limit: u64::MAX, usage: 40_960, max_usage: 50_000, failcnt: 0 },
        swap: Some(Counter { limit: 1_048_576, ..Counter::default() }),
        stat: map(&[("anon", 4096), ("file", 8192)]),
        events: map(&[
            ("low", 0),
            ("high", 0),
            ("max", 2),
            ("oom", 1),
            ("oom_kill", 1),
            ("oom_group_kill", 0),
        ]),
        ..Memory::default()
    };
    assert_eq!(stats.memory, memory);
    assert_eq!(stats.pids, Pids { current: 1, limit: Some(50) });
    let counters =
        map(&[("rbytes", 4096), ("wbytes", 0), ("rios", 1), ("wios", 0), ("dbytes", 0), ("dios", 0)]);
    assert_eq!(stats.io.devices, [IoDevice { major: 254, minor: 0, counters }]);
    assert_eq!(stats.io.pressure, Some(Pressure::default()));
    assert_eq!(stats.hugetlb["2MB"].pages, Counter { limit: u64::MAX, failcnt: 4, ..Counter::default() });
    assert!(stats.hugetlb.contains_key("1GB"));
}

#[test]
fn a_controller_that_is_not_there_counts_nothing() {
    assert_eq!(of_v2(&[]), Stats::default());
    assert_eq!(
        of_v1(
            &["cpu", "cpuacct", "cpuset", "memory", "pids", "blkio", "hugetlb", "rdma", "name=systemd"],
            &[]
        ),
        Stats::default()
    );
}

#[test]
fn on_a_hybrid_host_each_controller_is_read_where_it_is() {
    let files =
        Recorded(&[("cpu.stat", "usage_usec 1\n"), ("pids.current", "1\n"), ("hugetlb.2MB.current", "1\n")]);
    let mut stats = Stats::default();
    v2::read(&files, |controller| controller == "hugetlb", &mut stats).unwrap();
    assert_eq!((stats.cpu.total, stats.pids.current), (0, 0));
    assert_eq!(stats.hugetlb["2MB"].pages.usage, 1);
}

#[test]
fn what_has_another_form_is_named() {
    for (controller, file, text) in [
        ("memory", "memory.stat", "cache x\n"),
        ("cpuacct", "cpuacct.usage", "\n"),
        ("cpuacct", "cpuacct.usage_all", "cpu user system\n0 1\n"),
        ("cpuset", "cpuset.cpus", "0-x\n"),
        ("cpuset", "cpuset.sched_relax_domain_level", "high\n"),
        ("blkio", "blkio.bfq.sectors_recursive", "8 4\n"),
        ("rdma", "rdma.current", "mlx4_0 hca_handle=many\n"),
    ] {
        struct One(&'static str, &'static str);
        impl Files for One {
            fn text(&self, file: &str) -> Result<Option<String>> {
                Ok((file == self.0).then(|| self.1.to_owned()))
            }
            fn names(&self, _: &str) -> Result<Vec<String>> {
                Ok(Vec::new())
            }
        }
        let error = v1::read(&One(file, text), controller, &mut Stats::default()).unwrap_err().to_string();
        assert!(error.contains(file), "{error}");
    }
}

#[test]
fn numbers_have_three_forms() {
    for (text, expected) in [
        ("12\n", Some(12)),
        ("max\n", Some(u64::MAX)),
        ("-1\n", Some(0)),
        ("18446744073709551615", Some(u64::MAX)),
        ("", None),
        ("-", None),
        ("1 2", None),
        ("0x1", None),
    ] {
        assert_eq!(parse::number(text), expected, "{text:?}");
    }
    assert_eq!(parse::list("\n"), Some(vec![]));
    assert_eq!(parse::list("0-2,4\n"), Some(vec![0, 1, 2, 4]));
    for wrong in ["1,1", "2-1", "0-3,2", "0-65536", "-1", "a"] {
        assert_eq!(parse::list(wrong), None, "{wrong:?}");
    }
    assert_eq!(parse::pressure("some avg10=x\n"), None);
}

#[test]
fn of_a_cgroup_that_goes_meanwhile_nothing_is_counted() {
    let place = tempfile::tempdir().unwrap();
    let folder = Folder::open(place.path()).unwrap();
    place.close().unwrap();
    let mut stats = Stats::default();
    for controller in ["cpu", "cpuacct", "cpuset", "memory", "pids", "blkio", "hugetlb", "rdma"] {
        v1::read(&folder, controller, &mut stats).unwrap();
    }
    v2::read(&folder, |_| true, &mut stats).unwrap();
    assert_eq!(stats, Stats::default());
}
