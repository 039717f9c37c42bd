//! The keys in force, and what is sealed with them. Keys can be changed at any time, and no request
//! waits for that.
//!
//! | to | call |
//! |---|---|
//! | use other keys | [`Keys::replace`] |
//! | seal or open a token pair | [`Keys::seal_pair`], [`Keys::open_access`], [`Keys::open_refresh`] |
//! | hand on an access token | [`Keys::grant`], [`Keys::cached_token_cookie`] |
//! | seal again what an older key sealed | [`Keys::reseal_pair`], [`Keys::reseal_cookie`] |

use std::{fmt, sync::Arc};

use arc_swap::ArcSwap;
use claviger_core::{
    AccessToken, Custody, Expiry, IssuedPair, RefreshToken, SealedBlob, SealedPair, Session, SessionId,
    SessionSecret, Timestamp, Version, limits,
};
use claviger_seal::{
    AccessPlain, CachedToken, KeyId, Keyring, OpenError, PairBinding, RefreshLock, SessionCookie,
};
use claviger_store::{KeyIdCount, SharedEntry, Store, StoreError};
use tokio::sync::Notify;

use crate::{Denied, Env, Lock, ProviderClient, Rows, metrics};

/// Why keys were not accepted. The old ones stay in force; the operator must act.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeysRefused {
    /// Rows are sealed with a key that is missing.
    #[error(
        "key {key} is in use by {rows} and is not in the keyring; the operator must put it back until none is left \
         (`claviger keys list` counts them)"
    )]
    InUse {
        /// The key.
        key: KeyId,
        /// The rows that it sealed.
        rows: SealedRows,
    },
    /// Another key has the id of one that is in force.
    #[error(
        "key {0} is another key than the one of this id that is in force; the operator must give it an id of its own"
    )]
    Contradiction(KeyId),
    /// The keys that sign assertions are sealed with a key that is missing.
    #[error(
        "key {0} seals the keys that sign assertions and is not in the keyring; the operator must put it back"
    )]
    SignsAssertions(KeyId),
    /// The keys that sign assertions do not open, although the keyring has a key of the right id.
    #[error(
        "the keys that sign assertions do not open: another root key of the same id sealed them, or they were changed; \
         the operator must put that root key back"
    )]
    AssertionKeysDoNotOpen,
    /// The rows could not be counted.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Numbers of rows that a key sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct SealedRows {
    /// Sessions that have not ended.
    pub sessions: u64,
    /// Pending revocations.
    pub revocations: u64,
}

impl SealedRows {
    /// The number of all of them.
    pub fn count(self) -> u64 {
        self.sessions + self.revocations
    }
}

impl fmt::Display for SealedRows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} sessions and {} pending revocations", self.sessions, self.revocations)
    }
}

/// A key, and the rows that it sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyRows {
    /// The key.
    pub key: KeyId,
    /// What it is used for.
    pub role: KeyRole,
    /// What it sealed.
    pub rows: SealedRows,
    /// Whether browsers may still show cookies that it sealed.
    pub cookies: CookieUse,
}

impl KeyRows {
    /// Whether nothing needs this key any more, so the operator may remove it.
    pub fn may_go(&self) -> bool {
        self.role == KeyRole::Older && self.rows.count() == 0 && self.cookies == CookieUse::Over
    }
}

/// Whether browsers may still show cookies that a key sealed. A cookie is sealed again when it is
/// shown, and after [`Lifetimes::idle`](claviger_core::policy::Lifetimes) without that its session
/// is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CookieUse {
    /// Until this time.
    Until(Timestamp),
    /// It is not known when the key last sealed one.
    Unknown,
    /// They may not, or it is no older key.
    Over,
}

/// The name of the shared entry that holds [`SealsSince`].
const SEALS_SINCE: &str = "seals-since";

/// Since when the newest key seals, and no older one does, in all instances.
#[derive(Clone, Copy)]
struct SealsSince {
    key: KeyId,
    since: Timestamp,
}

