//! Known attacks on shims, each as near to what was published as a test may go; `runtime/SECURITY.md` is the table. The
//! test plays containerd, or the attacker, to the shim under test (`SHIM`).

use std::fs::{self, File};
use std::path::Path;

use integration::need::skip;
use integration::proto::Message;
use integration::shim::{self, Bundle, Dialect, Stage, Streams, Task};
use integration::{call, eventually, need};
use serde_json::{Value, json};

/// A user of the host that has nothing to do with containers.
const OTHER: [&str; 5] = ["--reuid", "1000", "--regid", "1000", "--clear-groups"];

fn sleeper<'s>(stage: &'s Stage, edit: impl FnOnce(&mut Value)) -> Task<'s> {
    let task = stage.created(stage.bundle("c", &["sleep", "100000"], edit), Streams::default());
    task.start("").expect("start");
    task
}

/// What a line of shell prints in the sandbox, for the other user or as the root of a user namespace of his.
fn as_other(stage: &Stage, namespace: bool, script: &str, words: &[String]) -> String {
    let mut command = stage.sandbox.command("setpriv");
    command.args(OTHER);
    if namespace {
        command.args(["unshare", "--user", "--map-root-user"]);
    }
    call(command.args(["sh", "-c", script, "sh"]).args(words)).ok().out
}

/// The socket's path as the sandbox has it.
fn address(bundle: &Bundle) -> String {
    let text = fs::read_to_string(bundle.dir.join("address")).expect("the address");
    text.trim().strip_prefix("unix://").expect("a path").to_owned()
}

/// CVE-2020-15257: an abstract socket can be reached from any container in the host's network, and asks nobody who he
/// is.
#[test]
fn the_socket_of_a_shim_is_for_root_of_the_host() {
    need!(root, program(shim::STOCK), program("busybox"));
    let stage = Stage::new(shim::path());
    let task = sleeper(&stage, |_| {});
    let sockets = call(stage.sandbox.command("cat").arg("/proc/net/unix")).ok().out;
    let path = address(&task.bundle);
    assert!(sockets.contains(&path), "{path} is not in {sockets}");
    let abstracts: Vec<_> = sockets.lines().filter(|line| line.contains(" @")).collect();
    assert!(abstracts.is_empty(), "{abstracts:#?}");
    // Connecting takes the right to write (unix(7)).
    let script = "test -w \"$1\" && echo yes || echo no";
    let words = [path.clone()];
    assert_eq!(call(stage.sandbox.command("sh").args(["-c", script, "sh", &path])).ok().out, "yes\n");
    for namespace in [false, true] {
        assert_eq!(as_other(&stage, namespace, script, &words), "no\n", "in a namespace: {namespace}");
    }
    opened(&stage);
    assert_eq!(as_other(&stage, false, script, &words), "yes\n");
}

/// The control: what is found when it is there to be found.
fn opened(stage: &Stage) {
    call(stage.sandbox.command("chmod").args(["-R", "a+rwX", "/run/containerd"])).ok();
}

fn below(top: &Path, found: &mut Vec<String>, inside: &str) {
    for entry in fs::read_dir(top).into_iter().flatten().flatten() {
        let name = format!("{inside}/{}", entry.file_name().to_string_lossy());
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            below(&entry.path(), found, &name);
        }
        found.push(name);
    }
}

/// CVE-2021-41103, CVE-2024-25621: users of the host read and execute what belongs to containers.
#[test]
fn other_users_cannot_use_what_a_shim_keeps() {
    need!(root, program("busybox"));
    let stage = Stage::new(shim::path());
    let _task = sleeper(&stage, |_| {});
    let mut paths = Vec::new();
    below(&stage.sandbox.outside("/run/containerd"), &mut paths, "/run/containerd");
    assert!(paths.iter().any(|path| path.ends_with("/judge/c")), "{paths:?}");
    let script = "for path do
        test -d \"$path\" && touch \"$path/attack\" 2> /dev/null && echo \"makes files in $path\"
        test ! -d \"$path\" && test -w \"$path\" && echo \"writes $path\"
        test -f \"$path\" && test -r \"$path\" && echo \"reads $path\"
      done; ls /run/containerd/runc/judge/c 2> /dev/null; echo looked";
    for namespace in [false, true] {
        assert_eq!(as_other(&stage, namespace, script, &paths), "looked\n", "in a namespace: {namespace}");
    }
    opened(&stage);
    let found = as_other(&stage, false, script, &paths);
    assert!(found.contains("reads ") && found.contains("writes ") && found.contains("makes "), "{found}");
}

