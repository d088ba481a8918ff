//! The mount table of this process.
//!
//! Our own parser over bytes: of a table that may have thousands of lines only what is asked for is
//! taken apart, where `procfs` makes a map and a dozen strings of each line.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

pub(super) const MOUNT_TABLE: &str = "/proc/self/mountinfo";

/// Where all of proc or sysfs is mounted; what is mounted on another goes first.
pub(super) fn full_mounts(table: &[u8]) -> Vec<PathBuf> {
    let mounts = table.split(|&byte| byte == b'\n').filter_map(MountLine::parse);
    let full = |m: &MountLine<'_>| matches!(m.kind, b"proc" | b"sysfs") && m.root == Path::new("/");
    let mut points: Vec<PathBuf> = mounts.filter(full).map(|mount| mount.point).collect();
    points.reverse();
    points
}

pub(super) struct MountLine<'a> {
    pub(super) root: PathBuf,
    pub(super) point: PathBuf,
    pub(super) kind: &'a [u8],
    pub(super) super_options: &'a [u8],
}

impl<'a> MountLine<'a> {
    /// `36 35 98:0 /root /mount/point rw,noatime master:1 - ext3 /dev/sda rw,errors=continue`,
    /// <https://man7.org/linux/man-pages/man5/proc_pid_mountinfo.5.html>
    pub(super) fn parse(line: &'a [u8]) -> Option<Self> {
        let mut fields = line.split(|&b| b == b' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        let mut rest = fields.skip_while(|field| *field != b"-").skip(1);
        let kind = rest.next()?;
        let super_options = rest.nth(1)?;
        Some(MountLine { root: path(unescape(root)), point: path(unescape(point)), kind, super_options })
    }
}

/// The kernel writes space, tab, newline and backslash as three octal digits (`\040`).
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, after)) = rest.split_first() {
        match after {
            [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..] if byte == b'\\' => {
                out.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest = after;
            }
            _ => {
                out.push(byte);
                rest = after;
            }
        }
    }
    out
}

pub(super) fn path(bytes: Vec<u8>) -> PathBuf {
    PathBuf::from(OsString::from_vec(bytes))
}

pub(super) fn read(path: &Path) -> Result<Vec<u8>> {
    let fail = |e: std::io::Error| Error::io("read", path, &e);
    // Files of /proc have no length: with room for all, one read takes it and one finds the end.
    let mut bytes = Vec::with_capacity(16 << 10);
    File::open(path).map_err(fail)?.read_to_end(&mut bytes).map_err(fail)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_three_octal_digits() {
        assert_eq!(unescape(br"/mnt/with\040space\011tab\134"), b"/mnt/with space\ttab\\");
        assert_eq!(unescape(br"\04 \9 \777 \"), br"\04 \9 \777 \");
    }

    #[test]
    fn of_proc_and_sysfs_only_whole_ones_count_and_the_last_is_first() {
        let table = b"\
21 27 0:20 / /proc rw - proc proc rw
22 27 0:22 / /sys rw,relatime - sysfs sysfs rw
23 27 0:20 /sys /mnt/part rw - proc proc rw
24 27 0:23 / /tmp rw - tmpfs tmpfs rw
25 27 0:24 / /srv/proc ro - proc proc rw
";
        let expected = ["/srv/proc", "/sys", "/proc"].map(PathBuf::from);
        assert_eq!(full_mounts(table), expected);
        assert!(full_mounts(b"torn").is_empty());
    }

    #[test]
    fn it_reads_what_procfs_reads() {
        let oracle = procfs::process::Process::myself().unwrap().mountinfo().unwrap();
        let oracle = oracle.into_iter().map(|m| (PathBuf::from(m.root), m.mount_point, m.fs_type));
        let table = read(Path::new(MOUNT_TABLE)).unwrap();
        let own = table.split(|&byte| byte == b'\n').filter_map(MountLine::parse);
        let own = own.map(|m| (m.root, m.point, String::from_utf8_lossy(m.kind).into_owned()));
        assert_eq!(own.collect::<Vec<_>>(), oracle.collect::<Vec<_>>());
    }
}
