//! Fills a store with sessions, as sign-ins would leave them, and makes their cookies.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result};
use claviger_core::{
    AccessToken, ActiveState, Custody, DeviceLabel, Expiry, ProviderName, RefreshToken, SealedPair, Session,
    SessionId, SessionSecret, State, Subject, Timestamp, Version,
};
use claviger_seal::{AccessPlain, CookieIdentity, Keyring, PairBinding, RefreshLock, SessionCookie};
use claviger_store::{Placement, Store};
use tokio::task::JoinSet;

const WRITERS: u32 = 64;

/// The content of a session.
pub(crate) struct Filling {
    /// The user's id at the provider.
    pub(crate) user: String,
    pub(crate) access_token: String,
    /// Age of its token's last proof.
    pub(crate) proven_ago: Duration,
    pub(crate) expiry: Expiry,
}

impl Filling {
    /// A fresh session. No provider knows its token.
    pub(crate) fn made_up(number: u32) -> Result<Self> {
        Ok(Self {
            user: (100_000_000 + number).to_string(),
            access_token: format!("{number:030}"),
            proven_ago: Duration::ZERO,
            expiry: Expiry::At(now()?.after(Duration::from_secs(4 * 60 * 60))),
        })
    }
}

/// Writes sessions into the store and returns the values of their cookies.
pub(crate) async fn fill(
    store: Arc<dyn Store>,
    ring: &Keyring,
    fillings: impl IntoIterator<Item = Result<Filling>>,
) -> Result<Vec<String>> {
    let mut cookies = Vec::new();
    let mut writes = JoinSet::new();
    for filling in fillings {
        let (session, cookie) = session(ring, filling?)?;
        cookies.push(cookie);
        if writes.len() >= WRITERS as usize {
            writes.join_next().await.context("a write is in flight")???;
        }
        let store = Arc::clone(&store);
        writes.spawn(async move {
            store
                .insert(session, Placement { limit: 20, replaces: None })
                .await
                .map(drop)
                .map_err(anyhow::Error::from)
        });
    }
    while let Some(written) = writes.join_next().await {
        written??;
    }
    Ok(cookies)
}

/// A session, and its cookie's value.
pub(crate) fn session(ring: &Keyring, filling: Filling) -> Result<(Session, String)> {
    let now = now()?;
    let id = SessionId::new(now, random()?);
    let secret = SessionSecret::new(random()?);
    let display_name = format!("user_{}", filling.user);
    let subject = Subject { provider: ProviderName("twitch".into()), id: filling.user };
    let binding = PairBinding { provider: &subject.provider, session: id, generation: Version::FIRST };
    let access = AccessPlain { token: AccessToken::new(filling.access_token), scopes: Vec::new() };
    let refresh = RefreshToken::new("0".repeat(50));
    let pair = SealedPair {
        generation: Version::FIRST,
        access: ring.seal_access(binding, &access, random()?),
        refresh: Some(ring.seal_refresh(binding, RefreshLock::Device(&secret), &refresh, random()?)),
        expiry: filling.expiry,
    };
    let proven_at = now.before(filling.proven_ago);
    let session = Session {
        id,
        version: Version::FIRST,
        subject: subject.clone(),
        display_name: display_name.clone(),
        secret_hash: secret.hash(),
        custody: Custody::Device,
        device: DeviceLabel::new("Firefox on Linux"),
        created_at: now,
        last_seen_at: now,
        state: State::Live(ActiveState { pair: Some(pair), proven_at, claim: None }),
    };
    let cookie = SessionCookie {
        session: id,
        secret,
        good_until: now.after(Duration::from_secs(24 * 60 * 60)),
        identity: Some(CookieIdentity { subject, display_name }),
    };
    Ok((session, cookie.seal(ring, random()?)))
}

#[expect(clippy::disallowed_methods, reason = "sessions must begin now")]
pub(crate) fn now() -> Result<Timestamp> {
    let since_epoch = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH)?;
    Ok(Timestamp::EPOCH.after(since_epoch))
}

#[expect(clippy::disallowed_methods, reason = "a measurement has no engine with a clock")]
pub(crate) fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}
