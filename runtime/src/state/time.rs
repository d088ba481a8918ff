//! Moments as text: RFC 3339, UTC, with as many digits of the second as are needed, which is how Go
//! writes a `time.Time` (`2006-01-02T15:04:05.999999999Z`). Engines decode `created` with Go.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

const DAY: u64 = 86_400;

/// Before 1970 there were no containers: such a clock counts as the epoch.
pub fn to_rfc3339(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (year, month, day) = civil(since.as_secs() / DAY);
    let second = since.as_secs() % DAY;
    let (h, m, s) = (second / 3600, second / 60 % 60, second % 60);
    let mut text = format!("{year:04}-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}");
    if since.subsec_nanos() != 0 {
        let nanos = format!(".{:09}", since.subsec_nanos());
        text.push_str(nanos.trim_end_matches('0'));
    }
    text.push('Z');
    text
}

/// The inverse of [`to_rfc3339`]; `None` for anything that it does not write.
pub fn from_rfc3339(text: &str) -> Option<SystemTime> {
    let (date, clock) = text.strip_suffix('Z')?.split_once('T')?;
    let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let [h, m, s] = numbers(clock, ':', [2, 2, 2])?;
    if fraction.is_empty() || fraction.len() > 9 || h > 23 || m > 59 || s > 59 {
        return None;
    }
    let nanos = digits(&format!("{fraction:0<9}"))?;
    let days = days(year, month, day)?;
    let since = Duration::new(days * DAY + h * 3600 + m * 60 + s, u32::try_from(nanos).ok()?);
    UNIX_EPOCH.checked_add(since)
}

fn numbers(text: &str, separator: char, widths: [usize; 3]) -> Option<[u64; 3]> {
    let mut parts = text.split(separator);
    let mut out = [0; 3];
    for (out, width) in out.iter_mut().zip(widths) {
        *out = digits(parts.next().filter(|p| p.len() == width)?)?;
    }
    parts.next().is_none().then_some(out)
}

/// Only digits: `u64::from_str` also takes a plus sign.
fn digits(text: &str) -> Option<u64> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?
}

fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

fn month_length(year: u64, month: u64) -> u64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from the first of January 1970 to the first of January of `year`.
fn days_before(year: u64) -> u64 {
    let leap_years = |y: u64| y / 4 - y / 100 + y / 400;
    (year - 1970) * 365 + leap_years(year - 1) - leap_years(1969)
}

fn days(year: u64, month: u64, day: u64) -> Option<u64> {
    if year < 1970 || !(1..=12).contains(&month) || day == 0 || day > month_length(year, month) {
        return None;
    }
    Some(days_before(year) + (1..month).map(|m| month_length(year, m)).sum::<u64>() + day - 1)
}

fn civil(days: u64) -> (u64, u64, u64) {
    // Never more than one year too late: no year has fewer than 365 days.
    let mut year = 1970 + days / 365;
    while days_before(year) > days {
        year -= 1;
    }
    let mut day = days - days_before(year);
    let mut month = 1;
    while day >= month_length(year, month) {
        day -= month_length(year, month);
        month += 1;
    }
    (year, month, day + 1)
}

/// For `#[serde(with = "…")]`.
pub mod rfc3339 {
    use super::{SystemTime, from_rfc3339, to_rfc3339};
    use serde::{Deserialize, Deserializer, Serializer, de};

    pub fn serialize<S: Serializer>(time: &SystemTime, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&to_rfc3339(*time))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<SystemTime, D::Error> {
        let text = String::deserialize(from)?;
        from_rfc3339(&text).ok_or_else(|| de::Error::custom(format!("{text:?} is not a time in UTC")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_read_as_go_writes_them() {
        for (secs, nanos, text) in [
            (0, 0, "1970-01-01T00:00:00Z"),
            (951_782_400, 0, "2000-02-29T00:00:00Z"),
            (951_868_799, 500_000_000, "2000-02-29T23:59:59.5Z"),
            (4_107_542_400, 0, "2100-03-01T00:00:00Z"),
            (1_795_262_400, 123_456_789, "2026-11-21T12:00:00.123456789Z"),
            (1_798_761_599, 1, "2026-12-31T23:59:59.000000001Z"),
            (1_798_761_600, 10, "2027-01-01T00:00:00.00000001Z"),
        ] {
            let time = UNIX_EPOCH + Duration::new(secs, nanos);
            assert_eq!(to_rfc3339(time), text);
            assert_eq!(from_rfc3339(text), Some(time), "{text}");
        }
    }

    #[test]
    fn every_day_of_four_centuries_comes_back() {
        for day in 0..146_097 {
            let (y, m, d) = civil(day);
            assert_eq!(days(y, m, d), Some(day));
        }
    }

    #[test]
    fn what_is_not_such_a_moment_is_refused() {
        for text in [
            "",
            "2026-11-21",
            "2026-11-21T12:00:00",
            "2026-11-21T12:00:00+01:00",
            "2026-13-21T12:00:00Z",
            "2026-02-29T12:00:00Z",
            "2026-11-00T12:00:00Z",
            "2026-11-21T24:00:00Z",
            "2026-11-21T12:00:00.Z",
            "2026-11-21T12:00:00.1234567890Z",
            "2026-11-21T+2:00:00Z",
            "1969-12-31T23:59:59Z",
            "2026-11-21T12:00:00:00Z",
        ] {
            assert_eq!(from_rfc3339(text), None, "{text}");
        }
    }
}
