//! The profile in the kernel's terms: for each ABI its syscalls by number, each with an action or
//! with ordered rules. Which of several rules wins is libseccomp's decision (`src/db.c`), which
//! engines' profiles were written against.

use super::{Agent, Arch, names};
use crate::config::{ArgOperator, ArgTest, Seccomp, SeccompAction, SyscallRule};
use crate::error::Problem;

/// A filter's return value: action in the high half, data in the low one (`seccomp(2)`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Action(pub(super) u32);

impl Action {
    pub(super) const KILL_THREAD: Action = Action(libc::SECCOMP_RET_KILL_THREAD);
    pub(super) const ENOSYS: Action = Action(libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32);

    fn passes(self) -> bool {
        matches!(self.0, libc::SECCOMP_RET_ALLOW | libc::SECCOMP_RET_LOG)
    }

    /// The kernel's own order when several filters disagree: the lower signed value wins.
    fn is_stricter_than(self, other: Action) -> bool {
        self.0.cast_signed() < other.0.cast_signed()
    }
}

#[derive(Debug)]
pub(super) struct Policy {
    pub(super) default: Action,
    /// The host's own first.
    pub(super) abis: Vec<Abi>,
    pub(super) flags: libc::c_ulong,
    pub(super) agent: Option<Agent>,
    pub(super) bears: bool,
    pub(super) warnings: Vec<String>,
}

#[derive(Debug)]
pub(super) struct Abi {
    pub(super) arch: Arch,
    /// By number, ascending, each once.
    pub(super) syscalls: Vec<(u32, Verdict)>,
    /// Numbers above this one, if not in `syscalls`, are unknown to the profile's author.
    pub(super) newest: Option<u32>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    Always(Action),
    /// The first rule that matches, else the default action.
    Rules(Vec<Rule>),
}

/// All tests must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) tests: Vec<Test>,
    pub(super) action: Action,
}

/// `(argument & mask) operator value`, unsigned. A mask without high half looks at the low one only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Test {
    pub(super) index: u8,
    pub(super) operator: ArgOperator,
    pub(super) mask: u64,
    pub(super) value: u64,
    /// The ABI's arguments have 64 bits.
    pub(super) wide: bool,
}

impl Policy {
    pub(super) fn new(seccomp: &Seccomp, host: Arch) -> Result<Policy, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut warnings = Vec::new();
        let agent = agent(seccomp, &mut problems);
        let flags = flags(seccomp.flags.as_deref(), agent.is_some(), &mut problems);
        let default = action(seccomp.default_action, seccomp.default_errno_ret).unwrap_or_else(|what| {
            problems.push(problem("defaultErrnoRet", what));
            Action::KILL_THREAD
        });
        let actions = seccomp.syscalls.iter().enumerate().map(|(i, rule)| {
            for (j, name) in rule.names.iter().enumerate() {
                if name.is_empty() {
                    problems.push(problem(format!("syscalls/{i}/names/{j}"), "a syscall needs a name"));
                }
            }
            action(rule.action, rule.errno_ret).unwrap_or_else(|what| {
                problems.push(problem(format!("syscalls/{i}/errnoRet"), what));
                default
            })
        });
        let actions: Vec<Action> = actions.collect();
        if !problems.is_empty() {
            return Err(problems);
        }

        let answers_enosys = !permits(seccomp.default_action);
        let mut abis = Vec::new();
        for arch in architectures(&seccomp.architectures, host, &mut warnings) {
            let Numbered { found, newest, private } =
                numbered_rules(arch, &seccomp.syscalls, &actions, default);
            let newest = newest.filter(|_| answers_enosys);
            let mut syscalls = decide(found, &mut warnings)?;
            // A rule with the default action is no rule, but its syscall is known.
            for number in newest.into_iter().chain(private) {
                if let Err(at) = syscalls.binary_search_by_key(&number, |(n, _)| *n) {
                    syscalls.insert(at, (number, Verdict::Always(default)));
                }
            }
            abis.push(Abi { arch, syscalls, newest });
        }
        warn_of_unknown_names(&seccomp.syscalls, &mut warnings);
        let agent = agent.map(|agent| Agent { sendmsg: passes(host, "sendmsg", &abis, default), ..agent });
        let bears = bears(host, &abis, default);
        Ok(Policy { default, abis, flags, agent, bears, warnings })
    }
}

fn problem(below: impl AsRef<str>, what: impl Into<String>) -> Problem {
    Problem { pointer: format!("/linux/seccomp/{}", below.as_ref()), what: what.into() }
}

