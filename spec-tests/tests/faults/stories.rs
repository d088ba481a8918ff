//! The stories: which command, on what, and what is right after it.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use spec_tests::call::{contents, eventually};
use spec_tests::socket::Listener;
use spec_tests::terminal::Terminal;
use spec_tests::trace::Traced;
use spec_tests::{Container, Value, json, need};

use crate::bundles;
use crate::look::{difference, seen};
use crate::sweep::{Stage, Story};

pub(crate) fn all() -> Vec<Story> {
    let mut all = vec![
        create("create", || bundles::plain().container()),
        create("create-rich", || bundles::rich().container()),
        create("create-joining", || bundles::joining().container()),
        Story {
            prepare: with_console,
            command: |c| creating(c, &["create", "--console-socket", "console"]),
            ..create("create-terminal", || bundles::with_terminal().container())
        },
        run("run", || bundles::plain().container()),
        run("run-rich", || bundles::rich().container()),
        Story {
            command: |c| creating(c, &["run", "--detach", "--pid-file", "pid"]),
            look: detached,
            ..run("run-detached", || bundles::plain().container())
        },
        start("start", || bundles::plain().container()),
        start("start-rich", || bundles::rich().container()),
        exec("exec", &[]),
        exec("exec-detached", &["--detach", "--pid-file", "pid"]),
        Story { container: traceable, ..exec("exec-born-last", &[]) },
        delete("delete", &[], "stopped"),
        delete("delete-force", &["--force"], "running"),
        delete("delete-created", &[], "created"),
        kill(),
        pause(),
        resume(),
        update(),
    ];
    if need::userns().is_ok() {
        all.push(create("create-userns", || bundles::in_user_namespace().container()));
    }
    all
}

// --- create, run, start: what comes of them is what the container's program sees

fn create(name: &'static str, container: fn() -> Container) -> Story {
    Story {
        name,
        container,
        prepare: |_| Stage::default(),
        command: |c| creating(c, &["create"]),
        look: |c, stage, traced| {
            assert_eq!(c.status(), "created");
            let marks_before = marks(c);
            started(c, &[]);
            let seen = json!([marks_before, output(c, stage, traced)]);
            ended(c, seen)
        },
        clean: |c, _, end| {
            // What could not be made is taken back at once; whoever was killed could not do it.
            if !end.killed {
                remains_nothing(c, "the failure");
            }
            gone(c);
            again(c);
        },
    }
}

fn run(name: &'static str, container: fn() -> Container) -> Story {
    Story {
        name,
        container,
        prepare: |_| Stage::default(),
        command: |c| creating(c, &["run"]),
        look: |c, _, traced| {
            let mut life = ended(c, seen(c, &contents(&traced.out)));
            // One of them that fails is a warning (runtime.md, "Lifecycle", step 13).
            life[1].as_array_mut().unwrap().retain(|mark| mark != "poststop");
            life
        },
        clean: |c, _, end| {
            // What could not be deleted when the container had ended is there for another delete.
            if !end.killed && end.traced.err.contains("unable to start container process") {
                remains_nothing(c, "the failure");
            }
            gone(c);
            again(c);
        },
    }
}

fn detached(c: &Container, stage: &Stage, traced: &Traced) -> Value {
    let pid = fs::read_to_string(c.dir().join("pid")).expect("a pid file");
    assert!(pid.parse::<i32>().is_ok(), "pid file {pid:?}");
    let seen = output(c, stage, traced);
    ended(c, seen)
}

