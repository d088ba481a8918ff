//! What the shim asks of a runtime. A verb that may wait is a [`Job`]: the loop goes on meanwhile.

pub mod command;
mod copy;
pub mod linked;

use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tare::cgroup::Paths;

use crate::error::{Error, Result};

/// The container that a verb is for, and how its runtime is to be called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub id: String,
    pub bundle: String,
    /// Where the runtime keeps its state: see [`state_root`].
    pub root: PathBuf,
    /// `binary_name`; `None`: the runtime that is linked into the shim.
    pub binary: Option<PathBuf>,
    pub systemd_cgroup: bool,
    pub no_pivot_root: bool,
    pub no_new_keyring: bool,
    pub io_uid: u32,
    pub io_gid: u32,
}

/// Where the state of containers is kept: tools and scripts know the stock shim's place.
pub fn state_root(option: &str, namespace: &str) -> PathBuf {
    let root = if option.is_empty() { "/run/containerd/runc" } else { option };
    Path::new(root).join(namespace)
}

/// `None` when `binary_name` asks for tare: the shim has it in itself.
pub fn other_binary(binary_name: &str) -> Option<PathBuf> {
    let path = PathBuf::from(binary_name);
    let tare = path.file_name().is_none_or(|name| name == "tare");
    (!tare).then_some(path)
}

pub use crate::io::Given;
pub use crate::mount::Mount;

/// A verb that may wait: for hooks, for systemd, for a slow mount, for a process to end.
#[derive(Debug)]
pub enum Work {
    Create {
        rootfs: Vec<Mount>,
        given: Given,
    },
    Start,
    Exec {
        exec_id: String,
        spec: Vec<u8>,
        terminal: bool,
        given: Given,
    },
    Pause,
    Resume,
    /// `LinuxResources`, JSON.
    Update(Vec<u8>),
    /// `all`: to every process of the container, not to the first alone.
    Kill {
        signal: i32,
        all: bool,
    },
    /// The first process of the container has ended: nobody in it may outlive it, and nobody in it may
    /// stay frozen, for then it could not end.
    EndRest,
    Delete,
    /// By force, of a container that came to nothing: whatever there is of it.
    TakeBack,
}

impl Work {
    /// What puts right what is left of it when whoever did it was killed.
    pub fn undone_by(&self) -> Option<Work> {
        match self {
            Work::Create { .. } => Some(Work::TakeBack),
            // What stands still and counts as running nobody could resume.
            Work::Pause => Some(Work::Resume),
            _ => None,
        }
    }

    /// What the stock shim says before the runtime's own words; of a signal nothing: clients compare all of it.
    fn failure(&self) -> &'static str {
        match self {
            Work::Create { .. } => "OCI runtime create failed",
            Work::Start => "OCI runtime start failed",
            Work::Exec { .. } => "OCI runtime exec failed",
            Work::Pause => "OCI runtime pause failed",
            Work::Resume => "OCI runtime resume failed",
            Work::Update(_) => "OCI runtime update failed",
            Work::Kill { .. } => "",
            Work::EndRest => "OCI runtime killall failed",
            Work::Delete => "failed to delete task",
            Work::TakeBack => "something of it is left",
        }
    }
}

pub trait Runtime {
    fn begin(&self, target: &Target, work: Work) -> Result<Begun>;

    /// Where a container that was created has its cgroups.
    fn cgroup(&self, target: &Target, init: i32) -> Result<Paths>;
}

/// A verb that was given to a runtime.
pub enum Begun {
    /// It did not have to wait.
    Done,
    Job(Box<dyn Job>),
}

/// What is heard of a verb.
#[derive(Debug, PartialEq, Eq)]
pub enum News {
    /// A process was born, and will not run before the loop could hear of it.
    Born(i32),
    /// With the pid of the new process, where there is one.
    Done(Result<Option<i32>>),
    /// It ended without an answer: whatever it had begun is as it was left.
    Lost(Error),
}

/// A verb at work.
pub trait Job {
    /// Readable when there is news.
    fn fd(&self) -> BorrowedFd<'_>;

    /// `None` when there is none for now. After [`News::Done`] or [`News::Lost`] there is no more.
    fn news(&mut self) -> Option<News>;
}

/// The words that clients match, from what the runtime has said of a `kill`.
fn kill_error(error: Error) -> Error {
    match error {
        Error::NotFound(_) => Error::NotFound("no such container".into()),
        Error::Precondition(_) => Error::NotFound("process already finished".into()),
        other => other.context("unknown error after kill"),
    }
}

/// The request says whether there is a terminal, whatever the document does.
fn with_terminal(spec: &[u8], terminal: bool) -> Result<Vec<u8>> {
    let wrong = |e: serde_json::Error| Error::invalid(format!("process document: {e}"));
    let mut document: Value = serde_json::from_slice(spec).map_err(wrong)?;
    match &mut document {
        Value::Object(members) => members.insert("terminal".into(), terminal.into()),
        _ => return Err(Error::invalid("process document: it is not an object")),
    };
    serde_json::to_vec(&document).map_err(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;

    #[test]
    fn the_state_is_where_the_stock_shim_has_it() {
        assert_eq!(state_root("", "k8s.io"), Path::new("/run/containerd/runc/k8s.io"));
        assert_eq!(
            state_root("/run/docker/runtime-runc", "moby"),
            Path::new("/run/docker/runtime-runc/moby")
        );
    }

    #[test]
    fn tare_is_never_executed_by_its_own_shim() {
        for (name, other) in [
            ("", None),
            ("tare", None),
            ("/usr/local/sbin/tare", None),
            ("runc", Some("runc")),
            ("/usr/bin/crun", Some("/usr/bin/crun")),
        ] {
            assert_eq!(other_binary(name), other.map(PathBuf::from), "{name:?}");
        }
    }

    #[test]
    fn the_request_decides_on_the_terminal() {
        for (spec, terminal, expected) in [
            (r#"{"args":["sh"],"terminal":true}"#, false, r#"{"args":["sh"],"terminal":false}"#),
            (r#"{"args":["sh"]}"#, true, r#"{"args":["sh"],"terminal":true}"#),
        ] {
            let made = with_terminal(spec.as_bytes(), terminal).expect("a document");
            assert_eq!(String::from_utf8(made).expect("text"), expected);
        }
        assert_eq!(with_terminal(b"[]", true).expect_err("refused").code(), Code::InvalidArgument);
        assert_eq!(with_terminal(b"{", true).expect_err("refused").code(), Code::InvalidArgument);
    }
}
