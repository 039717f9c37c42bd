//! A device's session as a row: its states, and the changes that lead from one to the next.
//!
//! Each transition takes the row and returns a [`Change`]: the next row, whose version is one
//! higher, and the kind of the change, which says what a store has to write. A store writes a
//! change only if the stored version is still the one the change started from, so a change that
//! lost a race is never written. No transition leads out of [`State::Ended`] (invariant ENDED).
//!
//! | transition | from | to | kind |
//! |---|---|---|---|
//! | `rotate`, `repair` | any | Live | Pair |
//! | `reseal` | any | the same | Pair |
//! | `prove` | Live | Live | Proof |
//! | `prove` | Parked, Suspect | Live | State |
//! | `suspect` | Live, Parked | Suspect | State |
//! | `park` | Live | Parked | State |
//! | `claim`, `release`, `lose_answer`, `bump_version` | any | the same | Claim |
//! | `rename` | any | the same | Name |
//! | `end`, `end_with`, `end_rejected` | any | Ended | End |
//!
//! where *any* is Live, Parked or Suspect. Which columns each kind writes stands in
//! [`ChangeKind::columns`].
//!
//! To add a transition, give it a row in this table and in `transitions` of the tests. The property
//! test there fails if it changes a column that its kind does not write.

mod change;
mod pair;
mod placement;
mod reason;

pub use change::{Change, ChangeKind, Column};
pub use pair::{BlobHead, SealedBlob, SealedPair};
pub use placement::Placement;
pub use reason::EndReason;

use std::time::Duration;

use crate::{
    AttemptId, Custody, DeviceLabel, Expiry, Fingerprint, ProviderHabits, Rotation, SecretHash, SessionId,
    Subject, Timestamp, Version, limits, named,
};

/// A device's sign-in.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Session {
    /// The row's id.
    pub id: SessionId,
    /// Number of committed changes of the row.
    pub version: Version,
    /// The user.
    pub subject: Subject,
    /// The user's name at the provider, as it said last: for pages and headers, never a key.
    pub display_name: String,
    /// The hash of the secret in the browser's cookie.
    pub secret_hash: SecretHash,
    /// Who can open the refresh token.
    pub custody: Custody,
    /// The device's name.
    pub device: DeviceLabel,
    /// When the user signed in, by the provider's time, as far as it is known. It is our time where
    /// they agree within [`limits::CLOCK_SKEW`].
    pub created_at: Timestamp,
    /// When the user last used the session, to about a minute. It has no part in the version, since
    /// a use changes neither pair nor state.
    pub last_seen_at: Timestamp,
    /// The state.
    pub state: State,
}

/// The state of a session.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// The access token works, as far as is known.
    Live(ActiveState),
    /// The pair was unproven for too long: it must be refreshed before it is used again.
    Parked(ActiveState),
    /// The provider rejected the access token: it must be proven or refreshed before it is used
    /// again.
    Suspect(ActiveState),
    /// Ended for good. The tokens are erased; the row stays as a tombstone until it is purged.
    Ended {
        /// Why.
        reason: EndReason,
        /// When.
        at: Timestamp,
    },
}

/// The contents of a session that has not ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ActiveState {
    /// The sealed token pair. `None` with custody [`Custody::None`].
    pub pair: Option<SealedPair>,
    /// When the provider last proved the access token good.
    pub proven_at: Timestamp,
    /// A refresh that is in progress, or whose answer was lost.
    pub claim: Option<Claim>,
}

/// A refresh in progress. It is written before the request is sent, so that a crash leaves a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Claim {
    /// The attempt that holds the claim.
    pub attempt: AttemptId,
    /// When the token was first sent.
    pub taken_at: Timestamp,
    /// Until when no other attempt may take the row.
    pub lease_until: Timestamp,
    /// The refresh token that is sent.
    pub fingerprint: Fingerprint,
    /// Whether this is the one replay that the recovery rule allows.
    pub replay: bool,
    /// Whether the request was sent and its answer is known to be lost.
    pub answer_lost: bool,
}

impl Claim {
    /// Returns whether the refresh token may or may not be spent: the answer was lost, or its owner
    /// died.
    pub fn ambiguous(&self, now: Timestamp) -> bool {
        self.answer_lost || self.lease_is_over(now)
    }

