//! Carries out a [`Plan`]: folders, limits, and then the process.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::Mode;
use nix::unistd::{Uid, fchownat, mkdir};

use super::Manage;
use super::entry::Entry;
use super::folder::{Folder, PROCS, rmdir, write_once};
use super::live;
use super::oom::OomKills;
use super::paths::Paths;
use super::plan::{Group, Plan, Step};
use super::resources::Write;
use crate::error::{Error, Result};
use crate::sys::bpf;
use crate::undo::Undo;

/// The cgroups of a container that is not born yet, open.
#[derive(Debug)]
pub struct Created {
    groups: Vec<Open>,
    paths: Paths,
    /// Of a cgroup that was there before: what the kernel has killed in it until now.
    past_oom_kills: u64,
}

#[derive(Debug)]
struct Open {
    folder: Folder,
    /// Not for v2 alone, where the process is born inside.
    procs: Option<OwnedFd>,
}

/// Hierarchies of v1, and v2 beside them: the process joins each.
pub(super) struct V1;
/// v2 alone: the process is born inside.
pub(super) struct V2;

impl Manage for V1 {
    fn make(&self, plan: &Plan, undo: &mut Undo<'_>) -> Result<Created> {
        create(plan, undo)
    }

    fn adopt(&self, _: &Plan, created: &Created, pid: i32, _: &mut Undo<'_>) -> Result<()> {
        created.join(pid)
    }
}

impl Manage for V2 {
    fn make(&self, plan: &Plan, undo: &mut Undo<'_>) -> Result<Created> {
        create(plan, undo)
    }

    /// Only one that an unprivileged user has to go without.
    fn adopt(&self, _: &Plan, _: &Created, _: i32, _: &mut Undo<'_>) -> Result<()> {
        Ok(())
    }
}

fn create(plan: &Plan, undo: &mut Undo<'_>) -> Result<Created> {
    let mut created = Created::none_yet(Paths::none(plan.driver));
    let mut all_are_new = true;
    for group in &plan.groups {
        // Rootless, and nothing was asked of it: the container goes without, as with runc.
        let goes_without = |error: &Error| group.optional && is_permission(error);
        let is_new = match make_folder(&group.place.folder, &group.mountpoint, undo) {
            Err(error) if goes_without(&error) => continue,
            other => other?,
        };
        match open_and_furnish(group, is_new, plan.unified) {
            Ok(open) => {
                created.groups.push(open);
                created.paths.add(group.place.clone());
                all_are_new &= is_new;
            }
            Err(error) if goes_without(&error) => {
                if is_new {
                    live::remove_folder(&group.place.folder)?;
                }
            }
            Err(error) => return Err(error),
        }
    }
    if !all_are_new {
        created.count_oom_kills()?;
    }
    Ok(created)
}

pub(super) fn is_permission(error: &Error) -> bool {
    matches!(error.errno(), Some(Errno::EACCES | Errno::EPERM | Errno::EROFS))
}

/// A cgroup that systemd has made, or, on v1, left to us, for a process that is there: the limits
/// that systemd does not know, and the process itself.
pub(super) fn settle(group: &Group, pid: i32) -> Result<()> {
    // What is made here goes with the unit.
    let mut with_the_unit = Undo::new();
    let is_new = make_folder(&group.place.folder, &group.mountpoint, &mut with_the_unit)?;
    let folder = Folder::open(&group.place.folder)?;
    furnish(&folder, group, is_new, true)?;
    join_folder(&folder, pid)
}

impl Created {
    /// All that there will be is made when the process is there.
    pub(super) fn none_yet(paths: Paths) -> Self {
        Created { groups: Vec::new(), paths, past_oom_kills: 0 }
    }

    pub(super) fn count_oom_kills(&mut self) -> Result<()> {
        self.past_oom_kills = self.paths.oom_kills()?.map_or(0, |kills| kills.count);
        Ok(())
    }

