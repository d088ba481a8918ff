//! The search finds what is there to be found, and nothing where nothing is.

use std::cell::RefCell;

use super::*;

fn corpus(target: &Target) -> Corpus {
    Corpus::open("-", &target.seeds)
}

fn search(target: &Target, rounds: usize, check: impl Fn(&[u8]) -> bool) -> Result<Tally, Box<Finding>> {
    target.search(&mut corpus(target), Given::Rounds(rounds), 1, &check)
}

#[test]
fn a_panic_is_found_and_its_input_made_small() {
    let target = target("-").seed("a list of words, one of them is seven, and the last one is 12");
    let finding = search(&target, 10_000, |input| {
        assert!(!input.windows(5).any(|w| w == b"65536"), "too large a number");
        true
    })
    .expect_err("a number was put for the 12");
    assert_eq!((finding.why.as_str(), finding.input.as_slice()), ("too large a number", &b"65536"[..]));
}

#[test]
fn a_wrong_value_deep_in_a_document_is_found() {
    let seed = r#"{"a": {"b": [{"limit": 5, "name": "x"}, {"limit": 6}]}, "c": 7}"#;
    let finding = search(&target("-").json().seed(seed), 20_000, |input| {
        let Ok(document) = serde_json::from_slice::<serde_json::Value>(input) else { return false };
        let limit = &document["a"]["b"][1]["limit"];
        assert!(limit.as_u64() != Some(u64::MAX), "an overflow");
        true
    });
    assert_eq!(finding.expect_err("it is one of those that are tried").why, "an overflow");
}

#[test]
fn two_runs_are_the_same_and_try_what_was_asked_for() {
    let target = target("-").json().seeds([r#"{"a": [1, 2]}"#, "[]", "\"x\""]).words(&["zz"]);
    let run = || {
        let inputs = RefCell::new(Vec::new());
        let tally = search(&target, 500, |input| {
            inputs.borrow_mut().push(input.to_vec());
            true
        });
        assert_eq!(tally.expect("nothing is wrong").tried, 503);
        inputs.into_inner()
    };
    let first = run();
    assert_eq!(first, run());
    let documents = first.iter().filter(|i| serde_json::from_slice::<serde_json::Value>(i).is_ok()).count();
    assert!((300..500).contains(&documents), "most are documents, and not all: {documents}");
    let different = first.iter().collect::<std::collections::BTreeSet<_>>().len();
    assert!(different > 250, "{different}");
}

#[test]
#[should_panic(expected = "no input was taken")]
fn a_target_that_takes_nothing_tests_nothing() {
    target("-").rounds(5).seed("x").run(|_| false);
}

#[test]
#[should_panic(expected = "with 3 bytes: b\"\\x00\\\"x\"")]
fn a_finding_is_shown_with_its_input() {
    target("-").rounds(0).seed("\0\"x").run(|_| panic!("so it is"));
}

#[test]
fn every_change_is_made_at_some_time() {
    let mut random = Random::new(3);
    let (words, compared) = ([b"word".to_vec()], [(0x3332_3130, 0x4443_4241)]);
    let around = Around { other: b"OTHER", words: &words, compared: &compared };
    let seen = |needle: &[u8], random: &mut Random| {
        (0..2000).any(|_| {
            let mut input = b"first 0123\nsecond".to_vec();
            bytes::change(&mut input, &around, random);
            input.windows(needle.len()).any(|w| w == needle)
        })
    };
    for needle in
        [&b"word"[..], b"OTHER", b"ABCD", b"18446744073709551615", b"second\nfirst", b"\xff\xff\xff\xff"]
    {
        assert!(seen(needle, &mut random), "{}", needle.escape_ascii());
    }
    // Nothing to change is no reason to panic.
    for _ in 0..2000 {
        let around = Around { other: b"", words: &[], compared: &[] };
        bytes::change(&mut Vec::new(), &around, &mut random);
    }
}

#[test]
fn an_input_comes_back_from_its_line() {
    let all: Vec<u8> = (0..=255).collect();
    let line = all.escape_ascii().to_string();
    assert!(!line.contains('\n'));
    assert_eq!(corpus::unescape(&line), Some(all));
    for torn in ["\\", "\\x", "\\x0", "\\xzz", "\\q"] {
        assert_eq!(corpus::unescape(torn), None, "{torn}");
    }
}
