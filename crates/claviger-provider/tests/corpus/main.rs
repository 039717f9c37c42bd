//! Replays the corpora of this crate's fuzz targets.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a helper of a test may fail as a test does"
)]

mod answer;
#[path = "../../../../fuzz/replay.rs"]
mod replay;
mod webhook;

#[test]
fn answer_corpus() {
    replay::replay("answer", &answer::OUTCOMES, answer::check);
}

#[test]
fn webhook_corpus() {
    replay::replay("webhook", &webhook::OUTCOMES, webhook::check);
}
