//! Where the control groups are mounted, and where this process is in each.

use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};

use super::mounts::{MOUNT_TABLE, MountLine, path, read};
use super::{CgroupLayout, Hierarchy};
use crate::error::Result;

const OWN_CGROUPS: &str = "/proc/self/cgroup";
const STANDARD_MOUNT: &str = "/sys/fs/cgroup";

impl CgroupLayout {
    /// One `statfs` and two small reads on a host with cgroup v2 alone; else also the mount table.
    pub fn probe() -> Result<Self> {
        let own = read(Path::new(OWN_CGROUPS))?;
        let mut layout = match unified_at_the_standard_mount(&own) {
            Some(v2) => CgroupLayout { v1: Vec::new(), v2: Some(v2) },
            None => Self::parse(&read(Path::new(MOUNT_TABLE))?, &own),
        };
        if let Some(v2) = &mut layout.v2 {
            match read(&v2.mountpoint.join("cgroup.controllers")) {
                Ok(available) => v2.controllers = words(&available),
                // Something else was mounted or made where the table has it: then it cannot be used.
                Err(error) if error.errno() == Some(Errno::ENOENT) => layout.v2 = None,
                Err(error) => return Err(error),
            }
        }
        Ok(layout)
    }

    /// From the texts of `/proc/self/mountinfo` and `/proc/self/cgroup`. What is available on v2
    /// (`cgroup.controllers`) is not in them and left empty.
    pub fn parse(mountinfo: &[u8], own: &[u8]) -> Self {
        let mut layout = CgroupLayout::default();
        for line in mountinfo.split(|&b| b == b'\n') {
            let Some(mount) = MountLine::parse(line) else { continue };
            // What is mounted later over a folder hides what was mounted in it before.
            let hidden =
                |h: &Hierarchy| h.mountpoint != mount.point && h.mountpoint.starts_with(&mount.point);
            layout.v1.retain(|h| !hidden(h));
            layout.v2 = layout.v2.take().filter(|h| !hidden(h));
            match mount.kind {
                b"cgroup" => add_v1(&mut layout.v1, &mount, own),
                b"cgroup2" if layout.v2.is_none() => layout.v2 = v2(mount.root, mount.point, own),
                _ => {}
            }
        }
        layout
    }
}

/// A host with v2 alone has it at `/sys/fs/cgroup`, and then no mount table need be read. Only the
/// folder that is mounted is not known by that; where our own cgroup is found below the mount point
/// under its full name, it is the root.
fn unified_at_the_standard_mount(own: &[u8]) -> Option<Hierarchy> {
    let kind = statfs(STANDARD_MOUNT).ok()?.filesystem_type();
    if kind != CGROUP2_SUPER_MAGIC {
        return None;
    }
    let hierarchy = v2(PathBuf::from("/"), PathBuf::from(STANDARD_MOUNT), own)?;
    let own = hierarchy.own.strip_prefix("/").ok()?;
    hierarchy.mountpoint.join(own).join("cgroup.procs").exists().then_some(hierarchy)
}

fn add_v1(found: &mut Vec<Hierarchy>, mount: &MountLine, own: &[u8]) {
    let options = || mount.super_options.split(|&b| b == b',');
    for (names, path) in memberships(own) {
        let Some(first) = names.split(|&b| b == b',').next().filter(|n| !n.is_empty()) else { continue };
        if !options().any(|option| option == first) {
            continue;
        }
        let controllers: Vec<String> = names.split(|&b| b == b',').map(text).collect();
        // Mounted twice: the first counts, as with runc.
        if !found.iter().any(|h| h.controllers == controllers) {
            found.push(Hierarchy {
                controllers,
                mountpoint: mount.point.clone(),
                mount_root: mount.root.clone(),
                own: path,
            });
        }
        return;
    }
}

fn v2(mount_root: PathBuf, mountpoint: PathBuf, own: &[u8]) -> Option<Hierarchy> {
    let own = memberships(own).find(|(names, _)| names.is_empty())?.1;
    Some(Hierarchy { controllers: Vec::new(), mountpoint, mount_root, own })
}

