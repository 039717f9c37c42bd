//! A device's session as a row: its states, and the changes that lead from one to the next.
//!
//! Each change takes the row and gives the next one, with the version one higher. A store writes it only if the stored
//! version is still the one the change started from, so a change that lost a race is never written. No change leads
//! out of [`State::Ended`] (invariant ENDED).
//!
//! | change | from | to |
//! |---|---|---|
//! | `rotate`, `repair`, `prove` | any | Live |
//! | `suspect` | Live, Parked | Suspect |
//! | `park` | Live | Parked |
//! | `claim`, `release`, `lose_answer`, `reseal` | any | the same |
//! | `end` | any | Ended |
//!
//! where *any* is Live, Parked or Suspect.

mod reason;

pub use reason::EndReason;

use crate::{
    device::DeviceLabel,
    ids::{AttemptId, SessionId, Subject, Version},
    policy::{Custody, ProviderHabits, Rotation, limits},
    secret::{Fingerprint, SecretHash},
    time::{Expiry, Timestamp},
};

/// One device's sign-in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Names the row.
    pub id: SessionId,
    /// Counts the row's committed changes.
    pub version: Version,
    /// Who signed in.
    pub subject: Subject,
    /// What the provider called the user at sign-in: for pages and headers, never a key.
    pub display_name: String,
    /// What the store knows of the secret in the browser's cookie.
    pub secret_hash: SecretHash,
    /// Who can open the refresh token.
    pub custody: Custody,
    /// The device in words.
    pub device: DeviceLabel,
    /// When the user signed in.
    pub created_at: Timestamp,
    /// When the user last used the session, to about a minute. Kept beside the version: a use changes no pair and no state.
    pub last_seen_at: Timestamp,
    /// Where the session stands.
    pub state: State,
}

/// Where a session stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// The access token works as far as is known.
    Live(Holding),
    /// The pair went unproven for too long: it must be refreshed before it is used again.
    Parked(Holding),
    /// The provider rejected this pair's access token: it must be proven or refreshed before it is used again.
    Suspect(Holding),
    /// Over for good. The tokens are erased; the row stays as a tombstone until it is purged.
    Ended {
        /// Why.
        reason: EndReason,
        /// When.
        at: Timestamp,
    },
}

/// What a session that has not ended holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holding {
    /// The token pair, sealed. None with custody [`Custody::None`].
    pub pair: Option<SealedPair>,
    /// When the provider last proved the access token good.
    pub proven_at: Timestamp,
    /// A refresh that is under way, or whose answer was lost.
    pub claim: Option<Claim>,
}

/// A token pair, sealed and bound to its row and to [`SealedPair::generation`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedPair {
    /// The version of the row at which the pair was written. Both blobs are bound to it.
    pub generation: Version,
    /// The access token with its scopes, sealed under the server's keyring.
    pub access: SealedBlob,
    /// The refresh token, sealed as the session's custody says. None where the provider gave none.
    pub refresh: Option<SealedBlob>,
    /// When the access token expires.
    pub expiry: Expiry,
}

/// Sealed bytes. They are no secret, but they are nobody's business in a log either.
#[derive(Clone, PartialEq, Eq)]
pub struct SealedBlob(pub Vec<u8>);

impl std::fmt::Debug for SealedBlob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SealedBlob({} bytes)", self.0.len())
    }
}

/// How a sealed blob begins. Two that were sealed alike begin alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlobHead(pub [u8; 5]);

impl SealedBlob {
    /// How it begins; the octets that a shorter one lacks are 0.
    pub fn head(&self) -> BlobHead {
        BlobHead(std::array::from_fn(|index| self.0.get(index).copied().unwrap_or_default()))
    }
}

/// A refresh in flight: written before the request is sent, so that a crash leaves a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Whose refresh it is.
    pub attempt: AttemptId,
    /// When the token was first sent.
    pub taken_at: Timestamp,
    /// Until when nobody else may take it.
    pub lease_until: Timestamp,
    /// Which refresh token is being sent.
    pub fingerprint: Fingerprint,
    /// Whether this sends a refresh token a second time, by the recovery rule, and that chance is used up with it.
    pub replay: bool,
    /// Whether the request was sent and its answer is known to be lost.
    pub answer_lost: bool,
}