    /// Returns whether the lease is over. One that nobody can have taken by now is over as well.
    pub fn lease_is_over(&self, now: Timestamp) -> bool {
        self.lease_until.left(now, limits::CLAIM_LEASE).is_none()
    }

    /// Returns the latest end of a lease that may hold at `now`. Any later one is over.
    pub fn latest_lease(now: Timestamp) -> Timestamp {
        now.after(limits::CLAIM_LEASE + limits::CLOCK_SKEW)
    }

    /// Returns whether the token, sent again now, not only leaves but also arrives within the
    /// provider's window. Nobody knows how long ago a time in the future was.
    pub fn replay_arrives(&self, now: Timestamp, habits: &ProviderHabits) -> bool {
        let ago = self.taken_at.age(now).unwrap_or(Duration::MAX);
        habits.may_replay(ago.saturating_add(limits::PROVIDER_CONNECT + limits::PROVIDER_ANSWER))
    }
}

/// Why a change does not apply to the row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The session has ended.
    #[error("the session has ended")]
    Ended,
    /// The row is not, or no longer, the one the change was meant for: it has another pair or
    /// owner.
    #[error("the change was meant for another row or pair")]
    Superseded,
    /// The claim on the row belongs to another attempt, or there is none.
    #[error("the row is not claimed by this attempt")]
    Claimed,
    /// The row has no pair.
    #[error("the session holds no tokens")]
    NoPair,
}

/// A pending revocation. It outlives its session.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PendingRevocation {
    /// The session of the token. With `generation` it opens the blob.
    pub session: SessionId,
    /// The generation of the pair.
    pub generation: Version,
    /// The provider that issued the token.
    pub provider: crate::ProviderName,
    /// The sealed access token.
    pub access: SealedBlob,
    /// The refresh token, sealed for the server. `None` if only its device could open it, or if
    /// there is none.
    pub refresh: Option<SealedBlob>,
    /// When the access token expires.
    pub expiry: Expiry,
    /// Since when the revocation is pending.
    pub pending_since: Timestamp,
}

/// What a refresh may do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefreshStep {
    /// Take the claim and send the refresh token.
    Send,
    /// Take the claim and send the refresh token again: its first answer was lost.
    Replay,
    /// Wait for the new pair of another attempt.
    Wait {
        /// Until when that attempt holds the row.
        lease_until: Timestamp,
    },
    /// No rule can save the pair: the user has to sign in again. The row stays as it is.
    SignInAgain,
}

named! {
    /// The state of a session's tokens, for its user.
    pub enum TokenStatus {
        /// It has none.
        NoTokens = "none",
        /// They work, or the next use refreshes them.
        InOrder = "in_order",
        /// They are being refreshed.
        Refreshing = "refreshing",
        /// The answer to their refresh was lost; the next use recovers them.
        AnswerLost = "answer_lost",
        /// No refresh can save them: the user has to go to the provider and back once.
        RenewalNeeded = "renewal_needed",
    }
}

impl Session {
    /// Returns the contents, unless the session ended.
    pub fn active(&self) -> Option<&ActiveState> {
        match &self.state {
            State::Live(active) | State::Parked(active) | State::Suspect(active) => Some(active),
            State::Ended { .. } => None,
        }
    }

    /// Returns the pair, if the session has not ended and has one.
    pub fn pair(&self) -> Option<&SealedPair> {
        self.active().and_then(|active| active.pair.as_ref())
    }

    /// Returns the generation of the pair, if the session has not ended and has one.
    pub fn generation(&self) -> Option<Version> {
        self.pair().map(|pair| pair.generation)
    }

    /// Returns whether the session has ended.
    pub fn ended(&self) -> bool {
        matches!(self.state, State::Ended { .. })
    }

    /// Returns whether a refresh was sent whose outcome is unknown.
    pub fn ambiguous(&self, now: Timestamp) -> bool {
        self.active().and_then(|active| active.claim).is_some_and(|claim| claim.ambiguous(now))
    }

    /// Decides what a refresh of this row may do now, by its claim and the provider's habits.
    ///
    /// # Errors
    /// [`Refused::Ended`], or [`Refused::NoPair`] if there is nothing to refresh with.
    pub fn refresh_step(&self, now: Timestamp, habits: &ProviderHabits) -> Result<RefreshStep, Refused> {
        self.refresh_step_where(now, habits, |claim| claim.ambiguous(now))
    }

