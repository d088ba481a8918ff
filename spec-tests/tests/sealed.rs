//! The runtime's own file, and what is the host's in a process that is about to be the container's: by one who
//! has all capabilities and no user namespace between himself and the host.
#![allow(clippy::unwrap_used)]

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};
use spec_tests::call::{Running, call, eventually};
use spec_tests::{Bundle, Container, Value, crun, differs, differs_at_times, json, need, runc};

/// How long a race goes on.
const RACE: Duration = Duration::from_secs(3);

const PROBE: [&str; 2] = ["/probe", "facts"];

fn all_capabilities() -> Vec<&'static str> {
    vec![
        "CAP_CHOWN",
        "CAP_DAC_OVERRIDE",
        "CAP_DAC_READ_SEARCH",
        "CAP_FOWNER",
        "CAP_FSETID",
        "CAP_KILL",
        "CAP_SETGID",
        "CAP_SETUID",
        "CAP_SETPCAP",
        "CAP_LINUX_IMMUTABLE",
        "CAP_NET_BIND_SERVICE",
        "CAP_NET_ADMIN",
        "CAP_NET_RAW",
        "CAP_IPC_LOCK",
        "CAP_IPC_OWNER",
        "CAP_SYS_MODULE",
        "CAP_SYS_RAWIO",
        "CAP_SYS_CHROOT",
        "CAP_SYS_PTRACE",
        "CAP_SYS_PACCT",
        "CAP_SYS_ADMIN",
        "CAP_SYS_BOOT",
        "CAP_SYS_NICE",
        "CAP_SYS_TIME",
        "CAP_SYS_TTY_CONFIG",
        "CAP_MKNOD",
        "CAP_LEASE",
        "CAP_AUDIT_WRITE",
        "CAP_SETFCAP",
    ]
}

/// Every process of it has `capabilities` and may look at what it likes.
fn privileged(capabilities: Vec<&'static str>) -> Bundle {
    let stop = |r: &Path| {
        fs::set_permissions(r.join("data"), fs::Permissions::from_mode(0o777)).unwrap();
        symlink("/proc/self/exe", r.join("self")).unwrap();
        fs::write(r.join("script"), "#!/proc/self/exe --version\n").unwrap();
        fs::set_permissions(r.join("script"), fs::Permissions::from_mode(0o755)).unwrap();
    };
    Bundle::new().rootfs(stop).process(|p| {
        let names = json!(capabilities);
        p["capabilities"] =
            json!({ "bounding": names, "effective": names, "permitted": names, "inheritable": [] });
    })
}

/// A copy of the runtime for one test: what others execute meanwhile cannot be written to anyhow.
struct Copy {
    path: PathBuf,
    bytes: Vec<u8>,
}

impl Copy {
    fn of(container: &Container) -> Self {
        let path = container.dir().join("runtime");
        let from = container.bare();
        fs::copy(which(Path::new(from.get_program())), &path).unwrap();
        let bytes = fs::read(&path).unwrap();
        Self { path, bytes }
    }

    fn command(&self, container: &Container, words: &[&str]) -> Command {
        let original = container.command(words);
        let mut command = Command::new(&self.path);
        command.args(original.get_args()).current_dir(container.dir()).env("SECRET", "of the caller");
        command
    }

    #[track_caller]
    fn is_unchanged(&self) {
        assert!(fs::read(&self.path).unwrap() == self.bytes, "the runtime's file has changed");
        // And this is no wonder only if it could be changed by its own name.
        OpenOptions::new().write(true).open(&self.path).unwrap();
    }
}

/// `RUNTIME` may be a name that is looked for in PATH.
fn which(program: &Path) -> PathBuf {
    if program.components().count() > 1 {
        return program.to_owned();
    }
    let path = std::env::var_os("PATH").unwrap();
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|p| p.exists()).unwrap()
}

fn hold(link: &str) -> File {
    OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(link).unwrap()
}

/// By one who has the link's file open, and all rights on the host.
#[track_caller]
fn cannot_be_written(held: &File) {
    let path = format!("/proc/self/fd/{}", held.as_raw_fd());
    for attempt in 0..2 {
        for options in [OpenOptions::new().write(true), OpenOptions::new().append(true)] {
            // Sealed memory may be opened for writing.
            let written = options.open(&path).and_then(|mut file| file.write(b"#"));
            assert!(written.is_err(), "attempt {attempt}: the file behind the link can be written to");
        }
        // Whatever this answers, it does not help.
        let none = None::<&str>;
        let _answer = mount(none, path.as_str(), none, MsFlags::MS_REMOUNT | MsFlags::MS_BIND, none);
    }
}

