//! Runs a command under ptrace(2): sees each system call that it and its children make until they become other
//! programs, and fails one of them, or kills whoever makes it.
//!
//! A call is failed as strace does it: at its entry it gets the number -1, which does nothing, at its exit the error
//! as its result. <https://man7.org/linux/man-pages/man2/ptrace.2.html>

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs::File;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::ptrace::{self, Event, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::call::contents;
use crate::sys::traced;

/// One system call of a traced process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    /// 0 is the command itself, 1 the first process that it or a child of it made, and so on.
    pub process: usize,
    /// Which of that process's calls it is, from 0.
    pub ordinal: usize,
    pub number: i64,
    /// The first two arguments.
    pub arguments: [u64; 2],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    Fail(Errno),
    /// `SIGKILL` for the process, instead of the call.
    Kill,
}

/// Where a fault is put: (process, ordinal).
pub type Site = (usize, usize);

/// What became of the command.
#[derive(Debug)]
pub struct Traced {
    /// The exit code; 128 and the signal.
    pub code: i32,
    pub out: File,
    pub err: String,
    pub calls: Vec<Call>,
    /// The call that got the fault.
    pub hit: Option<Call>,
    /// It did not come to its end by itself in time.
    pub hung: bool,
    /// All processes that were seen: pid and start time.
    pub processes: Vec<Process>,
}

/// A process by the two numbers that name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    pub pid: i32,
    start_time: String,
}

impl Process {
    fn new(pid: Pid) -> Self {
        let start_time = start_time(pid.as_raw()).map_or_else(String::new, |(_, time)| time);
        Process { pid: pid.as_raw(), start_time }
    }

    /// It is still there, and not just its unreaped remains.
    pub fn is_alive(&self) -> bool {
        start_time(self.pid).is_some_and(|(state, time)| time == self.start_time && !"ZXx".contains(&state))
    }
}

/// Fields 3 and 22 of `/proc/PID/stat`.
fn start_time(pid: i32) -> Option<(String, String)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?.to_owned();
    Some((state, fields.nth(18)?.to_owned()))
}

/// Whether a fault can be that of the last of these calls.
pub type Possible = fn(&[Call], Fault) -> bool;

