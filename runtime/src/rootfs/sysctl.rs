//! `linux.sysctl`: one file in `/proc/sys` each, written through a proc file system that is known
//! to be one (CVE-2025-52881: a write that lands in another file of proc).

use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::os::fd::BorrowedFd;

use nix::errno::Errno;

use super::resolve::open_host;
use crate::error::Problem;
use crate::sys::fd::{openat2, resolve};
use crate::sys::slots::{self, Slots};

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

/// The proc file system to write in: the container's own as it was mounted, or else the host's,
/// which shows this process its own namespaces' values too.
pub fn open_proc(slots: &mut Slots) -> Result<(), Errno> {
    if !slots.is_filled(slots::PROC) {
        slots.keep(slots::PROC, open_host(c"/proc", libc::O_PATH | libc::O_DIRECTORY)?);
    }
    Ok(())
}

pub fn write(proc: BorrowedFd<'_>, path: &CStr, value: &CStr) -> Result<(), Errno> {
    let how = resolve::BENEATH | resolve::NO_SYMLINKS | resolve::NO_XDEV;
    let fd = openat2(proc, path, libc::O_WRONLY, 0, how)?;
    let bytes = value.to_bytes();
    match nix::unistd::write(&fd, bytes)? {
        n if n == bytes.len() => Ok(()),
        _ => Err(Errno::EIO),
    }
}
