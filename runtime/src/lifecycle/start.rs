//! `start`: the container's program runs.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::errno::Errno;
use nix::unistd::Pid;

use super::birth::state_of;
use super::status::status;
use super::{Runtime, delete};
use crate::config::Config;
use crate::config::id::ContainerId;
use crate::error::{Error, Lifecycle, Result};
use crate::hooks;
use crate::host::require_system_calls;
use crate::process::notify_socket::NotifySocket;
use crate::state::{Dir, Status};
use crate::sys::pidfd::pidfd_open;
use std::os::fd::AsFd;

/// `notify` is the caller's own `NOTIFY_SOCKET`.
pub fn start(runtime: &Runtime, id: &ContainerId, notify: Option<OsString>) -> Result<()> {
    require_system_calls()?;
    let dir = Dir::open(&runtime.root, id)?;
    let lock = dir.lock()?;
    let record = dir.load()?;
    let refuse = |why| Err(Error::State { id: id.to_string(), why });
    match status(&dir, &record)? {
        Status::Created => {}
        Status::Running => return refuse(Lifecycle::StartRunning),
        Status::Paused => return refuse(Lifecycle::StartPaused),
        Status::Stopped | Status::Creating => return refuse(Lifecycle::StartStopped),
    }
    let Some(init) = record.init else { return refuse(Lifecycle::StartStopped) };
    let folder = dir.path().join("notify");
    let socket = match &notify {
        Some(manager) if folder.is_dir() => Some(NotifySocket::bind(&folder, manager)?),
        _ => None,
    };
    let pidfd = pidfd_open(init.pid).map_err(|e| Error::sys("pidfd_open", init.pid, e))?;
    open_gate(&dir.fifo_path())?;
    drop(lock);
    if record.poststart {
        let config = stored_config(&dir, &record.bundle)?;
        poststart(runtime, id, &config, &record.bundle, init.pid)?;
    }
    match socket {
        Some(socket) => socket.wait_until_ready(Pid::from_raw(init.pid), pidfd.as_fd()),
        None => Ok(()),
    }
}

/// The configuration as it was at `create`, whatever became of the bundle.
pub(super) fn stored_config(dir: &Dir, bundle: &Path) -> Result<Config> {
    Config::load(bundle, Some(&dir.config_path()))
}

/// The container's process reads one byte; the fifo goes, and with it the status "created".
fn open_gate(path: &Path) -> Result<()> {
    let fifo = OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK | libc::O_NOFOLLOW).open(path);
    let mut fifo = match fifo {
        Ok(fifo) => fifo,
        // Nobody reads: the process ended since its status was read.
        Err(e) if e.raw_os_error() == Some(Errno::ENXIO as i32) => {
            return Err(Error::State { id: String::new(), why: Lifecycle::StartStopped });
        }
        Err(e) => return Err(Error::io("open", path, &e)),
    };
    release(&mut fifo)?;
    fs::remove_file(path).map_err(|e| Error::io("remove", path, &e))
}

pub(super) fn release(starter: &mut File) -> Result<()> {
    starter.write_all(b"0").map_err(|e| Error::io("write to", Path::new("exec.fifo"), &e))
}

/// A hook that fails ends the container (config.md, "Poststart"; runc since 1.4).
pub(super) fn poststart(
    runtime: &Runtime,
    id: &ContainerId,
    config: &Config,
    bundle: &Path,
    pid: i32,
) -> Result<()> {
    if config.hooks.poststart.is_empty() {
        return Ok(());
    }
    let state = state_of(id, config, bundle, "running").with_pid(pid.unsigned_abs());
    let ran = hooks::run_all("poststart", &config.hooks.poststart, &state, bundle);
    let Err(error) = ran else { return Ok(()) };
    match delete::end(runtime, id) {
        Ok(()) => Err(error),
        Err(left) => Err(Error::Cleanup(vec![error, left])),
    }
}
