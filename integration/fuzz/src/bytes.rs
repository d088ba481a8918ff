//! One change to bytes, or to a text.

use crate::random::Random;

/// The borders of the types that numbers are read into, and of what files and messages hold.
const BORDERS: [u64; 20] = [
    0,
    1,
    2,
    7,
    8,
    16,
    32,
    64,
    0x7f,
    0x80,
    0xff,
    0x100,
    0x7fff,
    0xffff,
    0x1_0000,
    0x7fff_ffff,
    0xffff_ffff,
    0x1_0000_0000,
    u64::MAX >> 1,
    u64::MAX,
];

/// Numbers as texts have them.
const NUMBERS: [&str; 18] = [
    "0",
    "-1",
    "1",
    "00",
    "+1",
    "-0",
    "255",
    "256",
    "65535",
    "65536",
    "2147483648",
    "4294967295",
    "4294967296",
    "9223372036854775807",
    "-9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "1e400",
];

/// What else there is to take from: another input, and words.
pub(crate) struct Around<'a> {
    pub(crate) other: &'a [u8],
    pub(crate) words: &'a [Vec<u8>],
    /// Pairs that the target has compared lately, when it is watched: the first is put for the second.
    pub(crate) compared: &'a [(u64, u64)],
}

pub(crate) fn change(bytes: &mut Vec<u8>, around: &Around<'_>, random: &mut Random) {
    match random.below(12) {
        0 => flip(bytes, random),
        1 => put(bytes, random),
        2 => remove(bytes, random),
        3 => repeat(bytes, random),
        4 => {
            let border = BORDERS[random.below(BORDERS.len())];
            overwrite(bytes, border, random);
        }
        5 => {
            // A length, or an index: one more or one less than it was.
            let at = random.below(bytes.len());
            if let Some(byte) = bytes.get_mut(at) {
                *byte = if random.once_in(2) { byte.wrapping_add(1) } else { byte.wrapping_sub(1) };
            }
        }
        6 => cross(bytes, around.other, random),
        7 | 8 => insert_word(bytes, around.words, random),
        9 => answer_comparison(bytes, around.compared, random),
        10 => number(bytes, random),
        _ => line(bytes, random),
    }
}

fn range(len: usize, most: usize, random: &mut Random) -> std::ops::Range<usize> {
    let start = random.below(len + 1);
    let length = 1 + random.below(most);
    start..(start + length).min(len)
}

fn flip(bytes: &mut [u8], random: &mut Random) {
    let at = random.below(bytes.len());
    if let Some(byte) = bytes.get_mut(at) {
        *byte ^= 1 << random.below(8);
    }
}

fn put(bytes: &mut Vec<u8>, random: &mut Random) {
    let at = random.below(bytes.len() + 1);
    let count = 1 + random.below(4);
    let new: Vec<u8> = (0..count).map(|_| random.number() as u8).collect();
    bytes.splice(at..at, new);
}

fn remove(bytes: &mut Vec<u8>, random: &mut Random) {
    // The end is what is cut off most often.
    let range = if random.once_in(3) {
        random.below(bytes.len() + 1)..bytes.len()
    } else {
        range(bytes.len(), 16, random)
    };
    bytes.drain(range);
}

fn repeat(bytes: &mut Vec<u8>, random: &mut Random) {
    let range = range(bytes.len(), 64, random);
    let part = bytes[range.clone()].to_vec();
    let times = if random.once_in(16) { 200 } else { 1 + random.below(3) };
    bytes.splice(range.end..range.end, part.repeat(times));
}

/// A number of 1, 2, 4 or 8 bytes, in either order.
fn overwrite(bytes: &mut [u8], number: u64, random: &mut Random) {
    let width = 1 << random.below(4);
    if bytes.len() < width {
        return;
    }
    let at = random.below(bytes.len() - width + 1);
    let (little, big) = (number.to_le_bytes(), number.to_be_bytes());
    let new = if random.once_in(2) { &little[..width] } else { &big[8 - width..] };
    bytes[at..at + width].copy_from_slice(new);
}

fn cross(bytes: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    let from = range(other.len(), other.len() + 1, random);
    let at = random.below(bytes.len() + 1);
    let end = if random.once_in(2) { at } else { (at + from.len()).min(bytes.len()) };
    bytes.splice(at..end, other[from].iter().copied());
}

fn insert_word(bytes: &mut Vec<u8>, words: &[Vec<u8>], random: &mut Random) {
    let Some(word) = random.of(words) else { return };
    let at = random.below(bytes.len() + 1);
    let end = if random.once_in(2) { at } else { end_of_word(bytes, at) };
    bytes.splice(at..end, word.iter().copied());
}

fn is_of_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

fn end_of_word(bytes: &[u8], at: usize) -> usize {
    bytes[at..].iter().position(|byte| !is_of_word(*byte)).map_or(bytes.len(), |length| at + length)
}

/// What was compared with a constant becomes that constant, where it stands in the input.
fn answer_comparison(bytes: &mut [u8], compared: &[(u64, u64)], random: &mut Random) {
    let Some(&(one, other)) = random.of(compared) else { return };
    let (found, wanted) = if random.once_in(2) { (one, other) } else { (other, one) };
    for width in [8, 4, 2, 1] {
        for is_little in [true, false] {
            let form = |number: u64| -> Vec<u8> {
                if is_little {
                    number.to_le_bytes()[..width].to_vec()
                } else {
                    number.to_be_bytes()[8 - width..].to_vec()
                }
            };
            let (from, to) = (form(found), form(wanted));
            let places: Vec<usize> =
                bytes.windows(width).enumerate().filter(|(_, w)| *w == from).map(|(at, _)| at).collect();
            if let Some(&at) = random.of(&places) {
                bytes[at..at + width].copy_from_slice(&to);
                return;
            }
        }
    }
}

/// A number in digits becomes another.
fn number(bytes: &mut Vec<u8>, random: &mut Random) {
    let starts: Vec<usize> = (0..bytes.len())
        .filter(|&at| bytes[at].is_ascii_digit() && (at == 0 || !bytes[at - 1].is_ascii_digit()))
        .collect();
    let Some(&start) = random.of(&starts) else { return };
    let end = start + bytes[start..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let new = NUMBERS[random.below(NUMBERS.len())];
    bytes.splice(start..end, new.bytes());
}

/// A line is left out, written twice, or put elsewhere.
fn line(bytes: &mut Vec<u8>, random: &mut Random) {
    let mut lines: Vec<Vec<u8>> = bytes.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
    let (from, to) = (random.below(lines.len()), random.below(lines.len()));
    match random.below(3) {
        0 => drop(lines.remove(from)),
        1 => lines.insert(to, lines[from].clone()),
        _ => lines.swap(from, to),
    }
    *bytes = lines.join(&b'\n');
}

/// The words of an input, to be put into others.
pub(crate) fn words(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.split(|byte| !is_of_word(*byte)).filter(|word| (2..40).contains(&word.len()))
}
