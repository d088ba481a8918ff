//! Every property of `linux.resources`, in one table: what stands in the container's cgroup after `create`, and after
//! `update` of a container that was made without it.
//! config-linux.md, from "Memory" to "Unified".
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

use spec_tests::need::is_cgroup_v2;
use spec_tests::runtime::{Difference, under_test};
use spec_tests::{
    Bundle, Container, Flavor, Output, Value, crun, crun_before, differs, json, need, runc, runc_before,
};

/// One value of a file of the container's cgroup.
struct File {
    /// Its hierarchy on v1.
    controller: &'static str,
    name: &'static str,
    value: String,
}

enum Outcome {
    Files(Vec<File>),
    /// The host has no such thing: an error that has this word in it.
    Refused(&'static str),
}

struct Row {
    property: &'static str,
    resources: Value,
    v1: Outcome,
    v2: Outcome,
    /// On v2, where it has not the files of `v2`.
    else_v2: Option<Outcome>,
    /// Peers that write something else.
    known: Vec<(Version, How, Difference)>,
}

#[derive(Clone, Copy, PartialEq)]
enum Version {
    V1,
    V2,
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum How {
    Create,
    Update,
}

use How::{Create, Update};
use Version::{V1, V2};

fn files<const N: usize>(files: [(&'static str, &'static str, &str); N]) -> Outcome {
    let file = |(controller, name, value): (_, _, &str)| File { controller, name, value: value.to_owned() };
    Outcome::Files(files.into_iter().map(file).collect())
}

fn row(property: &'static str, resources: Value, v1: Outcome, v2: Outcome) -> Row {
    Row { property, resources, v1, v2, else_v2: None, known: Vec::new() }
}

impl Row {
    fn but(mut self, versions: &[Version], how: &[How], known: &[Difference]) -> Self {
        for (version, how) in versions.iter().flat_map(|v| how.iter().map(move |h| (*v, *h))) {
            self.known.extend(known.iter().map(|difference| (version, how, difference.clone())));
        }
        self
    }

    fn or_on_v2(self, files: Outcome) -> Self {
        Row { else_v2: Some(files), ..self }
    }

    /// runc's `update` takes of a document what it has a flag for; crun's and ours take all of it.
    fn has_no_flag(self) -> Self {
        self.but(&[V1, V2], &[Update], &[runc("there is no flag for it")])
    }

    /// On a hybrid host v2 has the controllers that v1 does not use.
    fn is_beside_v1(&self) -> bool {
        let Outcome::Files(files) = &self.v2 else { return false };
        let list = fs::read_to_string("/sys/fs/cgroup/unified/cgroup.controllers").unwrap_or_default();
        files.iter().all(|file| list.split_whitespace().any(|name| name == file.controller))
    }

