//! Many containers, one after the other and many at a time: what each of them left behind would add up. `SOAK` is their
//! number; `make soak` makes a thousand.

use integration::{Container, bpf_programs, eventually, need};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};

/// As many live at the same time.
const TOGETHER: usize = 25;

/// Orphans of the runtime come here, for this process takes them as a shim does. Whether one still lives.
fn a_child_lives() -> bool {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) => return true,
            Ok(_) => {}
            Err(_) => return false,
        }
    }
}

#[test]
fn many_containers_leave_no_cgroup_no_program_no_process_and_no_state() {
    need!(root);
    nix::sys::prctl::set_child_subreaper(true).expect("subreaper");
    let wanted = std::env::var("SOAK").map_or(200, |number| number.parse().expect("SOAK is a number"));
    let mut container = Container::busybox(&["true"]);
    let name = container.id.clone();
    let programs = bpf_programs().expect("the number of eBPF programs");
    let (mut made, mut most) = (0, programs);
    while made < wanted {
        let numbers = made..wanted.min(made + TOGETHER);
        for number in numbers.clone() {
            container.id = format!("{name}-{number}");
            container.call("create", &[]).ok();
        }
        most = most.max(bpf_programs().expect("the number of eBPF programs"));
        for number in numbers.clone() {
            container.id = format!("{name}-{number}");
            // Half of them have run, the others are killed as they wait.
            if number % 2 == 0 {
                container.call("start", &[]).ok();
            }
            container.call("delete", &["--force"]).ok();
        }
        made = numbers.end;
    }
    // All of them have this in their names.
    container.id = name;
    assert_eq!(container.traces(), [""; 0]);
    eventually("no process of a container is left", || (!a_child_lives()).then_some(()));
    // The kernel lets go of a removed cgroup's program a moment later.
    let after = eventually("no eBPF program of a container is left", || {
        let left = bpf_programs().expect("the number of eBPF programs");
        (left <= programs).then_some(left)
    });
    eprintln!("{made} containers; eBPF programs before, at most, after: {programs}, {most}, {after}");
}
