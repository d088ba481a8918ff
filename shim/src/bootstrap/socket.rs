//! The socket that a shim serves on: its name, who has it, and taking it.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::ErrorKind;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::socket::sockopt::PeerCredentials;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, getsockopt, listen, socket,
};
use nix::unistd::{getgid, getuid};

use crate::error::{Error, Result};
use crate::sha256;

/// What `sockaddr_un` holds with the null at its end, less the one byte by which containerd is careful.
const LONGEST_PATH: usize = 106;

/// Where containerd expects the shim of `group`: the hash lets it find a shim again by what it knows of it.
pub fn path(dir: &str, address: &str, namespace: &str, group: &str) -> Result<PathBuf> {
    let name = sha256::hex(join([address, namespace, group]).as_bytes());
    let path = Path::new(dir).join(name);
    if path.as_os_str().len() > LONGEST_PATH {
        let text = format!("{path:?}: unix socket path too long (> {LONGEST_PATH})");
        return Err(Error::invalid(text));
    }
    Ok(path)
}

/// Go's `filepath.Join`: `.`, `..` and empty components are resolved.
fn join(parts: [&str; 3]) -> String {
    let text = parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/");
    let rooted = text.starts_with('/');
    let mut kept: Vec<&str> = Vec::new();
    for part in text.split('/') {
        match part {
            "" | "." => {}
            ".." if kept.last().is_some_and(|last| *last != "..") => drop(kept.pop()),
            ".." if rooted => {}
            part => kept.push(part),
        }
    }
    format!("{}{}", if rooted { "/" } else { "" }, kept.join("/"))
}

#[derive(Debug)]
pub enum Listen {
    /// Ours; nobody was there, or a dead one's was put away.
    Ours(OwnedFd),
    /// A living shim has it.
    Taken,
}

pub fn take(path: &Path) -> Result<Listen> {
    let dir = folder(path);
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|e| Error::io("mkdir", dir, &e))?;
    let _lock = lock(dir, File::open(dir).map_err(|e| Error::io("open", dir, &e))?)?;
    match bound(path) {
        Ok(listener) => return Ok(Listen::Ours(listener)),
        Err(Error::Sys { errno: Errno::EADDRINUSE, .. }) if is_served(path)? => return Ok(Listen::Taken),
        Err(Error::Sys { errno: Errno::EADDRINUSE, .. }) => {}
        Err(other) => return Err(other),
    }
    remove(path)?;
    bound(path).map(Listen::Ours)
}

/// A shim that was killed leaves its socket. One that serves keeps it, and so does one that has begun to.
pub fn remove_dead(path: &Path) -> Result<()> {
    let dir = folder(path);
    let folder = match File::open(dir) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        other => other.map_err(|e| Error::io("open", dir, &e))?,
    };
    let _lock = lock(dir, folder)?;
    if is_served(path)? { Ok(()) } else { remove(path) }
}

fn folder(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("/"))
}

/// Between bind(2) and listen(2) a socket looks dead: nobody else of ours may look at it meanwhile.
fn lock(dir: &Path, folder: File) -> Result<Flock<File>> {
    Flock::lock(folder, FlockArg::LockExclusive).map_err(|(_, e)| Error::sys("lock", dir.display(), e))
}

fn bound(path: &Path) -> Result<OwnedFd> {
    let failed = |operation: &'static str| move |errno| Error::sys(operation, path.display(), errno);
    let socket = unix_socket(SockFlag::empty())?;
    let address = UnixAddr::new(path).map_err(failed("name a socket"))?;
    bind(socket.as_raw_fd(), &address).map_err(failed("bind"))?;
    let ready = fs::set_permissions(path, Permissions::from_mode(0o600))
        .map_err(|e| Error::io("chmod", path, &e))
        .and_then(|()| listen(&socket, Backlog::MAXCONN).map_err(failed("listen on")));
    match ready {
        Ok(()) => Ok(socket),
        Err(error) => {
            remove(path)?;
            Err(error)
        }
    }
}

/// Whether somebody accepts connections at `path`.
pub fn is_served(path: &Path) -> Result<bool> {
    let socket = unix_socket(SockFlag::SOCK_NONBLOCK)?;
    let address = UnixAddr::new(path).map_err(|errno| Error::sys("name a socket", path.display(), errno))?;
    match connect(socket.as_raw_fd(), &address) {
        // EAGAIN: so many wait there that one more may not.
        Ok(()) | Err(Errno::EAGAIN) => Ok(true),
        Err(Errno::ECONNREFUSED | Errno::ENOENT) => Ok(false),
        Err(errno) => Err(Error::sys("connect to", path.display(), errno)),
    }
}

fn unix_socket(flags: SockFlag) -> Result<OwnedFd> {
    socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC | flags, None)
        .map_err(|errno| Error::sys("socket", "", errno))
}

