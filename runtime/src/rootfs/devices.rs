//! Device nodes and the links in `/dev` (config-linux.md, "Default Devices" and "Devices").

use std::ffi::{CStr, CString};

use super::{Source, Tree};
use crate::config::{Config, Device, DeviceKind, Namespace};
use crate::sys::slots::Slot;

/// Always there, unless `/dev` is the host's.
const DEFAULT: [(&CStr, u32, u32); 6] = [
    (c"/dev/null", 1, 3),
    (c"/dev/zero", 1, 5),
    (c"/dev/full", 1, 7),
    (c"/dev/random", 1, 8),
    (c"/dev/urandom", 1, 9),
    (c"/dev/tty", 5, 0),
];

/// `config-linux.md`, "Default Devices", and the links that runc makes as well.
pub const LINKS: [(&CStr, &CStr); 4] = [
    (c"/dev/fd", c"/proc/self/fd"),
    (c"/dev/stdin", c"/proc/self/fd/0"),
    (c"/dev/stdout", c"/proc/self/fd/1"),
    (c"/dev/stderr", c"/proc/self/fd/2"),
];

/// One node. Made by `mknod(2)`, or, where a user namespace forbids that, the host's node bound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    pub device: Device,
    pub how: How,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum How {
    Mknod,
    Bind(Source),
}

/// The nodes of the container, and the trees that the parent opens for those that are bound.
pub fn plan(
    config: &Config,
    privileged: bool,
    may_mknod: bool,
    first: Slot,
) -> (Vec<Node>, Vec<(Slot, Tree)>) {
    let mut devices: Vec<Device> = DEFAULT
        .iter()
        .filter(|(path, ..)| !config.linux.devices.iter().any(|d| d.path.as_c_str() == *path))
        .map(|(path, major, minor)| Device {
            path: (*path).to_owned(),
            kind: DeviceKind::Char,
            major: *major,
            minor: *minor,
            mode: 0o666,
            uid: 0,
            gid: 0,
        })
        .collect();
    devices.extend(config.linux.devices.iter().cloned());
    let by_mknod = may_mknod && config.linux.namespaces.user == Namespace::Inherit;
    let mut trees = Vec::new();
    let nodes = devices
        .into_iter()
        .map(|device| {
            // A fifo is nobody's device: whoever may make a file may make one.
            if by_mknod || device.kind == DeviceKind::Fifo {
                return Node { device, how: How::Mknod };
            }
            let tree = Tree {
                source: device.path.clone(),
                recursive: false,
                nofollow: false,
                changes: Vec::new(),
                idmap: None,
                instead: None,
            };
            let source = if privileged {
                let slot = first + trees.len();
                trees.push((slot, tree));
                Source::Parent { slot, source: device.path.clone() }
            } else {
                Source::Child(tree)
            };
            Node { device, how: How::Bind(source) }
        })
        .collect();
    (nodes, trees)
}

impl Node {
    /// The name, when the node stands in `/dev` itself: found through the open folder, not by path.
    pub fn name_in_dev(&self) -> Option<&CStr> {
        let bytes = self.device.path.to_bytes_with_nul();
        let name = bytes.strip_prefix(b"/dev/")?;
        let plain = !name.contains(&b'/') && !matches!(name, b".\0" | b"..\0" | b"\0");
        if plain { CStr::from_bytes_with_nul(name).ok() } else { None }
    }

    pub fn file_type(&self) -> libc::mode_t {
        match self.device.kind {
            DeviceKind::Char => libc::S_IFCHR,
            DeviceKind::Block => libc::S_IFBLK,
            DeviceKind::Fifo => libc::S_IFIFO,
        }
    }

    pub fn rdev(&self) -> libc::dev_t {
        match self.device.kind {
            DeviceKind::Fifo => 0,
            _ => libc::makedev(self.device.major, self.device.minor),
        }
    }
}

