//! `google.protobuf.Any` as containerd writes it: the bare name of the type, without the
//! `type.googleapis.com/` that protobuf's own packing puts before it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::messages::{Any, Timestamp, cgroup1, cgroup2, events, runc};
use super::{Message, Torn, decode, encode};

/// The features document is JSON, so containerd names it by its Go package and not as a protobuf message.
pub const FEATURES: &str = "types.containerd.io/opencontainers/runtime-spec/1/features/Features";

/// A message with its name in full; the generated types know only the last part of theirs.
pub trait Named: Message {
    const FULL_NAME: &'static str;
}

macro_rules! named {
    ($($message:ty = $name:literal,)+) => {
        $(impl Named for $message {
            const FULL_NAME: &'static str = $name;
        })+
    };
}

named! {
    runc::Options = "containerd.runc.v1.Options",
    runc::CheckpointOptions = "containerd.runc.v1.CheckpointOptions",
    runc::ProcessDetails = "containerd.runc.v1.ProcessDetails",
    events::TaskCreate = "containerd.events.TaskCreate",
    events::TaskStart = "containerd.events.TaskStart",
    events::TaskExit = "containerd.events.TaskExit",
    events::TaskDelete = "containerd.events.TaskDelete",
    events::TaskOOM = "containerd.events.TaskOOM",
    events::TaskExecAdded = "containerd.events.TaskExecAdded",
    events::TaskExecStarted = "containerd.events.TaskExecStarted",
    events::TaskPaused = "containerd.events.TaskPaused",
    events::TaskResumed = "containerd.events.TaskResumed",
    cgroup1::Metrics = "io.containerd.cgroups.v1.Metrics",
    cgroup2::Metrics = "io.containerd.cgroups.v2.Metrics",
}

/// `message` in an Any.
pub fn pack<M: Named>(message: &M) -> Result<Any, Torn> {
    Ok(Any { type_url: M::FULL_NAME.to_owned(), value: encode(message)?, ..Any::default() })
}

/// The message in `any`; `None` when it holds one of another type.
pub fn unpack<M: Named>(any: &Any) -> Result<Option<M>, Torn> {
    if type_name(any) != M::FULL_NAME {
        return Ok(None);
    }
    decode(&any.value).map(Some)
}

/// The name of the message in `any`, whatever host its packer put before it.
pub fn type_name(any: &Any) -> &str {
    any.type_url.rsplit('/').next().unwrap_or_default()
}

pub fn timestamp(time: SystemTime) -> Timestamp {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    Timestamp {
        seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(since.subsec_nanos()).unwrap_or(0),
        ..Timestamp::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_found_under_both_spellings_of_their_type() {
        let mut any = pack(&runc::Options { root: "/run/x".into(), ..Default::default() }).expect("packed");
        assert_eq!(any.type_url, "containerd.runc.v1.Options");
        assert_eq!(unpack::<runc::Options>(&any).expect("whole").expect("options").root, "/run/x");
        any.type_url.insert_str(0, "type.googleapis.com/");
        assert_eq!(unpack::<runc::Options>(&any).expect("whole").expect("options").root, "/run/x");
    }

    #[test]
    fn an_any_of_another_type_is_none_and_a_torn_one_an_error() {
        let mut any = pack(&events::TaskOOM::default()).expect("packed");
        assert_eq!(unpack::<runc::Options>(&any), Ok(None));
        any.type_url = runc::Options::FULL_NAME.into();
        any.value = vec![0x3a, 9, b'x'];
        assert_eq!(unpack::<runc::Options>(&any).expect_err("torn").message, "Options");
    }

    /// The long names end in what the generated types call themselves.
    #[test]
    fn the_names_are_those_of_the_types() {
        fn ends<M: Named>() {
            assert!(M::FULL_NAME.ends_with(&format!(".{}", M::NAME)), "{}", M::FULL_NAME);
        }
        ends::<runc::Options>();
        ends::<runc::CheckpointOptions>();
        ends::<runc::ProcessDetails>();
        ends::<events::TaskCreate>();
        ends::<events::TaskStart>();
        ends::<events::TaskExit>();
        ends::<events::TaskDelete>();
        ends::<events::TaskOOM>();
        ends::<events::TaskExecAdded>();
        ends::<events::TaskExecStarted>();
        ends::<events::TaskPaused>();
        ends::<events::TaskResumed>();
        ends::<cgroup1::Metrics>();
        ends::<cgroup2::Metrics>();
    }
}