impl SealsSince {
    fn read(entry: &SharedEntry) -> Option<Self> {
        let (key, since) = entry.value.split_first_chunk()?;
        let since = i64::from_be_bytes(since.try_into().ok()?);
        Some(Self { key: KeyId(u32::from_be_bytes(*key)), since: Timestamp::from_millis(since) })
    }

    fn after(self, entry: Option<&SharedEntry>) -> SharedEntry {
        let version = entry.map_or(Version::FIRST, |entry| entry.version.next());
        let mut value = self.key.0.to_be_bytes().to_vec();
        value.extend(self.since.as_millis().to_be_bytes());
        SharedEntry { version, value }
    }
}

claviger_core::named! {
    /// What a key is used for.
    pub enum KeyRole {
        /// The next one: it opens what other instances seal with it.
        Next = "next",
        /// It seals.
        Seals = "seals",
        /// It opens what it sealed, which is being sealed with the newer key.
        Older = "older",
        /// It is not in the keyring, and rows need it. The operator must bring it back.
        Missing = "missing",
    }
}

/// An access token to call the provider's API with.
#[derive(Clone, Debug)]
pub struct Grant {
    /// The token.
    pub token: AccessToken,
    /// Which of the session's pairs it belongs to.
    pub generation: Version,
    /// When it expires.
    pub expiry: Expiry,
}

/// Both blobs of a pair, sealed with the key that seals now.
pub(crate) struct Resealed {
    pub(crate) access: SealedBlob,
    pub(crate) refresh: Option<SealedBlob>,
}

/// The keyring in force.
pub(crate) struct Keys {
    env: Env,
    store: Arc<dyn Store>,
    rows: Arc<Rows>,
    provider: Arc<ProviderClient>,
    keyring: ArcSwap<Keyring>,
    /// One change at a time.
    changing: tokio::sync::Mutex<()>,
    /// The keys were changed.
    changed: Notify,
    /// When keys last left the keyring, while they are kept for rows that were read before.
    left_at: Lock<Option<Timestamp>>,
    /// The key of which the log has said that everything is sealed with it.
    complete: Lock<Option<KeyId>>,
}

impl Keys {
    pub(crate) fn new(
        env: Env,
        store: Arc<dyn Store>,
        rows: Arc<Rows>,
        provider: Arc<ProviderClient>,
        keyring: Keyring,
    ) -> Arc<Self> {
        Arc::new(Self {
            env,
            store,
            rows,
            provider,
            keyring: ArcSwap::from_pointee(keyring),
            changing: tokio::sync::Mutex::default(),
            changed: Notify::new(),
            left_at: Lock::default(),
            complete: Lock::default(),
        })
    }

    /// The keys as they are now. Every request takes this path: it takes neither a lock nor an
    /// allocation. Do not hold it across an await.
    pub(crate) fn keyring(&self) -> arc_swap::Guard<Arc<Keyring>> {
        self.keyring.load()
    }

    /// The keys as they are now, to hold across an await.
    pub(crate) fn keyring_owned(&self) -> Arc<Keyring> {
        self.keyring.load_full()
    }

    /// Is notified when the keys were changed.
    pub(crate) fn changed(&self) -> &Notify {
        &self.changed
    }

    /// Uses other keys for whatever is sealed or opened from now on. Requests in flight end with
    /// the keys that they began with.
    ///
    /// # Errors
    /// [`KeysRefused`]: a key is missing that rows need, or is another one than before. Then
    /// nothing is changed.
    pub(crate) async fn replace(&self, keyring: Keyring) -> Result<(), KeysRefused> {
        let _changing = self.changing.lock().await;
        let before = self.keyring.load_full();
        if let Some(key) = keyring.contradicts(&before) {
            return Err(KeysRefused::Contradiction(key));
        }
        if keyring.ids().eq(before.ids()) {
            return Ok(());
        }
        if before.ids().any(|id| !keyring.holds(id)) {
            let counts = self.count_rows().await?;
            self.tell_if_complete(&before, &counts);
            require(counts.into_iter().filter(|(key, _)| before.holds(*key)), &keyring)?;
        }
        let keyring = keyring.after(&before);
        if keyring.leaving().next().is_some() {
            *self.left_at.lock() = Some(self.env.now());
        }
        tracing::info!(before = ?*before, now = ?keyring, "keys were changed; the first seals");
        let leaves = keyring.leaving().next().is_some();
        self.keyring.store(Arc::new(keyring));
        if leaves {
            // Memory still holds rows as they were before other instances sealed them again.
            self.rows.cache().forget_all();
        }
        self.changed.notify_one();
        Ok(())
    }

