//! Annotations `org.systemd.property.NAME`: a property for the container's unit, with its value in the
//! text format of GVariant. Pure.
//!
//! <https://docs.gtk.org/glib/gvariant-text-format.html>,
//! <https://github.com/opencontainers/runc/blob/main/docs/systemd.md#auxiliary-properties>
//!
//! All types are read that a unit's property can have: dictionaries, variants in variants, maybe types
//! and handles are not among them.

use std::collections::BTreeMap;

use super::wire::Value;
use crate::error::Problem;

const PREFIX: &str = "org.systemd.property.";

/// One property of a unit.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::cgroup) struct Property {
    pub(super) name: String,
    pub(super) value: Value,
}

impl Property {
    pub(super) fn new(name: impl Into<String>, value: Value) -> Self {
        Property { name: name.into(), value }
    }
}

/// What the annotations ask for; what is wrong with them goes to `problems`.
pub(super) fn properties(
    annotations: &BTreeMap<String, String>,
    problems: &mut Vec<Problem>,
) -> Vec<Property> {
    let mut properties = Vec::new();
    for (key, text) in annotations {
        let Some(name) = key.strip_prefix(PREFIX) else { continue };
        match property(name, text) {
            Ok(property) => properties.push(property),
            Err(what) => {
                // RFC 6901
                let key = key.replace('~', "~0").replace('/', "~1");
                problems.push(Problem { pointer: format!("/annotations/{key}"), what });
            }
        }
    }
    properties
}

fn property(name: &str, text: &str) -> Result<Property, String> {
    if name.len() < 3 {
        return Err(format!("{name:?} is too short for a name of a property"));
    }
    if !name.bytes().all(|b| b.is_ascii_alphabetic()) {
        return Err(format!("{name:?} contains a non-alphabetic character"));
    }
    let value = parse(text).map_err(|why| format!("value {text:?}: {why}"))?;
    // Documented as TimeoutStopSec, on the bus TimeoutStopUSec. (TimeoutStopUSec itself, which has
    // a capital before "Sec", stays.)
    let stem = name.strip_suffix("Sec").filter(|stem| stem.ends_with(|c: char| c.is_ascii_lowercase()));
    Ok(match stem {
        Some(stem) => {
            let value =
                microseconds(&value).ok_or_else(|| format!("value {text:?}: not a number of seconds"))?;
            Property::new(format!("{stem}USec"), Value::Uint64(value))
        }
        None => Property::new(name, value),
    })
}

fn microseconds(seconds: &Value) -> Option<u64> {
    const SECOND: u64 = 1_000_000;
    let whole = match *seconds {
        Value::Byte(n) => u64::from(n),
        Value::Uint16(n) => u64::from(n),
        Value::Uint32(n) => u64::from(n),
        Value::Uint64(n) => n,
        Value::Int16(n) => u64::try_from(n).ok()?,
        Value::Int32(n) => u64::try_from(n).ok()?,
        Value::Int64(n) => u64::try_from(n).ok()?,
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "in range: see the guard"
        )]
        Value::Double(n) if (0.0..1e13).contains(&n) => return Some((n * 1e6).round() as u64),
        _ => return None,
    };
    whole.checked_mul(SECOND)
}

/// A value before its type is known: `[1, uint64 2]` is an array of `uint64`.
#[derive(Debug, Clone, PartialEq)]
enum Node {
    Bool(bool),
    Text(String),
    Number(String),
    /// `uint32 5`, `@au [1, 2]`: a type, by its signature.
    Typed(String, Box<Node>),
    Array(Vec<Node>),
    Tuple(Vec<Node>),
}

fn parse(text: &str) -> Result<Value, String> {
    let mut parser = Parser { rest: text };
    let node = parser.node(0)?;
    parser.space();
    if !parser.rest.is_empty() {
        return Err(format!("there is more after the value: {:?}", parser.rest));
    }
    let signature = node.signature()?;
    if signature.len() > LONGEST {
        return Err(format!("a type of {} bytes, where D-Bus takes {LONGEST}", signature.len()));
    }
    node.build(&signature)
}

struct Parser<'a> {
    rest: &'a str,
}

