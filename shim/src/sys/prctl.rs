//! `prctl(2)`, where nix has no name for it.

use libc::c_ulong;
use nix::errno::Errno;

/// `PR_SCHED_CORE_SCOPE_PROCESS_GROUP`
const PROCESS_GROUP: c_ulong = 2;

/// A new cookie for our process group: nothing of others runs beside it on the same core. Children inherit it.
///
/// Linux 5.14. `ENODEV` without SMT, `EINVAL` in a kernel built without core scheduling.
/// <https://docs.kernel.org/admin-guide/hw-vuln/core-scheduling.html>
pub fn create_core_cookie() -> Result<(), Errno> {
    let unused: c_ulong = 0;
    // SAFETY: PR_SCHED_CORE_CREATE takes four numbers and no pointer: the last must be 0 here, which it
    // is; the pid 0 means the caller. All have the width that the kernel reads.
    let result = unsafe {
        libc::prctl(libc::PR_SCHED_CORE, libc::PR_SCHED_CORE_CREATE as c_ulong, unused, PROCESS_GROUP, unused)
    };
    Errno::result(result).map(drop)
}
