//! containerd through `ctr`: with its stock shim and the runtime in runc's place, and with the shim under test.
//!
//! ```text
//! make test-containerd CONTAINERD=/opt/containerd-2.3/bin/containerd
//! ```

use std::collections::BTreeSet;
use std::process::{Command, Stdio};

use integration::containerd::{Containerd, fresh_id};
use integration::{Outcome, Sandbox, call, eventually, through_each_shim};

through_each_shim! {
    fn run_gives_output_and_exit_status(containerd: Containerd) {
        let run = containerd.run(&[], &["echo", "hello"]).ok();
        assert_eq!(run.out, "hello\n");
        let run = containerd.run(&[], &["sh", "-c", "echo to stderr >&2; exit 7"]);
        assert_eq!((run.code, run.err.as_str()), (7, "to stderr\n"));
        assert_eq!(containerd.run(&[], &["sh", "-c", "kill -9 $$; exit 0"]).code, 0, "init ignores its own signals");
        assert_eq!(containerd.ctr(&["task", "list", "--quiet"]).ok().out, "");
    }
}

through_each_shim! {
    fn a_terminal_is_the_containers_own(containerd: Containerd) {
        let id = fresh_id();
        let run = containerd.run_command(&["--rm", "--tty"], &id, &["sh", "-c", "tty; stty size; exit 5"]);
        let outcome = on_a_terminal(&containerd.sandbox, &run);
        assert!(outcome.out.contains("/dev/pts/0"), "{outcome:?}");
        assert_eq!(outcome.code, 5, "{outcome:?}");
    }
}

through_each_shim! {
    fn exec_joins_a_running_container(containerd: Containerd) {
        let id = containerd.sleeper();
        let exec = |args: &[&str]| containerd.ctr(&[&["task", "exec", "--exec-id", &fresh_id(), &id], args].concat());
        assert_eq!(exec(&["cat", "/proc/1/comm"]).ok().out, "sleep\n");
        assert_eq!(exec(&["sh", "-c", "exit 9"]).code, 9);
        let missing = exec(&["/no/such/program"]);
        assert_ne!(missing.code, 0);
        assert!(missing.err.contains("no such file or directory"), "{missing:?}");
        let exec_id = fresh_id();
        // ctr shows nothing of a process that has ended before it was told the terminal's size.
        let mut tty = containerd.command(&["task", "exec", "--tty", "--exec-id", &exec_id, &id]);
        tty.args(["sh", "-c", "tty; sleep 2; exit 4"]);
        let on_tty = on_a_terminal(&containerd.sandbox, &tty);
        assert!(on_tty.out.contains("/dev/pts/") && on_tty.code == 4, "{on_tty:?}");
        assert_eq!(containerd.status(&id), "RUNNING");
    }
}

through_each_shim! {
    fn kill_and_rm_end_it(containerd: Containerd) {
        let id = containerd.sleeper();
        assert_eq!(containerd.status(&id), "RUNNING");
        let refused = containerd.ctr(&["task", "rm", &id]);
        assert_ne!(refused.code, 0, "a running task is not removed: {refused:?}");
        containerd.ctr(&["task", "kill", "--signal", "SIGKILL", &id]).ok();
        eventually("the task has stopped", || (containerd.status(&id) == "STOPPED").then_some(()));
        let removed = containerd.ctr(&["task", "rm", &id]).ok();
        assert!(removed.err.contains("137"), "the exit status is kept: {removed:?}");
        containerd.ctr(&["container", "rm", &id]).ok();
        assert_eq!(containerd.ctr(&["container", "list", "--quiet"]).ok().out, "");
    }
}

through_each_shim! {
    fn rm_by_force_kills(containerd: Containerd) {
        let id = containerd.sleeper();
        containerd.ctr(&["task", "rm", "--force", &id]);
        assert_eq!(containerd.status(&id), "");
    }
}

through_each_shim! {
    fn a_wrong_command_is_named(containerd: Containerd) {
        let missing = containerd.run(&[], &["/no/such/program"]);
        assert_ne!(missing.code, 0);
        assert!(missing.err.contains("/no/such/program"), "{missing:?}");
        assert!(missing.err.contains("no such file or directory"), "{missing:?}");
        let not_on_path = containerd.run(&[], &["no-such-program"]);
        assert!(not_on_path.err.contains("executable file not found in $PATH"), "{not_on_path:?}");
        let directory = containerd.run(&[], &["/etc"]);
        assert!(directory.err.contains("permission denied") || directory.err.contains("is a directory"), "{directory:?}");
    }
}

