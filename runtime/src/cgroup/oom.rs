//! What the kernel killed in a container's cgroup for want of memory.

use super::folder::Folder;
use super::paths::Paths;
use crate::error::Result;

/// Killings since the cgroup was made, and how it came to them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OomKills {
    pub count: u64,
    /// `memory.max is 262144 and the peak was 262144 in /sys/fs/cgroup/x`, in bytes.
    pub account: String,
}

impl Paths {
    /// `None` where no memory is counted.
    pub fn oom_kills(&self) -> Result<Option<OomKills>> {
        let v1 = self.v1_with("memory");
        let Some(place) = v1.or(self.v2.as_ref()) else { return Ok(None) };
        let Some(folder) = Folder::open_if_there(&place.folder)? else { return Ok(None) };
        let (events, limit, peak) = match v1 {
            Some(_) => ("memory.oom_control", "memory.limit_in_bytes", "memory.max_usage_in_bytes"),
            // The peak is there since Linux 5.19.
            None => ("memory.events", "memory.max", "memory.peak"),
        };
        let Some(count) = folder.read_if_there(events)?.and_then(|text| kills(&text)) else {
            return Ok(None);
        };
        let value = |file| Ok(folder.read_if_there(file)?.map(|text| text.trim_end().to_owned()));
        let mut account = match value(limit)? {
            Some(value) => format!("{limit} is {value}"),
            None => format!("there is no {limit}"),
        };
        if let Some(value) = value(peak)? {
            account.push_str(&format!(" and the peak was {value}"));
        }
        account.push_str(&format!(" in {}", place.folder.display()));
        Ok(Some(OomKills { count, account }))
    }
}

/// Of `oom_kill 3` among other lines (v1 has it since Linux 4.13).
fn kills(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")).and_then(|count| count.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::{Driver, Place};
    use std::fs;
    use std::path::Path;

    fn paths(folder: &Path, controller: &str) -> Paths {
        let place = Place { controllers: vec![controller.into()], folder: folder.into(), name: "/x".into() };
        match controller {
            "" => Paths { v2: Some(Place { controllers: vec![], ..place }), ..Paths::none(Driver::Cgroupfs) },
            _ => Paths { v1: vec![place], ..Paths::none(Driver::Cgroupfs) },
        }
    }

    #[test]
    fn kills_are_told_with_limit_and_peak() {
        for (controller, files, expected) in [
            (
                "",
                &[
                    ("memory.events", "low 0\nhigh 0\nmax 7\noom 1\noom_kill 2\noom_group_kill 0\n"),
                    ("memory.max", "262144\n"),
                    ("memory.peak", "262140\n"),
                ][..],
                Some((2, "memory.max is 262144 and the peak was 262140 in ")),
            ),
            (
                "",
                &[("memory.events", "oom_kill 0\n"), ("memory.max", "max\n")],
                Some((0, "memory.max is max in ")),
            ),
            (
                "memory",
                &[
                    ("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n"),
                    ("memory.limit_in_bytes", "4096\n"),
                    ("memory.max_usage_in_bytes", "4096\n"),
                ],
                Some((1, "memory.limit_in_bytes is 4096 and the peak was 4096 in ")),
            ),
            ("memory", &[("memory.oom_control", "under_oom 0\n")], None),
            ("", &[], None),
            ("cpu", &[], None),
        ] {
            let dir = tempfile::tempdir().unwrap();
            for (file, text) in files {
                fs::write(dir.path().join(file), text).unwrap();
            }
            let seen = paths(dir.path(), controller).oom_kills().unwrap();
            let expected = expected
                .map(|(count, text)| OomKills { count, account: format!("{text}{}", dir.path().display()) });
            assert_eq!(seen, expected, "{controller} {files:?}");
        }
    }
}
