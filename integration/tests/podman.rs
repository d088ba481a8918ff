//! Podman, as root and as a user, with the runtime given by a `containers.conf`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use integration::{Outcome, Sandbox, call, eventually, need, runtime};

/// The user that the rootless stories run as; the sandbox alone knows it.
const USER: &str = "20000";

struct Podman {
    sandbox: Sandbox,
    rootless: bool,
}

impl Podman {
    fn new(rootless: bool) -> Self {
        let sandbox = Sandbox::new(SETUP);
        let home = sandbox.path("home");
        std::fs::create_dir(&home).expect("home");
        // Podman asks runtimes that it knows by name for their errors as JSON; it is told that ours can.
        let name = runtime::path().file_name().expect("a name").to_string_lossy();
        let conf = format!(
            "[containers]\ndefault_sysctls = []\npids_limit = 0\n\
             [engine]\nruntime = \"{name}\"\nruntime_supports_json = [\"{name}\"]\ncgroup_manager = \"cgroupfs\"\n\
             events_logger = \"file\"\n[engine.runtimes]\n{name} = [\"{path}\"]\n",
            path = runtime::path().display()
        );
        std::fs::write(sandbox.path("containers.conf"), conf).expect("containers.conf");
        let rootfs = sandbox.path("rootfs");
        integration::busybox(&rootfs);
        let podman = Self { sandbox, rootless };
        if rootless {
            call(Command::new("chown").args(["-R", &format!("{USER}:{USER}")]).arg(podman.sandbox.dir()))
                .ok();
        }
        let tar = podman.sandbox.path("rootfs.tar");
        call(Command::new("tar").arg("-C").arg(&rootfs).arg("-cf").arg(&tar).arg(".")).ok();
        podman.call(&["import", "--quiet", &tar.to_string_lossy(), "busybox"]).ok();
        podman
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = if self.rootless {
            let mut setpriv = self.sandbox.command("setpriv");
            setpriv.args(["--reuid", USER, "--regid", USER, "--clear-groups", "podman"]);
            setpriv
        } else {
            self.sandbox.command("podman")
        };
        command.env("HOME", self.sandbox.path("home")).env("XDG_RUNTIME_DIR", self.sandbox.path("home"));
        command.env("CONTAINERS_CONF", self.sandbox.path("containers.conf")).current_dir("/");
        command
            .arg("--root")
            .arg(self.sandbox.path("storage"))
            .arg("--runroot")
            .arg(self.sandbox.path("runroot"));
        command.args(["--storage-driver", if self.rootless { "vfs" } else { "overlay" }]);
        command.args(args);
        command
    }

    #[track_caller]
    fn call(&self, args: &[&str]) -> Outcome {
        call(&mut self.command(args))
    }

    /// `podman run` without a network, which is not the runtime's.
    fn run_command(&self, options: &[&str], args: &[&str]) -> Command {
        let mut run = self.command(&["run", "--network", "none"]);
        if !self.rootless {
            run.arg(format!("--cgroup-parent={}", self.sandbox.cgroup));
        }
        run.args(options).arg("busybox").args(args);
        run
    }

    #[track_caller]
    fn run(&self, options: &[&str], args: &[&str]) -> Outcome {
        call(&mut self.run_command(options, args))
    }

    fn status(&self, name: &str) -> String {
        self.call(&["inspect", "--format", "{{.State.Status}}", name]).out.trim().to_owned()
    }
}

/// A user with a range of ids, known inside alone.
const SETUP: &str = "
    for file in passwd group subuid subgid; do
        cp /etc/$file \"$DIR/$file\" 2>/dev/null || : > \"$DIR/$file\"
        [ -e /etc/$file ] || : > /etc/$file
    done
    echo 'tester:x:20000:20000::/:/bin/sh' >> \"$DIR/passwd\"
    echo 'tester:x:20000:' >> \"$DIR/group\"
    echo 'tester:300000:65536' | tee -a \"$DIR/subuid\" >> \"$DIR/subgid\"
    for file in passwd group subuid subgid; do mount --bind \"$DIR/$file\" /etc/$file; done
    chmod 755 \"$DIR\"
";

fn as_root_and_as_user(story: impl Fn(&Podman)) {
    for rootless in [false, true] {
        eprintln!("rootless: {rootless}");
        story(&Podman::new(rootless));
    }
}

#[test]
fn run_gives_output_and_exit_codes() {
    need!(root, program("podman"), program("newuidmap"), program("busybox"));
    as_root_and_as_user(|podman| {
        let run = podman.run(&["--rm"], &["sh", "-c", "echo out; echo err >&2; exit 3"]);
        assert_eq!((run.code, run.out.as_str()), (3, "out\n"), "{run:?}");
        assert!(run.err.contains("err"), "{run:?}");
        assert_eq!(podman.run(&["--rm"], &["true"]).ok().out, "");
        assert_eq!(podman.run(&["--rm"], &["/no/such/program"]).code, 127);
        assert_eq!(podman.run(&["--rm"], &["no-such-program"]).code, 127);
        assert_eq!(podman.run(&["--rm"], &["/etc/passwd"]).code, 126);
        assert_eq!(podman.call(&["ps", "--all", "--quiet"]).ok().out, "");
    });
}

