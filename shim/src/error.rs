//! What a request can end with. The variant is the status that containerd gets; the text is for people,
//! and where clients look into it, it is the stock shim's.

use std::fmt;

use nix::errno::Errno;

pub type Result<T> = std::result::Result<T, Error>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    NotFound(String),
    AlreadyExists(String),
    /// The container or process is not in the state that the request needs.
    Precondition(String),
    /// The request says something that cannot be.
    Invalid(String),
    Unimplemented(String),
    /// The runtime, or what it works on, failed; only its words say how.
    Unknown(String),
    /// A system call of the shim failed.
    Sys {
        operation: String,
        object: String,
        errno: Errno,
    },
}

/// gRPC's numbers, which ttrpc uses too (google.rpc.Code).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Code {
    Unknown = 2,
    InvalidArgument = 3,
    NotFound = 5,
    AlreadyExists = 6,
    FailedPrecondition = 9,
    Unimplemented = 12,
}

impl Error {
    pub fn invalid(text: impl Into<String>) -> Self {
        Error::Invalid(text.into())
    }

    pub fn failed(text: impl Into<String>) -> Self {
        Error::Unknown(text.into())
    }

    pub fn sys(operation: impl Into<String>, object: impl fmt::Display, errno: Errno) -> Self {
        Error::Sys { operation: operation.into(), object: object.to_string(), errno }
    }

    /// From a call of the standard library on a path.
    pub fn io(operation: impl Into<String>, path: &std::path::Path, error: &std::io::Error) -> Self {
        let errno = error.raw_os_error().map_or(Errno::EIO, Errno::from_raw);
        Error::sys(operation, path.display(), errno)
    }

    /// `what: text`, of the same kind; without `what` as it is.
    pub fn context(self, what: &str) -> Self {
        if what.is_empty() {
            return self;
        }
        let (code, text) = (self.code(), self.text());
        Error::of(code, format!("{what}: {text}"))
    }

    /// What another process said.
    pub fn of(code: Code, text: String) -> Self {
        match code {
            Code::Unknown => Error::Unknown(text),
            Code::InvalidArgument => Error::Invalid(text),
            Code::NotFound => Error::NotFound(text),
            Code::AlreadyExists => Error::AlreadyExists(text),
            Code::FailedPrecondition => Error::Precondition(text),
            Code::Unimplemented => Error::Unimplemented(text),
        }
    }

    pub fn code(&self) -> Code {
        match self {
            Error::NotFound(_) => Code::NotFound,
            Error::AlreadyExists(_) => Code::AlreadyExists,
            Error::Precondition(_) => Code::FailedPrecondition,
            Error::Invalid(_) => Code::InvalidArgument,
            Error::Unimplemented(_) => Code::Unimplemented,
            Error::Unknown(_) | Error::Sys { .. } => Code::Unknown,
        }
    }

    /// Without the words for its kind.
    pub fn text(&self) -> String {
        match self {
            Error::NotFound(text)
            | Error::AlreadyExists(text)
            | Error::Precondition(text)
            | Error::Invalid(text)
            | Error::Unimplemented(text)
            | Error::Unknown(text) => text.clone(),
            Error::Sys { operation, object, errno } if object.is_empty() => {
                format!("{operation}: {}", tare::sys::errno_text(*errno))
            }
            Error::Sys { operation, object, errno } => {
                format!("{operation} {object}: {}", tare::sys::errno_text(*errno))
            }
        }
    }
}

impl Code {
    pub fn from_byte(byte: u8) -> Option<Self> {
        [
            Code::Unknown,
            Code::InvalidArgument,
            Code::NotFound,
            Code::AlreadyExists,
            Code::FailedPrecondition,
            Code::Unimplemented,
        ]
        .into_iter()
        .find(|code| *code as u8 == byte)
    }

    /// What containerd's errdefs call it: the stock shim's messages end in it, and clients that have only the text look for it.
    fn words(self) -> &'static str {
        match self {
            Code::Unknown => "",
            Code::InvalidArgument => ": invalid argument",
            Code::NotFound => ": not found",
            Code::AlreadyExists => ": already exists",
            Code::FailedPrecondition => ": failed precondition",
            Code::Unimplemented => ": not implemented",
        }
    }
}

/// As it goes over the wire.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.text(), self.code().words())
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_find_the_words_that_they_match() {
        for (error, code, text) in [
            (Error::NotFound("process already finished".into()), 5, "process already finished: not found"),
            (Error::AlreadyExists("id e1".into()), 6, "id e1: already exists"),
            (
                Error::Precondition("process not created".into()),
                9,
                "process not created: failed precondition",
            ),
            (Error::Unimplemented("no checkpoint".into()), 12, "no checkpoint: not implemented"),
            (Error::Unknown("exec: \"x\": gone".into()), 2, "exec: \"x\": gone"),
            (Error::sys("open", "/x", Errno::ENOENT), 2, "open /x: no such file or directory"),
            (Error::sys("fork", "", Errno::EAGAIN), 2, "fork: resource temporarily unavailable"),
        ] {
            assert_eq!((error.code() as u8, error.to_string()), (code, text.to_owned()));
            assert_eq!(Code::from_byte(code), Some(error.code()));
        }
    }

    #[test]
    fn context_keeps_the_kind() {
        let error = Error::NotFound("no such container".into()).context("OCI runtime kill failed");
        assert_eq!(error.to_string(), "OCI runtime kill failed: no such container: not found");
        assert_eq!(error.code(), Code::NotFound);
        assert_eq!(Error::failed("x").context(""), Error::failed("x"));
    }
}
