use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::thread::{JoinHandle, spawn};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::{grantpt, posix_openpt, ptsname_r, unlockpt};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use nix::sys::stat::Mode;
use nix::sys::termios::{SetArg, cfmakeraw, tcgetattr, tcsetattr};
use nix::unistd::mkfifo;
use tempfile::TempDir;

use super::*;

fn host(gives_fifos: bool) -> Host {
    Host { gives_fifos, may_hang: |_| false }
}

const MUCH: usize = 100_000_000;

/// The bytes that are sent: without order, and again from the start after a prime number of them, so
/// that none can be lost, doubled or moved unseen.
static PATTERN: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..1_000_003).map(|_| next()).collect()
});

fn pattern_at(position: usize) -> &'static [u8] {
    &PATTERN[position % PATTERN.len()..]
}

struct Bytes {
    position: usize,
    end: usize,
}

fn bytes(count: usize) -> Bytes {
    Bytes { position: 0, end: count }
}

impl Read for Bytes {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let source = pattern_at(self.position);
        let count = buffer.len().min(source.len()).min(self.end - self.position);
        buffer[..count].copy_from_slice(&source[..count]);
        self.position += count;
        Ok(count)
    }
}

/// How many bytes came; each is the one that was sent.
#[derive(Debug, Default)]
struct Got(usize);

impl Got {
    fn add(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let expected = pattern_at(self.0);
            let count = bytes.len().min(expected.len());
            assert!(bytes[..count] == expected[..count], "other bytes came after {}", self.0);
            self.0 += count;
            bytes = &bytes[count..];
        }
    }

    fn all_of(mut source: impl Read) -> usize {
        let (mut got, mut buffer) = (Got::default(), vec![0; 65536]);
        loop {
            let count = source.read(&mut buffer).unwrap();
            if count == 0 {
                return got.0;
            }
            got.add(&buffer[..count]);
        }
    }
}

fn send(count: usize, to: File) -> JoinHandle<()> {
    send_bytes(bytes(count), to)
}

fn send_bytes(mut bytes: Bytes, mut to: File) -> JoinHandle<()> {
    spawn(move || {
        let mut buffer = vec![0; 10_000];
        loop {
            let count = bytes.read(&mut buffer).unwrap();
            if count == 0 {
                return;
            }
            to.write_all(&buffer[..count]).unwrap();
        }
    })
}

fn receive(from: File) -> JoinHandle<usize> {
    spawn(move || Got::all_of(from))
}

/// The client's side: a folder with FIFOs.
struct Client {
    folder: TempDir,
}

impl Client {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["stdin", "stdout", "stderr"] {
            mkfifo(&folder.path().join(name), Mode::from_bits_truncate(0o700)).unwrap();
        }
        Client { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn name(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    fn reader(&self, name: &str) -> File {
        File::open(self.path(name)).unwrap()
    }

    fn writer(&self, name: &str) -> File {
        OpenOptions::new().write(true).open(self.path(name)).unwrap()
    }

    fn script(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        let mut file = File::create(&path).unwrap();
        file.write_all(format!("#!/bin/sh\n{text}\n").as_bytes()).unwrap();
        file.set_permissions(fs::Permissions::from_mode(0o755)).unwrap();
        self.name(name)
    }
}

fn request<'a>(stdin: &'a str, stdout: &'a str, stderr: &'a str) -> Request<'a> {
    Request {
        stdin,
        stdout,
        stderr,
        terminal: false,
        io_uid: 0,
        io_gid: 0,
        id: "c1",
        namespace: "ns",
        loggers: true,
    }
}

fn terminal<'a>(stdin: &'a str, stdout: &'a str) -> Request<'a> {
    Request { terminal: true, ..request(stdin, stdout, "") }
}

/// FIFOs are the container's own, whatever host this is.
fn open(request: &Request<'_>) -> (Stdio, [File; 3]) {
    let mut stdio = Stdio::open_on(host(true), request).unwrap();
    wait(&mut stdio, Stdio::is_ready);
    let Some(Given::Streams(streams)) = stdio.take_given() else { panic!("no streams") };
    (stdio, streams.map(File::from))
}

