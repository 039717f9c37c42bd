//! Sealing: what leaves the process as a cookie or lies in the store opens only here, and only in its own place.
//!
//! Everything is sealed with AES-256-GCM-SIV (RFC 8452), which forgives a repeated nonce: equal messages would show as
//! equal, and nothing else. No clock is read and nothing is drawn at random; nonces are arguments.
//!
//! | what | opens with | bound to |
//! |---|---|---|
//! | a cookie ([`cookies`]) | a key per purpose, derived once from each root key | format, key id, purpose |
//! | an access token | a key per row, derived from a root key | format, key id, purpose, provider, session, generation |
//! | a refresh token in custody `server` | the same, for its own purpose | the same |
//! | a refresh token in custody `device` | a key derived from the secret in the device's cookie | the same; its key id is 0 |
//!
//! Every sealed thing has one form, of which [`Keyring::seal_cookie`] writes the base64url:
//!
//! ```text
//! format (1) | key id (4, big-endian) | nonce (12) | ciphertext | tag (16)
//! ```
//!
//! The key is found by the id in front and never by trial, and the id is authenticated with the rest. Rotation: a
//! new key has a higher id than all before it. Anywhere in the list it opens; first in the list it seals, and what keys of
//! lower ids sealed is sealed anew, until an older key can go because nothing is sealed with it. A key id that is missing in
//! the list is the operator's error ([`OpenError::UnknownKey`]) and signs nobody out.

pub mod cookies;
mod encoding;
mod envelope;
mod keyring;
mod rows;

pub use cookies::{AccessHint, CookieIdentity, LoginCookie, SessionCookie};
pub use envelope::{Nonce, OpenError};
pub use keyring::{CookiePurpose, KeyFormatError, KeyId, Keyring, KeyringError, RootKey};
pub use rows::{AccessPlain, PairBinding, RefreshLock};
