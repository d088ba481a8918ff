//! The unix sockets on which a runtime hands a descriptor over: `--console-socket`, `--pidfd-socket`, the
//! seccomp agent's `listenerPath`.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use crate::call::eventually;

#[derive(Debug)]
pub struct Listener {
    pub path: PathBuf,
    socket: UnixListener,
}

impl Listener {
    pub fn bind(path: &Path) -> Self {
        let socket = UnixListener::bind(path).expect("bind a socket");
        socket.set_nonblocking(true).expect("O_NONBLOCK");
        Listener { path: path.to_owned(), socket }
    }

    /// The first message of the next connection: its bytes and its descriptors.
    #[track_caller]
    pub fn receive(&self) -> (Vec<u8>, Vec<OwnedFd>) {
        let mut stream = None;
        eventually("a connection to the socket", || {
            stream = self.socket.accept().ok();
            stream.is_some()
        });
        let (stream, _) = stream.expect("a connection");
        stream.set_nonblocking(false).expect("blocking");
        stream.set_read_timeout(Some(crate::call::LIMIT)).expect("a timeout");
        crate::sys::receive(&stream).expect("a message on the socket")
    }
}
