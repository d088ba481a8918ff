//! Images, made of a root filesystem that is there.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use crate::call;

/// An archive in `dir` of one image with one layer, as `docker save` writes it. Its containers sleep.
///
/// # Panics
/// When it cannot be written.
pub fn archive(dir: &Path, rootfs: &Path, name: &str) -> PathBuf {
    let image = dir.join("image");
    std::fs::create_dir(&image).expect("a directory");
    tar(&image.join("layer.tar"), rootfs);
    let sum = call(Command::new("sha256sum").arg(image.join("layer.tar"))).ok().out;
    let layer = format!("sha256:{}", sum.split_whitespace().next().expect("a sum"));
    let config = json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        "os": "linux",
        "config": { "Env": ["PATH=/bin"], "Cmd": ["sleep", "100000"] },
        "rootfs": { "type": "layers", "diff_ids": [layer] },
    });
    let manifest = json!([{ "Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"] }]);
    for (name, document) in [("config.json", config), ("manifest.json", manifest)] {
        std::fs::write(image.join(name), document.to_string()).expect("the image");
    }
    let archive = dir.join("image.tar");
    tar(&archive, &image);
    archive
}

/// # Panics
/// When it cannot be written.
pub fn tar(archive: &Path, dir: &Path) {
    let mut tar = Command::new("tar");
    call(tar.arg("--create").arg("--file").arg(archive).arg("--directory").arg(dir).arg(".")).ok();
}
