//! Attached processes: status, signals, orphans, the terminal. Each case is this program again, in
//! a process of its own, because it takes the process's signals and children.
#![allow(clippy::unwrap_used)]

use std::ffi::CString;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::{Winsize, openpty};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::termios::{LocalFlags, tcgetattr};
use nix::unistd::{Pid, setsid};
use tare::process::foreground::Foreground;
use tare::sys::spawn::{Argv, Program, Spawned, spawn};
use tare::sys::tty::{make_controlling, set_size, standard_streams};
use tare::terminal::console::open_pty;

const CASES: &[(&str, fn())] = &[
    ("the_status_is_that_of_the_process", status),
    ("a_signal_is_128_and_its_number", signaled),
    ("signals_reach_the_process_also_real_time_ones", forwarded),
    ("orphans_are_reaped", orphans),
    ("the_mask_and_the_subreaper_are_put_back", put_back),
    ("the_terminal_is_shown_on_ours_and_ours_is_put_back", terminal),
    ("without_a_terminal_of_ours_the_output_still_comes", no_terminal),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("case") => CASES.iter().find(|(name, _)| *name == arguments[1]).unwrap().1(),
        Some("container") => container(&arguments[1]),
        Some("attached") => return ExitCode::from(attached(&arguments[1])),
        // `cargo test` may pass options and filters of its own.
        _ => {
            let failed = CASES.iter().filter(|(name, _)| !passes(name)).count();
            return if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE };
        }
    }
    ExitCode::SUCCESS
}

fn passes(name: &str) -> bool {
    // A shell that runs us in the background has SIGINT ignored, and that would be inherited.
    let me = std::env::current_exe().unwrap();
    let mut child = Command::new("env").arg("--default-signal").arg(me).args(["case", name]).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    let status = loop {
        match child.try_wait().unwrap() {
            Some(status) => break status.success(),
            None if Instant::now() > deadline => {
                child.kill().unwrap();
                child.wait().unwrap();
                break false;
            }
            None => sleep(Duration::from_millis(5)),
        }
    };
    println!("test {name} ... {}", if status { "ok" } else { "FAILED" });
    status
}

fn start(words: &[&str], stdin: BorrowedFd<'_>) -> Spawned {
    let c = |text: &str| CString::new(text).unwrap();
    let argv = Argv::new(words.iter().map(|word| c(word)).collect());
    let envp = Argv::new(vec![c("PATH=/usr/sbin:/usr/bin:/sbin:/bin")]);
    let [_, stdout, stderr] = standard_streams();
    let path = c(words[0]);
    spawn(&Program { path: &path, argv: &argv, envp: &envp, cwd: None, stdio: [stdin, stdout, stderr] })
        .unwrap()
}

fn sh(script: &str) -> Spawned {
    start(&["/bin/sh", "-c", script], standard_streams()[0])
}

fn run(script: &str) -> u8 {
    let (foreground, _) = Foreground::prepare(false, true).unwrap();
    let child = sh(script);
    foreground.wait(child.pid, child.pidfd.as_fd(), None).unwrap()
}

fn status() {
    assert_eq!(run("exit 7"), 7);
    assert_eq!(run("exit 0"), 0);
}

fn signaled() {
    assert_eq!(run("kill -KILL $$"), 137);
}

/// When it has set its traps for these.
fn has_traps(process: &Spawned, signals: &[i32]) {
    let wanted = signals.iter().fold(0, |mask, signal| mask | 1_u64 << (signal - 1));
    let path = format!("/proc/{}/status", process.pid);
    let caught = || {
        let text = std::fs::read_to_string(&path).unwrap();
        let mask = text.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
        u64::from_str_radix(mask.trim(), 16).unwrap()
    };
    while caught() & wanted != wanted {
        sleep(Duration::from_millis(5));
    }
}

fn forwarded() {
    for (number, trap) in [(libc::SIGTERM, "TERM"), (libc::SIGHUP, "HUP"), (37, "37")] {
        let (foreground, _) = Foreground::prepare(false, false).unwrap();
        let child = sh(&format!("trap 'exit 42' {trap}; while :; do sleep 0.02; done"));
        has_traps(&child, &[number]);
        tare::sys::signal::kill(Pid::this().as_raw(), number).unwrap();
        assert_eq!(foreground.wait(child.pid, child.pidfd.as_fd(), None).unwrap(), 42, "{trap}");
    }
    // These two must not arrive.
    let (foreground, _) = Foreground::prepare(false, false).unwrap();
    let child = sh("trap 'exit 1' URG WINCH; sleep 0.6; exit 0");
    has_traps(&child, &[libc::SIGURG, libc::SIGWINCH]);
    kill(Pid::this(), Signal::SIGURG).unwrap();
    kill(Pid::this(), Signal::SIGWINCH).unwrap();
    assert_eq!(foreground.wait(child.pid, child.pidfd.as_fd(), None).unwrap(), 0);
}

