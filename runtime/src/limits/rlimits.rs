//! Resource limits of `getrlimit(2)`.

use nix::unistd::Pid;

use crate::config::Rlimit;
use crate::error::{Error, Result};
use crate::sys::sched::set_rlimit;

pub fn apply(pid: Pid, limit: &Rlimit) -> Result<()> {
    set_rlimit(pid, limit.resource, limit.soft, limit.hard).map_err(|errno| {
        let Rlimit { name, soft, hard, .. } = limit;
        Error::sys("set", format!("{name} to soft {}, hard {}", Bound(*soft), Bound(*hard)), errno)
    })
}

/// `RLIM_INFINITY` by its name.
struct Bound(u64);

impl std::fmt::Display for Bound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            u64::MAX => f.write_str("unlimited"),
            number => number.fmt(f),
        }
    }
}
