//! A runtime that is called by its command line: one of ours that does next to nothing.

mod server;

use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use server::{LONG, Shim, eventually, kill_all, read, script};
use shim::wire::messages::{Any, task};
use shim::wire::{MessageField, client::Client, decode};

/// runc's words: `create` starts a process and writes its pid, `update` fails without reading.
const RUNTIME: &str = r#"#!/bin/sh
here=$(dirname "$0")
while :; do
    case "$1" in
    --pid-file) pid=$2; shift ;;
    --log) log=$2; shift ;;
    --force) : >"$here/forced" ;;
    create | start | kill | delete | update) verb=$1 ;;
    esac
    [ $# -gt 1 ] || break
    shift
done
case "$verb" in
create)
    if [ -e "$here/slow" ]; then
        : >"$here/creating"
        exec sleep 1000
    fi
    ulimit -Sn >"$here/limit"
    if [ -e "$here/brief" ]; then
        # It ends after its maker, a shell, which would reap it; and before the runtime.
        mkfifo "$here/held"
        (sh -c 'read -r _ <"$0"; exit 7' "$here/held" & exec 3>"$here/held"; printf %s $! >"$pid")
        turns=0
        while kill -0 "$(cat "$pid")" 2>/dev/null && [ $((turns += 1)) -lt 1000 ]; do sleep 0.01; done
        exit 0
    fi
    [ ! -e "$here/silent" ] || exit 0
    sleep 1000 &
    printf %s $! >"$pid" ;;
update)
    echo '{"level":"error","msg":"these resources are not for me"}' >"$log"
    exit 1 ;;
kill) kill -KILL "$(cat "$here/c1/init.pid")" ;;
esac
exit 0
"#;

fn start(soft: u32, hard: u32) -> Shim {
    let shim = Shim::start(soft, hard);
    script(&shim.path("runtime"), RUNTIME);
    shim
}

fn create(shim: &mut Shim, stdout: &str) -> Result<Vec<u8>, String> {
    let binary = shim.path("runtime").display().to_string();
    shim.create(&binary, stdout)
}

#[test]
fn a_container_whose_logger_does_not_become_ready_is_not_created() {
    let mut shim = start(64, 64);
    let uri = shim.logger("binary-v2", "exit 1");
    let error = create(&mut shim, &uri).expect_err("its logger is dead");
    assert!(error.contains("did not call ready"), "{error}");
    assert!(!shim.path("limit").exists(), "the runtime was called");
    shim.end();
}

#[test]
fn a_logger_writes_what_it_has_after_the_end_of_the_only_container() {
    let mut shim = start(64, 64);
    let flushed = shim.path("flushed");
    // For longer than the shim tries to tell its events to a containerd that is not there.
    let uri = shim
        .logger("binary", "trap 'sleep 5; : >flushed; exit' TERM; exec 5>&-; while :; do sleep 0.01; done");
    create(&mut shim, &uri).expect("created");
    shim.delete();
    assert!(!flushed.exists(), "it takes longer than that");
    let dir = std::mem::replace(&mut shim.dir, tempfile::tempdir().expect("a folder"));
    shim.end();
    assert!(flushed.exists());
    drop(dir);
}

#[test]
fn a_runtime_that_does_not_read_is_asked_why() {
    let mut shim = start(64, 64);
    create(&mut shim, "").expect("created");
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
    let mut shim = start(32, 256);
    let others: Vec<UnixStream> =
        (0..100).map(|_| UnixStream::connect(&shim.address).expect("connected")).collect();
    let uri = shim.logger("binary", "ulimit -Sn >logger_limit; exec 5>&-; exec sleep 1000");
    create(&mut shim, &uri).expect("created, with a hundred connections");
    for name in ["limit", "logger_limit"] {
        assert_eq!(read(&shim.path(name)), "32\n", "{name}");
    }
    drop(others);
    shim.delete();
    shim.end();
}

#[test]
fn who_finds_no_descriptor_waits_until_there_is_one_and_the_shim_says_it_once() {
    let mut shim = start(32, 32);
    let others: Vec<UnixStream> =
        (0..60).map(|_| UnixStream::connect(&shim.address).expect("it is in the queue")).collect();
    let complaints = || read(&shim.path("c1/log")).matches("accept: ").count();
    eventually("the limit is reached", || complaints() > 0);
    // In which it would have said it thousands of times.
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(complaints(), 1);
    drop(others);
    shim.stream = UnixStream::connect(&shim.address).expect("connected");
    shim.stream.set_read_timeout(Some(LONG)).expect("set");
    shim.client = Client::default();
    shim.end();
}

