//! The keys that sign assertions. All instances share them through one entry of the store, which is
//! sealed with the keyring.
//!
//! Only what the store took is used, so all instances sign with one key. While the store or its
//! entry cannot be read, an instance goes on with the keys that it has.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use claviger_core::{SealedBlob, SigningKeys, Version, limits};
use claviger_seal::{OpenError, SigningKey};
use claviger_store::{SharedEntry, Store, StoreError};

use super::AssertionSettings;
use crate::{CheckedClock, Env, Keys, KeysRefused, LogThrottle, part::part};

/// The name of the shared entry.
const NAME: &str = "assertion-keys";

part! {
    /// The keys that sign assertions.
    pub(crate) struct SharedKeys needs {
        env: Env,
        store: Arc<dyn Store>,
        keys: Arc<Keys>,
        clock: Arc<CheckedClock>,
        settings: Option<Arc<AssertionSettings>>,
    } owns {
        held: ArcSwapOption<Held> = ArcSwapOption::empty(),
        unreadable_log: LogThrottle = LogThrottle::default(),
    }
}

/// The keys as the store has them.
pub(super) struct Held {
    entry: SharedEntry,
    keys: SigningKeys<Arc<SigningKey>>,
    /// The public halves as a JWK set.
    key_set: Bytes,
}

impl Held {
    fn new(entry: SharedEntry, keys: SigningKeys<Arc<SigningKey>>) -> Arc<Self> {
        let public: Vec<String> = keys.published().map(|key| key.jwk()).collect();
        let key_set = Bytes::from(format!(r#"{{"keys":[{}]}}"#, public.join(",")));
        Arc::new(Self { entry, keys, key_set })
    }

    /// The key that signs.
    pub(super) fn signing(&self) -> &Arc<SigningKey> {
        &self.keys.signs.key
    }

    pub(super) fn key_set(&self) -> Bytes {
        self.key_set.clone()
    }
}

/// What becomes of an entry that does not open, where memory has no keys.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Unreadable {
    /// The operator may have to bring back a root key. Other instances may be able to open it.
    Stays,
    /// The operator says that the root key is lost.
    IsReplaced,
}

impl SharedKeys {
    /// The keys. None if they were never read, or there are none.
    pub(super) fn held(&self) -> arc_swap::Guard<Option<Arc<Held>>> {
        self.held.load()
    }

    /// Reads the keys at a start, and makes the first one. A store that cannot be written gets it
    /// later.
    pub(crate) async fn start(&self) -> Result<(), StoreError> {
        match self.look().await {
            Err(error) if error.is_outage() => Ok(()),
            done => done,
        }
    }

    /// Takes over the keys of other instances, and takes the step that is due.
    pub(crate) async fn look(&self) -> Result<(), StoreError> {
        self.bring_up_to_date(Unreadable::Stays).await
    }

    /// Makes new keys if the stored ones do not open. The old ones are lost for all instances.
    pub(crate) async fn replace_unreadable(&self) -> Result<(), StoreError> {
        self.bring_up_to_date(Unreadable::IsReplaced).await
    }

    /// Requires that the keys can be opened.
    pub(crate) async fn require(&self) -> Result<(), KeysRefused> {
        if self.settings.is_none() || self.held.load().is_some() {
            return Ok(());
        }
        match self.store.shared_entry(NAME).await?.map(|entry| self.read(&entry)) {
            Some(Err(OpenError::UnknownKey(key))) => Err(KeysRefused::SignsAssertions(key)),
            Some(Err(OpenError::Invalid)) => Err(KeysRefused::AssertionKeysDoNotOpen),
            None | Some(Ok(_)) => Ok(()),
        }
    }

    /// Seals the keys with the root key that seals now, if an older one sealed them. It does so
    /// without the setting too, since an operator may turn assertions on again.
    pub(crate) async fn reseal(&self) -> Result<(), StoreError> {
        let Some(entry) = self.store.shared_entry(NAME).await? else { return Ok(()) };
        if !self.keys.keyring().is_sealed_by_older(&entry.value) {
            return Ok(());
        }
        match self.read(&entry) {
            // Another instance may be first.
            Ok(held) => self.put(entry.version.next(), held.keys.clone()).await.map(drop),
            Err(error) => {
                self.log_unreadable(error);
                Ok(())
            }
        }
    }

    async fn bring_up_to_date(&self, unreadable: Unreadable) -> Result<(), StoreError> {
        if self.settings.is_none() {
            return Ok(());
        }
        for _ in 0..limits::COMPARE_AND_SET_TRIES {
            let entry = self.store.shared_entry(NAME).await?;
            let stored = match entry.as_ref().map(|entry| self.read(entry)).transpose() {
                Ok(stored) => stored,
                Err(error) => {
                    self.log_unreadable(error);
                    if unreadable == Unreadable::Stays || self.held.load().is_some() {
                        return Ok(());
                    }
                    None
                }
            };
            if let Some(stored) = &stored {
                self.held.store(Some(Arc::clone(stored)));
            }
            let Some(keys) = self.next(stored.as_deref()) else { return Ok(()) };
            let version = entry.map_or(Version::FIRST, |entry| entry.version.next());
            if let Some(next) = self.put(version, keys).await? {
                let (signs, published) = (next.signing().id(), next.keys.published().count());
                tracing::info!(signs, published, "the keys that sign assertions were changed");
                self.held.store(Some(next));
                return Ok(());
            }
            // Another instance was first. It may have taken the same step.
        }
        Ok(())
    }

    /// Stores the keys. None if another instance was first.
    async fn put(
        &self,
        version: Version,
        keys: SigningKeys<Arc<SigningKey>>,
    ) -> Result<Option<Arc<Held>>, StoreError> {
        let SealedBlob(value) = self.keys.keyring().seal_signing_keys(&keys, self.env.nonce());
        let next = Held::new(SharedEntry { version, value }, keys);
        let is_stored = self.store.put_shared_entry(NAME, &next.entry).await?;
        Ok(is_stored.then_some(next))
    }

    /// The keys that replace the stored ones, if anything has to change.
    fn next(&self, stored: Option<&Held>) -> Option<SigningKeys<Arc<SigningKey>>> {
        let Some(Held { keys, .. }) = stored else {
            return Some(SigningKeys::first(self.new_key(), self.clock.known_of_provider()));
        };
        let now = self.clock.agreed()?;
        keys.due(now).map(|step| keys.after(step, now, || self.new_key()))
    }

    fn read(&self, entry: &SharedEntry) -> Result<Arc<Held>, OpenError> {
        if let Some(held) = &*self.held.load()
            && held.entry == *entry
        {
            return Ok(Arc::clone(held));
        }
        let keys = self.keys.keyring().open_signing_keys(&entry.value)?;
        Ok(Held::new(entry.clone(), keys))
    }

    fn new_key(&self) -> Arc<SigningKey> {
        loop {
            if let Some(key) = SigningKey::new(self.env.random()) {
                return Arc::new(key);
            }
        }
    }

    fn log_unreadable(&self, error: OpenError) {
        if self.unreadable_log.allows(self.env.now()) {
            tracing::error!(
                %error,
                "the keys that sign assertions do not open; the operator must put the root key back that sealed them, \
                 or start once with --despite-missing-keys if it is lost"
            );
        }
    }
}
