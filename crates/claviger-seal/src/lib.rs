//! Seals what leaves the process as a cookie or lies in the store. It opens only here, and only in
//! its own place.
//!
//! Everything is sealed with AES-256-GCM-SIV (RFC 8452). A repeated nonce shows only that two
//! messages are equal. The crate reads no clock and draws no random numbers; nonces are arguments.
//! Only the signature of an assertion needs random numbers, which the cryptographic library draws.
//!
//! | what | opens with | bound to |
//! |---|---|---|
//! | a cookie ([`cookies`]) | a key per purpose, derived once from each root key | format, key id, purpose |
//! | an access token | a key per row, derived from a root key | format, key id, purpose, provider, session, generation |
//! | a refresh token in custody `server` | the same, for its own purpose | the same |
//! | a refresh token in custody `device` | a key derived from the secret in the device's cookie | the same; its key id is 0 |
//! | the keys that sign assertions ([`SigningKey`]) | a key derived from a root key | format, key id, purpose |
//!
//! All of it has one format. Cookies are its base64url.
//!
//! ```text
//! format (1) | key id (4, big-endian) | nonce (12) | ciphertext | tag (16)
//! ```
//!
//! The key is found by its id, never by trial, and the id is authenticated.
//!
//! # Key rotation
//!
//! A new key has a higher id than all before it. First in the list it seals; elsewhere in the list
//! it only opens. Whatever keys with lower ids sealed is resealed, and such a key can be removed
//! when nothing is sealed with it. A key that is missing in the list is the operator's error
//! ([`OpenError::UnknownKey`]) and signs nobody out.
//!
//! # How to add
//!
//! * **A sealed kind:** a new number in `envelope::Purpose`, never one that was used before. For a
//!   blob of a row, add a pair of seal and open functions to `rows`, which bind it to its row and
//!   generation, and a line to `KINDS` in its tests.
//! * **A cookie:** a struct in `cookies` with `seal` and `open`, a `CookiePurpose` with its own
//!   number, and its key in `Keys`. Check its size against `plain_bytes`. Its name and attributes
//!   are in claviger-axum's `site`.
//! * **A field:** append it and let `open` accept values without it, since old values live on.

pub mod cookies;
pub mod destination;
mod encoding;
mod envelope;
mod keyring;
mod rows;
mod signing;

pub use cookies::{CachedToken, CookieIdentity, LoginCookie, SessionCookie};
pub use envelope::{KeyId, Nonce, OpenError};
pub use keyring::{CookiePurpose, KeyFormatError, Keyring, KeyringError, RootKey};
pub use rows::{AccessPlain, PairBinding, RefreshLock};
pub use signing::{NotSigned, SigningKey};
