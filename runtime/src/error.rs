//! The one error of the program. Variants are by who must act; context is added once, where it is
//! known. What to do about it (the hint) is worked out by `cli::hint`, which also knows the host.

use std::fmt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use crate::sys::errno_text;

pub type Result<T> = std::result::Result<T, Error>;

#[derive(Debug)]
pub enum Error {
    /// The caller's words: an option, an id, a number. The text is runc's where engines read it.
    Usage(String),
    /// `config.json` (or a process file) says something that cannot be; all problems at once.
    Config { file: PathBuf, problems: Vec<Problem> },
    /// The container is not in the state that the verb needs (or not there at all).
    State { id: String, why: Lifecycle },
    /// A state file is torn, foreign, or hand-edited.
    Record { path: PathBuf, why: String },
    /// This host cannot do what the configuration asks.
    Host { what: String, why: String },
    /// A system call failed.
    Sys { operation: String, object: String, errno: Errno },
    /// A step of the container's first process failed.
    Step { index: usize, count: usize, what: String, errno: Errno, detail: String },
    /// A cgroup file did not take its value.
    Cgroup { file: PathBuf, value: String, errno: Errno },
    /// A limit whose controller a cgroup above (v2) does not hand down, not at our wish either.
    Controller { controller: String, file: PathBuf, value: String, above: PathBuf, errno: Errno },
    /// A hook failed. `why` has its status or the system's words, and what it printed.
    Hook { kind: &'static str, index: usize, path: String, why: String },
    /// The other process said what it could not say at that point, or went away.
    Protocol(String),
    /// `what: source`, as runc's messages are nested.
    Context { what: String, source: Box<Error> },
    /// A teardown went to its end; these failed.
    Cleanup(Vec<Error>),
}

/// Why a step of the child failed: what the system's number alone does not say. Small enough for
/// the wire between child and parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum StepKind {
    /// The number says it all.
    Errno = 0,
    /// `args[0]` is in no folder of PATH.
    NotInPath,
    /// `/proc` or `/sys` would be mounted through a symbolic link (CVE-2019-19921).
    NotOrdinaryDirectory,
    /// A mount would cover a part of `/proc` that decides what the process may do.
    OverProc,
    /// The working directory is not inside the container's root (CVE-2024-21626).
    CwdOutside,
    /// A node that should be a certain device is something else (CVE-2025-31133).
    WrongDevice,
    /// What was opened as the pty is not one of the container's devpts (CVE-2025-52565).
    NotDevpts,
    /// A hook ended with a status other than 0 (in `value`, as of `wait(2)`).
    HookStatus,
    HookTimeout,
    /// The kernel has no AppArmor profile of this name.
    ProfileNotLoaded,
    /// The parent went away.
    ParentGone,
    /// The parent said something that does not belong here.
    Unexpected,
    /// A cgroup of v1 did not take it (in `value`, which of them).
    NotInCgroup,
}

impl StepKind {
    pub const ALL: [StepKind; 13] = [
        StepKind::Errno,
        StepKind::NotInPath,
        StepKind::NotOrdinaryDirectory,
        StepKind::OverProc,
        StepKind::CwdOutside,
        StepKind::WrongDevice,
        StepKind::NotDevpts,
        StepKind::HookStatus,
        StepKind::HookTimeout,
        StepKind::ProfileNotLoaded,
        StepKind::ParentGone,
        StepKind::Unexpected,
        StepKind::NotInCgroup,
    ];
}

/// A failed step, as the child knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepFailure {
    pub kind: StepKind,
    pub errno: Errno,
    pub value: i32,
}

impl From<Errno> for StepFailure {
    fn from(errno: Errno) -> Self {
        Self { kind: StepKind::Errno, errno, value: 0 }
    }
}

impl StepFailure {
    pub fn new(kind: StepKind, errno: Errno) -> Self {
        Self { kind, errno, value: 0 }
    }
}

/// One problem of a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// RFC 6901, `/linux/seccomp/syscalls/3/args/0/op`; empty for the whole document.
    pub pointer: String,
    /// What is wrong, with the value: `"SCMP_CMP_FOO" is not an operator`.
    pub what: String,
}

/// Why a verb does not fit the container. The words are runc's: engines match them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifecycle {
    DoesNotExist,
    AlreadyExists,
    /// `kill` of a stopped container.
    NotRunning,
    /// `delete` without `--force`; holds the status.
    NotStopped(&'static str),
    StartRunning,
    StartStopped,
    StartPaused,
    ExecStopped,
    ExecPaused,
    /// `resume` of a container that is not paused.
    NotPaused,
    /// `events` of a stopped container.
    NoEvents,
}

