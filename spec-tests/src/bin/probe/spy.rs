//! The verb `spy`: a process of the container that looks into each new one as long as that is not yet a program
//! of the container's.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use serde_json::{Value, json};

use crate::say;

const SECRET: &[u8] = b"SECRET=";

#[derive(Default)]
struct Seen {
    /// Processes that were a program of somebody else's and let themselves be looked into.
    open: BTreeSet<u32>,
    /// Those that did not.
    closed: BTreeSet<u32>,
    /// Beyond 0, 1 and 2.
    descriptors: BTreeSet<String>,
    /// Working directories and roots that are not this container's root.
    places: BTreeSet<String>,
    memory: u32,
    /// The `Seccomp:` of their status.
    filters: BTreeSet<String>,
    /// In whose environment a variable named so stood: the caller's, and no container's.
    secrets: u32,
    /// That one of them had, by their numbers.
    capabilities: BTreeSet<u32>,
    /// Their programs' files, to be written to when nobody executes them any more.
    held: Vec<File>,
}

/// Until there is a file at `stop`, and says when it has seen five; then tries to write to the files of the programs that it saw.
pub(crate) fn spy(stop: &str) -> Result<Value, String> {
    let own = fs::read_link("/proc/self/exe").map_err(|e| e.to_string())?;
    let root = fs::metadata("/").map_err(|e| e.to_string())?;
    let end = Instant::now() + Duration::from_secs(60);
    let mut seen = Seen::default();
    let mut last = std::process::id();
    let mut enough = false;
    while !Path::new(stop).exists() && Instant::now() < end {
        // Those that came and went while we did not run are passed over.
        last = last.max(newest().unwrap_or(0).saturating_sub(1));
        for pid in last + 1..last + 4 {
            if Path::new(&format!("/proc/{pid}")).exists() {
                last = pid;
                while look(pid, &own, &root, &mut seen) {}
                if !enough && seen.open.union(&seen.closed).count() >= 5 {
                    enough = true;
                    say("seen five")?;
                }
            }
        }
    }
    // Until the last of them has ended, and the kernel knows it.
    std::thread::sleep(Duration::from_millis(500));
    let mut writes: BTreeMap<String, u32> = BTreeMap::new();
    for held in &seen.held {
        *writes.entry(write(held)).or_default() += 1;
    }
    Ok(json!({
        "open": seen.open.len(), "closed": seen.closed.len(), "descriptors": seen.descriptors,
        "places": seen.places, "memory": seen.memory, "capabilities": seen.capabilities, "secrets": seen.secrets, "filters": seen.filters,
        "writes": writes,
    }))
}

/// The number that was given last in our pid namespace (proc_loadavg(5)).
fn newest() -> Option<u32> {
    fs::read_to_string("/proc/loadavg").ok()?.split_whitespace().last()?.parse().ok()
}

fn write(held: &File) -> String {
    let path = format!("/proc/self/fd/{}", held.as_raw_fd());
    match OpenOptions::new().write(true).open(path).and_then(|mut file| file.write_all(b"#!/bin/sh\n")) {
        Ok(()) => "ok".to_owned(),
        Err(error) => format!("{:?}", Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))),
    }
}

/// False when there is nothing more to learn of it: it has ended, or is a program of the container's.
fn look(pid: u32, own: &Path, root: &Metadata, seen: &mut Seen) -> bool {
    let of = |name: &str| format!("/proc/{pid}/{name}");
    let foreign = || fs::read_link(of("exe")).map(|link| link != own);
    match foreign() {
        Ok(true) => {}
        Ok(false) => return false,
        Err(error) if error.raw_os_error() == Some(libc::EACCES) => {
            seen.closed.insert(pid);
            return true;
        }
        Err(_) => return false,
    }
    let mut found = Seen::default();
    for name in ["cwd", "root"] {
        if let Ok(place) = fs::metadata(of(name))
            && (place.dev(), place.ino()) != (root.dev(), root.ino())
        {
            let link = fs::read_link(of(name)).unwrap_or_default();
            found.places.insert(format!("{name} {}", link.display()));
        }
    }
    for entry in fs::read_dir(of("fd")).into_iter().flatten().flatten() {
        let number = entry.file_name().to_string_lossy().into_owned();
        if !["0", "1", "2"].contains(&number.as_str()) {
            found.descriptors.extend(describe(&entry.path()));
        }
    }
    found.memory = u32::from(File::open(of("mem")).is_ok());
    let environment = fs::read(of("environ")).unwrap_or_default();
    found.secrets = u32::from(environment.windows(SECRET.len()).any(|part| part == SECRET));
    let status = fs::read_to_string(of("status")).unwrap_or_default();
    let line = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let permitted = line("CapPrm:").and_then(|set| u64::from_str_radix(set, 16).ok()).unwrap_or(0);
    found.filters.extend(line("Seccomp:").map(str::to_owned));
    found.capabilities.extend((0..64).filter(|number| permitted >> number & 1 == 1));
    let held = OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(of("exe"));
    // What was found counts if it was found before the program of the container was executed.
    if !foreign().unwrap_or(false) {
        return false;
    }
    if seen.open.insert(pid) {
        seen.held.extend(held);
    }
    seen.descriptors.append(&mut found.descriptors);
    seen.places.append(&mut found.places);
    seen.secrets += found.secrets;
    seen.filters.append(&mut found.filters);
    seen.capabilities.append(&mut found.capabilities);
    seen.memory += found.memory;
    true
}

fn describe(path: &Path) -> Option<String> {
    let kind = fs::metadata(path).ok()?;
    let link = fs::read_link(path).ok()?;
    let kind = match kind.file_type() {
        kind if kind.is_socket() => return Some("socket".into()),
        kind if kind.is_dir() => "folder",
        kind if kind.is_file() => "file",
        kind if kind.is_fifo() => "fifo",
        kind if kind.is_char_device() || kind.is_block_device() => "device",
        _ => "other",
    };
    Some(format!("{kind} {}", link.display()))
}
