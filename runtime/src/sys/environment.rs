//! The environment that this process was started with: `environ(7)`.

use std::ffi::c_char;

use super::clone::OneThread;

unsafe extern "C" {
    static environ: *const *mut c_char;
}

/// Overwrites it with zeros, for whoever may look into this process (`/proc/<pid>/environ`): it is a caller's, with his
/// secrets, and a clone has a copy of it.
pub fn wipe(_: &OneThread) {
    // SAFETY: a variable of the C library; with one thread nobody sets another one meanwhile.
    let mut entry = unsafe { environ };
    if entry.is_null() {
        return;
    }
    loop {
        // SAFETY: `entry` is in the array of the environment, which ends in null, and goes no further than that.
        let string = unsafe { *entry };
        if string.is_null() {
            return;
        }
        // SAFETY: each string of the environment ends in NUL.
        let length = unsafe { libc::strlen(string) };
        // SAFETY: they stand on the stack, where the kernel has put them, or where `setenv` has allocated them: in memory
        // that is ours to write for that length, and nobody holds a reference to them (std copies what it gives out).
        unsafe { string.write_bytes(0, length) };
        // SAFETY: the entry was not the last one, so the next is in the array, too.
        entry = unsafe { entry.add(1) };
    }
}
