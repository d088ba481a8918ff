//! `--version`.

use super::OCI_VERSION;

/// Three lines and no more. go-runc of containerd 1.6 takes exactly three, split at `version ` and
/// `: `; Docker looks for `version ` and `commit: `; the present go-runc reads on only after
/// `runc version `, which would be a lie, and is content without.
pub(super) fn text() -> String {
    format!("tare version {}\ncommit: {}\nspec: {OCI_VERSION}\n", env!("CARGO_PKG_VERSION"), commit())
}

/// The build sets it (`TARE_COMMIT=$(git describe --always --dirty)`).
pub(super) fn commit() -> &'static str {
    option_env!("TARE_COMMIT").unwrap_or("unknown")
}
