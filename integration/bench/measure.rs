//! The rounds, and the table of their medians.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::{Options, limits, list};

const OPERATIONS: [&str; 6] = ["run", "create", "start", "exec", "state", "delete"];
/// The first rounds fill the caches and are not counted.
const WARM_UP: usize = 3;

/// One runtime's container and times.
pub(crate) struct Candidate {
    pub(crate) runtime: PathBuf,
    pub(crate) name: String,
    dir: PathBuf,
    /// By operation.
    times: [Vec<Duration>; OPERATIONS.len()],
}

pub(crate) struct Table {
    names: Vec<String>,
    /// By operation, by candidate.
    medians: Vec<Vec<Duration>>,
    floor: Option<Duration>,
    rounds: usize,
    /// What is no time of an operation.
    remarks: Vec<String>,
}

pub(crate) fn measure(options: &Options) -> Result<Table, String> {
    // The containers of `create` become this process's children, so it hears at once when they end.
    nix::sys::prctl::set_child_subreaper(true).map_err(|error| format!("prctl: {error}"))?;
    if let Some(cpu) = options.cpu {
        let mut set = nix::sched::CpuSet::new();
        set.set(cpu)
            .and_then(|()| nix::sched::sched_setaffinity(Pid::from_raw(0), &set))
            .map_err(|error| format!("cpu {cpu}: {error}"))?;
    }
    let dir = tempfile::Builder::new().prefix("bench-").tempdir().map_err(|error| error.to_string())?;
    let rootfs = dir.path().join("rootfs");
    prepare_rootfs(&rootfs, &options.idle).map_err(|error| format!("{}: {error}", rootfs.display()))?;
    let config = default_config(options, dir.path(), &rootfs)?;
    let mut candidates = Vec::new();
    for (index, runtime) in options.runtimes.iter().enumerate() {
        let candidate = Candidate::new(runtime, &dir.path().join(index.to_string()), &config)?;
        match candidate.start_waiting() {
            Ok(()) => candidates.push(candidate),
            Err(error) => {
                eprintln!("bench: left out, for it starts no container here: {error}");
                candidate.remove();
            }
        }
    }
    if candidates.is_empty() {
        return Err("no runtime starts a container here".into());
    }

    let mut result = Ok(());
    let mut floor = Vec::new();
    for round in 0..options.rounds + WARM_UP {
        let first = round % candidates.len();
        candidates.rotate_left(first);
        result = candidates.iter_mut().try_for_each(|candidate| candidate.round(round >= WARM_UP));
        candidates.rotate_right(first);
        if let Some(program) = &options.floor {
            let took = timed(Command::new(program).arg(&rootfs).arg(name_in(dir.path())).arg("/idle"))?;
            floor.extend((round >= WARM_UP).then_some(took));
        }
        if result.is_err() {
            break;
        }
    }
    let mut remarks = Vec::new();
    if result.is_ok() && options.listed > 0 {
        result = list::measure(&candidates[0], options.listed).map(|line| remarks.push(line));
    }
    for candidate in &candidates {
        candidate.remove();
    }
    result?;
    remarks.extend(limits::measure(options)?);
    Ok(Table {
        names: candidates.iter().map(|candidate| candidate.name.clone()).collect(),
        medians: (0..OPERATIONS.len())
            .map(|operation| candidates.iter_mut().map(|c| median(&mut c.times[operation])).collect())
            .collect(),
        floor: (!floor.is_empty()).then(|| median(&mut floor)),
        rounds: options.rounds,
        remarks,
    })
}

