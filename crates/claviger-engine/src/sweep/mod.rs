//! The validation sweep: validates the token of every live session once per period, each in its
//! slot of the period. Where the provider has no validation, it only refreshes and parks.
//!
//! The rows of the slots that are due go one after another through the same pipe. They are read
//! page by page, their tokens are validated within the shared rate limit, several at a time, and
//! the proofs are written in batches. Memory holds a few pages, however many sessions there are.
//! What an instance proved before it died is not asked again, since the sweep skips rows with a
//! fresh proof.

mod fifo;
pub(crate) mod load;

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::Poll,
};

use claviger_core::{
    AfterValidate, Cause, Change, Custody, FailureKind, ProviderFailure, Purpose, Schedule, SealedPair,
    Session, Slot, State, Timestamp, Version, limits,
};
use claviger_store::{Lease, StoreError, SweepKind};
use futures_util::{Stream, StreamExt, TryStreamExt, stream};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use crate::{Asked, Denied, Disconnects, Env, Refresher, Rows, Slots, Validated, Validator, part::part};
use fifo::{Fifo, Ticket};

part! {
    /// Validates tokens that nobody uses.
    pub(crate) struct Sweep needs {
        env: Env,
        rows: Arc<Rows>,
        slots: Arc<Slots>,
        validator: Arc<Validator>,
        disconnects: Arc<Disconnects>,
        refresher: Arc<Refresher>,
    } owns {
        /// Limits the tokens that are validated at the same time.
        validating: Semaphore = Semaphore::new(limits::VALIDATIONS_AT_ONCE),
        /// Limits the refreshes that are started at the same time, since requests share their
        /// bucket.
        refreshing: Semaphore = Semaphore::new(limits::UNASKED_REFRESHES_AT_ONCE),
        /// Number of rows in the slot that was validated last.
        rows_in_slot: AtomicUsize = AtomicUsize::new(0),
    }
}

/// When a slot is visited again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Revisit {
    /// In the next period.
    NextPeriod,
    /// Soon, since something could not be learnt now.
    Soon,
}

/// What came of one row.
struct CheckedRow {
    /// The change to write: the row was proven, or is parked because its token expired.
    write: Option<Box<Change>>,
    revisit: Revisit,
}

/// What one question about a row's pair came to.
enum Answered {
    /// The token of this generation was good at this time.
    Good(Version, Timestamp),
    /// Nothing was asked: the token of this generation expired.
    Expired(Version),
    /// Nothing is left to do.
    Done,
    /// Nothing can be done now.
    Later,
    /// The provider did not say.
    NoAnswer(ProviderFailure),
}

/// What came of a refresh that no request waits for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Refreshed {
    /// The row has a new pair, or has ended, or is gone.
    Done,
    /// It may work later.
    Later,
    /// No refresh can save the pair.
    Never,
}

impl Sweep {
    /// Validates the slots that are due, until none is.
    ///
    /// # Errors
    /// If the store cannot be used. The remaining slots are due again when their leases end.
    pub(crate) async fn validate_due(self: &Arc<Self>) -> Result<(), StoreError> {
        let mut fifo = Fifo::default();
        let work = |slot: Lease<Slot>| {
            let (sweep, ticket) = (Arc::clone(self), fifo.join());
            async move { sweep.validate_slot(slot.item, ticket).await }
        };
        self.slots.for_each_due(SweepKind::Validation, || self.slots_at_once(), work).await
    }

    /// As many slots as keep the pipe full, by the rows of the last slot and the rate limit. Other
    /// instances could validate the slots that wait here, above all if only our own connection to
    /// the provider is broken.
    fn slots_at_once(&self) -> usize {
        let rows = self.rows_in_slot.load(Ordering::Relaxed);
        let per_second = u64::from(self.env.settings().sweep.validations_per_second);
        let soon = limits::SWEEP_LOOK_EVERY.as_secs() * per_second;
        let in_line = usize::try_from(soon).unwrap_or(usize::MAX).min(limits::ROWS_IN_LINE);
        let filling = in_line.checked_div(rows).filter(|_| !self.validator.is_breaker_open()).unwrap_or(0);
        filling.clamp(limits::SLOTS_AT_ONCE_LEAST, limits::SLOTS_AT_ONCE)
    }

