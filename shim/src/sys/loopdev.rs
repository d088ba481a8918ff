//! A file as a block device: `loop(4)`.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use libc::c_ulong;
use nix::errno::Errno;

const LOOP_CONFIGURE: c_ulong = 0x4c0a;
const LOOP_CTL_GET_FREE: c_ulong = 0x4c82;

const READ_ONLY: u32 = 1;
const AUTOCLEAR: u32 = 4;
const DIRECT_IO: u32 = 16;

/// `struct loop_info64` of `linux/loop.h`.
#[repr(C)]
struct Info {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config`.
#[repr(C)]
struct Config {
    fd: u32,
    block_size: u32,
    info: Info,
    reserved: [u64; 8],
}

/// How the device is to be.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    pub read_only: bool,
    pub direct_io: bool,
}

/// A device that is free again when it is closed and no longer mounted.
#[derive(Debug)]
pub struct Device {
    pub path: PathBuf,
    _open: File,
}

/// Makes a device of `file`. Linux 5.8. `EBUSY`: all were taken by others, time and again.
pub fn attach(file: &Path, options: Options) -> io::Result<Device> {
    let open = |path: &Path| {
        OpenOptions::new().read(true).write(!options.read_only).custom_flags(libc::O_CLOEXEC).open(path)
    };
    let file = open(file)?;
    let control = OpenOptions::new().read(true).write(true).open("/dev/loop-control")?;
    // Who asks for a free one may find that another was faster.
    for _ in 0..100 {
        // SAFETY: LOOP_CTL_GET_FREE takes no argument, and touches no memory of ours.
        let number = Errno::result(unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) })?;
        let path = PathBuf::from(format!("/dev/loop{number}"));
        let device = open(&path)?;
        match configure(&device, &file, options) {
            Ok(()) => return Ok(Device { path, _open: device }),
            Err(Errno::EBUSY) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Err(Errno::EBUSY.into())
}

fn configure(device: &File, file: &File, options: Options) -> Result<(), Errno> {
    let mut flags = AUTOCLEAR;
    if options.read_only {
        flags |= READ_ONLY;
    }
    if options.direct_io {
        flags |= DIRECT_IO;
    }
    let info = Info {
        device: 0,
        inode: 0,
        rdevice: 0,
        offset: 0,
        size_limit: 0,
        number: 0,
        encrypt_type: 0,
        encrypt_key_size: 0,
        flags,
        file_name: [0; 64],
        crypt_name: [0; 64],
        encrypt_key: [0; 32],
        init: [0; 2],
    };
    let fd = u32::try_from(file.as_raw_fd()).map_err(|_| Errno::EBADF)?;
    let config = Config { fd, block_size: 0, info, reserved: [0; 8] };
    // SAFETY: LOOP_CONFIGURE reads a loop_config, which `config` is (`repr(C)`, the same fields, which leave no
    // padding between them) and which outlives the call.
    Errno::result(unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE, &raw const config) }).map(drop)
}

/// Whether a file system is mounted read-only and so on: the `MS_` flags that the mount has and that a
/// user namespace may not take from it.
pub fn locked_flags(mount: BorrowedFd<'_>) -> Result<c_ulong, Errno> {
    let found = nix::sys::statvfs::fstatvfs(mount)?.flags().bits();
    let table = [
        (libc::ST_RDONLY, libc::MS_RDONLY),
        (libc::ST_NOSUID, libc::MS_NOSUID),
        (libc::ST_NODEV, libc::MS_NODEV),
        (libc::ST_NOEXEC, libc::MS_NOEXEC),
        (libc::ST_NOATIME, libc::MS_NOATIME),
        (libc::ST_NODIRATIME, libc::MS_NODIRATIME),
        (libc::ST_RELATIME, libc::MS_RELATIME),
    ];
    Ok(table.iter().filter(|(has, _)| found & has != 0).fold(0, |flags, (_, flag)| flags | flag))
}