#[test]
fn a_creation_whose_maker_is_killed_is_taken_back_before_it_is_answered() {
    let mut shim = start(64, 64);
    std::fs::write(shim.path("slow"), "").expect("written");
    let (pid, creating) = (shim.pid(), shim.path("creating"));
    let killer = std::thread::spawn(move || {
        eventually("the runtime was called", || creating.exists());
        kill_all(&server::children(pid));
    });
    let error = create(&mut shim, "").expect_err("its maker is dead");
    killer.join().expect("killed");
    assert!(error.contains("was it killed?"), "{error}");
    assert!(shim.path("forced").exists(), "delete --force comes first");
    // What the runtime was about to start it has not told anybody of. The copy that has taken it back ends after
    // its answer.
    eventually("it alone is the shim's child now", || shim.children().len() == 1);
    kill_all(&shim.children());
    std::fs::remove_file(shim.path("slow")).expect("removed");
    create(&mut shim, "").expect("the name is free again");
    shim.delete();
    shim.end();
}

/// As runc's, its process is nobody's child when the runtime ends, and then the shim's.
#[test]
fn the_end_of_a_process_is_known_that_came_before_its_number_was() {
    let mut shim = start(64, 64);
    std::fs::write(shim.path("brief"), "").expect("written");
    let created = create(&mut shim, "").expect("created");
    let created: task::CreateTaskResponse = decode(&created).expect("an answer");
    assert_eq!(created.pid.to_string(), read(&shim.path("c1/init.pid")));
    let wait = task::WaitRequest { id: "c1".into(), ..Default::default() };
    let ended: task::WaitResponse = decode(&shim.call("Wait", &wait).expect("ended")).expect("an answer");
    assert_eq!(ended.exit_status, 7);
    let delete = task::DeleteRequest { id: "c1".into(), ..Default::default() };
    shim.call("Delete", &delete).expect("deleted");
    shim.end();
}

#[test]
fn who_asks_for_a_name_that_is_taken_changes_no_note_of_its_bundle() {
    let mut shim = start(64, 64);
    create(&mut shim, "").expect("created");
    let runtime = shim.path("runtime").display().to_string();
    let error = shim.create("/another", "").expect_err("it is there");
    assert!(error.contains("already exists"), "{error}");
    assert_eq!(read(&shim.path("c1/runtime")), runtime);
    assert!(read(&shim.path("c1/options.json")).contains(&format!("{runtime:?}")));
    shim.delete();
    shim.end();
}

/// The stock shim says `failed to retrieve OCI runtime container pid` and the same of the file.
#[test]
fn a_runtime_that_tells_no_number_has_failed() {
    let mut shim = start(64, 64);
    std::fs::write(shim.path("silent"), "").expect("written");
    let error = create(&mut shim, "").expect_err("nobody knows its process");
    assert!(error.contains("init.pid: no such file or directory"), "{error}");
    shim.end();
}

/// A file system whose server has never answered; every call on it waits until it is taken away.
struct Hung(std::path::PathBuf);

impl Hung {
    fn mount(at: std::path::PathBuf) -> nix::Result<Self> {
        let server = std::fs::File::options().read(true).write(true).open("/dev/fuse");
        let server = server.map_err(|error| nix::Error::from_raw(error.raw_os_error().unwrap_or(0)))?;
        std::fs::create_dir(&at).expect("made");
        let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", server.as_raw_fd());
        mount(Some("hung"), &at, Some("fuse"), MsFlags::empty(), Some(options.as_str()))?;
        // Held open for as long as the test lives: without it the kernel would give up.
        std::mem::forget(server);
        Ok(Self(at))
    }
}

impl Drop for Hung {
    fn drop(&mut self) {
        umount2(&self.0, MntFlags::MNT_FORCE | MntFlags::MNT_DETACH).expect("unmounted");
    }
}

#[test]
fn a_file_on_a_server_that_is_away_holds_nobody_else_up() {
    let mut shim = start(64, 64);
    let hung = match Hung::mount(shim.path("hung")) {
        Ok(hung) => hung,
        Err(error) => return eprintln!("SKIPPED: no file system of FUSE: {error}"),
    };
    let uri = format!("file://{}/log", hung.0.display());
    let (address, server) = (shim.address.clone(), shim.pid());
    let creating = std::thread::spawn(move || {
        let error = create(&mut shim, &uri).expect_err("it was taken away");
        (shim, error)
    });
    let waits = |pid: &i32| {
        let place = std::fs::read_to_string(format!("/proc/{pid}/wchan")).unwrap_or_default();
        place.contains("fuse") || place.contains("request_wait")
    };
    eventually("its process is there, and waits", || server::children(server).iter().any(waits));
    let mut other = UnixStream::connect(&address).expect("connected");
    other.set_read_timeout(Some(LONG)).expect("set");
    let state = task::StateRequest { id: "c1".into(), ..Default::default() };
    let error = server::call(&mut other, &mut Client::default(), "State", &state).expect_err("not yet");
    assert!(error.contains("container not created"), "{error}");
    assert!(!creating.is_finished());
    drop(hung);
    let (mut shim, error) = creating.join().expect("answered");
    assert!(error.contains("/hung"), "{error}");
    let uri = format!("file://{}", shim.path("log").display());
    create(&mut shim, &uri).expect("created");
    shim.delete();
    shim.end();
}
