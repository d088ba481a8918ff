//! The unix sockets on which a runtime hands a descriptor over: `--console-socket`, `--pidfd-socket`, the
//! seccomp agent's `listenerPath`.

use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use serde_json::Value;

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
        let stream = self.accept();
        crate::sys::receive(&stream).expect("a message on the socket")
    }

    /// All that comes over the next connection until the other side closes it.
    #[track_caller]
    pub fn receive_to_the_end(&self) -> (Vec<u8>, Vec<OwnedFd>) {
        let mut stream = self.accept();
        let (mut bytes, fds) = crate::sys::receive(&stream).expect("a message on the socket");
        stream.read_to_end(&mut bytes).expect("the end of the connection");
        (bytes, fds)
    }

    /// The document that comes over the next connection, however many parts it has.
    #[track_caller]
    pub fn receive_json(&self) -> (Value, Vec<OwnedFd>) {
        let mut stream = self.accept();
        let (mut bytes, fds) = crate::sys::receive(&stream).expect("a message on the socket");
        loop {
            match serde_json::from_slice(&bytes) {
                Ok(document) => return (document, fds),
                Err(error) => assert!(error.is_eof(), "{error}: {}", String::from_utf8_lossy(&bytes)),
            }
            let mut part = vec![0; 65536];
            let count = stream.read(&mut part).expect("the rest of the document");
            assert!(count > 0, "a document cut short: {}", String::from_utf8_lossy(&bytes));
            bytes.extend_from_slice(&part[..count]);
        }
    }

    #[track_caller]
    fn accept(&self) -> UnixStream {
        let mut stream = None;
        eventually("a connection to the socket", || {
            stream = self.socket.accept().ok();
            stream.is_some()
        });
        let (stream, _) = stream.expect("a connection");
        stream.set_nonblocking(false).expect("blocking");
        stream.set_read_timeout(Some(crate::call::LIMIT)).expect("a timeout");
        stream
    }
}
