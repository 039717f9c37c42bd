//! `X-Forwarded-For`. The corpus test shares the checks.

#![no_main]

#[path = "../../crates/claviger-core/tests/corpus/peer.rs"]
mod peer;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    peer::check(input);
});
