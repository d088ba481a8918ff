//! `delete`.

use clap::Args;

use super::globals::Context;
use super::{Verb, id, pattern};
use crate::error::Result;
use crate::lifecycle;

#[derive(Debug, Args)]
pub(super) struct Delete {
    /// kill the container if it is not stopped; no error if there is none
    #[arg(long, short)]
    force: bool,
    /// the id is a regular expression: delete every container that matches
    #[arg(long, short)]
    regex: bool,
}

impl Verb for Delete {
    const NAME: &str = "delete";
    const ABOUT: &str = "delete what is left of a stopped container";
    const USAGE: &str = "<container-id>";
    const DESCRIPTION: &str = "\
Removes the container's cgroups and state, and frees its id.

EXAMPLE:
    # tare delete web
    # tare delete --force --regex '^test-'";
    const ARGUMENTS: (usize, usize) = (1, 1);

    fn run(self, arguments: &[String], context: &Context) -> Result<u8> {
        let delete = |id: &_| lifecycle::delete::delete(&context.runtime, id, self.force);
        if self.regex {
            pattern::each(context, &arguments[0], delete)?;
        } else {
            delete(&id(arguments)?)?;
        }
        Ok(0)
    }
}
