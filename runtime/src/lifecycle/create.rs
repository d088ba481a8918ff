//! `create`: from a bundle to a process that waits for `start`.

use super::birth::{How, bear, conceive};
use super::checks::check_terminal;
use super::{CreateRequest, Runtime, delete, pid_file};
use crate::error::{Error, Result};
use crate::sys::signal;

pub fn create(runtime: &Runtime, request: &CreateRequest) -> Result<()> {
    let mask = signal::mask().map_err(|e| Error::sys("sigprocmask", "", e))?;
    let conception = conceive(runtime, request, None)?;
    check_terminal(conception.config.process.terminal, true, request.console_socket.is_some())?;
    let how = How { console: None, mask, start_follows: false };
    let born = bear(runtime, request, conception, how).map_err(unable_to_start)?;
    if let Some(path) = &request.pid_file
        && let Err(error) = pid_file::write(path, born.init.pid)
    {
        // Nobody would know of it.
        if let Err(left) = delete::delete(runtime, &request.id, true) {
            return Err(Error::Cleanup(vec![error, left]));
        }
        return Err(error);
    }
    Ok(())
}

/// runc's words where the failure is one of the container's process; what is wrong with the request
/// or its configuration stands alone.
pub(super) fn unable_to_start(error: Error) -> Error {
    match error.root() {
        Error::Usage(_) | Error::Config { .. } | Error::State { .. } | Error::Record { .. } => error,
        _ => error.context("unable to start container process"),
    }
}
