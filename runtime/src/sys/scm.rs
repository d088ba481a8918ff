//! Descriptors over Unix sockets: `unix(7)`, `cmsg(3)`. Between the runtime and init, and to the
//! sockets that take a console or a pidfd.

use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use nix::errno::Errno;

/// The most descriptors of one message: `SCM_MAX_FD` of the kernel (`include/net/scm.h`).
pub const MAX_FDS: usize = 253;

/// `CMSG_SPACE(MAX_FDS * 4)` on 64-bit: a header of 16 bytes and the numbers, rounded up to 8.
const CONTROL: usize = 1032;

/// Room for one control message, aligned as `cmsghdr` needs.
#[repr(C, align(8))]
struct Control([u8; CONTROL]);

/// Sends `data`, which must not be empty, with `fds` in one message; never raises SIGPIPE.
///
/// Gives the bytes sent: all of them on a packet socket, possibly fewer on a stream (the
/// descriptors then went with the first part).
/// `EINVAL` for no data (a stream would drop the descriptors) or more than [`MAX_FDS`].
/// <https://man7.org/linux/man-pages/man2/sendmsg.2.html>
pub fn send_with_fds(socket: BorrowedFd<'_>, data: &[u8], fds: &[BorrowedFd<'_>]) -> Result<usize, Errno> {
    if data.is_empty() || fds.len() > MAX_FDS {
        return Err(Errno::EINVAL);
    }
    let mut control = Control([0; CONTROL]);
    let mut iov = libc::iovec { iov_base: data.as_ptr().cast_mut().cast(), iov_len: data.len() };
    let mut header = message(&mut iov);
    if !fds.is_empty() {
        let length = fds.len() * size_of::<RawFd>();
        header.msg_control = control.0.as_mut_ptr().cast();
        // SAFETY: only computes; `length` is at most 1012, so no overflow.
        let space = unsafe { libc::CMSG_SPACE(length as u32) };
        // SAFETY: as above.
        let len = unsafe { libc::CMSG_LEN(length as u32) };
        header.msg_controllen = space as _;
        // SAFETY: reads two fields of `header`.
        let first = unsafe { libc::CMSG_FIRSTHDR(&header) };
        // SAFETY: msg_control has CONTROL bytes, aligned, and msg_controllen is at least a header,
        // so `first` is the start of `control`, not null.
        let first = unsafe { &mut *first };
        first.cmsg_level = libc::SOL_SOCKET;
        first.cmsg_type = libc::SCM_RIGHTS;
        first.cmsg_len = len as _;
        // SAFETY: `first` is a header inside `control`.
        let data = unsafe { libc::CMSG_DATA(first) }.cast::<RawFd>();
        // SAFETY: `length` bytes follow the header in `control`, because CONTROL is the CMSG_SPACE
        // of the greatest `length`; aligned, since header and buffer are aligned to 8.
        let numbers = unsafe { std::slice::from_raw_parts_mut(data, fds.len()) };
        for (slot, fd) in numbers.iter_mut().zip(fds) {
            *slot = fd.as_raw_fd();
        }
    }
    retry(|| {
        // SAFETY: `header` points to `iov`, `data` and `control`, all alive; the kernel only reads them.
        unsafe { libc::sendmsg(socket.as_raw_fd(), &header, libc::MSG_NOSIGNAL) }
    })
}

/// What [`recv_with_fds`] took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    /// 0: the other end is closed.
    pub bytes: usize,
    /// How many slots were filled, from the first one.
    pub fds: usize,
}

/// Receives one message into `buffer`, its descriptors (close-on-exec) into the first of `slots`.
///
/// `EMSGSIZE` when it did not fit into `buffer` or `slots`: what came is closed again.
/// <https://man7.org/linux/man-pages/man2/recvmsg.2.html>
pub fn recv_with_fds(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
    slots: &mut [Option<OwnedFd>],
) -> Result<Received, Errno> {
    if slots.len() > MAX_FDS {
        return Err(Errno::EINVAL);
    }
    for slot in slots.iter_mut() {
        *slot = None;
    }
    let mut control = Control([0; CONTROL]);
    let mut iov = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    let mut header = message(&mut iov);
    if !slots.is_empty() {
        header.msg_control = control.0.as_mut_ptr().cast();
        // CMSG_LEN and not CMSG_SPACE: the padding of an odd number would hold one more descriptor.
        // SAFETY: only computes; at most 1012, so no overflow.
        let length = unsafe { libc::CMSG_LEN((slots.len() * size_of::<RawFd>()) as u32) };
        header.msg_controllen = length as _;
    }
    let bytes = retry(|| {
        // SAFETY: `header` points to `iov`, `buffer` and `control`, all alive and writable for the lengths given.
        unsafe { libc::recvmsg(socket.as_raw_fd(), &mut header, libc::MSG_CMSG_CLOEXEC) }
    })?;
    let fds = take_fds(&header, slots);
    if header.msg_flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) != 0 {
        for slot in slots.iter_mut() {
            *slot = None;
        }
        return Err(Errno::EMSGSIZE);
    }
    Ok(Received { bytes, fds })
}

