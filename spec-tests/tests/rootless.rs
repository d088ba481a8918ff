//! Containers of an ordinary user: a user namespace with one id or with subordinate ones, no cgroup of the host.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use nix::fcntl::{Flock, FlockArg};
use spec_tests::facts::mount_at;
use spec_tests::need::skip;
use spec_tests::runtime::under_test;
use spec_tests::{Bundle, Container, Value, crun, differs, json, need, runc};

const USER: u32 = 1000;

/// The configuration of `spec --rootless`, made from the default one as that verb does; and a runtime that the user
/// can reach wherever the tested one lies.
fn rootless() -> Bundle {
    Bundle::new()
        .without_namespace("network")
        .without_namespace("cgroup")
        .userns(USER, 1)
        .config(|c| {
            c["linux"].as_object_mut().unwrap().remove("cgroupsPath");
            c["linux"].as_object_mut().unwrap().remove("resources");
            for mount in c["mounts"].as_array_mut().unwrap() {
                match mount["destination"].as_str().unwrap() {
                    // gid=5 has no mapping.
                    "/dev/pts" => {
                        mount["options"].as_array_mut().unwrap().retain(|o| o != "gid=5");
                    }
                    "/sys" => {
                        *mount = json!({ "destination": "/sys", "type": "none", "source": "/sys",
                                         "options": ["rbind", "nosuid", "noexec", "nodev", "ro"] });
                    }
                    _ => {}
                }
            }
            c["mounts"].as_array_mut().unwrap().retain(|m| m["type"] != "cgroup");
        })
        .as_user(USER, USER)
}

/// Whether the user can execute the runtime by its path: `need!`'s form.
fn reachable() -> Result<(), String> {
    let path = PathBuf::from(&under_test().path);
    let mut check = Command::new("setpriv");
    check.args(["--reuid", "1000", "--regid", "1000", "--clear-groups"]);
    let out = check.arg(path).arg("--version").output().map_err(|e| e.to_string())?;
    if out.status.success() { Ok(()) } else { Err("the user may not execute the runtime".to_owned()) }
}

/// The container, with a copy of the runtime beside its bundle when the user cannot reach the original.
fn command(container: &Container, words: &[&str]) -> Command {
    let mut command = container.command(words);
    if reachable().is_err() {
        let copy = container.dir().join("runtime");
        if !copy.exists() {
            let original = which(&PathBuf::from(&under_test().path));
            fs::copy(original, &copy).unwrap();
            fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let mut replaced = Command::new(copy);
        replaced.args(command.get_args()).current_dir(container.dir());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => replaced.env(name, value),
                None => replaced.env_remove(name),
            };
        }
        replaced.uid(USER).gid(USER);
        command = replaced;
    }
    command
}

/// A name without a slash as the shell finds it.
fn which(name: &std::path::Path) -> PathBuf {
    if name.components().count() > 1 {
        return name.to_owned();
    }
    let path = std::env::var_os("PATH").unwrap();
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|p| p.exists()).unwrap()
}

fn run(bundle: Bundle) -> spec_tests::Output {
    let container = bundle.container();
    let mut words = vec!["run".to_owned(), "--bundle".to_owned()];
    words.push(container.bundle_path().to_str().unwrap().to_owned());
    words.push(container.id().to_owned());
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    spec_tests::call::call(command(&container, &words))
}

#[test]
fn a_user_with_a_single_mapping_is_root_inside() {
    need!(root, unprivileged_userns);
    let facts = run(rootless()).ok().json();
    assert_eq!(facts["uid"], json!([0, 0, 0, 0]));
    assert_eq!(facts["uid_map"], json!([["0", "1000", "1"]]));
    assert_eq!(facts["gid_map"], json!([["0", "1000", "1"]]));
    // user_namespaces(7): an ordinary user may map a group only without setgroups.
    assert_eq!(facts["setgroups"], "deny");
    assert_eq!(facts["hostname"], "spec");
    assert_eq!(facts["pid"], 1);
    for (target, kind) in
        [("/proc", "proc"), ("/dev", "tmpfs"), ("/dev/pts", "devpts"), ("/dev/mqueue", "mqueue")]
    {
        assert_eq!(mount_at(&facts, target)["type"], kind, "{target}");
    }
}

#[test]
fn devices_are_those_of_the_host_and_masks_hold() {
    need!(root, unprivileged_userns);
    let bundle = rootless().probe([
        "try",
        "stat",
        "/dev/null",
        ",",
        "try",
        "take",
        "/dev/zero",
        "1",
        ",",
        "try",
        "read",
        "/proc/keys",
        ",",
        "try",
        "create",
        "/new",
        "",
        ",",
        "try",
        "umount",
        "/proc/keys",
    ]);
    let lines = run(bundle).ok().json_lines();
    assert_eq!(lines[0]["ok"]["device"], json!([1, 3]));
    assert_eq!(lines[1], json!({ "ok": [0] }));
    assert_eq!(lines[2], json!({ "ok": "" }));
    assert_eq!(lines[3], json!({ "errno": "EROFS" }));
    assert_eq!(lines[4], json!({ "errno": "EPERM" }));
}