impl Claim {
    /// Whether nobody can say if the provider spent the refresh token: the answer was lost, or its owner died.
    pub fn ambiguous(&self, now: Timestamp) -> bool {
        self.answer_lost || self.lease_until <= now
    }

    /// Whether its token, sent again now, arrives within the provider's window, and does not only leave within it.
    pub fn replay_arrives(&self, now: Timestamp, habits: &ProviderHabits) -> bool {
        habits.may_replay(now.since(self.taken_at) + limits::PROVIDER_CONNECT + limits::PROVIDER_ANSWER)
    }
}

/// Why a change does not apply to the row as it is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The session has ended.
    #[error("the session has ended")]
    Ended,
    /// The row is not, or no longer, what the change was meant for: it holds another pair, or is somebody else's.
    #[error("the change was meant for another row or pair")]
    Superseded,
    /// The claim on the row is another attempt's, or there is none.
    #[error("the row is not claimed by this attempt")]
    Claimed,
    /// The row holds no pair.
    #[error("the session holds no tokens")]
    NoPair,
}

/// A revocation that the provider is still owed. It outlives the session it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwedRevocation {
    /// The session whose token it is; with `generation` it opens the blob.
    pub session: SessionId,
    /// The generation of the pair.
    pub generation: Version,
    /// Who issued the token.
    pub provider: crate::ids::ProviderName,
    /// The sealed access token.
    pub access: SealedBlob,
    /// The refresh token, sealed so that the server can open it. None where only its device could, or there is none.
    pub refresh: Option<SealedBlob>,
    /// When the access token dies by itself.
    pub expiry: Expiry,
    /// Since when it is owed.
    pub owed_at: Timestamp,
}

/// What a refresh may do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefreshStep {
    /// Take the claim and send the refresh token.
    Send,
    /// Take the claim and send the refresh token a second time: its first answer was lost.
    Replay,
    /// Somebody else is at it: wait for the new pair.
    Wait {
        /// Until when that attempt holds the row.
        lease_until: Timestamp,
    },
    /// The pair cannot be saved by rule: the user has to sign in again. The row stays as it is.
    SignInAgain,
}

/// How it stands with a session's tokens, for its user to see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It keeps none.
    NoTokens,
    /// They work, or the next use refreshes them.
    InOrder,
    /// They are being refreshed.
    Refreshing,
    /// The answer to their refresh was lost; the next use makes that good.
    AnswerLost,
    /// No refresh can save them: the user has to go to the provider and back once.
    RenewalNeeded,
}

impl Standing {
    /// The stable name, as JSON writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoTokens => "none",
            Self::InOrder => "in_order",
            Self::Refreshing => "refreshing",
            Self::AnswerLost => "answer_lost",
            Self::RenewalNeeded => "renewal_needed",
        }
    }
}

impl Session {
    /// What the session holds, unless it ended.
    pub fn holding(&self) -> Option<&Holding> {
        match &self.state {
            State::Live(holding) | State::Parked(holding) | State::Suspect(holding) => Some(holding),
            State::Ended { .. } => None,
        }
    }

    /// The pair, if the session has not ended and holds one.
    pub fn pair(&self) -> Option<&SealedPair> {
        self.holding().and_then(|holding| holding.pair.as_ref())
    }

    /// Which pair the session holds, if it has not ended and holds one.
    pub fn generation(&self) -> Option<Version> {
        self.pair().map(|pair| pair.generation)
    }

    /// Whether the session is over.
    pub fn ended(&self) -> bool {
        matches!(self.state, State::Ended { .. })
    }

    /// Whether a refresh was sent whose outcome nobody knows.
    pub fn ambiguous(&self, now: Timestamp) -> bool {
        self.holding().and_then(|holding| holding.claim).is_some_and(|claim| claim.ambiguous(now))
    }

