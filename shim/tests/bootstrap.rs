//! The program as containerd starts it, without containerd.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use shim::wire::messages::bootstrap::{BootstrapParams, Extension};
use shim::wire::messages::introspection::RuntimeInfo;
use shim::wire::messages::runc::Options;
use shim::wire::messages::task::DeleteResponse;
use shim::wire::{MessageField, client::Client, decode, encode, pack};
use tempfile::TempDir;

const SHIM: &str = env!("CARGO_BIN_EXE_containerd-shim-tare-v2");
/// What is killed, and how long a server may take to notice: it has nothing to wait for.
const SOON: Duration = Duration::from_secs(10);

/// A bundle, and a folder for sockets so that none is made in the host's.
struct Bundle {
    dir: TempDir,
    sockets: TempDir,
}

impl Bundle {
    fn new(annotations: &str) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        // A socket's name has to be short, and `TMPDIR` may be long.
        let sockets = tempfile::tempdir_in("/tmp").expect("a folder");
        let bundle = Self { dir, sockets };
        bundle.add("c1", annotations);
        bundle
    }

    fn add(&self, id: &str, annotations: &str) {
        let path = self.dir.path().join(id);
        fs::create_dir_all(path.join("rootfs")).expect("made");
        fs::write(path.join("config.json"), format!(r#"{{"annotations": {annotations}}}"#)).expect("written");
    }

    fn path(&self, id: &str) -> std::path::PathBuf {
        self.dir.path().join(id)
    }

    fn command(&self, id: &str, action: &str) -> Command {
        let mut command = Command::new(SHIM);
        command.args([
            "-namespace",
            "tare-test",
            "-address",
            "/nowhere/c.sock",
            "-publish-binary",
            "/bin/true",
        ]);
        command.args(["-id", id, action]).current_dir(self.path(id)).process_group(0);
        command.env("TTRPC_ADDRESS", self.dir.path().join("ttrpc")).stdin(Stdio::piped());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// `start` in the newer dialect, which alone can say where the socket is to be.
    fn start(&self, id: &str) -> Output {
        let mut child = self.command(id, "start").spawn().expect("started");
        child.stdin.take().expect("piped").write_all(&self.params(id, Options::default())).expect("written");
        child.wait_with_output().expect("ended")
    }

    fn params(&self, id: &str, options: Options) -> Vec<u8> {
        let value = MessageField::some(pack(&options).expect("packed"));
        let params = BootstrapParams {
            instance_id: id.into(),
            namespace: "tare-test".into(),
            socket_dir: Some(self.sockets().display().to_string()),
            extensions: vec![Extension { value, ..Default::default() }],
            ..Default::default()
        };
        encode(&params).expect("encoded")
    }

    fn sockets(&self) -> std::path::PathBuf {
        self.sockets.path().join("s")
    }
}

fn address(output: &Output) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}{err}");
    assert_eq!(err, "", "containerd would take it for a part of the address");
    assert!(out.starts_with("unix:///") && !out.contains('\n'), "{out}");
    out.into_owned()
}

struct Server {
    stream: UnixStream,
    client: Client,
}

impl Server {
    fn connect(address: &str) -> Self {
        let stream = UnixStream::connect(address.trim_start_matches("unix://")).expect("connected");
        stream.set_read_timeout(Some(SOON)).expect("set");
        Self { stream, client: Client::default() }
    }

    fn call(&mut self, service: &str, method: &str) -> Result<Vec<u8>, String> {
        // Every request has the container's id as its first field.
        let stream = self.client.call(service, method, b"\x0a\x02c1", &[], SOON).expect("called");
        self.stream.write_all(self.client.to_send()).expect("sent");
        self.client.sent(self.client.to_send().len());
        let mut bytes = [0; 4096];
        loop {
            let n = self.stream.read(&mut bytes).expect("an answer in time");
            assert_ne!(n, 0, "closed");
            if let Some((answered, answer)) = self.client.received(&bytes[..n]).pop() {
                assert_eq!(answered, stream);
                return answer.map_err(|status| status.to_string());
            }
        }
    }

