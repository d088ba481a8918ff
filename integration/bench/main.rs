//! Each operation of several runtimes on this machine: interleaved round by round, so that what disturbs the machine
//! disturbs all of them; medians, and their ratios to the first runtime's.
//!
//! ```text
//! bench [--rounds N] [--cpu N] [--listed N] [--machine NAME] [--floor PROGRAM] --idle PROGRAM RUNTIME...
//! ```
//!
//! `--idle` is a static program that ends at once, or with an argument waits; `--floor` does the kernel's work
//! alone (`floor.c`). `--listed` is how many containers `list` shows, `--machine` is said in the titles: what is
//! measured in a virtual machine are ratios. No test asserts a time.

mod limits;
mod list;
mod measure;
mod view;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

struct Options {
    rounds: usize,
    cpu: Option<usize>,
    listed: usize,
    machine: String,
    floor: Option<PathBuf>,
    idle: PathBuf,
    runtimes: Vec<PathBuf>,
    /// Set in the process that measures: the name of the view it was given.
    view: Option<String>,
}

impl Options {
    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let (mut rounds, mut cpu, mut floor, mut idle, mut view) = (100, None, None, None, None);
        let (mut listed, mut machine) = (0, String::new());
        let mut runtimes = Vec::new();
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
            let number = |text: String| text.parse().map_err(|error| format!("{text:?}: {error}"));
            match argument.as_str() {
                "--rounds" => rounds = number(value()?)?,
                "--cpu" => cpu = Some(number(value()?)?),
                "--listed" => listed = number(value()?)?,
                "--machine" => machine = format!(", {}", value()?),
                "--floor" => floor = Some(absolute(&value()?)?),
                "--idle" => idle = Some(absolute(&value()?)?),
                "--view" => view = Some(value()?),
                _ if argument.starts_with('-') => return Err(format!("{argument} is not an option")),
                _ => runtimes.push(absolute(&argument)?),
            }
        }
        let idle = idle.ok_or("--idle PROGRAM is needed")?;
        if runtimes.is_empty() || rounds == 0 {
            return Err("at least one runtime and one round".into());
        }
        Ok(Self { rounds, cpu, listed, machine, floor, idle, runtimes, view })
    }
}

fn absolute(path: &str) -> Result<PathBuf, String> {
    Path::new(path).canonicalize().map_err(|error| format!("{path}: {error}"))
}

fn main() -> ExitCode {
    let result = Options::parse(std::env::args().skip(1)).and_then(|options| match &options.view {
        Some(name) => measure::measure(&options).map(|table| println!("{name}{}\n{table}", options.machine)),
        None => view::of_this_host().into_iter().try_for_each(in_view),
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Starts this program again where `/sys/fs/cgroup` shows that view.
fn in_view(view: view::View) -> Result<(), String> {
    let own = std::env::current_exe().map_err(|error| format!("own path: {error}"))?;
    let mut command = view.entrance;
    match command.arg(own).args(["--view", view.name]).args(std::env::args_os().skip(1)).status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{}: {status}", view.name)),
        Err(error) => Err(format!("{command:?}: {error}")),
    }
}
