//! The keys and the client secret in force. They can be changed at any time, and no request waits for that.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use arc_swap::ArcSwap;
use claviger_core::{policy::limits, secret::ClientSecret, time::Timestamp};
use claviger_provider::Provider;
use claviger_seal::{KeyId, Keyring, SessionCookie};
use claviger_store::{HeadCount, StoreError};
use tokio::sync::Notify;

use crate::{Engine, meter, reseal::LastResealing};

/// What can be changed.
pub(crate) struct InForce {
    pub(crate) keyring: ArcSwap<Keyring>,
    pub(crate) provider: ArcSwap<Provider>,
    /// One change at a time.
    changing: tokio::sync::Mutex<()>,
    /// The keys were changed.
    pub(crate) changed: Notify,
    /// Since when keys are leaving.
    left_at: Mutex<Option<Timestamp>>,
    pub(crate) resealing: LastResealing,
}

impl InForce {
    pub(crate) fn new(keyring: Keyring, provider: Provider) -> Self {
        Self {
            keyring: ArcSwap::from_pointee(keyring),
            provider: ArcSwap::from_pointee(provider),
            changing: tokio::sync::Mutex::default(),
            changed: Notify::new(),
            left_at: Mutex::default(),
            resealing: LastResealing::default(),
        }
    }
}

/// Why keys were not taken. The old ones stay in force; the operator must act.
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
        /// By whom.
        rows: Rows,
    },
    /// Another key has the id of one that is in force.
    #[error(
        "key {0} is another key than the one of this id that is in force; the operator must give it an id of its own"
    )]
    Contradiction(KeyId),
    /// The rows could not be counted.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// So many rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Rows {
    /// Sessions that have not ended.
    pub sessions: u64,
    /// Revocations that the provider is owed.
    pub owed: u64,
}

impl Rows {
    /// All of them.
    pub fn count(self) -> u64 {
        self.sessions + self.owed
    }
}

impl fmt::Display for Rows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} sessions and {} owed revocations", self.sessions, self.owed)
    }
}

/// A key, and the rows that it sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyRows {
    /// The key.
    pub key: KeyId,
    /// What it is there for.
    pub role: KeyRole,
    /// What it sealed.
    pub rows: Rows,
}

/// What a key is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyRole {
    /// The next one: it opens what other instances seal with it.
    Next,
    /// It seals.
    Seals,
    /// It opens what it sealed, which is being sealed anew.
    Older,
    /// It is not in the keyring, and rows need it. The operator must bring it back.
    Missing,
}

impl KeyRole {
    /// The stable name, as JSON writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Next => "next",
            Self::Seals => "seals",
            Self::Older => "older",
            Self::Missing => "missing",
        }
    }
}

impl Engine {
    /// Takes other keys, for whatever is sealed or opened from now on. Requests under way end with the keys that they began with.
    ///
    /// # Errors
    /// [`KeysRefused`]: a key is missing that rows need, or is another one than before. Then nothing is changed.
    pub async fn use_keys(&self, keyring: Keyring) -> Result<(), KeysRefused> {
        let in_force = &self.inner.in_force;
        let _changing = in_force.changing.lock().await;
        let before = in_force.keyring.load_full();
        if let Some(key) = keyring.contradicts(&before) {
            return Err(KeysRefused::Contradiction(key));
        }
        if keyring.ids().eq(before.ids()) {
            return Ok(());
        }
        if before.ids().any(|id| !keyring.holds(id)) {
            let counts = self.count_rows().await?;
            require(counts.into_iter().filter(|(key, _)| before.holds(*key)), &keyring)?;
        }
        let keyring = keyring.after(&before);
        if keyring.leaving().next().is_some() {
            *in_force.left_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(self.now());
        }
        tracing::info!(before = ?*before, now = ?keyring, "keys were changed; the first seals");
        let leaves = keyring.leaving().next().is_some();
        in_force.keyring.store(Arc::new(keyring));
        if leaves {
            // What others sealed anew is still in memory as it was.
            self.inner.known.forget_all();
        }
        in_force.changed.notify_one();
        Ok(())
    }