    /// What the kernel killed for want of memory since this was made; `None` when it was nobody.
    pub fn oom_kills(&self) -> Result<Option<OomKills>> {
        Ok(self.paths.oom_kills()?.filter(|kills| kills.count > self.past_oom_kills))
    }

    /// For the container's state: the plan's, less what an unprivileged user may not have.
    pub fn paths(&self) -> &Paths {
        &self.paths
    }

    /// By which the process is born inside. Empty where it has to be adopted.
    pub fn entry(&self) -> Result<Entry> {
        let is_v2 = |open: &&Open| self.paths.v2.as_ref().is_some_and(|v2| v2.folder == open.folder.path());
        let v1 = self.groups.iter().filter(|open| !is_v2(open)).map(|open| open.folder.path());
        let Some(mut entry) = Entry::of_v1(v1)? else { return Ok(Entry::default()) };
        if let Some(v2) = self.groups.iter().find(is_v2) {
            let failed = |e: std::io::Error| Error::io("copy the descriptor of", v2.folder.path(), &e);
            entry.v2 = Some(v2.folder.fd().try_clone_to_owned().map_err(failed)?);
        }
        Ok(entry)
    }

    /// Moves a process in, in every hierarchy: its limits are in force when this returns.
    pub fn join(&self, pid: i32) -> Result<()> {
        for open in &self.groups {
            match &open.procs {
                Some(procs) => join(procs.as_fd(), open.folder.path(), pid)?,
                None => join_folder(&open.folder, pid)?,
            }
        }
        Ok(())
    }
}

pub(super) fn join_folder(folder: &Folder, pid: i32) -> Result<()> {
    let procs = folder.open_file(PROCS, OFlag::O_WRONLY)?;
    join(procs.as_fd(), folder.path(), pid)
}

fn join(procs: BorrowedFd<'_>, folder: &Path, pid: i32) -> Result<()> {
    let value = pid.to_string();
    let mut pause = Duration::from_millis(1);
    loop {
        match write_once(procs, &value) {
            Ok(()) => return Ok(()),
            // Before Linux 6.2 the cpu controller refuses a process that has not run yet.
            Err(Errno::EINVAL) if pause < Duration::from_millis(50) => {
                std::thread::sleep(pause);
                pause *= 2;
            }
            Err(errno) => return Err(Error::Cgroup { file: folder.join(PROCS), value, errno }),
        }
    }
}

fn open_and_furnish(group: &Group, is_new: bool, unified: bool) -> Result<Open> {
    let folder = Folder::open(&group.place.folder)?;
    if !is_new {
        refuse_in_use(&folder)?;
    }
    furnish(&folder, group, is_new, is_new)?;
    let procs = if unified { None } else { Some(folder.open_file(PROCS, OFlag::O_WRONLY)?) };
    Ok(Open { folder, procs })
}

/// Everything but processes. `blank`: nobody but the kernel, or systemd on our behalf, has set
/// anything in it.
fn furnish(folder: &Folder, group: &Group, is_new: bool, blank: bool) -> Result<()> {
    let refused = if group.enable.is_empty() { Vec::new() } else { enable(folder, group)? };
    if group.place.controllers.iter().any(|c| c == "cpuset") {
        inherit_cpuset(folder, group, is_new)?;
    }
    run_steps(folder, &group.steps, blank).map_err(|error| explain(error, refused))?;
    group.owner.map_or(Ok(()), |uid| give_to(folder, uid))
}

/// `true` when it was not there. Folders above it are made when they are missing.
fn make_folder(path: &Path, mountpoint: &Path, undo: &mut Undo<'_>) -> Result<bool> {
    // Somebody who removes what he made of the folders above can come in between, not for ever.
    for _ in 0..3 {
        match mkdir(path, MODE) {
            Ok(()) => {
                let path = path.to_owned();
                undo.push(move || live::remove_folder(&path));
                return Ok(true);
            }
            Err(Errno::EEXIST) => return Ok(false),
            Err(Errno::ENOENT) => make_above(path, mountpoint, undo)?,
            Err(errno) => return Err(Error::sys("mkdir", path.display(), errno)),
        }
    }
    Err(Error::sys("mkdir", path.display(), Errno::ENOENT))
}