/// Runs the command to its end with its output in files, and no longer than `limit`: then it is killed. What it
/// leaves behind goes on, untraced.
///
/// # Panics
/// When it cannot be started or traced.
pub fn run(mut command: Command, fault: Option<(Site, Fault, Possible)>, limit: Duration) -> Traced {
    let pid = AtomicI32::new(0);
    let (done, end) = mpsc::channel();
    std::thread::scope(|scope| {
        // Traced processes belong to one thread, and are let go with its end.
        let pid = &pid;
        let tracer = scope.spawn(move || {
            let traced = trace(&mut command, fault, pid);
            // The other side waits for as long as this thread lives.
            done.send(()).ok();
            traced
        });
        let hung = end.recv_timeout(limit) == Err(mpsc::RecvTimeoutError::Timeout);
        let main = pid.load(Ordering::SeqCst);
        // 0 would be everybody here.
        if hung && main != 0 {
            // ESRCH: at the last moment it ended by itself.
            kill(Pid::from_raw(main), Signal::SIGKILL).ok();
        }
        match tracer.join() {
            Ok(traced) => Traced { hung, ..traced },
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

#[derive(Debug, Default)]
struct Tracee {
    index: usize,
    calls: usize,
    in_call: bool,
    /// The result that the call under way is to have.
    result: Option<u64>,
    /// It has become another program.
    foreign: bool,
}

fn trace(command: &mut Command, fault: Option<(Site, Fault, Possible)>, number: &AtomicI32) -> Traced {
    let file = || tempfile::tempfile().expect("a temporary file");
    let (out, err) = (file(), file());
    let copy = |file: &File| Stdio::from(file.try_clone().expect("dup"));
    command.stdin(Stdio::null()).stdout(copy(&out)).stderr(copy(&err));
    // It is waited for by its number, as a tracer does.
    #[allow(clippy::zombie_processes)]
    let child = traced(command).spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let main = Pid::from_raw(i32::try_from(child.id()).expect("a pid"));
    number.store(main.as_raw(), Ordering::SeqCst);

    // The stop after its execve. It goes on only when it is traced in the newer way (PTRACE_SEIZE): what is born then
    // begins without a SIGSTOP, in which it would stay if it were let go before that was seen.
    let stop = waitpid(main, None).expect("wait for the command");
    assert_eq!(stop, WaitStatus::Stopped(main, Signal::SIGTRAP));
    ptrace::detach(main, Signal::SIGSTOP).expect("PTRACE_DETACH");
    let options = Options::PTRACE_O_TRACESYSGOOD
        | Options::PTRACE_O_TRACEFORK
        | Options::PTRACE_O_TRACEVFORK
        | Options::PTRACE_O_TRACECLONE
        | Options::PTRACE_O_TRACEEXEC;
    ptrace::seize(main, options).expect("PTRACE_SEIZE");
    let stop = waitpid(main, None).expect("wait for the command");
    assert_eq!(stop, WaitStatus::PtraceEvent(main, Signal::SIGSTOP, Event::PTRACE_EVENT_STOP as i32));
    kill(main, Signal::SIGCONT).expect("kill");

    let mut tracer =
        Tracer { fault, tracees: BTreeMap::new(), calls: Vec::new(), hit: None, processes: Vec::new() };
    tracer.meet(main);
    tracer.go_on(main, None);
    let code = loop {
        match waitpid(None, Some(WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD)) {
            Ok(WaitStatus::Exited(pid, code)) if pid == main => break code,
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == main => break 128 + signal as i32,
            Ok(status) => tracer.stopped(&status),
            Err(Errno::EINTR) => {}
            Err(error) => panic!("wait for the traced processes: {error}"),
        }
    };
    let Tracer { calls, hit, processes, .. } = tracer;
    Traced { code, out, err: contents(&err), calls, hit, hung: false, processes }
}

struct Tracer {
    fault: Option<(Site, Fault, Possible)>,
    tracees: BTreeMap<Pid, Tracee>,
    calls: Vec<Call>,
    hit: Option<Call>,
    processes: Vec<Process>,
}

impl Tracer {
    /// Whoever of parent and child is seen first: births come one after the other.
    fn meet(&mut self, pid: Pid) {
        let index = self.processes.len();
        if let Entry::Vacant(new) = self.tracees.entry(pid) {
            new.insert(Tracee { index, ..Tracee::default() });
            self.processes.push(Process::new(pid));
        }
    }

    fn stopped(&mut self, status: &WaitStatus) {
        match *status {
            WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, ..) => {
                self.tracees.remove(&pid);
            }
            WaitStatus::PtraceSyscall(pid) => self.call(pid),
            WaitStatus::PtraceEvent(pid, _, event) => {
                const BIRTHS: [i32; 3] = [
                    Event::PTRACE_EVENT_FORK as i32,
                    Event::PTRACE_EVENT_VFORK as i32,
                    Event::PTRACE_EVENT_CLONE as i32,
                ];
                if BIRTHS.contains(&event) {
                    // ESRCH: the parent was killed in this moment; the child shows itself.
                    if let Ok(child) = ptrace::getevent(pid) {
                        self.meet(Pid::from_raw(i32::try_from(child).expect("a pid")));
                    }
                } else if event == Event::PTRACE_EVENT_EXEC as i32
                    && let Some(tracee) = self.tracees.get_mut(&pid).filter(|tracee| tracee.index > 0)
                {
                    tracee.foreign = true;
                }
                if event == Event::PTRACE_EVENT_STOP as i32 {
                    // The first stop of a child.
                    self.meet(pid);
                }
                self.go_on(pid, None);
            }
            WaitStatus::Stopped(pid, signal) => self.go_on(pid, Some(signal)),
            _ => {}
        }
    }

    fn go_on(&self, pid: Pid, signal: Option<Signal>) {
        let tracee = self.tracees.get(&pid);
        let watched = self.fault.is_none() || self.hit.is_none();
        let result = match tracee {
            Some(tracee) if tracee.result.is_some() || watched && !tracee.foreign => {
                ptrace::syscall(pid, signal)
            }
            _ => ptrace::cont(pid, signal),
        };
        // ESRCH: killed while it stood still.
        assert!(matches!(result, Ok(()) | Err(Errno::ESRCH)), "let {pid} go on: {result:?}");
    }

    /// At the entry or the exit of a call.
    fn call(&mut self, pid: Pid) {
        if let (Some(tracee), Ok(mut registers)) = (self.tracees.get_mut(&pid), ptrace::getregs(pid)) {
            tracee.in_call = !tracee.in_call;
            if !tracee.in_call {
                if let Some(result) = tracee.result.take() {
                    registers.rax = result;
                    // ESRCH: killed while it stood still.
                    ptrace::setregs(pid, registers).ok();
                }
            } else if !tracee.foreign {
                let call = Call {
                    process: tracee.index,
                    ordinal: tracee.calls,
                    number: registers.orig_rax.cast_signed(),
                    arguments: [registers.rdi, registers.rsi],
                };
                tracee.calls += 1;
                self.calls.push(call);
                if let Some((site, fault, possible)) = self.fault
                    && site == (call.process, call.ordinal)
                    && self.hit.is_none()
                    && possible(&self.calls, fault)
                {
                    self.hit = Some(call);
                    match fault {
                        Fault::Kill => kill(pid, Signal::SIGKILL).expect("kill"),
                        Fault::Fail(errno) => {
                            // A close(2) that fails has closed the descriptor.
                            if call.number != libc::SYS_close {
                                registers.orig_rax = u64::MAX;
                            }
                            if ptrace::setregs(pid, registers).is_ok() {
                                tracee.result = Some((-i64::from(errno as i32)).cast_unsigned());
                            }
                        }
                    }
                }
            }
        }
        self.go_on(pid, None);
    }
}
