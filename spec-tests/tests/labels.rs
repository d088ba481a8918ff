//! config.md, `process.apparmorProfile` and `process.selinuxLabel`; config-linux.md, `mountLabel`.
//! Where the kernel has no security module: what is refused. Where it has AppArmor: profiles that hold.
#![allow(clippy::unwrap_used)]

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Command;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use spec_tests::call::call;
use spec_tests::{Bundle, Output, Value, crun, crun_before, differs, json, need, runc};

/// A peer's way with a module that is off.
const OFF: &str = "asks the kernel, which has no such module";

const MISSING: &str = "spec-tests-no-such-profile";

fn confined(profile: &str) -> Bundle {
    Bundle::new().process(|p| p["apparmorProfile"] = json!(profile))
}

// --- a kernel without

#[test]
fn a_profile_is_refused_where_apparmor_is_off() {
    need!(root, no_apparmor);
    differs([crun("starts without the profile")], || {
        confined(MISSING).create_fails().says("apparmor");
    });
    let container = Bundle::new().probe(["trap", "1"]).start();
    differs([crun("starts without the profile")], || {
        container.exec_with(["--apparmor", MISSING], ["print", "in"]).refused().says("apparmor");
    });
}

#[test]
fn unconfined_is_what_everything_is_where_apparmor_is_off() {
    need!(root, no_apparmor);
    differs([runc(OFF), crun_before("1.9", OFF)], || {
        confined("unconfined").probe(["print", "in"]).run().ok();
    });
}

#[test]
fn labels_are_refused_where_selinux_is_off() {
    need!(root, no_selinux);
    let label = "system_u:system_r:container_t:s0:c1,c2";
    differs([crun("asks the kernel, which has no such module, or starts without the label")], || {
        Bundle::new().process(|p| p["selinuxLabel"] = json!(label)).create_fails().says("selinux");
    });
    let container = Bundle::new().probe(["trap", "1"]).start();
    differs([crun("asks the kernel, which has no such module, or starts without the label")], || {
        container.exec_with(["--process-label", label], ["print", "in"]).refused().says("selinux");
    });
    differs([crun("mounts without the label"), runc("asks the kernel, which has no such option")], || {
        Bundle::new().linux(|l| l["mountLabel"] = json!(label)).create_fails().says("selinux");
    });
}

#[test]
fn empty_labels_ask_for_nothing() {
    need!(root);
    let bundle =
        confined("").process(|p| p["selinuxLabel"] = json!("")).linux(|l| l["mountLabel"] = json!(""));
    differs([crun_before("1.21", "asks the kernel for a profile without a name")], || {
        let container = bundle.probe(["trap", "1"]).start();
        let out = container.exec_with(["--apparmor", "", "--process-label", ""], ["print", "in"]).ok();
        assert_eq!(out.stdout, "in\n");
    });
}

#[test]
fn features_tell_of_both_modules_whether_this_kernel_has_them_or_not() {
    let features = call(Bundle::new().container().command(["features"]));
    differs([crun_before("1.9", "has no such command")], || {
        let features = features.ok().json();
        for module in ["apparmor", "selinux"] {
            assert_eq!(features["linux"][module]["enabled"], true, "{module}");
        }
    });
}

// --- AppArmor

/// A profile of this test's own in the kernel, with a child called `inner`; it goes with its owner.
struct Profile {
    name: String,
    text: String,
}

impl Profile {
    /// All is allowed but to write to `/forbidden`; in `inner`, to `/inner-forbidden`.
    fn load(name: &str) -> Self {
        let name = format!("spec-tests-{name}-{}", std::process::id());
        let rules = "file, capability, network, mount, umount, pivot_root, ptrace, signal, unix,";
        let text = format!(
            "profile {name} flags=(attach_disconnected) {{\n{rules}\n deny /forbidden wl,\n deny /**forbidden-stream rw,\n\
             profile inner flags=(attach_disconnected) {{\n{rules}\n deny /inner-forbidden wl,\n}}\n}}\n"
        );
        let profile = Profile { name, text };
        profile.parser("--replace");
        profile
    }

