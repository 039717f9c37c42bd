//! The validation sweep: asks about the access token of every live session once a period, each in its slot of it.
//!
//! A slot is leased to the instance that visits it. Its rows are read page by page, their tokens are asked about within the
//! shared budget, and the proofs are written many in one step. An instance that dies leaves the slot to the others when
//! the lease ends; what it had proven by then is not asked again, since a fresh proof is left alone. Memory holds a few pages,
//! however many sessions there are.

use std::{pin::pin, time::Duration};

use claviger_core::{
    ids::{AttemptId, Version},
    policy::{Custody, limits},
    session::{SealedPair, Session, State},
    suspicion::Cause,
    sweep::Schedule,
    time::Timestamp,
    verdict::{AfterValidate, Trouble, after_validate},
};
use claviger_store::{StoreError, Visit, Wheel};
use futures_util::{StreamExt, TryStreamExt, stream};
use tokio_util::sync::CancellationToken;

use crate::{Engine, errors::Denied, prove::Asked};

/// What became of one row in a visit.
enum Checked {
    /// This is the row to write: it was proven, or is set aside because its token expired.
    Next(Box<Session>),
    /// Nothing is left to do.
    Done,
    /// Nothing was learnt.
    Later(Box<Session>, Trouble),
}

impl Engine {
    pub(crate) async fn keep_sweeping(&self, stop: &CancellationToken) {
        let due = || async { self.sweep_due().await };
        self.every(limits::SWEEP_LOOK_EVERY, stop, due).await;
    }

    /// Visits the slots that are due, until none is.
    ///
    /// # Errors
    /// If the store cannot be used. What was not visited is due again when the leases end.
    pub async fn sweep_due(&self) -> Result<(), StoreError> {
        self.visit_due(Wheel::Validation, |visit| self.validate_slot(visit)).await
    }

    /// Visits the slots of a wheel that are due, some at a time, the longest due first.
    pub(crate) async fn visit_due<F>(
        &self,
        wheel: Wheel,
        visit: impl Fn(Leased) -> F,
    ) -> Result<(), StoreError>
    where
        F: Future<Output = Result<(), StoreError>>,
    {
        let next = |()| async move {
            let (attempt, now) = (AttemptId(self.random()), self.now());
            let lease_until = now.after(limits::SLOT_LEASE);
            let taken = self.inner.parts.store.take_slots(wheel, attempt, now, lease_until, 1).await?;
            Ok(taken.first().map(|taken| (Leased { wheel, attempt, visit: *taken }, ())))
        };
        stream::try_unfold((), next).try_for_each_concurrent(limits::SLOTS_AT_ONCE, visit).await
    }

