//! The signal of `kill`, as callers write it.

use nix::sys::signal::Signal;

use crate::error::{Error, Result};

/// The kernel's first and last real-time signal, less the two that glibc keeps for itself
/// (`signal(7)`). Docker counts the same way.
const RTMIN: i32 = 34;
const RTMAX: i32 = 64;

/// A number, which is not checked (the kernel will), or a name with or without `SIG`, in any case;
/// `RTMIN+n` and `RTMAX-n`.
pub(super) fn parse(word: &str) -> Result<i32> {
    if let Ok(number) = word.parse() {
        return Ok(number);
    }
    let upper = word.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    named(name).or_else(|| real_time(name)).ok_or_else(|| Error::Usage(format!("unknown signal {word:?}")))
}

fn named(name: &str) -> Option<i32> {
    let name = match name {
        "IOT" => "ABRT",
        "CLD" => "CHLD",
        "POLL" => "IO",
        name => name,
    };
    format!("SIG{name}").parse::<Signal>().ok().map(|s| s as i32)
}

fn real_time(name: &str) -> Option<i32> {
    let number = match name.split_at_checked(5)? {
        ("RTMIN", "") => RTMIN,
        ("RTMAX", "") => RTMAX,
        ("RTMIN", n) => RTMIN.checked_add(n.strip_prefix('+')?.parse().ok()?)?,
        ("RTMAX", n) => RTMAX.checked_sub(n.strip_prefix('-')?.parse().ok()?)?,
        _ => return None,
    };
    (RTMIN..=RTMAX).contains(&number).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_by_number_and_by_name() {
        for (word, number) in [
            ("9", 9),
            ("0", 0),
            ("99", 99),
            ("TERM", 15),
            ("SIGTERM", 15),
            ("term", 15),
            ("sigterm", 15),
            ("Kill", 9),
            ("SIGIOT", 6),
            ("POLL", 29),
            ("STKFLT", 16),
            ("RTMIN", 34),
            ("SIGRTMIN+3", 37),
            ("rtmin+30", 64),
            ("RTMAX-1", 63),
        ] {
            assert_eq!(parse(word).unwrap(), number, "{word}");
        }
    }

    #[test]
    fn what_is_no_signal_is_refused_in_runcs_words() {
        for word in [
            "",
            "FOO",
            "SIG",
            "SIGSIGTERM",
            "TERM ",
            "RTMIN+31",
            "RTMIN-1",
            "RTMAX+1",
            "RTMIN+99999999999",
            "SIGé",
        ] {
            assert_eq!(parse(word).unwrap_err().to_string(), format!("unknown signal {word:?}"));
        }
    }
}
