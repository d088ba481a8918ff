//! How little memory a container needs: of its limit while it starts, and of its own before its program runs.

use std::path::{Path, PathBuf};
use std::process::Command;

use integration::small_limit::{SmallLimit, has_memory_controller};
use integration::{Container, call, need, runtime};

/// A static program of `integration/bench`; where there is no compiler, `BENCH_PROGRAMS` has them.
fn program(name: &str, dir: &Path) -> PathBuf {
    if let Some(made) = std::env::var_os("BENCH_PROGRAMS") {
        return Path::new(&made).join(name);
    }
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("bench").join(name).with_extension("c");
    let program = dir.join(name);
    call(Command::new("gcc").args(["-O2", "-static", "-o"]).arg(&program).arg(source)).ok();
    program
}

fn on_the_path(name: &str) -> PathBuf {
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|path| path.exists()).expect("a program")
}

/// Ours needs no more than crun, which is written in C, and little more than the system calls alone.
#[test]
fn a_container_starts_with_a_limit_near_the_least_possible() {
    need!(root, program("crun"));
    if !has_memory_controller() {
        need::skip("memory_controller", "no memory controller at /sys/fs/cgroup");
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let limits =
        SmallLimit::new(&program("floor", dir.path()), &program("idle", dir.path())).expect("a bundle");
    // crun takes no hybrid host, so nobody gets one.
    let view = Path::new(env!("CARGO_MANIFEST_DIR")).join("v1-view.sh");
    let hybrid = Path::new("/sys/fs/cgroup/unified").exists();
    let entrance = [view.as_path()];
    let entrance = if hybrid { &entrance[..] } else { &[] };
    let floor = limits.of_floor().expect("the floor starts");
    let ours = limits.of(entrance, runtime::path()).expect("a bundle").expect("ours starts");
    let crun = limits.of(entrance, &on_the_path("crun")).expect("a bundle").expect("crun starts");
    eprintln!(
        "smallest memory limit in KiB: floor {}, ours {}, crun {}",
        floor >> 10,
        ours >> 10,
        crun >> 10
    );
    assert!(ours <= crun, "{ours} bytes, and crun starts with {crun}");
    assert!(ours * 4 <= floor * 5, "{ours} bytes, and the system calls alone need {floor}");
}

/// What each further container costs the host while it waits: the pages that nobody else has. A first one is there, for
/// a program that one process alone has mapped is all its own.
#[test]
fn a_created_container_has_little_memory_of_its_own() {
    need!(root);
    let (first, container) = (Container::busybox(&["true"]), Container::busybox(&["true"]));
    first.call("create", &[]).ok();
    container.call("create", &[]).ok();
    let path = format!("/proc/{}/smaps_rollup", container.pid());
    let rollup = std::fs::read_to_string(path).expect("smaps_rollup");
    let kib = |name: &str| -> u64 {
        let line = rollup.lines().find_map(|line| line.strip_prefix(name)).expect("a line of smaps_rollup");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    };
    let private = kib("Private_Dirty:") + kib("Private_Clean:");
    eprintln!("private memory of a created container: {private} KiB");
    // runc's first process is a Go program: some MiB.
    if runtime::name() == "tare" {
        assert!(private < 300, "{private} KiB: {rollup}");
    }
}
