//! Values and messages of D-Bus as bytes, and back. Pure.
//!
//! <https://dbus.freedesktop.org/doc/dbus-specification.html#message-protocol>
//!
//! Only what is needed to talk to systemd: no descriptors, no dictionaries, and little endian, which
//! both our architectures are and so everybody on the same machine.

use std::fmt;

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Byte(u8),
    Bool(bool),
    Int16(i16),
    Uint16(u16),
    Int32(i32),
    Uint32(u32),
    Int64(i64),
    Uint64(u64),
    Double(f64),
    String(String),
    ObjectPath(String),
    Signature(String),
    /// With the signature of its elements: there may be none.
    Array(String, Vec<Value>),
    Struct(Vec<Value>),
    Variant(Box<Value>),
}

impl Value {
    pub(super) fn text(text: impl Into<String>) -> Self {
        Value::String(text.into())
    }

    pub(super) fn signature(&self) -> String {
        match self {
            Value::Byte(_) => "y".into(),
            Value::Bool(_) => "b".into(),
            Value::Int16(_) => "n".into(),
            Value::Uint16(_) => "q".into(),
            Value::Int32(_) => "i".into(),
            Value::Uint32(_) => "u".into(),
            Value::Int64(_) => "x".into(),
            Value::Uint64(_) => "t".into(),
            Value::Double(_) => "d".into(),
            Value::String(_) => "s".into(),
            Value::ObjectPath(_) => "o".into(),
            Value::Signature(_) => "g".into(),
            Value::Array(element, _) => format!("a{element}"),
            Value::Struct(fields) => {
                format!("({})", fields.iter().map(Value::signature).collect::<String>())
            }
            Value::Variant(_) => "v".into(),
        }
    }

    pub(super) fn as_str(&self) -> Option<&str> {
        match self {
            Value::String(text) | Value::ObjectPath(text) | Value::Signature(text) => Some(text),
            _ => None,
        }
    }
}

/// As `busctl` and people write it: `"text"`, `1024`, `["a", "b"]`.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |f: &mut fmt::Formatter<'_>, open: &str, values: &[Value], close: &str| {
            f.write_str(open)?;
            for (i, value) in values.iter().enumerate() {
                let separator = if i == 0 { "" } else { ", " };
                write!(f, "{separator}{value}")?;
            }
            f.write_str(close)
        };
        match self {
            Value::Byte(n) => write!(f, "{n:#04x}"),
            Value::Bool(b) => write!(f, "{b}"),
            Value::Int16(n) => write!(f, "{n}"),
            Value::Uint16(n) => write!(f, "{n}"),
            Value::Int32(n) => write!(f, "{n}"),
            Value::Uint32(n) => write!(f, "{n}"),
            Value::Int64(n) => write!(f, "{n}"),
            // systemd's own word for it.
            Value::Uint64(u64::MAX) => f.write_str("infinity"),
            Value::Uint64(n) => write!(f, "{n}"),
            Value::Double(n) => write!(f, "{n}"),
            Value::String(text) | Value::ObjectPath(text) | Value::Signature(text) => write!(f, "{text:?}"),
            Value::Array(_, values) => list(f, "[", values, "]"),
            Value::Struct(fields) => list(f, "(", fields, ")"),
            Value::Variant(value) => value.fmt(f),
        }
    }
}

/// Why bytes are no message, or a signature no type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed(pub(super) &'static str);

/// The specification's limit for a message is 128 MiB. What systemd tells us fits in far less; more
/// than this is not from systemd. A byte of an array takes the room of a [`Value`] here.
const LARGEST: usize = 1 << 20;
/// The specification allows 32 arrays and 32 structs in each other.
const DEEPEST: usize = 64;

