//! What only more than one property together can tell.

use super::read::Report;
use super::{Config, Linux, Namespace, TimeOffsets};

/// Checks that need the namespaces, when those could be read.
pub(super) fn across(config: &Config, report: &Report) {
    if report.is_bad("/linux/namespaces") {
        return;
    }
    let linux = &config.linux;
    uts(config, report);
    user(linux, report);
    if linux.time_offsets != TimeOffsets::default() && linux.namespaces.time != Namespace::New {
        // Those of an existing one are frozen by its first process (time_namespaces(7)).
        report.problem("/linux/timeOffsets", "time offsets need a new time namespace");
    }
    if linux.namespaces.mount == Namespace::Inherit {
        for (pointer, paths) in
            [("/linux/maskedPaths", &linux.masked_paths), ("/linux/readonlyPaths", &linux.readonly_paths)]
        {
            if !paths.is_empty() {
                report.problem(pointer, "unable to restrict paths without a private mount namespace");
            }
        }
    }
    id_mapped_mounts(config, report);
}

/// Or the container would rename its host.
fn uts(config: &Config, report: &Report) {
    if config.linux.namespaces.uts != Namespace::Inherit {
        return;
    }
    for (key, name) in [("hostname", &config.hostname), ("domainname", &config.domainname)] {
        if name.is_some() {
            report.problem(format!("/{key}"), format!("unable to set {key} without a private UTS namespace"));
        }
    }
}

fn user(linux: &Linux, report: &Report) {
    for (key, mappings) in [("uidMappings", &linux.uid_mappings), ("gidMappings", &linux.gid_mappings)] {
        let pointer = format!("/linux/{key}");
        match linux.namespaces.user {
            Namespace::Inherit if !mappings.is_empty() => {
                report.problem(pointer, "id mappings are given, but no user namespace");
            }
            Namespace::New if mappings.is_empty() && !report.is_bad(&pointer) => {
                report.problem(pointer, "a new user namespace needs id mappings, there are none");
            }
            // A joined one has its mappings; engines repeat them here.
            _ => {}
        }
    }
}

fn id_mapped_mounts(config: &Config, report: &Report) {
    if config.linux.namespaces.user != Namespace::Inherit || report.is_bad("/mounts") {
        return;
    }
    for (i, mount) in config.mounts.iter().enumerate() {
        let idmap = mount.options.iter().any(|option| option == "idmap" || option == "ridmap");
        if idmap && mount.uid_mappings.is_empty() {
            report.problem(
                format!("/mounts/{i}/options"),
                "an id-mapped mount needs mappings: its own, or those of a user namespace",
            );
        }
    }
}
