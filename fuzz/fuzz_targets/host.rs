//! `Host` fields. The corpus test shares the checks.

#![no_main]

#[path = "../../crates/claviger-core/tests/corpus/host.rs"]
mod host;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    host::check(input);
});