const MODE: Mode = Mode::from_bits_truncate(0o755);

fn make_above(path: &Path, mountpoint: &Path, undo: &mut Undo<'_>) -> Result<()> {
    let below_the_mount = |p: &&Path| p.starts_with(mountpoint) && *p != mountpoint;
    let above: Vec<&Path> = path.ancestors().skip(1).take_while(below_the_mount).collect();
    for folder in above.into_iter().rev() {
        match mkdir(folder, MODE) {
            Ok(()) => {
                let folder = folder.to_owned();
                // Only if it is as we made it: another container may have found a home in it.
                undo.push(move || match rmdir(&folder) {
                    Ok(()) | Err(Errno::ENOENT | Errno::EBUSY | Errno::ENOTEMPTY) => Ok(()),
                    Err(errno) => Err(Error::sys("rmdir", folder.display(), errno)),
                });
            }
            Err(Errno::EEXIST) => {}
            Err(errno) => return Err(Error::sys("mkdir", folder.display(), errno)),
        }
    }
    Ok(())
}

pub(super) fn refuse_in_use(folder: &Folder) -> Result<()> {
    let pids = live::pids_below(folder.path())?;
    let refuse = |what: String| Error::Host { what, why: folder.path().display().to_string() };
    if !pids.is_empty() {
        return Err(refuse(format!("container's cgroup is not empty: {} process(es) found", pids.len())));
    }
    if live::is_frozen(folder)? {
        return Err(refuse("container's cgroup unexpectedly frozen".into()));
    }
    Ok(())
}

/// A controller that a folder above does not hand down, and why it does not do so for us.
struct Refused {
    controller: String,
    above: PathBuf,
    errno: Errno,
}

/// Has the folders above hand down all controllers, so that limits can be set and usage be read.
/// Whether one that could not be had matters is seen when a limit has no file.
fn enable(folder: &Folder, group: &Group) -> Result<Vec<Refused>> {
    let missing = missing_controllers(folder, group)?;
    let mut refused: Vec<Refused> = Vec::new();
    if missing.is_empty() {
        return Ok(refused);
    }
    let above: Vec<&Path> =
        folder.path().ancestors().skip(1).take_while(|p| p.starts_with(&group.mountpoint)).collect();
    for parent in above.into_iter().rev() {
        let parent = Folder::open(parent)?;
        let all: Vec<String> = missing.iter().map(|c| format!("+{c}")).collect();
        if parent.write(SUBTREE_CONTROL, &all.join(" ")).is_ok() {
            continue;
        }
        // All or nothing: one that cannot be had (cpu with real-time processes around) would keep
        // the others away. And who may not write here may have been given it all the same.
        let given = parent.read(SUBTREE_CONTROL)?;
        for controller in &missing {
            let is_given = given.split_ascii_whitespace().any(|c| c == controller);
            // The first one that refuses is why those below it have nothing to hand down.
            if is_given || refused.iter().any(|r| r.controller == *controller) {
                continue;
            }
            if let Err(error) = parent.write(SUBTREE_CONTROL, &format!("+{controller}")) {
                let errno = error.errno().unwrap_or(Errno::EIO);
                let above = parent.path().to_owned();
                refused.push(Refused { controller: controller.clone(), above, errno });
            }
        }
    }
    Ok(refused)
}

/// A limit without a file: of a controller that is not handed down.
fn explain(error: Error, refused: Vec<Refused>) -> Error {
    let Error::Cgroup { file, value, errno: Errno::ENOENT | Errno::ENODEV } = &error else { return error };
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let of = |r: &Refused| name.strip_prefix(&*r.controller).is_some_and(|rest| rest.starts_with('.'));
    match refused.into_iter().find(of) {
        Some(Refused { controller, above, errno }) => {
            Error::Controller { controller, file: file.clone(), value: value.clone(), above, errno }
        }
        None => error,
    }
}

