//! A store in memory: the plainest reading of the trait, for tests, for the simulator, and to judge other stores by.

mod archive;

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    sync::{Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use claviger_core::{
    ids::{AttemptId, SessionId, Subject, Version},
    session::{BlobHead, EndReason, OwedRevocation, SealedBlob, Session, State, over_limit},
    suspicion::Suspicion,
    sweep::{SLOTS, Slot},
    time::Timestamp,
};

use crate::{
    Backlog, Census, Claims, HeadCount, Memo, Owed, OwedId, Placement, Replaced, Selection, Store,
    StoreError, Suspected, SuspicionKey, Visit, Wheel, id_is_taken,
};

/// Keeps everything in memory and forgets it when dropped. It counts its calls and fails when told to.
#[derive(Debug, Default)]
pub struct MemoryStore {
    shelf: Mutex<Shelf>,
}

/// The methods of [`Store`] and [`Archive`](crate::archive::Archive), by which calls are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "each is named after its method")]
pub enum Method {
    Check,
    Insert,
    Load,
    Replace,
    Devices,
    EndAll,
    Touch,
    Overdue,
    Distrusted,
    Purge,
    SpendLogin,
    ForgetLogins,
    Owe,
    TakeOwed,
    SettleOwed,
    PostponeOwed,
    OwedBacklog,
    TakeSlots,
    InSlot,
    HoldSlot,
    LeaveSlot,
    LongestDue,
    ReplaceAll,
    Census,
    Heads,
    Suspect,
    TakeSuspicions,
    SettleSuspicion,
    PostponeSuspicion,
    ForgetSuspicions,
    Memo,
    PutMemo,
    Count,
    Page,
    Add,
}

impl Method {
    /// Whether the method changes nothing.
    pub fn reads(self) -> bool {
        matches!(
            self,
            Self::Check
                | Self::Load
                | Self::Devices
                | Self::Overdue
                | Self::Distrusted
                | Self::OwedBacklog
                | Self::InSlot
                | Self::LongestDue
                | Self::Census
                | Self::Heads
                | Self::Memo
                | Self::Count
                | Self::Page
        )
    }
}

#[derive(Debug, Default)]
struct Shelf {
    rows: Rows,
    logins: BTreeMap<[u8; 32], Timestamp>,
    owed: BTreeMap<OwedId, Debt>,
    last_owed: i64,
    /// Slots that were visited or are leased; the others have been due since the epoch.
    slots: BTreeMap<Wheel, Vec<Place>>,
    suspicions: BTreeMap<SuspicionKey, Doubt>,
    memos: BTreeMap<String, Memo>,
    calls: BTreeMap<Method, u64>,
    failure: Option<StoreError>,
}

/// A lease is a debt that is due again when the lease ends, and remembers its holder until then and after.
#[derive(Debug)]
struct Debt {
    revocation: OwedRevocation,
    tries: u32,
    due_at: Timestamp,
    holder: Option<AttemptId>,
}

/// Where the visits of a slot stand.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Place {
    due_at: Timestamp,
    lease_until: Timestamp,
    holder: Option<AttemptId>,
}

#[derive(Debug)]
struct Doubt {
    suspicion: Suspicion,
    noted_at: Timestamp,
    tries: u32,
    /// None: it is closed.
    due_at: Option<Timestamp>,
    holder: Option<AttemptId>,
}

/// The rows, and the orders in which they are looked for.
#[derive(Debug, Default)]
struct Rows {
    by_id: BTreeMap<SessionId, Session>,
    /// Those that have not ended.
    open: Open,
    tombstones: BTreeSet<(Timestamp, SessionId)>,
    distrusted: BTreeSet<SessionId>,
}

#[derive(Debug, Default)]
struct Open {
    by_subject: BTreeSet<(Subject, SessionId)>,
    /// Without slots that hold none.
    by_slot: BTreeMap<(Wheel, Slot), BTreeSet<SessionId>>,
    by_last_use: BTreeSet<(Timestamp, SessionId)>,
    by_age: BTreeSet<(Timestamp, SessionId)>,
    live_by_proof: BTreeSet<(Timestamp, SessionId)>,
    claimed: BTreeSet<SessionId>,
    parked: u64,
    suspect: u64,
}

