//! Where a container's cgroups are: from `cgroupsPath`, into `state.json`, and for the container's
//! own `/sys/fs/cgroup`.

use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Driver, Unit};
use crate::host::{CgroupLayout, Hierarchy};

/// What is kept of a container's cgroups in its state: all that a later process needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paths {
    pub driver: Driver,
    /// Each v1 hierarchy.
    pub v1: Vec<Place>,
    /// On a host with v2 alone the only one; on a hybrid host beside the others.
    pub v2: Option<Place>,
    /// systemd's unit, where that made them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<Unit>,
}

/// One cgroup of one hierarchy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// v1: as in `/proc/PID/cgroup`; v2: none.
    pub controllers: Vec<String>,
    pub folder: PathBuf,
    /// The cgroup's name, as `/proc/PID/cgroup` shows it in our cgroup namespace.
    pub name: PathBuf,
}

impl Paths {
    pub fn none(driver: Driver) -> Self {
        Paths { driver, v1: Vec::new(), v2: None, unit: None }
    }

    /// The container has no cgroup of its own.
    pub fn is_none(&self) -> bool {
        self.v1.is_empty() && self.v2.is_none()
    }

    /// v2 alone, where `CLONE_INTO_CGROUP` does all.
    pub fn is_unified(&self) -> bool {
        self.v1.is_empty() && self.v2.is_some()
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Place> {
        self.v1.iter().chain(&self.v2)
    }

    pub(super) fn v1_with(&self, controller: &str) -> Option<&Place> {
        self.v1.iter().find(|place| place.controllers.iter().any(|c| c == controller))
    }
}

/// What a container without cgroup namespace sees of a v1 hierarchy at its `/sys/fs/cgroup`, or,
/// with one, what is to be mounted there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// Its folder below the mount: `cpu,cpuacct`, `systemd`.
    pub folder: OsString,
    /// To be bound there: the container's cgroup on the host.
    pub source: PathBuf,
    /// The data of a fresh mount of type `cgroup`: `cpu,cpuacct`, `name=systemd`.
    pub data: String,
    /// Symlinks beside the folder that lead to it: `cpu`, `cpuacct`.
    pub links: Vec<String>,
}

/// The v1 hierarchies for a mount of type `cgroup`, in the order of the host's mounts. (v2 is not
/// among them: alone it is one mount, and on a hybrid host runc does not show it either.)
pub fn views(layout: &CgroupLayout, paths: &Paths) -> Vec<View> {
    let view = |hierarchy: &Hierarchy| {
        let place = paths.v1.iter().find(|place| place.controllers == hierarchy.controllers)?;
        let folder = hierarchy.mountpoint.file_name()?.to_owned();
        let named = |c: &&String| !c.starts_with("name=") && folder != c.as_str();
        let links = hierarchy.controllers.iter().filter(named).cloned().collect();
        Some(View { links, source: place.folder.clone(), data: hierarchy.controllers.join(","), folder })
    };
    layout.v1.iter().filter_map(view).collect()
}

/// Where a new container goes in a hierarchy.
///
/// An absolute `cgroupsPath` begins at the mounted root. A relative one, and the id where there is
/// none, begins at the runtime's own cgroup on v1, and beside it on v2 alone: there our own cgroup
/// has processes (us), and one with processes cannot hand controllers to its children. As runc:
/// libcontainer/cgroups/fs/paths.go, fs2/defaultpath.go.
pub(super) fn place(
    hierarchy: &Hierarchy,
    is_v2: bool,
    unified: bool,
    path: Option<&str>,
    id: &str,
) -> Place {
    // Docker and Podman give "slice:prefix:name" with --systemd-cgroup only; without it, it is a name
    // as any other.
    let path = path.filter(|p| !p.is_empty());
    let inside = clean(Path::new(path.unwrap_or(id)));
    let base = match path {
        Some(path) if path.starts_with('/') => PathBuf::new(),
        _ => own(hierarchy, unified),
    };
    let below_the_mount = base.join(inside);
    Place {
        controllers: if is_v2 { Vec::new() } else { hierarchy.controllers.clone() },
        folder: hierarchy.mountpoint.join(&below_the_mount),
        name: hierarchy.mount_root.join(below_the_mount),
    }
}

/// Our own cgroup (or its parent) below the mount point; the mount point when it is not below the
/// folder that is mounted, which a container can bring about.
fn own(hierarchy: &Hierarchy, parent: bool) -> PathBuf {
    let Ok(own) = hierarchy.own.strip_prefix(&hierarchy.mount_root) else { return PathBuf::new() };
    let own = clean(own);
    if parent { own.parent().map(Path::to_owned).unwrap_or_default() } else { own }
}

/// Relative, and `..` goes up to the top at most: what comes out is at or below where it is put.
fn clean(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                clean.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    clean
}

