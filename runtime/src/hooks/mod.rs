//! Hooks: programs of the engine's that run at fixed points of a container's life, with the
//! container's state on their standard input.
//! <https://github.com/opencontainers/runtime-spec/blob/main/config.md#posix-platform-hooks>
//!
//! Those of the runtime's namespaces are run by [`run_all`]; those of the container's are prepared
//! here, before the clone, and run by the container's init with [`apply::run_in_child`].

pub mod apply;

use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::pipe2;

use crate::config::Hook;
use crate::error::{Error, Result};
use crate::sys::errno_text;
use crate::sys::spawn::Argv;

/// How much of each output of a hook is kept for the error message.
const KEPT_OUTPUT: usize = 64 * 1024;

/// The specification's `state`, as compact JSON, in two parts between which the pid belongs: the
/// pid is known only after the clone, and then nothing may be allocated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateJson {
    head: Vec<u8>,
    tail: Vec<u8>,
}

impl StateJson {
    pub fn new(
        oci_version: &str,
        id: &str,
        status: &str,
        bundle: &Path,
        annotations: &BTreeMap<String, String>,
    ) -> Self {
        let [version, id, status, bundle] =
            [oci_version.into(), id.into(), status.into(), bundle.to_string_lossy()]
                .map(|text: std::borrow::Cow<'_, str>| serde_json::Value::from(text).to_string());
        let mut tail = format!(",\"bundle\":{bundle}");
        if !annotations.is_empty() {
            tail.push_str(",\"annotations\":");
            tail.push_str(&serde_json::json!(annotations).to_string());
        }
        tail.push('}');
        let head = format!("{{\"ociVersion\":{version},\"id\":{id},\"status\":{status}");
        Self { head: head.into_bytes(), tail: tail.into_bytes() }
    }

    /// The whole document; no `pid` when it is 0, as for a stopped container.
    pub fn with_pid(&self, pid: u32) -> Vec<u8> {
        let mut digits = PidMember::EMPTY;
        [&self.head, digits.write(pid), &self.tail].concat()
    }

    /// The same without allocation, for the child.
    pub(crate) fn parts<'a>(&'a self, pid: u32, member: &'a mut PidMember) -> [&'a [u8]; 3] {
        [&self.head, member.write(pid), &self.tail]
    }
}

/// Room for `,"pid":4294967295`.
pub(crate) struct PidMember([u8; 17]);

impl PidMember {
    pub(crate) const EMPTY: Self = Self([0; 17]);

    fn write(&mut self, pid: u32) -> &[u8] {
        const NAME: &[u8] = b",\"pid\":";
        if pid == 0 {
            return &[];
        }
        let mut at = self.0.len();
        let mut rest = pid;
        while rest > 0 {
            at -= 1;
            self.0[at] = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        at -= NAME.len();
        self.0[at..at + NAME.len()].copy_from_slice(NAME);
        &self.0[at..]
    }
}

/// A hook with all that `execve` takes.
#[derive(Debug, Clone, PartialEq)]
pub struct Prepared {
    pub path: CString,
    pub argv: Argv,
    pub envp: Argv,
    pub timeout: Option<Duration>,
}

impl Prepared {
    /// `default_env` is for a hook that has no `env`: nothing, as the specification's `environ`
    /// says, but for startContainer the container's own, as runc does.
    pub fn new(hook: &Hook, default_env: &[CString]) -> Self {
        let env = if hook.env.is_empty() { default_env } else { &hook.env };
        Self {
            path: hook.path.clone(),
            argv: Argv::new(hook.args.clone()),
            envp: Argv::new(env.to_vec()),
            timeout: hook.timeout.map(|seconds| Duration::from_secs(seconds.into())),
        }
    }
}

/// A createContainer or startContainer hook, made before the clone.
#[derive(Debug, Clone, PartialEq)]
pub struct ChildHook {
    pub program: Prepared,
    pub state: StateJson,
}

/// Why a hook did not do its work. Small and plain: it also travels from init to the runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HookFailure {
    /// It could not be started (or fed, or waited for).
    Start(Errno),
    Exited(u8),
    Signaled(i32),
    TimedOut,
}

