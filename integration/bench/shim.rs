//! A shim beside containerd's own: the start of a container and an exec through containerd, interleaved round by round;
//! memory; and what exec probes cost the processor. Medians, and their ratios to the first one's. No test asserts a time.
//!
//! ```text
//! bench-shim [--rounds N] --idle PROGRAM [RUNTIME...]
//! ```
//!
//! `--idle` is a static program that ends at once, or with an argument waits. The first is the shim under test (`SHIM`),
//! each of the others containerd's shim with that runtime, and the last one a shim that does nothing (`floor_shim.rs`).

mod floor_shim;

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use integration::containerd::{Containerd, Through, fresh_id};
use integration::proto::{Fields, Message};
use integration::shim::{Memory, Stage, Streams};
use integration::{grpc, shim};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::{Value, json};

/// The first rounds fill the caches and are not counted.
const WARM_UP: usize = 3;
/// So many shims share one cgroup, and so many containers follow the first in a pod.
const SHIMS: usize = 100;
const FURTHER: u64 = 20;
const REST: Duration = Duration::from_secs(3);
const STOCK: &str = "/usr/bin/containerd-shim-runc-v2";

struct Candidate {
    name: String,
    kind: Kind,
    /// Microseconds, by round.
    starts: Vec<u64>,
    execs: Vec<u64>,
    /// When `Start` has answered, and later.
    fresh: Option<Memory>,
    memory: Option<Memory>,
    further: u64,
    together: Option<u64>,
    processor: Option<u64>,
}

enum Kind {
    UnderTest,
    /// containerd's own, with this runtime.
    Stock(PathBuf),
    Floor,
}

fn main() -> ExitCode {
    if floor_shim::is_asked_for() {
        return floor_shim::main();
    }
    let mut arguments = std::env::args().skip(1);
    let (mut rounds, mut idle) = (50, None);
    let mut candidates = vec![Candidate::new(Kind::UnderTest)];
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--rounds" => rounds = arguments.next().and_then(|rounds| rounds.parse().ok()).unwrap_or(0),
            "--idle" => idle = arguments.next().map(PathBuf::from),
            _ => candidates.push(Candidate::new(Kind::Stock(argument.into()))),
        }
    }
    let Some(idle) = idle.filter(|_| rounds > 0) else {
        eprintln!("usage: bench-shim [--rounds N] --idle PROGRAM [RUNTIME...]");
        return ExitCode::FAILURE;
    };
    candidates.push(Candidate::new(Kind::Floor));
    through_containerd(&mut candidates, rounds, &idle);
    for candidate in candidates.iter_mut().filter(|candidate| !matches!(candidate.kind, Kind::Floor)) {
        candidate.alone(rounds, &idle);
    }
    show(&candidates, rounds);
    ExitCode::SUCCESS
}

impl Candidate {
    fn new(kind: Kind) -> Self {
        let name_of = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let name = match &kind {
            Kind::UnderTest => name_of(shim::path()).replace("containerd-shim-", ""),
            Kind::Stock(binary) => format!("stock, {}", name_of(binary)),
            Kind::Floor => "nothing".into(),
        };
        let (starts, execs) = (Vec::new(), Vec::new());
        let (fresh, memory) = (None, None);
        Self { name, kind, starts, execs, fresh, memory, further: 0, together: None, processor: None }
    }

    /// Without containerd, in a sandbox for each of the questions.
    fn alone(&mut self, rounds: usize, idle: &Path) {
        let stage = self.stage(idle);
        let bundle = |id: &str| {
            stage.bundle(id, &["/idle", "wait"], |config| {
                older(config);
                config["annotations"] = json!({ "io.kubernetes.cri.sandbox-id": "pod" });
            })
        };
        let first = stage.created(bundle("pod"), Streams::default());
        first.start("").expect("start");
        self.fresh = Some(stage.memory(stage.shims()[0]));
        // A shim is at rest for nearly all of its life.
        std::thread::sleep(REST);
        let before = stage.memory(stage.shims()[0]);
        self.memory = Some(before);
        let others =
            (0..FURTHER).map(|number| stage.created(bundle(&format!("further{number}")), Streams::default()));
        others.for_each(|task| drop(task.start("").expect("start")));
        std::thread::sleep(REST);
        let after = stage.memory(stage.shims()[0]);
        self.further = after.private_dirty.saturating_sub(before.private_dirty) / FURTHER;

        // What 100 of them are charged with, after one that has brought their program into memory.
        let mut stage = self.stage(idle);
        stage
            .created(stage.bundle("first", &["/idle", "wait"], older), Streams::default())
            .start("")
            .expect("start");
        let (memory, processor) = (cgroup(&stage, "memory"), cgroup(&stage, "cpuacct"));
        stage.cgroups = vec![memory.clone(), processor.clone()];
        stage.cgroups.dedup();
        let tasks: Vec<_> = (0..SHIMS)
            .map(|number| {
                let bundle = stage.bundle(&format!("c{number}"), &["/idle", "wait"], older);
                let task = stage.created(bundle, Streams::default());
                task.start("").expect("start");
                task
            })
            .collect();
        std::thread::sleep(REST);
        let charged = first_number(&memory, &["memory.usage_in_bytes", "memory.current"]);
        self.together = charged.map(|bytes| bytes / 1024 / SHIMS as u64);
        // The processor's time of the shim and of what it calls; the container's own is in another cgroup.
        let usage = || {
            let nanoseconds = first_number(&processor, &["cpuacct.usage"]);
            nanoseconds.map(|time| time / 1000).or_else(|| first_number(&processor, &["cpu.stat"]))
        };
        let before = usage();
        for number in 0..rounds {
            let id = format!("e{number}");
            tasks[0].exec(&id, &["/idle"]).expect("exec");
            tasks[0].start(&id).expect("start");
            tasks[0].wait(&id);
            tasks[0].delete(&id).expect("delete");
        }
        let after = usage();
        self.processor = before.zip(after).map(|(before, after)| (after - before) / rounds as u64);
    }

