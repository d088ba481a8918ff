//! What is right after a fault, whatever the story.

use std::time::{Duration, Instant};

use nix::errno::Errno;
use spec_tests::trace::{Call, Fault, Traced};
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

/// Whether the last of these calls can have this fault.
pub(crate) fn is_possible(calls: &[Call], fault: Fault) -> bool {
    let Some((call, before)) = calls.split_last() else { return false };
    match (call.number, fault) {
        (number, _) if CANNOT_FAIL.contains(&number) => false,
        (_, Fault::Kill) => true,
        // A sleep can only be interrupted.
        (libc::SYS_clock_nanosleep, Fault::Fail(errno)) => errno == Errno::EINTR,
        // Where nobody can call keyctl(2), the program cannot either.
        (libc::SYS_keyctl, Fault::Fail(errno)) => errno != Errno::ENOSYS,
        (libc::SYS_close, _) => !is_folder(call, before),
        _ => true,
    }
}

/// No file system can fail the close(2) of a folder (there is nothing to flush), and Rust's library does not go on when
/// one does.
fn is_folder(close: &Call, before: &[Call]) -> bool {
    let same = |call: &&Call| call.process == close.process && call.arguments[0] == close.arguments[0];
    let mut of_the_descriptor =
        before.iter().rev().filter(same).take_while(|call| call.number != libc::SYS_close);
    of_the_descriptor.any(|call| call.number == libc::SYS_getdents64)
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

/// A first process that has told the runtime all that it had to tell: what becomes of it then is what becomes of the
/// container. Before all else it reads from the runtime, and where it reads it writes.
pub(crate) fn is_after_its_last_word(calls: &[Call], hit: Call) -> bool {
    let of_it = || calls.iter().filter(|call| call.process == hit.process && hit.process > 0);
    let Some(read) = of_it().find(|call| call.number == libc::SYS_read) else { return false };
    let mut words =
        of_it().filter(|call| call.number == libc::SYS_write && call.arguments[0] == read.arguments[0]);
    words.next_back().is_some_and(|last| hit.ordinal > last.ordinal)
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
    let ways = ["SIGKILL", "signal 9", "ended by a signal"];
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

/// Of all processes that were seen none goes on.
pub(crate) fn nothing_lives(traced: &Traced) -> Result<(), String> {
    let started = Instant::now();
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
