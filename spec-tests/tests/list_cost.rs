//! What `list` costs for each container, in calls of the kernel as `strace` sees them: the time for hundreds of them
//! is that of a machine, the number is ours. Other runtimes need not work so, and are not judged.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::process::Command;

use spec_tests::call::call;
use spec_tests::runtime::under_test;
use spec_tests::{Bundle, Container, Flavor, need};

#[derive(Debug, Clone, Copy)]
struct Cost {
    opened: usize,
    calls: usize,
}

fn list(container: &Container, expected: usize) -> Cost {
    let file = container.dir().join("trace");
    let list = container.command(["list", "--quiet"]);
    let mut command = Command::new("strace");
    command.args(["-f", "-o"]).arg(&file).arg(list.get_program()).args(list.get_args());
    command.current_dir(container.dir());
    let out = call(command).ok();
    assert_eq!(out.stdout.lines().count(), expected, "{out:#?}");
    let text = fs::read_to_string(&file).unwrap();
    // What is not there (the file of v1 on v2) is a call, and no file.
    let opened = text.lines().filter(|line| line.contains(" openat(") && !line.contains(" = -1 ")).count();
    Cost { opened, calls: text.lines().count() }
}

#[test]
fn each_container_costs_four_files() {
    need!(root, strace);
    if under_test().flavor != Flavor::Tare {
        return;
    }
    const MORE: usize = 8;
    // By their ids: all of them are of one bundle.
    let bundle = Bundle::new().probe(["wait"]).config(|c| {
        c["linux"].as_object_mut().unwrap().remove("cgroupsPath");
    });
    let container = bundle.start();
    let few = list(&container, 1);
    let ids: Vec<String> = (0..MORE).map(|number| format!("{}-{number}", container.id())).collect();
    let started: Vec<_> = ids
        .iter()
        .map(|id| {
            let mut command = container.command(["run", "--detach", "--bundle"]);
            command.arg(container.bundle_path()).arg(id);
            call(command)
        })
        .collect();
    let started_all = started.iter().all(|out| out.status.success());
    let many = started_all.then(|| list(&container, 1 + MORE));
    for id in &ids {
        container.call(["delete", "--force", id]).ok();
    }
    let many = many.unwrap_or_else(|| panic!("{started:#?}"));
    // Its record, its process, its cgroup and whether that is frozen.
    assert_eq!(many.opened - few.opened, 4 * MORE, "{few:?} {many:?}");
    assert!(many.calls - few.calls <= 40 * MORE, "{few:?} {many:?}");
}
