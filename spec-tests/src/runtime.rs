//! The runtime under test, and what its peers are known to do otherwise.

use std::cmp::Ordering;
use std::ffi::OsString;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flavor {
    Tare,
    Runc,
    Crun,
    Youki,
    Other,
}

#[derive(Debug)]
pub struct Runtime {
    pub path: OsString,
    pub flavor: Flavor,
    /// As `--version` has it after the word `version`.
    pub version: String,
}

/// The runtime that `RUNTIME` names, else the release build of this workspace.
pub fn under_test() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        let path = std::env::var_os("RUNTIME").unwrap_or_else(|| built("release/tare").into_os_string());
        let output = match Command::new(&path).arg("--version").output() {
            Ok(output) => output,
            Err(error) => {
                panic!("the runtime under test, {}: {error}; set RUNTIME or build tare", path.display())
            }
        };
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut words = text.split_whitespace();
        let flavor = match words.next() {
            Some("tare") => Flavor::Tare,
            Some("runc") => Flavor::Runc,
            Some("crun") => Flavor::Crun,
            Some("youki") => Flavor::Youki,
            _ => Flavor::Other,
        };
        let version = words.nth(1).unwrap_or_default().to_owned();
        Runtime { path, flavor, version }
    })
}

/// The probe, which cargo builds before it runs integration tests.
pub(crate) fn probe() -> PathBuf {
    let mut path = std::env::current_exe().expect("own path");
    path.pop();
    if path.ends_with("deps") {
        path.pop();
    }
    path.push("probe");
    assert!(path.exists(), "{}: no probe; build with cargo test -p spec-tests", path.display());
    path
}

/// A path below `target/<triple>/`, where the test binary lies in `<profile>/deps/`.
fn built(path: &str) -> PathBuf {
    let own = std::env::current_exe().expect("own path");
    own.ancestors().nth(3).expect("target directory").join(path)
}

/// A peer that is known not to pass a test.
#[derive(Debug, Clone)]
pub struct Difference {
    flavor: Flavor,
    since: Option<&'static str>,
    before: Option<&'static str>,
    reason: &'static str,
}

/// Every runc fails the test, because of `reason`.
pub fn runc(reason: &'static str) -> Difference {
    Difference { flavor: Flavor::Runc, since: None, before: None, reason }
}

/// A runc older than `version` fails the test, because of `reason`.
pub fn runc_before(version: &'static str, reason: &'static str) -> Difference {
    Difference { flavor: Flavor::Runc, since: None, before: Some(version), reason }
}

pub fn crun(reason: &'static str) -> Difference {
    Difference { flavor: Flavor::Crun, since: None, before: None, reason }
}

pub fn crun_before(version: &'static str, reason: &'static str) -> Difference {
    Difference { flavor: Flavor::Crun, since: None, before: Some(version), reason }
}

/// A crun of `version` or newer fails the test, because of `reason`; the older ones that were tried do not.
pub fn crun_since(version: &'static str, reason: &'static str) -> Difference {
    Difference { flavor: Flavor::Crun, since: Some(version), before: None, reason }
}

/// What tare does not do yet. The day that it does, the test fails until this goes.
pub fn tare_not_yet(reason: &'static str) -> Difference {
    Difference { flavor: Flavor::Tare, since: None, before: None, reason }
}

pub fn youki(reason: &'static str) -> Difference {
    Difference { flavor: Flavor::Youki, since: None, before: None, reason }
}

/// Runs a test's body. On a peer with a declared difference the body must fail: else the declaration is stale.
///
/// # Panics
/// As the body, or when a declared difference does not show.
#[track_caller]
pub fn differs(known: impl AsRef<[Difference]>, body: impl FnOnce()) {
    if let Some(difference) = failed_as_declared(known.as_ref(), body) {
        let runtime = under_test();
        panic!(
            "stale: {:?} {} passes, but was declared to differ: {}",
            runtime.flavor, runtime.version, difference.reason
        );
    }
}

/// As [`differs`] where the peer loses a race: it may also pass.
///
/// # Panics
/// As the body.
#[track_caller]
pub fn differs_at_times(known: impl AsRef<[Difference]>, body: impl FnOnce()) {
    failed_as_declared(known.as_ref(), body);
}

/// The declaration that applies to the runtime under test, if the body passed all the same.
#[track_caller]
fn failed_as_declared(known: &[Difference], body: impl FnOnce()) -> Option<&Difference> {
    let runtime = under_test();
    let applies = |d: &&Difference| {
        d.flavor == runtime.flavor
            && d.since.is_none_or(|since| compare(&runtime.version, since) != Ordering::Less)
            && d.before.is_none_or(|before| compare(&runtime.version, before) == Ordering::Less)
    };
    let outcome = catch_unwind(AssertUnwindSafe(body));
    match (known.iter().find(applies), outcome) {
        (declared, Ok(())) => declared,
        (None, Err(failure)) => resume_unwind(failure),
        (Some(difference), Err(_)) => {
            eprintln!("DIFFERS {:?}: {}", runtime.flavor, difference.reason);
            None
        }
    }
}

/// Compares the leading numbers of dotted versions; what follows (`-rc.1`, `+ds1`) does not count.
fn compare(a: &str, b: &str) -> Ordering {
    let numbers = |text: &str| -> Vec<u32> {
        let end = text.find(|c: char| c != '.' && !c.is_ascii_digit()).unwrap_or(text.len());
        text[..end].split('.').map_while(|part| part.parse().ok()).collect()
    };
    numbers(a).cmp(&numbers(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_number() {
        for (a, b, expected) in [
            ("1.1.5+ds1", "1.2", Ordering::Less),
            ("1.10.0", "1.9", Ordering::Greater),
            ("1.2.0-rc.1", "1.2.0", Ordering::Equal),
            ("2", "1.99.99", Ordering::Greater),
        ] {
            assert_eq!(compare(a, b), expected, "{a} and {b}");
        }
    }
}
