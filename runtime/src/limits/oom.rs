//! How much the kernel's out-of-memory killer prefers the process.

use std::fs;
use std::path::PathBuf;

use nix::unistd::Pid;

use crate::error::{Error, Result};

/// Writes even when the value is already there: with `CAP_SYS_RESOURCE` it also becomes the least
/// that the container may choose itself. Without, what stands need not be written: the kernel
/// refuses a value below that least one even if it is the present one.
pub fn apply(pid: Pid, score: i32) -> Result<()> {
    let path = PathBuf::from(format!("/proc/{pid}/oom_score_adj"));
    fs::write(&path, score.to_string()).or_else(|error| {
        if fs::read_to_string(&path).is_ok_and(|present| present.trim_ascii() == score.to_string()) {
            return Ok(());
        }
        Err(Error::io(format!("write {score} to"), &path, &error))
    })
}