    fn parser(&self, action: &str) {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(&file, &self.text).unwrap();
        let mut command = Command::new("apparmor_parser");
        command.args([action, "--skip-cache"]).arg(file.path());
        call(command).ok();
    }
}

impl Drop for Profile {
    fn drop(&mut self) {
        self.parser("--remove");
    }
}

const FILES: [&str; 3] = ["forbidden", "inner-forbidden", "permitted"];

/// A rootfs with the files that the profiles tell apart.
fn bundle(profile: &str) -> Bundle {
    confined(profile).writable().rootfs(|root| {
        FILES.iter().for_each(|name| fs::write(root.join(name), "").unwrap());
    })
}

fn without_profile(bundle: Bundle) -> Bundle {
    bundle.process(|p| drop(p.as_object_mut().unwrap().remove("apparmorProfile")))
}

/// What of it may be written, and under which profile.
const LOOK: [&str; 16] = [
    "try",
    "open",
    "/forbidden",
    "w",
    ",",
    "try",
    "open",
    "/inner-forbidden",
    "w",
    ",",
    "try",
    "open",
    "/permitted",
    "w",
    ",",
    "facts",
];

fn seen(output: Output) -> (Vec<bool>, Value) {
    let lines = output.ok().json_lines();
    let written = lines[..3].iter().map(|line| {
        assert!(line["ok"] == true || line["errno"] == "EACCES", "{line}");
        line["ok"] == true
    });
    (written.collect(), lines[3]["apparmor"].clone())
}

fn enforced(profile: &str) -> (Vec<bool>, Value) {
    (vec![false, true, true], json!(format!("{profile} (enforce)")))
}

fn unconfined() -> (Vec<bool>, Value) {
    (vec![true, true, true], json!("unconfined"))
}

#[test]
fn the_profile_holds_for_the_process_and_for_those_that_join_it() {
    need!(root, apparmor);
    let profile = Profile::load("holds");
    // With CAP_SYS_PTRACE, tare's process of exec inherits its label from one that is not in the container's proc.
    for (no_new_privileges, capability) in [
        (false, "CAP_DAC_OVERRIDE"),
        (true, "CAP_DAC_OVERRIDE"),
        (false, "CAP_SYS_PTRACE"),
        (true, "CAP_SYS_PTRACE"),
    ] {
        let change = |bundle: Bundle| {
            bundle
                .capabilities(["CAP_DAC_OVERRIDE", "CAP_SETUID", "CAP_SETGID", capability])
                .process(|p| p["noNewPrivileges"] = json!(no_new_privileges))
        };
        assert_eq!(seen(change(bundle(&profile.name)).probe(LOOK).run()), enforced(&profile.name));
        let container = change(bundle(&profile.name)).probe(["trap", "1"]).start();
        assert_eq!(seen(container.exec(LOOK)), enforced(&profile.name));
        assert_eq!(seen(container.exec_with(["--user", "1000"], LOOK)).1, enforced(&profile.name).1);
    }
}

#[test]
fn the_profile_holds_in_a_user_namespace() {
    need!(root, apparmor, userns);
    let profile = Profile::load("userns");
    let container = bundle(&profile.name).userns(100_000, 65_536).probe(["trap", "1"]).start();
    assert_eq!(seen(container.exec(LOOK)), enforced(&profile.name));
}

#[test]
fn an_unconfined_container_is_unconfined_and_another_profile_can_be_entered() {
    need!(root, apparmor);
    let profile = Profile::load("other");
    assert_eq!(seen(bundle("unconfined").probe(LOOK).run()), unconfined());
    let container = without_profile(bundle("")).probe(["trap", "1"]).start();
    assert_eq!(seen(container.exec(LOOK)), unconfined());
    assert_eq!(seen(container.exec_with(["--apparmor", &profile.name], LOOK)), enforced(&profile.name));
    assert_eq!(seen(container.exec_with(["--apparmor", "unconfined"], LOOK)), unconfined());
}