#[derive(Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn align(&mut self, to: usize) {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
    }

    fn uint32(&mut self, n: usize) {
        self.align(4);
        // Lengths: of what is far below 4 GiB, or the receiver refuses the message.
        self.0.extend(u32::try_from(n).unwrap_or(u32::MAX).to_le_bytes());
    }

    fn string(&mut self, text: &str) {
        self.uint32(text.len());
        self.0.extend(text.as_bytes());
        self.0.push(0);
    }

    fn signature(&mut self, text: &str) {
        self.0.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
        self.0.extend(text.as_bytes());
        self.0.push(0);
    }

    fn value(&mut self, value: &Value) {
        match value {
            Value::Byte(n) => self.0.push(*n),
            Value::Bool(b) => self.uint32(usize::from(*b)),
            Value::Int16(n) => self.fixed(n.to_le_bytes()),
            Value::Uint16(n) => self.fixed(n.to_le_bytes()),
            Value::Int32(n) => self.fixed(n.to_le_bytes()),
            Value::Uint32(n) => self.fixed(n.to_le_bytes()),
            Value::Int64(n) => self.fixed(n.to_le_bytes()),
            Value::Uint64(n) => self.fixed(n.to_le_bytes()),
            Value::Double(n) => self.fixed(n.to_le_bytes()),
            Value::String(text) | Value::ObjectPath(text) => self.string(text),
            Value::Signature(text) => self.signature(text),
            Value::Array(element, values) => {
                self.uint32(0);
                let length_at = self.0.len() - 4;
                // The padding before the first element belongs to no element: it is not counted.
                self.align(alignment(element));
                let start = self.0.len();
                values.iter().for_each(|value| self.value(value));
                let length = u32::try_from(self.0.len() - start).unwrap_or(u32::MAX);
                self.0[length_at..length_at + 4].copy_from_slice(&length.to_le_bytes());
            }
            Value::Struct(fields) => {
                self.align(8);
                fields.iter().for_each(|field| self.value(field));
            }
            Value::Variant(value) => {
                self.signature(&value.signature());
                self.value(value);
            }
        }
    }

    fn fixed<const N: usize>(&mut self, bytes: [u8; N]) {
        self.align(N);
        self.0.extend(bytes);
    }
}

fn alignment(signature: &str) -> usize {
    match signature.as_bytes().first() {
        Some(b'y' | b'g' | b'v') => 1,
        Some(b'n' | b'q') => 2,
        Some(b'x' | b't' | b'd' | b'(' | b'{') => 8,
        _ => 4,
    }
}

/// The first complete type of a signature, and the rest.
fn split_type(signature: &str) -> Result<(&str, &str), Malformed> {
    let mut open = Vec::new();
    for (at, byte) in signature.bytes().enumerate() {
        match byte {
            // No struct is empty: an array of them would never come to its end.
            b')' if at > 0 && signature.as_bytes()[at - 1] == b'(' => {
                return Err(Malformed("an empty structure"));
            }
            b'a' if open.len() < DEEPEST => continue,
            b'(' | b'{' if open.len() < DEEPEST => open.push(byte),
            b')' if open.pop() == Some(b'(') => {}
            b'}' if open.pop() == Some(b'{') => {}
            b'y' | b'b' | b'n' | b'q' | b'i' | b'u' | b'x' | b't' | b'd' | b'h' | b's' | b'o' | b'g'
            | b'v' => {}
            _ => return Err(Malformed("not a signature")),
        }
        if open.is_empty() {
            return Ok(signature.split_at(at + 1));
        }
    }
    Err(Malformed("a signature without end"))
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let end = self.at.checked_add(count).ok_or(Malformed("a length out of range"))?;
        let taken = self.bytes.get(self.at..end).ok_or(Malformed("it ends too early"))?;
        self.at = end;
        Ok(taken)
    }

    fn align(&mut self, to: usize) -> Result<(), Malformed> {
        self.take(self.at.next_multiple_of(to) - self.at).map(drop)
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        self.align(N)?;
        let mut bytes = [0; N];
        bytes.copy_from_slice(self.take(N)?);
        Ok(bytes)
    }

    fn length(&mut self) -> Result<usize, Malformed> {
        let length = u32::from_le_bytes(self.fixed()?) as usize;
        if length > LARGEST { Err(Malformed("a length out of range")) } else { Ok(length) }
    }

    fn text(&mut self, length: usize) -> Result<String, Malformed> {
        let bytes = self.take(length)?;
        if self.take(1)? != [0] {
            return Err(Malformed("a string without its end"));
        }
        String::from_utf8(bytes.to_vec()).map_err(|_| Malformed("a string that is no text"))
    }

    fn signature(&mut self) -> Result<String, Malformed> {
        let length = self.take(1)?[0];
        self.text(usize::from(length))
    }

    /// One value of a complete type.
    fn value(&mut self, signature: &str, depth: usize) -> Result<Value, Malformed> {
        if depth > DEEPEST {
            return Err(Malformed("too deep"));
        }
        Ok(match signature.as_bytes().first() {
            Some(b'y') => Value::Byte(self.take(1)?[0]),
            Some(b'b') => Value::Bool(u32::from_le_bytes(self.fixed()?) != 0),
            Some(b'n') => Value::Int16(i16::from_le_bytes(self.fixed()?)),
            Some(b'q') => Value::Uint16(u16::from_le_bytes(self.fixed()?)),
            Some(b'i') => Value::Int32(i32::from_le_bytes(self.fixed()?)),
            // An index of a descriptor: only passed over.
            Some(b'u' | b'h') => Value::Uint32(u32::from_le_bytes(self.fixed()?)),
            Some(b'x') => Value::Int64(i64::from_le_bytes(self.fixed()?)),
            Some(b't') => Value::Uint64(u64::from_le_bytes(self.fixed()?)),
            Some(b'd') => Value::Double(f64::from_le_bytes(self.fixed()?)),
            Some(b's') => {
                let length = self.length()?;
                Value::String(self.text(length)?)
            }
            Some(b'o') => {
                let length = self.length()?;
                Value::ObjectPath(self.text(length)?)
            }
            Some(b'g') => Value::Signature(self.signature()?),
            Some(b'a') => {
                let element = &signature[1..];
                let length = self.length()?;
                self.align(alignment(element))?;
                let end = self.at + length;
                let mut values = Vec::new();
                while self.at < end {
                    values.push(self.value(element, depth + 1)?);
                }
                if self.at != end {
                    return Err(Malformed("an array that ends within an element"));
                }
                Value::Array(element.to_owned(), values)
            }
            // An entry of a dictionary has the same bytes.
            Some(b'(' | b'{') => {
                self.align(8)?;
                Value::Struct(self.values(&signature[1..signature.len() - 1], depth + 1)?)
            }
            Some(b'v') => {
                let signature = self.signature()?;
                let (one, rest) = split_type(&signature)?;
                if !rest.is_empty() {
                    return Err(Malformed("a variant of more than one value"));
                }
                Value::Variant(Box::new(self.value(one, depth + 1)?))
            }
            _ => return Err(Malformed("not a signature")),
        })
    }

    fn values(&mut self, mut signature: &str, depth: usize) -> Result<Vec<Value>, Malformed> {
        let mut values = Vec::new();
        while !signature.is_empty() {
            let (one, rest) = split_type(signature)?;
            values.push(self.value(one, depth)?);
            signature = rest;
        }
        Ok(values)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Call,
    Return,
    Error,
    Signal,
}