const SUBTREE_CONTROL: &str = "cgroup.subtree_control";

fn missing_controllers(folder: &Folder, group: &Group) -> Result<Vec<String>> {
    let there = folder.read("cgroup.controllers")?;
    let is_there = |c: &&String| !there.split_ascii_whitespace().any(|t| t == c.as_str());
    Ok(group.enable.iter().filter(is_there).cloned().collect())
}

fn run_steps(folder: &Folder, steps: &[Step], is_new: bool) -> Result<()> {
    let mut postponed: Vec<&Write> = Vec::new();
    let mut writer = Writer { folder, open: None };
    for step in steps {
        match step {
            Step::Write(write) if write.default && is_new => {}
            Step::Write(write) => match writer.set(write) {
                Err(error) if write.after_next && error.errno() == Some(Errno::EINVAL) => {
                    postponed.push(write);
                }
                result => {
                    result?;
                    // The one that waited for this first, then the one that waited for that.
                    while let Some(earlier) = postponed.pop() {
                        writer.set(earlier)?;
                    }
                }
            },
            Step::FirstThere(writes) => writer.set_first_there(writes)?,
            Step::CheckUsage { limit, swap } if !is_new => check_usage(folder, *limit, *swap)?,
            Step::CheckUsage { .. } => {}
            Step::Devices(program) => filter_devices(folder, program, is_new)?,
        }
    }
    // Nothing came after it that could have helped: let the kernel say once more why not.
    postponed.into_iter().rev().try_for_each(|write| writer.set(write))
}

/// Keeps the last file open: device rules are a dozen writes to the same one.
struct Writer<'a> {
    folder: &'a Folder,
    open: Option<(&'a str, OwnedFd)>,
}

impl<'a> Writer<'a> {
    fn set(&mut self, write: &'a Write) -> Result<()> {
        match self.try_set(&write.file, &write.value) {
            Err(Errno::ENOENT) if write.may_lack => Ok(()),
            other => other.map_err(|errno| Error::Cgroup {
                file: self.folder.path().join(&*write.file),
                value: write.value.clone(),
                errno,
            }),
        }
    }

    fn set_first_there(&mut self, writes: &'a [Write]) -> Result<()> {
        for (left, write) in (0..writes.len()).rev().zip(writes) {
            match self.set(write) {
                Err(error) if left > 0 && error.errno() == Some(Errno::ENOENT) => {}
                result => return result,
            }
        }
        Ok(())
    }

    fn try_set(&mut self, file: &'a str, value: &str) -> nix::Result<()> {
        let fd = match self.open.take().filter(|(open, _)| *open == file) {
            Some((_, fd)) => fd,
            None => self.folder.open_to_write(file)?,
        };
        let (_, fd) = self.open.insert((file, fd));
        write_once(fd.as_fd(), value)
    }
}

pub(super) fn check_usage(folder: &Folder, limit: Option<i64>, swap: Option<i64>) -> Result<()> {
    let Some(text) = folder.read_if_there("memory.current")? else { return Ok(()) };
    let usage: i64 = text.trim_end().parse().map_err(|_| Error::Host {
        what: format!("cannot check the memory limit: {text:?} is not a number of bytes"),
        why: folder.path().join("memory.current").display().to_string(),
    })?;
    for (limit, what) in [(swap, "memory+swap limit"), (limit, "memory limit")] {
        if let Some(limit) = limit.filter(|&l| l <= usage) {
            return Err(Error::Host {
                what: format!("rejecting {what} {limit} <= usage {usage}"),
                why: folder.path().display().to_string(),
            });
        }
    }
    Ok(())
}

