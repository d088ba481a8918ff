//! `spec`: a configuration to start from. It is runc's, key by key and in its order, so that what
//! edits runc's edits ours. (oci-spec's types write another order, and its default has more in it.)

use std::fs;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;
use serde_json::ser::{PrettyFormatter, Serializer};

use super::globals::Context;
use super::{OCI_VERSION, Verb};
use crate::error::{Error, Result};

#[derive(Debug, Args)]
pub(super) struct Spec {
    /// folder of the bundle (default: the current folder)
    #[arg(long, short, value_name = "DIR")]
    bundle: Option<PathBuf>,
    /// the name of the file, when it is not config.json
    #[arg(long, short, value_name = "FILE")]
    file: Option<PathBuf>,
    /// for a container that is made without root's privileges
    #[arg(long)]
    rootless: bool,
}

impl Verb for Spec {
    const NAME: &str = "spec";
    const ABOUT: &str = "write a configuration to start from";
    const USAGE: &str = "";
    const DESCRIPTION: &str = "\
Writes config.json for a container that runs `sh` on a terminal, in the root
filesystem `rootfs` of the bundle. Edit it to your needs. An existing file is
left alone.

EXAMPLE:
    # mkdir -p web/rootfs && docker export $(docker create busybox) | tar -C web/rootfs -x
    # tare spec --bundle web
    # tare run --bundle web web
    $ tare spec --rootless --bundle web      # then `tare run` needs no root";
    const ARGUMENTS: (usize, usize) = (0, 0);

    fn run(self, _: &[String], _: &Context) -> Result<u8> {
        let file = self.file.unwrap_or_else(|| "config.json".into());
        let path = self.bundle.unwrap_or_default().join(&file);
        let rootless =
            self.rootless.then(|| (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw()));
        // The same question as runc's `IsCgroup2UnifiedMode`, by what only the v2 root has.
        let unified = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
        write_new(&path, &file, &document(rootless, unified)?)?;
        Ok(0)
    }
}

fn write_new(path: &Path, name: &Path, text: &[u8]) -> Result<()> {
    let opened = fs::OpenOptions::new().write(true).create_new(true).mode(0o666).open(path);
    match opened {
        Ok(mut file) => file.write_all(text).map_err(|e| Error::io("write", path, &e)),
        Err(e) if e.kind() == ErrorKind::AlreadyExists => {
            Err(Error::Usage(format!("File {} exists. Remove it first", name.display())))
        }
        Err(e) => Err(Error::io("open", path, &e)),
    }
}

/// Indented with tabs, and no newline at the end.
fn document(rootless: Option<(u32, u32)>, unified: bool) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    let mut to = Serializer::with_formatter(&mut out, PrettyFormatter::with_indent(b"\t"));
    Document::new(rootless, unified).serialize(&mut to).map_err(|e| Error::Protocol(e.to_string()))?;
    Ok(out)
}

type Words = &'static [&'static str];

const CAPABILITIES: Words = &["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"];

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    oci_version: &'static str,
    process: Process,
    root: Root,
    hostname: &'static str,
    mounts: Vec<Mount>,
    linux: Linux,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Process {
    terminal: bool,
    user: User,
    args: Words,
    env: Words,
    cwd: &'static str,
    capabilities: Capabilities,
    rlimits: [Rlimit; 1],
    no_new_privileges: bool,
}

#[derive(Serialize)]
struct User {
    uid: u32,
    gid: u32,
}

/// Neither inheritable nor ambient ones (CVE-2022-24769).
#[derive(Serialize)]
struct Capabilities {
    bounding: Words,
    effective: Words,
    permitted: Words,
}

#[derive(Serialize)]
struct Rlimit {
    r#type: &'static str,
    hard: u64,
    soft: u64,
}

#[derive(Serialize)]
struct Root {
    path: &'static str,
    readonly: bool,
}

#[derive(Serialize)]
struct Mount {
    destination: &'static str,
    r#type: &'static str,
    source: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    options: Vec<&'static str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Linux {
    #[serde(skip_serializing_if = "Option::is_none")]
    uid_mappings: Option<[IdMapping; 1]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gid_mappings: Option<[IdMapping; 1]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resources: Option<Resources>,
    namespaces: Vec<Namespace>,
    masked_paths: Words,
    readonly_paths: Words,
}

#[derive(Serialize)]
struct IdMapping {
    #[serde(rename = "containerID")]
    container_id: u32,
    #[serde(rename = "hostID")]
    host_id: u32,
    size: u32,
}

#[derive(Serialize)]
struct Resources {
    devices: [DeviceRule; 1],
}

#[derive(Serialize)]
struct DeviceRule {
    allow: bool,
    access: &'static str,
}

#[derive(Serialize)]
struct Namespace {
    r#type: &'static str,
}

