//! When sessions were last used: buffered in memory, and written down seldom, never while a request
//! waits.

use std::sync::Arc;

use claviger_core::{SessionId, Timestamp, limits};
use claviger_store::{Store, StoreError};

use crate::{BySession, Env, Lock, by_session::cache, part::part};

part! {
    /// The last-seen buffer.
    pub(crate) struct LastSeen needs {
        env: Env,
        store: Arc<dyn Store>,
    } owns {
        noted: BySession<Timestamp> = cache(env.settings().cached_sessions),
        pending: Lock<Vec<(SessionId, Timestamp)>> = Lock::default(),
    }
}

impl LastSeen {
    /// Notes a use by the user, unless one was noted a moment ago.
    pub(crate) fn note(&self, id: SessionId, now: Timestamp) {
        if self.lately(id, now).is_none() {
            self.noted.insert(id, now);
            self.pending.lock().push((id, now));
        }
    }

    /// The use that was noted last, if that was a moment ago.
    pub(crate) fn lately(&self, id: SessionId, now: Timestamp) -> Option<Timestamp> {
        let recent = |at: &Timestamp| at.age(now).is_some_and(|age| age < limits::LAST_SEEN_EVERY);
        self.noted.get(&id).filter(recent)
    }

    /// Writes the buffer down.
    pub(crate) async fn flush(self: &Arc<Self>) -> Result<(), StoreError> {
        let uses = std::mem::take(&mut *self.pending.lock());
        if uses.is_empty() {
            return Ok(());
        }
        let last_seen = Arc::clone(self);
        let write = async move {
            let written = last_seen.store.record_last_seen(&uses).await;
            if written.is_err() {
                last_seen.put_back(uses);
            }
            written
        };
        self.env.detached(write).await
    }

    /// Keeps uses that could not be written down, as far as there is room.
    fn put_back(&self, mut uses: Vec<(SessionId, Timestamp)>) {
        let mut pending = self.pending.lock();
        let room = limits::PENDING_USES.saturating_sub(pending.len());
        uses.truncate(room);
        pending.append(&mut uses);
    }
}
