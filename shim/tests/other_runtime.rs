//! The program as containerd starts it, with a runtime of ours that does next to nothing.

use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use shim::wire::messages::bootstrap::{BootstrapParams, Extension};
use shim::wire::messages::runc::Options;
use shim::wire::messages::{Any, task};
use shim::wire::{Message, MessageField, client::Client, encode, pack};
use tempfile::TempDir;

const SHIM: &str = env!("CARGO_BIN_EXE_containerd-shim-tare-v2");
/// More than anything here takes.
const LONG: Duration = Duration::from_secs(20);

/// runc's words: `create` starts a process and writes its pid, `update` fails without reading.
const RUNTIME: &str = r#"#!/bin/sh
here=$(dirname "$0")
while :; do
    case "$1" in
    --pid-file) pid=$2; shift ;;
    --log) log=$2; shift ;;
    create | start | kill | delete | update) verb=$1 ;;
    esac
    [ $# -gt 1 ] || break
    shift
done
case "$verb" in
create)
    ulimit -Sn >"$here/limit"
    sleep 1000 &
    printf %s $! >"$pid" ;;
update)
    echo '{"level":"error","msg":"these resources are not for me"}' >"$log"
    exit 1 ;;
kill) kill -KILL "$(cat "$here/c1/init.pid")" ;;
esac
exit 0
"#;

struct Shim {
    dir: TempDir,
    address: PathBuf,
    stream: UnixStream,
    client: Client,
}

