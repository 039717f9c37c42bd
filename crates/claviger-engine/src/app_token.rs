//! The app's own access token: for questions about users who are away, and for subscriptions.
//!
//! All instances share one token through the store, since a provider may limit the number of live
//! tokens of one app. It is sealed like a session's access token, under a session id that no user
//! can have.

use std::{sync::Arc, time::Duration};

use claviger_core::{
    AccessToken, FailureKind, Lifespan, ProviderFailure, SealedBlob, SessionId, Timestamp, Version, limits,
};
use claviger_provider::AppTokenAnswer;
use claviger_seal::{AccessPlain, PairBinding};
use claviger_store::{SharedEntry, Store, StoreError};

use crate::{Answered, Env, Keys, Lock, ProviderClient, part::part};

/// The name of the token's shared entry in the store.
const NAME: &str = "app-token";
const NOBODY: SessionId = SessionId::from_bytes([0; 16]);
/// Assumed life of a token whose life span the provider did not state.
const UNSTATED: Duration = Duration::from_secs(60 * 60);

part! {
    /// The app's own access token.
    pub(crate) struct AppToken needs {
        env: Env,
        store: Arc<dyn Store>,
        keys: Arc<Keys>,
        provider: Arc<ProviderClient>,
    } owns {
        kept: Lock<Option<Kept>> = Lock::default(),
        /// One task asks the provider at a time. The others then find its token.
        minting: tokio::sync::Mutex<()> = tokio::sync::Mutex::default(),
    }
}

#[derive(Clone)]
struct Kept {
    token: AccessToken,
    /// The version of the shared entry that holds it.
    version: Version,
    expires_at: Timestamp,
}

/// Why there is no app token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NoToken {
    /// The provider cannot be asked.
    ProviderFailure(ProviderFailure),
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
    /// The app's token. `dead` is one that the provider rejected: then another token is returned, a
    /// new one if necessary.
    pub(crate) async fn get(&self, dead: Option<&AccessToken>) -> Result<AccessToken, NoToken> {
        let now = self.env.now();
        let usable = |kept: &Kept| {
            kept.expires_at > now.after(limits::APP_TOKEN_MARGIN)
                && dead.is_none_or(|dead| dead.expose() != kept.token.expose())
        };
        let kept = || self.kept.lock().clone().filter(usable);
        if let Some(kept) = kept() {
            return Ok(kept.token);
        }
        let _minting = self.minting.lock().await;
        if let Some(kept) = kept() {
            return Ok(kept.token);
        }
        let entry = self.store.shared_entry(NAME).await?;
        let version = entry.as_ref().map(|entry| entry.version);
        if let Some(stored) = entry.and_then(|entry| self.open(&entry)).filter(usable) {
            *self.kept.lock() = Some(stored.clone());
            return Ok(stored.token);
        }
        self.mint(version.map_or(Version::FIRST, Version::next)).await
    }

    /// Seals the token with the key that seals now, if an older one sealed it. Another instance may
    /// be first.
    pub(crate) async fn reseal(&self) -> Result<(), StoreError> {
        let Some(entry) = self.store.shared_entry(NAME).await? else { return Ok(()) };
        let sealed = entry.value.split_first_chunk::<8>().map(|(_, sealed)| SealedBlob(sealed.to_vec()));
        if !sealed.is_some_and(|sealed| self.keys.keyring().is_outdated(&sealed)) {
            return Ok(());
        }
        let Some(kept) = self.open(&entry) else { return Ok(()) };
        let next = Kept { version: entry.version.next(), ..kept };
        let entry = SharedEntry { version: next.version, value: self.seal(&next) };
        self.store.put_shared_entry(NAME, &entry).await.map(drop)
    }

    async fn mint(&self, version: Version) -> Result<AccessToken, NoToken> {
        let Answered { answer, said } = self.provider.app_token().await;
        let (token, lifespan) = match answer {
            AppTokenAnswer::Issued { token, lifespan } => (token, lifespan),
            AppTokenAnswer::Misconfigured => {
                self.provider.alarm(&said);
                return Err(NoToken::Misconfigured);
            }
            AppTokenAnswer::Unknown(failure) => return Err(NoToken::ProviderFailure(failure)),
        };
        let lives = if let Lifespan::Lasts(span) = lifespan { span } else { UNSTATED };
        let minted = Kept { token, version, expires_at: self.env.now().after(lives) };
        let entry = SharedEntry { version, value: self.seal(&minted) };
        if self.store.put_shared_entry(NAME, &entry).await? {
            *self.kept.lock() = Some(minted.clone());
            return Ok(minted.token);
        }
        // Another instance was first. All instances use its token, so ours is revoked.
        let _answer = self.provider.revoke_access(&minted.token).await;
        let stored = self.store.shared_entry(NAME).await?.and_then(|entry| self.open(&entry));
        stored
            .map(|kept| kept.token)
            .ok_or(NoToken::ProviderFailure(ProviderFailure::new(FailureKind::Unreadable)))
    }

    fn seal(&self, kept: &Kept) -> Vec<u8> {
        let provider = &self.provider.provider().name;
        let binding = PairBinding { provider, session: NOBODY, generation: kept.version };
        let plain = AccessPlain { token: kept.token.clone(), scopes: Vec::new() };
        let mut value = kept.expires_at.as_millis().to_be_bytes().to_vec();
        value.extend(self.keys.keyring().seal_access(binding, &plain, self.env.nonce()).0);
        value
    }

    /// A token that does not open, as after a change of keys, is replaced.
    fn open(&self, entry: &SharedEntry) -> Option<Kept> {
        let (expires_at, sealed) = entry.value.split_first_chunk()?;
        let provider = &self.provider.provider().name;
        let binding = PairBinding { provider, session: NOBODY, generation: entry.version };
        let plain = self.keys.keyring().open_access(binding, &SealedBlob(sealed.to_vec())).ok()?;
        let expires_at = Timestamp::from_millis(i64::from_be_bytes(*expires_at));
        Some(Kept { token: plain.token, version: entry.version, expires_at })
    }
}
