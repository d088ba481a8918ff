//! Ways out by what a process holds open, or is told to be in.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use spec_tests::call::{call, through_shell};
use spec_tests::need::cpus;
use spec_tests::rootless::USER;
use spec_tests::{Bundle, Container, Output, crun, crun_before, differs, json, need};

use crate::Owner;
use crate::canary::Canary;

/// Folders of the host that the runtime's caller has open.
const CALLERS: &str = "exec \"$@\" 3</ 4</etc 5</proc 6</sys/fs/cgroup 7</tmp 8</ 9</";

/// The probe's words that look for a file of the host from the working directory, however deep that is.
fn looking_for(secret: &Path) -> [String; 4] {
    let up = "../".repeat(30) + secret.to_str().unwrap().trim_start_matches('/');
    ["/probe".to_owned(), "try".to_owned(), "read".to_owned(), up]
}

/// With the caller's descriptors, as the owner.
fn with_descriptors(owner: Owner, command: &Command) -> Command {
    let mut command = through_shell(command, CALLERS);
    if owner == Owner::User {
        command.uid(USER).gid(USER);
    }
    command
}

/// Either it is refused, or the secret cannot be seen.
#[track_caller]
fn stays_inside(out: &Output, what: &str) {
    if out.status.success() {
        assert!(out.json()["ok"].is_null(), "{what}: {out:#?}");
    } else {
        assert!(!out.stderr.trim().is_empty(), "{what}: a failure must be explained: {out:#?}");
    }
}

/// Each descriptor that a runtime could have open, some in other words. With one processor, in a machine that is slow,
/// and for an ordinary user, those that one has.
fn places(owner: Owner) -> impl Iterator<Item = String> {
    let last = if owner == Owner::Root && cpus(2).is_ok() { 256 } else { 16 };
    let others =
        ["/proc/self/cwd", "/proc/self/root", "/proc/1/cwd", "/proc/1/root", "/proc/thread-self/cwd"];
    let named = (0..=last).map(|fd| format!("/proc/self/fd/{fd}"));
    let roundabout =
        (3..=9).flat_map(|fd| [format!("/proc/thread-self/fd/{fd}/.."), format!("/dev/fd/{fd}/.")]);
    named.chain(roundabout).chain(others.map(str::to_owned))
}

/// Writes the configuration anew, with this working directory and a link of the image that leads there.
fn directed(container: &Container, cwd: &str, link_to: &str) {
    let mut config = container.config().clone();
    config["process"]["cwd"] = json!(cwd);
    fs::write(container.bundle_path().join("config.json"), config.to_string()).unwrap();
    let link = container.rootfs_path().join("link");
    // ENOENT: the first time.
    fs::remove_file(&link).ok();
    symlink(link_to, link).unwrap();
}

/// CVE-2024-21626: a folder of the host that the runtime, or its caller, has open is the working directory.
#[test]
fn no_working_directory_of_a_container_is_outside() {
    need!(root);
    let canary = Canary::new([]);
    let known = [crun_before("1.21", "does not look where it has got to")];
    for owner in Owner::all("no_working_directory_of_a_container_is_outside") {
        let bundle = Bundle::new().process(|p| p["args"] = json!(looking_for(&canary.secret())));
        let mut container = owner.container(bundle);
        differs(&known, || {
            // As it is or by a link, in turns.
            for (place, linked) in places(owner).zip([false, true].into_iter().cycle()) {
                let cwd = if linked { "/link" } else { &place };
                directed(&container, cwd, &place);
                let mut command = container.command(["create", "--bundle"]);
                command.arg(container.bundle_path()).arg(container.id());
                let mut out = container.create_by(with_descriptors(owner, &command));
                if out.status.success() {
                    container.start().ok();
                    container.wait_for_status("stopped");
                    out.stdout = container.stdout();
                }
                stays_inside(&out, &format!("{owner:?} {place} as {cwd}"));
                container.delete_by_force().ok();
            }
        });
    }
}

#[test]
fn no_working_directory_of_exec_is_outside() {
    need!(root);
    differs([crun_before("1.21", "does not look where it has got to")], || {
        let canary = Canary::new([]);
        for owner in Owner::all("no_working_directory_of_exec_is_outside") {
            let mut container = owner.container(Bundle::new().writable().probe(["wait"]));
            container.create().ok();
            container.start().ok();
            container.wait_for_stdout("ready");
            for (index, place) in places(owner).enumerate() {
                let cwd = if index % 2 == 0 { &place } else { "/link" };
                directed(&container, "/", &place);
                let mut command = container.command(["exec", "--cwd", cwd, container.id()]);
                command.args(looking_for(&canary.secret()));
                stays_inside(
                    &call(with_descriptors(owner, &command)),
                    &format!("{owner:?} {place} as {cwd}"),
                );
            }
        }
    });
}

/// crun 1.29 and the like: a cgroup for the new process that is not below the container's.
#[test]
fn exec_does_not_leave_the_containers_cgroup() {
    need!(root);
    differs([crun("takes any path")], || {
        let container = Bundle::new().without_namespace("cgroup").probe(["wait"]).start();
        let id = container.id();
        for path in ["..", "../..", "/..", "/../..", "a/../../..", "cpu:../..", "/../../../../../../../tmp"] {
            let out = container.exec_with(["--cgroup", path], ["facts"]);
            if !out.status.success() {
                assert!(!out.stderr.trim().is_empty(), "{out:#?}");
                continue;
            }
            let facts = out.json();
            let cgroups: Vec<_> =
                facts["cgroups"].as_array().unwrap().iter().map(|c| c.as_str().unwrap()).collect();
            let init = fs::read_to_string(format!("/proc/{}/cgroup", container.pid())).unwrap();
            for line in init.lines().filter(|line| line.contains(id)) {
                assert!(
                    cgroups.iter().any(|c| c.starts_with(line)),
                    "--cgroup {path}: {line} is not in {cgroups:?}"
                );
            }
        }
    });
}