/// Moves the descriptors of all SCM_RIGHTS messages into `slots`; gives their number.
fn take_fds(header: &libc::msghdr, slots: &mut [Option<OwnedFd>]) -> usize {
    let mut taken = 0;
    // SAFETY: the kernel has set msg_control and msg_controllen to the messages that it wrote.
    let mut next = unsafe { libc::CMSG_FIRSTHDR(header) };
    while !next.is_null() {
        // SAFETY: not null, so it points to a whole header inside the control buffer.
        let cmsg = unsafe { &*next };
        if cmsg.cmsg_level == libc::SOL_SOCKET && cmsg.cmsg_type == libc::SCM_RIGHTS {
            // SAFETY: only computes.
            let head = unsafe { libc::CMSG_LEN(0) } as usize;
            let count = (cmsg.cmsg_len as usize).saturating_sub(head) / size_of::<RawFd>();
            // SAFETY: `next` is a header of SCM_RIGHTS, whose data are `count` descriptors.
            let numbers = unsafe { libc::CMSG_DATA(next) }.cast::<RawFd>();
            for i in 0..count {
                // SAFETY: i < count: inside the message. It may be unaligned in theory.
                let number = unsafe { ptr::read_unaligned(numbers.wrapping_add(i)) };
                // SAFETY: the kernel has just installed this descriptor for us; nobody else owns it.
                let fd = unsafe { OwnedFd::from_raw_fd(number) };
                if let Some(slot) = slots.get_mut(taken) {
                    *slot = Some(fd);
                    taken += 1;
                }
            }
        }
        // SAFETY: `next` is a header of this message's control buffer.
        next = unsafe { libc::CMSG_NXTHDR(header, next) };
    }
    taken
}

/// A message header for one buffer and no control data. (musl's has private padding: zeroed.)
fn message(iov: &mut libc::iovec) -> libc::msghdr {
    // SAFETY: msghdr is plain data for which all zeros (null pointers, no lengths) is valid.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = ptr::from_mut(iov);
    header.msg_iovlen = 1;
    header
}

/// Again on EINTR: a half-done message does not exist on these sockets.
fn retry(mut call: impl FnMut() -> isize) -> Result<usize, Errno> {
    loop {
        match Errno::result(call()) {
            Ok(bytes) => return Ok(bytes.cast_unsigned()),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
    use std::fs::File;
    use std::io::Read;
    use std::os::fd::AsFd;

    fn pair(kind: SockType) -> (OwnedFd, OwnedFd) {
        socketpair(AddressFamily::Unix, kind, None, SockFlag::SOCK_CLOEXEC).unwrap()
    }

    fn slots<const N: usize>() -> [Option<OwnedFd>; N] {
        std::array::from_fn(|_| None)
    }

    fn close_on_exec(fd: &OwnedFd) -> bool {
        nix::fcntl::fcntl(fd, nix::fcntl::FcntlArg::F_GETFD).unwrap() & libc::FD_CLOEXEC != 0
    }

    #[test]
    fn descriptors_arrive_with_their_data_and_close_on_exec() {
        for count in [0, 1, 2, 3, MAX_FDS] {
            for kind in [SockType::SeqPacket, SockType::Stream] {
                let (a, b) = pair(kind);
                let null = File::open("/dev/null").unwrap();
                let fds = vec![null.as_fd(); count];
                assert_eq!(send_with_fds(a.as_fd(), b"name", &fds), Ok(4));
                let mut slots = slots::<MAX_FDS>();
                let mut buffer = [0; 16];
                let got = recv_with_fds(b.as_fd(), &mut buffer, &mut slots).unwrap();
                assert_eq!((got.bytes, got.fds), (4, count), "{kind:?}");
                assert_eq!(&buffer[..4], b"name");
                assert_eq!(slots.iter().flatten().count(), count);
                assert!(slots.iter().flatten().all(close_on_exec));
            }
        }
    }

    #[test]
    fn one_descriptor_too_many_is_an_error_and_none_leaks() {
        for room in [0, 1, 2, 3] {
            let (a, b) = pair(SockType::SeqPacket);
            let (reader, writer) = nix::unistd::pipe().unwrap();
            send_with_fds(a.as_fd(), b"x", &vec![writer.as_fd(); room + 1]).unwrap();
            let mut slots = slots::<3>();
            let got = recv_with_fds(b.as_fd(), &mut [0; 8], &mut slots[..room]);
            assert_eq!(got, Err(Errno::EMSGSIZE), "room for {room}");
            drop(writer);
            // Only if no copy of the writing end is left does the pipe end.
            nix::fcntl::fcntl(&reader, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK)).unwrap();
            assert_eq!(File::from(reader).read(&mut [0]).unwrap(), 0, "room for {room}");
        }
    }

    #[test]
    fn a_packet_longer_than_the_buffer_is_an_error() {
        let (a, b) = pair(SockType::SeqPacket);
        send_with_fds(a.as_fd(), &[7; 32], &[]).unwrap();
        assert_eq!(recv_with_fds(b.as_fd(), &mut [0; 31], &mut []), Err(Errno::EMSGSIZE));
    }

    #[test]
    fn a_closed_end_is_zero_bytes_to_read_and_epipe_to_write() {
        let (a, b) = pair(SockType::SeqPacket);
        drop(a);
        let got = recv_with_fds(b.as_fd(), &mut [0; 8], &mut []);
        assert_eq!(got, Ok(Received { bytes: 0, fds: 0 }));
        assert_eq!(send_with_fds(b.as_fd(), b"x", &[]), Err(Errno::EPIPE));
    }

    #[test]
    fn what_cannot_be_sent_is_refused() {
        let (a, _b) = pair(SockType::Stream);
        let null = File::open("/dev/null").unwrap();
        assert_eq!(send_with_fds(a.as_fd(), b"", &[null.as_fd()]), Err(Errno::EINVAL));
        let many = vec![null.as_fd(); MAX_FDS + 1];
        assert_eq!(send_with_fds(a.as_fd(), b"x", &many), Err(Errno::EINVAL));
    }
}
