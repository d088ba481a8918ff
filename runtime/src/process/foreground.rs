//! An attached `run` or `exec`: signals go to the container's process, its terminal is shown on
//! ours, its exit status becomes ours. Only for the command: it takes the process's signals.

use std::fs::File;
use std::io::IsTerminal;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl::{get_child_subreaper, set_child_subreaper};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::sys::termios::{OutputFlags, SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::notify_socket::NotifySocket;
use super::relay::Relay;
use crate::error::{Error, Result};
use crate::sys::scm::recv_with_fds;
use crate::sys::signal;
use crate::sys::tty::{self, standard_streams};

/// From before the clone to the end of the container's process. Puts back what it changed when dropped.
pub struct Foreground {
    signals: SignalFd,
    original_mask: SigSet,
    was_subreaper: Option<bool>,
    /// Where the container's process sends its terminal.
    console: Option<OwnedFd>,
    attached: Option<Attached>,
}

/// The container's terminal on ours.
struct Attached {
    relay: Relay<'static>,
    screen: Option<Screen>,
    _raw: Option<RawMode>,
}

impl Foreground {
    /// Before the clone. With `terminal`, the second is the console socket for the container's
    /// process; the caller drops it after the clone.
    ///
    /// With `subreaper`, orphans of a container without a pid namespace become ours to reap.
    pub fn prepare(terminal: bool, subreaper: bool) -> Result<(Self, Option<OwnedFd>)> {
        let failed = |what: &'static str| move |errno| Error::sys(what, "", errno);
        let (console, theirs) = if terminal {
            let flags = SockFlag::SOCK_CLOEXEC;
            let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::Stream, None, flags)
                .map_err(failed("make a console socket"))?;
            (Some(ours), Some(theirs))
        } else {
            (None, None)
        };
        let taken = taken_signals();
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        let signals = SignalFd::with_flags(&taken, flags).map_err(failed("make a signal descriptor"))?;
        let original_mask = signal::block(&taken).map_err(failed("block signals"))?;
        // From here on the drop puts things back.
        let mut this = Self { signals, original_mask, was_subreaper: None, console, attached: None };
        if subreaper {
            let before = get_child_subreaper().map_err(failed("ask for the subreaper"))?;
            set_child_subreaper(true).map_err(failed("become a subreaper"))?;
            this.was_subreaper = Some(before);
        }
        Ok((this, theirs))
    }

    /// The signals that were blocked before: the container's process must have this mask again.
    pub fn original_mask(&self) -> &SigSet {
        &self.original_mask
    }

    /// Takes the container's terminal; waits until it is sent. Nothing when there is none. To be
    /// called before the container's program runs, so that its first output meets the right modes.
    pub fn attach(&mut self) -> Result<()> {
        let Some(console) = self.console.take() else { return Ok(()) };
        let master = receive_master(&console)?;
        // The end of a line is made by our terminal, and not by the container's too: so output
        // into a file has no carriage returns. As runc does.
        clear_onlcr(&master)
            .map_err(|errno| Error::sys("set the modes of the container's terminal", "", errno))?;
        let screen = Screen::find();
        let raw = match &screen {
            Some(screen) => {
                screen.copy_size(master.as_fd());
                Some(screen.make_raw()?)
            }
            None => None,
        };
        let [input, output, _] = standard_streams();
        let relay = Relay::new(master, input, output)
            .map_err(|errno| Error::sys("relay the container's terminal", "", errno))?;
        self.attached = Some(Attached { relay, screen, _raw: raw });
        Ok(())
    }

    /// Until our child `pid` ends. Gives its exit status, or 128 and the number of the signal.
    pub fn wait(mut self, pid: Pid, pidfd: BorrowedFd<'_>, mut notify: Option<NotifySocket>) -> Result<u8> {
        let mut attached = self.attached.take();
        let mut status = None;
        loop {
            let ready = {
                let mut fds = vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
                // Once reaped, its pidfd would be readable for ever.
                fds.extend(status.is_none().then(|| PollFd::new(pidfd, PollFlags::POLLIN)));
                fds.extend(notify.iter().map(|socket| PollFd::new(socket.as_fd(), PollFlags::POLLIN)));
                let own = fds.len();
                fds.extend(attached.iter().flat_map(|attached| attached.relay.poll_fds()));
                match poll(&mut fds, PollTimeout::NONE) {
                    Ok(_) | Err(Errno::EINTR) => {}
                    Err(errno) => return Err(Error::sys("wait for", pid, errno)),
                }
                attached.as_ref().map(|attached| attached.relay.ready(&fds[own..]))
            };
            if let (Some(attached), Some(ready)) = (&mut attached, &ready) {
                attached.relay.step(ready);
            }
            // A service manager that cannot be reached notices by its own timeout; the container
            // need not end for it.
            if notify.as_ref().is_some_and(|socket| socket.forward(Pid::this()).unwrap_or(true)) {
                notify = None;
            }
            let stop = self.take_signals(pid, status.is_some(), attached.as_ref())?;
            if status.is_none() {
                status = reap(pid)?;
            }
            if let Some(status) = status {
                let over = attached.as_mut().is_none_or(|attached| attached.relay.finish());
                if over || stop {
                    return Ok(status);
                }
            }
        }
    }

    /// Forwards what has come. True: a signal came when there is nobody left to forward it to.
    fn take_signals(&self, pid: Pid, ended: bool, attached: Option<&Attached>) -> Result<bool> {
        let mut stop = false;
        loop {
            let info = match self.signals.read_signal() {
                Ok(Some(info)) => info,
                Ok(None) | Err(Errno::EINTR) => return Ok(stop),
                Err(errno) => return Err(Error::sys("read signals", "", errno)),
            };
            match info.ssi_signo as i32 {
                libc::SIGWINCH => attached.into_iter().for_each(Attached::resize),
                // Children are looked for after every poll. SIGURG is not forwarded by runc, whose
                // own language sends it to itself all the time; nobody relies on it.
                libc::SIGCHLD | libc::SIGURG => {}
                _ if ended => stop = true,
                number => forward(pid, number)?,
            }
        }
    }
}

