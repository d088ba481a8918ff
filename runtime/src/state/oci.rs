//! The specification's state document, as `state` and `list` print it.
//!
//! oci-spec's `State` lacks what runc adds and engines read (`rootfs`, `created`, `owner`), and writes
//! its annotations before them.

use std::collections::BTreeMap;
use std::fmt;
use std::time::SystemTime;

use serde::Serialize;

use crate::state::record::Record;
use crate::state::time;

/// <https://github.com/opencontainers/runtime-spec/blob/main/runtime.md#state>
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// `create` is at work, or was killed at it.
    Creating,
    Created,
    Running,
    Paused,
    Stopped,
}

impl Status {
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Creating => "creating",
            Status::Created => "created",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Stopped => "stopped",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Keys in runc's order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    pub oci_version: String,
    pub id: String,
    /// 0 when there is no process (any more).
    pub pid: i32,
    pub status: Status,
    pub bundle: String,
    pub rootfs: String,
    #[serde(with = "time::rfc3339")]
    pub created: SystemTime,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// The creator's name; runc gives it in `list` only.
    pub owner: String,
}

impl State {
    pub fn new(record: &Record, status: Status, owner: String) -> Self {
        let alive = !matches!(status, Status::Stopped);
        let pid = record.init.filter(|_| alive).map_or(0, |init| init.pid);
        Self {
            oci_version: record.oci_version.clone(),
            id: record.id.clone(),
            pid,
            status,
            // A record holds only paths that are text.
            bundle: record.bundle.to_string_lossy().into_owned(),
            rootfs: record.rootfs.to_string_lossy().into_owned(),
            created: record.created,
            annotations: record.annotations.clone(),
            owner,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::{Driver, Paths};
    use crate::state::{Init, SCHEMA, Stage};
    use std::time::UNIX_EPOCH;

    fn record() -> Record {
        Record {
            schema: SCHEMA,
            id: "a".into(),
            stage: Stage::Created,
            oci_version: "1.2.0".into(),
            bundle: "/b".into(),
            rootfs: "/b/rootfs".into(),
            annotations: BTreeMap::from([("k".into(), "v".into())]),
            created: UNIX_EPOCH,
            owner: 0,
            init: Some(Init { pid: 7, start_time: 1 }),
            cgroup: Paths::none(Driver::Disabled),
            shared_pid_namespace: false,
            poststart: false,
            poststop: true,
            no_new_keyring: false,
        }
    }

    #[test]
    fn the_document_has_runcs_keys_in_runcs_order() {
        let state = State::new(&record(), Status::Running, String::new());
        assert_eq!(
            serde_json::to_string(&state).unwrap(),
            "{\"ociVersion\":\"1.2.0\",\"id\":\"a\",\"pid\":7,\"status\":\"running\",\"bundle\":\"/b\",\
             \"rootfs\":\"/b/rootfs\",\"created\":\"1970-01-01T00:00:00Z\",\"annotations\":{\"k\":\"v\"},\
             \"owner\":\"\"}"
        );
    }

    #[test]
    fn a_stopped_container_has_no_process_and_no_annotations_means_no_key() {
        let record = Record { annotations: BTreeMap::new(), ..record() };
        let text = serde_json::to_string(&State::new(&record, Status::Stopped, String::new())).unwrap();
        assert!(text.contains("\"pid\":0") && !text.contains("annotations"), "{text}");
    }
}
