//! The container's terminal and standard streams.
//!
//! The pseudo-terminal is made by the container's process in the container's own devpts
//! ([`console`]), so that its number and path mean there what they say. Its master goes over a Unix
//! socket to whoever shows it: an engine's `--console-socket` ([`socket`]), or the runtime itself
//! for an attached `run` or `exec`.

pub mod console;
pub mod socket;
pub mod stdio;
