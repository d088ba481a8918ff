//! Known attacks on container runtimes, each as it was published or as near as a test may go. `runtime/SECURITY.md` is
//! the table: advisory, what tare does, which of these tests shows it, and how its peers do; `table.rs` holds the two
//! together.
//!
//! A race is run against a real racer, for `ATTACK_SECONDS` (1 unless set, less with one processor; more for a soak), and
//! at least once.
#![allow(clippy::unwrap_used)]

mod canary;
mod descriptors;
mod devices;
mod mounts;
mod namespaces;
mod proc;
mod racer;
mod state;
mod table;
mod users;

use spec_tests::need::{skip, unprivileged_userns};
use spec_tests::runtime::under_test;
use spec_tests::{Bundle, Container, Flavor, rootless};

/// Whose container is attacked.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Owner {
    Root,
    /// An ordinary user, in a user namespace.
    User,
}

impl Owner {
    /// Both, or root alone where users may have no containers.
    fn all(test: &str) -> Vec<Owner> {
        if under_test().flavor == Flavor::Youki {
            // It makes no container of an ordinary user who may make no cgroup.
            return vec![Owner::Root];
        }
        match unprivileged_userns() {
            Ok(()) => vec![Owner::Root, Owner::User],
            Err(reason) => {
                skip(test, "unprivileged_userns", &reason);
                vec![Owner::Root]
            }
        }
    }

    /// The last word on a bundle: who owns it and calls the runtime.
    fn container(self, bundle: Bundle) -> Container {
        match self {
            Owner::Root => bundle.container(),
            Owner::User => rootless(bundle).container(),
        }
    }
}
