//! What a container used, as the kernel counts it: numbers in the kernel's own words, of both
//! versions. Who shows them (`events`, a shim's metrics) brings them into his own form.
//!
//! [`parse`] knows the forms of the files, [`v1`] and [`v2`] which file says what; neither reads.

#[cfg(test)]
mod fuzz;
mod parse;
#[cfg(test)]
mod tests;
mod v1;
mod v2;

use std::collections::BTreeMap;

use nix::errno::Errno;

pub use self::parse::io_table;
use super::folder::Folder;
use super::paths::Paths;
use crate::error::{Error, Result};

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Stats {
    pub cpu: Cpu,
    pub cpuset: Cpuset,
    pub memory: Memory,
    pub pids: Pids,
    pub io: Io,
    /// By the size of the pages: `2MB`.
    pub hugetlb: BTreeMap<String, Hugetlb>,
    pub rdma: Rdma,
}

/// Times are in nanoseconds.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Cpu {
    pub total: u64,
    pub kernel: u64,
    pub user: u64,
    /// v1 alone, as the two below: in the order of the processors.
    pub per_cpu: Vec<u64>,
    pub per_cpu_kernel: Vec<u64>,
    pub per_cpu_user: Vec<u64>,
    pub periods: u64,
    pub throttled_periods: u64,
    pub throttled_time: u64,
    pub bursts: u64,
    pub burst_time: u64,
    /// v2 alone.
    pub pressure: Option<Pressure>,
}

/// v1 alone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cpuset {
    pub cpus: Vec<u16>,
    pub mems: Vec<u16>,
    pub cpu_exclusive: u64,
    pub mem_exclusive: u64,
    pub mem_hardwall: u64,
    pub memory_migrate: u64,
    pub memory_pressure: u64,
    pub memory_spread_page: u64,
    pub memory_spread_slab: u64,
    pub sched_load_balance: u64,
    pub sched_relax_domain_level: i64,
}

/// In bytes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Memory {
    pub usage: Counter,
    /// v1: memory and swap together; `None` where swap is not counted.
    pub memory_and_swap: Option<Counter>,
    /// v2: swap alone; `None` where swap is not counted.
    pub swap: Option<Counter>,
    /// v1 alone, as the one below.
    pub kernel: Counter,
    pub kernel_tcp: Counter,
    /// `memory.stat`, line by line. Its names differ between the versions.
    pub stat: BTreeMap<String, u64>,
    /// v2: `memory.events` (`low`, `high`, `max`, `oom`, `oom_kill`, …); v1: `memory.oom_control`.
    pub events: BTreeMap<String, u64>,
    /// v2 alone.
    pub pressure: Option<Pressure>,
}

