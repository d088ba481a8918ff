//! Control groups on the running kernel, v1 or hybrid as the host has them, and v2 alone in a mount
//! namespace of its own. Needs root; without it each test says that it was skipped.
#![allow(clippy::unwrap_used)]

#[path = "cgroup/config.rs"]
mod config;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use config::config;
use spec_tests::need::skip_this;
use tare::cgroup::{self, Driver, Paths};
use tare::config::id::ContainerId;
use tare::config::{DeviceKind, DeviceRule, Resources};
use tare::error::{Error, Result};
use tare::host::{CgroupLayout, Facts};
use tare::undo::Undo;

/// Set in the child that has a mount namespace of its own.
const INSIDE: &str = "TARE_TEST_V2";

fn is_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        skip_this("root", "not root");
    }
    root
}

/// v1 is here, and this is not such a child.
fn on_v1() -> bool {
    if std::env::var_os(INSIDE).is_some() || !is_root() {
        return false;
    }
    let there = !CgroupLayout::probe().unwrap().v1.is_empty();
    if !there {
        skip_this("cgroup_v1", "this host has none");
    }
    there
}

/// Runs the test again in a mount namespace with v2 alone; `true` in that run.
///
/// The tree is the host's own: what the tests turn on at its root is turned off after each. So that
/// none turns it off under another, there is one at a time.
fn on_v2(test: &str) -> bool {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let control = || {
        let v2 = CgroupLayout::probe().unwrap().v2?;
        let file = v2.mountpoint.join("cgroup.subtree_control");
        let on: Vec<String> = fs::read_to_string(&file).unwrap().split_whitespace().map(Into::into).collect();
        Some((file, on))
    };
    let before = control();
    let inside = again_after(test, "umount -R /sys/fs/cgroup; mount -t cgroup2 none /sys/fs/cgroup");
    if let (false, Some((_, before)), Some((file, after))) = (inside, before, control()) {
        for controller in after.iter().filter(|c| !before.contains(c)) {
            fs::write(&file, format!("-{controller}")).unwrap();
        }
    }
    inside
}

