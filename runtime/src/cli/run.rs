//! `run`: create, start, wait, delete.

use clap::Args;

use super::create::Container;
use super::globals::Context;
use super::{Verb, id};
use crate::error::Result;
use crate::lifecycle::{self, RunRequest};

#[derive(Debug, Args)]
pub(super) struct Run {
    #[command(flatten)]
    container: Container,
    /// do not wait for the container's end
    #[arg(long, short)]
    detach: bool,
    /// do not delete the container after its end
    #[arg(long)]
    keep: bool,
    /// do not become the parent of the container's orphans
    #[arg(long)]
    no_subreaper: bool,
}

impl Verb for Run {
    const NAME: &str = "run";
    const ABOUT: &str = "create and run a container";
    const USAGE: &str = "<container-id>";
    const DESCRIPTION: &str = "\
Makes a container from a bundle, starts it, waits for its end, deletes it, and
exits as its program did: with its exit code, or 128 and the number of the
signal that ended it.

EXAMPLE:
    # cd /bundles/web && tare run web
    # tare run --detach --bundle /bundles/web web";
    const ARGUMENTS: (usize, usize) = (1, 1);
    const SEALED: bool = true;
    const PREFIX: &str = "tare run failed: ";

    fn run(self, arguments: &[String], context: &Context) -> Result<u8> {
        let create = self.container.request(id(arguments)?)?;
        context.keep_root()?;
        let request =
            RunRequest { create, detach: self.detach, keep: self.keep, no_subreaper: self.no_subreaper };
        lifecycle::run::run(&context.runtime, &request)
    }
}