fn start(name: &'static str, container: fn() -> Container) -> Story {
    Story {
        name,
        container,
        prepare: |c| {
            let file = tempfile::tempfile().unwrap();
            let mut command = creating(c, &["create"]);
            command.stdout(file.try_clone().unwrap()).stdin(std::process::Stdio::null());
            let created = command.status().unwrap();
            assert!(created.success(), "create before the fault: {}", c.log());
            Stage { output: Some(file), ..Stage::default() }
        },
        command: |c| of(c, &["start"], &[]),
        look: |c, stage, traced| {
            let seen = output(c, stage, traced);
            ended(c, seen)
        },
        clean: |c, stage, end| {
            // It was started, or it can be; but for one that a poststart hook has ended.
            let status = c.status();
            if status == "created" {
                let again = c.start();
                // It had been told, and was just about to become its program.
                let meanwhile =
                    ["already running", "has stopped"].iter().any(|why| again.stderr.contains(why));
                assert!(again.code() == 0 || meanwhile, "start once more: {again:?}");
            }
            let poststart_failed = end.traced.err.contains("poststart");
            if !poststart_failed {
                let now = output(c, stage, end.traced);
                // Marks of hooks are of the whole life.
                let expected = &end.baseline[0];
                if let Some(difference) = difference(expected, &now) {
                    panic!("after the failed start it was {status}, and then not the same: {difference}");
                }
            }
            gone(c);
            again(c);
        },
    }
}

/// The command with the words of a bundle's.
fn creating(c: &Container, words: &[&str]) -> Command {
    let mut command = c.command(words);
    command.arg("--bundle").arg(c.bundle_path()).arg(c.id());
    command
}

fn of(c: &Container, words: &[&str], more: &[&str]) -> Command {
    let mut command = c.command(words);
    command.arg(c.id()).args(more);
    command
}

fn with_console(c: &mut Container) -> Stage {
    let path = c.dir().join("console");
    // Of the play before.
    fs::remove_file(&path).ok();
    Stage { console: Some(Listener::bind(&path)), ..Stage::default() }
}

fn started(c: &Container, words: &[&str]) {
    let out = spec_tests::call::call(of(c, &["start"], words));
    assert_eq!(out.code(), 0, "{out:?}");
}

/// What the program has said when it has come to its end.
fn output(c: &Container, stage: &Stage, traced: &Traced) -> Value {
    if let Some(console) = &stage.console {
        let (_, mut fds) = console.receive();
        return seen(c, Terminal::from(fds.remove(0)).read_all());
    }
    eventually("the end of the container's program", || c.status() == "stopped");
    seen(c, &contents(stage.output.as_ref().unwrap_or(&traced.out)))
}

/// What hooks have done.
fn marks(c: &Container) -> Value {
    let Ok(entries) = fs::read_dir(c.dir().join("marks")) else { return json!([]) };
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    json!(names)
}

/// Deletes it; what was seen, and the marks of its whole life.
fn ended(c: &Container, seen: Value) -> Value {
    gone(c);
    let marks = marks(c);
    forget_marks(c);
    json!([seen, marks])
}

fn forget_marks(c: &Container) {
    for name in marks(c).as_array().unwrap() {
        fs::remove_file(c.dir().join("marks").join(name.as_str().unwrap())).unwrap();
    }
}

/// `delete --force` says nothing and leaves nothing.
fn gone(c: &Container) {
    let deleted = c.delete_by_force();
    assert!(
        deleted.code() == 0 && deleted.stdout.is_empty() && deleted.stderr.is_empty(),
        "delete --force: {deleted:?}"
    );
    remains_nothing(c, "delete --force");
}

