//! Commands that meet: whatever the order, a container ends in a state that its last commands explain.
#![allow(clippy::unwrap_used)]

use std::fs;

use spec_tests::call::{Output, Running, eventually};
use spec_tests::{Bundle, Container, crun, differs_at_times, need, runc};

/// Of one container.
const ROUNDS: u32 = 200;
/// Containers that are killed at the same time.
const KILLED: u32 = 25;

fn spawn(container: &Container, words: &[&str]) -> Running {
    Running::spawn(container.command(words), b"")
}

fn is_frozen(container: &Container) -> bool {
    let v1 = fs::read_to_string(container.cgroup("freezer").join("freezer.state"));
    let v2 = fs::read_to_string(container.cgroup("").join("cgroup.freeze"));
    v1.is_ok_and(|state| state.trim() != "THAWED") || v2.is_ok_and(|state| state.trim() == "1")
}

fn pids_max(container: &Container) -> String {
    fs::read_to_string(container.cgroup("pids").join("pids.max")).unwrap().trim().to_owned()
}

/// Success, or one of the errors that say what else was going on.
#[track_caller]
fn explained(out: &Output, errors: &[&str]) {
    assert!(out.status.success() || errors.iter().any(|text| out.stderr.contains(text)), "{out:#?}");
}

const PAUSED: &str = "cannot exec in a paused container";

#[test]
fn pause_exec_update_and_kill_at_once_leave_a_container_that_runs() {
    need!(root, freezer, controller("pids"));
    let lost = "loses the race between pause and exec";
    differs_at_times([runc(lost), crun(lost)], || {
        let container = Bundle::new().probe(["trap", "1000000"]).start();
        container.wait_for_stdout("ready");
        let id = container.id().to_owned();
        for round in 0..ROUNDS {
            let limit = (100 + round).to_string();
            let update = ["update", "--pids-limit", &limit, &id];
            let pause = ["pause", &id];
            let exec = ["exec", &id, "/probe", "exit", "0"];
            // 0 asks whether it lives; TERM is caught.
            let signal = if round % 2 == 0 { "0" } else { "TERM" };
            let kill = ["kill", &id, signal];
            let mut commands: Vec<&[&str]> = vec![&pause, &exec, &update, &kill];
            commands.rotate_left(round as usize % 4);
            let mut running: Vec<(&str, Running)> =
                commands.into_iter().map(|words| (words[0], spawn(&container, words))).collect();
            // An exec that the pause overtook stands still as all of the container do: it comes after.
            running.sort_by_key(|(verb, _)| *verb == "exec");
            for (verb, running) in &mut running {
                if *verb == "exec" {
                    assert_eq!(container.status(), "paused", "round {round}");
                    container.call(["resume", &id]).ok();
                    explained(&running.wait(), &[PAUSED]);
                } else {
                    running.wait().ok();
                }
            }
            assert_eq!(container.status(), "running", "round {round}");
            assert_eq!(pids_max(&container), limit, "round {round}");
        }
        assert!(!is_frozen(&container));
        container.exec(["print", "alive"]).ok();
        container.kill("KILL").ok();
        container.wait_for_status("stopped");
    });
}

/// A frozen cgroup of v1 holds SIGKILL back: what is killed must not be frozen on its way out.
#[test]
fn a_container_that_is_paused_while_it_is_killed_dies() {
    need!(root, freezer);
    let lost = "freezes what is about to die";
    for round in 0..KILLED {
        differs_at_times([runc(lost), crun(lost)], || {
            let container = Bundle::new().probe(["wait"]).start();
            container.wait_for_stdout("ready");
            let pause = ["pause", container.id()];
            let kill = ["kill", container.id(), "KILL"];
            let mut commands = [&pause[..], &kill[..]];
            commands.rotate_left(round as usize % 2);
            let mut running = commands.map(|words| spawn(&container, words));
            for running in &mut running {
                explained(&running.wait(), &["container not running"]);
            }
            container.wait_for_status("stopped");
            container.delete().ok();
        });
    }
}

#[test]
fn an_exec_that_waits_in_a_paused_container_ends_with_it() {
    need!(root, freezer);
    let container = Bundle::new().probe(["wait"]).start();
    container.wait_for_stdout("ready");
    container.call(["pause", container.id()]).ok();
    let mut exec = spawn(&container, &["exec", "--ignore-paused", container.id(), "/probe", "wait"]);
    let procs = container.cgroup("freezer").join("cgroup.procs");
    let count = || fs::read_to_string(&procs).unwrap().lines().count();
    differs_at_times([crun("has no --ignore-paused")], || {
        eventually("it is in the cgroup", || count() == 2);
        // Nobody waits for it: the container can be asked, changed and killed.
        assert_eq!(container.status(), "paused");
        container.kill("KILL").ok();
        container.wait_for_status("stopped");
        assert_ne!(exec.wait().code(), 0);
    });
}

#[test]
fn an_exec_that_waits_in_a_paused_container_goes_on_with_it() {
    need!(root, freezer);
    let container = Bundle::new().probe(["wait"]).start();
    container.wait_for_stdout("ready");
    container.call(["pause", container.id()]).ok();
    let words = ["exec", "--ignore-paused", container.id(), "/probe", "print", "on", ",", "exit", "7"];
    let mut exec = spawn(&container, &words);
    let procs = container.cgroup("freezer").join("cgroup.procs");
    differs_at_times([crun("has no --ignore-paused")], || {
        eventually("it is in the cgroup", || fs::read_to_string(&procs).unwrap().lines().count() == 2);
        container.call(["resume", container.id()]).ok();
        let out = exec.wait();
        assert_eq!((out.code(), out.stdout.as_str()), (7, "on\n"), "{out:#?}");
        assert_eq!(container.status(), "running");
    });
}

/// Each takes what it stops and lets go; who was paused stays so, who was not does not become so.
#[test]
fn a_signal_for_all_and_a_pause_at_once_leave_a_container_paused() {
    need!(root, freezer);
    let lost = "lets a signal for all undo a pause";
    differs_at_times([runc(lost), crun(lost)], || {
        let container = Bundle::new().probe(["trap", "1000000"]).start();
        container.wait_for_stdout("ready");
        for round in 0..40 {
            let pause = ["pause", container.id()];
            let kill = ["kill", "--all", container.id(), "TERM"];
            let mut commands = [&pause[..], &kill[..]];
            commands.rotate_left(round % 2);
            let mut running = commands.map(|words| spawn(&container, words));
            for running in &mut running {
                running.wait().ok();
            }
            assert_eq!(container.status(), "paused", "round {round}");
            container.call(["resume", container.id()]).ok();
            assert_eq!(container.status(), "running", "round {round}");
        }
    });
}
