//! `pause` and `resume`.

use clap::Args;

use super::globals::Context;
use super::{Verb, id};
use crate::error::Result;
use crate::lifecycle::pause;

#[derive(Debug, Args)]
pub(super) struct Pause {}

impl Verb for Pause {
    const NAME: &str = "pause";
    const ABOUT: &str = "suspend the processes of a container";
    const USAGE: &str = "<container-id>";
    const DESCRIPTION: &str = "\
Freezes the container's cgroup: its processes stand still, and keep what they
have, until `tare resume`.

EXAMPLE:
    # tare pause web";
    const ARGUMENTS: (usize, usize) = (1, 1);

    fn run(self, arguments: &[String], context: &Context) -> Result<u8> {
        pause::pause(&context.runtime, &id(arguments)?)?;
        Ok(0)
    }
}

#[derive(Debug, Args)]
pub(super) struct Resume {}

impl Verb for Resume {
    const NAME: &str = "resume";
    const ABOUT: &str = "let the processes of a paused container go on";
    const USAGE: &str = "<container-id>";
    const DESCRIPTION: &str = "\
Thaws the container's cgroup.

EXAMPLE:
    # tare resume web";
    const ARGUMENTS: (usize, usize) = (1, 1);

    fn run(self, arguments: &[String], context: &Context) -> Result<u8> {
        pause::resume(&context.runtime, &id(arguments)?)?;
        Ok(0)
    }
}
