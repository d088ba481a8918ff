//! The fault sweep. A story is a command of the runtime in a situation. It is traced once to learn which system calls
//! it makes, as the command itself, as joiner, as the container's first process, and in its hooks until they become
//! other programs; then it is played again for each of these calls, which this time fails, or in whose place the
//! process is killed. Each time the end is one of two:
//!
//! * the command succeeded: then the container is the same as without the fault, by all that can be seen in it. No
//!   fault makes a container that is less confined;
//! * it failed, with one message that names what failed and why, or it was killed: then nothing is left, at the latest
//!   after `delete --force`, and the next container of that id is as if nothing had been.
//!
//! It neither hangs nor panics. `FAULTS` is how many faults each story gets (spread over all its calls), or `full`;
//! arguments are the names of stories, or parts of them.
#![allow(clippy::unwrap_used)]

#[cfg(target_arch = "x86_64")]
mod bundles;
#[cfg(target_arch = "x86_64")]
mod judge;
#[cfg(target_arch = "x86_64")]
mod look;
#[cfg(target_arch = "x86_64")]
mod stories;
#[cfg(target_arch = "x86_64")]
mod sweep;

#[cfg(not(target_arch = "x86_64"))]
fn main() {
    spec_tests::need::skip("faults", "x86_64", "the tracer knows the registers of that machine alone");
}

#[cfg(target_arch = "x86_64")]
fn main() {
    use std::sync::Mutex;
    use std::time::Instant;

    if let Err(reason) = spec_tests::need::root() {
        return spec_tests::need::skip("faults", "root", &reason);
    }
    let names: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let asked = |name: &str| names.is_empty() || names.iter().any(|part| name.contains(part.as_str()));
    let most = match std::env::var("FAULTS").as_deref() {
        Ok("full") => usize::MAX,
        Ok(number) => number.parse().expect("FAULTS is a number, or full"),
        Err(_) => 250,
    };
    let kills = spec_tests::need::kernel_of_its_own().is_ok();
    let started = Instant::now();
    // What fails is told in a table, by whoever catches it.
    std::panic::set_hook(Box::new(|_| {}));
    let queue: Mutex<Vec<_>> =
        Mutex::new(stories::all().into_iter().filter(|story| asked(story.name)).rev().collect());
    let reports = Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let Some(story) = queue.lock().unwrap().pop() else { break };
                    let report = sweep::play(&story, most, kills);
                    print!("{report}");
                    reports.lock().unwrap().push(report);
                }
            });
        }
    });
    let reports = reports.into_inner().unwrap();
    assert!(!reports.is_empty(), "no story has such a name");
    let sum = |count: fn(&sweep::Report) -> usize| reports.iter().map(count).sum::<usize>();
    let wrong = sum(|report| report.wrong.len());
    println!(
        "{} stories, {} system calls, {} faults: {} failed as they should, {} did no harm, {} kills; {wrong} wrong; {:?}",
        reports.len(),
        sum(|report| report.calls),
        sum(|report| report.faults),
        sum(|report| report.refused),
        sum(|report| report.harmless),
        sum(|report| report.killed),
        started.elapsed(),
    );
    std::process::exit(i32::from(wrong > 0));
}