/// CVE-2019-14891 (conmon): what watches a container is killed for the memory that the container takes.
#[test]
fn a_shim_is_in_no_cgroup_of_its_container() {
    need!(root, program("busybox"));
    let stage = Stage::new(shim::path());
    let task = sleeper(&stage, |_| {});
    let parent = stage.sandbox.cgroup.clone();
    let of = |pid: u64| {
        fs::read_to_string(stage.sandbox.outside(&format!("/proc/{pid}/cgroup"))).expect("cgroups")
    };
    let init = task.call("Pids", &task.request("")).expect("pids").message(1).number(1);
    assert!(of(init).contains(&parent), "{}", of(init));
    for shim in stage.shims() {
        assert!(!of(shim).contains(&parent), "{}", of(shim));
    }
}

fn soak() -> u32 {
    std::env::var("SOAK").map_or(100, |number| number.parse().expect("SOAK is a number"))
}

/// CVE-2022-23471, CVE-2025-64329: each size that nobody takes, each attached stream whose other end is gone, keeps
/// something for ever.
#[test]
fn a_peer_that_is_gone_costs_nothing() {
    need!(root, program("busybox"));
    let stage = Stage::new(shim::path());
    let output = stage.sandbox.path("stdout");
    let _end = shim::fifo(&output);
    let streams =
        Streams { stdout: output.to_string_lossy().into_owned(), terminal: true, ..Streams::default() };
    let bundle =
        stage.bundle("c", &["sleep", "100000"], |config| config["process"]["terminal"] = json!(true));
    let task = stage.created(bundle, streams);
    task.start("").expect("start");
    let pid = stage.shims()[0];
    let state = || {
        let fds =
            fs::read_dir(stage.sandbox.outside(&format!("/proc/{pid}/fd"))).expect("its descriptors").count();
        (stage.memory(pid).private_dirty, fds)
    };
    let resize = |width| task.request("").number(3, width).number(4, 24);
    let play = |rounds: u32| {
        for round in 0..rounds {
            // Some at once on one connection, and gone before an answer is there.
            let mut client = task.client();
            for part in 0..10 {
                client.send("ResizePty", &resize(u64::from(80 + part + round % 50))).expect("send");
            }
            drop(client);
            if round % 10 == 0 {
                // An exec with streams whose other end goes away while it starts.
                let id = format!("e{round}");
                let path = stage.sandbox.path(&id);
                let reader = shim::fifo(&path);
                let streams = Streams {
                    stdout: path.to_string_lossy().into_owned(),
                    terminal: true,
                    ..Streams::default()
                };
                task.exec_with(&id, &["true"], &streams).expect("exec");
                let mut waiting = task.client();
                waiting.send("Wait", &task.request(&id)).expect("send");
                drop((reader, waiting));
                task.start(&id).expect("start");
                task.wait(&id);
                task.delete(&id).expect("delete");
                fs::remove_file(path).expect("remove the FIFO");
            }
        }
        // It has come to all that was sent.
        task.call("State", &task.request("")).expect("state");
    };
    play(soak() / 10);
    let before = state();
    play(soak());
    let slack = if shim::is_stock(shim::path()) { 8192 } else { 64 };
    let after = eventually("no more descriptors than before", || {
        let after = state();
        (after.1 <= before.1).then_some(after)
    });
    eprintln!("{before:?}, after {} sizes {after:?}", soak() * 10);
    assert!(after.0 <= before.0 + slack, "{before:?} {after:?}");
}

