//! What systemd must know of a container's limits. Pure.
//!
//! We write every limit into the cgroup's files ourselves, with or without systemd. But systemd
//! writes its own idea of a unit into them again whenever it is reloaded, or a neighbour in the slice
//! changes: so all that has a property is told to it, too. What is told is read off the files and
//! values that we write, so that both cannot differ.
//!
//! <https://www.freedesktop.org/software/systemd/man/latest/systemd.resource-control.html>

use super::annotation::Property;
use super::wire::Value;
use crate::cgroup::devices::{Devices, Kind, MKNOD, Policy, READ, WRITE};

/// A property that versions of systemd before `since` do not know, and would refuse the unit for.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::cgroup) struct Versioned {
    pub(super) property: Property,
    pub(super) since: u32,
}

impl Versioned {
    fn always(name: &str, value: Value) -> Self {
        Versioned { property: Property::new(name, value), since: 0 }
    }

    fn since(since: u32, name: &str, value: Value) -> Self {
        Versioned { property: Property::new(name, value), since }
    }

    pub(super) fn describe(&self) -> String {
        let Versioned { property, since } = self;
        let condition = if *since > 0 { format!(" (systemd {since} or later)") } else { String::new() };
        format!("{}={}{condition}", property.name, property.value)
    }
}

/// Why a value cannot be told to systemd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unsaid {
    pub(super) file: String,
    pub(super) what: String,
}

const INFINITY: u64 = u64::MAX;
/// The kernel's period when none is given, in µs.
const DEFAULT_PERIOD: u64 = 100_000;

/// Properties for what is written into files of cgroups; what has none is passed over. And what cannot
/// be told.
pub(super) fn of_writes<'a>(
    writes: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> (Vec<Versioned>, Vec<Unsaid>) {
    let mut said = Said::default();
    let unsaid = writes.into_iter().filter_map(|(file, value)| said.add(file, value.trim()).err()).collect();
    (said.finish(), unsaid)
}

#[derive(Default)]
struct Said {
    properties: Vec<Versioned>,
    time: CpuTime,
    weight: Option<u64>,
    idle: Option<bool>,
}

impl Said {
    fn add(&mut self, file: &str, value: &str) -> Result<(), Unsaid> {
        let unsaid = |what: &str| Unsaid { file: file.into(), what: format!("{value:?} is not {what}") };
        let size = || size(value).ok_or_else(|| unsaid("a number, or max"));
        let number = || value.parse::<u64>().map_err(|_| unsaid("a number"));
        let set = || bits(value).ok_or_else(|| unsaid("a list of numbers")).map(bytes);
        let properties = &mut self.properties;
        if let Some((_, name, since)) = SIZES.iter().find(|(name, ..)| *name == file) {
            properties.push(Versioned::since(*since, name, Value::Uint64(size()?)));
            return Ok(());
        }
        match file {
            "cpuset.cpus" => properties.push(Versioned::since(244, "AllowedCPUs", set()?)),
            "cpuset.mems" => properties.push(Versioned::since(244, "AllowedMemoryNodes", set()?)),
            "cpu.weight" => self.weight = Some(number()?),
            "cpu.idle" => self.idle = Some(value == "1"),
            "cpu.max" => self.time = CpuTime::of_v2(value).ok_or_else(|| unsaid("a quota and a period"))?,
            "cpu.cfs_quota_us" => self.time.quota = Some(size()?),
            "cpu.cfs_period_us" => self.time.period = Some(number()?),
            // One weight for all devices; those of single ones systemd leaves alone.
            "io.weight" | "io.bfq.weight" => {
                let all = value.strip_prefix("default ").unwrap_or(value);
                if let Ok(all) = all.trim().parse() {
                    let weight = if file == "io.weight" { all } else { of_bfq(all) };
                    properties.push(Versioned::always("IOWeight", Value::Uint64(weight)));
                }
            }
            // Written to whichever of the two the kernel has: told once.
            "blkio.weight" | "blkio.bfq.weight" => {
                let property = Versioned::always("BlockIOWeight", Value::Uint64(number()?));
                properties.retain(|other| *other != property);
                properties.push(property);
            }
            _ => {}
        }
        Ok(())
    }

