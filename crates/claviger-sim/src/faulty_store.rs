//! One instance's way to the common store. Calls fail, stall or come late.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use claviger_core::{AttemptId, Change, EndReason, Session, SessionId, Slot, State, Subject, Timestamp};
use claviger_store::{
    Applied, Backlog, ChangeFeed, Item, ItemId, KeyIdCount, Lease, LeaseTerms, LeaseUpdate, Leftover,
    Placement, Queue, Selection, SessionCounts, SharedEntry, Store, StoreError, SweepKind,
};

use crate::{
    fate::{Fate, Point},
    ledger::Ledger,
    variant::Variant,
};

/// Maximum delay of a write whose caller has given up.
const MUCH_LATER: Duration = Duration::from_secs(20);

pub(crate) struct FaultyStore {
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) fate: Arc<Fate>,
    pub(crate) variant: Variant,
    /// The rows as this instance first saw them, for [`Variant::SkipsReRead`].
    seen: Mutex<BTreeMap<SessionId, Session>>,
}

/// The outcome of a write.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Write {
    Good,
    /// It fails and does nothing.
    Fails,
    /// It does its work and then fails, so its outcome is unknown.
    FailsAfter,
    /// It fails, and does its work this much later.
    FailsBefore(Duration),
}

impl FaultyStore {
    pub(crate) fn new(ledger: Arc<Ledger>, fate: Arc<Fate>, variant: Variant) -> Self {
        Self { ledger, fate, variant, seen: Mutex::default() }
    }

    /// Reaches the store, or fails.
    async fn enter(&self) -> Result<(), StoreError> {
        self.fate.live_on().await;
        tokio::time::sleep(self.fate.rng.span(Duration::ZERO, Duration::from_millis(4))).await;
        self.fate.live_on().await;
        if self.fate.store_down() {
            self.fate.record.count("fault: store down", self.fate.who);
            return Err(unavailable());
        }
        Ok(())
    }

    fn fortune(&self) -> Write {
        if !self.fate.store_trouble() {
            return Write::Good;
        }
        let after = self.fate.rng.chance(500);
        let name = if after { "fault: commit done, answer lost" } else { "fault: write failed" };
        self.fate.record.count(name, self.fate.who);
        if after { Write::FailsAfter } else { Write::Fails }
    }

    /// As above for a change of a row, which may come late.
    fn fortune_of_row(&self) -> Write {
        let fortune = self.fortune();
        if fortune != Write::Fails || self.fate.rng.chance(500) {
            return fortune;
        }
        self.fate.record.count("fault: commit late", self.fate.who);
        Write::FailsBefore(self.fate.rng.span(Duration::ZERO, MUCH_LATER))
    }

    async fn read<T>(&self, work: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        self.enter().await?;
        let read = work.await;
        self.fate.live_on().await;
        read
    }

    /// Does a write and records it in the same step.
    async fn write<T>(
        &self,
        work: impl Future<Output = Result<T, StoreError>>,
        note: impl FnOnce(&T),
    ) -> Result<T, StoreError> {
        self.enter().await?;
        let fortune = self.fortune();
        if fortune == Write::Fails {
            return Err(unavailable());
        }
        let done = work.await?;
        note(&done);
        self.fate.live_on().await;
        if fortune == Write::FailsAfter { Err(unavailable()) } else { Ok(done) }
    }

    /// Returns the change to write, modified by the variant.
    async fn as_varied(&self, change: &Change) -> Change {
        let mut next = change.next().clone();
        match self.variant {
            Variant::NoCompareAndSet => {
                if let Some(current) = self.ledger.row(next.id).await {
                    next.version = current.version.next();
                }
            }
            Variant::SkipsReRead if next.ended() => {
                if let Some(current) = self.ledger.row(next.id).await {
                    next.version = current.version.next();
                }
            }
            Variant::ShortLease | Variant::ForgetsReplay => {
                if let State::Live(active) | State::Parked(active) | State::Suspect(active) = &mut next.state
                    && let Some(claim) = &mut active.claim
                {
                    if self.variant == Variant::ForgetsReplay {
                        claim.replay &= !claim.answer_lost;
                    } else {
                        claim.lease_until = claim.lease_until.before(Duration::from_secs(29));
                    }
                }
            }
            _ => return change.clone(),
        }
        Change::forged(change.kind().clone(), next)
    }
}

