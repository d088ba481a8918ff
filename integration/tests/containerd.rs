//! containerd with its stock shim, the runtime in runc's place (`ctr run --runc-binary`).

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use integration::{Outcome, Sandbox, call, eventually, need, runtime};

struct Containerd {
    sandbox: Sandbox,
    daemon: Child,
    rootfs: PathBuf,
}

impl Containerd {
    /// A daemon of its own: socket, state and root below the sandbox's directory.
    fn start() -> Self {
        let sandbox = Sandbox::new("");
        let rootfs = sandbox.path("rootfs");
        integration::busybox(&rootfs);
        let config = format!(
            "version = 2\nroot = \"{dir}/lib\"\nstate = \"{dir}/run\"\n\
             disabled_plugins = [\"io.containerd.grpc.v1.cri\", \"io.containerd.internal.v1.opt\"]\n\
             [grpc]\naddress = \"{dir}/containerd.sock\"\n[ttrpc]\naddress = \"{dir}/containerd.sock.ttrpc\"\n",
            dir = sandbox.dir().display()
        );
        std::fs::write(sandbox.path("config.toml"), config).expect("the configuration");
        let log = std::fs::File::create(sandbox.path("log")).expect("the log");
        let daemon = sandbox
            .command("containerd")
            .arg("--config")
            .arg(sandbox.path("config.toml"))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("containerd");
        let containerd = Self { sandbox, daemon, rootfs };
        eventually("containerd answers", || (containerd.ctr(&["version"]).code == 0).then_some(()));
        containerd
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut ctr = self.sandbox.command("ctr");
        ctr.arg("--address").arg(self.sandbox.path("containerd.sock")).args(["--namespace", "integration"]);
        ctr.args(args);
        ctr
    }

    fn ctr(&self, args: &[&str]) -> Outcome {
        call(&mut self.command(args))
    }

    /// `ctr run` of the root filesystem.
    fn run_command(&self, options: &[&str], id: &str, args: &[&str]) -> Command {
        let mut ctr = self.command(&["run", "--runtime", "io.containerd.runc.v2", "--runc-binary"]);
        ctr.arg(runtime::path()).args(["--cgroup", &format!("{}/{id}", self.sandbox.cgroup)]);
        // Without an image there is no PATH.
        ctr.args(["--env", "PATH=/bin"]).args(options).arg("--rootfs").arg(&self.rootfs).arg(id).args(args);
        ctr
    }

    #[track_caller]
    fn run(&self, options: &[&str], args: &[&str]) -> Outcome {
        let id = fresh_id();
        call(&mut self.run_command(&[options, &["--rm"]].concat(), &id, args))
    }

    /// A container that sleeps until it is killed.
    #[track_caller]
    fn sleeper(&self) -> String {
        let id = fresh_id();
        call(&mut self.run_command(&["--detach"], &id, &["sleep", "1000"])).ok();
        id
    }

    /// `RUNNING`, `STOPPED` or nothing.
    fn status(&self, id: &str) -> String {
        let tasks = self.ctr(&["task", "list"]).ok().out;
        let line = tasks.lines().find(|line| line.split_whitespace().next() == Some(id)).unwrap_or_default();
        line.split_whitespace().nth(2).unwrap_or_default().to_owned()
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.sandbox.path("log")).unwrap_or_default();
            log.lines().filter(|line| !line.contains("level=info")).for_each(|line| eprintln!("{line}"));
        }
        let ended = self.daemon.kill().and_then(|()| self.daemon.wait());
        assert!(ended.is_ok() || std::thread::panicking(), "{ended:?}");
    }
}

fn fresh_id() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("c{}", COUNT.fetch_add(1, Ordering::Relaxed))
}

/// One daemon for one story; a test that fails shows which.
macro_rules! story {
    ($(#[$doc:meta])* fn $name:ident($containerd:ident) $body:block) => {
        $(#[$doc])*
        #[test]
        fn $name() {
            need!(root, program("containerd"), program("ctr"), program("containerd-shim-runc-v2"), program("busybox"));
            let $containerd = Containerd::start();
            $body
        }
    };
}

story! {
    fn run_gives_output_and_exit_status(containerd) {
        let run = containerd.run(&[], &["echo", "hello"]).ok();
        assert_eq!(run.out, "hello\n");
        let run = containerd.run(&[], &["sh", "-c", "echo to stderr >&2; exit 7"]);
        assert_eq!((run.code, run.err.as_str()), (7, "to stderr\n"));
        assert_eq!(containerd.run(&[], &["sh", "-c", "kill -9 $$; exit 0"]).code, 0, "init ignores its own signals");
        assert_eq!(containerd.ctr(&["task", "list", "--quiet"]).ok().out, "");
    }
}

story! {
    fn a_terminal_is_the_containers_own(containerd) {
        let id = fresh_id();
        let run = containerd.run_command(&["--rm", "--tty"], &id, &["sh", "-c", "tty; stty size; exit 5"]);
        let outcome = on_a_terminal(&containerd.sandbox, &run);
        assert!(outcome.out.contains("/dev/pts/0"), "{outcome:?}");
        assert_eq!(outcome.code, 5, "{outcome:?}");
    }
}

story! {
    fn exec_joins_a_running_container(containerd) {
        let id = containerd.sleeper();
        let exec = |args: &[&str]| containerd.ctr(&[&["task", "exec", "--exec-id", &fresh_id(), &id], args].concat());
        assert_eq!(exec(&["cat", "/proc/1/comm"]).ok().out, "sleep\n");
        assert_eq!(exec(&["sh", "-c", "exit 9"]).code, 9);
        let missing = exec(&["/no/such/program"]);
        assert_ne!(missing.code, 0);
        assert!(missing.err.contains("no such file or directory"), "{missing:?}");
        let exec_id = fresh_id();
        let mut tty = containerd.command(&["task", "exec", "--tty", "--exec-id", &exec_id, &id]);
        tty.args(["sh", "-c", "tty; exit 4"]);
        let on_tty = on_a_terminal(&containerd.sandbox, &tty);
        assert!(on_tty.out.contains("/dev/pts/") && on_tty.code == 4, "{on_tty:?}");
        assert_eq!(containerd.status(&id), "RUNNING");
    }
}

story! {
    fn kill_and_rm_end_it(containerd) {
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

story! {
    fn rm_by_force_kills(containerd) {
        let id = containerd.sleeper();
        containerd.ctr(&["task", "rm", "--force", &id]);
        assert_eq!(containerd.status(&id), "");
    }
}

story! {
    fn a_wrong_command_is_named(containerd) {
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

story! {
    fn limits_reach_the_cgroup(containerd) {
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

story! {
    /// The shim holds the container: the daemon may go and come back.
    fn a_container_outlives_the_daemon(mut_containerd) {
        let mut containerd = mut_containerd;
        let id = containerd.sleeper();
        containerd.daemon.kill().expect("kill");
        containerd.daemon.wait().expect("wait");
        containerd.daemon = containerd
            .sandbox
            .command("containerd")
            .arg("--config")
            .arg(containerd.sandbox.path("config.toml"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("containerd");
        eventually("containerd answers", || (containerd.ctr(&["version"]).code == 0).then_some(()));
        assert_eq!(containerd.status(&id), "RUNNING");
        let exec = containerd.ctr(&["task", "exec", "--exec-id", "after", &id, "echo", "back"]).ok();
        assert_eq!(exec.out, "back\n");
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
