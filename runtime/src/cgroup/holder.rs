//! Who keeps a cgroup from being removed, and what he waits for: the text of an error.

use std::fs;
use std::path::Path;

use super::live::{is_populated, pids_below};

/// More are only counted.
const NAMED: usize = 3;

/// `process 4711 (cat), state D (disk sleep), in request_wait_answer; and 2 more`; `None` when nobody
/// is in the cgroup or below it. Best effort: it is made when something has failed already.
pub(super) fn holders(path: &Path) -> Option<String> {
    let pids = pids_below(path).ok()?;
    if pids.is_empty() {
        let unseen = is_populated(path).ok()?;
        return unseen.then(|| "a process of a pid namespace that is not below ours".to_owned());
    }
    let mut text = pids.iter().take(NAMED).map(|&pid| whereabouts(pid)).collect::<Vec<_>>().join("; ");
    if pids.len() > NAMED {
        text.push_str(&format!("; and {} more", pids.len() - NAMED));
    }
    Some(text)
}

/// One process: its name, its state and the function of the kernel in which it waits. Where its first
/// thread has ended and another has not, it is that one which waits.
pub fn whereabouts(pid: i32) -> String {
    let tasks = format!("/proc/{pid}/task");
    let mut threads: Vec<i32> = fs::read_dir(&tasks)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    threads.sort_unstable();
    let seen: Vec<Thread> = threads.iter().filter_map(|tid| Thread::read(&tasks, *tid)).collect();
    let Some(thread) = seen.iter().find(|t| !t.has_ended()).or(seen.first()) else {
        return format!("process {pid}, which is gone by now");
    };
    let which = if thread.tid == pid { String::new() } else { format!(", thread {}", thread.tid) };
    let waits = if thread.waits_in.is_empty() { String::new() } else { format!(", in {}", thread.waits_in) };
    format!("process {pid} ({}){which}, state {}{waits}", thread.name, thread.state)
}

struct Thread {
    tid: i32,
    name: String,
    /// `D (disk sleep)`
    state: String,
    /// Empty when it runs, or when we may not know.
    waits_in: String,
}

impl Thread {
    fn read(tasks: &str, tid: i32) -> Option<Self> {
        let read = |file: &str| fs::read_to_string(format!("{tasks}/{tid}/{file}"));
        let status = read("status").ok()?;
        let wchan = read("wchan").ok().filter(|wchan| wchan != "0");
        // Only root may read it; then it also tells of a kernel that hides wchan.
        let waits_in = wchan.or_else(|| read("stack").ok().and_then(|stack| first_function(&stack)));
        Some(Thread {
            tid,
            name: field(&status, "Name:")?,
            state: field(&status, "State:")?,
            waits_in: waits_in.unwrap_or_default(),
        })
    }

    fn has_ended(&self) -> bool {
        self.state.starts_with(['Z', 'X'])
    }
}

/// <https://man7.org/linux/man-pages/man5/proc_pid_status.5.html>
fn field(status: &str, name: &str) -> Option<String> {
    status.lines().find_map(|line| line.strip_prefix(name)).map(|value| value.trim().to_owned())
}

/// Of `[<0>] request_wait_answer+0x12a/0x1f0`.
fn first_function(stack: &str) -> Option<String> {
    let name = stack.lines().next()?.rsplit(' ').next()?.split('+').next()?;
    (!name.is_empty()).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_described_by_name_state_and_place() {
        let own = i32::try_from(std::process::id()).unwrap();
        let text = whereabouts(own);
        assert!(text.starts_with(&format!("process {own} (")), "{text}");
        assert!(text.contains("state "), "{text}");
        assert_eq!(whereabouts(i32::MAX), format!("process {}, which is gone by now", i32::MAX));
    }

    #[test]
    fn of_a_stack_the_first_function_counts() {
        for (stack, expected) in [
            (
                "[<0>] request_wait_answer+0x12a/0x1f0\n[<0>] fuse_simple_request+0x1/0x2\n",
                Some("request_wait_answer"),
            ),
            ("", None),
            ("\n", None),
        ] {
            assert_eq!(first_function(stack).as_deref(), expected);
        }
    }
}
