//! One story with one fault after the other.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use spec_tests::trace::{Call, Fault, Site, Traced, run};
use spec_tests::{Container, Value};

use crate::judge;
use crate::look::difference;

/// Far longer than any command takes, traced, on a busy machine.
const LIMIT: Duration = Duration::from_secs(30);

/// EPERM and ENOSYS are answers that some calls may give on hosts where the runtime works; then the container is to be
/// the same nonetheless.
const ERRORS: [Errno; 5] = [Errno::EIO, Errno::ENOMEM, Errno::EINTR, Errno::EPERM, Errno::ENOSYS];

/// A command in a situation.
pub(crate) struct Story {
    pub(crate) name: &'static str,
    /// Made once; each play leaves it as it was.
    pub(crate) container: fn() -> Container,
    /// Before each play.
    pub(crate) prepare: fn(&mut Container) -> Stage,
    pub(crate) command: fn(&Container) -> std::process::Command,
    /// What a play that succeeded has made. Ends with nothing left of it.
    pub(crate) look: fn(&Container, &Stage, &Traced) -> Value,
    /// After one that failed, or was killed: checks what is there, and ends with nothing left of it.
    pub(crate) clean: fn(&Container, &Stage, &End),
}

/// What a story needs while it is played, beside its container.
#[derive(Default)]
pub(crate) struct Stage {
    pub(crate) console: Option<spec_tests::socket::Listener>,
    pub(crate) output: Option<std::fs::File>,
}

/// How a play ended that did not succeed.
pub(crate) struct End<'a> {
    pub(crate) traced: &'a Traced,
    /// The command itself was killed.
    pub(crate) killed: bool,
    pub(crate) baseline: &'a Value,
}

pub(crate) struct Report {
    name: &'static str,
    pub(crate) calls: usize,
    pub(crate) faults: usize,
    /// It failed, and said so.
    pub(crate) refused: usize,
    /// It succeeded, and the container is the same.
    pub(crate) harmless: usize,
    pub(crate) killed: usize,
    steps: BTreeSet<usize>,
    of_steps: usize,
    pub(crate) wrong: Vec<String>,
    messages: BTreeMap<String, usize>,
    elapsed: Duration,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:24} {:5} calls {:5} faults: {:5} refused {:5} harmless {:5} killed; ",
            self.name, self.calls, self.faults, self.refused, self.harmless, self.killed
        )?;
        if self.of_steps > 0 {
            write!(f, "{} of {} steps named; ", self.steps.len(), self.of_steps)?;
        }
        writeln!(f, "{} wrong; {:.1} s", self.wrong.len(), self.elapsed.as_secs_f32())?;
        if std::env::var_os("FAULTS_MESSAGES").is_some() {
            for (message, count) in &self.messages {
                writeln!(f, "    {count:4} {message}")?;
            }
        }
        self.wrong.iter().try_for_each(|wrong| writeln!(f, "  WRONG {wrong}"))
    }
}

pub(crate) fn play(story: &Story, most: usize, kills: bool) -> Report {
    let started = Instant::now();
    let mut report = Report {
        name: story.name,
        calls: 0,
        faults: 0,
        refused: 0,
        harmless: 0,
        killed: 0,
        steps: BTreeSet::new(),
        of_steps: 0,
        wrong: Vec::new(),
        messages: BTreeMap::new(),
        elapsed: Duration::ZERO,
    };
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| sweep(story, most, kills, &mut report))) {
        report.wrong.push(format!("{}: {}", story.name, words(&*panic)));
    }
    report.elapsed = started.elapsed();
    report
}

