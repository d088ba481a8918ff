//! What a container is at this moment: worked out from its record and the kernel, never remembered.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use nix::errno::Errno;

use crate::error::{Error, Result};
use crate::state::{Dir, Init, Record, Stage, Status};

/// <https://github.com/opencontainers/runtime-spec/blob/main/runtime.md#state>
pub fn status(dir: &Dir, record: &Record) -> Result<Status> {
    let alive = match record.init {
        Some(init) => is_alive(init)?,
        // `create` did not come to the clone: it is at work, or was killed there.
        None => return Ok(Status::Creating),
    };
    if !alive {
        return Ok(Status::Stopped);
    }
    if record.stage == Stage::Creating {
        return Ok(Status::Creating);
    }
    if record.cgroup.is_frozen()? {
        return Ok(Status::Paused);
    }
    let waiting = fs::OpenOptions::new()
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOFOLLOW)
        .open(dir.fifo_path());
    match waiting {
        Ok(_) => Ok(Status::Created),
        // `start` removes the fifo once init has gone past it; if it was killed just then, nobody has the other end.
        Err(e) if e.kind() == ErrorKind::NotFound || e.raw_os_error() == Some(libc::ENXIO) => {
            Ok(Status::Running)
        }
        Err(e) => Err(Error::io("open", &dir.fifo_path(), &e)),
    }
}

/// Names a living process, so that it can be told from a later one with its pid.
pub fn identify(pid: i32) -> Result<Init> {
    let stat = stat(pid)?.ok_or_else(|| Error::sys("stat", format!("/proc/{pid}"), Errno::ESRCH))?;
    Ok(Init { pid, start_time: stat.start_time })
}

/// Whether it is still that process, and not just its unreaped remains.
pub fn is_alive(init: Init) -> Result<bool> {
    Ok(stat(init.pid)?.is_some_and(|stat| is_that(init, &stat)))
}

/// Whether it has ended, or was sent a `SIGKILL` that it has not come to: a frozen cgroup of v1 holds
/// that back.
pub fn is_dying(init: Init) -> Result<bool> {
    let path = PathBuf::from(format!("/proc/{}/status", init.pid));
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == ErrorKind::NotFound || e.raw_os_error() == Some(libc::ESRCH) => {
            return Ok(true);
        }
        Err(e) => return Err(Error::io("read", &path, &e)),
    };
    Ok(is_kill_pending(&text) || !is_alive(init)?)
}

/// Of the thread, or of the process as a whole (`proc_pid_status(5)`).
fn is_kill_pending(status: &str) -> bool {
    const SIGKILL: u64 = 1 << (libc::SIGKILL - 1);
    let pending = |name| {
        let mask = status.lines().find_map(|line| line.strip_prefix(name))?;
        u64::from_str_radix(mask.trim(), 16).ok()
    };
    ["SigPnd:", "ShdPnd:"].into_iter().filter_map(pending).any(|mask| mask & SIGKILL != 0)
}

fn is_that(init: Init, stat: &Stat) -> bool {
    // Z: zombie; X, x: dead (proc_pid_stat(5)).
    stat.start_time == init.start_time && !matches!(stat.state, 'Z' | 'X' | 'x')
}

/// Of `/proc/PID/stat`, which every verb reads; `procfs` takes all its 52 fields apart, and 13 kB.
struct Stat {
    state: char,
    /// In clock ticks since the machine was started.
    start_time: u64,
}

impl Stat {
    /// Fields 3 and 22, behind a name in parentheses that may hold anything (proc_pid_stat(5)).
    fn parse(text: &[u8]) -> Option<Self> {
        let end = text.iter().rposition(|&byte| byte == b')')?;
        let rest = std::str::from_utf8(&text[end + 1..]).ok()?;
        let mut fields = rest.split_ascii_whitespace();
        let state = fields.next()?.chars().next()?;
        Some(Stat { state, start_time: fields.nth(18)?.parse().ok()? })
    }
}