    fn finish(self) -> Vec<Versioned> {
        let mut properties = self.properties;
        properties.extend(self.time.properties());
        let weight = |weight| Versioned::always("CPUWeight", Value::Uint64(weight));
        match (self.idle, self.weight) {
            // It has no weight then, and 0 is systemd's word for that.
            (Some(true), _) => properties.push(Versioned::since(252, "CPUWeight", Value::Uint64(0))),
            (_, Some(number)) => properties.push(weight(number)),
            // That it was idle must be forgotten, or it is made so again.
            (Some(false), None) => properties.push(weight(INFINITY)),
            (None, None) => {}
        }
        properties
    }
}

/// Files with a number of bytes or tasks, or a share, their properties, and since when.
const SIZES: [(&str, &str, u32); 9] = [
    ("memory.min", "MemoryMin", 240),
    ("memory.low", "MemoryLow", 0),
    ("memory.high", "MemoryHigh", 0),
    ("memory.max", "MemoryMax", 0),
    ("memory.swap.max", "MemorySwapMax", 0),
    ("memory.zswap.max", "MemoryZSwapMax", 253),
    ("pids.max", "TasksMax", 0),
    // v1
    ("memory.limit_in_bytes", "MemoryLimit", 0),
    ("cpu.shares", "CPUShares", 0),
];