    /// Decides the same, where `is_lost` says whether the answer to the row's claim is lost.
    ///
    /// # Errors
    /// See [`Session::refresh_step`].
    pub fn refresh_step_where(
        &self,
        now: Timestamp,
        habits: &ProviderHabits,
        is_lost: impl FnOnce(&Claim) -> bool,
    ) -> Result<RefreshStep, Refused> {
        let active = self.active().ok_or(Refused::Ended)?;
        active.pair.as_ref().and_then(|pair| pair.refresh.as_ref()).ok_or(Refused::NoPair)?;
        let Some(claim) = active.claim else { return Ok(RefreshStep::Send) };
        if !is_lost(&claim) {
            return Ok(RefreshStep::Wait { lease_until: claim.lease_until });
        }
        let spent_at_most_once = habits.rotation == Rotation::None || !claim.replay;
        if spent_at_most_once && claim.replay_arrives(now, habits) {
            return Ok(RefreshStep::Replay);
        }
        Ok(RefreshStep::SignInAgain)
    }

    /// Returns whether this attempt has claimed the row.
    pub fn claimed_by(&self, attempt: AttemptId) -> bool {
        self.active().and_then(|active| active.claim).is_some_and(|claim| claim.attempt == attempt)
    }

    /// Claims the row for one refresh. The caller has asked [`Session::refresh_step`].
    ///
    /// # Errors
    /// [`Refused::Ended`], [`Refused::NoPair`].
    pub fn claim(self, claim: Claim) -> Result<Change, Refused> {
        self.edit(ChangeKind::Claim, |active| {
            active.pair.as_ref().ok_or(Refused::NoPair)?;
            active.claim = Some(claim);
            Ok(())
        })
    }

    /// Releases the row: the provider answered, and the refresh token is unspent.
    ///
    /// # Errors
    /// [`Refused::Ended`], or [`Refused::Claimed`] if another attempt has the claim.
    pub fn release(self, attempt: AttemptId) -> Result<Change, Refused> {
        self.edit(ChangeKind::Claim, |active| {
            active.owned_claim(attempt)?;
            active.claim = None;
            Ok(())
        })
    }

    /// Raises the version and changes nothing else, so that a claim that may still be written comes
    /// too late.
    ///
    /// # Errors
    /// [`Refused::Ended`].
    pub fn bump_version(self) -> Result<Change, Refused> {
        self.edit(ChangeKind::Claim, |_| Ok(()))
    }

    /// Records that the refresh token was sent and the answer is lost, and whether it may be sent a
    /// second time. Once recorded that it may not, no later call changes that (SPENT).
    ///
    /// # Errors
    /// [`Refused::Ended`], or [`Refused::Claimed`] if another attempt has the claim.
    pub fn lose_answer(self, attempt: AttemptId, replay_left: bool) -> Result<Change, Refused> {
        self.edit(ChangeKind::Claim, |active| {
            let claim = active.owned_claim(attempt)?;
            let given_up = claim.answer_lost && claim.replay;
            claim.answer_lost = true;
            claim.replay = given_up || !replay_left;
            Ok(())
        })
    }

    /// Records that the process that made this claim died. A replay is used up then.
    ///
    /// # Errors
    /// As [`Session::lose_answer`].
    pub fn orphan(self, attempt: AttemptId) -> Result<Change, Refused> {
        let lose = |claim: &mut Claim| claim.answer_lost = true;
        self.edit(ChangeKind::Claim, |active| active.owned_claim(attempt).map(lose))
    }

    /// Replaces the pair of generation `sent` by this attempt's new pair: while it has the claim,
    /// and also if its lease went to an attempt without a new pair, since the new pair must not be
    /// lost (STRAND). `seal` gets the generation that binds the pair.
    ///
    /// # Errors
    /// [`Refused::Ended`], or [`Refused::Superseded`] if the row has another new pair. Then this
    /// one must be revoked.
    pub fn rotate(
        self,
        attempt: AttemptId,
        sent: Option<Version>,
        now: Timestamp,
        seal: impl FnOnce(Version) -> SealedPair,
    ) -> Result<Change, Refused> {
        let still_the_one_sent = sent.is_some() && self.generation() == sent;
        if !self.ended() && !self.claimed_by(attempt) && !still_the_one_sent {
            return Err(Refused::Superseded);
        }
        self.replace_pair(now, seal)
    }