fn unavailable() -> StoreError {
    StoreError::Unavailable("a fault".to_owned())
}

/// Returns the points of a refresh before and after this write.
fn points(next: &Session) -> (Option<Point>, Option<Point>) {
    let claim = next.active().and_then(|active| active.claim);
    match claim {
        Some(claim) if !claim.answer_lost => (Some(Point::ClaimUnwritten), Some(Point::ClaimUnheard)),
        Some(_) => (Some(Point::LossUnwritten), None),
        None if next.generation() == Some(next.version) => {
            (Some(Point::PairUnwritten), Some(Point::PairUnheard))
        }
        None => (None, None),
    }
}

#[async_trait]
impl Store for FaultyStore {
    async fn check(&self) -> Result<(), StoreError> {
        self.read(self.ledger.memory.check()).await
    }

    async fn insert(&self, session: Session, placement: Placement) -> Result<Vec<Session>, StoreError> {
        let new = session.clone();
        self.write(self.ledger.memory.insert(session, placement), |ended: &Vec<Session>| {
            self.ledger.committed(self.fate.who, &new);
            self.note_ended(ended);
        })
        .await
    }

    async fn load(&self, id: SessionId) -> Result<Option<Session>, StoreError> {
        let row = self.read(self.ledger.memory.load(id)).await?;
        if self.variant != Variant::SkipsReRead {
            return Ok(row);
        }
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(row.map(|row| seen.entry(id).or_insert(row).clone()))
    }

    async fn apply(&self, change: &Change) -> Result<Applied, StoreError> {
        self.enter().await?;
        let (before, after) = points(change.next());
        if let Some(point) = before {
            self.fate.pass(point).await;
        }
        let fortune = self.fortune_of_row();
        if fortune == Write::Fails {
            return Err(unavailable());
        }
        let varied = self.as_varied(change).await;
        let who = self.fate.who;
        if let Write::FailsBefore(span) = fortune {
            let ledger = Arc::clone(&self.ledger);
            tokio::spawn(async move {
                tokio::time::sleep(span).await;
                ledger.apply(who, &varied).await
            });
            return Err(unavailable());
        }
        let applied = self.ledger.apply(who, &varied).await?;
        if applied == Applied::Done {
            let row = varied.into_next();
            self.seen.lock().unwrap_or_else(PoisonError::into_inner).insert(row.id, row);
        } else {
            self.fate.record.count("row: another writer was first", who);
        }
        if let Some(point) = after {
            self.fate.pass(point).await;
        }
        self.fate.live_on().await;
        if fortune == Write::FailsAfter { Err(unavailable()) } else { Ok(applied) }
    }

    async fn devices(&self, subject: &Subject, limit: usize) -> Result<Vec<Session>, StoreError> {
        self.read(self.ledger.memory.devices(subject, limit)).await
    }

    async fn end_sessions(
        &self,
        selection: &Selection,
        reason: EndReason,
        at: Timestamp,
    ) -> Result<Vec<Session>, StoreError> {
        let work = self.ledger.memory.end_sessions(selection, reason, at);
        self.write(work, |ended: &Vec<Session>| self.note_ended(ended)).await
    }

    async fn record_last_seen(&self, seen: &[(SessionId, Timestamp)]) -> Result<(), StoreError> {
        self.write(self.ledger.memory.record_last_seen(seen), |()| {}).await
    }

    async fn overdue(
        &self,
        idle_since: Timestamp,
        created_until: Timestamp,
        limit: usize,
    ) -> Result<Vec<SessionId>, StoreError> {
        self.read(self.ledger.memory.overdue(idle_since, created_until, limit)).await
    }

