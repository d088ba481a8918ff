//! The end of the shim: what it still waits for, and how long.

use std::time::{Duration, Instant};

/// How long what is left to send may take.
const SENDING: Duration = Duration::from_secs(4);
/// How long loggers may write what they have. One that does not end is killed before that; this is
/// for one that even then does not.
const LOGGERS: Duration = Duration::from_secs(14);

/// The end was asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ending {
    sent: Instant,
    logged: Instant,
}

impl Ending {
    pub(super) fn asked(now: Instant) -> Self {
        Self { sent: now + SENDING, logged: now + LOGGERS }
    }

    pub(super) fn is_over(&self, now: Instant, is_sent: bool, is_logged: bool) -> bool {
        (is_sent || now >= self.sent) && (is_logged || now >= self.logged)
    }

    /// When to ask again, though nothing has happened.
    pub(super) fn deadline(&self, now: Instant) -> Instant {
        if now < self.sent { self.sent } else { self.logged }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_comes_when_all_is_sent_and_logged_or_the_time_for_that_is_up() {
        let now = Instant::now();
        let ending = Ending::asked(now);
        for (seconds, is_sent, is_logged, is_over) in [
            (0, true, true, true),
            (0, false, true, false),
            (0, true, false, false),
            (4, false, true, true),
            // A logger has longer, and takes no time from others.
            (4, true, false, false),
            (4, false, false, false),
            (13, true, false, false),
            (14, false, false, true),
        ] {
            let then = now + Duration::from_secs(seconds);
            assert_eq!(ending.is_over(then, is_sent, is_logged), is_over, "{seconds} {is_sent} {is_logged}");
        }
    }

    #[test]
    fn the_loop_never_wakes_for_a_time_that_is_past_while_it_waits() {
        let now = Instant::now();
        let ending = Ending::asked(now);
        for seconds in 0..14 {
            let then = now + Duration::from_secs(seconds);
            assert!(ending.deadline(then) > then, "{seconds}");
        }
    }
}