    fn replace_pair(
        self,
        now: Timestamp,
        seal: impl FnOnce(Version) -> SealedPair,
    ) -> Result<Change, Refused> {
        let generation = self.version.next();
        self.change(ChangeKind::Pair, |state| {
            state.into_active()?;
            Ok(State::Live(ActiveState { pair: Some(seal(generation)), proven_at: now, claim: None }))
        })
    }

    /// Replaces the pair of this generation by the same one, resealed. A refresh of it in progress
    /// continues.
    ///
    /// # Errors
    /// [`Refused::Ended`], or [`Refused::Superseded`] if the row has another pair.
    pub fn reseal(
        self,
        generation: Version,
        access: SealedBlob,
        refresh: Option<SealedBlob>,
    ) -> Result<Change, Refused> {
        self.edit(ChangeKind::Pair, |active| {
            let pair = active.pair_of(generation)?;
            pair.access = access;
            pair.refresh = refresh;
            Ok(())
        })
    }

    /// Returns whether no refresh can save the pair, so that only a new authorization by the user
    /// can.
    pub fn beyond_refresh(&self, now: Timestamp, habits: &ProviderHabits) -> bool {
        self.pair().is_some()
            && matches!(self.refresh_step(now, habits), Ok(RefreshStep::SignInAgain) | Err(Refused::NoPair))
    }

    /// Returns the state of the tokens.
    pub fn token_status(&self, now: Timestamp, habits: &ProviderHabits) -> TokenStatus {
        match self.refresh_step(now, habits) {
            _ if self.pair().is_none() => TokenStatus::NoTokens,
            Ok(RefreshStep::Send) => TokenStatus::InOrder,
            Ok(RefreshStep::Wait { .. }) => TokenStatus::Refreshing,
            Ok(RefreshStep::Replay) => TokenStatus::AnswerLost,
            Ok(RefreshStep::SignInAgain) => TokenStatus::RenewalNeeded,
            // Without a refresh token the access token works until it expires.
            Err(_) => match &self.state {
                State::Live(ActiveState { pair: Some(pair), .. }) if !pair.expiry.passed(now) => {
                    TokenStatus::InOrder
                }
                _ => TokenStatus::RenewalNeeded,
            },
        }
    }

    /// Replaces a pair that no refresh can save by that of a new authorization of the same user.
    /// `seal` gets the generation that binds the pair. A late answer to the lost refresh then no
    /// longer counts.
    ///
    /// # Errors
    /// [`Refused::Ended`], or [`Refused::Superseded`] if the row belongs to another user or needs
    /// no repair.
    pub fn repair(
        self,
        subject: &Subject,
        now: Timestamp,
        habits: &ProviderHabits,
        seal: impl FnOnce(Version) -> SealedPair,
    ) -> Result<Change, Refused> {
        if self.ended() {
            return Err(Refused::Ended);
        }
        if self.subject != *subject || !self.beyond_refresh(now, habits) {
            return Err(Refused::Superseded);
        }
        self.replace_pair(now, seal)
    }

    /// Records that the provider proved this pair's access token good at a time. A later proof
    /// stays, unless it lies in the future. That does not show that the user is present.
    ///
    /// # Errors
    /// [`Refused::Ended`], or [`Refused::Superseded`] if the proof is about an older pair.
    pub fn prove(self, generation: Version, at: Timestamp) -> Result<Change, Refused> {
        let was_live = matches!(self.state, State::Live(_));
        let kind = if was_live { ChangeKind::Proof } else { ChangeKind::State };
        self.judge(kind, generation, |active| {
            let proven_at = if active.proven_at.age(at).is_some() { active.proven_at.max(at) } else { at };
            State::Live(ActiveState { proven_at, ..active })
        })
    }

    /// Records that the provider rejected this pair's access token.
    ///
    /// # Errors
    /// [`Refused::Ended`], or [`Refused::Superseded`] if the answer is about an older pair, or the
    /// row is already suspect.
    pub fn suspect(self, generation: Version) -> Result<Change, Refused> {
        if matches!(self.state, State::Suspect(_)) {
            return Err(Refused::Superseded);
        }
        self.judge(ChangeKind::State, generation, State::Suspect)
    }

    /// Parks the session until a request refreshes it.
    ///
    /// # Errors
    /// [`Refused::Ended`], or [`Refused::Superseded`] if the row has a newer pair, is already
    /// parked, or is suspect, which is worse.
    pub fn park(self, generation: Version) -> Result<Change, Refused> {
        if matches!(self.state, State::Parked(_) | State::Suspect(_)) {
            return Err(Refused::Superseded);
        }
        self.judge(ChangeKind::State, generation, State::Parked)
    }

