//! The query of a callback. The corpus test shares the checks.

#![no_main]
#![allow(dead_code, reason = "each target uses its part of the app")]

#[path = "../../crates/claviger-axum/tests/corpus/app.rs"]
mod app;
#[path = "../../crates/claviger-axum/tests/corpus/callback.rs"]
mod callback;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    callback::check(input);
});
