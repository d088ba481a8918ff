//! What the container's process runs between clone and exec allocates nothing.
// With the feature the crate has an allocator of its own, which does the same in the real child.
#![cfg(not(feature = "alloc-guard"))]
#![allow(clippy::unwrap_used)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use tare::config::{ConsoleSize, Hook};
use tare::hooks::{ChildHook, HookFailure, Prepared, StateJson, apply::run_in_child};
use tare::sys::{keyctl, scm};
use tare::terminal::{console::open_pty, stdio};

struct Counting;

thread_local! {
    static COUNT: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call goes to the system's allocator unchanged; the counter is a plain cell of the
// thread, which itself allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.set(COUNT.get() + 1);
        // SAFETY: as promised to us by our caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        COUNT.set(COUNT.get() + 1);
        // SAFETY: as promised to us by our caller; the memory came from `alloc` above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

fn allocations<T>(work: impl FnOnce() -> T) -> (usize, T) {
    let before = COUNT.get();
    let result = work();
    (COUNT.get() - before, result)
}

fn hook(path: &str, script: &str, timeout: Option<u32>) -> ChildHook {
    let c = |text: &str| std::ffi::CString::new(text).unwrap();
    let args = ["sh", "-c", script].map(c).to_vec();
    let hook = Hook { path: c(path), args, env: vec![], timeout };
    // Longer than a pipe holds, so that feeding it takes turns.
    let annotations = BTreeMap::from([("long".to_owned(), "x".repeat(200_000))]);
    ChildHook {
        program: Prepared::new(&hook, &[c("A=b")]),
        state: StateJson::new("1.3.0", "id", "created", Path::new("/b"), &annotations),
    }
}

#[test]
fn the_counter_counts() {
    assert_eq!(allocations(|| drop(Box::new(5))).0, 2);
}

#[test]
fn hooks_of_the_child() {
    let log = std::fs::OpenOptions::new().write(true).open("/dev/null").unwrap();
    for (hook, expected) in [
        (hook("/bin/sh", "test $(wc -c) -gt 200000", Some(30)), Ok(())),
        (hook("/bin/sh", "exit 4", None), Err(HookFailure::Exited(4))),
        (hook("/bin/sh", "exec sleep 60", Some(1)), Err(HookFailure::TimedOut)),
        (hook("/nowhere", "", None), Err(HookFailure::Start(Errno::ENOENT))),
    ] {
        assert_eq!(allocations(|| run_in_child(&hook, 12345, log.as_fd())), (0, expected));
    }
}

#[test]
fn messages_with_descriptors() {
    let (a, b) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).unwrap();
    let (count, result) = allocations(|| {
        scm::send_with_fds(a.as_fd(), b"data", &[b.as_fd(), a.as_fd()])?;
        let mut slots = [None, None];
        scm::recv_with_fds(b.as_fd(), &mut [0; 8], &mut slots)
    });
    assert_eq!(result.unwrap().fds, 2);
    assert_eq!(count, 0);
}

#[test]
fn the_terminal_and_the_streams() {
    let (socket, _other) =
        socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC).unwrap();
    let uid = nix::unistd::getuid().as_raw();
    let (count, result) = allocations(|| {
        stdio::give_to(uid)?;
        let pty = open_pty()?;
        pty.set_size(ConsoleSize { height: 1, width: 2 })?;
        pty.send_master(socket.as_fd())
    });
    assert_eq!(count, 0);
    match result {
        Err(Errno::ENOENT | Errno::EACCES) => spec_tests::need::skip_this("ptmx", "no usable /dev/pts/ptmx"),
        other => other.unwrap(),
    }
}

#[test]
fn the_session_keyring() {
    let (count, _) = allocations(|| {
        let serial = keyctl::join_session_keyring(c"_ses.tare-no-alloc")?;
        keyctl::add_permissions(serial, keyctl::USER_SEARCH)
    });
    assert_eq!(count, 0);
}
