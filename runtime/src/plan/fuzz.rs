//! Documents that nobody would write, for hosts of all kinds: what is wrong is said with its place, and what is
//! taken has one plan.

use std::cell::Cell;
use std::ffi::CString;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{Options, build};
use crate::cgroup::Driver;
use crate::config::id::ContainerId;
use crate::config::{Config, Process, Resources};
use crate::error::Error;
use crate::host::Facts;

/// The golden plans' folder.
fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/plan")
}

fn files(name: &str) -> Vec<Vec<u8>> {
    let mut paths: Vec<PathBuf> =
        fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path().join(name)).collect();
    paths.sort();
    paths.iter().filter_map(|path| fs::read(path).ok()).collect()
}

fn hosts() -> Vec<Facts> {
    let mut paths: Vec<PathBuf> =
        fs::read_dir(folder().join("hosts")).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| serde_json::from_slice(&fs::read(path).unwrap()).unwrap()).collect()
}

fn options(driver: Driver) -> Options {
    Options {
        bundle: "/bundle".into(),
        driver,
        no_pivot: false,
        no_new_keyring: false,
        preserve_fds: 1,
        env: Vec::new(),
    }
}

/// Each problem is at a place that is in the document, or would be in an object or array that is.
fn problems_have_places(error: &Error, document: &Value) {
    let Error::Config { problems, .. } = error else { panic!("not about the configuration: {error}") };
    assert!(!problems.is_empty());
    for problem in problems {
        assert!(!problem.what.is_empty(), "{problem:?}");
        let pointer = problem.pointer.as_str();
        // What ought to be there is named below the last thing that is.
        let mut known = pointer;
        while document.pointer(known).is_none() {
            known = known.rsplit_once('/').unwrap_or_else(|| panic!("{pointer:?} is no pointer")).0;
        }
        let missing = pointer[known.len()..].matches('/').count();
        assert!(missing <= 3, "{problem:?}: of the place only {known:?} is there");
    }
}

/// What both readers take, both take for the same.
fn agrees_with_oci_spec(config: &Config, document: &[u8]) -> bool {
    let Ok(theirs) = serde_json::from_slice::<oci_spec::runtime::Spec>(document) else { return false };
    let text = |list: &[CString]| -> Vec<String> {
        list.iter().map(|item| item.to_string_lossy().into_owned()).collect()
    };
    if let Some(process) = theirs.process() {
        assert_eq!(text(&config.process.args), process.args().clone().unwrap_or_default());
        assert_eq!(text(&config.process.env), process.env().clone().unwrap_or_default());
        assert_eq!(config.process.user.uid, process.user().uid());
        assert_eq!(config.process.user.gid, process.user().gid());
        assert_eq!(config.process.terminal, process.terminal().unwrap_or(false));
        assert_eq!(config.process.no_new_privileges, process.no_new_privileges().unwrap_or(false));
        assert_eq!(config.process.rlimits.len(), process.rlimits().as_ref().map_or(0, Vec::len));
    }
    assert_eq!(config.mounts.len(), theirs.mounts().as_ref().map_or(0, Vec::len));
    if let Some(linux) = theirs.linux() {
        assert_eq!(config.linux.devices.len(), linux.devices().as_ref().map_or(0, Vec::len));
        assert_eq!(config.linux.seccomp.is_some(), linux.seccomp().is_some());
        let memory = linux.resources().as_ref().and_then(|r| r.memory().as_ref());
        assert_eq!(
            config.linux.resources.memory.limit,
            memory.and_then(oci_spec::runtime::LinuxMemory::limit)
        );
    }
    true
}

#[test]
fn configurations() {
    let (hosts, id) = (hosts(), ContainerId::new("fuzz").unwrap());
    let (round, planned, agreed) = (Cell::new(0_usize), Cell::new(0), Cell::new(0));
    let check = |bytes: &[u8]| {
        let config = match Config::from_slice(bytes, Path::new("config.json"), Path::new("/bundle")) {
            Ok(config) => config,
            Err(error) => {
                let document = serde_json::from_slice(bytes).unwrap_or(Value::Null);
                problems_have_places(&error, &document);
                return false;
            }
        };
        agreed.set(agreed.get() + usize::from(agrees_with_oci_spec(&config, bytes)));
        let document = serde_json::from_slice(bytes).unwrap();
        // One of the hosts and one of the drivers for each document: they are many.
        round.set(round.get() + 1);
        let facts = &hosts[round.get() % hosts.len()];
        let options = options([Driver::Cgroupfs, Driver::Systemd, Driver::Disabled][round.get() % 3]);
        let describe = |plan: super::Plan| {
            let lines = plan.describe();
            (lines.parent, lines.joiner, lines.child, plan.warnings)
        };
        let first = build(&id, &config, facts, &options).map(describe);
        let second = build(&id, &config, facts, &options).map(describe);
        match (first, second) {
            (Ok(first), Ok(second)) => {
                assert_eq!(first, second, "two plans for the same");
                planned.set(planned.get() + 1);
            }
            (Err(first), Err(second)) => {
                assert_eq!(first.to_string(), second.to_string(), "two reasons for the same");
                if matches!(first, Error::Config { .. }) {
                    problems_have_places(&first, &document);
                }
            }
            _ => panic!("planned and not planned"),
        }
        true
    };
    ::fuzz::target("configurations").json().seeds(files("config.json")).rounds(800).run(check);
    assert!(planned.get() > 0 && agreed.get() > 0, "{} planned, {} agreed", planned.get(), agreed.get());
}

