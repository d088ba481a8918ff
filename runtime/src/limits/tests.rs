use super::*;
use std::process::{Child, Command, Stdio};

use nix::errno::Errno;

use crate::config::{ExecCpuAffinity, Scheduler};
use crate::error::Error;
use crate::sys::sched as kernel;

/// A process that waits until its end of the pipe is closed.
struct Waiting(Child);

impl Waiting {
    fn new() -> Self {
        Self(Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap())
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.0.id() as i32)
    }

    fn affinity(&self) -> Vec<u64> {
        let mut mask = [0; 128];
        let words = kernel::affinity(self.pid(), &mut mask).unwrap();
        mask[..words].to_vec()
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        self.0.wait().unwrap();
    }
}

#[test]
fn a_mask_is_as_long_as_it_must_be_and_knows_its_cpus() {
    for cpus in [vec![], vec![0], vec![1, 63], vec![0, 64], vec![5, 1023, 1024, 4000]] {
        assert_eq!(Mask::new(&cpus).cpus(), cpus);
    }
}

#[test]
fn affinity_is_set_and_taken_back_to_all() {
    let process = Waiting::new();
    let all = process.affinity();
    let first = all[0].trailing_zeros();
    let limits = Limits { affinity: Some(Mask::new(&[first])), ..Limits::default() };
    limits.apply(process.pid()).unwrap();
    assert_eq!(process.affinity()[0], 1 << first);
    Limits::default().apply(process.pid()).unwrap();
    assert_eq!(process.affinity(), all);
}

#[test]
fn a_cpu_that_is_not_there_is_an_error_that_names_it() {
    let process = Waiting::new();
    let error = affinity::apply(process.pid(), &Mask::new(&[8191])).unwrap_err();
    assert_eq!(error.to_string(), "set the CPU affinity to [8191]: invalid argument");
}

#[test]
fn the_affinity_of_exec_is_not_for_init() {
    let affinity = ExecCpuAffinity { initial: Some(vec![0]), final_: Some(vec![1]) };
    let process = Process { exec_cpu_affinity: Some(affinity), ..process() };
    assert_eq!(Limits::of_init(&process), Limits::default());
    let exec = Limits::of_exec(&process);
    assert_eq!(exec.initial_affinity, Some(Mask::new(&[0])));
    assert_eq!(exec.affinity, Some(Mask::new(&[1])));
}

#[test]
fn policy_io_priority_and_limits_arrive() {
    let waiting = Waiting::new();
    let pid = waiting.pid();
    let (soft, hard) = kernel::rlimit(pid, libc::RLIMIT_CORE).unwrap();
    let process = Process {
        // SCHED_BATCH, for which nobody needs a privilege.
        scheduler: Some(Scheduler { policy: 3, nice: 5, ..Scheduler::default() }),
        io_priority: Some(IoPriority { class: 2, priority: 6 }),
        oom_score_adj: Some(900),
        rlimits: vec![Rlimit { resource: libc::RLIMIT_CORE, name: "RLIMIT_CORE", soft: soft / 2, hard }],
        ..process()
    };
    let limits = Limits::of_init(&process);
    limits.apply(pid).unwrap();
    limits.apply_rlimits(pid).unwrap();
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    assert_eq!((fields[16], fields[38]), ("5", "3"), "nice and policy of {stat}");
    assert_eq!(kernel::io_priority(pid), Ok((2, 6)));
    assert_eq!(std::fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap(), "900\n");
    assert_eq!(kernel::rlimit(pid, libc::RLIMIT_CORE), Ok((soft / 2, hard)));
}

#[test]
fn an_impossible_limit_is_named() {
    let process = Waiting::new();
    let limit = Rlimit { resource: libc::RLIMIT_CORE, name: "RLIMIT_CORE", soft: u64::MAX, hard: 7 };
    let error = rlimits::apply(process.pid(), &limit).unwrap_err();
    assert_eq!(error.to_string(), "set RLIMIT_CORE to soft unlimited, hard 7: invalid argument");
}

#[test]
fn an_oom_score_that_stands_is_not_an_error_and_one_out_of_range_is() {
    let process = Waiting::new();
    let path = format!("/proc/{}/oom_score_adj", process.pid());
    let present: i32 = std::fs::read_to_string(path).unwrap().trim().parse().unwrap();
    oom::apply(process.pid(), present).unwrap();
    let error = oom::apply(process.pid(), 1001).unwrap_err();
    assert!(matches!(error, Error::Sys { errno: Errno::EINVAL, .. }), "{error}");
}

#[test]
fn the_personality_is_that_of_the_thread_that_sets_it() {
    std::thread::spawn(|| {
        personality::apply(8).unwrap();
        assert_eq!(kernel::set_personality(0xffff_ffff), Ok(8));
    })
    .join()
    .unwrap();
}

fn process() -> Process {
    Process {
        terminal: false,
        console_size: None,
        user: Default::default(),
        args: vec![c"sh".into()],
        env: vec![],
        cwd: c"/".into(),
        capabilities: None,
        rlimits: vec![],
        no_new_privileges: false,
        oom_score_adj: None,
        scheduler: None,
        io_priority: None,
        exec_cpu_affinity: None,
        apparmor_profile: None,
        selinux_label: None,
    }
}