    fn known(&self, how: How) -> Vec<Difference> {
        let version = if is_cgroup_v2() { V2 } else { V1 };
        let applies = |known: &&(Version, How, Difference)| known.0 == version && known.1 == how;
        self.known.iter().filter(applies).map(|known| known.2.clone()).collect()
    }
}

const MIB: u64 = 1 << 20;

fn memory() -> Vec<Row> {
    let limit = 100 * MIB;
    vec![
        row(
            "memory.limit",
            json!({ "memory": { "limit": limit } }),
            files([("memory", "memory.limit_in_bytes", "104857600")]),
            files([("memory", "memory.max", "104857600")]),
        ),
        row(
            "memory.reservation",
            json!({ "memory": { "reservation": 50 * MIB } }),
            files([("memory", "memory.soft_limit_in_bytes", "52428800")]),
            files([("memory", "memory.low", "52428800")]),
        ),
        row(
            "memory.swap, above the limit",
            json!({ "memory": { "limit": limit, "swap": 3 * limit } }),
            files([
                ("memory", "memory.limit_in_bytes", "104857600"),
                ("memory", "memory.memsw.limit_in_bytes", "314572800"),
            ]),
            // Swap alone, where the configuration has the sum.
            files([("memory", "memory.max", "104857600"), ("memory", "memory.swap.max", "209715200")]),
        ),
        row(
            "memory.swap, none",
            json!({ "memory": { "limit": limit, "swap": limit } }),
            files([("memory", "memory.memsw.limit_in_bytes", "104857600")]),
            files([("memory", "memory.swap.max", "0")]),
        ),
        row(
            "memory.swappiness",
            json!({ "memory": { "swappiness": 7 } }),
            files([("memory", "memory.swappiness", "7")]),
            Outcome::Refused("swappiness"),
        )
        .has_no_flag(),
        row(
            "memory.disableOOMKiller",
            json!({ "memory": { "limit": limit, "disableOOMKiller": true } }),
            files([("memory", "memory.oom_control", "oom_kill_disable 1")]),
            Outcome::Refused("disableOOMKiller"),
        )
        .has_no_flag(),
    ]
}

fn cpu() -> Vec<Row> {
    vec![
        row(
            "cpu.shares",
            json!({ "cpu": { "shares": 512 } }),
            files([("cpu", "cpu.shares", "512")]),
            files([("cpu", "cpu.weight", "59")]),
        )
        .but(&[V2], &[Create, Update], &[runc_before("1.3.2", "the straight line")])
        .but(&[V2], &[Create, Update], &[crun_before("1.23", "the straight line")]),
        row(
            "cpu.quota and cpu.period",
            json!({ "cpu": { "quota": 50_000, "period": 200_000 } }),
            files([("cpu", "cpu.cfs_quota_us", "50000"), ("cpu", "cpu.cfs_period_us", "200000")]),
            files([("cpu", "cpu.max", "50000 200000")]),
        ),
        row(
            "cpu.burst",
            json!({ "cpu": { "quota": 50_000, "period": 100_000, "burst": 10_000 } }),
            files([("cpu", "cpu.cfs_burst_us", "10000")]),
            files([("cpu", "cpu.max.burst", "10000")]),
        )
        .but(&[V1, V2], &[Create, Update], &[runc_before("1.2", "it does not know it")])
        .but(&[V1], &[Create, Update], &[crun_before("1.9", "it does not know it")]),
        row(
            "cpu.idle",
            json!({ "cpu": { "idle": 1 } }),
            files([("cpu", "cpu.idle", "1")]),
            files([("cpu", "cpu.idle", "1")]),
        )
        .but(&[V1, V2], &[Create, Update], &[runc_before("1.2", "it does not know it")]),
        row(
            "cpu.realtimeRuntime and cpu.realtimePeriod",
            json!({ "cpu": { "realtimePeriod": 500_000, "realtimeRuntime": 1000 } }),
            files([("cpu", "cpu.rt_period_us", "500000"), ("cpu", "cpu.rt_runtime_us", "1000")]),
            Outcome::Refused("realtime"),
        ),
        row(
            "cpu.cpus and cpu.mems",
            json!({ "cpu": { "cpus": "0", "mems": "0" } }),
            files([("cpuset", "cpuset.cpus", "0"), ("cpuset", "cpuset.mems", "0")]),
            files([("cpuset", "cpuset.cpus", "0"), ("cpuset", "cpuset.mems", "0")]),
        ),
        row(
            "pids.limit",
            json!({ "pids": { "limit": 77 } }),
            files([("pids", "pids.max", "77")]),
            files([("pids", "pids.max", "77")]),
        ),
    ]
}

/// `MAJOR:MINOR` of a disk of this host.
fn disk() -> Option<(u64, u64, String)> {
    let mut disks: Vec<PathBuf> = fs::read_dir("/sys/block").ok()?.flatten().map(|e| e.path()).collect();
    disks.sort();
    // A loop device without a file takes no limits.
    let real = |path: &PathBuf| fs::read_to_string(path.join("size")).is_ok_and(|size| size.trim() != "0");
    let text = fs::read_to_string(disks.into_iter().find(real)?.join("dev")).ok()?;
    let text = text.trim().to_owned();
    let (major, minor) = text.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?, text))
}