impl Rows {
    fn get(&self, id: SessionId) -> Option<&Session> {
        self.by_id.get(&id)
    }

    /// Puts the row in the place of the one with its id.
    fn put(&mut self, session: Session) {
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

    fn remove(&mut self, id: SessionId) {
        if let Some(was) = self.by_id.get(&id).map(Places::of) {
            self.move_over(id, was, Places::default());
            self.by_id.remove(&id);
        }
    }

    /// Changes a row that has not ended.
    fn edit(&mut self, id: SessionId, edit: impl FnOnce(&mut Session)) {
        if let Some(row) = self.by_id.get_mut(&id).filter(|row| !row.ended()) {
            let was = Places::of(row);
            edit(row);
            let is = Places::of(row);
            self.move_over(id, was, is);
        }
    }

    /// Takes the row out of every order in which it no longer is, and enters it where it is now.
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
        for (wheel, (was, is)) in Wheel::ALL.into_iter().zip(was.wheels.into_iter().zip(is.wheels)) {
            if was != is {
                keep_in(&mut open.by_slot, (wheel, Slot::of(id)), id, is);
            }
        }
        keep(&mut open.by_last_use, key(was.last_use), key(is.last_use));
        keep(&mut open.by_age, key(was.age), key(is.age));
        keep(&mut open.live_by_proof, key(was.live_by_proof), key(is.live_by_proof));
        keep(&mut open.claimed, own(was.claimed), own(is.claimed));
        open.parked = open.parked + u64::from(is.parked) - u64::from(was.parked);
        open.suspect = open.suspect + u64::from(is.suspect) - u64::from(was.suspect);
    }

    fn open_of(&self, subject: &Subject) -> Vec<Session> {
        let (first, last) = (SessionId::from_bytes([0; 16]), SessionId::from_bytes([0xff; 16]));
        let range = self.open.by_subject.range((subject.clone(), first)..=(subject.clone(), last));
        range.filter_map(|(_, id)| self.get(*id)).cloned().collect()
    }

    /// The slot's sessions that the wheel is for, from the one after `after` on.
    fn in_slot(&self, wheel: Wheel, slot: Slot, after: Option<SessionId>) -> impl Iterator<Item = &Session> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let ids = self.open.by_slot.get(&(wheel, slot)).into_iter();
        ids.flat_map(move |ids| ids.range((from, Bound::Unbounded))).filter_map(|id| self.get(*id))
    }
}

/// Where a row stands in each order, so that a change moves it only in those that it concerns.
#[derive(Clone, Copy, Default)]
struct Places {
    open: bool,
    distrusted: bool,
    tombstone: Option<Timestamp>,
    wheels: [bool; 2],
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
            wheels: Wheel::ALL.map(|wheel| wheel.is_for(session)),
            last_use: in_order(session.last_seen_at),
            age: in_order(session.created_at),
            live_by_proof: match &session.state {
                State::Live(holding) => Some(holding.proven_at),
                _ => None,
            },
            claimed: session.holding().is_some_and(|holding| holding.claim.is_some()),
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

/// Enters something into one of many sets, or takes it out. None of them stays empty.
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

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets every method fail with this error, and change nothing, until it is cleared with `None`.
    pub fn fail_with(&self, failure: Option<StoreError>) {
        self.shelf().failure = failure;
    }

    /// How often this method was called, failures included.
    pub fn calls(&self, method: Method) -> u64 {
        self.shelf().calls.get(&method).copied().unwrap_or(0)
    }

    /// How often a method was called that changes nothing.
    pub fn reads(&self) -> u64 {
        self.count(Method::reads)
    }

    /// How often a method was called that may change something.
    pub fn writes(&self) -> u64 {
        self.count(|method| !method.reads())
    }

