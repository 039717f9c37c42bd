//! OAuth providers as requests to build and answers to read. Nothing here sends, waits or reads a clock.
//!
//! [`Provider`] builds each request as a plain value. Whoever sends it brings back the answer, or its word that there is
//! none ([`Unanswered`]), and [`Provider`] says what that proves, in the terms of [`claviger_core::verdict`].
//!
//! Three rules stand above the others. Only words that certainly mean a dead token count as [`Rejected`]; whatever is not
//! understood proves nothing. Words about our client are [`Misconfigured`] and sign nobody out. A refresh token that was
//! sent and whose answer cannot be read is [`Lost`]: it may be spent.
//!
//! What comes unasked is read here too: [`Webhook`] believes a message only if its signature, its time and its body agree,
//! and [`reconcile`] says which subscriptions there should be so that messages come.
//!
//! Sources: RFC 6749 (OAuth 2.0), RFC 6750 (bearer tokens), RFC 7009 (revocation), RFC 7636 (PKCE), and Twitch's
//! documentation: "Getting OAuth access tokens", "Refreshing access tokens", "Validating tokens", "Revoking access
//! tokens", "Get Authorization By User", and of EventSub "Getting Events Using Webhook Callbacks" and "User Authorization
//! Revoke". Where Twitch answers otherwise than it documents, both are understood.
//!
//! [`Rejected`]: claviger_core::verdict::TokenAnswer::Rejected
//! [`Misconfigured`]: claviger_core::verdict::TokenAnswer::Misconfigured
//! [`Lost`]: claviger_core::verdict::TokenAnswer::Lost

mod answer;
mod app;
mod authorizations;
mod body;
mod provider;
mod request;
mod rfc3339;
mod subscriptions;
mod webhook;
mod words;

pub use answer::Unanswered;
pub use app::AppTokenAnswer;
pub use authorizations::{PROBE_USERS, ProbeAnswer};
pub use provider::{Endpoints, Provider};
pub use request::LoginRequest;
pub use subscriptions::{CreateAnswer, DeleteAnswer, ListAnswer, Plan, Subscription, reconcile};
pub use webhook::{
    MESSAGE_AGE, MESSAGE_BYTES, Message, MessageKind, Refused, UnfitSecret, Webhook, WebhookSecret,
};
