//! Privilege given away, in the one order that works. The child runs this: no allocation.

use std::ffi::{CStr, CString};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::sys::stat::{Mode, SFlag, fstat, stat};
use nix::unistd::read;

use super::Privilege;
use crate::error::{StepFailure, StepKind};
use crate::sys::fd::{getcwd, may_execute};
use crate::sys::prctl;

/// The bounding set first, while `CAP_SETPCAP` is there.
pub fn drop_bounding(privilege: &Privilege) -> Result<(), Errno> {
    privilege.drop.iter().try_for_each(|capability| prctl::drop_bounding(*capability))
}

/// Groups before the gid and that before the uid: each needs a capability that the next may end.
pub fn become_user(privilege: &Privilege) -> Result<(), Errno> {
    prctl::set_keep_capabilities(true)?;
    if let Some(groups) = &privilege.groups {
        prctl::setgroups(groups)?;
    }
    prctl::setgid(privilege.gid)?;
    prctl::setuid(privilege.uid)?;
    prctl::set_keep_capabilities(false)
}

/// All sets at once, then the ambient one, which must not have what the others lack.
pub fn set_capabilities(privilege: &Privilege) -> Result<(), Errno> {
    let sets = &privilege.capabilities;
    prctl::capset(sets.effective, sets.permitted, sets.inheritable)?;
    (0..64).filter(|c| sets.ambient >> c & 1 == 1).try_for_each(prctl::raise_ambient)
}

/// Whether the working directory is inside the root: a folder of the host that was still open
/// somewhere would show itself here (CVE-2024-21626).
pub fn is_inside() -> Result<(), StepFailure> {
    let mut buffer = [0u8; libc::PATH_MAX as usize];
    let length = getcwd(&mut buffer)?;
    if length > 0 && buffer[0] == b'/' {
        return Ok(());
    }
    Err(StepFailure::new(StepKind::CwdOutside, Errno::ENOENT))
}

/// The first of `candidates` that may be executed, as Go's `exec.LookPath` chooses: what is no
/// program is passed over, unless it was `named` with its path.
pub fn find_program(candidates: &[CString], named: bool) -> Result<usize, StepFailure> {
    if let (true, [one]) = (named, candidates) {
        return executable(one).map(|()| 0).map_err(StepFailure::from);
    }
    candidates
        .iter()
        .position(|path| executable(path).is_ok())
        .ok_or(StepFailure::new(StepKind::NotInPath, Errno::ENOENT))
}

fn executable(path: &CStr) -> Result<(), Errno> {
    let mode = SFlag::from_bits_truncate(stat(path)?.st_mode) & SFlag::S_IFMT;
    if mode == SFlag::S_IFDIR {
        return Err(Errno::EISDIR);
    }
    may_execute(path)
}

/// The longest home directory that is found: of a line of `/etc/passwd`.
const HOME_MAX: usize = 1024;

/// `HOME=` and a path, without allocation.
pub struct Home([u8; HOME_MAX]);

impl Home {
    pub const ROOT: Home = {
        let mut bytes = [0; HOME_MAX];
        let text = *b"HOME=/";
        let mut at = 0;
        while at < text.len() {
            bytes[at] = text[at];
            at += 1;
        }
        Home(bytes)
    };

    pub fn as_cstr(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.0).unwrap_or(c"HOME=/")
    }

    /// From the container's `/etc/passwd`, by the number of the user alone (CVE-2016-3697: a name that
    /// looks like a number); `/` when it does not say, or the image has something else there.
    pub fn of(uid: u32) -> Result<Home, Errno> {
        match Self::find(uid) {
            Ok(found) => Ok(found.unwrap_or(Home::ROOT)),
            Err(
                Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP | Errno::EACCES | Errno::ENXIO | Errno::ENODEV,
            ) => Ok(Home::ROOT),
            Err(errno) => Err(errno),
        }
    }

    fn find(uid: u32) -> Result<Option<Home>, Errno> {
        // Not blocked by a fifo that an image has there.
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
        let file = openat(AT_FDCWD, c"/etc/passwd", flags, Mode::empty())?;
        let kind = SFlag::from_bits_truncate(fstat(&file)?.st_mode) & SFlag::S_IFMT;
        if kind != SFlag::S_IFREG {
            return Ok(None);
        }
        let mut line = Line::new();
        let mut buffer = [0u8; 4096];
        loop {
            let length = match read(&file, &mut buffer) {
                Err(Errno::EINTR) => continue,
                other => other?,
            };
            let bytes = if length == 0 { &b"\n"[..] } else { &buffer[..length] };
            for byte in bytes {
                if let Some(home) = line.push(*byte, uid) {
                    return Ok(Some(home));
                }
            }
            if length == 0 {
                return Ok(None);
            }
        }
    }
}