    fn count(&self, counts: impl Fn(Method) -> bool) -> u64 {
        self.shelf().calls.iter().filter(|(method, _)| counts(**method)).map(|(_, calls)| calls).sum()
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, method: Method) -> Result<MutexGuard<'_, Shelf>, StoreError> {
        let mut shelf = self.shelf();
        *shelf.calls.entry(method).or_default() += 1;
        match &shelf.failure {
            Some(failure) => Err(failure.clone()),
            None => Ok(shelf),
        }
    }
}

impl Shelf {
    /// Ends the row, unless it is unknown or ended, and owes its revocation.
    fn end(&mut self, id: SessionId, reason: EndReason, at: Timestamp) -> Option<Session> {
        let (ended, owed) = self.rows.get(id)?.clone().end(reason, at).ok()?;
        self.rows.put(ended.clone());
        if let Some(owed) = owed {
            self.owe(owed);
        }
        Some(ended)
    }

    fn owe(&mut self, revocation: OwedRevocation) {
        self.last_owed = self.last_owed.saturating_add(1);
        let due_at = revocation.owed_at;
        self.owed.insert(OwedId(self.last_owed), Debt { revocation, tries: 0, due_at, holder: None });
    }

    fn held(&mut self, id: OwedId, attempt: AttemptId) -> Option<&mut Debt> {
        self.owed.get_mut(&id).filter(|debt| debt.holder == Some(attempt))
    }

    fn held_slot(&mut self, wheel: Wheel, slot: Slot, attempt: AttemptId) -> Option<&mut Place> {
        self.place(wheel, slot).filter(|place| place.holder == Some(attempt))
    }

    fn place(&mut self, wheel: Wheel, slot: Slot) -> Option<&mut Place> {
        let places = self.slots.entry(wheel).or_insert_with(|| vec![Place::default(); usize::from(SLOTS)]);
        places.get_mut(usize::from(slot.number()))
    }

    fn held_suspicion(&mut self, key: SuspicionKey, attempt: AttemptId) -> Option<&mut Doubt> {
        self.suspicions.get_mut(&key).filter(|doubt| doubt.holder == Some(attempt))
    }

    /// The slots that hold a session that the wheel is for, with where their visits stand.
    fn slots_in_use(&self, wheel: Wheel) -> impl Iterator<Item = (Slot, Place)> {
        let places = self.slots.get(&wheel);
        let place = move |slot: Slot| places.and_then(|places| places.get(usize::from(slot.number())));
        let in_use = self.rows.open.by_slot.keys().filter(move |(of, _)| *of == wheel);
        in_use.map(move |(_, slot)| (*slot, place(*slot).copied().unwrap_or_default()))
    }

    /// Puts `next` in the place of the row that it was made from, if that is still the stored one.
    fn replace(&mut self, next: &Session) -> Replaced {
        let Some(current) = self.rows.get(next.id) else { return Replaced::Conflict(None) };
        if current.ended() || current.version.next() != next.version {
            return Replaced::Conflict(Some(Box::new(current.clone())));
        }
        let written = Session {
            subject: current.subject.clone(),
            created_at: current.created_at,
            last_seen_at: current.last_seen_at,
            ..next.clone()
        };
        self.rows.put(written);
        Replaced::Done
    }
}

/// How the blobs of one row begin, each beginning once.
fn heads_of(access: &SealedBlob, refresh: Option<&SealedBlob>) -> impl Iterator<Item = BlobHead> {
    let head = access.head();
    let other = refresh.map(SealedBlob::head).filter(|other| *other != head);
    std::iter::once(head).chain(other)
}

#[async_trait]
impl Store for MemoryStore {
    async fn check(&self) -> Result<(), StoreError> {
        self.enter(Method::Check).map(drop)
    }

