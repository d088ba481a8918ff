//! `linux.sysctl`: names in one form, and only those that are the container's own.

use std::collections::BTreeMap;

use super::read::Node;
use super::{Namespace, Namespaces};

/// Names as paths below `/proc/sys`.
pub(super) fn read(linux: &Node, namespaces: &Namespaces) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let namespaces = (!linux.is_bad("namespaces")).then_some(namespaces);
    linux.each_entry("sysctl", |name, node| {
        let Some(value) = node.as_c_string() else { return };
        let Some(path) = path_of(name) else {
            return node.problem(format!("{name:?} is not the name of a sysctl"));
        };
        if let Some(why) = namespaces.and_then(|namespaces| refusal(&path, namespaces)) {
            return node.problem(format!("sysctl {name:?} {why}"));
        }
        let value = value.to_string_lossy().into_owned();
        if all.insert(path, value).is_some() {
            node.problem(format!("{name:?} is given twice, with dots and with slashes"));
        }
    });
    all
}

/// Sysctls of the ipc namespace (`ipc/ipc_sysctl.c`), beside all of `fs/mqueue`.
const IPC: &[&str] = &[
    "kernel/msgmax",
    "kernel/msgmnb",
    "kernel/msgmni",
    "kernel/sem",
    "kernel/shmall",
    "kernel/shmmax",
    "kernel/shmmni",
    "kernel/shm_rmid_forced",
];

/// Only what is the container's own may be set: the rest of `/proc/sys` is the host's.
fn refusal(path: &str, all: &Namespaces) -> Option<String> {
    let (namespace, name) = match path.split_once('/') {
        Some(("kernel", "hostname")) => return Some("is not allowed, use the property hostname".into()),
        Some(("kernel", "domainname")) => (&all.uts, "UTS"),
        Some(("kernel", _)) if IPC.contains(&path) => (&all.ipc, "IPC"),
        Some(("fs", rest)) if rest.starts_with("mqueue/") => (&all.ipc, "IPC"),
        Some(("net", _)) => (&all.network, "network"),
        Some(("user", _)) => (&all.user, "user"),
        _ => return Some("is not in a separate kernel namespace".into()),
    };
    let private = *namespace != Namespace::Inherit;
    (!private).then(|| format!("is not allowed without a private {name} namespace"))
}

/// `net.ipv4.ip_forward` and `net/ipv4/ip_forward` are the same. The first separator says which of
/// the two forms it is; the other character then is a part of names: `net.ipv4.conf.eth0/1.mtu` has
/// the interface `eth0.1` (sysctl.d(5)). Nothing that leaves `/proc/sys` is a name.
fn path_of(name: &str) -> Option<String> {
    let dots = matches!(name.find(['.', '/']), Some(at) if name.as_bytes()[at] == b'.');
    let swap = |c| match c {
        '.' if dots => '/',
        '/' if dots => '.',
        other => other,
    };
    let path: String = name.chars().map(swap).collect();
    let valid = |part: &str| !part.is_empty() && part != "." && part != ".." && !part.contains('\0');
    // All of them are in folders; a bare name is none.
    (path.contains('/') && path.split('/').all(valid)).then_some(path)
}

#[cfg(test)]
mod tests {
    use super::path_of;

    #[test]
    fn both_forms_of_a_name_are_one_path() {
        for (name, path) in [
            ("net.ipv4.ip_forward", "net/ipv4/ip_forward"),
            ("net/ipv4/ip_forward", "net/ipv4/ip_forward"),
            ("net.ipv4.conf.eno2/100.rp_filter", "net/ipv4/conf/eno2.100/rp_filter"),
            ("net/ipv4/conf/eno2.100/rp_filter", "net/ipv4/conf/eno2.100/rp_filter"),
        ] {
            assert_eq!(path_of(name).as_deref(), Some(path), "{name}");
        }
    }

    #[test]
    fn no_name_leaves_the_folder_of_sysctls() {
        for name in [
            "",
            ".",
            "/",
            "net/../kernel/core_pattern",
            "net.//.kernel.core_pattern",
            "/proc/sys/kernel/core_pattern",
            "net..x",
            "net.x.",
            "net.\0",
            "kernel",
        ] {
            assert_eq!(path_of(name), None, "{name:?}");
        }
    }
}
