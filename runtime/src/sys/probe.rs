//! Which of the system calls that everything is built on are missing: an old kernel, or a filter
//! around the runtime that answers `ENOSYS`. Asked with arguments that can do nothing.

use nix::errno::Errno;

/// The first that is missing. About a microsecond.
pub fn missing() -> Option<&'static str> {
    const BAD_FD: libc::c_long = -1;
    let calls: [(&'static str, libc::c_long, [libc::c_long; 2]); 10] = [
        ("clone3", libc::SYS_clone3, [0, 0]),
        ("openat2", libc::SYS_openat2, [BAD_FD, 0]),
        ("fsopen", libc::SYS_fsopen, [0, -1]),
        ("open_tree", libc::SYS_open_tree, [BAD_FD, 0]),
        ("move_mount", libc::SYS_move_mount, [BAD_FD, 0]),
        ("mount_setattr", libc::SYS_mount_setattr, [BAD_FD, 0]),
        ("close_range", libc::SYS_close_range, [1, 0]),
        ("faccessat2", libc::SYS_faccessat2, [BAD_FD, 0]),
        ("pidfd_open", libc::SYS_pidfd_open, [-1, 0]),
        ("pidfd_send_signal", libc::SYS_pidfd_send_signal, [BAD_FD, 0]),
    ];
    calls.into_iter().find(|(_, number, arguments)| is_missing(*number, *arguments)).map(|(name, ..)| name)
}

fn is_missing(number: libc::c_long, [first, second]: [libc::c_long; 2]) -> bool {
    let none: libc::c_long = 0;
    // SAFETY: no descriptor is valid, no pointer but null is passed, sizes are 0 and the range is
    // empty: each of these calls can only fail, before it touches anything.
    let result = unsafe { libc::syscall(number, first, second, none, none, none) };
    result == -1 && Errno::last() == Errno::ENOSYS
}

#[cfg(test)]
mod tests {
    #[test]
    fn nothing_is_missing_where_the_tests_run() {
        assert_eq!(super::missing(), None);
    }
}
