//! `tare`, an OCI runtime. The modules stand in the order of the layers: each uses only those
//! above it in this list (proved by `tests/layers.rs`).
#![deny(unsafe_code)]

// 0: raw system calls, the only `unsafe`
#[allow(unsafe_code)]
pub mod sys;
// 1
pub mod error;
pub mod undo;
// 2
pub mod config;
pub mod host;
pub mod seal;
// 3: one thing each, none knows another
pub mod cgroup;
pub mod hooks;
pub mod limits;
pub mod lsm;
pub mod namespace;
pub mod privilege;
pub mod rootfs;
pub mod seccomp;
pub mod terminal;
// 4
pub mod plan;
// 5
pub mod process;
pub mod state;
// 6
pub mod lifecycle;
// 7
pub mod cli;
