//! `linux.resources`.
//! <https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#control-groups>
//!
//! Zeros are kept: engines send them for "not set", and what they mean differs between controllers.

use std::collections::BTreeMap;

use super::read::Node;
use super::{Cpu, DeviceKind, DeviceRule, Memory, Resources};

pub(super) fn read(resources: &Node) -> Resources {
    Resources {
        devices: resources.each_object("devices", device_rule),
        memory: memory(resources),
        cpu: cpu(resources),
        pids_limit: resources.object("pids").and_then(|pids| pids.integer_in("limit", -1, i64::MAX)),
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