fn stat(pid: i32) -> Result<Option<Stat>> {
    let path = PathBuf::from(format!("/proc/{pid}/stat"));
    let gone = |e: &std::io::Error| {
        // ESRCH: it died between open and read.
        e.kind() == ErrorKind::NotFound || e.raw_os_error() == Some(Errno::ESRCH as i32)
    };
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(e) if gone(&e) => return Ok(None),
        Err(e) => return Err(Error::io("read", &path, &e)),
    };
    match Stat::parse(&text) {
        Some(stat) => Ok(Some(stat)),
        None => Err(Error::Protocol(format!("{}: it has not the form of proc_pid_stat(5)", path.display()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::{Driver, Paths, Place};
    use crate::config::id::ContainerId;
    use crate::state::SCHEMA;
    use std::collections::BTreeMap;
    use std::path::Path;
    use std::process::{Command, Stdio};
    use std::time::UNIX_EPOCH;

    struct Container {
        _root: tempfile::TempDir,
        cgroup: tempfile::TempDir,
        dir: Dir,
        record: Record,
    }

    fn paths(controller: &str, folder: &Path) -> Paths {
        let place =
            Place { controllers: vec![controller.to_owned()], folder: folder.to_owned(), name: "/a".into() };
        let (v1, v2) = if controller.is_empty() { (vec![], Some(place)) } else { (vec![place], None) };
        Paths { driver: Driver::Cgroupfs, v1, v2, unit: None }
    }

    /// One whose first process is this test.
    fn container(controller: &str) -> Container {
        let root = tempfile::tempdir().unwrap();
        let cgroup = tempfile::tempdir().unwrap();
        let dir = Dir::create(root.path(), &ContainerId::new("a").unwrap()).unwrap();
        let pid = i32::try_from(std::process::id()).unwrap();
        let record = Record {
            schema: SCHEMA,
            id: "a".into(),
            stage: Stage::Created,
            oci_version: "1.3.0".into(),
            bundle: "/b".into(),
            rootfs: "/b/rootfs".into(),
            annotations: BTreeMap::new(),
            created: UNIX_EPOCH,
            owner: 0,
            init: Some(identify(pid).unwrap()),
            cgroup: paths(controller, cgroup.path()),
            shared_pid_namespace: false,
            poststart: false,
            poststop: true,
            no_new_keyring: false,
        };
        Container { _root: root, cgroup, dir, record }
    }

    #[test]
    fn a_container_goes_from_creating_to_stopped() {
        let mut c = container("");
        let status = |c: &Container| super::status(&c.dir, &c.record).unwrap();

        c.record.stage = Stage::Creating;
        assert_eq!(status(&c), Status::Creating);
        let init = c.record.init.take();
        assert_eq!(status(&c), Status::Creating, "before the clone");
        c.record.init = init;
        c.record.stage = Stage::Created;
        nix::unistd::mkfifo(&c.dir.fifo_path(), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let waiting = fs::OpenOptions::new().read(true).write(true).open(c.dir.fifo_path()).unwrap();
        assert_eq!(status(&c), Status::Created);
        drop(waiting);
        // What another test begins has a copy until it executes.
        let begun = std::time::Instant::now();
        while status(&c) == Status::Created && begun.elapsed().as_secs() < 20 {
            std::thread::yield_now();
        }
        assert_eq!(status(&c), Status::Running, "its `start` died before it removed the fifo");
        fs::remove_file(c.dir.fifo_path()).unwrap();
        assert_eq!(status(&c), Status::Running);
        c.record.init.as_mut().unwrap().start_time += 1;
        assert_eq!(status(&c), Status::Stopped, "the pid is another process's now");
    }

    #[test]
    fn a_frozen_cgroup_is_a_paused_container_on_both_versions() {
        for (controller, file, values) in [
            ("", "cgroup.freeze", [("0\n", Status::Running), ("1\n", Status::Paused)].as_slice()),
            (
                "freezer",
                "freezer.state",
                &[
                    ("THAWED\n", Status::Running),
                    ("FREEZING\n", Status::Paused),
                    ("FROZEN\n", Status::Paused),
                ],
            ),
        ] {
            let c = container(controller);
            for (value, expected) in values {
                fs::write(c.cgroup.path().join(file), value).unwrap();
                assert_eq!(status(&c.dir, &c.record).unwrap(), *expected, "{file} {value}");
            }
        }
    }

    #[test]
    fn a_kill_that_is_held_back_is_seen() {
        for (status, expected) in [
            ("SigPnd:\t0000000000000100\nShdPnd:\t0000000000000000\n", true),
            ("SigPnd:\t0000000000000000\nShdPnd:\t0000000000004100\n", true),
            ("SigPnd:\t0000000000000000\nShdPnd:\t0000000000004000\nSigBlk:\t0000000000000100\n", false),
            ("", false),
        ] {
            assert_eq!(is_kill_pending(status), expected, "{status:?}");
        }
        let own = identify(i32::try_from(std::process::id()).unwrap()).unwrap();
        assert!(!is_dying(own).unwrap());
        assert!(is_dying(Init { start_time: own.start_time + 1, ..own }).unwrap(), "another process");
    }

    #[test]
    fn it_reads_what_procfs_reads() {
        let oracle = procfs::process::Process::myself().unwrap().stat().unwrap();
        let own = stat(i32::try_from(std::process::id()).unwrap()).unwrap().unwrap();
        assert_eq!(own.start_time, oracle.starttime);
    }

    #[test]
    fn a_name_does_not_confuse_what_comes_behind_it() {
        let rest = "S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20 21";
        for name in ["sh", "a) R 1 (b", "", "\u{ff}"] {
            let stat = Stat::parse(format!("7 ({name}) {rest}\n").as_bytes()).unwrap();
            assert_eq!((stat.state, stat.start_time), ('S', 4711), "{name}");
        }
        for torn in [
            "",
            "7",
            "7 (sh",
            "7 (sh)",
            "7 (sh) S 1 2 3",
            "7 (sh) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 x",
        ] {
            assert!(Stat::parse(torn.as_bytes()).is_none(), "{torn}");
        }
    }

    #[test]
    fn a_process_that_nobody_reaped_is_dead() {
        let mut child = Command::new("true").stdin(Stdio::piped()).spawn().unwrap();
        let init = identify(i32::try_from(child.id()).unwrap()).unwrap();
        // It is a zombie until `wait`, and soon.
        let limit = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while is_alive(init).unwrap() {
            assert!(std::time::Instant::now() < limit, "still alive");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        assert!(stat(init.pid).unwrap().is_some(), "its remains are there");
        child.wait().unwrap();
        assert!(!is_alive(init).unwrap());
        assert_eq!(identify(init.pid).unwrap_err().errno(), Some(Errno::ESRCH));
    }
}

#[cfg(test)]
mod fuzz {
    use super::*;

    /// Files of `/proc/PID/`, the name of which process is the container's own choice.
    #[test]
    fn files_of_proc() {
        let seeds = [
            "7 (sh) S 1 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4711 2740224 240 184467 1 1 0",
            "7 (a) Z (b) R 1 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 99 0",
            "Name:\tsh\nSigPnd:\t0000000000000100\nShdPnd:\t0000000000000000\n",
        ];
        ::fuzz::target("proc-files").seeds(seeds).rounds(20_000).run(|bytes| {
            let text = String::from_utf8_lossy(bytes);
            let is_stat = Stat::parse(bytes).is_some();
            is_kill_pending(&text) || is_stat
        });
    }
}