    async fn validate_slot(&self, slot: Leased) -> Result<(), StoreError> {
        let schedule = self.schedule();
        let next_visit = slot.visit.slot.next_visit(schedule.period, self.now());
        let rows =
            |after| self.inner.parts.store.in_slot(slot.wheel, slot.visit.slot, after, limits::BATCH_ROWS);
        let visited = self.holding(&slot, async {
            let mut after = None;
            loop {
                let page = rows(after).await?;
                after = page.last().map(|row| row.id);
                let more = page.len() == limits::BATCH_ROWS;
                self.validate_rows(page, &schedule, next_visit).await?;
                if !more {
                    return Ok(());
                }
            }
        });
        if visited.await? {
            self.leave(&slot, next_visit).await?;
        }
        Ok(())
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

    /// Asks about the rows until something was learnt about each, or its tries are used up. While the provider is in trouble it waits.
    async fn validate_rows(
        &self,
        rows: Vec<Session>,
        schedule: &Schedule,
        next_visit: Timestamp,
    ) -> Result<(), StoreError> {
        let mut left: Vec<Session> = rows;
        left.retain(|row| self.needs_visit(row, schedule, next_visit));
        let mut tries = 0;
        while !left.is_empty() && tries < limits::VALIDATION_TRIES {
            if let Some(pause) = self.inner.proof_breaker.left(self.now()) {
                tokio::time::sleep(pause).await;
            }
            let troubled = self.validate_once(left, next_visit).await?;
            // Trouble with the provider concerns all rows and is waited out; a row's own trouble is not.
            tries += u32::from(!troubled.iter().any(|(_, trouble)| trouble.is_the_providers()));
            left = troubled.into_iter().map(|(row, _)| row).collect();
        }
        if let Some(row) = left.first() {
            tracing::warn!(session = %row.id, count = left.len(), "nothing could be learnt about some access tokens");
        }
        Ok(())
    }

    /// Asks about each row once, and writes down what was learnt. Gives those of which nothing was.
    async fn validate_once(
        &self,
        rows: Vec<Session>,
        next_visit: Timestamp,
    ) -> Result<Vec<(Session, Trouble)>, StoreError> {
        let checks = stream::iter(rows).map(|row| self.check_row(row, next_visit));
        let mut checked =
            pin!(checks.buffer_unordered(limits::VALIDATIONS_AT_ONCE).ready_chunks(limits::PROOFS_RECORDED));
        let mut troubled = Vec::new();
        while let Some(chunk) = checked.next().await {
            let mut next = Vec::with_capacity(chunk.len());
            for checked in chunk {
                match checked? {
                    Checked::Next(row) => next.push(*row),
                    Checked::Later(row, trouble) => troubled.push((*row, trouble)),
                    Checked::Done => {}
                }
            }
            self.record(next).await?;
        }
        Ok(troubled)
    }

    async fn check_row(&self, row: Session, next_visit: Timestamp) -> Result<Checked, StoreError> {
        let Some(pair) = row.pair() else { return Ok(Checked::Done) };
        let generation = pair.generation;
        let kept_alive = self.keeps_alive(&row, pair, next_visit);
        if kept_alive && self.refresh_unasked(&row, generation).await {
            return Ok(Checked::Done);
        }
        if pair.expiry.passed(self.now()) {
            // The next visit tries again to refresh one that is to be kept alive.
            let parked = if kept_alive { None } else { row.park(generation).ok() };
            return Ok(parked.map_or(Checked::Done, |row| Checked::Next(Box::new(row))));
        }
        let (asked_at, answer) = match self.ask_about(&row, pair, Duration::MAX).await {
            Ok(asked) => asked,
            Err(Denied::Store(error @ StoreError::Corrupt(_))) => {
                tracing::error!(session = %row.id, %error, "a token cannot be validated");
                return Ok(Checked::Done);
            }
            Err(Denied::Store(error)) => return Err(error),
            // The key that is missing was named in the log.
            Err(_) => return Ok(Checked::Done),
        };
        match after_validate(&row, generation, &self.provider().client_id, &answer) {
            AfterValidate::Nothing(trouble) => Ok(Checked::Later(Box::new(row), trouble)),
            AfterValidate::Prove(generation) => {
                Ok(row.prove(generation, asked_at).map_or(Checked::Done, |row| Checked::Next(Box::new(row))))
            }
            after => self.settle_check(row, asked_at, after).await,
        }
    }

    /// Does what follows from an answer that is no proof.
    async fn settle_check(
        &self,
        row: Session,
        asked_at: Timestamp,
        after: AfterValidate,
    ) -> Result<Checked, StoreError> {
        match self.follow(&row, asked_at, after).await {
            Ok(Asked::Settled(row)) if matches!(row.state, State::Suspect(_)) => {
                if let (Custody::Server, Some(generation)) = (row.custody, row.generation())
                    && self.refresh_unasked(&row, generation).await
                {
                    return Ok(Checked::Done);
                }
                // A token that was about to expire says nothing of its user.
                let margin = self.settings().lifetimes.refresh_margin;
                if row.pair().is_some_and(|pair| !pair.expiry.within(asked_at, margin)) {
                    self.suspect_user(&row, Cause::AccessTokenRejected);
                }
                Ok(Checked::Done)
            }
            Ok(_) => Ok(Checked::Done),
            Err(Denied::Store(error)) => Err(error),
            Err(_) => Ok(Checked::Done),
        }
    }

    /// Whether something has to be done about a live row before the slot's next visit.
    fn needs_visit(&self, row: &Session, schedule: &Schedule, next_visit: Timestamp) -> bool {
        row.holding().zip(row.pair()).is_some_and(|(holding, pair)| {
            !schedule.stays_proven(holding.proven_at, next_visit) || self.keeps_alive(row, pair, next_visit)
        })
    }

    /// Whether the server refreshes this pair because it would not live until the next visit. One that no refresh can save is
    /// like any other: asked about while it lives, and then set aside, where the probe finds it.
    fn keeps_alive(&self, row: &Session, pair: &SealedPair, next_visit: Timestamp) -> bool {
        self.settings().sweep.keep_alive
            && row.custody == Custody::Server
            && pair.refresh.is_some()
            && pair.expiry.within(next_visit, self.settings().lifetimes.refresh_margin)
            && !row.beyond_refresh(self.now(), &self.provider().habits)
    }

    /// Refreshes a pair in the server's custody, though nobody asked. A refresh is a proof as well. False if the provider is in
    /// trouble with refreshes: that is not waited out here, or it would keep all others from being asked about.
    async fn refresh_unasked(&self, row: &Session, seen: Version) -> bool {
        !matches!(self.refresh(row.id, seen, None).await, Err(Denied::ProviderTrouble { .. }))
    }

    /// Writes rows that were proven or set aside, in one step. One that another writer changed meanwhile is changed by the same
    /// rule as it is now.
    async fn record(&self, next: Vec<Session>) -> Result<(), StoreError> {
        if next.is_empty() {
            return Ok(());
        }
        let engine = self.clone();
        self.detached(async move {
            let reading = engine.inner.known.reading();
            let written = engine.inner.parts.store.replace_all(&next).await?;
            for (row, written) in next.into_iter().zip(written) {
                match (&row.state, row.generation()) {
                    (State::Live(_), _) if written => engine.inner.known.proven(row, reading),
                    _ if written => engine.note_change(&row),
                    (State::Live(holding), Some(generation)) => {
                        let (id, at) = (row.id, holding.proven_at);
                        engine.amend(id, |row: Session| Ok((row.prove(generation, at)?, None))).await?;
                    }
                    _ => {}
                }
            }
            Ok(())
        })
        .await
    }

    pub(crate) fn schedule(&self) -> Schedule {
        let settings = self.settings();
        Schedule {
            period: settings.sweep.period,
            proof: settings.lifetimes.proof,
            slack: limits::SWEEP_SLACK,
        }
    }
}

/// A slot that is this instance's to visit.
#[derive(Clone, Copy)]
pub(crate) struct Leased {
    pub(crate) wheel: Wheel,
    pub(crate) attempt: AttemptId,
    pub(crate) visit: Visit,
}
