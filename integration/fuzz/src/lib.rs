//! Feeds a reader with bytes that nobody would write, and looks whether it keeps its promises: no panic,
//! no endless work, no memory without end, and whatever else the target itself asserts.
//!
//! A target is a test beside the reader ([`target`]). Each has a corpus, `corpus/<name>.txt`: inputs that
//! were found to lead to different places in the code, and those that once led to a failure. In
//! a test run the corpus and a counted number of seeded changes of it are tried: the same ones
//! each time. With `FUZZ_SECONDS` the changes go on so long, and in a build that is instrumented
//! (`instrument.sh`, `make fuzz`) whatever leads to a new place is changed further.
#![deny(unsafe_code)]

mod bytes;
mod corpus;
mod json;
pub mod random;
#[allow(unsafe_code)]
mod sys;
#[cfg(test)]
mod tests;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use crate::bytes::Around;
use crate::corpus::{Corpus, Input};
use crate::json::Vocabulary;
use crate::random::Random;

/// No input is made longer than this.
const LONGEST: usize = 64 << 10;
/// Processor time for one input, in a build with optimizations.
const PATIENCE: Duration = Duration::from_secs(2);
/// Memory for one input: so much, and so much more for each of its bytes. A JSON value takes 32 bytes and
/// its text may have two, and it is kept in more than one form.
const MEMORY: usize = 32 << 20;
const MEMORY_PER_BYTE: usize = 512;

/// What the inputs are, and so how they are changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Bytes,
    Json,
}

/// A reader, and what it is fed with.
pub struct Target {
    name: &'static str,
    form: Form,
    rounds: usize,
    seeds: Vec<Vec<u8>>,
    words: Vec<Vec<u8>>,
}

/// `name` is that of its corpus.
pub fn target(name: &'static str) -> Target {
    Target { name, form: Form::Bytes, rounds: 2000, seeds: Vec::new(), words: Vec::new() }
}

/// What a target did wrong, and with what.
#[derive(Debug)]
struct Finding {
    why: String,
    input: Input,
}

#[derive(Debug, Default)]
struct Tally {
    tried: usize,
    accepted: usize,
    places: usize,
}

impl Target {
    /// The inputs are JSON documents: values are changed, and now and then bytes.
    pub fn json(mut self) -> Self {
        self.form = Form::Json;
        self
    }

    /// How many changes a test run tries.
    pub fn rounds(mut self, rounds: usize) -> Self {
        self.rounds = rounds;
        self
    }

    /// An input to begin with, beside those of the corpus.
    pub fn seed(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.seeds.push(bytes.into());
        self
    }

    pub fn seeds<B: Into<Vec<u8>>>(mut self, all: impl IntoIterator<Item = B>) -> Self {
        self.seeds.extend(all.into_iter().map(Into::into));
        self
    }

    /// Words that the reader knows and no seed has.
    pub fn words(mut self, words: &[&str]) -> Self {
        self.words.extend(words.iter().map(|word| word.as_bytes().to_vec()));
        self
    }

