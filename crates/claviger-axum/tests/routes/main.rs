//! The public addresses, in folders that mirror them, and what an app gets from the layer and the extractors.
//!
//! Every request goes through [`site::App::send`], which checks of every answer what must hold of all: nothing that
//! depends on a session may be kept, pages are safe and well formed. Whoever adds a test starts with [`site::App`] and
//! [`browser::Browser`].

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
mod healthz;
mod hostile;
mod library;
mod outage;
mod page;
mod secrets;
mod site;
mod twitch;