#[test]
fn the_file_of_a_created_containers_process_cannot_be_written() {
    need!(root);
    let mut container = privileged(all_capabilities()).probe(["exit", "0"]).container();
    let copy = Copy::of(&container);
    let bundle = container.bundle_path();
    let id = container.id().to_owned();
    let create = copy.command(&container, &["create", "--bundle", bundle.to_str().unwrap(), &id]);
    container.create_by(create).silent();
    let held = hold(&format!("/proc/{}/exe", container.pid()));
    cannot_be_written(&held);
    container.delete_by_force().ok();
    // While a process is a program of it, no file can be written to: now none is.
    cannot_be_written(&held);
    copy.is_unchanged();
}

/// The other tests need it as it was.
struct OwnerOfNull(u32, u32);

impl OwnerOfNull {
    fn now() -> Self {
        let null = fs::metadata("/dev/null").unwrap();
        Self(null.uid(), null.gid())
    }
}

impl Drop for OwnerOfNull {
    fn drop(&mut self) {
        chown("/dev/null", Some(self.0), Some(self.1)).unwrap();
    }
}

/// What root of a container does to its standard input must not be done to the host's `/dev/null`.
#[test]
fn the_hosts_null_device_is_no_stream_of_a_container() {
    need!(root);
    differs([crun("gives the host's own away")], || {
        let before = OwnerOfNull::now();
        let give = |fd: &str| ["try", "chown", fd, "4711", "4711"].map(str::to_owned);
        let words = ["/proc/self/fd/0", "/proc/self/fd/1"].map(give).join(&",".to_owned());
        let container = privileged(all_capabilities())
            .process(|p| {
                let all = [&["/probe".to_owned()][..], &words, &[",".into(), "wait".into()]].concat();
                p["args"] = json!(all);
            })
            .container();
        let null = || Stdio::from(OpenOptions::new().read(true).write(true).open("/dev/null").unwrap());
        let run = |mut command: Command| command.stdin(null()).stdout(null()).status().unwrap();
        let bundle = container.bundle_path();
        let create = container.command(["create", "--bundle", bundle.to_str().unwrap(), container.id()]);
        assert!(run(create).success());
        container.start().silent();
        eventually("its streams have changed hands", || {
            fs::metadata(format!("/proc/{}/fd/0", container.pid())).is_ok_and(|null| null.uid() == 4711)
        });
        let mut exec = container.command(["exec", container.id(), "/probe"]);
        exec.args(&words);
        assert!(run(exec).success());
        let after = fs::metadata("/dev/null").unwrap();
        assert_eq!((after.uid(), after.gid()), (before.0, before.1));
        container.delete_by_force().ok();
    });
}

/// One after the other: each takes a processor for itself as long as it lasts.
fn alone() -> MutexGuard<'static, ()> {
    static RACE: Mutex<()> = Mutex::new(());
    RACE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn spying(capabilities: Vec<&'static str>, change: impl FnOnce(Bundle) -> Bundle) -> (Container, Copy) {
    let container = change(privileged(capabilities)).probe(["spy", "/data/stop"]).start();
    container.wait_for_stdout("ready");
    let copy = Copy::of(&container);
    (container, copy)
}

/// Joins the container again and again with this program; gives what its process has seen.
#[track_caller]
fn race(container: &Container, copy: &Copy, program: [&str; 2]) -> Value {
    let id = container.id();
    let begin = Instant::now();
    let mut joined = 0;
    while begin.elapsed() < RACE || (!has_seen(container) && begin.elapsed() < 5 * RACE) {
        let mut command = copy.command(container, &["exec", id]);
        command.args(program);
        let out = Running::spawn(command, b"").wait();
        assert!(program[0] == "/self" || out.status.success(), "{out:#?}");
        joined += 1;
    }
    println!("{joined} times joined");
    verdict(container, copy)
}

/// Five processes, be it only that they let nobody look into them.
fn has_seen(container: &Container) -> bool {
    container.stdout().contains("seen five")
}

/// What the container's process has seen; and that it could not write to a program's file.
#[track_caller]
fn verdict(container: &Container, copy: &Copy) -> Value {
    assert!(has_seen(container), "it has seen too little to judge by");
    fs::write(container.rootfs_path().join("data/stop"), "").unwrap();
    eventually("what it has seen", || container.stdout().ends_with("}\n"));
    let seen: Value = serde_json::from_str(container.stdout().trim().lines().last().unwrap()).unwrap();
    println!("{seen}");
    copy.is_unchanged();
    let writes = seen["writes"].as_object().unwrap();
    assert!(!writes.contains_key("ok"), "{seen}");
    seen
}