    /// `check` says whether it took the input, and panics when something is wrong.
    ///
    /// # Panics
    /// With the input that something is wrong with; and when `check` has taken none at all, because then nothing was
    /// tested.
    pub fn run(self, check: impl Fn(&[u8]) -> bool) {
        let seconds = std::env::var("FUZZ_SECONDS").ok().and_then(|text| text.parse().ok());
        let given = match seconds {
            Some(seconds) => Given::Time(Duration::from_secs(seconds)),
            None => Given::Rounds(self.rounds),
        };
        let mut corpus = Corpus::open(self.name, &self.seeds);
        let seed = std::env::var("FUZZ_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
        match self.search(&mut corpus, given, seed, &check) {
            Ok(tally) => {
                println!(
                    "{}: {} inputs, {} taken, {} places, seed {seed}",
                    self.name, tally.tried, tally.accepted, tally.places
                );
                assert!(tally.accepted > 0, "{}: no input was taken", self.name);
                if std::env::var_os("FUZZ_KEEP").is_some() && sys::is_instrumented() {
                    let covered = |input: &[u8]| places(&check, input);
                    corpus.keep(self.form == Form::Json, covered);
                }
            }
            Err(finding) => {
                let kept =
                    if seconds.is_some() { corpus.keep_finding(&finding.input) } else { String::new() };
                panic!("{}: {}\nwith {}{kept}", self.name, finding.why, corpus::shown(&finding.input));
            }
        }
    }

    fn search(
        &self,
        corpus: &mut Corpus,
        given: Given,
        seed: u64,
        check: &impl Fn(&[u8]) -> bool,
    ) -> Result<Tally, Box<Finding>> {
        let mut random = Random::new(seed);
        let mut state = State { seen: Vec::new(), tally: Tally::default(), check };
        let inputs: Vec<Input> = corpus.inputs().to_vec();
        let mut taken = Vec::new();
        for (at, input) in inputs.iter().enumerate() {
            let led = state.attempt(input).map_err(|why| Box::new(Finding { why, input: input.clone() }))?;
            taken.extend(led.is_taken.then_some(at));
        }
        let mut vocabulary = Vocabulary::default();
        let mut words = self.words.clone();
        for input in &inputs {
            learn(input, self.form, &mut vocabulary, &mut words);
        }
        let start = Instant::now();
        let mut compared = Vec::new();
        for round in 0.. {
            match given {
                Given::Rounds(rounds) if round == rounds => break,
                Given::Time(time) if start.elapsed() >= time => break,
                _ => {}
            }
            let input = self.changed(corpus.inputs(), &taken, &vocabulary, &words, &compared, &mut random);
            let led = state.attempt(&input).map_err(|why| {
                let input = smallest(&input, &|input| failure(check, input).is_some());
                Box::new(Finding { why, input })
            })?;
            if led.is_new {
                compared = sys::comparisons_of(|| drop(catch_unwind(AssertUnwindSafe(|| check(&input)))));
                learn(&input, self.form, &mut vocabulary, &mut words);
                taken.extend(led.is_taken.then_some(corpus.inputs().len()));
                corpus.add(input);
            }
        }
        Ok(state.tally)
    }

    fn changed(
        &self,
        inputs: &[Input],
        taken: &[usize],
        vocabulary: &Vocabulary,
        words: &[Vec<u8>],
        compared: &[(u64, u64)],
        random: &mut Random,
    ) -> Input {
        // The newest half of the time: it leads where nothing has led yet.
        let from = if random.once_in(2) { inputs.len().saturating_sub(20) } else { 0 };
        let mut input = random.of(&inputs[from..]).cloned().unwrap_or_default();
        // Or else one that was taken: behind a refusal there is little, and most inputs are refused.
        if random.once_in(2)
            && let Some(&at) = random.of(taken)
        {
            input.clone_from(&inputs[at]);
        }
        let changes = 1 + random.below(6);
        let is_document = self.form == Form::Json && !random.once_in(10);
        match serde_json::from_slice(&input) {
            Ok(mut document) if is_document => {
                for _ in 0..changes {
                    json::change(&mut document, vocabulary, random);
                }
                input = document.to_string().into_bytes();
            }
            _ => {
                let other = random.of(inputs).cloned().unwrap_or_default();
                for _ in 0..changes {
                    let around = Around { other: &other, words, compared };
                    bytes::change(&mut input, &around, random);
                }
            }
        }
        input.truncate(LONGEST);
        input
    }
}

#[derive(Debug, Clone, Copy)]
enum Given {
    Rounds(usize),
    Time(Duration),
}

fn learn(input: &[u8], form: Form, vocabulary: &mut Vocabulary, words: &mut Vec<Vec<u8>>) {
    if form == Form::Json
        && let Ok(document) = serde_json::from_slice(input)
    {
        vocabulary.learn(&document);
    }
    for word in bytes::words(input) {
        if words.len() < 4000 && !words.iter().any(|known| known == word) {
            words.push(word.to_vec());
        }
    }
}

/// Where an input led: where none has led before; to be taken.
struct Led {
    is_new: bool,
    is_taken: bool,
}

struct State<'a, F> {
    /// Of each place in the code, how often it was passed in one run: one bit for each magnitude.
    seen: Vec<u8>,
    tally: Tally,
    check: &'a F,
}

