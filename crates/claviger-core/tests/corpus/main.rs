//! Replays the corpora of this crate's fuzz targets.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a helper of a test may fail as a test does"
)]

mod host;
mod path;
mod peer;
#[path = "../../../../fuzz/replay.rs"]
mod replay;
mod return_to;

replay::corpora! { host path peer return_to }
