//! What memory holds of sessions. It saves reading the store, and is never trusted more than it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use claviger_core::{Session, SessionId, State, Timestamp};

use super::denylist::{Denylist, FOREVER};
use crate::{BySession, by_session::cache};

/// The rows that this process has seen, and the list of sessions whose cookie is not believed.
pub(crate) struct SessionCache {
    rows: BySession<Arc<Session>>,
    /// Counts changes, so that a row read before a change is not kept after it.
    epoch: AtomicU64,
    /// Until when every change of a row has been delivered, so that the rows may be trusted. In
    /// milliseconds of the engine's clock.
    trusted_until: AtomicI64,
    /// The last such time. It stays when changes are no longer delivered.
    heard_until: AtomicI64,
    denylist: Denylist,
}

/// The moment before a row was read from the store.
#[derive(Clone, Copy)]
pub(super) struct ReadMark(u64);

impl SessionCache {
    pub(super) fn new(rows: usize, trusted_until: Timestamp) -> Self {
        Self {
            rows: cache(rows),
            epoch: AtomicU64::new(0),
            trusted_until: AtomicI64::new(trusted_until.as_millis()),
            heard_until: AtomicI64::new(trusted_until.as_millis()),
            denylist: Denylist::default(),
        }
    }

    /// The row as this process last saw it, if every change up to now has been delivered. It
    /// compares the clock for each request instead of setting a timer: a process that was suspended
    /// may serve requests before its timers fire.
    pub(crate) fn row(&self, id: SessionId, now: Timestamp) -> Option<Arc<Session>> {
        if self.is_current(now) { self.rows.get(&id) } else { None }
    }

    /// Whether every change of a row up to now has been delivered.
    pub(crate) fn is_current(&self, now: Timestamp) -> bool {
        now.as_millis() < self.trusted_until.load(Ordering::Acquire)
    }

    /// How long ago the last change was delivered that is known of; zero while all are.
    pub(crate) fn cut_off_for(&self, now: Timestamp) -> Duration {
        now.since(Timestamp::from_millis(self.heard_until.load(Ordering::Acquire)))
    }

    /// Takes note that all changes up to a time are known.
    pub(super) fn heard_all_until(&self, until: Timestamp) {
        self.heard_until.store(until.as_millis(), Ordering::Release);
    }

    pub(crate) fn trust_until(&self, until: Timestamp) {
        self.trusted_until.store(until.as_millis(), Ordering::Release);
        self.heard_until.store(until.as_millis(), Ordering::Release);
    }

    /// From now on no row is trusted, since changes may not be delivered.
    pub(crate) fn distrust(&self) {
        self.trusted_until.store(i64::MIN, Ordering::Release);
    }

    /// Whether a sealed cookie of this session has to be checked against the store.
    pub(crate) fn denies(&self, id: SessionId) -> bool {
        self.denylist.contains(id)
    }

    /// Marks the moment before a row is read from the store.
    pub(super) fn mark(&self) -> ReadMark {
        ReadMark(self.epoch.load(Ordering::SeqCst))
    }

    /// Keeps a row that was read from the store, unless anything changed since `mark`.
    pub(super) fn keep(&self, session: &Arc<Session>, mark: ReadMark) {
        if self.epoch.load(Ordering::SeqCst) != mark.0 {
            return;
        }
        self.rows.insert(session.id, Arc::clone(session));
        if self.epoch.load(Ordering::SeqCst) != mark.0 {
            self.rows.remove(&session.id);
        }
    }

    /// Takes note of a changed row. After this, no request is served by an older one.
    pub(super) fn note_change(&self, session: &Session) {
        self.note_read(session);
        self.forget(session.id);
    }

    /// Takes note of a row that was proven and not changed otherwise. It replaces the older one if
    /// memory holds that and nothing else changed since `mark`. So a proof makes no request read
    /// the store.
    pub(super) fn note_proof(&self, session: Session, mark: ReadMark) {
        self.note_state(&session);
        if self.rows.peek(&session.id).is_some() {
            self.keep(&Arc::new(session), mark);
        }
    }

    /// Takes note of a row that was read, whichever process changed it.
    pub(super) fn note_read(&self, session: &Session) {
        if self.rows.peek(&session.id).is_some_and(|row| row.version < session.version) {
            self.forget(session.id);
        }
        self.note_state(session);
    }

    fn note_state(&self, session: &Session) {
        match session.state {
            State::Ended { .. } => self.denylist.add(session.id, FOREVER),
            State::Suspect(_) => self.denylist.add(session.id, session.version),
            State::Live(_) | State::Parked(_) => self.denylist.remove(session.id, session.version),
        }
    }

    /// Makes the next request of this session read the store.
    pub(crate) fn forget(&self, id: SessionId) {
        self.epoch.fetch_add(1, Ordering::SeqCst);
        self.rows.remove(&id);
    }

    /// Makes the next request of every session read the store.
    pub(crate) fn forget_all(&self) {
        self.epoch.fetch_add(1, Ordering::SeqCst);
        self.rows.clear();
    }

    /// Takes over the sessions that the store knows to have ended or to be suspect.
    pub(super) fn deny_all(&self, ids: Vec<SessionId>) {
        for id in ids {
            // The list does not say which of them ended. So none is believed again without its row,
            // at the cost of a read.
            self.denylist.add(id, FOREVER);
            self.forget(id);
        }
    }
}
