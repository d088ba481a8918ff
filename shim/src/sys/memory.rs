//! Giving pages of the program back.

use std::ffi::c_void;
use std::fs;
use std::ops::Range;

use nix::errno::Errno;

/// The parts of the program that nobody can have written to: its read-only data and its code.
#[derive(Debug, Default)]
pub struct Program(Vec<Range<usize>>);

impl Program {
    /// As `/proc/self/smaps` has them. Nothing when that cannot be read: then nothing is given back.
    pub fn find() -> Self {
        fs::read_to_string("/proc/self/smaps").map(|text| Self::parse(&text)).unwrap_or_default()
    }

    fn parse(smaps: &str) -> Self {
        let mut found = Vec::new();
        let mut current = None;
        for line in smaps.lines() {
            if let Some(anonymous) = line.strip_prefix("Anonymous:") {
                // A page of its own is one that was written to, as relocations are before they become read-only.
                if anonymous.trim() == "0 kB" {
                    found.extend(current.take());
                }
            } else if let Some(range) = clean_file(line) {
                current = range;
            }
        }
        Self(found)
    }

    /// The pages leave our memory, not the page cache; what is used again comes back from there, without a
    /// read. A shim that has started a container has most of its program mapped, and then uses little
    /// of it for days.
    ///
    /// <https://man7.org/linux/man-pages/man2/madvise.2.html>
    /// What cannot be given back (locked pages, for example) is not tried again.
    pub fn give_back(&mut self) -> Result<(), Errno> {
        let mut failed = Ok(());
        self.0.retain(|range| {
            // SAFETY: MADV_DONTNEED on a private file mapping drops pages of ours and reads them from the file
            // again. `parse` has taken only mappings without the right to write and without a page that
            // differs from the file, and this process has changed the rights of none since: so what
            // is read again is what was there, for code that runs as for data that is borrowed. Nor is anything else
            // there by now: files are mapped by who loads the program alone, and that is never unmapped. The file
            // does not change either: one that is being executed cannot be written to (ETXTBSY), only replaced.
            let result =
                unsafe { libc::madvise(range.start as *mut c_void, range.len(), libc::MADV_DONTNEED) };
            let given = Errno::result(result);
            failed = failed.and(given.map(drop));
            given.is_ok()
        });
        failed
    }
}

/// Of a line that begins a mapping: its range, when it is of a file and can be read and not written.
/// `None` of any other line.
fn clean_file(line: &str) -> Option<Option<Range<usize>>> {
    let mut words = line.split_ascii_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let range = usize::from_str_radix(start, 16).ok()?..usize::from_str_radix(end, 16).ok()?;
    let rights = words.next()?;
    let is_file = words.nth(2).is_some_and(|inode| inode != "0");
    Some((matches!(rights, "r--p" | "r-xp") && is_file).then_some(range))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_cannot_have_been_written_is_given_back() {
        let smaps = "\
00200000-00281000 r--p 00000000 fe:01 77   /shim
Size:                516 kB
Anonymous:             0 kB
VmFlags: rd mr mw me
00281000-00449000 r-xp 00080000 fe:01 77   /shim
Anonymous:             0 kB
00449000-0044e000 r--p 00247000 fe:01 77   /shim
Anonymous:            20 kB
0044e000-00452000 rw-p 0024b000 fe:01 77   /shim
Anonymous:             0 kB
7ffff7fc1000-7ffff7fc5000 r--p 00000000 00:00 0 [vvar]
Anonymous:             0 kB
7ffff7fc5000-7ffff7fc7000 r-xp 00000000 00:00 0 [vdso]
Anonymous:             0 kB
";
        assert_eq!(Program::parse(smaps).0, [0x0020_0000..0x0028_1000, 0x0028_1000..0x0044_9000]);
    }

    #[test]
    fn what_cannot_be_given_back_is_said_once_and_the_rest_given() {
        let mut program = Program::find();
        let whole = program.0.clone();
        // Not at the begin of a page.
        program.0.insert(0, 1..4096);
        assert_eq!(program.give_back(), Err(Errno::EINVAL));
        assert_eq!(program.0, whole);
        assert_eq!(program.give_back(), Ok(()));
    }

    #[test]
    fn the_program_goes_on_afterwards() {
        let mut program = Program::find();
        assert!(!program.0.is_empty());
        for _ in 0..3 {
            program.give_back().expect("given back");
            assert_eq!(format!("{:?}", [1, 2]), "[1, 2]");
        }
    }
}

#[cfg(test)]
mod fuzz {
    use super::*;

    #[test]
    fn smaps() {
        let seeds = [
            "00200000-00281000 r--p 00000000 fe:01 77   /shim\nSize:  516 kB\nAnonymous:  0 kB\nVmFlags: rd\n",
            "00281000-00449000 r-xp 00080000 fe:01 77 /shim\nAnonymous: 4 kB\n0044e000-00452000 rw-p 0 0:0 0\n",
        ];
        ::fuzz::target("smaps").seeds(seeds).rounds(10_000).run(|bytes| {
            // Only looked at: nothing of this is ours to give back.
            let Ok(text) = std::str::from_utf8(bytes) else { return false };
            !Program::parse(text).0.is_empty()
        });
    }
}
