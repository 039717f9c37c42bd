//! Replaces a session's pair: claim the row, send the refresh token once, commit the new pair.
//!
//! The task runs to its end whoever waits for it. Once the request may have left, nothing here gives up before the
//! outcome is written down, or the process dies; then the claim in the row tells of it.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use claviger_core::{
    ids::{AttemptId, SessionId, Version},
    policy::{Custody, limits},
    secret::{RefreshToken, SessionSecret},
    session::{
        Claim, EndReason, OwedRevocation, RefreshStep, Refused, SealedBlob, SealedPair, Session, State,
    },
    suspicion::Cause,
    time::Timestamp,
    verdict::{
        AfterRefresh, BeforeReplay, IssuedPair, TokenAnswer, Trouble, TroubleKind, after_refresh,
        before_replay,
    },
};
use claviger_seal::{AccessPlain, PairBinding, RefreshLock};
use claviger_store::{Replaced, StoreError};

use crate::{Engine, amend::Amended, breaker::Permit, errors::Denied, flights::Flight, meter};

pub(crate) type Outcome = Result<Arc<Session>, Denied>;

/// A row that this process claimed, with the token to send.
struct Claimed {
    row: Session,
    claim: Claim,
    token: RefreshToken,
    secret: Option<SessionSecret>,
}

impl Engine {
    /// Gives the row with a pair newer than `seen`, refreshing it if nobody else does. Callers at the same time share
    /// one refresh; a caller that stops waiting does not stop it. Without the device's secret only a refresh token in the
    /// server's custody opens.
    pub(crate) async fn refresh(
        &self,
        id: SessionId,
        seen: Version,
        secret: Option<&SessionSecret>,
    ) -> Outcome {
        let adopting = tokio::time::timeout(limits::ADOPTION_WAIT, self.join_refreshes(id, seen, secret));
        adopting.await.unwrap_or(Err(Denied::ProviderTrouble { retry_after: limits::RETRY_AFTER }))
    }

    async fn join_refreshes(&self, id: SessionId, seen: Version, secret: Option<&SessionSecret>) -> Outcome {
        loop {
            match self.start_refresh(id, seen, secret).await {
                // It began before others replaced the pair that it brings.
                Some(Ok(row)) if row.generation().is_some_and(|generation| generation <= seen) => {}
                outcome => return outcome.unwrap_or_else(|| Err(Denied::lost_task())),
            }
        }
    }

    /// Starts a refresh that nobody waits for, unless one of this pair came to nothing a moment ago, or others wait for theirs.
    pub(crate) fn refresh_early(&self, row: &Session, secret: &SessionSecret) {
        let Some(seen) = row.generation() else { return };
        let now = self.now();
        if self.waits_for_nothing(row.id, seen, now) {
            drop(self.start_refresh(row.id, seen, Some(secret)));
        }
    }

    /// Whether neither others' turns nor a try that came to nothing a moment ago have to be waited for.
    fn waits_for_nothing(&self, id: SessionId, seen: Version, now: Timestamp) -> bool {
        let queue = self.inner.refresh_pacer.lock().unwrap_or_else(PoisonError::into_inner).wait(now);
        queue.is_zero() && self.held_back(id, seen, now).is_none()
    }

    /// What to answer instead of another try of this session, while the last one is too recent or has not been taken back.
    fn held_back(&self, id: SessionId, seen: Version, now: Timestamp) -> Option<Denied> {
        if self.inner.releases.has(id) {
            return Some(in_trouble(limits::RETRY_AFTER));
        }
        self.inner.refresh_pauses.left(id, seen, now)
    }

    fn start_refresh(&self, id: SessionId, seen: Version, secret: Option<&SessionSecret>) -> Flight<Outcome> {
        let (engine, secret) = (self.clone(), secret.cloned());
        let work = move || async move { engine.refresh_once(id, seen, secret).await };
        self.inner.refreshes.join(id, work)
    }

