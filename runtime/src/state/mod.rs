//! What is on disk: one folder for each container below the root (`/run/tare/<id>/`).
//!
//! ```text
//! state.json    the Record, replaced by rename
//! config.json   the configuration as it was at `create`, for `exec` and `delete` when the bundle is gone
//! exec.fifo     init waits on it; there only while the container is `created`
//! ```
//!
//! The folder itself is the reservation of the id (`mkdir(2)` has one winner) and what is locked.

mod dir;
mod oci;
mod record;
pub mod time;

pub use dir::{Dir, Lock, list};
pub use oci::{State, Status};
pub use record::{Init, Record, SCHEMA, Stage};
