//! Bytes between the container's terminal and our own streams, both ways, in one poll loop.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags};
use nix::unistd::{read, write};

/// What a pipe takes without blocking when poll says that it takes something (`PIPE_BUF`): our
/// streams belong to our caller too, so they cannot be made non-blocking.
const CHUNK: usize = 4096;

/// Read, and not yet written.
struct Buffer {
    bytes: [u8; CHUNK],
    start: usize,
    end: usize,
}

impl Buffer {
    const EMPTY: Self = Self { bytes: [0; CHUNK], start: 0, end: 0 };

    fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Only when empty.
    fn fill(&mut self, from: BorrowedFd<'_>) -> Result<usize, Errno> {
        let count = read(from, &mut self.bytes)?;
        (self.start, self.end) = (0, count);
        Ok(count)
    }

    fn drain(&mut self, to: BorrowedFd<'_>) -> Result<(), Errno> {
        self.start += write(to, &self.bytes[self.start..self.end])?;
        Ok(())
    }
}

pub(super) struct Relay<'a> {
    /// Of the container's terminal, non-blocking. `None` when there is nothing more to relay.
    master: Option<OwnedFd>,
    input: Option<BorrowedFd<'a>>,
    output: BorrowedFd<'a>,
    inward: Buffer,
    outward: Buffer,
    /// The container's process has ended: what is there is still relayed, nothing is waited for.
    closing: bool,
}

/// What poll said of our own streams; the master is simply tried.
#[derive(Default)]
pub(super) struct Ready {
    input: bool,
    output: bool,
}

impl<'a> Relay<'a> {
    pub(super) fn new(master: OwnedFd, input: BorrowedFd<'a>, output: BorrowedFd<'a>) -> Result<Self, Errno> {
        fcntl(&master, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        Ok(Self {
            master: Some(master),
            input: Some(input),
            output,
            inward: Buffer::EMPTY,
            outward: Buffer::EMPTY,
            closing: false,
        })
    }

    pub(super) fn master(&self) -> Option<BorrowedFd<'_>> {
        self.master.as_ref().map(AsFd::as_fd)
    }

    /// The container's process has ended. True when all that it wrote is relayed; otherwise our
    /// own output must first take some more.
    pub(super) fn finish(&mut self) -> bool {
        self.closing = true;
        self.step_master();
        self.master.is_none() && self.outward.is_empty()
    }

    /// What to wait for.
    pub(super) fn poll_fds(&self) -> Vec<PollFd<'_>> {
        let mut fds = Vec::with_capacity(3);
        if !self.outward.is_empty() {
            fds.push(PollFd::new(self.output, PollFlags::POLLOUT));
        }
        let Some(master) = &self.master else { return fds };
        let mut events = PollFlags::empty();
        events.set(PollFlags::POLLIN, self.outward.is_empty());
        events.set(PollFlags::POLLOUT, !self.inward.is_empty());
        // With no event asked for, poll would still report a hang-up, again and again.
        if !events.is_empty() {
            fds.push(PollFd::new(master.as_fd(), events));
        }
        if let Some(input) = self.input.filter(|_| self.inward.is_empty()) {
            fds.push(PollFd::new(input, PollFlags::POLLIN));
        }
        fds
    }

    /// From the same `fds`, after poll.
    pub(super) fn ready(&self, fds: &[PollFd<'_>]) -> Ready {
        use std::os::fd::AsRawFd;
        let mut ready = Ready::default();
        for fd in fds.iter().filter(|fd| fd.any().unwrap_or(false)) {
            let number = fd.as_fd().as_raw_fd();
            let asks_in = fd.events().contains(PollFlags::POLLIN);
            ready.input |= asks_in && self.input.is_some_and(|input| input.as_raw_fd() == number);
            ready.output |= !asks_in && self.output.as_raw_fd() == number;
        }
        ready
    }

    /// Moves what can be moved.
    pub(super) fn step(&mut self, ready: &Ready) {
        if ready.output
            && let Err(errno) = self.outward.drain(self.output)
            && !again(errno)
        {
            // Nobody reads our output any more: the container's terminal hangs up, as with runc.
            self.outward = Buffer::EMPTY;
            self.master = None;
        }
        if ready.input
            && let Some(input) = self.input
        {
            match self.inward.fill(input) {
                Ok(1..) => {}
                Err(errno) if again(errno) => {}
                // The end of our input is not the end of the terminal's: runc sends no ^D either.
                Ok(0) | Err(_) => self.input = None,
            }
        }
        self.step_master();
    }

    fn step_master(&mut self) {
        let Some(master) = &self.master else { return };
        if !self.inward.is_empty()
            && let Err(errno) = self.inward.drain(master.as_fd())
            && !again(errno)
        {
            self.inward = Buffer::EMPTY;
            self.input = None;
        }
        if !self.outward.is_empty() {
            return;
        }
        match self.outward.fill(master.as_fd()) {
            Ok(1..) => {}
            // The kernel has passed on all that was written before it says EAGAIN (n_tty_read).
            Err(errno) if again(errno) && !self.closing => {}
            // EIO: the last process has closed the terminal.
            Ok(0) | Err(_) => self.master = None,
        }
    }
}