    fn stage(&self, idle: &Path) -> Stage {
        let mut stage = match &self.kind {
            Kind::Stock(_) => Stage::new(Path::new(STOCK)),
            _ => Stage::new(shim::path()),
        };
        stage.binary = match &self.kind {
            Kind::Stock(binary) => Some(binary.clone()),
            _ => None,
        };
        std::fs::copy(idle, stage.sandbox.path("rootfs/idle")).expect("the program");
        stage
    }
}

/// crun 1.8 takes no version that it does not know.
fn older(config: &mut Value) {
    config["ociVersion"] = json!("1.0.2");
}

/// A cgroup for shims: of a hierarchy of v1, or of v2.
fn cgroup(stage: &Stage, controller: &str) -> PathBuf {
    let top = Path::new("/sys/fs/cgroup");
    let hierarchy = Some(top.join(controller)).filter(|dir| dir.is_dir()).unwrap_or_else(|| top.to_owned());
    let dir = hierarchy.join(&stage.sandbox.cgroup[1..]).join("shims");
    std::fs::create_dir_all(&dir).expect("a cgroup");
    dir
}

/// The first number in the first of the files that is there.
fn first_number(cgroup: &Path, files: &[&str]) -> Option<u64> {
    let text = files.iter().find_map(|file| std::fs::read_to_string(cgroup.join(file)).ok())?;
    text.split_whitespace().find_map(|word| word.parse().ok())
}

struct Engine {
    containerd: Containerd,
    config: Value,
}

impl Engine {
    fn call(&self, method: &str, request: &Message) -> Fields {
        let namespace = [("containerd-namespace", "bench")];
        let method = format!("/containerd.services.{method}");
        grpc::call_with(&namespace, &self.containerd.socket(), &method, request)
            .unwrap_or_else(|refusal| panic!("{method}: {refusal:?}"))
    }

    fn container(&self, candidate: &Candidate, args: &[&str]) -> String {
        let id = fresh_id();
        let mut config = self.config.clone();
        config["process"]["args"] = json!(args);
        config["linux"]["cgroupsPath"] = json!(format!("{}/{id}", self.containerd.sandbox.cgroup));
        let runtime = Message::new().bytes(
            1,
            match &candidate.kind {
                Kind::UnderTest => "io.containerd.judged.v2",
                Kind::Stock(_) => "io.containerd.runc.v2",
                Kind::Floor => "io.containerd.floor.v2",
            },
        );
        let spec = config.to_string();
        let container = Message::new().bytes(1, &id).message(4, &runtime);
        let container = container.any(5, "types.containerd.io/opencontainers/runtime-spec/1/Spec", spec);
        self.call("containers.v1.Containers/Create", &Message::new().message(1, &container));
        id
    }

    fn task(&self, candidate: &Candidate, id: &str, stdout: &str, stderr: &str) {
        let request = Message::new().bytes(1, id).bytes(5, stdout).bytes(6, stderr);
        let request = match &candidate.kind {
            Kind::UnderTest | Kind::Floor => request,
            Kind::Stock(binary) => {
                let options = Message::new().bytes(6, binary.to_string_lossy().as_bytes());
                request.any(9, "containerd.runc.v1.Options", options)
            }
        };
        self.call("tasks.v1.Tasks/Create", &request);
        self.call("tasks.v1.Tasks/Start", &Message::new().bytes(1, id));
    }

    fn delete(&self, id: &str) {
        self.call("tasks.v1.Tasks/Wait", &Message::new().bytes(1, id));
        self.call("tasks.v1.Tasks/Delete", &Message::new().bytes(1, id));
        self.call("containers.v1.Containers/Delete", &Message::new().bytes(1, id));
    }

