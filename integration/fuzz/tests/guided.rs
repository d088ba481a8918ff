//! What only an instrumented build can do (`make fuzz`).
#![cfg(fuzzing)]

#[test]
#[should_panic(expected = "the fourth letter")]
fn what_leads_to_a_new_place_is_followed() {
    // By chance alone it would take the square of the square of 256 tries.
    fuzz::target("-").seed("AAAA").rounds(400_000).run(|input| {
        if input.first() == Some(&b'w') {
            if input.get(1) == Some(&b'o') {
                if input.get(2) == Some(&b'r') {
                    assert!(input.get(3) != Some(&b'd'), "the fourth letter");
                }
            }
        }
        true
    });
}

#[test]
#[should_panic(expected = "the number")]
fn what_is_compared_is_put_into_the_input() {
    fuzz::target("-").seed("0123456789").rounds(400_000).run(|input| {
        if let Some(bytes) = input.first_chunk() {
            assert!(u64::from_be_bytes(*bytes) != 0x1234_5678_9abc_def0, "the number");
        }
        true
    });
}

#[test]
#[should_panic(expected = "bytes of memory for 1 bytes of input")]
fn memory_without_end_is_a_finding() {
    fuzz::target("-")
        .seed("x")
        .rounds(0)
        .run(|input| std::hint::black_box(vec![1_u8; 40 << 20]).len() > input.len());
}
