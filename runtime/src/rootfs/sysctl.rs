//! `linux.sysctl`: one file in `/proc/sys` each, written through a proc file system that is known
//! to be one (CVE-2025-52881: a write that lands in another file of proc).

use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;

use crate::error::Problem;
use crate::sys::procfs;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// Relative to the root of proc: `sys/net/ipv4/ip_forward`.
    pub path: CString,
    /// Written in one piece, as it is.
    pub value: CString,
}

/// The keys of a checked configuration are paths below `/proc/sys`.
pub fn plan(sysctl: &BTreeMap<String, String>) -> Result<Vec<Write>, Vec<Problem>> {
    let mut writes = Vec::new();
    let mut problems = Vec::new();
    for (name, value) in sysctl {
        match (CString::new(format!("sys/{name}")), CString::new(value.as_str())) {
            (Ok(path), Ok(value)) => writes.push(Write { path, value }),
            _ => problems.push(Problem {
                pointer: "/linux/sysctl".into(),
                what: format!("{name:?} or its value holds a NUL byte"),
            }),
        }
    }
    if problems.is_empty() { Ok(writes) } else { Err(problems) }
}

/// Below a root that [`procfs::provide`] has checked.
pub fn write(proc: BorrowedFd<'_>, path: &CStr, value: &CStr) -> Result<(), Errno> {
    let file = procfs::open(proc, path, libc::O_WRONLY)?;
    procfs::write(file.as_fd(), value.to_bytes())
}
