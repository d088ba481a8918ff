//! `features`: what an engine may ask for here.
//!
//! The same keys in the same order as runc's, written from our own types: oci-spec's write `null` for
//! what is not said and annotations in an order that changes from call to call. A test has oci-spec
//! read the result.

use std::collections::BTreeMap;

use clap::Args;
use serde::Serialize;
use serde_json::ser::{PrettyFormatter, Serializer};

use super::globals::Context;
use super::report::print;
use super::{OCI_VERSION, Verb, version};
use crate::error::{Error, Result};
use crate::rootfs::options;

#[derive(Debug, Args)]
pub(super) struct Features {}

impl Verb for Features {
    const NAME: &str = "features";
    const ABOUT: &str = "print what this runtime supports";
    const USAGE: &str = "";
    const DESCRIPTION: &str = "\
Prints the JSON document by which engines find out what a runtime supports.
https://github.com/opencontainers/runtime-spec/blob/main/features.md

EXAMPLE:
    $ tare features";
    const ARGUMENTS: (usize, usize) = (0, 0);
    const HINT_ON_STDERR: bool = false;

    fn run(self, _: &[String], _: &Context) -> Result<u8> {
        print(&document()?)?;
        Ok(0)
    }
}

type Words = &'static [&'static str];

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    oci_version_min: &'static str,
    oci_version_max: &'static str,
    hooks: Words,
    mount_options: Vec<&'static str>,
    linux: Linux,
    annotations: BTreeMap<&'static str, &'static str>,
    potentially_unsafe_config_annotations: Words,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Linux {
    namespaces: Words,
    capabilities: Vec<String>,
    cgroup: Cgroup,
    seccomp: Seccomp,
    apparmor: Enabled,
    selinux: Enabled,
    intel_rdt: Enabled,
    memory_policy: MemoryPolicy,
    mount_extensions: MountExtensions,
    net_devices: Enabled,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Cgroup {
    v1: bool,
    v2: bool,
    systemd: bool,
    systemd_user: bool,
    rdma: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Seccomp {
    enabled: bool,
    actions: Words,
    operators: Words,
    archs: Words,
    known_flags: Words,
    supported_flags: Words,
}

#[derive(Serialize)]
struct MemoryPolicy {
    modes: Words,
    flags: Words,
}

#[derive(Serialize)]
struct MountExtensions {
    idmap: Enabled,
}

#[derive(Serialize)]
struct Enabled {
    enabled: bool,
}

const NO: Enabled = Enabled { enabled: false };
const YES: Enabled = Enabled { enabled: true };

const SECCOMP_FLAGS: Words = &[
    "SECCOMP_FILTER_FLAG_LOG",
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
    "SECCOMP_FILTER_FLAG_TSYNC",
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
];

impl Document {
    fn new() -> Self {
        Self {
            oci_version_min: "1.0.0",
            oci_version_max: OCI_VERSION,
            hooks: &[
                "prestart",
                "createRuntime",
                "createContainer",
                "startContainer",
                "poststart",
                "poststop",
            ],
            mount_options: options::WORDS.iter().map(|(word, _)| *word).collect(),
            linux: Linux {
                namespaces: &["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"],
                capabilities: crate::config::capability::ALL.iter().map(ToString::to_string).collect(),
                cgroup: Cgroup { v1: true, v2: true, systemd: true, systemd_user: true, rdma: true },
                seccomp: seccomp(),
                apparmor: YES,
                selinux: YES,
                intel_rdt: NO,
                memory_policy: MemoryPolicy { modes: &[], flags: &[] },
                mount_extensions: MountExtensions { idmap: YES },
                net_devices: NO,
            },
            // This one is runc's key, by which engines ask.
            annotations: BTreeMap::from([
                ("tare.commit", version::commit()),
                ("org.opencontainers.runc.checkpoint.enabled", "false"),
                ("tare.version", env!("CARGO_PKG_VERSION")),
            ]),
            // With a dot at the end: everything that begins so.
            potentially_unsafe_config_annotations: &["bundle", "org.systemd.property."],
        }
    }
}

fn seccomp() -> Seccomp {
    Seccomp {
        enabled: true,
        actions: &[
            "SCMP_ACT_ALLOW",
            "SCMP_ACT_ERRNO",
            "SCMP_ACT_KILL",
            "SCMP_ACT_KILL_PROCESS",
            "SCMP_ACT_KILL_THREAD",
            "SCMP_ACT_LOG",
            "SCMP_ACT_NOTIFY",
            "SCMP_ACT_TRACE",
            "SCMP_ACT_TRAP",
        ],
        operators: &[
            "SCMP_CMP_EQ",
            "SCMP_CMP_GE",
            "SCMP_CMP_GT",
            "SCMP_CMP_LE",
            "SCMP_CMP_LT",
            "SCMP_CMP_MASKED_EQ",
            "SCMP_CMP_NE",
        ],
        archs: &["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM", "SCMP_ARCH_X32", "SCMP_ARCH_X86", "SCMP_ARCH_X86_64"],
        known_flags: SECCOMP_FLAGS,
        supported_flags: SECCOMP_FLAGS,
    }
}

pub fn document() -> Result<String> {
    let mut out = Vec::new();
    let mut to = Serializer::with_formatter(&mut out, PrettyFormatter::with_indent(b"    "));
    Document::new().serialize(&mut to).map_err(|e| Error::Protocol(e.to_string()))?;
    out.push(b'\n');
    String::from_utf8(out).map_err(|e| Error::Protocol(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_specifications_types_read_it_and_nothing_is_left_unsaid() {
        let text = document().unwrap();
        assert!(!text.contains("null"), "{text}");
        let read: oci_spec::runtime::Features = serde_json::from_str(&text).unwrap();
        assert_eq!(read.oci_version_max(), OCI_VERSION);
        assert!(read.mount_options().as_ref().unwrap().iter().any(|option| option == "rro"));
        let linux = read.linux().as_ref().unwrap();
        assert!(linux.seccomp().as_ref().unwrap().actions().as_ref().unwrap().len() == 9);
        assert!(linux.capabilities().as_ref().unwrap().starts_with(&["CAP_CHOWN".into()]));
        let annotations = read.annotations().as_ref().unwrap();
        assert_eq!(annotations["org.opencontainers.runc.checkpoint.enabled"], "false");
    }

    #[test]
    fn it_begins_as_runcs() {
        let text = document().unwrap();
        assert!(text.starts_with("{\n    \"ociVersionMin\": \"1.0.0\",\n    \"ociVersionMax\": "), "{text}");
        assert!(text.ends_with("}\n"));
    }
}
