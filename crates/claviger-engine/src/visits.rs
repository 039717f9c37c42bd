//! Visits to slots: a slot is leased to the instance that visits it. An instance that dies leaves the slot to the others when the
//! lease ends.

use std::pin::pin;

use claviger_core::{ids::AttemptId, policy::limits, time::Timestamp};
use claviger_store::{StoreError, Visit, Wheel};
use tokio::{sync::oneshot, task::JoinSet};

use crate::Engine;

/// A slot that is this instance's to visit.
#[derive(Clone, Copy)]
pub(crate) struct Leased {
    pub(crate) wheel: Wheel,
    pub(crate) attempt: AttemptId,
    pub(crate) visit: Visit,
}

/// Visits that are under way at the same time stand in a line, so that the longest due comes first.
#[derive(Default)]
pub(crate) struct Line {
    last: Option<oneshot::Receiver<()>>,
}

/// A visit's place in the line. The next one's turn comes when this is dropped: when all its rows were handed out, or when the slot
/// was lost to somebody else.
pub(crate) struct Turn {
    comes: Option<oneshot::Receiver<()>>,
    _passes: oneshot::Sender<()>,
}

impl Line {
    /// The place behind all others.
    pub(crate) fn join(&mut self) -> Turn {
        let (passes, next) = oneshot::channel();
        Turn { comes: self.last.replace(next), _passes: passes }
    }
}

impl Turn {
    /// Waits until the one before is through.
    pub(crate) async fn comes(&mut self) {
        if let Some(before) = self.comes.take() {
            // It never says anything: it passes on by going away.
            let _ = before.await;
        }
    }
}

impl Engine {
    /// Visits the slots of a wheel that are due, some at a time, the longest due first. One visit that fails or takes long
    /// takes nothing from the others. Visits that are under way end with the caller; their slots are due again when the leases end.
    pub(crate) async fn visit_due<F>(
        &self,
        wheel: Wheel,
        at_once: impl Fn() -> usize,
        mut visit: impl FnMut(Self, Leased) -> F,
    ) -> Result<(), StoreError>
    where
        F: Future<Output = Result<(), StoreError>> + Send + 'static,
    {
        let (mut visits, mut outcome) = (JoinSet::new(), Ok(()));
        loop {
            let free = at_once().saturating_sub(visits.len());
            if outcome.is_ok() && free > 0 {
                match self.take_slots(wheel, free).await {
                    Ok(taken) => taken.for_each(|slot| drop(visits.spawn(visit(self.clone(), slot)))),
                    Err(error) => outcome = Err(error),
                }
            }
            // Other slots fall due while a visit takes its time.
            let mut ended = match tokio::time::timeout(limits::SWEEP_LOOK_EVERY, visits.join_next()).await {
                Ok(None) => return outcome,
                Ok(ended) => ended,
                Err(_) => None,
            };
            // All that ended meanwhile make room for as many at once, since taking slots is a write.
            while let Some(visited) = ended {
                match visited {
                    Ok(visited) => outcome = outcome.and(visited),
                    Err(lost) => tracing::error!(%lost, "a visit of a slot ended without an outcome"),
                }
                ended = visits.try_join_next();
            }
        }
    }

    async fn take_slots(
        &self,
        wheel: Wheel,
        limit: usize,
    ) -> Result<impl Iterator<Item = Leased>, StoreError> {
        let (attempt, now) = (AttemptId(self.random()), self.now());
        let lease_until = now.after(limits::SLOT_LEASE);
        let taken = self.inner.parts.store.take_slots(wheel, attempt, now, lease_until, limit).await?;
        Ok(taken.into_iter().map(move |visit| Leased { wheel, attempt, visit }))
    }

    /// Works on a slot and prolongs its lease meanwhile. False if the slot went to somebody else; then the work is left to them.
    pub(crate) async fn holding(
        &self,
        slot: &Leased,
        work: impl Future<Output = Result<(), StoreError>>,
    ) -> Result<bool, StoreError> {
        let mut work = pin!(work);
        loop {
            match tokio::time::timeout(limits::SLOT_LEASE / 3, &mut work).await {
                Ok(done) => return done.map(|()| true),
                Err(_) => {
                    let Leased { wheel, attempt, visit } = *slot;
                    let until = self.now().after(limits::SLOT_LEASE);
                    if !self.inner.parts.store.hold_slot(wheel, visit.slot, attempt, until).await? {
                        return Ok(false);
                    }
                }
            }
        }
    }

    pub(crate) async fn leave(&self, slot: &Leased, due_at: Timestamp) -> Result<(), StoreError> {
        let Leased { wheel, attempt, visit } = *slot;
        self.inner.parts.store.leave_slot(wheel, visit.slot, attempt, due_at).await.map(drop)
    }
}
