//! `run`: `create` and `start` in one, and, when attached, what the container's process does is what
//! we do.

use std::os::fd::AsFd;

use nix::unistd::Pid;

use super::birth::{Born, Conception, How, bear, conceive};
use super::checks::check_terminal;
use super::create::unable_to_start;
use super::start::{poststart, release};
use super::{RunRequest, Runtime, delete, pid_file};
use crate::error::{Error, Result};
use crate::process::foreground::Foreground;
use crate::process::notify_socket::NotifySocket;
use crate::sys::signal;

/// The exit code: the container's, or 0 when detached.
pub fn run(runtime: &Runtime, request: &RunRequest) -> Result<u8> {
    let conception = conceive(runtime, &request.create, None)?;
    let terminal = conception.config.process.terminal;
    check_terminal(terminal, request.detach, request.create.console_socket.is_some())?;
    if request.detach {
        detached(runtime, request, conception)
    } else {
        attached(runtime, request, conception)
    }
}

fn detached(runtime: &Runtime, request: &RunRequest, conception: Conception) -> Result<u8> {
    let mask = signal::mask().map_err(|e| Error::sys("sigprocmask", "", e))?;
    let how = How { console: None, mask, start_follows: true };
    let born = bear(runtime, &request.create, conception, how).map_err(unable_to_start)?;
    let begun = begin(runtime, request, born, None).and_then(|(born, notify)| {
        let pid = Pid::from_raw(born.init.pid);
        notify.map_or(Ok(()), |socket| socket.wait_until_ready(pid, born.init.pidfd.as_fd()))
    });
    match begun {
        Ok(()) => Ok(0),
        Err(error) => Err(destroyed(runtime, request, error)),
    }
}

fn attached(runtime: &Runtime, request: &RunRequest, conception: Conception) -> Result<u8> {
    let terminal = conception.config.process.terminal;
    let (mut foreground, console) = Foreground::prepare(terminal, !request.no_subreaper)?;
    let how = How { console, mask: *foreground.original_mask(), start_follows: true };
    let born = bear(runtime, &request.create, conception, how).map_err(unable_to_start)?;
    let ended = begin(runtime, request, born, Some(&mut foreground)).and_then(|(born, notify)| {
        foreground.wait(Pid::from_raw(born.init.pid), born.init.pidfd.as_fd(), notify)
    });
    let code = match ended {
        Ok(code) => code,
        Err(error) => return Err(destroyed(runtime, request, error)),
    };
    if !request.keep {
        delete::delete(runtime, &request.create.id, true)?;
    }
    Ok(code)
}

/// From "created" to "running".
fn begin(
    runtime: &Runtime,
    request: &RunRequest,
    mut born: Born,
    foreground: Option<&mut Foreground>,
) -> Result<(Born, Option<NotifySocket>)> {
    let create = &request.create;
    let notify = match (&born.notify_folder, &create.notify_socket) {
        (Some(folder), Some(manager)) => Some(NotifySocket::bind(folder, manager)?),
        _ => None,
    };
    if let Some(foreground) = foreground {
        foreground.attach()?;
    }
    if let Some(starter) = &mut born.starter {
        release(starter)?;
    }
    if let Some(path) = &create.pid_file {
        pid_file::write(path, born.init.pid)?;
    }
    poststart(runtime, &create.id, &born.config, &create.bundle, born.init.pid)?;
    Ok((born, notify))
}

fn destroyed(runtime: &Runtime, request: &RunRequest, error: Error) -> Error {
    match delete::delete(runtime, &request.create.id, true) {
        Ok(()) => error,
        Err(left) => Error::Cleanup(vec![error, left]),
    }
}
