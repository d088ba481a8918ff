//! `list`.

use clap::{Args, ValueEnum};
use nix::errno::Errno;

use super::Verb;
use super::globals::{Context, Root};
use super::report::{print, to_stderr};
use crate::error::{Error, Result};
use crate::lifecycle;
use crate::state::{State, time};

#[derive(Debug, Args)]
pub(super) struct List {
    /// form of the list
    #[arg(long, short, value_enum, default_value_t, value_name = "FORMAT")]
    format: Format,
    /// only the ids
    #[arg(long, short)]
    quiet: bool,
}

/// Of `list` and `ps`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(super) enum Format {
    #[default]
    Table,
    Json,
}

impl Verb for List {
    const NAME: &str = "list";
    const ABOUT: &str = "list the containers of the root";
    const USAGE: &str = "";
    const DESCRIPTION: &str = "\
Lists the containers whose state is below the root (`tare --root DIR list`).

EXAMPLE:
    # tare list
    # tare --root /run/containerd/runc/k8s.io list --format json";
    const ARGUMENTS: (usize, usize) = (0, 0);
    const HINT_ON_STDERR: bool = false;

    fn run(self, _: &[String], context: &Context) -> Result<u8> {
        let all = match lifecycle::list::list(&context.runtime) {
            // The root is made with the first container.
            Err(e) if context.root != Root::Given && e.errno() == Some(Errno::ENOENT) => Vec::new(),
            all => all?,
        };
        let mut states = Vec::new();
        for (id, state) in all {
            match state {
                Ok(state) => states.push(state),
                Err(error) => to_stderr(&format!("load container {id}: {error}\n")),
            }
        }
        print(&match (self.quiet, self.format) {
            (true, _) => states.iter().map(|s| format!("{}\n", s.id)).collect(),
            (false, Format::Table) => table(&states),
            // Go writes an empty list as null, and that is what its readers have seen.
            (false, Format::Json) if states.is_empty() => "null\n".into(),
            (false, Format::Json) => {
                serde_json::to_string(&states).map_err(|e| Error::Protocol(e.to_string()))? + "\n"
            }
        })?;
        Ok(0)
    }
}

/// Columns as Go's tabwriter makes them for runc: at least 12 wide, and three spaces between.
fn table(states: &[State]) -> String {
    let header = ["ID", "PID", "STATUS", "BUNDLE", "CREATED"].map(str::to_owned);
    let mut rows = vec![(header, "OWNER")];
    rows.extend(states.iter().map(|s| (cells(s), s.owner.as_str())));
    let mut out = String::new();
    let mut widths = [0; 5];
    for (cells, _) in &rows {
        for (width, cell) in widths.iter_mut().zip(cells) {
            *width = (cell.chars().count() + 3).max(12).max(*width);
        }
    }
    for (cells, owner) in &rows {
        for (width, cell) in widths.iter().zip(cells) {
            out.push_str(&format!("{cell:width$}"));
        }
        out.push_str(owner);
        out.push('\n');
    }
    out
}

fn cells(s: &State) -> [String; 5] {
    [s.id.clone(), s.pid.to_string(), s.status.to_string(), s.bundle.clone(), time::to_rfc3339(s.created)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Status;
    use std::collections::BTreeMap;
    use std::time::UNIX_EPOCH;

    fn state(id: &str, owner: &str) -> State {
        State {
            oci_version: "1.3.0".into(),
            id: id.into(),
            pid: 12345,
            status: Status::Running,
            bundle: "/b".into(),
            rootfs: "/b/rootfs".into(),
            created: UNIX_EPOCH,
            annotations: BTreeMap::new(),
            owner: owner.into(),
        }
    }

    #[test]
    fn columns_are_as_wide_as_they_must_be() {
        assert_eq!(table(&[]), "ID          PID         STATUS      BUNDLE      CREATED     OWNER\n");
        assert_eq!(
            table(&[state("a", "root"), state("a-longer-name", "#7")]),
            "ID              PID         STATUS      BUNDLE      CREATED                OWNER\n\
             a               12345       running     /b          1970-01-01T00:00:00Z   root\n\
             a-longer-name   12345       running     /b          1970-01-01T00:00:00Z   #7\n"
        );
    }
}
