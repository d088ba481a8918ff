//! What is right after a fault, whatever the story.

use std::time::{Duration, Instant};

use nix::errno::Errno;
use spec_tests::trace::{Call, Fault, Site, Traced};
use spec_tests::{Container, Value};

pub(crate) const SUCCESS: i32 = 0;

/// Of no use: these cannot fail, or there is no way on if they do (the end of a process, the start of the C library,
/// which ends a process that it cannot start).
const CANNOT_FAIL: [i64; 20] = [
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_rt_sigreturn,
    libc::SYS_restart_syscall,
    libc::SYS_execve,
    libc::SYS_brk,
    libc::SYS_arch_prctl,
    libc::SYS_set_tid_address,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_gettid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_umask,
    libc::SYS_sched_yield,
    libc::SYS_clock_gettime,
];

pub(crate) fn can_fail(call: &Call) -> bool {
    !CANNOT_FAIL.contains(&call.number)
}

/// No file system can fail the close(2) of a folder (there is nothing to flush), and Rust's library does not go on when
/// one does.
pub(crate) fn closes_of_folders(calls: &[Call]) -> impl Iterator<Item = Site> {
    calls.iter().enumerate().filter_map(|(index, call)| {
        let same = |other: &&Call| other.process == call.process && other.arguments[0] == call.arguments[0];
        let before = calls[..index].iter().rev().filter(same);
        let mut of_the_descriptor = before.take_while(|other| other.number != libc::SYS_close);
        let is_folder = of_the_descriptor.any(|other| other.number == libc::SYS_getdents64);
        (call.number == libc::SYS_close && is_folder).then_some((call.process, call.ordinal))
    })
}

/// The start of Rust's library ends with the handlers of an overflowing stack. What it cannot do without it says in its
/// own words, or aborts; nothing has been done then.
pub(crate) fn first_own_call(calls: &[Call]) -> usize {
    let last = calls.iter().filter(|call| call.process == 0).position(|call| {
        call.number == libc::SYS_rt_sigaction
            && call.arguments[0] == libc::SIGBUS as u64
            && call.arguments[1] != 0
    });
    last.map_or(0, |index| index + 1)
}

/// A child that has told the runtime all that it had to tell: its end is that of the program.
pub(crate) fn is_after_its_last_word(calls: &[Call], hit: Call) -> bool {
    let words = calls.iter().filter(|call| call.process == hit.process && call.number == libc::SYS_write);
    hit.process > 0 && words.map(|call| call.ordinal).max().is_some_and(|last| hit.ordinal > last)
}

/// Where a fault was put, in words.
pub(crate) fn place(traced: &Traced, hit: Call) -> String {
    let before: Vec<String> = traced
        .calls
        .iter()
        .filter(|call| call.process == hit.process && call.ordinal < hit.ordinal)
        .map(|call| call.number.to_string())
        .collect();
    let before = before[before.len().saturating_sub(6)..].join(" ");
    format!("at call {} of process {}, number {} (after {before})", hit.ordinal, hit.process, hit.number)
}

/// The messages of the log.
pub(crate) fn messages(container: &Container) -> Vec<String> {
    let parse = |line: &str| {
        let entry: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("the log has {line:?}"));
        assert_eq!(entry["level"], "error", "the log has {line:?}");
        entry["msg"].as_str().unwrap().to_owned()
    };
    let messages = container.log().lines().map(parse).collect();
    std::fs::remove_file(container.dir().join("log.json")).ok();
    messages
}

/// Whether the command ended as one should that met this fault.
pub(crate) fn ended(
    traced: &Traced,
    (hit, fault): (Call, Fault),
    killed: bool,
    before_main: bool,
    messages: &[String],
) -> Result<(), String> {
    if traced.hung {
        return Err("it hung".into());
    }
    if traced.err.contains("panicked") && !before_main {
        return Err("it panicked".into());
    }
    if killed {
        return if traced.code == 128 + libc::SIGKILL { Ok(()) } else { Err("it was not killed".into()) };
    }
    if traced.code == SUCCESS {
        return match messages {
            [] => Ok(()),
            some => Err(format!("it succeeded, and logged {some:?}")),
        };
    }
    if before_main {
        return Ok(());
    }
    if traced.code >= 128 && traced.code != 255 {
        return Err("it crashed".into());
    }
    if messages.is_empty()
        && traced.code == 255
        && hit.process > 0
        && names_the_cause_of(fault, &traced.err).is_ok()
    {
        // Nobody listens any more after `Ready`: it is told where the program would have said it.
        return Ok(());
    }
    let [message] = messages else {
        return Err(format!("not one message: {messages:?}"));
    };
    if !traced.err.contains(message.trim_end()) {
        return Err(format!("the log has other words: {message:?}"));
    }
    names_the_cause_of(fault, &traced.err)
}

fn names_the_cause_of(fault: Fault, message: &str) -> Result<(), String> {
    match fault {
        Fault::Fail(errno) => names_the_cause(message, errno),
        Fault::Kill => names_the_end(message),
    }
}

/// runc's words for a number of the system.
fn text(errno: Errno) -> &'static str {
    match errno {
        Errno::EIO => "input/output error",
        Errno::ENOMEM => "cannot allocate memory",
        Errno::EINTR => "interrupted system call",
        Errno::EPERM => "operation not permitted",
        Errno::ENOSYS => "function not implemented",
        other => panic!("{other}: no such fault"),
    }
}

/// What was tried, on what, and why it failed.
fn names_the_cause(message: &str, errno: Errno) -> Result<(), String> {
    let why = text(errno);
    let Some((what, _)) = message.split_once(why) else {
        return Err(format!("it does not say {why:?}"));
    };
    let what = what.trim_end_matches([' ', ':']);
    let what = what.rsplit_once("unable to start container process").map_or(what, |(_, what)| what);
    if what.split_whitespace().filter(|word| word.chars().any(char::is_alphabetic)).count() < 1 {
        return Err("it does not say what was tried".into());
    }
    Ok(())
}

/// Of a child that was killed.
fn names_the_end(message: &str) -> Result<(), String> {
    let ways = ["SIGKILL", "signal 9", "signal: killed"];
    if ways.iter().any(|way| message.contains(way)) {
        Ok(())
    } else {
        Err("it does not say that a process was killed".into())
    }
}

/// `(step 3 of 70)`.
pub(crate) fn step(message: &str) -> Option<(usize, usize)> {
    let (number, rest) = message.split_once("(step ")?.1.split_once(" of ")?;
    Some((number.parse().ok()?, rest.split_once(')')?.0.parse().ok()?))
}

/// Without what differs from one container to the next.
pub(crate) fn in_general(message: &str) -> String {
    let mut general = String::new();
    for c in message.trim_end().chars() {
        match c {
            '0'..='9' if general.ends_with('N') => {}
            '0'..='9' => general.push('N'),
            other => general.push(other),
        }
    }
    general
}

/// Of all processes that were seen none goes on, but for those that belong to the container of a story that runs on.
pub(crate) fn nothing_lives(container: &Container, traced: &Traced) -> Result<(), String> {
    let started = Instant::now();
    let _ = container;
    loop {
        let alive: Vec<_> = traced.processes.iter().filter(|process| process.is_alive()).collect();
        if alive.is_empty() {
            return Ok(());
        }
        if started.elapsed() > Duration::from_secs(5) {
            return Err(format!("processes that go on: {alive:?}"));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}
