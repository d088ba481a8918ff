//! `ps`: the processes of a container, as the host numbers them.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

use super::Runtime;
use crate::config::id::ContainerId;
use crate::error::{Error, Result};
use crate::state::{Dir, Record};

/// All pids in the container's cgroup and below it, in order.
pub fn pids(runtime: &Runtime, id: &ContainerId) -> Result<Vec<i32>> {
    of_record(&Dir::open(&runtime.root, id)?.load()?)
}

/// What `ps` with these arguments (`-ef` when there are none) says of the container's processes.
pub fn table<A: AsRef<OsStr>>(runtime: &Runtime, id: &ContainerId, args: &[A]) -> Result<String> {
    let pids = pids(runtime, id)?;
    let mut command = Command::new("ps");
    if args.is_empty() {
        command.arg("-ef");
    } else {
        command.args(args);
    }
    let output = command.output().map_err(|e| Error::io("exec", Path::new("ps"), &e))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(Error::Host { what: "ps".into(), why: format!("{}: {}", output.status, said.trim()) });
    }
    only(&String::from_utf8_lossy(&output.stdout), &pids)
}

/// The header, and the lines whose PID column is one of `pids`.
fn only(table: &str, pids: &[i32]) -> Result<String> {
    let wrong = |why: String| Error::Host { what: "output of ps".into(), why };
    let mut lines = table.lines();
    let header = lines.next().unwrap_or_default();
    let column = header
        .split_whitespace()
        .position(|name| name == "PID")
        .ok_or_else(|| wrong("it has no column PID".into()))?;
    let mut out = format!("{header}\n");
    for line in lines.filter(|l| !l.trim().is_empty()) {
        let pid = line.split_whitespace().nth(column).unwrap_or_default();
        let pid: i32 = pid.parse().map_err(|_| wrong(format!("{pid:?} is not a process id")))?;
        if pids.contains(&pid) {
            out.push_str(line);
            out.push('\n');
        }
    }
    Ok(out)
}

fn of_record(record: &Record) -> Result<Vec<i32>> {
    if record.cgroup.is_none() {
        return Err(Error::Host {
            what: format!("processes of {}", record.id),
            why: "the container was made without a cgroup (--cgroup-manager disabled), so they are not known"
                .into(),
        });
    }
    let mut pids = record.cgroup.pids(true)?;
    pids.sort_unstable();
    pids.dedup();
    Ok(pids)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_containers_lines_are_left_whatever_the_columns() {
        for (table, expected) in [
            (
                "UID  PID PPID CMD\nroot   1    0 init\nroot  12    1 sh -c 3\n",
                "UID  PID PPID CMD\nroot  12    1 sh -c 3\n",
            ),
            ("  PID CMD\n   12 a\n  120 b\n", "  PID CMD\n   12 a\n"),
            ("PID\n", "PID\n"),
        ] {
            assert_eq!(only(table, &[12, 3]).unwrap(), expected);
        }
    }

    #[test]
    fn output_without_pids_is_an_error() {
        for (table, needle) in [("", "no column PID"), ("CMD\nsh\n", "no column PID"), ("PID\nx\n", "\"x\"")]
        {
            let error = only(table, &[1]).unwrap_err().to_string();
            assert!(error.contains(needle), "{error}");
        }
    }
}