impl Document {
    /// `rootless`: the user and group that will be root in the container.
    fn new(rootless: Option<(u32, u32)>, unified: bool) -> Self {
        Self {
            oci_version: OCI_VERSION,
            process: Process {
                terminal: true,
                user: User { uid: 0, gid: 0 },
                args: &["sh"],
                env: &["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
                cwd: "/",
                capabilities: Capabilities {
                    bounding: CAPABILITIES,
                    effective: CAPABILITIES,
                    permitted: CAPABILITIES,
                },
                rlimits: [Rlimit { r#type: "RLIMIT_NOFILE", hard: 1024, soft: 1024 }],
                no_new_privileges: true,
            },
            root: Root { path: "rootfs", readonly: true },
            hostname: "tare",
            mounts: mounts(rootless.is_some()),
            linux: Linux {
                uid_mappings: rootless.map(|(uid, _)| to_root(uid)),
                gid_mappings: rootless.map(|(_, gid)| to_root(gid)),
                resources: match rootless {
                    // They need a cgroup that is delegated.
                    Some(_) => None,
                    None => Some(Resources { devices: [DeviceRule { allow: false, access: "rwm" }] }),
                },
                namespaces: namespaces(rootless.is_some(), unified),
                masked_paths: &[
                    "/proc/acpi",
                    "/proc/asound",
                    "/proc/kcore",
                    "/proc/keys",
                    "/proc/latency_stats",
                    "/proc/timer_list",
                    "/proc/timer_stats",
                    "/proc/sched_debug",
                    "/sys/firmware",
                    "/proc/scsi",
                    "/sys/devices/virtual/tpm",
                ],
                readonly_paths: &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
            },
        }
    }
}

fn to_root(host_id: u32) -> [IdMapping; 1] {
    [IdMapping { container_id: 0, host_id, size: 1 }]
}

fn namespaces(rootless: bool, unified: bool) -> Vec<Namespace> {
    // Without root, a network namespace would have nothing in it.
    let network = (!rootless).then_some("network");
    let cgroup = unified.then_some("cgroup");
    let user = rootless.then_some("user");
    let all = ["pid"].into_iter().chain(network).chain(["ipc", "uts", "mount"]).chain(cgroup).chain(user);
    all.map(|name| Namespace { r#type: name }).collect()
}

fn mounts(rootless: bool) -> Vec<Mount> {
    let mount = |destination, r#type, source, options: Words| Mount {
        destination,
        r#type,
        source,
        options: options.to_vec(),
    };
    // Only one group is mapped: the terminals' group 5 is not.
    let pts: Words = &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"];
    let pts = if rootless { &pts[..5] } else { pts };
    // A new sysfs needs a network namespace of one's own.
    let sys = if rootless {
        mount("/sys", "none", "/sys", &["rbind", "nosuid", "noexec", "nodev", "ro"])
    } else {
        mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"])
    };
    vec![
        mount("/proc", "proc", "proc", &[]),
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount("/dev/pts", "devpts", "devpts", pts),
        mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
        mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        sys,
        mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"]),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn value(rootless: Option<(u32, u32)>, unified: bool) -> Value {
        serde_json::from_slice(&document(rootless, unified).unwrap()).unwrap()
    }

    fn namespaces(value: &Value) -> Vec<&str> {
        let all = value["linux"]["namespaces"].as_array().unwrap();
        all.iter().map(|ns| ns["type"].as_str().unwrap()).collect()
    }

    #[test]
    fn the_specifications_types_read_it() {
        for rootless in [None, Some((1000, 100))] {
            for unified in [false, true] {
                let spec: oci_spec::runtime::Spec =
                    serde_json::from_slice(&document(rootless, unified).unwrap()).unwrap();
                assert_eq!(spec.version(), OCI_VERSION);
                assert_eq!(spec.process().as_ref().unwrap().terminal(), Some(true));
            }
        }
    }

    #[test]
    fn without_root_there_is_a_user_namespace_and_nothing_that_needs_privilege() {
        let (root, user) = (value(None, true), value(Some((1000, 100)), true));
        assert_eq!(namespaces(&root), ["pid", "network", "ipc", "uts", "mount", "cgroup"]);
        assert_eq!(namespaces(&user), ["pid", "ipc", "uts", "mount", "cgroup", "user"]);
        assert_eq!(namespaces(&value(None, false)), ["pid", "network", "ipc", "uts", "mount"]);
        assert_eq!(user["linux"]["uidMappings"][0]["hostID"], 1000);
        assert_eq!(user["linux"]["gidMappings"][0]["hostID"], 100);
        assert!(root["linux"]["uidMappings"].is_null() && !root["linux"]["resources"].is_null());
        assert!(user["linux"]["resources"].is_null());
        assert!(!user["mounts"].to_string().contains("gid=5"));
        assert_eq!(user["mounts"][5]["options"][0], "rbind");
    }

    #[test]
    fn an_existing_file_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        fs::write(&path, "mine").unwrap();
        let error = write_new(&path, Path::new("config.json"), b"x").unwrap_err();
        assert_eq!(error.to_string(), "File config.json exists. Remove it first");
        assert_eq!(fs::read(&path).unwrap(), b"mine");
    }
}
