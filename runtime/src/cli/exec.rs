//! `exec`.

use std::path::PathBuf;

use clap::Args;

use super::create::listen;
use super::globals::Context;
use super::words::Options;
use super::{Verb, absolute_if_given, id};
use crate::error::{Error, Result};
use crate::lifecycle::{self, ExecChanges, ExecProcess, ExecRequest};

#[derive(Debug, Args)]
pub(super) struct Exec {
    /// send the master end of the console's pseudoterminal to this AF_UNIX socket
    #[arg(long, value_name = "PATH")]
    console_socket: Option<PathBuf>,
    /// send a pidfd of the new process to this AF_UNIX socket
    #[arg(long, value_name = "PATH")]
    pidfd_socket: Option<PathBuf>,
    /// working directory in the container
    #[arg(long, value_name = "DIR")]
    cwd: Option<String>,
    /// add a variable to the environment (may be repeated)
    #[arg(long, short, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// give the process a pseudoterminal
    #[arg(long, short)]
    tty: bool,
    /// run as this user
    #[arg(long, short, value_name = "UID[:GID]", value_parser = user)]
    user: Option<(u32, Option<u32>)>,
    /// add a group (may be repeated)
    #[arg(long, short = 'g', value_name = "GID", value_parser = number)]
    additional_gids: Vec<u32>,
    /// read the process from FILE, a `process` of config.json; then no command is given
    #[arg(long, short, value_name = "FILE")]
    process: Option<PathBuf>,
    /// do not wait for the process's end
    #[arg(long, short)]
    detach: bool,
    /// write the process id to FILE
    #[arg(long, value_name = "FILE")]
    pid_file: Option<PathBuf>,
    /// SELinux label of the process
    #[arg(long, value_name = "LABEL")]
    process_label: Option<String>,
    /// AppArmor profile of the process
    #[arg(long, value_name = "PROFILE")]
    apparmor: Option<String>,
    /// set no_new_privs
    #[arg(long)]
    no_new_privs: bool,
    /// add a capability (may be repeated)
    #[arg(long, short, value_name = "CAP")]
    cap: Vec<String>,
    /// pass N more descriptors to the process, after stdio and those of $LISTEN_FDS
    #[arg(long, value_name = "N", default_value_t = 0)]
    preserve_fds: u32,
    /// run in this cgroup below the container's; with controllers, in those only (may be repeated)
    #[arg(long, value_name = "[CONTROLLERS:]PATH")]
    cgroup: Vec<String>,
    /// also in a paused container, where the process waits for `resume`
    #[arg(long)]
    ignore_paused: bool,
}

impl Verb for Exec {
    const NAME: &str = "exec";
    const ABOUT: &str = "execute a process in a container";
    const USAGE: &str = "<container-id> <command> [arguments...]  ||  --process FILE <container-id>";
    const DESCRIPTION: &str = "\
Starts a process in the namespaces and cgroup of a running container, waits for
its end, and exits as it did. Options stand before the id; all that follows it
is the command.

EXAMPLE:
    # tare exec --tty web sh
    # tare exec --user 1000:1000 --env A=1 web /bin/probe -v";
    const ARGUMENTS: (usize, usize) = (1, usize::MAX);
    const SEALED: bool = true;
    const OPTIONS: Options = Options::First;
    const PREFIX: &str = "exec failed: ";
    const EXIT: u8 = 255;

    fn run(self, arguments: &[String], context: &Context) -> Result<u8> {
        let request = ExecRequest {
            id: id(arguments)?,
            cgroup: cgroups(&self.cgroup)?,
            console_socket: absolute_if_given(self.console_socket)?,
            pidfd_socket: absolute_if_given(self.pidfd_socket)?,
            pid_file: absolute_if_given(self.pid_file)?,
            detach: self.detach,
            preserve_fds: self.preserve_fds,
            listen: listen(),
            ignore_paused: self.ignore_paused,
            process: match absolute_if_given(self.process)? {
                Some(file) => ExecProcess::File(file),
                None if arguments.len() < 2 => return Err(Error::Usage("exec args cannot be empty".into())),
                None => ExecProcess::Changes(Box::new(ExecChanges {
                    args: arguments[1..].to_vec(),
                    cwd: self.cwd,
                    env: self.env,
                    terminal: self.tty,
                    user: self.user,
                    additional_gids: self.additional_gids,
                    capabilities: self.cap,
                    no_new_privileges: self.no_new_privs,
                    apparmor: self.apparmor,
                    process_label: self.process_label,
                })),
            },
        };
        lifecycle::exec::exec(&context.runtime, &request)
    }
}

/// `uid` or `uid:gid`. What is not wholly a number is never taken for one: an `1` that was read as 0
/// made a user root (CVE-2026-30892).
fn user(word: &str) -> std::result::Result<(u32, Option<u32>), String> {
    match word.split_once(':') {
        None => Ok((number(word)?, None)),
        Some((uid, gid)) => Ok((number(uid)?, Some(number(gid)?))),
    }
}

/// An id. The last number is "no change" to `setresuid(2)`.
fn number(word: &str) -> std::result::Result<u32, String> {
    let digits = !word.is_empty() && word.bytes().all(|b| b.is_ascii_digit());
    match word.parse::<u32>() {
        Ok(n) if digits && n != u32::MAX => Ok(n),
        _ => Err(format!("{word:?} is not a number from 0 to {}", u32::MAX - 1)),
    }
}

