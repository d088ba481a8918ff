//! Stories of a container, told by a shim's events: each is played to the shim under test (`SHIM`) and to containerd's
//! own, and both must tell the same list.

use std::path::PathBuf;

use serde_json::Value;

use crate::shim::{self, Stage, Streams, Task};

pub const SIGKILL: u64 = 9;

/// The shim under test, and containerd's beside it as far as it is installed.
pub fn shims() -> Vec<PathBuf> {
    let under_test = shim::path().to_owned();
    let stock = ["/usr/bin", "/usr/local/bin"].map(|dir| PathBuf::from(dir).join(shim::STOCK));
    let stock = stock.into_iter().find(|path| path.exists() && !shim::is_stock(&under_test));
    std::iter::once(under_test).chain(stock).collect()
}

/// One stage for each shim; the events of the story are the same on all.
#[macro_export]
macro_rules! story {
    ($(#[$doc:meta])* fn $name:ident($stage:ident) $body:block tells $events:expr) => {
        $(#[$doc])*
        #[test]
        fn $name() {
            $crate::need!(root, program($crate::shim::STOCK), program("busybox"));
            for path in $crate::story::shims() {
                let $stage = &$crate::shim::Stage::new(&path);
                $body
                $stage.expect_events(&$events);
            }
        }
    };
}

pub fn plain(_: &mut Value) {}

/// # Panics
/// When the configuration names no namespaces.
pub fn without_pid_namespace(config: &mut Value) {
    let namespaces = config["linux"]["namespaces"].as_array_mut().expect("namespaces");
    namespaces.retain(|namespace| namespace["type"] != "pid");
}

/// Its processes may look into any other: tare then bears those of exec when all else is done.
pub fn tracing(config: &mut Value) {
    for set in ["bounding", "permitted", "effective"] {
        config["process"]["capabilities"][set] = serde_json::json!(["CAP_SYS_PTRACE", "CAP_KILL"]);
    }
}

/// # Panics
/// When it is not created and started.
#[track_caller]
pub fn sleeper(stage: &Stage) -> Task<'_> {
    sleeper_with(stage, plain)
}

/// # Panics
/// When it is not created and started.
#[track_caller]
pub fn sleeper_with(stage: &Stage, edit: fn(&mut Value)) -> Task<'_> {
    let task = stage.created(stage.bundle("c", &["sleep", "1000"], edit), Streams::default());
    task.start("").expect("start");
    task
}

/// From the first to the last word: created, run, deleted, the shim gone.
///
/// # Panics
/// When it ends otherwise.
#[track_caller]
pub fn to_the_end(task: &Task, status: u64) {
    assert_eq!(task.wait(""), status);
    assert_eq!(task.status(""), "STOPPED");
    let deleted = task.delete("").expect("delete");
    assert_eq!(deleted.number(2), status);
    task.shutdown();
}
