//! The door to the kernel: what nix lacks, and nothing else. The only `unsafe` of the crate is
//! below this module.

pub mod io;
pub mod loopdev;
pub mod memory;
pub mod prctl;
pub mod signal;
pub mod wait;
