//! `SECURITY.md` names tests that exist, and each of these; and it says how each peer that is declared to fail does.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The repository.
fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Each test's name behind the path of its file below this folder.
fn tests(below: &str) -> BTreeSet<String> {
    let top = top().join(below);
    let mut found = BTreeSet::new();
    let mut folders = vec![top.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let file = path.strip_prefix(&top).unwrap().to_str().unwrap().to_owned();
                let text = fs::read_to_string(&path).unwrap();
                found.extend(functions(&text).map(|name| format!("{file}: {name}")));
            }
        }
    }
    found
}

/// What follows `#[test]`, or the macro that makes a test of a story.
fn functions(text: &str) -> impl Iterator<Item = &str> {
    let parts = ["#[test]", "story! {"].into_iter().flat_map(|mark| text.split(mark).skip(1));
    parts.filter_map(|part| {
        let (_, rest) = part.split_once("fn ")?;
        rest.split_once('(').map(|(name, _)| name)
    })
}

/// The words in backquotes.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The part of `SECURITY.md` under this heading.
fn section<'t>(text: &'t str, heading: &str) -> &'t str {
    let start = text.find(&format!("\n## {heading}\n")).unwrap_or_else(|| panic!("no heading {heading}"));
    let rest = &text[start + 1..];
    rest[3..].find("\n## ").map_or(rest, |end| &rest[..end + 3])
}

fn rows(section: &str) -> impl Iterator<Item = Vec<&str>> {
    let rows = section.lines().filter(|line| line.starts_with("| ") && !line.starts_with("|---"));
    rows.skip(1).map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
}

fn security() -> String {
    fs::read_to_string(top().join("runtime/SECURITY.md")).unwrap()
}

#[test]
fn every_test_of_the_table_exists_and_every_attack_is_in_it() {
    let text = security();
    let (spec, runtime, shim, integration) =
        (tests("spec-tests/tests"), tests("runtime"), tests("shim"), tests("integration/tests"));
    let mut named = BTreeSet::new();
    let table = section(&text, "Known attacks");
    assert!(rows(table).count() > 25);
    for row in rows(table) {
        let [advisory, _, answer] = row[..] else { panic!("not three cells: {row:?}") };
        let mut any = answer == "–";
        // `file.rs: name`; a name alone is of the file before it.
        let (mut place, mut file) = ("", String::new());
        for (before, word) in answer.split('`').step_by(2).zip(quoted(answer)) {
            place = ["spec:", "runtime:", "shim:", "integration:"]
                .into_iter()
                .rfind(|word| before.contains(word))
                .unwrap_or(place);
            let name = match word.split_once(": ") {
                Some((given, name)) => {
                    given.clone_into(&mut file);
                    name
                }
                None => word,
            };
            let all = match place {
                "spec:" => &spec,
                "runtime:" => &runtime,
                "shim:" => &shim,
                "integration:" => &integration,
                _ => panic!("{advisory}: whose is {word}?"),
            };
            let full = format!("{file}: {name}");
            assert!(all.contains(&full), "{advisory}: no test {place} {full}");
            named.insert(full);
            any = true;
        }
        assert!(any, "{advisory}: no test, and not even –");
    }
    // What is for the tools of this suite, and for this file, is no attack.
    let is_attack = |name: &&String| {
        name.starts_with("attacks/")
            && !["canary", "racer", "table"].iter().any(|own| name.contains(&format!("/{own}.rs")))
    };
    let missing: Vec<_> = spec.iter().filter(is_attack).filter(|name| !named.contains(*name)).collect();
    assert!(missing.is_empty(), "not in SECURITY.md: {missing:#?}");
    let of_shim = integration.iter().filter(|name| name.starts_with("shim_attacks.rs"));
    let missing: Vec<_> = of_shim.filter(|name| !named.contains(*name)).collect();
    assert!(missing.is_empty(), "not in SECURITY.md: {missing:#?}");
}

/// The second table has each test of this suite that a peer is declared to fail, and only those fail.
#[test]
fn the_peers_table_is_what_the_tests_declare() {
    let text = security();
    let table = section(&text, "The same attacks on its peers");
    let mut told = BTreeSet::new();
    for row in rows(table) {
        let [test, peers @ ..] = &row[..] else { panic!("an empty row") };
        assert_eq!(peers.len(), 3, "{row:?}");
        let test = quoted(test).next().unwrap_or_else(|| panic!("no test in {row:?}"));
        for (peer, verdict) in ["runc", "crun", "youki"].into_iter().zip(peers) {
            let fails = verdict.starts_with("fails");
            assert!(fails || verdict.starts_with("holds"), "{test}: {verdict:?}");
            if fails {
                told.insert(format!("{test} {peer}"));
            }
        }
    }
    let mut declared = BTreeSet::new();
    for entry in fs::read_dir(top().join("spec-tests/tests/attacks")).unwrap() {
        let path = entry.unwrap().path();
        let source = fs::read_to_string(&path).unwrap();
        let module = path.file_stem().unwrap().to_str().unwrap().to_owned();
        for part in source.split("#[test]").skip(1) {
            let rest = part.split_once("fn ").unwrap().1;
            let body = rest.split("\n}\n").next().unwrap();
            let name = &rest[..rest.find('(').unwrap()];
            for peer in ["runc", "crun", "youki"] {
                // Of those that differ, only what stands in quotes after the peer's word is a declaration.
                if [format!("{peer}(\""), format!("{peer}_before(\"")].iter().any(|word| body.contains(word))
                {
                    declared.insert(format!("{module}::{name} {peer}"));
                }
            }
        }
    }
    assert_eq!(told, declared);
}
