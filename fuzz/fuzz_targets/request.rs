//! Heads of requests. The corpus test shares the checks.

#![no_main]
#![allow(dead_code, reason = "each target uses its part of the app")]

#[path = "../../crates/claviger-axum/tests/corpus/app.rs"]
mod app;
#[path = "../../crates/claviger-axum/tests/corpus/request.rs"]
mod request;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    request::check(input);
});
