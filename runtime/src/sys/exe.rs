//! The file that this process is a program of, as `/proc/<pid>/exe` shows it.

use std::ffi::c_void;
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use nix::errno::Errno;

use super::clone::alone;
use super::cvt;
use super::spawn::Argv;

/// `execveat(2)` of an open file; returns only when it failed.
///
/// <https://man7.org/linux/man-pages/man2/execveat.2.html>
pub fn execute(file: BorrowedFd<'_>, args: &Argv, env: &Argv) -> Errno {
    // SAFETY: the path is NUL-terminated; both arrays end in null and hold pointers into strings that
    // their owners keep alive during the call.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            file.as_raw_fd(),
            c"".as_ptr(),
            args.as_ptr(),
            env.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    Errno::last()
}

/// `PR_SET_NAME`: what `ps` shows; the kernel keeps 15 bytes. `execveat(2)` of a descriptor calls a
/// process by the descriptor's number (before Linux 6.14).
pub fn set_name(name: &std::ffi::CStr) -> Result<(), Errno> {
    // SAFETY: PR_SET_NAME reads a NUL-terminated string, which `name` is.
    cvt(unsafe { libc::syscall(libc::SYS_prctl, libc::PR_SET_NAME, name.as_ptr(), 0, 0, 0) }).map(drop)
}

/// What the kernel remembers of the memory of a process, to be given back unchanged: of
/// `/proc/self/stat`, by the names of `prctl(2)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    pub code: (u64, u64),
    pub data: (u64, u64),
    pub start_brk: u64,
    pub start_stack: u64,
    pub args: (u64, u64),
    pub env: (u64, u64),
}

/// `struct prctl_mm_map`
#[repr(C)]
struct Map {
    code: [u64; 2],
    data: [u64; 2],
    brk: [u64; 2],
    start_stack: u64,
    args: [u64; 2],
    env: [u64; 2],
    auxv: u64,
    auxv_size: u32,
    exe_fd: u32,
}

/// Goes on as a program of `file`, another name of the file that we are a program of: each part of it
/// that is mapped is mapped again from `file`, at the same place, and `PR_SET_MM` then names `file`
/// as the program's. No `execve(2)`: nothing of the process is lost, and it takes half the time.
///
/// With `CAP_SYS_RESOURCE` on the host that is all. Without it the kernel wants to hear all that it
/// knows of our memory (`layout`), has to be built with `CONFIG_CHECKPOINT_RESTORE` (`EINVAL` if not),
/// and asks for `CAP_SYS_ADMIN` or, since 5.9, `CAP_CHECKPOINT_RESTORE` in our user namespace.
///
/// `file` must be the same file (the same inode, by another mount), open for reading: `EXDEV` if not.
/// `EBUSY` when something of the old one is still mapped, `EINVAL` in a process of several threads.
/// The program goes on after an error as well.
/// <https://man7.org/linux/man-pages/man2/PR_SET_MM.2const.html>
pub fn replace(file: BorrowedFd<'_>, layout: impl FnOnce() -> Result<Layout, Errno>) -> Result<(), Errno> {
    alone()?;
    let same = |a: nix::sys::stat::FileStat, b: nix::sys::stat::FileStat| {
        (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino)
    };
    if !same(nix::sys::stat::stat(c"/proc/self/exe")?, nix::sys::stat::fstat(file)?) {
        return Err(Errno::EXDEV);
    }
    let program = Program::ours()?;
    for segment in program.segments() {
        if segment.writable {
            detach(&segment.memory)?;
        } else {
            map_again(&segment, file)?;
        }
    }
    for range in program.read_only_after_relocation() {
        // SAFETY: our own pages, which nobody writes to: the dynamic linker or the C library had taken
        // the right to away before `main`, from these very pages.
        cvt(unsafe { libc::syscall(libc::SYS_mprotect, range.start, range.len(), libc::PROT_READ) })?;
    }
    match set_exe(file) {
        Err(Errno::EPERM) => set_map(file, &layout()?),
        other => other,
    }
}

/// A part of the program that is never written to: the same bytes of the same file at the same place.
fn map_again(segment: &Segment, file: BorrowedFd<'_>) -> Result<(), Errno> {
    let (place, len) = (segment.memory.start as *mut c_void, segment.memory.len());
    let prot = libc::PROT_READ | if segment.executable { libc::PROT_EXEC } else { 0 };
    let flags = libc::MAP_PRIVATE | libc::MAP_FIXED;
    // SAFETY: the range is of a segment that was mapped from the same offset of this inode (`replace`
    // has compared them) with these rights and that nobody may write to; nor can the file be written
    // to while it is being executed (ETXTBSY). The kernel puts the new mapping in the place of the
    // old one in one step. So every borrow of these bytes, and the code that runs, find what was there.
    let mapped = unsafe { libc::mmap(place, len, prot, flags, file.as_raw_fd(), segment.offset) };
    if mapped == libc::MAP_FAILED { Err(Errno::last()) } else { Ok(()) }
}

/// A part that is written to: the same bytes, of no file any more.
fn detach(memory: &Range<usize>) -> Result<(), Errno> {
    let len = memory.len();
    let prot = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE;
    // SAFETY: a new anonymous mapping at an address of the kernel's choice touches nothing.
    let copy = unsafe { libc::mmap(ptr::null_mut(), len, prot, flags, -1, 0) };
    if copy == libc::MAP_FAILED {
        return Err(Errno::last());
    }
    // SAFETY: `memory` is a segment of ours, all of it mapped and readable; the copy is as long, fresh, and
    // overlaps nothing.
    unsafe { ptr::copy_nonoverlapping(memory.start as *const u8, copy.cast(), len) };
    // SAFETY: the copy takes the place of what it is a copy of, in one step. Nothing was written there in
    // between: there is one thread (`replace` has asked), it has done nothing but this call since,
    // and the program handles no signal by writing to a static. So all that is borrowed there is as it
    // was. `copy` is never used again.
    let moved = unsafe {
        libc::syscall(
            libc::SYS_mremap,
            copy,
            len,
            len,
            libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED,
            memory.start,
        )
    };
    cvt(moved).map(drop)
}