/// Who is notified, when a rule has that action.
///
/// The process that has loaded the filter says the number of the listener by `write`, before anybody
/// could answer a notification: so none may be of that call. All later ones find the agent, or wait
/// for him.
fn agent(seccomp: &Seccomp, problems: &mut Vec<Problem>) -> Option<Agent> {
    if seccomp.default_action == SeccompAction::Notify {
        problems.push(problem("defaultAction", "SCMP_ACT_NOTIFY cannot be used as default action"));
    }
    let notifying = |rule: &&SyscallRule| rule.action == SeccompAction::Notify;
    for (i, rule) in seccomp.syscalls.iter().enumerate().filter(|(_, rule)| notifying(rule)) {
        for (j, _) in rule.names.iter().enumerate().filter(|(_, name)| *name == "write") {
            let what =
                "SCMP_ACT_NOTIFY cannot be used for the write syscall: by it the listener is handed over";
            problems.push(problem(format!("syscalls/{i}/names/{j}"), what));
        }
    }
    // Without such a rule the path is ignored (config-linux.md, "listenerPath").
    match (&seccomp.listener_path, seccomp.syscalls.iter().any(|rule| notifying(&rule))) {
        (None, true) => {
            problems.push(problem("listenerPath", "is missing, and a rule has the action SCMP_ACT_NOTIFY"));
        }
        (None, false) if seccomp.listener_metadata.is_some() => {
            problems.push(problem("listenerMetadata", "must not be set without listenerPath"));
        }
        (Some(path), true) => {
            let (path, metadata) = (path.clone(), seccomp.listener_metadata.clone());
            return Some(Agent { path, metadata, sendmsg: false });
        }
        (_, false) => {}
    }
    None
}

fn verdict<'a>(host: Arch, name: &str, abis: &'a [Abi]) -> Option<&'a Verdict> {
    let abi = abis.iter().find(|abi| abi.arch == host)?;
    let number = names::number(host, name)?;
    let at = abi.syscalls.binary_search_by_key(&number, |(n, _)| *n).ok()?;
    abi.syscalls.get(at).map(|(_, verdict)| verdict)
}

/// Whether a call of the host's own ABI goes through, whatever its arguments.
fn passes(host: Arch, name: &str, abis: &[Abi], default: Action) -> bool {
    match verdict(host, name, abis) {
        None => default.passes(),
        Some(Verdict::Always(action)) => action.passes(),
        Some(Verdict::Rules(_)) => false,
    }
}

/// What `Step::Birth` and the steps behind it call, and how the one that bears ends.
fn bears(host: Arch, abis: &[Abi], default: Action) -> bool {
    let any =
        ["setsid", "read", "write", "chdir", "getcwd", "umask", "newfstatat", "faccessat2", "exit_group"];
    let exact: [(&str, &[u64]); 2] =
        [("clone", &[libc::CLONE_PARENT as u64]), ("ioctl", &[libc::STDIN_FILENO as u64, libc::TIOCSCTTY])];
    let exactly = |(name, args): (&str, &[u64])| match verdict(host, name, abis) {
        None => default.passes(),
        Some(Verdict::Always(action)) => action.passes(),
        Some(Verdict::Rules(rules)) => {
            let matching = rules.iter().find(|rule| rule.tests.iter().all(|test| test.holds(args)));
            matching.map_or(default, |rule| rule.action).passes()
        }
    };
    exact.into_iter().all(exactly) && any.into_iter().all(|name| passes(host, name, abis, default))
}

fn flags(names: Option<&[String]>, notifies: bool, problems: &mut Vec<Problem>) -> libc::c_ulong {
    let mut flags = if notifies { libc::SECCOMP_FILTER_FLAG_NEW_LISTENER } else { 0 };
    let Some(names) = names else {
        // runc's default (libcontainer/specconv): without it, kernels before 5.16 turn off
        // speculative store bypass for every process with a filter, which costs it speed.
        return flags | libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW;
    };
    for (i, name) in names.iter().enumerate() {
        match name.as_str() {
            // Filters of all threads alike: there is one thread, and runc leaves it out too. With a
            // listener the kernel would refuse the two together.
            "SECCOMP_FILTER_FLAG_TSYNC" => {}
            "SECCOMP_FILTER_FLAG_LOG" => flags |= libc::SECCOMP_FILTER_FLAG_LOG,
            "SECCOMP_FILTER_FLAG_SPEC_ALLOW" => flags |= libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW,
            "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV" if notifies => {
                flags |= libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
            }
            "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV" => {
                let what = format!("{name} needs a rule with the action SCMP_ACT_NOTIFY");
                problems.push(problem(format!("flags/{i}"), what));
            }
            _ => problems.push(problem(format!("flags/{i}"), format!("{name:?} is not a flag"))),
        }
    }
    flags
}

