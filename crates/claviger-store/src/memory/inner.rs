//! What a store in memory holds, and the indexes on its rows.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
};

use claviger_core::{
    BlobHead, Change, EndReason, SealedBlob, Session, SessionId, Slot, State, Subject, Timestamp,
};

use super::Method;
use crate::{
    Applied, Item, ItemId, Leftover, Queue, SharedEntry, StoreError, SweepKind, archive::StoredItem,
};

#[derive(Debug, Default)]
pub(super) struct Inner {
    pub(super) rows: Rows,
    pub(super) logins: BTreeMap<[u8; 32], Timestamp>,
    /// The items of each queue. Slots that were never visited are not among them.
    pub(super) queues: BTreeMap<Queue, BTreeMap<ItemId, StoredItem>>,
    pub(super) last_revocation: i64,
    pub(super) shared_entries: BTreeMap<String, SharedEntry>,
    pub(super) calls: BTreeMap<Method, u64>,
    pub(super) failure: Option<StoreError>,
}

impl Inner {
    /// Ends the row, unless it is unknown or ended.
    pub(super) fn end(&mut self, id: SessionId, reason: EndReason, at: Timestamp) -> Option<Session> {
        let change = self.rows.get(id)?.clone().end(reason, at).ok()?;
        (self.apply(&change) == Applied::Done).then(|| change.into_next())
    }

    /// Writes the columns of the change's kind, if the stored row is the one that the change was
    /// made from.
    pub(super) fn apply(&mut self, change: &Change) -> Applied {
        let next = change.next();
        let Some(stored) = self.rows.get(next.id) else { return Applied::Conflict(None) };
        if stored.ended() || stored.version.next() != next.version {
            return Applied::Conflict(Some(Box::new(stored.clone())));
        }
        self.rows.put(change.applied_to(stored));
        if let Some(revocation) = change.revocation() {
            self.enqueue(Item::Revocation(revocation.clone()));
        }
        Applied::Done
    }

    pub(super) fn purge(&mut self, what: Leftover, until: Timestamp, limit: usize) -> usize {
        match what {
            Leftover::Tombstones => {
                let old = oldest(self.rows.tombstones.iter().copied(), until, limit);
                old.iter().for_each(|id| self.rows.remove(*id));
                old.len()
            }
            Leftover::SpentLogins => {
                let old = oldest(self.logins.iter().map(|(hash, at)| (*at, *hash)), until, limit);
                old.iter().for_each(|hash| _ = self.logins.remove(hash));
                old.len()
            }
            Leftover::ClosedSuspicions => {
                let suspicions = self.queues.entry(Queue::Suspicions).or_default();
                let closed = suspicions.iter().filter(|(_, stored)| stored.due_at.is_none());
                let old = oldest(closed.map(|(id, stored)| (stored.item.due_from(), *id)), until, limit);
                old.iter().for_each(|id| _ = suspicions.remove(id));
                old.len()
            }
        }
    }
}

/// At most `limit` of those until this time, the oldest first.
fn oldest<T: Ord>(all: impl Iterator<Item = (Timestamp, T)>, until: Timestamp, limit: usize) -> Vec<T> {
    let mut old: Vec<_> = all.filter(|(at, _)| *at <= until).collect();
    old.sort_unstable();
    old.into_iter().take(limit).map(|(_, item)| item).collect()
}

/// The heads of a row's blobs, each once.
pub(super) fn heads_of(access: &SealedBlob, refresh: Option<&SealedBlob>) -> impl Iterator<Item = BlobHead> {
    let head = access.head();
    let other = refresh.map(SealedBlob::head).filter(|other| *other != head);
    std::iter::once(head).chain(other)
}

/// The rows, and the indexes on them.
#[derive(Debug, Default)]
pub(super) struct Rows {
    pub(super) by_id: BTreeMap<SessionId, Session>,
    /// Indexes of the rows that have not ended.
    pub(super) open: Open,
    pub(super) tombstones: BTreeSet<(Timestamp, SessionId)>,
    pub(super) distrusted: BTreeSet<SessionId>,
}

#[derive(Debug, Default)]
pub(super) struct Open {
    pub(super) by_subject: BTreeSet<(Subject, SessionId)>,
    /// Only slots that hold a session.
    pub(super) by_slot: BTreeMap<(SweepKind, Slot), BTreeSet<SessionId>>,
    pub(super) by_last_use: BTreeSet<(Timestamp, SessionId)>,
    pub(super) by_age: BTreeSet<(Timestamp, SessionId)>,
    pub(super) live_by_proof: BTreeSet<(Timestamp, SessionId)>,
    pub(super) claimed: BTreeSet<SessionId>,
    pub(super) parked: u64,
    pub(super) suspect: u64,
}

impl Rows {
    pub(super) fn get(&self, id: SessionId) -> Option<&Session> {
        self.by_id.get(&id)
    }

    /// Inserts the row, or replaces the one with its id.
    pub(super) fn put(&mut self, session: Session) {
        let (id, is) = (session.id, Places::of(&session));
        match self.by_id.get_mut(&id) {
            Some(row) => {
                let was = Places::of(row);
                *row = session;
                self.move_over(id, was, is);
            }
            None => {
                self.open.by_subject.insert((session.subject.clone(), id));
                self.by_id.insert(id, session);
                self.move_over(id, Places { open: true, ..Places::default() }, is);
            }
        }
    }

