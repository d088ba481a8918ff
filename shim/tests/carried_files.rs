//! Files that are opened and written by a process of their own. This test forks it, and so has one thread.

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use shim::io::{Given, Host, Request, Stdio};

/// More than anything here takes.
const LONG: Duration = Duration::from_secs(20);

fn open(stdout: &str, stderr: &str) -> Stdio {
    let host = Host { gives_fifos: true, may_hang: |_| true };
    let request = Request {
        stdin: "",
        stdout,
        stderr,
        terminal: false,
        io_uid: 0,
        io_gid: 0,
        id: "c1",
        namespace: "ns",
        loggers: true,
    };
    Stdio::open_on(host, &request).expect("opened")
}

/// What the loop does, until it is so.
fn until(stdio: &mut Stdio, is_so: impl Fn(&Stdio) -> bool) -> Result<(), String> {
    let end = Instant::now() + LONG;
    while !is_so(stdio) {
        assert!(Instant::now() < end, "too long");
        let fd = stdio.poll_fd().expect("something to wait for");
        poll(&mut [PollFd::new(fd, PollFlags::POLLIN)], PollTimeout::from(1000u16)).expect("waited");
        stdio.ready().map_err(|error| error.to_string())?;
    }
    Ok(())
}

fn ends(stdio: &mut Stdio) -> [File; 2] {
    until(stdio, Stdio::is_ready).expect("it can be opened");
    match stdio.take_given() {
        Some(Given::Streams([_, stdout, stderr])) => [stdout, stderr].map(File::from),
        other => panic!("{other:?}"),
    }
}

fn uri(path: &Path) -> String {
    format!("file://{}", path.display())
}

fn what_both_outputs_say_is_in_the_file_in_its_order(folder: &Path) {
    let path = folder.join("made/log");
    let mut stdio = open(&uri(&path), &uri(&path));
    let [mut stdout, mut stderr] = ends(&mut stdio);
    let mut expected = String::new();
    for number in 0..10_000 {
        let line = format!("line {number}\n");
        let end = if number % 3 == 0 { &mut stderr } else { &mut stdout };
        end.write_all(line.as_bytes()).expect("written");
        expected += &line;
    }
    stdio.process_ended().expect("let go");
    assert!(!stdio.is_drained(), "somebody can still write");
    drop((stdout, stderr));
    until(&mut stdio, Stdio::is_drained).expect("drained");
    assert_eq!(fs::read_to_string(&path).expect("the file"), expected);
}

fn a_file_that_cannot_be_opened_is_the_answer_to_the_request(folder: &Path) {
    let mut stdio = open(&uri(folder), "");
    let error = until(&mut stdio, Stdio::is_ready).expect_err("it is a folder");
    assert!(error.contains(&format!("open {}: is a directory", folder.display())), "{error}");
}

fn what_the_file_does_not_take_holds_nobody_up() {
    let mut stdio = open("file:///dev/full", "");
    let [mut stdout, _] = ends(&mut stdio);
    // More than the pipe holds.
    stdout.write_all(&[b'x'; 1 << 20]).expect("written");
    stdio.close().expect("closed");
    assert!(stdio.is_closed(), "what is left goes on without us");
}

fn nothing_of_ours_stays_open_in_it(folder: &Path) {
    let (theirs, ours) = std::os::unix::net::UnixStream::pair().expect("a pair");
    let mut stdio = open(&uri(&folder.join("log")), "");
    let streams = ends(&mut stdio);
    drop(ours);
    theirs.set_read_timeout(Some(LONG)).expect("set");
    // Its end, and not a timeout: the copy has not kept the other end.
    assert_eq!(std::io::Read::read(&mut &theirs, &mut [0]).expect("the end"), 0);
    drop::<[File; 2]>(streams);
    drop::<OwnedFd>(theirs.into());
}

fn main() {
    let folder = tempfile::tempdir().expect("a folder");
    what_both_outputs_say_is_in_the_file_in_its_order(folder.path());
    a_file_that_cannot_be_opened_is_the_answer_to_the_request(folder.path());
    what_the_file_does_not_take_holds_nobody_up();
    nothing_of_ours_stays_open_in_it(folder.path());
    println!("test result: ok. 4 passed");
}
