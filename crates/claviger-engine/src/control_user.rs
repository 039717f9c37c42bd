//! The control user: one who is known to be connected. The provider is asked about this user
//! together with users of whom its answer may say nothing (docs/decisions/0012).
//!
//! All instances share one through the store, since the instance that checks users who are away may
//! not have validated anybody's token.

use std::sync::Arc;

use claviger_core::{Timestamp, Version, limits};
use claviger_store::{SharedEntry, Store, StoreError};

use crate::{Env, Lock, ProviderClient, part::part};

/// The name of the shared entry in the store.
const NAME: &str = "witness";

part! {
    /// A user who is known to be connected.
    pub(crate) struct ControlUser needs {
        env: Env,
        store: Arc<dyn Store>,
        provider: Arc<ProviderClient>,
    } owns {
        known: Lock<Known> = Lock::default(),
    }
}

#[derive(Default)]
struct Known {
    id: Option<String>,
    /// When it was last shared with the other instances.
    shared_at: Option<Timestamp>,
}

impl ControlUser {
    /// Takes note of a connected user, and shares it with the other instances now and then. Without
    /// a connection check nobody needs one.
    pub(crate) fn note_connected(self: &Arc<Self>, id: &str) {
        if self.provider.connection_check().is_none() {
            return;
        }
        let now = self.env.now();
        {
            let mut known = self.known.lock();
            if known.id.as_deref() != Some(id) {
                known.id = Some(id.to_owned());
            }
            if known.shared_at.and_then(|at| at.age(now)).is_some_and(|age| age < limits::CONTROL_USER_EVERY)
            {
                return;
            }
            known.shared_at = Some(now);
        }
        let (control_user, id) = (Arc::clone(self), id.to_owned());
        self.env.spawn(async move {
            if let Err(error) = control_user.share(&id).await {
                tracing::warn!(%error, "a connected user could not be shared with the other instances");
            }
        });
    }

    /// Takes over what an answer said: the user is the control user from now on, or there is none.
    pub(crate) fn set(&self, id: Option<String>) {
        self.known.lock().id = id;
    }

    /// The user to ask about together with these. An answer that leaves out a user proves something
    /// only if it names another.
    pub(crate) async fn beside(&self, ids: &[String]) -> Result<Option<String>, StoreError> {
        let own = self.known.lock().id.clone().filter(|id| !ids.contains(id));
        if own.is_some() {
            return Ok(own);
        }
        let entry = self.store.shared_entry(NAME).await?;
        let shared = entry.and_then(|entry| String::from_utf8(entry.value).ok());
        Ok(shared.filter(|id| !ids.contains(id)))
    }

    async fn share(&self, id: &str) -> Result<(), StoreError> {
        let version =
            self.store.shared_entry(NAME).await?.map_or(Version::FIRST, |entry| entry.version.next());
        // If another instance was first, its control user is as good.
        self.store
            .put_shared_entry(NAME, &SharedEntry { version, value: id.as_bytes().to_vec() })
            .await
            .map(drop)
    }
}