/// Puts our filter in the place of those that are attached: a new cgroup has none.
fn filter_devices(folder: &Folder, program: &[bpf::Instruction], is_new: bool) -> Result<()> {
    let failed = |what: &'static str| {
        move |errno| Error::sys(format!("{what} device filter of"), folder.path().display(), errno)
    };
    let mut ids = [0; 64];
    let old = match is_new {
        true => &[][..],
        false => bpf::device_programs(folder.fd(), &mut ids).map_err(failed("query the"))?,
    };
    let old: Vec<OwnedFd> = old
        .iter()
        .map(|&id| bpf::program_by_id(id))
        .collect::<nix::Result<_>>()
        .map_err(failed("open the"))?;
    let program = bpf::load_device_program(program).map_err(failed("load the"))?;
    let (first, others) = (old.first().map(AsFd::as_fd), old.iter().skip(1));
    bpf::attach_device_program(folder.fd(), program.as_fd(), first).map_err(failed("attach the"))?;
    for other in others {
        bpf::detach_device_program(folder.fd(), other.as_fd()).map_err(failed("detach an old"))?;
    }
    Ok(())
}

/// On v1 a new cpuset has neither processors nor memory, and nobody can enter it: it takes those of
/// the folder above, where the configuration says nothing. The folders above need them in any case:
/// a cpuset can only be given what its parent has.
fn inherit_cpuset(folder: &Folder, group: &Group, is_new: bool) -> Result<()> {
    let Some(parent) = folder.path().parent().filter(|p| p.starts_with(&group.mountpoint)) else {
        return Ok(());
    };
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let above = filled(parent, &group.mountpoint, file)?;
        let given = |step: &Step| matches!(step, Step::Write(write) if write.file == file);
        if !group.steps.iter().any(given) && (is_new || folder.read_value(file)?.is_empty()) {
            folder.write(file, &above)?;
        }
    }
    Ok(())
}

/// The value of a folder above; an empty one is filled from its own parent first.
fn filled(path: &Path, mountpoint: &Path, file: &str) -> Result<String> {
    let folder = Folder::open(path)?;
    let value = folder.read_value(file)?;
    match path.parent().filter(|parent| value.is_empty() && parent.starts_with(mountpoint)) {
        Some(parent) => {
            let value = filled(parent, mountpoint, file)?;
            folder.write(file, &value)?;
            Ok(value)
        }
        None => Ok(value),
    }
}

/// The folder, and those files that the kernel says belong to whoever it is delegated to.
fn give_to(folder: &Folder, uid: u32) -> Result<()> {
    const LIST: &str = "/sys/kernel/cgroup/delegate";
    let list = std::fs::read_to_string(LIST).map_err(|e| Error::io("read", Path::new(LIST), &e))?;
    for file in list.lines().chain(["."]) {
        match fchownat(folder.fd(), file, Some(Uid::from_raw(uid)), None, AtFlags::AT_SYMLINK_NOFOLLOW) {
            // Files of controllers that are not enabled here.
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(errno) => {
                let file: PathBuf = folder.path().join(file);
                return Err(Error::sys("chown", file.display(), errno));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_checked_against_what_is_used() {
        for (usage, limit, swap, refused) in [
            ("4096\n", Some(4097), None, None),
            ("4096\n", Some(4096), None, Some("rejecting memory limit 4096 <= usage 4096")),
            ("4096\n", None, Some(1), Some("rejecting memory+swap limit 1 <= usage 4096")),
            ("lots\n", Some(4096), None, Some("\"lots\\n\" is not a number of bytes")),
        ] {
            let dir = tempfile::tempdir().unwrap();
            std::fs::write(dir.path().join("memory.current"), usage).unwrap();
            let checked = check_usage(&Folder::open(dir.path()).unwrap(), limit, swap);
            match refused {
                None => checked.unwrap(),
                Some(why) => {
                    let error = checked.unwrap_err().to_string();
                    assert!(error.contains(why), "{error}");
                }
            }
        }
    }
}
