//! Replaces a session's pair: claim the row, send the refresh token once, commit the new pair.
//!
//! The task runs to its end even if its callers are dropped. Once the request may have left,
//! nothing here gives up before the outcome is written down or the process dies. After a crash, the
//! claim in the row tells that the outcome is unknown.

mod backoff;

use std::{sync::Arc, time::Duration};

use claviger_core::{
    AfterClaim, AfterRefresh, AttemptId, BeforeReplay, BreakerState, Budget, Cause, Claim, ClaimWrite,
    EndReason, FailureKind, IssuedPair, ProviderFailure, Purpose, RefreshStep, RefreshToken, Refused,
    SealedPair, Session, SessionId, SessionSecret, State, Timestamp, TokenAnswer, TokenBucket, Version,
    claims, limits, verdict,
};
use claviger_provider::Said;
use claviger_store::{Applied, StoreError};

use crate::{
    Answered, CheckedClock, ControlUser, Denied, Disconnects, Env, Keys, Lock, Outbox, ProviderClient, Rows,
    SharedBreaker, Singleflight, Updated, Validator, breaker::Admission, keys::refresh_lock, metrics,
    part::part, singleflight::Flight,
};
use backoff::Backoffs;

pub(crate) type Outcome = Result<Arc<Session>, Denied>;

part! {
    /// Refreshes pairs.
    pub(crate) struct Refresher needs {
        env: Env,
        rows: Arc<Rows>,
        keys: Arc<Keys>,
        clock: Arc<CheckedClock>,
        provider: Arc<ProviderClient>,
        outbox: Arc<Outbox>,
        control_user: Arc<ControlUser>,
        validator: Arc<Validator>,
        disconnects: Arc<Disconnects>,
    } owns {
        breaker: SharedBreaker = SharedBreaker::default(),
        bucket: Lock<TokenBucket> = Lock::new(TokenBucket::new(Budget::per_second(env.settings().refreshes_per_second))),
        backoffs: Backoffs = Backoffs::new(),
        in_flight: Singleflight<Outcome> = Singleflight::new(env.tasks()),
        /// Claims that are being taken back. Until then the session is not claimed again, so that
        /// at most one of its claims is taken back at a time.
        undoing: Singleflight<()> = Singleflight::new(env.tasks()),
    }
}

/// A pair that is newer than the one that its caller has seen.
#[derive(Clone)]
struct Wanted {
    id: SessionId,
    seen: Version,
    /// The device's. Without it, only a refresh token in the server's custody opens.
    secret: Option<SessionSecret>,
}

/// One refresh, over all its rounds.
struct Attempt {
    secret: Option<SessionSecret>,
    deadline: Timestamp,
    token: BucketToken,
}

/// A token of the process's bucket is taken once per attempt, however often another writer of the
/// row is first.
#[derive(Clone, Copy, PartialEq, Eq)]
enum BucketToken {
    NotTaken,
    Taken,
}

/// What came of trying to claim a row.
#[expect(clippy::large_enum_variant, reason = "it is moved once per refresh")]
enum TriedClaim<'a> {
    Claimed(Claimed, Admission<'a>),
    /// Another writer was first, or holds a claim on it.
    ReadAgain,
}

/// A row that this process claimed, with the token to send.
struct Claimed {
    row: Session,
    claim: Claim,
    token: RefreshToken,
    secret: Option<SessionSecret>,
}

impl Refresher {
    pub(crate) fn breaker_state(&self) -> BreakerState {
        self.breaker.state(self.env.now())
    }

    /// Gives the row with a pair newer than `seen`, refreshing it if nobody else does. It waits for
    /// at most `patience`.
    ///
    /// Callers at the same time share one refresh. A caller that stops waiting does not stop it.
    /// Without the device's secret, only a refresh token in the server's custody opens.
    pub(crate) async fn refresh(
        self: &Arc<Self>,
        id: SessionId,
        seen: Version,
        secret: Option<&SessionSecret>,
        patience: Duration,
    ) -> Outcome {
        let wanted = Wanted { id, seen, secret: secret.cloned() };
        let newer = tokio::time::timeout(patience, self.newer(&wanted));
        newer.await.unwrap_or(Err(unavailable(limits::RETRY_AFTER)))
    }

