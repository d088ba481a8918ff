//! The seccomp compiler: held against tables and hand-written vectors.
#![allow(clippy::unwrap_used)]

mod bpf;
mod profile;
mod vectors;
