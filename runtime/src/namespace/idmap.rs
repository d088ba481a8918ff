//! `uidMappings` and `gidMappings`: who may write them, and how (`user_namespaces(7)`).

use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::config::IdMapping;
use crate::error::{Error, Problem, Result};
use crate::host::Facts;
use crate::sys::procfs;

const CAP_SETGID: u64 = 1 << 6;
const CAP_SETUID: u64 = 1 << 7;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdMaps {
    pub uids: Vec<IdMapping>,
    pub gids: Vec<IdMapping>,
    pub uid_writer: Writer,
    pub gid_writer: Writer,
    /// `deny` is written to `setgroups`: without privilege that is the price of a gid map.
    pub deny_setgroups: bool,
}

/// Who writes a map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Writer {
    Ourselves,
    /// `newuidmap(1)` or `newgidmap(1)`: set-user-ID programs that know `/etc/subuid`.
    Program(PathBuf),
}

impl IdMaps {
    pub fn plan(
        uids: &[IdMapping],
        gids: &[IdMapping],
        facts: &Facts,
    ) -> std::result::Result<Self, Vec<Problem>> {
        let uid = Self::writer(uids, facts.capabilities & CAP_SETUID != 0, facts.euid, &facts.newuidmap);
        let gid = Self::writer(gids, facts.capabilities & CAP_SETGID != 0, facts.egid, &facts.newgidmap);
        let problem = |what: &str, program: &str| Problem {
            pointer: format!("/linux/{what}Mappings"),
            what: format!(
                "an unprivileged user may map only his own id, and {program}, which may map more, \
                 is not on PATH (package uidmap)"
            ),
        };
        let deny_setgroups = gid == Some(Writer::Ourselves) && facts.capabilities & CAP_SETGID == 0;
        match (uid, gid) {
            (Some(uid_writer), Some(gid_writer)) => {
                Ok(Self { uids: uids.to_vec(), gids: gids.to_vec(), uid_writer, gid_writer, deny_setgroups })
            }
            (uid, gid) => {
                let mut problems = Vec::new();
                if uid.is_none() {
                    problems.push(problem("uid", "newuidmap"));
                }
                if gid.is_none() {
                    problems.push(problem("gid", "newgidmap"));
                }
                Err(problems)
            }
        }
    }

    fn writer(map: &[IdMapping], privileged: bool, own: u32, program: &Option<PathBuf>) -> Option<Writer> {
        let only_own = matches!(map, [one] if one.size == 1 && one.host_id == own);
        if privileged || only_own { Some(Writer::Ourselves) } else { program.clone().map(Writer::Program) }
    }

    /// The id that the process has until it becomes its own user: root, where root is mapped.
    pub fn setup_ids(&self) -> (u32, u32) {
        (first_id(&self.uids), first_id(&self.gids))
    }

    /// Writes both maps for process `pid`, which waits for them in its new user namespace.
    pub fn write(&self, pid: i32) -> Result<()> {
        if self.deny_setgroups {
            write(pid, "setgroups", "deny")?;
        }
        write_map(pid, "gid_map", &self.gids, &self.gid_writer)?;
        write_map(pid, "uid_map", &self.uids, &self.uid_writer)
    }
}

/// A user namespace that is joined has its maps already.
pub fn first_id(map: &[IdMapping]) -> u32 {
    let holds_root = map.iter().any(|m| m.container_id == 0);
    if holds_root { 0 } else { map.first().map_or(0, |m| m.container_id) }
}

fn write_map(pid: i32, file: &str, map: &[IdMapping], writer: &Writer) -> Result<()> {
    match writer {
        Writer::Ourselves => write(pid, file, &lines(map)),
        Writer::Program(program) => {
            let numbers = map.iter().flat_map(|m| [m.container_id, m.host_id, m.size]);
            let output = Command::new(program)
                .arg(pid.to_string())
                .args(numbers.map(|n| n.to_string()))
                .stdin(Stdio::null())
                .output()
                .map_err(|e| Error::io("execute", program, &e))?;
            if output.status.success() {
                return Ok(());
            }
            Err(Error::Host {
                what: format!("{} for {}", program.display(), lines(map).trim_end().replace('\n', ", ")),
                why: String::from_utf8_lossy(output.stderr.trim_ascii()).into_owned(),
            })
        }
    }
}

