//! The command as its callers meet it: words in, bytes and an exit code out. Containers are not
//! needed here, nor is root.
#![allow(clippy::unwrap_used)]

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

const COMMANDS: &[&str] = &[
    "create", "delete", "events", "exec", "features", "kill", "list", "plan", "ps", "run", "spec", "start",
    "state", "update",
];
const ABSENT: &[&str] = &["checkpoint", "restore"];

struct Tare {
    folder: TempDir,
}

struct Said {
    code: i32,
    out: String,
    err: String,
}

impl Tare {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    /// With a root of its own, in a folder of its own.
    fn says<W: AsRef<OsStr>>(&self, words: &[W]) -> Said {
        self.command(
            ["--root".as_ref(), self.path("root").as_os_str()]
                .into_iter()
                .chain(words.iter().map(AsRef::as_ref)),
        )
    }

    fn command<'a>(&self, words: impl IntoIterator<Item = &'a OsStr>) -> Said {
        let Output { status, stdout, stderr } = Command::new(env!("CARGO_BIN_EXE_tare"))
            .args(words)
            .current_dir(self.folder.path())
            .env_remove("XDG_RUNTIME_DIR")
            .env_remove("LISTEN_PID")
            .output()
            .unwrap();
        Said {
            code: status.code().unwrap(),
            out: String::from_utf8(stdout).unwrap(),
            err: String::from_utf8(stderr).unwrap(),
        }
    }
}

fn words(line: &str) -> Vec<&str> {
    line.split(' ').collect()
}

/// `BLESS=1 cargo test` writes them anew.
#[test]
fn help_is_as_it_was_read_and_approved() {
    let tare = Tare::new();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/help");
    for name in COMMANDS.iter().chain(&["tare"]) {
        let said = if *name == "tare" { tare.says(&["--help"]) } else { tare.says(&[name, "--help"]) };
        assert_eq!((said.code, said.err.as_str()), (0, ""), "{name}");
        let golden = folder.join(format!("{name}.txt"));
        if std::env::var_os("BLESS").is_some() {
            fs::write(&golden, &said.out).unwrap();
        }
        assert_eq!(said.out, fs::read_to_string(&golden).unwrap(), "{name}");
        assert!(said.out.starts_with("NAME:\n   tare"), "{name}");
    }
    assert!(tare.says(&["help"]).out.starts_with("NAME:\n   tare - Open Container Initiative runtime\n"));
}

#[test]
fn help_is_asked_for_in_many_ways() {
    let tare = Tare::new();
    let program = tare.says(&["--help"]).out;
    for line in ["help", "h", "-h", "-help", "create -h ignored --help"] {
        let said = tare.says(&words(line));
        assert_eq!(said.code, 0, "{line}");
        assert!(said.out.starts_with("NAME:\n"), "{line}");
    }
    assert_eq!(tare.command([]).out, program);
    assert_eq!(tare.says(&["help", "create"]).out, tare.says(&["create", "--help"]).out);
}

/// Three lines: what go-runc of containerd 1.6 can read.
#[test]
fn engines_can_read_the_version() {
    let tare = Tare::new();
    for option in ["--version", "-v"] {
        let said = tare.says(&[option]);
        let lines: Vec<_> = said.out.lines().collect();
        assert_eq!(lines.len(), 3);
        assert_eq!(lines[0], format!("tare version {}", env!("CARGO_PKG_VERSION")));
        assert!(lines[1].starts_with("commit: ") && lines[2].starts_with("spec: 1."), "{}", said.out);
        assert_eq!((said.code, said.err.as_str()), (0, ""));
    }
}

#[test]
fn what_is_not_there_yet_says_so_even_when_asked_for_help() {
    let tare = Tare::new();
    for name in ABSENT {
        for line in [format!("{name} --help"), format!("{name} web"), format!("help {name}")] {
            let said = tare.says(&words(&line));
            assert_eq!((said.code, said.out.as_str()), (1, ""), "{line}");
            assert!(
                said.err.contains(&format!("{name}: this version of tare does not support it")),
                "{line}"
            );
        }
    }
}

