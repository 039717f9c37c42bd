//! The public routes, in folders that mirror their addresses, and the layer and extractors.
//!
//! Every request goes through [`site::App::send`], which checks each answer: nothing that depends
//! on a session may be cached, and pages are safe and well formed. Start a new test with
//! [`site::App`] and [`browser::Browser`].

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a helper of a test may fail as a test does"
)]

mod answer;
mod auth;
mod browser;
mod example;
mod head;
mod healthz;
mod hostile;
mod library;
mod outage;
mod page;
mod secrets;
mod site;
mod twitch;