fn sweep(story: &Story, most: usize, kills: bool, report: &mut Report) {
    let mut container = (story.container)();
    let (baseline, _) = unfaulted(story, &mut container);
    // The first one may have made folders in the root filesystem.
    let (again, calls) = unfaulted(story, &mut container);
    if let Some(difference) = difference(&baseline, &again) {
        panic!("two plays without a fault differ: {difference}");
    }
    report.calls = calls.len();
    let own = judge::first_own_call(&calls);
    for (site, fault) in faults(&calls, kills).into_iter().take(most) {
        report.faults += 1;
        let stage = (story.prepare)(&mut container);
        // What was logged when the play before was looked at, or cleaned up.
        judge::messages(&container);
        let traced = run((story.command)(&container), Some((site, fault, judge::is_possible)), LIMIT);
        let Some(hit) = traced.hit else {
            // It came a shorter way this time (less to wait for).
            report.faults -= 1;
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| (story.look)(&container, &stage, &traced))) {
                report.wrong.push(format!("{}: without its fault: {}", story.name, words(&*panic)));
                (story.clean)(
                    &container,
                    &stage,
                    &End { traced: &traced, killed: false, baseline: &baseline },
                );
            }
            continue;
        };
        let before_main = site.0 == 0 && site.1 < own;
        if judge::is_after_its_last_word(&calls, hit) {
            report.killed += 1;
            let end = End { traced: &traced, killed: true, baseline: &baseline };
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| (story.clean)(&container, &stage, &end))) {
                report.wrong.push(format!("{}: as of the program: {}", story.name, words(&*panic)));
            }
            continue;
        }
        let verdict = catch_unwind(AssertUnwindSafe(|| {
            judge_one(story, &container, &stage, &traced, (hit, fault), before_main, &baseline, report)
        }));
        let wrong = match verdict {
            Ok(Ok(())) => None,
            Ok(Err(wrong)) => Some(wrong),
            Err(panic) => Some(words(&*panic)),
        };
        if let Some(wrong) = wrong {
            let place = judge::place(&traced, hit);
            let said = traced.err.trim();
            let wrong = format!("{}: {fault:?} {place}: exit {}: {said:?}: {wrong}", story.name, traced.code);
            // At once too: the whole of a sweep takes its time.
            eprintln!("  WRONG {wrong}");
            report.wrong.push(wrong);
            // The next one starts afresh.
            let recovered = catch_unwind(AssertUnwindSafe(|| {
                drop(std::mem::replace(&mut container, (story.container)()));
            }));
            if recovered.is_err() || report.wrong.len() > 50 {
                return;
            }
        }
    }
}

#[allow(clippy::too_many_arguments)]
fn judge_one(
    story: &Story,
    container: &Container,
    stage: &Stage,
    traced: &Traced,
    (hit, fault): (Call, Fault),
    before_main: bool,
    baseline: &Value,
    report: &mut Report,
) -> Result<(), String> {
    let killed = fault == Fault::Kill && hit.process == 0;
    let messages = judge::messages(container);
    if let Err(wrong) = judge::ended(traced, (hit, fault), killed, before_main, &messages) {
        // Cleaned up all the same.
        (story.clean)(container, stage, &End { traced, killed, baseline });
        return Err(wrong);
    }
    if let Some(message) = messages.first() {
        *report.messages.entry(judge::in_general(message)).or_default() += 1;
        if let Some((step, of)) = judge::step(message) {
            report.steps.insert(step);
            report.of_steps = of;
        }
    }
    if traced.code == judge::SUCCESS && !killed {
        report.harmless += 1;
        let now = (story.look)(container, stage, traced);
        if let Some(difference) = difference(baseline, &now) {
            return Err(format!("it succeeded, but not the same came of it: {difference}"));
        }
    } else {
        *(if killed { &mut report.killed } else { &mut report.refused }) += 1;
        (story.clean)(container, stage, &End { traced, killed, baseline });
    }
    judge::nothing_lives(traced)
}

fn unfaulted(story: &Story, container: &mut Container) -> (Value, Vec<Call>) {
    let stage = (story.prepare)(container);
    let traced = run((story.command)(container), None, LIMIT);
    assert_eq!((traced.code, traced.hung), (judge::SUCCESS, false), "without a fault: {}", traced.err);
    let seen = (story.look)(container, &stage, &traced);
    judge::nothing_lives(&traced).unwrap();
    (seen, traced.calls)
}

/// Every call with every fault that it can have, in an order of which any beginning is spread over all of them: in the
/// first round each call gets one, a kill or one of the errors by turns; in the next the other; then the rest.
fn faults(calls: &[Call], kills: bool) -> Vec<(Site, Fault)> {
    let count = calls.len();
    // Steps by the golden ratio, made prime to the count, visit each once.
    let mut stride = (count as f64 * 0.618) as usize + 1;
    while gcd(stride, count.max(1)) != 1 {
        stride += 1;
    }
    let mut faults = Vec::new();
    for round in 0..=ERRORS.len() {
        for turn in 0..count {
            let index = turn * stride % count;
            let error = |n: usize| Fault::Fail(ERRORS[n % ERRORS.len()]);
            let fault = match round {
                0 if kills && turn % 2 == 0 => Fault::Kill,
                1 if kills && turn % 2 == 1 => Fault::Kill,
                0 | 1 => error(turn / 2),
                more => error(turn / 2 + more - 1),
            };
            if judge::is_possible(&calls[..=index], fault) {
                faults.push(((calls[index].process, calls[index].ordinal), fault));
            }
        }
    }
    faults
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

fn words(panic: &(dyn Any + Send)) -> String {
    match (panic.downcast_ref::<String>(), panic.downcast_ref::<&str>()) {
        (Some(text), _) => text.clone(),
        (_, Some(text)) => (*text).to_owned(),
        _ => "a panic without words".to_owned(),
    }
}