fn remains_nothing(c: &Container, after: &str) {
    let started = Instant::now();
    // A first process whose runtime was killed sees it, and ends.
    while !c.remains().is_empty() && started.elapsed() < Duration::from_secs(2) {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(c.remains(), Vec::<String>::new(), "left after {after}");
    let known = ["bundle", "root", "marks", "source", "log.json", "console", "pid", ".pid", "born"];
    let mut left: Vec<_> = fs::read_dir(c.dir()).unwrap().map(|e| e.unwrap().file_name()).collect();
    left.retain(|name| !known.contains(&name.to_str().unwrap()));
    assert!(left.is_empty(), "left after {after}: {left:?}");
    fs::remove_file(c.dir().join("pid")).ok();
}

/// Another one with that id.
fn again(c: &Container) {
    forget_marks(c);
    let console = c.config()["process"]["terminal"] == true;
    let listener = console.then(|| {
        fs::remove_file(c.dir().join("console")).ok();
        Listener::bind(&c.dir().join("console"))
    });
    let words: &[&str] = if console { &["create", "--console-socket", "console"] } else { &["create"] };
    for command in [creating(c, words), of(c, &["start"], &[])] {
        let out = spec_tests::call::call(command);
        assert_eq!(out.code(), 0, "the next one: {out:?}");
    }
    gone(c);
    drop(listener);
    forget_marks(c);
}

// --- in a container that runs: it is the same one for many plays

/// Whoever joins and is not named to the runtime is an orphan of the container when it ends, and else would count for its limit
/// of processes.
const REAPER: [&str; 3] = ["reap", ",", "wait"];

fn waiting() -> Container {
    let container = bundles::plain().probe(REAPER).container();
    revive(&container);
    container
}

/// Where a process may look into any other.
fn traceable() -> Container {
    let container = bundles::plain().capabilities(["CAP_CHOWN", "CAP_SYS_PTRACE"]).probe(REAPER).container();
    revive(&container);
    container
}

/// The probe waits for a minute at most.
fn alive(c: &Container) {
    let born = c.dir().join("born");
    let age = fs::metadata(&born).unwrap().modified().unwrap().elapsed().unwrap_or_default();
    if age > Duration::from_secs(25) {
        gone(c);
        revive(c);
    }
}

fn revive(c: &Container) {
    fs::write(c.dir().join("born"), "").unwrap();
    let mut command = creating(c, &["run", "--detach"]);
    command.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null());
    assert!(command.status().unwrap().success(), "{}", c.log());
}

/// Only its first process, which runs.
fn runs_alone(c: &Container) {
    assert_eq!(c.status(), "running");
    let alone = || {
        c.cgroups().iter().all(|folder| {
            let processes = fs::read_to_string(folder.join("cgroup.procs")).unwrap();
            processes.lines().count() <= 1
        })
    };
    eventually("the end of all processes but the first", alone);
}