    /// Requires that every row can be opened. It scans all rows.
    ///
    /// # Errors
    /// [`KeysRefused::InUse`] names a key that is missing.
    pub(crate) async fn require_all(&self) -> Result<(), KeysRefused> {
        let counts = self.count_rows().await?;
        require(counts, &self.keyring())
    }

    /// Each key of the keyring, and each that rows need, with the rows that it sealed. It scans all
    /// rows.
    pub(crate) async fn list(&self) -> Result<Vec<KeyRows>, StoreError> {
        let mut counts = self.count_rows().await?;
        let since = self.store.shared_entry(SEALS_SINCE).await?.as_ref().and_then(SealsSince::read);
        let keyring = self.keyring();
        self.tell_if_complete(&keyring, &counts);
        let counted: Vec<KeyId> = counts.iter().map(|(id, _)| *id).collect();
        let unused = keyring.ids().filter(|id| !counted.contains(id));
        counts.extend(unused.map(|id| (id, SealedRows::default())));
        counts.sort_unstable_by_key(|(id, _)| std::cmp::Reverse(*id));
        let role = |id| match id {
            id if !keyring.holds(id) => KeyRole::Missing,
            id if keyring.sealing() == id => KeyRole::Seals,
            id if keyring.is_older(id) => KeyRole::Older,
            _ => KeyRole::Next,
        };
        let keys: Vec<_> =
            counts.into_iter().map(|(key, rows)| self.described(key, role(key), rows, since)).collect();
        for KeyRows { key, role: now, rows, .. } in &keys {
            // A role that the key had before holds no rows any more.
            for (role, name) in KeyRole::NAMES {
                let rows = if role == *now { rows.count() } else { 0 };
                metrics::key_rows(&key.to_string(), name, rows);
            }
        }
        Ok(keys)
    }

    fn described(&self, key: KeyId, role: KeyRole, rows: SealedRows, since: Option<SealsSince>) -> KeyRows {
        let (now, sealing) = (self.env.now(), self.keyring().sealing());
        let cookies = match since {
            _ if role != KeyRole::Older => CookieUse::Over,
            Some(SealsSince { key, since }) if key == sealing => {
                // A time ahead of the clock vouches for nothing: the key may have sealed until now.
                let until = since.min(now).after(self.env.settings().lifetimes.idle);
                if now < until { CookieUse::Until(until) } else { CookieUse::Over }
            }
            _ => CookieUse::Unknown,
        };
        KeyRows { key, role, rows, cookies }
    }

    /// Logs once for each key that everything is sealed with it, as soon as any count finds that.
    fn tell_if_complete(&self, keyring: &Keyring, counts: &[(KeyId, SealedRows)]) {
        let is_left = |(id, rows): &(KeyId, SealedRows)| rows.count() > 0 && keyring.is_older(*id);
        if !keyring.has_older() || counts.iter().any(is_left) {
            return;
        }
        let key = keyring.sealing();
        if self.complete.lock().replace(key) != Some(key) {
            tracing::info!(key = key.0, "everything is sealed with the newest key");
        }
    }

    /// Writes down since when the newest key seals in all instances. An instance that still seals
    /// with an older one moves that time on.
    pub(crate) async fn note_sealing(&self) -> Result<(), StoreError> {
        let own = self.keyring().sealing();
        let entry = self.store.shared_entry(SEALS_SINCE).await?;
        let known = entry.as_ref().and_then(SealsSince::read).map(|known| known.key);
        if known == Some(own) {
            return Ok(());
        }
        let next = SealsSince { key: known.map_or(own, |known| known.max(own)), since: self.env.now() };
        // Another instance that was first wrote the same.
        let _written = self.store.put_shared_entry(SEALS_SINCE, &next.after(entry.as_ref())).await?;
        Ok(())
    }

