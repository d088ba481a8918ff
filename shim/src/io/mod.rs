//! The streams of one process: what it gets, and what the shim does for them while it lives.
//!
//! Without a terminal a FIFO or a logger is not relayed: the container has the client's FIFO, or the
//! pipe to the logger, itself. Who does not read makes the container wait, and neither bytes nor memory
//! go through the shim. A file it must not have, because it could truncate the file: it has a pipe, and
//! the shim carries the bytes. With a terminal the shim relays between its master and those.
//!
//! Nothing here waits. What has to be waited for is in one set for each process ([`Stdio::poll_fd`]),
//! which most never need.

mod binary;
mod carrier;
mod console;
mod fifo;
mod file;
mod pump;
mod relay;
mod remote;
mod set;
#[cfg(test)]
mod tests;
mod uri;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use nix::fcntl::OFlag;

use self::binary::Logger;
use self::carrier::Carrier;
use self::console::{Console, Output};
use self::fifo::{Fifo, Found, Owner};
use self::relay::{Relay, not_blocking};
use self::set::{Set, Source};
use self::uri::Target;
use crate::error::{Error, Result};

/// The variable in containerd's environment that turns loggers off.
pub const LOGGERS: &str = "TARE_SHIM_LOGGERS";

/// What a request to create or to exec says of the streams.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Paths or URIs; empty for none.
    pub stdin: &'a str,
    pub stdout: &'a str,
    pub stderr: &'a str,
    pub terminal: bool,
    /// Of the runtime's options: whose the container's ends are.
    pub io_uid: u32,
    pub io_gid: u32,
    /// For a logger.
    pub id: &'a str,
    pub namespace: &'a str,
    /// Loggers may be executed.
    pub loggers: bool,
}

/// What the runtime gets.
#[derive(Debug)]
pub enum Given {
    /// For 0, 1 and 2.
    Streams([OwnedFd; 3]),
    /// Where it sends the master of the terminal to.
    ConsoleSocket(PathBuf),
}

/// The streams of one process.
#[derive(Debug)]
pub struct Stdio {
    gives_fifos: bool,
    set: Set,
    given: Option<Given>,
    /// The writing end of stdin's FIFO.
    stdin: Option<OwnedFd>,
    outputs: Vec<Fifo>,
    relays: Vec<Relay>,
    console: Option<Console>,
    logger: Option<Logger>,
    carriers: Vec<Carrier>,
}

/// What depends on the host.
#[derive(Clone, Copy)]
pub struct Host {
    /// To the container, which otherwise has pipes.
    pub gives_fifos: bool,
    /// Whether to open or write this file may take for ever.
    pub may_hang: fn(&Path) -> bool,
}

impl Stdio {
    /// Opens all, and starts the logger if there is one; then [`Stdio::is_ready`] has to be waited for.
    pub fn open(request: &Request<'_>) -> Result<Self> {
        Self::open_on(Host { gives_fifos: !judges_files(), may_hang: remote::may_hang }, request)
    }

