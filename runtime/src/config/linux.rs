//! `linux`, but for what has a file of its own.
//! <https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md>

use std::ffi::CString;

use super::read::Node;
use super::{
    Device, DeviceKind, Linux, Namespace, Namespaces, Propagation, Resources, TimeOffset, TimeOffsets,
    mounts, resources, seccomp, sysctl,
};

/// Without `linux` all of it has its default: no namespace of its own, no limit.
pub(super) fn read(document: &Node) -> Linux {
    let Some(linux) = document.object("linux") else { return Linux::default() };
    let namespaces = namespaces(&linux);
    Linux {
        uid_mappings: mounts::id_mappings(&linux, "uidMappings"),
        gid_mappings: mounts::id_mappings(&linux, "gidMappings"),
        time_offsets: time_offsets(&linux),
        devices: linux.each_object("devices", device),
        cgroups_path: linux.c_string("cgroupsPath").and_then(|path| path.into_string().ok()),
        resources: linux.object("resources").map_or_else(Resources::default, |node| resources::read(&node)),
        sysctl: sysctl::read(&linux, &namespaces),
        seccomp: linux.object("seccomp").and_then(|node| seccomp::read(&node)),
        rootfs_propagation: linux.word("rootfsPropagation", PROPAGATION, "a mount propagation"),
        masked_paths: linux.each("maskedPaths", |path| path.as_absolute_path()),
        readonly_paths: linux.each("readonlyPaths", |path| path.as_absolute_path()),
        mount_label: linux.c_string("mountLabel"),
        personality: personality(&linux),
        namespaces,
    }
}

/// The specification has four of them; runc takes the recursive ones too, and engines send them.
const PROPAGATION: &[(&str, Propagation)] = &[
    ("private", Propagation::Private),
    ("rprivate", Propagation::Rprivate),
    ("slave", Propagation::Slave),
    ("rslave", Propagation::Rslave),
    ("shared", Propagation::Shared),
    ("rshared", Propagation::Rshared),
    ("unbindable", Propagation::Unbindable),
    ("runbindable", Propagation::Runbindable),
];

/// Which field of [`Namespaces`] a type's name stands for.
type Field = fn(&mut Namespaces) -> &mut Namespace;

const NAMESPACES: &[(&str, Field)] = &[
    ("user", |all| &mut all.user),
    ("mount", |all| &mut all.mount),
    ("pid", |all| &mut all.pid),
    ("network", |all| &mut all.network),
    ("ipc", |all| &mut all.ipc),
    ("uts", |all| &mut all.uts),
    ("cgroup", |all| &mut all.cgroup),
    ("time", |all| &mut all.time),
];

fn namespaces(linux: &Node) -> Namespaces {
    let mut all = Namespaces::default();
    linux.each_object("namespaces", |node| {
        let field = node.required_word("type", NAMESPACES, "a type of namespace")?(&mut all);
        if *field != Namespace::Inherit {
            node.refuse_at("type", "is given twice");
            return None;
        }
        *field = if node.is_unset("path") {
            Namespace::New
        } else {
            Namespace::Join(node.get("path")?.as_absolute_path()?)
        };
        Some(())
    });
    all
}

fn time_offsets(linux: &Node) -> TimeOffsets {
    let mut offsets = TimeOffsets::default();
    linux.each_entry("timeOffsets", |clock, node| {
        let field = match clock {
            "monotonic" => &mut offsets.monotonic,
            "boottime" => &mut offsets.boottime,
            _ => return node.problem(format!("{clock:?} is not a clock; known are monotonic, boottime")),
        };
        if node.is_object() {
            *field = Some(TimeOffset {
                secs: node.integer("secs").unwrap_or(0),
                nanosecs: node.integer_in("nanosecs", 0, 999_999_999).unwrap_or(0),
            });
        }
    });
    offsets
}

/// `u` is `c` with another name, for mknod(1)'s sake.
const DEVICE_KINDS: &[(&str, DeviceKind)] =
    &[("c", DeviceKind::Char), ("u", DeviceKind::Char), ("b", DeviceKind::Block), ("p", DeviceKind::Fifo)];

/// The device numbers that a `dev_t` of Linux has room for (`linux/kdev_t.h`).
const MAJOR_MAX: u32 = (1 << 12) - 1;
const MINOR_MAX: u32 = (1 << 20) - 1;

fn device(node: &Node) -> Option<Device> {
    let kind = node.required_word("type", DEVICE_KINDS, "a type of device");
    let path: Option<CString> = node.required("path").and_then(|path| path.as_absolute_path());
    let (major, minor) = match kind {
        Some(DeviceKind::Fifo) | None => (Some(0), Some(0)),
        Some(DeviceKind::Char | DeviceKind::Block) => (
            node.required("major").and_then(|_| node.integer_in("major", 0, MAJOR_MAX)),
            node.required("minor").and_then(|_| node.integer_in("minor", 0, MINOR_MAX)),
        ),
    };
    // Some engines send st_mode whole, with the file's type.
    let mode = node.integer::<u32>("fileMode").map_or(0o666, |mode| mode & 0o7777);
    let (uid, gid) = (node.integer("uid").unwrap_or(0), node.integer("gid").unwrap_or(0));
    Some(Device { path: path?, kind: kind?, major: major?, minor: minor?, mode, uid, gid })
}

/// `linux/personality.h`
const PERSONALITIES: &[(&str, u32)] = &[("LINUX", 0x0000), ("LINUX32", 0x0008)];

fn personality(linux: &Node) -> Option<u32> {
    let node = linux.object("personality")?;
    node.each("flags", |flag| {
        flag.refuse("is not a flag of a personality; none is defined");
        Some(())
    });
    node.required_word("domain", PERSONALITIES, "a personality")
}