    async fn refresh_once(&self, id: SessionId, seen: Version, secret: Option<SessionSecret>) -> Outcome {
        let deadline = self.now().after(limits::ADOPTION_WAIT);
        let mut has_turn = false;
        let mut remembered = self.remembered_to_send(id, seen);
        let mut unheard = None;
        while self.now() < deadline {
            let as_stored = remembered.is_none();
            let row = match remembered.take() {
                Some(row) => row,
                None => self.fresh_row(id).await?.ok_or(Denied::NoSession)?,
            };
            let newer = row.generation().is_some_and(|generation| generation > seen);
            if newer && matches!(row.state, State::Live(_)) {
                return Ok(row);
            }
            if let Some(denied) = unheard {
                return Err(if row.ended() { Denied::of_ended(&row) } else { denied });
            }
            match self.claim_in_turn(&row, deadline, &mut has_turn, secret.as_ref()).await {
                Ok(Some((claimed, permit))) => return self.send_refresh(claimed, permit).await,
                Ok(None) => {}
                Err(denied) if as_stored => return Err(denied),
                // The stored row may have a newer pair. Else a claim of which nobody knows is not followed by another at once.
                Err(denied @ Denied::Store(_)) => unheard = Some(denied),
                Err(_) => {}
            }
        }
        Err(Denied::ProviderTrouble { retry_after: limits::RETRY_AFTER })
    }

    /// The row as memory has it, if its refresh token may be sent at once. That is good enough to claim it, since the store refuses a
    /// claim on another version than it has; nobody is denied anything because of it.
    fn remembered_to_send(&self, id: SessionId, seen: Version) -> Option<Arc<Session>> {
        let now = self.now();
        let row = self.inner.known.row(id, now)?;
        let sends = self.refresh_step(&row) == Ok(RefreshStep::Send);
        (sends && self.waits_for_nothing(id, seen, now)).then_some(row)
    }

    /// Claims the row as soon as its turn comes. None if another writer was first, or has it claimed.
    async fn claim_in_turn(
        &self,
        row: &Session,
        deadline: Timestamp,
        has_turn: &mut bool,
        secret: Option<&SessionSecret>,
    ) -> Result<Option<(Claimed, Permit<'_>)>, Denied> {
        let step = match self.refresh_step(row) {
            Ok(step) => step,
            Err(Refused::Ended) => return Err(Denied::of_ended(row)),
            Err(_) => return Err(Denied::SignInAgain),
        };
        let replay = match step {
            RefreshStep::Send => false,
            RefreshStep::Replay => true,
            RefreshStep::SignInAgain => return Err(self.put_off(row, Denied::SignInAgain)),
            RefreshStep::Wait { .. } => {
                tokio::time::sleep(limits::ADOPTION_POLL).await;
                return Ok(None);
            }
        };
        self.await_turn(row, deadline, has_turn).await?;
        let permit = self.inner.refresh_breaker.ask(&*self.inner.parts.clock).map_err(in_trouble)?;
        if replay {
            self.require_unspent(row).await?;
        }
        let claimed = self.take_claim(row, replay, secret).await?;
        Ok(claimed.map(|claimed| (claimed, permit)))
    }

    fn refresh_step(&self, row: &Session) -> Result<RefreshStep, Refused> {
        row.refresh_step(self.now(), &self.provider().habits)
    }

    /// Waits until this session, the provider and the budget of requests all allow a refresh, if that is soon.
    /// A turn is taken once, however often another writer of the row is first.
    async fn await_turn(
        &self,
        row: &Session,
        deadline: Timestamp,
        has_turn: &mut bool,
    ) -> Result<(), Denied> {
        let now = self.now();
        let seen = row.generation().unwrap_or(row.version);
        if let Some(denied) = self.held_back(row.id, seen, now) {
            return Err(denied);
        }
        if let Some(left) = self.inner.refresh_breaker.left(now) {
            return Err(in_trouble(left));
        }
        if std::mem::replace(has_turn, true) {
            return Ok(());
        }
        let patience = deadline.since(now);
        let turn =
            self.inner.refresh_pacer.lock().unwrap_or_else(PoisonError::into_inner).take(now, patience);
        let wait = turn.ok_or(Denied::ProviderTrouble { retry_after: limits::RETRY_AFTER })?;
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        Ok(())
    }

    /// Lets no other try follow at once.
    fn put_off(&self, row: &Session, denied: Denied) -> Denied {
        let seen = row.generation().unwrap_or(row.version);
        self.inner.refresh_pauses.note(row.id, seen, self.now(), denied)
    }

