//! The names of a container's unit and its slice, and the cgroup that systemd gives it. Pure.
//!
//! <https://www.freedesktop.org/software/systemd/man/latest/systemd.slice.html>,
//! <https://github.com/opencontainers/runc/blob/main/docs/systemd.md>

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// What a container's state keeps of its unit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unit {
    pub name: String,
    pub manager: Manager,
}

/// Which systemd.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Manager {
    /// PID 1.
    System,
    /// That of the user who we are: `user@UID.service`.
    User,
}

impl Manager {
    /// Where a container goes that names no slice.
    fn slice(self) -> &'static str {
        match self {
            Manager::System => "system.slice",
            Manager::User => "user.slice",
        }
    }
}

/// A unit by its names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) unit: String,
    pub(super) slice: String,
    /// Its cgroup, below that of the manager.
    pub(super) cgroup: PathBuf,
}

const SLICE: &str = ".slice";

impl Named {
    /// From `cgroupsPath` (`slice:prefix:name`), or the container's id where there is none. An error
    /// is about `cgroupsPath`.
    pub(super) fn new(path: Option<&str>, id: &str, manager: Manager) -> Result<Self, String> {
        let (slice, prefix, name) = match path.filter(|path| !path.is_empty()) {
            None => ("", "tare", id),
            Some(path) => {
                let mut parts = path.split(':');
                match (parts.next(), parts.next(), parts.next(), parts.next()) {
                    (Some(slice), Some(prefix), Some(name), None) => (slice, prefix, name),
                    _ => {
                        return Err(format!(
                            "expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, \
                             got {path:?} instead"
                        ));
                    }
                }
            }
        };
        let slice = if slice.is_empty() { manager.slice() } else { slice };
        let folders = expand(slice)?;
        let (unit, cgroup) = if name.ends_with(SLICE) {
            // Where a slice is follows from its own name.
            let cgroup = expand(name)?;
            if cgroup.as_os_str().is_empty() {
                return Err(format!("{name} is the slice of all others: a container needs its own"));
            }
            (name.to_owned(), cgroup)
        } else {
            let unit = format!("{prefix}-{name}.scope");
            check(&unit)?;
            let cgroup = folders.join(escape(&unit));
            (unit, cgroup)
        };
        Ok(Named { unit, slice: slice.to_owned(), cgroup })
    }

    pub(super) fn is_slice(&self) -> bool {
        self.unit.ends_with(SLICE)
    }
}

/// `a-b.slice` is `a.slice/a-b.slice`, `-.slice` the root.
fn expand(slice: &str) -> Result<PathBuf, String> {
    let invalid = || format!("invalid slice name: {slice}");
    let stem = slice.strip_suffix(SLICE).filter(|_| !slice.contains('/')).ok_or_else(invalid)?;
    let mut path = PathBuf::new();
    if stem == "-" {
        return Ok(path);
    }
    check(slice)?;
    for (end, _) in stem.match_indices('-').chain([(stem.len(), "")]) {
        let name = &stem[..end];
        if name.is_empty() || name.ends_with('-') {
            return Err(invalid());
        }
        path.push(escape(&format!("{name}{SLICE}")));
    }
    Ok(path)
}

/// What systemd takes for the name of a unit (systemd.unit(5)): it would say no more than
/// "Invalid argument" of another, and a slash in it would lead us out of the slice.
fn check(unit: &str) -> Result<(), String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
    if let Some(wrong) = unit.chars().find(|&c| !allowed(c)) {
        return Err(format!("invalid unit name {unit:?}: systemd does not allow {wrong:?} in it"));
    }
    if unit.len() > 255 {
        return Err(format!("invalid unit name {unit:?}: systemd allows 255 bytes, not {}", unit.len()));
    }
    Ok(())
}

/// The folder of a unit. systemd puts `_` before a name that could be taken for a file of the kernel
/// (`cg_escape` in its `src/basic/cgroup-util.c`).
fn escape(unit: &str) -> String {
    const PREFIXES: [&str; 11] =
        ["_", ".", "cgroup.", "cpu.", "cpuacct.", "cpuset.", "io.", "blkio.", "memory.", "devices.", "pids."];
    let taken = PREFIXES.iter().any(|prefix| unit.starts_with(prefix));
    if taken { format!("_{unit}") } else { unit.to_owned() }
}

/// The cgroup of the manager of an ordinary user, where it could not be asked.
pub(super) fn usual_cgroup(manager: Manager, uid: u32) -> PathBuf {
    match manager {
        Manager::System => "/".into(),
        Manager::User => format!("/user.slice/user-{uid}.slice/user@{uid}.service").into(),
    }
}

