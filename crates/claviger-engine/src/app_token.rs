//! The app's own access token: for questions about users who are away, for subscriptions, and for
//! the app's server.
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

use crate::{Answered, Denied, Env, Keys, Lock, ProviderClient, part::part};

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
        /// The provider's last refusal, and when it came. Those who waited meanwhile ask no more.
        refused: Lock<Option<(Timestamp, NoToken)>> = Lock::default(),
        /// When a token was last replaced because of a caller's report, by the monotonic clock.
        reported: Lock<Option<Duration>> = Lock::default(),
    }
}

#[derive(Clone)]
struct Kept {
    token: AccessToken,
    /// The version of the shared entry that holds it.
    version: Version,
    expires_at: Timestamp,
}

/// A token that does not work any more.
#[derive(Clone)]
enum Dead {
    /// The provider rejected it when we used it.
    Seen(AccessToken),
    /// A caller says that the provider rejected it.
    Reported(AccessToken),
}

impl Dead {
    fn is(&self, kept: &Kept) -> bool {
        let (Self::Seen(token) | Self::Reported(token)) = self;
        token.expose() == kept.token.expose()
    }
}

/// The app's own access token, for its server.
#[derive(Clone, Debug)]
pub struct AppGrant {
    /// The token. All callers and instances get the same.
    pub token: AccessToken,
    /// When it expires, as far as the provider says. It is replaced before.
    pub expires_at: Timestamp,
}

/// Why there is no app token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NoToken {
    /// The provider cannot be asked.
    ProviderFailure(ProviderFailure),
    /// The provider refuses our own credentials.
    Misconfigured,
    /// There is only the rejected one, and a report replaced one lately.
    NotYet(Duration),
    /// The store cannot be used.
    Store(StoreError),
}

impl NoToken {
    /// How long to wait before the provider is asked again.
    fn pause(&self) -> Duration {
        match self {
            Self::ProviderFailure(failure) => failure.pause(),
            Self::NotYet(left) => *left,
            Self::Misconfigured | Self::Store(_) => limits::RETRY_AFTER,
        }
    }
}

impl From<NoToken> for Denied {
    fn from(no_token: NoToken) -> Self {
        match no_token {
            NoToken::ProviderFailure(failure) => Self::ProviderUnavailable { retry_after: failure.pause() },
            NoToken::NotYet(left) => Self::ProviderUnavailable { retry_after: left },
            NoToken::Misconfigured => Self::Misconfigured,
            NoToken::Store(error) => Self::Store(error),
        }
    }
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
        let dead = dead.cloned().map(Dead::Seen);
        self.current(dead.as_ref()).await.map(|kept| kept.token)
    }

    /// The token for the app's server. `rejected` is one of which it says that the provider
    /// rejected it; that token is never returned. A report costs a token, so each instance replaces
    /// one a minute because of them. A caller that is dropped loses none.
    pub(crate) async fn grant(self: &Arc<Self>, rejected: Option<AccessToken>) -> Result<AppGrant, NoToken> {
        let (this, dead) = (Arc::clone(self), rejected.map(Dead::Reported));
        let work = async move { this.current(dead.as_ref()).await };
        let Kept { token, expires_at, .. } = self.env.detached(work).await?;
        Ok(AppGrant { token, expires_at })
    }

    async fn current(&self, dead: Option<&Dead>) -> Result<Kept, NoToken> {
        let now = self.env.now();
        let is_fresh = |kept: &Kept| kept.expires_at > now.after(limits::APP_TOKEN_MARGIN);
        let is_dead = |kept: &Kept| dead.is_some_and(|dead| dead.is(kept));
        let kept = || self.kept.lock().clone().filter(|kept| is_fresh(kept) && !is_dead(kept));
        if let Some(kept) = kept() {
            return Ok(kept);
        }
        let _minting = self.minting.lock().await;
        if let Some(kept) = kept() {
            return Ok(kept);
        }
        let entry = self.store.shared_entry(NAME).await?;
        let version = entry.as_ref().map_or(Version::FIRST, |entry| entry.version.next());
        let stored = entry.and_then(|entry| self.open(&entry)).filter(is_fresh);
        let Some(stored) = stored else { return self.mint(version).await };
        if !is_dead(&stored) {
            *self.kept.lock() = Some(stored.clone());
            return Ok(stored);
        }
        let is_report = matches!(dead, Some(Dead::Reported(_)));
        if is_report && let Some(left) = self.until_next_report() {
            return Err(NoToken::NotYet(left));
        }
        let minted = self.mint(version).await?;
        if is_report {
            *self.reported.lock() = Some(self.env.monotonic());
        }
        // Another instance that was first may only have sealed the dead one again.
        if is_dead(&minted) { Err(NoToken::NotYet(limits::RETRY_AFTER)) } else { Ok(minted) }
    }

    /// How long until a report may replace a token again. None if it may.
    fn until_next_report(&self) -> Option<Duration> {
        let since = self.env.monotonic().saturating_sub((*self.reported.lock())?);
        limits::APP_TOKEN_REPORTS_EVERY.checked_sub(since).filter(|left| !left.is_zero())
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

    async fn mint(&self, version: Version) -> Result<Kept, NoToken> {
        if let Some((at, refused)) = self.refused.lock().clone()
            && at.age(self.env.now()).is_some_and(|age| age < refused.pause())
        {
            return Err(refused);
        }
        let minted = self.ask(version).await;
        if let Err(refused @ (NoToken::ProviderFailure(_) | NoToken::Misconfigured)) = &minted {
            *self.refused.lock() = Some((self.env.now(), refused.clone()));
        }
        minted
    }

    async fn ask(&self, version: Version) -> Result<Kept, NoToken> {
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
            return Ok(minted);
        }
        // Another instance was first. All instances use its token, so ours is revoked.
        let _answer = self.provider.revoke_access(&minted.token).await;
        let stored = self.store.shared_entry(NAME).await?.and_then(|entry| self.open(&entry));
        stored.ok_or(NoToken::ProviderFailure(ProviderFailure::new(FailureKind::Unreadable)))
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
