//! `events`.

use std::time::Duration;

use clap::Args;

use super::events_json::line;
use super::globals::Context;
use super::report::print;
use super::{Verb, id};
use crate::error::{Error, Result};
use crate::lifecycle::events::{self, Event};

#[derive(Debug, Args)]
pub(super) struct Events {
    /// time between two statistics: 500ms, 1m30s
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = duration)]
    interval: Interval,
    /// print the statistics once
    #[arg(long)]
    stats: bool,
}

impl Verb for Events {
    const NAME: &str = "events";
    const ABOUT: &str = "show events and statistics of a container";
    const USAGE: &str = "<container-id>";
    const DESCRIPTION: &str = "\
Prints the container's statistics again and again, and when the kernel ended a
process of it for want of memory, until the container ends: a JSON object in
each line.

EXAMPLE:
    # tare events --stats web
    # tare events --interval 1s web";
    const ARGUMENTS: (usize, usize) = (1, 1);

    fn run(self, arguments: &[String], context: &Context) -> Result<u8> {
        let id = id(arguments)?;
        let interval =
            self.interval.0.ok_or_else(|| Error::Usage("duration interval must be greater than 0".into()))?;
        let mut show = |event: Event| print(&line(&id, &event)?);
        if self.stats {
            show(Event::Stats(Box::new(events::stats(&context.runtime, &id)?)))?;
        } else {
            events::follow(&context.runtime, &id, interval, &mut show)?;
        }
        Ok(0)
    }
}

/// `None`: not above 0, which `run` refuses in runc's words.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Interval(Option<Duration>);

/// A duration as Go writes it: numbers with units.
fn duration(word: &str) -> std::result::Result<Interval, String> {
    let wrong = || format!("{word:?} is not a duration such as 500ms, 5s or 1m30s");
    let (negative, rest) = match word.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, word.strip_prefix('+').unwrap_or(word)),
    };
    if rest == "0" {
        return Ok(Interval(None));
    }
    let mut seconds = 0.0;
    let mut rest = Some(rest).filter(|rest| !rest.is_empty()).ok_or_else(wrong)?;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
        let number: f64 = rest[..end].parse().map_err(|_| wrong())?;
        let (_, (unit, worth)) = UNITS
            .iter()
            .filter(|(unit, _)| rest[end..].starts_with(unit))
            .map(|entry| (entry.0.len(), entry))
            .max_by_key(|(length, _)| *length)
            .ok_or_else(wrong)?;
        seconds += number * worth;
        rest = &rest[end + unit.len()..];
    }
    let duration = Duration::try_from_secs_f64(seconds).map_err(|_| wrong())?;
    Ok(Interval(Some(duration).filter(|duration| !negative && !duration.is_zero())))
}

/// In seconds.
const UNITS: &[(&str, f64)] = &[
    ("ns", 1e-9),
    ("us", 1e-6),
    // The micro sign, and the Greek letter.
    ("\u{b5}s", 1e-6),
    ("\u{3bc}s", 1e-6),
    ("ms", 1e-3),
    ("s", 1.0),
    ("m", 60.0),
    ("h", 3600.0),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_those_of_go() {
        let millis = |millis| Ok(Interval(Some(Duration::from_millis(millis))));
        for (word, expected) in [
            ("5s", millis(5000)),
            ("100ms", millis(100)),
            ("1m30s", millis(90_000)),
            ("1h", millis(3_600_000)),
            ("1.5s", millis(1500)),
            ("+2s", millis(2000)),
            ("3000us", millis(3)),
            ("3000\u{b5}s", millis(3)),
            ("1000000ns", millis(1)),
            ("0", Ok(Interval(None))),
            ("0s", Ok(Interval(None))),
            ("-5s", Ok(Interval(None))),
        ] {
            assert_eq!(duration(word), expected, "{word}");
        }
        for word in ["", "5", "s", "-", "5 s", "5x", "1.2.3s", "5sm", "1e400h"] {
            assert!(duration(word).is_err(), "{word}");
        }
    }
}
