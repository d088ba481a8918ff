//! `MUSTS.md` names tests that exist, and leaves no rule without an answer.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// All tests as `file::name`.
fn tests() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")).unwrap() {
        let path = entry.unwrap().path();
        // A folder is a suite with a table of its own.
        if path.is_dir() {
            continue;
        }
        let file = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let text = fs::read_to_string(&path).unwrap();
        for part in text.split("#[test]\n").skip(1) {
            let name = part.split("fn ").nth(1).and_then(|rest| rest.split('(').next()).unwrap();
            found.insert(format!("{file}::{name}"));
        }
    }
    found
}

/// The cells of each row but those of the heads.
fn rows(text: &str) -> Vec<Vec<&str>> {
    text.lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| Section"))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect()
}

fn named(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2).filter(|name| name.contains("::"))
}

#[test]
fn every_must_has_a_test_that_exists_or_a_reason() {
    let text = include_str!("../MUSTS.md");
    let tests = tests();
    let rows = rows(text);
    assert!(rows.len() > 100, "{} rows", rows.len());
    for row in rows {
        let [_, rule, answer] = row[..] else { panic!("not three cells: {row:?}") };
        let mut names = named(answer).peekable();
        let reason = answer.strip_prefix("not yet: ").is_some_and(|reason| !reason.is_empty());
        assert!(names.peek().is_some() || reason, "no test and no reason: {rule}");
        for name in names {
            assert!(tests.contains(name), "no such test: {name}");
        }
    }
}

/// The reader of the sources itself.
#[test]
fn the_sources_of_tests_are_read() {
    assert!(tests().contains("musts::the_sources_of_tests_are_read"));
}
