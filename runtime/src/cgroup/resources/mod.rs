//! `linux.resources` in the words of the kernel: which file gets which value, in which order.
//! Pure; each function answers for one controller on v1 or v2 and for nothing when nothing is asked.
//!
//! <https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#control-groups>,
//! <https://docs.kernel.org/admin-guide/cgroup-v2.html>,
//! <https://docs.kernel.org/admin-guide/cgroup-v1/index.html>

mod block_io;
mod cpu;
mod hugetlb;
mod memory;
mod network;
mod rdma;

use std::borrow::Cow;

pub(super) use block_io::{blkio, io};
pub(super) use cpu::{cpu_v1, cpu_v2};
pub(super) use hugetlb::{hugetlb_v1, hugetlb_v2};
pub(super) use memory::{memory_v1, memory_v2};
pub(super) use network::{net_cls, net_prio};
pub(super) use rdma::rdma;

use crate::config::Cpu;
use crate::error::Problem;

/// One value for one file of a cgroup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Write {
    pub(super) file: Cow<'static, str>,
    pub(super) value: String,
    /// What a new cgroup has anyway: written only into one that was there before.
    pub(super) default: bool,
    /// Two files bound each other (limit and limit with swap, quota and period): which of them can
    /// go first depends on what they hold. `EINVAL` here means: the next one first, then this.
    pub(super) after_next: bool,
    /// That there is no such file says the same as the value (no swap on this host).
    pub(super) may_lack: bool,
}

impl Write {
    pub(super) fn new(file: impl Into<Cow<'static, str>>, value: impl ToString) -> Self {
        Write {
            file: file.into(),
            value: value.to_string(),
            default: false,
            after_next: false,
            may_lack: false,
        }
    }

    fn default_if(self, default: bool) -> Self {
        Write { default, ..self }
    }

    fn after_next(self) -> Self {
        Write { after_next: true, ..self }
    }

    fn may_lack_if(self, may_lack: bool) -> Self {
        Write { may_lack, ..self }
    }
}

/// What cannot be had, collected so that the user hears of all at once.
pub(super) type Problems = Vec<Problem>;

fn refuse(problems: &mut Problems, pointer: &str, what: impl Into<String>) {
    problems.push(Problem { pointer: format!("/linux/resources/{pointer}"), what: what.into() });
}

/// 0 and absent both mean "not set" (runc).
fn asked(value: Option<i64>) -> Option<i64> {
    value.filter(|&v| v != 0)
}

fn or_max(value: i64) -> String {
    if value < 0 { "max".into() } else { value.to_string() }
}

/// The same files on v1 and v2.
pub(super) fn cpuset(cpu: &Cpu) -> Vec<Write> {
    let set = |file: &'static str, list: &Option<String>| {
        list.as_ref().filter(|l| !l.is_empty()).map(|list| Write::new(file, list))
    };
    set("cpuset.cpus", &cpu.cpus).into_iter().chain(set("cpuset.mems", &cpu.mems)).collect()
}

/// The same file on v1 and v2.
pub(super) fn pids(limit: Option<i64>) -> Vec<Write> {
    let write = match limit {
        None => return Vec::new(),
        // 0 is a limit, not "none" (specification 1.3). The kernel would refuse the clone of init
        // itself with 0; with 1 it has the same effect for the container: no second task.
        Some(0) => Write::new("pids.max", 1),
        Some(limit) => Write::new("pids.max", or_max(limit)).default_if(limit < 0),
    };
    vec![write]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `file=value`, with `?` for "only if it was there before", `>` for "after the next if it must
    /// be", `~` for "may lack".
    pub(super) fn show(writes: &[Write]) -> Vec<String> {
        let mark = |on: bool, mark: &'static str| if on { mark } else { "" };
        let show = |w: &Write| {
            let (d, a, l) = (mark(w.default, "?"), mark(w.after_next, ">"), mark(w.may_lack, "~"));
            format!("{}={}{d}{a}{l}", w.file, w.value)
        };
        writes.iter().map(show).collect()
    }

    /// What `plan` writes; panics on problems.
    pub(super) fn ok(plan: impl FnOnce(&mut Problems) -> Vec<Write>) -> Vec<String> {
        let mut problems = Problems::new();
        let writes = plan(&mut problems);
        assert_eq!(problems, []);
        show(&writes)
    }

    pub(super) fn refused(plan: impl FnOnce(&mut Problems) -> Vec<Write>) -> Vec<String> {
        let mut problems = Problems::new();
        plan(&mut problems);
        problems.iter().map(|p| format!("{}: {}", p.pointer, p.what)).collect()
    }

    #[test]
    fn processors_and_tasks() {
        let cpu = Cpu { cpus: Some("0-1".into()), mems: Some("".into()), ..Cpu::default() };
        assert_eq!(show(&cpuset(&cpu)), ["cpuset.cpus=0-1"]);
        for (limit, expected) in [(-1, "max?"), (-7, "max?"), (0, "1"), (1, "1"), (64, "64")] {
            assert_eq!(show(&pids(Some(limit))), [format!("pids.max={expected}")]);
        }
        assert_eq!(pids(None), []);
    }
}
