//! `plan`: what `create` would do.

use std::fs;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use super::create::Bundle;
use super::globals::Context;
use super::report::print;
use super::{Verb, id};
use crate::config::id::ContainerId;
use crate::error::{Error, Result};
use crate::host::Facts;
use crate::lifecycle;

#[derive(Debug, Args)]
pub(super) struct Plan {
    #[command(flatten)]
    bundle: Bundle,
    /// form of the plan
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    format: Format,
    /// plan for the host that FILE describes
    #[arg(long, value_name = "FILE")]
    facts: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum Format {
    #[default]
    Text,
    Json,
}

impl Verb for Plan {
    const NAME: &str = "plan";
    const ABOUT: &str = "print what create would do, step by step, and do nothing";
    const USAGE: &str = "[container-id]";
    const DESCRIPTION: &str = "\
Reads the configuration and the host, and prints every step that `tare create`
would take, in order, and what this host cannot honour. Nothing is changed; no
privilege is needed.

EXAMPLE:
    $ tare plan --bundle /bundles/web
    $ tare plan --facts other-host.json --format json";
    const ARGUMENTS: (usize, usize) = (0, 1);
    const PREFIX: &str = "tare plan failed: ";

    fn run(self, arguments: &[String], context: &Context) -> Result<u8> {
        let id = if arguments.is_empty() { ContainerId::new("container")? } else { id(arguments)? };
        let request = self.bundle.request(id)?;
        let facts = self.facts.as_deref().map(read_facts).transpose()?;
        let report = lifecycle::plan::describe(&context.runtime, &request, facts)?;
        print(&match self.format {
            Format::Text => report.to_string(),
            Format::Json => {
                serde_json::to_string_pretty(&report).map_err(|e| Error::Protocol(e.to_string()))? + "\n"
            }
        })?;
        Ok(0)
    }
}

fn read_facts(path: &Path) -> Result<Facts> {
    let text = fs::read(path).map_err(|e| Error::io("read", path, &e))?;
    serde_json::from_slice(&text)
        .map_err(|e| Error::Usage(format!("{} does not describe a host: {e}", path.display())))
}
