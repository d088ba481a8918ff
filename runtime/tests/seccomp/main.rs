//! The seccomp compiler: held against tables and hand-written vectors, against libseccomp itself, and
//! against the kernel.
#![allow(clippy::unwrap_used)]

mod bpf;
mod case;
mod condition;
mod differential;
mod generate;
#[cfg(target_arch = "x86_64")]
mod kernel;
mod names;
mod oracle;
mod profile;
mod vectors;