    pub fn open_on(host: Host, request: &Request<'_>) -> Result<Self> {
        let mut stdio = Stdio {
            gives_fifos: host.gives_fifos,
            set: Set::default(),
            given: None,
            stdin: None,
            outputs: Vec::new(),
            relays: Vec::new(),
            console: None,
            logger: None,
            carriers: Vec::new(),
        };
        let owner = Owner { uid: request.io_uid, gid: request.io_gid };
        let stdin = stdio.open_stdin(request, owner)?;
        let (stdout, stderr) = (Target::parse(request.stdout)?, Target::parse(request.stderr)?);
        let is_same = stdout == stderr;
        let [stdout, stderr] = match (stdout, stderr) {
            (Target::Logger(program), _) | (_, Target::Logger(program)) if !request.loggers => {
                let what = format!("the logger {} is not executed: {LOGGERS}=off", program.path);
                return Err(Error::Precondition(what));
            }
            // One logger has both, whatever stderr is said to be.
            (Target::Logger(program), _) | (Target::Null, Target::Logger(program)) => {
                let (logger, ends) = Logger::start(program, request.id, request.namespace, &mut stdio.set)?;
                stdio.logger = Some(logger);
                ends.map(Opened::Other)
            }
            (_, Target::Logger(_)) => {
                return Err(Error::invalid("a logger for stderr alone is not possible: it has both streams"));
            }
            (stdout, stderr) => {
                // A terminal has one output.
                let stderr = if request.terminal { Target::Null } else { stderr };
                let open = |target: &Target| match target {
                    Target::File(path) if (host.may_hang)(path) => Ok(Opened::Elsewhere(path.clone())),
                    here => open_output(here, owner),
                };
                [open(&stdout)?, open(&stderr)?]
            }
        };
        stdio.given = Some(if request.terminal {
            let output = stdio.console_output(stdout)?;
            let console = Console::open(stdin, output)?;
            let path = console.socket_path().unwrap_or_default();
            stdio.console = Some(console);
            Given::ConsoleSocket(path)
        } else {
            let stdin = stdin.map_or_else(file::null, Ok)?;
            // One pipe for one file: what is written to one after the other stays so.
            let is_one = is_same && matches!(stdout, Opened::File(..) | Opened::Elsewhere(_));
            let stdout = stdio.container_end(stdout, owner)?;
            let stderr = if is_one {
                stdout.try_clone().map_err(|error| Error::io("dup", request.stdout.as_ref(), &error))?
            } else {
                stdio.container_end(stderr, owner)?
            };
            Given::Streams([stdin, stdout, stderr])
        });
        Ok(stdio)
    }

    /// The reading end: the container's own, or for the relay of a terminal.
    fn open_stdin(&mut self, request: &Request<'_>, owner: Owner) -> Result<Option<OwnedFd>> {
        let path = match Target::parse(request.stdin)? {
            Target::Null => return Ok(None),
            Target::Path(path) => path,
            Target::File(_) | Target::Logger(_) => {
                return Err(Error::invalid(format!("stdin cannot come from {:?}", request.stdin)));
            }
        };
        let found = Found::at(&path)?;
        let is_given = !request.terminal && found.is_fifo && self.gives_fifos;
        let mode = if is_given { OFlag::O_RDONLY } else { OFlag::O_RDONLY | OFlag::O_NONBLOCK };
        let source = if found.is_fifo {
            // Open for reading and writing while the ends are opened, neither of which waits then.
            let _both = Fifo::open(&found, owner)?;
            let reader = found.open(mode)?;
            self.stdin = Some(found.open(OFlag::O_WRONLY | OFlag::O_NONBLOCK)?);
            reader
        } else {
            found.open(mode)?
        };
        if request.terminal || is_given {
            return Ok(Some(source));
        }
        let (relay, end) = Relay::to_container(source, request.stdin, &mut self.set)?;
        owner.give(end.as_fd(), &path)?;
        self.relays.push(relay);
        Ok(Some(end))
    }

    fn container_end(&mut self, opened: Opened, owner: Owner) -> Result<OwnedFd> {
        match opened {
            Opened::Fifo(fifo, found) if !self.gives_fifos => {
                let name = found.name();
                let sink = found.open(OFlag::O_WRONLY | OFlag::O_NONBLOCK)?;
                let (mut relay, end) = Relay::from_container(sink, &name, &mut self.set)?;
                owner.give(end.as_fd(), name.as_ref())?;
                relay.hold(fifo);
                self.relays.push(relay);
                Ok(end)
            }
            Opened::Fifo(fifo, found) => {
                let end = found.open(OFlag::O_WRONLY)?;
                self.outputs.push(fifo);
                Ok(end)
            }
            Opened::File(file, path) => {
                let name = path.display().to_string();
                let (relay, end) = Relay::from_container(file, &name, &mut self.set)?;
                owner.give(end.as_fd(), &path)?;
                self.relays.push(relay);
                Ok(end)
            }
            Opened::Elsewhere(path) => {
                let end = self.carried_to(&path)?;
                owner.give(end.as_fd(), &path)?;
                Ok(end)
            }
            Opened::Other(fd) => Ok(fd),
        }
    }

