//! What the runtime and the container's first process say to each other, and when.
//!
//! ```text
//!   [ runtime ]                                  [ init ]
//!     clone3 --------------------------------->   (born; closes what is not its own)
//!     id maps
//!     ToInit::Enter              ------------->   moves itself into its cgroups of v1
//!     record of the pid         <-------------    FromInit::Entered
//!     ToInit::Go { pid }         ------------->   steps: session, mounts, devices
//!     limits, prestart and      <-------------    FromInit::Mounts
//!     createRuntime hooks
//!     ToInit::HooksDone          ------------->   createContainer hooks, pivot, privileges
//!     take the listener, tell   <-------------    FromInit::Listener { number }, where seccomp notifies
//!     the agent                                   (ToInit::ListenerTaken back, and Done behind the agent)
//!     record as created         <-------------    FromInit::Ready
//!                                                 waits for start
//!   at any time before Ready:   <-------------    FromInit::Failed, then _exit
//!
//!   An exec has neither Mounts nor a wait for start: Ready is said just before execve, and then the end of the
//!   channel is the program's beginning.
//!
//!   An exec that is born last: it is the joiner with whom the runtime speaks, until it has borne the process.
//!     rlimits, cgroup           <-------------    FromInit::Joined
//!     ToInit::Go                 ------------->   all steps up to its birth
//!     other limits, pidfd       <-------------    FromInit::Born { pid }, then _exit
//!     ToInit::Go                 ------------->   (the process:) its session, its folder, its program
//!
//!   With a joiner between the two, from it:
//!     write id maps             <-------------    FromInit::NeedMaps    (and ToInit::Done back)
//!     write clock offsets       <-------------    FromInit::NeedOffsets (and ToInit::Done back)
//!                               <-------------    FromInit::Born { pid }, then _exit
//! ```
//!
//! Packets of a fixed size over a `SOCK_SEQPACKET` pair; written and read by `write(2)` and
//! `read(2)`, because after the seccomp filter there may be nothing else. What cannot be decoded is
//! an error, never a panic: the other end may be under attack.

use nix::errno::Errno;

use crate::error::{StepFailure, StepKind};

/// Bytes of every packet.
pub const SIZE: usize = 16;

