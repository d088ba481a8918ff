//! A container's cgroups after it was made, by their recorded paths: who is in them, freeze, kill,
//! remove. A cgroup that is gone is empty, thawed and removed.

use std::collections::BTreeSet;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::events::Events;
use super::folder::{Folder, PROCS, is_gone, rmdir};
use super::holder::holders;
use super::paths::{Paths, Place};
use crate::error::{Error, Result};
use crate::sys::signal::kill;

/// A process in an uninterruptible sleep cannot be frozen; the kernel waits for it, we do not for ever.
const FREEZE_TIMEOUT: Duration = Duration::from_secs(10);
/// For reaching all that fork away from a signal.
const SIGNAL_TIMEOUT: Duration = Duration::from_secs(2);
/// For a killed process to leave: longer than an exit with much memory takes.
const REMOVE_TIMEOUT: Duration = Duration::from_secs(2);

impl Paths {
    /// The processes of the container; with `all` also those in cgroups that it made itself.
    pub fn pids(&self, all: bool) -> Result<Vec<i32>> {
        match self.counted() {
            Some(place) if all => pids_below(&place.folder),
            Some(place) => match Folder::open_if_there(&place.folder)? {
                Some(folder) => pids_of(&folder),
                None => Ok(Vec::new()),
            },
            None => Ok(Vec::new()),
        }
    }

    /// Nobody is in it, nor in the cgroups below.
    pub fn is_empty(&self) -> Result<bool> {
        if let Some(place) = self.v2.as_ref().filter(|_| self.is_unified()) {
            return match Folder::open_if_there(&place.folder)? {
                Some(folder) => Ok(!event(&folder, POPULATED)?),
                None => Ok(true),
            };
        }
        Ok(self.pids(true)?.is_empty())
    }

    /// One hierarchy stands for all: the device rules keep a container in that one, as runc counts.
    fn counted(&self) -> Option<&Place> {
        let unified = self.v2.as_ref().filter(|_| self.is_unified());
        let v1 = || ["devices", "freezer", "pids"].iter().find_map(|c| self.v1_with(c));
        unified.or_else(v1).or(self.v1.first())
    }

    fn freezer(&self) -> Option<&Place> {
        self.v1_with("freezer").or(self.v2.as_ref())
    }

    fn open_freezer(&self) -> Result<Folder> {
        let missing = || Error::Host {
            what: "cannot toggle freezer".into(),
            why: "cgroups not configured for container".into(),
        };
        Folder::open(&self.freezer().ok_or_else(missing)?.folder)
    }

    /// Stops every process of the container; returns when they stand still.
    pub fn freeze(&self) -> Result<()> {
        freeze(&self.open_freezer()?)
    }

    pub fn thaw(&self) -> Result<()> {
        thaw(&self.open_freezer()?)
    }

    /// Without a freezer nothing is frozen.
    pub fn is_frozen(&self) -> Result<bool> {
        let Some(place) = self.freezer() else { return Ok(false) };
        match Folder::open_if_there(&place.folder)? {
            Some(folder) => is_frozen(&folder),
            None => Ok(false),
        }
    }

