//! How a failure is told: one entry in the log, and the plain words on stderr.
//!
//! containerd takes the last JSON object of the log with level `error`; Podman reads the whole file as
//! one object. So there is exactly one line for a failure and none for a success, unless `--debug`
//! asks for more.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::ValueEnum;
use serde::Serialize;

use crate::error::{Error, Result};
use crate::state::time;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(super) enum Format {
    #[default]
    Text,
    Json,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Log {
    /// `None`: stderr.
    pub(super) file: Option<PathBuf>,
    pub(super) format: Format,
    pub(super) debug: bool,
}

#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    Debug,
    Error,
}

/// Keys and values as logrus' `JSONFormatter` has them, and the hint.
#[derive(Serialize)]
struct Entry<'a> {
    level: Level,
    msg: &'a str,
    time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<&'a str>,
}

impl Log {
    /// A failure, in the log and on stderr. The hint has its own key in the log; on stderr it has its
    /// own line, if the command's callers do not read stderr together with its output.
    pub(super) fn failure(&self, message: &str, hint: Option<&str>, hint_on_stderr: bool) {
        let entry = self.entry(Level::Error, message, hint, SystemTime::now());
        let mut plain = match &self.file {
            None => entry,
            Some(file) => match append(file, &entry) {
                Ok(()) => format!("{message}\n"),
                Err(error) => format!("{message}\n{error}\n"),
            },
        };
        if let Some(hint) = hint.filter(|_| hint_on_stderr) {
            plain.push_str(&format!("hint: {hint}\n"));
        }
        to_stderr(&plain);
    }

    /// Only with `--debug`.
    pub(super) fn debug(&self, message: &str) {
        if !self.debug {
            return;
        }
        let entry = self.entry(Level::Debug, message, None, SystemTime::now());
        match &self.file {
            None => to_stderr(&entry),
            Some(file) => {
                if let Err(error) = append(file, &entry) {
                    to_stderr(&format!("{error}\n"));
                }
            }
        }
    }

    fn entry(&self, level: Level, message: &str, hint: Option<&str>, now: SystemTime) -> String {
        let entry = Entry { level, msg: message, time: to_the_second(now), hint };
        match self.format {
            // Of strings only: it cannot fail. Were it to, the message itself is the best line left.
            Format::Json => serde_json::to_string(&entry).unwrap_or_else(|_| message.to_owned()) + "\n",
            Format::Text => {
                let level = match level {
                    Level::Debug => "debug",
                    Level::Error => "error",
                };
                // As logrus: a word stands bare, all else is quoted.
                let bare = |c: char| c.is_ascii_alphanumeric() || "-._/@^+".contains(c);
                let quoted = if message.chars().all(bare) && !message.is_empty() {
                    message.to_owned()
                } else {
                    format!("{message:?}")
                };
                format!("time=\"{}\" level={level} msg={quoted}\n", entry.time)
            }
        }
    }
}

/// The log is opened when there is something to say, and not before: an open descriptor would take
/// the number of one that `--preserve-fds` is to find.
fn append(file: &Path, entry: &str) -> Result<()> {
    let mut log = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o644)
        .open(file)
        .map_err(|e| Error::io("open log", file, &e))?;
    // One write: O_APPEND keeps the lines of several runtimes apart.
    log.write_all(entry.as_bytes()).map_err(|e| Error::io("write log", file, &e))
}

/// Not by `eprintln!`, which panics when stderr cannot be written.
pub(super) fn to_stderr(text: &str) {
    // A caller that closed stderr does not want to know, and nobody else is left to tell.
    drop(io::stderr().write_all(text.as_bytes()));
}

/// To stdout. Not by `println!`, which panics when a reader has gone.
pub(super) fn print(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|e| Error::io("write", Path::new("/dev/stdout"), &e))
}

/// logrus writes RFC 3339 without a fraction.
fn to_the_second(now: SystemTime) -> String {
    let secs = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    time::to_rfc3339(UNIX_EPOCH + Duration::from_secs(secs))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(format: Format, message: &str, hint: Option<&str>) -> String {
        let log = Log { format, ..Log::default() };
        log.entry(Level::Error, message, hint, UNIX_EPOCH + Duration::from_millis(1_795_262_400_999))
    }

    #[test]
    fn entries_look_as_those_of_logrus() {
        for (format, message, hint, expected) in [
            (
                Format::Json,
                "tare create failed: \"x\"\n",
                None,
                "{\"level\":\"error\",\"msg\":\"tare create failed: \\\"x\\\"\\n\",\"time\":\"2026-11-21T12:00:00Z\"}\n",
            ),
            (
                Format::Json,
                "a",
                Some("b"),
                "{\"level\":\"error\",\"msg\":\"a\",\"time\":\"2026-11-21T12:00:00Z\",\"hint\":\"b\"}\n",
            ),
            (
                Format::Text,
                "container \"x\"\nis",
                Some("never here"),
                "time=\"2026-11-21T12:00:00Z\" level=error msg=\"container \\\"x\\\"\\nis\"\n",
            ),
            (Format::Text, "word", None, "time=\"2026-11-21T12:00:00Z\" level=error msg=word\n"),
            (Format::Text, "", None, "time=\"2026-11-21T12:00:00Z\" level=error msg=\"\"\n"),
        ] {
            assert_eq!(entry(format, message, hint), expected);
        }
    }

    #[test]
    fn a_log_is_added_to() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("log");
        append(&file, "one\n").unwrap();
        append(&file, "two\n").unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "one\ntwo\n");
        let error = append(&dir.path().join("no/log"), "x").unwrap_err().to_string();
        assert!(error.starts_with("open log ") && error.ends_with("no such file or directory"), "{error}");
    }

    #[test]
    fn without_debug_nothing_is_written_but_failures() {
        let dir = tempfile::tempdir().unwrap();
        let log = Log { file: Some(dir.path().join("log")), ..Log::default() };
        log.debug("x");
        assert!(!dir.path().join("log").exists());
        Log { debug: true, ..log }.debug("x");
        assert!(dir.path().join("log").exists());
    }
}
