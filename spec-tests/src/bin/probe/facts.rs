//! The verb `facts`: one JSON object. What cannot be read is null.

use std::collections::BTreeMap;
use std::fs;

use serde_json::{Map, Value, json};
use spec_tests::spec::CAPABILITIES;

use crate::sys;

const RLIMITS: [(&str, u32); 16] = [
    ("RLIMIT_AS", libc::RLIMIT_AS),
    ("RLIMIT_CORE", libc::RLIMIT_CORE),
    ("RLIMIT_CPU", libc::RLIMIT_CPU),
    ("RLIMIT_DATA", libc::RLIMIT_DATA),
    ("RLIMIT_FSIZE", libc::RLIMIT_FSIZE),
    ("RLIMIT_LOCKS", libc::RLIMIT_LOCKS),
    ("RLIMIT_MEMLOCK", libc::RLIMIT_MEMLOCK),
    ("RLIMIT_MSGQUEUE", libc::RLIMIT_MSGQUEUE),
    ("RLIMIT_NICE", libc::RLIMIT_NICE),
    ("RLIMIT_NOFILE", libc::RLIMIT_NOFILE),
    ("RLIMIT_NPROC", libc::RLIMIT_NPROC),
    ("RLIMIT_RSS", libc::RLIMIT_RSS),
    ("RLIMIT_RTPRIO", libc::RLIMIT_RTPRIO),
    ("RLIMIT_RTTIME", libc::RLIMIT_RTTIME),
    ("RLIMIT_SIGPENDING", libc::RLIMIT_SIGPENDING),
    ("RLIMIT_STACK", libc::RLIMIT_STACK),
];

pub(crate) fn all() -> Value {
    // First of all, before reading opens descriptors of its own.
    let fds = descriptors();
    let status = status();
    let (hostname, domainname) = sys::names();
    let words = |key: &str| -> Vec<u32> {
        status
            .get(key)
            .map(|v| v.split_whitespace().filter_map(|w| w.parse().ok()).collect())
            .unwrap_or_default()
    };
    let mask = |key: &str| status.get(key).and_then(|v| u64::from_str_radix(v, 16).ok());
    let capabilities = |key: &str| mask(key).map(names_of);
    // Without 32 and 33, which C libraries keep for themselves (signal(7)): what a caller's library left there
    // is not for a runtime to change.
    let numbers =
        |m| bits(m).into_iter().map(|b| b + 1).filter(|n| ![32, 33].contains(n)).collect::<Vec<_>>();
    let signals = |key: &str| mask(key).map(numbers);
    let number = |key: &str| status.get(key).and_then(|v| v.parse::<i64>().ok());
    let identity = json!({
        "args": std::env::args_os().map(|a| a.to_string_lossy().into_owned()).collect::<Vec<_>>(),
        "env": std::env::vars_os()
            .map(|(k, v)| (k.to_string_lossy().into_owned(), json!(v.to_string_lossy())))
            .collect::<Map<_, _>>(),
        "cwd": std::env::current_dir().ok(),
        "exe": fs::read_link("/proc/self/exe").ok(),
        // Real, effective, saved, file system.
        "uid": words("Uid"),
        "gid": words("Gid"),
        "groups": words("Groups"),
        "umask": status.get("Umask").and_then(|v| u32::from_str_radix(v, 8).ok()),
        "capabilities": {
            "bounding": capabilities("CapBnd"), "effective": capabilities("CapEff"),
            "permitted": capabilities("CapPrm"), "inheritable": capabilities("CapInh"),
            "ambient": capabilities("CapAmb"),
        },
        "no_new_privs": number("NoNewPrivs"),
        "seccomp": number("Seccomp"),
        "seccomp_filters": number("Seccomp_filters"),
        "ignored": signals("SigIgn"),
        "blocked": signals("SigBlk"),
        "caught": signals("SigCgt"),
    });
    let process = json!({
        "pid": std::process::id(),
        "ppid": nix::unistd::getppid().as_raw(),
        "pgid": nix::unistd::getpgrp().as_raw(),
        "sid": nix::unistd::getsid(None).ok().map(nix::unistd::Pid::as_raw),
        "tracer": number("TracerPid"),
        "dumpable": sys::syscall(libc::SYS_prctl, [libc::PR_GET_DUMPABLE.into(), 0, 0, 0, 0, 0]).ok(),
        "parent_death_signal": sys::parent_death_signal(),
        "rlimits": RLIMITS.iter().map(|(n, r)| ((*n).to_owned(), sys::rlimit(*r))).collect::<Map<_, _>>(),
        "scheduler": sys::scheduler(),
        "ioprio": ioprio(),
        "affinity": affinity(),
        "memory_policy": sys::memory_policy(),
        "personality": sys::syscall(libc::SYS_personality, [0xffff_ffff, 0, 0, 0, 0, 0]).ok(),
        "oom_score_adj": text("/proc/self/oom_score_adj").and_then(|t| t.parse::<i32>().ok()),
    });
    let surroundings = json!({
        "hostname": hostname,
        "domainname": domainname,
        "namespaces": namespaces(),
        "uid_map": table("/proc/self/uid_map"),
        "gid_map": table("/proc/self/gid_map"),
        "setgroups": text("/proc/self/setgroups"),
        "timens_offsets": table("/proc/self/timens_offsets"),
        "clocks": clocks(),
        "cgroups": text("/proc/self/cgroup").map(|t| t.lines().map(str::to_owned).collect::<Vec<_>>()),
        "mounts": mounts(),
        "fds": fds,
        "tty": tty(),
        "keyring": sys::session_keyring().ok(),
        "keyring_label": sys::session_keyring_label().ok(),
        "apparmor": text("/proc/self/attr/current"),
        "interfaces": interfaces(),
    });
    let mut facts = Map::new();
    for part in [identity, process, surroundings] {
        if let Value::Object(part) = part {
            facts.extend(part);
        }
    }
    Value::Object(facts)
}

