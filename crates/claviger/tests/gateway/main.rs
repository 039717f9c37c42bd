//! The gateway as clients meet it: real sockets, a real store in a file, mock Twitch, and a small app behind it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a helper of a test may fail as a test does"
)]

mod aborted;
mod api;
mod commands;
mod copy;
mod crowds;
mod disconnect;
mod hostile;
mod https_app;
mod identity;
mod lifecycle;
mod metrics;
mod postgres;
mod provider;
#[allow(dead_code, unreachable_pub, reason = "each test uses its part")]
#[path = "../common/relay.rs"]
mod relay;
mod streaming;
mod tunnels;
mod world;
