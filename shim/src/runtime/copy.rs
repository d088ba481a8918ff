//! A verb that may wait is done by a forked copy of the shim (fork, no exec), which answers over a pipe
//! while the loop goes on.
//!
//! The copy lets go of all that is the shim's, does the one thing and ends; it never returns into the
//! loop. What it bears is reaped by the shim, which hears of a pid before the process is let go.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::path::Path;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{Pid, dup2_stderr, dup2_stdin, dup2_stdout, getppid, pipe2};
use tare::sys::clone::{Clone, clone3, exit_now};

use super::{Given, Job, News, Target, Work};
use crate::error::{Code, Error, Result};

/// The way back into the shim.
pub(super) struct Tell(File);

impl Tell {
    /// A process is there, and waits to be let go.
    pub(super) fn born(&self, pid: i32) -> std::io::Result<()> {
        self.say(&News::Born(pid))
    }

    fn say(&self, news: &News) -> std::io::Result<()> {
        (&self.0).write_all(&message(news))
    }
}

/// What the copy does; the answer is the pid of the new process, where there is one that the shim was
/// not told of.
pub(super) type Act = fn(&Target, Work, Tell) -> (Tell, Result<Option<i32>>);

/// Forks. Returns in the shim alone.
pub(super) fn begin(target: &Target, work: Work, act: Act) -> Result<Box<dyn Job>> {
    let (answers, tell) = pipe2(OFlag::O_CLOEXEC).map_err(|e| Error::sys("pipe2", "", e))?;
    fcntl(&answers, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map_err(|e| Error::sys("fcntl", "", e))?;
    let shim = Pid::this();
    match clone3(0, None).map_err(|e| Error::sys("clone3", "", e))? {
        Clone::Child(_) => live(shim, target, work, tell, act),
        Clone::Parent { .. } => Ok(Box::new(Copy { answers: answers.into(), heard: Vec::new() })),
    }
}

/// The shim's end of the pipe.
struct Copy {
    answers: File,
    heard: Vec<u8>,
}

impl Job for Copy {
    fn fd(&self) -> BorrowedFd<'_> {
        self.answers.as_fd()
    }

    fn news(&mut self) -> Option<News> {
        loop {
            if let Some((news, len)) = parse(&self.heard) {
                self.heard.drain(..len);
                return Some(news);
            }
            let mut buffer = [0; 512];
            match self.answers.read(&mut buffer) {
                Ok(0) => {
                    let why = "the forked copy of the shim ended without an answer: was it killed?";
                    return Some(News::Lost(Error::Unknown(why.into())));
                }
                Ok(count) => self.heard.extend_from_slice(&buffer[..count]),
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => return None,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => {
                    return Some(News::Lost(Error::io("read", Path::new("the answer of a verb"), &e)));
                }
            }
        }
    }
}

const BORN: u8 = 1;
const DONE: u8 = 2;
const FAILED: u8 = 3;

/// The first message, and its length: a tag; a number of four bytes; of a failure the code and the text.
fn parse(bytes: &[u8]) -> Option<(News, usize)> {
    let (tag, rest) = bytes.split_first()?;
    let number = i32::from_le_bytes(*rest.first_chunk()?);
    match *tag {
        BORN => Some((News::Born(number), 5)),
        DONE => Some((News::Done(Ok((number != 0).then_some(number))), 5)),
        _ => {
            let len = usize::try_from(number).ok()?;
            let (code, text) = rest.get(4..4 + 1 + len)?.split_first()?;
            let code = Code::from_byte(*code).unwrap_or(Code::Unknown);
            let text = String::from_utf8_lossy(text).into_owned();
            Some((News::Done(Err(Error::of(code, text))), 5 + 1 + len))
        }
    }
}

fn message(news: &News) -> Vec<u8> {
    let (tag, number, rest) = match news {
        News::Born(pid) => (BORN, *pid, Vec::new()),
        News::Done(Ok(pid)) => (DONE, pid.unwrap_or(0), Vec::new()),
        News::Done(Err(error)) | News::Lost(error) => {
            let text = error.text();
            let rest = [&[error.code() as u8], text.as_bytes()].concat();
            (FAILED, i32::try_from(text.len()).unwrap_or(0), rest)
        }
    };
    [&[tag], number.to_le_bytes().as_slice(), &rest].concat()
}