#[test]
fn a_document_of_a_process_that_names_no_profile_has_the_containers() {
    need!(root, apparmor);
    let profile = Profile::load("document");
    let container = bundle(&profile.name).probe(["trap", "1"]).start();
    let args: Vec<&str> = std::iter::once("/probe").chain(LOOK).collect();
    let exec = |profile: Option<&str>| {
        let mut process = container.config()["process"].clone();
        process["args"] = json!(args);
        let process = process.as_object_mut().unwrap();
        process.remove("apparmorProfile");
        process.extend(profile.map(|profile| ("apparmorProfile".to_owned(), json!(profile))));
        let file = container.dir().join("process.json");
        fs::write(&file, json!(process).to_string()).unwrap();
        seen(container.call(["exec", "--process", file.to_str().unwrap(), container.id()]))
    };
    assert_eq!(exec(Some("unconfined")), unconfined());
    differs([runc("it is unconfined")], || {
        assert_eq!(exec(None), enforced(&profile.name));
    });
}

#[test]
fn a_profile_inside_another_is_found() {
    need!(root, apparmor);
    let profile = Profile::load("nested");
    let inner = format!("{}//inner", profile.name);
    let expected = (vec![true, false, true], json!(format!("{inner} (enforce)")));
    assert_eq!(seen(bundle(&inner).probe(LOOK).run()), expected);
}

#[test]
fn a_profile_that_is_not_loaded_is_named() {
    need!(root, apparmor);
    let named = [runc("says only which file it wrote to"), crun("says only which file it wrote to")];
    differs(named, || {
        confined(MISSING).create_fails().says(MISSING).says("no such file or directory");
    });
    let container = Bundle::new().probe(["trap", "1"]).start();
    differs([runc("says only which file it wrote to"), crun("says only which file it wrote to")], || {
        let out = container.exec_with(["--apparmor", MISSING], ["print", "in"]);
        assert!(!out.stdout.contains("in\n"), "{out:?}");
        out.refused().says(MISSING).says("no such file or directory");
    });
}

/// Those of the image, which run as the process does; the others are the host's.
#[test]
fn hooks_of_the_image_run_under_the_profile() {
    need!(root, apparmor);
    let profile = Profile::load("hooks");
    let hook = |file: &str| json!({ "path": "/probe", "args": ["probe", "try", "write", file, "hook"] });
    let container = bundle(&profile.name)
        .hook("startContainer", hook("/forbidden"))
        .hook("startContainer", hook("/permitted"))
        .probe(["trap", "1"])
        .start();
    // The hooks run after `start` has returned.
    container.wait_for_stdout("ready");
    container.exec(["print", "in"]).ok();
    let text = |name: &str| fs::read_to_string(container.rootfs_path().join(name)).unwrap();
    assert_eq!((text("forbidden"), text("permitted")), (String::new(), "hook".into()));
}

// --- SELinux

/// Of a process, or of files when it is for mounts: with these categories.
fn context(of: &str, categories: &str) -> String {
    match of {
        "process" => format!("system_u:system_r:container_t:s0:{categories}"),
        _ => format!("system_u:object_r:container_file_t:s0:{categories}"),
    }
}

fn labelled() -> Bundle {
    Bundle::new()
        .process(|p| p["selinuxLabel"] = json!(context("process", "c1,c2")))
        .linux(|l| l["mountLabel"] = json!(context("files", "c1,c2")))
}

fn label_of(output: Output) -> String {
    let answer = output.ok().json();
    answer["ok"].as_str().unwrap_or_else(|| panic!("{answer}")).trim_end_matches('\0').to_owned()
}

const OWN_LABEL: [&str; 3] = ["try", "read", "/proc/self/attr/current"];

