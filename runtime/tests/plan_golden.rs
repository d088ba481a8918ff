//! What is planned for whole configurations on machines that are written down: each
//! `plan/<bundle>/<host>.txt` is what `tare plan` says for `plan/<bundle>/config.json` on
//! `plan/hosts/<host>.json`, with the changes of `plan/<bundle>/<host>.json` (RFC 7386) where there
//! is one. `BLESS=1` writes them anew: read the difference as you would code.
#![allow(clippy::unwrap_used)] // a test fails by it

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tare::cgroup::Driver;
use tare::config::Config;
use tare::config::id::ContainerId;
use tare::host::Facts;
use tare::lifecycle::plan::Report;
use tare::plan::{self, Options};

/// Configurations, and the hosts that they are planned for.
const PLANS: &[(&str, &[&str])] = &[
    (
        "spec",
        &["hybrid-root", "v2-root", "v2-root-few-capabilities", "v2-root-old-kernel", "no-cgroups-root"],
    ),
    ("spec-rootless", &["hybrid-root", "v2-root", "v2-user", "v2-user-alone", "nested-root"]),
    ("docker-default", &["hybrid-root", "v2-root", "v2-root-few-capabilities", "nested-root"]),
    ("docker-options", &["hybrid-root", "v2-root"]),
    ("kubernetes-pod", &["hybrid-root", "v2-root"]),
    ("labels", &["v2-root", "v2-root-two-modules", "v2-root-few-capabilities"]),
    ("everything", &["hybrid-root", "v2-root", "v2-user-alone"]),
];

type Setting = fn(&mut Options);

/// Words of the command line that change a plan.
const OPTIONS: &[(&str, Setting)] = &[
    ("no-pivot", |options| options.no_pivot = true),
    ("no-new-keyring", |options| options.no_new_keyring = true),
    ("preserve-fds", |options| options.preserve_fds = 2),
    ("systemd-cgroup", |options| options.driver = Driver::Systemd),
];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/plan")
}

fn options() -> Options {
    Options {
        bundle: "/bundle".into(),
        driver: Driver::Cgroupfs,
        no_pivot: false,
        no_new_keyring: false,
        preserve_fds: 0,
        env: Vec::new(),
    }
}

/// As the command prints it: the plan, or why there is none.
fn text(bundle: &str, host: &str, options: &Options) -> String {
    let read = |path: PathBuf| fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut document: Value =
        serde_json::from_slice(&read(folder().join(bundle).join("config.json"))).unwrap();
    let changes = folder().join(bundle).join(format!("{host}.json"));
    if changes.exists() {
        merge(&mut document, &serde_json::from_slice(&read(changes)).unwrap());
    }
    let config =
        Config::from_slice(document.to_string().as_bytes(), Path::new("config.json"), &options.bundle)
            .unwrap();
    let facts: Facts = serde_json::from_slice(&read(folder().join(format!("hosts/{host}.json")))).unwrap();
    let id = ContainerId::new("golden").unwrap();
    match plan::build(&id, &config, &facts, options) {
        Ok(plan) => {
            let description = plan.describe();
            let report = Report {
                parent: description.parent,
                joiner: description.joiner,
                child: description.child,
                warnings: plan.warnings,
                unchecked: Vec::new(),
            };
            without_filter_sizes(&report.to_string())
        }
        // One problem in a line.
        Err(error) => format!("refused:\n     {}\n", error.to_string().replace("; ", "\n     ")),
    }
}

/// RFC 7386: what is not null is put in place, what is null is taken away.
fn merge(document: &mut Value, changes: &Value) {
    match (document, changes) {
        (Value::Object(document), Value::Object(changes)) => {
            for (key, change) in changes {
                if change.is_null() {
                    document.remove(key);
                } else {
                    merge(document.entry(key).or_insert(Value::Null), change);
                }
            }
        }
        (document, changes) => *document = changes.clone(),
    }
}

/// The size of a filter is the processor's: it has its own tests.
fn without_filter_sizes(text: &str) -> String {
    let mut out = String::new();
    for line in text.lines() {
        let size = line.strip_suffix(" instructions").and_then(|rest| rest.rsplit_once(' '));
        match size.filter(|(rest, _)| rest.ends_with("seccomp filter of")) {
            Some((rest, size)) => {
                assert!(size.parse::<usize>().unwrap() > 0, "{line}");
                out.push_str(&format!("{rest} N instructions\n"));
            }
            None => out.push_str(&format!("{line}\n")),
        }
    }
    out
}

