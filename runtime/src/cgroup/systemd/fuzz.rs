//! What systemd, or who is taken for it, could send; and annotations.

use std::collections::BTreeMap;

use super::annotation::properties;
use super::wire::{Kind, Message, PREFIX, Value};

fn message(body: Vec<Value>) -> Message {
    Message {
        path: "/a/b".into(),
        interface: "c.d".into(),
        member: "E".into(),
        destination: "f.g".into(),
        reply_to: Some(3),
        body,
        ..Message::new(Kind::Call, 7)
    }
}

fn bodies() -> Vec<Vec<Value>> {
    let pair = Value::Struct(vec![Value::text("CPUWeight"), Value::Variant(Box::new(Value::Uint64(9)))]);
    vec![
        vec![],
        vec![
            Value::Uint32(1),
            Value::ObjectPath("/job/1".into()),
            Value::text("x.scope"),
            Value::text("done"),
        ],
        vec![Value::Variant(Box::new(Value::text("252.39-1")))],
        vec![Value::Array("(sv)".into(), vec![pair.clone(), pair])],
        vec![Value::Array("as".into(), vec![Value::Array("s".into(), vec![])]), Value::Bool(true)],
        vec![Value::Byte(1), Value::Int16(-3), Value::Uint16(4), Value::Int32(-5), Value::Int64(-6)],
        vec![Value::Double(0.5), Value::Signature("a(sv)".into()), Value::Uint64(7)],
        vec![Value::Array("y".into(), vec![Value::Byte(1); 40])],
    ]
}

/// How a message is read from the socket: first its length, then all of it.
fn read(bytes: &[u8]) -> Option<Message> {
    let length = Message::length(bytes.first_chunk::<PREFIX>()?).ok()?;
    Message::from_bytes(bytes.get(..length)?).ok()?
}

#[test]
fn messages() {
    let seeds = bodies().into_iter().map(|body| message(body).to_bytes());
    ::fuzz::target("dbus-messages")
        .seeds(seeds)
        .words(&["a(sv)", "v", "ay", "((", "}", "a{sv}"])
        .rounds(20_000)
        .run(|bytes| {
            // What is longer than it says, or shorter, is read too, and may be refused.
            drop(Message::from_bytes(bytes));
            let Some(message) = read(bytes) else { return false };
            let again = read(&message.to_bytes()).expect("what we write we can read");
            // As texts: no NaN is the same as another.
            assert_eq!(format!("{again:?}"), format!("{message:?}"));
            true
        });
}

#[test]
fn annotations() {
    let seeds = [
        "5",
        "-5",
        "1.5",
        "true",
        "'a'",
        "\"a\\u00e9\\n\"",
        "uint32 5",
        "byte 0x10",
        "[1, 2, uint64 3]",
        "['a']",
        "@as []",
        "(1, 'a', true)",
        "(1,)",
        "objectpath '/a'",
        "@a(ss) [('a', 'b')]",
        "[@ai [], [1]]",
        "inf",
    ];
    let words =
        ["boolean", "int16", "uint16", "int32", "int64", "double", "string", "nan", "@", "aaaa", "((("];
    ::fuzz::target("annotations").seeds(seeds).words(&words).rounds(20_000).run(|bytes| {
        let Ok(text) = std::str::from_utf8(bytes) else { return false };
        let mut taken = false;
        for name in ["TimeoutStopSec", "Description"] {
            let annotations = BTreeMap::from([(format!("org.systemd.property.{name}"), text.to_owned())]);
            let mut problems = Vec::new();
            let properties = properties(&annotations, &mut problems);
            assert_eq!(properties.len() + problems.len(), 1, "{problems:?}");
            for property in properties {
                // Whoever gets it reads the same: the type fits the value, and is not too long for the wire.
                let call = message(vec![Value::Variant(Box::new(property.value))]);
                let read = read(&call.to_bytes()).expect("a message");
                assert_eq!(format!("{read:?}"), format!("{call:?}"));
                taken = true;
            }
        }
        taken
    });
}
