//! The gateway as clients see it: real sockets, a real store in a file, mock Twitch, and a small
//! app.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a helper of a test may fail as a test does"
)]

mod aborted;
mod answers;
mod api;
mod commands;
mod copy;
mod cross_origin;
mod crowds;
mod disconnect;
mod early;
mod edge;
mod hostile;
mod https_app;
mod identity;
mod lifecycle;
mod metrics;
mod patience;
mod postgres;
mod private;
mod provider;
#[allow(dead_code, unreachable_pub, reason = "each test uses its part")]
#[path = "../common/relay.rs"]
mod relay;
mod reload;
mod sockets;
mod streaming;
mod tunnels;
mod world;
