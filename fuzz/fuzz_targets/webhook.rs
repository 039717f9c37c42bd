//! Messages to the webhook. What must hold of them stands in the file that the corpus test shares.

#![no_main]

#[path = "../../crates/claviger-provider/tests/webhook_input/mod.rs"]
mod webhook_input;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let _ = webhook_input::check(input);
});
