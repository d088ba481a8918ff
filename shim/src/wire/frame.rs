//! ttrpc's frames: ten bytes of header, then the data.
//!
//! <https://github.com/containerd/ttrpc/blob/main/PROTOCOL.md>

pub const HEADER: usize = 10;
/// A frame with more data is refused, by both sides.
pub const MAX_DATA: usize = 4 << 20;

pub const REQUEST: u8 = 1;
pub const RESPONSE: u8 = 2;
pub const DATA: u8 = 3;

/// Flags of a request that begins a stream of messages; a request for one answer has none.
pub const STREAMING: u8 = 0x1 | 0x2;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub stream: u32,
    pub kind: u8,
    pub flags: u8,
    pub data: Data,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Data {
    Whole(Vec<u8>),
    /// It was longer than [`MAX_DATA`] and has been passed over.
    TooLong(u32),
}

/// Bytes in, frames out, however the bytes were cut. Between two frames it holds no memory.
#[derive(Debug, Default)]
pub struct Reader {
    header: [u8; HEADER],
    /// How much of the header is there.
    have: usize,
    data: Vec<u8>,
    /// How much of data that is too long has been passed over.
    passed: u32,
}

impl Reader {
    /// Takes from `bytes` up to the end of the next frame; `None` when they were not enough.
    pub fn next(&mut self, bytes: &mut &[u8]) -> Option<Frame> {
        let taken = take(bytes, HEADER - self.have);
        self.header[self.have..self.have + taken.len()].copy_from_slice(taken);
        self.have += taken.len();
        if self.have < HEADER {
            return None;
        }
        let [l0, l1, l2, l3, s0, s1, s2, s3, kind, flags] = self.header;
        let length = u32::from_be_bytes([l0, l1, l2, l3]);
        let data = if length as usize > MAX_DATA {
            self.passed += take(bytes, (length - self.passed) as usize).len() as u32;
            if self.passed < length {
                return None;
            }
            Data::TooLong(length)
        } else {
            // Not reserved in advance: what a header promises need not come.
            self.data.extend_from_slice(take(bytes, length as usize - self.data.len()));
            if self.data.len() < length as usize {
                return None;
            }
            Data::Whole(std::mem::take(&mut self.data))
        };
        *self = Self::default();
        Some(Frame { stream: u32::from_be_bytes([s0, s1, s2, s3]), kind, flags, data })
    }

    /// Whether the bytes so far end between two frames.
    pub fn is_between_frames(&self) -> bool {
        self.have == 0
    }
}

fn take<'a>(bytes: &mut &'a [u8], most: usize) -> &'a [u8] {
    let (taken, rest) = bytes.split_at(most.min(bytes.len()));
    *bytes = rest;
    taken
}

/// What waits to be written to a socket that may take only a part.
#[derive(Debug, Default)]
pub struct Outgoing {
    bytes: Vec<u8>,
    sent: usize,
}

impl Outgoing {
    /// Appends a frame; false when `data` is more than a frame may carry.
    pub fn push(&mut self, stream: u32, kind: u8, flags: u8, data: &[u8]) -> bool {
        if data.len() > MAX_DATA {
            return false;
        }
        self.bytes.reserve(HEADER + data.len());
        self.bytes.extend_from_slice(&(data.len() as u32).to_be_bytes());
        self.bytes.extend_from_slice(&stream.to_be_bytes());
        self.bytes.extend_from_slice(&[kind, flags]);
        self.bytes.extend_from_slice(data);
        true
    }

    pub fn to_send(&self) -> &[u8] {
        &self.bytes[self.sent..]
    }

    /// The socket has taken `n` bytes of [`Self::to_send`].
    pub fn sent(&mut self, n: usize) {
        self.sent += n;
        if self.sent >= self.bytes.len() {
            // Given back: a shim idles for weeks after its largest answer.
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames() -> (Vec<u8>, Vec<Frame>) {
        let mut out = Outgoing::default();
        let mut frames = Vec::new();
        for (stream, kind, flags, data) in
            [(1, REQUEST, 0, vec![7; 300]), (3, DATA, 2, vec![]), (5, RESPONSE, 0, b"abc".to_vec())]
        {
            assert!(out.push(stream, kind, flags, &data));
            frames.push(Frame { stream, kind, flags, data: Data::Whole(data) });
        }
        (out.to_send().to_vec(), frames)
    }

    fn read(reader: &mut Reader, mut bytes: &[u8]) -> Vec<Frame> {
        std::iter::from_fn(|| reader.next(&mut bytes)).collect()
    }

    #[test]
    fn the_header_is_big_endian_and_ten_bytes() {
        let mut out = Outgoing::default();
        assert!(out.push(0x0102_0305, REQUEST, 0, b"xy"));
        assert_eq!(out.to_send(), b"\0\0\0\x02\x01\x02\x03\x05\x01\0xy");
    }

    #[test]
    fn frames_are_the_same_however_the_bytes_are_cut() {
        let (bytes, frames) = frames();
        for first in 0..=bytes.len() {
            for second in [first, first + 1, first + 9, first + 10, first + 11].map(|at| at.min(bytes.len()))
            {
                let mut reader = Reader::default();
                let mut read_so_far = read(&mut reader, &bytes[..first]);
                read_so_far.extend(read(&mut reader, &bytes[first..second]));
                read_so_far.extend(read(&mut reader, &bytes[second..]));
                assert_eq!(read_so_far, frames, "cut at {first} and {second}");
                assert!(reader.is_between_frames());
            }
        }
    }

    #[test]
    fn a_truncated_frame_is_never_given() {
        let (bytes, frames) = frames();
        let ends = [310, 320, 333];
        for end in 0..bytes.len() {
            let mut reader = Reader::default();
            let whole = ends.iter().filter(|&&e| e <= end).count();
            assert_eq!(read(&mut reader, &bytes[..end]), frames[..whole], "{end}");
            assert_eq!(reader.is_between_frames(), end == 0 || ends.contains(&end), "{end}");
        }
    }

    #[test]
    fn too_long_data_is_passed_over_and_the_next_frame_read() {
        let length = MAX_DATA as u32 + 1;
        let mut bytes = [&length.to_be_bytes()[..], &9u32.to_be_bytes(), &[REQUEST, 0]].concat();
        bytes.resize(HEADER + length as usize, 1);
        let (more, frames) = frames();
        bytes.extend_from_slice(&more);
        let mut reader = Reader::default();
        let mut got = Vec::new();
        for piece in bytes.chunks(65_537) {
            got.extend(read(&mut reader, piece));
        }
        assert_eq!(got[0], Frame { stream: 9, kind: REQUEST, flags: 0, data: Data::TooLong(length) });
        assert_eq!(got[1..], frames);
    }

    #[test]
    fn a_socket_may_take_any_part() {
        let (bytes, _) = frames();
        for step in [1, 3, 10, 333, 1000] {
            let mut out = Outgoing { bytes: bytes.clone(), sent: 0 };
            let mut taken = Vec::new();
            while !out.to_send().is_empty() {
                let n = step.min(out.to_send().len());
                taken.extend_from_slice(&out.to_send()[..n]);
                out.sent(n);
            }
            assert_eq!(taken, bytes);
            assert_eq!(out.bytes.capacity(), 0, "an idle connection holds no memory");
        }
    }

    #[test]
    fn more_than_a_frame_may_carry_is_refused() {
        let mut out = Outgoing::default();
        assert!(!out.push(1, RESPONSE, 0, &vec![0; MAX_DATA + 1]));
        assert!(out.to_send().is_empty());
    }
}