/// The copy's whole life.
fn live(shim: Pid, target: &Target, work: Work, tell: OwnedFd, act: Act) -> ! {
    let failure = work.failure();
    let tell = Tell(File::from(tell));
    let (tell, done) = match settle(shim, &work, tell.0.as_raw_fd()) {
        Ok(()) => act(target, work, tell),
        Err(error) => (tell, Err(error)),
    };
    // When the shim is not there any more, nobody is.
    let told = tell.say(&News::Done(done.map_err(|error| error.context(failure))));
    exit_now(i32::from(told.is_err()))
}

/// From the shim's world into that of a command which somebody has called: signals as at first,
/// its own three streams, and nothing else open but the way back.
fn settle(shim: Pid, work: &Work, tell: RawFd) -> Result<()> {
    let failed = |what: &'static str| move |errno| Error::sys(what, "", errno);
    // Without the shim nobody would know of the container; what is cloned from here does not inherit it.
    set_pdeathsig(Signal::SIGKILL).map_err(failed("prctl"))?;
    if getppid() != shim {
        exit_now(1);
    }
    SigSet::empty().thread_set_mask().map_err(failed("sigprocmask"))?;
    // A number alone: it is closed below with all others.
    let null: RawFd;
    let [stdin, stdout, stderr] = match work {
        Work::Create { given: Given::Streams(streams), .. }
        | Work::Exec { given: Given::Streams(streams), .. } => streams.each_ref().map(AsFd::as_fd),
        _ => {
            let path = Path::new("/dev/null");
            let open = File::options().read(true).write(true).open(path);
            null = open.map_err(|e| Error::io("open", path, &e))?.into_raw_fd();
            [tare::sys::fd::borrow(&null); 3]
        }
    };
    dup2_stdin(stdin).map_err(failed("dup2"))?;
    dup2_stdout(stdout).map_err(failed("dup2"))?;
    dup2_stderr(stderr).map_err(failed("dup2"))?;
    // Other containers' fifos and sockets: who reads them must not wait for us. Nothing here is ever
    // dropped, so no number is closed a second time.
    let below = tell - 1;
    if below >= 3 {
        tare::sys::fd::close_range(3, below).map_err(failed("close_range"))?;
    }
    tare::sys::fd::close_range(tell + 1, RawFd::MAX).map_err(failed("close_range"))?;
    // Now that no number is above it.
    crate::files::restore_limit().map_err(failed("setrlimit"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_comes_out_as_it_went_in_and_no_part_of_it_is_one() {
        let all = [
            News::Born(7),
            News::Done(Ok(None)),
            News::Done(Ok(Some(1 << 22))),
            News::Done(Err(Error::AlreadyExists("container with given ID already exists".into()))),
            News::Done(Err(Error::Unknown(String::new()))),
        ];
        for news in all {
            let bytes = message(&news);
            for end in 0..bytes.len() {
                assert_eq!(parse(&bytes[..end]), None, "{news:?} cut at {end}");
            }
            let followed = [bytes.as_slice(), &[BORN, 9]].concat();
            assert_eq!(parse(&followed), Some((news, bytes.len())));
        }
    }
}

#[cfg(test)]
mod fuzz {
    use super::*;

    #[test]
    fn news() {
        let error = Error::AlreadyExists("container with given ID already exists".into());
        let seeds = [News::Born(7), News::Done(Ok(None)), News::Done(Ok(Some(9))), News::Done(Err(error))];
        ::fuzz::target("copy-news").seeds(seeds.map(|news| message(&news))).rounds(20_000).run(|bytes| {
            let Some((news, length)) = parse(bytes) else { return false };
            assert!((5..=bytes.len()).contains(&length));
            assert_eq!(parse(&bytes[..length]), Some((news, length)), "what follows does not count");
            assert_eq!(parse(&bytes[..length - 1]), None);
            true
        });
    }
}