    /// From the call that creates the task to the first byte that it says.
    fn start(&self, candidate: &Candidate) -> Duration {
        let id = self.container(candidate, &["/bin/busybox", "echo", "x"]);
        let names = ["out", "err"].map(|end| self.containerd.sandbox.path(&format!("{id}.{end}")));
        let ends = names.each_ref().map(|path| shim::fifo(path));
        let [stdout, stderr] = names.each_ref().map(|path| path.to_string_lossy().into_owned());
        let begun = Instant::now();
        self.task(candidate, &id, &stdout, &stderr);
        let mut ready = [PollFd::new(ends[0].as_fd(), PollFlags::POLLIN)];
        assert_eq!(poll(&mut ready, PollTimeout::from(30_000u16)), Ok(1), "a first byte");
        let took = begun.elapsed();
        self.delete(&id);
        took
    }

    /// From the call that adds the exec to the answer that it has ended.
    fn exec(&self, id: &str) -> Duration {
        let exec = fresh_id();
        let process = json!({ "args": ["/idle"], "cwd": "/", "env": [], "user": { "uid": 0, "gid": 0 } });
        let both = Message::new().bytes(1, id).bytes(2, &exec);
        let begun = Instant::now();
        let added = Message::new().bytes(1, id);
        let spec = "types.containerd.io/opencontainers/runtime-spec/1/Process";
        self.call("tasks.v1.Tasks/Exec", &added.any(6, spec, process.to_string()).bytes(7, &exec));
        self.call("tasks.v1.Tasks/Start", &both);
        self.call("tasks.v1.Tasks/Wait", &both);
        let took = begun.elapsed();
        self.call("tasks.v1.Tasks/DeleteProcess", &both);
        took
    }
}

fn through_containerd(candidates: &mut [Candidate], rounds: usize, idle: &Path) {
    let containerd = Containerd::start(Through::UnderTest);
    std::fs::copy(idle, containerd.rootfs.join("idle")).expect("the program");
    let this = std::env::current_exe().expect("this program");
    let floor = containerd.sandbox.path("bin").join(floor_shim::NAME);
    std::os::unix::fs::symlink(this, floor).expect("a link");
    let stage = Stage::new(shim::path());
    let bundle = stage.bundle("template", &[], |config| {
        older(config);
        config["root"]["path"] = json!(containerd.rootfs);
    });
    let text = std::fs::read_to_string(bundle.dir.join("config.json")).expect("the configuration");
    let engine = Engine { containerd, config: serde_json::from_str(&text).expect("the configuration") };
    let waiting: Vec<_> = candidates
        .iter()
        .map(|candidate| {
            let id = engine.container(candidate, &["/idle", "wait"]);
            engine.task(candidate, &id, "", "");
            id
        })
        .collect();
    for round in 0..rounds + WARM_UP {
        for at in 0..candidates.len() {
            // Each is the first as often as the others.
            let at = (at + round) % candidates.len();
            let (start, exec) = (engine.start(&candidates[at]), engine.exec(&waiting[at]));
            if round >= WARM_UP {
                candidates[at].starts.push(micros(start));
                candidates[at].execs.push(micros(exec));
            }
        }
    }
    for id in waiting {
        engine.call("tasks.v1.Tasks/Kill", &Message::new().bytes(1, &id).number(3, 9));
        engine.delete(&id);
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn median(times: &[u64]) -> Option<u64> {
    let mut times = times.to_vec();
    times.sort_unstable();
    times.get(times.len() / 2).copied()
}

fn show(candidates: &[Candidate], rounds: usize) {
    type Row = (&'static str, fn(&Candidate) -> Option<u64>);
    let rows: [Row; 8] = [
        ("start to first byte, µs", |candidate| median(&candidate.starts)),
        ("exec to its end, µs", |candidate| median(&candidate.execs)),
        ("processor for 1,000 execs, ms", |candidate| candidate.processor),
        ("PSS just after the start, kB", |candidate| candidate.fresh.map(|memory| memory.pss)),
        ("PSS at rest, 1 container, kB", |candidate| candidate.memory.map(|memory| memory.pss)),
        ("Private_Dirty, the same, kB", |candidate| candidate.memory.map(|memory| memory.private_dirty)),
        ("and for each further one, kB", |candidate| candidate.memory.map(|_| candidate.further)),
        ("100 shims in a cgroup, kB each", |candidate| candidate.together),
    ];
    print!("  {:<34}", format!("median of {rounds}, through containerd"));
    candidates.iter().for_each(|candidate| print!("{:>16}", candidate.name));
    candidates.iter().skip(1).for_each(|candidate| print!("{:>16}", format!("1st/{}", candidate.name)));
    println!();
    for (name, value) in rows {
        print!("  {name:<34}");
        let values: Vec<_> = candidates.iter().map(value).collect();
        values.iter().for_each(|value| print!("{:>16}", value.map_or("-".into(), |value| value.to_string())));
        for value in &values[1..] {
            let ratio = values[0].zip(*value).filter(|(_, value)| *value > 0);
            let ratio = ratio.map(|(first, value)| first as f64 / value as f64);
            print!("{:>16}", ratio.map_or("-".into(), |ratio| format!("{ratio:.2}")));
        }
        println!();
    }
}
