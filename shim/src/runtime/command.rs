//! Another runtime, by the command line that runc has: when `binary_name` asks for one.
//!
//! It is executed by a forked copy, which waits for it, reads its log for the error and its pid file
//! for the process. That process is orphaned with the end of its maker, and so becomes the child of the
//! shim, which is a subreaper.

use std::ffi::OsString;
use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use tare::cgroup::{Driver, Paths, Place};
use tare::host::CgroupLayout;

use super::copy::{self, Tell};
use super::{Begun, Given, Runtime, Target, Work};
use crate::error::{Error, Result};
use crate::mount;

#[derive(Debug)]
pub struct External;

impl Runtime for External {
    fn begin(&self, target: &Target, work: Work) -> Result<Begun> {
        copy::begin(target, work, run).map(Begun::Job)
    }

    fn cgroup(&self, _target: &Target, init: i32) -> Result<Paths> {
        let read = |path: &str| fs::read(path).map_err(|e| Error::io("read", Path::new(path), &e));
        let own = read(&format!("/proc/{init}/cgroup"))?;
        let layout = CgroupLayout::parse(&read("/proc/self/mountinfo")?, &own);
        let place = |hierarchy: &tare::host::Hierarchy| Place {
            controllers: hierarchy.controllers.clone(),
            folder: hierarchy.own_folder(),
            name: hierarchy.own.clone(),
        };
        Ok(Paths {
            v1: layout.v1.iter().map(place).collect(),
            v2: layout.v2.as_ref().map(|v2| Place { controllers: Vec::new(), ..place(v2) }),
            ..Paths::none(Driver::Cgroupfs)
        })
    }
}

/// In the copy.
fn run(target: &Target, work: Work, tell: Tell) -> (Tell, Result<Option<i32>>) {
    let ignored = crate::sys::signal::ignore_sigpipe().map_err(|e| Error::sys("rt_sigaction", "SIGPIPE", e));
    let done = ignored.and_then(|()| act(target, work));
    (tell, done)
}

fn act(target: &Target, work: Work) -> Result<Option<i32>> {
    let bundle = Path::new(&target.bundle);
    let rootfs = bundle.join("rootfs");
    let pid_file = match &work {
        Work::Create { .. } => Some(bundle.join("init.pid")),
        Work::Exec { exec_id, .. } => Some(bundle.join(format!("{exec_id}.pid"))),
        _ => None,
    };
    let (words, input) = words(target, &work)?;
    match work {
        Work::Create { rootfs: mounts, given } => {
            mount::mount_all(&mounts, &rootfs)?;
            // Closed already, by number.
            std::mem::forget(given);
            if let Err(error) = call(target, &words, &input) {
                return Err(match mount::unmount_all(&rootfs) {
                    Ok(()) => error,
                    Err(left) => Error::Unknown(format!("{}; {}", error.text(), left.text())),
                });
            }
        }
        Work::Exec { exec_id, given, .. } => {
            std::mem::forget(given);
            let document = bundle.join(process_file(&exec_id));
            fs::write(&document, &input).map_err(|e| Error::io("write", &document, &e))?;
            let called = call(target, &words, &[]);
            let removed = fs::remove_file(&document).map_err(|e| Error::io("remove", &document, &e));
            called.and(removed)?;
        }
        Work::Kill { .. } => call(target, &words, &input).map_err(kill_error)?,
        Work::EndRest => {
            if shares_pid_namespace(bundle) {
                call(target, &words, &input)?;
            }
        }
        Work::Delete | Work::TakeBack => {
            match call(target, &words, &input) {
                Err(error) if error.text().contains("does not exist") => {}
                other => other?,
            }
            mount::unmount_all(&rootfs)?;
        }
        Work::Start | Work::Pause | Work::Resume | Work::Update(_) => call(target, &words, &input)?,
    }
    pid_file.map(|file| read_pid(&file)).transpose()
}

fn process_file(exec_id: &str) -> String {
    format!(".{exec_id}-process.json")
}

