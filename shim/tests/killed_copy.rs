//! The forked copy that makes a container is killed in the middle of it.

mod server;

use std::fs;
use std::path::Path;

use nix::unistd::Uid;
use server::{Shim, children, eventually, kill_all, read};

/// In every hierarchy.
fn has_cgroup(name: &str) -> bool {
    let top = Path::new("/sys/fs/cgroup");
    let hierarchies = fs::read_dir(top).expect("cgroups").flatten().map(|entry| entry.path());
    hierarchies.chain([top.to_owned()]).any(|dir| dir.join(name).exists())
}

#[test]
fn nothing_is_left_of_a_container_when_its_caller_hears_that_it_failed() {
    if !Uid::effective().is_root() {
        eprintln!("SKIPPED: only root makes a container without a user namespace");
        return;
    }
    let mut shim = Shim::start(64, 64);
    let (bundle, reached) = (shim.path("c1"), shim.path("reached"));
    let rootfs = bundle.join("rootfs");
    let cgroup = format!("tare-test-{}", std::process::id());
    let hook = format!(": >{}; exec sleep 1000", reached.display());
    let config = serde_json::json!({
        "ociVersion": "1.0.2",
        "process": { "args": ["/x"], "cwd": "/", "user": { "uid": 0, "gid": 0 } },
        "root": { "path": rootfs },
        "linux": { "namespaces": [{ "type": "pid" }, { "type": "mount" }], "cgroupsPath": format!("/{cgroup}") },
        "hooks": { "createRuntime": [{ "path": "/bin/sh", "args": ["sh", "-c", hook] }] },
    });
    fs::write(bundle.join("config.json"), config.to_string()).expect("written");
    let server = shim.pid();
    let is_there = {
        let (state, rootfs, cgroup) = (shim.path("root/tare-test/c1"), rootfs.clone(), cgroup.clone());
        move || {
            let mounts = read(Path::new("/proc/self/mountinfo"));
            [state.exists(), mounts.contains(&rootfs.display().to_string()), has_cgroup(&cgroup)]
        }
    };
    let seen = is_there.clone();
    let killer = std::thread::spawn(move || {
        eventually("the hook runs", || reached.exists());
        assert_eq!(seen(), [true; 3], "state, mount, cgroup");
        // It alone has a child: the hook.
        let copies: Vec<i32> =
            children(server).into_iter().filter(|child| !children(*child).is_empty()).collect();
        kill_all(&copies);
    });
    let error = shim.create("", "").expect_err("its maker is dead");
    killer.join().expect("killed");
    assert_eq!(is_there(), [false; 3], "state, mount, cgroup: {error}");
    assert!(error.contains("was it killed?"), "{error}");
    eventually("of its processes the hook alone is left", || shim.children().len() == 1);
    kill_all(&shim.children());
    shim.end();
}