fn block_io() -> Vec<Row> {
    let mut rows = vec![
        row(
            "blockIO.weight",
            json!({ "blockIO": { "weight": 500 } }),
            files([("blkio", "blkio.bfq.weight", "500")]),
            files([("io", "io.bfq.weight", "default 500")]),
        )
        // From 10 to 1000 becomes 1 to 10000.
        .or_on_v2(files([("io", "io.weight", "default 4950")]))
        .but(&[V1], &[Create, Update], &[crun("it knows blkio.weight only, not that of bfq")]),
        row(
            "blockIO.leafWeight",
            json!({ "blockIO": { "leafWeight": 300 } }),
            files([("blkio", "blkio.leaf_weight", "300")]),
            Outcome::Refused("leafWeight"),
        ),
    ];
    let Some((major, minor, disk)) = disk() else {
        need::skip("block_devices", "disk", "no block device in /sys/block has a size");
        return rows;
    };
    let rate = |rate: u64| json!([{ "major": major, "minor": minor, "rate": rate }]);
    let line = |value: &str| format!("{disk} {value}");
    for (property, v1, value, v2) in [
        (
            "throttleReadBpsDevice",
            "blkio.throttle.read_bps_device",
            1_048_576,
            "rbps=1048576 wbps=max riops=max wiops=max",
        ),
        (
            "throttleWriteBpsDevice",
            "blkio.throttle.write_bps_device",
            2_097_152,
            "rbps=max wbps=2097152 riops=max wiops=max",
        ),
        (
            "throttleReadIOPSDevice",
            "blkio.throttle.read_iops_device",
            100,
            "rbps=max wbps=max riops=100 wiops=max",
        ),
        (
            "throttleWriteIOPSDevice",
            "blkio.throttle.write_iops_device",
            200,
            "rbps=max wbps=max riops=max wiops=200",
        ),
    ] {
        rows.push(
            row(
                property,
                json!({ "blockIO": { property: rate(value) } }),
                files([("blkio", v1, &line(&value.to_string()))]),
                files([("io", "io.max", &line(v2))]),
            )
            .has_no_flag(),
        );
    }
    rows
}

fn others() -> Vec<Row> {
    let pages = json!([{ "pageSize": "2MB", "limit": 4 * MIB }]);
    vec![
        row(
            "hugepageLimits",
            json!({ "hugepageLimits": pages }),
            files([
                ("hugetlb", "hugetlb.2MB.limit_in_bytes", "4194304"),
                ("hugetlb", "hugetlb.2MB.rsvd.limit_in_bytes", "4194304"),
            ]),
            files([
                ("hugetlb", "hugetlb.2MB.max", "4194304"),
                ("hugetlb", "hugetlb.2MB.rsvd.max", "4194304"),
            ]),
        )
        .has_no_flag()
        .but(&[V1, V2], &[Create, Update], &[crun("no reservations")]),
        row(
            "network.classID",
            json!({ "network": { "classID": 1_048_577 } }),
            files([("net_cls", "net_cls.classid", "1048577")]),
            Outcome::Refused("net_cls"),
        )
        .has_no_flag(),
        row(
            "network.priorities",
            json!({ "network": { "priorities": [{ "name": "lo", "priority": 5 }] } }),
            files([("net_prio", "net_prio.ifpriomap", "lo 5")]),
            Outcome::Refused("net_prio"),
        )
        .has_no_flag(),
        row(
            "unified",
            json!({ "unified": { "pids.max": "66", "memory.high": "52428800" } }),
            Outcome::Refused("unified"),
            files([("pids", "pids.max", "66"), ("memory", "memory.high", "52428800")]),
        ),
    ]
}

#[derive(Clone, Copy, PartialEq)]
enum Manager {
    Cgroupfs,
    Systemd,
}

impl Manager {
    fn bundle(self) -> Bundle {
        let bundle = Bundle::new().probe(["wait"]);
        let id = bundle.id().to_owned();
        match self {
            Manager::Cgroupfs => bundle,
            Manager::Systemd => bundle.linux(|l| l["cgroupsPath"] = json!(format!("system.slice:spec:{id}"))),
        }
    }

    /// Created and not started: the limits stand then.
    fn create(self, resources: &Value) -> (Container, Output) {
        let bundle = self.bundle().linux(|l| {
            for (key, value) in resources.as_object().unwrap() {
                l["resources"][key] = value.clone();
            }
        });
        let mut container = bundle.container();
        let globals: &[&str] = if self == Manager::Systemd { &["--systemd-cgroup"] } else { &[] };
        let mut command = container.command(globals);
        command.arg("create").arg("--bundle").arg(container.bundle_path()).arg(container.id());
        let output = container.create_by(command);
        (container, output)
    }
}

/// The folder of a process in the hierarchy that has a controller.
fn folder(pid: i32, controller: &str) -> Option<PathBuf> {
    let memberships = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let top = Path::new("/sys/fs/cgroup");
    for line in memberships.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (names, path) = (fields.next().unwrap(), fields.next().unwrap().trim_start_matches('/'));
        let folder = match names {
            "" if top.join("unified").exists() => top.join("unified").join(path),
            "" => top.join(path),
            _ if names.split(',').any(|name| name == controller) => top.join(controller).join(path),
            _ => continue,
        };
        let here = !names.is_empty()
            || fs::read_to_string(folder.join("cgroup.controllers"))
                .is_ok_and(|list| list.split_whitespace().any(|name| name == controller));
        if here {
            return Some(folder);
        }
    }
    None
}