#[test]
fn the_whole_life_of_a_container_of_a_user() {
    need!(root, unprivileged_userns);
    let container = rootless().probe(["wait"]).container();
    let call = |words: &[&str]| spec_tests::call::call(command(&container, words));
    let (bundle, id) = (container.bundle_path(), container.id());
    // Held, so that the container's output has somewhere to go.
    let mut create = spec_tests::call::Running::spawn(
        command(&container, &["create", "--bundle", bundle.to_str().unwrap(), id]),
        b"",
    );
    create.wait().ok();
    call(&["start", id]).ok();
    let state = call(&["state", id]).ok().json();
    assert_eq!(state["status"], "running");
    let seen: Value = call(&["exec", id, "/probe", "facts"]).ok().json();
    assert_eq!(seen["uid"][0], 0);
    assert_eq!(seen["uid_map"], json!([["0", "1000", "1"]]));
    call(&["kill", id, "KILL"]).ok();
    spec_tests::call::eventually("stopped", || call(&["state", id]).ok().json()["status"] == "stopped");
    call(&["delete", id]).ok();
    call(&["state", id]).refused();
}

#[test]
fn an_id_that_the_user_does_not_have_is_refused() {
    need!(root, unprivileged_userns);
    let map = json!([{ "containerID": 0, "hostID": 0, "size": 1 }]);
    let bundle = rootless().linux(|l| {
        l["uidMappings"] = map.clone();
        l["gidMappings"] = map;
    });
    run(bundle).refused();
}

#[test]
fn what_spec_writes_for_a_user_runs() {
    need!(root, unprivileged_userns);
    differs([crun("writes no mappings")], || {
        let container = rootless().container();
        let config = container.bundle_path().join("config.json");
        let own: Value = serde_json::from_slice(&fs::read(&config).unwrap()).unwrap();
        fs::remove_file(&config).unwrap();
        let bundle = container.bundle_path();
        let mut spec = command(&container, &["spec", "--rootless"]);
        spec.current_dir(&bundle);
        spec_tests::call::call(spec).ok();
        let mut written: Value = serde_json::from_slice(&fs::read(&config).unwrap()).unwrap();
        assert_eq!(written["linux"]["uidMappings"], json!([{ "containerID": 0, "hostID": USER, "size": 1 }]));
        written["process"]["args"] = own["process"]["args"].clone();
        written["process"]["terminal"] = json!(false);
        fs::write(&config, written.to_string()).unwrap();
        let facts = spec_tests::call::call(command(
            &container,
            &["run", "--bundle", bundle.to_str().unwrap(), container.id()],
        ));
        assert_eq!(facts.ok().json()["uid_map"], json!([["0", "1000", "1"]]));
    });
}

/// The user's ranges of `/etc/subuid` and `/etc/subgid`. If there were none, dropping it writes back what was there.
struct Subordinate {
    /// The first of 65536 user ids, and of as many group ids.
    first: [u32; 2],
    before: Vec<(&'static str, Vec<u8>)>,
    // Two runs of the tests at once take turns; the lock ends with the value.
    _lock: Flock<fs::File>,
}

impl Subordinate {
    /// None when the user has no name, or has ranges of another kind: the files belong to the machine's owner.
    fn take() -> Option<Self> {
        let lock = Flock::lock(fs::File::open("/etc/subuid").ok()?, FlockArg::LockExclusive).ok()?;
        let name = nix::unistd::User::from_uid(USER.into()).ok()??.name;
        let mut taken = Subordinate { first: [300_000; 2], before: Vec::new(), _lock: lock };
        for (first, path) in taken.first.iter_mut().zip(["/etc/subuid", "/etc/subgid"]) {
            let text = fs::read(path).ok()?;
            let lines = String::from_utf8_lossy(&text).into_owned();
            match lines.lines().find_map(|line| line.strip_prefix(&name)?.strip_prefix(':')) {
                Some(range) => *first = range.strip_suffix(":65536")?.parse().ok()?,
                None => {
                    taken.before.push((path, text));
                    let mut file = fs::OpenOptions::new().append(true).open(path).ok()?;
                    writeln!(file, "{name}:{first}:65536").ok()?;
                }
            }
        }
        Some(taken)
    }
}

impl Drop for Subordinate {
    fn drop(&mut self) {
        for (path, text) in &self.before {
            fs::write(path, text).expect("restore the subordinate ids");
        }
    }
}

#[test]
fn subordinate_ids_are_mapped_by_the_programs_for_that() {
    need!(root, unprivileged_userns, newuidmap);
    let Some(taken) = Subordinate::take() else {
        let test = "subordinate_ids_are_mapped_by_the_programs_for_that";
        skip(
            test,
            "subuid",
            "user 1000 has no name or another kind of range, or the files cannot be changed",
        );
        return;
    };
    let [uids, gids] = taken.first.map(|first| {
        json!([
            { "containerID": 0, "hostID": USER, "size": 1 },
            { "containerID": 1, "hostID": first, "size": 65_536 },
        ])
    });
    let bundle = |user: Value| {
        rootless().process(|p| p["user"] = user).linux(|l| {
            l["uidMappings"] = uids.clone();
            l["gidMappings"] = gids.clone();
        })
    };
    let facts = run(bundle(json!({ "uid": 33, "gid": 34 }))).ok().json();
    let [uids, gids] =
        taken.first.map(|first| json!([["0", "1000", "1"], ["1", first.to_string(), "65536"]]));
    assert_eq!((&facts["uid_map"], &facts["gid_map"]), (&uids, &gids));
    assert_eq!((&facts["uid"][0], &facts["gid"][0]), (&json!(33), &json!(34)));
    assert_eq!(facts["setgroups"], "allow");
    differs([runc("sets no groups for a user")], || {
        let facts = run(bundle(json!({ "uid": 33, "gid": 34, "additionalGids": [35] }))).ok().json();
        assert!(facts["groups"].as_array().unwrap().contains(&json!(35)), "{}", facts["groups"]);
    });
    drop(taken);
}
