//! The runtime's own file, and what is the host's in a process that is about to be the container's: by one who
//! has all capabilities and no user namespace between himself and the host.
#![allow(clippy::unwrap_used)]

use std::fs::{self, File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};
use spec_tests::call::{Output, Running, call, eventually};
use spec_tests::{Bundle, Container, Value, json, need};

/// How long a race goes on.
const RACE: Duration = Duration::from_secs(3);

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
        command.args(original.get_args()).current_dir(container.dir());
        command
    }

    fn call(&self, container: &Container, words: &[&str]) -> Output {
        call(self.command(container, words))
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
            let opened = options.open(&path);
            assert!(opened.is_err(), "attempt {attempt}: the file behind the link can be written to");
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

#[test]
fn a_container_that_is_the_runtime_itself_cannot_write_to_it() {
    need!(root);
    // By a link, by an interpreter line, and through the link of another process.
    for program in ["/self", "/script", "/proc/1/exe"] {
        let container =
            privileged(all_capabilities()).process(|p| p["args"] = json!([program, "--version"])).container();
        let copy = Copy::of(&container);
        let bundle = container.bundle_path();
        let run = ["run", "--bundle", bundle.to_str().unwrap(), container.id()];
        let out = copy.call(&container, &run);
        // runc's second stage, which is what runs there, does not know `--version`.
        let itself = out.stdout.contains("version") || !out.stderr.is_empty();
        assert!(itself, "the container's program is not the runtime: {out:#?}");
        copy.is_unchanged();
    }
}

fn spying(capabilities: Vec<&'static str>, change: impl FnOnce(Bundle) -> Bundle) -> (Container, Copy) {
    let container = change(privileged(capabilities)).probe(["spy", "/data/stop"]).start();
    container.wait_for_stdout("ready");
    let copy = Copy::of(&container);
    (container, copy)
}

/// Joins the container again and again, as different programs; gives what its process has seen.
#[track_caller]
fn race(container: &Container, copy: &Copy) -> Value {
    let id = container.id();
    let end = Instant::now() + RACE;
    let mut joined = 0;
    while Instant::now() < end {
        // The last one is the runtime itself for some milliseconds, and may be looked into then.
        for words in [&["/probe", "exit", "0"][..], &["/probe", "exit", "0"], &["/self", "--version"]] {
            let mut command = copy.command(container, &["exec", id]);
            command.args(words);
            let mut running = Running::spawn(command, b"");
            let out = running.wait();
            assert!(words[0] == "/self" || out.status.success(), "{out:#?}");
            joined += 1;
        }
    }
    fs::write(container.rootfs_path().join("data/stop"), "").unwrap();
    eventually("what it has seen", || container.stdout().trim().lines().count() == 2);
    let seen: Value = serde_json::from_str(container.stdout().trim().lines().last().unwrap()).unwrap();
    println!("{joined} times joined: {seen}");
    copy.is_unchanged();
    let writes = seen["writes"].as_object().unwrap();
    assert!(!writes.contains_key("ok"), "{seen}");
    seen
}

#[test]
fn nothing_of_the_host_is_open_in_a_process_that_joins() {
    need!(root);
    // CAP_SYS_PTRACE of the host's user namespace: the kernel refuses such a one nothing.
    let (container, copy) = spying(all_capabilities(), |bundle| bundle);
    let seen = race(&container, &copy);
    assert!(seen["open"].as_u64() > Some(20), "it has seen too little to judge by: {seen}");
    assert_eq!(seen["places"], json!([]), "{seen}");
    // The way to the runtime, and nothing else.
    assert_eq!(seen["descriptors"], json!(["socket"]), "{seen}");
}

#[test]
fn without_ptrace_nobody_looks_into_a_process_that_joins() {
    need!(root);
    let capabilities = all_capabilities().into_iter().filter(|name| *name != "CAP_SYS_PTRACE").collect();
    let (container, copy) = spying(capabilities, |bundle| bundle);
    let seen = race(&container, &copy);
    assert!(seen["closed"].as_u64() > Some(20), "it has seen too little to judge by: {seen}");
    assert_eq!((&seen["places"], &seen["descriptors"]), (&json!([]), &json!([])), "{seen}");
}

#[test]
fn ptrace_of_a_user_namespace_is_none_over_a_process_that_joins() {
    need!(root, userns);
    let (container, copy) = spying(all_capabilities(), |bundle| bundle.userns(100_000, 65_536));
    let seen = race(&container, &copy);
    assert!(seen["closed"].as_u64() > Some(20), "it has seen too little to judge by: {seen}");
    assert_eq!((&seen["places"], &seen["descriptors"]), (&json!([]), &json!([])), "{seen}");
}