impl Kind {
    const ALL: [(Kind, u8); 4] = [(Kind::Call, 1), (Kind::Return, 2), (Kind::Error, 3), (Kind::Signal, 4)];
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Message {
    pub(super) kind: Kind,
    pub(super) serial: u32,
    pub(super) reply_to: Option<u32>,
    pub(super) path: String,
    pub(super) interface: String,
    pub(super) member: String,
    pub(super) error: String,
    pub(super) destination: String,
    pub(super) body: Vec<Value>,
}

// The header fields that we know, by their codes.
const PATH: u8 = 1;
const INTERFACE: u8 = 2;
const MEMBER: u8 = 3;
const ERROR_NAME: u8 = 4;
const REPLY_SERIAL: u8 = 5;
const DESTINATION: u8 = 6;
const SIGNATURE: u8 = 8;

/// What the length of a message can be told from.
pub(super) const PREFIX: usize = 16;

impl Message {
    pub(super) fn new(kind: Kind, serial: u32) -> Self {
        Message {
            kind,
            serial,
            reply_to: None,
            path: String::new(),
            interface: String::new(),
            member: String::new(),
            error: String::new(),
            destination: String::new(),
            body: Vec::new(),
        }
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut body = Writer::default();
        self.body.iter().for_each(|value| body.value(value));
        let signature: String = self.body.iter().map(Value::signature).collect();
        let fields = [
            (PATH, Value::ObjectPath(self.path.clone())),
            (INTERFACE, Value::String(self.interface.clone())),
            (MEMBER, Value::String(self.member.clone())),
            (ERROR_NAME, Value::String(self.error.clone())),
            (DESTINATION, Value::String(self.destination.clone())),
            (SIGNATURE, Value::Signature(signature)),
        ];
        let given = |(_, value): &(u8, Value)| value.as_str().is_some_and(|text| !text.is_empty());
        let mut fields: Vec<_> = fields.into_iter().filter(given).collect();
        fields.extend(self.reply_to.map(|serial| (REPLY_SERIAL, Value::Uint32(serial))));
        let field = |(code, value)| Value::Struct(vec![Value::Byte(code), Value::Variant(Box::new(value))]);
        let kind = Kind::ALL.iter().find(|(kind, _)| *kind == self.kind).map_or(0, |(_, byte)| *byte);
        let mut out = Writer::default();
        // Little endian, the kind, no flags, version 1.
        out.0.extend([b'l', kind, 0, 1]);
        out.uint32(body.0.len());
        out.fixed(self.serial.to_le_bytes());
        out.value(&Value::Array("(yv)".into(), fields.into_iter().map(field).collect()));
        out.align(8);
        out.0.extend(body.0);
        out.0
    }