    /// Asks about the old access token before a refresh token is sent a second time. It is not sent where that would be
    /// wasted on an outage, or would do harm because it is known to be spent.
    async fn require_unspent(&self, row: &Session) -> Result<(), Denied> {
        let Some(pair) = row.pair() else { return Ok(()) };
        let (_, old_access) = self.ask_about(row, pair, limits::PACE_PATIENCE).await?;
        match before_replay(&old_access, pair.expiry, self.now(), &self.provider().habits) {
            BeforeReplay::Replay => Ok(()),
            // Nobody was asked, since our own budget or breaker said so. That is no failure of this session's.
            BeforeReplay::Later(Trouble { kind: TroubleKind::NotSent, retry_after: Some(wait) }) => {
                Err(in_trouble(wait.max(limits::REFRESH_PAUSE)))
            }
            BeforeReplay::Later(trouble) => Err(self.put_off(row, in_trouble(trouble.pause()))),
            BeforeReplay::Spent => {
                tracing::warn!(session = %row.id, "a refresh whose answer was lost did happen: its pair is lost");
                if let Some(claim) = row.holding().and_then(|holding| holding.claim) {
                    let give_up = move |row: Session| Ok((row.lose_answer(claim.attempt, false)?, None));
                    self.amend(row.id, give_up).await?;
                }
                Err(self.put_off(row, Denied::SignInAgain))
            }
        }
    }

    /// Writes the claim down. None if another writer was first.
    async fn take_claim(
        &self,
        row: &Session,
        replay: bool,
        secret: Option<&SessionSecret>,
    ) -> Result<Option<Claimed>, Denied> {
        let token = self.open_refresh(row, secret)?;
        // The waits until here may have taken so long that the provider would not take a replay any more.
        if replay && self.refresh_step(row) != Ok(RefreshStep::Replay) {
            return Ok(None);
        }
        let now = self.now();
        let first_sent =
            row.holding().and_then(|holding| holding.claim).filter(|_| replay).map(|claim| claim.taken_at);
        let claim = Claim {
            attempt: AttemptId(self.random()),
            taken_at: first_sent.unwrap_or(now),
            lease_until: now.after(limits::CLAIM_LEASE),
            fingerprint: self.keyring().fingerprint(&token),
            replay,
            answer_lost: false,
        };
        let Ok(next) = row.clone().claim(claim) else { return Ok(None) };
        match self.replace_claim(&next).await {
            Ok(Replaced::Done) if self.in_time(&claim) => {
                Ok(Some(Claimed { row: next, claim, token, secret: secret.cloned() }))
            }
            Ok(Replaced::Done) => {
                self.release_unsent(row, claim);
                Err(in_trouble(limits::RETRY_AFTER))
            }
            Ok(Replaced::Conflict(_)) => Ok(None),
            Err(error) => {
                if matches!(error, StoreError::Unavailable(_)) {
                    self.release_unsent(row, claim);
                }
                Err(Denied::Store(error))
            }
        }
    }

    /// Whether the answer can be there before the lease is over, and a replay before the provider's window is. Where writing the
    /// claim took too long, somebody else may soon send the same token, or the provider would not take it any more.
    fn in_time(&self, claim: &Claim) -> bool {
        let now = self.now();
        let leased = now.after(limits::PROVIDER_CONNECT + limits::PROVIDER_ANSWER) < claim.lease_until;
        leased && (!claim.replay || claim.replay_arrives(now, &self.provider().habits))
    }

    /// A claim that may or may not have been written, or may be written yet, and was not sent, must leave the row as it was `before`:
    /// unclaimed, or with an answer lost and the replay not used up.
    fn release_unsent(&self, before: &Session, claim: Claim) {
        let (engine, id, version) = (self.clone(), before.id, before.version);
        let undo = move |row: Session| {
            let row = if row.version == version {
                row.fence()
            } else if claim.replay {
                row.lose_answer(claim.attempt, true)
            } else {
                row.release(claim.attempt)
            };
            Ok((row?, None))
        };
        drop(self.inner.releases.join(id, || async move {
            engine.amend_surely(id, undo).await;
        }));
    }

