//! What we run from, as somebody sees it who has all rights and looks at `/proc/<pid>/exe`. Each case is a copy
//! of this program in a process of its own: the copy, because what is being executed elsewhere
//! cannot be written to anyhow; a process of its own, because libtest has several threads.
#![allow(clippy::unwrap_used)]

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{OpenOptionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::unistd::geteuid;
use tare::seal::seal;
use tare::sys::mount::{At, MountAttr, attr, mount_setattr, move_mount, open_tree_clone};

const NOBODY: u32 = 65534;

fn main() -> ExitCode {
    // As a package manager does while a shim starts.
    if let Some(path) = std::env::var_os("REMOVE") {
        let _gone = fs::remove_file(path);
    }
    match std::env::args().nth(1).as_deref() {
        Some("sealed") => be(|| seal().unwrap()),
        // Nothing is done in place in a process of two threads: so this one starts again.
        Some("started-again") => be(|| {
            std::thread::spawn(|| std::thread::sleep(std::time::Duration::from_secs(60)));
            seal().unwrap();
        }),
        Some("open") => be(|| ()),
        _ if !geteuid().is_root() => println!("SKIP seal: needs root"),
        _ => {
            for (name, case) in CASES {
                println!("{name}");
                case();
            }
        }
    }
    ExitCode::SUCCESS
}

const CASES: &[(&str, fn())] = &[
    ("what_is_not_sealed_can_be_written_to", control),
    ("a_sealed_program_cannot_be_written_to", in_place),
    ("nor_can_one_that_had_to_start_again", started_again),
    ("nor_one_whose_file_was_replaced_meanwhile", replaced),
    ("an_ordinary_users_own_file_is_copied_and_the_copy_sealed", users_own_file),
    ("a_file_of_roots_needs_no_copy_for_an_ordinary_user", roots_file),
];

/// Says what it is, and waits.
fn be(seal: fn()) {
    static COUNTER: AtomicU64 = AtomicU64::new(7);
    COUNTER.store(8, Ordering::Relaxed);
    let words = vec![String::from("on the heap"); 100];
    seal();
    // What was in memory is there, and what can be written to can be.
    assert_eq!(words.concat(), "on the heap".repeat(100));
    assert_eq!(COUNTER.fetch_add(1, Ordering::Relaxed), 8);
    assert_eq!(COUNTER.load(Ordering::Relaxed), 9);
    let name = fs::read_to_string("/proc/self/comm").unwrap();
    let link = fs::read_link("/proc/self/exe").unwrap();
    let fds = fs::read_dir("/proc/self/fd").unwrap().count() - 1;
    println!("{}|{}|{fds}|{}", link.display(), name.trim(), std::env::var("KEPT").unwrap());
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    assert_eq!(line, "end\n");
    // From the heap, from constants, and by code that was not used before.
    let text = format!("{:?} {:e}", words.iter().map(String::len).collect::<Vec<_>>(), 1.5f64);
    assert!(text.ends_with("1.5e0"), "{text}");
}

struct Subject {
    dir: tempfile::TempDir,
    program: PathBuf,
    child: Child,
    exe: String,
    name: String,
    /// How many it has open: what we pass on without knowing, too.
    descriptors: usize,
}

/// Runs a copy of this program, owned by `owner`, as `user`.
fn subject(word: &str, owner: u32, user: u32) -> Subject {
    subject_with(word, owner, user, false)
}

fn subject_with(word: &str, owner: u32, user: u32, removed: bool) -> Subject {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let program = dir.path().join("program");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    chown(&program, Some(owner), Some(owner)).unwrap();
    let mut command = Command::new(&program);
    command.arg(word).env("KEPT", "kept").stdin(Stdio::piped()).stdout(Stdio::piped()).uid(user).gid(user);
    if removed {
        command.env("REMOVE", &program);
    }
    let mut child = command.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let words: Vec<&str> = line.trim().split('|').collect();
    assert_eq!(words[3], "kept", "{line}");
    // What `ps` shows of it is as it was.
    let cmdline = fs::read(format!("/proc/{}/cmdline", child.id())).unwrap();
    let expected = format!("{}\0{word}\0", program.display());
    assert_eq!(String::from_utf8_lossy(&cmdline), expected);
    let (exe, name) = (words[0].to_owned(), words[1].to_owned());
    let descriptors = words[2].parse().unwrap();
    Subject { dir, program, child, exe, name, descriptors }
}

impl Subject {
    /// The link, open as one holds it who waits for his chance.
    fn held(&self) -> File {
        let link = format!("/proc/{}/exe", self.child.id());
        OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(link).unwrap()
    }

    fn end(mut self) -> (tempfile::TempDir, PathBuf) {
        self.child.stdin.take().unwrap().write_all(b"end\n").unwrap();
        assert!(self.child.wait().unwrap().success());
        (self.dir, self.program)
    }
}

fn write_to(held: &File) -> Result<(), Errno> {
    let path = format!("/proc/self/fd/{}", held.as_raw_fd());
    let opened = OpenOptions::new().write(true).open(path);
    opened
        .and_then(|mut file| file.write_all(b"#!/bin/sh\n"))
        .map_err(|e| Errno::from_raw(e.raw_os_error().unwrap()))
}

/// All that could make the mount behind it writable, or give another one of it.
fn unwrap(held: &File, dir: &Path) {
    let (path, target) = (format!("/proc/self/fd/{}", held.as_raw_fd()), dir.join("target"));
    File::create(&target).unwrap();
    let c_path = std::ffi::CString::new(path.clone()).unwrap();
    let writable = MountAttr { clear: attr::RDONLY, ..MountAttr::default() };
    let none = None::<&str>;
    let bind = MsFlags::MS_BIND;
    assert_eq!(mount_setattr(At::Fd(held.as_fd()), false, &writable), Err(Errno::EINVAL));
    assert_eq!(mount_setattr(At::Path(&c_path), true, &writable), Err(Errno::EINVAL));
    assert_eq!(mount(none, path.as_str(), none, bind | MsFlags::MS_REMOUNT, none), Err(Errno::EINVAL));
    assert_eq!(mount(none, path.as_str(), none, MsFlags::MS_SHARED, none), Err(Errno::EINVAL));
    assert_eq!(open_tree_clone(At::Fd(held.as_fd()), false, false).map(drop), Err(Errno::EINVAL));
    assert_eq!(mount(Some(path.as_str()), &target, none, bind, none), Err(Errno::EINVAL));
    let to = std::ffi::CString::new(target.to_str().unwrap()).unwrap();
    assert_eq!(move_mount(held.as_fd(), At::Path(&to)), Err(Errno::EINVAL));
}

fn control() {
    let subject = subject("open", 0, 0);
    let held = subject.held();
    assert_eq!(Path::new(&subject.exe), subject.program);
    assert_eq!(write_to(&held), Err(Errno::ETXTBSY));
    let (_dir, program) = subject.end();
    write_to(&held).unwrap();
    assert!(fs::read(program).unwrap().starts_with(b"#!/bin/sh\n"));
}

fn never_writable(subject: Subject) {
    assert_eq!((subject.exe.as_str(), subject.name.as_str()), ("/", "program"));
    let open = self::subject("open", 0, 0);
    assert_eq!(subject.descriptors, open.descriptors);
    open.end();
    let held = subject.held();
    unwrap(&held, subject.dir.path());
    assert_eq!(write_to(&held), Err(Errno::ETXTBSY));
    // The program that is executed by this link has this link too.
    let mut other = Command::new(format!("/proc/{}/exe", subject.child.id()));
    let mut other =
        other.arg("open").env("KEPT", "").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let link = format!("/proc/{}/exe", other.id());
    let theirs = OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(link).unwrap();
    other.stdin.take().unwrap().write_all(b"end\n").unwrap();
    assert!(other.wait().unwrap().success());
    let (dir, program) = subject.end();
    for held in [held, theirs] {
        unwrap(&held, dir.path());
        assert_eq!(write_to(&held), Err(Errno::EROFS));
    }
    let own = fs::read(std::env::current_exe().unwrap()).unwrap();
    assert!(fs::read(&program).unwrap() == own, "the file has changed");
    // By its own name it is a file like any other: a package manager may replace or change it.
    OpenOptions::new().write(true).open(&program).unwrap();
}

fn in_place() {
    never_writable(subject("sealed", 0, 0));
}

fn started_again() {
    never_writable(subject("started-again", 0, 0));
}

/// It is sealed, and what it executes by its link finds itself sealed.
fn replaced() {
    let subject = subject_with("sealed", 0, 0, true);
    assert_eq!(subject.exe, "/ (deleted)");
    let held = subject.held();
    let mut other = Command::new(format!("/proc/{}/exe", subject.child.id()));
    let mut other =
        other.arg("sealed").env("KEPT", "").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(other.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert!(line.starts_with("/ (deleted)|"), "{line}");
    other.stdin.take().unwrap().write_all(b"end\n").unwrap();
    assert!(other.wait().unwrap().success());
    let (_dir, _) = subject.end();
    assert_eq!(write_to(&held), Err(Errno::EROFS));
}

fn users_own_file() {
    let subject = subject("sealed", NOBODY, NOBODY);
    assert_eq!((subject.exe.as_str(), subject.name.as_str()), ("/memfd:tare (deleted)", "program"));
    let held = subject.held();
    let (_dir, program) = subject.end();
    assert_eq!(write_to(&held), Err(Errno::EPERM));
    assert!(fs::read(program).unwrap() == fs::read(std::env::current_exe().unwrap()).unwrap());
}

fn roots_file() {
    let subject = subject("sealed", 0, NOBODY);
    assert_eq!(Path::new(&subject.exe), subject.program);
    subject.end();
}
