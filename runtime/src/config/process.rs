//! `process`: what runs, and as whom.
//! <https://github.com/opencontainers/runtime-spec/blob/main/config.md#process>

use std::ffi::CString;

use super::read::Node;
use super::{ConsoleSize, Process, Rlimit, User, capability, scheduling};

/// Stands where there was none until the document is refused for it.
pub(super) fn placeholder() -> Process {
    Process {
        terminal: false,
        console_size: None,
        user: User::default(),
        args: Vec::new(),
        env: Vec::new(),
        cwd: CString::default(),
        capabilities: None,
        rlimits: Vec::new(),
        no_new_privileges: false,
        oom_score_adj: None,
        scheduler: None,
        io_priority: None,
        exec_cpu_affinity: None,
        apparmor_profile: None,
        selinux_label: None,
    }
}

pub(super) fn read(process: &Node) -> Process {
    Process {
        terminal: process.bool("terminal").unwrap_or(false),
        console_size: console_size(process),
        user: user(process),
        args: args(process),
        env: process.each("env", variable),
        cwd: cwd(process),
        capabilities: capability::read(process),
        rlimits: rlimits(process),
        no_new_privileges: process.bool("noNewPrivileges").unwrap_or(false),
        oom_score_adj: process.integer_in("oomScoreAdj", -1000, 1000),
        scheduler: scheduling::scheduler(process),
        io_priority: scheduling::io_priority(process),
        exec_cpu_affinity: scheduling::exec_cpu_affinity(process),
        apparmor_profile: process.c_string("apparmorProfile"),
        selinux_label: process.c_string("selinuxLabel"),
    }
}

fn args(process: &Node) -> Vec<CString> {
    if process.is_empty_list("args") {
        process.problem_at("args", "args must not be empty");
    }
    process.c_strings("args")
}

fn cwd(process: &Node) -> CString {
    let Some(node) = process.get("cwd") else {
        process.problem_at("cwd", "Cwd must be an absolute path, but is missing");
        return CString::default();
    };
    let Some(path) = node.as_c_string() else { return CString::default() };
    if !path.as_bytes().starts_with(b"/") {
        node.problem(format!("Cwd must be an absolute path, {} is none", node.shown()));
    }
    path
}

/// `NAME=value`. runc refuses anything else too.
fn variable(item: &Node) -> Option<CString> {
    let text = item.as_c_string()?;
    match text.as_bytes().iter().position(|byte| *byte == b'=') {
        Some(0) | None => {
            item.refuse("is not NAME=value");
            None
        }
        Some(_) => Some(text),
    }
}

fn console_size(process: &Node) -> Option<ConsoleSize> {
    let size = process.object("consoleSize")?;
    let side = |key| size.integer::<u16>(key).unwrap_or(0);
    Some(ConsoleSize { height: side("height"), width: side("width") })
}

fn user(process: &Node) -> User {
    // The specification requires it; Go's zero value is what engines rely on.
    let Some(user) = process.object("user") else { return User::default() };
    User {
        uid: user.get("uid").and_then(|node| id(&node)).unwrap_or(0),
        gid: user.get("gid").and_then(|node| id(&node)).unwrap_or(0),
        umask: user.integer_in("umask", 0, 0o777),
        additional_gids: user.each("additionalGids", id),
    }
}

/// All but 2^32-1, which means "no change" to the kernel (setresuid(2)).
fn id(node: &Node) -> Option<u32> {
    let id = node.as_integer()?;
    if id == u32::MAX {
        node.refuse("is not an id: to the kernel it means no change");
        return None;
    }
    Some(id)
}

/// Numbers of `getrlimit(2)`: they differ between architectures, `libc` knows them.
const RLIMITS: &[(&str, (&str, u32))] = &[
    ("RLIMIT_AS", ("RLIMIT_AS", libc::RLIMIT_AS)),
    ("RLIMIT_CORE", ("RLIMIT_CORE", libc::RLIMIT_CORE)),
    ("RLIMIT_CPU", ("RLIMIT_CPU", libc::RLIMIT_CPU)),
    ("RLIMIT_DATA", ("RLIMIT_DATA", libc::RLIMIT_DATA)),
    ("RLIMIT_FSIZE", ("RLIMIT_FSIZE", libc::RLIMIT_FSIZE)),
    ("RLIMIT_LOCKS", ("RLIMIT_LOCKS", libc::RLIMIT_LOCKS)),
    ("RLIMIT_MEMLOCK", ("RLIMIT_MEMLOCK", libc::RLIMIT_MEMLOCK)),
    ("RLIMIT_MSGQUEUE", ("RLIMIT_MSGQUEUE", libc::RLIMIT_MSGQUEUE)),
    ("RLIMIT_NICE", ("RLIMIT_NICE", libc::RLIMIT_NICE)),
    ("RLIMIT_NOFILE", ("RLIMIT_NOFILE", libc::RLIMIT_NOFILE)),
    ("RLIMIT_NPROC", ("RLIMIT_NPROC", libc::RLIMIT_NPROC)),
    ("RLIMIT_RSS", ("RLIMIT_RSS", libc::RLIMIT_RSS)),
    ("RLIMIT_RTPRIO", ("RLIMIT_RTPRIO", libc::RLIMIT_RTPRIO)),
    ("RLIMIT_RTTIME", ("RLIMIT_RTTIME", libc::RLIMIT_RTTIME)),
    ("RLIMIT_SIGPENDING", ("RLIMIT_SIGPENDING", libc::RLIMIT_SIGPENDING)),
    ("RLIMIT_STACK", ("RLIMIT_STACK", libc::RLIMIT_STACK)),
];

fn rlimits(process: &Node) -> Vec<Rlimit> {
    let mut seen = Vec::new();
    process.each_object("rlimits", |item| {
        let (name, resource) = item.required_word("type", RLIMITS, "a resource limit")?;
        if seen.contains(&resource) {
            item.refuse_at("type", "is given twice");
            return None;
        }
        seen.push(resource);
        let soft = item.required_integer("soft");
        let hard = item.required_integer("hard");
        let (soft, hard) = (soft?, hard?);
        if soft > hard {
            item.refuse_at("soft", format_args!("is above the hard limit {hard}"));
            return None;
        }
        Some(Rlimit { resource, name, soft, hard })
    })
}