/// `exec --process`
#[test]
fn processes() {
    let of_config = |text: Vec<u8>| serde_json::from_slice::<Value>(&text).unwrap()["process"].to_string();
    let seeds = files("config.json").into_iter().map(of_config);
    ::fuzz::target("processes").json().seeds(seeds).rounds(1000).run(|bytes| {
        match Process::from_slice(bytes, Path::new("p.json")) {
            Ok((process, _)) => {
                assert!(!process.args.is_empty() && process.cwd.as_bytes().starts_with(b"/"), "{process:?}");
                true
            }
            Err(error) => {
                problems_have_places(&error, &serde_json::from_slice(bytes).unwrap_or(Value::Null));
                false
            }
        }
    });
}

/// `update --resources`
#[test]
fn resources() {
    let of_config =
        |text: Vec<u8>| serde_json::from_slice::<Value>(&text).unwrap()["linux"]["resources"].to_string();
    let seeds = files("config.json").into_iter().map(of_config).filter(|text| text != "null");
    ::fuzz::target("resources").json().seeds(seeds).rounds(1000).run(|bytes| {
        match Resources::from_slice(bytes, Path::new("r.json")) {
            Ok(_) => true,
            Err(error) => {
                problems_have_places(&error, &serde_json::from_slice(bytes).unwrap_or(Value::Null));
                false
            }
        }
    });
}

/// One list of a document, and what an item of it is by its number.
type List = (&'static str, fn(usize) -> Value);

/// What is long in a document takes time as long, and not the square of it: four times the list, about four times the
/// time. (Of the processor, so that other processes do not count.)
#[test]
fn no_list_takes_the_square_of_its_length() {
    let lists: [List; 15] = [
        ("/process/env", |i| json!(format!("A{i}=x"))),
        ("/process/args", |i| json!(format!("A{i}"))),
        ("/process/user/additionalGids", |i| json!(i)),
        ("/process/capabilities/bounding", |i| json!(format!("CAP_{i}"))),
        ("/process/rlimits", |_| json!({ "type": "RLIMIT_NOFILE", "soft": 1, "hard": 1 })),
        ("/mounts", |i| json!({ "destination": format!("/m/{i}"), "type": "tmpfs", "source": "x" })),
        ("/hooks/prestart", |_| json!({ "path": "/bin/true" })),
        ("/linux/maskedPaths", |i| json!(format!("/p/{i}"))),
        ("/linux/readonlyPaths", |i| json!(format!("/p/{i}"))),
        ("/linux/devices", |i| json!({ "path": format!("/dev/d{i}"), "type": "c", "major": 1, "minor": i })),
        ("/linux/uidMappings", |i| json!({ "containerID": i, "hostID": i, "size": 1 })),
        ("/linux/namespaces", |_| json!({ "type": "pid" })),
        (
            "/linux/resources/devices",
            |i| json!({ "allow": true, "type": "c", "major": i, "minor": i, "access": "r" }),
        ),
        ("/linux/resources/hugepageLimits", |i| json!({ "pageSize": format!("{i}MB"), "limit": i })),
        ("/linux/resources/blockIO/throttleReadBpsDevice", |i| json!({ "major": 1, "minor": i, "rate": 1 })),
    ];
    let (facts, id) = (&hosts()[0], ContainerId::new("fuzz").unwrap());
    let time = |(pointer, item): List, length: usize| {
        let mut document = json!({
            "ociVersion": "1.3.0",
            "process": { "args": ["sh"], "cwd": "/", "user": { "uid": 0, "gid": 0 }, "capabilities": {} },
            "root": { "path": "rootfs" },
            "hooks": {},
            "linux": { "namespaces": [{ "type": "mount" }], "resources": { "blockIO": {} } },
        });
        let (above, key) = pointer.rsplit_once('/').unwrap();
        document.pointer_mut(above).unwrap()[key] = (0..length).map(item).collect();
        let text = document.to_string();
        let now = || nix::time::clock_gettime(nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap();
        let before = now();
        let config = Config::from_slice(text.as_bytes(), Path::new("config.json"), Path::new("/bundle"));
        if let Ok(config) = config {
            drop(build(&id, &config, facts, &options(Driver::Cgroupfs)));
        }
        std::time::Duration::from(now() - before)
    };
    let square: Vec<String> = lists
        .into_iter()
        .filter_map(|list| {
            // The best of three: an interrupt counts as ours.
            let best = |length| (0..3).map(|_| time(list, length)).min().unwrap();
            let (short, long) = (best(1000), best(4000));
            (long > 9 * short).then(|| format!("{}: {short:?}, of four times as many {long:?}", list.0))
        })
        .collect();
    assert!(square.is_empty(), "{}", square.join("\n"));
}
