//! A container with a terminal: the runtime sends the master of its pseudo-terminal over a socket,
//! and the shim relays between the master and the client's FIFOs (or file, or logger).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::termios::tcgetattr;
use nix::unistd::mkdtemp;

use super::fifo::Fifo;
use super::file;
use super::pump::{Pump, Step, has_room};
use super::set::{Set, Source};
use crate::error::{Error, Result};
use crate::sys::io::{received_fd, set_terminal_size};

/// How many steps of a relay at most before the loop serves the others again.
const ROUNDS: usize = 64;

/// Where the runtime sends the master to, in a folder that only we can enter.
#[derive(Debug)]
pub(super) struct Socket {
    listener: UnixListener,
    folder: PathBuf,
}

impl Socket {
    pub(super) fn open() -> Result<Self> {
        // A socket's path has 107 bytes at most, which the bundle's may exceed.
        let template = std::env::temp_dir().join("tare-pty-XXXXXX");
        let folder = mkdtemp(&template).map_err(|errno| Error::sys("mkdtemp", template.display(), errno))?;
        let path = folder.join("pty.sock");
        let bound = UnixListener::bind(&path).and_then(|listener| {
            listener.set_nonblocking(true)?;
            Ok(listener)
        });
        match bound {
            Ok(listener) => Ok(Socket { listener, folder }),
            Err(error) => {
                let failed = io("bind console socket", &path)(error);
                // The first error is the one that matters.
                std::fs::remove_dir_all(&folder).ok();
                Err(failed)
            }
        }
    }

    pub(super) fn path(&self) -> PathBuf {
        self.folder.join("pty.sock")
    }

    /// The master, which the runtime has sent before its verb returned.
    fn receive(&self) -> Result<OwnedFd> {
        let none = || Error::Unknown("the runtime has sent no terminal over the console socket".into());
        let connection = match self.listener.accept() {
            Ok((connection, _)) => connection,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Err(none()),
            Err(error) => return Err(io("accept on console socket", &self.path())(error)),
        };
        match received_fd(connection.as_fd()) {
            Ok(Some(master)) => Ok(master),
            Ok(None) | Err(Errno::EAGAIN) => Err(none()),
            Err(errno) => Err(Error::sys("receive the terminal from", self.path().display(), errno)),
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // It holds an empty socket in the folder for temporary files, which the system clears.
        std::fs::remove_dir_all(&self.folder).ok();
    }
}

/// Where the terminal's bytes go.
#[derive(Debug)]
pub(super) enum Output {
    Fifo(Fifo),
    /// A file, `/dev/null`, or the pipe to a logger.
    Other(OwnedFd),
    Closed,
}

impl Output {
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Output::Fifo(fifo) => fifo.fd(),
            Output::Other(fd) => Some(fd.as_fd()),
            Output::Closed => None,
        }
    }
}

/// A terminal, from before the runtime has made it until its last byte is relayed.
#[derive(Debug)]
pub(super) struct Console {
    socket: Option<Socket>,
    master: Option<OwnedFd>,
    output: Output,
    /// The reading end of stdin's FIFO.
    input: Option<OwnedFd>,
    to_client: Pump,
    from_client: Pump,
    process_ended: bool,
}

impl Console {
    pub(super) fn open(input: Option<OwnedFd>, output: Output) -> Result<Self> {
        Ok(Console {
            socket: Some(Socket::open()?),
            master: None,
            output,
            input,
            to_client: Pump::default(),
            from_client: Pump::default(),
            process_ended: false,
        })
    }

    pub(super) fn socket_path(&self) -> Option<PathBuf> {
        self.socket.as_ref().map(Socket::path)
    }

    pub(super) fn attach(&mut self, set: &mut Set) -> Result<()> {
        let Some(socket) = self.socket.take() else { return Ok(()) };
        let failed = |operation| move |errno| Error::sys(operation, "the container's terminal", errno);
        let master = socket.receive()?;
        tcgetattr(&master).map_err(failed("tcgetattr"))?;
        // It came with an open file of its own that nobody else has: the other ends are other files.
        let flags = fcntl(&master, FcntlArg::F_GETFL).map_err(failed("fcntl"))?;
        let flags = OFlag::from_bits_truncate(flags) | OFlag::O_NONBLOCK;
        fcntl(&master, FcntlArg::F_SETFL(flags)).map_err(failed("fcntl"))?;
        set.watch(master.as_fd(), Source::Console).map_err(failed("watch"))?;
        if let Some(input) = &self.input {
            set.watch(input.as_fd(), Source::ConsoleInput).map_err(failed("watch the input of"))?;
        }
        if let Some(output) = self.output.fd() {
            set.watch(output, Source::ConsoleOutput).map_err(failed("watch the output of"))?;
        }
        self.master = Some(master);
        self.relay(set)
    }

