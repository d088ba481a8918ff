//! To be told when the kernel kills processes of a container for want of memory.
//!
//! v1 counts in an eventfd, which it also wakes when the cgroup is removed. On v2 `memory.events` has
//! an exceptional condition when it has changed since the last read of the same open file.
//!
//! <https://docs.kernel.org/admin-guide/cgroup-v1/memory.html#oom-control>,
//! <https://docs.kernel.org/admin-guide/cgroup-v2.html#memory-interface-files>

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::uio::pread;

use crate::error::{Error, Result};

/// Where a container's memory is counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cgroup {
    /// Its folder in the hierarchy of the memory controller.
    V1(PathBuf),
    V2(PathBuf),
}

#[derive(Debug)]
pub struct Watcher {
    path: PathBuf,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    V1 {
        counter: EventFd,
        control: File,
    },
    /// The file cannot be waited for together with others by who waits for bytes only: the set can.
    V2 {
        set: Epoll,
        events: File,
        kills: u64,
    },
}

impl Watcher {
    /// From now on. `None`: memory is not counted there, or nothing is there.
    pub fn open(cgroup: &Cgroup) -> Result<Option<Self>> {
        match cgroup {
            Cgroup::V1(folder) => Self::v1(folder),
            Cgroup::V2(folder) => Self::v2(folder),
        }
    }

    fn v1(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join("memory.oom_control");
        let Some(control) = open_if_there(&path)? else { return Ok(None) };
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let counter = EventFd::from_flags(flags).map_err(|errno| Error::sys("eventfd", "", errno))?;
        let words = format!("{} {}", counter.as_fd().as_raw_fd(), control.as_raw_fd());
        let file = folder.join("cgroup.event_control");
        std::fs::write(&file, words).map_err(|error| Error::io("write", &file, &error))?;
        Ok(Some(Watcher { path, kind: Kind::V1 { counter, control } }))
    }

    fn v2(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join("memory.events");
        let Some(events) = open_if_there(&path)? else { return Ok(None) };
        let failed = |errno| Error::sys("watch", path.display(), errno);
        let set = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(failed)?;
        // Once for each change: of a cgroup that is removed the condition would last.
        let changes = EpollFlags::EPOLLPRI | EpollFlags::EPOLLET;
        set.add(&events, EpollEvent::new(changes, 0)).map_err(failed)?;
        let kills = value(&events, "oom_kill").map_err(failed)?.unwrap_or_default();
        Ok(Some(Watcher { path, kind: Kind::V2 { set, events, kills } }))
    }

    /// How many more there are since the last call: on v2 of processes killed, on v1 of times that
    /// memory ran out. To be called when the container has ended, before its cgroup is removed: the
    /// removal of one of v1 counts like a time that memory ran out, and is taken off.
    pub fn drain(&mut self) -> Result<u64> {
        let failed = |errno| Error::sys("read", self.path.display(), errno);
        match &mut self.kind {
            Kind::V1 { counter, control } => match counter.read() {
                Ok(count) if value(control, "under_oom").map_err(failed)?.is_none() => Ok(count - 1),
                Ok(count) => Ok(count),
                Err(Errno::EAGAIN) => Ok(0),
                Err(errno) => Err(failed(errno)),
            },
            Kind::V2 { set, events, kills } => {
                match set.wait(&mut [EpollEvent::empty()], EpollTimeout::ZERO) {
                    Ok(_) | Err(Errno::EINTR) => {}
                    Err(errno) => return Err(failed(errno)),
                }
                let now = value(events, "oom_kill").map_err(failed)?.unwrap_or(*kills);
                let more = now.saturating_sub(*kills);
                *kills = now;
                Ok(more)
            }
        }
    }
}

impl AsFd for Watcher {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.kind {
            Kind::V1 { counter, .. } => counter.as_fd(),
            Kind::V2 { set, .. } => set.0.as_fd(),
        }
    }
}

fn open_if_there(path: &Path) -> Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("open", path, &error)),
    }
}

