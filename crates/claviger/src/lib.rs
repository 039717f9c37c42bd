//! Login sessions for axum apps whose users sign in through an OAuth 2.0 provider, Twitch first.
//!
//! This crate is the one dependency of a Rust app. It re-exports what an app needs from the inner
//! crates, and decides nothing itself.
//!
//! | feature | default | what it adds |
//! |---|---|---|
//! | `axum` | yes | [`Claviger`]: the tower layer, the extractors, the sign-in routes, the devices page |
//! | `sqlite` | yes | [`SqliteStore`]: sessions in one file, for one instance |
//! | `postgres` | no | [`PostgresStore`]: sessions that several instances share |
//! | `mock` | no | [`mock`]: a Twitch on your own computer, for development and tests |
//!
//! An app starts an [`Engine`] from its [`Parts`], runs the background work with [`Engine::run`],
//! and adds the routes and the layer of [`Claviger`] to its router. `examples/hello.rs` is a whole
//! app in one file: `cargo run -p claviger --features mock --example hello`.
//!
//! To re-export another item, add it to the list of its crate below.
#![cfg_attr(
    not(all(feature = "axum", feature = "sqlite", feature = "postgres", feature = "mock")),
    allow(rustdoc::broken_intra_doc_links, reason = "the table above links to items behind features")
)]

pub use claviger_core::{
    AccessToken, ApiRefusal, Assurance, Cascade, ClientSecret, Custody, Expiry, Lifetimes, ProviderName,
    SessionId, Subject, Timestamp,
};
pub use claviger_engine::{
    Assertion, AssertionSettings, Caller, Clock, Denied, EndError, Ending, Engine, Entropy, Grant,
    HttpClient, KeysRefused, OsEntropy, Parts, ProviderHttp, Settings, SettingsError, StartError, Sweep,
    SystemClock, Target, WebhookSettings,
};
pub use claviger_provider::{Preset, Provider, Registration, twitch};
pub use claviger_seal::{KeyFormatError, KeyId, Keyring, KeyringError, RootKey, SessionCookie};
pub use claviger_store::{MemoryStore, Store, StoreError};

#[cfg(feature = "axum")]
pub use claviger_axum::{
    Authenticate, Claviger, ClavigerLayer, HEADER_ASSERTION, HEADER_LOGIN, HEADER_NAME, HEADER_PROVIDER,
    HEADER_SESSION, HEADER_USER, MaybeSignedIn, RequestHead, SameSite, SignedIn, Site, SiteData,
};
#[cfg(feature = "mock")]
pub use claviger_mock as mock;
#[cfg(feature = "postgres")]
pub use claviger_store_postgres::PostgresStore;
#[cfg(feature = "sqlite")]
pub use claviger_store_sqlite::SqliteStore;