    async fn denylist(&self, limit: usize) -> Result<Vec<SessionId>, StoreError> {
        self.read(self.ledger.memory.denylist(limit)).await
    }

    async fn purge(&self, what: Leftover, until: Timestamp, limit: usize) -> Result<usize, StoreError> {
        self.write(self.ledger.memory.purge(what, until, limit), |_| {}).await
    }

    async fn spend_login(&self, state_hash: [u8; 32], expires_at: Timestamp) -> Result<bool, StoreError> {
        self.write(self.ledger.memory.spend_login(state_hash, expires_at), |_| {}).await
    }

    async fn enqueue(&self, item: &Item) -> Result<bool, StoreError> {
        let note = |_: &bool| {
            if let Item::Revocation(revocation) = item {
                self.ledger.owes(revocation);
            }
        };
        self.write(self.ledger.memory.enqueue(item), note).await
    }

    async fn take(
        &self,
        queue: Queue,
        terms: LeaseTerms,
        limit: usize,
    ) -> Result<Vec<Lease<Item>>, StoreError> {
        self.write(self.ledger.memory.take(queue, terms, limit), |_| {}).await
    }

    async fn update_lease(
        &self,
        id: ItemId,
        holder: AttemptId,
        update: LeaseUpdate,
    ) -> Result<bool, StoreError> {
        let updated = self.write(self.ledger.memory.update_lease(id, holder, update), |_| {}).await?;
        let counted = match (id, update) {
            (ItemId::Revocation(_), LeaseUpdate::Acknowledge) => Some("outbox: acknowledged"),
            (ItemId::Revocation(_), LeaseUpdate::Reschedule(_)) => Some("outbox: rescheduled"),
            _ => None,
        };
        if let Some(name) = counted {
            self.fate.record.count(name, self.fate.who);
        }
        Ok(updated)
    }

    async fn backlog(&self, queue: Queue) -> Result<Backlog, StoreError> {
        self.read(self.ledger.memory.backlog(queue)).await
    }

    async fn in_slot(
        &self,
        sweep: SweepKind,
        slot: Slot,
        after: Option<SessionId>,
        limit: usize,
    ) -> Result<Vec<Session>, StoreError> {
        self.read(self.ledger.memory.in_slot(sweep, slot, after, limit)).await
    }

    async fn apply_all(&self, changes: &[Change]) -> Result<Vec<bool>, StoreError> {
        let note = |written: &Vec<bool>| {
            for (change, _) in changes.iter().zip(written).filter(|(_, written)| **written) {
                self.ledger.committed(self.fate.who, change.next());
            }
        };
        self.write(self.ledger.memory.apply_all(changes), note).await
    }

    async fn session_counts(&self, now: Timestamp) -> Result<SessionCounts, StoreError> {
        self.read(self.ledger.memory.session_counts(now)).await
    }

    async fn key_id_counts(&self) -> Result<Vec<KeyIdCount>, StoreError> {
        self.read(self.ledger.memory.key_id_counts()).await
    }

    async fn shared_entry(&self, name: &str) -> Result<Option<SharedEntry>, StoreError> {
        self.read(self.ledger.memory.shared_entry(name)).await
    }

    fn change_feed(&self) -> ChangeFeed {
        self.ledger.memory.change_feed()
    }

    async fn put_shared_entry(&self, name: &str, entry: &SharedEntry) -> Result<bool, StoreError> {
        self.write(self.ledger.memory.put_shared_entry(name, entry), |_| {}).await
    }
}

impl FaultyStore {
    /// Records rows that the store ended in one step, with their pending revocations.
    fn note_ended(&self, ended: &[Session]) {
        for row in ended {
            if let Some(token) = self.ledger.last(row.id).and_then(|last| self.ledger.token_of(&last)) {
                self.ledger.owes_token(token);
            }
            self.ledger.committed(self.fate.who, row);
        }
    }
}
