//! A container of the runtime under test: its verbs, and the checks when it is dropped.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use serde_json::Value;

use crate::bundle::Bundle;
use crate::call::{Output, Running, call, eventually};
use crate::runtime::Flavor;
use crate::{need, rootless, runtime};

/// Dropping it deletes the container by force and checks that nothing stays.
#[derive(Debug)]
pub struct Container {
    bundle: Bundle,
    created: Option<Running>,
}

impl Container {
    pub(crate) fn new(bundle: Bundle) -> Self {
        Container { bundle, created: None }
    }

    pub fn id(&self) -> &str {
        &self.bundle.id
    }

    /// The temporary directory, for sockets and files of a test.
    pub fn dir(&self) -> &Path {
        self.bundle.dir()
    }

    pub fn bundle_path(&self) -> PathBuf {
        self.bundle.bundle_path()
    }

    pub fn rootfs_path(&self) -> PathBuf {
        self.bundle.rootfs_path()
    }

    pub fn config(&self) -> &Value {
        &self.bundle.config
    }

    /// The runtime's state directory, its `--root`.
    pub fn root(&self) -> PathBuf {
        self.dir().join("root")
    }

    /// The JSON log that the runtime was given.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir().join("log.json")).unwrap_or_default()
    }

    /// A call with the bundle's own `--root` and log, to be extended.
    pub fn command<S: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = S>) -> Command {
        let mut command = self.bare();
        command.arg("--root").arg(self.root()).arg("--log").arg(self.dir().join("log.json"));
        command.args(["--log-format", "json"]);
        if self.bundle.systemd {
            command.arg("--systemd-cgroup");
        }
        if runtime::under_test().flavor == Flavor::Youki {
            // A build for debugging tells of each step.
            command.args(["--log-level", "warn"]);
        }
        command.args(words);
        command
    }

    /// The runtime without any global option, called from the temporary directory.
    pub fn bare(&self) -> Command {
        let mut command = match self.bundle.user {
            Some(_) if !rootless::reachable() => Command::new(self.copied_runtime()),
            _ => Command::new(&runtime::under_test().path),
        };
        command.current_dir(self.dir());
        for name in ["NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"] {
            command.env_remove(name);
        }
        if let Some((uid, gid)) = self.bundle.user {
            command.uid(uid).gid(gid).env("XDG_RUNTIME_DIR", self.dir()).env("HOME", self.dir());
        }
        command
    }

    /// A copy of the runtime beside the bundle, for a user who cannot reach the original.
    fn copied_runtime(&self) -> PathBuf {
        let copy = self.dir().join("runtime");
        if !copy.exists() {
            // With its mode.
            fs::copy(rootless::runtime_file(), &copy).expect("copy the runtime");
        }
        copy
    }

    /// Calls the runtime with these words after the global options.
    #[track_caller]
    pub fn call<const N: usize>(&self, words: [&str; N]) -> Output {
        call(self.command(words))
    }

    #[track_caller]
    pub fn create(&mut self) -> Output {
        self.create_with([])
    }

    /// `create` with further options. The container's own output is then in [`stdout`](Self::stdout).
    #[track_caller]
    pub fn create_with<const N: usize>(&mut self, options: [&str; N]) -> Output {
        let mut command = self.command(["create", "--bundle"]);
        command.arg(self.bundle_path()).args(options).arg(self.id());
        self.create_by(command)
    }

    /// As `create`, by a command line (and environment) of the test's own, for example `run --detach`.
    #[track_caller]
    pub fn create_by(&mut self, command: Command) -> Output {
        let mut running = Running::spawn(command, b"");
        let output = running.wait();
        self.created = Some(running);
        output
    }

    /// `create`, killed by `SIGKILL` when it comes to this system call for the nth time. Needs `strace`.
    #[track_caller]
    pub fn create_killed_at(&mut self, system_call: &str, nth: u32) {
        let create = self.command(["create", "--bundle"]);
        let mut command = Command::new("strace");
        command.arg("-o").arg(self.dir().join("trace")).args(["-e", &format!("trace={system_call}")]);
        command.args(["-e", &format!("inject={system_call}:signal=SIGKILL:when={nth}")]);
        command.arg(create.get_program()).args(create.get_args()).current_dir(self.dir());
        command.arg(self.bundle_path()).arg(self.id());
        let output = self.create_by(command);
        assert_eq!(output.status.signal(), Some(Signal::SIGKILL as i32), "{output:?}");
    }

    /// What the detached container wrote up to now.
    pub fn stdout(&self) -> String {
        self.created.as_ref().map(Running::stdout).unwrap_or_default()
    }

    pub fn stderr(&self) -> String {
        self.created.as_ref().map(Running::stderr).unwrap_or_default()
    }

    #[track_caller]
    pub fn wait_for_stdout(&self, text: &str) {
        let lines = format!("\n{}\n", text.trim_end());
        eventually(&format!("{text:?} on the container's stdout"), || {
            format!("\n{}", self.stdout()).contains(&lines)
        });
    }

    #[track_caller]
    pub fn start(&self) -> Output {
        self.call(["start", self.id()])
    }

    /// `run` in the foreground.
    #[track_caller]
    pub fn run(&self) -> Output {
        if runtime::under_test().flavor == Flavor::Youki {
            return self.run_step_by_step();
        }
        self.run_with([])
    }

    /// What `run` does, for a runtime whose own does not always come back. The exit code is that of `create`.
    #[track_caller]
    fn run_step_by_step(&self) -> Output {
        let mut command = self.command(["create", "--bundle"]);
        command.arg(self.bundle_path()).arg(self.id());
        let mut create = Running::spawn(command, b"");
        let mut output = create.wait();
        if output.status.success() {
            self.start().ok();
            self.wait_for_status("stopped");
            output.stdout = create.stdout();
        }
        call(self.command(["delete", "--force", self.id()]));
        output
    }

    #[track_caller]
    pub fn run_with<const N: usize>(&self, options: [&str; N]) -> Output {
        self.spawn_run(options, b"").wait()
    }

    /// `run` in the foreground, not waited for.
    pub fn spawn_run<const N: usize>(&self, options: [&str; N], stdin: &[u8]) -> Running {
        let mut command = self.command(["run", "--bundle"]);
        command.arg(self.bundle_path()).args(options).arg(self.id());
        Running::spawn(command, stdin)
    }

    /// `exec` of the probe with these words.
    #[track_caller]
    pub fn exec<const N: usize>(&self, words: [&str; N]) -> Output {
        self.exec_with([], words)
    }

    /// `exec` of the probe, with options of `exec` before the id.
    #[track_caller]
    pub fn exec_with<const O: usize, const N: usize>(&self, options: [&str; O], words: [&str; N]) -> Output {
        let mut command = self.command(["exec"]);
        command.args(options).arg(self.id()).arg("/probe").args(words);
        call(command)
    }

    #[track_caller]
    pub fn kill(&self, signal: &str) -> Output {
        self.call(["kill", self.id(), signal])
    }

    #[track_caller]
    pub fn delete(&self) -> Output {
        self.call(["delete", self.id()])
    }

    #[track_caller]
    pub fn delete_by_force(&self) -> Output {
        self.call(["delete", "--force", self.id()])
    }

    /// The document that `state` prints; the call must succeed.
    #[track_caller]
    pub fn state(&self) -> Value {
        self.call(["state", self.id()]).ok().json()
    }

    #[track_caller]
    pub fn status(&self) -> String {
        self.state()["status"].as_str().expect("a status").to_owned()
    }

    /// The container's init as the host numbers it.
    #[track_caller]
    pub fn pid(&self) -> i32 {
        let pid = self.state()["pid"].as_i64().expect("a pid");
        i32::try_from(pid).expect("a pid")
    }

    #[track_caller]
    pub fn wait_for_status(&self, status: &str) {
        eventually(&format!("status {status}"), || self.status() == status);
    }

    /// Where this container's cgroup is: one directory on v2, one for each controller on v1.
    pub fn cgroups(&self) -> Vec<PathBuf> {
        let path = self.config()["linux"]["cgroupsPath"].as_str().unwrap_or_default().trim_start_matches('/');
        if path.is_empty() || path.contains(':') {
            return Vec::new();
        }
        let top = Path::new("/sys/fs/cgroup");
        let tops = if need::is_cgroup_v2() {
            vec![top.to_owned()]
        } else {
            fs::read_dir(top).map(|d| d.flatten().map(|e| e.path()).collect()).unwrap_or_default()
        };
        // A name below /sys/fs/cgroup may also be a link, or a plain directory where nothing is mounted.
        tops.into_iter().filter(|t| need::is_cgroup(t)).map(|t| t.join(path)).filter(|p| p.exists()).collect()
    }

    /// The directory of one v1 controller, or the one of v2.
    pub fn cgroup(&self, controller: &str) -> PathBuf {
        let path = self.config()["linux"]["cgroupsPath"].as_str().unwrap_or_default().trim_start_matches('/');
        let top = Path::new("/sys/fs/cgroup");
        if need::is_cgroup_v2() { top.join(path) } else { top.join(controller).join(path) }
    }

    /// The name of the scope, with [`Bundle::systemd`].
    pub fn unit(&self) -> Option<String> {
        let path = self.config()["linux"]["cgroupsPath"].as_str().filter(|_| self.bundle.systemd)?;
        let (prefix, name) = path.split_once(':')?.1.split_once(':')?;
        Some(format!("{prefix}-{name}.scope"))
    }

    /// A property of the scope, as `systemctl show` has it.
    #[track_caller]
    pub fn unit_property(&self, name: &str) -> String {
        let unit = self.unit().expect("a container of systemd");
        let output = call(systemctl(["show", "--value", "--property", name, &unit])).ok();
        output.stdout.trim().to_owned()
    }

    /// What should be gone after `delete` and is not.
    pub fn remains(&self) -> Vec<String> {
        // The rest of such a test is true of it.
        let flavor = runtime::under_test().flavor;
        if flavor != Flavor::Tare && !self.cgroups().is_empty() {
            eprintln!(
                "DIFFERS {flavor:?}: leaves the cgroup of a container that it refused, when it is busy"
            );
            self.sweep();
        }
        let mut remains: Vec<String> = self.cgroups().iter().map(|p| p.display().to_string()).collect();
        if let Some(unit) = self.unit().filter(|_| Path::new("/run/systemd/system").exists()) {
            // systemd forgets a unit when it finds the time.
            let is_left = |_: &u32| {
                std::thread::sleep(Duration::from_millis(20));
                self.unit_property("LoadState") != "not-found"
            };
            if (0..100).take_while(is_left).count() == 100 {
                remains.push(format!("{unit}, {}", self.unit_property("ActiveState")));
            }
        }
        let state = self.root().join(self.id());
        // An id that is no file's name (`..`) has no directory of its own.
        if state.file_name() == Some(OsStr::new(self.id())) && state.exists() {
            remains.push(state.display().to_string());
        }
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
        let dir = self.dir().to_str().expect("UTF-8");
        remains.extend(mounts.lines().filter(|l| l.contains(dir)).map(|l| format!("mount {l}")));
        remains
    }
}

