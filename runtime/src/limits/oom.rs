//! How much the kernel's out-of-memory killer prefers the process.

use nix::unistd::Pid;

use crate::error::{Error, Result};
use crate::sys::procfs;

/// Writes even when the value is already there: with `CAP_SYS_RESOURCE` it also becomes the least
/// that the container may choose itself. Without, what stands need not be written: the kernel
/// refuses a value below that least one even if it is the present one.
pub fn apply(pid: Pid, score: i32) -> Result<()> {
    const FILE: &str = "oom_score_adj";
    let text = score.to_string();
    procfs::write_of(pid.as_raw(), FILE, &text).or_else(|errno| {
        if procfs::read_of(pid.as_raw(), FILE).is_ok_and(|present| present.trim_ascii() == text) {
            return Ok(());
        }
        Err(Error::sys(format!("write {text} to"), format!("/proc/{pid}/{FILE}"), errno))
    })
}
