//! `update`.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::Args;

use super::globals::Context;
use super::{Verb, id};
use crate::config::Resources;
use crate::error::{Error, Problem, Result};
use crate::lifecycle;

#[derive(Debug, Args)]
pub(super) struct Update {
    /// read the limits from FILE, a `linux.resources` of config.json; `-` is standard input
    #[arg(long, short, value_name = "FILE")]
    resources: Option<PathBuf>,
    /// weight of block I/O, 10 to 1000
    #[arg(long, value_name = "N")]
    blkio_weight: Option<u16>,
    /// period of the CPU limit, in microseconds
    #[arg(long, value_name = "N")]
    cpu_period: Option<String>,
    /// CPU time in each period, in microseconds; -1: no limit
    #[arg(long, value_name = "N")]
    cpu_quota: Option<String>,
    /// CPU time that may be saved up and used above the quota, in microseconds
    #[arg(long, value_name = "N")]
    cpu_burst: Option<String>,
    /// share of the CPU time, beside other containers
    #[arg(long, value_name = "N")]
    cpu_share: Option<String>,
    /// period of the realtime limit, in microseconds (cgroup v1)
    #[arg(long, value_name = "N")]
    cpu_rt_period: Option<String>,
    /// realtime in each period, in microseconds (cgroup v1)
    #[arg(long, value_name = "N")]
    cpu_rt_runtime: Option<String>,
    /// CPUs to use: 0-2,7
    #[arg(long, value_name = "LIST")]
    cpuset_cpus: Option<String>,
    /// memory nodes to use
    #[arg(long, value_name = "LIST")]
    cpuset_mems: Option<String>,
    #[arg(long, hide = true)]
    kernel_memory: Option<String>,
    #[arg(long, hide = true)]
    kernel_memory_tcp: Option<String>,
    /// memory limit, in bytes or with a unit: 512m, 1GiB; -1: no limit
    #[arg(long, value_name = "SIZE")]
    memory: Option<String>,
    /// 1: run only when nobody else wants the CPU; 0: as others
    #[arg(long, value_name = "N")]
    cpu_idle: Option<String>,
    /// memory that is spared when memory is short (v2), or taken back first above it (v1)
    #[arg(long, value_name = "SIZE")]
    memory_reservation: Option<String>,
    /// limit of memory and swap together; -1: no limit
    #[arg(long, value_name = "SIZE")]
    memory_swap: Option<String>,
    /// greatest number of tasks; -1: no limit
    #[arg(long, value_name = "N")]
    pids_limit: Option<i64>,
    /// Intel RDT: schema of the L3 cache
    #[arg(long, value_name = "SCHEMA")]
    l3_cache_schema: Option<String>,
    /// Intel RDT: schema of the memory bandwidth
    #[arg(long, value_name = "SCHEMA")]
    mem_bw_schema: Option<String>,
}

impl Verb for Update {
    const NAME: &str = "update";
    const ABOUT: &str = "change the limits of a container";
    const USAGE: &str = "<container-id>";
    const DESCRIPTION: &str = "\
Changes the limits that are named, all or none: when one of them is refused, the
others are put back. With --resources the other limits of the command line are
not looked at. Rules for devices stay as they are.

EXAMPLE:
    # tare update --memory 512m --memory-swap 1g --pids-limit 100 web
    # echo '{\"cpu\": {\"quota\": 50000, \"period\": 100000}}' | tare update -r - web";
    const ARGUMENTS: (usize, usize) = (1, 1);

    fn run(self, arguments: &[String], context: &Context) -> Result<u8> {
        let id = id(arguments)?;
        // In runc's words, which it says of a processor that lacks it.
        if self.l3_cache_schema.is_some() {
            return Err(Error::Usage("Intel RDT/CAT: l3 cache schema is not enabled".into()));
        }
        if self.mem_bw_schema.is_some() {
            return Err(Error::Usage("Intel RDT/MBA: memory bandwidth schema is not enabled".into()));
        }
        for (name, value) in
            [("kernel-memory", &self.kernel_memory), ("kernel-memory-tcp", &self.kernel_memory_tcp)]
        {
            if value.is_some() {
                context.runtime.warn(format!("--{name} is obsolete, it is ignored"));
            }
        }
        let (resources, file) = match &self.resources {
            Some(file) => {
                let (resources, warnings) = document(file)?;
                warnings.into_iter().for_each(|warning| context.runtime.warn(warning));
                (resources, Some(file))
            }
            None => (self.limits()?, None),
        };
        lifecycle::update::update(&context.runtime, &id, &resources).map_err(|e| located(e, file))?;
        Ok(0)
    }
}

impl Update {
    fn limits(self) -> Result<Resources> {
        let mut resources = Resources::default();
        resources.block_io.weight = self.blkio_weight;
        let cpu = &mut resources.cpu;
        cpu.period = number("cpu-period", self.cpu_period)?;
        cpu.quota = number("cpu-quota", self.cpu_quota)?;
        cpu.burst = number("cpu-burst", self.cpu_burst)?;
        cpu.shares = number("cpu-share", self.cpu_share)?;
        cpu.realtime_period = number("cpu-rt-period", self.cpu_rt_period)?;
        cpu.realtime_runtime = number("cpu-rt-runtime", self.cpu_rt_runtime)?;
        cpu.idle = number("cpu-idle", self.cpu_idle)?;
        cpu.cpus = self.cpuset_cpus;
        cpu.mems = self.cpuset_mems;
        let memory = &mut resources.memory;
        memory.limit = size("memory", self.memory)?;
        memory.reservation = size("memory-reservation", self.memory_reservation)?;
        memory.swap = size("memory-swap", self.memory_swap)?;
        // 0 is no number of tasks here: runc's option has it when it is not given.
        resources.pids_limit = self.pids_limit.filter(|&limit| limit != 0);
        Ok(resources)
    }
}