impl Drop for Foreground {
    fn drop(&mut self) {
        // Errors cannot be handled in a drop, and neither call has one for these arguments.
        if let Some(before) = self.was_subreaper {
            set_child_subreaper(before).ok();
        }
        signal::set_mask(&self.original_mask).ok();
    }
}

/// All that can be forwarded. Not the faults of our own instructions, which come to the thread and
/// not from outside, and not SIGPIPE, which our own output may cause and Rust ignores.
fn taken_signals() -> SigSet {
    let mut set = SigSet::all();
    for signal in [
        Signal::SIGSEGV,
        Signal::SIGBUS,
        Signal::SIGFPE,
        Signal::SIGILL,
        Signal::SIGTRAP,
        Signal::SIGSYS,
        Signal::SIGABRT,
        Signal::SIGPIPE,
    ] {
        set.remove(signal);
    }
    set
}

/// The pid is ours to wait for and not yet reaped, so it is no other process's.
fn forward(pid: Pid, number: i32) -> Result<()> {
    match signal::kill(pid.as_raw(), number) {
        // It has just ended, or a set-user-id program runs there: as runc, we go on.
        Ok(()) | Err(Errno::ESRCH | Errno::EPERM) => Ok(()),
        Err(errno) => Err(Error::sys(format!("send signal {number} to"), pid, errno)),
    }
}