fn read(pid: i32, file: &File) -> Option<String> {
    let text = fs::read_to_string(folder(pid, file.controller)?.join(file.name)).ok()?;
    Some(text.trim().to_owned())
}

/// Files with many keys have the value among their lines.
fn has(text: Option<&str>, value: &str) -> bool {
    text.is_some_and(|text| text == value || text.lines().any(|line| line == value))
}

fn check(row: &Row, manager: Manager) {
    let beside = !is_cgroup_v2() && row.is_beside_v1();
    if beside && under_test().flavor != Flavor::Tare {
        return; // Peers look at the hierarchies of v1 only.
    }
    let outcome = if is_cgroup_v2() || beside { &row.v2 } else { &row.v1 };
    let files = match outcome {
        Outcome::Files(files) => files,
        Outcome::Refused(word) => return refused(row, manager, word),
    };
    let (bare, output) = manager.create(&json!({}));
    output.silent();
    let pid = bare.pid();
    let files = match &row.else_v2 {
        Some(Outcome::Files(others)) if is_cgroup_v2() && files.iter().any(|f| read(pid, f).is_none()) => {
            others
        }
        _ => files,
    };
    if let Some(file) = files.iter().find(|file| read(pid, file).is_none()) {
        // Whoever asks for what this kernel has not must hear so.
        eprintln!("NOTE {}: this host has no {}", row.property, file.name);
        return refused(row, manager, file.name.split('.').next().unwrap());
    }
    let stands = |file: &File| has(read(pid, file).as_deref(), &file.value);
    assert!(!files.iter().all(stands), "{}: proves nothing, for it is the default", row.property);
    let expect = |container: &Container, how: How| {
        for file in files {
            let seen = read(container.pid(), file);
            let name = file.name;
            assert!(has(seen.as_deref(), &file.value), "{} by {how:?}: {name} has {seen:?}", row.property);
        }
    };
    differs(row.known(Create), || {
        let (made, output) = manager.create(&row.resources);
        output.silent();
        expect(&made, Create);
    });
    differs(row.known(Update), || {
        let document = bare.dir().join("resources.json");
        fs::write(&document, row.resources.to_string()).unwrap();
        bare.call(["update", "--resources", document.to_str().unwrap(), bare.id()]).silent();
        expect(&bare, Update);
    });
}

/// Peers drop a good deal of this in silence.
fn refused(row: &Row, manager: Manager, word: &str) {
    if under_test().flavor != Flavor::Tare {
        return;
    }
    let (_container, output) = manager.create(&row.resources);
    let said = output.refused().stderr.to_lowercase();
    assert!(said.contains(&word.to_lowercase()), "{}: no {word:?} in {said}", row.property);
}

fn check_all(rows: &[Row], manager: Manager) {
    rows.iter().for_each(|row| check(row, manager));
}

#[test]
fn memory_by_cgroupfs() {
    need!(root, controller("memory"));
    check_all(&memory(), Manager::Cgroupfs);
}

#[test]
fn processors_and_tasks_by_cgroupfs() {
    need!(root, controller("cpu"));
    check_all(&cpu(), Manager::Cgroupfs);
}

#[test]
fn block_devices_by_cgroupfs() {
    need!(root, block_io);
    check_all(&block_io(), Manager::Cgroupfs);
}

#[test]
fn pages_networks_and_unified_by_cgroupfs() {
    need!(root, controller("memory"), controller("pids"));
    check_all(&others(), Manager::Cgroupfs);
}

#[test]
fn memory_by_systemd() {
    need!(root, systemd, controller("memory"));
    check_all(&memory(), Manager::Systemd);
}

#[test]
fn processors_and_tasks_by_systemd() {
    need!(root, systemd, controller("cpu"));
    check_all(&cpu(), Manager::Systemd);
}

#[test]
fn block_devices_by_systemd() {
    need!(root, systemd, block_io);
    check_all(&block_io(), Manager::Systemd);
}

#[test]
fn pages_networks_and_unified_by_systemd() {
    need!(root, systemd, controller("memory"), controller("pids"));
    check_all(&others(), Manager::Systemd);
}
