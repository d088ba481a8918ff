//! Alone in its process, because it counts its descriptors.
#![allow(clippy::unwrap_used)]

use std::ffi::CString;
use std::os::unix::fs::OpenOptionsExt;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use shim::io::{Given, Request, Stdio};

fn descriptors() -> Vec<String> {
    let name = |entry: std::io::Result<std::fs::DirEntry>| {
        std::fs::read_link(entry.unwrap().path()).ok().map(|link| link.display().to_string())
    };
    // The folder itself is among them, each time.
    std::fs::read_dir("/proc/self/fd").unwrap().filter_map(name).collect()
}

#[test]
fn no_descriptor_is_left_of_any_kind_of_stdio_however_far_it_came() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    for name in ["in", "out"] {
        mkfifo(CString::new(path(name)).unwrap().as_c_str(), Mode::S_IRWXU).unwrap();
    }
    // A reader that never reads: unread bytes are no reason to keep anything once it is closed.
    let _reader = std::fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path("out"));
    let kinds = [
        (path("in"), path("out")),
        (String::new(), format!("file://{}", path("file"))),
        (String::new(), "binary:///bin/cat".to_owned()),
        (String::new(), String::new()),
        // These fail.
        (path("in"), path("absent")),
        (String::new(), "binary:///absent".to_owned()),
    ];
    let before = descriptors();
    for (stdin, stdout) in &kinds {
        for terminal in [false, true] {
            for stages in 0..5 {
                let request = Request {
                    stdin,
                    stdout,
                    stderr: stdout,
                    terminal,
                    io_uid: 0,
                    io_gid: 0,
                    id: "c1",
                    namespace: "ns",
                    loggers: true,
                };
                if let Ok(stdio) = Stdio::open(&request) {
                    live(stdio, stages);
                }
                assert_eq!(descriptors(), before, "{request:?}, {stages} stages");
            }
        }
    }
}

fn live(mut stdio: Stdio, stages: usize) {
    if stages > 0 {
        stdio.ready().unwrap();
    }
    if stages > 1 {
        match stdio.take_given().unwrap() {
            Given::Streams([_, out, _]) => drop(nix::unistd::write(&out, b"unread")),
            Given::ConsoleSocket(path) => {
                drop(std::os::unix::net::UnixStream::connect(path).unwrap());
                stdio.attach().unwrap_err();
            }
        }
    }
    if stages > 2 {
        stdio.process_ended().unwrap();
    }
    if stages > 3 {
        stdio.close().unwrap();
    }
}
