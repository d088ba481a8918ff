//! The program as containerd starts it: one server, and one container in it.
#![allow(dead_code, unreachable_pub)]

use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use shim::wire::messages::bootstrap::{BootstrapParams, Extension};
use shim::wire::messages::runc::Options;
use shim::wire::messages::task;
use shim::wire::{Message, MessageField, client::Client, encode, pack};
use tempfile::TempDir;

const SHIM: &str = env!("CARGO_BIN_EXE_containerd-shim-tare-v2");
/// Until it is executed, what one test starts has a copy of all that the others have open: so no script is written
/// meanwhile, for it could not be executed as long as somebody has it open for writing.
static STARTS: Mutex<()> = Mutex::new(());

/// More than anything here takes.
pub const LONG: Duration = Duration::from_secs(20);

pub struct Shim {
    pub dir: TempDir,
    _sockets: TempDir,
    pub address: PathBuf,
    pub stream: UnixStream,
    pub client: Client,
}

impl Shim {
    /// With that soft and hard limit on descriptors.
    pub fn start(soft: u32, hard: u32) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        // A socket's name has to be short, and `TMPDIR` may be long.
        let sockets = tempfile::tempdir_in("/tmp").expect("a folder");
        let bundle = dir.path().join("c1");
        fs::create_dir_all(bundle.join("rootfs")).expect("made");
        fs::write(bundle.join("config.json"), r#"{"linux":{"namespaces":[{"type":"pid"}]}}"#)
            .expect("written");
        fs::write(bundle.join("log"), "").expect("written");
        let mut command = Command::new("sh");
        command
            .args(["-c", r#"ulimit -Sn "$1" && ulimit -Hn "$2" && shift 2 && exec "$@""#, "sh"])
            .args([&soft.to_string(), &hard.to_string(), SHIM])
            .args(["-namespace", "tare-test", "-address", "/nowhere/c.sock", "-publish-binary", "/bin/true"])
            .args(["-id", "c1", "start"])
            .current_dir(&bundle)
            .process_group(0)
            .env("TTRPC_ADDRESS", dir.path().join("ttrpc"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = alone(|| command.spawn()).expect("started");
        let value = MessageField::some(pack(&Options::default()).expect("packed"));
        let params = BootstrapParams {
            instance_id: "c1".into(),
            namespace: "tare-test".into(),
            socket_dir: Some(sockets.path().display().to_string()),
            extensions: vec![Extension { value, ..Default::default() }],
            ..Default::default()
        };
        let params = encode(&params).expect("encoded");
        child.stdin.take().expect("piped").write_all(&params).expect("written");
        let output = child.wait_with_output().expect("ended");
        assert!(output.status.success());
        let address = String::from_utf8(output.stdout).expect("text");
        let address = PathBuf::from(address.trim_start_matches("unix://"));
        let stream = UnixStream::connect(&address).expect("connected");
        stream.set_read_timeout(Some(LONG)).expect("set");
        Self { dir, _sockets: sockets, address, stream, client: Client::default() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn logger(&self, scheme: &str, text: &str) -> String {
        let path = self.path("logger");
        script(&path, &format!("#!/bin/sh\ncd {}\n{text}\n", self.dir.path().display()));
        format!("{scheme}://{}", path.display())
    }

    pub fn call(&mut self, method: &str, request: &impl Message) -> Result<Vec<u8>, String> {
        call(&mut self.stream, &mut self.client, method, request)
    }

    /// `binary`: as in the options; empty for the runtime that is linked into it.
    pub fn create(&mut self, binary: &str, stdout: &str) -> Result<Vec<u8>, String> {
        let options = Options {
            binary_name: binary.into(),
            root: self.path("root").display().to_string(),
            ..Default::default()
        };
        let rootfs = task::Mount { type_: "tmpfs".into(), source: "tare-test".into(), ..Default::default() };
        self.call(
            "Create",
            &task::CreateTaskRequest {
                id: "c1".into(),
                bundle: self.path("c1").display().to_string(),
                stdout: stdout.into(),
                rootfs: if binary.is_empty() { vec![rootfs] } else { Vec::new() },
                options: MessageField::some(pack(&options).expect("packed")),
                ..Default::default()
            },
        )
    }

    pub fn delete(&mut self) {
        let id = || "c1".to_owned();
        let kill = task::KillRequest { id: id(), signal: 9, ..Default::default() };
        self.call("Kill", &kill).expect("killed");
        self.call("Wait", &task::WaitRequest { id: id(), ..Default::default() }).expect("ended");
        self.call("Delete", &task::DeleteRequest { id: id(), ..Default::default() }).expect("deleted");
    }

    /// Waits until it has gone.
    pub fn end(mut self) {
        let shutdown = task::ShutdownRequest { id: "c1".into(), ..Default::default() };
        self.call("Shutdown", &shutdown).expect("shut down");
        self.stream.read_to_end(&mut Vec::new()).expect("closed in time");
    }

    /// Of the server: the first of those in the bundle. Its copies are its children.
    ///
    /// # Panics
    /// When it is not there.
    pub fn pid(&self) -> i32 {
        self.find().expect("the server")
    }

    fn find(&self) -> Option<i32> {
        let bundle = self.path("c1").canonicalize().ok()?;
        let there: Vec<i32> = fs::read_dir("/proc")
            .ok()?
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .filter(|pid| fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == bundle))
            .collect();
        let is_copy = |pid: &i32| there.iter().any(|parent| parent != pid && children(*parent).contains(pid));
        there.iter().find(|pid| !is_copy(pid)).copied()
    }

    pub fn children(&self) -> Vec<i32> {
        children(self.pid())
    }
}

impl Drop for Shim {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        for log in ["c1/log", "c1/log.json"] {
            eprintln!("{log}: {}", fs::read_to_string(self.path(log)).unwrap_or_default());
        }
        // Of a test that has failed nobody else ends it.
        let Some(pid) = self.find() else { return eprintln!("the server is gone") };
        for pid in [vec![pid], children(pid)].concat() {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            eprintln!("the server or a child of it: {}", stat.trim_end());
        }
        kill(Pid::from_raw(pid), Signal::SIGKILL).ok();
    }
}

/// None of one that is gone.
pub fn children(pid: i32) -> Vec<i32> {
    let file = format!("/proc/{pid}/task/{pid}/children");
    let children = fs::read_to_string(file).unwrap_or_default();
    children.split_whitespace().map(|pid| pid.parse().expect("a pid")).collect()
}

/// One that has ended meanwhile is none.
pub fn kill_all(pids: &[i32]) {
    for pid in pids {
        match kill(Pid::from_raw(*pid), Signal::SIGKILL) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(errno) => panic!("kill {pid}: {errno}"),
        }
    }
}

pub fn script(path: &Path, text: &str) {
    alone(|| fs::write(path, text)).expect("written");
    fs::set_permissions(path, Permissions::from_mode(0o755)).expect("set");
}

fn alone<T>(act: impl FnOnce() -> T) -> T {
    let _alone = STARTS.lock().unwrap_or_else(PoisonError::into_inner);
    act()
}

pub fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// # Panics
/// When it does not become so.
pub fn eventually(what: &str, is_so: impl Fn() -> bool) {
    let end = Instant::now() + LONG;
    while !is_so() {
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// # Panics
/// When there is no answer in time.
pub fn call(
    connection: &mut UnixStream,
    client: &mut Client,
    method: &str,
    request: &impl Message,
) -> Result<Vec<u8>, String> {
    let payload = encode(request).expect("encoded");
    let stream = client.call("containerd.task.v2.Task", method, &payload, &[], LONG).expect("called");
    connection.write_all(client.to_send()).expect("sent");
    client.sent(client.to_send().len());
    let mut bytes = [0; 4096];
    loop {
        let n = connection.read(&mut bytes).expect("an answer in time");
        assert_ne!(n, 0, "closed");
        if let Some((answered, answer)) = client.received(&bytes[..n]).pop() {
            assert_eq!(answered, stream);
            return answer.map_err(|status| status.to_string());
        }
    }
}
