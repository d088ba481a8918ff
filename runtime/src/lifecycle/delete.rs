//! `delete`: everything goes that `create` made.

use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::birth::{probe, run_poststop, state_of};
use super::start::stored_config;
use super::status::status;
use super::{Runtime, kill};
use crate::cgroup;
use crate::config::id::ContainerId;
use crate::error::{Error, Lifecycle, Result};
use crate::state::{Dir, Init, Record, Status};
use crate::sys::pidfd::pidfd_open;

/// How long a killed process may take to go, in milliseconds: as runc waits.
const KILL_TIMEOUT: u16 = 10_000;

pub fn delete(runtime: &Runtime, id: &ContainerId, force: bool) -> Result<()> {
    let dir = match Dir::open(&runtime.root, id) {
        Err(Error::State { why: Lifecycle::DoesNotExist, .. }) if force => return Ok(()),
        other => other?,
    };
    let _lock = match dir.lock() {
        Err(Error::State { why: Lifecycle::DoesNotExist, .. }) if force => return Ok(()),
        other => other?,
    };
    let record = match dir.load() {
        Ok(record) => record,
        Err(error) => return without_record(runtime, &dir, force, error),
    };
    match status(&dir, &record)? {
        // In a pid namespace of its own nobody outlives the first process, but somebody of the host may
        // have been put into the cgroup.
        Status::Stopped if force && !record.cgroup.is_empty()? => record.cgroup.kill_all(libc::SIGKILL)?,
        Status::Stopped => {}
        _ if force => end_processes(&record)?,
        Status::Creating => return refuse(id, "creating"),
        Status::Created => end_processes(&record)?,
        Status::Running => return refuse(id, "running"),
        Status::Paused => return refuse(id, "paused"),
    }
    destroy(runtime, id, &dir, &record)
}

fn refuse(id: &ContainerId, status: &'static str) -> Result<()> {
    Err(Error::State { id: id.to_string(), why: Lifecycle::NotStopped(status) })
}

/// Ends a container whose poststart hook failed; it can then be deleted.
pub(super) fn end(runtime: &Runtime, id: &ContainerId) -> Result<()> {
    let dir = Dir::open(&runtime.root, id)?;
    end_processes(&dir.load()?)
}

fn end_processes(record: &Record) -> Result<()> {
    if let Some(init) = record.init {
        match kill::send(init, libc::SIGKILL) {
            Ok(()) | Err(Error::State { .. }) => {}
            Err(error) => return Err(error),
        }
        // What is frozen cannot die, and what shares our pid namespace does not die with its first.
        record.cgroup.kill_all(libc::SIGKILL)?;
        wait_for_end(init)?;
    }
    Ok(())
}

fn wait_for_end(init: Init) -> Result<()> {
    let pidfd = match pidfd_open(init.pid) {
        Ok(pidfd) => pidfd,
        Err(Errno::ESRCH) => return Ok(()),
        Err(errno) => return Err(Error::sys("pidfd_open", init.pid, errno)),
    };
    if !super::status::is_alive(init)? {
        return Ok(());
    }
    let mut fds = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
    loop {
        match poll(&mut fds, PollTimeout::from(KILL_TIMEOUT)) {
            Ok(0) => {
                return Err(Error::Host {
                    what: format!("container init still running {} s after SIGKILL", KILL_TIMEOUT / 1000),
                    why: cgroup::whereabouts(init.pid),
                });
            }
            Err(Errno::EINTR) => {}
            Ok(_) => return Ok(()),
            Err(errno) => return Err(Error::sys("wait for", init.pid, errno)),
        }
    }
}

/// To its end, whatever fails on the way.
fn destroy(runtime: &Runtime, id: &ContainerId, dir: &Dir, record: &Record) -> Result<()> {
    let mut failed = Vec::new();
    let mut warn = |warning| runtime.warn(warning);
    if record.init.is_none() {
        failed.extend(cgroup::remove_unborn(&record.cgroup, &mut warn).err());
    } else {
        if record.shared_pid_namespace {
            if record.cgroup.is_none() {
                runtime.warn(format!("processes of the container may be left: {}", kill::NOT_KNOWN));
            }
            failed.extend(record.cgroup.kill_all(libc::SIGKILL).err());
        }
        failed.extend(cgroup::remove(&record.cgroup, &mut warn).err());
    }
    if !failed.is_empty() {
        // The record stays: with it the next delete can finish what this one could not.
        return Err(Error::Cleanup(failed));
    }
    // Before its first process was written down no hook has run, and the configuration need not be there yet.
    let born = record.init.is_some();
    let config = (born && record.poststop).then(|| stored_config(dir, &record.bundle)).transpose();
    dir.remove()?;
    // After everything is gone (runtime.md, "Lifecycle", step 13); a failure of theirs is a warning. That they were
    // not even known is none: nobody else will run them.
    if let Some(config) = config.map_err(|error| error.context("poststop hooks were not run"))? {
        let state = state_of(id, &config, &record.bundle, "stopped").with_pid(0);
        for error in run_poststop(&config, &state, &record.bundle) {
            runtime.warn(error.to_string());
        }
    }
    Ok(())
}

/// The record is missing or torn. With `--force` what can be known without it is cleaned up: the
/// cgroups are where the configuration puts them, or somebody else's are, so that nobody is killed.
fn without_record(runtime: &Runtime, dir: &Dir, force: bool, error: Error) -> Result<()> {
    let missing = matches!(error, Error::State { .. });
    // What could not be read this time may be whole, and name a process.
    let torn = matches!(error, Error::Record { .. });
    if !(missing || force && torn) {
        return Err(error);
    }
    if dir.config_path().exists() {
        let paths = stored_config(dir, dir.path())
            .and_then(|config| cgroup::plan(dir.id(), &config, &probe(runtime)?, runtime.cgroup_manager))
            .map(|plan| plan.paths());
        match paths {
            Ok(paths) => cgroup::remove_unborn(&paths, &mut |warning| runtime.warn(warning))?,
            Err(why) => runtime.warn(format!("cgroups may be left: {why}")),
        }
    }
    dir.remove()?;
    if force { Ok(()) } else { Err(error) }
}
