//! Judges an OCI runtime from the outside: all that these tests know of it is the path of a binary.
//!
//! ```text
//! RUNTIME=/usr/sbin/runc cargo test -p spec-tests      # a peer
//! cargo test -p spec-tests                             # ours, the release build of this workspace
//! ```
//!
//! Control groups are those at `/sys/fs/cgroup`, whichever version is mounted there. A host of version 1 can show the
//! tests a unified hierarchy of its own (with the controllers that version 1 does not use):
//!
//! ```text
//! cargo test -p spec-tests --no-run && unshare --mount --propagation private sh -c '
//!     umount -R /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup && exec cargo test -p spec-tests'
//! ```
//!
//! and a hybrid host, for a runtime that takes only pure ones, version 1 alone:
//!
//! ```text
//! unshare --mount --propagation private sh -c 'umount /sys/fs/cgroup/unified && exec cargo test -p spec-tests'
//! ```
//!
//! A test builds a [`Bundle`], whose only program is the static binary `probe`, and asserts on what the probe
//! saw inside or on what the runtime said outside:
//!
//! ```no_run
//! use spec_tests::{Bundle, json};
//!
//! let facts = Bundle::new().process(|p| p["user"]["umask"] = json!(0o27)).facts();
//! assert_eq!(facts["umask"], 0o27);
//! ```
//!
//! Nothing is shared between two bundles (directory, `--root`, id, cgroup), so tests run in parallel. Dropping a
//! [`Container`] deletes it by force and fails the test if something of it is still there.

pub mod agent;
pub mod bundle;
pub mod call;
pub mod container;
pub mod facts;
pub mod fuse;
pub mod host_mount;
pub mod namespaces;
pub mod need;
pub mod rootless;
pub mod runtime;
pub mod socket;
pub mod spec;
mod sys;
pub mod terminal;
#[cfg(target_arch = "x86_64")]
pub mod trace;

pub use bundle::Bundle;
pub use call::Output;
pub use container::{Container, systemctl};
pub use rootless::rootless;
pub use runtime::{
    Flavor, crun, crun_before, crun_since, differs, differs_at_times, runc, runc_before, tare_not_yet, youki,
};
pub use serde_json::{Value, json};
