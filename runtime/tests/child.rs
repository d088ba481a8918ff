//! Real clones, without a container around them: what init does with its steps, its descriptors and
//! its end, and what the runtime hears of it. Each case is this program again, in a process of its
//! own: a clone needs a process of one thread, and libtest has several.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::ffi::{CStr, CString};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::process::{Command, ExitCode, Stdio};
use std::rc::Rc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::prctl::set_child_subreaper;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, getegid, geteuid, getsid, pipe};
use tare::config::IdMapping;
use tare::error::{Error, Result};
use tare::namespace::Kind;
use tare::namespace::idmap::{IdMaps, Writer};
use tare::namespace::plan::Join;
use tare::plan::Program;
use tare::plan::step::{Step, Sync};
use tare::process::joiner::JoinerStep;
use tare::process::parent::{Answers, Arrived, Failing, Init, Parentage, Spawn, spawn};
use tare::sys::clone::{Clone, clone3, exit_now};
use tare::sys::slots::{self, Slots};

const CASES: &[(&str, fn())] = &[
    ("a_failing_step_is_named_with_its_number_and_errno", failing_step),
    ("a_missing_program_is_named_as_engines_expect_it", missing_program),
    ("a_child_that_ends_too_early_is_told_from_one_that_is_killed", early_end),
    ("a_child_without_its_runtime_ends", orphan),
    ("only_the_plans_descriptors_and_the_preserved_stay_open", descriptors),
    ("signals_are_as_the_caller_had_them", signals),
    ("the_last_step_becomes_the_program", exec),
    ("after_ready_a_failure_goes_to_the_standard_error", late_failure),
    ("in_a_new_user_namespace_the_child_is_its_root", user_namespace),
    ("init_is_a_child_of_the_runtime_and_not_of_the_joiner", joiner),
    ("a_forked_copy_bears_children_of_its_parent", sibling),
    ("what_a_joiner_has_prepared_is_born_as_its_sibling", born_last),
    ("a_failing_joiner_says_what_it_could_not_do", failing_joiner),
    ("a_joiner_that_gets_no_answer_is_ended", unanswered_joiner),
    ("a_process_of_more_threads_does_not_clone", threaded),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("case") => {
            CASES.iter().find(|(name, _)| *name == arguments[1]).unwrap().1();
            assert_eq!(waitpid(None, Some(WaitPidFlag::WNOHANG | WaitPidFlag::__WALL)), Err(Errno::ECHILD));
        }
        Some("runtime-that-goes") => runtime_that_goes(),
        Some("late-failure") => return ExitCode::from(fails_late()),
        // `cargo test` may pass options and filters of its own.
        _ => {
            let failed = CASES.iter().filter(|(name, _)| !passes(name)).count();
            return if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE };
        }
    }
    ExitCode::SUCCESS
}

fn passes(name: &str) -> bool {
    let mut child = ourselves(&["case", name]).spawn().unwrap();
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
    println!("{name} ... {}", if status { "ok" } else { "FAILED" });
    status
}

fn ourselves(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(arguments);
    command
}

/// Nothing is to be asked.
struct Silent;

impl Answers for Silent {
    fn write_maps(&self, _: i32) -> Result<()> {
        Err(Error::Protocol("nobody has maps here".into()))
    }

    fn write_offsets(&self, _: i32) -> Result<()> {
        Err(Error::Protocol("nobody has offsets here".into()))
    }
}

/// Root in the new namespace is whoever runs this.
struct Ourselves;

impl Answers for Ourselves {
    fn write_maps(&self, pid: i32) -> Result<()> {
        let one = |id| vec![IdMapping { container_id: 0, host_id: id, size: 1 }];
        IdMaps {
            uids: one(geteuid().as_raw()),
            gids: one(getegid().as_raw()),
            uid_writer: Writer::Ourselves,
            gid_writer: Writer::Ourselves,
            deny_setgroups: !geteuid().is_root(),
        }
        .write(pid)
    }

    fn write_offsets(&self, joiner: i32) -> Result<()> {
        Silent.write_offsets(joiner)
    }
}

fn program(args: &[&CStr]) -> Program {
    let args: Vec<CString> = args.iter().map(|a| (*a).to_owned()).collect();
    Program::new(&args, vec![c"PATH=/nowhere:/usr/bin:/bin".into(), c"HOME=/".into()])
}

