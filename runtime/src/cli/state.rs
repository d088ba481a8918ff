//! `state`.

use clap::Args;

use super::globals::Context;
use super::report::print;
use super::{Verb, id};
use crate::error::{Error, Result};
use crate::lifecycle;

#[derive(Debug, Args)]
pub(super) struct State {}

impl Verb for State {
    const NAME: &str = "state";
    const ABOUT: &str = "print the state of a container";
    const USAGE: &str = "<container-id>";
    const DESCRIPTION: &str = "\
Prints the state of a container as the JSON document of the OCI specification.

EXAMPLE:
    # tare state web";
    const ARGUMENTS: (usize, usize) = (1, 1);
    const HINT_ON_STDERR: bool = false;

    fn run(self, arguments: &[String], context: &Context) -> Result<u8> {
        let state = lifecycle::state::state(&context.runtime, &id(arguments)?)?;
        let text = serde_json::to_string_pretty(&state).map_err(|e| Error::Protocol(e.to_string()))?;
        // Without a newline at the end, as runc.
        print(&text)?;
        Ok(0)
    }
}
