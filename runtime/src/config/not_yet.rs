//! Properties of the specification that this release does not build. Whoever asks for one must
//! hear so: to ignore it would start a container that is less confined than its document says.

use serde_json::Value;

use super::read::Report;

/// Where a property stands, and when it asks for something.
type Row = (&'static str, fn(&Value) -> bool);

const PROCESS: &[Row] = &[("/apparmorProfile", asks), ("/selinuxLabel", asks)];

const RESOURCES: &[Row] = &[
    ("/blockIO", asks),
    ("/hugepageLimits", limits_above_zero),
    ("/network", asks),
    // A limit of 0 is a limit here.
    ("/rdma", has_entries),
];

const LINUX: &[Row] = &[
    ("/intelRdt", asks),
    ("/memoryPolicy", asks),
    ("/mountLabel", asks),
    // `"eth0": {}` moves eth0.
    ("/netDevices", has_entries),
];

pub(super) fn check_config(config: &Value, report: &Report) {
    for (prefix, table) in [("/process", PROCESS), ("/linux", LINUX), ("/linux/resources", RESOURCES)] {
        if let Some(part) = config.pointer(prefix) {
            check(part, prefix, table, report);
        }
    }
}

pub(super) fn check_process(process: &Value, report: &Report) {
    check(process, "", PROCESS, report);
}

pub(super) fn check_resources(resources: &Value, report: &Report) {
    check(resources, "", RESOURCES, report);
}

fn check(part: &Value, prefix: &str, table: &[Row], report: &Report) {
    for (pointer, asks) in table {
        if part.pointer(pointer).is_some_and(asks) {
            report.problem(format!("{prefix}{pointer}"), "not supported yet by tare");
        }
    }
    if part.get("hugepageLimits").is_some_and(|limits| has_entries(limits) && !limits_above_zero(limits)) {
        report.warn(format!("{prefix}/hugepageLimits: limits of 0 are not supported yet by tare, ignored"));
    }
}

/// The kubelet sends a limit of 0 for each page size of the host, for every container.
fn limits_above_zero(limits: &Value) -> bool {
    let Value::Array(limits) = limits else { return asks(limits) };
    limits.iter().any(|limit| limit.get("limit").is_some_and(asks))
}

/// Engines send empty objects, nulls and zeros for what they do not set: `"blockIO": {}`,
/// `{"weight": 0}`, `"network": {"classID": null}`.
fn asks(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(set) => *set,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => items.iter().any(asks),
        Value::Object(properties) => properties.values().any(asks),
    }
}

fn has_entries(value: &Value) -> bool {
    match value {
        Value::Array(items) => !items.is_empty(),
        Value::Object(properties) => !properties.is_empty(),
        other => asks(other),
    }
}
