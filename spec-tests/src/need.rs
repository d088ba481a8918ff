//! What a test needs of the host. A missing need skips the test, never silently.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

use nix::sys::statfs::{CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC, statfs};

/// `need!(root, cgroup_v1, controller("memory"))`: returns from the test, loudly, when the host lacks one.
#[macro_export]
macro_rules! need {
    ($($need:ident $(($($argument:expr),*))?),+ $(,)?) => {
        $(
            if let Err(reason) = $crate::need::$need($($($argument),*)?) {
                fn here() {}
                let need = stringify!($need $(($($argument),*))?);
                $crate::need::skip($crate::need::test_name(here), need, &reason);
                return;
            }
        )+
    };
}

/// The path of the function around `here`, which the macro declares inside the test.
pub fn test_name<T>(_: T) -> &'static str {
    let name = std::any::type_name::<T>();
    let name = name.strip_suffix("::here").unwrap_or(name);
    name.strip_suffix("::{{closure}}").unwrap_or(name)
}

/// Says that a test is skipped: on stderr and in the file that `SKIPS` names.
///
/// # Panics
/// In CI (`CI=true` or `EXPECT_NO_SKIPS`), unless `EXPECTED_SKIPS`, a list with commas, names the need.
pub fn skip(test: &str, need: &str, reason: &str) {
    let line = format!("SKIP {test}: needs {need}: {reason}\n");
    eprint!("{line}");
    if let Some(path) = std::env::var_os("SKIPS") {
        let mut file = OpenOptions::new().create(true).append(true).open(path).expect("the file of SKIPS");
        file.write_all(line.as_bytes()).expect("the file of SKIPS");
    }
    let strict =
        std::env::var("CI").is_ok_and(|v| v == "true") || std::env::var_os("EXPECT_NO_SKIPS").is_some();
    let expected = std::env::var("EXPECTED_SKIPS").unwrap_or_default();
    assert!(!strict || expected.split(',').any(|e| e.trim() == need), "a skip that was not expected: {line}");
}

/// The same in the tests of other crates, where a helper finds that something is missing: the test has the name
/// of its thread.
pub fn skip_this(need: &str, reason: &str) {
    skip(std::thread::current().name().unwrap_or("?"), need, reason);
}

fn when(holds: bool, reason: impl Into<String>) -> Result<(), String> {
    if holds { Ok(()) } else { Err(reason.into()) }
}

fn exists(path: &str) -> Result<(), String> {
    when(Path::new(path).exists(), format!("no {path}"))
}

pub fn root() -> Result<(), String> {
    when(nix::unistd::geteuid().is_root(), "not root")
}

/// `/sys/fs/cgroup` is the unified hierarchy.
pub fn is_cgroup_v2() -> bool {
    statfs("/sys/fs/cgroup").is_ok_and(|s| s.filesystem_type() == CGROUP2_SUPER_MAGIC)
}

/// Whether a cgroup file system, of either version, is at this path.
pub(crate) fn is_cgroup(path: &Path) -> bool {
    statfs(path).is_ok_and(|s| [CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC].contains(&s.filesystem_type()))
}

/// Controllers in hierarchies of their own; hybrid counts, as its limits are there.
pub fn cgroup_v1() -> Result<(), String> {
    when(!is_cgroup_v2() && Path::new("/sys/fs/cgroup/memory").exists(), "no cgroup v1 at /sys/fs/cgroup")
}

/// One unified hierarchy at `/sys/fs/cgroup`.
pub fn cgroup_v2() -> Result<(), String> {
    when(is_cgroup_v2(), "/sys/fs/cgroup is not cgroup v2")
}

/// A cgroup controller that containers can be given, in whichever version the host has.
pub fn controller(name: &str) -> Result<(), String> {
    let there = if is_cgroup_v2() && name == "devices" {
        // Programs decide there (Linux 4.15), in any cgroup.
        return kernel(4, 15);
    } else if is_cgroup_v2() {
        let list = std::fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default();
        list.split_whitespace().any(|word| word == name)
    } else {
        Path::new("/sys/fs/cgroup").join(name).exists()
    };
    when(there, format!("no cgroup controller {name}"))
}

/// An ordinary user to whom the cgroup around our own was given, as `integration/vm/run.sh --user` does.
pub fn delegated_cgroup() -> Result<(), String> {
    cgroup_v2()?;
    when(!nix::unistd::geteuid().is_root(), "root needs no delegation")?;
    let own = std::fs::read_to_string("/proc/self/cgroup").map_err(|e| e.to_string())?;
    let own = own.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
    let above = Path::new("/sys/fs/cgroup").join(own).join("../cgroup.procs");
    let writable = OpenOptions::new().write(true).open(&above).map(drop);
    writable.map_err(|error| format!("{}: {error}", above.display()))
}

/// A limit of swap, whether there is any swap or not.
pub fn swap_limit() -> Result<(), String> {
    exists(if is_cgroup_v2() { "/proc/swaps" } else { "/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes" })
}

/// Nothing can be written out to make room.
pub fn no_swap() -> Result<(), String> {
    let swaps = std::fs::read_to_string("/proc/swaps").unwrap_or_default();
    when(swaps.lines().count() <= 1, "there is swap")
}