    /// Takes another client secret, for the requests to the provider from now on.
    pub async fn use_client_secret(&self, client_secret: ClientSecret) {
        let in_force = &self.inner.in_force;
        let _changing = in_force.changing.lock().await;
        let before = in_force.provider.load_full();
        if before.client_secret.expose() == client_secret.expose() {
            return;
        }
        let provider = Provider { client_secret, ..Provider::clone(&before) };
        in_force.provider.store(Arc::new(provider));
        tracing::info!("the client secret was changed");
    }

    /// Whether every row can be opened, for who would rather not start than refuse requests. It goes through all rows.
    ///
    /// # Errors
    /// [`KeysRefused::InUse`] names a key that is missing.
    pub async fn require_keys(&self) -> Result<(), KeysRefused> {
        let counts = self.count_rows().await?;
        require(counts, &self.keyring())
    }

    /// Each key of the keyring, and each that rows need, with the rows that it sealed. It goes through all rows.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn keys(&self) -> Result<Vec<KeyRows>, StoreError> {
        let mut counts = self.count_rows().await?;
        let keyring = self.keyring();
        for id in
            keyring.ids().filter(|id| counts.iter().all(|(counted, _)| counted != id)).collect::<Vec<_>>()
        {
            counts.push((id, Rows::default()));
        }
        counts.sort_unstable_by_key(|(id, _)| std::cmp::Reverse(*id));
        let role = |id| match id {
            id if !keyring.holds(id) => KeyRole::Missing,
            id if keyring.sealing() == id => KeyRole::Seals,
            id if keyring.is_older(id) => KeyRole::Older,
            _ => KeyRole::Next,
        };
        let keys: Vec<_> =
            counts.into_iter().map(|(key, rows)| KeyRows { key, role: role(key), rows }).collect();
        meter::key_rows(&keys);
        Ok(keys)
    }

    /// How many rows each key sealed that sealed any. What only devices can open is not among them.
    pub(crate) async fn count_rows(&self) -> Result<Vec<(KeyId, Rows)>, StoreError> {
        let heads = self.inner.parts.store.heads().await?;
        let of = |HeadCount { head, sessions, owed }| Some((KeyId::of(head)?, Rows { sessions, owed }));
        Ok(heads.into_iter().filter_map(of).collect())
    }

    /// Lets keys go that left the keyring a while ago.
    pub(crate) fn let_keys_go(&self) {
        let in_force = &self.inner.in_force;
        // Who changes keys at this moment will be back.
        let Ok(_changing) = in_force.changing.try_lock() else { return };
        let mut left_at = in_force.left_at.lock().unwrap_or_else(PoisonError::into_inner);
        if left_at.is_some_and(|at| self.now() >= at.after(limits::KEY_LEAVES_AFTER)) {
            in_force.keyring.store(Arc::new(in_force.keyring.load().without_leaving()));
            *left_at = None;
        }
    }

    /// The session cookie sealed with the key that seals now, if an older one sealed it and its session is trusted.
    ///
    /// Where a sign-in takes the session's place meanwhile, the old session ends and is trusted no more: so a late answer does
    /// not put the old cookie in the place of the new one.
    pub fn cookie_anew(&self, value: &str) -> Option<String> {
        let keyring = self.keyring();
        if !keyring.is_cookie_outdated(value) {
            return None;
        }
        let cookie = SessionCookie::open(&keyring, value).ok()?;
        if self.inner.known.distrusts(cookie.session) {
            return None;
        }
        meter::cookie_resealed();
        Some(cookie.seal(&keyring, self.nonce()))
    }

    /// Whether a cookie is to be sealed anew, by what it says of itself.
    pub fn is_cookie_outdated(&self, value: &str) -> bool {
        self.keyring().is_cookie_outdated(value)
    }

    /// Whether there may be cookies of older keys. While there is one key only, this is all that they cost a request.
    pub fn has_older_keys(&self) -> bool {
        self.keyring().has_older()
    }
}

/// Refuses a keyring that lacks one of these keys.
fn require(counts: impl IntoIterator<Item = (KeyId, Rows)>, keyring: &Keyring) -> Result<(), KeysRefused> {
    let missing = counts.into_iter().find(|(key, _)| !keyring.holds(*key));
    missing.map_or(Ok(()), |(key, rows)| Err(KeysRefused::InUse { key, rows }))
}
