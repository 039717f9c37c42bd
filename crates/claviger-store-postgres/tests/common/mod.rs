//! Shared helpers.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "each test uses its part, and may panic"
)]

pub mod server;

use claviger_core::{
    ActiveState, Custody, DeviceLabel, Expiry, ProviderName, SealedBlob, SealedPair, Session, SessionId,
    SessionSecret, State, Subject, Timestamp, Version,
};
use claviger_store::Placement;

pub const ROOMY: Placement = Placement { limit: 1000, replaces: None };

pub fn t(secs: i64) -> Timestamp {
    Timestamp::from_millis(1_790_000_000_000 + secs * 1000)
}

/// A session of one of ten users. `tag` makes it distinct.
pub fn session(tag: u32) -> Session {
    let mut random = [0; 10];
    random[..4].copy_from_slice(&tag.to_be_bytes());
    let begun = t(i64::from(tag));
    let pair = SealedPair {
        generation: Version::FIRST,
        access: SealedBlob(vec![0xac; 300]),
        refresh: Some(SealedBlob(vec![0x4e; 100])),
        expiry: Expiry::At(t(14_000)),
    };
    Session {
        id: SessionId::new(begun, random),
        version: Version::FIRST,
        subject: Subject { provider: ProviderName("twitch".to_owned()), id: (tag % 10).to_string() },
        display_name: format!("user {}", tag % 10),
        secret_hash: SessionSecret::new([7; 32]).hash(),
        custody: Custody::Device,
        device: DeviceLabel::new("Firefox on Linux"),
        created_at: begun,
        last_seen_at: begun,
        state: State::Live(ActiveState { pair: Some(pair), proven_at: begun, claim: None }),
    }
}