through_each_shim! {
    fn limits_reach_the_cgroup(containerd: Containerd) {
        let id = fresh_id();
        call(&mut containerd.run_command(&["--detach", "--memory-limit", "67108864"], &id, &["sleep", "1000"])).ok();
        let exec = containerd.ctr(&["task", "exec", "--exec-id", "limits", &id, "cat", "/proc/self/cgroup"]).ok();
        assert!(!exec.out.is_empty());
        let metrics = containerd.ctr(&["task", "metrics", &id]).ok().out;
        assert!(metrics.contains("memory.") || metrics.contains("memory"), "{metrics}");
        let host = ["memory/memory.limit_in_bytes", "memory.max"].map(|file| {
            let (hierarchy, file) = file.split_once('/').unwrap_or(("", file));
            let cgroup = format!("/sys/fs/cgroup/{hierarchy}{}/{id}/{file}", containerd.sandbox.cgroup);
            std::fs::read_to_string(cgroup).unwrap_or_default()
        });
        assert!(host.contains(&"67108864\n".to_owned()), "{host:?}");
    }
}

through_each_shim! {
    /// The shim holds the container: the daemon may go and come back.
    fn a_container_outlives_the_daemon(mut_containerd: Containerd) {
        let mut containerd = mut_containerd;
        let id = containerd.sleeper();
        containerd.kill();
        containerd.start_again();
        assert_eq!(containerd.status(&id), "RUNNING");
        let exec = containerd.ctr(&["task", "exec", "--exec-id", "after", &id, "echo", "back"]).ok();
        assert_eq!(exec.out, "back\n");
    }
}

through_each_shim! {
    /// What it writes while nobody reads, and while containerd is away, is there for the next reader.
    fn output_is_whole_across_a_restart(mut_containerd: Containerd) {
        let mut containerd = mut_containerd;
        let id = fresh_id();
        let wait = |gate| format!("while [ ! -e /tmp/{gate} ]; do sleep 0.05; done");
        // It outlives the restart: containerd deletes a task that it finds stopped.
        let script = format!("seq 1 1000; {}; seq 1001 2000; {}", wait("go"), wait("end"));
        let (first, second) = (containerd.sandbox.path("first"), containerd.sandbox.path("second"));
        let mut ctr = containerd.run_command(&[], &id, &["sh", "-c", &script]);
        let mut reader = ctr.stdout(std::fs::File::create(&first).expect("a file")).spawn().expect("ctr");
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        eventually("the first half", || read(&first).ends_with("\n1000\n").then_some(()));
        // ctr would clean up after itself if it could.
        let children = format!("/proc/{0}/task/{0}/children", reader.id());
        let inside = std::fs::read_to_string(children).expect("ctr");
        call(Command::new("kill").arg("-KILL").args(inside.split_whitespace())).ok();
        reader.wait().expect("wait");
        containerd.kill();
        std::fs::write(containerd.rootfs.join("tmp/go"), "").expect("the gate");
        containerd.start_again();
        let mut attach = containerd.command(&["task", "attach", &id]);
        let mut reader = attach.stdout(std::fs::File::create(&second).expect("a file")).spawn().expect("ctr");
        let said = || read(&first) + &read(&second);
        eventually("the second half", || said().ends_with("\n2000\n").then_some(()));
        std::fs::write(containerd.rootfs.join("tmp/end"), "").expect("the gate");
        reader.wait().expect("wait");
        let wanted: String = (1..=2000).map(|line| format!("{line}\n")).collect();
        assert_eq!(said(), wanted);
        eventually("the task has stopped", || ["STOPPED", ""].contains(&containerd.status(&id).as_str()).then_some(()));
    }
}

through_each_shim! {
    fn a_container_is_paused_and_resumed(containerd: Containerd) {
        let id = containerd.sleeper();
        containerd.ctr(&["task", "pause", &id]).ok();
        assert_eq!(containerd.status(&id), "PAUSED");
        containerd.ctr(&["task", "resume", &id]).ok();
        assert_eq!(containerd.status(&id), "RUNNING");
    }
}