    async fn insert(&self, session: Session, placement: Placement) -> Result<Vec<Session>, StoreError> {
        let mut shelf = self.enter(Method::Insert)?;
        let Session { id, created_at, .. } = session;
        if shelf.rows.get(id).is_some() {
            return Err(id_is_taken());
        }
        let subject = session.subject.clone();
        shelf.rows.put(session);
        let mut ended = Vec::new();
        if let Some(replaced) = placement.replaces.filter(|replaced| *replaced != id) {
            ended.extend(shelf.end(replaced, EndReason::ReplacedBySignIn, created_at));
        }
        for surplus in over_limit(&shelf.rows.open_of(&subject), id, placement.limit) {
            ended.extend(shelf.end(surplus, EndReason::DeviceLimit, created_at));
        }
        Ok(ended)
    }

    async fn load(&self, id: SessionId) -> Result<Option<Session>, StoreError> {
        Ok(self.enter(Method::Load)?.rows.get(id).cloned())
    }

    async fn replace(&self, next: &Session, owed: Option<&OwedRevocation>) -> Result<Replaced, StoreError> {
        let mut shelf = self.enter(Method::Replace)?;
        let replaced = shelf.replace(next);
        if let (Replaced::Done, Some(owed)) = (&replaced, owed) {
            shelf.owe(owed.clone());
        }
        Ok(replaced)
    }

    async fn devices(&self, subject: &Subject, limit: usize) -> Result<Vec<Session>, StoreError> {
        let mut devices = self.enter(Method::Devices)?.rows.open_of(subject);
        devices.sort_by_key(|session| std::cmp::Reverse((session.last_seen_at, session.id)));
        devices.truncate(limit);
        Ok(devices)
    }

    async fn end_all(
        &self,
        selection: &Selection,
        reason: EndReason,
        at: Timestamp,
    ) -> Result<Vec<Session>, StoreError> {
        let mut shelf = self.enter(Method::EndAll)?;
        let mut chosen = shelf.rows.open_of(&selection.subject);
        chosen.retain(|session| {
            selection.except != Some(session.id) && session.created_at < selection.created_before
        });
        Ok(chosen.into_iter().filter_map(|session| shelf.end(session.id, reason, at)).collect())
    }

    async fn touch(&self, seen: &[(SessionId, Timestamp)]) -> Result<(), StoreError> {
        let mut shelf = self.enter(Method::Touch)?;
        for (id, at) in seen {
            shelf.rows.edit(*id, |session| session.last_seen_at = session.last_seen_at.max(*at));
        }
        Ok(())
    }

    async fn overdue(
        &self,
        idle_since: Timestamp,
        created_until: Timestamp,
        limit: usize,
    ) -> Result<Vec<SessionId>, StoreError> {
        let shelf = self.enter(Method::Overdue)?;
        let open = &shelf.rows.open;
        let idle = open.by_last_use.iter().take_while(|(seen, _)| *seen <= idle_since).map(|(_, id)| *id);
        let in_use = |id: &SessionId| shelf.rows.get(*id).is_some_and(|row| row.last_seen_at > idle_since);
        let old = open.by_age.iter().take_while(|(created, _)| *created <= created_until);
        Ok(idle.chain(old.map(|(_, id)| *id).filter(in_use)).take(limit).collect())
    }

    async fn distrusted(&self, limit: usize) -> Result<Vec<SessionId>, StoreError> {
        let shelf = self.enter(Method::Distrusted)?;
        Ok(shelf.rows.distrusted.iter().rev().take(limit).copied().collect())
    }

    async fn purge(&self, created_until: Timestamp, limit: usize) -> Result<usize, StoreError> {
        let mut shelf = self.enter(Method::Purge)?;
        let old = shelf.rows.tombstones.iter().take_while(|(created, _)| *created <= created_until);
        let chosen: Vec<_> = old.take(limit).map(|(_, id)| *id).collect();
        for id in &chosen {
            shelf.rows.remove(*id);
        }
        Ok(chosen.len())
    }

    async fn spend_login(&self, state_hash: [u8; 32], expires_at: Timestamp) -> Result<bool, StoreError> {
        let mut shelf = self.enter(Method::SpendLogin)?;
        if shelf.logins.contains_key(&state_hash) {
            return Ok(false);
        }
        shelf.logins.insert(state_hash, expires_at);
        Ok(true)
    }

