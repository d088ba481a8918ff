//! `start`.

use clap::Args;

use super::globals::Context;
use super::{Verb, id};
use crate::error::Result;
use crate::lifecycle;

#[derive(Debug, Args)]
pub(super) struct Start {}

impl Verb for Start {
    const NAME: &str = "start";
    const ABOUT: &str = "start the program of a created container";
    const USAGE: &str = "<container-id>";
    const DESCRIPTION: &str = "\
Lets a container that `tare create` made execute its program.

EXAMPLE:
    # tare start web";
    const ARGUMENTS: (usize, usize) = (1, 1);

    fn run(self, arguments: &[String], context: &Context) -> Result<u8> {
        let notify = std::env::var_os("NOTIFY_SOCKET").filter(|path| !path.is_empty());
        lifecycle::start::start(&context.runtime, &id(arguments)?, notify)?;
        Ok(0)
    }
}
