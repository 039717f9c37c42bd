//! OAuth providers as requests to build and answers to read. Nothing here sends, waits or reads a
//! clock.
//!
//! A [`Provider`] has [`Capabilities`], which say what it offers beyond signing in and refreshing,
//! and our [`Client`], which is made of three things:
//!
//! | part | type | says |
//! |---|---|---|
//! | our registration | [`Registration`] | client id, secret, redirect URI, scopes |
//! | addresses | [`Endpoints`] | where requests go |
//! | dialect | [`Dialect`] | where the provider's requests and answers depart from the RFCs |
//!
//! Everybody else asks the capabilities and never a provider's name. Each request is a plain value.
//! The caller sends it and brings back an [`Answer`], and this crate says what the answer proves,
//! in the terms of [`claviger_core::verdict`].
//!
//! Three rules stand above the others:
//!
//! - Only words that certainly mean a dead token count as [`Rejected`]. An answer that is not
//!   understood proves nothing.
//! - Words about our client are [`Misconfigured`] and sign nobody out.
//! - A refresh token that was sent and whose answer cannot be read is [`Lost`]: it may be spent.
//!
//! # The modules
//!
//! | module | holds |
//! |---|---|
//! | `dialect`, `client` | how a provider departs from the RFCs, and our client there |
//! | `request`, `answer`, `body`, `words` | RFC 6749, 6750, 7009 and 7636: shared by all providers |
//! | `said` | what a refusal says, for the log |
//! | `app` | the app's own token, and calls of the API with it |
//! | `connections`, `webhook`, `subscriptions` | what the engine needs to know of a user's connection |
//! | `capabilities`, `provider`, `preset` | what a provider can do, and the provider as a whole |
//! | [`twitch`] | everything that is Twitch's own |
//!
//! # Add a provider
//!
//! CONTRIBUTING.md has the steps, at "Add a provider". A provider is a folder such as `twitch/`
//! with a [`Preset`], a [`Dialect`], and these traits:
//!
//! | trait | what it answers | who needs it |
//! |---|---|---|
//! | [`TokenCheckForm`] | whose is this token, and is it good | every provider, as its `identity` |
//! | [`ConnectionCheck`] | which of these users are still connected | who offers that |
//! | [`WebhookEvents`] | which user disconnected the app | who sends such events |
//! | [`Subscriptions`] | how to subscribe to these events | the same |
//!
//! The engine's tests in `tests/engine/capabilities.rs` and the simulator's in `tests/providers.rs`
//! show what happens without validation, without revocation, and without both.
//!
//! # Sources
//!
//! RFC 6749 (OAuth 2.0), RFC 6750 (bearer tokens), RFC 7009 (revocation), RFC 7636 (PKCE), RFC 9207
//! (issuer in the callback). Where a provider answers otherwise than it documents, both are
//! understood.
//!
//! [`Rejected`]: claviger_core::verdict::TokenAnswer::Rejected
//! [`Misconfigured`]: claviger_core::verdict::TokenAnswer::Misconfigured
//! [`Lost`]: claviger_core::verdict::TokenAnswer::Lost

mod answer;
mod app;
mod body;
mod capabilities;
mod client;
mod connections;
mod dialect;
mod preset;
mod provider;
mod request;
mod rfc3339;
mod said;
mod subscriptions;
pub mod twitch;
mod webhook;
mod words;

pub use answer::{Answer, Unanswered, date};
pub use app::AppTokenAnswer;
pub use capabilities::{
    Capabilities, ConnectionCheck, RefreshTokens, Revocation, Subscriptions, TokenCheck, TokenCheckForm,
    Validation, WebhookEvents,
};
pub use client::{Client, Endpoints, Registration};
pub use connections::ConnectionsAnswer;
pub use dialect::Dialect;
pub use preset::Preset;
pub use provider::Provider;
pub use request::LoginRequest;
pub use said::Said;
pub use subscriptions::{CreateAnswer, DeleteAnswer, ListAnswer, Plan, Subscription};
pub use webhook::{MESSAGE_BYTES, Message, MessageKind, Refused, UnfitSecret, WebhookSecret};
pub use words::AuthorizationError;

/// Every provider that `provider.preset` can name, the default first.
pub const PRESETS: &[Preset] = &[twitch::PRESET];

impl Preset {
    /// The preset with this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        PRESETS.iter().find(|preset| preset.name == name)
    }
}