    /// Ends the session and erases the tokens. The change carries the revocation of the last pair.
    ///
    /// # Errors
    /// [`Refused::Ended`] if it had ended before; the first reason stays.
    pub fn end(self, reason: EndReason, at: Timestamp) -> Result<Change, Refused> {
        self.end_with(reason, at, None)
    }

    /// As [`Session::end`], with the refresh token sealed for the server by a caller that could
    /// open it, to be revoked too.
    ///
    /// # Errors
    /// See [`Session::end`].
    pub fn end_with(
        self,
        reason: EndReason,
        at: Timestamp,
        refresh: Option<SealedBlob>,
    ) -> Result<Change, Refused> {
        if self.ended() {
            return Err(Refused::Ended);
        }
        let revocation = self.last_revocation(at, refresh);
        self.change(ChangeKind::End { revocation }, |_| Ok(State::Ended { reason, at }))
    }

    /// Ends the session whose refresh token the provider called dead in its answer to this attempt.
    ///
    /// # Errors
    /// [`Refused::Ended`], or [`Refused::Claimed`] if another attempt has the claim: then the
    /// answer was about another pair.
    pub fn end_rejected(
        self,
        attempt: AttemptId,
        reason: EndReason,
        at: Timestamp,
    ) -> Result<Change, Refused> {
        if !self.ended() && !self.claimed_by(attempt) {
            return Err(Refused::Claimed);
        }
        self.end(reason, at)
    }

    /// An expired access token needs no revocation, unless the server can open a refresh token that
    /// outlives it.
    fn last_revocation(
        &self,
        pending_since: Timestamp,
        refresh: Option<SealedBlob>,
    ) -> Option<PendingRevocation> {
        let pair = self.pair()?;
        let of_server = if self.custody == Custody::Server { pair.refresh.clone() } else { None };
        let refresh = refresh.or(of_server);
        if pair.expiry.passed(pending_since) && refresh.is_none() {
            return None;
        }
        Some(PendingRevocation {
            session: self.id,
            generation: pair.generation,
            provider: self.subject.provider.clone(),
            access: pair.access.clone(),
            refresh,
            expiry: pair.expiry,
            pending_since,
        })
    }

    /// Changes the contents and leaves the state.
    fn edit(
        self,
        kind: ChangeKind,
        edit: impl FnOnce(&mut ActiveState) -> Result<(), Refused>,
    ) -> Result<Change, Refused> {
        self.change(kind, |mut state| {
            match &mut state {
                State::Live(active) | State::Parked(active) | State::Suspect(active) => edit(active)?,
                State::Ended { .. } => return Err(Refused::Ended),
            }
            Ok(state)
        })
    }

    /// Goes to the state that follows from an answer about the pair of this generation.
    fn judge(
        self,
        kind: ChangeKind,
        generation: Version,
        next: impl FnOnce(ActiveState) -> State,
    ) -> Result<Change, Refused> {
        self.change(kind, |state| {
            let mut active = state.into_active()?;
            active.pair_of(generation)?;
            Ok(next(active))
        })
    }

    fn change(
        mut self,
        kind: ChangeKind,
        next: impl FnOnce(State) -> Result<State, Refused>,
    ) -> Result<Change, Refused> {
        self.state = next(self.state)?;
        self.version = self.version.next();
        Ok(Change::new(kind, self))
    }
}

impl State {
    fn into_active(self) -> Result<ActiveState, Refused> {
        match self {
            Self::Live(active) | Self::Parked(active) | Self::Suspect(active) => Ok(active),
            Self::Ended { .. } => Err(Refused::Ended),
        }
    }
}

impl ActiveState {
    fn pair_of(&mut self, generation: Version) -> Result<&mut SealedPair, Refused> {
        let pair = self.pair.as_mut().ok_or(Refused::NoPair)?;
        if pair.generation == generation { Ok(pair) } else { Err(Refused::Superseded) }
    }

    fn owned_claim(&mut self, attempt: AttemptId) -> Result<&mut Claim, Refused> {
        self.claim.as_mut().filter(|claim| claim.attempt == attempt).ok_or(Refused::Claimed)
    }
}

#[cfg(test)]
pub(crate) mod tests;
