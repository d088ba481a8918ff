//! `kill`: a signal for the container's first process, or for all of them.

use std::os::fd::AsFd;

use nix::errno::Errno;

use super::Runtime;
use super::status::{is_alive, status};
use crate::config::id::ContainerId;
use crate::error::{Error, Lifecycle, Result};
use crate::host::require_system_calls;
use crate::state::{Dir, Init, Record, Status};
use crate::sys::pidfd::{pidfd_open, pidfd_send_signal};

pub fn kill(runtime: &Runtime, id: &ContainerId, signal: i32, all: bool) -> Result<()> {
    require_system_calls()?;
    let dir = Dir::open(&runtime.root, id)?;
    let record = dir.load()?;
    let stopped = status(&dir, &record)? == Status::Stopped;
    let not_running = || Error::State { id: id.to_string(), why: Lifecycle::NotRunning };
    // Until the first process is written down, whoever is in the cgroup may be somebody else's.
    let init = record.init.ok_or_else(not_running)?;
    if all {
        // For a short time all of them stand still: nobody else may take that for a pause, nor have his
        // own pause undone by the end of it. SIGKILL waits for nobody; `pause` looks out for it.
        let _lock = if signal == libc::SIGKILL { None } else { Some(dir.lock()?) };
        // Also of a container whose first process has ended: the others may live on.
        return signal_all(runtime, &record, init, signal);
    }
    if stopped {
        return Err(not_running());
    }
    send(init, signal)?;
    if signal == libc::SIGKILL { reach_all(runtime, &record) } else { Ok(()) }
}

/// Of a container without a cgroup only the first process is known.
pub(super) const NOT_KNOWN: &str =
    "the container was made without a cgroup, and nothing else tells which processes are its own";

/// To all whom its cgroup names; without one to the first process, if the others end with it.
fn signal_all(runtime: &Runtime, record: &Record, init: Init, signal: i32) -> Result<()> {
    if !record.cgroup.is_none() {
        return record.cgroup.kill_all(signal);
    }
    if record.shared_pid_namespace {
        let what = "cannot signal all processes of a container that shares its pid namespace".into();
        return Err(Error::Host { what, why: NOT_KNOWN.into() });
    }
    match send(init, signal) {
        Ok(()) if signal != libc::SIGKILL => {
            runtime.warn(format!("signal {signal} went to the container's first process alone: {NOT_KNOWN}"));
        }
        // It has ended, and the others with it.
        Ok(()) | Err(Error::State { .. }) => {}
        Err(error) => return Err(error),
    }
    Ok(())
}

/// By a descriptor, which cannot become another process between the check and the signal.
pub(super) fn send(init: Init, signal: i32) -> Result<()> {
    let gone = || Error::State { id: String::new(), why: Lifecycle::NotRunning };
    let pidfd = match pidfd_open(init.pid) {
        Ok(pidfd) => pidfd,
        Err(Errno::ESRCH) => return Err(gone()),
        Err(errno) => return Err(Error::sys("pidfd_open", init.pid, errno)),
    };
    if !is_alive(init)? {
        return Err(gone());
    }
    match pidfd_send_signal(pidfd.as_fd(), signal) {
        Ok(()) => Ok(()),
        Err(Errno::ESRCH) => Err(gone()),
        Err(errno) => Err(Error::sys(format!("send signal {signal} to"), init.pid, errno)),
    }
}

/// In a pid namespace of its own the end of the first process is the end of all, by the kernel; in a
/// shared one it is by us. And what is frozen has to be thawed to die.
fn reach_all(runtime: &Runtime, record: &Record) -> Result<()> {
    if record.shared_pid_namespace {
        if record.cgroup.is_none() {
            runtime.warn(format!("only the container's first process was killed: {NOT_KNOWN}"));
        }
        return record.cgroup.kill_all(libc::SIGKILL);
    }
    if record.cgroup.is_frozen()? { record.cgroup.thaw() } else { Ok(()) }
}