/// For links: the name in `/dev`.
pub fn link_name(path: &CStr) -> CString {
    let bytes = path.to_bytes();
    let cut = bytes.iter().rposition(|b| *b == b'/').map_or(0, |at| at + 1);
    CString::new(&bytes[cut..]).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::{Value, json};

    use super::*;

    fn config(devices: Value, user: bool) -> Config {
        let mut linux = json!({ "namespaces": [{ "type": "mount" }], "devices": devices });
        if user {
            linux["namespaces"] = json!([{ "type": "mount" }, { "type": "user" }]);
            linux["uidMappings"] = json!([{ "containerID": 0, "hostID": 1000, "size": 1 }]);
            linux["gidMappings"] = linux["uidMappings"].clone();
        }
        let document = json!({
            "ociVersion": "1.3.0",
            "process": { "args": ["sh"], "cwd": "/", "user": { "uid": 0, "gid": 0 } },
            "root": { "path": "rootfs" },
            "linux": linux,
        });
        Config::from_slice(document.to_string().as_bytes(), Path::new("c"), Path::new("/b")).unwrap()
    }

    fn words(devices: Value, user: bool, privileged: bool, may_mknod: bool) -> Vec<String> {
        let (nodes, _) = plan(&config(devices, user), privileged, may_mknod, 30);
        nodes.iter().map(Node::to_string).collect()
    }

    #[test]
    fn the_default_devices_come_first_but_for_those_that_are_given() {
        let given = json!([
            { "path": "/dev/zero", "type": "c", "major": 1, "minor": 5, "fileMode": 0o600, "uid": 7, "gid": 8 },
            { "path": "/dev/sda", "type": "b", "major": 8, "minor": 0, "fileMode": 0o660 },
            { "path": "/run/p", "type": "p" },
        ]);
        assert_eq!(
            words(given, false, true, true),
            [
                "mknod /dev/null c 1:3 666 0:0",
                "mknod /dev/full c 1:7 666 0:0",
                "mknod /dev/random c 1:8 666 0:0",
                "mknod /dev/urandom c 1:9 666 0:0",
                "mknod /dev/tty c 5:0 666 0:0",
                "mknod /dev/zero c 1:5 600 7:8",
                "mknod /dev/sda b 8:0 660 0:0",
                "mkfifo /run/p 666",
            ]
        );
    }

    #[test]
    fn where_mknod_is_forbidden_the_hosts_node_is_bound() {
        let given = json!([{ "path": "/dev/fuse", "type": "c", "major": 10, "minor": 229 }, { "path": "/run/p", "type": "p" }]);
        // A user namespace of its own, a runtime in one, a runtime without CAP_MKNOD.
        for (user, privileged, may_mknod) in [(true, true, true), (true, false, false), (false, true, false)]
        {
            let config = config(given.clone(), user);
            let (nodes, trees) = plan(&config, privileged, may_mknod, 30);
            let bound = nodes.iter().filter(|node| matches!(node.how, How::Bind(_))).count();
            assert_eq!(bound, DEFAULT.len() + 1);
            assert_eq!(nodes[bound].to_string(), "mkfifo /run/p 666", "anybody may make one");
            assert_eq!(nodes[0].to_string(), "bind /dev/null of the host on /dev/null");
            // The parent opens them where it may, in slots that follow each other.
            let slots: Vec<_> = trees.iter().map(|(slot, _)| *slot).collect();
            let expected: Vec<_> = if privileged { (30..30 + bound).collect() } else { vec![] };
            assert_eq!(slots, expected);
            let by_child = nodes.iter().any(|node| matches!(node.how, How::Bind(Source::Child(_))));
            assert_eq!(by_child, !privileged);
        }
    }

    #[test]
    fn only_a_plain_name_is_found_through_the_open_folder() {
        for (path, name) in [
            (c"/dev/fuse", Some(c"fuse")),
            (c"/dev/net/tun", None),
            (c"/dev/..", None),
            (c"/dev/.", None),
            (c"/dev/", None),
            (c"/run/p", None),
        ] {
            let device = Device {
                path: path.into(),
                ..plan(&config(json!([]), false), true, true, 0).0[0].device.clone()
            };
            assert_eq!(Node { device, how: How::Mknod }.name_in_dev(), name, "{path:?}");
        }
    }

    #[test]
    fn links_are_made_by_their_name() {
        assert_eq!(
            LINKS.map(|(path, _)| link_name(path)),
            [c"fd", c"stdin", c"stdout", c"stderr"].map(CStr::to_owned)
        );
    }
}
