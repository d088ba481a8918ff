//! The runtime under test.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The runtime that `RUNTIME` names, as an absolute path, else the release build of this workspace.
///
/// # Panics
/// When there is none.
pub fn path() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| {
        let named = std::env::var_os("RUNTIME").filter(|name| !name.is_empty());
        let path = named.map_or_else(|| built("release/tare"), PathBuf::from);
        path.canonicalize().unwrap_or_else(|error| {
            panic!("the runtime under test, {}: {error}; build tare or set RUNTIME to a path", path.display())
        })
    })
}

/// The first word of `--version`: `tare`, `runc`, `crun`.
pub fn name() -> &'static str {
    static NAME: OnceLock<String> = OnceLock::new();
    NAME.get_or_init(|| {
        let output = Command::new(path()).arg("--version").output().expect("the runtime under test starts");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.split_whitespace().next().unwrap_or_default().to_owned()
    })
}

/// A file below `target/<triple>/`, where a test's own binary lies in `<profile>/deps/`, and the benchmark in `<profile>/`.
pub(crate) fn built(path: &str) -> PathBuf {
    let own = std::env::current_exe().expect("own path");
    let mut profile = own.parent().expect("a directory");
    if profile.ends_with("deps") {
        profile = profile.parent().expect("the profile's directory");
    }
    profile.with_file_name(path)
}
