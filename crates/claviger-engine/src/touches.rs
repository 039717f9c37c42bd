//! Uses of sessions, written down seldom and never while a request waits.

use std::sync::{Mutex, PoisonError};

use claviger_core::{ids::SessionId, policy::limits, time::Timestamp};

use crate::by_session::{BySession, cache};

pub(crate) struct Touches {
    noted: BySession<Timestamp>,
    pending: Mutex<Vec<(SessionId, Timestamp)>>,
}

impl Touches {
    pub(crate) fn new(sessions: usize) -> Self {
        Self { noted: cache(sessions), pending: Mutex::default() }
    }

    /// Notes a use by the user, unless one was noted a moment ago.
    pub(crate) fn note(&self, id: SessionId, now: Timestamp) {
        let recent = self.noted.get(&id).is_some_and(|at| now.since(at) < limits::LAST_SEEN_EVERY);
        if !recent {
            self.noted.insert(id, now);
            self.pending.lock().unwrap_or_else(PoisonError::into_inner).push((id, now));
        }
    }

    /// Takes the uses that are not yet written down.
    pub(crate) fn take(&self) -> Vec<(SessionId, Timestamp)> {
        std::mem::take(&mut *self.pending.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts uses back that could not be written down.
    pub(crate) fn put_back(&self, mut uses: Vec<(SessionId, Timestamp)>) {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        let room = limits::PENDING_USES.saturating_sub(pending.len());
        uses.truncate(room);
        pending.append(&mut uses);
    }
}