fn orphans() {
    let script = "for i in 1 2 3 4 5; do all=\"$all $(sh -c 'sleep 0.05 > /dev/null & echo $!')\"; done
        for i in $all; do while [ -e /proc/$i ]; do sleep 0.01; done; done; exit 5";
    assert_eq!(run(script), 5);
    assert_eq!(std::fs::read_to_string("/proc/thread-self/children").unwrap(), "");
}

fn put_back() {
    let before = SigSet::thread_get_mask().unwrap();
    let (foreground, console) = Foreground::prepare(true, true).unwrap();
    assert_eq!(*foreground.original_mask(), before);
    assert!(console.is_some());
    assert!(SigSet::thread_get_mask().unwrap().contains(Signal::SIGTERM));
    drop(foreground);
    assert_eq!(SigSet::thread_get_mask().unwrap(), before);
    assert!(!nix::sys::prctl::get_child_subreaper().unwrap());
}

/// The container's side: makes the terminal, sends it over its input, executes the script on it.
fn container(script: &str) {
    let pty = open_pty().unwrap();
    let mut start = SigSet::empty();
    start.add(Signal::SIGUSR1);
    start.thread_block().unwrap();
    pty.send_master(standard_streams()[0]).unwrap();
    // Stands for the wait for `start`, during which the runtime attaches.
    start.wait().unwrap();
    start.thread_unblock().unwrap();
    pty.adopt().unwrap();
    setsid().unwrap();
    make_controlling(standard_streams()[0]).unwrap();
    panic!("{}", Command::new("/bin/sh").args(["-c", script]).exec());
}

/// The runtime's side.
fn attached(script: &str) -> u8 {
    let (mut foreground, console) = Foreground::prepare(true, false).unwrap();
    let me = std::env::current_exe().unwrap();
    let child = start(&[me.to_str().unwrap(), "container", script], console.as_ref().unwrap().as_fd());
    drop(console);
    foreground.attach().unwrap();
    kill(child.pid, Signal::SIGUSR1).unwrap();
    foreground.wait(child.pid, child.pidfd.as_fd(), None).unwrap()
}

fn have_ptmx() -> bool {
    let have = open_pty().is_ok();
    if !have {
        spec_tests::need::skip_this("ptmx", "no usable /dev/pts/ptmx");
    }
    have
}

/// Reads until `end` has come.
fn read_until(from: &mut File, end: &str) -> String {
    let mut text = String::new();
    let deadline = Instant::now() + Duration::from_secs(10);
    while !text.contains(end) {
        assert!(Instant::now() < deadline, "no {end:?} after {text:?}");
        let mut fds = [PollFd::new(from.as_fd(), PollFlags::POLLIN)];
        if poll(&mut fds, PollTimeout::from(1000u16)).unwrap() > 0 {
            let mut buffer = [0; 512];
            let count = from.read(&mut buffer).unwrap();
            text.push_str(std::str::from_utf8(&buffer[..count]).unwrap());
        }
    }
    text
}

fn terminal() {
    if !have_ptmx() {
        return;
    }
    let size = Winsize { ws_row: 33, ws_col: 77, ws_xpixel: 0, ws_ypixel: 0 };
    let ours = openpty(Some(&size), None).unwrap();
    let stdio = |fd: &OwnedFd| Stdio::from(fd.try_clone().unwrap());
    let mut child = Command::new(std::env::current_exe().unwrap())
        .arg("attached")
        .arg(
            "trap 'echo int' INT; trap 'stty size' WINCH; stty size
             while :; do read line; test \"$line\" = end && exit 9; echo \"got $line\"; done",
        )
        .stdin(stdio(&ours.slave))
        .stdout(stdio(&ours.slave))
        .stderr(stdio(&ours.slave))
        .spawn()
        .unwrap();
    let mut screen = File::from(ours.master);
    assert_eq!(read_until(&mut screen, "\n"), "33 77\r\n", "the size, and one carriage return");
    let modes = || tcgetattr(&ours.slave).unwrap().local_flags;
    assert!(!modes().contains(LocalFlags::ICANON), "ours is raw");
    screen.write_all(b"hello\r").unwrap();
    read_until(&mut screen, "got hello\r\n");
    // A key for the container, not a signal to the runtime.
    screen.write_all(b"\x03").unwrap();
    read_until(&mut screen, "int\r\n");
    set_size(ours.slave.as_fd(), 44, 88).unwrap();
    kill(Pid::from_raw(child.id() as i32), Signal::SIGWINCH).unwrap();
    screen.write_all(b"x\r").unwrap();
    read_until(&mut screen, "44 88");
    screen.write_all(b"end\r").unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(9));
    assert!(modes().contains(LocalFlags::ICANON | LocalFlags::ECHO), "ours is as before");
}

fn no_terminal() {
    if !have_ptmx() {
        return;
    }
    // A session of its own has no controlling terminal either.
    let ended = Command::new("setsid")
        .arg("--wait")
        .arg(std::env::current_exe().unwrap())
        .args(["attached", "seq 20000; exit 3"])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(ended.status.code(), Some(3));
    let text = String::from_utf8(ended.stdout).unwrap();
    assert!(!text.contains('\r'));
    assert_eq!((text.lines().count(), text.lines().last()), (20000, Some("20000")));
}
