//! The containers of the stories, whose program tells all that it sees and tries what it may not do.

use std::fs;
use std::path::Path;

use spec_tests::{Bundle, Value, json, need};

/// What the container's program does: one line of output each.
pub(crate) fn program() -> Vec<String> {
    let getpriority = libc::SYS_getpriority.to_string();
    let mut attempts = vec![
        vec!["list", "/dev"],
        vec!["open", "/dev/kmsg", "r"],
        vec!["open", "/dev/null", "rw"],
        vec!["list", "/data"],
        vec!["read", "/proc/keys"],
        vec!["write", "/proc/sys/kernel/domainname", "x"],
        vec!["read", "/proc/sys/net/ipv4/ip_forward"],
        vec!["create", "/tmp/new", "x"],
        vec!["syscall", &getpriority, "0", "0"],
    ];
    const V1: [&str; 6] = [
        "/sys/fs/cgroup/devices/devices.list",
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/fs/cgroup/pids/pids.max",
        "/sys/fs/cgroup/cpu/cpu.shares",
        "/sys/fs/cgroup/cpu/cpu.cfs_quota_us",
        "/sys/fs/cgroup/cpuset/cpuset.cpus",
    ];
    const V2: [&str; 4] = ["memory.max", "pids.max", "cpu.weight", "cpu.max"];
    let v2 = V2.map(|file| format!("/sys/fs/cgroup/{file}"));
    if need::is_cgroup_v2() {
        attempts.extend(v2.iter().map(|file| vec!["read", file]));
    } else {
        attempts.extend(V1.map(|file| vec!["read", file]));
    }
    let mut words = vec!["/probe".to_owned(), "facts".to_owned()];
    for attempt in attempts {
        words.extend([",", "try"].into_iter().chain(attempt).map(str::to_owned));
    }
    words
}

pub(crate) fn plain() -> Bundle {
    let program = program();
    Bundle::new().process(|process| process["args"] = json!(program)).linux(|linux| {
        let node = json!({ "path": "/dev/kmsg", "type": "c", "major": 1, "minor": 11, "fileMode": 0o666 });
        linux["devices"] = json!([node]);
        let resources = &mut linux["resources"];
        resources["memory"] = json!({ "limit": 64 << 20 });
        resources["pids"] = json!({ "limit": 50 });
        resources["cpu"] = json!({ "shares": 512, "quota": 50_000, "period": 100_000 });
    })
}

/// Everything that a configuration of an engine has, and more of it.
pub(crate) fn rich() -> Bundle {
    let bundle = plain();
    let marks = bundle.dir().join("marks");
    fs::create_dir(&marks).unwrap();
    fs::set_permissions(&marks, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let mark = |program: &Path, folder: &Path, name: &str| json!({ "path": program, "args": ["probe", "try", "create", folder.join(name), "x"], "timeout": 20 });
    let probe = bundle.rootfs_path().join("probe");
    let mut hooks = json!({});
    for kind in ["prestart", "createRuntime", "createContainer", "poststart", "poststop"] {
        hooks[kind] = json!([mark(&probe, &marks, kind)]);
    }
    hooks["startContainer"] = json!([mark(Path::new("/probe"), Path::new("/marks"), "startContainer")]);
    let bind = |source: &Path, destination: &str, options: &[&str]| json!({ "destination": destination, "type": "bind", "source": source, "options": options });
    bundle
        .rootfs(|rootfs| {
            fs::create_dir(rootfs.join("marks")).unwrap();
            fs::write(rootfs.join("etc/passwd"), "user:x:1000:1000::/data:/bin/sh\n").unwrap();
        })
        .mount(bind(&marks, "/marks", &["bind", "rw", "nosuid", "nodev"]))
        .mount(bind(Path::new("/etc/passwd"), "/data/one/passwd", &["bind", "ro", "nosuid", "noexec"]))
        .mount(json!({ "destination": "/etc", "type": "tmpfs", "source": "tmpfs",
            "options": ["tmpcopyup", "size=1m", "nosuid"] }))
        .process(|process| {
            process["user"] = json!({ "uid": 1000, "gid": 1000, "additionalGids": [5, 6], "umask": 0o27 });
            process["noNewPrivileges"] = json!(false);
            process["oomScoreAdj"] = json!(500);
            process["cwd"] = json!("/data/work");
            process["rlimits"] = json!([{ "type": "RLIMIT_NOFILE", "hard": 512, "soft": 256 },
                { "type": "RLIMIT_CORE", "hard": 0, "soft": 0 }]);
            process["ioPriority"] = json!({ "class": "IOPRIO_CLASS_BE", "priority": 6 });
            process["capabilities"]["inheritable"] = json!(["CAP_KILL"]);
            process["capabilities"]["ambient"] = json!(["CAP_KILL"]);
        })
        .config(|config| {
            config["hooks"] = hooks;
            config["domainname"] = json!("faults");
        })
        .linux(|linux| {
            linux["sysctl"] = json!({ "net.ipv4.ip_forward": "1", "kernel.msgmax": "4096" });
            linux["rootfsPropagation"] = json!("private");
            linux["personality"] = json!({ "domain": "LINUX" });
            if need::controller("cpuset").is_ok() {
                linux["resources"]["cpu"]["cpus"] = json!("0");
            }
            linux["seccomp"] = seccomp();
        })
}

fn seccomp() -> Value {
    json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": [{ "names": ["getpriority"], "action": "SCMP_ACT_ERRNO", "errnoRet": libc::EUSERS }],
    })
}

pub(crate) fn in_user_namespace() -> Bundle {
    let bundle = plain();
    let data = bundle.dir().join("source");
    fs::create_dir(&data).unwrap();
    fs::write(data.join("file"), "x").unwrap();
    let map = json!([{ "containerID": 0, "hostID": 1000, "size": 10 }]);
    let bundle = bundle
        .userns(100_000, 65536)
        .mount(json!({ "destination": "/data", "type": "bind", "source": data, "options": ["rbind", "idmap"],
            "uidMappings": map, "gidMappings": map }))
        .linux(|linux| {
            linux["seccomp"] = seccomp();
        });
    if need::timens().is_err() {
        return bundle;
    }
    bundle.namespace("time", None).linux(|linux| {
        linux["timeOffsets"] = json!({ "monotonic": { "secs": 1000, "nanosecs": 0 } });
    })
}

/// By their paths, as in a pod; here they are those of the test itself.
pub(crate) fn joining() -> Bundle {
    let own = |file: &str| format!("/proc/{}/ns/{file}", std::process::id());
    plain()
        .config(|config| drop(config.as_object_mut().unwrap().remove("hostname")))
        .namespace("pid", Some(&own("pid")))
        .namespace("ipc", Some(&own("ipc")))
        .namespace("uts", Some(&own("uts")))
        .namespace("network", Some(&own("net")))
}

pub(crate) fn with_terminal() -> Bundle {
    plain().process(|process| {
        process["terminal"] = json!(true);
        process["consoleSize"] = json!({ "width": 90, "height": 30 });
    })
}
