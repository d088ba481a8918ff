//! libseccomp, asked through `oracle.py`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use libc::sock_filter;
use serde_json::{Value, json};

use crate::names::{Numbers, TABLES, multiplexed, names, rules};

/// libseccomp, in a process of its own.
pub(crate) struct Oracle {
    child: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Oracle {
    pub(crate) const LIBRARY: &str = "libseccomp.so.2";

    /// `None`, loudly, without Python or the library.
    pub(crate) fn start() -> Option<Self> {
        let load = format!("import ctypes; ctypes.CDLL({:?})", Self::LIBRARY);
        let there = Command::new("python3").args(["-c", &load]).output();
        if !there.is_ok_and(|out| out.status.success()) {
            skip("python3 and libseccomp.so.2 (packages python3, libseccomp2)");
            return None;
        }
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/seccomp/oracle.py");
        let mut child = Command::new("python3")
            .arg(script)
            .args(["--export", Self::LIBRARY])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (requests, answers) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Some(Self { child, requests, answers: BufReader::new(answers) })
    }

    pub(crate) fn ask(&mut self, request: &Value) -> Value {
        writeln!(self.requests, "{request}").unwrap();
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line:?} for {request}"))
    }
}

impl Drop for Oracle {
    fn drop(&mut self) {
        // It may be at work on a profile when a test fails.
        let _killed = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// In the words and the file of the other suites.
pub(crate) fn skip(need: &str) {
    let line = format!("SKIP seccomp::differential: needs {need}\n");
    eprint!("{line}");
    if let Some(path) = std::env::var_os("SKIPS") {
        fs::File::options().create(true).append(true).open(path).unwrap().write_all(line.as_bytes()).unwrap();
    }
    assert!(std::env::var("CI").as_deref() != Ok("true"), "a skip that was not expected: {line}");
}

/// The names that libseccomp knows by a number of their own in at least one table, and what it says.
pub(crate) fn known_to(
    oracle: &mut Oracle,
    tables: &BTreeMap<&str, Numbers>,
) -> BTreeMap<&'static str, Numbers> {
    let names: BTreeSet<&String> = tables.values().flat_map(Numbers::keys).collect();
    let answer = oracle.ask(&json!({ "names": names }));
    let of = |arch: &str| -> Numbers {
        let rows = answer[arch].as_object().unwrap().iter();
        rows.filter_map(|(name, nr)| Some((name.clone(), u32::try_from(nr.as_i64()?).ok()?))).collect()
    };
    TABLES.iter().map(|(_, arch, _)| (*arch, of(arch))).collect()
}

pub(crate) fn decode(hex: &str) -> Vec<sock_filter> {
    let bytes: Vec<u8> =
        (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()).collect();
    let decode = |b: &[u8]| sock_filter {
        code: u16::from_ne_bytes([b[0], b[1]]),
        jt: b[2],
        jf: b[3],
        k: u32::from_ne_bytes([b[4], b[5], b[6], b[7]]),
    };
    bytes.chunks_exact(8).map(decode).collect()
}

/// The profile with an old name for each that libseccomp does not know, or not in every ABI that has it:
/// the other name of the same call, or one that the profile does not use.
pub(crate) fn with_old_names(
    document: &Value,
    known: &BTreeMap<&'static str, Numbers>,
    tables: &BTreeMap<&'static str, Numbers>,
) -> (Value, Vec<(String, String)>) {
    let used: BTreeSet<String> = rules(document).flat_map(names).map(str::to_owned).collect();
    let is_new = |name: &&String| {
        !multiplexed(name)
            && tables.iter().any(|(a, t)| t.contains_key(*name) && !known[a].contains_key(*name))
    };
    let everywhere = |name: &&String| tables.keys().all(|a| known[a].contains_key(*name));
    let mut free =
        known["x86_64"].keys().filter(everywhere).filter(|n| !used.contains(*n) && !multiplexed(n));
    let other_name = |new: &String| {
        tables.iter().find_map(|(arch, table)| {
            let number = table.get(new)?;
            known[arch].iter().find(|(name, n)| *n == number && *name != new).map(|(name, _)| name)
        })
    };
    let (mut renamed, mut pairs) = (document.clone(), Vec::new());
    let mut old_names = BTreeMap::new();
    for new in used.iter().filter(is_new) {
        let old = other_name(new).unwrap_or_else(|| {
            let old = free.next().expect("an old name");
            pairs.push((new.clone(), old.clone()));
            old
        });
        old_names.insert(new.as_str(), old);
    }
    for rule in renamed["syscalls"].as_array_mut().unwrap() {
        for name in rule["names"].as_array_mut().unwrap() {
            if let Some(old) = old_names.get(name.as_str().unwrap()) {
                *name = json!(old);
            }
        }
    }
    (renamed, pairs)
}