#[test]
fn a_container_that_is_the_runtime_itself_does_not_lay_it_open() {
    need!(root, cpus(2));
    let _alone = alone();
    let (spy, copy) = spying(all_capabilities(), |bundle| bundle);
    let pids = format!("/proc/{}/ns/pid", spy.pid());
    // By a link, by an interpreter line, and through the link of a process that has executed already.
    let begin = Instant::now();
    let mut rounds = 0;
    while rounds < 4 || (!has_seen(&spy) && begin.elapsed() < 5 * RACE) {
        rounds += 1;
        for program in ["/self", "/script", "/proc/self/exe"] {
            let other = privileged(all_capabilities())
                .namespace("pid", Some(&pids))
                .process(|p| p["args"] = json!([program, "--version"]))
                .container();
            let bundle = other.bundle_path();
            let run = copy.command(&other, &["run", "--bundle", bundle.to_str().unwrap(), other.id()]);
            let out = call(run);
            // What runs there is the runtime: it says its version, or (runc's second stage) why it does not.
            assert!(out.stdout.contains("version") || !out.stderr.is_empty(), "{out:#?}");
        }
    }
    verdict(&spy, &copy);
}

#[test]
fn a_process_that_joins_as_the_runtime_itself_does_not_lay_it_open() {
    need!(root, cpus(2));
    let _alone = alone();
    let (container, copy) = spying(all_capabilities(), |bundle| bundle);
    // It is the runtime's program for some milliseconds, and lets everybody look.
    race(&container, &copy, ["/self", "--version"]);
}

#[test]
fn nothing_of_the_host_is_open_in_a_process_that_joins() {
    need!(root, cpus(2));
    let known = [runc("has its pipes and folders of /proc open"), crun("has its caller's files open")];
    differs_at_times(known, || {
        // CAP_SYS_PTRACE of the host's user namespace: the kernel refuses such a one nothing.
        let _alone = alone();
        let (container, copy) = spying(all_capabilities(), |bundle| bundle);
        let seen = race(&container, &copy, PROBE);
        assert_eq!(seen["places"], json!([]), "{seen}");
        // The way to the runtime, and nothing else.
        assert_eq!(seen["descriptors"], json!(["socket"]), "{seen}");
    });
}

#[test]
fn without_ptrace_nobody_looks_into_a_process_that_joins() {
    need!(root, cpus(2));
    let capabilities = all_capabilities().into_iter().filter(|name| *name != "CAP_SYS_PTRACE").collect();
    let _alone = alone();
    let (container, copy) = spying(capabilities, |bundle| bundle);
    let seen = race(&container, &copy, PROBE);
    assert_eq!((&seen["places"], &seen["descriptors"]), (&json!([]), &json!([])), "{seen}");
}

#[test]
fn ptrace_of_a_user_namespace_is_none_over_a_process_that_joins() {
    need!(root, userns, cpus(2));
    let _alone = alone();
    let (container, copy) = spying(all_capabilities(), |bundle| bundle.userns(100_000, 65_536));
    let seen = race(&container, &copy, PROBE);
    assert_eq!((&seen["places"], &seen["descriptors"]), (&json!([]), &json!([])), "{seen}");
}

/// The kernel refuses one who has CAP_SYS_PTRACE nothing: he can take over a process that joins, and with it all that
/// it may do. That must be no more than he may himself.
#[test]
fn who_may_trace_every_process_gains_nothing_by_one_that_joins() {
    need!(root, cpus(2));
    let filter = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        // As engines' profiles do it, which cannot look at the arguments of clone3.
        "syscalls": [
            { "names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": libc::ENOSYS },
            { "names": ["unshare", "setns"], "action": "SCMP_ACT_ERRNO" },
            { "names": ["clone"], "action": "SCMP_ACT_ERRNO",
              "args": [{ "index": 0, "value": libc::CLONE_NEWUSER, "valueTwo": libc::CLONE_NEWUSER, "op": "SCMP_CMP_MASKED_EQ" }] },
        ],
    });
    let known = [runc("has all capabilities there"), crun("has all capabilities there")];
    differs_at_times(known, || {
        for (profile, no_new_privileges) in [(None, false), (Some(&filter), false), (Some(&filter), true)] {
            let _alone = alone();
            let (container, copy) = spying(vec!["CAP_CHOWN", "CAP_SYS_PTRACE"], |bundle| {
                let bundle = bundle.process(|p| p["noNewPrivileges"] = json!(no_new_privileges));
                match profile {
                    Some(filter) => bundle.linux(|linux| linux["seccomp"] = filter.clone()),
                    None => bundle,
                }
            });
            let seen = race(&container, &copy, PROBE);
            assert_eq!((&seen["capabilities"], &seen["secrets"]), (&json!([0, 19]), &json!(0)), "{seen}");
            assert_eq!(seen["filters"], json!([if profile.is_some() { "2" } else { "0" }]), "{seen}");
            assert_eq!((&seen["places"], &seen["descriptors"]), (&json!([]), &json!(["socket"])), "{seen}");
        }
    });
}