fn again(errno: Errno) -> bool {
    matches!(errno, Errno::EAGAIN | Errno::EINTR)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::fcntl::{FcntlArg, FdFlag, fcntl};
    use nix::poll::{PollTimeout, poll};
    use nix::pty::openpty;
    use nix::sys::termios::{SetArg, cfmakeraw, tcgetattr, tcsetattr};
    use std::io::{Read, Write, pipe};

    fn raw_pty() -> (OwnedFd, std::fs::File) {
        let pty = openpty(None, None).unwrap();
        for fd in [&pty.master, &pty.slave] {
            // Whoever another test begins keeps none of it.
            fcntl(fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).unwrap();
        }
        let mut modes = tcgetattr(&pty.slave).unwrap();
        cfmakeraw(&mut modes);
        tcsetattr(&pty.slave, SetArg::TCSANOW, &modes).unwrap();
        (pty.master, pty.slave.into())
    }

    fn turn(relay: &mut Relay<'_>) {
        let ready = {
            let mut fds = relay.poll_fds();
            assert_ne!(poll(&mut fds, PollTimeout::from(5000u16)).unwrap(), 0, "nothing moves");
            relay.ready(&fds)
        };
        relay.step(&ready);
    }

    #[test]
    fn more_than_any_buffer_goes_through_both_ways_in_order() {
        let text: Vec<u8> = (0..200_000u32).map(|n| (n % 251) as u8).collect();
        let (master, slave) = raw_pty();
        let (input, mut feeder) = pipe().unwrap();
        let (taker, output) = pipe().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| feeder.write_all(&text).unwrap());
            // The container echoes.
            scope.spawn(move || {
                let mut slave = slave;
                let mut left = 200_000;
                let mut buffer = [0; 777];
                while left > 0 {
                    let count = slave.read(&mut buffer).unwrap();
                    slave.write_all(&buffer[..count]).unwrap();
                    left -= count;
                }
            });
            let reader = scope.spawn(|| {
                let mut got = vec![0; 200_000];
                (&taker).read_exact(&mut got).unwrap();
                got
            });
            let mut relay = Relay::new(master, input.as_fd(), output.as_fd()).unwrap();
            while relay.master().is_some() {
                turn(&mut relay);
            }
            while !relay.finish() {
                turn(&mut relay);
            }
            assert!(reader.join().unwrap() == text);
        });
    }

    #[test]
    fn what_was_written_before_the_end_is_relayed_though_somebody_holds_the_terminal() {
        let (master, mut slave) = raw_pty();
        let (input, _feeder) = pipe().unwrap();
        let (mut taker, output) = pipe().unwrap();
        slave.write_all(b"last words").unwrap();
        let mut relay = Relay::new(master, input.as_fd(), output.as_fd()).unwrap();
        while !relay.finish() {
            turn(&mut relay);
        }
        let mut text = [0; 32];
        let count = taker.read(&mut text).unwrap();
        assert_eq!(&text[..count], b"last words");
    }

    #[test]
    fn without_a_reader_the_terminal_hangs_up() {
        let (master, mut slave) = raw_pty();
        let (input, _feeder) = pipe().unwrap();
        let (taker, output) = pipe().unwrap();
        drop(taker);
        slave.write_all(b"x").unwrap();
        let mut relay = Relay::new(master, input.as_fd(), output.as_fd()).unwrap();
        while relay.master().is_some() {
            turn(&mut relay);
        }
        assert!(slave.write(b"y").is_err());
    }
}
