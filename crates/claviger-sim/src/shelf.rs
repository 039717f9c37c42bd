//! One instance's way to the store that all share.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use claviger_core::{
    ids::{AttemptId, SessionId, Subject},
    session::{EndReason, OwedRevocation, Session, State},
    suspicion::Suspicion,
    sweep::Slot,
    time::Timestamp,
};
use claviger_store::{
    Backlog, Census, HeadCount, Memo, Owed, OwedId, Placement, Replaced, Selection, Store, StoreError,
    Suspected, SuspicionKey, Visit, Wheel,
};

use crate::{
    Variant,
    fate::{Fate, Point},
    ledger::Ledger,
};

/// A write that nobody waits for any longer comes so late at most.
const MUCH_LATER: Duration = Duration::from_secs(20);

pub(crate) struct Shelf {
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) fate: Arc<Fate>,
    pub(crate) variant: Variant,
    /// The rows as this instance first saw them, for the variant that does not read again.
    seen: Mutex<BTreeMap<SessionId, Session>>,
}

/// What becomes of one write.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Write {
    Good,
    /// It fails and does nothing.
    Fails,
    /// It does its work, and then fails: nobody can say whether it happened.
    FailsAfter,
    /// It fails, and does its work so much later: nobody waited any longer for it.
    FailsBefore(Duration),
}

impl Shelf {
    pub(crate) fn new(ledger: Arc<Ledger>, fate: Arc<Fate>, variant: Variant) -> Self {
        Self { ledger, fate, variant, seen: Mutex::default() }
    }

    /// Gets through to the store, or fails.
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

    /// The same for the change of a row, which may come late.
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

    /// Does a write and takes note of it in the same step.
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

    /// The row to write, as the variant has it.
    async fn as_varied(&self, next: &Session) -> Session {
        let mut next = next.clone();
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
                if let State::Live(holding) | State::Parked(holding) | State::Suspect(holding) =
                    &mut next.state
                    && let Some(claim) = &mut holding.claim
                {
                    if self.variant == Variant::ForgetsReplay {
                        claim.replay &= !claim.answer_lost;
                    } else {
                        claim.lease_until = claim.lease_until.before(Duration::from_secs(29));
                    }
                }
            }
            _ => {}
        }
        next
    }
}

fn unavailable() -> StoreError {
    StoreError::Unavailable("a fault".to_owned())
}

