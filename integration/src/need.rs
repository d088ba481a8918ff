//! What a test needs of the host. A missing need skips the test, never silently.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

/// `need!(root, program("podman"))`: returns from the test, loudly, when the host lacks one.
#[macro_export]
macro_rules! need {
    ($($need:ident $(($($argument:expr),*))?),+ $(,)?) => {
        $(
            if let Err(reason) = $crate::need::$need($($($argument),*)?) {
                let need = stringify!($need $(($($argument),*))?);
                $crate::need::skip(need, &reason);
                return;
            }
        )+
    };
}

/// Says that the test of this thread is skipped: on stderr and in the file that `SKIPS` names.
///
/// # Panics
/// In CI (`CI=true`), unless `EXPECTED_SKIPS`, a list with commas, names the need.
pub fn skip(need: &str, reason: &str) {
    let thread = std::thread::current();
    let line = format!("SKIP {}: needs {need}: {reason}\n", thread.name().unwrap_or("?"));
    eprint!("{line}");
    if let Some(path) = std::env::var_os("SKIPS") {
        let mut file = OpenOptions::new().create(true).append(true).open(path).expect("the file of SKIPS");
        file.write_all(line.as_bytes()).expect("the file of SKIPS");
    }
    let strict = std::env::var("CI").is_ok_and(|value| value == "true");
    let expected = std::env::var("EXPECTED_SKIPS").unwrap_or_default();
    assert!(!strict || expected.split(',').any(|e| e.trim() == need), "a skip that was not expected: {line}");
}

pub fn root() -> Result<(), String> {
    if nix::unistd::geteuid().is_root() { Ok(()) } else { Err("not root".into()) }
}

/// A program on the `PATH`, or an absolute path. `integration/install.sh engines` installs them all.
pub fn program(name: &str) -> Result<(), String> {
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    if path.split(':').any(|dir| Path::new(dir).join(name).exists()) {
        Ok(())
    } else {
        Err(format!("{name} is not installed (integration/install.sh engines)"))
    }
}

/// systemd is PID 1, and all cgroups are v2 (those of v1 it makes differently).
pub fn systemd() -> Result<(), String> {
    for file in ["/run/systemd/system", "/sys/fs/cgroup/cgroup.controllers"] {
        if !Path::new(file).exists() {
            return Err(format!("there is no {file}"));
        }
    }
    Ok(())
}
