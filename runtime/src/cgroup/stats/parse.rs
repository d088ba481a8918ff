//! The forms that the files of statistics have. Each function answers `None` for another form than
//! its own; what a newer kernel adds to one (lines, keys) is taken or passed over.

use std::collections::BTreeMap;

use super::{IoDevice, IoEntry, Pressure, RdmaDevice, Stall};

/// One number, or `max`. Below zero (a counter that was read in the middle of a change) is 0.
pub(super) fn number(text: &str) -> Option<u64> {
    let text = text.trim();
    match text.strip_prefix('-') {
        _ if text == "max" => Some(u64::MAX),
        Some(rest) => rest.parse::<u64>().ok().map(|_| 0),
        None => text.parse().ok(),
    }
}

/// `cpuacct.usage_percpu`: numbers in a row.
pub(super) fn numbers(text: &str) -> Option<Vec<u64>> {
    text.split_ascii_whitespace().map(number).collect()
}

/// `memory.stat` and others: a name and a number in each line.
pub(super) fn flat(text: &str) -> Option<BTreeMap<String, u64>> {
    let line = |line: &str| {
        let (name, value) = line.split_once(' ')?;
        Some((name.to_owned(), number(value)?))
    };
    text.lines().map(line).collect()
}

/// `cpuacct.usage_all`: a header, then processor, user and kernel time in each line.
pub(super) fn usage_all(text: &str) -> Option<(Vec<u64>, Vec<u64>)> {
    let line = |line: &str| match numbers(line)?[..] {
        [_, user, kernel] => Some((user, kernel)),
        _ => None,
    };
    text.lines().skip(1).map(line).collect()
}

/// `0-2,4`, in ascending order, as the kernel writes it; nothing is the empty list.
pub(super) fn list(text: &str) -> Option<Vec<u16>> {
    let mut all: Vec<u16> = Vec::new();
    for range in text.trim().split(',').filter(|range| !range.is_empty()) {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (u16, u16) = (first.parse().ok()?, last.parse().ok()?);
        // Else a few bytes that are repeated would be many numbers.
        if first > last || all.last().is_some_and(|before| first <= *before) {
            return None;
        }
        all.extend(first..=last);
    }
    Some(all)
}

/// A table of blkio: `8:0 Read 4096` or `8:0 4096`, and a sum of all at the end.
pub fn io_table(text: &str) -> Option<Vec<IoEntry>> {
    let mut entries = Vec::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let (device, op, value) = match words[..] {
            ["Total", _] => continue,
            [device, value] => (device, "", value),
            [device, op, value] => (device, op, value),
            _ => return None,
        };
        let (major, minor) = device_number(device)?;
        entries.push(IoEntry { major, minor, op: op.to_owned(), value: value.parse().ok()? });
    }
    Some(entries)
}

/// `io.stat`: `8:0 rbytes=4096 wbytes=0 …`. Other things than `key=number` are for other readers
/// (`cost.vrate=100.00`), and a device without counters says nothing.
pub(super) fn io_stat(text: &str) -> Option<Vec<IoDevice>> {
    let mut devices = Vec::new();
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        let (major, minor) = device_number(words.next()?)?;
        let counter = |word: &str| {
            let (key, value) = word.split_once('=')?;
            Some((key.to_owned(), value.parse().ok()?))
        };
        let counters: BTreeMap<String, u64> = words.filter_map(counter).collect();
        if !counters.is_empty() {
            devices.push(IoDevice { major, minor, counters });
        }
    }
    Some(devices)
}

fn device_number(text: &str) -> Option<(u64, u64)> {
    let (major, minor) = text.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// `rdma.current`: `mlx5_0 hca_handle=2 hca_object=2000`.
pub(super) fn rdma(text: &str) -> Option<Vec<RdmaDevice>> {
    let mut devices = Vec::new();
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        let mut device = RdmaDevice { device: words.next()?.to_owned(), ..RdmaDevice::default() };
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            let value = u32::try_from(number(value)?).unwrap_or(u32::MAX);
            match key {
                "hca_handle" => device.hca_handles = value,
                "hca_object" => device.hca_objects = value,
                _ => {}
            }
        }
        devices.push(device);
    }
    Some(devices)
}

/// `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`, and `full` where that has a meaning.
pub(super) fn pressure(text: &str) -> Option<Pressure> {
    let mut pressure = Pressure::default();
    for line in text.lines() {
        let (kind, values) = line.split_once(' ')?;
        match kind {
            "some" => pressure.some = stall(values)?,
            "full" => pressure.full = stall(values)?,
            _ => {}
        }
    }
    Some(pressure)
}

fn stall(values: &str) -> Option<Stall> {
    let mut stall = Stall::default();
    for word in values.split_ascii_whitespace() {
        let (key, value) = word.split_once('=')?;
        match key {
            "avg10" => stall.avg10 = value.parse().ok()?,
            "avg60" => stall.avg60 = value.parse().ok()?,
            "avg300" => stall.avg300 = value.parse().ok()?,
            "total" => stall.total = value.parse().ok()?,
            _ => {}
        }
    }
    Some(stall)
}