/// EPERM is the specification's default for `errnoRet`, and runc's also for `SCMP_ACT_TRACE`.
fn action(action: SeccompAction, errno: Option<u32>) -> Result<Action, String> {
    let data = || match errno.unwrap_or(libc::EPERM as u32) {
        data @ 0..=0xffff => Ok(data),
        data => Err(format!("{data} is more than the 16 bits that an action can carry")),
    };
    Ok(Action(match action {
        SeccompAction::KillThread => libc::SECCOMP_RET_KILL_THREAD,
        SeccompAction::KillProcess => libc::SECCOMP_RET_KILL_PROCESS,
        SeccompAction::Trap => libc::SECCOMP_RET_TRAP,
        SeccompAction::Errno => libc::SECCOMP_RET_ERRNO | data()?,
        SeccompAction::Trace => libc::SECCOMP_RET_TRACE | data()?,
        SeccompAction::Log => libc::SECCOMP_RET_LOG,
        SeccompAction::Allow => libc::SECCOMP_RET_ALLOW,
        SeccompAction::Notify => libc::SECCOMP_RET_USER_NOTIF,
    }))
}

/// The host's ABI is always in the filter, as with libseccomp.
fn architectures(names: &[String], host: Arch, warnings: &mut Vec<String>) -> Vec<Arch> {
    let mut found = vec![host];
    for name in names {
        match Arch::from_scmp(name).filter(|arch| host.family().contains(arch)) {
            Some(arch) if found.contains(&arch) => {}
            Some(arch) => found.push(arch),
            None => warnings.push(format!("seccomp: {name} does not occur on this machine")),
        }
    }
    found
}

/// Such a default lets a syscall that the profile does not know pass, so it is not answered.
fn permits(action: SeccompAction) -> bool {
    matches!(action, SeccompAction::Allow | SeccompAction::Log | SeccompAction::Trace)
}

/// What a profile says in one ABI.
struct Numbered {
    /// The rules that differ from the default, in the profile's order.
    found: Vec<(u32, Rule)>,
    /// Of all syscalls that it names.
    newest: Option<u32>,
    /// ARM's own (cacheflush …), which lie far above all others and say nothing about age.
    private: Vec<u32>,
}

/// runc's rule: a syscall newer than that one gets ENOSYS and not the default action. C libraries
/// fall back to an older call on ENOSYS, not on EPERM.
/// (libcontainer/seccomp/patchbpf, opencontainers/runc#2750)
fn numbered_rules(arch: Arch, rules: &[SyscallRule], actions: &[Action], default: Action) -> Numbered {
    let newest_possible = if arch == Arch::Arm { 0xe_ffff } else { u32::MAX };
    let (mut found, mut private) = (Vec::with_capacity(512), Vec::new());
    let mut newest = 0;
    for (rule, &action) in rules.iter().zip(actions) {
        let alternatives = alternatives(arch, &rule.args);
        for name in &rule.names {
            let number = names::number(arch, name);
            match number {
                Some(n) if n <= newest_possible => newest = newest.max(n),
                other => private.extend(other),
            }
            if action == default {
                continue;
            }
            let multiplexed = names::multiplexed(arch, name);
            for tests in &alternatives {
                found.extend(number.map(|n| (n, Rule { tests: tests.clone(), action })));
                found.extend(
                    multiplexed
                        .map(|(n, call)| (n, Rule { tests: through_multiplexer(call, tests), action })),
                );
            }
        }
    }
    Numbered { found, newest: (newest != 0).then_some(newest), private }
}

/// The conditions of a rule, each sorted by argument. Several conditions on the same argument are
/// alternatives, not a conjunction: so runc reads them, to keep profiles of its early days working.
fn alternatives(arch: Arch, args: &[ArgTest]) -> Vec<Vec<Test>> {
    let repeated = args.iter().enumerate().any(|(i, a)| args[..i].iter().any(|b| a.index == b.index));
    let tests = args.iter().filter_map(|arg| Test::new(arch, arg));
    if repeated {
        return args.iter().map(|arg| Test::new(arch, arg).into_iter().collect()).collect();
    }
    let mut tests: Vec<Test> = tests.collect();
    tests.sort_by_key(|t| t.index);
    vec![tests]
}

