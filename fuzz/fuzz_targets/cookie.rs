//! The values of our cookies. The corpus test shares the checks.

#![no_main]

#[path = "../../crates/claviger-seal/tests/corpus/cookie.rs"]
mod cookie;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    cookie::check(input);
});