    /// Drops keys that left the keyring a while ago.
    pub(crate) fn drop_left_keys(&self) {
        // A change of keys that is in progress calls this again later.
        let Ok(_changing) = self.changing.try_lock() else { return };
        let mut left_at = self.left_at.lock();
        if left_at.is_some_and(|at| self.env.now() >= at.after(limits::KEY_LEAVES_AFTER)) {
            self.keyring.store(Arc::new(self.keyring.load().without_leaving()));
            *left_at = None;
        }
    }

    /// Opens a session cookie.
    ///
    /// # Errors
    /// [`Denied::NoSession`] if it is not one of ours; [`Denied::UnknownKey`] if it may be, under a
    /// key that is missing.
    pub(crate) fn open_cookie(&self, value: &str) -> Result<SessionCookie, Denied> {
        SessionCookie::open(&self.keyring(), value).map_err(Denied::from_cookie)
    }

    /// The session cookie sealed with the key that seals now, if an older one sealed it and its
    /// session is trusted.
    ///
    /// A sign-in that replaces the session ends it, and then it is not trusted any more. So a late
    /// answer does not overwrite the new cookie with the old one.
    pub(crate) fn reseal_cookie(&self, value: &str) -> Option<String> {
        let keyring = self.keyring();
        if !keyring.is_cookie_outdated(value) {
            return None;
        }
        let cookie = SessionCookie::open(&keyring, value).ok()?;
        if self.rows.cache().denies(cookie.session) {
            return None;
        }
        metrics::cookie_resealed();
        Some(cookie.seal(&keyring, self.env.nonce()))
    }

    /// The access token of a pair, for requests to the provider that issued it.
    pub(crate) fn open_access(&self, row: &Session, pair: &SealedPair) -> Result<AccessPlain, Denied> {
        self.provider.require_issuer(row.id, &row.subject.provider)?;
        self.keyring().open_access(binding(row, pair.generation), &pair.access).map_err(Denied::from_row)
    }

    /// The row's refresh token. In the device's custody it opens only with the device's secret.
    ///
    /// # Errors
    /// [`Denied::SignInAgain`] if there is none, or the secret is missing.
    pub(crate) fn open_refresh(
        &self,
        row: &Session,
        secret: Option<&SessionSecret>,
    ) -> Result<RefreshToken, Denied> {
        let pair = row.pair().ok_or(Denied::SignInAgain)?;
        let sealed = pair.refresh.as_ref().ok_or(Denied::SignInAgain)?;
        self.provider.require_issuer(row.id, &row.subject.provider)?;
        let lock = refresh_lock(row.custody, secret).ok_or(Denied::SignInAgain)?;
        self.keyring().open_refresh(binding(row, pair.generation), lock, sealed).map_err(Denied::from_row)
    }

    /// The row's refresh token, sealed so that the server can open it, if the device brought its
    /// secret and the provider revokes refresh tokens.
    pub(crate) fn refresh_to_revoke(&self, row: &Session, secret: &SessionSecret) -> Option<SealedBlob> {
        let generation = row.generation()?;
        if !self.provider.provider().revokes_refresh_tokens(row.custody) {
            return None;
        }
        let token = self.open_refresh(row, Some(secret)).ok()?;
        let binding = binding(row, generation);
        Some(self.keyring().seal_refresh(binding, RefreshLock::Server, &token, self.env.nonce()))
    }

