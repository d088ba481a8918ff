//! Reading what the probe saw.

use serde_json::Value;

/// The mount at this path, the uppermost if several lie there; null when there is none.
pub fn mount_at<'a>(facts: &'a Value, target: &str) -> &'a Value {
    let mounts = facts["mounts"].as_array().map_or(&[][..], Vec::as_slice);
    mounts.iter().rev().find(|m| m["target"] == target).unwrap_or(&Value::Null)
}

/// Whether a list of the facts has this word.
pub fn has(list: &Value, word: &str) -> bool {
    list.as_array().is_some_and(|l| l.iter().any(|w| w == word))
}
