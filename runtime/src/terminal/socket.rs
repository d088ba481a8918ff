//! The sockets at which an engine takes a terminal (`--console-socket`) or a pidfd
//! (`--pidfd-socket`).

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use nix::sys::stat::Mode;

use crate::error::{Error, Result};
use crate::sys::scm::send_with_fds;

/// Connects to a stream socket; `what` is for the message: `console socket`.
pub fn connect_to(what: &str, path: &Path) -> Result<OwnedFd> {
    connect_stream(path).map_err(|errno| Error::sys(format!("connect to the {what}"), path.display(), errno))
}

fn connect_stream(path: &Path) -> std::result::Result<OwnedFd, Errno> {
    let stream = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    match UnixAddr::new(path) {
        Ok(address) => connect(stream.as_raw_fd(), &address)?,
        // An address holds 107 bytes (unix(7)), the paths of engines are sometimes longer: go by
        // a descriptor of the socket's file.
        Err(Errno::ENAMETOOLONG) => {
            let file = open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
            let address = UnixAddr::new(format!("/proc/self/fd/{}", file.as_raw_fd()).as_str())?;
            connect(stream.as_raw_fd(), &address)?;
        }
        Err(errno) => return Err(errno),
    }
    Ok(stream)
}

/// Whose pidfd: the words of runc's protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PidfdOf {
    Init,
    Exec,
}

/// Sends the pidfd of a container's process to the engine.
pub fn send_pidfd(path: &Path, pidfd: BorrowedFd<'_>, of: PidfdOf) -> Result<()> {
    let stream = connect_to("pidfd socket", path)?;
    let name: &[u8] = match of {
        PidfdOf::Init => b"standard",
        PidfdOf::Exec => b"setns",
    };
    send_with_fds(stream.as_fd(), name, &[pidfd])
        .map(drop)
        .map_err(|errno| Error::sys("send the pidfd to", path.display(), errno))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::scm::recv_with_fds;
    use std::os::unix::net::UnixListener;

    #[test]
    fn a_pidfd_goes_with_its_word_also_to_a_path_longer_than_an_address() {
        let folder = tempfile::tempdir().unwrap();
        let long = folder.path().join("n".repeat(60)).join("m".repeat(60));
        std::fs::create_dir_all(&long).unwrap();
        // bind has the same limit: bound by a short name, then moved.
        let listener = UnixListener::bind(folder.path().join("s")).unwrap();
        std::fs::rename(folder.path().join("s"), long.join("sock")).unwrap();
        let null = std::fs::File::open("/dev/null").unwrap();
        for (of, word) in [(PidfdOf::Init, &b"standard"[..]), (PidfdOf::Exec, b"setns")] {
            send_pidfd(&long.join("sock"), null.as_fd(), of).unwrap();
            let (stream, _) = listener.accept().unwrap();
            let (mut buffer, mut slots) = ([0; 32], [None]);
            let got = recv_with_fds(stream.as_fd(), &mut buffer, &mut slots).unwrap();
            assert_eq!((&buffer[..got.bytes], got.fds), (word, 1));
        }
    }

    #[test]
    fn a_socket_that_is_not_there_or_not_listening_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sock");
        let text = |path: &Path| connect_to("console socket", path).unwrap_err().to_string();
        let shown = path.display();
        assert_eq!(text(&path), format!("connect to the console socket {shown}: no such file or directory"));
        drop(UnixListener::bind(&path).unwrap());
        assert_eq!(text(&path), format!("connect to the console socket {shown}: connection refused"));
        assert!(text(Path::new(&"x/".repeat(100))).ends_with(": no such file or directory"));
    }
}