impl Shim {
    /// With that soft and hard limit on descriptors.
    fn start(soft: u32, hard: u32) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let bundle = dir.path().join("c1");
        fs::create_dir_all(bundle.join("rootfs")).expect("made");
        fs::write(bundle.join("config.json"), r#"{"linux":{"namespaces":[{"type":"pid"}]}}"#)
            .expect("written");
        fs::write(bundle.join("log"), "").expect("written");
        script(&dir.path().join("runtime"), RUNTIME);
        let mut child = Command::new("sh")
            .args(["-c", r#"ulimit -Sn "$1" && ulimit -Hn "$2" && shift 2 && exec "$@""#, "sh"])
            .args([&soft.to_string(), &hard.to_string(), SHIM])
            .args(["-namespace", "tare-test", "-address", "/nowhere/c.sock", "-publish-binary", "/bin/true"])
            .args(["-id", "c1", "start"])
            .current_dir(&bundle)
            .process_group(0)
            .env("TTRPC_ADDRESS", dir.path().join("ttrpc"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("started");
        let value = MessageField::some(pack(&Options::default()).expect("packed"));
        let params = BootstrapParams {
            instance_id: "c1".into(),
            namespace: "tare-test".into(),
            socket_dir: Some(dir.path().join("s").display().to_string()),
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
        Self { dir, address, stream, client: Client::default() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn logger(&self, scheme: &str, text: &str) -> String {
        let path = self.path("logger");
        script(&path, &format!("#!/bin/sh\ncd {}\n{text}\n", self.dir.path().display()));
        format!("{scheme}://{}", path.display())
    }

    fn call(&mut self, method: &str, request: &impl Message) -> Result<Vec<u8>, String> {
        let payload = encode(request).expect("encoded");
        let service = "containerd.task.v2.Task";
        let stream = self.client.call(service, method, &payload, &[], LONG).expect("called");
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

    fn create(&mut self, stdout: &str) -> Result<Vec<u8>, String> {
        let options = Options {
            binary_name: self.path("runtime").display().to_string(),
            root: self.path("root").display().to_string(),
            ..Default::default()
        };
        self.call(
            "Create",
            &task::CreateTaskRequest {
                id: "c1".into(),
                bundle: self.path("c1").display().to_string(),
                stdout: stdout.into(),
                options: MessageField::some(pack(&options).expect("packed")),
                ..Default::default()
            },
        )
    }

    fn delete(&mut self) {
        let id = || "c1".to_owned();
        let kill = task::KillRequest { id: id(), signal: 9, ..Default::default() };
        self.call("Kill", &kill).expect("killed");
        self.call("Wait", &task::WaitRequest { id: id(), ..Default::default() }).expect("ended");
        self.call("Delete", &task::DeleteRequest { id: id(), ..Default::default() }).expect("deleted");
    }

    /// Waits until it has gone.
    fn end(mut self) {
        let shutdown = task::ShutdownRequest { id: "c1".into(), ..Default::default() };
        self.call("Shutdown", &shutdown).expect("shut down");
        self.stream.read_to_end(&mut Vec::new()).expect("closed in time");
    }
}

fn script(path: &Path, text: &str) {
    fs::write(path, text).expect("written");
    fs::set_permissions(path, Permissions::from_mode(0o755)).expect("set");
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn a_container_whose_logger_does_not_become_ready_is_not_created() {
    let mut shim = Shim::start(64, 64);
    let uri = shim.logger("binary-v2", "exit 1");
    let error = shim.create(&uri).expect_err("its logger is dead");
    assert!(error.contains("did not call ready"), "{error}");
    assert!(!shim.path("limit").exists(), "the runtime was called");
    shim.end();
}

#[test]
fn a_logger_writes_what_it_has_after_the_end_of_the_only_container() {
    let mut shim = Shim::start(64, 64);
    let flushed = shim.path("flushed");
    // For longer than the shim tries to tell its events to a containerd that is not there.
    let uri = shim
        .logger("binary", "trap 'sleep 5; : >flushed; exit' TERM; exec 5>&-; while :; do sleep 0.01; done");
    shim.create(&uri).expect("created");
    shim.delete();
    assert!(!flushed.exists(), "it takes longer than that");
    let dir = std::mem::replace(&mut shim.dir, tempfile::tempdir().expect("a folder"));
    shim.end();
    assert!(flushed.exists());
    drop(dir);
}

#[test]
fn a_runtime_that_does_not_read_is_asked_why() {
    let mut shim = Shim::start(64, 64);
    shim.create("").expect("created");
    // More than a pipe takes.
    let resources = Any { value: vec![b' '; 1 << 20], ..Default::default() };
    let update = task::UpdateTaskRequest {
        id: "c1".into(),
        resources: MessageField::some(resources),
        ..Default::default()
    };
    let error = shim.call("Update", &update).expect_err("it failed");
    assert!(error.contains("these resources are not for me"), "{error}");
    shim.delete();
    shim.end();
}

#[test]
fn the_limit_on_descriptors_is_raised_for_the_shim_and_nobody_else() {
    let mut shim = Shim::start(32, 256);
    let others: Vec<UnixStream> =
        (0..100).map(|_| UnixStream::connect(&shim.address).expect("connected")).collect();
    let uri = shim.logger("binary", "ulimit -Sn >logger_limit; exec 5>&-; exec sleep 1000");
    shim.create(&uri).expect("created, with a hundred connections");
    for name in ["limit", "logger_limit"] {
        assert_eq!(read(&shim.path(name)), "32\n", "{name}");
    }
    drop(others);
    shim.delete();
    shim.end();
}

#[test]
fn who_finds_no_descriptor_waits_until_there_is_one_and_the_shim_says_it_once() {
    let mut shim = Shim::start(32, 32);
    let others: Vec<UnixStream> =
        (0..60).map(|_| UnixStream::connect(&shim.address).expect("it is in the queue")).collect();
    let complaints = || read(&shim.path("c1/log")).matches("accept: ").count();
    let end = Instant::now() + LONG;
    while complaints() == 0 {
        assert!(Instant::now() < end, "the limit is not reached");
        std::thread::sleep(Duration::from_millis(5));
    }
    // In which it would have said it thousands of times.
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(complaints(), 1);
    drop(others);
    shim.stream = UnixStream::connect(&shim.address).expect("connected");
    shim.stream.set_read_timeout(Some(LONG)).expect("set");
    shim.client = Client::default();
    shim.end();
}
