//! A local Twitch: sign-in pages, tokens, a little of Helix and EventSub, and faults on demand.
//!
//! It runs on your own machine, for people who try an app in a browser, for tests, and for a
//! simulator:
//!
//! * [`MockTwitch`] is a plain value: [`MockTwitch::handle`] takes a request and a time and returns
//!   a [`Reply`]. It has no clock, no randomness and no IO, so the same seed and calls give the
//!   same answers. Only the key that signs id_tokens is random. Messages to webhooks wait in it
//!   until [`MockTwitch::due_deliveries`] returns them.
//! * [`Server`] puts it on a socket, and sends those messages.
//! * [`cli`] is the command `claviger mock-twitch`.
//!
//! ```
//! use claviger_mock::{Config, DEMO_CLIENT_ID, Endpoint, Fault, FaultKind, MockTwitch};
//!
//! let mut mock = MockTwitch::new(Config::demo(), 7);
//! mock.add_fault(Fault::once(Endpoint::Validate, FaultKind::too_many_requests(None)));
//! let tokens = mock.sign_in("100000001", DEMO_CLIENT_ID, &["user:read:email"], 0).unwrap();
//! let request = http::Request::get("/oauth2/validate")
//!     .header("authorization", format!("OAuth {}", tokens.access_token))
//!     .body(bytes::Bytes::new())
//!     .unwrap();
//! assert_eq!(mock.handle(&request, 0).response.status(), 429);
//! assert_eq!(mock.handle(&request, 0).response.status(), 200);
//! ```
//!
//! # What it answers
//!
//! | path | what |
//! |---|---|
//! | `/` | the page from which a person drives the mock |
//! | `/oauth2/authorize` | the consent page; a silent redirect if the browser's user agreed before |
//! | `/oauth2/token` | `authorization_code`, `refresh_token`, `client_credentials` |
//! | `/oauth2/validate`, `/oauth2/revoke` | as at Twitch |
//! | `/oauth2/.well-known/openid-configuration`, `/oauth2/keys`, `/oauth2/userinfo` | OpenID Connect |
//! | `/helix/users`, `/helix/authorization/users`, `/helix/subscriptions` | with rate limit; the last needs a scope |
//! | `/helix/eventsub/subscriptions` | create, list and delete subscriptions with the transport `webhook` |
//! | `/settings/connections` | where a user disconnects an app |
//!
//! The consent form has radio inputs `name="user"` (`id="user-<id>"`) and buttons `name="decision"`
//! with the values `authorize` and `deny` (their ids as well). The connections page has buttons
//! `id="disconnect-<user>-<client>"`.
//!
//! Left out: the device flow, the implicit flow, and `multipart/form-data` bodies.
//!
//! # EventSub
//!
//! The types are `user.authorization.revoke` and `user.authorization.grant`, both of version 1, and
//! the transport is `webhook`. A new subscription's callback gets a challenge; once it has answered
//! with exactly that, it gets a signed notification whenever a user disconnects the app, deletes
//! the account (then without login and name), or authorizes the app: at the consent page, or
//! anywhere else if it was not connected before. Nothing is sent for a revoked token, a changed
//! password or a connection that the reuse of a refresh token killed. Twitch does not document
//! these cases; `POST /mock/eventsub/notify` sends them.
//!
//! A message that is not answered with 2xx within 10 seconds is sent again with the same id and
//! timestamp, as [`EventsubSettings`] say, and then given up. Too many failures in a row revoke the
//! subscription. The same settings make messages arrive twice, late, stale, one at a time, in
//! another order, or never. [`Server`] delivers over plain `http` only: Twitch's callbacks are
//! `https` on port 443, and the mock also takes `http` on loopback hosts.
//!
//! # The page
//!
//! The page at `/` lists users, tokens, faults, subscriptions and settings, with a button for each
//! thing that can be done about them, and shows the requests as they come. It needs no script and
//! no control API.
//!
//! # The control API
//!
//! For tests: JSON under `/mock/`; calls that change something are refused if a browser sends them
//! from another site.
//!
//! | call | what |
//! |---|---|
//! | `GET`, `PATCH /mock/settings` | [`Settings`]; a patch names the fields to change, also within `eventsub` |
//! | `GET`, `POST`, `DELETE /mock/faults` | [`Fault`]s: list, add one, clear all |
//! | `GET`, `POST /mock/clients` | `{"client_id"?, "client_secret"?, "public"?, "name"?, "redirect_uris"?}`; the answer to POST carries the secret |
//! | `GET`, `POST /mock/users` | [`User`]s |
//! | `PATCH /mock/users/{id}` | a [`UserPatch`]: renames, suspends |
//! | `DELETE /mock/users/{id}` | deletes the account |
//! | `POST /mock/users/{id}/disconnect` | `{"client_id": ..}`, or no body for all clients |
//! | `POST /mock/users/{id}/expire-access-tokens` | refresh tokens still work |
//! | `POST /mock/users/{id}/kill-tokens` | all tokens, as a changed password does |
//! | `GET /mock/tokens` | live tokens by fingerprint |
//! | `POST /mock/tokens/kill` | `{"token": ..}` or `{"fingerprint": ..}` |
//! | `GET /mock/eventsub/subscriptions` | those of all clients |
//! | `POST /mock/eventsub/subscriptions/{id}/revoke` | `{"status": ..}` with a [`RevocationReason`]: it ends, and its callback is notified |
//! | `GET /mock/eventsub/deliveries` | [`DeliveryEntry`]s; `?after=<id>` |
//! | `POST /mock/eventsub/notify` | a [`Notice`]: `{"user_id": .., "type"?, "client_id"?, "event"?, "message_id"?, "timestamp_offset_ms"?}` |
//! | `POST /mock/eventsub/release` | delivers held messages: `{"order": "oldest_first" or "newest_first"}`, or no body |
//! | `GET`, `DELETE /mock/log` | [`LogEntry`]s; `?endpoint=`, `?grant_type=`, `?after=<sequence>` |
//! | `GET /mock/counters` | [`Counters`] |
//! | `POST /mock/signing-key/rotate` | a new key for id_tokens |
//! | `POST /mock/reset` | restores the initial state |
//!
//! A fault is, for example,
//! `{"endpoint": "token", "grant_type": "refresh_token", "calls": 2, "kind": "close_after"}`. The
//! kinds are `status` (`status`, `body`, `retry_after`: `{"seconds": 5}` or
//! `{"date_in_seconds": 5}`), `delay` (`delay_ms`), `close_before`, `close_after`, `malformed`
//! (`body`: `garbage`, `truncated`, `html`, `other_shape`) and `change` (the fields of [`Change`]:
//! `{"set": {"expires_in": 0}, "remove": ["scope"], "headers": {"x-a": "b"}, "encoding": "gzip"}`).
//! Delays and changes go with other faults. Without `calls` it stays until cleared;
//! `skip` is the number of calls that pass first.
//!
//! # How to add
//!
//! - **A fault**: a variant of [`FaultKind`] in `faults`, and its text form in `faults/text`.
//! - **An endpoint**: a variant of [`Endpoint`] with its path, and a function in a file of its own,
//!   which `mock` calls.
//! - **A setting**: a field of [`Settings`], and a line in `panel/settings`.
//! - **A mock of another provider**: `exchange`, `faults`, `page`, `secret` and `limits` know
//!   nothing of Twitch, except for the names of [`Endpoint`] in `faults`. `page` renders what a
//!   module such as `panel` describes. `server` and `shared` need of a mock only `handle`, the time
//!   and the deliveries.

mod accounts;
pub mod cli;
mod clock;
mod config;
mod connections;
mod control;
mod courier;
mod eventsub;
mod exchange;
mod faults;
mod helix;
mod limits;
mod log;
mod mock;
mod oauth;
mod page;
mod pages;
mod panel;
mod scopes;
mod secret;
mod server;
mod shared;
mod state;
#[cfg(test)]
mod tests;

pub use accounts::UserPatch;
pub use config::{
    Client, Config, DEMO_CLIENT_ID, DEMO_CLIENT_SECRET, DEMO_REDIRECT_URI, LiveTokenLimit, Rotation,
    Settings, User,
};
pub use eventsub::{
    Delivery, DeliveryEntry, DeliveryId, DeliveryState, EventsubSettings, MessageType, Notice, ReleaseOrder,
    RevocationReason, Subscription, SubscriptionStatus, SubscriptionType, WebhookAnswer,
};
pub use faults::{Change, Encoding, Fault, FaultKind, MalformedBody, RetryAfter};
pub use log::{Counters, Endpoint, LogEntry, Outcome};
pub use mock::{Connection, MockTwitch, Reply, SignedIn};
pub use secret::Secret;
pub use server::Server;