    async fn forget_logins(&self, now: Timestamp, limit: usize) -> Result<usize, StoreError> {
        let mut shelf = self.enter(Method::ForgetLogins)?;
        let expired = shelf.logins.iter().filter(|(_, expires_at)| **expires_at <= now);
        let mut chosen: Vec<_> = expired.map(|(hash, expires_at)| (*expires_at, *hash)).collect();
        chosen.sort_unstable();
        chosen.truncate(limit);
        for (_, hash) in &chosen {
            shelf.logins.remove(hash);
        }
        Ok(chosen.len())
    }

    async fn owe(&self, owed: &OwedRevocation) -> Result<(), StoreError> {
        self.enter(Method::Owe)?.owe(owed.clone());
        Ok(())
    }

    async fn take_owed(
        &self,
        attempt: AttemptId,
        now: Timestamp,
        lease_until: Timestamp,
        limit: usize,
    ) -> Result<Vec<Owed>, StoreError> {
        let mut shelf = self.enter(Method::TakeOwed)?;
        let mut due: Vec<_> = shelf.owed.iter_mut().filter(|(_, debt)| debt.due_at <= now).collect();
        due.sort_by_key(|(id, debt)| (debt.due_at, **id));
        due.truncate(limit);
        let taken = due.into_iter().map(|(id, debt)| {
            debt.due_at = lease_until;
            debt.holder = Some(attempt);
            Owed { id: *id, revocation: debt.revocation.clone(), tries: debt.tries }
        });
        Ok(taken.collect())
    }

    async fn settle_owed(&self, id: OwedId, attempt: AttemptId) -> Result<bool, StoreError> {
        let mut shelf = self.enter(Method::SettleOwed)?;
        let held = shelf.held(id, attempt).is_some();
        if held {
            shelf.owed.remove(&id);
        }
        Ok(held)
    }

    async fn postpone_owed(
        &self,
        id: OwedId,
        attempt: AttemptId,
        due_at: Timestamp,
    ) -> Result<bool, StoreError> {
        let mut shelf = self.enter(Method::PostponeOwed)?;
        let Some(debt) = shelf.held(id, attempt) else { return Ok(false) };
        debt.tries = debt.tries.saturating_add(1);
        debt.due_at = due_at;
        debt.holder = None;
        Ok(true)
    }

    async fn owed_backlog(&self) -> Result<Backlog, StoreError> {
        let shelf = self.enter(Method::OwedBacklog)?;
        Ok(Backlog {
            count: count(shelf.owed.len()),
            oldest: shelf.owed.values().map(|debt| debt.revocation.owed_at).min(),
        })
    }

    async fn take_slots(
        &self,
        wheel: Wheel,
        attempt: AttemptId,
        now: Timestamp,
        lease_until: Timestamp,
        limit: usize,
    ) -> Result<Vec<Visit>, StoreError> {
        let mut shelf = self.enter(Method::TakeSlots)?;
        let due = |(_, place): &(Slot, Place)| place.due_at <= now && place.lease_until <= now;
        let mut visits: Vec<_> = shelf
            .slots_in_use(wheel)
            .filter(due)
            .map(|(slot, Place { due_at, .. })| Visit { slot, due_at })
            .collect();
        visits.sort_by_key(|visit| (visit.due_at, visit.slot));
        visits.truncate(limit);
        for Visit { slot, due_at } in &visits {
            let place = Place { due_at: *due_at, lease_until, holder: Some(attempt) };
            if let Some(own) = shelf.place(wheel, *slot) {
                *own = place;
            }
        }
        Ok(visits)
    }

    async fn in_slot(
        &self,
        wheel: Wheel,
        slot: Slot,
        after: Option<SessionId>,
        limit: usize,
    ) -> Result<Vec<Session>, StoreError> {
        let shelf = self.enter(Method::InSlot)?;
        Ok(shelf.rows.in_slot(wheel, slot, after).take(limit).cloned().collect())
    }