fn exec(name: &'static str, options: &'static [&'static str]) -> Story {
    Story {
        name,
        container: waiting,
        prepare: |c| {
            alive(c);
            Stage::default()
        },
        command: if options.is_empty() {
            |c| executing(c, &[])
        } else {
            |c| executing(c, &["--detach", "--pid-file", "pid"])
        },
        look: |c, _, traced| {
            runs_alone(c);
            fs::remove_file(c.dir().join("pid")).ok();
            seen(c, &contents(&traced.out))
        },
        clean: |c, _, end| {
            runs_alone(c);
            fs::remove_file(c.dir().join("pid")).ok();
            let out = spec_tests::trace::run(executing(c, &[]), None, Duration::from_secs(10));
            assert_eq!(out.code, 0, "the next one: {out:?}");
            let next = seen(c, &contents(&out.out));
            if let Some(difference) = difference(end.baseline, &next) {
                panic!("the next one is not the same: {difference}");
            }
        },
    }
}

fn executing(c: &Container, options: &[&str]) -> Command {
    let mut command = c.command(["exec"]);
    command.args(options).arg(c.id()).args(bundles::program());
    command
}

/// In this state it is, and the verb is played on it.
fn delete(name: &'static str, options: &'static [&'static str], state: &'static str) -> Story {
    fn to_be_deleted(c: &Container, state: &str) -> Stage {
        let mut command = creating(c, &["create"]);
        command.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null());
        assert!(command.status().unwrap().success(), "{}", c.log());
        if state != "created" {
            started(c, &[]);
        }
        if state == "stopped" {
            eventually("stopped", || c.status() == "stopped");
        }
        Stage::default()
    }
    Story {
        name,
        container: match state {
            "stopped" => || bundles::plain().probe(["exit", "0"]).container(),
            _ => || bundles::plain().probe(["wait"]).container(),
        },
        prepare: match state {
            "stopped" => |c| to_be_deleted(c, "stopped"),
            "running" => |c| to_be_deleted(c, "running"),
            _ => |c| to_be_deleted(c, "created"),
        },
        command: if options.is_empty() {
            |c| of(c, &["delete"], &[])
        } else {
            |c| of(c, &["delete", "--force"], &[])
        },
        look: |c, _, _| {
            remains_nothing(c, "delete");
            json!(null)
        },
        clean: |c, _, _| {
            gone(c);
            again(c);
        },
    }
}

fn kill() -> Story {
    Story {
        name: "kill",
        container: || bundles::plain().probe(["wait"]).container(),
        prepare: |c| {
            revive(c);
            Stage::default()
        },
        command: |c| of(c, &["kill"], &["KILL"]),
        look: |c, _, _| {
            eventually("stopped", || c.status() == "stopped");
            gone(c);
            json!(null)
        },
        clean: |c, _, _| {
            let status = c.status();
            assert!(["running", "stopped"].contains(&status.as_str()), "{status}");
            gone(c);
        },
    }
}

fn pause() -> Story {
    Story {
        name: "pause",
        container: waiting,
        prepare: |c| {
            alive(c);
            Stage::default()
        },
        command: |c| of(c, &["pause"], &[]),
        look: |c, _, _| {
            assert_eq!(c.status(), "paused");
            assert_eq!(c.call(["resume", c.id()]).code(), 0);
            assert_eq!(c.status(), "running");
            json!(null)
        },
        clean: |c, _, end| {
            // Only one that was killed in the middle can leave it paused, and then it can be resumed.
            let status = c.status();
            assert!(status == "running" || end.killed && status == "paused", "{status}");
            if status == "paused" {
                assert_eq!(c.call(["resume", c.id()]).code(), 0);
            }
            assert_eq!(c.status(), "running");
        },
    }
}

fn resume() -> Story {
    Story {
        name: "resume",
        container: waiting,
        prepare: |c| {
            alive(c);
            assert_eq!(c.call(["pause", c.id()]).code(), 0);
            Stage::default()
        },
        command: |c| of(c, &["resume"], &[]),
        look: |c, _, _| {
            assert_eq!(c.status(), "running");
            json!(null)
        },
        clean: |c, _, _| {
            let status = c.status();
            if status == "paused" {
                assert_eq!(c.call(["resume", c.id()]).code(), 0);
            }
            assert_eq!(c.status(), "running");
        },
    }
}

const LIMITS: &[&str] =
    &["--memory", "33554432", "--pids-limit", "40", "--cpu-share", "256", "--cpu-quota", "40000"];
const LIMITS_BEFORE: &[&str] =
    &["--memory", "67108864", "--pids-limit", "50", "--cpu-share", "512", "--cpu-quota", "50000"];

/// The files that these limits are in.
fn limits(c: &Container) -> Vec<String> {
    let files = [
        ("memory", "memory.limit_in_bytes"),
        ("pids", "pids.max"),
        ("cpu", "cpu.shares"),
        ("cpu", "cpu.cfs_quota_us"),
        ("", "memory.max"),
        ("", "cpu.weight"),
        ("", "cpu.max"),
    ];
    let read = |(controller, file): &(&str, &str)| fs::read_to_string(c.cgroup(controller).join(file)).ok();
    files.iter().filter_map(read).collect()
}

fn update() -> Story {
    Story {
        name: "update",
        container: waiting,
        prepare: |c| {
            alive(c);
            let mut command = c.command(["update"]);
            command.args(LIMITS_BEFORE).arg(c.id());
            assert_eq!(spec_tests::call::call(command).code(), 0);
            Stage::default()
        },
        command: |c| {
            let mut command = c.command(["update"]);
            command.args(LIMITS).arg(c.id());
            command
        },
        look: |c, _, _| json!(limits(c)),
        clean: |c, _, end| {
            let now = limits(c);
            let mut command = c.command(["update"]);
            command.args(LIMITS_BEFORE).arg(c.id());
            assert_eq!(spec_tests::call::call(command).code(), 0);
            let before = limits(c);
            // All of it or nothing; of one that was killed, each limit is one of the two.
            let new: Vec<String> = serde_json::from_value(end.baseline.clone()).unwrap();
            let either = now.iter().zip(before.iter().zip(&new)).all(|(now, (a, b))| now == a || now == b);
            assert!(now == before || end.killed && either, "{now:?}, before {before:?}, asked for {new:?}");
        },
    }
}
