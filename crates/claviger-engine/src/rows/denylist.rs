//! The sessions whose cookie alone is not believed.

use std::{
    collections::BTreeMap,
    sync::{PoisonError, RwLock},
};

use claviger_core::{SessionId, Version, limits};

/// Sessions whose cookie alone is not believed, because they ended or are suspect.
///
/// It is bounded. When it is full, the oldest sign-in is dropped and the low-water mark rises to
/// it. No cookie at or below the mark is believed without reading the store.
#[derive(Default)]
pub(super) struct Denylist(RwLock<Listed>);

#[derive(Default)]
struct Listed {
    /// With the version at which the distrust began. An end is forever.
    ids: BTreeMap<SessionId, Version>,
    low_water_mark: Option<SessionId>,
}

/// The version of a distrust that no later change lifts.
pub(super) const FOREVER: Version = Version(u64::MAX);

impl Denylist {
    pub(super) fn contains(&self, id: SessionId) -> bool {
        let listed = self.0.read().unwrap_or_else(PoisonError::into_inner);
        listed.ids.contains_key(&id) || listed.low_water_mark.is_some_and(|mark| id <= mark)
    }

    /// Adds a session. Changes may be noted in another order than they were committed in, so the
    /// later version counts.
    pub(super) fn add(&self, id: SessionId, since: Version) {
        let mut listed = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let known = listed.ids.entry(id).or_insert(since);
        *known = since.max(*known);
        if listed.ids.len() >= limits::DISTRUSTED_SESSIONS {
            let oldest = listed.ids.pop_first().map(|(id, _)| id);
            listed.low_water_mark = listed.low_water_mark.max(oldest);
        }
    }

    /// Removes a session that was listed at an older version.
    pub(super) fn remove(&self, id: SessionId, since: Version) {
        let older = |listed: &Listed| listed.ids.get(&id).is_some_and(|known| *known < since);
        if older(&self.0.read().unwrap_or_else(PoisonError::into_inner)) {
            let mut listed = self.0.write().unwrap_or_else(PoisonError::into_inner);
            if older(&listed) {
                listed.ids.remove(&id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use claviger_core::Timestamp;

    use super::*;

    fn id(n: usize) -> SessionId {
        SessionId::new(Timestamp::from_millis(i64::try_from(n).unwrap()), [0; 10])
    }

    #[test]
    fn a_full_list_drops_the_oldest_and_believes_no_cookie_below_its_low_water_mark() {
        let denylist = Denylist::default();
        for n in 1..=limits::DISTRUSTED_SESSIONS {
            denylist.add(id(2 * n), FOREVER);
        }
        assert!(denylist.contains(id(2)), "dropped, but at the low-water mark");
        assert!(denylist.contains(id(1)), "below the low-water mark");
        assert!(!denylist.contains(id(3)));
        assert!(denylist.contains(id(4)));
    }

    #[test]
    fn changes_noted_out_of_order_revive_nothing() {
        let denylist = Denylist::default();
        denylist.add(id(1), FOREVER);
        denylist.remove(id(1), Version(7));
        assert!(denylist.contains(id(1)), "ENDED: an end is forever");
        denylist.add(id(2), Version(3));
        denylist.remove(id(2), Version(2));
        assert!(denylist.contains(id(2)), "an older change says nothing");
        denylist.remove(id(2), Version(4));
        assert!(!denylist.contains(id(2)));
    }
}