    /// What a refresh of this row may do now, by the claim on it and the provider's habits.
    ///
    /// # Errors
    /// [`Refused::Ended`], or [`Refused::NoPair`] where there is nothing to refresh with.
    pub fn refresh_step(&self, now: Timestamp, habits: &ProviderHabits) -> Result<RefreshStep, Refused> {
        let holding = self.holding().ok_or(Refused::Ended)?;
        holding.pair.as_ref().and_then(|pair| pair.refresh.as_ref()).ok_or(Refused::NoPair)?;
        let Some(claim) = holding.claim else { return Ok(RefreshStep::Send) };
        if !claim.ambiguous(now) {
            return Ok(RefreshStep::Wait { lease_until: claim.lease_until });
        }
        let spent_at_most_once = habits.rotation == Rotation::None || !claim.replay;
        if spent_at_most_once && claim.replay_arrives(now, habits) {
            return Ok(RefreshStep::Replay);
        }
        Ok(RefreshStep::SignInAgain)
    }

    /// Whether the row is claimed by this attempt.
    pub fn claimed_by(&self, attempt: AttemptId) -> bool {
        self.holding().and_then(|holding| holding.claim).is_some_and(|claim| claim.attempt == attempt)
    }

    /// Takes the row for one refresh. The caller has asked [`Session::refresh_step`] whether it may.
    ///
    /// # Errors
    /// [`Refused::Ended`], [`Refused::NoPair`].
    pub fn claim(self, claim: Claim) -> Result<Self, Refused> {
        self.change(|state| {
            state.with_holding(|holding| {
                holding.pair.as_ref().ok_or(Refused::NoPair)?;
                holding.claim = Some(claim);
                Ok(())
            })
        })
    }

    /// Gives the row back: the provider answered, and the refresh token is unspent.
    ///
    /// # Errors
    /// [`Refused::Ended`], or [`Refused::Claimed`] if the claim is somebody else's by now.
    pub fn release(self, attempt: AttemptId) -> Result<Self, Refused> {
        self.change(|state| {
            state.with_holding(|holding| {
                holding.owned_claim(attempt)?;
                holding.claim = None;
                Ok(())
            })
        })
    }

    /// Counts a version and changes nothing else. Whatever was made from the row before, and is written late, then comes too late.
    ///
    /// # Errors
    /// [`Refused::Ended`].
    pub fn fence(self) -> Result<Self, Refused> {
        self.change(|state| state.with_holding(|_| Ok(())))
    }

    /// Records that the refresh token was sent and the answer is lost, and whether it may still be sent a second time. Once it is
    /// recorded that it may not, nobody who comes late with another word makes it so again (invariant SPENT).
    ///
    /// # Errors
    /// [`Refused::Ended`], or [`Refused::Claimed`] if the claim is somebody else's by now.
    pub fn lose_answer(self, attempt: AttemptId, replay_left: bool) -> Result<Self, Refused> {
        self.change(|state| {
            state.with_holding(|holding| {
                let claim = holding.owned_claim(attempt)?;
                let given_up = claim.answer_lost && claim.replay;
                claim.answer_lost = true;
                claim.replay = given_up || !replay_left;
                Ok(())
            })
        })
    }

    /// Puts the new pair of this attempt in place of the one of generation `sent`: while the claim is its own, and also where its
    /// lease went to somebody who has no new pair yet. The pair in hand must not be lost for that (invariant STRAND).
    /// `seal` gets the generation that the pair is bound to.
    ///
    /// # Errors
    /// [`Refused::Ended`], or [`Refused::Superseded`] if the row holds another new pair. Then the one in hand is to be revoked.
    pub fn rotate(
        self,
        attempt: AttemptId,
        sent: Option<Version>,
        now: Timestamp,
        seal: impl FnOnce(Version) -> SealedPair,
    ) -> Result<Self, Refused> {
        let still_the_one_sent = sent.is_some() && self.generation() == sent;
        if !self.ended() && !self.claimed_by(attempt) && !still_the_one_sent {
            return Err(Refused::Superseded);
        }
        self.replace_pair(now, seal)
    }

    fn replace_pair(self, now: Timestamp, seal: impl FnOnce(Version) -> SealedPair) -> Result<Self, Refused> {
        let generation = self.version.next();
        self.change(|state| {
            state.into_holding()?;
            Ok(State::Live(Holding { pair: Some(seal(generation)), proven_at: now, claim: None }))
        })
    }