    /// How long the message is that begins so.
    pub(super) fn length(prefix: &[u8; PREFIX]) -> Result<usize, Malformed> {
        if prefix[0] != b'l' || prefix[3] != 1 {
            return Err(Malformed("not a message of little endian, version 1"));
        }
        let mut reader = Reader { bytes: prefix, at: 4 };
        let body = reader.length()?;
        reader.take(4)?;
        let fields = reader.length()?;
        let whole = (PREFIX + fields).next_multiple_of(8) + body;
        if whole > LARGEST { Err(Malformed("a length out of range")) } else { Ok(whole) }
    }

    /// `None`: a kind that we do not know, which the specification says to pass over.
    pub(super) fn from_bytes(bytes: &[u8]) -> Result<Option<Self>, Malformed> {
        let mut reader = Reader { bytes, at: 1 };
        let kind = reader.take(1)?[0];
        let Some((kind, _)) = Kind::ALL.iter().find(|(_, byte)| *byte == kind) else { return Ok(None) };
        reader.take(2)?;
        reader.length()?;
        let mut message = Message::new(*kind, u32::from_le_bytes(reader.fixed()?));
        let Value::Array(_, fields) = reader.value("a(yv)", 0)? else {
            return Err(Malformed("no header fields"));
        };
        let mut signature = String::new();
        for field in fields {
            message.field(field, &mut signature);
        }
        reader.align(8)?;
        message.body = reader.values(&signature, 0)?;
        Ok(Some(message))
    }

