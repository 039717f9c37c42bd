//! The app's own access token: for questions about users who are away, and for subscriptions.
//!
//! All who share the store share one token, since a provider may let only so many of one app live. It is sealed like a
//! session's access token, in the place of a session that no user can have.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use claviger_core::{
    ids::{SessionId, Version},
    policy::limits,
    secret::AccessToken,
    session::SealedBlob,
    time::Timestamp,
    verdict::{Lifespan, Trouble, TroubleKind},
};
use claviger_provider::AppTokenAnswer;
use claviger_seal::{AccessPlain, PairBinding};
use claviger_store::{Memo, StoreError};

use crate::Engine;

/// What the token is kept under in the store.
const NAME: &str = "app-token";
const NOBODY: SessionId = SessionId::from_bytes([0; 16]);
/// A token that the provider gave no life span is taken to live so long.
const UNSTATED: Duration = Duration::from_secs(60 * 60);

#[derive(Default)]
pub(crate) struct AppToken {
    kept: Mutex<Option<Kept>>,
    /// One asks the provider at a time; the others then find its token.
    minting: tokio::sync::Mutex<()>,
}

#[derive(Clone)]
struct Kept {
    token: AccessToken,
    /// Of the memo that holds it.
    version: Version,
    expires_at: Timestamp,
}

/// Why there is no app token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NoToken {
    /// The provider cannot be asked.
    Trouble(Trouble),
    /// The provider refuses our own credentials.
    Misconfigured,
    /// The store cannot be used.
    Store(StoreError),
}

impl From<StoreError> for NoToken {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl AppToken {
    fn kept(&self) -> MutexGuard<'_, Option<Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Engine {
    /// The app's token. `dead` is one that the provider rejected: then there is a younger one, or it is replaced.
    pub(crate) async fn app_token(&self, dead: Option<&AccessToken>) -> Result<AccessToken, NoToken> {
        let now = self.now();
        let usable = |kept: &Kept| {
            kept.expires_at > now.after(limits::APP_TOKEN_MARGIN)
                && dead.is_none_or(|dead| dead.expose() != kept.token.expose())
        };
        let kept = || self.inner.app_token.kept().clone().filter(usable);
        if let Some(kept) = kept() {
            return Ok(kept.token);
        }
        let _minting = self.inner.app_token.minting.lock().await;
        if let Some(kept) = kept() {
            return Ok(kept.token);
        }
        let memo = self.inner.parts.store.memo(NAME).await?;
        let version = memo.as_ref().map(|memo| memo.version);
        if let Some(stored) = memo.and_then(|memo| self.open_app_token(&memo)).filter(usable) {
            *self.inner.app_token.kept() = Some(stored.clone());
            return Ok(stored.token);
        }
        self.mint_app_token(version.map_or(Version::FIRST, Version::next)).await
    }

    async fn mint_app_token(&self, version: Version) -> Result<AccessToken, NoToken> {
        let answer = self.inner.parts.http.send(self.provider().app_token_request()).await;
        let (token, lifespan) = match self.provider().read_app_token(answer, self.now()) {
            AppTokenAnswer::Issued { token, lifespan } => (token, lifespan),
            AppTokenAnswer::Misconfigured => {
                tracing::error!(
                    "the provider refuses this app's client id or secret: check the configuration"
                );
                return Err(NoToken::Misconfigured);
            }
            AppTokenAnswer::Unknown(trouble) => return Err(NoToken::Trouble(trouble)),
        };
        let lives = if let Lifespan::Lasts(span) = lifespan { span } else { UNSTATED };
        let minted = Kept { token, version, expires_at: self.now().after(lives) };
        let memo = Memo { version, value: self.seal_app_token(&minted) };
        if self.inner.parts.store.put_memo(NAME, &memo).await? {
            *self.inner.app_token.kept() = Some(minted.clone());
            return Ok(minted.token);
        }
        // Another instance was first: its token is everybody's, and ours nobody's.
        let _answer = self.inner.parts.http.send(self.provider().revoke(&minted.token)).await;
        let stored = self.inner.parts.store.memo(NAME).await?.and_then(|memo| self.open_app_token(&memo));
        stored.map(|kept| kept.token).ok_or(NoToken::Trouble(Trouble::new(TroubleKind::Unreadable)))
    }

    /// Seals the token with the key that seals now, if an older one sealed it. Others may be first.
    pub(crate) async fn reseal_app_token(&self) -> Result<(), StoreError> {
        let Some(memo) = self.inner.parts.store.memo(NAME).await? else { return Ok(()) };
        let sealed = memo.value.split_first_chunk::<8>().map(|(_, sealed)| SealedBlob(sealed.to_vec()));
        if !sealed.is_some_and(|sealed| self.keyring().is_outdated(&sealed)) {
            return Ok(());
        }
        let Some(kept) = self.open_app_token(&memo) else { return Ok(()) };
        let anew = Kept { version: memo.version.next(), ..kept };
        let memo = Memo { version: anew.version, value: self.seal_app_token(&anew) };
        self.inner.parts.store.put_memo(NAME, &memo).await.map(drop)
    }

    fn seal_app_token(&self, kept: &Kept) -> Vec<u8> {
        let provider = &self.provider().name;
        let binding = PairBinding { provider, session: NOBODY, generation: kept.version };
        let plain = AccessPlain { token: kept.token.clone(), scopes: Vec::new() };
        let mut value = kept.expires_at.as_millis().to_be_bytes().to_vec();
        value.extend(self.keyring().seal_access(binding, &plain, self.nonce()).0);
        value
    }

    /// One that does not open, as after a change of keys, is replaced.
    fn open_app_token(&self, memo: &Memo) -> Option<Kept> {
        let (expires_at, sealed) = memo.value.split_first_chunk()?;
        let provider = &self.provider().name;
        let binding = PairBinding { provider, session: NOBODY, generation: memo.version };
        let plain = self.keyring().open_access(binding, &SealedBlob(sealed.to_vec())).ok()?;
        let expires_at = Timestamp::from_millis(i64::from_be_bytes(*expires_at));
        Some(Kept { token: plain.token, version: memo.version, expires_at })
    }
}