/// The controller of block devices, by its name in each version.
pub fn block_io() -> Result<(), String> {
    controller(if is_cgroup_v2() { "io" } else { "blkio" })
}

/// Not User Mode Linux, which panics when a process is killed in the middle of its clone(2).
pub fn kernel_of_its_own() -> Result<(), String> {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").map_err(|e| e.to_string())?;
    when(!cpuinfo.contains("User Mode Linux"), "this is User Mode Linux")
}

/// Control groups that can be frozen: on v2 all of them can (Linux 5.2).
pub fn freezer() -> Result<(), String> {
    if is_cgroup_v2() { kernel(5, 2) } else { controller("freezer") }
}

/// `root` may make user namespaces.
pub fn userns() -> Result<(), String> {
    exists("/proc/self/ns/user")?;
    let limit = std::fs::read_to_string("/proc/sys/user/max_user_namespaces").unwrap_or_default();
    when(limit.trim() != "0", "user.max_user_namespaces is 0")
}

/// An ordinary user may make user namespaces.
pub fn unprivileged_userns() -> Result<(), String> {
    userns()?;
    let knob = std::fs::read_to_string("/proc/sys/kernel/unprivileged_userns_clone").unwrap_or_default();
    when(knob.trim() != "0", "kernel.unprivileged_userns_clone is 0")?;
    let knob = "/proc/sys/kernel/apparmor_restrict_unprivileged_userns";
    let restricted = std::fs::read_to_string(knob).unwrap_or_default();
    when(restricted.trim() != "1", "kernel.apparmor_restrict_unprivileged_userns is 1")
}

/// Linux 5.6.
pub fn timens() -> Result<(), String> {
    exists("/proc/self/ns/time")
}

/// The programs of the package uidmap.
pub fn newuidmap() -> Result<(), String> {
    exists("/usr/bin/newuidmap")?;
    exists("/usr/bin/newgidmap")
}

/// systemd is PID 1, and we are root.
pub fn systemd() -> Result<(), String> {
    root()?;
    exists("/run/systemd/system")
}

/// An ordinary user with a systemd of his own.
pub fn systemd_user() -> Result<(), String> {
    exists("/run/systemd/system")?;
    when(!nix::unistd::geteuid().is_root(), "we are root")?;
    let dir = std::env::var("XDG_RUNTIME_DIR").map_err(|_| "no XDG_RUNTIME_DIR".to_owned())?;
    exists(&format!("{dir}/systemd/private"))
}

/// A kernel of at least this version.
pub fn kernel(major: u32, minor: u32) -> Result<(), String> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").map_err(|e| e.to_string())?;
    let mut numbers = release.split(['.', '-']).map_while(|n| n.trim().parse::<u32>().ok());
    let own = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    when(own >= (major, minor), format!("kernel {} is older than {major}.{minor}", release.trim()))
}

fn is_on(module: &str) -> bool {
    match module {
        "apparmor" => std::fs::read_to_string("/sys/module/apparmor/parameters/enabled")
            .is_ok_and(|text| text.starts_with('Y')),
        _ => Path::new("/sys/fs/selinux/enforce").exists(),
    }
}

/// AppArmor is on, and profiles can be loaded.
pub fn apparmor() -> Result<(), String> {
    when(is_on("apparmor"), "AppArmor is off")?;
    exists("/sys/kernel/security/apparmor/.replace")?;
    exists("/usr/sbin/apparmor_parser")
}

pub fn no_apparmor() -> Result<(), String> {
    when(!is_on("apparmor"), "AppArmor is on")
}

/// SELinux is on, with a policy that knows containers.
pub fn selinux() -> Result<(), String> {
    when(is_on("selinux"), "SELinux is off")?;
    let known = std::fs::write("/sys/fs/selinux/context", "system_u:system_r:container_t:s0:c1,c2");
    known.map_err(|error| format!("its policy has no container_t: {error}"))
}

pub fn no_selinux() -> Result<(), String> {
    when(!is_on("selinux"), "SELinux is on")
}

/// File systems whose server is a process.
pub fn fuse() -> Result<(), String> {
    let opened = OpenOptions::new().read(true).write(true).open("/dev/fuse");
    opened.map(drop).map_err(|e| format!("/dev/fuse: {e}"))
}

/// `integration/install.sh` installs it.
pub fn strace() -> Result<(), String> {
    exists("/usr/bin/strace")
}

/// At least this many processors to run on.
pub fn cpus(count: usize) -> Result<(), String> {
    let own = std::thread::available_parallelism().map_or(1, usize::from);
    when(own >= count, format!("{own} processors"))
}

/// A capability in the tests' own permitted set, by its number.
pub fn capability(number: u8) -> Result<(), String> {
    let status = std::fs::read_to_string("/proc/self/status").map_err(|e| e.to_string())?;
    let mask = status.lines().find_map(|l| l.strip_prefix("CapPrm:")).unwrap_or("0");
    let mask = u64::from_str_radix(mask.trim(), 16).map_err(|e| e.to_string())?;
    when(mask >> number & 1 == 1, format!("no capability {number}"))
}