    pub(super) fn resize(&self, columns: u16, rows: u16) -> Result<()> {
        let Some(master) = &self.master else { return Ok(()) };
        set_terminal_size(master.as_fd(), columns, rows)
            .map_err(|errno| Error::sys("resize", "the container's terminal", errno))
    }

    /// All that the terminal held is where it goes.
    pub(super) fn is_drained(&self) -> bool {
        self.master.is_none()
    }

    /// What the terminal holds now is all that is to be relayed.
    pub(super) fn process_ended(&mut self, set: &mut Set) -> Result<()> {
        self.process_ended = true;
        self.close_input(set);
        self.relay(set)
    }

    /// Moves bytes in both directions, as long as there are some and there is room, or until others
    /// have waited long enough.
    pub(super) fn relay(&mut self, set: &mut Set) -> Result<()> {
        for _ in 0..ROUNDS {
            let out = self.relay_output(set)?;
            let input = self.relay_input(set)?;
            if !out && !input {
                return Ok(());
            }
        }
        match &self.master {
            Some(master) => set
                .watch_again(master.as_fd(), Source::Console)
                .map_err(|errno| Error::sys("watch", "the container's terminal", errno)),
            None => Ok(()),
        }
    }

    /// Whether something moved.
    fn relay_output(&mut self, set: &mut Set) -> Result<bool> {
        let (Some(master), Some(output)) = (&self.master, self.output.fd()) else { return Ok(false) };
        match self.to_client.step(master.as_fd(), output) {
            Step::Moved => return Ok(true),
            Step::Waits
                if self.process_ended
                    && self.to_client.is_empty()
                    && has_room(output, "the terminal's output")? =>
            {
                self.finish(set)?;
            }
            Step::Waits => {}
            // Nobody has the terminal open. As long as the process lives, it may open it again: an
            // init system does, time and again.
            Step::HungUp | Step::SourceEnded => {
                if self.process_ended {
                    self.finish(set)?;
                }
            }
            // A logger has died, a disk is full: the container must not hang on its terminal for that.
            Step::SinkFailed(_) => {
                set.forget(output);
                self.output = Output::Other(file::null()?);
                self.to_client.clear();
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn relay_input(&mut self, set: &mut Set) -> Result<bool> {
        let (Some(master), Some(input)) = (&self.master, &self.input) else { return Ok(false) };
        match self.from_client.step(input.as_fd(), master.as_fd()) {
            Step::Moved => Ok(true),
            // With nobody at the terminal, the input waits in its FIFO.
            Step::Waits | Step::HungUp | Step::SinkFailed(_) => Ok(false),
            // The client has closed it: the terminal is hung up, as the stock shim does.
            Step::SourceEnded => {
                self.close_input(set);
                self.hang_up(set)?;
                Ok(false)
            }
        }
    }

    fn hang_up(&mut self, set: &mut Set) -> Result<()> {
        for _ in 0..ROUNDS {
            if !self.relay_output(set)? {
                break;
            }
        }
        self.finish(set)
    }

    fn close_input(&mut self, set: &Set) {
        if let Some(input) = self.input.take() {
            set.forget(input.as_fd());
        }
    }

    /// No byte comes any more: the terminal and what it led to are let go.
    fn finish(&mut self, set: &mut Set) -> Result<()> {
        if let Some(master) = self.master.take() {
            set.forget(master.as_fd());
        }
        self.close_input(set);
        if let Some(output) = self.output.fd() {
            set.forget(output);
        }
        match &mut self.output {
            Output::Fifo(fifo) => fifo.release(set),
            other => {
                *other = Output::Closed;
                Ok(())
            }
        }
    }

    pub(super) fn opened(&mut self, set: &Set) -> Result<()> {
        match &mut self.output {
            Output::Fifo(fifo) => fifo.opened(set),
            Output::Other(_) | Output::Closed => Ok(()),
        }
    }

    pub(super) fn close(&mut self, set: &mut Set) {
        self.socket = None;
        if let Some(master) = self.master.take() {
            set.forget(master.as_fd());
        }
        self.close_input(set);
        if let Some(output) = self.output.fd() {
            set.forget(output);
        }
        if let Output::Fifo(fifo) = &mut self.output {
            fifo.close(set);
        }
        self.output = Output::Closed;
    }
}

fn io<'a>(operation: &'a str, path: &'a Path) -> impl Fn(std::io::Error) -> Error + 'a {
    move |error| {
        Error::sys(operation, path.display(), Errno::from_raw(error.raw_os_error().unwrap_or(libc::EINVAL)))
    }
}