fn birth(rest: &[Step]) -> Vec<Step> {
    [&[Step::CloseFds { preserved: 0 }, Step::Sync(Sync::Go)], rest].concat()
}

struct Born {
    init: Init,
    steps: Vec<Step>,
}

impl Born {
    fn new(steps: Vec<Step>, flags: i32, slots: Slots) -> Self {
        let program = program(&[c"true"]);
        let mask = SigSet::empty();
        let joiner = &[];
        let what = Spawn {
            parentage: &Parentage::Ours,
            steps: &steps,
            program: &program,
            joiner,
            flags: flags as u64,
            cgroup: None,
            tasks: &[],
            mask,
        };
        let init = spawn(&what, slots, &Silent).unwrap();
        Self { init, steps }
    }

    fn wait(&self) -> Result<Arrived> {
        self.init.wait(&|index| Failing::Other(self.steps[index].to_string()), &String::new)
    }

    fn fate(&self) -> WaitStatus {
        waitpid(Pid::from_raw(self.init.pid), None).unwrap()
    }

    /// Lines of `/proc/<pid>/status`.
    fn status(&self, key: &str) -> String {
        let text = fs::read_to_string(format!("/proc/{}/status", self.init.pid)).unwrap();
        let line = text.lines().find(|line| line.starts_with(&format!("{key}:"))).unwrap();
        line.split_once('\t').unwrap().1.to_owned()
    }
}

fn empty() -> Slots {
    Slots::new(0)
}

fn failing_step() {
    let steps = birth(&[Step::NewSession, Step::ChangeRoot(c"/no/such/folder".into()), Step::Exec]);
    let born = Born::new(steps, 0, empty());
    born.init.go().unwrap();
    let error = born.wait().unwrap_err();
    assert_eq!(error.errno(), Some(Errno::ENOENT));
    assert_eq!(error.to_string(), "chroot to /no/such/folder (step 4 of 5): no such file or directory");
    // What it did is over: its status says so, and nothing stays.
    assert_eq!(born.fate(), WaitStatus::Exited(Pid::from_raw(born.init.pid), 1));
    born.init.kill().unwrap();
}

fn missing_program() {
    let candidates = vec![c"/nowhere/x".into(), c"/nowhere/else/x".into()];
    let born = Born::new(birth(&[Step::FindProgram { candidates, named: false }]), 0, empty());
    born.init.go().unwrap();
    let error = born.init.wait(&|_| Failing::Program("x".into()), &String::new).unwrap_err();
    assert_eq!(error.to_string(), "exec: \"x\": executable file not found in $PATH");
    born.init.kill().unwrap();
}

fn early_end() {
    // A list of steps that does not end in an exec is a broken plan: the child must not go on.
    let born = Born::new(birth(&[]), 0, empty());
    born.init.go().unwrap();
    assert_eq!(born.wait().unwrap(), Arrived::Executed);
    let end = born.init.end().to_string();
    assert_eq!(end, "the container's first process ended with status 255 before it was ready");
    born.init.kill().unwrap();

    let born = Born::new(birth(&[Step::Exec]), 0, empty());
    kill(Pid::from_raw(born.init.pid), Signal::SIGKILL).unwrap();
    // Written into the void: the end says more than the failed write would.
    born.init.go().unwrap();
    assert_eq!(born.wait().unwrap(), Arrived::Executed);
    let end = born.init.end().to_string();
    assert_eq!(end, "the container's first process was ended by SIGKILL before it was ready");
    born.init.kill().unwrap();
}