/// Where in a refresh this write stands: before it, and after it.
fn points(next: &Session) -> (Option<Point>, Option<Point>) {
    let claim = next.holding().and_then(|holding| holding.claim);
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
impl Store for Shelf {
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

    async fn replace(&self, next: &Session, owed: Option<&OwedRevocation>) -> Result<Replaced, StoreError> {
        self.enter().await?;
        let (before, after) = points(next);
        if let Some(point) = before {
            self.fate.pass(point).await;
        }
        let fortune = self.fortune_of_row();
        if fortune == Write::Fails {
            return Err(unavailable());
        }
        let varied = self.as_varied(next).await;
        let who = self.fate.who;
        if let Write::FailsBefore(span) = fortune {
            let (ledger, owed) = (Arc::clone(&self.ledger), owed.cloned());
            tokio::spawn(async move {
                tokio::time::sleep(span).await;
                ledger.replace(who, &varied, owed.as_ref()).await
            });
            return Err(unavailable());
        }
        let replaced = self.ledger.replace(who, &varied, owed).await?;
        if replaced == Replaced::Done {
            self.seen.lock().unwrap_or_else(PoisonError::into_inner).insert(varied.id, varied.clone());
        } else {
            self.fate.record.count("row: another writer was first", who);
        }
        if let Some(point) = after {
            self.fate.pass(point).await;
        }
        self.fate.live_on().await;
        if fortune == Write::FailsAfter { Err(unavailable()) } else { Ok(replaced) }
    }

    async fn devices(&self, subject: &Subject, limit: usize) -> Result<Vec<Session>, StoreError> {
        self.read(self.ledger.memory.devices(subject, limit)).await
    }

    async fn end_all(
        &self,
        selection: &Selection,
        reason: EndReason,
        at: Timestamp,
    ) -> Result<Vec<Session>, StoreError> {
        let work = self.ledger.memory.end_all(selection, reason, at);
        self.write(work, |ended: &Vec<Session>| self.note_ended(ended)).await
    }

    async fn touch(&self, seen: &[(SessionId, Timestamp)]) -> Result<(), StoreError> {
        self.write(self.ledger.memory.touch(seen), |()| {}).await
    }

    async fn overdue(
        &self,
        idle_since: Timestamp,
        created_until: Timestamp,
        limit: usize,
    ) -> Result<Vec<SessionId>, StoreError> {
        self.read(self.ledger.memory.overdue(idle_since, created_until, limit)).await
    }

    async fn distrusted(&self, limit: usize) -> Result<Vec<SessionId>, StoreError> {
        self.read(self.ledger.memory.distrusted(limit)).await
    }

    async fn purge(&self, created_until: Timestamp, limit: usize) -> Result<usize, StoreError> {
        self.write(self.ledger.memory.purge(created_until, limit), |_| {}).await
    }

    async fn spend_login(&self, state_hash: [u8; 32], expires_at: Timestamp) -> Result<bool, StoreError> {
        self.write(self.ledger.memory.spend_login(state_hash, expires_at), |_| {}).await
    }

    async fn forget_logins(&self, now: Timestamp, limit: usize) -> Result<usize, StoreError> {
        self.write(self.ledger.memory.forget_logins(now, limit), |_| {}).await
    }

    async fn owe(&self, owed: &OwedRevocation) -> Result<(), StoreError> {
        self.write(self.ledger.memory.owe(owed), |()| self.ledger.owes(owed)).await
    }

    async fn take_owed(
        &self,
        attempt: AttemptId,
        now: Timestamp,
        lease_until: Timestamp,
        limit: usize,
    ) -> Result<Vec<Owed>, StoreError> {
        self.write(self.ledger.memory.take_owed(attempt, now, lease_until, limit), |_| {}).await
    }

    async fn settle_owed(&self, id: OwedId, attempt: AttemptId) -> Result<bool, StoreError> {
        let settled = self.write(self.ledger.memory.settle_owed(id, attempt), |_| {}).await?;
        self.fate.record.count("outbox: settled", self.fate.who);
        Ok(settled)
    }

    async fn postpone_owed(
        &self,
        id: OwedId,
        attempt: AttemptId,
        due_at: Timestamp,
    ) -> Result<bool, StoreError> {
        let postponed = self.write(self.ledger.memory.postpone_owed(id, attempt, due_at), |_| {}).await?;
        self.fate.record.count("outbox: postponed", self.fate.who);
        Ok(postponed)
    }

    async fn owed_backlog(&self) -> Result<Backlog, StoreError> {
        self.read(self.ledger.memory.owed_backlog()).await
    }

    async fn take_slots(
        &self,
        wheel: Wheel,
        attempt: AttemptId,
        now: Timestamp,
        lease_until: Timestamp,
        limit: usize,
    ) -> Result<Vec<Visit>, StoreError> {
        self.write(self.ledger.memory.take_slots(wheel, attempt, now, lease_until, limit), |_| {}).await
    }

    async fn in_slot(
        &self,
        wheel: Wheel,
        slot: Slot,
        after: Option<SessionId>,
        limit: usize,
    ) -> Result<Vec<Session>, StoreError> {
        self.read(self.ledger.memory.in_slot(wheel, slot, after, limit)).await
    }

    async fn hold_slot(
        &self,
        wheel: Wheel,
        slot: Slot,
        attempt: AttemptId,
        lease_until: Timestamp,
    ) -> Result<bool, StoreError> {
        self.write(self.ledger.memory.hold_slot(wheel, slot, attempt, lease_until), |_| {}).await
    }

    async fn leave_slot(
        &self,
        wheel: Wheel,
        slot: Slot,
        attempt: AttemptId,
        due_at: Timestamp,
    ) -> Result<bool, StoreError> {
        self.write(self.ledger.memory.leave_slot(wheel, slot, attempt, due_at), |_| {}).await
    }

    async fn longest_due(&self, wheel: Wheel) -> Result<Option<Timestamp>, StoreError> {
        self.read(self.ledger.memory.longest_due(wheel)).await
    }

    async fn replace_all(&self, next: &[Session]) -> Result<Vec<bool>, StoreError> {
        let note = |written: &Vec<bool>| {
            for (next, _) in next.iter().zip(written).filter(|(_, written)| **written) {
                self.ledger.committed(self.fate.who, next);
            }
        };
        self.write(self.ledger.memory.replace_all(next), note).await
    }

    async fn census(&self, now: Timestamp) -> Result<Census, StoreError> {
        self.read(self.ledger.memory.census(now)).await
    }

    async fn heads(&self) -> Result<Vec<HeadCount>, StoreError> {
        self.read(self.ledger.memory.heads()).await
    }

    async fn suspect(
        &self,
        key: SuspicionKey,
        suspicion: &Suspicion,
        noted_at: Timestamp,
    ) -> Result<bool, StoreError> {
        self.write(self.ledger.memory.suspect(key, suspicion, noted_at), |_| {}).await
    }

    async fn take_suspicions(
        &self,
        attempt: AttemptId,
        now: Timestamp,
        lease_until: Timestamp,
        limit: usize,
    ) -> Result<Vec<Suspected>, StoreError> {
        self.write(self.ledger.memory.take_suspicions(attempt, now, lease_until, limit), |_| {}).await
    }

    async fn settle_suspicion(&self, key: SuspicionKey, attempt: AttemptId) -> Result<bool, StoreError> {
        self.write(self.ledger.memory.settle_suspicion(key, attempt), |_| {}).await
    }

    async fn postpone_suspicion(
        &self,
        key: SuspicionKey,
        attempt: AttemptId,
        due_at: Timestamp,
    ) -> Result<bool, StoreError> {
        self.write(self.ledger.memory.postpone_suspicion(key, attempt, due_at), |_| {}).await
    }

    async fn forget_suspicions(&self, noted_until: Timestamp, limit: usize) -> Result<usize, StoreError> {
        self.write(self.ledger.memory.forget_suspicions(noted_until, limit), |_| {}).await
    }

    async fn memo(&self, name: &str) -> Result<Option<Memo>, StoreError> {
        self.read(self.ledger.memory.memo(name)).await
    }

    async fn put_memo(&self, name: &str, memo: &Memo) -> Result<bool, StoreError> {
        self.write(self.ledger.memory.put_memo(name, memo), |_| {}).await
    }
}

impl Shelf {
    /// The store ended these rows in one step, and owes what their last pairs need.
    fn note_ended(&self, ended: &[Session]) {
        for row in ended {
            if let Some(token) = self.ledger.last(row.id).and_then(|last| self.ledger.token_of(&last)) {
                self.ledger.owes_token(token);
            }
            self.ledger.committed(self.fate.who, row);
        }
    }
}