/// The command line after the program's name, and its standard input; of an exec the document, which
/// goes into a file.
fn words(target: &Target, work: &Work) -> Result<(Vec<OsString>, Vec<u8>)> {
    let bundle = Path::new(&target.bundle);
    let mut words: Vec<OsString> = vec!["--root".into(), target.root.clone().into()];
    words.extend(["--log".into(), log_file(target).into(), "--log-format".into(), "json".into()]);
    if target.systemd_cgroup {
        words.push("--systemd-cgroup".into());
    }
    let mut input = Vec::new();
    let console = |given: &Given| match given {
        Given::Streams(_) => Vec::new(),
        Given::ConsoleSocket(path) => vec!["--console-socket".into(), path.clone().into()],
    };
    match work {
        Work::Create { given, .. } => {
            words.extend(["create".into(), "--bundle".into(), bundle.into()]);
            words.extend(["--pid-file".into(), bundle.join("init.pid").into()]);
            words.extend(console(given));
            words.extend(target.no_pivot_root.then(|| "--no-pivot".into()));
            words.extend(target.no_new_keyring.then(|| "--no-new-keyring".into()));
        }
        Work::Start => words.push("start".into()),
        Work::Exec { exec_id, spec, terminal, given } => {
            words.extend(["exec".into(), "--process".into(), bundle.join(process_file(exec_id)).into()]);
            words.extend(console(given));
            words.extend(["--detach".into(), "--pid-file".into()]);
            words.push(bundle.join(format!("{exec_id}.pid")).into());
            input = super::with_terminal(spec, *terminal)?;
        }
        Work::Pause => words.push("pause".into()),
        Work::Resume => words.push("resume".into()),
        Work::Update(resources) => {
            words.extend(["update".into(), "--resources=-".into()]);
            input.clone_from(resources);
        }
        Work::Kill { all, .. } => {
            words.push("kill".into());
            words.extend(all.then(|| "--all".into()));
        }
        Work::EndRest => words.extend(["kill".into(), "--all".into()]),
        Work::Delete => words.push("delete".into()),
        Work::TakeBack => words.extend(["delete".into(), "--force".into()]),
    }
    words.push(target.id.clone().into());
    match work {
        Work::Kill { signal, .. } => words.push(signal.to_string().into()),
        Work::EndRest => words.push(libc::SIGKILL.to_string().into()),
        _ => {}
    }
    Ok((words, input))
}

fn log_file(target: &Target) -> PathBuf {
    Path::new(&target.bundle).join("log.json")
}

fn call(target: &Target, words: &[OsString], input: &[u8]) -> Result<()> {
    let name = target.binary.as_deref().unwrap_or(Path::new("runc"));
    let failed = |e: std::io::Error| Error::io("exec", name, &e);
    let mut command = Command::new(name);
    // What systemd wants to hear is for containerd to say.
    command.args(words).env_remove("NOTIFY_SOCKET");
    if !input.is_empty() {
        command.stdin(Stdio::piped());
    }
    let mut child = command.spawn().map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        match stdin.write_all(input) {
            // It went without reading, and will say why.
            Err(e) if e.kind() == ErrorKind::BrokenPipe => {}
            other => other.map_err(failed)?,
        }
    }
    let status = child.wait().map_err(failed)?;
    if status.success() {
        return Ok(());
    }
    let said = fs::read(log_file(target)).ok().and_then(|log| last_error(&log));
    Err(Error::Unknown(said.unwrap_or_else(|| format!("{}: {status}", name.display()))))
}

/// The message of the last entry that is an error.
fn last_error(log: &[u8]) -> Option<String> {
    log.rsplit(|byte| *byte == b'\n')
        .filter_map(|line| serde_json::from_slice::<Value>(line).ok())
        .filter(|entry| entry["level"] == "error")
        .find_map(|entry| entry["msg"].as_str().map(|text| text.trim().to_owned()))
}

/// All that a command says is text: here, and nowhere else, its words decide.
fn kill_error(error: Error) -> Error {
    let text = error.text();
    let gone = ["process already finished", "container not running"].iter().any(|words| text.contains(words))
        || text.to_ascii_lowercase().contains("no such process");
    if gone {
        Error::NotFound("process already finished".into())
    } else if text.contains("does not exist") {
        Error::NotFound("no such container".into())
    } else {
        error.context("unknown error after kill")
    }
}

fn read_pid(file: &Path) -> Result<i32> {
    let text = fs::read_to_string(file).map_err(|e| Error::io("read", file, &e))?;
    text.trim().parse().map_err(|_| Error::Unknown(format!("{}: {text:?} is not a pid", file.display())))
}

/// Also when it is not known: then rather one signal too many.
fn shares_pid_namespace(bundle: &Path) -> bool {
    let Some(config) = fs::read(bundle.join("config.json"))
        .ok()
        .and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok())
    else {
        return true;
    };
    let namespaces = config["linux"]["namespaces"].as_array();
    let pid = namespaces.into_iter().flatten().find(|namespace| namespace["type"] == "pid");
    pid.is_none_or(|namespace| namespace["path"].as_str().is_some_and(|path| !path.is_empty()))
}

