mod fifos;
mod files;
mod loggers;
mod terminals;

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
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
use crate::starts::{nothing_starts, script, starting};

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
        script(&self.path(name), text);
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
    let mut stdio = starting(|| Stdio::open_on(host(true), request)).unwrap();
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

/// In the end nothing is to be done: no turning in circles.
fn rest(stdio: &mut Stdio) {
    let limit = Instant::now() + Duration::from_secs(60);
    loop {
        stdio.ready().unwrap();
        let mut fds = [PollFd::new(stdio.poll_fd().unwrap(), PollFlags::POLLIN)];
        if poll(&mut fds, PollTimeout::from(50u8)).unwrap() == 0 {
            return;
        }
        assert!(Instant::now() < limit, "it does not come to rest");
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

// Files

/// The container is done: what it wrote is in its file.
fn end(mut stdio: Stdio) {
    stdio.process_ended().unwrap();
    wait(&mut stdio, Stdio::is_drained);
    stdio.close().unwrap();
    wait(&mut stdio, Stdio::is_closed);
}

// Loggers

const CAT: &str = r#"cd "$(dirname "$0")"; cat <&3 >out & cat <&4 >err & exec 3<&- 4<&-
(echo "$@"; env | grep CONTAINER_; env | grep GIVEN; cd /proc/$$/fd; echo [0-9] ) >said
echo ready >&5; exec 5>&-; wait; : >ended"#;