    /// Waits until it has gone.
    fn end(mut self) {
        self.call("containerd.task.v3.Task", "Shutdown").expect("shut down");
        let mut rest = Vec::new();
        self.stream.read_to_end(&mut rest).expect("closed in time");
    }
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + SOON;
    while !done() {
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn start_answers_with_a_bare_address_and_the_server_serves_both_services() {
    let bundle = Bundle::new("{}");
    let address = address(&bundle.start("c1"));
    assert_eq!(fs::read_to_string(bundle.path("c1").join("address")).expect("written"), address);
    let mut server = Server::connect(&address);
    for service in ["containerd.task.v2.Task", "containerd.task.v3.Task"] {
        let answer = server.call(service, "State").expect_err("no such task");
        assert!(answer.contains("not found"), "{answer}");
        assert!(server.call(service, "Nothing").expect_err("no such method").contains("UNIMPLEMENTED"));
    }
    server.end();
    wait_until("the socket is removed", || fs::read_dir(bundle.sockets()).expect("listed").next().is_none());
}

#[test]
fn containers_of_a_group_share_a_server() {
    let pod = r#"{"io.kubernetes.cri.sandbox-id": "pod"}"#;
    let bundle = Bundle::new(pod);
    bundle.add("c2", pod);
    bundle.add("c3", "{}");
    let [first, second, third] = ["c1", "c2", "c3"].map(|id| address(&bundle.start(id)));
    assert_eq!(first, second);
    assert_ne!(first, third);
    assert_eq!(fs::read_to_string(bundle.path("c2").join("address")).expect("written"), first);
    Server::connect(&first).end();
    Server::connect(&third).end();
}

#[test]
fn the_socket_of_a_server_that_was_killed_is_taken_over_and_delete_removes_it() {
    let bundle = Bundle::new("{}");
    let first = address(&bundle.start("c1"));
    // Found by its name: the kernel takes `start`, which called listen(2), for the one that listens.
    let server = || {
        fs::read_dir("/proc").expect("listed").flatten().find_map(|entry| {
            let words = fs::read(entry.path().join("cmdline")).ok()?;
            let cwd = fs::read_link(entry.path().join("cwd")).ok()?;
            let ours = words.starts_with(SHIM.as_bytes()) && cwd == bundle.path("c1");
            ours.then(|| entry.file_name().to_string_lossy().parse::<i32>().ok()).flatten()
        })
    };
    let end = || {
        let pid = nix::unistd::Pid::from_raw(server().expect("a server"));
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).expect("killed");
        wait_until("the server is gone", || has_ended(pid));
    };
    end();
    assert_eq!(address(&bundle.start("c1")), first, "the dead one's place");
    end();
    let path = first.trim_start_matches("unix://");
    assert!(Path::new(path).exists());
    fs::write(bundle.path("c1").join("init.pid"), "4194999").expect("written");
    let mut delete = bundle.command("c1", "delete");
    let output = delete.stdin(Stdio::null()).output().expect("ran");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    let response: DeleteResponse = decode(&output.stdout).expect("a response");
    assert_eq!((response.pid, response.exit_status), (4_194_999, 137));
    assert!(!Path::new(path).exists());
}

#[test]
fn a_start_that_fails_leaves_no_server_and_no_socket() {
    let bundle = Bundle::new("{}");
    let mut child = bundle.command("c1", "start").spawn().expect("started");
    // Found out when the server is there already.
    let options = Options { shim_cgroup: "/no/such/cgroup".into(), ..Options::default() };
    child.stdin.take().expect("piped").write_all(&bundle.params("c1", options)).expect("written");
    let output = child.wait_with_output().expect("ended");
    assert!(!output.status.success());
    assert_eq!(String::from_utf8_lossy(&output.stdout), "");
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(error.contains("failed to load cgroup /no/such/cgroup"), "{error}");
    assert!(fs::read_dir(bundle.sockets()).expect("listed").next().is_none());
    assert_eq!(servers_in(&bundle.path("c1")), 0);
}

#[test]
fn a_start_whose_reply_nobody_can_read_leaves_no_server() {
    let bundle = Bundle::new("{}");
    let mut child = bundle.command("c1", "start").spawn().expect("started");
    drop(child.stdout.take());
    child.stdin.take().expect("piped").write_all(&bundle.params("c1", Options::default())).expect("written");
    let output = child.wait_with_output().expect("ended");
    assert!(!output.status.success());
    assert_eq!(servers_in(&bundle.path("c1")), 0);
    assert!(fs::read_dir(bundle.sockets()).expect("listed").next().is_none());
}

#[test]
fn a_bundle_without_configuration_is_an_error_that_names_the_file() {
    let bundle = Bundle::new("{}");
    fs::remove_file(bundle.path("c1").join("config.json")).expect("removed");
    let output = bundle.start("c1");
    assert!(!output.status.success());
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(error.contains("config.json: no such file or directory"), "{error}");
}

#[test]
fn a_server_that_nobody_started_says_so() {
    let bundle = Bundle::new("{}");
    let output = bundle.command("c1", "").stdin(Stdio::null()).output().expect("ran");
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("only `start` starts the server"));
    // Nor does one come of a listening socket alone.
    let listener = UnixListener::bind(bundle.sockets.path().join("l")).expect("bound");
    let (gate, far) = UnixStream::pair().expect("a pair");
    let mut command = bundle.command("c1", "");
    command.stdin(std::os::fd::OwnedFd::from(listener)).stdout(std::os::fd::OwnedFd::from(far));
    let mut child = command.spawn().expect("started");
    drop(command);
    drop(gate);
    assert!(child.wait().expect("ended").success());
}

#[test]
fn info_is_a_bare_message_that_names_us_and_the_runtimes_features() {
    let output = Command::new(SHIM).arg("-info").stdin(Stdio::null()).output().expect("ran");
    assert!(output.status.success());
    let info: RuntimeInfo = decode(&output.stdout).expect("a RuntimeInfo");
    assert_eq!(info.name, "io.containerd.tare.v2");
    let features: serde_json::Value = serde_json::from_slice(&info.features.value).expect("a document");
    assert!(features["ociVersionMax"].is_string());
}

/// Only then all that it had open is closed: its command line is gone before.
fn has_ended(pid: nix::unistd::Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.map_or(true, |stat| stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with(['Z', 'X'])))
}

fn servers_in(bundle: &Path) -> usize {
    let in_it = |entry: &fs::DirEntry| fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd == bundle);
    fs::read_dir("/proc").expect("listed").flatten().filter(in_it).count()
}