impl Container {
    /// Ends what a runtime that failed the test left in the container's cgroups, and removes them.
    fn sweep(&self) {
        if let Some(unit) = self.unit() {
            call(systemctl(["stop", &unit]));
        }
        for cgroup in self.cgroups() {
            let procs = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
            for pid in procs.lines().filter_map(|l| l.parse().ok()) {
                // ESRCH: gone by itself.
                nix::sys::signal::kill(Pid::from_raw(pid), Signal::SIGKILL).ok();
            }
        }
        for cgroup in self.cgroups() {
            // Busy until the killed are reaped; a few tries, and then the report of the failure has its path.
            for _ in 0..50 {
                if fs::remove_dir(&cgroup).is_ok() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }
}

/// `systemctl` for the manager of whoever we are.
pub fn systemctl<const N: usize>(words: [&str; N]) -> Command {
    let mut command = Command::new("systemctl");
    if !nix::unistd::geteuid().is_root() {
        command.arg("--user");
    }
    command.args(words);
    command
}

impl Drop for Container {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("log of the runtime:\n{}", self.log());
            eprintln!("container's stdout: {}\nstderr: {}", self.stdout(), self.stderr());
        }
        let mut command = self.command(["delete", "--force"]);
        command.arg(self.id());
        // Not asserted: a container that was never created may be refused, and what counts is checked below.
        let output = Running::spawn(command, b"").wait_or_kill();
        if runtime::under_test().flavor != Flavor::Tare {
            // runc binds the root onto itself, on the host if the container has no mount namespace, and leaves it so when
            // it fails. EINVAL: it has not.
            nix::mount::umount2(&self.rootfs_path(), nix::mount::MntFlags::MNT_DETACH).ok();
        }
        let remains = self.remains();
        if output.is_err() || !remains.is_empty() {
            self.sweep();
            let text = format!("left behind after delete --force: {remains:#?}\n{output:#?}");
            // A second panic while the first unwinds would abort and hide both.
            if std::thread::panicking() { eprintln!("{text}") } else { panic!("{text}") }
        }
    }
}