/// The lines `ID:NAMES:PATH` of `/proc/PID/cgroup`; a path may have colons of its own.
fn memberships(own: &[u8]) -> impl Iterator<Item = (&[u8], PathBuf)> {
    own.split(|&b| b == b'\n').filter_map(|line| {
        let mut fields = line.splitn(3, |&b| b == b':').skip(1);
        Some((fields.next()?, path(fields.next()?.to_vec())))
    })
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn words(bytes: &[u8]) -> Vec<String> {
    text(bytes).split_ascii_whitespace().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &[u8] = b"\
23 27 0:22 / /sys rw,relatime - sysfs sysfs rw
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 master:2 - cgroup cgroup rw,cpu,cpuacct
33 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
34 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
35 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw,nsdelegate
";
    const HYBRID_OWN: &[u8] = b"\
5:name=systemd:/user.slice
4:memory:/a:b/c
3:cpu,cpuacct:/
2:freezer:/not/mounted
0::/unified
";

    fn hierarchy(controllers: &[&str], mountpoint: &str, mount_root: &str, own: &str) -> Hierarchy {
        Hierarchy {
            controllers: controllers.iter().map(|&c| c.to_owned()).collect(),
            mountpoint: mountpoint.into(),
            mount_root: mount_root.into(),
            own: own.into(),
        }
    }

    #[test]
    fn a_hybrid_host() {
        let layout = CgroupLayout::parse(HYBRID, HYBRID_OWN);
        assert_eq!(
            layout.v1,
            [
                hierarchy(&["cpu", "cpuacct"], "/sys/fs/cgroup/cpu,cpuacct", "/", "/"),
                hierarchy(&["memory"], "/sys/fs/cgroup/memory", "/", "/a:b/c"),
                hierarchy(&["name=systemd"], "/sys/fs/cgroup/systemd", "/", "/user.slice"),
            ]
        );
        assert_eq!(layout.v2, Some(hierarchy(&[], "/sys/fs/cgroup/unified", "/", "/unified")));
        assert!(!layout.is_unified());
    }

    #[test]
    fn a_host_with_v2_alone() {
        let table = b"30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
        let layout = CgroupLayout::parse(table, b"0::/user.slice/session-1.scope\n");
        assert!(layout.is_unified());
        assert_eq!(layout.v2, Some(hierarchy(&[], "/sys/fs/cgroup", "/", "/user.slice/session-1.scope")));
    }

    #[test]
    fn inside_a_container_the_mount_has_a_root() {
        let table = b"9 8 0:1 /docker/ab /sys/fs/cgroup/pids ro - cgroup cgroup rw,pids\n";
        let layout = CgroupLayout::parse(table, b"7:pids:/docker/ab\n");
        assert_eq!(layout.v1, [hierarchy(&["pids"], "/sys/fs/cgroup/pids", "/docker/ab", "/docker/ab")]);
    }

    #[test]
    fn escapes_of_the_mount_table() {
        let table = br"9 8 0:1 /a\134b /mnt/with\040space\011tab\012line\134 ro - cgroup cgroup rw,pids";
        let layout = CgroupLayout::parse(table, b"7:pids:/");
        assert_eq!(layout.v1, [hierarchy(&["pids"], "/mnt/with space\ttab\nline\\", "/a\\b", "/")]);
    }

    #[test]
    fn a_later_mount_hides_what_is_below_it() {
        let table = [HYBRID, b"40 31 0:50 / /sys/fs/cgroup rw - cgroup2 none rw\n"].concat();
        let layout = CgroupLayout::parse(&table, HYBRID_OWN);
        assert_eq!(layout.v1, []);
        assert_eq!(layout.v2.map(|h| h.mountpoint), Some(PathBuf::from("/sys/fs/cgroup")));
    }

    #[test]
    fn of_two_mounts_of_a_hierarchy_the_first_counts() {
        let table = [HYBRID, b"40 31 0:50 / /elsewhere/memory rw - cgroup none rw,memory\n"].concat();
        assert_eq!(CgroupLayout::parse(&table, HYBRID_OWN), CgroupLayout::parse(HYBRID, HYBRID_OWN));
    }

    #[test]
    fn torn_lines_are_passed_over() {
        for cut in 0..HYBRID.len() {
            CgroupLayout::parse(&HYBRID[..cut], &HYBRID_OWN[..cut.min(HYBRID_OWN.len())]);
        }
        assert_eq!(CgroupLayout::parse(b"", b""), CgroupLayout::default());
    }
}

#[cfg(test)]
mod fuzz {
    use super::super::mounts::full_mounts;
    use super::*;

    /// The mount table, and behind a line of two equal signs the list of our own cgroups.
    #[test]
    fn mount_tables() {
        let seeds = [
            "24 30 0:22 / /sys/fs/cgroup ro shared:9 - tmpfs tmpfs ro,mode=755\n\
             25 24 0:23 / /sys/fs/cgroup/cpu,cpuacct rw shared:10 - cgroup cgroup rw,cpu,cpuacct\n\
             26 24 0:24 / /sys/fs/cgroup/unified rw shared:11 - cgroup2 cgroup2 rw\n\
             27 24 0:25 /a\\040b /mnt/with\\134 rw - proc proc rw\n==\n4:cpu,cpuacct:/user\n0::/user\n",
            "21 27 0:20 / /proc rw - proc proc rw\n22 27 0:22 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n\
             ==\n0::/system.slice/x.service\n",
        ];
        ::fuzz::target("mount-tables").seeds(seeds).rounds(10_000).run(|bytes| {
            let end = bytes.windows(3).position(|w| w == b"==\n").unwrap_or(bytes.len());
            let (table, own) = (&bytes[..end], bytes.get(end + 3..).unwrap_or_default());
            drop(full_mounts(table));
            let layout = CgroupLayout::parse(table, own);
            for hierarchy in &layout.v1 {
                assert!(!hierarchy.controllers.is_empty(), "{hierarchy:?}");
            }
            !layout.v1.is_empty() || layout.v2.is_some()
        });
    }
}