/// Steps of the joiner are numbered from here.
pub const JOINER: u16 = 0x8000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FromInit {
    NeedMaps,
    NeedOffsets,
    Born {
        pid: i32,
    },
    /// The joiner is in all namespaces, and goes on as init.
    Joined,
    Entered,
    Mounts,
    /// The descriptor of this number is a listener of seccomp.
    Listener {
        number: i32,
    },
    Ready,
    Failed {
        step: u16,
        failure: StepFailure,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ToInit {
    /// The cgroups of v1, where there are any.
    Enter,
    /// With the pid as the runtime sees it: for hooks.
    Go {
        pid: i32,
    },
    HooksDone,
    ListenerTaken,
    /// It cannot be taken: it is to come with a copy of the message that named it.
    SendListener,
    /// What the joiner asked for.
    Done,
}

fn packet(tag: u8, kind: u8, step: u16, numbers: [i32; 2]) -> [u8; SIZE] {
    let mut bytes = [0; SIZE];
    bytes[0] = tag;
    bytes[1] = kind;
    bytes[2..4].copy_from_slice(&step.to_ne_bytes());
    bytes[4..8].copy_from_slice(&numbers[0].to_ne_bytes());
    bytes[8..12].copy_from_slice(&numbers[1].to_ne_bytes());
    bytes
}

struct Packet {
    tag: u8,
    kind: u8,
    step: u16,
    numbers: [i32; 2],
}

fn unpack(bytes: &[u8]) -> Option<Packet> {
    let bytes: &[u8; SIZE] = bytes.try_into().ok()?;
    let number = |at: usize| i32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    if bytes[12..] != [0; 4] {
        return None;
    }
    let step = u16::from_ne_bytes([bytes[2], bytes[3]]);
    Some(Packet { tag: bytes[0], kind: bytes[1], step, numbers: [number(4), number(8)] })
}

impl FromInit {
    pub fn encode(self) -> [u8; SIZE] {
        match self {
            FromInit::NeedMaps => packet(1, 0, 0, [0; 2]),
            FromInit::NeedOffsets => packet(2, 0, 0, [0; 2]),
            FromInit::Born { pid } => packet(3, 0, 0, [pid, 0]),
            FromInit::Mounts => packet(4, 0, 0, [0; 2]),
            FromInit::Ready => packet(5, 0, 0, [0; 2]),
            FromInit::Joined => packet(9, 0, 0, [0; 2]),
            FromInit::Entered => packet(7, 0, 0, [0; 2]),
            FromInit::Listener { number } => packet(8, 0, 0, [number, 0]),
            FromInit::Failed { step, failure } => {
                packet(6, failure.kind as u8, step, [failure.errno as i32, failure.value])
            }
        }
    }

    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let p = unpack(bytes)?;
        Some(match (p.tag, p.kind, p.step, p.numbers) {
            (1, 0, 0, [0, 0]) => FromInit::NeedMaps,
            (2, 0, 0, [0, 0]) => FromInit::NeedOffsets,
            (3, 0, 0, [pid, 0]) if pid > 0 => FromInit::Born { pid },
            (4, 0, 0, [0, 0]) => FromInit::Mounts,
            (5, 0, 0, [0, 0]) => FromInit::Ready,
            (8, 0, 0, [number, 0]) if number >= 0 => FromInit::Listener { number },
            (6, kind, step, [errno, value]) => {
                let kind = StepKind::ALL.into_iter().find(|k| *k as u8 == kind)?;
                let failure = StepFailure { kind, errno: Errno::from_raw(errno), value };
                FromInit::Failed { step, failure }
            }
            (7, 0, 0, [0, 0]) => FromInit::Entered,
            (9, 0, 0, [0, 0]) => FromInit::Joined,
            _ => return None,
        })
    }
}

impl ToInit {
    pub fn encode(self) -> [u8; SIZE] {
        match self {
            ToInit::Go { pid } => packet(65, 0, 0, [pid, 0]),
            ToInit::HooksDone => packet(66, 0, 0, [0; 2]),
            ToInit::Done => packet(67, 0, 0, [0; 2]),
            ToInit::Enter => packet(68, 0, 0, [0; 2]),
            ToInit::ListenerTaken => packet(69, 0, 0, [0; 2]),
            ToInit::SendListener => packet(70, 0, 0, [0; 2]),
        }
    }

    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let p = unpack(bytes)?;
        Some(match (p.tag, p.kind, p.step, p.numbers) {
            (65, 0, 0, [pid, 0]) if pid > 0 => ToInit::Go { pid },
            (66, 0, 0, [0, 0]) => ToInit::HooksDone,
            (67, 0, 0, [0, 0]) => ToInit::Done,
            (68, 0, 0, [0, 0]) => ToInit::Enter,
            (69, 0, 0, [0, 0]) => ToInit::ListenerTaken,
            (70, 0, 0, [0, 0]) => ToInit::SendListener,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_comes_back_as_it_went() {
        let failures = StepKind::ALL.map(|kind| FromInit::Failed {
            step: JOINER | 7,
            failure: StepFailure { kind, errno: Errno::ENOSPC, value: -5 },
        });
        let plain = [
            FromInit::NeedMaps,
            FromInit::NeedOffsets,
            FromInit::Born { pid: 77 },
            FromInit::Joined,
            FromInit::Entered,
            FromInit::Mounts,
            FromInit::Listener { number: 8 },
            FromInit::Ready,
        ];
        for message in plain.into_iter().chain(failures) {
            assert_eq!(FromInit::decode(&message.encode()), Some(message));
            assert_eq!(ToInit::decode(&message.encode()), None, "the wrong way: {message:?}");
        }
        use ToInit::{Done, Enter, Go, HooksDone, ListenerTaken, SendListener};
        for message in [Go { pid: 1 }, HooksDone, ListenerTaken, SendListener, Done, Enter] {
            assert_eq!(ToInit::decode(&message.encode()), Some(message));
            assert_eq!(FromInit::decode(&message.encode()), None, "the wrong way: {message:?}");
        }
    }

    #[test]
    fn what_is_cut_short_or_foreign_is_refused() {
        let whole = FromInit::Born { pid: 5 }.encode();
        for length in 0..SIZE {
            assert_eq!(FromInit::decode(&whole[..length]), None);
        }
        for tag in 0..=255 {
            for byte in 1..SIZE {
                let mut bytes = [0; SIZE];
                bytes[0] = tag;
                bytes[byte] = 0xff;
                if let Some(message) = FromInit::decode(&bytes) {
                    use FromInit::{Born, Failed, Listener};
                    assert!(matches!(message, Failed { .. } | Born { .. } | Listener { .. }), "{message:?}");
                }
            }
        }
        assert_eq!(FromInit::decode(&FromInit::Born { pid: -1 }.encode()), None);
        assert_eq!(FromInit::decode(&FromInit::Listener { number: -1 }.encode()), None);
        assert_eq!(ToInit::decode(&ToInit::Go { pid: 0 }.encode()), None);
    }
}

#[cfg(test)]
mod fuzz {
    use super::*;

    #[test]
    fn packets() {
        let failure = StepFailure { kind: StepKind::HookStatus, errno: Errno::ENOENT, value: 256 };
        let seeds = [
            FromInit::NeedMaps.encode(),
            FromInit::NeedOffsets.encode(),
            FromInit::Born { pid: 7 }.encode(),
            FromInit::Mounts.encode(),
            FromInit::Ready.encode(),
            FromInit::Failed { step: JOINER | 3, failure }.encode(),
            ToInit::Go { pid: 7 }.encode(),
            ToInit::HooksDone.encode(),
            ToInit::Done.encode(),
        ];
        ::fuzz::target("packets").seeds(seeds).rounds(50_000).run(|bytes| {
            let (from, to) = (FromInit::decode(bytes), ToInit::decode(bytes));
            assert!(from.is_none() || to.is_none(), "{from:?} and {to:?}");
            match from {
                // A number that is no errno of ours is told as such.
                Some(FromInit::Failed { failure, .. }) if failure.errno == Errno::UnknownErrno => {}
                Some(message) => assert_eq!(message.encode(), bytes),
                None => {}
            }
            to.inspect(|message| assert_eq!(message.encode(), bytes));
            from.is_some() || to.is_some()
        });
    }
}