#[test]
fn the_label_is_that_of_the_process_and_of_those_that_join_it() {
    need!(root, selinux);
    assert_eq!(label_of(labelled().probe(OWN_LABEL).run()), context("process", "c1,c2"));
    let container = labelled().probe(["trap", "1"]).start();
    assert_eq!(label_of(container.exec(OWN_LABEL)), context("process", "c1,c2"));
    let other = context("process", "c3");
    assert_eq!(label_of(container.exec_with(["--process-label", &other], OWN_LABEL)), other);
}

#[test]
fn new_file_systems_have_the_label_of_mounts_and_those_of_the_kernel_have_not() {
    need!(root, selinux);
    let own = json!({ "destination": "/own", "type": "tmpfs",
        "options": [format!("context=\"{}\"", context("files", "c4,c5"))] });
    let container = labelled()
        .rootfs(|root| fs::create_dir(root.join("own")).unwrap())
        .mount(own)
        .linux(|l| l["maskedPaths"] = json!(["/proc/fs"]))
        .probe(["trap", "1"])
        .start();
    let root = format!("/proc/{}/root", container.pid());
    let label = |path: &str| {
        let mut command = Command::new("stat");
        call({
            command.args(["--format", "%C"]).arg(format!("{root}{path}"));
            command
        })
        .ok()
        .stdout
    };
    for path in ["/dev", "/dev/pts", "/dev/shm", "/dev/mqueue", "/proc/fs"] {
        assert_eq!(label(path).trim_end(), context("files", "c1,c2"), "{path}");
    }
    assert_eq!(label("/own").trim_end(), context("files", "c4,c5"));
    for path in ["/proc", "/sys"] {
        assert!(!label(path).contains("container_file_t"), "{path}: {}", label(path));
    }
}

#[test]
fn the_session_keyring_is_made_with_the_label_of_the_process() {
    need!(root, selinux);
    let facts = labelled().facts();
    let keyring = facts["keyring"].as_str().unwrap();
    assert!(keyring.contains("_ses."), "{keyring}");
    assert_eq!(facts["keyring_label"], context("process", "c1,c2"));
}

#[test]
fn a_label_that_the_policy_does_not_have_is_named() {
    need!(root, selinux);
    let wrong = "system_u:system_r:no_such_type:s0";
    labelled()
        .process(|p| p["selinuxLabel"] = json!(wrong))
        .create_fails()
        .says(wrong)
        .says("invalid argument");
    labelled().linux(|l| l["mountLabel"] = json!(wrong)).create_fails().says(wrong).says("invalid argument");
    let container = labelled().probe(["trap", "1"]).start();
    container.exec_with(["--process-label", wrong], ["print", "in"]).refused().says(wrong);
}

// --- what is in the way (CVE-2019-16884, CVE-2023-28642, CVE-2025-52881)

/// Makes a folder look like proc to a runtime that does not look closely.
fn make_false_proc(folder: &Path) {
    for own in ["self", "thread-self", "1", "1/task/1"] {
        let attr = folder.join(own).join("attr");
        fs::create_dir_all(attr.join("apparmor")).unwrap();
        for file in ["exec", "current", "apparmor/exec"] {
            fs::write(attr.join(file), "").unwrap();
        }
    }
}

fn untouched(folder: &Path) {
    for own in ["self", "thread-self", "1", "1/task/1"] {
        for file in ["exec", "apparmor/exec"] {
            let path = folder.join(own).join("attr").join(file);
            assert_eq!(fs::read(&path).unwrap(), b"", "{}", path.display());
        }
    }
}

fn without_proc(bundle: Bundle) -> Bundle {
    bundle.config(|c| c["mounts"].as_array_mut().unwrap().retain(|mount| mount["destination"] != "/proc"))
}

const WRITES: [&str; 9] = ["try", "open", "/forbidden", "w", ",", "try", "open", "/permitted", "w"];

fn held(output: Output) {
    assert_eq!(output.ok().json_lines(), [json!({ "errno": "EACCES" }), json!({ "ok": true })]);
}

