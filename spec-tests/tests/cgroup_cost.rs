//! What a container's cgroups cost: seen from outside, by `strace`, that the process is born with its limits.
//! Other runtimes need not work so, and are not judged.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;

use spec_tests::call::call;
use spec_tests::need::is_cgroup_v2;
use spec_tests::runtime::under_test;
use spec_tests::{Bundle, Flavor, Value, json, need};

/// The writes of one `run` to files of its cgroups, by name and value, before and after the birth.
struct Trace {
    before: Vec<(String, String)>,
    birth: String,
    after: Vec<(String, String)>,
}

fn trace(bundle: Bundle) -> Trace {
    let container = bundle.container();
    let file = container.dir().join("trace");
    // To its end: strace stays with all that it has seen.
    let run = container.command(["run", "--bundle"]);
    let mut command = std::process::Command::new("strace");
    command.args(["-f", "-y", "-s", "200", "-e", "trace=clone3,write", "-o"]).arg(&file);
    command.arg(run.get_program()).args(run.get_args());
    command.current_dir(container.dir()).arg(container.bundle_path()).arg(container.id());
    call(command).ok();
    let text = fs::read_to_string(&file).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let birth = lines.iter().position(|line| line.contains("CLONE_NEWPID")).expect("a clone3");
    let writes = |lines: &[&str]| lines.iter().filter_map(|line| write_of(line, container.id())).collect();
    Trace { before: writes(&lines[..birth]), birth: lines[birth].to_owned(), after: writes(&lines[birth..]) }
}

/// `4711 write(5</sys/fs/cgroup/ID/pids.max>, "77", 2) = 2`
fn write_of(line: &str, id: &str) -> Option<(String, String)> {
    let (_, call) = line.split_once("write(")?;
    let (path, rest) = call.split_once('<')?.1.split_once(">, \"")?;
    let (folder, file) = path.rsplit_once('/')?;
    let is_ours = path.starts_with("/sys/fs/cgroup") && folder.ends_with(id);
    is_ours.then(|| (file.to_owned(), rest.split_once("\", ").map_or("", |(value, _)| value).to_owned()))
}

fn limited() -> Bundle {
    Bundle::new().probe(["facts"]).linux(|l| {
        let resources = &mut l["resources"];
        if need::controller("pids").is_ok() {
            resources["pids"] = json!({ "limit": 77 });
        }
        if need::controller("memory").is_ok() {
            // The second of them is what the kernel begins with.
            resources["memory"] = json!({ "limit": 104_857_600, "swap": -1 });
        }
        if need::controller("cpu").is_ok() {
            resources["cpu"] = json!({ "shares": 1024, "quota": 50_000 });
        }
    })
}

fn limits_of(resources: &Value, on_v2: bool) -> BTreeMap<&'static str, usize> {
    let names = [
        ("pids", "pids.max", "pids.max"),
        ("memory", "memory.limit_in_bytes", "memory.max"),
        ("cpu", "cpu.cfs_quota_us", "cpu.max"),
    ];
    let asked = names.into_iter().filter(|(key, ..)| !resources[key].is_null());
    asked.map(|(_, v1, v2)| (if on_v2 { v2 } else { v1 }, 1)).collect()
}

#[test]
fn each_limit_is_written_once_and_before_the_process_is_there() {
    need!(root, strace);
    if under_test().flavor != Flavor::Tare {
        return;
    }
    let bundle = limited();
    let expected = limits_of(&bundle.config["linux"]["resources"], is_cgroup_v2());
    let seen = trace(bundle);
    let mut counted = BTreeMap::new();
    // Device rules are many lines to one file, and a cpuset of v1 must be given what it has.
    let is_limit = |f: &str| !f.starts_with("devices.") && !f.starts_with("cpuset.");
    for (file, _) in seen.before.iter().filter(|(f, _)| is_limit(f)) {
        *counted.entry(file.as_str()).or_insert(0) += 1;
    }
    assert_eq!(counted, expected, "{:?}", seen.before);
    assert!(seen.after.iter().all(|(file, _)| file == "tasks"), "{:?}", seen.after);
}

#[test]
fn on_v2_the_process_is_born_in_its_cgroup_and_never_moved() {
    need!(root, cgroup_v2, strace);
    if under_test().flavor != Flavor::Tare {
        return;
    }
    let seen = trace(limited());
    assert!(seen.birth.contains("CLONE_INTO_CGROUP"), "{}", seen.birth);
    assert_eq!(seen.after, []);
    assert!(seen.before.iter().all(|(file, _)| file != "cgroup.procs"), "{:?}", seen.before);
}

/// To move another, or a whole process, costs a grace period of RCU: 10 ms.
#[test]
fn on_v1_the_process_moves_itself_once_into_each_hierarchy() {
    need!(root, cgroup_v1, strace);
    if under_test().flavor != Flavor::Tare {
        return;
    }
    let seen = trace(limited());
    let moves = &seen.after;
    assert!(moves.iter().all(|(file, value)| file == "tasks" && value == "0"), "{moves:?}");
    let memberships = fs::read_to_string("/proc/self/cgroup").unwrap();
    let is_v2 = |line: &&str| line.starts_with("0::");
    assert_eq!(moves.len(), memberships.lines().filter(|line| !is_v2(line)).count(), "{memberships}");
    assert_eq!(seen.birth.contains("CLONE_INTO_CGROUP"), memberships.lines().any(|line| is_v2(&line)));
}