/// CVE-2026-53488: what an image says became the URI of a logger, which is executed as root. The URI is the word of who
/// calls Create or Exec; nothing in the configuration is one.
#[test]
fn no_annotation_or_variable_executes_a_logger() {
    need!(root, program("busybox"));
    let stage = Stage::new(shim::path());
    let (logger, mark) = (stage.sandbox.path("logger"), stage.sandbox.path("mark"));
    fs::write(&logger, format!("#!/bin/sh\ntouch {}\n", mark.display())).expect("the logger");
    call(std::process::Command::new("chmod").arg("755").arg(&logger)).ok();
    let uri = format!("binary://{}", logger.display());
    let bundle = stage.bundle("c", &["true"], |config| {
        config["annotations"] = json!({
            "io.containerd.runc.v2.log": uri, "containerd.io/restart.loguri": uri, "stdout": uri, "log-uri": uri,
        });
        config["process"]["env"] = json!(["PATH=/bin", format!("LOG_URI={uri}"), format!("STDIO={uri}")]);
    });
    let task = stage.created(bundle, Streams::default());
    task.start("").expect("start");
    assert_eq!(task.wait(""), 0);
    task.delete("").expect("delete");
    assert!(!mark.exists(), "it was executed");
    // The control: the caller's own word is taken.
    let streams = Streams { stdout: uri.clone(), stderr: uri, ..Streams::default() };
    let task = stage.task(stage.bundle("d", &["true"], |_| {}), streams);
    // It ends at once, so Create may be refused.
    let _ended = task.create();
    eventually("the logger was executed", || mark.exists().then_some(()));
}

/// CVE-2026-53488: who needs no loggers has none, whoever asks.
#[test]
fn loggers_that_are_turned_off_are_not_executed() {
    need!(root, program("busybox"));
    if shim::is_stock(shim::path()) {
        return skip("ours", "the stock shim has no such switch");
    }
    let mut stage = Stage::new(shim::path());
    let (logger, mark) = (stage.sandbox.path("logger"), stage.sandbox.path("mark"));
    fs::write(&logger, format!("#!/bin/sh\ntouch {}\n", mark.display())).expect("the logger");
    call(std::process::Command::new("chmod").arg("755").arg(&logger)).ok();
    stage.variables = vec![("TARE_SHIM_LOGGERS", "off")];
    for (id, scheme) in [("c", "binary"), ("d", "binary-v2")] {
        let stdout = format!("{scheme}://{}", logger.display());
        let streams = Streams { stdout, ..Streams::default() };
        let task = stage.task(stage.bundle(id, &["true"], |_| {}), streams);
        let refusal = task.create().expect_err("a logger");
        assert!(refusal.message.contains("TARE_SHIM_LOGGERS=off"), "{refusal:?}");
    }
    assert!(!mark.exists(), "it was executed");
    // All else is as it was.
    let task = stage.created(stage.bundle("e", &["true"], |_| {}), Streams::default());
    task.start("").expect("start");
    assert_eq!(task.wait(""), 0);
    // A word that is neither is no permission.
    stage.variables = vec![("TARE_SHIM_LOGGERS", "no")];
    let reply = stage.start_reply(&stage.bundle("f", &["true"], |_| {}), Dialect::Words);
    assert!(reply.err.contains("TARE_SHIM_LOGGERS is \"no\""), "{reply:?}");
}

/// CVE-2026-53492, CVE-2026-50195, CVE-2026-53489 (CRI's restore): links in an archive are followed, and what it says of
/// devices is believed. There is no restore yet: it is refused before anything of the archive is looked at.
#[test]
fn a_checkpoint_is_refused_unread() {
    need!(root, program("busybox"));
    let stage = Stage::new(shim::path());
    let task = stage.task(stage.bundle("c", &["true"], |_| {}), Streams::default());
    // Whoever opens it waits for ever, and its link leads to a file that is made if it is followed.
    let archive = stage.sandbox.path("archive");
    fs::create_dir(&archive).expect("the archive");
    drop(shim::fifo(&archive.join("config.dump")));
    std::os::unix::fs::symlink(stage.sandbox.path("made"), archive.join("log")).expect("a link");
    let request = task.create_request();
    let request = Message::bytes(request, 8, archive.to_string_lossy().as_bytes());
    let refusal = task.call("Create", &request).expect_err("a restore");
    assert!(refusal.message.contains("checkpoint"), "{refusal:?}");
    assert!(!stage.sandbox.path("made").exists());
    assert!(File::open(archive.join("log")).is_err());
    // Without it the same container is made.
    task.create().expect("create");
}
