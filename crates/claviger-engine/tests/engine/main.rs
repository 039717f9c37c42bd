//! The engine against a mock provider and a store in memory, in virtual time.
//!
//! Tests name the invariants that they check. Start a new test with [`world::World`].

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a helper of a test may fail as a test does"
)]

mod app_token;
mod asked_once;
mod assertions;
mod authenticate;
mod background;
mod capabilities;
mod change_feed;
mod clocks;
mod connection_checks;
mod crowd;
mod disconnect;
mod dropped;
mod dropped_refresh;
mod faulty_store;
mod grants;
mod keep_alive;
mod keys;
mod lifetimes;
mod login;
mod login_devices;
mod login_trouble;
mod names;
mod outage;
mod outbox;
mod proofs;
mod provider_words;
mod recorded;
mod refresh;
mod refresh_early;
mod refresh_ends;
mod refresh_lost;
mod refresh_races;
mod refresh_replay;
mod refresh_trouble;
mod refresh_waits;
mod refusals;
mod repair;
mod secrets;
mod sign_out;
mod store_health;
mod store_waits;
mod stories;
mod sweep;
mod sweep_shared;
mod sweep_trouble;
mod twitch;
mod webhook_events;
mod world;