    fn field(&mut self, field: Value, signature: &mut String) {
        let Value::Struct(parts) = field else { return };
        let mut parts = parts.into_iter();
        let (Some(Value::Byte(code)), Some(Value::Variant(value))) = (parts.next(), parts.next()) else {
            return;
        };
        let to = match (code, *value) {
            (REPLY_SERIAL, Value::Uint32(serial)) => {
                self.reply_to = Some(serial);
                return;
            }
            (PATH, Value::ObjectPath(text)) => (&mut self.path, text),
            (INTERFACE, Value::String(text)) => (&mut self.interface, text),
            (MEMBER, Value::String(text)) => (&mut self.member, text),
            (ERROR_NAME, Value::String(text)) => (&mut self.error, text),
            (DESTINATION, Value::String(text)) => (&mut self.destination, text),
            (SIGNATURE, Value::Signature(text)) => (signature, text),
            // The sender, and fields of later versions, are of no interest to us.
            _ => return,
        };
        *to.0 = to.1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(body: Vec<Value>) -> Message {
        Message {
            path: "/a/b".into(),
            interface: "c.d".into(),
            member: "E".into(),
            destination: "f.g".into(),
            body,
            ..Message::new(Kind::Call, 7)
        }
    }

    fn round_trip(message: &Message) -> Message {
        let bytes = message.to_bytes();
        let mut prefix = [0; PREFIX];
        prefix.copy_from_slice(&bytes[..PREFIX]);
        assert_eq!(Message::length(&prefix), Ok(bytes.len()));
        Message::from_bytes(&bytes).unwrap().unwrap()
    }

    #[test]
    fn the_bytes_of_a_hello() {
        let hello = Message {
            path: "/org/freedesktop/DBus".into(),
            interface: "org.freedesktop.DBus".into(),
            member: "Hello".into(),
            destination: "org.freedesktop.DBus".into(),
            ..Message::new(Kind::Call, 1)
        };
        let mut expected = vec![b'l', 1, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0x6d, 0, 0, 0];
        expected.extend(b"\x01\x01o\0\x15\0\0\0/org/freedesktop/DBus\0\0\0");
        expected.extend(b"\x02\x01s\0\x14\0\0\0org.freedesktop.DBus\0\0\0\0");
        expected.extend(b"\x03\x01s\0\x05\0\0\0Hello\0\0\0");
        expected.extend(b"\x06\x01s\0\x14\0\0\0org.freedesktop.DBus\0\0\0\0");
        assert_eq!(hello.to_bytes(), expected);
        assert_eq!(round_trip(&hello), hello);
    }

    #[test]
    fn the_bytes_of_values() {
        let strings =
            |list: &[&str]| Value::Array("s".into(), list.iter().map(|&s| Value::String(s.into())).collect());
        for (value, expected) in [
            (Value::Bool(true), &b"\x01\0\0\0"[..]),
            (Value::String("ab".into()), b"\x02\0\0\0ab\0"),
            (Value::Signature("as".into()), b"\x02as\0"),
            (strings(&[]), b"\0\0\0\0"),
            (strings(&["a", "b"]), b"\x0e\0\0\0\x01\0\0\0a\0\0\0\x01\0\0\0b\0"),
            // Aligned to 8 after the length, which does not count the padding.
            (Value::Array("t".into(), vec![Value::Uint64(1)]), b"\x08\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0"),
            (Value::Array("(ss)".into(), vec![]), b"\0\0\0\0\0\0\0\0"),
            (Value::Variant(Box::new(Value::Uint32(5))), b"\x01u\0\0\x05\0\0\0"),
            (Value::Struct(vec![Value::Byte(1), Value::Int16(-2)]), b"\x01\0\xfe\xff"),
        ] {
            let mut writer = Writer::default();
            writer.value(&value);
            assert_eq!(writer.0, expected, "{value}");
        }
    }

    #[test]
    fn values_come_back_as_they_were_sent() {
        let pair = Value::Struct(vec![Value::text("CPUWeight"), Value::Variant(Box::new(Value::Uint64(9)))]);
        let all = vec![
            Value::Byte(255),
            Value::Bool(false),
            Value::Int16(-3),
            Value::Uint16(40_000),
            Value::Int32(i32::MIN),
            Value::Uint32(u32::MAX),
            Value::Int64(i64::MIN),
            Value::Uint64(u64::MAX),
            Value::Double(-0.5),
            Value::text("grün"),
            Value::ObjectPath("/x".into()),
            Value::Signature("a(sv)".into()),
            Value::Array("y".into(), vec![Value::Byte(1), Value::Byte(2)]),
            Value::Array("(sv)".into(), vec![pair.clone(), pair]),
            Value::Array("as".into(), vec![Value::Array("s".into(), vec![])]),
            Value::Variant(Box::new(Value::Variant(Box::new(Value::Bool(true))))),
        ];
        let message = call(all);
        assert_eq!(round_trip(&message), message);
        let reply = Message { reply_to: Some(9), error: "e.f".into(), ..Message::new(Kind::Error, 2) };
        assert_eq!(round_trip(&reply), reply);
    }

    #[test]
    fn no_part_of_a_message_is_a_message_and_none_is_a_panic() {
        let pair = Value::Struct(vec![Value::text("a"), Value::Variant(Box::new(Value::Uint64(9)))]);
        let bytes = call(vec![Value::Array("(sv)".into(), vec![pair])]).to_bytes();
        for end in 0..bytes.len() {
            assert!(Message::from_bytes(&bytes[..end]).is_err(), "{end}");
        }
        let mut refused = 0;
        for at in 0..bytes.len() {
            for byte in [0, 1, 0x7f, 0xff] {
                let mut bad = bytes.clone();
                bad[at] = byte;
                refused += usize::from(Message::from_bytes(&bad).is_err());
            }
        }
        assert!(refused > 0);
    }

    #[test]
    fn lengths_out_of_range_are_refused() {
        let mut prefix = [b'l', 1, 0, 1, 0xff, 0xff, 0xff, 0xff, 1, 0, 0, 0, 0, 0, 0, 0];
        assert!(Message::length(&prefix).is_err());
        prefix[4..8].copy_from_slice(&[0; 4]);
        assert_eq!(Message::length(&prefix), Ok(16));
        prefix[0] = b'B';
        assert!(Message::length(&prefix).is_err());
    }

    #[test]
    fn signatures_are_taken_apart() {
        for (signature, expected) in [
            ("s", Some(("s", ""))),
            ("asu", Some(("as", "u"))),
            ("a(sa(sv))b", Some(("a(sa(sv))", "b"))),
            ("a{sv}", Some(("a{sv}", ""))),
            ("", None),
            ("a", None),
            ("(s", None),
            ("(s}", None),
            ("a()", None),
            (")", None),
            ("z", None),
        ] {
            assert_eq!(split_type(signature).ok(), expected, "{signature}");
        }
        assert!(split_type(&"a".repeat(1000)).is_err());
        assert!(split_type(&"(".repeat(1000)).is_err());
    }
}
