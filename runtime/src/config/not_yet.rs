//! Properties of the specification that this release does not build. Whoever asks for one must
//! hear so: to ignore it would start a container that is less confined than its document says.

use serde_json::Value;

use super::read::Report;

/// Where a property stands, and when it asks for something.
type Row = (&'static str, fn(&Value) -> bool);

const LINUX: &[Row] = &[
    ("/intelRdt", asks),
    ("/memoryPolicy", asks),
    // `"eth0": {}` moves eth0.
    ("/netDevices", has_entries),
];

pub(super) fn check(config: &Value, report: &Report) {
    let Some(linux) = config.pointer("/linux") else { return };
    for (pointer, asks) in LINUX {
        if linux.pointer(pointer).is_some_and(asks) {
            report.problem(format!("/linux{pointer}"), "not supported yet by tare");
        }
    }
}

/// Engines send empty objects, nulls and zeros for what they do not set: `"intelRdt": {}`,
/// `"memoryPolicy": null`.
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
