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
    session::{Refused, Session, State},
    suspicion::Cause,
    sweep::{Schedule, Slot},
    time::Timestamp,
    verdict::{AfterValidate, Trouble, TroubleKind, after_validate},
};
use claviger_store::{StoreError, Visit, Wheel};
use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{Engine, errors::Denied, prove::Asked};

/// A row in a visit.
struct Tried {
    row: Session,
    /// How often the provider was asked about it and said nothing.
    tries: u32,
}

/// What became of one row in a visit.
enum Checked {
    /// This is the row to write: it was proven, or is set aside because its token expired.
    Next(Box<Session>),
    /// Nothing is left to do.
    Done,
    /// Nothing was learnt.
    Later(Box<Tried>),
}

/// What became of a refresh that nobody asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Refreshed {
    /// The row has a new pair, or has ended, or is gone.
    Settled,
    /// Not now.
    Later,
    /// No refresh can save the pair.
    Never,
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
        let visit = |engine: Self, slot| async move { engine.validate_slot(slot).await };
        self.visit_due(Wheel::Validation, visit).await
    }

    /// Visits the slots of a wheel that are due, some at a time, the longest due first. One visit that fails or takes long
    /// takes nothing from the others. Visits that are under way end with the caller; their slots are due again when the leases end.
    pub(crate) async fn visit_due<F>(
        &self,
        wheel: Wheel,
        visit: impl Fn(Self, Leased) -> F,
    ) -> Result<(), StoreError>
    where
        F: Future<Output = Result<(), StoreError>> + Send + 'static,
    {
        let (mut visits, mut outcome) = (JoinSet::new(), Ok(()));
        loop {
            let free = limits::SLOTS_AT_ONCE - visits.len();
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

    async fn validate_slot(&self, leased: Leased) -> Result<(), StoreError> {
        let slot = leased.visit.slot;
        let mut due_at = self.next_visit(slot);
        let mut unsettled = 0;
        let visited = self.holding(&leased, async {
            let mut after = None;
            loop {
                let store = &self.inner.parts.store;
                let page = store.in_slot(leased.wheel, slot, after, limits::BATCH_ROWS).await?;
                after = page.last().map(|row| row.id);
                let more = page.len() == limits::BATCH_ROWS;
                unsettled += self.validate_rows(page, slot).await?;
                if !more {
                    return Ok(());
                }
            }
        });
        if visited.await? {
            if unsettled > 0 {
                due_at = due_at.min(self.now().after(limits::VISIT_AGAIN));
            }
            self.leave(&leased, due_at).await?;
        }
        Ok(())
    }

    /// When the slot is visited next, as seen from now: a visit may last longer than a period.
    fn next_visit(&self, slot: Slot) -> Timestamp {
        slot.next_visit(self.settings().sweep.period, self.now())
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

    /// Asks about the rows until something was learnt about each, or its tries are used up. While the provider is in trouble it
    /// waits. Gives how many rows want another visit soon.
    async fn validate_rows(&self, mut rows: Vec<Session>, slot: Slot) -> Result<usize, StoreError> {
        let mut unsettled = self.refresh_dying(&mut rows, slot).await;
        rows.retain(|row| self.needs_proof(row, slot));
        let mut left: Vec<_> = rows.into_iter().map(|row| Tried { row, tries: 0 }).collect();
        while !left.is_empty() {
            if let Some(pause) = self.inner.proof_breaker.left(self.now()) {
                tokio::time::sleep(pause).await;
            }
            left = self.validate_once(left, slot).await?;
            let before = left.len();
            left.retain(|tried| tried.tries < limits::VALIDATION_TRIES);
            unsettled += before - left.len();
            // One that may have trouble of its own keeps the others from asking least as the last.
            left.sort_by_key(|tried| tried.tries);
        }
        Ok(unsettled)
    }

    /// Refreshes the pairs in the server's custody that would not live until the next visit. A refresh is a proof as well. Leaves the
    /// rows of which there is still something to learn, and gives how many of them are to be refreshed later.
    async fn refresh_dying(&self, rows: &mut Vec<Session>, slot: Slot) -> usize {
        let next_visit = self.next_visit(slot);
        let dying: Vec<_> = rows.extract_if(.., |row| self.keeps_alive(row, next_visit)).collect();
        let refreshes = stream::iter(dying).map(|row| async {
            let refreshed = self.refresh_unasked(&row).await;
            // What came of it may have changed the row.
            let row = if refreshed == Refreshed::Settled { None } else { self.reread(row).await };
            (refreshed, row)
        });
        let mut refreshes = pin!(refreshes.buffer_unordered(limits::VALIDATIONS_AT_ONCE));
        let mut later = 0;
        while let Some((refreshed, row)) = refreshes.next().await {
            later += usize::from(refreshed == Refreshed::Later);
            // A pair that a refresh may save yet is not set aside.
            let given_up = refreshed == Refreshed::Never;
            rows.extend(row.filter(|row| given_up || !expired(row, self.now())));
        }
        later
    }

    async fn reread(&self, row: Session) -> Option<Session> {
        match self.inner.parts.store.load(row.id).await {
            Ok(row) => row.filter(|row| matches!(row.state, State::Live(_))),
            Err(_) => Some(row),
        }
    }

    /// Asks about each row once, and writes down what was learnt. Gives those of which nothing was.
    async fn validate_once(&self, rows: Vec<Tried>, slot: Slot) -> Result<Vec<Tried>, StoreError> {
        let checks = stream::iter(rows).map(|tried| self.check_row(tried, slot));
        let checked = checks.buffer_unordered(limits::VALIDATIONS_AT_ONCE);
        // While one lot is written the others wait for their places and answers as before.
        let written = checked.ready_chunks(limits::PROOFS_RECORDED).map(|lot| self.write_down(lot));
        written.buffer_unordered(2).try_concat().await
    }

    async fn write_down(&self, lot: Vec<Result<Checked, StoreError>>) -> Result<Vec<Tried>, StoreError> {
        let (mut next, mut troubled, mut outcome) = (Vec::with_capacity(lot.len()), Vec::new(), Ok(()));
        for checked in lot {
            match checked {
                Ok(Checked::Next(row)) => next.push(*row),
                Ok(Checked::Later(tried)) => troubled.push(*tried),
                Ok(Checked::Done) => {}
                Err(error) => outcome = Err(error),
            }
        }
        self.record(next).await?;
        outcome.map(|()| troubled)
    }

    async fn check_row(&self, tried: Tried, slot: Slot) -> Result<Checked, StoreError> {
        let Tried { row, tries } = tried;
        let Some(pair) = row.pair() else { return Ok(Checked::Done) };
        let generation = pair.generation;
        if expired(&row, self.now()) {
            // It expired while the provider was in trouble, and a refresh may save it yet.
            let saved = self.keeps_alive(&row, self.next_visit(slot));
            if saved && self.refresh_unasked(&row).await != Refreshed::Never {
                return Ok(Checked::Done);
            }
            return Ok(row.park(generation).map_or(Checked::Done, |row| Checked::Next(Box::new(row))));
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
            AfterValidate::Nothing(trouble) => Ok(self.try_later(Tried { row, tries }, &trouble)),
            AfterValidate::Prove(generation) => {
                Ok(row.prove(generation, asked_at).map_or(Checked::Done, |row| Checked::Next(Box::new(row))))
            }
            after => self.settle_check(row, asked_at, after).await,
        }
    }

    /// Trouble with the provider concerns all rows and is waited out. But what looks like it may be the trouble of one token, and
    /// then waiting would keep the slot, and with it others: so no row is asked about too often in a visit.
    fn try_later(&self, tried: Tried, trouble: &Trouble) -> Checked {
        let everybodys = matches!(trouble.kind, TroubleKind::NotSent | TroubleKind::Status(429));
        let tries = tried.tries + u32::from(!everybodys);
        if tries >= limits::VALIDATION_TRIES {
            tracing::warn!(session = %tried.row.id, ?trouble, "nothing can be learnt about an access token");
            // A provider that says nothing readable about a token will not do so in a moment either.
            if !trouble.is_the_providers() {
                return Checked::Done;
            }
        }
        Checked::Later(Box::new(Tried { tries, ..tried }))
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
                if row.custody == Custody::Server && self.refresh_unasked(&row).await == Refreshed::Settled {
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

    /// Whether the token of a live row has to be asked about before the slot's next visit.
    fn needs_proof(&self, row: &Session, slot: Slot) -> bool {
        let (schedule, next_visit) = (self.schedule(), self.next_visit(slot));
        row.holding()
            .filter(|holding| holding.pair.is_some())
            .is_some_and(|holding| !schedule.stays_proven(holding.proven_at, next_visit))
    }

    /// Whether the server refreshes this pair because it would not live until the next visit.
    fn keeps_alive(&self, row: &Session, next_visit: Timestamp) -> bool {
        self.settings().sweep.keep_alive
            && row.custody == Custody::Server
            && row.pair().is_some_and(|pair| {
                pair.refresh.is_some()
                    && pair.expiry.within(next_visit, self.settings().lifetimes.refresh_margin)
            })
    }

    /// Refreshes a pair in the server's custody, though nobody asked.
    async fn refresh_unasked(&self, row: &Session) -> Refreshed {
        let Some(seen) = row.generation() else { return Refreshed::Settled };
        match self.refresh(row.id, seen, None).await {
            Ok(_) | Err(Denied::Ended(_) | Denied::NoSession) => Refreshed::Settled,
            Err(
                Denied::ProviderTrouble { .. }
                | Denied::Misconfigured
                | Denied::Store(StoreError::Unavailable(_)),
            ) => Refreshed::Later,
            Err(_) => Refreshed::Never,
        }
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
                    (_, Some(generation)) => engine.record_after_all(&row, generation).await?,
                    _ => {}
                }
            }
            Ok(())
        })
        .await
    }

    async fn record_after_all(&self, next: &Session, generation: Version) -> Result<(), StoreError> {
        let amended = self.amend(next.id, |row: Session| match (&next.state, &row.state) {
            (State::Live(holding), State::Live(_)) => Ok((row.prove(generation, holding.proven_at)?, None)),
            (State::Parked(_), State::Live(_)) => Ok((row.park(generation)?, None)),
            // What others learnt of it meanwhile is younger.
            _ => Err(Refused::Superseded),
        });
        amended.await.map(drop)
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

/// Whether the row's access token is certainly past its life.
fn expired(row: &Session, now: Timestamp) -> bool {
    row.pair().is_some_and(|pair| pair.expiry.passed(now))
}

/// A slot that is this instance's to visit.
#[derive(Clone, Copy)]
pub(crate) struct Leased {
    pub(crate) wheel: Wheel,
    pub(crate) attempt: AttemptId,
    pub(crate) visit: Visit,
}
