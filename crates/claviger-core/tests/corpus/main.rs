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

#[test]
fn host_corpus() {
    replay::replay("host", &host::OUTCOMES, host::check);
}

#[test]
fn path_corpus() {
    replay::replay("path", &path::OUTCOMES, path::check);
}

#[test]
fn peer_corpus() {
    replay::replay("peer", &peer::OUTCOMES, peer::check);
}

#[test]
fn return_to_corpus() {
    replay::replay("return_to", &return_to::OUTCOMES, return_to::check);
}