/// The difference as lines, for a message that can be read.
fn compare(path: &Path, text: &str) -> Result<(), String> {
    if std::env::var_os("BLESS").is_some() {
        return fs::write(path, text).map_err(|e| format!("{}: {e}", path.display()));
    }
    let golden =
        fs::read_to_string(path).map_err(|e| format!("{}: {e} (BLESS=1 writes it)", path.display()))?;
    if golden == text {
        return Ok(());
    }
    let mut message = format!("{} (BLESS=1 accepts it):\n", path.display());
    let (before, after): (BTreeSet<_>, BTreeSet<_>) = (golden.lines().collect(), text.lines().collect());
    golden.lines().filter(|l| !after.contains(l)).for_each(|l| message.push_str(&format!("- {l}\n")));
    text.lines().filter(|l| !before.contains(l)).for_each(|l| message.push_str(&format!("+ {l}\n")));
    Err(message)
}

fn report(differences: Vec<String>) {
    assert!(differences.is_empty(), "{} plans changed\n{}", differences.len(), differences.join("\n"));
}

#[test]
fn plans_are_those_that_were_read_and_found_right() {
    let cases = PLANS.iter().flat_map(|(bundle, hosts)| hosts.iter().map(move |host| (bundle, host)));
    let differences = cases.filter_map(|(bundle, host)| {
        let path = folder().join(bundle).join(format!("{host}.txt"));
        compare(&path, &text(bundle, host, &options())).err()
    });
    report(differences.collect());
}

/// Whose cgroups systemd makes: `plan/<bundle>/systemd-<host>.txt`.
const UNDER_SYSTEMD: &[(&str, &[&str])] = &[
    ("kubernetes-pod", &["hybrid-root", "v2-root"]),
    ("docker-default", &["v2-root"]),
    ("spec-rootless", &["v2-user", "hybrid-root"]),
];

#[test]
fn plans_for_systemd_are_those_that_were_read_and_found_right() {
    let cases = UNDER_SYSTEMD.iter().flat_map(|(bundle, hosts)| hosts.iter().map(move |host| (bundle, host)));
    let differences = cases.filter_map(|(bundle, host)| {
        let path = folder().join(bundle).join(format!("systemd-{host}.txt"));
        let options = Options { driver: Driver::Systemd, ..options() };
        compare(&path, &text(bundle, host, &options)).err()
    });
    report(differences.collect());
}

#[test]
fn options_of_the_command_line_change_just_what_they_name() {
    let plain = text("spec", "v2-root", &options());
    let plain: BTreeSet<_> = plain.lines().map(unnumbered).collect();
    let mut all = String::new();
    for (word, change) in OPTIONS {
        let mut options = options();
        change(&mut options);
        let changed = text("spec", "v2-root", &options);
        let changed: Vec<_> = changed.lines().map(unnumbered).collect();
        all.push_str(&format!("{word}:\n"));
        plain.iter().filter(|l| !changed.contains(l)).for_each(|l| all.push_str(&format!("   - {l}\n")));
        changed.iter().filter(|l| !plain.contains(*l)).for_each(|l| all.push_str(&format!("   + {l}\n")));
    }
    report(compare(&folder().join("spec/options.txt"), &all).err().into_iter().collect());
}

fn unnumbered(line: &str) -> &str {
    line.trim_start_matches(|c: char| c == ' ' || c.is_ascii_digit()).trim_start()
}

#[test]
fn no_golden_file_is_left_over() {
    for (bundle, hosts) in PLANS {
        for entry in fs::read_dir(folder().join(bundle)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let known = ["config.json", "read.txt", "options.txt"].contains(&name.as_str());
            let (host, _) = name.rsplit_once('.').unwrap();
            let under_systemd = UNDER_SYSTEMD.iter().any(|(of, hosts)| {
                of == bundle && host.strip_prefix("systemd-").is_some_and(|host| hosts.contains(&host))
            });
            assert!(known || under_systemd || hosts.contains(&host), "{bundle}/{name}");
        }
    }
}