#[test]
fn wrong_words_are_answered_as_by_runc() {
    let tare = Tare::new();
    for (line, begin, error) in [
        (
            "create",
            "Incorrect Usage.\n\nNAME:\n   tare create",
            "tare: \\\"create\\\" requires exactly 1 argument(s)",
        ),
        ("start a b", "Incorrect Usage.\n\nNAME:", "tare: \\\"start\\\" requires exactly 1 argument(s)"),
        ("exec", "Incorrect Usage.\n\nNAME:", "tare: \\\"exec\\\" requires a minimum of 1 argument(s)"),
        ("kill a b c", "Incorrect Usage.\n\nNAME:", "tare: \\\"kill\\\" requires a maximum of 2 argument(s)"),
        (
            "create --bundel x id",
            "Incorrect Usage: flag provided but not defined: -bundel\n\nNAME:\n   tare create",
            "flag provided but not defined: -bundel\"\nhint: did you mean --bundle?",
        ),
        (
            "--bogus state x",
            "Incorrect Usage: flag provided but not defined: -bogus\n\nNAME:\n   tare -",
            "-bogus",
        ),
        (
            "create id --bundle",
            "Incorrect Usage: flag needs an argument: -bundle\n\n",
            "flag needs an argument",
        ),
        ("exec --preserve-fds x a b", "Incorrect Usage: invalid value 'x' for", "--preserve-fds"),
        ("list --format yaml", "Incorrect Usage: invalid value 'yaml' for", "[possible values: table, json]"),
        ("exec -u 1: a b", "Incorrect Usage: invalid value '1:' for", "is not a number"),
        ("--rootless maybe list", "Incorrect Usage: invalid value", "true, false or auto"),
    ] {
        let said = tare.says(&words(line));
        assert_eq!(said.code, 1, "{line}");
        assert!(said.out.starts_with(begin), "{line}: {}", said.out);
        assert!(said.err.contains(error), "{line}: {}", said.err);
    }
}

#[test]
fn failures_have_the_exit_code_and_the_prefix_of_their_command() {
    let tare = Tare::new();
    for (line, code, error) in [
        ("state web", 1, "msg=\"container does not exist\""),
        ("ps web", 1, "msg=\"container does not exist\""),
        ("create a/b", 1, "msg=\"tare create failed: invalid container ID format: \\\"a/b\\\"\""),
        (
            "create --bundle nowhere web",
            1,
            "msg=\"tare create failed: open bundle nowhere: no such file or directory\"",
        ),
        ("run a/b", 1, "msg=\"tare run failed: invalid container ID format"),
        ("exec a/b sh", 255, "msg=\"exec failed: invalid container ID format"),
        ("exec web", 255, "msg=\"exec failed: exec args cannot be empty\""),
        ("exec --cgroup ../.. web sh", 255, "must not leave the container's cgroup"),
        (
            "exec --preserve-fds 99 web sh",
            255,
            "msg=\"exec failed: unable to stat preserved-fd 0 (of 99): stat /proc/self/fd/3: no such file or directory\"",
        ),
        ("exec web sh", 255, "msg=\"exec failed: container does not exist\""),
        ("kill web NOSUCH", 1, "msg=\"unknown signal \\\"NOSUCH\\\"\""),
        ("kill --regex (", 1, "is not a regular expression"),
        ("list", 1, "no such file or directory"),
        ("frobnicate", 3, "No help topic for 'frobnicate'"),
    ] {
        let said = tare.says(&words(line));
        assert_eq!(said.code, code, "{line}: {}", said.err);
        assert!(said.err.contains(error), "{line}: {}", said.err);
        assert_eq!(said.out, "", "{line}");
    }
    let said = tare.command(["--root", "/", "state", "web"].map(OsStr::new));
    assert_eq!(said.code, 1);
    assert!(said.err.contains("must not be /"), "{}", said.err);
}

