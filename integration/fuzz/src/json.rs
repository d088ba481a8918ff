//! One change to a JSON document, which stays one.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::random::Random;

/// What stands under each key in any of the inputs, and all texts.
#[derive(Debug, Default)]
pub(crate) struct Vocabulary {
    by_key: BTreeMap<String, Vec<Value>>,
    keys: Vec<String>,
    texts: Vec<String>,
}

/// Of each key so many values are kept.
const VALUES: usize = 40;

impl Vocabulary {
    pub(crate) fn learn(&mut self, value: &Value) {
        match value {
            Value::Object(map) => {
                for (key, value) in map {
                    let values = self.by_key.entry(key.clone()).or_insert_with(|| {
                        self.keys.push(key.clone());
                        Vec::new()
                    });
                    if values.len() < VALUES && !values.contains(value) {
                        values.push(value.clone());
                    }
                    self.learn(value);
                }
            }
            Value::Array(items) => items.iter().for_each(|item| self.learn(item)),
            Value::String(text) if self.texts.len() < 2000 && !self.texts.contains(text) => {
                self.texts.push(text.clone());
            }
            _ => {}
        }
    }

    fn under(&self, key: &str, random: &mut Random) -> Option<Value> {
        random.of(self.by_key.get(key)?).cloned()
    }
}

pub(crate) fn change(document: &mut Value, vocabulary: &Vocabulary, random: &mut Random) {
    let count = count(document);
    // Some place in the document, each as likely.
    let mut left = random.below(count);
    visit(document, None, &mut left, &mut |value, key| change_here(value, key, vocabulary, random));
}

fn count(value: &Value) -> usize {
    1 + match value {
        Value::Object(map) => map.values().map(count).sum::<usize>(),
        Value::Array(items) => items.iter().map(count).sum(),
        _ => 0,
    }
}

/// Calls `act` with the value that has `left` others before it, and its key; true when it was found.
fn visit(
    value: &mut Value,
    key: Option<&str>,
    left: &mut usize,
    act: &mut impl FnMut(&mut Value, Option<&str>),
) -> bool {
    if *left == 0 {
        act(value, key);
        return true;
    }
    *left -= 1;
    match value {
        Value::Object(map) => map.iter_mut().any(|(key, value)| visit(value, Some(key), left, act)),
        Value::Array(items) => items.iter_mut().any(|item| visit(item, key, left, act)),
        _ => false,
    }
}

fn change_here(value: &mut Value, key: Option<&str>, vocabulary: &Vocabulary, random: &mut Random) {
    if random.once_in(12) {
        *value = strange(vocabulary, random);
        return;
    }
    if random.once_in(4)
        && let Some(other) = key.and_then(|key| vocabulary.under(key, random))
    {
        *value = other;
        return;
    }
    match value {
        Value::Object(map) => change_object(map, vocabulary, random),
        Value::Array(items) => change_array(items, random),
        Value::String(text) => *text = change_text(text, vocabulary, random),
        _ => *value = strange(vocabulary, random),
    }
}

fn change_object(map: &mut Map<String, Value>, vocabulary: &Vocabulary, random: &mut Random) {
    let keys: Vec<String> = map.keys().cloned().collect();
    let own = random.of(&keys).cloned();
    match (random.below(4), own) {
        (0, Some(own)) => {
            map.remove(&own);
        }
        (1, Some(own)) => {
            let value = vocabulary.under(&own, random).unwrap_or_else(|| strange(vocabulary, random));
            map.insert(own, value);
        }
        _ => {
            let Some(key) = random.of(&vocabulary.keys).cloned() else { return };
            let value = match vocabulary.under(&key, random) {
                Some(value) if !random.once_in(8) => value,
                _ => strange(vocabulary, random),
            };
            map.insert(key, value);
        }
    }
}

fn change_array(items: &mut Vec<Value>, random: &mut Random) {
    let (from, to) = (random.below(items.len()), random.below(items.len()));
    match random.below(4) {
        _ if items.is_empty() => items.push(Value::Null),
        0 => drop(items.remove(from)),
        1 => items.insert(to, items[from].clone()),
        2 if random.once_in(8) => {
            let item = items[from].clone();
            items.extend(std::iter::repeat_n(item, 100));
        }
        _ => items.swap(from, to),
    }
}

fn change_text(text: &str, vocabulary: &Vocabulary, random: &mut Random) -> String {
    const PIECES: [&str; 16] =
        ["/", "..", ":", "-", " ", "\0", "\n", "=", ",", "~1", "é", "\u{10ffff}", "%", "*", "\\", "@"];
    let mut chars: Vec<char> = text.chars().collect();
    let at = random.below(chars.len() + 1);
    match random.below(6) {
        0 => return random.of(&vocabulary.texts).cloned().unwrap_or_default(),
        1 => chars.truncate(at),
        2 => chars = chars.repeat(if random.once_in(8) { 300 } else { 2 }),
        3 => {
            let other: Vec<char> =
                random.of(&vocabulary.texts).map(|t| t.chars().collect()).unwrap_or_default();
            chars.splice(at..at, other);
        }
        _ => {
            let piece = PIECES[random.below(PIECES.len())];
            let end = if random.once_in(2) { at } else { (at + 1).min(chars.len()) };
            chars.splice(at..end, piece.chars());
        }
    }
    chars.into_iter().take(8192).collect()
}

fn strange(vocabulary: &Vocabulary, random: &mut Random) -> Value {
    let deep = |open: fn(Value) -> Value, depth: usize| (0..depth).fold(Value::Null, |value, _| open(value));
    match random.below(24) {
        0 => Value::Null,
        1 => json!(true),
        2 => json!(false),
        3 => json!(0),
        4 => json!(-1),
        5 => json!(1),
        6 => json!(u64::MAX),
        7 => json!(i64::MAX),
        8 => json!(i64::MIN),
        9 => json!(u64::from(u32::MAX)),
        10 => json!(u64::from(u32::MAX) + 1),
        11 => json!(i32::MIN),
        12 => json!(65_536),
        13 => json!(0.5),
        14 => json!(1e300),
        15 => json!(""),
        16 => json!([]),
        17 => json!({}),
        18 => deep(|value| json!([value]), 60),
        19 => deep(|value| json!({ "a": value }), 60),
        20 => json!(random.number()),
        21 => json!("x".repeat(5000)),
        _ => random.of(&vocabulary.texts).cloned().map_or(Value::Null, Value::String),
    }
}
