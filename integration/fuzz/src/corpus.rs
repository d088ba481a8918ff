//! The inputs of a target, in memory and in its file.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, Once};
use std::time::{Duration, Instant};

pub(crate) type Input = Vec<u8>;

/// Bytes that the inputs of one file may have together.
const ROOM: usize = 5 << 10;

/// The file has an input in each line, as a string of bytes in Rust, without its quotes.
#[derive(Debug)]
pub(crate) struct Corpus {
    file: PathBuf,
    inputs: Vec<Input>,
    /// How many of them the target has in its own code, and how many the file.
    seeds: usize,
    kept: usize,
}

impl Corpus {
    pub(crate) fn open(name: &str, seeds: &[Input]) -> Self {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(format!("{name}.txt"));
        let text = match fs::read_to_string(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => panic!("{}: {error}", file.display()),
        };
        let read = |line: &str| {
            unescape(line).unwrap_or_else(|| panic!("{}: {line:?} is no string of bytes", file.display()))
        };
        let kept: Vec<Input> = text.lines().map(read).collect();
        let count = kept.len();
        let inputs = seeds.iter().cloned().chain(kept).collect();
        Self { file, inputs, seeds: seeds.len(), kept: count }
    }

    pub(crate) fn inputs(&self) -> &[Input] {
        &self.inputs
    }

    pub(crate) fn add(&mut self, input: Input) {
        self.inputs.push(input);
    }

    /// Writes a failing input into the file, where each later run finds it.
    pub(crate) fn keep_finding(&self, input: &[u8]) -> String {
        let kept = &self.inputs[self.seeds..self.seeds + self.kept];
        self.write(kept.iter().map(Vec::as_slice).chain([input]));
        format!("\nkept in {}", self.file.display())
    }

    /// Adds to the file the smallest of the inputs that lead where those in it and the seeds do not,
    /// as long as there is room.
    pub(crate) fn keep(&self, is_json: bool, places: impl Fn(&[u8]) -> Vec<(usize, u8)>) {
        let (known, new) = self.inputs.split_at(self.seeds + self.kept);
        let mut kept: Vec<&[u8]> = known[self.seeds..].iter().map(Vec::as_slice).collect();
        let mut room = ROOM.saturating_sub(kept.iter().map(|input| input.len()).sum());
        let mut covered: BTreeSet<_> = known.iter().flat_map(|input| places(input)).collect();
        let mut new: Vec<&[u8]> = new.iter().map(Vec::as_slice).collect();
        new.sort_by_key(|input| input.len());
        for input in new {
            let new: Vec<_> = places(input).into_iter().filter(|place| !covered.contains(place)).collect();
            // Where only how often it was passed is new, it is not worth a document's size.
            let worth = if is_json { input.len() / 256 } else { 0 };
            if new.len() > worth && input.len() <= room {
                room -= input.len();
                covered.extend(new);
                kept.push(input);
            }
        }
        self.write(kept.into_iter());
    }

    fn write<'a>(&self, inputs: impl Iterator<Item = &'a [u8]>) {
        let text: String = inputs.map(|input| format!("{}\n", input.escape_ascii())).collect();
        fs::write(&self.file, text).unwrap_or_else(|error| panic!("{}: {error}", self.file.display()));
    }
}

/// The inverse of `escape_ascii`.
pub(crate) fn unescape(text: &str) -> Option<Input> {
    let mut bytes = text.bytes();
    let mut input = Input::new();
    while let Some(byte) = bytes.next() {
        input.push(match (byte, if byte == b'\\' { bytes.next()? } else { 0 }) {
            (byte, 0) => byte,
            (_, b'n') => b'\n',
            (_, b'r') => b'\r',
            (_, b't') => b'\t',
            (_, byte @ (b'\\' | b'\'' | b'"')) => byte,
            (_, b'x') => {
                let digit = |byte: u8| char::from(byte).to_digit(16);
                u8::try_from(digit(bytes.next()?)? << 4 | digit(bytes.next()?)?).ok()?
            }
            _ => return None,
        });
    }
    Some(input)
}

pub(crate) fn shown(input: &[u8]) -> String {
    const MOST: usize = 2000;
    let more = if input.len() > MOST { " …" } else { "" };
    format!("{} bytes: b\"{}\"{more}", input.len(), input[..input.len().min(MOST)].escape_ascii())
}

/// For what never ends: an input on which a target works for a minute is shown, and the process ended.
pub(crate) struct Watch;

static AT_WORK: Mutex<Option<(Instant, Input)>> = Mutex::new(None);

impl Watch {
    pub(crate) fn begin(input: &[u8]) -> Option<Self> {
        std::env::var_os("FUZZ_SECONDS")?;
        static STARTED: Once = Once::new();
        STARTED.call_once(|| drop(std::thread::spawn(watch)));
        if let Ok(mut at_work) = AT_WORK.lock() {
            *at_work = Some((Instant::now(), input.to_vec()));
        }
        Some(Watch)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Ok(mut at_work) = AT_WORK.lock() {
            *at_work = None;
        }
    }
}

fn watch() {
    loop {
        std::thread::sleep(Duration::from_secs(1));
        let Ok(at_work) = AT_WORK.lock() else { return };
        if let Some((since, input)) = &*at_work
            && since.elapsed() > Duration::from_secs(60)
        {
            eprintln!("a minute without an answer, with {}", shown(input));
            std::process::abort();
        }
    }
}
