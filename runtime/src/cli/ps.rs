//! `ps`.

use clap::Args;

use super::globals::Context;
use super::list::Format;
use super::report::print;
use super::words::Options;
use super::{Verb, id};
use crate::error::{Error, Result};
use crate::lifecycle::ps;

#[derive(Debug, Args)]
pub(super) struct Ps {
    /// form of the list
    #[arg(long, short, value_enum, default_value_t, value_name = "FORMAT")]
    format: Format,
}

impl Verb for Ps {
    const NAME: &str = "ps";
    const ABOUT: &str = "list the processes of a container";
    const USAGE: &str = "<container-id> [ps options]";
    const DESCRIPTION: &str = "\
Shows the lines of `ps -ef` that are about processes of the container, or those
of `ps` with the options that follow the id. They must leave the column PID.

EXAMPLE:
    # tare ps web
    # tare ps web -o pid,comm,rss
    # tare ps --format json web";
    const ARGUMENTS: (usize, usize) = (1, usize::MAX);
    const OPTIONS: Options = Options::First;
    const HINT_ON_STDERR: bool = false;

    fn run(self, arguments: &[String], context: &Context) -> Result<u8> {
        let id = id(arguments)?;
        print(&match self.format {
            Format::Table => ps::table(&context.runtime, &id, &arguments[1..])?,
            Format::Json => json(&ps::pids(&context.runtime, &id)?)?,
        })?;
        Ok(0)
    }
}

/// Go writes an empty list as null.
fn json(pids: &[i32]) -> Result<String> {
    if pids.is_empty() {
        return Ok("null\n".into());
    }
    Ok(serde_json::to_string(pids).map_err(|e| Error::Protocol(e.to_string()))? + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pids_as_go_writes_them() {
        assert_eq!(json(&[]).unwrap(), "null\n");
        assert_eq!(json(&[1, 20]).unwrap(), "[1,20]\n");
    }
}
