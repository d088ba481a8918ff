//! On a kernel without a system call that the runtime likes to use, it either works or says which one it needs.

use std::process::Command;

use integration::{Container, Outcome, call, need};

/// The verb, under the filter.
fn without(syscall: &str, container: &Container, verb: &str, options: &[&str], args: &[&str]) -> Outcome {
    let plain = container.command(verb, options);
    let mut command = Command::new(env!("CARGO_BIN_EXE_without-syscall"));
    command.arg(syscall).arg("--").arg(plain.get_program()).args(plain.get_args()).args(args);
    call(command.stdin(std::process::Stdio::null()))
}

#[test]
fn the_filter_takes_the_syscall_away() {
    need!(root);
    let program = env!("CARGO_BIN_EXE_without-syscall");
    // 437 is openat2 on every architecture.
    let ask = "import ctypes, os; libc = ctypes.CDLL(None, use_errno=True); \
                  print(libc.syscall(ctypes.c_long(437), -1, 0, 0, 0), os.strerror(ctypes.get_errno()))";
    let answer = call(Command::new(program).args(["openat2", "--", "/usr/bin/python3", "-c", ask])).ok();
    assert_eq!(answer.out, "-1 Function not implemented\n");
    let answer = call(Command::new(program).args(["clone3", "--", "/usr/bin/python3", "-c", ask])).ok();
    assert_ne!(answer.out, "-1 Function not implemented\n");
}

#[test]
fn each_verb_works_or_names_the_missing_syscall() {
    need!(root);
    let syscalls = [
        "openat2",
        "clone3",
        "fsopen",
        "mount_setattr",
        "move_mount",
        "open_tree",
        "close_range",
        "pidfd_open",
        "pidfd_send_signal",
        "pidfd_getfd",
        "memfd_create",
        "execveat",
        "statx",
        "faccessat2",
    ];
    let running = Container::busybox(&["sleep", "1000"]);
    running.call("run", &["--detach"]).ok();
    let mut unclear = Vec::new();
    for syscall in syscalls {
        let new = Container::busybox(&["sh", "-c", "exit 9"]);
        let outcomes = [
            ("run", 9, without(syscall, &new, "run", &[], &[])),
            ("exec", 8, without(syscall, &running, "exec", &[], &["sh", "-c", "exit 8"])),
            ("state", 0, without(syscall, &running, "state", &[], &[])),
            ("kill", 0, without(syscall, &running, "kill", &[], &["WINCH"])),
        ];
        for (verb, expected, outcome) in outcomes {
            if outcome.code == expected {
                continue;
            }
            let problems = outcome.err.lines().filter(|line| !line.starts_with("hint:")).count();
            if !outcome.err.contains(syscall) || problems != 1 {
                unclear.push(format!("{verb} without {syscall}: {}", outcome.err.trim()));
            }
        }
        assert_eq!(new.traces(), [""; 0], "run without {syscall}");
        assert_eq!(running.state()["status"], "running", "without {syscall}");
    }
    assert!(unclear.is_empty(), "not one error that names the system call: {unclear:#?}");
}