impl<F: Fn(&[u8]) -> bool> State<'_, F> {
    /// `Err`: what went wrong.
    fn attempt(&mut self, input: &[u8]) -> Result<Led, String> {
        self.tally.tried += 1;
        sys::take_counters(|_, _| {});
        let is_taken = one(self.check, input)?;
        self.tally.accepted += usize::from(is_taken);
        let mut is_new = false;
        sys::take_counters(|place, count| {
            if self.seen.len() <= place {
                self.seen.resize(place + 1, 0);
            }
            let magnitude = magnitude(count);
            if self.seen[place] & magnitude == 0 {
                self.tally.places += usize::from(self.seen[place] == 0);
                self.seen[place] |= magnitude;
                is_new = true;
            }
        });
        Ok(Led { is_new, is_taken })
    }
}

fn magnitude(count: u8) -> u8 {
    1 << match count {
        0..4 => count,
        4..8 => 4,
        8..32 => 5,
        32..128 => 6,
        _ => 7,
    }
}

/// The places, with their magnitudes, that an input leads to.
fn places(check: &impl Fn(&[u8]) -> bool, input: &[u8]) -> Vec<(usize, u8)> {
    let mut places = Vec::new();
    sys::take_counters(|_, _| {});
    drop(one(check, input));
    sys::take_counters(|place, count| places.push((place, magnitude(count))));
    places
}

/// Runs the target: whether it took the input, or what it did wrong.
fn one(check: &impl Fn(&[u8]) -> bool, input: &[u8]) -> Result<bool, String> {
    let watch = corpus::Watch::begin(input);
    let mut outcome = Ok(false);
    let before = processor_time();
    let memory = sys::memory_of(|| outcome = catch_unwind(AssertUnwindSafe(|| check(input))));
    let took = processor_time().saturating_sub(before);
    drop(watch);
    let taken = outcome.map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        text.unwrap_or("a panic without words").to_owned()
    })?;
    let allowed = MEMORY + MEMORY_PER_BYTE * input.len();
    if memory > allowed {
        return Err(format!("{memory} bytes of memory for {} bytes of input", input.len()));
    }
    // Without optimizations time says nothing.
    if !cfg!(debug_assertions) || sys::is_instrumented() {
        let text = format!("{took:?} for {} bytes of input", input.len());
        return if took > PATIENCE { Err(text) } else { Ok(taken) };
    }
    Ok(taken)
}

fn failure(check: &impl Fn(&[u8]) -> bool, input: &[u8]) -> Option<String> {
    one(check, input).err()
}

/// Of this thread: other processes that are busy do not count.
fn processor_time() -> Duration {
    let clock = nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID;
    nix::time::clock_gettime(clock).map_or(Duration::ZERO, Duration::from)
}

/// A smaller input that fails too: parts are left out, ever smaller ones.
fn smallest(input: &[u8], fails: &impl Fn(&[u8]) -> bool) -> Input {
    let mut input = input.to_vec();
    let mut tries = 0;
    let mut part = input.len() / 2;
    while part > 0 {
        let mut at = 0;
        while at < input.len() && tries < 2000 {
            tries += 1;
            let mut shorter = input.clone();
            shorter.drain(at..(at + part).min(input.len()));
            if fails(&shorter) {
                input = shorter;
            } else {
                at += part;
            }
        }
        part /= 2;
    }
    input
}