/// What the loop does, until it is so.
fn wait(stdio: &mut Stdio, mut so: impl FnMut(&Stdio) -> bool) {
    let limit = Instant::now() + Duration::from_secs(60);
    while !so(stdio) {
        assert!(Instant::now() < limit, "it does not come about");
        let mut fds = Vec::new();
        fds.extend(stdio.poll_fd().map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
        poll(&mut fds, PollTimeout::from(20u8)).unwrap();
        stdio.ready().unwrap();
    }
}

fn serve_while<T>(stdio: &mut Stdio, thread: JoinHandle<T>) -> T {
    wait(stdio, |_| thread.is_finished());
    thread.join().unwrap()
}

/// The runtime's part of a terminal: gives the container's end.
fn attach(stdio: &mut Stdio) -> File {
    let Some(Given::ConsoleSocket(path)) = stdio.take_given() else { panic!("no console") };
    let slave = send_terminal(&path);
    stdio.attach().unwrap();
    assert!(!path.exists());
    slave
}

fn send_terminal(socket: &Path) -> File {
    // Close-on-exec, both: other tests start loggers at the same time.
    let master = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let slave = open_terminal(Path::new(&ptsname_r(&master).unwrap()));
    let mut raw = tcgetattr(&slave).unwrap();
    cfmakeraw(&mut raw);
    tcsetattr(&slave, SetArg::TCSANOW, &raw).unwrap();
    let socket = UnixStream::connect(socket).unwrap();
    let (data, fds) = ([std::io::IoSlice::new(b"/dev/ptmx")], [master.as_raw_fd()]);
    let rights = [ControlMessage::ScmRights(&fds)];
    sendmsg::<()>(socket.as_raw_fd(), &data, &rights, MsgFlags::empty(), None).unwrap();
    slave
}

fn open_terminal(path: &Path) -> File {
    OpenOptions::new().read(true).write(true).custom_flags(libc::O_NOCTTY).open(path).unwrap()
}

fn nonblocking(path: &Path, write: bool) -> File {
    let mut options = OpenOptions::new();
    options.read(!write).write(write).custom_flags(libc::O_NONBLOCK);
    options.open(path).unwrap()
}

// FIFOs

#[test]
fn all_bytes_of_both_outputs_arrive_in_fifos() {
    let client = Client::new();
    let (mut stdio, [_, out, err]) =
        open(&request("", &client.name("stdout"), &format!("fifo://{}", client.name("stderr"))));
    assert!(stdio.poll_fd().is_none(), "nothing is to be waited for");
    let readers = ["stdout", "stderr"].map(|name| receive(client.reader(name)));
    for writer in [send(MUCH, out), send(MUCH / 10, err)] {
        writer.join().unwrap();
    }
    stdio.process_ended().unwrap();
    assert!(stdio.is_drained());
    let sums = readers.map(|reader| reader.join().unwrap());
    assert_eq!(sums, [MUCH, MUCH / 10]);
}

#[test]
fn all_bytes_of_stdin_arrive_and_end_when_both_sides_have_closed_it() {
    let client = Client::new();
    let (mut stdio, [stdin, ..]) = open(&request(&client.name("stdin"), "", ""));
    let container = receive(stdin);
    // One writer leaves and another comes: that is no end.
    send(MUCH / 2, client.writer("stdin")).join().unwrap();
    std::thread::sleep(Duration::from_millis(50));
    assert!(!container.is_finished());
    let writer = client.writer("stdin");
    stdio.close_stdin();
    let rest = Bytes { position: MUCH / 2, end: MUCH };
    send_bytes(rest, writer).join().unwrap();
    assert_eq!(container.join().unwrap(), MUCH);
}

#[test]
fn a_reader_that_leaves_is_no_error_and_another_goes_on() {
    let client = Client::new();
    let (mut stdio, [_, mut out, _]) = open(&request("", &client.name("stdout"), ""));
    let mut first = client.reader("stdout");
    out.write_all(b"one").unwrap();
    let mut got = [0; 3];
    first.read_exact(&mut got).unwrap();
    drop(first);
    out.write_all(b" two").unwrap();
    let mut second = client.reader("stdout");
    out.write_all(b" three").unwrap();
    drop(out);
    stdio.process_ended().unwrap();
    let mut rest = String::new();
    second.read_to_string(&mut rest).unwrap();
    assert_eq!((&got, rest.as_str()), (b"one", " two three"));
}

#[test]
fn what_nobody_has_read_at_the_end_is_kept_for_a_reader_to_come() {
    let client = Client::new();
    let (mut stdio, [_, mut out, mut err]) =
        open(&request("", &client.name("stdout"), &client.name("stderr")));
    out.write_all(b"last words").unwrap();
    err.write_all(b"and a complaint").unwrap();
    drop((out, err));
    stdio.process_ended().unwrap();
    for (name, words) in [("stderr", "and a complaint"), ("stdout", "last words")] {
        // Opened as clients do: it would wait for a writer if there were none.
        let mut reader = client.reader(name);
        let read = spawn(move || {
            let mut text = String::new();
            reader.read_to_string(&mut text).unwrap();
            text
        });
        assert_eq!(serve_while(&mut stdio, read), words);
    }
}

#[test]
fn a_slow_reader_sees_the_end_without_being_waited_for() {
    let client = Client::new();
    let (mut stdio, [_, mut out, _]) = open(&request("", &client.name("stdout"), ""));
    let mut reader = client.reader("stdout");
    out.write_all(b"unread").unwrap();
    drop(out);
    stdio.process_ended().unwrap();
    assert!(stdio.is_drained() && stdio.poll_fd().is_none());
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(text, "unread");
}

#[test]
fn the_containers_end_blocks_and_the_clients_flags_are_its_own() {
    let client = Client::new();
    let (_stdio, [stdin, out, _]) = open(&request(&client.name("stdin"), &client.name("stdout"), ""));
    for (end, mode) in [(&stdin, libc::O_RDONLY), (&out, libc::O_WRONLY)] {
        let flags = fcntl(end, FcntlArg::F_GETFL).unwrap();
        assert_eq!(flags & (libc::O_NONBLOCK | libc::O_ACCMODE), mode);
    }
}

#[test]
fn one_fifo_can_be_both_outputs() {
    let client = Client::new();
    let name = client.name("stdout");
    let (mut stdio, [_, mut out, mut err]) = open(&request("", &name, &name));
    let mut reader = client.reader("stdout");
    out.write_all(b"a").unwrap();
    err.write_all(b"b").unwrap();
    out.write_all(b"c").unwrap();
    drop((out, err));
    stdio.process_ended().unwrap();
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(text, "abc");
}

#[test]
fn a_container_whose_reader_has_stopped_waits() {
    let client = Client::new();
    let (_stdio, [_, out, _]) = open(&request("", &client.name("stdout"), ""));
    let _stopped = client.reader("stdout");
    fcntl(&out, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
    let (mut out, page, mut written) = (out, [7; 4096], 0);
    let full = loop {
        match out.write(&page) {
            Ok(count) => written += count,
            Err(error) => break error,
        }
    };
    assert_eq!((full.kind(), written), (ErrorKind::WouldBlock, 65536));
}

#[test]
fn a_writer_to_a_process_that_has_ended_is_told() {
    let client = Client::new();
    let (mut stdio, [stdin, ..]) = open(&request(&client.name("stdin"), "", ""));
    let mut writer = client.writer("stdin");
    drop(stdin);
    stdio.process_ended().unwrap();
    assert_eq!(writer.write(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
}

#[test]
fn fifos_belong_to_whom_the_options_say() {
    let client = Client::new();
    let (stdin, stdout) = (client.name("stdin"), client.name("stdout"));
    let _streams = open(&Request { io_uid: 1234, io_gid: 4321, ..request(&stdin, &stdout, "") });
    for (name, owner) in [("stdin", (1234, 4321)), ("stdout", (1234, 4321)), ("stderr", (0, 0))] {
        let found = fs::metadata(client.path(name)).unwrap();
        assert_eq!((found.uid(), found.gid()), owner, "{name}");
    }
}

#[test]
fn what_is_not_there_is_an_error_that_names_it() {
    let client = Client::new();
    let (absent, stdout) = (client.name("absent"), client.name("stdout"));
    let table = [
        (request(&absent, "", ""), absent.as_str()),
        (request("", &absent, ""), absent.as_str()),
        (request("", &stdout, &absent), absent.as_str()),
        (request("", "attachablebinary:///x", ""), "attachablebinary"),
        (request("file:///x", "", ""), "file:///x"),
        (request("", "binary:///absent/logger", ""), "/absent/logger"),
        (request("", &stdout, "binary:///bin/true"), "stderr"),
    ];
    for (request, named) in table {
        let error = Stdio::open(&request).unwrap_err().to_string();
        assert!(error.contains(named), "{error}");
        assert!(!Path::new(&absent).exists());
    }
}

#[test]
fn no_name_is_dev_null() {
    let (stdio, [mut stdin, mut out, mut err]) = open(&request("", "", ""));
    assert_eq!(stdin.read(&mut [0]).unwrap(), 0);
    out.write_all(b"x").unwrap();
    err.write_all(b"x").unwrap();
    assert!(stdio.is_drained() && stdio.is_closed() && stdio.poll_fd().is_none());
}

// FIFOs that the container does not get itself

fn open_with_pipes(request: &Request<'_>) -> (Stdio, [File; 3]) {
    let mut stdio = Stdio::open_on(host(false), request).unwrap();
    let Some(Given::Streams(streams)) = stdio.take_given() else { panic!("no streams") };
    for stream in &streams {
        let path = fs::read_link(format!("/proc/self/fd/{}", stream.as_raw_fd())).unwrap();
        assert!(path.starts_with("/dev/null") || path.to_str().unwrap().starts_with("pipe:"), "{path:?}");
    }
    (stdio, streams.map(File::from))
}

#[test]
fn all_bytes_arrive_in_fifos_and_from_them_through_pipes() {
    let client = Client::new();
    let names = ["stdin", "stdout", "stderr"].map(|name| client.name(name));
    let (mut stdio, [stdin, out, err]) = open_with_pipes(&request(&names[0], &names[1], &names[2]));
    let readers = [receive(client.reader("stdout")), receive(client.reader("stderr")), receive(stdin)];
    let writers = [send(MUCH, out), send(MUCH / 10, err), send(MUCH / 10, client.writer("stdin"))];
    stdio.close_stdin();
    for writer in writers {
        serve_while(&mut stdio, writer);
    }
    wait(&mut stdio, |_| readers.iter().all(JoinHandle::is_finished));
    let sums = readers.map(|reader| reader.join().unwrap());
    assert_eq!(sums, [MUCH, MUCH / 10, MUCH / 10]);
    assert!(stdio.relays.iter().all(Relay::has_ended));
    end(stdio);
}

#[test]
fn a_reader_that_has_stopped_makes_a_container_with_pipes_wait_and_loses_nothing() {
    let client = Client::new();
    let (mut stdio, [_, mut out, _]) = open_with_pipes(&request("", &client.name("stdout"), ""));
    fcntl(&out, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
    let (mut source, mut written, mut idle) = (bytes(usize::MAX), 0, 0);
    let mut page = [0; 4096];
    source.read_exact(&mut page).unwrap();
    // As if it wrote for ever: what is taken is what the pipe and the FIFO hold.
    while idle < 3 {
        match out.write(&page) {
            Ok(4096) => {
                (written, idle) = (written + 4096, 0);
                source.read_exact(&mut page).unwrap();
            }
            Ok(count) => panic!("a part of a page: {count}"),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                idle += 1;
                stdio.ready().unwrap();
            }
        }
    }
    assert_eq!(written, 2 * 65536);
    drop(out);
    stdio.process_ended().unwrap();
    assert!(!stdio.is_drained());
    // No turning in circles meanwhile.
    stdio.ready().unwrap();
    let mut fds = [PollFd::new(stdio.poll_fd().unwrap(), PollFlags::POLLIN)];
    assert_eq!(poll(&mut fds, PollTimeout::from(50u8)).unwrap(), 0);
    let reader = receive(client.reader("stdout"));
    assert_eq!(serve_while(&mut stdio, reader), written);
    assert!(stdio.is_drained());
    end(stdio);
}

#[test]
fn readers_of_what_comes_through_a_pipe_can_leave_and_come_even_after_the_end() {
    let client = Client::new();
    let (mut stdio, [_, mut out, _]) = open_with_pipes(&request("", &client.name("stdout"), ""));
    let mut first = client.reader("stdout");
    out.write_all(b"one").unwrap();
    stdio.ready().unwrap();
    let mut got = [0; 3];
    first.read_exact(&mut got).unwrap();
    drop(first);
    out.write_all(b" two").unwrap();
    stdio.ready().unwrap();
    out.write_all(b" three").unwrap();
    drop(out);
    stdio.process_ended().unwrap();
    assert!(stdio.is_drained());
    let mut second = client.reader("stdout");
    let read = spawn(move || {
        let mut text = String::new();
        second.read_to_string(&mut text).unwrap();
        text
    });
    assert_eq!((&got, serve_while(&mut stdio, read).as_str()), (b"one", " two three"));
    end(stdio);
}

#[test]
fn what_nobody_ever_reads_keeps_nothing_open_after_the_close() {
    let client = Client::new();
    let (mut stdio, [_, mut out, _]) = open_with_pipes(&request("", &client.name("stdout"), ""));
    out.write_all(&[7; 65536]).unwrap();
    stdio.ready().unwrap();
    out.write_all(b"no room for this").unwrap();
    // Somebody that the process has left behind holds its end.
    stdio.process_ended().unwrap();
    assert!(!stdio.is_drained());
    stdio.close().unwrap();
    assert!(stdio.is_closed());
    assert_eq!(out.write(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
    assert_eq!(nonblocking(&client.path("stdout"), false).read(&mut [0]).unwrap(), 0);
}

// Files

/// The container is done: what it wrote is in its file.
fn end(mut stdio: Stdio) {
    stdio.process_ended().unwrap();
    wait(&mut stdio, Stdio::is_drained);
    stdio.close().unwrap();
    wait(&mut stdio, Stdio::is_closed);
}

#[test]
fn a_file_is_made_with_its_folders_and_appended_to_by_both_in_their_order() {
    let client = Client::new();
    let uri = format!("file://{}", client.name("logs/of/c1.log"));
    for _ in 0..2 {
        let (stdio, [_, mut out, mut err]) = open(&request("", &uri, &uri));
        for _ in 0..500 {
            out.write_all(b"out ").unwrap();
            err.write_all(b"err ").unwrap();
        }
        drop((out, err));
        end(stdio);
    }
    assert_eq!(fs::read_to_string(client.path("logs/of/c1.log")).unwrap(), "out err ".repeat(1000));
}

#[test]
fn all_bytes_of_both_outputs_arrive_in_files() {
    let client = Client::new();
    let uris = ["out", "err"].map(|name| format!("file://{}", client.name(name)));
    let (mut stdio, [_, out, err]) = open(&request("", &uris[0], &uris[1]));
    let writers = [send(MUCH, out), send(MUCH / 10, err)];
    for writer in writers {
        serve_while(&mut stdio, writer);
    }
    end(stdio);
    let sums = ["out", "err"].map(|name| Got::all_of(client.reader(name)));
    assert_eq!(sums, [MUCH, MUCH / 10]);
}

#[test]
fn the_container_cannot_touch_the_file_it_writes_to() {
    let client = Client::new();
    fs::write(client.path("plain"), "before ").unwrap();
    for name in [format!("file://{}", client.name("plain")), client.name("plain")] {
        let (stdio, [_, mut out, mut err]) = open(&request("", &name, &name));
        for stream in [&out, &err] {
            nix::unistd::ftruncate(stream, 0).unwrap_err();
            nix::sys::uio::pwrite(stream, b"x", 0).unwrap_err();
            fcntl(stream, FcntlArg::F_SETFL(OFlag::empty())).unwrap();
            nix::sys::stat::fchmod(stream, Mode::from_bits_truncate(0o777)).unwrap();
            nix::unistd::fchown(stream, Some(nix::unistd::Uid::from_raw(1234)), None).unwrap();
            let link = format!("/proc/self/fd/{}", stream.as_raw_fd());
            let mut again = OpenOptions::new().write(true).truncate(true).open(link).unwrap();
            again.write_all(b"words ").unwrap();
        }
        out.write_all(b"out ").unwrap();
        err.write_all(b"err ").unwrap();
        drop((out, err));
        end(stdio);
    }
    let text = fs::read_to_string(client.path("plain")).unwrap();
    assert_eq!(text, "before words words out err words words out err ");
    let found = fs::metadata(client.path("plain")).unwrap();
    assert_eq!((found.uid(), found.mode() & 0o777), (0, 0o644));
}

#[test]
fn a_file_that_takes_no_more_is_told_of_once_and_does_not_stop_the_container() {
    let (mut stdio, [_, out, _]) = open(&request("", "/dev/full", ""));
    let writer = send(1_000_000, out);
    let mut errors = Vec::new();
    while !(writer.is_finished() && stdio.relays.iter().all(Relay::has_ended)) {
        poll(&mut [PollFd::new(stdio.poll_fd().unwrap(), PollFlags::POLLIN)], PollTimeout::from(20u8))
            .unwrap();
        errors.extend(stdio.ready().err().map(|error| error.to_string()));
    }
    writer.join().unwrap();
    assert!(matches!(&errors[..], [error] if error.contains("/dev/full")), "{errors:?}");
}

#[test]
fn what_a_process_leaves_behind_writes_to_the_file_until_it_ends() {
    let client = Client::new();
    let uri = format!("file://{}", client.name("file"));
    let (mut stdio, [_, mut out, _]) = open(&request("", &uri, ""));
    let mut left = out.try_clone().unwrap();
    out.write_all(b"one ").unwrap();
    drop(out);
    stdio.process_ended().unwrap();
    assert!(stdio.is_drained());
    stdio.close().unwrap();
    assert!(!stdio.is_closed());
    left.write_all(b"two").unwrap();
    drop(left);
    wait(&mut stdio, Stdio::is_closed);
    assert_eq!(fs::read_to_string(client.path("file")).unwrap(), "one two");
}

#[test]
fn a_bare_path_can_be_a_file_that_is_there() {
    let client = Client::new();
    fs::write(client.path("plain"), "before ").unwrap();
    fs::write(client.path("input"), "words").unwrap();
    let (mut stdio, [mut stdin, mut out, _]) =
        open(&request(&client.name("input"), &client.name("plain"), ""));
    let copied = spawn(move || std::io::copy(&mut stdin, &mut out).unwrap());
    assert_eq!(serve_while(&mut stdio, copied), 5);
    end(stdio);
    assert_eq!(fs::read_to_string(client.path("plain")).unwrap(), "before words");
}

/// Nothing may wait for somebody at the other end: the loop would.
#[test]
fn a_fifo_can_be_named_as_a_file_whether_or_not_somebody_reads_it() {
    let client = Client::new();
    let uri = format!("file://{}", client.name("stdout"));
    let (opened, is_opened) = std::sync::mpsc::channel();
    let opener = spawn(move || {
        let streams = open(&request("", &uri, &uri));
        opened.send(()).unwrap();
        streams
    });
    is_opened.recv_timeout(Duration::from_secs(20)).expect("it does not wait for a reader");
    let (stdio, [_, mut out, mut err]) = opener.join().unwrap();
    let reader = client.reader("stdout");
    let read = spawn(move || std::io::read_to_string(reader).unwrap());
    out.write_all(b"one ").unwrap();
    err.write_all(b"two").unwrap();
    drop((out, err));
    end(stdio);
    assert_eq!(read.join().unwrap(), "one two");
}

// Loggers

const CAT: &str = r#"cd "$(dirname "$0")"; cat <&3 >out & cat <&4 >err & exec 3<&- 4<&-
(echo "$@"; env | grep CONTAINER_; env | grep GIVEN; cd /proc/$$/fd; echo [0-9] ) >said
echo ready >&5; exec 5>&-; wait; : >ended"#;

#[test]
fn a_logger_gets_all_bytes_its_words_and_its_environment() {
    for scheme in ["binary", "binary-v2"] {
        let client = Client::new();
        let uri = format!("{scheme}://{}?k=v&flag&env.GIVEN=x+y", client.script("logger", CAT));
        let (mut stdio, [_, out, err]) = open(&request("", &uri, &uri));
        for writer in [send(MUCH, out), send(1000, err)] {
            writer.join().unwrap();
        }
        stdio.process_ended().unwrap();
        let ended = client.path("ended");
        wait(&mut stdio, |_| ended.exists());
        stdio.close().unwrap();
        wait(&mut stdio, Stdio::is_closed);
        let sums = ["out", "err"].map(|name| Got::all_of(client.reader(name)));
        assert_eq!(sums, [MUCH, 1000]);
        let said = fs::read_to_string(client.path("said")).unwrap();
        // 3 and 4 are closed by then.
        let words = "k v flag \nCONTAINER_ID=c1\nCONTAINER_NAMESPACE=ns\nGIVEN=x y\n0 1 2 5\n";
        assert_eq!(said, words, "{scheme}");
    }
}

#[test]
fn a_logger_is_waited_for_until_it_is_ready() {
    let client = Client::new();
    let script =
        format!("while [ ! -e {} ]; do sleep 0.01; done; exec 5>&-; exec sleep 100", client.name("go"));
    let uri = format!("binary://{}", client.script("logger", &script));
    let mut stdio = Stdio::open(&request("", &uri, "")).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    stdio.ready().unwrap();
    assert!(!stdio.is_ready());
    fs::write(client.path("go"), "").unwrap();
    wait(&mut stdio, Stdio::is_ready);
    assert!(!stdio.is_closed());
    // SIGTERM ends it, though the shim's threads may block it.
    stdio.close().unwrap();
    wait(&mut stdio, Stdio::is_closed);
}

#[test]
fn a_logger_of_the_newer_form_that_dies_first_is_an_error() {
    let client = Client::new();
    let uri = format!("binary-v2://{}", client.script("logger", "exit 1"));
    let mut stdio = Stdio::open(&request("", &uri, "")).unwrap();
    let mut fds = [PollFd::new(stdio.poll_fd().unwrap(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::NONE).unwrap();
    let error = stdio.ready().unwrap_err().to_string();
    assert!(error.contains("did not call ready") && error.contains("logger"), "{error}");
}

#[test]
fn a_logger_whose_time_is_up_is_an_error_first_and_killed_at_the_end() {
    let client = Client::new();
    let script = format!("trap '' TERM; : >{}; while :; do sleep 0.01; done", client.name("runs"));
    let uri = format!("binary://{}", client.script("logger", &script));
    let mut stdio = Stdio::open(&request("", &uri, "")).unwrap();
    // The time itself is not waited for.
    let logger = stdio.logger.as_mut().unwrap();
    let error = logger.time_is_up(&stdio.set).unwrap_err().to_string();
    assert!(error.contains("not ready after 30 s"), "{error}");
    let runs = client.path("runs");
    wait(&mut stdio, |_| runs.exists());
    stdio.close().unwrap();
    std::thread::sleep(Duration::from_millis(50));
    stdio.ready().unwrap();
    assert!(!stdio.is_closed(), "it ignores SIGTERM");
    stdio.logger.as_mut().unwrap().time_is_up(&stdio.set).unwrap();
    wait(&mut stdio, Stdio::is_closed);
}

#[test]
fn a_logger_does_not_outlive_what_it_is_for() {
    let client = Client::new();
    let script = format!("exec 5>&-; echo $$ >{}; exec sleep 1000", client.name("pid"));
    let uri = format!("binary://{}", client.script("logger", &script));
    let (mut stdio, streams) = open(&request("", &uri, ""));
    let path = client.path("pid");
    wait(&mut stdio, |_| fs::read_to_string(&path).is_ok_and(|pid| pid.ends_with('\n')));
    let pid: i32 = fs::read_to_string(&path).unwrap().trim().parse().unwrap();
    drop((stdio, streams));
    // Nobody but us reaps it.
    let status = nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(pid), None).unwrap();
    assert!(matches!(status, nix::sys::wait::WaitStatus::Signaled(_, nix::sys::signal::Signal::SIGKILL, _)));
}

// Terminals

#[test]
fn all_bytes_of_a_terminal_arrive() {
    let client = Client::new();
    let file = format!("file://{}", client.name("file"));
    let logger = format!("binary://{}", client.script("logger", CAT));
    for (output, result) in [(client.name("stdout"), "stdout"), (file, "file"), (logger, "out")] {
        let mut stdio = Stdio::open(&terminal("", &output)).unwrap();
        wait(&mut stdio, Stdio::is_ready);
        let slave = attach(&mut stdio);
        let reader = (result == "stdout").then(|| receive(client.reader("stdout")));
        serve_while(&mut stdio, send(MUCH, slave));
        stdio.process_ended().unwrap();
        wait(&mut stdio, Stdio::is_drained);
        let ended = client.path("ended");
        let got = match reader {
            Some(reader) => reader.join().unwrap(),
            None => {
                wait(&mut stdio, |_| result == "file" || ended.exists());
                Got::all_of(client.reader(result))
            }
        };
        assert_eq!(got, MUCH, "{output}");
        stdio.close().unwrap();
        wait(&mut stdio, Stdio::is_closed);
    }
}

#[test]
fn all_bytes_of_the_input_reach_a_terminal() {
    let client = Client::new();
    let mut stdio = Stdio::open(&terminal(&client.name("stdin"), "")).unwrap();
    let mut slave = attach(&mut stdio);
    let sent = MUCH / 10;
    let container = spawn(move || {
        let (mut got, mut buffer) = (Got::default(), vec![0; 4096]);
        while got.0 < sent {
            let count = slave.read(&mut buffer).unwrap();
            got.add(&buffer[..count]);
            // A reader that is slower than the writer.
            if got.0 % 7 == 0 {
                std::thread::sleep(Duration::from_micros(100));
            }
        }
        (got.0, slave)
    });
    let writer = send(sent, client.writer("stdin"));
    let (got, _slave) = serve_while(&mut stdio, container);
    writer.join().unwrap();
    assert_eq!(got, sent);
}

#[test]
fn a_terminal_whose_reader_has_stopped_waits_and_loses_nothing() {
    let client = Client::new();
    let mut stdio = Stdio::open(&terminal("", &client.name("stdout"))).unwrap();
    let mut slave = attach(&mut stdio);
    fcntl(&slave, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
    let (mut source, mut written, mut pending) = (bytes(usize::MAX), 0, [0; 512]);
    let mut idle = 0;
    // As if it wrote for ever: what is taken is what the terminal and the FIFO hold.
    while idle < 20 {
        stdio.ready().unwrap();
        source.read_exact(&mut pending).unwrap();
        let mut rest = &pending[..];
        idle = 0;
        while !rest.is_empty() && idle < 20 {
            match slave.write(rest) {
                Ok(count) => {
                    written += count;
                    rest = &rest[count..];
                    idle = 0;
                }
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::WouldBlock);
                    idle += 1;
                    std::thread::sleep(Duration::from_millis(5));
                    stdio.ready().unwrap();
                }
            }
        }
    }
    assert!(written < 300_000, "{written} bytes were taken");
    drop(slave);
    stdio.process_ended().unwrap();
    assert!(!stdio.is_drained());
    let reader = receive(client.reader("stdout"));
    let got = serve_while(&mut stdio, reader);
    assert_eq!(got, written);
    assert!(stdio.is_drained());
}

#[test]
fn a_terminal_that_is_closed_by_all_can_be_opened_again() {
    let client = Client::new();
    let mut stdio = Stdio::open(&terminal("", &client.name("stdout"))).unwrap();
    let mut slave = attach(&mut stdio);
    let name = fs::read_link(format!("/proc/self/fd/{}", slave.as_raw_fd())).unwrap();
    let mut reader = nonblocking(&client.path("stdout"), false);
    let mut text = String::new();
    for words in ["one ", "two ", "three"] {
        slave.write_all(words.as_bytes()).unwrap();
        drop(slave);
        wait(&mut stdio, |_| {
            let mut buffer = [0; 64];
            if let Ok(count) = reader.read(&mut buffer) {
                text.push_str(std::str::from_utf8(&buffer[..count]).unwrap());
            }
            text.ends_with(words)
        });
        // Nothing to do, and no turning in circles.
        stdio.ready().unwrap();
        let mut fds = [PollFd::new(stdio.poll_fd().unwrap(), PollFlags::POLLIN)];
        assert_eq!(poll(&mut fds, PollTimeout::from(50u8)).unwrap(), 0);
        slave = open_terminal(&name);
    }
    assert_eq!(text, "one two three");
}

#[test]
fn at_the_end_of_its_process_a_terminal_is_drained_though_others_have_it_open() {
    let client = Client::new();
    let mut stdio = Stdio::open(&terminal("", &client.name("stdout"))).unwrap();
    let mut slave = attach(&mut stdio);
    let mut reader = client.reader("stdout");
    slave.write_all(b"last words").unwrap();
    stdio.process_ended().unwrap();
    assert!(stdio.is_drained());
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(text, "last words");
}

#[test]
fn a_terminals_size_is_set() {
    let mut stdio = Stdio::open(&terminal("", "")).unwrap();
    stdio.resize(1, 1).unwrap();
    let slave = attach(&mut stdio);
    stdio.resize(132, 43).unwrap();
    let size = crate::sys::io::terminal_size(slave.as_fd()).unwrap();
    assert_eq!(size, (132, 43));
}

#[test]
fn a_terminal_is_hung_up_when_its_input_has_ended() {
    let client = Client::new();
    let mut stdio = Stdio::open(&terminal(&client.name("stdin"), &client.name("stdout"))).unwrap();
    let mut slave = attach(&mut stdio);
    let mut reader = client.reader("stdout");
    slave.write_all(b"prompt").unwrap();
    // A client that goes away is no end, only CloseIO after it is.
    let mut writer = client.writer("stdin");
    writer.write_all(b"x").unwrap();
    drop(writer);
    let mut byte = [0];
    let container = spawn(move || {
        slave.read_exact(&mut byte).unwrap();
        slave
    });
    let mut slave = serve_while(&mut stdio, container);
    stdio.ready().unwrap();
    assert!(!stdio.is_drained());
    stdio.close_stdin();
    wait(&mut stdio, Stdio::is_drained);
    let mut all = Vec::new();
    // Hung up: no more to read.
    assert!(slave.read_to_end(&mut all).map_or(true, |count| count == 0));
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(text, "prompt");
}

#[test]
fn a_runtime_that_sends_no_terminal_is_an_error() {
    let mut stdio = Stdio::open(&terminal("", "")).unwrap();
    let Some(Given::ConsoleSocket(path)) = stdio.take_given() else { panic!("no console") };
    assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().mode() & 0o777, 0o700);
    let error = stdio.attach().unwrap_err().to_string();
    assert!(error.contains("no terminal"), "{error}");
    assert!(!path.parent().unwrap().exists());
}