/// `None` when the cgroup is gone, or the kernel does not tell.
fn value(file: &File, name: &str) -> nix::Result<Option<u64>> {
    let mut buffer = [0; 512];
    let count = match pread(file, &mut buffer, 0) {
        Ok(count) => count,
        Err(Errno::ENODEV) => return Ok(None),
        Err(errno) => return Err(errno),
    };
    let text = String::from_utf8_lossy(&buffer[..count]);
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    Ok(line.and_then(|number| number.trim().parse().ok()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::starts::starting;
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use std::process::{Command, ExitStatus, Stdio};

    /// A cgroup with 4 MiB, where the host has such ones; the limit's file tells the version.
    fn cgroup(limit: &str) -> Option<Removed> {
        let is_v1 = limit == "memory.limit_in_bytes";
        let base = Path::new(if is_v1 { "/sys/fs/cgroup/memory" } else { "/sys/fs/cgroup" });
        let controllers = std::fs::read_to_string(base.join("cgroup.controllers")).unwrap_or_default();
        if !(is_v1 && base.join(limit).exists() || controllers.contains("memory")) {
            let need = if is_v1 { "cgroup_v1" } else { "memory_controller" };
            spec_tests::need::skip_this(need, &format!("memory has no {limit}"));
            return None;
        }
        if !is_v1 {
            std::fs::write(base.join("cgroup.subtree_control"), "+memory").unwrap();
        }
        let folder = base.join(format!("tare-oom-{limit}-{}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join(limit), "4194304").unwrap();
        // Nor is swap to be filled; of v1 it is a limit of both together.
        for (file, most) in [("memory.swap.max", "0"), ("memory.memsw.limit_in_bytes", "4194304")] {
            if folder.join(file).exists() {
                std::fs::write(folder.join(file), most).unwrap();
            }
        }
        Some(Removed(folder))
    }

    /// However the test ends.
    struct Removed(PathBuf);

    impl Drop for Removed {
        fn drop(&mut self) {
            std::fs::remove_dir(&self.0).ok();
        }
    }

    fn eat_memory_in(folder: &Path) {
        let script = format!("echo $$ >{}/cgroup.procs; exec tail /dev/zero", folder.display());
        assert!(!run(&script).success());
    }

    fn run(script: &str) -> ExitStatus {
        let mut command = Command::new("sh");
        let child = starting(|| command.args(["-c", script]).stdout(Stdio::null()).spawn());
        child.unwrap().wait().unwrap()
    }

    fn is_ready(watcher: &Watcher) -> bool {
        let mut fds = [PollFd::new(watcher.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::ZERO).unwrap() == 1
    }

    #[test]
    fn on_v1_memory_that_ran_out_is_told_of_once_and_the_end_of_the_cgroup_is_none() {
        let Some(cgroup) = cgroup("memory.limit_in_bytes") else { return };
        let folder = &cgroup.0;
        let mut watcher = Watcher::open(&Cgroup::V1(folder.clone())).unwrap().unwrap();
        assert!(!is_ready(&watcher));
        assert_eq!(watcher.drain().unwrap(), 0);
        eat_memory_in(folder);
        assert!(is_ready(&watcher));
        assert!(watcher.drain().unwrap() >= 1);
        assert!(!is_ready(&watcher));
        assert_eq!(watcher.drain().unwrap(), 0);
        // The removal is none.
        eat_memory_in(folder);
        assert!(watcher.drain().unwrap() >= 1);
        std::fs::remove_dir(folder).unwrap();
        let mut fds = [PollFd::new(watcher.as_fd(), PollFlags::POLLIN)];
        assert_eq!(poll(&mut fds, PollTimeout::from(10_000u16)).unwrap(), 1, "the removal is told of");
        assert_eq!(watcher.drain().unwrap(), 0);
        assert!(!is_ready(&watcher));
    }

    #[test]
    fn on_v2_each_killed_process_is_told_of_once_and_the_end_of_the_cgroup_is_none() {
        let Some(cgroup) = cgroup("memory.max") else { return };
        let folder = &cgroup.0;
        // Those before are not of this watcher.
        eat_memory_in(folder);
        let mut watcher = Watcher::open(&Cgroup::V2(folder.clone())).unwrap().unwrap();
        assert!(!is_ready(&watcher));
        for killed in [1, 2] {
            (0..killed).for_each(|_| eat_memory_in(folder));
            assert!(is_ready(&watcher));
            assert_eq!(watcher.drain().unwrap(), killed);
            assert!(!is_ready(&watcher));
        }
        // Other events are none.
        std::fs::write(folder.join("memory.high"), "65536").unwrap();
        let script = format!("echo $$ >{}/cgroup.procs; exec head -c 1000000 /dev/zero", folder.display());
        run(&script);
        assert_eq!(watcher.drain().unwrap(), 0);
        std::fs::remove_dir(folder).unwrap();
        assert_eq!(watcher.drain().unwrap(), 0);
        assert!(!is_ready(&watcher));
    }

    #[test]
    fn where_no_memory_is_counted_there_is_nothing_to_watch() {
        let folder = tempfile::tempdir().unwrap();
        for cgroup in [Cgroup::V1(folder.path().into()), Cgroup::V2(folder.path().into())] {
            assert!(Watcher::open(&cgroup).unwrap().is_none());
        }
    }

    #[test]
    fn the_value_of_a_name_is_not_that_of_a_longer_one() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "oom 3\noom_kill 2\noom_group_kill 7\n").unwrap();
        let file = File::open(file.path()).unwrap();
        for (name, expected) in [("oom", Some(3)), ("oom_kill", Some(2)), ("under_oom", None)] {
            assert_eq!(value(&file, name).unwrap(), expected, "{name}");
        }
    }
}
