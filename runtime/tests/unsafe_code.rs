//! `unsafe` stands behind one door in each crate, each block has a proof that says something, and their
//! number changes only together with `unsafe_code.txt`, where a review sees it (`BLESS=1` rewrites it).
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Beside `sys/` of each crate: tests that fork, or count what is allocated.
const DOORS: [&str; 2] = ["runtime/tests/no_alloc.rs", "runtime/tests/seccomp/kernel.rs"];

const CRATES: [&str; 5] = ["runtime", "shim", "spec-tests", "integration", "integration/fuzz"];

/// A proof of fewer words names neither what must hold nor why it does.
const WORDS: usize = 7;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn is_door(path: &str) -> bool {
    path.contains("/src/sys/")
        || path.ends_with("/src/sys.rs")
        || path.contains("/probe/sys/")
        || DOORS.contains(&path)
}

/// Rust files of a folder and those below it, by their path from the top of the repository.
fn files(folder: &Path, name: &str, found: &mut BTreeMap<String, String>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries {
        let path = entry.unwrap().path();
        let own = format!("{name}/{}", path.file_name().unwrap().to_str().unwrap());
        if path.is_dir() {
            files(&path, &own, found);
        } else if own.ends_with(".rs") {
            found.insert(own, fs::read_to_string(&path).unwrap());
        }
    }
}

fn all_files() -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for name in CRATES {
        for folder in ["src", "tests", "bench"] {
            files(&root().join(name).join(folder), &format!("{name}/{folder}"), &mut found);
        }
    }
    assert!(found.len() > 200, "{} files", found.len());
    found
}

/// Without comments and strings.
fn code(text: &str) -> String {
    let mut code = String::new();
    let mut chars = text.chars().peekable();
    let mut last = ' ';
    while let Some(c) = chars.next() {
        match c {
            '/' if chars.peek() == Some(&'/') => {
                while chars.peek().is_some_and(|c| *c != '\n') {
                    chars.next();
                }
            }
            '"' => {
                let is_raw = last == 'r' || last == '#';
                while let Some(c) = chars.next() {
                    match c {
                        '\\' if !is_raw => drop(chars.next()),
                        '"' if last != '#' || chars.peek() == Some(&'#') => break,
                        _ => {}
                    }
                }
            }
            // A quote as a character, not one that begins a lifetime.
            '\'' if chars.peek() == Some(&'"') => drop(chars.next()),
            _ => code.push(c),
        }
        last = c;
    }
    code
}

/// How often `unsafe` makes somebody here answerable: blocks, and implementations of unsafe traits. Not counted:
/// an `unsafe fn`, whose caller is, and attributes.
fn uses(text: &str) -> usize {
    let code = code(text);
    let is_of_name = |c: char| c.is_alphanumeric() || c == '_';
    let whole = |at: usize| {
        let before = code[..at].chars().next_back().unwrap_or(' ');
        let after = code[at + "unsafe".len()..].trim_start();
        !is_of_name(before) && (after.starts_with('{') || after.starts_with("impl "))
    };
    code.match_indices("unsafe").filter(|(at, _)| whole(*at)).count()
}

/// The proofs: each with the lines of comment that follow it.
fn proofs(text: &str) -> Vec<String> {
    let mut proofs: Vec<String> = Vec::new();
    let mut goes_on = false;
    for line in text.lines().map(str::trim) {
        if let Some(proof) = line.strip_prefix("// SAFETY:") {
            proofs.push(proof.trim().to_owned());
            goes_on = true;
        } else if let (true, Some(more), Some(proof)) = (goes_on, line.strip_prefix("//"), proofs.last_mut())
        {
            proof.push_str(more);
        } else {
            goes_on = false;
        }
    }
    proofs
}

#[test]
fn unsafe_stands_behind_one_door() {
    let wrong: Vec<_> =
        all_files().into_iter().filter(|(path, text)| uses(text) > 0 && !is_door(path)).collect();
    let paths: Vec<_> = wrong.iter().map(|(path, _)| path).collect();
    assert!(paths.is_empty(), "unsafe in {paths:?}");
}

#[test]
fn each_block_has_a_proof_that_says_something() {
    let mut wrong = Vec::new();
    for (path, text) in all_files() {
        let (uses, proofs) = (uses(&text), proofs(&text));
        if uses > proofs.len() {
            wrong.push(format!("{path}: {uses} times unsafe, {} proofs", proofs.len()));
        }
        let thin = proofs.iter().filter(|proof| proof.split_whitespace().count() < WORDS);
        let thin = thin.filter(|_| !DOORS.contains(&path.as_str()));
        wrong.extend(thin.map(|proof| format!("{path}: a proof in so few words: {proof:?}")));
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn their_number_is_the_one_that_was_reviewed() {
    let counts: Vec<(String, usize)> = all_files()
        .into_iter()
        .map(|(path, text)| (path, uses(&text)))
        .filter(|(_, uses)| *uses > 0)
        .collect();
    let mut table: String = counts.iter().map(|(path, uses)| format!("{uses:4} {path}\n")).collect();
    table.push_str(&format!("{:4} in all\n", counts.iter().map(|(_, uses)| uses).sum::<usize>()));
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/unsafe_code.txt");
    if std::env::var_os("BLESS").is_some() {
        fs::write(&golden, &table).unwrap();
    }
    let reviewed = fs::read_to_string(&golden).unwrap();
    assert_eq!(table, reviewed, "read what is new, then run with BLESS=1");
}

#[test]
fn what_is_written_is_counted() {
    for (text, count) in [
        ("unsafe { f() }", 1),
        ("let x = unsafe{ 1 }; cvt(unsafe {\n f(\"unsafe { }\") })", 2),
        ("unsafe impl Send for X {}", 1),
        ("unsafe fn f() {}\n#[unsafe(no_mangle)]\n#![deny(unsafe_code)]", 0),
        ("// unsafe { }\n/// unsafe {}\n\"\\\" unsafe { }\"", 0),
        ("b'\"'; unsafe { f() }", 1),
        ("r#\"a \" unsafe { }\"#; unsafe { f() }", 1),
        ("not_unsafe { }", 0),
    ] {
        assert_eq!(uses(text), count, "{text}");
    }
    let text = "x\n// SAFETY: one\n// two\ny\n// other\n    // SAFETY: three\nunsafe { z }";
    assert_eq!(proofs(text), ["one two", "three"]);
}
