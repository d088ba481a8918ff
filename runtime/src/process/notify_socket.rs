//! `NOTIFY_SOCKET`: when a service manager waits for us to be ready (`sd_notify(3)`), the container
//! gets a socket of its own, and what it says there is passed on, in our name.

use std::ffi::{CString, OsStr};
use std::fs;
use std::io::{ErrorKind, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{Pid, pipe2};

use crate::config::Mount;
use crate::error::{Error, Result};
use crate::sys::scm::send_with_fds;

const FOLDER_IN_CONTAINER: &std::ffi::CStr = c"/run/notify";
const ENV: &std::ffi::CStr = c"NOTIFY_SOCKET=/run/notify/notify.sock";
const SOCKET: &str = "notify.sock";

/// How long a service manager may take to close our pipe (`sd_notify_barrier(3)`), as runc waits.
const BARRIER_MILLISECONDS: u16 = 30_000;

/// The folder in that of the container.
pub fn folder(container: &Path) -> PathBuf {
    container.join("notify")
}

/// At `create`: makes the folder beside the container's state. It is mounted now, the socket in it
/// is made by `start`.
pub fn make_folder(container: &Path) -> Result<PathBuf> {
    let folder = folder(container);
    fs::DirBuilder::new()
        .mode(0o755)
        .create(&folder)
        .map_err(|error| Error::io("create folder", &folder, &error))?;
    Ok(folder)
}

/// What the container needs: the mount, and the variable of its environment.
pub fn in_container(folder: &Path) -> Result<(Mount, CString)> {
    let source = CString::new(folder.as_os_str().as_bytes())
        .map_err(|_| Error::sys("mount", folder.display(), Errno::EINVAL))?;
    let mount = Mount {
        destination: FOLDER_IN_CONTAINER.into(),
        source: Some(source),
        kind: Some(c"bind".into()),
        options: ["bind", "nosuid", "noexec", "nodev", "ro"].map(String::from).to_vec(),
        uid_mappings: vec![],
        gid_mappings: vec![],
    };
    Ok((mount, ENV.into()))
}

/// The container's socket, and the way to the service manager.
pub struct NotifySocket {
    container: UnixDatagram,
    manager: UnixDatagram,
}

impl NotifySocket {
    /// At `start`, before the container's program runs. `manager` is our own `NOTIFY_SOCKET`.
    pub fn bind(folder: &Path, manager: &OsStr) -> Result<Self> {
        let path = folder.join(SOCKET);
        let failed = |what: &'static str| {
            let path = path.clone();
            move |error: std::io::Error| Error::io(what, &path, &error)
        };
        // By a descriptor, because an address holds 107 bytes and an id alone may have 1024.
        let directory = fs::File::open(folder).map_err(failed("open the folder of"))?;
        let short = format!("/proc/self/fd/{}/{SOCKET}", directory.as_raw_fd());
        let container = UnixDatagram::bind(&short).map_err(failed("bind notify socket"))?;
        // Any user of the container may report.
        fs::set_permissions(&short, fs::Permissions::from_mode(0o777)).map_err(failed("open to all"))?;
        container.set_nonblocking(true).map_err(failed("set up notify socket"))?;
        let unreachable = |error| Error::io("connect to NOTIFY_SOCKET", Path::new(manager), &error);
        let address = match manager.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
            _ => SocketAddr::from_pathname(manager),
        };
        let address = address.map_err(unreachable)?;
        let manager = UnixDatagram::unbound().map_err(unreachable)?;
        manager.connect_addr(&address).map_err(unreachable)?;
        Ok(Self { container, manager })
    }

    /// Takes what has come. True: the container was ready, and the manager knows it, and that it is
    /// to watch `main`: nothing more is to be done.
    pub fn forward(&self, main: Pid) -> Result<bool> {
        let mut message = [0; 4096];
        loop {
            let count = match self.container.recv(&mut message) {
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(Error::io("read", Path::new(SOCKET), &error)),
            };
            // Only this: the rest of the protocol (descriptors to store, another main process) is
            // not for a container to say on the host.
            let Some(line) = ready_line(&message[..count]) else { continue };
            self.tell(&[line, b"\n"].concat())?;
            self.tell(format!("MAINPID={main}\n").as_bytes())?;
            return Ok(true);
        }
    }

    fn tell(&self, text: &[u8]) -> Result<()> {
        self.manager
            .send(text)
            .map(drop)
            .map_err(|error| Error::io("write to", Path::new("NOTIFY_SOCKET"), &error))
    }

    /// For a container that goes on without us: until it is ready or has ended. Then also until the
    /// manager has read it all, since it may not know any more who wrote when we are gone.
    pub fn wait_until_ready(&self, pid: Pid, pidfd: BorrowedFd<'_>) -> Result<()> {
        loop {
            let mut fds = [
                PollFd::new(self.container.as_fd(), PollFlags::POLLIN),
                PollFd::new(pidfd, PollFlags::POLLIN),
            ];
            match poll(&mut fds, PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(Error::sys("wait for readiness of", pid, errno)),
            }
            let ended = fds[1].any().unwrap_or(false);
            if self.forward(pid)? {
                return self.barrier();
            }
            if ended {
                return Ok(());
            }
        }
    }

    /// The manager closes the descriptor when it comes to this message. One that does not know it
    /// may keep it: then the wait ends by itself.
    fn barrier(&self) -> Result<()> {
        let failed = |errno| Error::sys("write to", "NOTIFY_SOCKET", errno);
        let (reader, writer): (OwnedFd, OwnedFd) = pipe2(OFlag::O_CLOEXEC).map_err(failed)?;
        send_with_fds(self.manager.as_fd(), b"BARRIER=1", &[writer.as_fd()]).map_err(failed)?;
        drop(writer);
        let mut fds = [PollFd::new(reader.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, PollTimeout::from(BARRIER_MILLISECONDS)) {
            Ok(0) | Err(Errno::EINTR) => return Ok(()),
            Ok(_) => {}
            Err(errno) => return Err(failed(errno)),
        }
        match fs::File::from(reader).read(&mut [0]) {
            Ok(0) => Ok(()),
            Ok(_) => Err(Error::Protocol("NOTIFY_SOCKET: the barrier was written to".into())),
            Err(error) => Err(Error::io("read", Path::new("NOTIFY_SOCKET"), &error)),
        }
    }
}

