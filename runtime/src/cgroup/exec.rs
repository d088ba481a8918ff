//! A further process for a container that runs: into its cgroups, or below them (`exec --cgroup`).

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use nix::errno::Errno;

use super::apply::join_folder;
use super::entry::Entry;
use super::folder::Folder;
use super::paths::{Paths, Place, below};
use crate::error::{Error, Result};

impl Paths {
    /// By which the process is born inside; `sub` as in [`Self::join_for_exec`], which is for the one that
    /// was born outside, because this is empty.
    ///
    /// When the clone answers `EBUSY` and `sub` is empty, the container has handed controllers to
    /// cgroups of its own (systemd or Docker inside), and its top one of v2 takes no process any more:
    /// then use [`Self::open_of_init`].
    pub fn entry_for_exec(&self, sub: &[(Vec<String>, String)]) -> Result<Entry> {
        self.check(sub)?;
        let v1 = self.v1.iter().map(|place| v1_folder(place, sub)).collect::<Result<Vec<_>>>()?;
        let Some(mut entry) = Entry::of_v1(v1.iter().map(PathBuf::as_path))? else {
            return Ok(Entry::default());
        };
        if let Some(place) = &self.v2 {
            entry.v2 = Some(Folder::open(&self.v2_folder(place, sub)?)?.into_fd());
        }
        Ok(entry)
    }

    /// The v2 cgroup that the container's first process is in now.
    pub fn open_of_init(&self, init: i32) -> Result<OwnedFd> {
        let none = || Error::Host { what: "no cgroup v2".into(), why: "the container has none".into() };
        Ok(folder_of_init(self.v2.as_ref().ok_or_else(none)?, init)?.into_fd())
    }

    /// Moves a process into every cgroup of the container. `sub`: paths below them, each for the
    /// controllers that are named or, where none are, for all. What leads out of them is refused.
    pub fn join_for_exec(&self, pid: i32, init: i32, sub: &[(Vec<String>, String)]) -> Result<()> {
        self.check(sub)?;
        for place in &self.v1 {
            join_folder(&Folder::open(&v1_folder(place, sub)?)?, pid)?;
        }
        let Some(place) = &self.v2 else { return Ok(()) };
        let folder = Folder::open(&self.v2_folder(place, sub)?)?;
        match join_folder(&folder, pid) {
            Err(error) if error.errno() == Some(Errno::EBUSY) && sub.is_empty() => {
                join_folder(&folder_of_init(place, init)?, pid)
            }
            other => other,
        }
    }

    fn check(&self, sub: &[(Vec<String>, String)]) -> Result<()> {
        let mut named = sub.iter().flat_map(|(controllers, _)| controllers);
        match named.find(|c| self.v1_with(c).is_none()).filter(|_| !self.is_unified()) {
            Some(unknown) => Err(Error::Usage(format!("unknown controller {unknown} in SubCgroupPaths"))),
            None => Ok(()),
        }
    }

    fn v2_folder(&self, place: &Place, sub: &[(Vec<String>, String)]) -> Result<PathBuf> {
        match sub {
            [] => Ok(place.folder.clone()),
            [(controllers, path)] if controllers.is_empty() => checked(place, path),
            // On a hybrid host the controllers that are named are v1's: the process stays at the top.
            _ if !self.is_unified() => Ok(place.folder.clone()),
            _ => Err(Error::Usage("cgroup v2 takes one --cgroup, a path without controllers".into())),
        }
    }
}

/// The path that names one of the hierarchy's controllers, else the one for all, else the top.
fn v1_folder(place: &Place, sub: &[(Vec<String>, String)]) -> Result<PathBuf> {
    let named =
        |(controllers, _): &&(Vec<String>, String)| controllers.iter().any(|c| place.controllers.contains(c));
    let for_all = |(controllers, _): &&(Vec<String>, String)| controllers.is_empty();
    match sub.iter().find(named).or_else(|| sub.iter().find(for_all)) {
        Some((_, path)) => checked(place, path),
        None => Ok(place.folder.clone()),
    }
}

fn checked(place: &Place, path: &str) -> Result<PathBuf> {
    match below(path) {
        Some(path) => Ok(place.folder.join(path)),
        None => Err(Error::Usage(format!("bad sub cgroup path: {path}"))),
    }
}

fn folder_of_init(place: &Place, init: i32) -> Result<Folder> {
    let file = PathBuf::from(format!("/proc/{init}/cgroup"));
    let text = std::fs::read_to_string(&file).map_err(|e| Error::io("read", &file, &e))?;
    let outside = || Error::Host {
        what: format!("process {init} has left the container's cgroup"),
        why: format!("{} is not below {}", text.trim_end(), place.name.display()),
    };
    let name = text.lines().find_map(|line| line.strip_prefix("0::")).ok_or_else(outside)?;
    let inside = PathBuf::from(name).strip_prefix(&place.name).map_err(|_| outside())?.to_owned();
    Folder::open(&place.folder.join(inside))
}

#[cfg(test)]
mod tests {
    use super::super::Driver;
    use super::*;

    fn place(controllers: &[&str], folder: &str) -> Place {
        let controllers = controllers.iter().map(|&c| c.to_owned()).collect();
        Place { controllers, folder: folder.into(), name: "/c".into() }
    }

    fn sub(list: &[(&[&str], &str)]) -> Vec<(Vec<String>, String)> {
        list.iter().map(|(c, p)| (c.iter().map(|&c| c.to_owned()).collect(), (*p).to_owned())).collect()
    }

    #[test]
    fn sub_cgroups_of_v1() {
        let cpu = place(&["cpu", "cpuacct"], "/cpu/c");
        for (list, expected) in [
            (&[][..], Some("/cpu/c")),
            (&[(&[][..], "x")], Some("/cpu/c/x")),
            (&[(&["cpuacct"], "y"), (&[], "x")], Some("/cpu/c/y")),
            (&[(&[], "x"), (&["cpu"], "y")], Some("/cpu/c/y")),
            (&[(&["memory"], "y")], Some("/cpu/c")),
            (&[(&[], "/x/../y")], Some("/cpu/c/y")),
            (&[(&[], "../..")], None),
            (&[(&["cpu"], "x/../../y")], None),
        ] {
            assert_eq!(v1_folder(&cpu, &sub(list)).ok(), expected.map(PathBuf::from), "{list:?}");
        }
    }

    #[test]
    fn sub_cgroups_of_v2() {
        let v2 = place(&[], "/cg/c");
        let unified = Paths { driver: Driver::Cgroupfs, v1: vec![], v2: Some(v2.clone()), unit: None };
        for (list, expected) in [
            (&[][..], Some("/cg/c")),
            (&[(&[][..], "x")], Some("/cg/c/x")),
            (&[(&["cpu"], "x")], None),
            (&[(&[], "..")], None),
        ] {
            assert_eq!(unified.v2_folder(&v2, &sub(list)).ok(), expected.map(PathBuf::from), "{list:?}");
        }
        let refused = unified.v2_folder(&v2, &sub(&[(&[], "../..")])).map_err(|e| e.to_string());
        assert_eq!(refused, Err("bad sub cgroup path: ../..".to_owned()));
    }
}
