//! A configuration and the facts about the host, compiled into all that parent and child will do.
//! Pure: nothing here touches the kernel.

pub mod build;
pub mod describe;
pub mod exec;
mod order;
pub mod step;

use std::ffi::CString;

use crate::cgroup;
use crate::config::Hook;
use crate::limits::Limits;
use crate::namespace::idmap::IdMaps;
use crate::namespace::plan::Plan as Namespaces;
use crate::rootfs::Tree;
use crate::sys::slots::Slot;
use crate::sys::spawn::Argv;

pub use build::{Options, build};
pub use step::Step;

/// All that `create` will do.
pub struct Plan {
    pub cgroup: cgroup::Plan,
    /// What the parent opens before the clone.
    pub trees: Vec<(Slot, Tree)>,
    pub namespaces: Namespaces,
    /// For a new user namespace.
    pub id_maps: Option<IdMaps>,
    /// For a new time namespace: the lines of `timens_offsets`.
    pub timens_offsets: String,
    pub limits: Limits,
    pub prestart: Vec<Hook>,
    pub create_runtime: Vec<Hook>,
    pub steps: Vec<Step>,
    pub program: Program,
    /// How many slots the table needs.
    pub slots: usize,
    /// What will not be as asked, though the container starts.
    pub warnings: Vec<String>,
}

/// What is executed in the end.
pub struct Program {
    pub args: Argv,
    pub env: Argv,
    /// Where `args[0]` may be.
    pub candidates: Vec<CString>,
    /// `HOME` is not in the environment: it comes from the container's `/etc/passwd`.
    pub find_home: bool,
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;