    fn carried_to(&mut self, path: &Path) -> Result<OwnedFd> {
        let (carrier, end) = Carrier::start(path, &mut self.set)?;
        self.carriers.push(carrier);
        Ok(end)
    }

    fn console_output(&mut self, opened: Opened) -> Result<Output> {
        let fd = match opened {
            Opened::Fifo(fifo, _) => return Ok(Output::Fifo(fifo)),
            Opened::File(fd, _) | Opened::Other(fd) => fd,
            Opened::Elsewhere(path) => self.carried_to(&path)?,
        };
        // The flag is this end's own: the logger's end is another open file.
        not_blocking(fd.as_fd()).map_err(|errno| Error::sys("fcntl", "the terminal's output", errno))?;
        Ok(Output::Other(fd))
    }

    /// To be waited for until it is readable, then [`Stdio::ready`]. It is there from the first time on
    /// that there is something to wait for; each call of the others can be that time.
    pub fn poll_fd(&self) -> Option<BorrowedFd<'_>> {
        self.set.fd()
    }

    /// What was waited for has come. An error before [`Stdio::is_ready`] is the answer to the request.
    pub fn ready(&mut self) -> Result<()> {
        let mut result = Ok(());
        for source in self.set.ready()? {
            match (source, &mut self.console, &mut self.logger) {
                (Source::Console | Source::ConsoleInput | Source::ConsoleOutput, Some(console), _) => {
                    console.relay(&mut self.set)?;
                }
                (Source::Reader, console, _) => {
                    for fifo in &mut self.outputs {
                        fifo.opened(&self.set)?;
                    }
                    for relay in &mut self.relays {
                        relay.opened(&self.set)?;
                    }
                    if let Some(console) = console {
                        console.opened(&self.set)?;
                    }
                }
                (Source::Carried | Source::CarriedTo, ..) => result = result.and(self.carry()),
                (Source::CarrierTells, ..) => {
                    for carrier in &mut self.carriers {
                        result = result.and(carrier.told(&self.set));
                    }
                }
                (Source::CarrierEnd, ..) => {
                    self.carriers.iter_mut().for_each(|carrier| carrier.look_for_end(&self.set));
                }
                (Source::LoggerReady, _, Some(logger)) => logger.told(&self.set)?,
                (Source::LoggerDeadline, _, Some(logger)) => logger.time_is_up(&self.set)?,
                (Source::LoggerEnd, _, Some(logger)) => logger.ended(&self.set),
                // Of a set in which neither is.
                _ => {}
            }
        }
        result
    }

    fn carry(&mut self) -> Result<()> {
        self.relays.iter_mut().map(|relay| relay.carry(&mut self.set)).fold(Ok(()), Result::and)
    }

    /// The runtime's verb can begin.
    pub fn is_ready(&self) -> bool {
        self.logger.as_ref().is_none_or(Logger::is_ready) && self.carriers.iter().all(Carrier::is_ready)
    }

    /// What the runtime gets, once. The descriptors are to be dropped when its verb is done, or nobody
    /// sees the end of the streams.
    pub fn take_given(&mut self) -> Option<Given> {
        self.given.take()
    }

    /// After the runtime's verb: takes the terminal that it has sent. Nothing to do without one.
    pub fn attach(&mut self) -> Result<()> {
        self.console.as_mut().map_or(Ok(()), |console| console.attach(&mut self.set))
    }

    /// Nothing to do without a terminal, as with the stock shim.
    pub fn resize(&self, width: u16, height: u16) -> Result<()> {
        self.console.as_ref().map_or(Ok(()), |console| console.resize(width, height))
    }

    /// When the client has closed its end too, the input ends; a terminal is hung up then.
    pub fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// The process has ended (others of the container may still write): lets go of what the shim holds,
    /// so that readers see the end.
    pub fn process_ended(&mut self) -> Result<()> {
        self.stdin = None;
        let mut result = Ok(());
        for relay in &mut self.relays {
            let ended = relay.process_ended(&mut self.set);
            result = result.and(ended);
        }
        for fifo in &mut self.outputs {
            let released = fifo.release(&mut self.set);
            result = result.and(released);
        }
        let console = self.console.as_mut().map_or(Ok(()), |console| console.process_ended(&mut self.set));
        result.and(console).and(self.carry())
    }

    /// After [`Stdio::process_ended`]: all that the process wrote is where it goes. Only a terminal's
    /// bytes, or a file's, can be on the way.
    pub fn is_drained(&self) -> bool {
        self.console.as_ref().is_none_or(Console::is_drained)
            && self.relays.iter().all(Relay::is_drained)
            && self.carriers.iter().all(Carrier::has_ended)
    }

    /// Lets go of all, drained or not; a logger is asked to end. What is carried to a file goes on until
    /// nobody can write any more: a process that another has left behind keeps its output.
    pub fn close(&mut self) -> Result<()> {
        self.given = None;
        self.stdin = None;
        let carried = self.carry();
        for relay in &mut self.relays {
            relay.close(&mut self.set);
        }
        for mut fifo in self.outputs.drain(..) {
            fifo.close(&self.set);
        }
        if let Some(console) = &mut self.console {
            console.close(&mut self.set);
        }
        self.logger.as_mut().map_or(Ok(()), |logger| logger.end(&mut self.set)).and(carried)
    }

    /// There is a logger, and it has not ended.
    pub fn awaits_logger(&self) -> bool {
        self.logger.as_ref().is_some_and(|logger| !logger.has_ended())
    }

    /// After [`Stdio::close`]: the logger has ended too (dropped before that, it is killed), and nobody
    /// writes to a file any more.
    pub fn is_closed(&self) -> bool {
        !self.awaits_logger() && self.relays.iter().all(Relay::has_ended)
    }
}