#[test]
fn a_failure_is_one_json_line_in_the_log_and_plain_words_on_stderr() {
    let tare = Tare::new();
    let log = tare.path("log.json");
    for (n, format) in ["--log-format=json", "-log-format=json"].iter().enumerate() {
        let said = tare.says(&[
            OsStr::new("--log"),
            log.as_os_str(),
            OsStr::new(format),
            OsStr::new("state"),
            OsStr::new("web"),
        ]);
        assert_eq!((said.code, said.out.as_str()), (1, ""));
        // No hint on stderr: callers of `state` read it with the document.
        assert_eq!(said.err, "container does not exist\n");
        let text = fs::read_to_string(&log).unwrap();
        let lines: Vec<serde_json::Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        assert_eq!(lines.len(), n + 1, "added to, one line for each failure");
        assert_eq!(lines[n]["level"], "error");
        assert_eq!(lines[n]["msg"], "container does not exist");
        assert!(lines[n]["hint"].as_str().unwrap().contains("tare list"));
        assert!(lines[n]["time"].as_str().unwrap().ends_with('Z'));
    }
}

#[test]
fn a_success_leaves_no_log() {
    let tare = Tare::new();
    let log = tare.path("log");
    let said = tare.says(&[OsStr::new("--log"), log.as_os_str(), OsStr::new("features")]);
    assert_eq!((said.code, said.err.as_str()), (0, ""));
    assert!(!log.exists());
}

#[test]
fn a_log_that_cannot_be_written_does_not_hide_the_failure() {
    let tare = Tare::new();
    let said = tare.says(&words("--log no/such/log state web"));
    assert_eq!(said.code, 1);
    assert_eq!(said.err, "container does not exist\nopen log no/such/log: no such file or directory\n");
}

#[test]
fn spec_writes_a_configuration_once() {
    let tare = Tare::new();
    let said = tare.says(&["spec"]);
    assert_eq!((said.code, said.out.as_str(), said.err.as_str()), (0, "", ""));
    let first = fs::read_to_string(tare.path("config.json")).unwrap();
    assert!(first.starts_with("{\n\t\"ociVersion\": \"1."), "{first}");
    let said = tare.says(&["spec"]);
    assert_eq!(said.code, 1);
    assert!(said.err.contains("File config.json exists. Remove it first"), "{}", said.err);
    fs::create_dir(tare.path("other")).unwrap();
    assert_eq!(tare.says(&words("spec -b other -f my.json --rootless")).code, 0);
    assert!(fs::read_to_string(tare.path("other/my.json")).unwrap().contains("\"uidMappings\""));
}

#[test]
fn an_empty_root_has_no_containers() {
    let tare = Tare::new();
    fs::create_dir(tare.path("root")).unwrap();
    for (line, out) in [
        ("list", "ID          PID         STATUS      BUNDLE      CREATED     OWNER\n"),
        ("list -f json", "null\n"),
        ("list --quiet", ""),
    ] {
        let said = tare.says(&words(line));
        assert_eq!((said.code, said.out.as_str(), said.err.as_str()), (0, out, ""), "{line}");
    }
}

#[test]
fn a_record_shows_up_in_state_and_list() {
    let tare = Tare::new();
    for (id, record) in [("web", Some(include_str!("state/0.1.0.json"))), ("torn", Some("{")), ("none", None)]
    {
        let folder = tare.path("root").join(id);
        fs::create_dir_all(&folder).unwrap();
        if let Some(record) = record {
            fs::write(folder.join("state.json"), record).unwrap();
        }
    }
    let said = tare.says(&["state", "web"]);
    assert_eq!(said.code, 0, "{}", said.err);
    assert_eq!(
        said.out,
        "{\n  \"ociVersion\": \"1.3.0\",\n  \"id\": \"web\",\n  \"pid\": 0,\n  \"status\": \"stopped\",\n  \
         \"bundle\": \"/bundles/web\",\n  \"rootfs\": \"/bundles/web/rootfs\",\n  \
         \"created\": \"2026-11-21T12:00:00.123456789Z\",\n  \
         \"annotations\": {\n    \"org.example/role\": \"front\"\n  },\n  \"owner\": \"\"\n}"
    );
    let said = tare.says(&words("list -q"));
    assert_eq!((said.code, said.out.as_str()), (0, "web\n"));
    assert!(said.err.contains("load container none: container does not exist\n"), "{}", said.err);
    assert!(said.err.contains("load container torn: state file "), "{}", said.err);
    let said = tare.says(&words("state torn"));
    assert!(said.code == 1 && said.err.contains("EOF while parsing"), "{}", said.err);
    assert_eq!(tare.says(&words("state none")).code, 1);
}
