//! A configuration of which only the cgroups count.

use std::collections::BTreeMap;

use tare::config::{Config, Hooks, Linux, Namespaces, Process, Resources, Root, TimeOffsets, User};

pub(super) fn config(path: Option<String>, resources: Resources) -> Config {
    Config {
        oci_version: "1.3.0".into(),
        root: Root { path: "/".into(), readonly: true },
        process: Process {
            terminal: false,
            console_size: None,
            user: User::default(),
            args: vec![c"/bin/true".into()],
            env: vec![],
            cwd: c"/".into(),
            capabilities: None,
            rlimits: vec![],
            no_new_privileges: true,
            oom_score_adj: None,
            scheduler: None,
            io_priority: None,
            exec_cpu_affinity: None,
            apparmor_profile: None,
            selinux_label: None,
        },
        hostname: None,
        domainname: None,
        mounts: vec![],
        hooks: Hooks::default(),
        annotations: BTreeMap::new(),
        linux: Linux {
            namespaces: Namespaces::default(),
            uid_mappings: vec![],
            gid_mappings: vec![],
            time_offsets: TimeOffsets::default(),
            devices: vec![],
            cgroups_path: path,
            resources,
            sysctl: BTreeMap::new(),
            seccomp: None,
            rootfs_propagation: None,
            masked_paths: vec![],
            readonly_paths: vec![],
            mount_label: None,
            personality: None,
        },
        warnings: vec![],
    }
}
