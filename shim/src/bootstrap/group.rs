//! Which containers share a shim.

use std::path::Path;

use serde::Deserialize;

use crate::error::{Error, Result};

#[derive(Deserialize)]
struct Document {
    annotations: Option<Annotations>,
}

#[derive(Deserialize)]
struct Annotations {
    #[serde(rename = "io.containerd.runc.v2.group")]
    group: Option<String>,
    #[serde(rename = "io.kubernetes.cri.sandbox-id")]
    sandbox: Option<String>,
}

/// The group that the bundle's configuration names; a container without one is its own.
pub fn group(bundle: &Path, id: &str) -> Result<String> {
    let path = bundle.join("config.json");
    let text = std::fs::read(&path).map_err(|e| Error::io("read", &path, &e))?;
    let document: Document =
        serde_json::from_slice(&text).map_err(|e| Error::invalid(format!("{}: {e}", path.display())))?;
    let named = document.annotations.and_then(|annotations| annotations.group.or(annotations.sandbox));
    Ok(named.unwrap_or_else(|| id.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_group_is_named_by_annotations_in_this_order() {
        let dir = tempfile::tempdir().expect("a folder");
        for (annotations, expected) in [
            ("null", "c1"),
            ("{}", "c1"),
            (r#"{"other": "x"}"#, "c1"),
            (r#"{"io.kubernetes.cri.sandbox-id": "pod"}"#, "pod"),
            (r#"{"io.kubernetes.cri.sandbox-id": "pod", "io.containerd.runc.v2.group": "g"}"#, "g"),
        ] {
            let text = format!(
                r#"{{"ociVersion": "1.0.2", "annotations": {annotations}, "process": {{"args": []}}}}"#
            );
            std::fs::write(dir.path().join("config.json"), text).expect("written");
            assert_eq!(group(dir.path(), "c1").expect(annotations), expected);
        }
        std::fs::write(dir.path().join("config.json"), r#"{"linux": {}}"#).expect("written");
        assert_eq!(group(dir.path(), "c1").expect("read"), "c1");
    }

    #[test]
    fn a_bundle_that_cannot_be_read_is_an_error_that_names_the_file() {
        let dir = tempfile::tempdir().expect("a folder");
        let error = group(dir.path(), "c1").expect_err("absent").to_string();
        assert!(error.contains("config.json: no such file or directory"), "{error}");
        std::fs::write(dir.path().join("config.json"), "{").expect("written");
        assert!(group(dir.path(), "c1").expect_err("torn").to_string().contains("config.json: "));
    }
}