/// Whether a security module may judge what a container has open by its label or path: it lets pipes
/// of the runtime's pass, but not a FIFO in a folder of the host's. SELinux has a null device put into
/// its place, AppArmor forbids to open it again (`/dev/stdout`).
fn judges_files() -> bool {
    // A module is there from the boot on or not at all.
    static JUDGES: OnceLock<bool> = OnceLock::new();
    *JUDGES.get_or_init(|| {
        let apparmor = std::fs::read("/sys/module/apparmor/parameters/enabled");
        std::path::Path::new("/sys/fs/selinux/enforce").exists()
            || apparmor.is_ok_and(|enabled| enabled.starts_with(b"Y"))
    })
}

/// An output before it is known who writes to it.
enum Opened {
    Fifo(Fifo, Found),
    /// Not to be given away.
    File(OwnedFd, PathBuf),
    /// Not opened yet, because that may take for ever.
    Elsewhere(PathBuf),
    Other(OwnedFd),
}

fn open_output(target: &Target, owner: Owner) -> Result<Opened> {
    let (path, found) = match target {
        Target::Null | Target::Logger(_) => return file::null().map(Opened::Other),
        Target::Path(path) => (path, Some(Found::at(path)?)),
        // Who says that a FIFO is a file has a FIFO. What is not there is made below, or the error found.
        Target::File(path) => (path, Found::at(path).ok().filter(|found| found.is_fifo)),
    };
    let file = match found {
        Some(found) if found.is_fifo => return Ok(Opened::Fifo(Fifo::open(&found, owner)?, found)),
        Some(found) => found.open(OFlag::O_WRONLY | OFlag::O_APPEND | OFlag::O_NONBLOCK)?,
        None => file::append_to(path)?,
    };
    Ok(Opened::File(file, path.clone()))
}