    async fn send_refresh(&self, claimed: Claimed, permit: Permit<'_>) -> Outcome {
        let sent_at = self.now();
        let answer = self.inner.parts.http.send(self.provider().refresh(&claimed.token)).await;
        let answer = self.provider().read_token(answer, self.now());
        meter::refresh_answered(&answer, claimed.claim.replay, self.now().since(sent_at));
        match &answer {
            TokenAnswer::Unknown(trouble) | TokenAnswer::Lost(trouble) => permit.troubled(trouble),
            TokenAnswer::Issued(_) | TokenAnswer::Rejected | TokenAnswer::Misconfigured => permit.answered(),
        }
        let (id, attempt) = (claimed.row.id, claimed.claim.attempt);
        let denied = match after_refresh(answer, claimed.claim.replay, &self.provider().habits) {
            AfterRefresh::Commit(pair) => {
                self.note_connected(&claimed.row.subject.id);
                return self.commit_pair(claimed, pair).await;
            }
            AfterRefresh::End(reason) => return self.end_rejected(&claimed, reason).await,
            AfterRefresh::Release(trouble) => {
                tracing::warn!(session = %id, ?trouble, "a refresh was put off");
                self.amend_surely(id, move |row: Session| Ok((row.release(attempt)?, None))).await;
                in_trouble(trouble.pause())
            }
            AfterRefresh::ReleaseAndAlarm => {
                self.alarm();
                self.amend_surely(id, move |row: Session| Ok((row.release(attempt)?, None))).await;
                Denied::Misconfigured
            }
            AfterRefresh::MarkLost { trouble, replay_left, alarm } => {
                tracing::warn!(session = %id, ?trouble, replay_left, "the answer to a refresh is lost");
                self.amend_surely(id, move |row: Session| Ok((row.lose_answer(attempt, replay_left)?, None)))
                    .await;
                if alarm {
                    self.alarm();
                    Denied::Misconfigured
                } else {
                    in_trouble(trouble.pause())
                }
            }
        };
        if let Some(ended) = self.fresh_row(id).await.ok().flatten().filter(|row| row.ended()) {
            return Err(Denied::of_ended(&ended));
        }
        Err(self.put_off(&claimed.row, denied))
    }

    /// Tells the operator.
    fn alarm(&self) {
        let client_id = &self.provider().client_id;
        tracing::error!(
            client_id,
            "the provider refuses this app's client id or secret: check the configuration"
        );
    }

    /// Commits the new pair. If the row ended or has another new pair by now, this one is owed a revocation instead.
    async fn commit_pair(&self, claimed: Claimed, issued: IssuedPair) -> Outcome {
        let now = self.now();
        let attempt = claimed.claim.attempt;
        let ours: Mutex<Vec<SealedPair>> = Mutex::default();
        let commit = |row: Session| {
            let sealed_for = row.clone();
            let next = row.rotate(attempt, claimed.row.generation(), now, |generation| {
                let pair = self.seal_issued(&sealed_for, generation, &issued, &claimed, now);
                ours.lock().unwrap_or_else(PoisonError::into_inner).push(pair.clone());
                pair
            })?;
            Ok((next, None))
        };
        let amended = self.amend_surely_ours(&claimed.row, commit).await;
        let own = |pair| ours.lock().unwrap_or_else(PoisonError::into_inner).contains(pair);
        match amended {
            Amended::Done(row) => Ok(row),
            // A write whose outcome was unknown had succeeded after all, or another instance was given the same pair.
            Amended::Refused(_, row) if row.pair().is_some_and(own) || self.holds(&row, &issued) => Ok(row),
            Amended::Refused(_, row) => {
                self.owe_issued(&claimed.row, &issued).await;
                if row.ended() { Err(Denied::of_ended(&row)) } else { Ok(row) }
            }
            Amended::Missing => {
                self.owe_issued(&claimed.row, &issued).await;
                Err(Denied::NoSession)
            }
        }
    }

    /// Whether the row holds this very pair.
    pub(crate) fn holds(&self, row: &Session, issued: &IssuedPair) -> bool {
        let held = row.pair().and_then(|pair| self.open_access(row, pair).ok());
        held.is_some_and(|held| held.token.expose() == issued.access.expose())
    }

    /// Ends the row whose refresh token is dead, if reading it again shows that it still is our claim.
    async fn end_rejected(&self, claimed: &Claimed, reason: EndReason) -> Outcome {
        let (attempt, at) = (claimed.claim.attempt, self.now());
        let amended =
            self.amend_surely(claimed.row.id, |row: Session| row.end_rejected(attempt, reason, at)).await;
        match amended {
            Amended::Done(row) | Amended::Refused(Refused::Ended, row) => {
                tracing::info!(session = %row.id, reason = reason.name(), "the refresh token of an ended session is dead");
                self.suspect_user(&row, Cause::RefreshTokenRejected);
                Err(Denied::of_ended(&row))
            }
            Amended::Refused(_, row) => Ok(row),
            Amended::Missing => Err(Denied::NoSession),
        }
    }