/// Its child comes to us, the nearest subreaper: so its end can be seen.
fn orphan() {
    set_child_subreaper(true).unwrap();
    let mut runtime = ourselves(&["runtime-that-goes"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(runtime.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(runtime.wait().unwrap().success());
    for pid in line.split_whitespace() {
        let pid = Pid::from_raw(pid.parse().unwrap());
        assert_eq!(waitpid(pid, None), Ok(WaitStatus::Exited(pid, 1)));
    }
    assert_eq!(line.split_whitespace().count(), 2);
}

/// One child that waits to be let go, and one that waits for hooks.
fn runtime_that_goes() {
    let steps = || birth(&[Step::Sync(Sync::Mounts), Step::Exec]);
    let waiting = Born::new(steps(), 0, empty());
    let hooked = Born::new(steps(), 0, empty());
    hooked.init.go().unwrap();
    assert_eq!(hooked.wait().unwrap(), Arrived::Mounts);
    println!("{} {}", waiting.init.pid, hooked.init.pid);
}

fn descriptors() {
    // So many that all low numbers are taken, by these or by what was inherited.
    let files: Vec<File> = (0..20).map(|_| File::open("/dev/null").unwrap()).collect();
    let lent = &files[15];
    let mut slots = empty();
    slots.lend(slots::FIFO, lent);
    let mut steps = birth(&[Step::Sync(Sync::Mounts), Step::Exec]);
    steps[0] = Step::CloseFds { preserved: 2 };
    let born = Born::new(steps, 0, slots);
    born.init.go().unwrap();
    assert_eq!(born.wait().unwrap(), Arrived::Mounts);
    let folder = format!("/proc/{}/fd", born.init.pid);
    let mut open = BTreeSet::new();
    let mut sockets = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let number: RawFd = entry.file_name().into_string().unwrap().parse().unwrap();
        if number > 4 && fs::read_link(entry.path()).unwrap().to_string_lossy().starts_with("socket:") {
            sockets += 1;
        } else {
            open.insert(number);
        }
    }
    assert_eq!(open, BTreeSet::from([0, 1, 2, 3, 4, lent.as_raw_fd()]));
    assert_eq!(sockets, 1, "the channel and no other");
    born.init.kill().unwrap();
}

fn signals() {
    // As a runtime does that waits for signals by a descriptor; and Rust ignores SIGPIPE.
    SigSet::all().thread_swap_mask(SigmaskHow::SIG_BLOCK).unwrap();
    let mut mask = SigSet::empty();
    mask.add(Signal::SIGUSR1);
    let steps = birth(&[Step::RestoreSignals, Step::Sync(Sync::Mounts)]);
    let program = program(&[c"true"]);
    let what = Spawn {
        parentage: &Parentage::Ours,
        steps: &steps,
        program: &program,
        joiner: &[],
        flags: 0,
        cgroup: None,
        tasks: &[],
        mask,
    };
    let init = spawn(&what, empty(), &Silent).unwrap();
    let born = Born { init, steps: steps.clone() };
    let bit = |signal: Signal| 1u64 << (signal as i32 - 1);
    let set = |key| u64::from_str_radix(&born.status(key), 16).unwrap();
    born.init.go().unwrap();
    assert_eq!(born.wait().unwrap(), Arrived::Mounts);
    assert_eq!(set("SigBlk"), bit(Signal::SIGUSR1));
    assert_eq!(set("SigIgn") & bit(Signal::SIGPIPE), 0);
    born.init.kill().unwrap();
}

/// The end of a pipe that init waits on for its start, and the other one.
fn fifo(slots: &mut Slots) -> (OwnedFd, File) {
    let (read, write) = pipe().unwrap();
    slots.lend(slots::FIFO, &read);
    (read, write.into())
}

fn exec() {
    let mut slots = empty();
    let (_theirs, mut starter) = fifo(&mut slots);
    let born = Born::new(
        birth(&[
            Step::NewSession,
            Step::FindProgram { candidates: program(&[c"true"]).candidates, named: false },
            Step::Sync(Sync::Ready),
            Step::WaitForStart,
            Step::Exec,
        ]),
        0,
        slots,
    );
    born.init.go().unwrap();
    assert_eq!(born.wait().unwrap(), Arrived::Ready);
    let before = fs::read_link(format!("/proc/{}/exe", born.init.pid)).unwrap();
    assert_eq!(before, std::env::current_exe().unwrap(), "nothing runs before the start");
    starter.write_all(&[0]).unwrap();
    assert_eq!(born.wait().unwrap(), Arrived::Executed);
    assert_eq!(born.fate(), WaitStatus::Exited(Pid::from_raw(born.init.pid), 0));
}

fn late_failure() {
    let output = ourselves(&["late-failure"]).stdin(Stdio::null()).output().unwrap();
    assert_eq!(output.status.code(), Some(255));
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(text, "exec /nowhere/true: no such file or directory\n");
}

/// It was there when it was looked for, and is gone when it is executed: here it is not looked for.
fn fails_late() -> u8 {
    let mut slots = empty();
    let (_theirs, mut starter) = fifo(&mut slots);
    let born = Born::new(birth(&[Step::Sync(Sync::Ready), Step::WaitForStart, Step::Exec]), 0, slots);
    born.init.go().unwrap();
    assert_eq!(born.wait().unwrap(), Arrived::Ready);
    starter.write_all(&[0]).unwrap();
    match born.fate() {
        WaitStatus::Exited(_, status) => status as u8,
        other => panic!("{other:?}"),
    }
}

fn user_namespace() {
    let steps = birth(&[
        Step::SetupIds { uid: 0, gid: 0 },
        Step::Hostname(c"of-the-child".into()),
        Step::Sync(Sync::Mounts),
        Step::Hostname(CString::new("x".repeat(65)).unwrap()),
    ]);
    let flags = libc::CLONE_NEWUSER | libc::CLONE_NEWUTS | libc::CLONE_NEWPID;
    let born = Born::new(steps, flags, empty());
    Ourselves.write_maps(born.init.pid).unwrap();
    born.init.go().unwrap();
    assert_eq!(born.wait().unwrap(), Arrived::Mounts);
    assert!(born.status("NSpid").ends_with("\t1"), "{}", born.status("NSpid"));
    let euid = geteuid();
    assert_eq!(born.status("Uid"), format!("{euid}\t{euid}\t{euid}\t{euid}"));
    assert_ne!(nix::unistd::gethostname().unwrap(), "of-the-child");
    born.init.hooks_done().unwrap();
    // The kernel's limit is 64 bytes: a failure from inside the namespaces comes through too.
    assert_eq!(born.wait().unwrap_err().errno(), Some(Errno::EINVAL));
    born.init.kill().unwrap();
}

fn with_joiner(steps: &[JoinerStep], answers: &dyn Answers) -> Result<Born> {
    let child = birth(&[Step::SetupIds { uid: 0, gid: 0 }, Step::Sync(Sync::Mounts), Step::Exec]);
    let program = program(&[c"true"]);
    let mask = SigSet::empty();
    let what = Spawn {
        parentage: &Parentage::Ours,
        steps: &child,
        program: &program,
        joiner: steps,
        flags: 0,
        cgroup: None,
        tasks: &[],
        mask,
    };
    let init = spawn(&what, empty(), answers)?;
    Ok(Born { init, steps: child.clone() })
}

fn joiner() {
    let flags = (libc::CLONE_NEWPID | libc::CLONE_NEWNS) as u64;
    let clone = JoinerStep::Clone { flags, cgroup: None };
    let born = with_joiner(&[JoinerStep::UnshareUser, clone], &Ourselves).unwrap();
    born.init.go().unwrap();
    assert_eq!(born.wait().unwrap(), Arrived::Mounts);
    assert_eq!(born.status("PPid"), Pid::this().to_string());
    assert!(born.status("NSpid").ends_with("\t1"));
    let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/user")).unwrap();
    assert_ne!(namespace(&born.init.pid.to_string()), namespace("self"));
    born.init.kill().unwrap();
}

/// What a shim does: it goes on while a copy of it works, and what is born is its own child.
fn sibling() {
    for through_joiner in [false, true] {
        let (told, tell) = pipe().unwrap();
        let Clone::Parent { pid: copy, .. } = clone3(0, None).unwrap() else {
            bear_sibling(through_joiner, File::from(tell));
            exit_now(0);
        };
        drop(tell);
        let told = std::io::read_to_string(File::from(told)).unwrap();
        let [announced, init, killed] = told.split_whitespace().collect::<Vec<_>>()[..] else {
            panic!("the copy said {told:?}")
        };
        assert_eq!((announced, killed), (init, "true"));
        let init: i32 = init.parse().unwrap();
        assert_eq!(waitpid(Pid::from_raw(copy), None).unwrap(), WaitStatus::Exited(Pid::from_raw(copy), 0));
        let ended = WaitStatus::Signaled(Pid::from_raw(init), Signal::SIGKILL, false);
        assert_eq!(waitpid(Pid::from_raw(init), None).unwrap(), ended);
        // The joiner, which is a child of ours as well.
        let others = std::iter::from_fn(|| waitpid(None, None).ok()).count();
        assert_eq!(others, usize::from(through_joiner));
    }
}

fn bear_sibling(through_joiner: bool, tell: File) {
    let mut said = tell.try_clone().unwrap();
    let announce = Rc::new(move |pid: i32| {
        write!(&tell, "{pid} ").unwrap();
        Ok(())
    });
    let steps = birth(&[Step::Sync(Sync::Mounts)]);
    let clone = [JoinerStep::Clone { flags: 0, cgroup: None }];
    let what = Spawn {
        parentage: &Parentage::OurParents(announce),
        steps: &steps,
        program: &program(&[c"true"]),
        joiner: if through_joiner { &clone } else { &[] },
        flags: 0,
        cgroup: None,
        tasks: &[],
        mask: SigSet::empty(),
    };
    let born = Born { init: spawn(&what, empty(), &Silent).unwrap(), steps: steps.clone() };
    born.init.go().unwrap();
    assert_eq!(born.wait().unwrap(), Arrived::Mounts);
    assert!(!born.init.was_killed());
    born.init.kill().unwrap();
    write!(said, "{} {}", born.init.pid, born.init.was_killed()).unwrap();
}

/// It takes the joiner's place, with all that the joiner has become; and when the joiner is killed before it could name it, somebody notices.
fn born_last() {
    let steps = || {
        birth(&[
            Step::NewSession,
            Step::Birth,
            Step::Sync(Sync::Go),
            Step::NewSession,
            Step::Sync(Sync::Mounts),
        ])
    };
    let bear = || {
        let steps = steps();
        let what = Spawn {
            parentage: &Parentage::Ours,
            steps: &steps,
            program: &program(&[c"true"]),
            joiner: &[JoinerStep::UnshareUser],
            flags: 0,
            cgroup: None,
            tasks: &[],
            mask: SigSet::empty(),
        };
        let init = spawn(&what, empty(), &Ourselves).unwrap();
        Born { init, steps }
    };
    let mut born = bear();
    let joiner = born.init.pid;
    born.init.go().unwrap();
    let Arrived::Born(pid) = born.wait().unwrap() else { panic!("nobody was born") };
    let announced = Rc::new(std::cell::Cell::new(0));
    let told = Rc::clone(&announced);
    let announce = Rc::new(move |pid| {
        told.set(pid);
        Ok(())
    });
    born.init.born(pid, &Parentage::OurParents(announce)).unwrap();
    assert_eq!((born.init.pid, announced.get()), (pid, pid));
    assert_eq!(waitpid(Pid::from_raw(joiner), None), Err(Errno::ECHILD));
    assert_eq!(born.status("PPid"), Pid::this().to_string());
    let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/user")).unwrap();
    assert_ne!(namespace(&pid.to_string()), namespace("self"));
    born.init.go().unwrap();
    assert_eq!(born.wait().unwrap(), Arrived::Mounts);
    assert_eq!(getsid(Some(Pid::from_raw(pid))), Ok(Pid::from_raw(pid)));
    born.init.kill().unwrap();

    let killed = bear();
    kill(Pid::from_raw(killed.init.pid), Signal::SIGKILL).unwrap();
    killed.init.go().unwrap();
    assert_eq!(killed.wait().unwrap(), Arrived::Executed);
    assert!(killed.init.end().to_string().contains("SIGKILL"), "{}", killed.init.end());
    killed.init.kill().unwrap();
}

fn failing_joiner() {
    // Its descriptor was never opened.
    let join = Join { kind: Kind::Network, path: c"/run/netns/gone".into(), slot: slots::FIRST_FREE };
    let clone = JoinerStep::Clone { flags: 0, cgroup: None };
    let error = with_joiner(&[JoinerStep::Join(join), clone], &Silent).err().unwrap();
    assert_eq!(error.to_string(), "join network namespace /run/netns/gone: bad file descriptor");
    let clone = JoinerStep::Clone { flags: libc::CLONE_FS as u64 | libc::CLONE_NEWNS as u64, cgroup: None };
    let error = with_joiner(&[clone], &Silent).err().unwrap();
    assert_eq!(error.to_string(), "clone3: invalid argument");
}

fn unanswered_joiner() {
    let clone = JoinerStep::Clone { flags: 0, cgroup: None };
    let error = with_joiner(&[JoinerStep::UnshareUser, clone], &Silent).err().unwrap();
    assert_eq!(error.to_string(), "nobody has maps here");
}

fn threaded() {
    let (_kept, end) = std::sync::mpsc::channel::<()>();
    std::thread::spawn(move || end.recv());
    let steps = birth(&[Step::Exec]);
    let program = program(&[c"true"]);
    let mask = SigSet::empty();
    let what = Spawn {
        parentage: &Parentage::Ours,
        steps: &steps,
        program: &program,
        joiner: &[],
        flags: 0,
        cgroup: None,
        tasks: &[],
        mask,
    };
    let error = spawn(&what, empty(), &Silent).err().unwrap();
    assert_eq!(error.to_string(), "clone3: invalid argument");
}
