//! What the block devices of v1 did. Which file is read, and that the first absent one ends it, is the
//! stock shim's (`blkio.go`): CFQ's files, and where those say nothing, what the throttling counts in
//! the cgroup itself. A scheduler's own files (`blkio.bfq.*`) it does not know.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;

use tare::cgroup::stats::io_table;

use crate::error::{Error, Result};
use crate::wire::messages::cgroup1::{BlkIOEntry, BlkIOStat};

/// The name of a device in `/dev`, by its numbers.
pub(super) type Devices = BTreeMap<(u64, u64), String>;

pub(super) fn devices(partitions: &str) -> Devices {
    let mut devices = Devices::new();
    for line in partitions.lines() {
        // The header is no number.
        if let [major, minor, _, name] = line.split_ascii_whitespace().collect::<Vec<_>>()[..]
            && let (Ok(major), Ok(minor)) = (major.parse(), minor.parse())
        {
            devices.entry((major, minor)).or_insert_with(|| format!("/dev/{name}"));
        }
    }
    devices
}

/// A file, and the table that it fills.
type Table = (&'static str, fn(&mut BlkIOStat) -> &mut Vec<BlkIOEntry>);

/// Gone since Linux 5.0.
const CFQ: [Table; 8] = [
    ("blkio.sectors_recursive", |s| &mut s.sectors_recursive),
    ("blkio.io_service_bytes_recursive", |s| &mut s.io_service_bytes_recursive),
    ("blkio.io_serviced_recursive", |s| &mut s.io_serviced_recursive),
    ("blkio.io_queued_recursive", |s| &mut s.io_queued_recursive),
    ("blkio.io_service_time_recursive", |s| &mut s.io_service_time_recursive),
    ("blkio.io_wait_time_recursive", |s| &mut s.io_wait_time_recursive),
    ("blkio.io_merged_recursive", |s| &mut s.io_merged_recursive),
    ("blkio.time_recursive", |s| &mut s.io_time_recursive),
];

/// Of the cgroup alone, whatever the tables are called.
const THROTTLE: [Table; 2] = [
    ("blkio.throttle.io_serviced", |s| &mut s.io_serviced_recursive),
    ("blkio.throttle.io_service_bytes", |s| &mut s.io_service_bytes_recursive),
];

pub(super) fn read(folder: &Path, devices: &Devices) -> Result<BlkIOStat> {
    let mut stat = BlkIOStat::default();
    let counts_cfq = folder.join("blkio.io_serviced_recursive").exists();
    let families: &[&[Table]] = if counts_cfq { &[&CFQ, &THROTTLE] } else { &[&THROTTLE] };
    for tables in families {
        let mut count = 0;
        for (file, table) in *tables {
            let Some(entries) = entries(&folder.join(file), devices)? else { return Ok(stat) };
            count += entries.len();
            table(&mut stat).extend(entries);
        }
        if count > 0 {
            break;
        }
    }
    Ok(stat)
}

/// `None`: there is no such file.
fn entries(path: &Path, devices: &Devices) -> Result<Option<Vec<BlkIOEntry>>> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io("read", path, &error)),
    };
    let unknown = || Error::Unknown(format!("{}: this is no table of devices: {text:?}", path.display()));
    let entries = io_table(&text).ok_or_else(unknown)?.into_iter().map(|entry| BlkIOEntry {
        op: entry.op,
        device: devices.get(&(entry.major, entry.minor)).cloned().unwrap_or_default(),
        major: entry.major,
        minor: entry.minor,
        value: entry.value,
        ..Default::default()
    });
    Ok(Some(entries.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tables as `letter=value`, in the order of the message; of an entry the operation's first letter.
    fn told(files: &[(&str, &str)]) -> Result<String> {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let stat = read(folder.path(), &devices("major minor\n\n 8 0 1 sda\n 8 0 1 again\n"))?;
        let tables = [
            ("bytes", &stat.io_service_bytes_recursive),
            ("serviced", &stat.io_serviced_recursive),
            ("queued", &stat.io_queued_recursive),
            ("service_time", &stat.io_service_time_recursive),
            ("wait_time", &stat.io_wait_time_recursive),
            ("merged", &stat.io_merged_recursive),
            ("time", &stat.io_time_recursive),
            ("sectors", &stat.sectors_recursive),
        ];
        let all = tables.into_iter().flat_map(|(name, table)| table.iter().map(move |entry| (name, entry)));
        let words = all.map(|(name, e)| {
            format!("{name} {}({}:{}) {} {}", e.device, e.major, e.minor, e.op, e.value).replace("  ", " ")
        });
        Ok(words.collect::<Vec<_>>().join(", "))
    }

    #[test]
    fn the_files_are_those_that_the_stock_shim_reads() {
        const SERVICED: (&str, &str) = ("blkio.throttle.io_serviced", "8:0 Read 1\n8:0 Total 1\nTotal 1\n");
        const BYTES: (&str, &str) = ("blkio.throttle.io_service_bytes", "7:1 Write 512\nTotal 512\n");
        const THROTTLED: &str =
            "bytes (7:1) Write 512, serviced /dev/sda(8:0) Read 1, serviced /dev/sda(8:0) Total 1";
        let cfq = |values: [&'static str; 8]| CFQ.iter().map(|table| table.0).zip(values).collect::<Vec<_>>();
        let empty = cfq(["Total 0\n"; 8]);
        let full =
            cfq(["8:0 1", "8:0 Read 2", "8:0 Read 3", "8:0 Read 4", "8:0 Read 5", "8:0 Read 6", "", "8:0 8"]);
        let counted = "bytes /dev/sda(8:0) Read 2, serviced /dev/sda(8:0) Read 3, queued /dev/sda(8:0) Read 4, \
                       service_time /dev/sda(8:0) Read 5, wait_time /dev/sda(8:0) Read 6, \
                       time /dev/sda(8:0) 8, sectors /dev/sda(8:0) 1";
        let both = [SERVICED, BYTES];
        let ignored = [
            ("blkio.throttle.io_serviced_recursive", "8:0 Read 9\n"),
            ("blkio.bfq.io_serviced_recursive", "8:0 Read 9\n"),
        ];
        for (files, expected) in [
            (vec![], ""),
            (both.to_vec(), THROTTLED),
            ([ignored, both].concat(), THROTTLED),
            // The devices have another scheduler.
            ([empty, both.to_vec()].concat(), THROTTLED),
            ([full.clone(), both.to_vec()].concat(), counted),
            // The first absent file is the last that is looked at.
            (vec![BYTES], ""),
            (vec![SERVICED], "serviced /dev/sda(8:0) Read 1, serviced /dev/sda(8:0) Total 1"),
            ([full[1..].to_vec(), both.to_vec()].concat(), ""),
            // CFQ's, but not the one it is known by.
            ([full[..2].to_vec(), both.to_vec()].concat(), THROTTLED),
        ] {
            assert_eq!(told(&files).unwrap(), expected, "{files:?}");
        }
    }

    #[test]
    fn what_is_no_table_is_an_error_that_names_the_file() {
        for text in ["8:0\n", "8 0 Read 1\n", "8:0 Read x\n"] {
            let error = told(&[("blkio.throttle.io_serviced", text)]).unwrap_err().to_string();
            assert!(error.contains("blkio.throttle.io_serviced"), "{error}");
        }
    }
}
