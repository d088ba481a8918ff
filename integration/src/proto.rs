//! Protobuf as far as a test needs it: fields by their numbers, as the `.proto` files of the engines give them. It is
//! our own on purpose: a mistake that the judge shared with the judged would not be seen.

/// A message that is being written. As in proto3, a field with the default value is left out.
#[derive(Debug, Clone, Default)]
pub struct Message(Vec<u8>);

impl Message {
    pub fn new() -> Self {
        Self::default()
    }

    /// An integer, an enum or a bool.
    #[must_use]
    pub fn number(mut self, field: u32, value: u64) -> Self {
        if value != 0 {
            self.varint(u64::from(field) << 3);
            self.varint(value);
        }
        self
    }

    /// A string, or the bytes of a message.
    #[must_use]
    pub fn bytes(mut self, field: u32, value: impl AsRef<[u8]>) -> Self {
        let value = value.as_ref();
        if !value.is_empty() {
            self.varint(u64::from(field) << 3 | 2);
            self.varint(value.len() as u64);
            self.0.extend_from_slice(value);
        }
        self
    }

    /// A message, which is there even when it is empty.
    #[must_use]
    pub fn message(mut self, field: u32, value: &Message) -> Self {
        self.varint(u64::from(field) << 3 | 2);
        self.varint(value.0.len() as u64);
        self.0.extend_from_slice(&value.0);
        self
    }

    /// One entry of a map of strings.
    #[must_use]
    pub fn entry(self, field: u32, key: &str, value: &str) -> Self {
        self.message(field, &Message::new().bytes(1, key).bytes(2, value))
    }

    /// A `google.protobuf.Any`.
    #[must_use]
    pub fn any(self, field: u32, type_url: &str, value: impl AsRef<[u8]>) -> Self {
        self.message(field, &Message::new().bytes(1, type_url).bytes(2, value))
    }

    fn varint(&mut self, mut value: u64) {
        while value > 0x7f {
            self.0.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

impl AsRef<[u8]> for Message {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

#[derive(Debug, Clone, PartialEq)]
enum Value {
    Number(u64),
    Bytes(Vec<u8>),
}

/// A message that was read: its fields in their order.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Fields(Vec<(u32, Value)>);

impl Fields {
    /// Reads a whole message.
    ///
    /// # Errors
    /// When the bytes are none.
    pub fn decode(mut bytes: &[u8]) -> Result<Self, String> {
        let mut fields = Vec::new();
        while !bytes.is_empty() {
            let key = varint(&mut bytes)?;
            let field = u32::try_from(key >> 3).map_err(|_| format!("field {}", key >> 3))?;
            let value = match key & 7 {
                0 => Value::Number(varint(&mut bytes)?),
                1 => Value::Number(fixed::<8>(&mut bytes)?),
                2 => {
                    let len = usize::try_from(varint(&mut bytes)?).map_err(|error| error.to_string())?;
                    Value::Bytes(take(&mut bytes, len)?.to_vec())
                }
                5 => Value::Number(fixed::<4>(&mut bytes)?),
                kind => return Err(format!("field {field} has wire type {kind}")),
            };
            if field == 0 {
                return Err("a field has the number 0".into());
            }
            fields.push((field, value));
        }
        Ok(Self(fields))
    }

    /// The last of that number, or 0.
    pub fn number(&self, field: u32) -> u64 {
        let mut found = self.0.iter().rev().filter(|(number, _)| *number == field);
        found
            .find_map(|(_, value)| if let Value::Number(number) = value { Some(*number) } else { None })
            .unwrap_or(0)
    }

    /// Every one of that number.
    pub fn all(&self, field: u32) -> impl DoubleEndedIterator<Item = &[u8]> {
        let found = self.0.iter().filter(move |(number, _)| *number == field);
        found.filter_map(
            |(_, value)| if let Value::Bytes(bytes) = value { Some(bytes.as_slice()) } else { None },
        )
    }

    /// The last of that number, or nothing.
    pub fn bytes(&self, field: u32) -> &[u8] {
        self.all(field).next_back().unwrap_or_default()
    }

    pub fn text(&self, field: u32) -> String {
        String::from_utf8_lossy(self.bytes(field)).into_owned()
    }

    /// # Panics
    /// When the field holds no message.
    #[track_caller]
    pub fn message(&self, field: u32) -> Fields {
        Fields::decode(self.bytes(field)).unwrap_or_else(|error| panic!("field {field} of {self:?}: {error}"))
    }

    /// # Panics
    /// When one of them is no message.
    #[track_caller]
    pub fn messages(&self, field: u32) -> Vec<Fields> {
        let decoded = self.all(field).map(Fields::decode);
        decoded.map(|one| one.unwrap_or_else(|error| panic!("field {field} of {self:?}: {error}"))).collect()
    }

    /// The numbers of its fields, each once, in rising order.
    pub fn numbers(&self) -> Vec<u32> {
        let mut numbers: Vec<_> = self.0.iter().map(|(number, _)| *number).collect();
        numbers.sort_unstable();
        numbers.dedup();
        numbers
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn take<'a>(bytes: &mut &'a [u8], len: usize) -> Result<&'a [u8], String> {
    let (taken, rest) = bytes.split_at_checked(len).ok_or("the message ends in a field")?;
    *bytes = rest;
    Ok(taken)
}

fn fixed<const LEN: usize>(bytes: &mut &[u8]) -> Result<u64, String> {
    let taken = take(bytes, LEN)?;
    Ok(taken.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

fn varint(bytes: &mut &[u8]) -> Result<u64, String> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let byte = take(bytes, 1)?[0];
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err("a number of more than 64 bits".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let inner = Message::new().number(1, 300).bytes(2, "text");
        let message =
            Message::new().message(3, &inner).number(4, u64::MAX).bytes(5, "").message(6, &Message::new());
        let fields = Fields::decode(message.as_ref()).expect("a message");
        assert_eq!(fields.numbers(), [3, 4, 6]);
        assert_eq!((fields.message(3).number(1), fields.message(3).text(2)), (300, "text".into()));
        assert_eq!(fields.number(4), u64::MAX);
    }

    #[test]
    fn the_bytes_are_those_of_the_encoding_guide() {
        assert_eq!(Message::new().number(1, 150).as_ref(), [0x08, 0x96, 0x01]);
        assert_eq!(Message::new().bytes(2, "testing").as_ref(), b"\x12\x07testing");
    }

    #[test]
    fn a_truncated_message_is_an_error() {
        for bytes in [&b"\x08"[..], b"\x12\x07test", b"\x0d\x01", b"\x00\x01", b"\x0b"] {
            assert!(Fields::decode(bytes).is_err(), "{bytes:?}");
        }
    }
}