    /// Validates the slot's rows when its turn has come. Gives the time of its next visit.
    async fn validate_slot(&self, slot: Slot, mut ticket: Ticket) -> Result<Timestamp, StoreError> {
        let next_visit = self.next_visit(slot);
        ticket.first().await;
        Ok(match self.validate_rows(slot, ticket).await? {
            Revisit::NextPeriod => next_visit,
            Revisit::Soon => next_visit.min(self.env.now().after(limits::VISIT_AGAIN)),
        })
    }

    /// Validates the slot's rows, and writes down what was learnt while it asks about the next
    /// ones.
    async fn validate_rows(&self, slot: Slot, ticket: Ticket) -> Result<Revisit, StoreError> {
        let (checked, results) = mpsc::channel(limits::PROOFS_RECORDED);
        let failed = CancellationToken::new();
        let ask = self.ask_about_rows(slot, ticket, &failed, checked);
        let write = self.write_results(results, &failed);
        tokio::join!(ask, write).1
    }

    /// Checks the slot's rows, several at a time, until all are checked or writing failed.
    async fn ask_about_rows(
        &self,
        slot: Slot,
        ticket: Ticket,
        failed: &CancellationToken,
        checked: mpsc::Sender<Result<CheckedRow, StoreError>>,
    ) {
        let rows = self.rows_of(slot, ticket).take_until(failed.cancelled());
        let checks = rows.map(|row| async move { self.check_row(row?, slot).await });
        let mut checks = pin!(checks.buffer_unordered(limits::VALIDATIONS_AT_ONCE));
        let mut rows = 0;
        while let Some(result) = checks.next().await {
            rows += 1;
            // It fails only if the receiver is gone, which outlives this loop.
            let _ = checked.send(result).await;
        }
        if !failed.is_cancelled() {
            self.rows_in_slot.store(rows, Ordering::Relaxed);
        }
    }

    /// Writes what was learnt in batches, until no result comes any more.
    async fn write_results(
        &self,
        mut results: mpsc::Receiver<Result<CheckedRow, StoreError>>,
        failed: &CancellationToken,
    ) -> Result<Revisit, StoreError> {
        let (mut batch, mut outcome) = (Vec::new(), Ok(Revisit::NextPeriod));
        while gather(&mut results, &mut batch).await {
            match self.write_batch(batch.drain(..)).await {
                Ok(revisit) => outcome = outcome.map(|before: Revisit| before.max(revisit)),
                Err(error) => {
                    failed.cancel();
                    outcome = Err(error);
                }
            }
        }
        outcome
    }

    async fn write_batch(
        &self,
        batch: impl Iterator<Item = Result<CheckedRow, StoreError>>,
    ) -> Result<Revisit, StoreError> {
        let (mut changes, mut outcome) = (Vec::new(), Ok(Revisit::NextPeriod));
        for checked in batch {
            match checked {
                Ok(CheckedRow { write, revisit }) => {
                    changes.extend(write.map(|change| *change));
                    outcome = outcome.map(|before: Revisit| before.max(revisit));
                }
                Err(error) => outcome = Err(error),
            }
        }
        self.rows.record_checks(changes).await?;
        outcome
    }

    /// The slot's rows. When all were handed out, the ticket is dropped, so that the next slot
    /// begins.
    fn rows_of(&self, slot: Slot, ticket: Ticket) -> impl Stream<Item = Result<Session, StoreError>> {
        let pages = stream::try_unfold(Some(None), move |from| async move {
            let Some(after) = from else { return Ok(None) };
            let page = self.rows.in_slot(SweepKind::Validation, slot, after).await?;
            let next = (page.len() == limits::BATCH_ROWS).then(|| page.last().map(|row| row.id));
            Ok(Some((stream::iter(page).map(Ok), next)))
        });
        let mut ticket = Some(ticket);
        pages.try_flatten().chain(stream::poll_fn(move |_| {
            drop(ticket.take());
            Poll::Ready(None)
        }))
    }

