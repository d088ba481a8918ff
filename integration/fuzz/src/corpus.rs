//! The inputs of a target, in memory and in its folder.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, Once};
use std::time::{Duration, Instant};

pub(crate) type Input = Vec<u8>;

/// Bytes that all inputs of a folder may have together.
const ROOM: usize = 16 << 10;

#[derive(Debug)]
pub(crate) struct Corpus {
    folder: PathBuf,
    inputs: Vec<Input>,
    /// How many of them the target has in its own code.
    seeds: usize,
}

impl Corpus {
    pub(crate) fn open(name: &str, seeds: &[Input]) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
        let mut paths: Vec<PathBuf> = match fs::read_dir(&folder) {
            Ok(entries) => entries.map(|entry| entry.expect("an entry of the corpus").path()).collect(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(error) => panic!("{}: {error}", folder.display()),
        };
        // The order in a folder is no order, and each run is to be the same.
        paths.sort();
        let read = |path: PathBuf| fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let inputs = seeds.iter().cloned().chain(paths.into_iter().map(read)).collect();
        Self { folder, inputs, seeds: seeds.len() }
    }

    pub(crate) fn inputs(&self) -> &[Input] {
        &self.inputs
    }

    pub(crate) fn add(&mut self, input: Input) {
        self.inputs.push(input);
    }

    /// Writes a failing input into the folder, where each later run finds it.
    pub(crate) fn keep_finding(&self, input: &[u8]) -> String {
        let path = self.folder.join(name(input));
        let written = fs::create_dir_all(&self.folder).and_then(|()| fs::write(&path, input));
        match written {
            Ok(()) => format!("\nkept as {}", path.display()),
            Err(error) => format!("\n{} cannot be written: {error}", path.display()),
        }
    }

    /// Adds to the folder the smallest of the inputs that lead where those in it and the seeds do not,
    /// as long as there is room.
    pub(crate) fn keep(&self, is_json: bool, places: impl Fn(&[u8]) -> Vec<(usize, u8)>) {
        fs::create_dir_all(&self.folder).unwrap_or_else(|e| panic!("{}: {e}", self.folder.display()));
        let mut covered = BTreeSet::new();
        let mut room = ROOM;
        for (at, input) in self.inputs.iter().enumerate() {
            let path = self.folder.join(name(input));
            if at < self.seeds || path.exists() {
                covered.extend(places(input));
                room = room.saturating_sub(if at < self.seeds { 0 } else { input.len() });
            }
        }
        let mut rest: Vec<&Input> = self.inputs[self.seeds..].iter().collect();
        rest.sort_by_key(|input| input.len());
        for input in rest {
            // Where only how often it was passed is new, it is not worth a file of a document's size.
            let new: Vec<_> = places(input).into_iter().filter(|place| !covered.contains(place)).collect();
            let worth = if is_json { input.len() / 256 } else { 0 };
            if new.len() > worth && input.len() <= room {
                let path = self.folder.join(name(input));
                fs::write(&path, input).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
                room -= input.len();
                covered.extend(new);
            }
        }
    }
}

/// By what is in it (FNV-1a): the same input has the same name.
fn name(input: &[u8]) -> String {
    let hash = input.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    format!("{hash:016x}")
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