impl Error {
    pub fn sys(operation: impl Into<String>, object: impl fmt::Display, errno: Errno) -> Self {
        Error::Sys { operation: operation.into(), object: object.to_string(), errno }
    }

    /// From a call of the standard library on a path.
    pub fn io(operation: impl Into<String>, path: &Path, error: &std::io::Error) -> Self {
        // Only errors that std makes up itself have no number; none of them comes from the calls
        // that we make on paths, and EIO names them honestly if one ever does.
        let errno = error.raw_os_error().map_or(Errno::EIO, Errno::from_raw);
        Error::sys(operation, path.display(), errno)
    }

    pub fn context(self, what: impl Into<String>) -> Self {
        Error::Context { what: what.into(), source: Box::new(self) }
    }

    /// The first error below all context.
    pub fn root(&self) -> &Error {
        match self {
            Error::Context { source, .. } => source.root(),
            other => other,
        }
    }

    /// The system's number below all context, where there is one.
    pub fn errno(&self) -> Option<Errno> {
        match self.root() {
            Error::Sys { errno, .. }
            | Error::Step { errno, .. }
            | Error::Cgroup { errno, .. }
            | Error::Controller { errno, .. } => Some(*errno),
            _ => None,
        }
    }
}

impl std::error::Error for Error {}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Usage(text) | Error::Protocol(text) => f.write_str(text),
            Error::Config { file, problems } => {
                for (i, p) in problems.iter().enumerate() {
                    let sep = if i == 0 { "" } else { "; " };
                    write!(f, "{sep}{}", file.display())?;
                    if !p.pointer.is_empty() {
                        write!(f, " {}", p.pointer)?;
                    }
                    write!(f, ": {}", p.what)?;
                }
                Ok(())
            }
            Error::State { id, why: Lifecycle::NotStopped(status) } => {
                write!(f, "cannot delete container {id} that is not stopped: {status}")
            }
            Error::State { id, why: Lifecycle::NoEvents } => {
                write!(f, "container with id {id} is not running")
            }
            Error::State { why, .. } => why.fmt(f),
            Error::Record { path, why } => write!(f, "state file {}: {why}", path.display()),
            Error::Host { what, why } => write!(f, "{what}: {why}"),
            Error::Sys { operation, object, errno } if object.is_empty() => {
                write!(f, "{operation}: {}", errno_text(*errno))
            }
            Error::Sys { operation, object, errno } => {
                write!(f, "{operation} {object}: {}", errno_text(*errno))
            }
            Error::Step { index, count, what, errno, detail } => {
                write!(f, "{what} (step {index} of {count}): ")?;
                if detail.is_empty() {
                    f.write_str(errno_text(*errno))
                } else {
                    write!(f, "{detail}: {}", errno_text(*errno))
                }
            }
            Error::Cgroup { file, value, errno } => {
                write!(f, "write {value:?} to {}: {}", file.display(), errno_text(*errno))
            }
            Error::Controller { controller, file, value, above, errno } => write!(
                f,
                "write {value:?} to {}: controller {controller} is not available here: {} does not hand it \
                 down: {}",
                file.display(),
                above.display(),
                errno_text(*errno)
            ),
            Error::Hook { kind, index, path, why } => {
                write!(f, "error running {kind} hook #{index}: {path}: {why}")
            }
            Error::Context { what, source } => write!(f, "{what}: {source}"),
            Error::Cleanup(errors) => {
                for (i, e) in errors.iter().enumerate() {
                    let sep = if i == 0 { "" } else { "; " };
                    write!(f, "{sep}{e}")?;
                }
                Ok(())
            }
        }
    }
}

impl fmt::Display for Lifecycle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Lifecycle::DoesNotExist => "container does not exist",
            Lifecycle::AlreadyExists => "container with given ID already exists",
            Lifecycle::NotRunning => "container not running",
            Lifecycle::NotStopped(_) => "container is not stopped",
            Lifecycle::StartRunning => "cannot start an already running container",
            Lifecycle::StartStopped => "cannot start a container that has stopped",
            Lifecycle::StartPaused => "cannot start a container in the paused state",
            Lifecycle::ExecStopped => "cannot exec in a stopped container",
            Lifecycle::NotPaused => "container not paused",
            Lifecycle::NoEvents => "container is not running",
            Lifecycle::ExecPaused => "cannot exec in a paused container (use --ignore-paused to override)",
        })
    }
}
