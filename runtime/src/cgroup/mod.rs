//! Control groups: where a container's processes are counted, limited, frozen and killed.
//!
//! `plan` is pure; `create` carries a plan out before the process is there, so that it is born with
//! its limits. Everything later needs only [`Paths`], which the container's state keeps.
//!
//! ```no_run
//! # use tare::{cgroup::{self, Driver}, config::{Config, id::ContainerId}, error::Result, host::Facts, undo::Undo};
//! # fn clone3(into_cgroup: Option<std::os::fd::BorrowedFd>) -> i32 { 1 }
//! # fn create(id: &ContainerId, config: &Config, facts: &Facts) -> Result<()> {
//! let plan = cgroup::plan(id, config, facts, Driver::Cgroupfs)?; // no effect
//! for line in plan.describe() {
//!     println!("{line}"); // make /sys/fs/cgroup/box, write memory.max = 67108864, …
//! }
//! let intended = plan.paths(); // for Record::creating, before the first effect
//!
//! let mut undo = Undo::new();
//! let made = cgroup::create(&plan, &mut undo)?; // limits stand before the process is there
//! let pid = clone3(made.for_clone()); // v2 alone: CLONE_INTO_CGROUP
//! if made.for_clone().is_none() {
//!     made.join(pid)?; // v1 and hybrid: before Go
//! }
//! let paths = made.paths().clone(); // into state.json; without what a rootless user may not have
//! undo.forget();
//!
//! // In other processes, later:
//! paths.freeze()?;
//! paths.thaw()?;
//! paths.join_for_exec(4711, pid, &[])?; // or paths.open_for_exec for CLONE_INTO_CGROUP
//! paths.kill_all(9)?;
//! paths.remove()?;
//! # Ok(()) }
//! ```

mod apply;
mod controllers;
mod devices;
mod devices_bpf;
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
mod update;

pub use apply::{Created, create};
pub use events::{Happened, Watch};
pub use holder::whereabouts;
pub use oom::OomKills;
pub use paths::{Paths, Place, View, views};
pub use plan::{Plan, plan, plan_update};
pub use stats::Stats;
pub use update::{complete, update};

use serde::{Deserialize, Serialize};

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
