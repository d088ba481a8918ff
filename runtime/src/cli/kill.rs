//! `kill`.

use clap::Args;

use super::globals::Context;
use super::{Verb, id, pattern, signal};
use crate::error::Result;
use crate::lifecycle;

#[derive(Debug, Args)]
pub(super) struct Kill {
    /// send it to all processes of the container
    #[arg(long, short)]
    all: bool,
    /// the id is a regular expression: send it to every container that matches
    #[arg(long, short)]
    regex: bool,
}

impl Verb for Kill {
    const NAME: &str = "kill";
    const ABOUT: &str = "send a signal to the first process of a container (default: SIGTERM)";
    const USAGE: &str = "<container-id> [signal]";
    const DESCRIPTION: &str = "\
The signal is a number or a name, with or without SIG, in any case.

EXAMPLE:
    # tare kill web KILL
    # tare kill --regex '^web-[0-9]+$' SIGHUP";
    const ARGUMENTS: (usize, usize) = (1, 2);

    fn run(self, arguments: &[String], context: &Context) -> Result<u8> {
        let signal = signal::parse(arguments.get(1).map_or("TERM", String::as_str))?;
        let kill = |id: &_| lifecycle::kill::kill(&context.runtime, id, signal, self.all);
        if self.regex {
            pattern::each(context, &arguments[0], kill)?;
        } else {
            kill(&id(arguments)?)?;
        }
        Ok(0)
    }
}
