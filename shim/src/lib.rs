//! The containerd shim of `tare`: one process and one thread for each pod (`DESIGN.md`).
#![deny(unsafe_code)]

#[allow(unsafe_code)]
pub mod sys;

pub mod bootstrap;
pub mod error;
pub mod events;
pub mod files;
pub mod io;
pub mod log;
pub mod mount;
pub mod oom;
pub mod options;
pub mod process;
pub mod runtime;
pub mod serve;
pub mod service;
pub mod sha256;
#[cfg(test)]
mod starts;
pub mod stats;
pub mod task;
pub mod wire;
