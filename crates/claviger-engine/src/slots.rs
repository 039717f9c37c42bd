//! Leased slots: a slot of the sweep or of the connection checks is leased to the instance that
//! works on it. When an instance dies, its slots go to the others as soon as the leases end.

use std::{pin::pin, sync::Arc, time::Duration};

use claviger_core::{Slot, Timestamp, limits};
use claviger_store::{Item, Lease, Queue, Store, StoreError, SweepKind};
use tokio::task::JoinSet;

use crate::{Env, part::part};

part! {
    /// The slots that all instances share.
    pub(crate) struct Slots needs {
        env: Env,
        store: Arc<dyn Store>,
    }
}

impl Slots {
    /// Works on the slots that are due, `at_once` at a time, the longest due first. A slot that
    /// fails or takes long does not affect the others. `work` gives the time when its slot is due
    /// again. It ends with the caller; its slots are then due again when the leases end.
    pub(crate) async fn for_each_due<F>(
        self: &Arc<Self>,
        kind: SweepKind,
        at_once: impl Fn() -> usize,
        mut work: impl FnMut(Lease<Slot>) -> F,
    ) -> Result<(), StoreError>
    where
        F: Future<Output = Result<Timestamp, StoreError>> + Send + 'static,
    {
        let (mut running, mut outcome) = (JoinSet::new(), Ok(()));
        loop {
            let free = at_once().saturating_sub(running.len());
            if outcome.is_ok() && free > 0 {
                let terms = self.env.lease(limits::SLOT_LEASE, self.period(kind));
                match self.store.take_as(Queue::Slots(kind), terms, free, Item::slot).await {
                    Ok(taken) => taken.into_iter().for_each(|slot| {
                        let (slots, work) = (Arc::clone(self), work(slot.clone()));
                        running.spawn(async move { slots.hold(slot, work).await });
                    }),
                    Err(error) => outcome = Err(error),
                }
            }
            // Other slots become due while the work on one takes its time.
            let mut ended = match tokio::time::timeout(limits::SWEEP_LOOK_EVERY, running.join_next()).await {
                Ok(None) => return outcome,
                Ok(ended) => ended,
                Err(_) => None,
            };
            // Taking slots is a write. So all that ended in the meantime are replaced at once.
            while let Some(done) = ended {
                match done {
                    Ok(done) => outcome = outcome.and(done),
                    Err(lost) => tracing::error!(%lost, "the work on a slot ended without an outcome"),
                }
                ended = running.try_join_next();
            }
        }
    }

    fn period(&self, kind: SweepKind) -> Duration {
        let sweep = &self.env.settings().sweep;
        match kind {
            SweepKind::Validation => sweep.period,
            SweepKind::Connections => sweep.connection_check_period,
        }
    }

    /// Does the work on a slot, prolongs its lease in the meantime, and gives it back. A slot that
    /// went to another instance is left to that.
    async fn hold(
        &self,
        slot: Lease<Slot>,
        work: impl Future<Output = Result<Timestamp, StoreError>>,
    ) -> Result<(), StoreError> {
        let mut work = pin!(work);
        loop {
            match tokio::time::timeout(limits::SLOT_LEASE / 3, &mut work).await {
                Ok(due_at) => return slot.reschedule(&*self.store, due_at?).await.map(drop),
                Err(_) => {
                    let until = self.env.now().after(limits::SLOT_LEASE);
                    if !slot.extend(&*self.store, until).await? {
                        return Ok(());
                    }
                }
            }
        }
    }
}
