//! Containers of an ordinary user: a user namespace with one id or with subordinate ones, no cgroup of the host.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;

use nix::fcntl::{Flock, FlockArg};
use spec_tests::facts::mount_at;
use spec_tests::need::skip;
use spec_tests::rootless::USER;
use spec_tests::runtime::under_test;
use spec_tests::socket::Listener;
use spec_tests::{Bundle, Flavor, Value, crun, differs, json, need, rootless, runc};

fn user() -> Bundle {
    rootless(Bundle::new())
}

#[test]
fn a_user_with_a_single_mapping_is_root_inside() {
    need!(root, unprivileged_userns);
    let facts = user().run().ok().json();
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

/// To take the listener out of a process that cannot be dumped is a privilege: the process sends it,
/// where the profile lets it.
#[test]
fn an_agent_answers_an_ordinary_users_container() {
    need!(root, unprivileged_userns);
    let with_rules = |rules: Value| {
        let bundle = user();
        let path = bundle.dir().join("agent");
        let listener = Listener::bind(&path);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        let bundle = bundle.linux(|l| {
            l["seccomp"] =
                json!({ "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": path, "syscalls": rules });
        });
        (bundle.probe(["print", "alive"]).run(), listener)
    };
    let notify = json!({ "names": ["getpgid"], "action": "SCMP_ACT_NOTIFY" });
    let (out, listener) = with_rules(json!([notify]));
    assert_eq!(out.ok().stdout, "alive\n");
    let (state, fds) = listener.receive_json();
    assert_eq!((&state["fds"], fds.len()), (&json!(["seccompFd"]), 1));
    let forbidden = json!({ "names": ["sendmsg"], "action": "SCMP_ACT_ERRNO" });
    differs([crun("does without sendmsg"), runc("does without sendmsg")], || {
        let (out, _listener) = with_rules(json!([notify, forbidden]));
        let out = out.refused();
        if under_test().flavor == Flavor::Tare {
            out.says("the seccomp listener: operation not permitted").says("CAP_SYS_PTRACE");
        }
    });
}

/// `start` returns before the program runs, and who is about to execute it cannot be looked into by an ordinary user.
#[test]
fn exec_right_after_start_waits_for_the_program() {
    need!(root, unprivileged_userns);
    differs([crun("does not wait")], || {
        let hook = json!({ "path": "/probe", "args": ["/probe", "sleep", "1"] });
        let container = user().hook("startContainer", hook).probe(["wait"]).create();
        container.start().silent();
        assert_eq!(container.exec(["print", "inside"]).ok().stdout, "inside\n");
    });
}

#[test]
fn devices_are_those_of_the_host_and_masks_hold() {
    need!(root, unprivileged_userns);
    let bundle = user().probe([
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
    let lines = bundle.run().ok().json_lines();
    assert_eq!(lines[0]["ok"]["device"], json!([1, 3]));
    assert_eq!(lines[1], json!({ "ok": [0] }));
    assert_eq!(lines[2], json!({ "ok": "" }));
    assert_eq!(lines[3], json!({ "errno": "EROFS" }));
    assert_eq!(lines[4], json!({ "errno": "EPERM" }));
}

#[test]
fn the_whole_life_of_a_container_of_a_user() {
    need!(root, unprivileged_userns);
    let mut container = user().probe(["wait"]).container();
    container.create().ok();
    container.start().ok();
    assert_eq!(container.status(), "running");
    let seen: Value = container.exec(["facts"]).ok().json();
    assert_eq!(seen["uid"][0], 0);
    assert_eq!(seen["uid_map"], json!([["0", "1000", "1"]]));
    container.kill("KILL").ok();
    container.wait_for_status("stopped");
    container.delete().ok();
    container.call(["state", container.id()]).refused();
}

#[test]
fn an_id_that_the_user_does_not_have_is_refused() {
    need!(root, unprivileged_userns);
    let map = json!([{ "containerID": 0, "hostID": 0, "size": 1 }]);
    let bundle = user().linux(|l| {
        l["uidMappings"] = map.clone();
        l["gidMappings"] = map;
    });
    bundle.run().refused();
}

#[test]
fn what_spec_writes_for_a_user_runs() {
    need!(root, unprivileged_userns);
    differs([crun("writes no mappings")], || {
        let container = user().container();
        let config = container.bundle_path().join("config.json");
        let own: Value = serde_json::from_slice(&fs::read(&config).unwrap()).unwrap();
        fs::remove_file(&config).unwrap();
        let bundle = container.bundle_path();
        let mut spec = container.command(["spec", "--rootless"]);
        spec.current_dir(&bundle);
        spec_tests::call::call(spec).ok();
        let mut written: Value = serde_json::from_slice(&fs::read(&config).unwrap()).unwrap();
        assert_eq!(written["linux"]["uidMappings"], json!([{ "containerID": 0, "hostID": USER, "size": 1 }]));
        written["process"]["args"] = own["process"]["args"].clone();
        written["process"]["terminal"] = json!(false);
        fs::write(&config, written.to_string()).unwrap();
        assert_eq!(container.run().ok().json()["uid_map"], json!([["0", "1000", "1"]]));
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
    let bundle = |ids: Value| {
        user().process(|p| p["user"] = ids).linux(|l| {
            l["uidMappings"] = uids.clone();
            l["gidMappings"] = gids.clone();
        })
    };
    let facts = bundle(json!({ "uid": 33, "gid": 34 })).run().ok().json();
    let [uids, gids] =
        taken.first.map(|first| json!([["0", "1000", "1"], ["1", first.to_string(), "65536"]]));
    assert_eq!((&facts["uid_map"], &facts["gid_map"]), (&uids, &gids));
    assert_eq!((&facts["uid"][0], &facts["gid"][0]), (&json!(33), &json!(34)));
    assert_eq!(facts["setgroups"], "allow");
    differs([runc("sets no groups for a user")], || {
        let facts = bundle(json!({ "uid": 33, "gid": 34, "additionalGids": [35] })).run().ok().json();
        assert!(facts["groups"].as_array().unwrap().contains(&json!(35)), "{}", facts["groups"]);
    });
    drop(taken);
}