pub fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(Error::io("unlink", path, &e)),
        _ => Ok(()),
    }
}

/// Whether the other side of a connection is our own user and group: the handshake of containerd's servers.
pub fn is_same_user(connection: impl AsFd) -> nix::Result<bool> {
    let peer = getsockopt(&connection, PeerCredentials)?;
    Ok(peer.uid() == getuid().as_raw() && peer.gid() == getgid().as_raw())
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixListener, UnixStream};
    use std::time::{Duration, Instant};

    use super::*;
    use crate::starts::nothing_starts;

    #[test]
    fn the_name_is_containerds() {
        // Seen of containerd 1.6.20.
        let path = path("/run/containerd/s", "/tmp/s1rec/c.sock", "default", "c1").expect("a path");
        let expected = "/run/containerd/s/05592227dd196e0225ba7185817f8b6a875f5ef3968aa99c516b49de3f464715";
        assert_eq!(path, Path::new(expected));
    }

    #[test]
    fn parts_are_joined_as_go_joins_them() {
        for (parts, joined) in [
            (["/run/c.sock", "ns", "id"], "/run/c.sock/ns/id"),
            (["/run//c.sock/", "ns", ""], "/run/c.sock/ns"),
            (["", "ns", "id"], "ns/id"),
            (["/a/./b", "../ns", "id"], "/a/ns/id"),
            (["/", "../..", "id"], "/id"),
        ] {
            assert_eq!(join(parts), joined);
        }
    }

    #[test]
    fn a_path_that_no_socket_can_have_is_refused() {
        assert!(path(&"/x".repeat(20), "a", "n", "g").is_ok());
        let error = path(&"/x".repeat(21), "a", "n", "g").expect_err("too long");
        assert!(error.to_string().contains("too long"), "{error}");
    }

    #[test]
    fn the_socket_is_the_owners_alone() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("made/s");
        assert!(matches!(take(&path), Ok(Listen::Ours(_))));
        let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().expect("a folder"))), (0o600, 0o700));
    }

    #[test]
    fn a_living_shim_is_found_and_a_dead_ones_socket_replaced() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("s");
        let Ok(Listen::Ours(first)) = take(&path) else { panic!("not taken") };
        assert!(matches!(take(&path), Ok(Listen::Taken)));
        assert!(is_served(&path).expect("asked"));
        let _closed = nothing_starts();
        drop(first);
        assert!(!is_served(&path).expect("asked"));
        assert!(matches!(take(&path), Ok(Listen::Ours(_))));
        remove(&path).expect("removed");
        remove(&path).expect("gone already");
        assert!(!is_served(&path).expect("asked"));
    }

    #[test]
    fn a_socket_that_is_not_listened_on_yet_is_not_taken_for_a_dead_ones() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("s");
        let locked = lock(dir.path(), File::open(dir.path()).expect("the folder")).expect("locked");
        let socket = unix_socket(SockFlag::empty()).expect("a socket");
        bind(socket.as_raw_fd(), &UnixAddr::new(&path).expect("a name")).expect("bound");
        assert!(!is_served(&path).expect("asked"));
        std::thread::scope(|scope| {
            let removing = scope.spawn(|| remove_dead(&path));
            // It waits for the lock: the kernel lists who does so.
            let inode = std::os::unix::fs::MetadataExt::ino(&fs::metadata(dir.path()).expect("there"));
            let waits = |locks: &str| {
                locks.lines().any(|line| line.contains("->") && line.contains(&format!(":{inode} ")))
            };
            let end = Instant::now() + Duration::from_secs(20);
            let listed = loop {
                let locks = fs::read_to_string("/proc/locks").expect("locks");
                if removing.is_finished() || Instant::now() > end || waits(&locks) {
                    break locks;
                }
                std::thread::yield_now();
            };
            let is_listed = waits(&listed);
            listen(&socket, Backlog::MAXCONN).expect("listening");
            drop(locked);
            removing.join().expect("ended").expect("done");
            assert!(is_listed, "nobody waits for a lock of {inode}:\n{listed}");
        });
        assert!(path.exists());
        let _closed = nothing_starts();
        drop(socket);
        remove_dead(&path).expect("removed");
        assert!(!path.exists());
        remove_dead(&path.join("no folder/s")).expect("nothing there");
    }

    #[test]
    fn a_shim_whose_queue_is_full_lives() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("s");
        let listener = UnixListener::bind(&path).expect("bound");
        listen(&listener, Backlog::new(0).expect("a backlog")).expect("listening");
        let _waiting = UnixStream::connect(&path).expect("the one that may wait");
        assert!(is_served(&path).expect("asked"));
    }

    #[test]
    fn our_own_connection_is_the_same_users() {
        let (one, _other) = UnixStream::pair().expect("a pair");
        assert_eq!(is_same_user(&one), Ok(true));
    }
}
