//! What goes over containerd's sockets and pipes: messages, and the frames they travel in.
//!
//! The message types are those of containerd's Rust project; the frames are our own, as state
//! machines without sockets (`../../DESIGN.md`, "Wire").

pub mod any;
pub mod client;
pub mod frame;
#[cfg(test)]
mod fuzz;
pub mod messages;
#[cfg(test)]
mod recorded;
pub mod server;
pub mod status;

pub use any::{FEATURES, Named, pack, timestamp, type_name, unpack};
use containerd_shim_protos::protobuf::{CodedInputStream, UnknownValueRef};
pub use containerd_shim_protos::protobuf::{EnumOrUnknown, Message, MessageField};

/// A message from its bytes; unknown fields are kept aside, torn input is an error.
pub fn decode<M: Message>(bytes: &[u8]) -> Result<M, Torn> {
    let parse = || {
        let mut input = CodedInputStream::from_bytes(bytes);
        // Without a limit an inner message that is said to be longer than all there is would be taken
        // for whole when the bytes end between two of its fields.
        input.push_limit(bytes.len() as u64)?;
        let mut message = M::new();
        message.merge_from(&mut input)?;
        input.check_eof().map(|()| message)
    };
    parse().map_err(|error| Torn { message: M::NAME, why: error.to_string() })
}

/// One text of a message that nobody else needs a type for; empty when it is not there.
pub fn text_field(bytes: &[u8], field: u32) -> Result<String, Torn> {
    let message: messages::Empty = decode(bytes)?;
    let fields = message.special_fields.unknown_fields();
    let found = fields.iter().filter(|(number, _)| *number == field).last();
    match found {
        Some((_, UnknownValueRef::LengthDelimited(text))) => {
            String::from_utf8(text.to_vec()).map_err(|error| Torn { message: "text", why: error.to_string() })
        }
        Some(_) => Err(Torn { message: "text", why: format!("field {field} is no text") }),
        None => Ok(String::new()),
    }
}

/// The bytes of a message. It fails only for one of more than 2 GiB, which no frame could carry.
pub fn encode<M: Message>(message: &M) -> Result<Vec<u8>, Torn> {
    message.write_to_bytes().map_err(|error| Torn { message: M::NAME, why: error.to_string() })
}

/// Bytes that are not the message that they should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Torn {
    pub message: &'static str,
    pub why: String,
}

impl std::fmt::Display for Torn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.message, self.why)
    }
}

impl std::error::Error for Torn {}

#[cfg(test)]
mod tests {
    use super::messages::{Any, cgroup2, task};
    use super::*;

    fn full_request() -> task::CreateTaskRequest {
        let mount = task::Mount {
            type_: "overlay".into(),
            source: "overlay".into(),
            options: vec!["lowerdir=/a".into(), "x".repeat(300)],
            ..Default::default()
        };
        task::CreateTaskRequest {
            id: "c1".into(),
            bundle: "/b".into(),
            rootfs: vec![mount.clone(), mount],
            terminal: true,
            stdin: "/i".into(),
            options: MessageField::some(Any {
                type_url: "t".into(),
                value: vec![1; 40],
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    #[test]
    fn every_truncation_of_a_message_is_an_error_or_a_shorter_message() {
        let whole = encode(&full_request()).expect("encoded");
        assert_eq!(decode::<task::CreateTaskRequest>(&whole).expect("whole"), full_request());
        let shorter: Vec<usize> = (0..whole.len())
            .filter(|&end| decode::<task::CreateTaskRequest>(&whole[..end]).is_ok())
            .collect();
        // A cut between two fields leaves a shorter message; anywhere else it is an error.
        assert_eq!(shorter, [0, 4, 8, 345, 682, 684, 688]);
    }

    #[test]
    fn any_byte_may_change_without_a_panic() {
        let whole = encode(&full_request()).expect("encoded");
        // All of them would take an interpreter an hour.
        let step = if cfg!(miri) { 17 } else { 1 };
        for at in (0..whole.len()).step_by(step) {
            for bit in 0..8 {
                let mut bytes = whole.clone();
                bytes[at] ^= 1 << bit;
                if let Ok(message) = decode::<task::CreateTaskRequest>(&bytes) {
                    encode(&message).expect("what was read can be written");
                }
            }
        }
    }

    #[test]
    fn unknown_fields_are_passed_over() {
        // 1: "a", then field 100 as varint, as fixed64, as bytes, as fixed32.
        let bytes = [
            b"\x0a\x01a".as_slice(),
            b"\xa0\x06\x96\x01",
            b"\xa1\x0612345678",
            b"\xa2\x06\x03xyz",
            b"\xa5\x061234",
        ]
        .concat();
        assert_eq!(decode::<task::StateRequest>(&bytes).expect("decoded").id, "a");
    }

    #[test]
    fn metrics_carry_what_came_with_the_newest_cgroups_library() {
        let metrics = cgroup2::Metrics {
            memory_events: MessageField::some(cgroup2::MemoryEvents {
                oom_group_kill: 3,
                ..Default::default()
            }),
            ..Default::default()
        };
        // 8: memory_events, in it 6: oom_group_kill
        assert_eq!(encode(&metrics).expect("encoded"), [0x42, 2, 0x30, 3]);
    }
}
