//! A containerd of a test's own: Debian's, or the one that `CONTAINERD` names, or that of another Debian's root
//! filesystem that `ENGINES` names.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::{Outcome, Sandbox, call, eventually, runtime, shim};

/// What runs a container's process.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Through {
    /// containerd's shim, which calls the runtime under test.
    Stock,
    /// The shim under test, which runs what it runs by itself; `runc`, should it ask for it, is the runtime under test.
    UnderTest,
}

#[derive(Debug)]
pub struct Containerd {
    pub sandbox: Sandbox,
    daemon: Child,
    pub rootfs: PathBuf,
    pub through: Through,
}

/// A setup of the sandbox that lays the programs of the Debian in `ENGINES` over this one's.
pub fn engines() -> String {
    let named = std::env::var("ENGINES").unwrap_or_default();
    if named.is_empty() { named } else { format!("mount --rbind '{named}/usr' /usr;") }
}

impl Containerd {
    /// A daemon of its own, without the CRI: socket, state and root below the sandbox's directory.
    pub fn start(through: Through) -> Self {
        Self::configured(through, "disabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n")
    }

    /// # Panics
    /// When it does not come up.
    pub fn configured(through: Through, more: &str) -> Self {
        let sandbox = Sandbox::new(&engines());
        let rootfs = sandbox.path("rootfs");
        crate::busybox(&rootfs);
        let bin = sandbox.path("bin");
        std::fs::create_dir(&bin).expect("a directory");
        // By the name of a runtime, io.containerd.judged.v2, containerd looks for this program.
        link(shim::path_of(through), &bin.join("containerd-shim-judged-v2"));
        link(runtime::path(), &bin.join("runc"));
        let more = more.replace("$DIR", &sandbox.dir().to_string_lossy());
        let config = format!(
            "version = 2\nroot = \"{dir}/lib\"\nstate = \"{dir}/run\"\n{more}\
             [grpc]\naddress = \"{dir}/containerd.sock\"\n[ttrpc]\naddress = \"{dir}/containerd.sock.ttrpc\"\n\
             [plugins.\"io.containerd.internal.v1.opt\"]\npath = \"{dir}/opt\"\n",
            dir = sandbox.dir().display()
        );
        std::fs::write(sandbox.path("config.toml"), config).expect("the configuration");
        let daemon = daemon(&sandbox);
        let containerd = Self { sandbox, daemon, rootfs, through };
        containerd.answers();
        containerd
    }

    fn answers(&self) {
        eventually("containerd answers", || (self.ctr(&["version"]).code == 0).then_some(()));
    }

    /// SIGKILL.
    ///
    /// # Panics
    /// When it is not there.
    pub fn kill(&mut self) {
        // The child is nsenter, and a program inside keeps its pid outside: nsenter forks for the pid namespace.
        let children = format!("/proc/{0}/task/{0}/children", self.daemon.id());
        let pids = std::fs::read_to_string(children).expect("the daemon");
        for pid in pids.split_whitespace() {
            call(Command::new("kill").args(["-KILL", pid])).ok();
        }
        self.daemon.wait().expect("wait");
    }