/// An id that nothing else on the machine has.
fn name_in(dir: &Path) -> String {
    dir.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn prepare_rootfs(rootfs: &Path, idle: &Path) -> std::io::Result<()> {
    for name in ["dev", "proc", "sys"] {
        std::fs::create_dir_all(rootfs.join(name))?;
    }
    std::fs::copy(idle, rootfs.join("idle"))?;
    Ok(())
}

/// What the last runtime's `spec` writes: the same document for all.
fn default_config(options: &Options, dir: &Path, rootfs: &Path) -> Result<Value, String> {
    let author = options.runtimes.last().ok_or("no runtime")?;
    timed(Command::new(author).arg("spec").current_dir(dir))?;
    let text = std::fs::read_to_string(dir.join("config.json")).map_err(|error| error.to_string())?;
    let mut config: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    config["process"]["terminal"] = json!(false);
    config["root"]["path"] = json!(rootfs);
    Ok(config)
}

impl Candidate {
    fn new(runtime: &Path, dir: &Path, config: &Value) -> Result<Self, String> {
        let version = Command::new(runtime).arg("--version").output().map_err(|error| error.to_string())?;
        let version = String::from_utf8_lossy(&version.stdout).into_owned();
        let name = version.lines().next().unwrap_or_default().replace(" version", "");
        for (bundle, args) in [("ends", json!(["/idle"])), ("waits", json!(["/idle", "wait"]))] {
            let mut config = config.clone();
            config["process"]["args"] = args;
            std::fs::create_dir_all(dir.join(bundle)).map_err(|error| error.to_string())?;
            std::fs::write(dir.join(bundle).join("config.json"), config.to_string())
                .map_err(|error| error.to_string())?;
        }
        let times = std::array::from_fn(|_| Vec::new());
        Ok(Self { runtime: runtime.to_owned(), name, dir: dir.to_owned(), times })
    }

    /// The container that `exec` and `state` are asked of.
    fn start_waiting(&self) -> Result<(), String> {
        timed(self.command("run", "waits", &["--detach"])).map(drop)
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.dir.join("root")
    }

    fn id(&self, bundle: &str) -> String {
        let top = self.dir.parent().unwrap_or(&self.dir);
        format!("{}-{}-{bundle}", name_in(top), name_in(&self.dir))
    }

    fn command(&self, verb: &str, bundle: &str, options: &[&str]) -> Command {
        self.command_on(verb, bundle, options, bundle)
    }

    /// As the containers of a bundle that have other names.
    pub(crate) fn command_on(&self, verb: &str, bundle: &str, options: &[&str], name: &str) -> Command {
        let mut command = Command::new(&self.runtime);
        command.arg("--root").arg(self.root()).arg(verb).args(options);
        if ["run", "create"].contains(&verb) {
            command.arg("--bundle").arg(self.dir.join(bundle));
        }
        command.arg(self.id(name));
        command
    }

    /// Every operation once.
    fn round(&mut self, counted: bool) -> Result<(), String> {
        let pid_file = self.dir.join("pid");
        let pid_option = ["--pid-file", &pid_file.to_string_lossy()];
        let mut took = [Duration::ZERO; OPERATIONS.len()];
        took[0] = timed(self.command("run", "ends", &[]))?;
        took[1] = timed(self.command("create", "ends", &pid_option))?;
        took[2] = timed(self.command("start", "ends", &[]))?;
        let pid = std::fs::read_to_string(&pid_file).map_err(|error| format!("pid file: {error}"))?;
        let pid = pid.trim().parse().map_err(|error| format!("pid file: {pid:?}: {error}"))?;
        waitpid(Pid::from_raw(pid), None).map_err(|error| format!("wait for the container: {error}"))?;
        took[3] = timed(self.command("exec", "waits", &[]).arg("/idle"))?;
        took[4] = timed(self.command("state", "waits", &[]))?;
        took[5] = timed(self.command("delete", "ends", &[]))?;
        if counted {
            self.times.iter_mut().zip(took).for_each(|(times, took)| times.push(took));
        }
        Ok(())
    }

    /// Whatever state it is in. A runtime that failed may have left a cgroup that its `delete` does not find.
    fn remove(&self) {
        for bundle in ["ends", "waits"] {
            if let Err(error) = timed(self.command("delete", bundle, &["--force"])) {
                eprintln!("bench: {error}");
            }
            let hierarchies = std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten();
            let left = hierarchies.map(|entry| entry.path().join(self.id(bundle)));
            for cgroup in left.chain([Path::new("/sys/fs/cgroup").join(self.id(bundle))]) {
                if cgroup.is_dir()
                    && let Err(error) = std::fs::remove_dir(&cgroup)
                {
                    eprintln!("bench: {}: {error}", cgroup.display());
                }
            }
        }
    }
}

/// The time from before the spawn, which is vfork(2) and execve(2), to the end of the program.
pub(crate) fn timed(mut command: impl std::borrow::BorrowMut<Command>) -> Result<Duration, String> {
    let command = command.borrow_mut().stdin(Stdio::null()).stdout(Stdio::null());
    let begun = Instant::now();
    let status = command.status().map_err(|error| format!("{command:?}: {error}"))?;
    let took = begun.elapsed();
    if status.success() { Ok(took) } else { Err(format!("{command:?}: {status}")) }
}

pub(crate) fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let first =
            self.names.first().map(|name| name.split(' ').next().unwrap_or_default()).unwrap_or_default();
        write!(f, "  µs, median of {}", self.rounds)?;
        for name in &self.names {
            write!(f, "{name:>17}")?;
        }
        for name in self.names.iter().skip(1) {
            let name = name.split(' ').next().unwrap_or_default();
            write!(f, "{:>13}", format!("{first}/{name}"))?;
        }
        writeln!(f)?;
        for (operation, medians) in OPERATIONS.iter().zip(&self.medians) {
            write!(f, "  {operation:<19}")?;
            for median in medians {
                write!(f, "{:>17}", median.as_micros())?;
            }
            for peer in medians.iter().skip(1) {
                write!(f, "{:>13.2}", medians[0].as_secs_f64() / peer.as_secs_f64())?;
            }
            writeln!(f)?;
        }
        if let Some(floor) = self.floor {
            let run = self.medians[0].iter().map(|run| run.as_secs_f64() / floor.as_secs_f64());
            write!(f, "  {:<19}{:>17}  run over it:", "floor (run)", floor.as_micros())?;
            for (name, ratio) in self.names.iter().zip(run) {
                write!(f, "  {} {ratio:.2}", name.split(' ').next().unwrap_or_default())?;
            }
            writeln!(f)?;
        }
        self.remarks.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}
