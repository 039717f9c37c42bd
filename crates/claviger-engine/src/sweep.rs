//! The validation sweep: asks about the access token of every live session once a period, each in its slot of it.
//!
//! The rows of the slots that are due go one after another through the same pipe: they are read page by page, their tokens are asked
//! about within the shared budget, some at a time, and the proofs are written many in one step. What an instance had proven before
//! it died is not asked again, since a fresh proof is left alone. Memory holds a few pages, however many sessions there are.

use std::{pin::pin, sync::atomic::Ordering, task::Poll, time::Duration};

use claviger_core::{
    ids::Version,
    policy::{Custody, limits},
    session::{Refused, SealedPair, Session, State},
    suspicion::Cause,
    sweep::{Schedule, Slot},
    time::Timestamp,
    verdict::{AfterValidate, Trouble, TroubleKind, ValidateAnswer, after_validate},
};
use claviger_store::{StoreError, Wheel};
use futures_util::{Stream, StreamExt, TryStreamExt, stream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{
    Engine,
    errors::Denied,
    prove::Asked,
    visits::{Leased, Line, Turn},
};

/// What came of one row in a visit.
struct Checked {
    /// This is the row to write: it was proven, or is set aside because its token expired.
    next: Option<Box<Session>>,
    /// There is something to learn of it yet, soon.
    again: bool,
}

/// What one question about a row's pair came to.
enum Answered {
    /// The token of this generation was good at this time.
    Good(Version, Timestamp),
    /// Nothing was asked: the token of this generation expired.
    Expired(Version),
    /// Nothing is left to do.
    Settled,
    /// Nothing can be done now.
    Later,
    /// Nothing was learnt.
    Nothing(Trouble),
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
        let mut line = Line::default();
        let visit = |engine: Self, slot| {
            let turn = line.join();
            async move { engine.validate_slot(slot, turn).await }
        };
        self.visit_due(Wheel::Validation, || self.slots_at_once(), visit).await
    }

    /// As many slots as keep the pipe full, by the last one's number of rows and the budget: what stands in line here could be visited by
    /// others, above all if it is only our own way to the provider that is broken.
    fn slots_at_once(&self) -> usize {
        let rows = self.inner.rows_in_slot.load(Ordering::Relaxed);
        let in_trouble = self.inner.proof_breaker.left(self.now()).is_some();
        let soon =
            limits::SWEEP_LOOK_EVERY.as_secs() * u64::from(self.settings().sweep.validations_per_second);
        let in_line = usize::try_from(soon).unwrap_or(usize::MAX).min(limits::ROWS_IN_LINE);
        let filling = in_line.checked_div(rows).filter(|_| !in_trouble).unwrap_or(0);
        filling.clamp(limits::SLOTS_AT_ONCE_LEAST, limits::SLOTS_AT_ONCE)
    }

    async fn validate_slot(&self, leased: Leased, mut turn: Turn) -> Result<(), StoreError> {
        let (mut due_at, mut again) = (self.next_visit(leased.visit.slot), false);
        let visited = self.holding(&leased, async {
            turn.comes().await;
            again = self.validate_rows(&leased, turn).await?;
            Ok(())
        });
        if visited.await? {
            if again {
                due_at = due_at.min(self.now().after(limits::VISIT_AGAIN));
            }
            self.leave(&leased, due_at).await?;
        }
        Ok(())
    }

    /// Asks about the slot's rows, and writes down what was learnt: in one step of all those that were answered while the last
    /// lot was written. Says whether there is something to learn yet, soon.
    async fn validate_rows(&self, leased: &Leased, turn: Turn) -> Result<bool, StoreError> {
        let (slot, failed) = (leased.visit.slot, CancellationToken::new());
        let rows = self.rows_of(leased, turn).take_until(failed.cancelled());
        let checks = rows.map(|row| async move { self.check_row(row?, slot).await });
        let (learnt, mut lots) = mpsc::channel(limits::PROOFS_RECORDED);
        let ask = async {
            let mut checks = pin!(checks.buffer_unordered(limits::VALIDATIONS_AT_ONCE));
            let mut rows = 0;
            while let Some(checked) = checks.next().await {
                rows += 1;
                // It is taken as long as rows are asked about.
                let _ = learnt.send(checked).await;
            }
            if !failed.is_cancelled() {
                self.inner.rows_in_slot.store(rows, Ordering::Relaxed);
            }
            drop(learnt);
        };
        let write = async {
            let (mut lot, mut again, mut outcome) = (Vec::new(), false, Ok(()));
            while gather(&mut lots, &mut lot).await {
                match self.write_down(lot.drain(..)).await {
                    Ok(more) => again |= more,
                    Err(error) => {
                        failed.cancel();
                        outcome = Err(error);
                    }
                }
            }
            outcome.map(|()| again)
        };
        tokio::join!(ask, write).1
    }

    /// The slot's rows. Who comes next in the line has its turn when all were handed out.
    fn rows_of(&self, leased: &Leased, turn: Turn) -> impl Stream<Item = Result<Session, StoreError>> {
        let Leased { wheel, visit, .. } = *leased;
        let pages = stream::try_unfold(Some(None), move |from| async move {
            let Some(after) = from else { return Ok(None) };
            let page = self.inner.parts.store.in_slot(wheel, visit.slot, after, limits::BATCH_ROWS).await?;
            let next = (page.len() == limits::BATCH_ROWS).then(|| page.last().map(|row| row.id));
            Ok(Some((stream::iter(page).map(Ok), next)))
        });
        let mut turn = Some(turn);
        pages.try_flatten().chain(stream::poll_fn(move |_| {
            drop(turn.take());
            Poll::Ready(None)
        }))
    }

    /// When the slot is visited next, as seen from now: a visit may last longer than a period.
    fn next_visit(&self, slot: Slot) -> Timestamp {
        slot.next_visit(self.settings().sweep.period, self.now())
    }

    /// Asks about a row until something was learnt, or its tries are used up.
    async fn check_row(&self, row: Session, slot: Slot) -> Result<Checked, StoreError> {
        let (row, again) = match self.refresh_dying(row, slot).await {
            (Some(row), again) if self.needs_proof(&row, slot) => (row, again),
            (_, again) => return Ok(Checked { next: None, again }),
        };
        let mut tries = 0;
        loop {
            let writes = |next: Option<Session>| Ok(Checked { next: next.map(Box::new), again });
            let trouble = match self.ask_once(&row, slot).await? {
                Answered::Good(generation, asked_at) => return writes(row.prove(generation, asked_at).ok()),
                Answered::Expired(generation) => return writes(row.park(generation).ok()),
                Answered::Settled => return writes(None),
                Answered::Later => return Ok(Checked { next: None, again: true }),
                Answered::Nothing(trouble) => trouble,
            };
            // Trouble with the provider concerns all rows and is waited out. But what looks like it may be the trouble of one
            // token, and then waiting would keep the slot.
            tries += u32::from(!matches!(trouble.kind, TroubleKind::NotSent | TroubleKind::Status(429)));
            if tries >= limits::VALIDATION_TRIES {
                tracing::warn!(session = %row.id, ?trouble, "nothing can be learnt about an access token");
                // A provider that says nothing readable about a token will not do so in a moment either.
                return Ok(Checked { next: None, again: again || trouble.is_the_providers() });
            }
            tokio::time::sleep(limits::VALIDATION_PAUSE).await;
        }
    }

    /// Refreshes a pair in the server's custody that would not live until the next visit. A refresh is a proof as well. Gives the
    /// row if there is still something to learn of it, and says whether it is to be refreshed later.
    async fn refresh_dying(&self, row: Session, slot: Slot) -> (Option<Session>, bool) {
        if !self.keeps_alive(&row, self.next_visit(slot)) {
            return (Some(row), false);
        }
        let refreshed = self.refresh_unasked(&row).await;
        if refreshed == Refreshed::Settled {
            return (None, false);
        }
        // What came of it may have changed the row. A pair that a refresh may save yet is not set aside.
        let (row, given_up) = (self.reread(row).await, refreshed == Refreshed::Never);
        (row.filter(|row| given_up || !expired(row, self.now())), refreshed == Refreshed::Later)
    }

    async fn reread(&self, row: Session) -> Option<Session> {
        match self.inner.parts.store.load(row.id).await {
            Ok(row) => row.filter(|row| matches!(row.state, State::Live(_))),
            Err(_) => Some(row),
        }
    }

    /// Writes a lot down. Says whether there is something to learn yet of one of them.
    async fn write_down(
        &self,
        lot: impl Iterator<Item = Result<Checked, StoreError>>,
    ) -> Result<bool, StoreError> {
        let (mut next, mut again, mut outcome) = (Vec::new(), false, Ok(()));
        for checked in lot {
            match checked {
                Ok(checked) => {
                    next.extend(checked.next.map(|row| *row));
                    again |= checked.again;
                }
                Err(error) => outcome = Err(error),
            }
        }
        self.record(next).await?;
        outcome.map(|()| again)
    }

    /// Asks about a row once.
    async fn ask_once(&self, row: &Session, slot: Slot) -> Result<Answered, StoreError> {
        let Some(pair) = row.pair() else { return Ok(Answered::Settled) };
        let generation = pair.generation;
        if expired(row, self.now()) {
            // It expired while the provider was in trouble, and a refresh may save it yet.
            let saved = self.keeps_alive(row, self.next_visit(slot));
            match if saved { self.refresh_unasked(row).await } else { Refreshed::Never } {
                Refreshed::Settled => return Ok(Answered::Settled),
                Refreshed::Later => return Ok(Answered::Later),
                Refreshed::Never => {}
            }
            return Ok(Answered::Expired(generation));
        }
        let (asked_at, answer) = match self.ask_in_turn(row, pair).await {
            Ok(asked) => asked,
            Err(Denied::Store(error @ StoreError::Corrupt(_))) => {
                tracing::error!(session = %row.id, %error, "a token cannot be validated");
                return Ok(Answered::Settled);
            }
            Err(Denied::Store(error)) => return Err(error),
            // The key that is missing was named in the log.
            Err(_) => return Ok(Answered::Settled),
        };
        match after_validate(row, generation, &self.provider().client_id, &answer) {
            AfterValidate::Nothing(trouble) => Ok(Answered::Nothing(trouble)),
            AfterValidate::Prove(generation) => Ok(Answered::Good(generation, asked_at)),
            after => self.settle_check(row, asked_at, after).await.map(|()| Answered::Settled),
        }
    }

    /// Asks about a pair as one of not too many at the same time.
    async fn ask_in_turn(
        &self,
        row: &Session,
        pair: &SealedPair,
    ) -> Result<(Timestamp, ValidateAnswer), Denied> {
        // It is never closed.
        let _place = self.inner.validating.acquire().await.map_err(|_| Denied::lost_task())?;
        self.ask_about(row, pair, Duration::MAX).await
    }

    /// Does what follows from an answer that is no proof.
    async fn settle_check(
        &self,
        row: &Session,
        asked_at: Timestamp,
        after: AfterValidate,
    ) -> Result<(), StoreError> {
        let row = match self.follow(row, asked_at, after).await {
            Ok(Asked::Settled(row)) if matches!(row.state, State::Suspect(_)) => row,
            Err(Denied::Store(error)) => return Err(error),
            _ => return Ok(()),
        };
        if row.custody == Custody::Server && self.refresh_unasked(&row).await == Refreshed::Settled {
            return Ok(());
        }
        // A token that was about to expire says nothing of its user.
        let margin = self.settings().lifetimes.refresh_margin;
        if row.pair().is_some_and(|pair| !pair.expiry.within(asked_at, margin)) {
            self.suspect_user(&row, Cause::AccessTokenRejected);
        }
        Ok(())
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
        // It is never closed.
        let Ok(_place) = self.inner.refreshing.acquire().await else { return Refreshed::Later };
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

/// Takes what was learnt within a moment, up to a lot: a commit costs as much as many rows. False if nothing comes any more.
async fn gather<T>(learnt: &mut mpsc::Receiver<T>, lot: &mut Vec<T>) -> bool {
    let mut took = learnt.recv_many(lot, limits::PROOFS_RECORDED).await;
    let fill = async {
        while took > 0 && lot.len() < limits::PROOFS_RECORDED {
            took = learnt.recv_many(lot, limits::PROOFS_RECORDED - lot.len()).await;
        }
    };
    // What came by then is in the lot.
    let _ = tokio::time::timeout(limits::PROOFS_GATHERED, fill).await;
    !lot.is_empty()
}

/// Whether the row's access token is certainly past its life.
fn expired(row: &Session, now: Timestamp) -> bool {
    row.pair().is_some_and(|pair| pair.expiry.passed(now))
}
