//! A provider's answers. The corpus test shares the checks.

#![no_main]

#[path = "../../crates/claviger-provider/tests/corpus/answer.rs"]
mod answer;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    answer::check(input);
});
