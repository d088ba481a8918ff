//! A runtime under its real callers: shells, terminals and pipes here, containerd, Docker and Podman from Debian's
//! packages. All that these tests know of the runtime is the path of a binary.
//!
//! ```text
//! cargo test -p integration                                   # ours, the release build of this workspace
//! RUNTIME=/usr/sbin/runc cargo test -p integration            # a peer
//! SHIM=/usr/bin/containerd-shim-runc-v2 cargo test -p integration --test shim_stories --test shim_cgroups
//! ```
//!
//! Nothing is left on the host: a [`Container`] deletes itself and fails its test if something of it stays, and an
//! engine's daemon runs in a [`Sandbox`], namespaces that end with the test.

mod container;
pub mod containerd;
pub mod grpc;
pub mod image;
pub mod need;
mod outcome;
pub mod proto;
mod rootfs;
pub mod runtime;
mod sandbox;
pub mod shim;
pub mod small_limit;
pub mod story;
mod sys;
pub mod terminal;
pub mod ttrpc;
pub mod websocket;

pub use container::Container;
pub use outcome::{Outcome, call, eventually};
pub use rootfs::{busybox, debian};
pub use sandbox::Sandbox;
pub use sys::bpf::programs as bpf_programs;
pub use sys::enosys::take_away;