/// `--cgroup`, as runc reads it: one path for all controllers, or paths for controllers by name.
fn cgroups(words: &[String]) -> Result<Vec<(Vec<String>, String)>> {
    let wrong = |word: &str, why: &str| Error::Usage(format!("invalid --cgroup argument: {word} ({why})"));
    let mut all: Vec<(Vec<String>, String)> = Vec::new();
    for word in words {
        let (controllers, path) = match word.split_once(':') {
            Some((controllers, path)) => (controllers.split(',').map(str::to_owned).collect(), path),
            None if words.len() > 1 => return Err(wrong(word, "missing <controller>: prefix")),
            None => (Vec::new(), word.as_str()),
        };
        if controllers.iter().any(String::is_empty) {
            return Err(wrong(word, "empty <controller> prefix"));
        }
        let twice = |c| all.iter().any(|(seen, _)| seen.contains(c));
        if let Some(controller) = controllers.iter().find(|c| twice(c)) {
            return Err(wrong(word, &format!("controller {controller} specified multiple times")));
        }
        // It is a path below the container's cgroup, whatever it begins with.
        if path.split('/').any(|name| name == "..") {
            return Err(wrong(word, "it must not leave the container's cgroup"));
        }
        all.push((controllers, path.to_owned()));
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{globals, parse, typed};

    #[test]
    fn users_are_numbers_or_refused() {
        for (word, expected) in [
            ("1", Some((1, None))),
            ("1:2", Some((1, Some(2)))),
            ("0:1", Some((0, Some(1)))),
            ("4294967294", Some((4_294_967_294, None))),
            ("", None),
            (" 1", None),
            ("1 ", None),
            ("1:", None),
            (":1", None),
            ("1:2:3", None),
            ("4294967295", None),
            ("4294967296", None),
            ("1:4294967295", None),
            ("-1", None),
            ("+1", None),
            ("0x1", None),
            ("x", None),
            ("root", None),
        ] {
            assert_eq!(user(word).ok(), expected, "{word:?}");
        }
    }

    #[test]
    fn groups_and_capabilities_may_be_repeated() {
        let table = Exec::augment_args(globals::bare("exec"));
        let words =
            ["--additional-gids=1", "--additional-gids=2", "--cap=A", "--cap=B", "--env=C=1", "--env=D"];
        let exec: Exec = typed(&parse(table, words.map(Into::into).to_vec()).unwrap()).unwrap();
        assert_eq!(exec.additional_gids, [1, 2]);
        assert_eq!(exec.cap, ["A", "B"]);
        assert_eq!(exec.env, ["C=1", "D"]);
    }

    #[test]
    fn cgroups_are_for_all_controllers_or_for_each_by_name() {
        let words = |all: &[&str]| all.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
        for (given, expected) in [
            (&[][..], vec![]),
            (&["a/b"], vec![(vec![], "a/b")]),
            (&["/"], vec![(vec![], "/")]),
            (&["cpu,memory:a", "pids:/b"], vec![(vec!["cpu", "memory"], "a"), (vec!["pids"], "/b")]),
        ] {
            let expected: Vec<_> = expected.into_iter().map(|(c, p)| (words(&c), p.to_owned())).collect();
            assert_eq!(cgroups(&words(given)).unwrap(), expected);
        }
        for (given, why) in [
            (&["a", "b"][..], "missing <controller>: prefix"),
            (&[":a"], "empty <controller> prefix"),
            (&["cpu,:a"], "empty <controller> prefix"),
            (&["cpu:a", "cpu:b"], "controller cpu specified multiple times"),
            (&["../.."], "must not leave"),
            (&["cpu:a/../../b"], "must not leave"),
        ] {
            let error = cgroups(&words(given)).unwrap_err().to_string();
            assert!(error.contains(why), "{given:?}: {error}");
        }
    }
}

#[cfg(test)]
mod fuzz {
    use super::*;

    #[test]
    fn users_and_cgroups() {
        let seeds = ["0", "1000:1000", "4294967294", "sub/group", "cpu,memory:a/b", "a:/../x"];
        ::fuzz::target("exec-words").seeds(seeds).rounds(20_000).run(|bytes| {
            let Ok(text) = std::str::from_utf8(bytes) else { return false };
            let user = user(text);
            if let Ok((uid, gid)) = &user {
                // What is read is what was written, but for zeros before it.
                let written: Vec<u64> = text.split(':').map(|number| number.parse().unwrap()).collect();
                let read: Vec<u64> = [*uid].into_iter().chain(*gid).map(u64::from).collect();
                assert_eq!(read, written);
            }
            let words: Vec<String> = text.lines().map(str::to_owned).collect();
            let cgroups = cgroups(&words);
            if let Ok(cgroups) = &cgroups {
                assert!(
                    cgroups.iter().all(|(_, path)| path.split('/').all(|name| name != "..")),
                    "{cgroups:?}"
                );
            }
            user.is_ok() || cgroups.is_ok()
        });
    }

    #[test]
    fn signals() {
        let seeds = ["9", "SIGTERM", "rtmin+3", "RTMAX-1", "Kill"];
        ::fuzz::target("signals").seeds(seeds).rounds(20_000).run(|bytes| {
            let Ok(text) = std::str::from_utf8(bytes) else { return false };
            let signal = crate::cli::signal::parse(text);
            if let (Ok(signal), true) = (&signal, text.parse::<i32>().is_err()) {
                assert!((1..=64).contains(signal), "{text:?} is {signal}");
            }
            signal.is_ok()
        });
    }

    #[test]
    fn expressions() {
        ::fuzz::target("expressions")
            .seeds(["^web-[0-9]+$", "(a|b)*c{2,5}", "[[:alpha:]]", "\\d\\.x"])
            .rounds(3000)
            .run(|bytes| {
                let Ok(text) = std::str::from_utf8(bytes) else { return false };
                let Ok(expression) = regex_lite::Regex::new(text) else { return false };
                expression.is_match(&"web-1.a_b+c".repeat(90));
                true
            });
    }
}
