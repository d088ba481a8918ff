//! The direction of the modules: each uses only those of layers below its own. A new module gets a
//! row here, or this test fails.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

const LAYERS: &[&[&str]] = &[
    &["sys"],
    &["error", "undo"],
    &["config", "host", "seal"],
    &["namespace", "rootfs", "cgroup", "seccomp", "privilege", "limits", "terminal", "hooks", "lsm"],
    &["plan"],
    &["process", "state"],
    &["lifecycle"],
    &["cli"],
    &["main"],
];

/// Who may use a sibling, which part of it, and why.
const EXCEPTIONS: &[(&str, &str)] = &[
    // What is undone can fail.
    ("undo", "error"),
    // The cgroup mount of a container must know where its cgroup is.
    ("rootfs", "cgroup::paths"),
];

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|names| names.contains(&module))
}

/// What is wrong with `text`, a file of the top-level module `module`.
fn violations(module: &str, text: &str) -> Vec<String> {
    let Some(own) = layer(module) else { return vec![format!("{module} has no layer")] };
    let mut wrong = Vec::new();
    for path in paths(text) {
        let target = path.split("::").next().unwrap();
        let excepted = EXCEPTIONS.iter().any(|(who, what)| {
            *who == module
                && path.strip_prefix(what).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
        });
        match layer(target) {
            None => wrong.push(format!("{module} uses {path}, which has no layer")),
            Some(_) if target == module || excepted => {}
            Some(below) if below < own => {}
            Some(_) => wrong.push(format!("{module} uses {path}, which is not below it")),
        }
    }
    wrong
}

/// Every path from the root of the crate (`crate::`, or `tare::` in `main.rs`), groups unfolded.
fn paths(text: &str) -> Vec<String> {
    let code: String = text
        .lines()
        .map(|line| line.split("//").next().unwrap_or(""))
        .flat_map(|line| [line, "\n"])
        .collect();
    let mut found = Vec::new();
    for root in ["crate::", "tare::"] {
        for (at, _) in code.match_indices(root) {
            let before = code[..at].chars().next_back().unwrap_or(' ');
            if !before.is_alphanumeric() && before != '_' && before != ':' {
                unfold("", &code[at + root.len()..], &mut found);
            }
        }
    }
    found
}

/// One path or group at the start of `text`, below `prefix`; gives what follows it.
fn unfold<'a>(prefix: &str, text: &'a str, found: &mut Vec<String>) -> &'a str {
    let text = text.trim_start();
    if let Some(mut rest) = text.strip_prefix('{') {
        loop {
            rest = rest.trim_start();
            match rest.strip_prefix('}') {
                Some(after) => return after,
                None if rest.is_empty() => return rest,
                None => rest = unfold(prefix, rest, found).trim_start().trim_start_matches(','),
            }
        }
    }
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    let end = text.find(|c| !is_name(c)).unwrap_or(text.len());
    let path = [prefix, &text[..end]].concat();
    match text[end..].strip_prefix("::") {
        Some(rest) if rest.trim_start().starts_with(|c| is_name(c) || c == '{') => {
            unfold(&(path + "::"), rest, found)
        }
        _ => {
            found.push(path);
            // The rest of the entry: `as name`, a call, a `*`.
            text[end..].find([',', '}']).map_or("", |stop| &text[end + stop..])
        }
    }
}

fn check(folder: &Path, module: Option<&str>, wrong: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let stem = path.file_stem().unwrap().to_str().unwrap();
        let module = module.unwrap_or(stem);
        if path.is_dir() {
            check(&path, Some(module), wrong);
        } else if module != "lib" && path.extension().is_some_and(|end| end == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            wrong.extend(violations(module, &text).iter().map(|what| format!("{}: {what}", path.display())));
        }
    }
}

#[test]
fn every_module_uses_only_layers_below_its_own() {
    let mut wrong = Vec::new();
    check(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), None, &mut wrong);
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn paths_are_found_in_every_form() {
    let text = "
        use crate::a::b;
        pub(crate) use crate::{c, d::{e, f::*}, g as h,};
        pub(crate) fn x(y: &crate::i::J) -> crate :: no { crate::k::l(crate::m) }
        use crate::{
            n::{self, o},
            p,
        };
        // crate::comment
        my_crate::q; $crate::r; use tare::s::t;
    ";
    let mut found = paths(text);
    found.sort();
    let expected =
        ["a::b", "c", "d::e", "d::f", "g", "i::J", "k::l", "m", "n::o", "n::self", "p", "r", "s::t"];
    assert_eq!(found, expected);
}

#[test]
fn violations_are_caught() {
    for (module, text, count) in [
        ("rootfs", "use crate::sys::mount; use crate::error::Error; use crate::rootfs::options;", 0),
        ("rootfs", "use crate::cgroup::paths;", 0),
        ("rootfs", "use crate::cgroup::paths::Paths;", 0),
        ("rootfs", "use crate::cgroup::pathsfinder;", 1),
        ("rootfs", "use crate::{cgroup, error};", 1),
        ("cgroup", "use crate::rootfs;", 1),
        ("sys", "use crate::{\n error::{Error, Result},\n};", 2),
        ("plan", "fn f() { crate::process::parent::spawn() }", 1),
        ("state", "use crate::process::init;", 1),
        ("cli", "use crate::nowhere;", 1),
        ("nowhere", "", 1),
        ("main", "fn main() { tare::cli::run() }", 0),
    ] {
        assert_eq!(violations(module, text).len(), count, "{module}: {text}");
    }
}