/// The cgroup of PID 1's manager, from `/proc/1/cgroup`: systemd itself is in `init.scope` of it.
pub(super) fn system_cgroup(proc_1_cgroup: &str) -> PathBuf {
    let of = |name: &str| {
        proc_1_cgroup.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            (fields.next() == Some(name)).then(|| fields.next()).flatten()
        })
    };
    let own = Path::new(of("name=systemd").or(of("")).unwrap_or("/"));
    let root = if own.ends_with("init.scope") { own.parent() } else { Some(own) };
    root.unwrap_or(Path::new("/")).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_units_and_their_cgroups() {
        use Manager::{System, User};
        for (path, manager, unit, slice, cgroup) in [
            (None, System, "tare-id.scope", "system.slice", "system.slice/tare-id.scope"),
            (Some(""), System, "tare-id.scope", "system.slice", "system.slice/tare-id.scope"),
            (None, User, "tare-id.scope", "user.slice", "user.slice/tare-id.scope"),
            (Some(":docker:1"), System, "docker-1.scope", "system.slice", "system.slice/docker-1.scope"),
            (Some(":libpod:1"), User, "libpod-1.scope", "user.slice", "user.slice/libpod-1.scope"),
            (Some("machine.slice:p:n"), System, "p-n.scope", "machine.slice", "machine.slice/p-n.scope"),
            (
                Some("a-b-c.slice:p:n"),
                System,
                "p-n.scope",
                "a-b-c.slice",
                "a.slice/a-b.slice/a-b-c.slice/p-n.scope",
            ),
            (Some("-.slice:p:n"), System, "p-n.scope", "-.slice", "p-n.scope"),
            (Some("system.slice:p:a-b.slice"), System, "a-b.slice", "system.slice", "a.slice/a-b.slice"),
            (Some("system.slice::n"), System, "-n.scope", "system.slice", "system.slice/-n.scope"),
            (Some("system.slice:_p:n"), System, "_p-n.scope", "system.slice", "system.slice/__p-n.scope"),
            (
                Some("system.slice:cpu.:n"),
                System,
                "cpu.-n.scope",
                "system.slice",
                "system.slice/_cpu.-n.scope",
            ),
        ] {
            let named = Named::new(path, "id", manager).unwrap();
            let expected = Named { unit: unit.into(), slice: slice.into(), cgroup: cgroup.into() };
            assert_eq!(named, expected, "{path:?}");
            assert_eq!(named.is_slice(), unit.ends_with(".slice"));
        }
    }

    #[test]
    fn what_is_no_name() {
        for (path, why) in [
            (
                "/a/b",
                "expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, \
                 got \"/a/b\" instead",
            ),
            (
                "a.slice:b:c:d",
                "expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, \
                 got \"a.slice:b:c:d\" instead",
            ),
            ("a:b:c", "invalid slice name: a"),
            (".slice:b:c", "invalid slice name: .slice"),
            ("a--b.slice:b:c", "invalid slice name: a--b.slice"),
            ("-a.slice:b:c", "invalid slice name: -a.slice"),
            ("a-.slice:b:c", "invalid slice name: a-.slice"),
            ("a/b.slice:b:c", "invalid slice name: a/b.slice"),
            ("a.slice:../..:c", "invalid unit name \"../..-c.scope\": systemd does not allow '/' in it"),
            ("a.slice:b:c+d", "invalid unit name \"b-c+d.scope\": systemd does not allow '+' in it"),
            ("a.slice:b:../x.slice", "invalid slice name: ../x.slice"),
        ] {
            assert_eq!(Named::new(Some(path), "id", Manager::System), Err(why.to_owned()), "{path}");
        }
        let long = "x".repeat(250);
        assert!(Named::new(None, &long, Manager::System).unwrap_err().ends_with("255 bytes, not 261"));
    }

    #[test]
    fn where_the_managers_are() {
        for (text, expected) in [
            ("0::/init.scope\n", "/"),
            ("0::/\n", "/"),
            ("0::/docker/ab/init.scope\n", "/docker/ab"),
            ("2:cpu:/x\n1:name=systemd:/init.scope\n0::/y\n", "/"),
            ("", "/"),
        ] {
            assert_eq!(system_cgroup(text), Path::new(expected), "{text}");
        }
        assert_eq!(usual_cgroup(Manager::System, 0), Path::new("/"));
        let user = "/user.slice/user-1000.slice/user@1000.service";
        assert_eq!(usual_cgroup(Manager::User, 1000), Path::new(user));
    }
}