/// The limits of a file, and the warnings about them.
fn document(file: &Path) -> Result<(Resources, Vec<String>)> {
    if file == Path::new("-") {
        let mut bytes = Vec::new();
        let name = Path::new("standard input");
        std::io::stdin().read_to_end(&mut bytes).map_err(|e| Error::io("read", name, &e))?;
        return Resources::from_slice(&bytes, name);
    }
    Resources::from_slice(&std::fs::read(file).map_err(|e| Error::io("open", file, &e))?, file)
}

/// What cannot be is found by those who know the host, and they know a whole configuration: here it
/// is a file of limits alone, or options.
fn located(error: Error, file: Option<&PathBuf>) -> Error {
    match (error, file) {
        (Error::Config { problems, .. }, None) => {
            let all: Vec<String> = problems.into_iter().map(|problem| problem.what).collect();
            Error::Usage(all.join("; "))
        }
        (Error::Config { problems, .. }, Some(file)) => {
            let shorter = |p: Problem| Problem {
                pointer: p.pointer.strip_prefix("/linux/resources").unwrap_or(&p.pointer).to_owned(),
                ..p
            };
            let file = if file == Path::new("-") { "standard input".into() } else { file.clone() };
            Error::Config { file, problems: problems.into_iter().map(shorter).collect() }
        }
        (error, _) => error,
    }
}

fn number<N: FromStr>(name: &str, word: Option<String>) -> Result<Option<N>> {
    let wrong =
        |word: &str| Error::Usage(format!("invalid value for {name}: {word:?} is not a number for it"));
    word.map(|word| word.parse().map_err(|_| wrong(&word))).transpose()
}

fn size(name: &str, word: Option<String>) -> Result<Option<i64>> {
    let wrong = |word: &str| Error::Usage(format!("invalid value for {name}: invalid size: '{word}'"));
    word.map(|word| bytes(&word).ok_or_else(|| wrong(&word))).transpose()
}

/// `512m`, `1.5GiB`, `4096`, or -1. A unit is a power of 1024, as with Docker (go-units).
fn bytes(word: &str) -> Option<i64> {
    const UNITS: &str = "kmgtp";
    if word == "-1" {
        return Some(-1);
    }
    let digits = word.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(word.len());
    let (number, unit) = word.split_at(digits);
    let unit = unit.strip_prefix(' ').unwrap_or(unit).to_ascii_lowercase();
    let rest = unit.trim_start_matches(|c| UNITS.contains(c));
    let power = match unit.len() - rest.len() {
        0 => 0,
        1 => UNITS.find(&unit[..1])? + 1,
        _ => return None,
    };
    if !matches!(rest, "" | "b" | "i" | "ib") {
        return None;
    }
    let factor = 1i64.checked_shl(u32::try_from(power * 10).ok()?)?;
    if let Ok(whole) = number.parse::<i64>() {
        return whole.checked_mul(factor);
    }
    // A point needs digits on both sides.
    if number.starts_with('.') || number.ends_with('.') {
        return None;
    }
    #[expect(clippy::cast_precision_loss, reason = "a power of two")]
    let bytes = number.parse::<f64>().ok()? * factor as f64;
    #[expect(clippy::cast_possible_truncation, reason = "checked")]
    (bytes < 9.0e18).then_some(bytes as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units_of_1024() {
        for (word, expected) in [
            ("0", Some(0)),
            ("4096", Some(4096)),
            ("4096b", Some(4096)),
            ("512m", Some(512 << 20)),
            ("512M", Some(512 << 20)),
            ("512 MB", Some(512 << 20)),
            ("1g", Some(1 << 30)),
            ("1GiB", Some(1 << 30)),
            ("1gi", Some(1 << 30)),
            ("2TiB", Some(2 << 40)),
            ("3p", Some(3 << 50)),
            ("1.5k", Some(1536)),
            ("-1", Some(-1)),
            ("-2", None),
            ("", None),
            ("m", None),
            ("1x", None),
            ("1mm", None),
            ("1  m", None),
            (".5m", None),
            ("5.m", None),
            ("1.2.3m", None),
            ("1e3", None),
            ("9999p", None),
            ("99999999999999999999", None),
        ] {
            assert_eq!(bytes(word), expected, "{word:?}");
        }
    }

    #[test]
    fn a_wrong_number_is_named_with_its_option() {
        for (word, expected) in [("12", Some(12u64)), ("-1", None), ("0x10", None), ("", None)] {
            let value = number("cpu-period", Some(word.to_owned()));
            let refused = matches!(&value, Err(e) if e.to_string().contains("invalid value for cpu-period"));
            assert_eq!((value.ok().flatten(), refused), (expected, expected.is_none()), "{word}");
        }
        let error = size("memory", Some("12x".into())).unwrap_err().to_string();
        assert_eq!(error, "invalid value for memory: invalid size: '12x'");
    }
}

#[cfg(test)]
mod fuzz {
    #[test]
    fn sizes() {
        let seeds = ["512m", "1.5GiB", "4096", "-1", "2 TiB", "9999p", "0.000001k"];
        ::fuzz::target("sizes").seeds(seeds).rounds(20_000).run(|bytes| {
            let Ok(text) = std::str::from_utf8(bytes) else { return false };
            let size = super::bytes(text);
            assert!(size.is_none_or(|size| size >= -1), "{size:?}");
            if text.bytes().all(|byte| byte.is_ascii_digit()) {
                assert_eq!(size, text.parse().ok());
            }
            size.is_some()
        });
    }
}
