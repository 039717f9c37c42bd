//! A store in memory: the simplest implementation of the trait. Tests and the simulator use it, and
//! other stores are compared with it.

mod archive;
mod inner;
mod queues;

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use claviger_core::{
    AttemptId, BlobHead, Change, EndReason, Session, SessionId, Slot, Subject, Timestamp, Version,
};

use self::inner::{Inner, Open, heads_of};
use crate::{
    Applied, Backlog, ChangeFeed, Claims, Item, ItemId, KeyIdCount, Lease, LeaseTerms, LeaseUpdate, Leftover,
    Placement, Queue, Selection, SessionCounts, SharedEntry, Store, StoreError, SweepKind, id_is_taken,
};

/// Keeps everything in memory until it is dropped. It counts its calls, and fails on demand.
#[derive(Debug, Default)]
pub struct MemoryStore {
    inner: Mutex<Inner>,
}

/// The methods of [`Store`] and [`Archive`](crate::archive::Archive), for counting calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "each is named after its method, or after the update of a lease")]
pub enum Method {
    Check,
    Insert,
    Load,
    Apply,
    Devices,
    EndSessions,
    RecordLastSeen,
    Overdue,
    Denylist,
    Purge(Leftover),
    SpendLogin,
    Enqueue(Queue),
    Take(Queue),
    Extend(Queue),
    Reschedule(Queue),
    Acknowledge(Queue),
    Backlog,
    InSlot,
    ApplyAll,
    SessionCounts,
    KeyIdCounts,
    SharedEntry,
    PutSharedEntry,
    Count,
    Page,
    Add,
}

impl Method {
    /// Returns the method of adding this item.
    pub const fn enqueue(item: &Item) -> Self {
        Self::Enqueue(match item {
            Item::Revocation(_) => Queue::Revocations,
            Item::Suspicion { .. } => Queue::Suspicions,
            Item::Slot(_) => Queue::Slots(SweepKind::Validation),
        })
    }

    /// Returns the method of updating the lease of this item.
    pub const fn update_lease(id: ItemId, update: LeaseUpdate) -> Self {
        match update {
            LeaseUpdate::Extend(_) => Self::Extend(id.queue()),
            LeaseUpdate::Reschedule(_) => Self::Reschedule(id.queue()),
            LeaseUpdate::Acknowledge => Self::Acknowledge(id.queue()),
        }
    }

    /// Returns whether the method only reads.
    pub fn reads(self) -> bool {
        matches!(
            self,
            Self::Check
                | Self::Load
                | Self::Devices
                | Self::Overdue
                | Self::Denylist
                | Self::Backlog
                | Self::InSlot
                | Self::SessionCounts
                | Self::KeyIdCounts
                | Self::SharedEntry
                | Self::Count
                | Self::Page
        )
    }
}

impl MemoryStore {
    /// Makes an empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes every method fail with this error and change nothing, until it is cleared with `None`.
    pub fn fail_with(&self, failure: Option<StoreError>) {
        self.inner().failure = failure;
    }

    /// Returns the number of calls of this method, failures included.
    pub fn calls(&self, method: Method) -> u64 {
        self.inner().calls.get(&method).copied().unwrap_or(0)
    }

    /// Returns the number of calls that only read.
    pub fn reads(&self) -> u64 {
        self.count(Method::reads)
    }

    /// Returns the number of calls that may write.
    pub fn writes(&self) -> u64 {
        self.count(|method| !method.reads())
    }

    fn count(&self, counts: impl Fn(Method) -> bool) -> u64 {
        self.inner().calls.iter().filter(|(method, _)| counts(**method)).map(|(_, calls)| calls).sum()
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, method: Method) -> Result<MutexGuard<'_, Inner>, StoreError> {
        let mut inner = self.inner();
        *inner.calls.entry(method).or_default() += 1;
        match &inner.failure {
            Some(failure) => Err(failure.clone()),
            None => Ok(inner),
        }
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn check(&self) -> Result<(), StoreError> {
        self.enter(Method::Check).map(drop)
    }