/// Reaps whatever has ended; the status of `pid` if it is among them.
fn reap(pid: Pid) -> Result<Option<u8>> {
    let mut status = None;
    loop {
        // __WALL: a child by CLONE_PARENT may have no exit signal (clone(2)).
        let ended = match waitpid(None, Some(WaitPidFlag::WNOHANG | WaitPidFlag::__WALL)) {
            Ok(WaitStatus::StillAlive) => return Ok(status),
            Err(Errno::ECHILD) if status.is_some() => return Ok(status),
            Err(Errno::EINTR) => continue,
            Ok(ended) => ended,
            Err(errno) => return Err(Error::sys("wait for", pid, errno)),
        };
        match ended {
            WaitStatus::Exited(who, code) if who == pid => status = Some(code as u8),
            WaitStatus::Signaled(who, signal, _) if who == pid => status = Some(128 + signal as u8),
            _ => {}
        }
    }
}

fn receive_master(console: &OwnedFd) -> Result<OwnedFd> {
    let mut slots = [None];
    recv_with_fds(console.as_fd(), &mut [0; 4096], &mut slots)
        .map_err(|errno| Error::sys("receive the container's terminal", "", errno))?;
    let [master] = slots;
    master.ok_or_else(|| Error::Protocol("the container's process sent no terminal".into()))
}

fn clear_onlcr(master: &OwnedFd) -> std::result::Result<(), Errno> {
    let mut modes = tcgetattr(master)?;
    modes.output_flags.remove(OutputFlags::ONLCR);
    tcsetattr(master, SetArg::TCSANOW, &modes)
}

impl Attached {
    fn resize(&self) {
        if let (Some(screen), Some(master)) = (&self.screen, self.relay.master()) {
            screen.copy_size(master);
        }
    }
}

/// Our own terminal.
enum Screen {
    Stream(BorrowedFd<'static>),
    Opened(File),
}

impl Screen {
    /// Streams may be redirected, each alone; failing all, the controlling terminal. `None`: there is none.
    fn find() -> Option<Self> {
        let [input, output, errors] = standard_streams();
        [errors, output, input].into_iter().find(BorrowedFd::is_terminal).map(Screen::Stream).or_else(|| {
            File::options().read(true).write(true).open(Path::new("/dev/tty")).ok().map(Screen::Opened)
        })
    }

    /// It may have gone away (SIGHUP comes then); the size does not matter any more.
    fn copy_size(&self, master: BorrowedFd<'_>) {
        if let Ok((rows, columns)) = tty::size(self.as_fd()) {
            tty::set_size(master, rows, columns).ok();
        }
    }

    /// Every key goes to the container.
    fn make_raw(&self) -> Result<RawMode> {
        let failed = |errno| Error::sys("set the modes of the terminal", "", errno);
        let original = tcgetattr(self).map_err(failed)?;
        let mut raw = original.clone();
        cfmakeraw(&mut raw);
        // It still makes the ends of lines.
        raw.output_flags.insert(OutputFlags::OPOST);
        let terminal =
            self.as_fd().try_clone_to_owned().map_err(|e| Error::io("keep", Path::new("/dev/tty"), &e))?;
        tcsetattr(&terminal, SetArg::TCSANOW, &raw).map_err(failed)?;
        let mode = RawMode { terminal, original };
        mode.restore_on_panic().map_err(failed)?;
        Ok(mode)
    }
}

impl AsFd for Screen {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Screen::Stream(stream) => *stream,
            Screen::Opened(file) => file.as_fd(),
        }
    }
}

/// Our terminal, raw until dropped.
struct RawMode {
    terminal: OwnedFd,
    original: Termios,
}

impl RawMode {
    /// The release build aborts on a panic and drops nothing; a shell in raw mode is unusable.
    fn restore_on_panic(&self) -> std::result::Result<(), Errno> {
        let terminal = self.terminal.try_clone().map_err(|_| Errno::EMFILE)?;
        let original: libc::termios = self.original.clone().into();
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            tcsetattr(&terminal, SetArg::TCSANOW, &original.into()).ok();
            previous(info);
        }));
        Ok(())
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // A terminal that is gone needs no modes.
        tcsetattr(&self.terminal, SetArg::TCSANOW, &self.original).ok();
    }
}
