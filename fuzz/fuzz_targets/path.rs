//! Paths of requests. The corpus test shares the checks.

#![no_main]

#[path = "../../crates/claviger-core/tests/corpus/path.rs"]
mod path;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    path::check(input);
});
