//! `--pid-file`: read by engines the moment it is there, so it appears whole or not at all.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::error::{Error, Result};

/// The number alone, without a newline: go-runc and BuildKit parse the whole file.
pub(super) fn write(path: &Path, pid: i32) -> Result<()> {
    let failed = |e: std::io::Error| Error::io("write pid file", path, &e);
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(path.file_name().ok_or_else(|| failed(std::io::ErrorKind::InvalidInput.into()))?);
    let temporary = path.with_file_name(hidden);
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o666).custom_flags(libc::O_SYNC);
    let opened = match options.open(&temporary) {
        // Of a writer that was killed.
        Err(e) if e.kind() == ErrorKind::AlreadyExists => {
            fs::remove_file(&temporary).and_then(|()| options.open(&temporary))
        }
        other => other,
    };
    let mut file = opened.map_err(failed)?;
    let written = file.write_all(pid.to_string().as_bytes()).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // The first error is the one to tell.
        let _removed = fs::remove_file(&temporary);
    }
    written.map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leftover_of_a_killed_writer_is_no_obstacle() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(".pid"), "12").unwrap();
        write(&dir.path().join("pid"), 4711).unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("pid")).unwrap(), "4711");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
