//! A file system whose server does not answer: whoever asks it for a name sleeps in the kernel, and no signal
//! ends that, until the mount goes.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Its root can be looked at and mounted elsewhere; every name in it hangs.
#[derive(Debug)]
pub struct Silent {
    path: PathBuf,
    ends: Arc<AtomicBool>,
    asked: Arc<AtomicBool>,
    server: Option<JoinHandle<()>>,
}

impl Silent {
    /// On this directory, which is made.
    pub fn mount(path: &Path) -> Self {
        std::fs::create_dir_all(path).expect("mkdir");
        let mut options = OpenOptions::new();
        options.read(true).write(true).custom_flags(libc::O_NONBLOCK);
        let device = options.open("/dev/fuse").expect("/dev/fuse");
        let data = format!("fd={},rootmode=40000,user_id=0,group_id=0,allow_other", device.as_raw_fd());
        mount(Some("silent"), path, Some("fuse"), MsFlags::empty(), Some(data.as_str())).expect("mount fuse");
        let ends = Arc::new(AtomicBool::new(false));
        let asked = Arc::new(AtomicBool::new(false));
        let (end, ask) = (Arc::clone(&ends), Arc::clone(&asked));
        let server = std::thread::spawn(move || serve(device, &end, &ask));
        Silent { path: path.to_owned(), ends, asked, server: Some(server) }
    }

    /// Somebody waits for a name, and has no way back.
    pub fn is_asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }

    pub fn text(&self) -> &str {
        self.path.to_str().expect("UTF-8")
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        // With the server its device is closed, and the kernel ends all that was asked.
        self.server.take().map(JoinHandle::join).transpose().expect("the server of the file system");
        umount2(&self.path, MntFlags::MNT_DETACH).expect("unmount the silent file system");
    }
}

// linux/fuse.h
const LOOKUP: u32 = 1;
const GETATTR: u32 = 3;
const INTERRUPT: u32 = 36;
const INIT: u32 = 26;

fn serve(mut device: File, ends: &AtomicBool, asked: &AtomicBool) {
    let mut request = vec![0; 1 << 17];
    while !ends.load(Ordering::Relaxed) {
        let mut fds = [PollFd::new(device.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::from(20u8)).expect("poll");
        if fds[0].revents().is_none_or(|events| events.is_empty()) {
            continue;
        }
        let length = match device.read(&mut request) {
            Ok(length) => length,
            // Who asked was killed meanwhile.
            Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
            // ENODEV: unmounted by somebody else.
            Err(_) => return,
        };
        let word = |at: usize| u32::from_ne_bytes(request[at..at + 4].try_into().expect("four bytes"));
        let unique = &request[8..16];
        let (error, answer) = match word(4) {
            _ if length < 40 => return,
            INIT => (0, initial()),
            GETATTR => (0, folder()),
            LOOKUP => {
                asked.store(true, Ordering::Relaxed);
                continue;
            }
            INTERRUPT => continue,
            _ => (-libc::ENOSYS, Vec::new()),
        };
        let mut reply = Vec::new();
        reply.extend(u32::try_from(16 + answer.len()).expect("a short answer").to_ne_bytes());
        reply.extend(error.to_ne_bytes());
        reply.extend(unique);
        reply.extend(answer);
        // ENOENT: who asked was interrupted.
        device.write_all(&reply).ok();
    }
}

/// `struct fuse_init_out`: version 7.31, reads and writes of a page, nothing else.
fn initial() -> Vec<u8> {
    let mut out = [0u32; 16];
    (out[0], out[1], out[5]) = (7, 31, 4096);
    out.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

/// `struct fuse_attr_out`: a folder, of root, for everybody.
fn folder() -> Vec<u8> {
    let mut out = [0u32; 26];
    out[4] = 1; // inode number
    out[19] = libc::S_IFDIR | 0o755;
    out[20] = 2; // links
    out.iter().flat_map(|word| word.to_ne_bytes()).collect()
}