fn set_exe(file: BorrowedFd<'_>) -> Result<(), Errno> {
    let (number, option) = (file.as_raw_fd(), libc::PR_SET_MM_EXE_FILE);
    let unused: libc::c_ulong = 0;
    // SAFETY: PR_SET_MM_EXE_FILE takes a descriptor and no pointer; what it does not use is zero in the width
    // that the kernel reads, as it asks.
    cvt(unsafe { libc::syscall(libc::SYS_prctl, libc::PR_SET_MM, option, number, unused, unused) }).map(drop)
}

fn set_map(file: BorrowedFd<'_>, layout: &Layout) -> Result<(), Errno> {
    const PR_SET_MM_MAP: libc::c_int = 14;
    // SAFETY: brk with an address that cannot be only answers where the heap ends.
    let brk = cvt(unsafe { libc::syscall(libc::SYS_brk, 0) })?;
    let pair = |(start, end)| [start, end];
    let map = Map {
        code: pair(layout.code),
        data: pair(layout.data),
        brk: [layout.start_brk, brk as u64],
        start_stack: layout.start_stack,
        args: pair(layout.args),
        env: pair(layout.env),
        auxv: 0,
        // 0: as it is.
        auxv_size: 0,
        exe_fd: file.as_raw_fd().unsigned_abs(),
    };
    let (size, unused) = (size_of::<Map>(), 0 as libc::c_ulong);
    // SAFETY: the kernel reads `size` bytes of `map`, which outlives the call; it checks each number and
    // only keeps them, all but the file's as they were.
    cvt(unsafe {
        libc::syscall(libc::SYS_prctl, libc::PR_SET_MM, PR_SET_MM_MAP, &raw const map, size, unused)
    })
    .map(drop)
}

/// `Elf64_Phdr`
#[repr(C)]
struct Header {
    kind: u32,
    flags: u32,
    offset: u64,
    address: u64,
    _physical: u64,
    file_size: u64,
    memory_size: u64,
    _align: u64,
}

/// Our own program headers.
struct Program {
    headers: &'static [Header],
    /// How far from where the file says it was loaded: 0, unless it may be loaded anywhere.
    bias: u64,
    page: u64,
}

struct Segment {
    memory: Range<usize>,
    offset: i64,
    writable: bool,
    executable: bool,
}

impl Program {
    fn ours() -> Result<Self, Errno> {
        const AT_PHDR: u64 = 3;
        const AT_PHNUM: u64 = 5;
        const AT_PAGESZ: u64 = 6;
        const EHDR_SIZE: u64 = 64;
        if !cfg!(target_pointer_width = "64") {
            return Err(Errno::ENOEXEC);
        }
        // SAFETY: getauxval reads what the kernel has left for the process, and takes no pointer.
        let value = |kind| unsafe { libc::getauxval(kind) };
        let (at, count, page) = (value(AT_PHDR), value(AT_PHNUM), value(AT_PAGESZ));
        if at == 0 || count == 0 || !page.is_power_of_two() {
            return Err(Errno::ENOEXEC);
        }
        // SAFETY: the kernel says that there are `count` headers of this program at `at`; they are in a
        // read-only segment that stays mapped, with these bytes, until the process ends.
        let headers = unsafe { std::slice::from_raw_parts(at as *const Header, count as usize) };
        let mut program = Self { headers, bias: 0, page };
        let first = program.of_kind(PT_LOAD).next().ok_or(Errno::ENOEXEC)?;
        // The headers follow the file's own, at the begin of the first segment.
        if first.offset != 0 || at % page != EHDR_SIZE {
            return Err(Errno::ENOEXEC);
        }
        program.bias = (at - EHDR_SIZE).wrapping_sub(first.address);
        Ok(program)
    }

    fn of_kind(&self, kind: u32) -> impl Iterator<Item = &'static Header> {
        self.headers.iter().filter(move |header| header.kind == kind)
    }

    fn down(&self, address: u64) -> u64 {
        address & !(self.page - 1)
    }

    fn range(&self, start: u64, end: u64) -> Range<usize> {
        self.bias.wrapping_add(start) as usize..self.bias.wrapping_add(end) as usize
    }

    /// What is mapped of the file, in whole pages.
    fn segments(&self) -> impl Iterator<Item = Segment> {
        self.of_kind(PT_LOAD).filter(|header| header.file_size > 0).map(|header| {
            let end = self.down(header.address + header.file_size + self.page - 1);
            Segment {
                memory: self.range(self.down(header.address), end),
                offset: self.down(header.offset) as i64,
                writable: header.flags & PF_W != 0,
                executable: header.flags & PF_X != 0,
            }
        })
    }

    /// The whole pages of it, as the C library protects them.
    fn read_only_after_relocation(&self) -> impl Iterator<Item = Range<usize>> {
        self.of_kind(PT_GNU_RELRO)
            .map(|header| {
                self.range(self.down(header.address), self.down(header.address + header.memory_size))
            })
            .filter(|range| !range.is_empty())
    }
}

const PT_LOAD: u32 = 1;
const PT_GNU_RELRO: u32 = 0x6474_e552;
const PF_X: u32 = 1;
const PF_W: u32 = 2;
