//! `linux.resources`.
//! <https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#control-groups>
//!
//! Zeros are kept: engines send them for "not set", and what they mean differs between controllers.

use std::collections::{BTreeMap, BTreeSet};

use super::read::Node;
use super::{
    BlockIo, Cpu, DeviceKind, DeviceRule, HugepageLimit, InterfacePriority, Memory, Network, RdmaLimit,
    Resources, ThrottleDevice, WeightDevice,
};

pub(super) fn read(resources: &Node) -> Resources {
    Resources {
        devices: resources.each_object("devices", device_rule),
        memory: memory(resources),
        cpu: cpu(resources),
        pids_limit: resources.object("pids").and_then(|pids| pids.integer_in("limit", -1, i64::MAX)),
        block_io: block_io(resources),
        hugepage_limits: hugepage_limits(resources),
        network: network(resources),
        rdma: rdma(resources),
        unified: unified(resources),
    }
}

/// `None` is all.
const DEVICE_KINDS: &[(&str, Option<DeviceKind>)] =
    &[("a", None), ("c", Some(DeviceKind::Char)), ("b", Some(DeviceKind::Block))];

fn device_rule(node: &Node) -> Option<DeviceRule> {
    let allow = match node.required("allow") {
        Some(_) => node.bool("allow"),
        None => None,
    };
    let kind = match node.word("type", DEVICE_KINDS, "a type of device") {
        None if node.is_unset("type") => Some(None),
        kind => kind,
    };
    let number = |key| {
        let number = node.integer_in(key, -1, i64::from(u32::MAX))?;
        u32::try_from(number).ok()
    };
    let (major, minor) = (number("major"), number("minor"));
    let access = node.string("access");
    if access.is_some_and(|access| access.contains(|c| !"rwm".contains(c))) {
        node.refuse_at("access", "has other letters than r, w and m");
        return None;
    }
    let kind = kind?;
    // For all devices the kernel does not look at the letters (cgroup-v1/devices.rst), so they may
    // be missing.
    let has = |letter| access.map_or(kind.is_none(), |access| access.contains(letter));
    Some(DeviceRule { allow: allow?, kind, major, minor, read: has('r'), write: has('w'), mknod: has('m') })
}

fn memory(resources: &Node) -> Memory {
    let Some(node) = resources.object("memory") else { return Memory::default() };
    let bytes = |key| node.integer_in(key, -1, i64::MAX);
    for obsolete in ["kernel", "kernelTCP"] {
        if bytes(obsolete).is_some_and(|limit| limit != 0)
            && let Some(limit) = node.get(obsolete)
        {
            limit.warn("a limit of kernel memory is obsolete, it is ignored");
        }
    }
    let memory = Memory {
        limit: bytes("limit"),
        reservation: bytes("reservation"),
        swap: bytes("swap"),
        swappiness: swappiness(&node),
        disable_oom_killer: node.bool("disableOOMKiller"),
        use_hierarchy: node.bool("useHierarchy"),
        check_before_update: node.bool("checkBeforeUpdate"),
    };
    if let (Some(limit @ 1..), Some(swap @ 1..)) = (memory.limit, memory.swap)
        && swap < limit
    {
        node.refuse_at(
            "swap",
            format_args!("is memory and swap together, but below the memory limit {limit}"),
        );
    }
    memory
}

fn swappiness(memory: &Node) -> Option<u64> {
    // Docker's "not set" of -1, turned into the unsigned number of the specification.
    match memory.integer::<u64>("swappiness")? {
        u64::MAX => None,
        known @ 0..=100 => Some(known),
        _ => {
            memory.refuse_at("swappiness", "is not from 0 to 100");
            None
        }
    }
}

fn cpu(resources: &Node) -> Cpu {
    let Some(node) = resources.object("cpu") else { return Cpu::default() };
    Cpu {
        shares: node.integer("shares"),
        quota: node.integer("quota"),
        burst: node.integer("burst"),
        period: node.integer("period"),
        realtime_runtime: node.integer("realtimeRuntime"),
        realtime_period: node.integer("realtimePeriod"),
        idle: node.integer_in("idle", 0, 1),
        cpus: node.string("cpus").map(str::to_owned),
        mems: node.string("mems").map(str::to_owned),
    }
}

fn block_io(resources: &Node) -> BlockIo {
    let Some(node) = resources.object("blockIO") else { return BlockIo::default() };
    let throttles = |key| {
        let mut seen = BTreeSet::new();
        node.each_object(key, |item| {
            let (device, rate) = (device(item, &mut seen), item.required_integer("rate"));
            let (major, minor) = device?;
            Some(ThrottleDevice { major, minor, rate: rate? })
        })
    };
    let mut seen = BTreeSet::new();
    let weight_device = node.each_object("weightDevice", |item| {
        let device = device(item, &mut seen);
        let (weight, leaf_weight) = (weight(item, "weight"), weight(item, "leafWeight"));
        if item.get("weight").or(item.get("leafWeight")).is_none() {
            item.problem("has neither weight nor leafWeight");
        }
        let (major, minor) = device?;
        Some(WeightDevice { major, minor, weight, leaf_weight })
    });
    BlockIo {
        weight: weight(&node, "weight"),
        leaf_weight: weight(&node, "leafWeight"),
        weight_device,
        throttle_read_bps_device: throttles("throttleReadBpsDevice"),
        throttle_write_bps_device: throttles("throttleWriteBpsDevice"),
        throttle_read_iops_device: throttles("throttleReadIOPSDevice"),
        throttle_write_iops_device: throttles("throttleWriteIOPSDevice"),
    }
}

