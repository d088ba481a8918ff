//! After every verb the host is as it was: no mounts, cgroups, processes, files, descriptors; also when the verb
//! was refused, and when the runtime was killed in the middle.

use std::io::Read;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use integration::{Container, call, eventually, need, runtime};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use serde_json::{Value, json};

/// As a shim does, this process takes the orphans of a runtime that has ended; so one test at a time, or each
/// would find the other's children.
fn subreaper() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    nix::sys::prctl::set_child_subreaper(true).expect("subreaper");
    alone
}

/// Reaps what has ended; the children that still live.
fn living_children() -> Vec<String> {
    let mut living = Vec::new();
    for task in std::fs::read_dir("/proc/self/task").expect("own threads").flatten() {
        for child in
            std::fs::read_to_string(task.path().join("children")).unwrap_or_default().split_whitespace()
        {
            let pid = Pid::from_raw(child.parse().expect("a pid"));
            let command = std::fs::read_to_string(format!("/proc/{child}/cmdline")).unwrap_or_default();
            if waitpid(pid, Some(WaitPidFlag::WNOHANG)) == Ok(WaitStatus::StillAlive) {
                living.push(format!("{child} {command:?}"));
            }
        }
    }
    living
}

#[track_caller]
fn assert_nothing_left(container: &Container, after: &str) {
    let begun = Instant::now();
    let mut living = living_children();
    while !living.is_empty() && begun.elapsed() < Duration::from_secs(3) {
        std::thread::sleep(Duration::from_millis(5));
        living = living_children();
    }
    assert!(living.is_empty(), "after {after}: processes {living:?}");
    assert_eq!(container.traces(), [""; 0], "after {after}");
}

