//! Replays the fuzzer's corpus, which needs nothing but a stable compiler.

mod webhook_input;

use std::{collections::BTreeSet, fs, path::Path};

use claviger_provider::{Message, MessageKind, Refused};

const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus/webhook");

/// What the names of the corpus call an outcome.
const OUTCOMES: [&str; 11] = [
    "challenge",
    "revoked",
    "granted",
    "ended",
    "other-client",
    "other",
    "too-large",
    "malformed",
    "forged",
    "stale",
    "no-input",
];

fn outcome(read: Option<&Result<Message, Refused>>) -> &'static str {
    let Some(read) = read else { return "no-input" };
    match read.as_ref().map(|message| &message.kind) {
        Ok(MessageKind::Challenge(_)) => "challenge",
        Ok(MessageKind::Revoked { .. }) => "revoked",
        Ok(MessageKind::Granted { .. }) => "granted",
        Ok(MessageKind::SubscriptionEnded { .. }) => "ended",
        Ok(MessageKind::OtherClient) => "other-client",
        Ok(MessageKind::Other) => "other",
        Err(Refused::TooLarge) => "too-large",
        Err(Refused::Malformed) => "malformed",
        Err(Refused::Forged) => "forged",
        Err(Refused::Stale) => "stale",
    }
}

fn corpus() -> std::io::Result<Vec<(String, Vec<u8>)>> {
    let read =
        |path: &Path| Ok((path.file_name().unwrap_or_default().display().to_string(), fs::read(path)?));
    fs::read_dir(CORPUS)?.map(|entry| read(&entry?.path())).collect()
}

#[test]
fn every_input_is_read_as_its_name_says() {
    let mut seen = BTreeSet::new();
    for (name, input) in corpus().unwrap() {
        let outcome = outcome(webhook_input::check(&input).as_ref());
        assert_eq!(name.split("__").next(), Some(outcome), "{name}");
        seen.insert(outcome);
    }
    assert_eq!(seen, BTreeSet::from(OUTCOMES), "there is an input for each outcome");
}

#[test]
fn no_input_that_is_cut_short_breaks_a_rule() {
    for (_, input) in corpus().unwrap() {
        for length in 0..input.len() {
            let _ = webhook_input::check(&input[..length]);
        }
    }
}
