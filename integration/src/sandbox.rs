//! Where an engine's daemon runs: mount, network and process namespaces that end with the test.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

/// Dropped, it kills all that runs inside; the kernel then takes the mounts and the network with it, and what is left are the
/// cgroups below [`Sandbox::cgroup`], which are removed here.
#[derive(Debug)]
pub struct Sandbox {
    unshare: Child,
    init: String,
    dir: TempDir,
    /// Whether its processes have a namespace of their own.
    pids: bool,
    /// For the engine: the parent of its containers' cgroups.
    pub cgroup: String,
}

impl Sandbox {
    /// With an empty `/run`, a loopback that is up, and what `setup`, a line of shell, adds.
    ///
    /// # Panics
    /// When the namespaces cannot be made.
    pub fn new(setup: &str) -> Self {
        Self::unshared(&["--pid", "--mount-proc"], &format!("mount -t tmpfs -o mode=755 tmpfs /run; {setup}"))
    }

    /// With the host's systemd to speak to. It knows processes by the host's pids, so these have no namespace of
    /// their own.
    ///
    /// # Panics
    /// When the namespaces cannot be made, or there is no systemd.
    pub fn with_systemd() -> Self {
        let run =
            "mkdir \"$DIR/run\"; mount -t tmpfs -o mode=755 tmpfs \"$DIR/run\"; mkdir \"$DIR/run/systemd\"
             mount --bind /run/systemd \"$DIR/run/systemd\"; mount --no-mtab --move \"$DIR/run\" /run";
        Self::unshared(&[], run)
    }

    fn unshared(more: &[&str], setup: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("integration-").tempdir().expect("a directory");
        let cgroup = format!("/{}", dir.path().file_name().expect("a name").to_string_lossy());
        let script = format!("set -e; ip link set lo up; {setup}\n echo ready; exec sleep infinity");
        // However the test's process ends, by a signal or a panic that aborts, the kernel ends the sandbox.
        let mut unshare = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "unshare", "--mount", "--net", "--fork", "--kill-child"])
            .args(more)
            .args(["sh", "-c", &script])
            .env("DIR", dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare");
        let mut line = String::new();
        let stdout = unshare.stdout.take().expect("its output");
        BufReader::new(stdout).read_line(&mut line).expect("its output");
        assert_eq!(line, "ready\n", "the sandbox was not set up");
        let children = format!("/proc/{0}/task/{0}/children", unshare.id());
        let init = std::fs::read_to_string(children).expect("its child").trim().to_owned();
        Self { unshare, init, dir, pids: !more.is_empty(), cgroup }
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A path below the sandbox's directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A path inside, as it is reached from outside.
    pub fn outside(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.init))
    }

    /// A connection to an address of the sandbox's own network.
    ///
    /// # Panics
    /// When nobody listens there.
    pub fn connect(&self, address: &str) -> TcpStream {
        let namespace = File::open(format!("/proc/{}/ns/net", self.init)).expect("the network namespace");
        let address = address.to_owned();
        // A thread changes its own network namespace only, and a socket stays where it was made.
        let connecting = std::thread::spawn(move || {
            setns(namespace, CloneFlags::CLONE_NEWNET).expect("setns");
            TcpStream::connect(address).expect("connect")
        });
        connecting.join().expect("the connection")
    }

    /// The cgroups below [`Sandbox::cgroup`].
    pub fn cgroups(&self) -> Vec<PathBuf> {
        let children = |tree: &Path| std::fs::read_dir(tree).into_iter().flatten().flatten();
        let all = trees(&self.cgroup)
            .flat_map(|tree| children(&tree).map(|entry| entry.path()).collect::<Vec<_>>());
        all.filter(|path| path.is_dir()).collect()
    }

    /// A command inside, without input.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.init, "--mount", "--net", "--pid", "--"]).arg(program);
        command
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .stdin(Stdio::null());
        command
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        if !self.pids {
            kill_all_in(&self.init);
        }
        // With --kill-child its first process dies too, and with that all of the process namespace.
        let ended = self.unshare.kill().and_then(|()| self.unshare.wait());
        // A cgroup stays busy for a moment after its last process was killed.
        let begun = Instant::now();
        let mut left = remove_cgroups(&self.cgroup);
        while !left.is_empty() && begun.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(Duration::from_millis(20));
            left = remove_cgroups(&self.cgroup);
        }
        if !std::thread::panicking() {
            assert!(ended.is_ok() && left.is_empty(), "{ended:?}, cgroups left: {left:?}");
        }
    }
}

/// Kills what lives in the mount namespace of that process, and what such processes have started: containers.
fn kill_all_in(init: &str) {
    let namespace = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/mnt")).ok();
    let own = namespace(init);
    let pids = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = pids.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut found: Vec<_> =
        pids.filter(|pid| pid != init && own.is_some() && namespace(pid) == own).collect();
    let mut at = 0;
    while at < found.len() {
        // One that has ended meanwhile has no children.
        let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", found[at]));
        found.extend(children.unwrap_or_default().split_whitespace().map(str::to_owned));
        at += 1;
    }
    for pid in found.iter().filter_map(|pid| pid.parse().ok()) {
        // It may have ended.
        let _ended = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
}

/// Removes the trees of that name in every hierarchy; answers what could not be removed yet.
fn remove_cgroups(name: &str) -> Vec<PathBuf> {
    trees(name).filter(|tree| remove_tree(tree).is_err()).collect()
}

/// The cgroups of that name, in every hierarchy.
fn trees(name: &str) -> impl Iterator<Item = PathBuf> {
    let top = Path::new("/sys/fs/cgroup");
    let hierarchies = std::fs::read_dir(top).into_iter().flatten().flatten().map(|entry| entry.path());
    let trees = std::iter::once(top.to_owned()).chain(hierarchies).map(|dir| dir.join(&name[1..]));
    trees.filter(|tree| tree.is_dir())
}

/// A cgroup is removed by rmdir(2), its files go with it.
fn remove_tree(cgroup: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(cgroup)?.flatten().filter(|entry| entry.path().is_dir()) {
        remove_tree(&entry.path())?;
    }
    std::fs::remove_dir(cgroup)
}
