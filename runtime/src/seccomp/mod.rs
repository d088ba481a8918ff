//! `linux.seccomp` to one classic BPF program, without a C library:
//!
//! `config::Seccomp` -> [`policy`] (numbers, which rule wins) -> [`program`] (ranges, jumps) ->
//! [`Program`], which [`apply::load`] hands to the kernel in the child.
//!
//! [`compile`] is a pure function. Its verdicts are those of runc with libseccomp, also where rules
//! of one syscall overlap; `tests/seccomp/vectors.rs` holds them against tables made by libseccomp.
//! <https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#seccomp>

pub mod apply;
mod assemble;
#[cfg(test)]
mod fuzz;
mod names;
mod policy;
mod precedence;
mod program;

use std::path::PathBuf;

use crate::config::Seccomp;
use crate::error::Problem;

use policy::Policy;

/// What the child loads.
#[derive(Debug, Clone)]
pub struct Program {
    pub filter: Vec<libc::sock_filter>,
    /// `SECCOMP_FILTER_FLAG_*`.
    pub flags: libc::c_ulong,
    /// Who answers the syscalls of which the filter notifies: loading it makes a listener, for him.
    pub agent: Option<Agent>,
    /// It lets a process bear another one, which goes on to its program (`plan::exec::is_born_last`).
    pub bears: bool,
    /// What was skipped or decided silently, for the log.
    pub warnings: Vec<String>,
}

/// Who gets the listener of a filter, and what he is told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agent {
    pub path: PathBuf,
    pub metadata: Option<String>,
    /// The filter lets `sendmsg` pass.
    pub sendmsg: bool,
}

/// A system call ABI. x32 shares its `AUDIT_ARCH_*` with x86-64 and is told apart by bit 30 of the
/// number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arch {
    X86_64,
    X86,
    X32,
    Aarch64,
    Arm,
}

impl Arch {
    pub const ALL: [Arch; 5] = [Arch::X86_64, Arch::X86, Arch::X32, Arch::Aarch64, Arch::Arm];

    /// The ABI of this binary; `None` where there are no tables yet.
    pub const fn host() -> Option<Arch> {
        if cfg!(all(target_arch = "x86_64", target_pointer_width = "64")) {
            Some(Arch::X86_64)
        } else if cfg!(all(target_arch = "aarch64", target_endian = "little")) {
            Some(Arch::Aarch64)
        } else {
            None
        }
    }

    fn from_scmp(name: &str) -> Option<Arch> {
        Some(match name {
            "SCMP_ARCH_X86_64" => Arch::X86_64,
            "SCMP_ARCH_X86" => Arch::X86,
            "SCMP_ARCH_X32" => Arch::X32,
            "SCMP_ARCH_AARCH64" => Arch::Aarch64,
            "SCMP_ARCH_ARM" => Arch::Arm,
            _ => return None,
        })
    }

    /// The ABIs that a kernel of this one can be called by, itself first.
    fn family(self) -> &'static [Arch] {
        match self {
            Arch::X86_64 => &[Arch::X86_64, Arch::X86, Arch::X32],
            Arch::Aarch64 => &[Arch::Aarch64, Arch::Arm],
            Arch::X86 => &[Arch::X86],
            Arch::X32 => &[Arch::X32],
            Arch::Arm => &[Arch::Arm],
        }
    }

    /// `seccomp_data.arch` (`linux/audit.h`).
    pub const fn audit(self) -> u32 {
        match self {
            Arch::X86_64 | Arch::X32 => 0xc000_003e,
            Arch::X86 => 0x4000_0003,
            Arch::Aarch64 => 0xc000_00b7,
            Arch::Arm => 0x4000_0028,
        }
    }

    /// Arguments are 64 bits wide. x32's registers are, but its arguments are not.
    const fn is_64_bit(self) -> bool {
        matches!(self, Arch::X86_64 | Arch::Aarch64)
    }
}

/// The program for processes on a kernel of `host`, or everything that is wrong with the profile.
pub fn compile(seccomp: &Seccomp, host: Arch) -> Result<Program, Vec<Problem>> {
    let policy = Policy::new(seccomp, host)?;
    let filter = program::assemble(&policy)?;
    let Policy { flags, agent, bears, warnings, .. } = policy;
    Ok(Program { filter, flags, agent, bears, warnings })
}