/// The kernel takes a map in one write only.
fn write(pid: i32, file: &str, text: &str) -> Result<()> {
    procfs::write_of(pid, file, text)
        .map_err(|e| Error::sys(format!("write {:?} to", text.trim_end()), format!("/proc/{pid}/{file}"), e))
}

pub fn lines(map: &[IdMapping]) -> String {
    map.iter().map(|m| format!("{} {} {}\n", m.container_id, m.host_id, m.size)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: u64 = CAP_SETUID | CAP_SETGID;

    fn map(container_id: u32, host_id: u32, size: u32) -> IdMapping {
        IdMapping { container_id, host_id, size }
    }

    fn facts(capabilities: u64, programs: bool) -> Facts {
        let program = |name: &str| programs.then(|| PathBuf::from("/usr/bin").join(name));
        Facts {
            kernel: (6, 1),
            euid: 1000,
            egid: 1001,
            capabilities,
            last_capability: 40,
            in_user_namespace: false,
            rootless: true,
            apparmor: false,
            selinux: false,
            cgroup: crate::host::CgroupLayout::default(),
            systemd_cgroup: None,
            newuidmap: program("newuidmap"),
            newgidmap: program("newgidmap"),
            setgroups_denied: false,
            full_mounts: Vec::new(),
        }
    }

    #[test]
    fn each_map_is_written_by_whoever_may() {
        use Writer::{Ourselves, Program};
        let own = (vec![map(0, 1000, 1)], vec![map(0, 1001, 1)]);
        let more = (vec![map(0, 1000, 1), map(1, 100_000, 65_536)], vec![map(0, 100_000, 65_536)]);
        let by = |name: &str| Program(PathBuf::from("/usr/bin").join(name));
        for (maps, capabilities, programs, uid_writer, gid_writer, deny) in [
            // Without privilege one's own gid has its price: the groups stay.
            (&own, 0, false, Ourselves, Ourselves, true),
            (&own, 0, true, Ourselves, Ourselves, true),
            (&own, BOTH, false, Ourselves, Ourselves, false),
            (&more, BOTH, true, Ourselves, Ourselves, false),
            (&more, 0, true, by("newuidmap"), by("newgidmap"), false),
            (&more, CAP_SETGID, true, by("newuidmap"), Ourselves, false),
        ] {
            let plan = IdMaps::plan(&maps.0, &maps.1, &facts(capabilities, programs)).unwrap();
            assert_eq!((plan.uids, plan.gids), maps.clone());
            assert_eq!((plan.uid_writer, plan.gid_writer), (uid_writer, gid_writer), "{capabilities:x}");
            assert_eq!(plan.deny_setgroups, deny, "{capabilities:x} {programs}");
        }
    }

    #[test]
    fn a_map_that_nobody_may_write_is_a_problem_each() {
        let others = [map(0, 1, 1)];
        let own = [map(0, 1001, 1)];
        for (uids, gids, capabilities, pointers) in [
            (&others, &others, 0, &["/linux/uidMappings", "/linux/gidMappings"][..]),
            (&others, &own, 0, &["/linux/uidMappings"]),
            (&others, &others, CAP_SETUID, &["/linux/gidMappings"]),
        ] {
            let problems = IdMaps::plan(uids, gids, &facts(capabilities, false)).unwrap_err();
            let found: Vec<_> = problems.iter().map(|p| p.pointer.as_str()).collect();
            assert_eq!(found, pointers);
            assert!(problems.iter().all(|p| p.what.contains("not on PATH (package uidmap)")));
        }
    }

    #[test]
    fn setup_is_done_as_root_where_there_is_one() {
        for (maps, id) in [
            (&[map(5, 100, 1), map(0, 1000, 1)][..], 0),
            (&[map(0, 0, 4_294_967_295)], 0),
            (&[map(1000, 1000, 1), map(7, 7, 1)], 1000),
            (&[], 0),
        ] {
            assert_eq!(first_id(maps), id, "{maps:?}");
        }
    }

    #[test]
    fn a_map_has_a_line_for_each_range() {
        assert_eq!(lines(&[map(0, 1000, 1), map(1, 100_000, 65_536)]), "0 1000 1\n1 100000 65536\n");
    }
}
