//! A user who lets the app in, to be asked about beside those of whom an answer may say nothing (docs/decisions/0012).
//!
//! All who share the store share one: the instance that asks about users who are away may not have validated anybody's token.

use claviger_core::ids::Version;
use claviger_provider::PROBE_USERS;
use claviger_store::{Memo, StoreError};

use crate::Engine;

/// What the witness is kept under in the store.
const NAME: &str = "witness";

impl Engine {
    /// Takes note of a user who lets the app in, and tells the other instances now and then.
    pub(crate) fn note_connected(&self, id: &str) {
        if !self.inner.probes.note_connected(id, self.now()) {
            return;
        }
        let (engine, id) = (self.clone(), id.to_owned());
        self.inner.tasks.spawn(async move {
            if let Err(error) = engine.share_witness(&id).await {
                tracing::warn!(%error, "other instances hear later of a user who lets the app in");
            }
        });
    }

    async fn share_witness(&self, id: &str) -> Result<(), StoreError> {
        let store = &self.inner.parts.store;
        let version = store.memo(NAME).await?.map_or(Version::FIRST, |memo| memo.version.next());
        // If another instance was first, its witness is as good.
        store.put_memo(NAME, &Memo { version, value: id.as_bytes().to_vec() }).await.map(drop)
    }

    /// Who is to be asked about together with these: an answer that leaves out a user proves something only if it names
    /// another.
    pub(crate) async fn witness_beside(&self, ids: &[String]) -> Result<Option<String>, StoreError> {
        if ids.len() >= PROBE_USERS {
            return Ok(None);
        }
        if let Some(own) = self.inner.probes.witness_beside(ids) {
            return Ok(Some(own));
        }
        let memo = self.inner.parts.store.memo(NAME).await?;
        let shared = memo.and_then(|memo| String::from_utf8(memo.value).ok());
        Ok(shared.filter(|witness| !ids.contains(witness)))
    }
}
