//! A container, seen from both sides: runs itself as the container's only program and prints what the host and the
//! container see, side by side.
//!
//! ```text
//! demo RUNTIME
//! ```

use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use serde_json::{Value, json};

/// What is looked at, and how it is found out; the same on both sides.
type Sight = (&'static str, fn() -> String);

const SIGHTS: [Sight; 12] = [
    ("my pid", || std::process::id().to_string()),
    ("host name", || line("/proc/sys/kernel/hostname")),
    ("user ids here = outside", || one_line("/proc/self/uid_map", ", ")),
    ("processes", || count(names("/proc").iter().filter(|name| name.parse::<u32>().is_ok()))),
    ("first process", || line("/proc/1/comm")),
    ("mounts", || count(read("/proc/self/mountinfo").lines())),
    ("files in /", || abridged(names("/"), 3)),
    ("devices in /dev", || count(names("/dev").iter())),
    ("network interfaces", || abridged(names("/sys/class/net"), 4)),
    ("capabilities", || {
        status("CapEff", |mask| format!("{} of 41", u64::from_str_radix(mask, 16).unwrap_or(0).count_ones()))
    }),
    ("no new privileges", || {
        status("NoNewPrivs", |flag| if flag == "1" { "yes".into() } else { "no".into() })
    }),
    ("memory limit", memory_limit),
];

fn main() -> ExitCode {
    if std::process::id() == 1 {
        println!("{}", json!(look()));
        return ExitCode::SUCCESS;
    }
    let Some(runtime) = std::env::args_os().nth(1) else {
        eprintln!("usage: demo RUNTIME");
        return ExitCode::from(2);
    };
    match inside(Path::new(&runtime)) {
        Ok(container) => {
            print(&look(), &container);
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("demo: {error}");
            ExitCode::FAILURE
        }
    }
}

fn look() -> Vec<String> {
    SIGHTS.iter().map(|(_, look)| look()).collect()
}

/// Runs this program in a container of the runtime's default configuration, with ids of its own and a memory limit.
fn inside(runtime: &Path) -> Result<Vec<String>, String> {
    let bundle = tempfile::Builder::new().prefix("demo-").tempdir().map_err(|error| error.to_string())?;
    let at = |path: &str| bundle.path().join(path);
    let failed = |what: &str| {
        let what = what.to_owned();
        move |error: std::io::Error| format!("{what}: {error}")
    };
    for dir in ["rootfs/proc", "rootfs/sys", "rootfs/dev"] {
        std::fs::create_dir_all(at(dir)).map_err(failed(dir))?;
    }
    std::fs::copy("/proc/self/exe", at("rootfs/demo")).map_err(failed("copy of this program"))?;
    // The container's root, who is nobody outside, must reach its root filesystem.
    Command::new("chmod").arg("755").arg(bundle.path()).status().map_err(failed("chmod"))?;

    println!("$ {} spec", runtime.display());
    let spec =
        Command::new(runtime).arg("spec").current_dir(bundle.path()).status().map_err(failed("spec"))?;
    if !spec.success() {
        return Err(format!("spec: {spec}"));
    }
    let text = std::fs::read_to_string(at("config.json")).map_err(failed("config.json"))?;
    let mut config: Value = serde_json::from_str(&text).map_err(|error| format!("config.json: {error}"))?;
    adapt(&mut config);
    std::fs::write(at("config.json"), config.to_string()).map_err(failed("config.json"))?;

    println!("$ {} run demo\n", runtime.display());
    let id = bundle.path().file_name().unwrap_or_default();
    let run = Command::new(runtime)
        .arg("--root")
        .arg(at("root"))
        .arg("run")
        .arg(id)
        .current_dir(bundle.path())
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .map_err(failed("run"))?;
    if !run.status.success() {
        return Err(format!("run: {}", run.status));
    }
    serde_json::from_slice(&run.stdout).map_err(|error| format!("what the container said: {error}"))
}

fn adapt(config: &mut Value) {
    config["process"]["terminal"] = json!(false);
    config["process"]["args"] = json!(["/demo"]);
    config["hostname"] = json!("container");
    config["linux"]["resources"]["memory"] = json!({ "limit": 64 << 20 });
    let ids = json!([{ "containerID": 0, "hostID": 100_000, "size": 65536 }]);
    config["linux"]["uidMappings"] = ids.clone();
    config["linux"]["gidMappings"] = ids;
    if let Some(namespaces) = config["linux"]["namespaces"].as_array_mut() {
        namespaces.push(json!({ "type": "user" }));
    }
}

fn print(host: &[String], container: &[String]) {
    println!("{:<25}{:<42}the container sees", "", "the host sees");
    for ((name, _), (host, container)) in SIGHTS.iter().zip(host.iter().zip(container)) {
        println!("{name:<25}{host:<42}{container}");
    }
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| format!("({error})"))
}

fn line(path: &str) -> String {
    read(path).trim().to_owned()
}

/// The lines of a file, with single spaces.
fn one_line(path: &str, between: &str) -> String {
    let text = read(path);
    let lines: Vec<_> =
        text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    lines.join(between)
}

fn names(dir: &str) -> Vec<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

fn count<T>(items: impl Iterator<Item = T>) -> String {
    items.count().to_string()
}

fn abridged(names: Vec<String>, most: usize) -> String {
    match names.len() {
        0 => "none".into(),
        all if all > most => format!("{} and {} more", names[..most].join(" "), all - most),
        _ => names.join(" "),
    }
}

/// A line of `/proc/self/status`.
fn status(key: &str, show: impl Fn(&str) -> String) -> String {
    let status = read("/proc/self/status");
    let value = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    value.map_or_else(|| "?".into(), |value| show(value.trim()))
}

/// Of the own cgroup, as it is seen from here: version 2 or 1.
fn memory_limit() -> String {
    let own = read("/proc/self/cgroup");
    let path_of = |controller: &str| {
        own.lines().find_map(|line| {
            let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
            controllers.split(',').any(|name| name == controller).then(|| path.to_owned())
        })
    };
    // In the container the mount begins at its own cgroup; outside it is found below the hierarchy's root.
    let files = [("memory", "/memory", "memory.limit_in_bytes"), ("", "", "memory.max")];
    for (controller, hierarchy, file) in files {
        let path = path_of(controller).unwrap_or_default();
        for cgroup in [format!("/sys/fs/cgroup{hierarchy}{path}"), format!("/sys/fs/cgroup{hierarchy}")] {
            if let Ok(limit) = std::fs::read_to_string(format!("{cgroup}/{file}")) {
                return match limit.trim().parse::<u64>() {
                    // Version 1 writes "none" as the largest number of pages.
                    Ok(bytes) if bytes < 1 << 62 => format!("{} MiB", bytes >> 20),
                    _ => "none".into(),
                };
            }
        }
    }
    "none".into()
}