/// `max`, `-1`, `1024`, and `1G` as the kernel reads it (`memparse`).
fn size(value: &str) -> Option<u64> {
    if matches!(value, "max" | "-1") {
        return Some(INFINITY);
    }
    let (digits, shift) = match value.char_indices().last()? {
        (at, 'k' | 'K') => (&value[..at], 10),
        (at, 'm' | 'M') => (&value[..at], 20),
        (at, 'g' | 'G') => (&value[..at], 30),
        (at, 't' | 'T') => (&value[..at], 40),
        _ => (value, 0),
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// systemd gives `io.bfq.weight` (1 to 1000) what it makes of `IOWeight` (1 to 10000): the way back.
fn of_bfq(weight: u64) -> u64 {
    if weight <= 100 { weight } else { 100 + (weight - 100) * (10_000 - 100) / (1000 - 100) }
}

#[derive(Default)]
struct CpuTime {
    quota: Option<u64>,
    period: Option<u64>,
}

impl CpuTime {
    /// `max 100000`, `50000`
    fn of_v2(value: &str) -> Option<Self> {
        let mut words = value.split_ascii_whitespace();
        let quota = size(words.next()?)?;
        let period = words.next().map(str::parse).transpose().ok()?;
        words.next().is_none().then_some(CpuTime { quota: Some(quota), period })
    }

    fn properties(&self) -> Vec<Versioned> {
        let mut properties = Vec::new();
        if let Some(period) = self.period {
            properties.push(Versioned::since(242, "CPUQuotaPeriodUSec", Value::Uint64(period)));
        }
        if self.quota.is_some() || self.period.is_some() {
            let second = match self.quota.filter(|&quota| quota != INFINITY) {
                None => INFINITY,
                Some(quota) => per_second(quota, self.period.unwrap_or(DEFAULT_PERIOD)),
            };
            properties.push(Versioned::always("CPUQuotaPerSecUSec", Value::Uint64(second)));
        }
        properties
    }
}

/// Quota per second, in µs. systemd makes a whole percentage of it; rounded up, so that it allows
/// what we write into the file.
fn per_second(quota: u64, period: u64) -> u64 {
    const PERCENT: u64 = 10_000;
    let exact = u128::from(quota) * 1_000_000 / u128::from(period.max(1));
    u64::try_from(exact).unwrap_or(INFINITY - PERCENT).next_multiple_of(PERCENT)
}

/// `0-3,8`
fn bits(list: &str) -> Option<Vec<usize>> {
    // As many as the kernel can be built for (CONFIG_NR_CPUS); a list is no way to fill our memory.
    const MOST: usize = 1 << 13;
    let mut bits = Vec::new();
    for range in list.split(',').map(str::trim).filter(|range| !range.is_empty()) {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        if first > last || last >= MOST {
            return None;
        }
        bits.extend(first..=last);
    }
    // Nothing at all: that of the cgroup above.
    (!bits.is_empty() || list.is_empty()).then_some(bits)
}

/// The lowest bit of the first byte is number 0.
fn bytes(bits: Vec<usize>) -> Value {
    let mut bytes = vec![0u8; bits.iter().max().map_or(0, |last| last / 8 + 1)];
    for bit in bits {
        bytes[bit / 8] |= 1 << (bit % 8);
    }
    Value::Array("y".into(), bytes.into_iter().map(Value::Byte).collect())
}

/// The device rules on v1, where there is but one list for each cgroup and systemd writes its own
/// idea of it: `strict`, and what is allowed. What cannot be said to systemd is left out of *its* list:
/// we write ours after it, and should it write its own again, that allows less, never more.
pub(super) fn of_devices_v1(policy: &Policy) -> Vec<Versioned> {
    let entries: Vec<Value> = match policy {
        policy if policy.allows_everything() => {
            let none = Value::Array("(ss)".into(), Vec::new());
            return vec![
                Versioned::always("DevicePolicy", Value::text("auto")),
                Versioned::always("DeviceAllow", none),
            ];
        }
        // systemd has no rules that deny.
        Policy { allow: true, .. } => Vec::new(),
        Policy { exceptions, .. } => {
            exceptions.iter().filter_map(|(devices, access)| entry(devices, *access)).collect()
        }
    };
    vec![
        Versioned::always("DevicePolicy", Value::text("strict")),
        Versioned::always("DeviceAllow", Value::Array("(ss)".into(), entries)),
    ]
}

/// `/dev/char/1:3`, `char-136` (systemd 240), `char-*`; for all majors with one minor there is no way.
fn entry(devices: &Devices, access: u8) -> Option<Value> {
    let kind = if devices.kind == Kind::Char { "char" } else { "block" };
    let name = match (devices.major, devices.minor) {
        (Some(major), Some(minor)) => format!("/dev/{kind}/{major}:{minor}"),
        (Some(major), None) => format!("{kind}-{major}"),
        (None, None) => format!("{kind}-*"),
        (None, Some(_)) => return None,
    };
    let letter = |(bit, letter): (u8, char)| (access & bit != 0).then_some(letter);
    let access: String = [(READ, 'r'), (WRITE, 'w'), (MKNOD, 'm')].into_iter().filter_map(letter).collect();
    Some(Value::Struct(vec![Value::String(name), Value::String(access)]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::devices::tests::policy;

    fn show(writes: &[(&str, &str)]) -> Result<Vec<String>, String> {
        let (properties, unsaid) = of_writes(writes.iter().copied());
        match unsaid.first() {
            None => Ok(properties.iter().map(Versioned::describe).collect()),
            Some(unsaid) => Err(format!("{}: {}", unsaid.file, unsaid.what)),
        }
    }

    #[test]
    fn limits_and_their_properties() {
        for (writes, expected) in [
            (
                &[("memory.max", "1000"), ("memory.swap.max", "max")][..],
                "MemoryMax=1000 MemorySwapMax=infinity",
            ),
            (&[("memory.low", "1G"), ("memory.high", " 5k ")], "MemoryLow=1073741824 MemoryHigh=5120"),
            (&[("memory.min", "1")], "MemoryMin=1 (systemd 240 or later)"),
            (&[("pids.max", "max")], "TasksMax=infinity"),
            (&[("pids.max", "12")], "TasksMax=12"),
            (&[("cpu.weight", "79")], "CPUWeight=79"),
            (&[("cpu.weight", "79"), ("cpu.idle", "1")], "CPUWeight=0 (systemd 252 or later)"),
            // Not idle any more: told so, or systemd makes it idle again.
            (&[("cpu.idle", "0")], "CPUWeight=infinity"),
            (&[("cpu.idle", "0"), ("cpu.weight", "100")], "CPUWeight=100"),
            (
                &[("cpuset.cpus", ""), ("cpuset.mems", "\n")],
                "AllowedCPUs=[] (systemd 244 or later) AllowedMemoryNodes=[] (systemd 244 or later)",
            ),
            (
                &[("cpu.max", "50000 100000")],
                "CPUQuotaPeriodUSec=100000 (systemd 242 or later) CPUQuotaPerSecUSec=500000",
            ),
            (&[("cpu.max", "15001")], "CPUQuotaPerSecUSec=160000"),
            (
                &[("cpu.max", "max 50000")],
                "CPUQuotaPeriodUSec=50000 (systemd 242 or later) CPUQuotaPerSecUSec=infinity",
            ),
            (
                &[("cpu.cfs_period_us", "50000"), ("cpu.cfs_quota_us", "50000")],
                "CPUQuotaPeriodUSec=50000 (systemd 242 or later) CPUQuotaPerSecUSec=1000000",
            ),
            (&[("cpu.cfs_quota_us", "-1")], "CPUQuotaPerSecUSec=infinity"),
            (
                &[("cpuset.cpus", "0-3,8"), ("cpuset.mems", "0")],
                "AllowedCPUs=[0x0f, 0x01] (systemd 244 or later) AllowedMemoryNodes=[0x01] (systemd 244 or later)",
            ),
            (&[("io.weight", "default 200"), ("io.weight", "8:0 300")], "IOWeight=200"),
            (&[("io.bfq.weight", "1000")], "IOWeight=10000"),
            (&[("io.bfq.weight", "50")], "IOWeight=50"),
            (&[("blkio.weight", "500"), ("blkio.bfq.weight", "500")], "BlockIOWeight=500"),
            (&[("memory.limit_in_bytes", "-1"), ("cpu.shares", "512")], "MemoryLimit=infinity CPUShares=512"),
            // Only in the files: systemd has no property for them and does not touch them.
            (&[("cpu.max.burst", "5"), ("hugetlb.2MB.max", "0"), ("memory.oom.group", "1")], ""),
        ] {
            assert_eq!(show(writes).unwrap().join(" "), expected, "{writes:?}");
        }
    }

    #[test]
    fn values_that_systemd_cannot_be_told() {
        for (file, value, why) in [
            ("memory.max", "lots", "\"lots\" is not a number, or max"),
            ("pids.max", "", "\"\" is not a number, or max"),
            ("cpu.weight", "-5", "\"-5\" is not a number"),
            ("cpu.max", "1 2 3", "\"1 2 3\" is not a quota and a period"),
            ("cpuset.cpus", "3-1", "\"3-1\" is not a list of numbers"),
            ("cpuset.cpus", "0-99999999", "\"0-99999999\" is not a list of numbers"),
            ("cpuset.mems", ",", "\",\" is not a list of numbers"),
            ("cpuset.mems", "a", "\"a\" is not a list of numbers"),
        ] {
            assert_eq!(show(&[(file, value)]), Err(format!("{file}: {why}")));
        }
    }

    #[test]
    fn one_value_that_cannot_be_told_keeps_no_other_back() {
        let (properties, unsaid) = of_writes([("cpuset.cpus", "none"), ("memory.max", "max")]);
        assert_eq!(properties.iter().map(Versioned::describe).collect::<Vec<_>>(), ["MemoryMax=infinity"]);
        assert_eq!(unsaid.iter().map(|unsaid| &*unsaid.file).collect::<Vec<_>>(), ["cpuset.cpus"]);
    }

    #[test]
    fn cpu_time_is_rounded_up_to_whole_percents() {
        for (quota, period, expected) in [
            (100_000, 100_000, 1_000_000),
            (1, 100_000, 10_000),
            (33_333, 100_000, 340_000),
            (1000, 1_000_000, 10_000),
            (0, 100_000, 0),
            (u64::MAX - 1, 1, INFINITY - INFINITY % 10_000),
        ] {
            assert_eq!(per_second(quota, period), expected, "{quota} {period}");
        }
    }

    #[test]
    fn devices_on_v1() {
        let show = |rules: &[&str]| {
            of_devices_v1(&policy(rules)).iter().map(Versioned::describe).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(show(&["+a"]), "DevicePolicy=\"auto\" DeviceAllow=[]");
        assert_eq!(show(&["+a", "-b 8:0 rw"]), "DevicePolicy=\"strict\" DeviceAllow=[]");
        let strict = show(&["-a", "+c 10:229 rw", "+b 8:* r", "+c *:7 r"]);
        assert!(strict.starts_with("DevicePolicy=\"strict\" DeviceAllow=["), "{strict}");
        for expected in [
            "(\"char-*\", \"m\")",
            "(\"block-*\", \"m\")",
            "(\"/dev/char/1:3\", \"rwm\")",
            "(\"char-136\", \"rwm\")",
            "(\"/dev/char/10:229\", \"rw\")",
            "(\"block-8\", \"r\")",
        ] {
            assert!(strict.contains(expected), "{expected} in {strict}");
        }
        assert!(!strict.contains("*:7"), "{strict}");
    }
}