#[test]
fn the_runtime_under_test_runs_the_container() {
    need!(root, program("podman"), program("newuidmap"), program("busybox"));
    as_root_and_as_user(|podman| {
        podman.run(&["--name", "a"], &["true"]).ok();
        let used = podman.call(&["inspect", "--format", "{{.OCIRuntime}}", "a"]).ok().out;
        assert_eq!(Path::new(used.trim()).file_name(), runtime::path().file_name());
    });
}

#[test]
fn a_detached_container_is_entered_logged_stopped_and_removed() {
    need!(root, program("podman"), program("newuidmap"), program("busybox"));
    as_root_and_as_user(|podman| {
        let script = "trap 'echo bye; exit 6' TERM; echo up; while :; do sleep 0.1; done";
        podman.run(&["--detach", "--name", "a"], &["sh", "-c", script]).ok();
        eventually("the log", || podman.call(&["logs", "a"]).out.contains("up").then_some(()));
        assert_eq!(podman.call(&["exec", "a", "sh", "-c", "echo in; exit 9"]).code, 9);
        assert_eq!(
            podman
                .call(&["exec", "--env", "A=b", "--workdir", "/tmp", "a", "sh", "-c", "echo $A $PWD"])
                .ok()
                .out,
            "b /tmp\n"
        );
        assert_eq!(podman.call(&["exec", "a", "/no/such/program"]).code, 127);
        assert_eq!(podman.status("a"), "running");
        podman.call(&["stop", "a"]).ok();
        assert_eq!(podman.status("a"), "exited");
        assert_eq!(podman.call(&["inspect", "--format", "{{.State.ExitCode}}", "a"]).ok().out, "6\n");
        assert!(podman.call(&["logs", "a"]).ok().out.ends_with("bye\n"));
        podman.call(&["start", "a"]).ok();
        assert_eq!(podman.status("a"), "running");
        podman.call(&["kill", "a"]).ok();
        assert_eq!(podman.call(&["wait", "a"]).ok().out, "137\n");
        podman.call(&["rm", "a"]).ok();
        assert_eq!(podman.call(&["ps", "--all", "--quiet"]).ok().out, "");
    });
}

#[test]
fn standard_input_reaches_the_container() {
    need!(root, program("podman"), program("newuidmap"), program("busybox"));
    as_root_and_as_user(|podman| {
        let input = podman.sandbox.path("rootfs.tar");
        let length = std::fs::metadata(&input).expect("the tar").len();
        let mut wc = podman.run_command(&["--rm", "--interactive"], &["wc", "-c"]);
        wc.stdin(std::fs::File::open(&input).expect("the tar"));
        assert_eq!(call(&mut wc).ok().out.trim(), length.to_string());
    });
}

#[test]
fn a_terminal_has_a_size() {
    need!(root, program("podman"), program("newuidmap"), program("busybox"));
    // Podman may tell the size when the program runs already.
    let program = "i=0; until stty size | grep -q '31 99' || [ $i = 50 ]; do sleep 0.1; i=$((i+1)); done; tty; stty size; exit 5";
    as_root_and_as_user(|podman| {
        podman.run(&["--detach", "--name", "a"], &["sleep", "100"]).ok();
        let exec = podman.command(&["exec", "-it", "a", "sh", "-c", program]);
        let words = std::iter::once(exec.get_program()).chain(exec.get_args());
        let line: Vec<_> =
            words.map(|word| format!("'{}'", word.to_string_lossy().replace('\'', "'\\''"))).collect();
        let mut script = Command::new("script");
        script.args([
            "--quiet",
            "--return",
            "--command",
            &format!("stty rows 31 cols 99; {}", line.join(" ")),
            "/dev/null",
        ]);
        script.envs(exec.get_envs().filter_map(|(key, value)| Some((key, value?)))).stdin(Stdio::null());
        let outcome = call(&mut script);
        assert_eq!(outcome.code, 5, "{outcome:?}");
        assert!(outcome.out.contains("/dev/pts/0") && outcome.out.contains("31 99"), "{outcome:?}");
    });
}

#[test]
fn a_limit_reaches_the_cgroup() {
    need!(root, program("podman"), program("busybox"));
    let podman = Podman::new(false);
    podman.run(&["--detach", "--name", "a", "--memory", "64m"], &["sleep", "100"]).ok();
    let pid = podman.call(&["inspect", "--format", "{{.State.Pid}}", "a"]).ok().out;
    let cgroups = call(podman.sandbox.command("cat").arg(format!("/proc/{}/cgroup", pid.trim()))).ok().out;
    let limits: Vec<PathBuf> = cgroups
        .lines()
        .filter_map(|line| line.rsplit_once(":/"))
        .flat_map(|(controllers, path)| {
            let v1 = controllers.ends_with(":memory").then(|| format!("memory/{path}/memory.limit_in_bytes"));
            [v1, Some(format!("{path}/memory.max"))]
        })
        .flatten()
        .map(|path| Path::new("/sys/fs/cgroup").join(path))
        .collect();
    let set = limits.iter().filter_map(|path| std::fs::read_to_string(path).ok());
    assert!(set.into_iter().any(|limit| limit == "67108864\n"), "{cgroups} {limits:?}");
}
