//! The program in the containers of the tests: says what it sees and what it may do.
//!
//! `probe VERB ARGUMENT… , VERB ARGUMENT…`: the verbs in order; `,` stands between two of them.
//!
//! | verb | |
//! |---|---|
//! | `facts` | all about this process and its surroundings, one JSON object |
//! | `try WHAT …` | tries one operation (see `attempt.rs`), one line: `{"ok":…}` or `{"errno":"EPERM"}` |
//! | `print TEXT`, `error TEXT` | a line on stdout, on stderr |
//! | `cat` | stdin to stdout |
//! | `sleep SECONDS` | |
//! | `reap` | from now on no child that has ended has to be waited for |
//! | `wait` | says `ready`, waits for any signal, says `signal N` |
//! | `trap N` | says `ready`, then `signal n` for each of N signals |
//! | `children N` | N children that sleep for a minute; says how many there are |
//! | `orphan` | a grandchild that sleeps for a minute as a child of init, with no descriptor open |
//! | `bomb` | says `armed`, and forks without end, as do its children; not one of them gives in to a signal |
//! | `memory MIB` | takes and touches memory, says `touched MIB`, and gives it back |
//! | `hold MIB` | takes memory and keeps it, then as `wait` |
//! | `burn MILLISECONDS` | uses a processor |
//! | `spy FILE` | looks into each new process until FILE is there (see `spy.rs`), one JSON object |
//! | `exchange A B` | says `racing`, and exchanges the two names without end |
//! | `exit N` | |
//!
//! No verb lasts longer than a minute, so nothing stays of a failed test.
#![no_main]

mod attempt;
mod facts;
mod spy;
mod sys;

use std::io::{Read, Write};
use std::process::exit;
use std::time::{Duration, Instant};

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};

/// Called by `sys::main` with the words after the program's name.
fn run(words: &[String]) -> i32 {
    for command in words.split(|word| word == ",") {
        if let Err(message) = verb(command) {
            eprintln!("probe {command:?}: {message}");
            return 99;
        }
    }
    0
}

fn verb(command: &[String]) -> Result<(), String> {
    let words: Vec<&str> = command.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["facts"] => say(&facts::all().to_string()),
        ["try", what @ ..] => say(&attempt::attempt(what)?.to_string()),
        ["print", text] => say(text),
        ["error", text] => writeln!(std::io::stderr(), "{text}").map_err(|e| e.to_string()),
        ["cat"] => cat(),
        ["sleep", seconds] => {
            let seconds: f64 = number(seconds)?;
            std::thread::sleep(Duration::from_secs_f64(seconds.min(60.0)));
            Ok(())
        }
        ["reap"] => sys::ignore_the_end_of_children().map_err(|e| e.to_string()),
        ["wait"] => trap(1),
        ["trap", count] => trap(number(count)?),
        ["children", count] => children(number(count)?),
        ["orphan"] => orphan(),
        ["bomb"] => bomb(),
        ["memory", mib] => memory(number(mib)?).map(drop),
        ["hold", mib] => {
            let _kept = memory(number(mib)?)?;
            trap(1)
        }
        ["burn", milliseconds] => {
            let end = Instant::now() + Duration::from_millis(number(milliseconds)?);
            while Instant::now() < end {
                std::hint::spin_loop();
            }
            Ok(())
        }
        ["spy", stop] => {
            say("ready")?;
            say(&spy::spy(stop)?.to_string())
        }
        ["exchange", a, b] => exchange(a, b),
        ["exit", code] => exit(number(code)?),
        _ => Err("no such verb".to_owned()),
    }
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{text:?} is not a number"))
}

fn say(text: &str) -> Result<(), String> {
    let mut out = std::io::stdout();
    writeln!(out, "{text}").and_then(|()| out.flush()).map_err(|e| e.to_string())
}

fn cat() -> Result<(), String> {
    let mut bytes = Vec::new();
    std::io::stdin().read_to_end(&mut bytes).map_err(|e| e.to_string())?;
    // Without Rust's own start of the program, nobody flushes at its end.
    let mut out = std::io::stdout();
    out.write_all(&bytes).and_then(|()| out.flush()).map_err(|e| e.to_string())
}

/// Signals are blocked and waited for: blocked ones reach even the init of a pid namespace (signal(7) would
/// drop those that it does not handle).
fn trap(count: u32) -> Result<(), String> {
    let mut all = SigSet::all();
    all.remove(nix::sys::signal::Signal::SIGALRM);
    all.remove(nix::sys::signal::Signal::SIGCHLD);
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&all), None).map_err(|e| e.to_string())?;
    say("ready")?;
    for _ in 0..count {
        match sys::wait_for_signal(&all, Duration::from_secs(60)) {
            Ok(signal) => say(&format!("signal {signal}"))?,
            Err(error) => return Err(format!("no signal within a minute: {error}")),
        }
    }
    Ok(())
}

fn children(count: u32) -> Result<(), String> {
    let mut made = 0;
    let mut error = None;
    for _ in 0..count {
        match sys::fork_sleeper(Duration::from_secs(60)) {
            Ok(()) => made += 1,
            Err(errno) => {
                error = Some(format!("{errno:?}"));
                break;
            }
        }
    }
    say(&serde_json::json!({ "children": made, "errno": error }).to_string())
}

fn orphan() -> Result<(), String> {
    sys::fork_orphan(Duration::from_secs(60)).map_err(|e| e.to_string())?;
    say("orphaned")
}

fn bomb() -> Result<(), String> {
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&SigSet::all()), None).map_err(|e| e.to_string())?;
    say("armed")?;
    sys::fork_without_end(Duration::from_secs(60));
    Ok(())
}

/// Whoever looks one of the names up finds now this file, now that one (`RENAME_EXCHANGE`, renameat2(2)).
fn exchange(a: &str, b: &str) -> Result<(), String> {
    say("racing")?;
    let end = Instant::now() + Duration::from_secs(60);
    while Instant::now() < end {
        renameat2(AT_FDCWD, a, AT_FDCWD, b, RenameFlags::RENAME_EXCHANGE).map_err(|e| e.to_string())?;
    }
    Ok(())
}

fn memory(mib: usize) -> Result<Vec<Vec<u8>>, String> {
    let mut block = Vec::new();
    for _ in 0..mib {
        block.push(std::hint::black_box(vec![1u8; 1 << 20]));
    }
    say(&format!("touched {}", block.len()))?;
    Ok(block)
}
