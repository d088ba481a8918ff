//! What the shim has to say to people: lines in containerd's log, by the fifo that is standard error.

use std::io::{Write, stderr};
use std::time::SystemTime;

use crate::error::Error;
use tare::state::time::to_rfc3339;

/// Something went wrong that no answer and no event says.
pub fn note(text: &str) {
    // One write, because others of the pod's containers may write there too. It must not matter whether
    // it succeeds: the fifo does not block, and when it is full nobody reads it. (`eprintln!` would panic.)
    let line = line(SystemTime::now(), text);
    if stderr().write_all(line.as_bytes()).is_err() {}
}

/// Why `start`, `delete` or `-info` failed: containerd quotes it.
pub fn complain(error: &Error) {
    // When even that cannot be written, the exit status is left to say it.
    if write!(stderr(), "containerd-shim-tare-v2: {error}").is_err() {}
}

fn line(time: SystemTime, text: &str) -> String {
    format!("time=\"{}\" level=error msg={text:?} shim=containerd-shim-tare-v2\n", to_rfc3339(time))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_one_line_whatever_the_text() {
        let line = line(SystemTime::UNIX_EPOCH, "a \"b\"\nc");
        assert!(line.contains(r#"level=error msg="a \"b\"\nc" shim="#), "{line}");
        assert_eq!(line.matches('\n').count(), 1);
    }
}
