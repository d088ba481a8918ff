//! Which files are behind a server that may be away: to open or write one can then take for ever, and nothing says so
//! before. The path itself is not touched, for that would wait as well; so a symbolic link is taken for what it is.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

/// Of `/proc/filesystems`; and all of FUSE, whose server is a process that may stand still.
const REMOTE: [&str; 13] =
    ["9p", "afs", "beegfs", "ceph", "cifs", "coda", "gfs2", "gpfs", "lustre", "nfs", "nfs4", "ocfs2", "smb3"];

pub(super) fn may_hang(path: &Path) -> bool {
    // Without a table nothing is known, and most files are here.
    std::fs::read("/proc/self/mountinfo").is_ok_and(|table| is_remote(&table, path))
}

fn is_remote(table: &[u8], path: &Path) -> bool {
    let path = clean(path);
    let mounts = table.split(|byte| *byte == b'\n').filter_map(mount);
    let above = mounts.filter(|(point, _)| path.starts_with(point));
    // Of two at one place the later one is on top.
    let nearest = above.max_by_key(|(point, _)| point.as_os_str().len());
    nearest.is_some_and(|(_, kind)| {
        kind.starts_with(b"fuse") || REMOTE.iter().any(|remote| remote.as_bytes() == kind)
    })
}

/// Without `.` and `..`: of a path that is absolute.
fn clean(path: &Path) -> PathBuf {
    let mut clean = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => drop(clean.pop()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    clean
}

/// Where it is, and its type: the fifth word of the line, and the first one after the dash.
fn mount(line: &[u8]) -> Option<(PathBuf, &[u8])> {
    let mut words = line.split(|byte| *byte == b' ');
    let point = words.nth(4)?;
    words.find(|word| *word == b"-")?;
    Some((PathBuf::from(OsString::from_vec(unescape(point))), words.next()?))
}

/// `\040` is a space.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        let digits = after.first_chunk::<3>().filter(|_| *first == b'\\');
        let code = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        match code.and_then(|code| u8::from_str_radix(code, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[3..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_mount_above_decides() {
        let table = b"\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:30 / /logs rw shared:9 master:1 - nfs4 server:/logs rw,vers=4.2
31 30 0:31 / /logs/here rw - tmpfs tmpfs rw
32 22 0:32 / /with\\040space rw - fuse.sshfs host: rw
33 22 0:33 / /covered rw - cifs //server/share rw
34 33 0:34 / /covered rw - tmpfs tmpfs rw
35 22 0:35 / /nfs-like rw - tmpfs nfs rw
";
        for (path, expected) in [
            ("/logs/a", true),
            ("/logs", true),
            ("/logs2/a", false),
            ("/logs/here/a", false),
            ("/logs/here/../a", true),
            ("/./logs/a/b", true),
            ("/with space/a", true),
            ("/covered/a", false),
            ("/nfs-like/a", false),
            ("/var/log/a", false),
        ] {
            assert_eq!(is_remote(table, Path::new(path)), expected, "{path}");
        }
        assert!(!is_remote(b"", Path::new("/logs/a")));
        assert!(!is_remote(b"a b\n\n1 2 3 4 /logs rw\n", Path::new("/logs/a")));
    }
}