    /// The slot's next visit as seen from now: a visit may last longer than a period.
    fn next_visit(&self, slot: Slot) -> Timestamp {
        slot.next_visit(self.env.settings().sweep.period, self.env.now())
    }

    /// Asks about a row until something was learnt, or its tries are used up.
    async fn check_row(&self, row: Session, slot: Slot) -> Result<CheckedRow, StoreError> {
        let (row, revisit) = self.refresh_expiring(row, slot).await;
        let Some(row) = row.filter(|row| self.needs_proof(row, slot)) else {
            return Ok(CheckedRow { write: None, revisit });
        };
        let mut tries = 0;
        loop {
            let write = |change: Option<Change>| Ok(CheckedRow { write: change.map(Box::new), revisit });
            let failure = match self.ask_once(&row, slot).await? {
                Answered::Good(generation, asked_at) => return write(row.prove(generation, asked_at).ok()),
                Answered::Expired(generation) => return write(row.park(generation).ok()),
                Answered::Done => return write(None),
                Answered::Later => return Ok(CheckedRow { write: None, revisit: Revisit::Soon }),
                Answered::NoAnswer(failure) => failure,
            };
            // A failure that concerns all rows is waited out. One that may concern only this token
            // is not, since that would keep the slot.
            tries += u32::from(!matches!(failure.kind, FailureKind::NotSent | FailureKind::Status(429)));
            if tries >= limits::VALIDATION_TRIES {
                tracing::warn!(session = %row.id, ?failure, "nothing can be learnt about an access token");
                // A provider whose answer about a token cannot be read will not change that soon.
                let revisit = if failure.is_the_providers() { Revisit::Soon } else { revisit };
                return Ok(CheckedRow { write: None, revisit });
            }
            tokio::time::sleep(limits::VALIDATION_PAUSE).await;
        }
    }

    /// Refreshes a pair in the server's custody that would not live until the next visit. A refresh
    /// is a proof as well. Gives the row if there is still something to learn of it.
    async fn refresh_expiring(&self, row: Session, slot: Slot) -> (Option<Session>, Revisit) {
        if !self.keeps_alive(&row, self.next_visit(slot)) {
            return (Some(row), Revisit::NextPeriod);
        }
        let refreshed = self.refresh(&row).await;
        if refreshed == Refreshed::Done {
            return (None, Revisit::NextPeriod);
        }
        // The refresh may have changed the row. A pair that a later refresh may save is not parked.
        let row = self.reread(row).await;
        let parks = refreshed == Refreshed::Never;
        let row = row.filter(|row| parks || !is_expired(row, self.env.now()));
        (row, if refreshed == Refreshed::Later { Revisit::Soon } else { Revisit::NextPeriod })
    }

    async fn reread(&self, row: Session) -> Option<Session> {
        match self.rows.peek_stored(row.id).await {
            Ok(row) => row.filter(|row| matches!(row.state, State::Live(_))),
            Err(_) => Some(row),
        }
    }

    /// Asks about a row once.
    async fn ask_once(&self, row: &Session, slot: Slot) -> Result<Answered, StoreError> {
        let Some(pair) = row.pair() else { return Ok(Answered::Done) };
        let generation = pair.generation;
        if is_expired(row, self.env.now()) {
            // It expired while the provider did not answer, and a refresh may still save it.
            let may_save = self.keeps_alive(row, self.next_visit(slot));
            return Ok(match if may_save { self.refresh(row).await } else { Refreshed::Never } {
                Refreshed::Done => Answered::Done,
                Refreshed::Later => Answered::Later,
                Refreshed::Never => Answered::Expired(generation),
            });
        }
        // Without validation there is nothing to learn while the token lives.
        let asked = Denied::leave_out(self.ask(row, pair).await, row.id)?.flatten();
        let Some(Asked { at, after, .. }) = asked else { return Ok(Answered::Done) };
        match after {
            AfterValidate::Nothing(failure) => Ok(Answered::NoAnswer(failure)),
            AfterValidate::Prove(generation) => Ok(Answered::Good(generation, at)),
            after => self.record(row, at, after).await.map(|()| Answered::Done),
        }
    }

