//! One call of the runtime: bounded in time, its output in files.

use std::fs::File;
use std::io::{ErrorKind, Seek, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::Value;

use crate::runtime::{Flavor, under_test};

/// How long any single call may take. Every runtime needs well below a second for each of them, but one that waits for
/// a kernel, for systemd or for a parent that reaps late has ten seconds of patience and more, and then says why.
pub const LIMIT: Duration = Duration::from_secs(40);

/// What a finished call left.
#[derive(Debug, Clone)]
pub struct Output {
    /// The command line, for messages.
    pub line: String,
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
    pub elapsed: Duration,
}

impl Output {
    /// The exit code; 128 + n when signal n ended the caller itself.
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or_else(|| 128 + self.status.signal().unwrap_or(0))
    }

    /// Asserts exit code 0.
    #[track_caller]
    pub fn ok(self) -> Self {
        assert!(self.status.success(), "expected success: {self:#?}");
        self
    }

    /// Asserts success without one byte on either stream: engines read both together.
    #[track_caller]
    pub fn silent(self) -> Self {
        let mut out = self.ok();
        if under_test().flavor == Flavor::Youki {
            // Where there is no syslog it says so at each call.
            let said = out.stderr.lines().filter(|line| !line.starts_with("failed to initialize syslog"));
            out.stderr = said.collect();
        }
        assert!(out.stdout.is_empty() && out.stderr.is_empty(), "expected silence: {out:#?}");
        out
    }

    /// Asserts an error: this exit code, and something said on stderr.
    #[track_caller]
    pub fn fails(self, code: i32) -> Self {
        assert_eq!(self.code(), code, "exit code of {self:#?}");
        assert!(!self.stderr.trim().is_empty(), "a failure must be explained: {self:#?}");
        self
    }

    /// Asserts an error of any exit code, with its reason on stderr.
    #[track_caller]
    pub fn refused(self) -> Self {
        assert!(!self.status.success(), "expected an error: {self:#?}");
        assert!(!self.stderr.trim().is_empty(), "a failure must be explained: {self:#?}");
        self
    }

    /// Asserts that stderr contains the text, as the engine does that looks for it.
    #[track_caller]
    pub fn says(self, text: &str) -> Self {
        assert!(self.stderr.contains(text), "no {text:?} on stderr of {self:#?}");
        self
    }

    /// The whole of stdout as one JSON document.
    #[track_caller]
    pub fn json(&self) -> Value {
        match serde_json::from_str(&self.stdout) {
            Ok(value) => value,
            Err(error) => panic!("stdout is not JSON ({error}): {self:#?}"),
        }
    }

    /// Stdout as one JSON document for each line: what the probe's `try` verbs print.
    #[track_caller]
    pub fn json_lines(&self) -> Vec<Value> {
        let parse = |line: &str| match serde_json::from_str(line) {
            Ok(value) => value,
            Err(error) => panic!("{line:?} is not JSON ({error}): {self:#?}"),
        };
        self.stdout.lines().map(parse).collect()
    }
}

/// A call under way.
///
/// Its output goes to files and not to pipes: a container inherits them, and a reader of a pipe would wait for
/// the container's end instead of the call's.
#[derive(Debug)]
pub struct Running {
    line: String,
    child: Child,
    stdout: File,
    stderr: File,
    started: Instant,
    finished: bool,
}

impl Running {
    /// Starts `command` in a process group of its own, with `stdin` to read.
    pub fn spawn(mut command: Command, stdin: &[u8]) -> Self {
        let line = format!("{command:?}");
        let mut input = file();
        input.write_all(stdin).expect("stdin");
        input.rewind().expect("stdin");
        let (stdout, stderr) = (file(), file());
        command
            .stdin(Stdio::from(input))
            .stdout(Stdio::from(stdout.try_clone().expect("dup")))
            .stderr(Stdio::from(stderr.try_clone().expect("dup")))
            .process_group(0);
        let started = Instant::now();
        let child = loop {
            match command.spawn() {
                Ok(child) => break child,
                // A file that a test has just written: whoever another test begins holds it open until it executes.
                Err(error) if error.kind() == ErrorKind::ExecutableFileBusy && started.elapsed() < LIMIT => {
                    std::thread::sleep(Duration::from_millis(2));
                }
                Err(error) => panic!("{line}: {error}"),
            }
        };
        Running { line, child, stdout, stderr, started, finished: false }
    }

    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("a pid")
    }

    /// What is on stdout up to now; after the call ended, still what a detached container writes there.
    pub fn stdout(&self) -> String {
        contents(&self.stdout)
    }

    pub fn stderr(&self) -> String {
        contents(&self.stderr)
    }

    pub fn signal(&self, signal: Signal) {
        nix::sys::signal::kill(Pid::from_raw(self.pid()), signal).expect("signal the runtime");
    }

    /// Waits for the end of the call, not of a container that it may have left.
    ///
    /// # Panics
    /// After [`LIMIT`], when it has killed the process group.
    #[track_caller]
    pub fn wait(&mut self) -> Output {
        match self.wait_or_kill() {
            Ok(output) => output,
            Err(late) => panic!("{late}"),
        }
    }

    /// The same for who must not panic.
    ///
    /// # Errors
    /// What there is to say of a call that did not come back.
    pub(crate) fn wait_or_kill(&mut self) -> Result<Output, String> {
        let begin = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("wait for the runtime") {
                break status;
            }
            if begin.elapsed() > LIMIT {
                self.end();
                let (line, stdout, stderr) = (&self.line, self.stdout(), self.stderr());
                return Err(format!("not back after {LIMIT:?}: {line}\nstdout: {stdout}\nstderr: {stderr}"));
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        self.finished = true;
        Ok(Output {
            line: self.line.clone(),
            status,
            stdout: self.stdout(),
            stderr: self.stderr(),
            elapsed: self.started.elapsed(),
        })
    }

    fn end(&mut self) {
        // ESRCH: it ended by itself meanwhile; the wait below tells.
        killpg(Pid::from_raw(self.pid()), Signal::SIGKILL).ok();
        self.child.wait().expect("reap the runtime");
        self.finished = true;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.finished {
            self.end();
        }
    }
}

/// Runs `command` to its end.
#[track_caller]
pub fn call(command: Command) -> Output {
    Running::spawn(command, b"").wait()
}

/// The command behind a few words of shell, for example `exec "$@" 3</etc/hostname`: descriptors, ignored signals
/// and limits that std cannot give to a child.
pub fn through_shell(command: &Command, script: &str) -> Command {
    let mut shell = Command::new("/bin/sh");
    shell.arg("-c").arg(script).arg("sh").arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    if let Some(dir) = command.get_current_dir() {
        shell.current_dir(dir);
    }
    shell
}

/// Polls until `done`, or panics with `what` after [`LIMIT`].
#[track_caller]
pub fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed() < LIMIT, "{what}: not within {LIMIT:?}");
        std::thread::sleep(Duration::from_millis(3));
    }
}

fn file() -> File {
    tempfile::tempfile().expect("a temporary file")
}

/// Reads from the start without moving the position, which the writer shares.
pub fn contents(file: &File) -> String {
    use std::os::unix::fs::FileExt;
    let length = file.metadata().expect("stat").len();
    let mut bytes = vec![0; usize::try_from(length).expect("a small file")];
    file.read_exact_at(&mut bytes, 0).expect("read");
    String::from_utf8_lossy(&bytes).into_owned()
}
