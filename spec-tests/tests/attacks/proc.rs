//! What the runtime reads and writes in `/proc` is the kernel's, and not what somebody put in its place.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use spec_tests::{Bundle, Value, crun, differs, differs_at_times, json, need, runc_before, youki};

use crate::Owner;
use crate::racer::{Racer, Volume};

fn bind(source: &Path, destination: &str) -> Value {
    json!({ "destination": destination, "type": "bind", "source": source, "options": ["rbind"] })
}

fn replace_mount(bundle: Bundle, destination: &str, mount: Value) -> Bundle {
    bundle.config(|c| {
        for old in c["mounts"].as_array_mut().unwrap() {
            if old["destination"] == destination {
                *old = mount.clone();
            }
        }
    })
}

/// CVE-2019-16884, CVE-2019-19921: an image's volume is `/proc`, and holds what the runtime is to read or write.
#[test]
fn nothing_but_proc_is_mounted_on_proc() {
    need!(root);
    differs([crun("leaves it to the caller"), youki("leaves it to the caller")], || {
        let source = tempfile::tempdir().unwrap();
        fs::create_dir_all(source.path().join("self/attr")).unwrap();
        fs::write(source.path().join("self/attr/exec"), "").unwrap();
        let tmpfs =
            json!({ "destination": "/proc", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid"] });
        for owner in Owner::all("nothing_but_proc_is_mounted_on_proc") {
            for mount in [bind(source.path(), "/proc"), tmpfs.clone()] {
                // Instead of proc, and over it.
                owner.container(replace_mount(Bundle::new(), "/proc", mount.clone())).create().refused();
                owner.container(Bundle::new().mount(mount)).create().refused();
            }
        }
        assert_eq!(fs::read_to_string(source.path().join("self/attr/exec")).unwrap(), "");
    });
}

/// CVE-2019-19921, CVE-2023-27561, CVE-2025-54867 (youki), as a race: `/proc` is a folder when it is looked at, and a
/// link when it is mounted on. Where the folder goes its mount goes; but never is proc where the link leads.
#[test]
fn proc_and_sys_are_never_mounted_where_a_link_leads() {
    need!(root);
    differs_at_times([youki("mounts where the link leads")], || {
        for name in ["proc", "sys"] {
            let bundle = Bundle::new().rootfs(|r| {
                fs::create_dir(r.join("data/false")).unwrap();
                symlink("/data/false", r.join("link")).unwrap();
            });
            let mut container = bundle.writable().probe(["wait"]).container();
            let rootfs = container.rootfs_path();
            Racer::exchanging(&rootfs.join(name), &rootfs.join("link")).against(|| {
                if container.create().status.success() {
                    // One that has ended meanwhile (runc's, which waits for its start below proc) has mounted nothing.
                    let mounts = fs::read_to_string(format!("/proc/{}/mountinfo", container.pid()));
                    let mounts = mounts.unwrap_or_default();
                    let is_wrong = |line: &&str| {
                        line.contains(" /data/false ")
                            && (line.contains(" - proc ") || line.contains(" - sysfs "))
                    };
                    let wrong: Vec<_> = mounts.lines().filter(is_wrong).collect();
                    assert!(wrong.is_empty(), "{wrong:#?}");
                }
                container.delete_by_force().ok();
            });
        }
    });
}

/// What a sysctl is written to when it is not a parameter of the kernel.
const SENTINEL: &str = "untouched\n";
const PARAMETER: &str = "sys/kernel/msgmax";

/// A `sys` of one's own, with a file for the parameter.
fn false_proc() -> tempfile::TempDir {
    let dir = tempfile::Builder::new().prefix("spec-false-").tempdir().unwrap();
    fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    fs::create_dir_all(dir.path().join("sys/kernel")).unwrap();
    fs::write(dir.path().join(PARAMETER), SENTINEL).unwrap();
    dir
}

fn sentinel(dir: &tempfile::TempDir) -> String {
    fs::read_to_string(dir.path().join(PARAMETER)).unwrap()
}

fn with_sysctl() -> Bundle {
    Bundle::new().linux(|l| l["sysctl"] = json!({ "kernel.msgmax": "16384" }))
}

/// CVE-2025-52881, CVE-2025-62596 (youki): a mount that a link of a volume leads into `/proc` takes what is written
/// there. Refused is good; so is a parameter that was set all the same.
#[test]
fn no_write_to_proc_sys_reaches_another_file() {
    need!(root);
    let source = false_proc();
    let volume = tempfile::tempdir().unwrap();
    symlink("/proc", volume.path().join("proc")).unwrap();
    symlink("/proc/sys", volume.path().join("sys")).unwrap();
    symlink("/proc/sys/kernel/msgmax", volume.path().join("msgmax")).unwrap();
    let file = source.path().join(PARAMETER);
    let mounts = [
        bind(&file, "/vol/msgmax"),
        bind(&file, "/vol/sys/kernel/msgmax"),
        bind(&file, "/vol/proc/sys/kernel/msgmax"),
        bind(&source.path().join("sys"), "/vol/sys"),
        bind(&source.path().join("sys"), "/vol/proc/sys"),
        bind(&file, "/proc/sys/kernel/msgmax"),
        bind(&source.path().join("sys"), "/proc/sys"),
    ];
    let known = [crun("leaves it to the caller"), youki("leaves it to the caller")];
    differs(known, || {
        for mount in mounts {
            let what = mount["destination"].clone();
            let out = with_sysctl()
                .writable()
                .mount(bind(volume.path(), "/vol"))
                .mount(mount)
                .probe(["try", "read", &format!("/proc/{PARAMETER}")])
                .run();
            assert_eq!(sentinel(&source), SENTINEL, "{what}");
            assert!(!out.status.success() || out.json() == json!({ "ok": "16384\n" }), "{what}: {out:#?}");
        }
    });
}

/// The same with the link there only at times.
#[test]
fn no_write_to_proc_sys_reaches_another_file_by_a_race() {
    need!(root);
    let known = [
        runc_before("1.2.8", "writes to what it finds there"),
        crun("leaves it to the caller"),
        youki("leaves it to the caller"),
    ];
    differs_at_times(known, || {
        let source = false_proc();
        let volume = Volume::new(Path::new("/proc/sys"));
        fs::create_dir_all(volume.folder().join("kernel")).unwrap();
        fs::write(volume.folder().join("kernel/msgmax"), "").unwrap();
        let container = with_sysctl()
            .writable()
            .mount(bind(volume.path(), "/vol"))
            .mount(bind(&source.path().join(PARAMETER), "/vol/x/kernel/msgmax"))
            .probe(["try", "read", &format!("/proc/{PARAMETER}")])
            .container();
        volume.race().against(|| {
            let out = container.run();
            assert_eq!(sentinel(&source), SENTINEL);
            assert!(!out.status.success() || out.json() == json!({ "ok": "16384\n" }), "{out:#?}");
        });
    });
}

/// A container that may mount puts a `/proc` of its own in place, with files for all that is set for a new process.
/// What `exec` has to write there (labels, oom_score_adj) or to read goes past it.
#[test]
fn exec_writes_nothing_into_a_false_proc() {
    need!(root);
    let names = [
        "attr/exec",
        "attr/current",
        "attr/apparmor/exec",
        "attr/keycreate",
        "oom_score_adj",
        "setgroups",
        "uid_map",
    ];
    let folders = ["self", "thread-self", "self/task/1", "1"];
    let container = Bundle::new()
        .writable()
        .capabilities(["CAP_SYS_ADMIN", "CAP_DAC_OVERRIDE"])
        .rootfs(|r| {
            for file in folders.iter().flat_map(|f| names.map(|n| r.join("data").join(f).join(n))) {
                fs::create_dir_all(file.parent().unwrap()).unwrap();
                fs::write(file, "").unwrap();
            }
        })
        .probe(["wait"])
        .start();
    const BIND: &str = "4096";
    let mounted = container.exec(["try", "mount", "/data", "/proc", "none", BIND]).ok().json();
    assert_eq!(mounted, json!({ "ok": true }));
    let process = json!({
        "args": ["/probe", "wait"], "cwd": "/", "env": [], "user": { "uid": 0, "gid": 0 }, "oomScoreAdj": 321,
        "noNewPrivileges": true, "capabilities": {},
    });
    let path = container.dir().join("process.json");
    fs::write(&path, process.to_string()).unwrap();
    let pid_file = container.dir().join("pid");
    let mut command = container.command(["exec", "--detach", "--pid-file"]);
    command.arg(&pid_file).arg("--process").arg(&path).arg(container.id());
    let out = spec_tests::call::call(command);
    for file in
        folders.iter().flat_map(|f| names.map(|n| container.rootfs_path().join("data").join(f).join(n)))
    {
        assert_eq!(fs::read_to_string(&file).unwrap(), "", "{}", file.display());
    }
    // Refused, or left out, is good too; but what was done was done to the process.
    if out.status.success() {
        let pid = fs::read_to_string(&pid_file).unwrap();
        let is = fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap();
        assert!(["321\n", "0\n"].contains(&is.as_str()), "{is}");
    }
}

/// CVE-2022-0811 (CRI-O): a value that has words for other parameters in it.
#[test]
fn the_value_of_a_sysctl_is_one_value() {
    need!(root);
    let host = |file: &str| fs::read_to_string(format!("/proc/sys/{file}")).unwrap();
    let before = [host("kernel/core_pattern"), host("kernel/domainname"), host("kernel/shm_rmid_forced")];
    let both = [
        "try",
        "read",
        "/proc/sys/kernel/domainname",
        ",",
        "try",
        "read",
        "/proc/sys/kernel/shm_rmid_forced",
    ];
    for value in
        ["a+kernel.shm_rmid_forced=1", "a,kernel.shm_rmid_forced=1", "a=b", "a b", "a;b", "$(id)", "a%2Bb"]
    {
        let out = Bundle::new()
            .linux(|l| l["sysctl"] = json!({ "kernel.domainname": value }))
            .probe(both)
            .run()
            .ok();
        assert_eq!(
            out.json_lines(),
            [json!({ "ok": format!("{value}\n") }), json!({ "ok": "0\n" })],
            "{value}"
        );
    }
    // The kernel takes the first line of what is written at once.
    let out = Bundle::new()
        .linux(|l| l["sysctl"] = json!({ "kernel.domainname": "a\nkernel.shm_rmid_forced=1" }))
        .probe(both)
        .run();
    if out.status.success() {
        assert_eq!(out.json_lines(), [json!({ "ok": "a\n" }), json!({ "ok": "0\n" })]);
    }
    assert_eq!(
        [host("kernel/core_pattern"), host("kernel/domainname"), host("kernel/shm_rmid_forced")],
        before
    );
}