fn text(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|t| t.trim_end().to_owned())
}

/// Lines of words.
fn table(path: &str) -> Option<Vec<Vec<String>>> {
    text(path).map(|t| t.lines().map(|l| l.split_whitespace().map(str::to_owned).collect()).collect())
}

fn status() -> BTreeMap<String, String> {
    let text = text("/proc/self/status").unwrap_or_default();
    let pair = |line: &str| line.split_once(':').map(|(k, v)| (k.to_owned(), v.trim().to_owned()));
    text.lines().filter_map(pair).collect()
}

fn bits(mask: u64) -> Vec<u32> {
    (0..64).filter(|bit| mask >> bit & 1 == 1).collect()
}

fn names_of(mask: u64) -> Vec<String> {
    let name =
        |bit: u32| CAPABILITIES.get(bit as usize).map_or_else(|| format!("CAP_{bit}"), |n| (*n).to_owned());
    bits(mask).into_iter().map(name).collect()
}

/// Number to target; that of the listing itself is left out.
fn descriptors() -> Option<Map<String, Value>> {
    let mut found = Map::new();
    for entry in fs::read_dir("/proc/self/fd").ok()?.flatten() {
        let number = entry.file_name().to_string_lossy().into_owned();
        if let Ok(target) = fs::read_link(entry.path()) {
            let own = format!("/proc/{}/fd", std::process::id());
            if target.as_os_str() != own.as_str() {
                found.insert(number, json!(target));
            }
        }
    }
    Some(found)
}

fn ioprio() -> Option<i64> {
    const IOPRIO_WHO_PROCESS: i64 = 1;
    sys::syscall(libc::SYS_ioprio_get, [IOPRIO_WHO_PROCESS, 0, 0, 0, 0, 0]).ok()
}

fn affinity() -> Option<Vec<usize>> {
    let set = nix::sched::sched_getaffinity(nix::unistd::Pid::from_raw(0)).ok()?;
    Some((0..nix::sched::CpuSet::count()).filter(|cpu| set.is_set(*cpu).unwrap_or(false)).collect())
}

fn namespaces() -> Map<String, Value> {
    let kinds = [
        "cgroup",
        "ipc",
        "mnt",
        "net",
        "pid",
        "pid_for_children",
        "time",
        "time_for_children",
        "user",
        "uts",
    ];
    let link = |kind: &str| fs::read_link(format!("/proc/self/ns/{kind}")).ok();
    kinds.iter().map(|kind| ((*kind).to_owned(), json!(link(kind)))).collect()
}

fn clocks() -> Value {
    use nix::time::{ClockId, clock_gettime};
    let seconds = |clock| clock_gettime(clock).ok().map(|t| t.tv_sec());
    json!({ "monotonic": seconds(ClockId::CLOCK_MONOTONIC), "boottime": seconds(ClockId::CLOCK_BOOTTIME) })
}

/// `/proc/self/mountinfo`, in order; proc_pid_mountinfo(5).
fn mounts() -> Option<Vec<Value>> {
    let text = text("/proc/self/mountinfo")?;
    let parse = |line: &str| {
        let (left, right) = line.split_once(" - ")?;
        let left: Vec<&str> = left.split(' ').collect();
        let right: Vec<&str> = right.split(' ').collect();
        let list = |options: &str| options.split(',').map(str::to_owned).collect::<Vec<_>>();
        Some(json!({
            "id": left.first()?, "parent": left.get(1)?, "device": left.get(2)?, "root": left.get(3)?,
            "target": left.get(4)?.replace("\\040", " "), "options": list(left.get(5)?), "propagation": left.get(6..)?,
            "type": right.first()?, "source": right.get(1)?, "super": list(right.get(2).unwrap_or(&"")),
        }))
    };
    Some(text.lines().filter_map(parse).collect())
}

fn tty() -> Value {
    let is = |fd| sys::window_size(fd).is_some();
    json!({
        "stdin": is(0), "stdout": is(1), "stderr": is(2), "size": sys::window_size(0),
        "name": fs::read_link("/proc/self/fd/0").ok(),
        "controlling": fs::File::open("/dev/tty").is_ok(),
    })
}

fn interfaces() -> Option<Vec<String>> {
    let text = text("/proc/self/net/dev")?;
    Some(text.lines().filter_map(|l| l.split_once(':')).map(|(name, _)| name.trim().to_owned()).collect())
}
