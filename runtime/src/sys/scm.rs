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
        put_fds(&mut header, &mut control, fds);
    }
    retry(|| {
        // SAFETY: `header` points to `iov`, `data` and `control`, all alive, and has their lengths; the kernel only reads.
        unsafe { libc::sendmsg(socket.as_raw_fd(), &header, libc::MSG_NOSIGNAL) }
    })
}

/// Makes one SCM_RIGHTS message of `fds`, at most [`MAX_FDS`], in `control`, and `header` point to it.
fn put_fds(header: &mut libc::msghdr, control: &mut Control, fds: &[BorrowedFd<'_>]) {
    let fds = &fds[..fds.len().min(MAX_FDS)];
    let length = size_of_val(fds);
    header.msg_control = control.0.as_mut_ptr().cast();
    // SAFETY: only computes; `length` is at most 1012, so nothing overflows.
    let space = unsafe { libc::CMSG_SPACE(length as u32) };
    header.msg_controllen = space as _;
    // SAFETY: only computes, and as little overflows as above.
    let len = unsafe { libc::CMSG_LEN(length as u32) };
    // SAFETY: reads two fields of `header`: the start of `control`, and more than the length of a message's header. So
    // what comes back is the start of `control`, with the right to write all of it.
    let first = unsafe { libc::CMSG_FIRSTHDR(header) };
    // SAFETY: `cmsghdr` is a plain struct of integers, for which zero is a value. (musl's has private padding.)
    let mut own: libc::cmsghdr = unsafe { std::mem::zeroed() };
    own.cmsg_len = len as _;
    own.cmsg_level = libc::SOL_SOCKET;
    own.cmsg_type = libc::SCM_RIGHTS;
    // SAFETY: `control` is aligned for the structure and longer than it.
    unsafe { first.write(own) };
    // SAFETY: only computes: where the header in `control` ends.
    let data = unsafe { libc::CMSG_DATA(first) }.cast::<RawFd>();
    for (i, fd) in fds.iter().enumerate() {
        // SAFETY: `length` bytes follow the header in `control`, because CONTROL is the CMSG_SPACE of the greatest
        // `length`, and `i` is less than the number of descriptors in them. It is aligned: header and
        // buffer are aligned to 8. Made from the address of all of `control`, and not from that of the header alone,
        // it may be written.
        unsafe { data.wrapping_add(i).write(fd.as_raw_fd()) };
    }
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
        // SAFETY: only computes; at most 1012 and a header, so nothing overflows.
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
    // SAFETY: msg_control is a buffer of ours, or null, and the kernel has set msg_controllen to the length of the
    // messages that it wrote there (0 when it wrote none).
    let mut next = unsafe { libc::CMSG_FIRSTHDR(header) };
    while !next.is_null() {
        // SAFETY: not null, so it points to a whole header inside the control buffer, aligned and written by the kernel.
        let cmsg = unsafe { &*next };
        if cmsg.cmsg_level == libc::SOL_SOCKET && cmsg.cmsg_type == libc::SCM_RIGHTS {
            // SAFETY: only computes, of a length of 0.
            let head = unsafe { libc::CMSG_LEN(0) } as usize;
            let count = (cmsg.cmsg_len as usize).saturating_sub(head) / size_of::<RawFd>();
            // SAFETY: only computes where the header ends; `next` is one inside the control buffer.
            let numbers = unsafe { libc::CMSG_DATA(next) }.cast::<RawFd>();
            for i in 0..count {
                // SAFETY: i < count: inside what the kernel says that the message has. It may be unaligned in theory.
                let number = unsafe { ptr::read_unaligned(numbers.wrapping_add(i)) };
                // SAFETY: the kernel has just installed this descriptor for us; nobody else owns it, and each is taken
                // once.
                let fd = unsafe { OwnedFd::from_raw_fd(number) };
                if let Some(slot) = slots.get_mut(taken) {
                    *slot = Some(fd);
                    taken += 1;
                }
            }
        }
        // SAFETY: `next` is a header of this message's control buffer, whose end the call looks for in `header`.
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
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
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
            let (mut reader, writer) = std::io::pipe().unwrap();
            send_with_fds(a.as_fd(), b"x", &vec![writer.as_fd(); room + 1]).unwrap();
            let mut slots = slots::<3>();
            let got = recv_with_fds(b.as_fd(), &mut [0; 8], &mut slots[..room]);
            assert_eq!(got, Err(Errno::EMSGSIZE), "room for {room}");
            drop(writer);
            // Only if no copy of the writing end is left does the pipe end; what another test begins has one until
            // it executes.
            let mut ends = [PollFd::new(reader.as_fd(), PollFlags::POLLIN)];
            assert_eq!(poll(&mut ends, PollTimeout::from(20_000u16)), Ok(1), "room for {room}");
            assert_eq!(reader.read(&mut [0]).unwrap(), 0, "room for {room}");
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

    /// Without a kernel between the two, so that Miri sees each access.
    #[test]
    fn what_is_put_into_a_message_is_taken_out_of_it() {
        for count in [0, 1, 2, 3, 7] {
            let files: Vec<OwnedFd> = (0..count).map(|_| File::open("/dev/null").unwrap().into()).collect();
            let numbers: Vec<RawFd> = files.iter().map(AsRawFd::as_raw_fd).collect();
            let mut control = Control([0; CONTROL]);
            let mut iov = libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 };
            let mut header = message(&mut iov);
            let fds: Vec<BorrowedFd<'_>> = files.iter().map(AsFd::as_fd).collect();
            put_fds(&mut header, &mut control, &fds);
            // Now the message owns them.
            files.into_iter().for_each(std::mem::forget);
            let mut slots = slots::<7>();
            assert_eq!(take_fds(&header, &mut slots), count);
            assert_eq!(slots.iter().flatten().map(AsRawFd::as_raw_fd).collect::<Vec<_>>(), numbers);
        }
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
