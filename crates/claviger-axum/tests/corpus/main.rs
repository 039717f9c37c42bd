//! Replays the corpora of this crate's fuzz targets.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a helper of a test may fail as a test does"
)]

mod app;
mod callback;
#[path = "../../../../fuzz/replay.rs"]
mod replay;
mod request;

replay::corpora! { callback request }
