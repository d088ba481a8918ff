//! Running a program and keeping what it said.

use std::fs::File;
use std::io::{Read, Seek};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How a program ended, and its words.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The exit status, or 128 and the signal.
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Outcome {
    /// # Panics
    /// Unless the program ended with 0.
    #[track_caller]
    pub fn ok(self) -> Self {
        assert_eq!(self.code, 0, "{self:?}");
        self
    }
}

/// Runs the command to its end, with no input unless it was given one. Its output goes through files: a pipe would
/// stay open as long as a container that inherited it.
///
/// # Panics
/// When the program cannot be started, or has not ended after a minute: it has hung.
#[track_caller]
pub fn call(command: &mut Command) -> Outcome {
    call_within(Duration::from_secs(60), command)
}

/// As [`call`], for a program that may take longer.
///
/// # Panics
/// When the program cannot be started, or has not ended in time.
#[track_caller]
pub(crate) fn call_within(patience: Duration, command: &mut Command) -> Outcome {
    let mut out = tempfile::tempfile().expect("a file for stdout");
    let mut err = tempfile::tempfile().expect("a file for stderr");
    command.stdout(out.try_clone().expect("dup")).stderr(err.try_clone().expect("dup"));
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => panic!("{command:?}: {error}"),
    };
    // The command keeps copies of what it was given; a pipe's other end waits until they are closed.
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let begun = Instant::now();
    let mut pause = Duration::from_micros(200);
    let status = loop {
        if let Some(status) = child.try_wait().expect("wait") {
            break status;
        }
        if begun.elapsed() > patience {
            child.kill().expect("kill");
            child.wait().expect("wait");
            panic!("{command:?} has not ended after {patience:?}: {}{}", text(&mut out), text(&mut err));
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    };
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    Outcome { code, out: text(&mut out), err: text(&mut err) }
}

fn text(file: &mut File) -> String {
    let mut bytes = Vec::new();
    file.rewind().expect("rewind");
    file.read_to_end(&mut bytes).expect("read");
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Asks again until the answer is `Some`.
///
/// # Panics
/// After 15 seconds.
#[track_caller]
pub fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(begun.elapsed() < Duration::from_secs(15), "not after {:?}: {what}", begun.elapsed());
        std::thread::sleep(Duration::from_millis(20));
    }
}