/// The same for a path that must not lead up at all: `None` when it does.
pub(super) fn below(path: &str) -> Option<PathBuf> {
    let mut depth = 0usize;
    for component in Path::new(path).components() {
        match component {
            Component::Normal(_) => depth += 1,
            Component::ParentDir => depth = depth.checked_sub(1)?,
            _ => {}
        }
    }
    Some(clean(Path::new(path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hierarchy(controllers: &str, mountpoint: &str, mount_root: &str, own: &str) -> Hierarchy {
        Hierarchy {
            controllers: controllers.split(',').map(str::to_owned).collect(),
            mountpoint: mountpoint.into(),
            mount_root: mount_root.into(),
            own: own.into(),
        }
    }

    fn folder(hierarchy: &Hierarchy, is_v2: bool, unified: bool, path: Option<&str>) -> String {
        place(hierarchy, is_v2, unified, path, "id").folder.display().to_string()
    }

    #[test]
    fn where_a_container_goes() {
        let v1 = hierarchy("memory", "/sys/fs/cgroup/memory", "/", "/own/deep");
        let v2 = hierarchy("memory", "/sys/fs/cgroup", "/", "/user.slice/session.scope");
        for (path, on_v1, on_v2) in [
            (None, "memory/own/deep/id", "user.slice/id"),
            (Some(""), "memory/own/deep/id", "user.slice/id"),
            (Some("a/b"), "memory/own/deep/a/b", "user.slice/a/b"),
            (Some("/a/b"), "memory/a/b", "a/b"),
            (Some("/a/../../../b"), "memory/b", "b"),
            (Some("../../b"), "memory/own/deep/b", "user.slice/b"),
            (Some("//a//./b/"), "memory/a/b", "a/b"),
            (
                Some("system.slice:docker:x"),
                "memory/own/deep/system.slice:docker:x",
                "user.slice/system.slice:docker:x",
            ),
        ] {
            assert_eq!(folder(&v1, false, false, path), format!("/sys/fs/cgroup/{on_v1}"), "{path:?}");
            assert_eq!(folder(&v2, true, true, path), format!("/sys/fs/cgroup/{on_v2}"), "{path:?}");
        }
    }

    #[test]
    fn on_a_hybrid_host_v2_is_as_v1() {
        let v2 = hierarchy("", "/sys/fs/cgroup/unified", "/", "/a/b");
        assert_eq!(folder(&v2, true, false, None), "/sys/fs/cgroup/unified/a/b/id");
    }

    #[test]
    fn at_the_root_there_is_no_parent() {
        let v2 = hierarchy("", "/sys/fs/cgroup", "/", "/");
        assert_eq!(folder(&v2, true, true, None), "/sys/fs/cgroup/id");
    }

    #[test]
    fn below_a_mount_with_a_root() {
        let v1 = hierarchy("pids", "/sys/fs/cgroup/pids", "/docker/ab", "/docker/ab/x");
        let place_of = place(&v1, false, false, None, "id");
        assert_eq!(place_of.folder, Path::new("/sys/fs/cgroup/pids/x/id"));
        assert_eq!(place_of.name, Path::new("/docker/ab/x/id"));
        // The mount shows another part of the tree than the one that we are in.
        let v1 = hierarchy("pids", "/sys/fs/cgroup/pids", "/docker/ab", "/other");
        assert_eq!(folder(&v1, false, false, None), "/sys/fs/cgroup/pids/id");
    }

    #[test]
    fn a_sub_cgroup_is_below() {
        for (path, expected) in [
            ("", Some("")),
            ("a", Some("a")),
            ("/a/b", Some("a/b")),
            ("a/../b", Some("b")),
            ("..", None),
            ("../..", None),
            ("a/../../b", None),
            ("/..", None),
        ] {
            assert_eq!(below(path), expected.map(PathBuf::from), "{path}");
        }
    }

    #[test]
    fn views_have_folders_and_links() {
        let layout = CgroupLayout {
            v1: vec![
                hierarchy("cpu,cpuacct", "/sys/fs/cgroup/cpu,cpuacct", "/", "/"),
                hierarchy("memory", "/sys/fs/cgroup/memory", "/", "/"),
                hierarchy("name=systemd", "/sys/fs/cgroup/systemd", "/", "/"),
                hierarchy("pids", "/sys/fs/cgroup/pids", "/", "/"),
            ],
            v2: None,
        };
        let mut v1: Vec<Place> = layout.v1.iter().map(|h| place(h, false, false, Some("/c"), "id")).collect();
        // One that could not be made (rootless) is not shown.
        v1.pop();
        let paths = Paths { driver: Driver::Cgroupfs, v1, v2: None, unit: None };
        let seen: Vec<_> = views(&layout, &paths)
            .into_iter()
            .map(|v| (v.folder.into_string().unwrap(), v.source.display().to_string(), v.data, v.links))
            .collect();
        let expected = |folder: &str, data: &str, links: &[&str]| {
            let links = links.iter().map(|&l| l.to_owned()).collect::<Vec<_>>();
            (folder.to_owned(), format!("/sys/fs/cgroup/{folder}/c"), data.to_owned(), links)
        };
        assert_eq!(
            seen,
            [
                expected("cpu,cpuacct", "cpu,cpuacct", &["cpu", "cpuacct"]),
                expected("memory", "memory", &[]),
                expected("systemd", "name=systemd", &[]),
            ]
        );
    }
}

#[cfg(test)]
mod fuzz {
    use super::*;

    #[test]
    fn paths() {
        let seeds = ["a/b", "/a/../..//b/.", "../x", "system.slice:tare:box", "a/../../b", ""];
        ::fuzz::target("cgroup-paths").seeds(seeds).rounds(20_000).run(|bytes| {
            let Ok(text) = std::str::from_utf8(bytes) else { return false };
            let cleaned = clean(Path::new(text));
            assert!(cleaned.components().all(|part| matches!(part, Component::Normal(_))), "{cleaned:?}");
            let below = below(text);
            below.inspect(|below| assert_eq!(*below, cleaned)).is_some()
        });
    }
}