#[test]
fn a_false_proc_of_a_volume_is_refused_and_that_of_an_image_does_not_get_the_label() {
    need!(root, apparmor);
    let profile = Profile::load("volume");
    let folder = tempfile::tempdir().unwrap();
    make_false_proc(folder.path());
    let mount =
        json!({ "destination": "/proc", "type": "bind", "source": folder.path(), "options": ["bind"] });
    differs([crun("leaves it to the caller")], || {
        without_proc(bundle(&profile.name)).mount(mount).create_fails().says("/proc");
    });
    untouched(folder.path());
    let image = without_proc(bundle(&profile.name)).rootfs(|root| make_false_proc(&root.join("proc")));
    let container = image.probe(WRITES).container();
    differs([runc("needs the container's own proc")], || held(container.run()));
    untouched(&container.rootfs_path().join("proc"));
}

#[test]
fn a_container_that_covers_its_proc_does_not_get_the_label_of_an_exec() {
    need!(root, apparmor);
    let profile = Profile::load("covers");
    let folder = tempfile::tempdir().unwrap();
    make_false_proc(folder.path());
    let volume =
        json!({ "destination": "/volume", "type": "bind", "source": folder.path(), "options": ["bind"] });
    let container =
        bundle(&profile.name).mount(volume).capabilities(["CAP_SYS_ADMIN"]).probe(["trap", "1"]).start();
    // MS_BIND
    let out = container.exec(["try", "mount", "/volume", "/proc", "none", "4096"]).ok();
    assert_eq!(out.json()["ok"], true);
    differs([runc("needs the container's own proc"), crun("needs the container's own proc")], || {
        held(container.exec(WRITES));
    });
    untouched(folder.path());
}

#[test]
fn a_hook_that_covers_proc_does_not_get_the_label() {
    need!(root, apparmor);
    let profile = Profile::load("covered");
    let bundle = bundle(&profile.name);
    let probe = bundle.rootfs_path().join("probe");
    let args = json!(["probe", "try", "mount", "none", "/proc", "tmpfs", "0"]);
    let bundle = bundle.hook("createContainer", json!({ "path": probe, "args": args }));
    differs([crun("needs the proc of its own mount namespace")], || {
        held(bundle.probe(WRITES).run());
    });
}

/// Why the shim gives pipes to containers of a host with AppArmor, and not the client's FIFO: what an
/// unconfined process has opened may be inherited, but `/dev/stdout` is opened anew, by its path.
#[test]
fn a_stream_is_opened_again_only_where_the_profile_allows_its_path_and_a_pipe_has_none() {
    need!(root, apparmor);
    let profile = Profile::load("stream");
    let words = ["print", "in", ",", "try", "open", "/proc/self/fd/1", "w"];
    let container = bundle(&profile.name).probe(words).container();
    let run = |stream: File| {
        let mut command = container.command(["run", "--bundle"]);
        command.arg(container.bundle_path()).arg(container.id()).stdout(stream);
        assert!(command.status().unwrap().success());
    };
    let opened = "in\n{\"ok\":true}\n";
    let (mut read, write) = std::io::pipe().unwrap();
    run(OwnedFd::from(write).into());
    let mut text = String::new();
    read.read_to_string(&mut text).unwrap();
    assert_eq!(text, opened);
    for (name, expected) in [("allowed", opened), ("forbidden-stream", "in\n{\"errno\":\"EACCES\"}\n")] {
        let path = container.dir().join(name);
        mkfifo(&path, Mode::S_IRWXU).unwrap();
        let mut fifo = File::options().read(true).write(true).open(path).unwrap();
        run(fifo.try_clone().unwrap());
        let mut found = [0; 64];
        let length = fifo.read(&mut found).unwrap();
        let relayed: &[_] = if name == "allowed" { &[] } else { &[runc("relays through a pipe of its own")] };
        differs(relayed, || {
            assert_eq!(std::str::from_utf8(&found[..length]).unwrap(), expected, "{name}");
        });
    }
}