    async fn hold_slot(
        &self,
        wheel: Wheel,
        slot: Slot,
        attempt: AttemptId,
        lease_until: Timestamp,
    ) -> Result<bool, StoreError> {
        let mut shelf = self.enter(Method::HoldSlot)?;
        let place = shelf.held_slot(wheel, slot, attempt);
        Ok(place.map(|place| place.lease_until = lease_until).is_some())
    }

    async fn leave_slot(
        &self,
        wheel: Wheel,
        slot: Slot,
        attempt: AttemptId,
        due_at: Timestamp,
    ) -> Result<bool, StoreError> {
        let mut shelf = self.enter(Method::LeaveSlot)?;
        let place = shelf.held_slot(wheel, slot, attempt);
        Ok(place.map(|place| *place = Place { due_at, ..Place::default() }).is_some())
    }

    async fn longest_due(&self, wheel: Wheel) -> Result<Option<Timestamp>, StoreError> {
        Ok(self.enter(Method::LongestDue)?.slots_in_use(wheel).map(|(_, place)| place.due_at).min())
    }

    async fn replace_all(&self, next: &[Session]) -> Result<Vec<bool>, StoreError> {
        let mut shelf = self.enter(Method::ReplaceAll)?;
        Ok(next.iter().map(|next| shelf.replace(next) == Replaced::Done).collect())
    }

    async fn census(&self, now: Timestamp) -> Result<Census, StoreError> {
        let shelf = self.enter(Method::Census)?;
        let Open { live_by_proof, parked, suspect, claimed, .. } = &shelf.rows.open;
        let (live, oldest_proof) = (count(live_by_proof.len()), live_by_proof.first().map(|(at, _)| *at));
        let claims = claimed.iter().filter_map(|id| shelf.rows.get(*id)?.holding()?.claim);
        let (ambiguous, in_flight): (Vec<_>, Vec<_>) = claims.partition(|claim| claim.ambiguous(now));
        let claims = Claims { in_flight: count(in_flight.len()), ambiguous: count(ambiguous.len()) };
        Ok(Census { live, parked: *parked, suspect: *suspect, oldest_proof, claims })
    }

    async fn heads(&self) -> Result<Vec<HeadCount>, StoreError> {
        let shelf = self.enter(Method::Heads)?;
        let mut counts: BTreeMap<BlobHead, (u64, u64)> = BTreeMap::new();
        for pair in shelf.rows.by_id.values().filter_map(Session::pair) {
            for head in heads_of(&pair.access, pair.refresh.as_ref()) {
                counts.entry(head).or_default().0 += 1;
            }
        }
        for Debt { revocation, .. } in shelf.owed.values() {
            for head in heads_of(&revocation.access, revocation.refresh.as_ref()) {
                counts.entry(head).or_default().1 += 1;
            }
        }
        let counted = |(head, (sessions, owed))| HeadCount { head, sessions, owed };
        Ok(counts.into_iter().map(counted).collect())
    }

    async fn suspect(
        &self,
        key: SuspicionKey,
        suspicion: &Suspicion,
        noted_at: Timestamp,
    ) -> Result<bool, StoreError> {
        let mut shelf = self.enter(Method::Suspect)?;
        if shelf.suspicions.contains_key(&key) {
            return Ok(false);
        }
        let suspicion = suspicion.clone();
        let doubt = Doubt { suspicion, noted_at, tries: 0, due_at: Some(noted_at), holder: None };
        shelf.suspicions.insert(key, doubt);
        Ok(true)
    }

