//! `state`: the specification's document about one container.

use super::Runtime;
use super::status::status;
use crate::config::id::ContainerId;
use crate::error::Result;
use crate::state::{Dir, State};

pub fn state(runtime: &Runtime, id: &ContainerId) -> Result<State> {
    let dir = Dir::open(&runtime.root, id)?;
    let record = dir.load()?;
    Ok(State::new(&record, status(&dir, &record)?, String::new()))
}