    async fn insert(&self, session: Session, placement: Placement) -> Result<Vec<Session>, StoreError> {
        let mut inner = self.enter(Method::Insert)?;
        let Session { id, created_at, .. } = session;
        if inner.rows.get(id).is_some() {
            return Err(id_is_taken());
        }
        let mut candidates = inner.rows.open_of(&session.subject);
        candidates.extend(placement.replaces.and_then(|replaced| inner.rows.get(replaced)).cloned());
        let ends = placement.ends(&session, &candidates);
        inner.rows.put(session);
        Ok(ends.into_iter().filter_map(|(id, reason)| inner.end(id, reason, created_at)).collect())
    }

    async fn load(&self, id: SessionId) -> Result<Option<Session>, StoreError> {
        Ok(self.enter(Method::Load)?.rows.get(id).cloned())
    }

    async fn apply(&self, change: &Change) -> Result<Applied, StoreError> {
        Ok(self.enter(Method::Apply)?.apply(change))
    }

    async fn apply_all(&self, changes: &[Change]) -> Result<Vec<bool>, StoreError> {
        let mut inner = self.enter(Method::ApplyAll)?;
        Ok(changes.iter().map(|change| inner.apply(change) == Applied::Done).collect())
    }

    async fn devices(&self, subject: &Subject, limit: usize) -> Result<Vec<Session>, StoreError> {
        let mut devices = self.enter(Method::Devices)?.rows.open_of(subject);
        devices.sort_by_key(|session| std::cmp::Reverse((session.last_seen_at, session.id)));
        devices.truncate(limit);
        Ok(devices)
    }

    async fn end_sessions(
        &self,
        selection: &Selection,
        reason: EndReason,
        at: Timestamp,
    ) -> Result<Vec<Session>, StoreError> {
        let mut inner = self.enter(Method::EndSessions)?;
        let mut chosen = inner.rows.open_of(&selection.subject);
        chosen.retain(|session| {
            selection.except != Some(session.id) && session.created_at < selection.created_before
        });
        Ok(chosen.into_iter().filter_map(|session| inner.end(session.id, reason, at)).collect())
    }

    async fn record_last_seen(&self, seen: &[(SessionId, Timestamp)]) -> Result<(), StoreError> {
        let mut inner = self.enter(Method::RecordLastSeen)?;
        for (id, at) in seen {
            inner.rows.edit(*id, |session| session.last_seen_at = session.last_seen_at.max(*at));
        }
        Ok(())
    }

    async fn overdue(
        &self,
        idle_since: Timestamp,
        created_until: Timestamp,
        limit: usize,
    ) -> Result<Vec<SessionId>, StoreError> {
        let inner = self.enter(Method::Overdue)?;
        let open = &inner.rows.open;
        let idle = open.by_last_use.iter().take_while(|(seen, _)| *seen <= idle_since).map(|(_, id)| *id);
        let in_use = |id: &SessionId| inner.rows.get(*id).is_some_and(|row| row.last_seen_at > idle_since);
        let old = open.by_age.iter().take_while(|(created, _)| *created <= created_until);
        Ok(idle.chain(old.map(|(_, id)| *id).filter(in_use)).take(limit).collect())
    }

    async fn denylist(&self, limit: usize) -> Result<Vec<SessionId>, StoreError> {
        let inner = self.enter(Method::Denylist)?;
        Ok(inner.rows.distrusted.iter().rev().take(limit).copied().collect())
    }

    async fn purge(&self, what: Leftover, until: Timestamp, limit: usize) -> Result<usize, StoreError> {
        Ok(self.enter(Method::Purge(what))?.purge(what, until, limit))
    }

    async fn spend_login(&self, state_hash: [u8; 32], expires_at: Timestamp) -> Result<bool, StoreError> {
        let mut inner = self.enter(Method::SpendLogin)?;
        if inner.logins.contains_key(&state_hash) {
            return Ok(false);
        }
        inner.logins.insert(state_hash, expires_at);
        Ok(true)
    }

