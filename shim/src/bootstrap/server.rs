//! The beginning of the server's life.
//!
//! `start` gives it the listening socket as standard input, and as standard output a socket with a gate: it
//! serves when a word comes through, and ends when the other side closes without one. So a start
//! that fails or is killed leaves no server behind, whatever it had come to.

use std::fs::File;
use std::io::{Read, stdin, stdout};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::prctl::set_child_subreaper;
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::AcceptConn;
use nix::sys::stat::Mode;
use nix::unistd::{dup2_stderr, dup2_stdin, dup2_stdout};

use super::words::Words;
use crate::error::{Error, Result};

pub(super) const GO: &[u8] = b"!";

/// What a server begins with. Standard input and output are `/dev/null`, standard error is the log.
#[derive(Debug)]
pub struct Setup {
    pub listener: OwnedFd,
    /// Of the container that it was started for; others may come.
    pub id: String,
    pub namespace: String,
    /// containerd's gRPC socket.
    pub address: String,
    pub ttrpc_address: String,
    pub bundle: PathBuf,
    pub debug: bool,
}

/// `None`: the start came to nothing, and so does the server.
pub fn begin(words: &Words, ttrpc_address: Option<String>, bundle: PathBuf) -> Result<Option<Setup>> {
    let copied = |e: std::io::Error| Error::io("copy a descriptor of", Path::new("start"), &e);
    let listener = stdin().as_fd().try_clone_to_owned().map_err(copied)?;
    if !matches!(getsockopt(&listener, AcceptConn), Ok(true)) {
        return Err(Error::invalid("standard input is no listening socket: only `start` starts the server"));
    }
    let mut gate = UnixStream::from(stdout().as_fd().try_clone_to_owned().map_err(copied)?);
    let null = open_null()?;
    let replaced = |errno| Error::sys("dup2", "/dev/null", errno);
    dup2_stdin(&null).map_err(replaced)?;
    dup2_stdout(&null).map_err(replaced)?;
    let mut word = [0; GO.len()];
    if gate.read_exact(&mut word).is_err() || word != GO {
        return Ok(None);
    }
    set_child_subreaper(true).map_err(|errno| Error::sys("become subreaper", "", errno))?;
    log_to_fifo(&bundle)?;
    Ok(Some(Setup {
        listener,
        id: words.id.clone(),
        namespace: words.namespace.clone(),
        ttrpc_address: ttrpc_address.unwrap_or_else(|| format!("{}.ttrpc", words.address)),
        address: words.address.clone(),
        bundle,
        debug: words.debug,
    }))
}

fn open_null() -> Result<File> {
    let file = File::options().read(true).write(true).open("/dev/null");
    file.map_err(|e| Error::io("open", Path::new("/dev/null"), &e))
}

/// Standard error becomes the fifo `log` of the bundle, which containerd reads. It never blocks, and it is
/// open for reading too: what is said while containerd is away stands in it until containerd is
/// back, and nothing fails meanwhile.
fn log_to_fifo(bundle: &Path) -> Result<()> {
    let path = bundle.join("log");
    let flags = OFlag::O_RDWR | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
    let log = match open(&path, flags, Mode::empty()) {
        Ok(log) => log,
        // Nobody wants to read it.
        Err(Errno::ENOENT) => open_null()?.into(),
        Err(errno) => return Err(Error::sys("open", path.display(), errno)),
    };
    dup2_stderr(&log).map_err(|errno| Error::sys("dup2", path.display(), errno))
}