    /// A signal for every process of the container, also those in cgroups that it made itself. After
    /// `SIGKILL` it is thawed, whatever it was before: a frozen v1 cgroup holds the signal back.
    pub fn kill_all(&self, signal: i32) -> Result<()> {
        const SIGKILL: i32 = nix::sys::signal::Signal::SIGKILL as i32;
        let Some(place) = self.counted() else { return Ok(()) };
        let Some(folder) = Folder::open_if_there(&place.folder)? else { return Ok(()) };
        if signal == SIGKILL && self.is_unified() {
            match folder.write("cgroup.kill", "1") {
                Ok(()) => return Ok(()),
                // Linux 5.14. EOPNOTSUPP: a threaded cgroup.
                Err(error)
                    if matches!(error.errno(), Some(Errno::ENOENT | Errno::EACCES | Errno::EOPNOTSUPP)) => {}
                Err(error) if is_gone(&error) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        let was_frozen = self.is_frozen()?;
        // Frozen, nobody can fork away from under the list. That it cannot be frozen (no freezer,
        // a process that sleeps uninterruptibly) must not keep a signal from the others.
        let freezer =
            self.freezer().and_then(|p| Folder::open_if_there(&p.folder).transpose()).transpose()?;
        let allowed = if signal == SIGKILL { self.forbid_forks()? } else { None };
        let frozen = !was_frozen
            && freezer.as_ref().is_some_and(|f| freeze_within(f, Duration::from_millis(100)).is_ok());
        let killed = signal_each(&place.folder, signal, frozen || was_frozen);
        let mut failed: Vec<Error> = killed.err().into_iter().collect();
        if let (false, Some((folder, limit))) = (failed.is_empty(), allowed) {
            // Who could not be killed lives on as he did.
            failed.extend(folder.write(PIDS_MAX, &limit).err());
        }
        if let Some(freezer) = freezer {
            if signal == SIGKILL {
                failed.extend(thaw_below(freezer.path()).err());
            } else if !was_frozen {
                failed.extend(thaw(&freezer).err());
            }
        }
        all_of(failed)
    }

    /// Who is to be killed and forks all the time is never caught by a list of who is there. The limit
    /// of before, where there is one.
    fn forbid_forks(&self) -> Result<Option<(Folder, String)>> {
        let place = self.v1_with("pids").or(self.v2.as_ref());
        let Some(folder) = place.and_then(|p| Folder::open_if_there(&p.folder).transpose()).transpose()?
        else {
            return Ok(None);
        };
        let Some(limit) = folder.read_if_there(PIDS_MAX)? else { return Ok(None) };
        match folder.write(PIDS_MAX, "0") {
            Ok(()) => Ok(Some((folder, limit.trim_end().to_owned()))),
            // Where it may not be written, or tasks are not counted, the list has to do.
            Err(error)
                if is_gone(&error)
                    || matches!(error.errno(), Some(Errno::EACCES | Errno::EPERM | Errno::EROFS)) =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Removes the cgroups and those that the container made below them. Goes to the end; an error
    /// says who still is in one.
    pub fn remove(&self) -> Result<()> {
        // One deadline for all: who holds one v1 hierarchy holds the others too.
        let deadline = Instant::now() + REMOVE_TIMEOUT;
        all_of(self.all().filter_map(|place| remove_before(deadline, &place.folder).err()).collect())
    }
}

const PIDS_MAX: &str = "pids.max";

fn all_of(mut failed: Vec<Error>) -> Result<()> {
    match failed.len() {
        0 => Ok(()),
        1 => Err(failed.remove(0)),
        _ => Err(Error::Cleanup(failed)),
    }
}

/// To each process that is found, also when one of them may not be signalled. Those that do not stand
/// still can fork: again as long as new ones appear.
fn signal_each(folder: &Path, signal: i32, frozen: bool) -> Result<()> {
    let mut sent = BTreeSet::new();
    let mut failed = Vec::new();
    let deadline = Instant::now() + SIGNAL_TIMEOUT;
    loop {
        let mut new = pids_below(folder)?;
        new.retain(|pid| sent.insert(*pid));
        for &pid in &new {
            match kill(pid, signal) {
                // Gone in the meantime.
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(errno) => failed.push(Error::sys("kill", pid, errno)),
            }
        }
        if frozen || new.is_empty() || Instant::now() >= deadline {
            return all_of(failed);
        }
    }
}

pub(super) fn pids_below(path: &Path) -> Result<Vec<i32>> {
    let Some(folder) = Folder::open_if_there(path)? else { return Ok(Vec::new()) };
    let mut pids = pids_of(&folder)?;
    for child in folder.children()? {
        pids.extend(pids_below(&child)?);
    }
    Ok(pids)
}

fn pids_of(folder: &Folder) -> Result<Vec<i32>> {
    let text = match folder.read_if_there(PROCS) {
        // A threaded cgroup names its threads only.
        Err(error) if error.errno() == Some(Errno::EOPNOTSUPP) => folder.read_if_there("cgroup.threads"),
        other => other,
    }?;
    // 0 stands for a process of another pid namespace, which has no number here.
    let pids = text.unwrap_or_default();
    Ok(pids.lines().filter_map(|line| line.parse().ok()).filter(|&pid| pid > 0).collect())
}

const V1_STATE: &str = "freezer.state";
const V2_FREEZE: &str = "cgroup.freeze";

pub(super) fn is_frozen(folder: &Folder) -> Result<bool> {
    if let Some(state) = folder.read_if_there(V1_STATE)? {
        return Ok(state.trim_end() != "THAWED");
    }
    Ok(folder.read_if_there(V2_FREEZE)?.is_some_and(|state| state.trim_end() == "1"))
}

fn freeze(folder: &Folder) -> Result<()> {
    freeze_within(folder, FREEZE_TIMEOUT)
}

/// What cannot be frozen in time is left thawed.
fn freeze_within(folder: &Folder, timeout: Duration) -> Result<()> {
    let frozen = match folder.read_if_there(V1_STATE)? {
        Some(_) => freeze_v1(folder, timeout),
        None => freeze_v2(folder, timeout),
    };
    if frozen.is_err() {
        thaw(folder)?;
    }
    frozen
}

fn freeze_v2(folder: &Folder, timeout: Duration) -> Result<()> {
    let deadline = Instant::now() + timeout;
    let missing = || Error::sys("open", folder.path().join(EVENTS).display(), Errno::ENOENT);
    let events = Events::open_if_there(folder, EVENTS)?.ok_or_else(missing)?;
    folder.write(V2_FREEZE, "1")?;
    while events.value("frozen")? != Some(1) {
        // Somebody else thaws it, who kills the container for example: it will not come to pass.
        if folder.read_value(V2_FREEZE)? != "1" {
            return Err(unexpected(folder, "THAWED"));
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(cannot_freeze(folder));
        }
        // Woken when a value changes, and at least every 10 ms: that of cgroup.freeze wakes nobody.
        let mut fds = [PollFd::new(events.file.as_fd(), PollFlags::POLLPRI)];
        let wait = PollTimeout::from(u8::try_from(left.as_millis().clamp(1, 10)).unwrap_or(10));
        match poll(&mut fds, wait) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(Error::sys("poll", folder.path().join(EVENTS).display(), errno)),
        }
    }
    Ok(())
}

const EVENTS: &str = "cgroup.events";
const POPULATED: &str = "populated 1";

/// By the count of v2, which also knows processes that have no number here.
pub(super) fn is_populated(path: &Path) -> Result<bool> {
    Folder::open_if_there(path)?.map_or(Ok(false), |folder| event(&folder, POPULATED))
}

fn event(folder: &Folder, line: &str) -> Result<bool> {
    Ok(folder.read_if_there(EVENTS)?.is_some_and(|text| text.lines().any(|l| l == line)))
}

/// The state says FREEZING until everybody stands still, and a process that was just forked can slip
/// through: writing again catches it. Thawing now and then helps one that waits for a frozen one.
/// <https://docs.kernel.org/admin-guide/cgroup-v1/freezer-subsystem.html>
fn freeze_v1(folder: &Folder, timeout: Duration) -> Result<()> {
    let deadline = Instant::now() + timeout;
    let mut pause = Duration::from_micros(20);
    loop {
        folder.write(V1_STATE, "FROZEN")?;
        match folder.read_value(V1_STATE)?.as_str() {
            "FROZEN" => return Ok(()),
            "FREEZING" => {}
            other => return Err(unexpected(folder, other)),
        }
        if Instant::now() >= deadline {
            return Err(cannot_freeze(folder));
        }
        std::thread::sleep(pause);
        if pause < Duration::from_millis(5) {
            pause *= 2;
        } else {
            folder.write(V1_STATE, "THAWED")?;
        }
    }
}

fn unexpected(folder: &Folder, state: &str) -> Error {
    let what = format!("unexpected state {state:?} while freezing");
    Error::Host { what, why: folder.path().display().to_string() }
}

fn cannot_freeze(folder: &Folder) -> Error {
    Error::Host { what: "unable to freeze".into(), why: folder.path().display().to_string() }
}

fn thaw(folder: &Folder) -> Result<()> {
    let result = match folder.read_if_there(V1_STATE)? {
        Some(_) => folder.write(V1_STATE, "THAWED"),
        None => folder.write(V2_FREEZE, "0"),
    };
    match result {
        Err(error) if is_gone(&error) => Ok(()),
        other => other,
    }
}

/// Also what the container froze itself.
fn thaw_below(path: &Path) -> Result<()> {
    let Some(folder) = Folder::open_if_there(path)? else { return Ok(()) };
    thaw(&folder)?;
    folder.children()?.iter().try_for_each(|child| thaw_below(child))
}

/// Removes a cgroup, those below it first. Waits for processes that are on their way out.
pub(super) fn remove_folder(path: &Path) -> Result<()> {
    remove_before(Instant::now() + REMOVE_TIMEOUT, path)
}

fn remove_before(deadline: Instant, path: &Path) -> Result<()> {
    // Nearly always it is empty and has no children: one call.
    match rmdir(path) {
        Ok(()) | Err(Errno::ENOENT) => return Ok(()),
        // A read-only mount says so even of what is not there.
        Err(_) if !path.exists() => return Ok(()),
        Err(_) => {}
    }
    let mut deadline = deadline;
    let mut held_by = usize::MAX;
    let mut pause = Duration::from_millis(1);
    loop {
        // Each time: who is on his way out may have made one more.
        let below = remove_children(deadline, path);
        match rmdir(path) {
            Ok(()) | Err(Errno::ENOENT) => return Ok(()),
            Err(Errno::EBUSY) if Instant::now() < deadline => {}
            // Thousands that were killed take their time; as long as they become fewer it goes on.
            Err(Errno::EBUSY) if fewer(path, &mut held_by)? => deadline = Instant::now() + REMOVE_TIMEOUT,
            Err(errno) => {
                below?;
                let error = Error::sys("rmdir", path.display(), errno);
                return Err(match holders(path) {
                    Some(who) => error.context(format!("cgroup is still held by {who}")),
                    None => error,
                });
            }
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

/// All that can be, whichever cannot.
fn remove_children(deadline: Instant, path: &Path) -> Result<()> {
    let Some(folder) = Folder::open_if_there(path)? else { return Ok(()) };
    all_of(folder.children()?.iter().filter_map(|child| remove_before(deadline, child).err()).collect())
}

/// Than when it was last asked; never when there are none.
fn fewer(path: &Path, before: &mut usize) -> Result<bool> {
    let now = pids_below(path)?.len();
    let fewer = now > 0 && now < *before;
    *before = now;
    Ok(fewer)
}
