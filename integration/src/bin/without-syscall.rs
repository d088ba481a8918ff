//! Runs a command as on a kernel that lacks some system calls: each answers `ENOSYS`.
//!
//! ```text
//! without-syscall openat2,clone3 -- tare run test
//! ```

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

/// What a container runtime may ask of a kernel and an older one may lack.
const NAMES: [(&str, libc::c_long); 19] = [
    ("clone3", libc::SYS_clone3),
    ("close_range", libc::SYS_close_range),
    ("execveat", libc::SYS_execveat),
    ("faccessat2", libc::SYS_faccessat2),
    ("fsconfig", libc::SYS_fsconfig),
    ("fsmount", libc::SYS_fsmount),
    ("fsopen", libc::SYS_fsopen),
    ("memfd_create", libc::SYS_memfd_create),
    ("mount_setattr", libc::SYS_mount_setattr),
    ("move_mount", libc::SYS_move_mount),
    ("open_tree", libc::SYS_open_tree),
    ("openat2", libc::SYS_openat2),
    ("pidfd_getfd", libc::SYS_pidfd_getfd),
    ("pidfd_open", libc::SYS_pidfd_open),
    ("pidfd_send_signal", libc::SYS_pidfd_send_signal),
    ("prlimit64", libc::SYS_prlimit64),
    ("renameat2", libc::SYS_renameat2),
    ("splice", libc::SYS_splice),
    ("statx", libc::SYS_statx),
];

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let names = arguments.next().and_then(|names| names.into_string().ok());
    let command: Vec<_> = arguments.skip_while(|argument| argument == "--").collect();
    let (Some(names), Some((program, arguments))) = (names, command.split_first()) else {
        eprintln!("usage: without-syscall NAME[,NAME...] -- COMMAND [ARGUMENT...]");
        return ExitCode::from(2);
    };
    let mut numbers = Vec::new();
    for name in names.split(',') {
        let Some((_, number)) = NAMES.iter().find(|(known, _)| *known == name) else {
            let known: Vec<_> = NAMES.iter().map(|(name, _)| *name).collect();
            eprintln!("without-syscall: {name} is not one of {}", known.join(" "));
            return ExitCode::from(2);
        };
        numbers.push(*number);
    }
    if let Err(error) = integration::take_away(&numbers) {
        eprintln!("without-syscall: seccomp: {error}");
        return ExitCode::from(2);
    }
    let error = Command::new(program).args(arguments).exec();
    eprintln!("without-syscall: {}: {error}", program.display());
    ExitCode::from(127)
}
