//! What `list` of many containers takes of the processor: its own work, whatever else the machine does.

use std::process::{Command, Stdio};

use nix::sys::resource::{UsageWho, getrusage};

use crate::measure::{Candidate, median, timed};

/// A median of as many calls.
const CALLS: usize = 11;

/// The line of the table, for so many containers that wait to be started.
pub(crate) fn measure(candidate: &Candidate, containers: usize) -> Result<String, String> {
    let created = (0..containers).try_for_each(|number| {
        timed(candidate.command_on("create", "waits", &[], &format!("listed-{number}"))).map(drop)
    });
    let listed = created.and_then(|()| {
        let mut times = (0..CALLS).map(|_| one(candidate, containers)).collect::<Result<Vec<_>, _>>()?;
        Ok(median(&mut times))
    });
    let deleted = (0..containers).try_for_each(|number| {
        timed(candidate.command_on("delete", "waits", &["--force"], &format!("listed-{number}"))).map(drop)
    });
    let took = listed?;
    deleted?;
    Ok(format!("  list of {containers}: {} µs of the processor, {}", took.as_micros(), candidate.name))
}

fn one(candidate: &Candidate, containers: usize) -> Result<std::time::Duration, String> {
    let used = || -> Result<i64, String> {
        let usage = getrusage(UsageWho::RUSAGE_CHILDREN).map_err(|error| format!("getrusage: {error}"))?;
        let micros = |time: nix::sys::time::TimeVal| time.tv_sec() * 1_000_000 + time.tv_usec();
        Ok(micros(usage.user_time()) + micros(usage.system_time()))
    };
    let before = used()?;
    let mut command = Command::new(&candidate.runtime);
    command.arg("--root").arg(candidate.root()).args(["list", "--quiet"]).stdin(Stdio::null());
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    let took = used()? - before;
    let lines = String::from_utf8_lossy(&output.stdout).lines().count();
    if !output.status.success() || lines < containers {
        return Err(format!("{command:?}: {}, {lines} lines for {containers} containers", output.status));
    }
    Ok(std::time::Duration::from_micros(u64::try_from(took).map_err(|error| error.to_string())?))
}