through_each_shim! {
    fn events_come_in_order(containerd: Containerd) {
        let heard = containerd.sandbox.path("events");
        let mut events = containerd.command(&["events"]);
        let mut ears = events.stdout(std::fs::File::create(&heard).expect("a file")).spawn().expect("ctr");
        let topics = |id: &str| -> Vec<String> {
            let text = std::fs::read_to_string(&heard).unwrap_or_default();
            let topic = |line: &str| line.split_whitespace().find(|word| word.starts_with("/tasks/")).map(str::to_owned);
            text.lines().filter(|line| line.contains(id)).filter_map(topic).collect()
        };
        // Until events are heard: an event that nobody hears is not kept.
        eventually("events are heard", || {
            containerd.run(&[], &["true"]).ok();
            topics("").contains(&"/tasks/delete".to_owned()).then_some(())
        });
        let id = containerd.sleeper();
        containerd.ctr(&["task", "exec", "--exec-id", "e", &id, "true"]).ok();
        containerd.ctr(&["task", "pause", &id]).ok();
        containerd.ctr(&["task", "resume", &id]).ok();
        containerd.ctr(&["task", "kill", "--signal", "SIGKILL", &id]).ok();
        eventually("the task has stopped", || (containerd.status(&id) == "STOPPED").then_some(()));
        containerd.ctr(&["task", "rm", &id]).ok();
        let wanted = ["create", "start", "exec-added", "exec-started", "exit", "paused", "resumed", "exit", "delete"];
        let wanted: Vec<_> = wanted.iter().map(|name| format!("/tasks/{name}")).collect();
        eventually("all events", || (topics(&id).len() >= wanted.len()).then_some(()));
        ears.kill().and_then(|()| ears.wait()).expect("kill");
        assert_eq!(topics(&id), wanted);
    }
}

through_each_shim! {
    fn metrics_name_the_limits(containerd: Containerd) {
        let id = fresh_id();
        let limit = ["--detach", "--memory-limit", "67108864"];
        call(&mut containerd.run_command(&limit, &id, &["sleep", "1000"])).ok();
        let metrics = containerd.ctr(&["task", "metrics", "--format", "json", &id]).ok().out;
        // Of both versions: memory.usage.limit, or memory.usage_limit.
        assert!(metrics.contains("67108864"), "{metrics}");
        let first_words: BTreeSet<_> = metrics.split(['"', ':', '{', ',']).collect();
        for word in ["cpu", "memory", "pids"] {
            assert!(first_words.contains(word), "{word} in {metrics}");
        }
    }
}

through_each_shim! {
    /// containerd hears that the connection is gone, and calls the shim's `delete`.
    fn a_shim_that_was_killed_is_cleaned_up(containerd: Containerd) {
        let id = containerd.sleeper();
        let shims = containerd.shims();
        assert_eq!(shims.len(), 1, "{shims:?}");
        assert_eq!(shims[0].1, id);
        let children = format!("/proc/{0}/task/{0}/children", shims[0].0);
        let processes = std::fs::read_to_string(children).unwrap_or_default();
        call(Command::new("kill").args(["-KILL", &shims[0].0.to_string()])).ok();
        eventually("the task is gone or stopped", || (containerd.status(&id) != "RUNNING").then_some(()));
        for pid in processes.split_whitespace() {
            let stat = format!("/proc/{pid}/stat");
            // Of several threads the list may name some other than the container's, which have ended too.
            eventually("its processes are gone", || {
                let stat = std::fs::read_to_string(&stat).unwrap_or_default();
                (stat.is_empty() || stat.contains(") Z ")).then_some(())
            });
        }
        eventually("the task is deleted", || {
            containerd.ctr(&["task", "rm", "--force", &id]);
            containerd.status(&id).is_empty().then_some(())
        });
        containerd.ctr(&["container", "rm", &id]).ok();
        let mounts = call(containerd.sandbox.command("cat").arg("/proc/self/mountinfo")).ok().out;
        assert!(!mounts.contains(&format!("/{id}/")), "{mounts}");
        // And the id is free.
        call(&mut containerd.run_command(&["--rm"], &id, &["true"])).ok();
    }
}

/// ctr wants a terminal of its own for `--tty`; script(1) gives one.
fn on_a_terminal(sandbox: &Sandbox, command: &Command) -> Outcome {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let quoted: Vec<_> =
        words.map(|word| format!("'{}'", word.to_string_lossy().replace('\'', "'\\''"))).collect();
    let mut script = Command::new("script");
    script.args(["--quiet", "--return", "--command", &quoted.join(" "), "/dev/null"]);
    call(script.current_dir(sandbox.dir()).stdin(Stdio::null()))
}
