//! Control groups: where a container's processes are counted, limited, frozen and killed.
//!
//! `plan` is pure; `create` carries a plan out before the process is there, so that it is born with
//! its limits. Everything later needs only [`Paths`], which the container's state keeps.
//!
//! ```no_run
//! # use tare::{cgroup::{self, Driver}, config::{Config, id::ContainerId}, error::Result, host::Facts, undo::Undo};
//! # use std::os::fd::AsFd;
//! # fn clone3(into_cgroup: Option<std::os::fd::BorrowedFd>) -> i32 { 1 }
//! # fn create(id: &ContainerId, config: &Config, facts: &Facts) -> Result<()> {
//! let plan = cgroup::plan(id, config, facts, Driver::Cgroupfs)?; // no effect
//! for line in plan.describe() {
//!     println!("{line}"); // make /sys/fs/cgroup/box, write memory.max = 67108864, …
//! }
//! let ours = cgroup::claim(&plan)?; // for the first record: what `delete` may remove until init is known
//!
//! let mut undo = Undo::new();
//! let made = cgroup::create(&plan, &mut undo)?; // limits stand before the process is there
//! let entry = made.entry()?; // v2: CLONE_INTO_CGROUP; v1: the process moves itself before Go
//! let pid = clone3(entry.v2.as_ref().map(|fd| fd.as_fd()));
//! if entry.is_empty() {
//!     cgroup::adopt(&plan, &made, pid, &mut undo)?; // before Go: systemd starts its unit
//! }
//! let paths = made.paths().clone(); // into state.json; without what a rootless user may not have
//! undo.forget();
//!
//! // In other processes, later:
//! paths.freeze()?;
//! paths.thaw()?;
//! paths.join_for_exec(4711, pid, &[])?; // or paths.entry_for_exec to be born inside
//! paths.kill_all(9)?;
//! cgroup::remove(&paths, &mut |warning| eprintln!("{warning}"))?;
//! # Ok(()) }
//! ```

mod apply;
mod change;
mod controllers;
mod devices;
mod devices_bpf;
mod entry;
mod events;
mod exec;
mod folder;
mod holder;
mod live;
mod oom;
mod paths;
mod plan;
mod resources;
pub mod stats;
mod systemd;
mod unborn;
mod update;

pub use apply::Created;
pub use entry::{Entry, Tasks};
pub use events::{Happened, Watch};
pub use holder::whereabouts;
pub use oom::OomKills;
pub use paths::{Paths, Place, View, views};
pub use plan::{Plan, plan, plan_update};
pub use stats::Stats;
pub use systemd::{Manager, Unit, manager_cgroup};
pub use unborn::{claim, remove_unborn};
pub use update::{complete, update};

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::undo::Undo;

/// Who makes the cgroups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Driver {
    /// We, with mkdir.
    Cgroupfs,
    /// systemd, as a scope.
    Systemd,
    /// Nobody: the container stays where its maker is.
    Disabled,
}

/// What differs between those who make cgroups. All else needs only the folders.
trait Manage {
    /// Before the process is there. What was made is given to `undo`.
    fn make(&self, plan: &Plan, undo: &mut Undo<'_>) -> Result<Created>;

    /// The process is there and waits: when this returns it is in its cgroups, with its limits.
    fn adopt(&self, plan: &Plan, created: &Created, pid: i32, undo: &mut Undo<'_>) -> Result<()>;

    /// What is about to be written: values by the files of the kernel.
    fn set(&self, _: &Paths, _: &[(&str, &str)]) -> Result<()> {
        Ok(())
    }

    /// What was there before, and is about to be written again.
    fn set_back(&self, _: &Paths, _: &[(&str, &str)]) -> Result<()> {
        Ok(())
    }

    /// The container has ended.
    fn let_go(&self, paths: &Paths, _: &mut dyn FnMut(String)) -> Result<()> {
        paths.remove()
    }
}

impl Driver {
    fn manage(self, unified: bool) -> &'static dyn Manage {
        match self {
            Driver::Systemd => &systemd::Systemd,
            Driver::Cgroupfs | Driver::Disabled if unified => &apply::V2,
            Driver::Cgroupfs | Driver::Disabled => &apply::V1,
        }
    }
}

/// Makes every cgroup of the plan that can be made before the process is there, with its limits.
/// What was made is given to `undo`.
///
/// Refuses a cgroup that has processes already or is frozen, with runc's words.
pub fn create(plan: &Plan, undo: &mut Undo<'_>) -> Result<Created> {
    plan.driver.manage(plan.unified).make(plan, undo)
}

/// For a process that is there and waits: its limits are in force when this returns.
pub fn adopt(plan: &Plan, created: &Created, pid: i32, undo: &mut Undo<'_>) -> Result<()> {
    plan.driver.manage(plan.unified).adopt(plan, created, pid, undo)
}

/// Tells whoever manages the cgroups what is about to be written into their files (file, value), or
/// would write its own values over them some day. Nothing has changed when it fails. The files are
/// the caller's to write.
pub fn set(paths: &Paths, values: &[(&str, &str)]) -> Result<()> {
    paths.driver.manage(paths.is_unified()).set(paths, values)
}

/// As [`set`], with what was there before a change that failed: all is told that can be told, and the
/// rest is the error.
pub fn set_back(paths: &Paths, values: &[(&str, &str)]) -> Result<()> {
    paths.driver.manage(paths.is_unified()).set_back(paths, values)
}

/// Removes the container's cgroups, and its unit where it has one. `warn` hears of what is left when
/// the cgroups themselves are gone.
pub fn remove(paths: &Paths, warn: &mut dyn FnMut(String)) -> Result<()> {
    paths.driver.manage(paths.is_unified()).let_go(paths, warn)
}
