//! Return addresses. The corpus test shares the checks.

#![no_main]

#[path = "../../crates/claviger-core/tests/corpus/return_to.rs"]
mod return_to;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    return_to::check(input);
});
