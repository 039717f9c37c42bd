//! What memory holds of sessions. It saves reading the store, and is never more trusted than the store.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
};

use claviger_core::{
    ids::{SessionId, Version},
    policy::limits,
    session::{Session, State},
    time::Timestamp,
};

use crate::by_session::{BySession, cache};

pub(crate) struct Known {
    rows: BySession<Arc<Session>>,
    /// Counts changes, so that a row read before a change is not kept after it.
    epoch: AtomicU64,
    /// Until when every change of a row was surely heard of, so that the rows may be trusted: milliseconds of the engine's clock.
    trusted_until: AtomicI64,
    distrusted: RwLock<Distrusted>,
}

/// Sessions whose cookie alone is not to be believed, because they ended or are suspect.
///
/// Bounded: when it is full the oldest sign-in is dropped and the horizon rises to it, and no cookie at or below the
/// horizon is believed without reading the store.
#[derive(Default)]
struct Distrusted {
    /// With the version at which the distrust began; an end is for ever.
    ids: BTreeMap<SessionId, Version>,
    horizon: Option<SessionId>,
}

impl Known {
    pub(crate) fn new(rows: usize, trusted_until: Timestamp) -> Self {
        let (epoch, trusted_until) = (AtomicU64::new(0), AtomicI64::new(trusted_until.as_millis()));
        Self { rows: cache(rows), epoch, trusted_until, distrusted: RwLock::default() }
    }

    /// The row as this process last saw it, if nobody can have changed it unheard. A clock is looked at for each request, and
    /// not a timer waited for: a process that stood still may take up requests before it notices how late it is.
    pub(crate) fn row(&self, id: SessionId, now: Timestamp) -> Option<Arc<Session>> {
        if self.hears_all(now) { self.rows.get(&id) } else { None }
    }

    /// Whether every change of a row was surely heard of up to now.
    pub(crate) fn hears_all(&self, now: Timestamp) -> bool {
        now.as_millis() < self.trusted_until.load(Ordering::Acquire)
    }

    /// All changes by others are heard of up to now, which counts until then.
    pub(crate) fn trust_memory_until(&self, until: Timestamp) {
        self.trusted_until.store(until.as_millis(), Ordering::Release);
    }

    /// Whether a sealed cookie of this session has to be checked with the store.
    pub(crate) fn distrusts(&self, id: SessionId) -> bool {
        let distrusted = self.distrusted.read().unwrap_or_else(PoisonError::into_inner);
        distrusted.ids.contains_key(&id) || distrusted.horizon.is_some_and(|horizon| id <= horizon)
    }

    /// Marks the moment before a row is read from the store.
    pub(crate) fn reading(&self) -> Reading {
        Reading(self.epoch.load(Ordering::SeqCst))
    }

    /// Keeps a row that was read from the store, unless anything changed since `reading`.
    pub(crate) fn keep(&self, session: &Arc<Session>, reading: Reading) {
        if self.epoch.load(Ordering::SeqCst) != reading.0 {
            return;
        }
        self.rows.insert(session.id, Arc::clone(session));
        if self.epoch.load(Ordering::SeqCst) != reading.0 {
            self.rows.remove(&session.id);
        }
    }

    /// Takes note of a row that this process changed: after this, no request is served by an older one.
    pub(crate) fn changed(&self, session: &Session) {
        self.learned(session);
        self.forget(session.id);
    }

    /// Takes note of a row that was proven and not changed otherwise. It takes the place of the older one, if memory holds that
    /// and nothing else changed since `reading`; a proof makes no request read the store.
    pub(crate) fn proven(&self, session: Session, reading: Reading) {
        self.note_standing(&session);
        if self.rows.peek(&session.id).is_some() {
            self.keep(&Arc::new(session), reading);
        }
    }

    /// Takes note of what a row says, whoever changed it.
    pub(crate) fn learned(&self, session: &Session) {
        if self.rows.peek(&session.id).is_some_and(|row| row.version < session.version) {
            self.forget(session.id);
        }
        self.note_standing(session);
    }

    fn note_standing(&self, session: &Session) {
        match session.state {
            State::Ended { .. } => self.distrust(session.id, FOR_EVER),
            State::Suspect(_) => self.distrust(session.id, session.version),
            State::Live(_) | State::Parked(_) => self.trust(session.id, session.version),
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

    /// Takes over what the store knows of endings and suspicions.
    pub(crate) fn distrust_all(&self, ids: Vec<SessionId>) {
        for id in ids {
            // Which of these ended is not told, so none is believed again without its row. That costs a read.
            self.distrust(id, FOR_EVER);
            self.forget(id);
        }
    }

    /// Changes may be noted in another order than they were committed in, so the younger one counts.
    fn distrust(&self, id: SessionId, since: Version) {
        let mut distrusted = self.distrusted.write().unwrap_or_else(PoisonError::into_inner);
        let known = distrusted.ids.entry(id).or_insert(since);
        *known = since.max(*known);
        if distrusted.ids.len() >= limits::DISTRUSTED_SESSIONS {
            let oldest = distrusted.ids.pop_first().map(|(id, _)| id);
            distrusted.horizon = distrusted.horizon.max(oldest);
        }
    }

    fn trust(&self, id: SessionId, since: Version) {
        let older = |distrusted: &Distrusted| distrusted.ids.get(&id).is_some_and(|known| *known < since);
        if older(&self.distrusted.read().unwrap_or_else(PoisonError::into_inner)) {
            let mut distrusted = self.distrusted.write().unwrap_or_else(PoisonError::into_inner);
            if older(&distrusted) {
                distrusted.ids.remove(&id);
            }
        }
    }
}

#[derive(Clone, Copy)]
pub(crate) struct Reading(u64);

/// Memory may be trusted at any time, or at none.
pub(crate) const FOR_GOOD: Timestamp = Timestamp::from_millis(i64::MAX);
pub(crate) const NOT_AT_ALL: Timestamp = Timestamp::from_millis(i64::MIN);

const FOR_EVER: Version = Version(u64::MAX);

#[cfg(test)]
mod tests {
    use claviger_core::time::Timestamp;

    use super::*;

    fn id(n: usize) -> SessionId {
        SessionId::new(Timestamp::from_millis(i64::try_from(n).unwrap()), [0; 10])
    }

    #[test]
    fn a_full_list_forgets_the_oldest_and_believes_no_cookie_of_its_age() {
        let known = Known::new(1, FOR_GOOD);
        known.distrust_all((1..=limits::DISTRUSTED_SESSIONS).map(|n| id(2 * n)).collect());
        assert!(known.distrusts(id(2)), "forgotten, but at the horizon");
        assert!(known.distrusts(id(1)), "below the horizon");
        assert!(!known.distrusts(id(3)));
        assert!(known.distrusts(id(4)));
    }

    #[test]
    fn changes_noted_out_of_order_revive_nothing() {
        let known = Known::new(1, FOR_GOOD);
        known.distrust(id(1), FOR_EVER);
        known.trust(id(1), Version(7));
        assert!(known.distrusts(id(1)), "ENDED: an end is for ever");
        known.distrust(id(2), Version(3));
        known.trust(id(2), Version(2));
        assert!(known.distrusts(id(2)), "an older change says nothing");
        known.trust(id(2), Version(4));
        assert!(!known.distrusts(id(2)));
    }
}