/// Runs the test again in a mount namespace of its own after `script`; `true` in that run.
fn again_after(test: &str, script: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    if !is_root() {
        return false;
    }
    let status = Command::new("unshare")
        .args(["-m", "--propagation", "private", "sh", "-ec", &format!("{script}; exec \"$@\""), "_"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        .status()
        .unwrap();
    assert!(status.success(), "{test} inside: {status}");
    false
}

fn facts() -> Facts {
    Facts {
        kernel: (6, 0),
        euid: 0,
        egid: 0,
        capabilities: u64::MAX,
        last_capability: 40,
        in_user_namespace: false,
        rootless: false,
        apparmor: false,
        selinux: false,
        cgroup: CgroupLayout::probe().unwrap(),
        systemd_cgroup: None,
        newuidmap: None,
        newgidmap: None,
        setgroups_denied: false,
        full_mounts: Vec::new(),
    }
}

/// A name of our own, so that test runs do not meet.
fn unique(name: &str) -> String {
    format!("tare-test-{}-{name}", std::process::id())
}

/// The cgroups of a test, with the processes in them; both gone with it.
struct Made {
    paths: Paths,
    created: cgroup::Created,
    children: Vec<Child>,
    /// A folder above them that the test made too.
    above: Option<Paths>,
}

impl Made {
    fn new(path: &str, resources: Resources) -> Self {
        Self::try_new(Some(path), resources).unwrap()
    }

    fn try_new(path: Option<&str>, resources: Resources) -> Result<Self> {
        let id = ContainerId::new(&unique("id"))?;
        let plan = cgroup::plan(&id, &config(path.map(Into::into), resources), &facts(), Driver::Cgroupfs)?;
        let mut undo = Undo::new();
        let created = match cgroup::create(&plan, &mut undo) {
            Ok(created) => created,
            Err(error) => return Err(undo.unwind(error)),
        };
        undo.forget();
        assert_eq!(created.paths(), &plan.paths());
        let above = path.filter(|p| p.matches('/').count() > 1).map(|path| {
            let mut above = plan.paths();
            let up = path.matches('/').count() - 1;
            for place in above.v1.iter_mut().chain(&mut above.v2) {
                place.folder = place.folder.ancestors().nth(up).unwrap().to_owned();
            }
            above
        });
        Ok(Made { paths: plan.paths(), created, children: vec![], above })
    }

    /// A process that does nothing, inside.
    fn sleeper(&mut self) -> i32 {
        let pid = self.outsider();
        self.created.join(pid).unwrap();
        pid
    }

    /// The same, outside.
    fn outsider(&mut self) -> i32 {
        let child = Command::new("sleep").arg("1000").stdin(Stdio::null()).spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        self.children.push(child);
        pid
    }

    fn folder(&self, controller: &str) -> PathBuf {
        let v1 = self.paths.v1.iter().find(|p| p.controllers.iter().any(|c| c == controller));
        v1.or(self.paths.v2.as_ref()).unwrap().folder.clone()
    }

    fn read(&self, controller: &str, file: &str) -> String {
        fs::read_to_string(self.folder(controller).join(file)).unwrap().trim_end().to_owned()
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        let killed = self.paths.kill_all(9);
        for child in &mut self.children {
            // Those that are outside, too; what is dead already says so, which is as well.
            child.kill().ok();
            child.wait().ok();
        }
        let removed = self.paths.remove();
        let above = self.above.as_ref().map_or(Ok(()), Paths::remove);
        if !std::thread::panicking() {
            killed.unwrap();
            removed.unwrap();
            above.unwrap();
        }
    }
}

/// The cgroups of a process, by `/proc/PID/cgroup`.
fn membership(pid: i32) -> String {
    fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap()
}

/// The state letter of a process.
fn state(pid: i32) -> char {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit_once(") ").unwrap().1.chars().next().unwrap()
}

fn soon(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < deadline, "not so after 20 seconds: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn rule(allow: bool, kind: Option<DeviceKind>, major: Option<u32>, minor: Option<u32>) -> DeviceRule {
    DeviceRule { allow, kind, major, minor, read: true, write: true, mknod: true }
}

fn has(controller: &str) -> bool {
    let has = CgroupLayout::probe().unwrap().v1.iter().any(|h| h.controllers.iter().any(|c| c == controller));
    if !has {
        skip_this(&format!("controller ({controller:?})"), "not on v1");
    }
    has
}

#[test]
fn v1_limits_stand_before_the_process_is_there() {
    if !on_v1() || !["memory", "cpu", "cpuset", "pids"].iter().all(|c| has(c)) {
        return;
    }
    let mut resources = Resources { pids_limit: Some(7), ..Resources::default() };
    resources.memory.limit = Some(64 << 20);
    resources.memory.reservation = Some(32 << 20);
    resources.cpu.shares = Some(512);
    resources.cpu.quota = Some(20_000);
    resources.cpu.period = Some(50_000);
    resources.cpu.cpus = Some("0".into());
    let mut made = Made::new(&format!("/{}/deep/er", unique("limits")), resources);
    for (controller, file, value) in [
        ("memory", "memory.limit_in_bytes", "67108864"),
        ("memory", "memory.soft_limit_in_bytes", "33554432"),
        ("cpu", "cpu.shares", "512"),
        ("cpu", "cpu.cfs_quota_us", "20000"),
        ("cpu", "cpu.cfs_period_us", "50000"),
        ("cpuset", "cpuset.cpus", "0"),
        ("pids", "pids.max", "7"),
    ] {
        assert_eq!(made.read(controller, file), value, "{file}");
    }
    // Nothing was said about memory nodes: they come from above, through folders that had none.
    assert!(!made.read("cpuset", "cpuset.mems").is_empty());
    let pid = made.sleeper();
    for line in membership(pid).lines() {
        let (_, path) = line.rsplit_once(':').unwrap();
        assert!(path.ends_with("/deep/er") || line.starts_with("0:") && made.paths.v2.is_none(), "{line}");
    }
    assert_eq!(made.paths.pids(false).unwrap(), [pid]);
}

#[test]
fn v1_limits_that_bound_each_other_go_up_and_down() {
    if !on_v1() || !has("memory") || !has("cpu") {
        return;
    }
    let path = format!("/{}", unique("order"));
    let keep = Made::new(&path, Resources::default());
    let swap_is_counted = keep.folder("memory").join("memory.memsw.limit_in_bytes").exists();
    if !swap_is_counted {
        skip_this("swap_limit", "this kernel does not count swap");
    }
    // Linux 5.14
    let bursts = keep.folder("cpu").join("cpu.cfs_burst_us").exists();
    if !bursts {
        skip_this("cpu_burst", "this kernel has none (Linux 5.14)");
    }
    for (limit, swap, quota, period, burst) in [
        (64, 128, 20_000, 50_000, 20_000),
        (256, 512, 900_000, 1_000_000, 900_000),
        (32, 32, 1_000, 1_000, 1_000),
    ] {
        let mut resources = Resources::default();
        resources.memory.limit = Some(limit << 20);
        resources.memory.swap = swap_is_counted.then_some(swap << 20);
        (resources.cpu.quota, resources.cpu.period) = (Some(quota), Some(period));
        resources.cpu.burst = bursts.then_some(burst);
        // Into the same cgroups again, each time from other values.
        std::mem::forget(Made::try_new(Some(&path), resources).unwrap());
        assert_eq!(keep.read("memory", "memory.limit_in_bytes"), (limit << 20).to_string());
        if swap_is_counted {
            assert_eq!(keep.read("memory", "memory.memsw.limit_in_bytes"), (swap << 20).to_string());
        }
        assert_eq!(keep.read("cpu", "cpu.cfs_quota_us"), quota.to_string());
        assert_eq!(keep.read("cpu", "cpu.cfs_period_us"), period.to_string());
        if bursts {
            assert_eq!(keep.read("cpu", "cpu.cfs_burst_us"), burst.to_string());
        }
    }
}

#[test]
fn v1_shares_and_idle_bound_each_other_too() {
    if !on_v1() || !has("cpu") {
        return;
    }
    let path = format!("/{}", unique("idle"));
    let keep = Made::new(&path, Resources::default());
    if !keep.folder("cpu").join("cpu.idle").exists() {
        skip_this("cpu_idle", "this kernel has none (Linux 5.15)");
        return;
    }
    for (shares, idle) in [(512, 0), (300, 1), (700, 0)] {
        let mut resources = Resources::default();
        (resources.cpu.shares, resources.cpu.idle) = (Some(shares), Some(idle));
        std::mem::forget(Made::try_new(Some(&path), resources).unwrap());
        assert_eq!(keep.read("cpu", "cpu.idle"), idle.to_string());
        if idle == 0 {
            assert_eq!(keep.read("cpu", "cpu.shares"), shares.to_string());
        }
    }
}

#[test]
fn v1_a_weight_goes_into_the_file_that_is_there() {
    if !on_v1() || !has("blkio") {
        return;
    }
    let path = format!("/{}", unique("weight"));
    let keep = Made::new(&path, Resources::default());
    let files = ["blkio.weight", "blkio.bfq.weight"];
    let file = files.into_iter().find(|file| keep.folder("blkio").join(file).exists());
    let mut resources = Resources::default();
    resources.block_io.weight = Some(300);
    match (Made::try_new(Some(&path), resources), file) {
        (Ok(made), Some(file)) => {
            std::mem::forget(made);
            // Some kernels show more than one line.
            assert_eq!(keep.read("blkio", file).split_whitespace().last(), Some("300"));
        }
        (Err(error), None) => assert!(error.to_string().contains("blkio.bfq.weight"), "{error}"),
        (made, file) => panic!("{file:?}: {}", made.err().map(|e| e.to_string()).unwrap_or_default()),
    }
}

#[test]
fn v1_without_a_path_goes_below_our_own() {
    if !on_v1() {
        return;
    }
    let mut made = Made::try_new(None, Resources::default()).unwrap();
    let pid = made.sleeper();
    let inside = membership(pid);
    for (ours, theirs) in membership(std::process::id().cast_signed()).lines().zip(inside.lines()) {
        assert_eq!(format!("{}/{}", ours.trim_end_matches('/'), unique("id")), theirs);
    }
}

#[test]
fn v1_devices() {
    if !on_v1() || !has("devices") {
        return;
    }
    let resources = Resources {
        devices: vec![rule(false, None, None, None), rule(true, Some(DeviceKind::Char), Some(10), Some(200))],
        ..Resources::default()
    };
    let made = Made::new(&format!("/{}", unique("devices")), resources);
    let list = made.read("devices", "devices.list");
    let lines: Vec<&str> = list.lines().collect();
    assert!(lines.contains(&"c 10:200 rwm") && lines.contains(&"c 1:3 rwm"), "{list}");
    assert!(lines.contains(&"b *:* m") && !lines.contains(&"a *:* rwm"), "{list}");
    denies_kmsg_and_allows_null(&made);
}

/// `/dev/kmsg` (1:11) is in no rule; opening it is enough.
fn denies_kmsg_and_allows_null(made: &Made) {
    let open = |file: &str| {
        let script = format!("kill -STOP $$; exec < {file}");
        let mut child = Command::new("sh").args(["-c", &script]).stderr(Stdio::null()).spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        soon("stopped", || state(pid) == 'T');
        made.created.join(pid).unwrap();
        made.paths.kill_all(nix::libc::SIGCONT).unwrap();
        child.wait().unwrap().success()
    };
    assert!(open("/dev/null"));
    assert!(!open("/dev/kmsg"));
}

#[test]
fn v1_freeze_and_kill() {
    if on_v1() && has("freezer") {
        freeze_and_kill();
    }
}

#[test]
fn v2_freeze_and_kill() {
    if on_v2("v2_freeze_and_kill") {
        freeze_and_kill();
    }
}

fn freeze_and_kill() {
    let mut made = Made::new(&format!("/{}", unique("freeze")), Resources::default());
    let pids = [made.sleeper(), made.sleeper()];
    assert!(!made.paths.is_frozen().unwrap());
    made.paths.freeze().unwrap();
    assert!(made.paths.is_frozen().unwrap());
    // Another signal leaves them frozen; SIGKILL reaches them all the same.
    made.paths.kill_all(nix::libc::SIGWINCH).unwrap();
    assert!(made.paths.is_frozen().unwrap());
    assert!(!made.paths.is_empty().unwrap());
    made.paths.kill_all(9).unwrap();
    for pid in pids {
        soon("dead", || state(pid) == 'Z');
    }
    soon("empty", || made.paths.is_empty().unwrap());
    made.paths.thaw().unwrap();
    assert!(!made.paths.is_frozen().unwrap());
}

#[test]
fn v1_kill_reaches_cgroups_of_the_container() {
    if on_v1() {
        kill_reaches_below();
    }
}

#[test]
fn v2_kill_reaches_cgroups_of_the_container() {
    if on_v2("v2_kill_reaches_cgroups_of_the_container") {
        kill_reaches_below();
    }
}

fn kill_reaches_below() {
    let mut made = Made::new(&format!("/{}", unique("below")), Resources::default());
    let pid = made.outsider();
    let inner = made.folder("devices").join("inner/most");
    fs::create_dir_all(&inner).unwrap();
    fs::write(inner.join("cgroup.procs"), pid.to_string()).unwrap();
    assert_eq!(made.paths.pids(false).unwrap(), [0; 0]);
    assert_eq!(made.paths.pids(true).unwrap(), [pid]);
    assert!(!made.paths.is_empty().unwrap());
    made.paths.kill_all(9).unwrap();
    soon("dead", || state(pid) == 'Z');
    made.paths.remove().unwrap();
    assert!(!inner.exists());
}

#[test]
fn v1_a_cgroup_in_use_is_refused() {
    if on_v1() && has("freezer") {
        in_use_is_refused();
    }
}

#[test]
fn v2_a_cgroup_in_use_is_refused() {
    if on_v2("v2_a_cgroup_in_use_is_refused") {
        in_use_is_refused();
    }
}

fn in_use_is_refused() {
    let path = format!("/{}", unique("in-use"));
    let mut made = Made::new(&path, Resources::default());
    let again = || match Made::try_new(Some(&path), Resources::default()) {
        Ok(again) => {
            std::mem::forget(again);
            "taken".to_owned()
        }
        Err(error) => error.to_string(),
    };
    assert_eq!(again(), "taken", "empty and thawed");
    made.sleeper();
    assert!(again().starts_with("container's cgroup is not empty: 1 process(es) found"), "{}", again());
    made.paths.kill_all(9).unwrap();
    soon("empty", || made.paths.is_empty().unwrap());
    made.paths.freeze().unwrap();
    assert!(again().starts_with("container's cgroup unexpectedly frozen"), "{}", again());
    // Refusing has removed nothing that was there before.
    assert!(made.folder("freezer").exists());
}

#[test]
fn v1_remove_says_who_is_still_inside() {
    if on_v1() {
        remove_says_who();
    }
}

#[test]
fn v2_remove_says_who_is_still_inside() {
    if on_v2("v2_remove_says_who_is_still_inside") {
        remove_says_who();
    }
}

fn remove_says_who() {
    let mut made = Made::new(&format!("/{}", unique("held")), Resources::default());
    let pid = made.sleeper();
    let error = made.paths.remove().unwrap_err().to_string();
    assert!(error.contains(&format!("still held by process {pid} (sleep), state S")), "{error}");
    assert!(error.contains("device or resource busy"), "{error}");
}

#[test]
fn undo_removes_what_was_made() {
    if !on_v1() || !has("memory") {
        return;
    }
    // memory.limit_in_bytes takes no limit below -1: the kernel refuses at the end of much work.
    let mut resources = Resources::default();
    resources.memory.limit = Some(-5);
    let name = unique("undone");
    let error = Made::try_new(Some(&format!("/{name}/deep")), resources).err().unwrap();
    assert!(matches!(&error, Error::Cgroup { value, .. } if value == "-5"), "{error}");
    for hierarchy in CgroupLayout::probe().unwrap().v1 {
        assert!(!hierarchy.mountpoint.join(&name).exists());
    }
}

#[test]
fn rootless_goes_without_when_nothing_was_asked() {
    let read_only = "for m in $(grep -o '/sys/fs/cgroup/[^ ]* ' /proc/self/mountinfo); do mount -o remount,bind,ro $m; done";
    if !on_v1() && std::env::var_os(INSIDE).is_none()
        || !again_after("rootless_goes_without_when_nothing_was_asked", read_only)
    {
        return;
    }
    let create = |path: Option<String>, resources, euid| {
        let facts = Facts { euid, rootless: euid != 0, ..facts() };
        let plan = cgroup::plan(
            &ContainerId::new("no").unwrap(),
            &config(path, resources),
            &facts,
            Driver::Cgroupfs,
        )?;
        let mut undo = Undo::new();
        cgroup::create(&plan, &mut undo).map_err(|error| undo.unwind(error))
    };
    let created = create(None, Resources::default(), 1000).unwrap();
    assert_eq!((created.paths().v1.len(), &created.paths().v2), (0, &None));
    assert!(created.entry().unwrap().is_empty());
    created.join(1).unwrap();
    let mut limited = Resources::default();
    limited.memory.limit = Some(1 << 26);
    for (path, resources, euid) in [
        (None, limited, 1000),
        (Some("/no".to_owned()), Resources::default(), 1000),
        (None, Resources::default(), 0),
    ] {
        let error = create(path, resources, euid).unwrap_err();
        assert_eq!(error.errno(), Some(nix::errno::Errno::EROFS), "{error}");
    }
}

#[test]
fn v1_exec_into_sub_cgroups() {
    if !on_v1() || !has("cpu") || !has("pids") {
        return;
    }
    let mut made = Made::new(&format!("/{}", unique("exec")), Resources::default());
    let (init, pid) = (made.sleeper(), made.outsider());
    made.paths.join_for_exec(pid, init, &[]).unwrap();
    assert_eq!(membership(pid), membership(init));
    fs::create_dir(made.folder("cpu").join("sub")).unwrap();
    made.paths.join_for_exec(pid, init, &[(vec!["cpu".into()], "sub".into())]).unwrap();
    assert!(membership(pid).lines().any(|l| l.contains(":cpu") && l.ends_with("/sub")));
    assert!(!membership(pid).lines().any(|l| l.contains(":pids:") && l.ends_with("/sub")));
    let error = made.paths.join_for_exec(pid, init, &[(vec![], "../..".into())]).unwrap_err();
    assert_eq!(error.to_string(), "bad sub cgroup path: ../..");
    assert!(!made.paths.entry_for_exec(&[]).unwrap().tasks.is_empty());
}

#[test]
fn v2_exec_follows_init_when_the_top_takes_nobody() {
    if !on_v2("v2_exec_follows_init_when_the_top_takes_nobody") {
        return;
    }
    let available = CgroupLayout::probe().unwrap().v2.unwrap().controllers;
    let Some(controller) = available.iter().find(|c| ["hugetlb", "memory", "io"].contains(&c.as_str()))
    else {
        skip_this("domain_controller", "none on v2");
        return;
    };
    let mut made = Made::new(&format!("/{}/x", unique("busy")), Resources::default());
    let (init, pid) = (made.sleeper(), made.outsider());
    let top = made.folder("");
    fs::create_dir(top.join("init")).unwrap();
    fs::write(top.join("init/cgroup.procs"), init.to_string()).unwrap();
    fs::write(top.join("cgroup.subtree_control"), format!("+{controller}")).unwrap();
    made.paths.join_for_exec(pid, init, &[]).unwrap();
    assert_eq!(membership(pid), membership(init));
    let busy = made.paths.join_for_exec(pid, init, &[(vec![], "/".into())]).unwrap_err();
    assert_eq!(busy.errno(), Some(nix::errno::Errno::EBUSY));
    let entry = made.paths.entry_for_exec(&[]).unwrap();
    assert!(entry.tasks.is_empty() && entry.v2.is_some());
    made.paths.open_of_init(init).unwrap();
    let outside = made.outsider();
    assert!(made.paths.open_of_init(outside).unwrap_err().to_string().contains("has left"));
}

#[test]
fn v2_devices() {
    if !on_v2("v2_devices") {
        return;
    }
    let path = format!("/{}", unique("bpf"));
    let resources = || Resources {
        devices: vec![rule(false, None, None, None), rule(true, Some(DeviceKind::Char), Some(10), Some(200))],
        ..Resources::default()
    };
    let made = Made::new(&path, resources());
    denies_kmsg_and_allows_null(&made);
    // A second filter in a cgroup that was there takes the place of the first.
    let all = Resources { devices: vec![rule(true, None, None, None)], ..Resources::default() };
    std::mem::forget(Made::try_new(Some(&path), resources()).unwrap());
    denies_kmsg_and_allows_null(&made);
    drop(made);
    let made = Made::new(&path, all);
    assert!(made.created.entry().unwrap().v2.is_some());
}

#[test]
fn v2_unified_and_enabling() {
    if !on_v2("v2_unified_and_enabling") {
        return;
    }
    let (file, value) = ("hugetlb.2MB.max", "4194304");
    let available = CgroupLayout::probe().unwrap().v2.unwrap().controllers;
    if !available.iter().any(|c| c == "hugetlb") {
        skip_this("controller (\"hugetlb\")", "not on v2");
        return;
    }
    let unified = |file: &str| Resources {
        unified: BTreeMap::from([(file.to_owned(), value.to_owned())]),
        ..Resources::default()
    };
    // Two levels down: each one above has to hand the controller on.
    let made = Made::new(&format!("/{}/deep", unique("unified")), unified(file));
    assert_eq!(made.read("", file), value);
    let refused = |file: &str| {
        Made::try_new(Some(&format!("/{}", unique("refused"))), unified(file)).err().unwrap().to_string()
    };
    let missing = refused("nosuch.max");
    assert_eq!(missing, "unified resource \"nosuch.max\" can't be set: controller \"nosuch\" not available");
    let wrong = refused("hugetlb.nosuch");
    assert!(wrong.contains("hugetlb.nosuch: no such file or directory"), "{wrong}");
    let mut memory = Resources::default();
    memory.memory.limit = Some(1 << 26);
    if !available.iter().any(|c| c == "memory") {
        let error = Made::try_new(Some("/never"), memory).err().unwrap().to_string();
        assert!(
            error.starts_with("cannot set memory limit: the memory controller is not available"),
            "{error}"
        );
        assert!(!Path::new("/sys/fs/cgroup/never").exists());
    }
}

#[test]
fn unified_on_v1_is_refused() {
    if !on_v1() {
        return;
    }
    let unified = BTreeMap::from([("memory.high".to_owned(), "1".to_owned())]);
    let error = Made::try_new(Some("/never"), Resources { unified, ..Resources::default() }).err().unwrap();
    assert!(error.to_string().contains("cannot use unified on cgroup v1"), "{error}");
}

#[test]
fn rootless_goes_without_what_somebody_else_has_made() {
    let name = "rootless_goes_without_what_somebody_else_has_made";
    let read_only = "for m in $(grep -o '/sys/fs/cgroup/[^ ]* ' /proc/self/mountinfo); do mount -o remount,bind,ro $m; done";
    let facts = Facts { euid: 1000, rootless: true, ..facts() };
    let inside = std::env::var_os(INSIDE).is_some();
    // The run inside is a child of the one outside.
    let outside = if inside { std::os::unix::process::parent_id() } else { std::process::id() };
    let id = ContainerId::new(&format!("tare-test-{outside}-somebody")).unwrap();
    let plan = cgroup::plan(&id, &config(None, Resources::default()), &facts, Driver::Cgroupfs).unwrap();
    if inside {
        let mut undo = Undo::new();
        let created = cgroup::create(&plan, &mut undo).map_err(|error| undo.unwind(error)).unwrap();
        assert_eq!((created.paths().v1.len(), &created.paths().v2), (0, &None));
    } else if on_v1() {
        let folders: Vec<PathBuf> = plan.paths().v1.into_iter().map(|place| place.folder).collect();
        folders.iter().for_each(|folder| fs::create_dir(folder).unwrap());
        again_after(name, read_only);
        folders.iter().for_each(|folder| fs::remove_dir(folder).unwrap());
    }
}

#[test]
fn what_a_dying_process_makes_below_is_removed_too() {
    if !on_v1() {
        return;
    }
    let mut made = Made::new(&format!("/{}", unique("late")), Resources::default());
    made.sleeper();
    let below: Vec<PathBuf> = made.paths.v1.iter().map(|place| place.folder.join("late")).collect();
    let paths = made.paths.clone();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // By then the first look at what is below is over, and the removal waits.
            std::thread::sleep(Duration::from_millis(300));
            below.iter().for_each(|folder| fs::create_dir(folder).unwrap());
            paths.kill_all(9).unwrap();
        });
        made.paths.remove().unwrap();
    });
    assert!(below.iter().all(|folder| !folder.parent().unwrap().exists()));
}

#[test]
fn who_may_not_be_killed_saves_nobody_else_and_may_fork_again() {
    let name = "who_may_not_be_killed_saves_nobody_else_and_may_fork_again";
    let without_cap_kill = "set -- setpriv --bounding-set -kill --inh-caps -kill \"$@\"";
    if !(std::env::var_os(INSIDE).is_some() || on_v1() && has("pids")) || !again_after(name, without_cap_kill)
    {
        return;
    }
    use std::os::unix::process::CommandExt;
    let mut made = Made::new(&format!("/{}", unique("other")), Resources::default());
    // It ends with its stdin.
    let mut other = Command::new("cat").uid(1000).stdin(Stdio::piped()).spawn().unwrap();
    made.created.join(other.id().try_into().unwrap()).unwrap();
    let ours = made.sleeper();
    let error = made.paths.kill_all(9).unwrap_err();
    assert_eq!(error.errno(), Some(nix::errno::Errno::EPERM), "{error}");
    soon("the other one has ended", || state(ours) == 'Z');
    assert_eq!(made.read("pids", "pids.max"), "max");
    drop(other.stdin.take());
    other.wait().unwrap();
}