impl HookFailure {
    /// For the wire: a kind and a number.
    pub fn to_code(self) -> (u8, i32) {
        match self {
            HookFailure::Start(errno) => (0, errno as i32),
            HookFailure::Exited(status) => (1, status.into()),
            HookFailure::Signaled(signal) => (2, signal),
            HookFailure::TimedOut => (3, 0),
        }
    }

    pub fn from_code(kind: u8, number: i32) -> Option<Self> {
        Some(match kind {
            0 => HookFailure::Start(Errno::from_raw(number)),
            1 => HookFailure::Exited(u8::try_from(number).ok()?),
            2 => HookFailure::Signaled(number),
            3 => HookFailure::TimedOut,
            _ => return None,
        })
    }

    /// In runc's words, which people look for: `exit status 1, stdout: …, stderr: …`.
    pub fn describe(self, timeout: Option<Duration>, stdout: &[u8], stderr: &[u8]) -> String {
        let what = match self {
            HookFailure::Start(errno) => return format!("fork/exec: {}", errno_text(errno)),
            HookFailure::Exited(status) => format!("exit status {status}"),
            HookFailure::Signaled(signal) => format!("signal {signal}"),
            HookFailure::TimedOut => {
                let seconds = timeout.unwrap_or_default().as_secs();
                format!("hook ran past specified timeout of {seconds}s")
            }
        };
        let [stdout, stderr] = [stdout, stderr].map(|text| String::from_utf8_lossy(text.trim_ascii_end()));
        format!("{what}, stdout: {stdout}, stderr: {stderr}")
    }
}

/// Runs `hooks` in order, in our own namespaces and in `cwd` (the bundle, as with runc); stops at
/// the first that fails.
pub fn run_all(kind: &'static str, hooks: &[Hook], state: &[u8], cwd: &Path) -> Result<()> {
    let cwd = CString::new(cwd.as_os_str().as_bytes())
        .map_err(|_| Error::sys("run hooks in", cwd.display(), Errno::EINVAL))?;
    for (index, hook) in hooks.iter().enumerate() {
        let prepared = Prepared::new(hook, &[]);
        let mut stdout = Vec::new();
        let mut stderr = Vec::new();
        run_one(&prepared, state, &cwd, &mut stdout, &mut stderr).map_err(|failure| Error::Hook {
            kind,
            index,
            path: hook.path.to_string_lossy().into_owned(),
            why: failure.describe(prepared.timeout, &stdout, &stderr),
        })?;
    }
    Ok(())
}

fn run_one(
    hook: &Prepared,
    state: &[u8],
    cwd: &CStr,
    stdout: &mut Vec<u8>,
    stderr: &mut Vec<u8>,
) -> std::result::Result<(), HookFailure> {
    let pipe = || {
        let (reader, writer) = pipe2(OFlag::O_CLOEXEC)?;
        fcntl(&reader, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        Ok((reader, writer))
    };
    let (out_reader, out_writer) = pipe().map_err(HookFailure::Start)?;
    let (err_reader, err_writer) = pipe().map_err(HookFailure::Start)?;
    let mut keep_out = keep(stdout);
    let mut keep_err = keep(stderr);
    let mut drains = [
        apply::Drain { fd: out_reader.as_fd(), take: &mut keep_out },
        apply::Drain { fd: err_reader.as_fd(), take: &mut keep_err },
    ];
    let outputs = [out_writer.as_fd(), err_writer.as_fd()];
    apply::run(hook, Some(cwd), outputs, [state, &[], &[]], &mut drains)
}

/// Keeps the first part of an output, drops the rest.
fn keep(kept: &mut Vec<u8>) -> impl FnMut(&[u8]) {
    |bytes| kept.extend_from_slice(&bytes[..bytes.len().min(KEPT_OUTPUT - kept.len())])
}

#[cfg(test)]
mod tests;