/// What is done to a container, by name.
type Row<T> = (&'static str, T);

/// Until its first process has ended; a shim would have reaped it.
#[track_caller]
fn stopped(container: &Container) {
    eventually("the container has stopped", || {
        living_children();
        (container.state()["status"] == "stopped").then_some(())
    });
}

#[test]
fn every_life_leaves_the_host_as_it_was() {
    need!(root);
    let _alone = subreaper();
    let bundle_files = |container: &Container| {
        let entries = std::fs::read_dir(container.bundle()).expect("the bundle").flatten();
        let mut names: Vec<_> = entries.map(|entry| entry.file_name()).collect();
        names.sort();
        names
    };
    let lives: [Row<fn(&Container)>; 6] = [
        ("create, delete --force", |c| {
            c.call("create", &[]).ok();
            c.call("delete", &["--force"]).ok();
        }),
        ("create, start, delete", |c| {
            c.call("create", &[]).ok();
            c.call("start", &[]).ok();
            c.kill("KILL").ok();
            stopped(c);
            c.call("delete", &[]).ok();
        }),
        ("run --detach, delete --force", |c| {
            c.call("run", &["--detach"]).ok();
            c.call("delete", &["--force"]).ok();
        }),
        ("run --detach, exec, kill, delete", |c| {
            c.call("run", &["--detach"]).ok();
            // With its output still open, runc's exec would wait for the sleep.
            assert_eq!(c.exec(&["sh", "-c", "sleep 100 >/dev/null 2>&1 & exit 4"]).code, 4);
            c.kill("KILL").ok();
            stopped(c);
            c.call("delete", &[]).ok();
        }),
        ("create, kill, delete", |c| {
            c.call("create", &[]).ok();
            c.kill("KILL").ok();
            stopped(c);
            c.call("delete", &[]).ok();
        }),
        ("run", |c| {
            c.configure(|config| config["process"]["args"] = json!(["sh", "-c", "sleep 100 & exit 7"]));
            assert_eq!(c.call("run", &[]).code, 7);
        }),
    ];
    let container = Container::busybox(&["sleep", "100"]);
    let files = bundle_files(&container);
    for (life, live) in lives {
        live(&container);
        assert_nothing_left(&container, life);
        assert_eq!(bundle_files(&container), files, "after {life}");
    }
}

#[test]
fn a_refused_create_leaves_nothing() {
    need!(root);
    let _alone = subreaper();
    let wrong: [Row<fn(&mut Value)>; 6] = [
        ("no such program", |c| c["process"]["args"] = json!(["/no/such/program"])),
        ("a program that is none", |c| c["process"]["args"] = json!(["/etc"])),
        ("no such mount source", |c| {
            let mount =
                json!({ "destination": "/x", "type": "bind", "source": "/no/such", "options": ["bind"] });
            c["mounts"].as_array_mut().expect("mounts").push(mount);
        }),
        ("no such filesystem", |c| {
            let mount = json!({ "destination": "/x", "type": "nosuchfs", "source": "x" });
            c["mounts"].as_array_mut().expect("mounts").push(mount);
        }),
        ("no such root", |c| c["root"]["path"] = json!("/no/such/root")),
        ("a hook that fails", |c| c["hooks"] = json!({ "createRuntime": [{ "path": "/bin/false" }] })),
    ];
    for (what, edit) in wrong {
        let container = Container::busybox(&["true"]);
        container.configure(edit);
        for verb in ["create", "run"] {
            let refused = container.call(verb, &[]);
            assert_ne!(refused.code, 0, "{verb} with {what}: {refused:?}");
            assert!(!refused.err.trim().is_empty(), "{verb} with {what} says nothing");
            assert_nothing_left(&container, &format!("{verb} with {what}"));
        }
    }
}

#[test]
fn a_refused_exec_leaves_the_container_as_it_was() {
    need!(root);
    let _alone = subreaper();
    let container = Container::busybox(&["sleep", "100"]);
    container.call("run", &["--detach"]).ok();
    let before = container.traces();
    for args in [&["/no/such/program"][..], &["/etc"]] {
        assert_ne!(container.exec(args).code, 0, "{args:?}");
    }
    assert_eq!(container.traces(), before);
    let own = living_children();
    assert_eq!(own.len(), 1, "only the container's first process: {own:?}");
    container.call("delete", &["--force"]).ok();
    assert_nothing_left(&container, "delete");
}

/// A daemon's descriptors reach neither the created nor the started process, so that their other ends see the end.
#[test]
fn a_descriptor_of_the_caller_does_not_stay_in_the_container() {
    need!(root);
    let _alone = subreaper();
    for verbs in [&["create"][..], &["create", "start"], &["run"]] {
        let container = Container::busybox(&["sleep", "100"]);
        let (mut reader, writer) = std::io::pipe().expect("pipe");
        fcntl(&writer, FcntlArg::F_SETFD(FdFlag::empty())).expect("inheritable");
        for verb in verbs {
            let options: &[&str] = if *verb == "run" { &["--detach"] } else { &[] };
            container.call(verb, options).ok();
        }
        drop(writer);
        // runc's init marks what it inherited close-on-exec, and so has it until `start`.
        if verbs != ["create"] || runtime::name() == "tare" {
            let mut ready = [PollFd::new(reader.as_fd(), PollFlags::POLLIN)];
            let events = poll(&mut ready, 3000u16).expect("poll");
            assert_eq!(events, 1, "the container holds the pipe after {verbs:?}");
            assert_eq!(reader.read(&mut [0; 1]).expect("read"), 0, "the end of the pipe");
        }
        container.call("delete", &["--force"]).ok();
        assert_nothing_left(&container, "delete");
    }
}

#[test]
fn a_container_starts_with_no_descriptors_but_its_stdio() {
    need!(root);
    let _alone = subreaper();
    let container = Container::busybox(&["ls", "/proc/self/fd"]);
    // The last one is ls's own, of the directory.
    assert_eq!(
        container.call("run", &[]).ok().out.split_whitespace().collect::<Vec<_>>(),
        ["0", "1", "2", "3"]
    );
    container.configure(|config| config["process"]["args"] = json!(["sleep", "100"]));
    container.call("run", &["--detach"]).ok();
    let exec = container.exec(&["ls", "/proc/self/fd"]).ok();
    assert_eq!(exec.out.split_whitespace().collect::<Vec<_>>(), ["0", "1", "2", "3"]);
    container.call("delete", &["--force"]).ok();
    assert_nothing_left(&container, "delete");
}

/// The moments are spread over the time that a `create` takes by multiples of the golden ratio, which fills it evenly
/// however many there are.
#[test]
fn a_create_that_was_killed_is_cleaned_up_by_delete() {
    need!(root);
    let _alone = subreaper();
    let container = Container::busybox(&["sleep", "100"]);
    let duration = {
        let begun = Instant::now();
        container.call("create", &[]).ok();
        begun.elapsed()
    };
    container.call("delete", &["--force"]).ok();
    assert_nothing_left(&container, "delete");

    let begun = Instant::now();
    let (mut share, mut kills, mut killed_alive) = (0.0_f64, 0, 0);
    while begun.elapsed() < Duration::from_secs(10) {
        share = (share + 0.618_033_988_75) % 1.0;
        let moment = duration.mul_f64(share * 1.1);
        let mut create = container.command("create", &[]);
        let mut child = create.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("create");
        let spawned = Instant::now();
        while spawned.elapsed() < moment {
            std::hint::spin_loop();
        }
        child.kill().expect("kill");
        killed_alive += usize::from(child.wait().expect("wait").code().is_none());
        kills += 1;
        let deleted = container.call("delete", &["--force"]);
        let after = format!("create killed after {moment:?} and delete --force ({deleted:?})");
        if runtime::name() == "tare" {
            assert_eq!(deleted.code, 0, "{after}");
            assert_nothing_left(&container, &after);
        } else {
            // runc and crun make the cgroup before they record its name, and a kill in between loses it.
            eventually("no process is left", || living_children().is_empty().then_some(()));
            remove_lost_cgroups(&container);
        }
    }
    assert!(killed_alive > 0, "none of {kills} was killed in time");
    eprintln!("{kills} creates of {duration:?}, {killed_alive} killed before their end");
}

fn remove_lost_cgroups(container: &Container) {
    for trace in container.traces() {
        if let Some(cgroup) = trace.strip_prefix("cgroup ") {
            std::fs::remove_dir(cgroup).expect("an empty cgroup");
        } else if let Some(file) = trace.strip_prefix("file ") {
            call(Command::new("rm").arg("-r").arg(Path::new(file))).ok();
        }
    }
}