    /// Starts a refresh that nobody waits for. It does not if one of this pair failed a moment ago,
    /// or if others wait for a token of the bucket.
    pub(crate) fn refresh_early(self: &Arc<Self>, row: &Session, secret: &SessionSecret) {
        let Some(seen) = row.generation() else { return };
        if self.may_start_at_once(row.id, seen, self.env.now()) {
            drop(self.start(Wanted { id: row.id, seen, secret: Some(secret.clone()) }));
        }
    }

    async fn newer(self: &Arc<Self>, wanted: &Wanted) -> Outcome {
        loop {
            match self.start(wanted.clone()).await {
                // It began before another one replaced the pair that it brings.
                Some(Ok(row)) if row.generation().is_some_and(|generation| generation <= wanted.seen) => {}
                outcome => return outcome.unwrap_or_else(|| Err(Denied::lost_task())),
            }
        }
    }

    fn start(self: &Arc<Self>, wanted: Wanted) -> Flight<Outcome> {
        let refresher = Arc::clone(self);
        self.in_flight.join(wanted.id, || async move { refresher.refresh_once(wanted).await })
    }

    async fn refresh_once(self: &Arc<Self>, wanted: Wanted) -> Outcome {
        let Wanted { id, seen, secret } = wanted;
        let deadline = self.env.now().after(limits::ADOPTION_WAIT);
        let mut attempt = Attempt { secret, deadline, token: BucketToken::NotTaken };
        if let Some(row) = self.ready_in_memory(id, seen) {
            if has_newer_pair(&row, seen) {
                return Ok(row);
            }
            match self.try_to_claim(&row, &mut attempt).await {
                Ok(TriedClaim::Claimed(claimed, admission)) => return self.send(claimed, admission).await,
                // Whether the row is claimed is unknown. So no other claim follows at once.
                Err(denied @ Denied::Store(_)) if self.env.now() < attempt.deadline => {
                    return self.adopt_or(denied, id, seen).await;
                }
                // Memory may be outdated, so it denies nothing.
                Ok(TriedClaim::ReadAgain) | Err(_) => {}
            }
        }
        while self.env.now() < attempt.deadline {
            let row = self.rows.load_stored(id).await?.ok_or(Denied::NoSession)?;
            if has_newer_pair(&row, seen) {
                return Ok(row);
            }
            if let TriedClaim::Claimed(claimed, admission) = self.try_to_claim(&row, &mut attempt).await? {
                return self.send(claimed, admission).await;
            }
        }
        Err(unavailable(limits::RETRY_AFTER))
    }

    /// The row as memory has it, if its refresh token may be sent at once. That is good enough to
    /// claim it, since the store refuses a claim on another version than it has.
    fn ready_in_memory(&self, id: SessionId, seen: Version) -> Option<Arc<Session>> {
        let now = self.env.now();
        let row = self.rows.cache().row(id, now)?;
        let sends = self.step(&row) == Ok(RefreshStep::Send);
        (sends && self.may_start_at_once(id, seen, now)).then_some(row)
    }

    /// The stored row, if it has a newer pair by now. Else it is denied.
    async fn adopt_or(&self, denied: Denied, id: SessionId, seen: Version) -> Outcome {
        let row = self.rows.load_stored(id).await?.ok_or(Denied::NoSession)?;
        if has_newer_pair(&row, seen) {
            return Ok(row);
        }
        Err(if row.ended() { Denied::of_ended(&row) } else { denied })
    }

    /// Whether neither the bucket nor a backoff delays a refresh.
    fn may_start_at_once(&self, id: SessionId, seen: Version, now: Timestamp) -> bool {
        let wait = self.bucket.lock().wait(now);
        wait.is_zero() && self.delayed(id, seen, now).is_none()
    }

    /// What to answer instead of another try of this session, while its backoff lasts or its last
    /// claim is being taken back.
    fn delayed(&self, id: SessionId, seen: Version, now: Timestamp) -> Option<Denied> {
        if self.undoing.has(id) {
            return Some(unavailable(limits::RETRY_AFTER));
        }
        self.backoffs.denial(id, seen, now)
    }