/// One line of `passwd(5)`, kept up to a length that no real one has.
struct Line {
    bytes: [u8; 2048],
    length: usize,
    too_long: bool,
}

impl Line {
    fn new() -> Self {
        Self { bytes: [0; 2048], length: 0, too_long: false }
    }

    /// At the end of a line: the home of `uid`, when the line is his.
    fn push(&mut self, byte: u8, uid: u32) -> Option<Home> {
        if byte != b'\n' {
            match self.bytes.get_mut(self.length) {
                Some(place) => *place = byte,
                None => self.too_long = true,
            }
            self.length += 1;
            return None;
        }
        let line = if self.too_long { &[] } else { &self.bytes[..self.length] };
        let home = home_in(line, uid);
        *self = Self::new();
        home
    }
}

/// name:password:uid:gid:comment:home:shell
fn home_in(line: &[u8], uid: u32) -> Option<Home> {
    let mut fields = line.split(|b| *b == b':');
    let number = std::str::from_utf8(fields.nth(2)?).ok()?;
    if number.parse() != Ok(uid) {
        return None;
    }
    let home = fields.nth(2)?;
    let mut out = Home::ROOT;
    let room = out.0.get_mut(5..5 + home.len())?;
    if home.is_empty() || 5 + home.len() == HOME_MAX {
        return None;
    }
    room.copy_from_slice(home);
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_home_is_found_by_number_and_not_by_name() {
        let lines =
            "1000:x:0:0::/wrong:/bin/sh\nroot:x:0:0:root:/root:/bin/bash\nnobody:x:1000:1000:,:/home/n:/x\n";
        let home =
            |uid| lines.lines().find_map(|l| home_in(l.as_bytes(), uid)).map(|h| h.as_cstr().to_owned());
        assert_eq!(home(1000).as_deref(), Some(c"HOME=/home/n"));
        assert_eq!(home(0).as_deref(), Some(c"HOME=/wrong"));
        assert_eq!(home(5), None);
        assert!(home_in(b"a:x:7", 7).is_none());
        assert!(home_in(b"a:x:7:7:c::/bin/sh", 7).is_none());
        assert!(home_in(format!("a:x:7:7:c:/{}:", "y".repeat(2000)).as_bytes(), 7).is_none());
    }

    #[test]
    fn a_line_without_end_is_passed_over() {
        let mut line = Line::new();
        assert!((0..10_000).all(|_| line.push(b'x', 0).is_none()));
        assert!(line.push(b'\n', 0).is_none());
        assert!(b"r:x:0:0:r:/root:/x".iter().all(|b| line.push(*b, 0).is_none()));
        assert_eq!(line.push(b'\n', 0).unwrap().as_cstr(), c"HOME=/root");
    }
}

#[cfg(test)]
mod fuzz {
    use super::*;

    /// The image's `/etc/passwd`, read to its end as the step does it.
    fn home(text: &[u8], uid: u32) -> Option<Vec<u8>> {
        let mut line = Line::new();
        let found = text.iter().chain(b"\n").find_map(|byte| line.push(*byte, uid));
        found.map(|home| home.as_cstr().to_bytes().to_vec())
    }

    #[test]
    fn passwords() {
        let long = format!("a:x:7:7::/{}:/bin/sh\nb:x:7:7:comment:/home/b:\n", "x".repeat(3000));
        let seeds =
            ["root:x:0:0:root:/root:/bin/bash\nseven:x:7:7:,,,:/home/seven:/bin/sh\n", &long, "7:x:7:7::/7:"];
        ::fuzz::target("passwd").seeds(seeds).rounds(10_000).run(|bytes| {
            let Some(home) = home(bytes, 7) else { return false };
            assert!(home.starts_with(b"HOME="), "{}", home.escape_ascii());
            // One line has it, with this very number.
            let has = |line: &[u8]| {
                let fields: Vec<&[u8]> = line.split(|b| *b == b':').collect();
                let number = fields.get(2).and_then(|f| std::str::from_utf8(f).ok()?.parse::<u32>().ok());
                // Behind a NUL there is nothing.
                let path = fields.get(5).and_then(|f| f.split(|b| *b == 0).next());
                number == Some(7) && path == Some(&home[5..])
            };
            assert!(bytes.split(|b| *b == b'\n').any(has), "{}", home.escape_ascii());
            true
        });
    }
}