    /// The row's refresh token as the server can open it, if the device brought its secret and the provider wants it revoked.
    pub(crate) fn refresh_to_revoke(&self, row: &Session, secret: &SessionSecret) -> Option<SealedBlob> {
        let generation = row.generation().filter(|_| self.provider().revokes_refresh_tokens)?;
        let token = self.open_refresh(row, Some(secret)).ok()?;
        let binding = PairBinding { provider: &row.subject.provider, session: row.id, generation };
        Some(self.keyring().seal_refresh(binding, RefreshLock::Server, &token, self.nonce()))
    }

    fn open_refresh(&self, row: &Session, secret: Option<&SessionSecret>) -> Result<RefreshToken, Denied> {
        let pair = row.pair().ok_or(Denied::SignInAgain)?;
        let sealed = pair.refresh.as_ref().ok_or(Denied::SignInAgain)?;
        self.require_issuer(row.id, &row.subject.provider)?;
        let binding =
            PairBinding { provider: &row.subject.provider, session: row.id, generation: pair.generation };
        let lock = refresh_lock(row.custody, secret).ok_or(Denied::SignInAgain)?;
        self.keyring().open_refresh(binding, lock, sealed).map_err(Denied::from_row)
    }

    /// Seals what a refresh brought. A scope or refresh token that it left out stays as it was (RFC 6749 section 6).
    fn seal_issued(
        &self,
        row: &Session,
        generation: Version,
        issued: &IssuedPair,
        claimed: &Claimed,
        issued_at: Timestamp,
    ) -> SealedPair {
        let scopes = issued.scopes.clone().or_else(|| {
            row.pair().and_then(|pair| self.open_access(row, pair).ok()).map(|access| access.scopes)
        });
        let refresh = issued.refresh.as_ref().unwrap_or(&claimed.token);
        let refresh = refresh_lock(row.custody, claimed.secret.as_ref()).map(|lock| (refresh, lock));
        self.seal_pair(row, generation, issued, issued_at, scopes.unwrap_or_default(), refresh)
    }

    /// Seals a pair for its row. The refresh token, if it is to be kept, comes with what locks it.
    pub(crate) fn seal_pair(
        &self,
        row: &Session,
        generation: Version,
        issued: &IssuedPair,
        issued_at: Timestamp,
        scopes: Vec<String>,
        refresh: Option<(&RefreshToken, RefreshLock<'_>)>,
    ) -> SealedPair {
        let binding = PairBinding { provider: &row.subject.provider, session: row.id, generation };
        let access = AccessPlain { token: issued.access.clone(), scopes };
        let ring = self.keyring();
        SealedPair {
            generation,
            access: ring.seal_access(binding, &access, self.nonce()),
            refresh: refresh.map(|(token, lock)| ring.seal_refresh(binding, lock, token, self.nonce())),
            expiry: issued.lifespan.from(issued_at),
        }
    }

    /// Owes the revocation of a pair that no row will hold.
    pub(crate) async fn owe_issued(&self, row: &Session, issued: &IssuedPair) {
        let owed = self.owed_for(row, issued);
        self.surely(|| self.inner.parts.store.owe(&owed)).await;
        self.inner.owed.notify_one();
    }

    /// The revocation of a pair that no row will hold. Its tokens are at hand, so the server can open both.
    pub(crate) fn owed_for(&self, row: &Session, issued: &IssuedPair) -> OwedRevocation {
        let generation = row.version.next();
        let refresh = issued.refresh.as_ref().filter(|_| self.provider().revokes_refresh_tokens);
        let refresh = refresh.map(|token| (token, RefreshLock::Server));
        let pair = self.seal_pair(row, generation, issued, self.now(), Vec::new(), refresh);
        OwedRevocation {
            session: row.id,
            generation,
            provider: row.subject.provider.clone(),
            access: pair.access,
            refresh: pair.refresh,
            expiry: pair.expiry,
            owed_at: self.now(),
        }
    }
}

fn in_trouble(retry_after: Duration) -> Denied {
    Denied::ProviderTrouble { retry_after }
}

/// What locks a session's refresh token. None where it takes the device, and the device is not there.
pub(crate) fn refresh_lock(custody: Custody, secret: Option<&SessionSecret>) -> Option<RefreshLock<'_>> {
    match custody {
        Custody::Device | Custody::None => secret.map(RefreshLock::Device),
        Custody::Server => Some(RefreshLock::Server),
    }
}