    /// Waits until a refresh of the row may be sent, and claims the row.
    async fn try_to_claim(
        self: &Arc<Self>,
        row: &Session,
        attempt: &mut Attempt,
    ) -> Result<TriedClaim<'_>, Denied> {
        let step = match self.step(row) {
            Ok(step) => step,
            Err(Refused::Ended) => return Err(Denied::of_ended(row)),
            Err(_) => return Err(Denied::SignInAgain),
        };
        match step {
            RefreshStep::Send | RefreshStep::Replay => {}
            RefreshStep::SignInAgain => return Err(self.back_off(row, Denied::SignInAgain)),
            RefreshStep::Wait { .. } if self.rows.is_exclusive() => {
                self.note_orphan(row).await?;
                return Ok(TriedClaim::ReadAgain);
            }
            RefreshStep::Wait { .. } => {
                self.clock.confirmed().await;
                tokio::time::sleep(limits::ADOPTION_POLL).await;
                return Ok(TriedClaim::ReadAgain);
            }
        }
        self.wait_to_send(row, attempt).await?;
        // Asked before the breaker counts this try. A claim asks again only after a jump.
        self.clock.of_provider().await;
        let admission = self.breaker.admit(self.env.clock()).map_err(unavailable)?;
        if step == RefreshStep::Replay {
            self.require_unspent(row).await?;
        }
        let claimed = self.claim(row, step, attempt.secret.as_ref()).await?;
        Ok(claimed.map_or(TriedClaim::ReadAgain, |claimed| TriedClaim::Claimed(claimed, admission)))
    }

    /// What a refresh may do now. A lease counts as over only once the provider has named its time,
    /// by which claims go, so that a wrong clock sends no token a second time.
    fn step(&self, row: &Session) -> Result<RefreshStep, Refused> {
        let now = self.clock.known_of_provider();
        let may_be_over = !self.clock.is_untold();
        row.refresh_step_where(now, &self.provider.provider().habits, |claim| {
            claim.answer_lost || (may_be_over && claim.lease_is_over(now))
        })
    }

    /// Writes down that a claim is that of a process that died. Where no other process uses the
    /// store, that is any claim that a refresh finds. A sign-in that repairs the row sees it too.
    async fn note_orphan(&self, row: &Session) -> Result<(), Denied> {
        if let Some(claim) = row.active().and_then(|active| active.claim) {
            self.rows.update(row.id, move |row: Session| row.orphan(claim.attempt)).await?;
        }
        Ok(())
    }

    /// Waits until this session, the provider and the bucket all allow a refresh, if that is before
    /// the deadline.
    async fn wait_to_send(&self, row: &Session, attempt: &mut Attempt) -> Result<(), Denied> {
        let now = self.env.now();
        let seen = row.generation().unwrap_or(row.version);
        if let Some(denied) = self.delayed(row.id, seen, now) {
            return Err(denied);
        }
        if let Some(left) = self.breaker.open_for(now) {
            return Err(unavailable(left));
        }
        if std::mem::replace(&mut attempt.token, BucketToken::Taken) == BucketToken::Taken {
            return Ok(());
        }
        let patience = attempt.deadline.since(now);
        let wait = self.bucket.lock().take(now, patience).ok_or(unavailable(limits::RETRY_AFTER))?;
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        Ok(())
    }

    /// Lets no other try of the row's pair follow at once.
    fn back_off(&self, row: &Session, denied: Denied) -> Denied {
        let seen = row.generation().unwrap_or(row.version);
        self.backoffs.note(row.id, seen, self.env.now(), denied)
    }

    /// Asks about the old access token before a refresh token is sent a second time. The token is
    /// not sent if that would be wasted on an outage, or would do harm because it is known to be
    /// spent.
    async fn require_unspent(self: &Arc<Self>, row: &Session) -> Result<(), Denied> {
        let Some(pair) = row.pair() else { return Ok(()) };
        let asked = self.validator.ask(row, pair, Purpose::Due).await?;
        // Without validation the habits alone decide, as they did before this.
        let Some(asked) = asked else { return Ok(()) };
        let habits = &self.provider.provider().habits;
        match verdict::before_replay(&asked.answer, pair.expiry, self.env.now(), habits) {
            BeforeReplay::Replay => Ok(()),
            // Nothing was sent, because of our own rate limit or breaker. That is no failure of
            // this session.
            BeforeReplay::Later(ProviderFailure { kind: FailureKind::NotSent, retry_after: Some(wait) }) => {
                Err(unavailable(wait.max(limits::REFRESH_PAUSE)))
            }
            BeforeReplay::Later(failure) => Err(self.back_off(row, unavailable(failure.pause()))),
            BeforeReplay::Spent => {
                tracing::warn!(session = %row.id, "a refresh whose answer was lost did happen: its pair is lost");
                if let Some(claim) = row.active().and_then(|active| active.claim) {
                    let give_up = move |row: Session| row.lose_answer(claim.attempt, false);
                    self.rows.update(row.id, give_up).await?;
                }
                Err(self.back_off(row, Denied::SignInAgain))
            }
        }
    }

    /// Writes the claim down. None if another writer was first.
    async fn claim(
        self: &Arc<Self>,
        row: &Session,
        step: RefreshStep,
        secret: Option<&SessionSecret>,
    ) -> Result<Option<Claimed>, Denied> {
        let token = self.keys.open_refresh(row, secret)?;
        let replay = step == RefreshStep::Replay;
        // A claim by a wrong clock would hold too short, or too long.
        let now = self.clock.of_provider().await;
        // After the waits until here the provider may not accept a replay any more.
        if replay && self.step(row) != Ok(RefreshStep::Replay) {
            return Ok(None);
        }
        let first_sent = row.active().and_then(|active| active.claim).filter(|_| replay);
        let claim = Claim {
            attempt: AttemptId(self.env.random()),
            taken_at: first_sent.map_or(now, |claim| claim.taken_at),
            lease_until: now.after(limits::CLAIM_LEASE),
            fingerprint: self.keys.keyring().fingerprint(&token),
            replay,
            answer_lost: false,
        };
        let Ok(change) = row.clone().claim(claim) else { return Ok(None) };
        let (write, error) = match self.rows.apply(&change).await {
            Ok(Applied::Done) => (ClaimWrite::Written, None),
            Ok(Applied::Conflict(_)) => (ClaimWrite::Conflict, None),
            Err(error @ StoreError::Unavailable(_)) => (ClaimWrite::Unknown, Some(error)),
            Err(error) => (ClaimWrite::Failed, Some(error)),
        };
        let time_left = claim.time_left(self.clock.known_of_provider(), &self.provider.provider().habits);
        match claims::after_claim(write, time_left) {
            AfterClaim::Send => {
                let row = change.into_next();
                return Ok(Some(Claimed { row, claim, token, secret: secret.cloned() }));
            }
            AfterClaim::ReadAgain => return Ok(None),
            AfterClaim::TakeBack => self.take_back(row, claim),
            AfterClaim::GiveUp => {}
        }
        Err(error.map_or(unavailable(limits::RETRY_AFTER), Denied::Store))
    }

    /// Takes back a claim that was not sent, although it may have been written, or may be written
    /// yet.
    fn take_back(self: &Arc<Self>, before: &Session, claim: Claim) {
        let (rows, id, version) = (Arc::clone(&self.rows), before.id, before.version);
        let undo = move |row: Session| row.take_back(&claim, version);
        drop(self.undoing.join(id, || async move {
            rows.update_until_stored(id, undo).await;
        }));
    }

    /// Sends the refresh token once, and writes down what came of it.
    async fn send(self: &Arc<Self>, claimed: Claimed, admission: Admission<'_>) -> Outcome {
        let sent_at = self.env.now();
        let Answered { answer, said } = self.provider.refresh(&claimed.token).await;
        let (endpoint, status, words) = (&said.endpoint, said.status, said.words.as_deref());
        metrics::refresh_answered(&answer, claimed.claim.replay, self.env.now().since(sent_at));
        match &answer {
            TokenAnswer::Unknown(failure) | TokenAnswer::Lost(failure) => admission.failed(failure),
            TokenAnswer::Issued(_) | TokenAnswer::Rejected | TokenAnswer::Misconfigured => {
                admission.answered();
            }
        }
        let (id, attempt) = (claimed.row.id, claimed.claim.attempt);
        let rows = &self.rows;
        let habits = &self.provider.provider().habits;
        let denied = match verdict::after_refresh(answer, claimed.claim.replay, habits) {
            AfterRefresh::Commit(pair) => {
                self.control_user.note_connected(&claimed.row.subject.id);
                return self.commit(claimed, pair).await;
            }
            AfterRefresh::End(reason) => return self.end_rejected(&claimed, reason, &said).await,
            AfterRefresh::Release(failure) => {
                tracing::warn!(session = %id, ?failure, endpoint, status, said = words, "a refresh has to wait");
                rows.update_until_stored(id, |row: Session| row.release(attempt)).await;
                unavailable(failure.pause())
            }
            AfterRefresh::ReleaseAndAlarm => {
                self.provider.alarm(&said);
                rows.update_until_stored(id, |row: Session| row.release(attempt)).await;
                Denied::Misconfigured
            }
            AfterRefresh::MarkLost { failure, replay_left, alarm } => {
                tracing::warn!(
                    session = %id, ?failure, replay_left, endpoint, status, said = words, "the answer to a refresh is lost"
                );
                let lose = |row: Session| row.lose_answer(attempt, replay_left);
                rows.update_until_stored(id, lose).await;
                if alarm {
                    self.provider.alarm(&said);
                    Denied::Misconfigured
                } else {
                    unavailable(failure.pause())
                }
            }
        };
        if let Some(ended) = rows.load_stored(id).await.ok().flatten().filter(|row| row.ended()) {
            return Err(Denied::of_ended(&ended));
        }
        Err(self.back_off(&claimed.row, denied))
    }

    /// Commits the new pair. If the row ended or has another new pair by now, this pair is revoked.
    async fn commit(self: &Arc<Self>, claimed: Claimed, issued: IssuedPair) -> Outcome {
        let now = self.env.now();
        let attempt = claimed.claim.attempt;
        let ours: Lock<Vec<SealedPair>> = Lock::default();
        let commit = |row: Session| {
            let sealed_for = row.clone();
            row.rotate(attempt, claimed.row.generation(), now, |generation| {
                let pair = self.seal(&sealed_for, generation, &issued, &claimed, now);
                ours.lock().push(pair.clone());
                pair
            })
        };
        let updated = self.rows.update_own_until_stored(&claimed.row, commit).await;
        let own = |pair| ours.lock().contains(pair);
        match updated {
            Updated::Done(row) => Ok(row),
            // A write whose outcome was unknown had succeeded after all, or another instance was
            // given the same pair.
            Updated::Refused(_, row) if row.pair().is_some_and(own) => Ok(row),
            Updated::Refused(_, row) if self.keys.holds(&row, &issued) => Ok(row),
            Updated::Refused(_, row) => {
                self.outbox.add_issued_until_stored(&claimed.row, &issued).await;
                if row.ended() { Err(Denied::of_ended(&row)) } else { Ok(row) }
            }
            Updated::Missing => {
                self.outbox.add_issued_until_stored(&claimed.row, &issued).await;
                Err(Denied::NoSession)
            }
        }
    }

    /// Seals what a refresh brought. A scope or refresh token that the answer left out stays as it
    /// was (RFC 6749 section 6).
    fn seal(
        &self,
        row: &Session,
        generation: Version,
        issued: &IssuedPair,
        claimed: &Claimed,
        issued_at: Timestamp,
    ) -> SealedPair {
        let keys = &self.keys;
        let scopes = issued.scopes.clone().or_else(|| {
            row.pair().and_then(|pair| keys.open_access(row, pair).ok()).map(|access| access.scopes)
        });
        let refresh = issued.refresh.as_ref().unwrap_or(&claimed.token);
        let refresh = refresh_lock(row.custody, claimed.secret.as_ref()).map(|lock| (refresh, lock));
        keys.seal_pair(row, generation, issued, issued_at, scopes.unwrap_or_default(), refresh)
    }

    /// Ends the row whose refresh token is dead, if the stored row still has our claim.
    async fn end_rejected(self: &Arc<Self>, claimed: &Claimed, reason: EndReason, said: &Said) -> Outcome {
        let (attempt, at) = (claimed.claim.attempt, self.env.now());
        let end = |row: Session| row.end_rejected(attempt, reason, at);
        match self.rows.update_until_stored(claimed.row.id, end).await {
            Updated::Done(row) | Updated::Refused(Refused::Ended, row) => {
                let (reason, endpoint, status) = (reason.name(), &said.endpoint, said.status);
                tracing::info!(
                    session = %row.id, reason, endpoint, status, said = said.words.as_deref(), "the refresh token of an ended session is dead"
                );
                self.disconnects.suspect_user(&row, Cause::RefreshTokenRejected);
                Err(Denied::of_ended(&row))
            }
            Updated::Refused(_, row) => Ok(row),
            Updated::Missing => Err(Denied::NoSession),
        }
    }
}

fn has_newer_pair(row: &Session, seen: Version) -> bool {
    row.generation().is_some_and(|generation| generation > seen) && matches!(row.state, State::Live(_))
}

fn unavailable(retry_after: Duration) -> Denied {
    Denied::ProviderUnavailable { retry_after }
}