    /// Puts the same pair, sealed anew, in the place of the pair of this generation. A refresh of it that is under way goes on.
    ///
    /// # Errors
    /// [`Refused::Ended`], or [`Refused::Superseded`] if the row holds another pair.
    pub fn reseal(
        self,
        generation: Version,
        access: SealedBlob,
        refresh: Option<SealedBlob>,
    ) -> Result<Self, Refused> {
        self.change(|state| {
            state.with_holding(|holding| {
                holding.require(generation)?;
                if let Some(pair) = &mut holding.pair {
                    pair.access = access;
                    pair.refresh = refresh;
                }
                Ok(())
            })
        })
    }

    /// Whether no refresh can save the pair, so that only a new authorization by the user can.
    pub fn beyond_refresh(&self, now: Timestamp, habits: &ProviderHabits) -> bool {
        self.pair().is_some()
            && matches!(self.refresh_step(now, habits), Ok(RefreshStep::SignInAgain) | Err(Refused::NoPair))
    }

    /// How it stands with the tokens.
    pub fn standing(&self, now: Timestamp, habits: &ProviderHabits) -> Standing {
        match self.refresh_step(now, habits) {
            _ if self.pair().is_none() => Standing::NoTokens,
            Ok(RefreshStep::Send) => Standing::InOrder,
            Ok(RefreshStep::Wait { .. }) => Standing::Refreshing,
            Ok(RefreshStep::Replay) => Standing::AnswerLost,
            Ok(RefreshStep::SignInAgain) => Standing::RenewalNeeded,
            // Where the provider gave no refresh token the access token works for as long as it lives.
            Err(_) => match &self.state {
                State::Live(Holding { pair: Some(pair), .. }) if !pair.expiry.passed(now) => {
                    Standing::InOrder
                }
                _ => Standing::RenewalNeeded,
            },
        }
    }

    /// Puts the pair of a new authorization by the same user in place of one that no refresh can save.
    /// `seal` gets the generation that the pair is bound to. An answer to the lost refresh that comes yet comes too late.
    ///
    /// # Errors
    /// [`Refused::Ended`], or [`Refused::Superseded`] if the row is another user's, or does not need it (any more).
    pub fn repair(
        self,
        subject: &Subject,
        now: Timestamp,
        habits: &ProviderHabits,
        seal: impl FnOnce(Version) -> SealedPair,
    ) -> Result<Self, Refused> {
        if self.ended() {
            return Err(Refused::Ended);
        }
        if self.subject != *subject || !self.beyond_refresh(now, habits) {
            return Err(Refused::Superseded);
        }
        self.replace_pair(now, seal)
    }

    /// Records that the provider proved this pair's access token good. It says nothing of the user's presence.
    ///
    /// # Errors
    /// [`Refused::Ended`], or [`Refused::Superseded`] if the proof is of an older pair.
    pub fn prove(self, generation: Version, at: Timestamp) -> Result<Self, Refused> {
        self.change(|state| {
            let mut holding = state.into_holding()?;
            holding.require(generation)?;
            holding.proven_at = holding.proven_at.max(at);
            Ok(State::Live(holding))
        })
    }

    /// Records that the provider rejected this pair's access token.
    ///
    /// # Errors
    /// [`Refused::Ended`], or [`Refused::Superseded`] if the answer is about an older pair, or the row is suspect already.
    pub fn suspect(self, generation: Version) -> Result<Self, Refused> {
        if matches!(self.state, State::Suspect(_)) {
            return Err(Refused::Superseded);
        }
        self.change(|state| {
            let holding = state.into_holding()?;
            holding.require(generation)?;
            Ok(State::Suspect(holding))
        })
    }

    /// Sets the session aside until a request refreshes it.
    ///
    /// # Errors
    /// [`Refused::Ended`], or [`Refused::Superseded`] if the row holds a newer pair, is set aside already, or is suspect, which is
    /// the graver of the two.
    pub fn park(self, generation: Version) -> Result<Self, Refused> {
        if matches!(self.state, State::Parked(_) | State::Suspect(_)) {
            return Err(Refused::Superseded);
        }
        self.change(|state| {
            let holding = state.into_holding()?;
            holding.require(generation)?;
            Ok(State::Parked(holding))
        })
    }