/// What has a limit. No limit is `u64::MAX` on v2, and nearly 2^63 on v1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counter {
    pub limit: u64,
    pub usage: u64,
    pub max_usage: u64,
    /// v1: how often the limit was hit.
    pub failcnt: u64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pids {
    pub current: u64,
    /// `None`: no limit.
    pub limit: Option<u64>,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Io {
    /// v1; which of the tables there are depends on the scheduler of the devices.
    pub tables: IoTables,
    /// v2.
    pub devices: Vec<IoDevice>,
    pub pressure: Option<Pressure>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IoTables {
    pub service_bytes: Vec<IoEntry>,
    pub serviced: Vec<IoEntry>,
    pub queued: Vec<IoEntry>,
    pub service_time: Vec<IoEntry>,
    pub wait_time: Vec<IoEntry>,
    pub merged: Vec<IoEntry>,
    pub time: Vec<IoEntry>,
    pub sectors: Vec<IoEntry>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IoEntry {
    pub major: u64,
    pub minor: u64,
    /// `Read`, `Write`, …; empty where the table does not tell them apart.
    pub op: String,
    pub value: u64,
}

/// A line of `io.stat`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IoDevice {
    pub major: u64,
    pub minor: u64,
    /// `rbytes`, `wbytes`, `rios`, `wios`, `dbytes`, `dios`, …
    pub counters: BTreeMap<String, u64>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Hugetlb {
    pub pages: Counter,
    /// Of reservations, since Linux 5.7.
    pub reserved: Option<Counter>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rdma {
    pub current: Vec<RdmaDevice>,
    pub limit: Vec<RdmaDevice>,
}

/// No limit is `u32::MAX`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RdmaDevice {
    pub device: String,
    pub hca_handles: u32,
    pub hca_objects: u32,
}

/// <https://docs.kernel.org/accounting/psi.html>
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Pressure {
    pub some: Stall,
    pub full: Stall,
}

#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Stall {
    pub avg10: f64,
    pub avg60: f64,
    pub avg300: f64,
    /// Microseconds.
    pub total: u64,
}

impl Paths {
    /// All that is counted for the container now. What the host does not count is 0.
    pub fn stats(&self) -> Result<Stats> {
        let mut stats = Stats::default();
        for place in &self.v1 {
            let Some(folder) = Folder::open_if_there(&place.folder)? else { continue };
            for controller in &place.controllers {
                v1::read(&folder, controller, &mut stats)?;
            }
        }
        if let Some(place) = &self.v2
            && let Some(folder) = Folder::open_if_there(&place.folder)?
        {
            // On a hybrid host the container is in v2's tree too, where some controllers may be.
            v2::read(&folder, |controller| self.v1_with(controller).is_none(), &mut stats)?;
        }
        Ok(stats)
    }
}

/// The files of one cgroup.
trait Files {
    /// `None` when there is no such file, or the kernel does not count it here.
    fn text(&self, file: &str) -> Result<Option<String>>;

    /// Those whose names begin so.
    fn names(&self, prefix: &str) -> Result<Vec<String>>;

    fn read<T>(&self, file: &str, parse: impl FnOnce(&str) -> Option<T>) -> Result<Option<T>> {
        let Some(text) = self.text(file)? else { return Ok(None) };
        let foreign = || Error::Host {
            what: format!("{file} of a cgroup"),
            why: format!("{:?} has another form than known", text.lines().next().unwrap_or_default()),
        };
        parse(&text).ok_or_else(foreign).map(Some)
    }

    /// A single number; 0 when there is no such file.
    fn number(&self, file: &str) -> Result<u64> {
        Ok(self.read(file, parse::number)?.unwrap_or_default())
    }
}

impl Files for Folder {
    fn text(&self, file: &str) -> Result<Option<String>> {
        match self.read_if_there(file) {
            // Pressure, with psi=0.
            Err(error) if error.errno() == Some(Errno::EOPNOTSUPP) => Ok(None),
            other => other,
        }
    }

    fn names(&self, prefix: &str) -> Result<Vec<String>> {
        let entries = self.entries()?;
        let names = entries.iter().filter_map(|entry| entry.file_name().into_string().ok());
        Ok(names.filter(|name| name.starts_with(prefix)).collect())
    }
}

/// The sizes of pages that a hugetlb controller has files for: `2MB` of `hugetlb.2MB.max`.
fn page_sizes(files: &impl Files) -> Result<Vec<String>> {
    const PREFIX: &str = "hugetlb.";
    let names = files.names(PREFIX)?;
    let mut sizes: Vec<String> =
        names.iter().filter_map(|name| name[PREFIX.len()..].split('.').next()).map(str::to_owned).collect();
    sizes.sort();
    sizes.dedup();
    Ok(sizes)
}

/// The same files on v1 and v2.
fn rdma(files: &impl Files) -> Result<Rdma> {
    Ok(Rdma {
        current: files.read("rdma.current", parse::rdma)?.unwrap_or_default(),
        limit: files.read("rdma.max", parse::rdma)?.unwrap_or_default(),
    })
}

/// The same files on v1 and v2.
fn pids(files: &impl Files) -> Result<Pids> {
    let limit = files.read("pids.max", parse::number)?;
    Ok(Pids { current: files.number("pids.current")?, limit: limit.filter(|&limit| limit != u64::MAX) })
}