    /// Seals a pair for its row. A refresh token that is to be kept comes with what locks it.
    pub(crate) fn seal_pair(
        &self,
        row: &Session,
        generation: Version,
        issued: &IssuedPair,
        issued_at: Timestamp,
        scopes: Vec<String>,
        refresh: Option<(&RefreshToken, RefreshLock<'_>)>,
    ) -> SealedPair {
        let binding = binding(row, generation);
        let access = AccessPlain { token: issued.access.clone(), scopes };
        let ring = self.keyring();
        SealedPair {
            generation,
            access: ring.seal_access(binding, &access, self.env.nonce()),
            refresh: refresh.map(|(token, lock)| ring.seal_refresh(binding, lock, token, self.env.nonce())),
            expiry: issued.lifespan.from(issued_at),
        }
    }

    /// Whether the row holds this very pair.
    pub(crate) fn holds(&self, row: &Session, issued: &IssuedPair) -> bool {
        let held = row.pair().and_then(|pair| self.open_access(row, pair).ok());
        held.is_some_and(|held| held.token.expose() == issued.access.expose())
    }

    /// Both blobs of a pair, each sealed with the key that seals now. None if no older key sealed
    /// either of them.
    pub(crate) fn reseal_pair(
        &self,
        at: PairBinding<'_>,
        access: &SealedBlob,
        refresh: Option<&SealedBlob>,
    ) -> Result<Option<Resealed>, OpenError> {
        let keyring = self.keyring();
        let outdated_access = keyring.is_outdated(access);
        let outdated_refresh = refresh.is_some_and(|refresh| keyring.is_outdated(refresh));
        if !outdated_access && !outdated_refresh {
            return Ok(None);
        }
        let access = if outdated_access {
            keyring.seal_access(at, &keyring.open_access(at, access)?, self.env.nonce())
        } else {
            access.clone()
        };
        let refresh = match refresh {
            Some(sealed) if outdated_refresh => {
                let token = keyring.open_refresh(at, RefreshLock::Server, sealed)?;
                Some(keyring.seal_refresh(at, RefreshLock::Server, &token, self.env.nonce()))
            }
            other => other.cloned(),
        };
        Ok(Some(Resealed { access, refresh }))
    }

    /// The row's access token, to call the provider's API with.
    ///
    /// # Errors
    /// [`Denied::SignInAgain`] if the row holds no pair.
    pub(crate) fn grant(&self, row: &Session) -> Result<Grant, Denied> {
        let pair = row.pair().ok_or(Denied::SignInAgain)?;
        let token = self.open_access(row, pair)?.token;
        Ok(Grant { token, generation: pair.generation, expiry: pair.expiry })
    }

    /// The cached-token cookie that the browser may carry for its session's pair, if the settings
    /// want one and it fits a cookie.
    pub(crate) fn cached_token_cookie(&self, session: SessionId, grant: &Grant) -> Option<String> {
        let Expiry::At(expires_at) = grant.expiry else { return None };
        let cached =
            CachedToken { session, generation: grant.generation, token: grant.token.clone(), expires_at };
        let wanted = self.env.settings().carry_access_token;
        wanted.then(|| cached.seal(&self.keyring(), self.env.nonce())).flatten()
    }

    /// Opens the cached-token cookie. `None` if it does not open.
    pub(crate) fn open_cached_token(&self, value: &str) -> Option<CachedToken> {
        CachedToken::open(&self.keyring(), value).ok()
    }

    /// The number of rows of each key that sealed any. Blobs that only devices can open are not
    /// counted.
    async fn count_rows(&self) -> Result<Vec<(KeyId, SealedRows)>, StoreError> {
        let heads = self.store.key_id_counts().await?;
        let of = |KeyIdCount { head, sessions, revocations }| {
            Some((KeyId::of(head)?, SealedRows { sessions, revocations }))
        };
        Ok(heads.into_iter().filter_map(of).collect())
    }
}

/// What locks a session's refresh token. None where it takes the device, and the device is not
/// there.
pub(crate) fn refresh_lock(custody: Custody, secret: Option<&SessionSecret>) -> Option<RefreshLock<'_>> {
    match custody {
        Custody::Device | Custody::None => secret.map(RefreshLock::Device),
        Custody::Server => Some(RefreshLock::Server),
    }
}

fn binding(row: &Session, generation: Version) -> PairBinding<'_> {
    PairBinding { provider: &row.subject.provider, session: row.id, generation }
}

/// Refuses a keyring that lacks one of these keys.
fn require(
    counts: impl IntoIterator<Item = (KeyId, SealedRows)>,
    keyring: &Keyring,
) -> Result<(), KeysRefused> {
    let missing = counts.into_iter().find(|(key, _)| !keyring.holds(*key));
    missing.map_or(Ok(()), |(key, rows)| Err(KeysRefused::InUse { key, rows }))
}