fn weight(node: &Node, key: &str) -> Option<u16> {
    let weight = node.integer(key)?;
    if !matches!(weight, 0 | 10..=1000) {
        node.refuse_at(key, "is not from 10 to 1000");
        return None;
    }
    Some(weight)
}

/// Of two entries for one device the second would undo the first.
fn device(node: &Node, seen: &mut BTreeSet<(u32, u32)>) -> Option<(u32, u32)> {
    let (major, minor) = (node.required_integer("major"), node.required_integer("minor"));
    let device = (major?, minor?);
    if !seen.insert(device) {
        node.problem(format!("device {}:{} is there twice", device.0, device.1));
        return None;
    }
    Some(device)
}

fn hugepage_limits(resources: &Node) -> Vec<HugepageLimit> {
    let mut seen = BTreeSet::new();
    resources.each_object("hugepageLimits", |item| {
        let size = item.required("pageSize").and_then(|size| {
            let text = size.as_str()?;
            match kernels_page_size(text) {
                None => size.refuse("is not a page size such as 64KB, 2MB or 1GB"),
                Some(kernels) if kernels != text => {
                    size.refuse(format_args!("is not as the kernel writes it, which is {kernels}"));
                }
                Some(_) if !seen.insert(text) => size.refuse("is there twice"),
                Some(_) => return Some(text.to_owned()),
            }
            None
        });
        let limit = item.required_integer("limit");
        Some(HugepageLimit { page_size: size?, limit: limit? })
    })
}

/// The name that a size has in files of the kernel (`mem_fmt` in `mm/hugetlb_cgroup.c`), which the
/// specification demands.
fn kernels_page_size(text: &str) -> Option<String> {
    const KB: u64 = 1;
    const MB: u64 = 1 << 10;
    const GB: u64 = 1 << 20;
    let (number, unit) = text.split_at_checked(text.len().checked_sub(2)?)?;
    let unit = match unit {
        "KB" => KB,
        "MB" => MB,
        "GB" => GB,
        _ => return None,
    };
    if !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let size = number.parse::<u64>().ok()?.checked_mul(unit).filter(|&size| size > 0)?;
    Some(match size {
        GB.. => format!("{}GB", size / GB),
        MB.. => format!("{}MB", size / MB),
        _ => format!("{size}KB"),
    })
}

fn network(resources: &Node) -> Network {
    let Some(node) = resources.object("network") else { return Network::default() };
    let mut seen = BTreeSet::new();
    let priorities = node.each_object("priorities", |item| {
        let name = item.required("name").and_then(|name| {
            let text = name.as_str()?;
            // dev_valid_name() of net/core/dev.c
            if text.is_empty()
                || text.len() >= INTERFACE_NAME_SIZE
                || text == "."
                || text == ".."
                || text.contains(|c: char| c == '/' || c == ':' || c == '\0' || c.is_whitespace())
            {
                name.refuse("is not the name of a network interface");
                return None;
            }
            if !seen.insert(text) {
                name.refuse("is there twice");
                return None;
            }
            Some(text.to_owned())
        });
        let priority = item.required_integer("priority");
        Some(InterfacePriority { name: name?, priority: priority? })
    });
    Network { class_id: node.integer("classID"), priorities }
}

/// `IFNAMSIZ` of `linux/if.h`, with the NUL at the end.
const INTERFACE_NAME_SIZE: usize = 16;

fn rdma(resources: &Node) -> BTreeMap<String, RdmaLimit> {
    let mut devices = BTreeMap::new();
    resources.each_entry("rdma", |device, node| {
        if device.is_empty() || device.contains(|c: char| c == '\0' || c.is_whitespace()) {
            return node.problem(format!("{device:?} is not the name of an RDMA device"));
        }
        if !node.is_object() {
            return;
        }
        let limit =
            RdmaLimit { hca_handles: node.integer("hcaHandles"), hca_objects: node.integer("hcaObjects") };
        if node.get("hcaHandles").or(node.get("hcaObjects")).is_none() {
            return node.problem("has neither hcaHandles nor hcaObjects");
        }
        devices.insert(device.to_owned(), limit);
    });
    devices
}

/// Names are those of files in the cgroup's folder, and nothing that leaves it.
fn unified(resources: &Node) -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    resources.each_entry("unified", |file, node| {
        let Some(value) = node.as_str() else { return };
        if file.is_empty() || file == "." || file == ".." || file.contains(['/', '\0']) {
            return node.problem(format!("{file:?} is not the name of a file of a cgroup"));
        }
        files.insert(file.to_owned(), value.to_owned());
    });
    files
}