    /// Ends the session: erases the tokens, and says which revocation the provider is owed.
    ///
    /// # Errors
    /// [`Refused::Ended`] if it had ended before; the first reason stays.
    pub fn end(self, reason: EndReason, at: Timestamp) -> Result<(Self, Option<OwedRevocation>), Refused> {
        self.end_with(reason, at, None)
    }

    /// The same, by somebody who could open the refresh token and sealed it for the server, to be revoked too.
    ///
    /// # Errors
    /// See [`Session::end`].
    pub fn end_with(
        self,
        reason: EndReason,
        at: Timestamp,
        refresh: Option<SealedBlob>,
    ) -> Result<(Self, Option<OwedRevocation>), Refused> {
        if self.ended() {
            return Err(Refused::Ended);
        }
        let owed = self.owed_revocation(at, refresh);
        let ended = self.change(|_| Ok(State::Ended { reason, at }))?;
        Ok((ended, owed))
    }

    /// Ends the session whose refresh token the provider told this attempt to be dead.
    ///
    /// # Errors
    /// [`Refused::Ended`], or [`Refused::Claimed`] if the claim is somebody else's by now: then it was about another pair.
    pub fn end_rejected(
        self,
        attempt: AttemptId,
        reason: EndReason,
        at: Timestamp,
    ) -> Result<(Self, Option<OwedRevocation>), Refused> {
        if !self.ended() && !self.claimed_by(attempt) {
            return Err(Refused::Claimed);
        }
        self.end(reason, at)
    }

    /// Nothing is owed for an access token that died by itself, unless a refresh token that the server can open outlives it.
    fn owed_revocation(&self, owed_at: Timestamp, refresh: Option<SealedBlob>) -> Option<OwedRevocation> {
        let pair = self.pair()?;
        let of_server = if self.custody == Custody::Server { pair.refresh.clone() } else { None };
        let refresh = refresh.or(of_server);
        if pair.expiry.passed(owed_at) && refresh.is_none() {
            return None;
        }
        Some(OwedRevocation {
            session: self.id,
            generation: pair.generation,
            provider: self.subject.provider.clone(),
            access: pair.access.clone(),
            refresh,
            expiry: pair.expiry,
            owed_at,
        })
    }

    fn change(mut self, next: impl FnOnce(State) -> Result<State, Refused>) -> Result<Self, Refused> {
        self.state = next(self.state)?;
        self.version = self.version.next();
        Ok(self)
    }
}

impl State {
    fn into_holding(self) -> Result<Holding, Refused> {
        match self {
            Self::Live(holding) | Self::Parked(holding) | Self::Suspect(holding) => Ok(holding),
            Self::Ended { .. } => Err(Refused::Ended),
        }
    }

    fn with_holding(
        mut self,
        edit: impl FnOnce(&mut Holding) -> Result<(), Refused>,
    ) -> Result<Self, Refused> {
        match &mut self {
            Self::Live(holding) | Self::Parked(holding) | Self::Suspect(holding) => edit(holding)?,
            Self::Ended { .. } => return Err(Refused::Ended),
        }
        Ok(self)
    }
}

impl Holding {
    fn require(&self, generation: Version) -> Result<(), Refused> {
        match &self.pair {
            Some(pair) if pair.generation == generation => Ok(()),
            Some(_) => Err(Refused::Superseded),
            None => Err(Refused::NoPair),
        }
    }

    fn owned_claim(&mut self, attempt: AttemptId) -> Result<&mut Claim, Refused> {
        self.claim.as_mut().filter(|claim| claim.attempt == attempt).ok_or(Refused::Claimed)
    }
}

/// Which sessions must end so that a user has no more than `limit`: those used least recently, never `newcomer`.
///
/// `open` are the user's sessions that have not ended, `newcomer` among them.
pub fn over_limit(open: &[Session], newcomer: SessionId, limit: u32) -> Vec<SessionId> {
    let surplus = open.len().saturating_sub(limit.max(1) as usize);
    let mut others: Vec<_> = open.iter().filter(|session| session.id != newcomer).collect();
    others.sort_by_key(|session| (session.last_seen_at, session.id));
    others.into_iter().take(surplus).map(|session| session.id).collect()
}

#[cfg(test)]
pub(crate) mod tests;