impl Test {
    /// `None` when it always holds.
    fn new(arch: Arch, arg: &ArgTest) -> Option<Test> {
        let (mask, value) = match arg.operator {
            ArgOperator::MaskedEqual => (arg.value, arg.value_two),
            _ => (u64::MAX, arg.value),
        };
        let wide = arch.is_64_bit();
        let mask = if wide { mask } else { mask & u64::from(u32::MAX) };
        let (index, operator) = (arg.index, arg.operator);
        (mask != 0).then_some(Test { index, operator, mask, value: value & mask, wide })
    }
}

impl Test {
    /// Of a call of the host's own ABI; arguments that are not given are 0.
    fn holds(&self, args: &[u64]) -> bool {
        let argument = args.get(usize::from(self.index)).copied().unwrap_or_default() & self.mask;
        match self.operator {
            ArgOperator::Equal | ArgOperator::MaskedEqual => argument == self.value,
            ArgOperator::NotEqual => argument != self.value,
            ArgOperator::LessThan => argument < self.value,
            ArgOperator::LessOrEqual => argument <= self.value,
            ArgOperator::GreaterOrEqual => argument >= self.value,
            ArgOperator::GreaterThan => argument > self.value,
        }
    }
}

/// The multiplexer takes a pointer to the call's arguments, which a filter cannot follow: the first
/// test is for the call, the others stay as libseccomp leaves them.
fn through_multiplexer(call: u64, tests: &[Test]) -> Vec<Test> {
    let mask = u64::from(u32::MAX);
    let first = Test { index: 0, operator: ArgOperator::Equal, mask, value: call, wide: false };
    std::iter::once(first).chain(tests.iter().copied().filter(|t| t.index != 0)).collect()
}

/// One verdict for each number.
fn decide(
    mut found: Vec<(u32, Rule)>,
    warnings: &mut Vec<String>,
) -> Result<Vec<(u32, Verdict)>, Vec<Problem>> {
    // Stable: rules of one syscall stay in the profile's order.
    found.sort_by_key(|(number, _)| *number);
    let of_each = found.chunk_by(|(one, _), (other, _)| one == other);
    of_each
        .filter_map(|rules| rules.first().map(|(number, _)| (*number, rules)))
        .map(|(number, rules)| {
            // A rule without conditions is the last word, and the first of them.
            let always = rules.iter().find(|(_, rule)| rule.tests.is_empty());
            let verdict = match always {
                Some((_, rule)) => Verdict::Always(rule.action),
                None => Verdict::Rules(in_order(number, rules, warnings)?),
            };
            Ok((number, verdict))
        })
        .collect()
}

/// Those that all have conditions. Each takes an instruction at the least: with more than a program has, there is
/// no reason to compare each with all others.
fn in_order(
    number: u32,
    found: &[(u32, Rule)],
    warnings: &mut Vec<String>,
) -> Result<Vec<Rule>, Vec<Problem>> {
    let mut rules = Vec::with_capacity(found.len().min(libc::BPF_MAXINSNS as usize));
    for (_, rule) in found {
        insert(number, &mut rules, rule, warnings);
        if rules.len() > libc::BPF_MAXINSNS as usize {
            let what =
                format!("syscall {number} has more rules than the 4096 instructions that the kernel takes");
            return Err(vec![problem("syscalls", what)]);
        }
    }
    Ok(rules)
}

fn insert(number: u32, rules: &mut Vec<Rule>, rule: &Rule, warnings: &mut Vec<String>) {
    if let Some(same) = rules.iter_mut().find(|r| r.tests == rule.tests) {
        // runc refuses this with "file exists" from libseccomp; the safe reading starts the container.
        if same.action != rule.action {
            warnings.push(format!("seccomp: two actions for syscall {number} with the same arguments"));
        }
        if rule.action.is_stricter_than(same.action) {
            same.action = rule.action;
        }
        return;
    }
    let at = super::precedence::position(rules, rule);
    rules.insert(at, rule.clone());
}

fn warn_of_unknown_names(rules: &[SyscallRule], warnings: &mut Vec<String>) {
    let known = |name: &str| {
        Arch::ALL.iter().any(|&a| names::number(a, name).is_some() || names::multiplexed(a, name).is_some())
    };
    for name in rules.iter().flat_map(|rule| &rule.names).filter(|name| !known(name)) {
        warnings.push(format!("seccomp: unknown syscall {name:?} ignored"));
    }
}