    /// Asks about a pair, within the limit of questions at the same time.
    async fn ask(&self, row: &Session, pair: &SealedPair) -> Result<Option<Asked>, Denied> {
        // It is never closed.
        let _permit = self.validating.acquire().await.map_err(|_| Denied::lost_task())?;
        self.validator.ask(row, pair, Purpose::Sweep).await
    }

    /// Records an answer that is no proof.
    async fn record(
        &self,
        row: &Session,
        asked_at: Timestamp,
        after: AfterValidate,
    ) -> Result<(), StoreError> {
        let row = match self.validator.record(row, asked_at, after).await {
            Ok(Validated::Recorded(row)) if matches!(row.state, State::Suspect(_)) => row,
            Err(Denied::Store(error)) => return Err(error),
            _ => return Ok(()),
        };
        if row.custody == Custody::Server && self.refresh(&row).await == Refreshed::Done {
            return Ok(());
        }
        // The rejection of a token that was about to expire says nothing about its user.
        let margin = self.env.settings().lifetimes.refresh_margin;
        if row.pair().is_some_and(|pair| !pair.expiry.within(asked_at, margin)) {
            self.disconnects.suspect_user(&row, Cause::AccessTokenRejected);
        }
        Ok(())
    }

    /// Whether the token of a live row has to be validated before the slot's next visit.
    fn needs_proof(&self, row: &Session, slot: Slot) -> bool {
        let settings = self.env.settings();
        let schedule = Schedule {
            period: settings.sweep.period,
            proof: settings.lifetimes.proof,
            slack: limits::SWEEP_SLACK,
        };
        let next_visit = self.next_visit(slot);
        row.active()
            .filter(|active| active.pair.is_some())
            .is_some_and(|active| !schedule.stays_proven(active.proven_at, self.env.now(), next_visit))
    }

    /// Whether the server refreshes this pair because it would not live until the next visit.
    fn keeps_alive(&self, row: &Session, next_visit: Timestamp) -> bool {
        let settings = self.env.settings();
        settings.sweep.keep_alive
            && row.custody == Custody::Server
            && row.pair().is_some_and(|pair| {
                pair.refresh.is_some() && pair.expiry.within(next_visit, settings.lifetimes.refresh_margin)
            })
    }

    /// Refreshes a pair in the server's custody, although no request asked for it.
    async fn refresh(&self, row: &Session) -> Refreshed {
        let Some(seen) = row.generation() else { return Refreshed::Done };
        // It is never closed.
        let Ok(_permit) = self.refreshing.acquire().await else { return Refreshed::Later };
        match self.refresher.refresh(row.id, seen, None, limits::ADOPTION_WAIT).await {
            Ok(_) | Err(Denied::Ended(_) | Denied::NoSession) => Refreshed::Done,
            Err(Denied::ProviderUnavailable { .. } | Denied::Misconfigured) => Refreshed::Later,
            Err(Denied::Store(error)) if !matches!(error, StoreError::Corrupt(_)) => Refreshed::Later,
            Err(_) => Refreshed::Never,
        }
    }
}

/// Takes the results of a moment, up to a batch, since a commit costs as much as many rows. False
/// if no result comes any more.
async fn gather<T>(results: &mut mpsc::Receiver<T>, batch: &mut Vec<T>) -> bool {
    let mut took = results.recv_many(batch, limits::PROOFS_RECORDED).await;
    let fill = async {
        while took > 0 && batch.len() < limits::PROOFS_RECORDED {
            took = results.recv_many(batch, limits::PROOFS_RECORDED - batch.len()).await;
        }
    };
    // At the end of the moment the batch holds what came by then.
    let _ = tokio::time::timeout(limits::PROOFS_GATHERED, fill).await;
    !batch.is_empty()
}

/// Whether the row's access token has certainly expired.
fn is_expired(row: &Session, now: Timestamp) -> bool {
    row.pair().is_some_and(|pair| pair.expiry.passed(now))
}