    async fn enqueue(&self, item: &Item) -> Result<bool, StoreError> {
        Ok(self.enter(Method::enqueue(item))?.enqueue(item.clone()))
    }

    async fn take(
        &self,
        queue: Queue,
        terms: LeaseTerms,
        limit: usize,
    ) -> Result<Vec<Lease<Item>>, StoreError> {
        Ok(self.enter(Method::Take(queue))?.take(queue, terms, limit))
    }

    async fn update_lease(
        &self,
        id: ItemId,
        holder: AttemptId,
        update: LeaseUpdate,
    ) -> Result<bool, StoreError> {
        Ok(self.enter(Method::update_lease(id, update))?.update_lease(id, holder, update))
    }

    async fn backlog(&self, queue: Queue) -> Result<Backlog, StoreError> {
        Ok(self.enter(Method::Backlog)?.backlog(queue))
    }

    async fn in_slot(
        &self,
        sweep: SweepKind,
        slot: Slot,
        after: Option<SessionId>,
        limit: usize,
    ) -> Result<Vec<Session>, StoreError> {
        let inner = self.enter(Method::InSlot)?;
        Ok(inner.rows.in_slot(sweep, slot, after).take(limit).cloned().collect())
    }

    async fn session_counts(&self, now: Timestamp) -> Result<SessionCounts, StoreError> {
        let inner = self.enter(Method::SessionCounts)?;
        let Open { live_by_proof, parked, suspect, claimed, .. } = &inner.rows.open;
        let (live, oldest_proof) = (count(live_by_proof.len()), live_by_proof.first().map(|(at, _)| *at));
        let claims = claimed.iter().filter_map(|id| inner.rows.get(*id)?.active()?.claim);
        let (ambiguous, in_flight): (Vec<_>, Vec<_>) = claims.partition(|claim| claim.ambiguous(now));
        let claims = Claims { in_flight: count(in_flight.len()), ambiguous: count(ambiguous.len()) };
        Ok(SessionCounts { live, parked: *parked, suspect: *suspect, oldest_proof, claims })
    }

    async fn key_id_counts(&self) -> Result<Vec<KeyIdCount>, StoreError> {
        let inner = self.enter(Method::KeyIdCounts)?;
        let mut counts: BTreeMap<BlobHead, (u64, u64)> = BTreeMap::new();
        for pair in inner.rows.by_id.values().filter_map(Session::pair) {
            for head in heads_of(&pair.access, pair.refresh.as_ref()) {
                counts.entry(head).or_default().0 += 1;
            }
        }
        for revocation in inner.revocations() {
            for head in heads_of(&revocation.access, revocation.refresh.as_ref()) {
                counts.entry(head).or_default().1 += 1;
            }
        }
        let counted = |(head, (sessions, revocations))| KeyIdCount { head, sessions, revocations };
        Ok(counts.into_iter().map(counted).collect())
    }

    async fn shared_entry(&self, name: &str) -> Result<Option<SharedEntry>, StoreError> {
        Ok(self.enter(Method::SharedEntry)?.shared_entries.get(name).cloned())
    }

    fn change_feed(&self) -> ChangeFeed {
        ChangeFeed::SoleWriter
    }

    async fn put_shared_entry(&self, name: &str, entry: &SharedEntry) -> Result<bool, StoreError> {
        let mut inner = self.enter(Method::PutSharedEntry)?;
        let next = inner.shared_entries.get(name).map_or(Version::FIRST, |stored| stored.version.next());
        let follows = entry.version == next;
        if follows {
            inner.shared_entries.insert(name.to_owned(), entry.clone());
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
        store.record_last_seen(&[]).await.unwrap();
        store.backlog(Queue::Revocations).await.unwrap();
        assert_eq!((store.reads(), store.writes()), (2, 1));
        assert_eq!((store.calls(Method::RecordLastSeen), store.calls(Method::Load)), (1, 0));
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