    async fn take_suspicions(
        &self,
        attempt: AttemptId,
        now: Timestamp,
        lease_until: Timestamp,
        limit: usize,
    ) -> Result<Vec<Suspected>, StoreError> {
        let mut shelf = self.enter(Method::TakeSuspicions)?;
        let due = |doubt: &Doubt| doubt.due_at.is_some_and(|due_at| due_at <= now);
        let mut due: Vec<_> = shelf.suspicions.iter_mut().filter(|(_, doubt)| due(doubt)).collect();
        due.sort_by_key(|(key, doubt)| (doubt.due_at, **key));
        due.truncate(limit);
        let taken = due.into_iter().map(|(key, doubt)| {
            doubt.due_at = Some(lease_until);
            doubt.holder = Some(attempt);
            Suspected { key: *key, suspicion: doubt.suspicion.clone(), tries: doubt.tries }
        });
        Ok(taken.collect())
    }

    async fn settle_suspicion(&self, key: SuspicionKey, attempt: AttemptId) -> Result<bool, StoreError> {
        let mut shelf = self.enter(Method::SettleSuspicion)?;
        let Some(doubt) = shelf.held_suspicion(key, attempt) else { return Ok(false) };
        (doubt.due_at, doubt.holder) = (None, None);
        Ok(true)
    }

    async fn postpone_suspicion(
        &self,
        key: SuspicionKey,
        attempt: AttemptId,
        due_at: Timestamp,
    ) -> Result<bool, StoreError> {
        let mut shelf = self.enter(Method::PostponeSuspicion)?;
        let Some(doubt) = shelf.held_suspicion(key, attempt) else { return Ok(false) };
        doubt.tries = doubt.tries.saturating_add(1);
        (doubt.due_at, doubt.holder) = (Some(due_at), None);
        Ok(true)
    }

    async fn forget_suspicions(&self, noted_until: Timestamp, limit: usize) -> Result<usize, StoreError> {
        let mut shelf = self.enter(Method::ForgetSuspicions)?;
        let closed = |doubt: &Doubt| doubt.due_at.is_none() && doubt.noted_at <= noted_until;
        let mut chosen: Vec<_> = shelf
            .suspicions
            .iter()
            .filter(|(_, doubt)| closed(doubt))
            .map(|(key, doubt)| (doubt.noted_at, *key))
            .collect();
        chosen.sort_unstable();
        chosen.truncate(limit);
        for (_, key) in &chosen {
            shelf.suspicions.remove(key);
        }
        Ok(chosen.len())
    }

    async fn memo(&self, name: &str) -> Result<Option<Memo>, StoreError> {
        Ok(self.enter(Method::Memo)?.memos.get(name).cloned())
    }

    async fn put_memo(&self, name: &str, memo: &Memo) -> Result<bool, StoreError> {
        let mut shelf = self.enter(Method::PutMemo)?;
        let next = shelf.memos.get(name).map_or(Version::FIRST, |stored| stored.version.next());
        let follows = memo.version == next;
        if follows {
            shelf.memos.insert(name.to_owned(), memo.clone());
        }
        Ok(follows)
    }
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        archive::Archive,
        conformance::{Harness, conformance},
    };

    struct Memory;

    impl Harness for Memory {
        async fn fresh(&self) -> Arc<dyn Archive> {
            Arc::new(MemoryStore::new())
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn the_memory_store_conforms() {
        conformance(&Memory).await;
    }

    #[tokio::test]
    async fn calls_are_counted_by_method() {
        let store = MemoryStore::new();
        store.check().await.unwrap();
        store.touch(&[]).await.unwrap();
        store.owed_backlog().await.unwrap();
        assert_eq!((store.reads(), store.writes()), (2, 1));
        assert_eq!((store.calls(Method::Touch), store.calls(Method::Load)), (1, 0));
    }

    #[tokio::test]
    async fn a_failing_store_fails_until_it_is_cleared() {
        let store = MemoryStore::new();
        let failure = StoreError::Full("a test".to_owned());
        store.fail_with(Some(failure.clone()));
        assert_eq!(store.spend_login([1; 32], Timestamp::EPOCH).await, Err(failure));
        store.fail_with(None);
        assert_eq!(
            store.spend_login([1; 32], Timestamp::EPOCH).await,
            Ok(true),
            "a failed call changed nothing"
        );
    }
}
