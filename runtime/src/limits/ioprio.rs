//! The I/O scheduling class and priority.

use nix::unistd::Pid;

use crate::config::IoPriority;
use crate::error::{Error, Result};
use crate::sys::sched::set_io_priority;

pub fn apply(pid: Pid, IoPriority { class, priority }: IoPriority) -> Result<()> {
    set_io_priority(pid, class, priority).map_err(|errno| {
        Error::sys("set the I/O priority to", format!("class {class}, priority {priority}"), errno)
    })
}