const KEYWORDS: [(&str, &str); 11] = [
    ("boolean", "b"),
    ("byte", "y"),
    ("int16", "n"),
    ("uint16", "q"),
    ("int32", "i"),
    ("uint32", "u"),
    ("int64", "x"),
    ("uint64", "t"),
    ("double", "d"),
    ("string", "s"),
    ("objectpath", "o"),
];

impl Parser<'_> {
    fn space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn eat(&mut self, token: char) -> bool {
        self.space();
        match self.rest.strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    /// As far as the bytes are of one word.
    fn word(&mut self) -> String {
        let of_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.' | '_');
        let end = self.rest.find(|c| !of_word(c)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word.to_owned()
    }

    fn node(&mut self, depth: usize) -> Result<Node, String> {
        if depth > 16 {
            return Err("too deep".into());
        }
        self.space();
        match self.rest.chars().next() {
            None => Err("the value is missing".into()),
            Some(quote @ ('\'' | '"')) => self.text(quote).map(Node::Text),
            Some('[') => self.list('[', ']', depth).map(Node::Array),
            Some('(') => self.list('(', ')', depth).map(Node::Tuple),
            Some('@') => {
                let end = self.rest.find(char::is_whitespace).unwrap_or(self.rest.len());
                let signature = self.rest[1..end].to_owned();
                check(&signature)?;
                self.rest = &self.rest[end..];
                Ok(Node::Typed(signature, Box::new(self.node(depth + 1)?)))
            }
            Some(first) => {
                let word = self.word();
                if let Some((_, signature)) = KEYWORDS.iter().find(|(keyword, _)| *keyword == word) {
                    return Ok(Node::Typed((*signature).into(), Box::new(self.node(depth + 1)?)));
                }
                match &*word {
                    "true" => Ok(Node::Bool(true)),
                    "false" => Ok(Node::Bool(false)),
                    "inf" | "nan" => Ok(Node::Number(word)),
                    _ if first.is_ascii_digit() || matches!(first, '+' | '-' | '.') => Ok(Node::Number(word)),
                    "" => Err(format!("{first:?} begins no value that a property of systemd has")),
                    _ => Err(format!("{word:?} is not a value (a string stands in quotes)")),
                }
            }
        }
    }

    /// `[a, b]`, `(a, b)`, `(a,)`.
    fn list(&mut self, open: char, close: char, depth: usize) -> Result<Vec<Node>, String> {
        self.eat(open);
        let mut nodes = Vec::new();
        loop {
            if self.eat(close) {
                return Ok(nodes);
            }
            nodes.push(self.node(depth + 1)?);
            if !self.eat(',') {
                return if self.eat(close) { Ok(nodes) } else { Err(format!("{close:?} is missing")) };
            }
        }
    }

    fn text(&mut self, quote: char) -> Result<String, String> {
        let mut text = String::new();
        let mut chars = self.rest.chars();
        chars.next();
        loop {
            let character = match chars.next() {
                None => return Err("a string without its end".into()),
                Some(end) if end == quote => break,
                Some('\\') => match chars.next() {
                    None => return Err("a string without its end".into()),
                    Some('u') => hexadecimal(&mut chars, 4)?,
                    Some('U') => hexadecimal(&mut chars, 8)?,
                    Some('a') => '\u{7}',
                    Some('b') => '\u{8}',
                    Some('f') => '\u{c}',
                    Some('n') => '\n',
                    Some('r') => '\r',
                    Some('t') => '\t',
                    Some('v') => '\u{b}',
                    Some(other) => other,
                },
                Some(other) => other,
            };
            if character == '\0' {
                return Err("a string with a NUL".into());
            }
            text.push(character);
        }
        self.rest = chars.as_str();
        Ok(text)
    }
}

fn hexadecimal(chars: &mut std::str::Chars<'_>, count: usize) -> Result<char, String> {
    let digits: String = chars.by_ref().take(count).collect();
    let code = u32::from_str_radix(&digits, 16).ok().filter(|_| digits.len() == count);
    code.and_then(char::from_u32).ok_or_else(|| format!("\\u{digits} is no character"))
}

/// Bytes of a signature (D-Bus specification, "Basic types"): the length on the wire is one byte.
const LONGEST: usize = 255;
/// Arrays in arrays, and structs in structs (the same, "Container types").
const DEEPEST: usize = 32;

/// A signature of the types that we have: `as`, `a(ss)`.
fn check(signature: &str) -> Result<(), String> {
    if signature.len() > LONGEST {
        return Err(format!("a type of {} bytes, where D-Bus takes {LONGEST}", signature.len()));
    }
    let mut rest = signature;
    take(&mut rest, 0)
        .filter(|()| rest.is_empty())
        .ok_or_else(|| format!("@{signature} is not a type of a property"))
}

/// Takes one complete type off.
fn take(signature: &mut &str, depth: usize) -> Option<()> {
    if depth > DEEPEST {
        return None;
    }
    let first = signature.chars().next()?;
    *signature = &signature[first.len_utf8()..];
    match first {
        'b' | 'y' | 'n' | 'q' | 'i' | 'u' | 'x' | 't' | 'd' | 's' | 'o' => Some(()),
        'a' => take(signature, depth + 1),
        '(' => {
            take(signature, depth + 1)?;
            while !signature.starts_with(')') {
                take(signature, depth + 1)?;
            }
            *signature = &signature[1..];
            Some(())
        }
        _ => None,
    }
}

impl Node {
    /// What its type is when nothing around it says otherwise.
    fn signature(&self) -> Result<String, String> {
        Ok(match self {
            Node::Bool(_) => "b".into(),
            Node::Text(_) => "s".into(),
            Node::Number(text) => if is_double(text) { "d" } else { "i" }.into(),
            Node::Typed(signature, _) => signature.clone(),
            Node::Tuple(nodes) if nodes.is_empty() => return Err("no property of systemd is empty".into()),
            Node::Tuple(nodes) => {
                let fields: String = nodes.iter().map(Node::signature).collect::<Result<_, _>>()?;
                format!("({fields})")
            }
            // An element that says its type says it for all.
            Node::Array(nodes) => {
                let typed = nodes.iter().find(|node| matches!(node, Node::Typed(..)));
                let double = nodes.iter().find(|n| matches!(n, Node::Number(text) if is_double(text)));
                let spokesman = typed.or(double).or(nodes.first());
                let spokesman = spokesman.ok_or("an empty array needs its type: @as []")?;
                format!("a{}", spokesman.signature()?)
            }
        })
    }

    fn build(&self, want: &str) -> Result<Value, String> {
        let mismatch = || format!("it is not of type {want}");
        match self {
            Node::Typed(own, node) if own == want => node.build(want),
            Node::Bool(value) if want == "b" => Ok(Value::Bool(*value)),
            Node::Text(text) if want == "s" => Ok(Value::String(text.clone())),
            Node::Text(text) if want == "o" && is_object_path(text) => Ok(Value::ObjectPath(text.clone())),
            Node::Number(text) => number(text, want),
            Node::Array(nodes) => {
                let element = want.strip_prefix('a').ok_or_else(mismatch)?;
                let values = nodes.iter().map(|node| node.build(element)).collect::<Result<_, _>>()?;
                Ok(Value::Array(element.to_owned(), values))
            }
            Node::Tuple(nodes) => {
                let inner = want.strip_prefix('(').and_then(|w| w.strip_suffix(')')).ok_or_else(mismatch)?;
                let mut rest = inner;
                let mut values = Vec::new();
                for node in nodes {
                    let before = rest;
                    take(&mut rest, 0).ok_or_else(mismatch)?;
                    values.push(node.build(&before[..before.len() - rest.len()])?);
                }
                if rest.is_empty() { Ok(Value::Struct(values)) } else { Err(mismatch()) }
            }
            _ => Err(mismatch()),
        }
    }
}

fn is_object_path(text: &str) -> bool {
    let element =
        |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    text == "/" || text.strip_prefix('/').is_some_and(|rest| rest.split('/').all(element))
}

fn is_hexadecimal(text: &str) -> bool {
    text.trim_start_matches(['+', '-']).starts_with("0x")
}

fn is_double(text: &str) -> bool {
    !is_hexadecimal(text)
        && (text.contains(['.', 'e', 'E']) || text.ends_with("inf") || text.ends_with("nan"))
}

fn number(text: &str, want: &str) -> Result<Value, String> {
    let wrong = || {
        let keyword = KEYWORDS.iter().find(|(_, signature)| *signature == want);
        format!("{text} is not of type {}", keyword.map_or(want, |(keyword, _)| keyword))
    };
    if want == "d" {
        return text.parse().map(Value::Double).map_err(|_| wrong());
    }
    let whole = integer(text).ok_or_else(wrong)?;
    let fits = match want {
        "y" => u8::try_from(whole).ok().map(Value::Byte),
        "n" => i16::try_from(whole).ok().map(Value::Int16),
        "q" => u16::try_from(whole).ok().map(Value::Uint16),
        "i" => i32::try_from(whole).ok().map(Value::Int32),
        "u" => u32::try_from(whole).ok().map(Value::Uint32),
        "x" => i64::try_from(whole).ok().map(Value::Int64),
        "t" => u64::try_from(whole).ok().map(Value::Uint64),
        _ => None,
    };
    fits.ok_or_else(wrong)
}

/// `12`, `0x1f`, `017`.
fn integer(text: &str) -> Option<i128> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if !digits.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let value = match (digits.strip_prefix("0x"), digits.strip_prefix('0').filter(|rest| !rest.is_empty())) {
        (Some(hex), _) => i128::from_str_radix(hex, 16),
        (None, Some(octal)) => i128::from_str_radix(octal, 8),
        (None, None) => digits.parse(),
    };
    value.ok().map(|value| if negative { -value } else { value })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(list: &[&str]) -> Value {
        Value::Array("s".into(), list.iter().map(|&s| Value::text(s)).collect())
    }

    #[test]
    fn values_of_each_type() {
        let pair = |a: &str, b: &str| Value::Struct(vec![Value::text(a), Value::text(b)]);
        for (text, expected) in [
            ("true", Value::Bool(true)),
            (" false ", Value::Bool(false)),
            ("boolean true", Value::Bool(true)),
            ("'inactive-or-failed'", Value::text("inactive-or-failed")),
            (r#""a 'b' \"c\" \\ \n \u00fc""#, Value::text("a 'b' \"c\" \\ \n ü")),
            ("''", Value::text("")),
            ("5", Value::Int32(5)),
            ("-0x10", Value::Int32(-16)),
            ("017", Value::Int32(15)),
            ("0", Value::Int32(0)),
            ("uint32 5", Value::Uint32(5)),
            ("uint64 18446744073709551615", Value::Uint64(u64::MAX)),
            ("int64 -5", Value::Int64(-5)),
            ("@t 7", Value::Uint64(7)),
            ("byte 0xff", Value::Byte(255)),
            ("int16 -3", Value::Int16(-3)),
            ("uint16 3", Value::Uint16(3)),
            ("1.5", Value::Double(1.5)),
            ("double 3", Value::Double(3.0)),
            ("-1e3", Value::Double(-1000.0)),
            ("objectpath '/a/b_1'", Value::ObjectPath("/a/b_1".into())),
            ("['a', 'b']", strings(&["a", "b"])),
            ("['a']", strings(&["a"])),
            ("@as []", strings(&[])),
            ("[byte 1, 2]", Value::Array("y".into(), vec![Value::Byte(1), Value::Byte(2)])),
            ("[1, 2.5]", Value::Array("d".into(), vec![Value::Double(1.0), Value::Double(2.5)])),
            ("@au [1]", Value::Array("u".into(), vec![Value::Uint32(1)])),
            ("('a', 'b')", pair("a", "b")),
            ("(true,)", Value::Struct(vec![Value::Bool(true)])),
            (
                "[('/dev/null', 'rw'), ('/dev/zero', 'r')]",
                Value::Array("(ss)".into(), vec![pair("/dev/null", "rw"), pair("/dev/zero", "r")]),
            ),
            ("@a(ss) []", Value::Array("(ss)".into(), vec![])),
            (
                "@a(st) [('/dev/sda', 5)]",
                Value::Array(
                    "(st)".into(),
                    vec![Value::Struct(vec![Value::text("/dev/sda"), Value::Uint64(5)])],
                ),
            ),
        ] {
            assert_eq!(parse(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_value_is_refused_with_a_reason() {
        for (text, why) in [
            ("", "the value is missing"),
            ("done", "\"done\" is not a value (a string stands in quotes)"),
            ("'a", "a string without its end"),
            ("'a\\", "a string without its end"),
            (r"'\u12'", "is no character"),
            (r"'\u0000'", "a string with a NUL"),
            ("5 6", "there is more after the value: \"6\""),
            ("2147483648", "2147483648 is not of type int32"),
            ("uint32 -1", "-1 is not of type uint32"),
            ("byte 256", "256 is not of type byte"),
            ("uint32 'a'", "it is not of type u"),
            ("1x", "1x is not of type int32"),
            ("09", "09 is not of type int32"),
            ("[]", "an empty array needs its type: @as []"),
            ("['a', 5]", "5 is not of type string"),
            ("['a'", "']' is missing"),
            ("['a' 'b']", "']' is missing"),
            ("()", "no property of systemd is empty"),
            ("{'a': 1}", "'{' begins no value that a property of systemd has"),
            ("<5>", "'<' begins no value that a property of systemd has"),
            ("@zz 5", "@zz is not a type of a property"),
            ("@(s) ('a', 'b')", "it is not of type (s)"),
            ("objectpath 'x'", "it is not of type o"),
            (&"[".repeat(40), "too deep"),
            (&format!("@{} 5", "(".repeat(200_000)), "a type of 200000 bytes, where D-Bus takes 255"),
            (&format!("@{}s 5", "a".repeat(200)), "is not a type of a property"),
            (&format!("({})", "1,".repeat(300)), "a type of 302 bytes, where D-Bus takes 255"),
            (&format!("({})", "@ai [],".repeat(127)), "a type of 256 bytes, where D-Bus takes 255"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    fn read(key: &str, text: &str) -> Result<(String, Value), String> {
        let annotations = BTreeMap::from([(key.to_owned(), text.to_owned())]);
        let mut problems = Vec::new();
        let mut properties = properties(&annotations, &mut problems);
        match (properties.pop(), problems.pop()) {
            (Some(property), None) => Ok((property.name, property.value)),
            (None, Some(problem)) => Err(format!("{}: {}", problem.pointer, problem.what)),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn seconds_become_microseconds() {
        for (name, text, expected, value) in [
            ("TimeoutStopSec", "5", "TimeoutStopUSec", Value::Uint64(5_000_000)),
            ("TimeoutStopSec", "uint64 5", "TimeoutStopUSec", Value::Uint64(5_000_000)),
            ("TimeoutStopSec", "1.5", "TimeoutStopUSec", Value::Uint64(1_500_000)),
            ("TimeoutStopUSec", "uint64 5", "TimeoutStopUSec", Value::Uint64(5)),
            ("XSec", "5", "XSec", Value::Int32(5)),
            ("CollectMode", "'inactive'", "CollectMode", Value::text("inactive")),
        ] {
            let property = read(&format!("org.systemd.property.{name}"), text);
            assert_eq!(property, Ok((expected.to_owned(), value)), "{name} {text}");
        }
    }

    #[test]
    fn what_is_wrong_with_an_annotation() {
        for (name, text, expected) in [
            ("ab", "5", "ab: \"ab\" is too short for a name of a property"),
            ("A-b", "5", "A-b: \"A-b\" contains a non-alphabetic character"),
            ("A/b", "5", "A~1b: \"A/b\" contains a non-alphabetic character"),
            ("After", "b", "After: value \"b\": \"b\" is not a value (a string stands in quotes)"),
            ("TimeoutStopSec", "'5'", "TimeoutStopSec: value \"'5'\": not a number of seconds"),
            ("TimeoutStopSec", "-5", "TimeoutStopSec: value \"-5\": not a number of seconds"),
        ] {
            let error = read(&format!("org.systemd.property.{name}"), text).unwrap_err();
            assert_eq!(error, format!("/annotations/org.systemd.property.{expected}"));
        }
    }

    #[test]
    fn other_annotations_are_not_for_systemd() {
        let annotations = BTreeMap::from([("org.systemd.other".to_owned(), "x".to_owned())]);
        let mut problems = Vec::new();
        assert_eq!(properties(&annotations, &mut problems), []);
        assert_eq!(problems, []);
    }
}
