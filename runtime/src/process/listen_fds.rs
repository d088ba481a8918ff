//! Descriptors that the caller has opened for the container: socket activation
//! (`sd_listen_fds(3)`) and `--preserve-fds`. They keep their numbers.

use std::ffi::CString;
use std::fs;
use std::os::fd::RawFd;

use nix::errno::Errno;
use nix::unistd::Pid;

use crate::error::{Error, Result};

/// The first number after the standard streams (`SD_LISTEN_FDS_START`).
const FIRST: RawFd = 3;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Passed {
    /// 3 and up, without gaps: first those of socket activation, then the preserved ones.
    pub fds: Vec<RawFd>,
    /// For the container's environment.
    pub env: Vec<CString>,
}

/// What an environment says of socket activation: `LISTEN_FDS` and `LISTEN_PID`.
#[derive(Debug, Clone, Default)]
pub struct Listen {
    pub fds: Option<String>,
    pub pid: Option<String>,
}

impl Listen {
    /// How many are for the process `own`: none when they were meant for another one, from which
    /// the variables were inherited.
    fn count(&self, own: Pid) -> u32 {
        let for_us = self.pid.as_ref().is_some_and(|pid| *pid == own.to_string());
        self.fds.as_ref().filter(|_| for_us).and_then(|count| count.parse().ok()).unwrap_or(0)
    }
}

/// To be asked before anything else is opened: the numbers must be the caller's.
pub fn passed(listen: &Listen, own: Pid, preserve: u32) -> Result<Passed> {
    let listening = listen.count(own);
    let mut this = Passed::default();
    for index in 0..listening {
        this.add().map_err(|e| e.context(format!("unable to stat LISTEN_FDS {index} (of {listening})")))?;
    }
    if listening > 0 {
        let count = CString::new(format!("LISTEN_FDS={listening}")).unwrap_or_default();
        // In a pid namespace of its own, as nearly always, the container's first process is 1.
        this.env = vec![count, c"LISTEN_PID=1".into()];
    }
    for index in 0..preserve {
        this.add().map_err(|e| e.context(format!("unable to stat preserved-fd {index} (of {preserve})")))?;
    }
    Ok(this)
}

impl Passed {
    fn add(&mut self) -> Result<()> {
        // The table of descriptors is a RawFd long at most, so this cannot overflow before failing.
        let fd = FIRST + self.fds.len() as RawFd;
        if !is_inherited(fd) {
            return Err(Error::sys("stat", format!("/proc/self/fd/{fd}"), Errno::ENOENT));
        }
        self.fds.push(fd);
        Ok(())
    }
}

/// Open and not close-on-exec: what is close-on-exec did not come over our own exec, so it is ours,
/// and is not the caller's to give away.
fn is_inherited(fd: RawFd) -> bool {
    let Ok(info) = fs::read_to_string(format!("/proc/self/fdinfo/{fd}")) else { return false };
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
    flags
        .and_then(|octal| i32::from_str_radix(octal.trim(), 8).ok())
        .is_some_and(|flags| flags & libc::O_CLOEXEC == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;

    fn listen(fds: &str, pid: &str) -> Listen {
        Listen { fds: Some(fds.into()), pid: Some(pid.into()) }
    }

    #[test]
    fn activation_counts_only_for_the_process_it_names() {
        let own = Pid::from_raw(42);
        for (listen, expected) in [
            (listen("2", "42"), 2),
            (listen("2", "41"), 0),
            (listen("x", "42"), 0),
            (listen("-1", "42"), 0),
            (Listen { fds: Some("2".into()), pid: None }, 0),
            (Listen::default(), 0),
        ] {
            assert_eq!(listen.count(own), expected, "{listen:?}");
        }
    }

    #[test]
    fn only_what_came_over_exec_is_inherited() {
        let (plain, _writer) = nix::unistd::pipe().unwrap();
        let ours = fs::File::open("/dev/null").unwrap();
        assert!(is_inherited(plain.as_raw_fd()));
        assert!(!is_inherited(ours.as_raw_fd()));
        assert!(!is_inherited(100_000));
    }

    #[test]
    fn a_descriptor_that_is_not_there_is_named_as_runc_does() {
        let error = passed(&Listen::default(), Pid::this(), 100_000).unwrap_err().to_string();
        assert!(error.starts_with("unable to stat preserved-fd "), "{error}");
        assert!(error.contains(" (of 100000): stat /proc/self/fd/"), "{error}");
        assert!(error.ends_with(": no such file or directory"), "{error}");
    }
}
