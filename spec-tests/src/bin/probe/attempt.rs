//! The verb `try`: one operation, and the kernel's answer to it.

use std::ffi::CString;
use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags};
use nix::sys::signal::Signal;
use nix::sys::stat::{Mode, SFlag};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::{number, sys};

/// `{"ok": …}` or `{"errno": "EPERM"}`; `Err` when the words make no operation.
pub(crate) fn attempt(words: &[&str]) -> Result<Value, String> {
    let answer = match words {
        ["stat", path] => stat(path),
        ["list", path] => list(path),
        ["read", path] => io(fs::read(path)).map(|bytes| json!(String::from_utf8_lossy(&bytes))),
        ["readlink", path] => io(fs::read_link(path)).map(|p| json!(p)),
        // Of a device, whose contents have no end.
        ["take", path, count] => take(path, number(count)?),
        ["open", path, "r"] => io(OpenOptions::new().read(true).open(path)).map(|_| json!(true)),
        ["open", path, "w"] => io(OpenOptions::new().write(true).open(path)).map(|_| json!(true)),
        ["open", path, "rw"] => io(OpenOptions::new().read(true).write(true).open(path)).map(|_| json!(true)),
        // Into a file that is there.
        ["write", path, text] => {
            io(OpenOptions::new().write(true).open(path).and_then(|mut f| f.write_all(text.as_bytes())))
                .map(done)
        }
        // Makes the file.
        ["create", path, text] => io(fs::write(path, text)).map(done),
        ["mkdir", path] => io(fs::create_dir(path)).map(done),
        ["unlink", path] => io(fs::remove_file(path)).map(done),
        ["symlink", target, path] => io(std::os::unix::fs::symlink(target, path)).map(done),
        ["chdir", path] => io(std::env::set_current_dir(path)).map(done),
        ["chown", path, uid, gid] => {
            io(std::os::unix::fs::chown(path, Some(number(uid)?), Some(number(gid)?))).map(done)
        }
        ["mknod", path, kind, major, minor] => mknod(path, kind, number(major)?, number(minor)?)?,
        ["mount", source, target, kind, flags] => {
            let flags = MsFlags::from_bits_retain(number(flags)?);
            nix::mount::mount(Some(*source), *target, Some(*kind), flags, None::<&str>).map(done)
        }
        ["umount", target] => nix::mount::umount2(*target, MntFlags::MNT_DETACH).map(done),
        ["chroot", path] => nix::unistd::chroot(*path).map(done),
        ["sethostname", name] => nix::unistd::sethostname(name).map(done),
        ["setuid", uid] => nix::unistd::setuid(nix::unistd::Uid::from_raw(number(uid)?)).map(done),
        ["unshare", flags] => {
            nix::sched::unshare(nix::sched::CloneFlags::from_bits_retain(number(flags)?)).map(done)
        }
        ["kill", pid, signal] => {
            let signal = match number::<i32>(signal)? {
                0 => None,
                n => Some(Signal::try_from(n).map_err(|e| e.to_string())?),
            };
            nix::sys::signal::kill(Pid::from_raw(number(pid)?), signal).map(done)
        }
        // A number of the machine the test was built for, and integers.
        ["syscall", call, arguments @ ..] => {
            let mut values = [0; 6];
            for (value, text) in values.iter_mut().zip(arguments) {
                *value = number(text)?;
            }
            sys::syscall(number(call)?, values).map(|n| json!(n))
        }
        ["socket", domain, kind, protocol] => {
            let arguments = [number(domain)?, number(kind)?, number(protocol)?, 0, 0, 0];
            sys::syscall(libc::SYS_socket, arguments).map(|_| json!(true))
        }
        // One datagram to a unix socket.
        ["send", path, text] => io(std::os::unix::net::UnixDatagram::unbound()
            .and_then(|socket| socket.send_to(text.as_bytes(), path)))
        .map(|n| json!(n)),
        ["exec", path, arguments @ ..] => {
            let text = |t: &&str| CString::new(*t).map_err(|e| e.to_string());
            let argv: Vec<CString> =
                std::iter::once(path).chain(arguments).map(text).collect::<Result<_, String>>()?;
            Err(sys::exec(&text(path)?, &argv))
        }
        _ => return Err("no such operation".to_owned()),
    };
    Ok(match answer {
        Ok(value) => json!({ "ok": value }),
        Err(errno) => json!({ "errno": format!("{errno:?}") }),
    })
}

fn io<T>(result: std::io::Result<T>) -> Result<T, Errno> {
    result.map_err(|e| Errno::from_raw(e.raw_os_error().unwrap_or(libc::EIO)))
}

fn done((): ()) -> Value {
    json!(true)
}

fn stat(path: &str) -> Result<Value, Errno> {
    let meta = io(fs::symlink_metadata(path))?;
    let kind = meta.file_type();
    let kind = match () {
        () if kind.is_dir() => "directory",
        () if kind.is_symlink() => "link",
        () if kind.is_char_device() => "char",
        () if kind.is_block_device() => "block",
        () if kind.is_fifo() => "fifo",
        () if kind.is_socket() => "socket",
        () => "file",
    };
    Ok(json!({
        "type": kind, "mode": meta.mode() & 0o7777, "uid": meta.uid(), "gid": meta.gid(), "size": meta.size(),
        "device": [libc::major(meta.rdev()), libc::minor(meta.rdev())], "inode": meta.ino(),
    }))
}

fn list(path: &str) -> Result<Value, Errno> {
    let mut names = Vec::new();
    for entry in io(fs::read_dir(path))? {
        names.push(io(entry)?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(json!(names))
}

fn take(path: &str, count: usize) -> Result<Value, Errno> {
    let mut bytes = vec![0; count];
    let read = io(fs::File::open(path).and_then(|mut f| f.read(&mut bytes)))?;
    bytes.truncate(read);
    Ok(json!(bytes))
}

fn mknod(path: &str, kind: &str, major: u64, minor: u64) -> Result<Result<Value, Errno>, String> {
    let kind = match kind {
        "c" => SFlag::S_IFCHR,
        "b" => SFlag::S_IFBLK,
        "p" => SFlag::S_IFIFO,
        _ => return Err(format!("{kind:?} is no kind of node")),
    };
    let device = nix::sys::stat::makedev(major, minor);
    Ok(nix::sys::stat::mknod(path, kind, Mode::from_bits_truncate(0o666), device).map(done))
}