    /// Once more, where it was.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn start_again(&mut self) {
        self.daemon = daemon(&self.sandbox);
        self.answers();
    }

    pub fn socket(&self) -> PathBuf {
        self.sandbox.path("containerd.sock")
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut ctr = self.sandbox.command(program("ctr"));
        ctr.arg("--address").arg(self.socket()).args(["--namespace", "integration"]);
        ctr.args(args);
        ctr
    }

    #[track_caller]
    pub fn ctr(&self, args: &[&str]) -> Outcome {
        call(&mut self.command(args))
    }

    /// `ctr run` of the root filesystem.
    pub fn run_command(&self, options: &[&str], id: &str, args: &[&str]) -> Command {
        let mut ctr = self.command(&["run", "--runtime"]);
        match self.through {
            Through::Stock => ctr.args(["io.containerd.runc.v2", "--runc-binary"]).arg(runtime::path()),
            Through::UnderTest => ctr.arg("io.containerd.judged.v2"),
        };
        ctr.args(["--cgroup", &format!("{}/{id}", self.sandbox.cgroup)]);
        // Without an image there is no PATH.
        ctr.args(["--env", "PATH=/bin"]).args(options).arg("--rootfs").arg(&self.rootfs).arg(id).args(args);
        ctr
    }

    #[track_caller]
    pub fn run(&self, options: &[&str], args: &[&str]) -> Outcome {
        let id = fresh_id();
        call(&mut self.run_command(&[options, &["--rm"]].concat(), &id, args))
    }

    /// A container that sleeps until it is killed.
    #[track_caller]
    pub fn sleeper(&self) -> String {
        let id = fresh_id();
        call(&mut self.run_command(&["--detach"], &id, &["sleep", "1000"])).ok();
        id
    }

    /// `RUNNING`, `PAUSED`, `STOPPED` or nothing.
    #[track_caller]
    pub fn status(&self, id: &str) -> String {
        let tasks = self.ctr(&["task", "list"]).ok().out;
        let line = tasks.lines().find(|line| line.split_whitespace().next() == Some(id)).unwrap_or_default();
        line.split_whitespace().nth(2).unwrap_or_default().to_owned()
    }

    /// The serving shims of this daemon, by their pids outside, each with its container's or pod's id.
    ///
    /// # Panics
    /// When there is no `/proc`.
    pub fn shims(&self) -> Vec<(u32, String)> {
        let socket = self.socket();
        let mut alike = Vec::new();
        for entry in std::fs::read_dir("/proc").expect("/proc").flatten() {
            let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
            let cmdline = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let words: Vec<_> = cmdline.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
            let after = |name: &str| {
                let at = words.iter().position(|word| word == name)?;
                words.get(at + 1).map(|word| word.to_string())
            };
            let is_shim = words[0].contains("containerd-shim-") && !words.iter().any(|word| word == "start");
            if is_shim && after("-address").is_some_and(|address| Path::new(&address) == socket) {
                let status = std::fs::read_to_string(entry.path().join("status")).unwrap_or_default();
                let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")?.trim().parse().ok());
                alike.push((pid, parent.unwrap_or(0), after("-id").unwrap_or_default()));
            }
        }
        // A child of one is a copy that has not become its container's program yet.
        let pids: Vec<u32> = alike.iter().map(|(pid, ..)| *pid).collect();
        alike.retain(|(_, parent, _)| !pids.contains(parent));
        alike.into_iter().map(|(pid, _, id)| (pid, id)).collect()
    }
}

/// `CONTAINERD`, and `ctr` beside it; else those of the sandbox.
fn program(name: &str) -> PathBuf {
    match std::env::var_os("CONTAINERD").filter(|path| !path.is_empty()).map(PathBuf::from) {
        Some(containerd) if name == "containerd" => containerd,
        Some(containerd) if containerd.with_file_name(name).exists() => containerd.with_file_name(name),
        _ => PathBuf::from(name),
    }
}

fn link(program: &Path, name: &Path) {
    std::os::unix::fs::symlink(program, name).expect("a link");
}

fn daemon(sandbox: &Sandbox) -> Child {
    let log =
        std::fs::OpenOptions::new().create(true).append(true).open(sandbox.path("log")).expect("the log");
    // Beside a containerd that was given lies the shim of its own version.
    let containerd = program("containerd");
    let beside = containerd.parent().map(|dir| format!("{}:", dir.display())).unwrap_or_default();
    let path = format!(
        "{}:{beside}/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        sandbox.path("bin").display()
    );
    let mut command = sandbox.command(containerd);
    command.env("PATH", path.replace("::", ":")).arg("--config").arg(sandbox.path("config.toml"));
    command.stdout(Stdio::null()).stderr(log).spawn().expect("containerd")
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

/// An id that no other container of this process has.
pub fn fresh_id() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("c{}", COUNT.fetch_add(1, Ordering::Relaxed))
}

/// A story that is played through the stock shim and through the one under test, each with an `$engine` of its own,
/// whose `start` takes the way: two tests, so that one that fails shows which.
#[macro_export]
macro_rules! through_each_shim {
    ($(#[$doc:meta])* fn $name:ident($engine:ident: $kind:ident) $body:block) => {
        $(#[$doc])*
        mod $name {
            use super::*;

            #[test]
            fn through_the_stock_shim() {
                play($crate::containerd::Through::Stock);
            }

            #[test]
            fn through_the_shim_under_test() {
                play($crate::containerd::Through::UnderTest);
            }

            fn play(through: $crate::containerd::Through) {
                $crate::need!(
                    root,
                    program("containerd"),
                    program("ctr"),
                    program($crate::shim::STOCK),
                    program("busybox")
                );
                let $engine = $kind::start(through);
                $body
            }
        }
    };
}
