//! `plan`: what `create` would do here, or on another machine; without any effect.

use std::fmt::{self, Display, Formatter};

use serde::Serialize;

use super::birth::conceive;
use super::{CreateRequest, Runtime};
use crate::error::Result;
use crate::host::{Facts, lsm};

/// What there is to say of a bundle that could be created.
#[derive(Debug, Serialize)]
pub struct Report {
    /// What the runtime does.
    pub parent: Vec<String>,
    /// What the short-lived process before the container's first one does, where there is one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub joiner: Vec<String>,
    /// What the container's first process does; an error names these by their number.
    pub child: Vec<String>,
    /// What would not be as asked.
    pub warnings: Vec<String>,
    /// What only the run can tell.
    pub unchecked: Vec<&'static str>,
}

/// Refuses what `create` would refuse before its first effect. Without `facts` they are this host's,
/// as for root where an ordinary user could not tell.
pub fn describe(runtime: &Runtime, request: &CreateRequest, facts: Option<Facts>) -> Result<Report> {
    let facts = facts.map_or_else(here, Ok)?;
    let plan = conceive(runtime, request, Some(facts))?.plan;
    let description = plan.describe();
    Ok(Report {
        parent: description.parent,
        joiner: description.joiner,
        child: description.child,
        warnings: plan.warnings,
        unchecked: vec![
            "whether the sources of mounts, the rootfs and the program exist",
            "whether the kernel knows the file systems and the mount options",
            "whether the container's cgroups are empty",
        ],
    })
}

fn here() -> Result<Facts> {
    let facts = Facts::probe()?.as_root();
    Ok(Facts { apparmor: lsm::apparmor(), selinux: lsm::selinux(), ..facts })
}

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        numbered(f, "runtime", &self.parent)?;
        if !self.joiner.is_empty() {
            numbered(f, "joiner", &self.joiner)?;
        }
        numbered(f, "container's first process", &self.child)?;
        listed(f, "warnings", &self.warnings)?;
        listed(f, "only the run can tell", &self.unchecked)
    }
}

fn numbered(f: &mut Formatter<'_>, title: &str, lines: &[String]) -> fmt::Result {
    writeln!(f, "{title}:")?;
    lines.iter().enumerate().try_for_each(|(n, line)| writeln!(f, "{:4} {line}", n + 1))
}

fn listed(f: &mut Formatter<'_>, title: &str, lines: &[impl Display]) -> fmt::Result {
    if lines.is_empty() {
        return Ok(());
    }
    writeln!(f, "{title}:")?;
    lines.iter().try_for_each(|line| writeln!(f, "     {line}"))
}