impl AsFd for NotifySocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.container.as_fd()
    }
}

fn ready_line(message: &[u8]) -> Option<&[u8]> {
    message.split(|&byte| byte == b'\n').find(|line| line.starts_with(b"READY="))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::scm::recv_with_fds;
    use crate::sys::spawn::{Argv, Program, Spawned, spawn};
    use crate::sys::tty::standard_streams;

    struct Stage {
        folder: tempfile::TempDir,
        manager: UnixDatagram,
        socket: NotifySocket,
        client: UnixDatagram,
    }

    fn stage() -> Stage {
        let folder = tempfile::tempdir().unwrap();
        let host = folder.path().join("manager");
        let manager = UnixDatagram::bind(&host).unwrap();
        let notify = make_folder(folder.path()).unwrap();
        let socket = NotifySocket::bind(&notify, host.as_os_str()).unwrap();
        let client = UnixDatagram::unbound().unwrap();
        client.connect(notify.join(SOCKET)).unwrap();
        Stage { folder, manager, socket, client }
    }

    fn child(script: &str) -> Spawned {
        let argv = Argv::new(["sh", "-c", script].map(|word| CString::new(word).unwrap()).to_vec());
        let envp = Argv::new(vec![]);
        let stdio = standard_streams();
        spawn(&Program { path: c"/bin/sh", argv: &argv, envp: &envp, cwd: None, stdio }).unwrap()
    }

    fn heard(manager: &UnixDatagram) -> Vec<String> {
        manager.set_nonblocking(true).unwrap();
        let mut buffer = [0; 256];
        std::iter::from_fn(|| manager.recv(&mut buffer).ok().map(|n| buffer[..n].to_vec()))
            .map(|bytes| String::from_utf8(bytes).unwrap())
            .collect()
    }

    #[test]
    fn readiness_is_passed_on_with_the_main_process_and_nothing_else_is() {
        let stage = stage();
        stage.client.send(b"STATUS=half way\nFDSTORE=1\nMAINPID=1").unwrap();
        assert!(!stage.socket.forward(Pid::from_raw(77)).unwrap());
        stage.client.send(b"STATUS=done\nREADY=1\nMAINPID=1").unwrap();
        assert!(stage.socket.forward(Pid::from_raw(77)).unwrap());
        assert_eq!(heard(&stage.manager), ["READY=1\n", "MAINPID=77\n"]);
    }

    #[test]
    fn the_wait_ends_with_the_container() {
        let stage = stage();
        let child = child("exit 0");
        stage.socket.wait_until_ready(child.pid, child.pidfd.as_fd()).unwrap();
        nix::sys::wait::waitpid(child.pid, None).unwrap();
        assert!(heard(&stage.manager).is_empty());
    }

    #[test]
    fn a_detached_container_is_announced_and_the_barrier_waited_for() {
        let stage = stage();
        stage.client.send(b"READY=1\n").unwrap();
        let running = child("exec sleep 60");
        std::thread::scope(|scope| {
            let waiting =
                scope.spawn(|| stage.socket.wait_until_ready(Pid::from_raw(5), running.pidfd.as_fd()));
            let mut seen = Vec::new();
            for _ in 0..3 {
                let (mut buffer, mut slots) = ([0; 64], [None]);
                let got = recv_with_fds(stage.manager.as_fd(), &mut buffer, &mut slots).unwrap();
                seen.push((String::from_utf8_lossy(&buffer[..got.bytes]).into_owned(), got.fds));
                // The manager closes what came: here at the end of the turn.
            }
            waiting.join().unwrap().unwrap();
            let expected = [("READY=1\n", 0), ("MAINPID=5\n", 0), ("BARRIER=1", 1)];
            assert_eq!(seen, expected.map(|(text, fds)| (text.to_owned(), fds)));
        });
        crate::sys::signal::kill(running.pid.as_raw(), libc::SIGKILL).unwrap();
        nix::sys::wait::waitpid(running.pid, None).unwrap();
    }

    #[test]
    fn the_container_gets_a_read_only_bind_and_the_variable() {
        let stage = stage();
        let (mount, env) = in_container(&stage.folder.path().join("notify")).unwrap();
        assert_eq!(mount.destination.to_bytes(), b"/run/notify");
        assert!(mount.options.contains(&"ro".to_owned()));
        assert_eq!(env.to_bytes(), b"NOTIFY_SOCKET=/run/notify/notify.sock");
    }

    #[test]
    fn an_unreachable_manager_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let notify = make_folder(folder.path()).unwrap();
        let error = NotifySocket::bind(&notify, OsStr::new("@tare-nobody")).err().unwrap();
        assert_eq!(error.to_string(), "connect to NOTIFY_SOCKET @tare-nobody: connection refused");
    }
}

#[cfg(test)]
mod fuzz {
    use super::*;

    /// What a container says to us, we say to the manager: nothing but readiness.
    #[test]
    fn datagrams() {
        let seeds = ["READY=1\nMAINPID=1", "STATUS=half way\nFDSTORE=1", "READY=", "\nREADY=0\n"];
        ::fuzz::target("notify-datagrams").seeds(seeds).rounds(20_000).run(|bytes| {
            let Some(line) = ready_line(bytes) else {
                assert!(!bytes.starts_with(b"READY=") && !bytes.windows(7).any(|w| w == b"\nREADY="));
                return false;
            };
            assert!(line.starts_with(b"READY=") && !line.contains(&b'\n'));
            true
        });
    }
}
