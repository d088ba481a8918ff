//! On which processors the process may run.

use nix::errno::Errno;
use nix::unistd::Pid;

use crate::error::{Error, Result};
use crate::sys::sched;

/// Bit N of the whole for processor N; as long as its highest processor needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mask(Vec<u64>);

impl Mask {
    pub fn new(cpus: &[u32]) -> Self {
        let mut words = Vec::new();
        for &cpu in cpus {
            let word = cpu as usize / 64;
            if words.len() <= word {
                words.resize(word + 1, 0);
            }
            words[word] |= 1 << (cpu % 64);
        }
        Self(words)
    }

    pub fn cpus(&self) -> Vec<u32> {
        (0..self.0.len() as u32 * 64)
            .filter(|cpu| self.0[*cpu as usize / 64] >> (cpu % 64) & 1 == 1)
            .collect()
    }
}

pub fn apply(pid: Pid, mask: &Mask) -> Result<()> {
    sched::set_affinity(pid, &mask.0)
        .map_err(|errno| Error::sys("set the CPU affinity to", format!("{:?}", mask.cpus()), errno))
}

/// All processors of its cgroup: the container does not inherit the affinity of its engine (as
/// runc since 1.4). A mask of ones is enough, the kernel takes off what the cpuset does not have.
/// Up to Linux 6.1 joining a cpuset did this by itself (kernel commit 8f9ea86fdf99).
pub fn reset(pid: Pid) -> Result<()> {
    match sched::set_affinity(pid, &[u64::MAX; 128]) {
        // An engine without rights over the process's new user (an LSM, a nested container): it
        // then runs where the engine runs, slower perhaps, not less confined. runc goes on too.
        Ok(()) | Err(Errno::EPERM) => Ok(()),
        Err(errno) => Err(Error::sys("reset the CPU affinity of", pid, errno)),
    }
}