/// `delete --force`, for the shim's own `delete`, where no loop has to go on meanwhile.
pub fn delete_by_force(binary: &Path, root: &Path, id: &str, systemd_cgroup: bool) -> Result<()> {
    let mut command = Command::new(binary);
    command
        .arg("--root")
        .arg(root)
        .args(systemd_cgroup.then_some("--systemd-cgroup"))
        .args(["delete", "--force", id]);
    output(command).map(drop)
}

/// The document of `features`; `None` when the runtime has no such command.
pub fn features(binary: &Path) -> Option<Vec<u8>> {
    let mut command = Command::new(binary);
    command.arg("features");
    output(command).ok().filter(|document| serde_json::from_slice::<Value>(document).is_ok())
}

fn output(mut command: Command) -> Result<Vec<u8>> {
    let program = Path::new(command.get_program()).to_owned();
    let output = command.stdin(Stdio::null()).output().map_err(|e| Error::io("execute", &program, &e))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    Err(Error::Unknown(String::from_utf8_lossy(&output.stderr).trim().to_owned())
        .context(&program.display().to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target() -> Target {
        Target {
            id: "c1".into(),
            bundle: "/b".into(),
            root: "/r".into(),
            binary: Some("runc".into()),
            systemd_cgroup: false,
            no_pivot_root: false,
            no_new_keyring: false,
            io_uid: 0,
            io_gid: 0,
        }
    }

    #[test]
    fn every_verb_is_a_command_line_of_runc() {
        let spec = br#"{"args":["sh"]}"#.to_vec();
        let console = || Given::ConsoleSocket("/s".into());
        for (work, expected) in [
            (
                Work::Create { rootfs: Vec::new(), given: console() },
                "create --bundle /b --pid-file /b/init.pid --console-socket /s c1",
            ),
            (Work::Start, "start c1"),
            (
                Work::Exec { exec_id: "e".into(), spec, terminal: true, given: console() },
                "exec --process /b/.e-process.json --console-socket /s --detach --pid-file /b/e.pid c1",
            ),
            (Work::Pause, "pause c1"),
            (Work::Resume, "resume c1"),
            (Work::Update(b"{}".to_vec()), "update --resources=- c1"),
            (Work::Kill { signal: 34, all: false }, "kill c1 34"),
            (Work::Kill { signal: 9, all: true }, "kill --all c1 9"),
            (Work::EndRest, "kill --all c1 9"),
            (Work::Delete, "delete c1"),
            (Work::TakeBack, "delete --force c1"),
        ] {
            let (words, _) = words(&target(), &work).expect("words");
            let line: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
            assert_eq!(line.join(" "), format!("--root /r --log /b/log.json --log-format json {expected}"));
        }
        let target = Target { systemd_cgroup: true, no_pivot_root: true, no_new_keyring: true, ..target() };
        let (words, _) =
            words(&target, &Work::Create { rootfs: Vec::new(), given: console() }).expect("words");
        for word in ["--systemd-cgroup", "--no-pivot", "--no-new-keyring"] {
            assert!(words.iter().any(|w| w == word), "{words:?}");
        }
    }

    #[test]
    fn the_last_error_of_a_log_is_taken_whatever_stands_around_it() {
        let log = br#"{"level":"warning","msg":"w"}
{"level":"error","msg":"first"}
not json
{"level":"error","msg":" runc create failed: no such file or directory\n"}
{"level":"debug","msg":"d"}
"#;
        assert_eq!(last_error(log).as_deref(), Some("runc create failed: no such file or directory"));
        assert_eq!(last_error(b""), None);
    }

    #[test]
    fn a_pid_namespace_is_shared_unless_the_configuration_makes_one() {
        for (config, shared) in [
            (Some(r#"{"linux":{"namespaces":[{"type":"pid"}]}}"#), false),
            (Some(r#"{"linux":{"namespaces":[{"type":"pid","path":""}]}}"#), false),
            (Some(r#"{"linux":{"namespaces":[{"type":"pid","path":"/proc/1/ns/pid"}]}}"#), true),
            (Some(r#"{"linux":{"namespaces":[{"type":"mount"}]}}"#), true),
            (Some("{"), true),
            (None, true),
        ] {
            let bundle = tempfile::tempdir().expect("a folder");
            if let Some(config) = config {
                fs::write(bundle.path().join("config.json"), config).expect("written");
            }
            assert_eq!(shares_pid_namespace(bundle.path()), shared, "{config:?}");
        }
    }
}