    pub(super) fn remove(&mut self, id: SessionId) {
        if let Some(was) = self.by_id.get(&id).map(Places::of) {
            self.move_over(id, was, Places::default());
            self.by_id.remove(&id);
        }
    }

    /// Changes a row that has not ended.
    pub(super) fn edit(&mut self, id: SessionId, edit: impl FnOnce(&mut Session)) {
        if let Some(row) = self.by_id.get_mut(&id).filter(|row| !row.ended()) {
            let was = Places::of(row);
            edit(row);
            let is = Places::of(row);
            self.move_over(id, was, is);
        }
    }

    /// Removes the row from each index that it left, and adds it to each that it entered.
    fn move_over(&mut self, id: SessionId, was: Places, is: Places) {
        let key = |at: Option<Timestamp>| at.map(|at| (at, id));
        let own = |belongs: bool| belongs.then_some(id);
        keep(&mut self.distrusted, own(was.distrusted), own(is.distrusted));
        keep(&mut self.tombstones, key(was.tombstone), key(is.tombstone));
        let open = &mut self.open;
        if was.open
            && !is.open
            && let Some(row) = self.by_id.get(&id)
        {
            open.by_subject.remove(&(row.subject.clone(), id));
        }
        for (sweep, (was, is)) in SweepKind::ALL.into_iter().zip(was.sweeps.into_iter().zip(is.sweeps)) {
            if was != is {
                keep_in(&mut open.by_slot, (sweep, Slot::of(id)), id, is);
            }
        }
        keep(&mut open.by_last_use, key(was.last_use), key(is.last_use));
        keep(&mut open.by_age, key(was.age), key(is.age));
        keep(&mut open.live_by_proof, key(was.live_by_proof), key(is.live_by_proof));
        keep(&mut open.claimed, own(was.claimed), own(is.claimed));
        open.parked = open.parked + u64::from(is.parked) - u64::from(was.parked);
        open.suspect = open.suspect + u64::from(is.suspect) - u64::from(was.suspect);
    }

    pub(super) fn open_of(&self, subject: &Subject) -> Vec<Session> {
        let (first, last) = (SessionId::from_bytes([0; 16]), SessionId::from_bytes([0xff; 16]));
        let range = self.open.by_subject.range((subject.clone(), first)..=(subject.clone(), last));
        range.filter_map(|(_, id)| self.get(*id)).cloned().collect()
    }

    /// The slots that hold a session that the sweep is for.
    pub(super) fn slots_in_use(&self, sweep: SweepKind) -> impl Iterator<Item = Slot> {
        self.open.by_slot.keys().filter(move |(of, _)| *of == sweep).map(|(_, slot)| *slot)
    }

    /// The slot's sessions that the sweep is for, starting after `after`.
    pub(super) fn in_slot(
        &self,
        sweep: SweepKind,
        slot: Slot,
        after: Option<SessionId>,
    ) -> impl Iterator<Item = &Session> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let ids = self.open.by_slot.get(&(sweep, slot)).into_iter();
        ids.flat_map(move |ids| ids.range((from, Bound::Unbounded))).filter_map(|id| self.get(*id))
    }
}

/// The place of a row in each index, so that a change touches only the indexes that it concerns.
#[derive(Clone, Copy, Default)]
struct Places {
    open: bool,
    distrusted: bool,
    tombstone: Option<Timestamp>,
    sweeps: [bool; 2],
    last_use: Option<Timestamp>,
    age: Option<Timestamp>,
    live_by_proof: Option<Timestamp>,
    claimed: bool,
    parked: bool,
    suspect: bool,
}

impl Places {
    fn of(session: &Session) -> Self {
        let open = !session.ended();
        let in_order = |at: Timestamp| open.then_some(at);
        Self {
            open,
            distrusted: matches!(session.state, State::Suspect(_) | State::Ended { .. }),
            tombstone: (!open).then_some(session.created_at),
            sweeps: SweepKind::ALL.map(|sweep| sweep.is_for(session)),
            last_use: in_order(session.last_seen_at),
            age: in_order(session.created_at),
            live_by_proof: match &session.state {
                State::Live(active) => Some(active.proven_at),
                _ => None,
            },
            claimed: session.active().is_some_and(|active| active.claim.is_some()),
            parked: matches!(session.state, State::Parked(_)),
            suspect: matches!(session.state, State::Suspect(_)),
        }
    }
}

fn keep<T: Ord>(set: &mut BTreeSet<T>, was: Option<T>, is: Option<T>) {
    if was != is {
        was.map(|was| set.remove(&was));
        set.extend(is);
    }
}

/// Adds something to one of many sets, or removes it. Empty sets are dropped.
fn keep_in<K: Ord, T: Ord>(sets: &mut BTreeMap<K, BTreeSet<T>>, of: K, key: T, enter: bool) {
    if enter {
        sets.entry(of).or_default().insert(key);
    } else if let Some(set) = sets.get_mut(&of) {
        set.remove(&key);
        if set.is_empty() {
            sets.remove(&of);
        }
    }
}
