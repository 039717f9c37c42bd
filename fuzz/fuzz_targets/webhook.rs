//! Messages to the webhook. The corpus test shares the checks.

#![no_main]

#[path = "../../crates/claviger-provider/tests/corpus/webhook.rs"]
mod webhook;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    webhook::check(input);
});
