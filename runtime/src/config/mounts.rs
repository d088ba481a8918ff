//! `mounts`, and the id mappings that they and user namespaces have.
//! <https://github.com/opencontainers/runtime-spec/blob/main/config.md#mounts>

use std::ffi::CString;

use super::read::Node;
use super::{IdMapping, Mount};

/// `user_namespaces(7)`, "Defining user and group ID mappings", since Linux 4.15.
const MAPPINGS_MAX: usize = 340;

pub(super) fn read(document: &Node) -> Vec<Mount> {
    document.each_object("mounts", mount)
}

fn mount(node: &Node) -> Option<Mount> {
    // They become parts of C strings.
    let options = node.each("options", |option| option.as_c_string()?.into_string().ok());
    let kind = node.c_string("type");
    let source = node.c_string("source");
    let uid_mappings = id_mappings(node, "uidMappings");
    let gid_mappings = id_mappings(node, "gidMappings");
    let bind = options.iter().any(|option| option == "bind" || option == "rbind")
        || kind.as_deref().is_some_and(|kind| kind == c"bind");
    if node.is_unset("type") && !bind {
        node.problem_at("type", "is missing, and the options have neither bind nor rbind");
    }
    if uid_mappings.is_empty() != gid_mappings.is_empty() {
        node.problem("has one of uidMappings and gidMappings, but needs both or none");
    }
    if !uid_mappings.is_empty() && !bind {
        node.problem_at("uidMappings", "id mappings are for bind mounts only");
    }
    let destination = destination(node)?;
    Some(Mount { destination, source, kind, options, uid_mappings, gid_mappings })
}

fn destination(mount: &Node) -> Option<CString> {
    let node = mount.required("destination")?;
    let path = node.as_c_string()?;
    if path.is_empty() {
        node.problem("destination must not be empty");
        return None;
    }
    if path.as_bytes().starts_with(b"/") {
        return Some(path);
    }
    node.warn("a relative destination is deprecated, it is taken below /");
    let mut absolute = vec![b'/'];
    absolute.extend(path.as_bytes());
    CString::new(absolute).ok()
}

/// Mappings as the kernel takes them: whole, of at least one id, and not overlapping on either side.
pub(super) fn id_mappings(parent: &Node, key: &str) -> Vec<IdMapping> {
    let mut seen: Vec<IdMapping> = Vec::new();
    let mut too_many = false;
    parent.each_object(key, |node| {
        // It is refused already; each more would be compared with all before it.
        if seen.len() > MAPPINGS_MAX {
            return None;
        }
        let container_id = node.required_integer("containerID");
        let host_id = node.required_integer("hostID");
        let size = node.required_integer("size");
        let mapping = IdMapping { container_id: container_id?, host_id: host_id?, size: size? };
        if mapping.size == 0 {
            node.refuse_at("size", "maps no id");
            return None;
        }
        for (side, first) in [("containerID", mapping.container_id), ("hostID", mapping.host_id)] {
            if first.checked_add(mapping.size).is_none() {
                node.refuse_at(side, format_args!("and {} ids from there go beyond 2^32-1", mapping.size));
                return None;
            }
        }
        if seen.len() == MAPPINGS_MAX {
            if !too_many {
                node.problem(format!("the kernel takes {MAPPINGS_MAX} mappings at most"));
            }
            // Nor is each of them held against each.
            too_many = true;
            return None;
        }
        let side = |side: fn(&IdMapping) -> u32, name| {
            let other =
                seen.iter().position(|other| overlap(side(other), other.size, side(&mapping), mapping.size));
            if let Some(other) = other {
                node.refuse_at(name, format_args!("overlaps with mapping {other} of this list"));
            }
        };
        side(|mapping| mapping.container_id, "containerID");
        side(|mapping| mapping.host_id, "hostID");
        seen.push(mapping);
        Some(mapping)
    })
}

fn overlap(a: u32, a_size: u32, b: u32, b_size: u32) -> bool {
    a < b + b_size && b < a + a_size
}
