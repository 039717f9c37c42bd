//! What a provider's answer about a token proves, and what follows for its row.
//!
//! What a sign of a disconnect does is decided in `suspicion`. An answer of the provider's API that
//! names a dead token makes its row suspect, as a 401 here does.
//!
//! An answer has one of four verdicts. *Unknown never signs anybody out*, nor does our own
//! misconfiguration.
//!
//! | answer | verdict | what follows |
//! |---|---|---|
//! | validate 200, our client and user | Valid | the proof is recorded |
//! | validate 200, another user or none | Rejected | this row ends, alarm |
//! | validate 200, our user but another client | Misconfigured | alarm; no session ends |
//! | validate 401 that judges the token | Rejected, for the access token alone | the row is suspect |
//! | refresh 200 | Valid | the new pair is committed |
//! | refresh says that the token is dead | Rejected | this row ends, if it still holds that pair |
//! | the same, to a replay after a lost answer, where a refresh spends the token | Unknown | the row stays, and the user has to sign in again |
//! | our client or its secret is wrong | Misconfigured | alarm; no session ends |
//! | 404, 408, 429, 5xx, no connection, not understood | Unknown | no session ends; try later |
//! | 500, 502, 504 and above to a refresh, which may have spent the token; also 503 without Retry-After, where reuse is harmful | ambiguous | as for a lost answer |
//! | a refresh was sent and its answer lost | ambiguous | the row says so; see [`Session::refresh_step`] and [`before_replay`] |

use std::time::Duration;

use crate::{
    AccessToken, EndReason, Expiry, ProviderHabits, RefreshToken, Rotation, Session, Timestamp, Version,
    display::shows_itself, limits,
};

/// What an answer proves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// The token is good.
    Valid,
    /// The token is dead.
    Rejected,
    /// Nothing: the provider could not be asked, or its answer says nothing about the token.
    Unknown,
    /// Nothing about the token: our own credentials are wrong, and the operator must act.
    Misconfigured,
}

/// Why an answer proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ProviderFailure {
    /// What happened.
    pub kind: FailureKind,
    /// How long the provider asked us to wait (RFC 9110 section 10.2.3).
    pub retry_after: Option<Duration>,
}

/// The kinds of provider failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FailureKind {
    /// It answered with this status.
    Status(u16),
    /// The request certainly never left: no name, no connection, no TLS.
    NotSent,
    /// The request may have left, and no complete answer came.
    NoAnswer,
    /// It answered 200 with something that makes no sense.
    Unreadable,
}

impl ProviderFailure {
    /// Creates a failure without Retry-After.
    pub const fn new(kind: FailureKind) -> Self {
        Self { kind, retry_after: None }
    }

    /// Returns whether a gateway may have given this answer after the provider did what was asked.
    ///
    /// Of all 5xx, 501 and 503 say that nothing was done (RFC 9110 section 15.6.4). But some
    /// gateways also answer 503 when they lose the provider after they passed the request on. A 503
    /// with Retry-After is trusted. One without it is trusted only where a mistake does no harm.
    pub fn may_follow_success(&self, habits: &ProviderHabits) -> bool {
        match self.kind {
            FailureKind::Status(503) => self.retry_after.is_none() && habits.reuse_is_harmful(),
            FailureKind::Status(status) => matches!(status, 500 | 502 | 504..=599),
            _ => false,
        }
    }

    /// Returns whether the provider failed, and not just one token.
    pub const fn is_the_providers(&self) -> bool {
        matches!(
            self.kind,
            FailureKind::NotSent | FailureKind::NoAnswer | FailureKind::Status(408 | 429 | 500..)
        )
    }

    /// Returns when to come back: as asked, within limits, or after the default pause.
    pub fn pause(&self) -> Duration {
        self.retry_after.unwrap_or(limits::RETRY_AFTER).min(limits::RETRY_AFTER_MAX)
    }
}

/// A lifetime as providers state it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifespan {
    /// This long from now.
    Lasts(Duration),
    /// Not stated.
    Unknown,
    /// Unlimited.
    Endless,
}

impl Lifespan {
    /// Returns the expiry for a lifetime from `now`.
    pub fn from(self, now: Timestamp) -> Expiry {
        match self {
            Self::Lasts(span) => Expiry::At(now.after(span)),
            Self::Unknown => Expiry::Unknown,
            Self::Endless => Expiry::Never,
        }
    }
}

/// A pair as the provider issued it.
#[derive(Clone, Debug)]
pub struct IssuedPair {
    /// The access token.
    pub access: AccessToken,
    /// The refresh token. A refresh without one keeps the old one (RFC 6749 section 6).
    pub refresh: Option<RefreshToken>,
    /// Lifetime of the access token.
    pub lifespan: Lifespan,
    /// The granted scopes, if the provider named them.
    pub scopes: Option<Vec<String>>,
}

impl IssuedPair {
    /// The pair as the answer to a replay. It may have been issued long before. So one whose life
    /// is not stated may be at its end, as with `expires_in: 0`, and is refreshed before it is
    /// used.
    fn replayed(self) -> Self {
        let is_unstated = self.lifespan == Lifespan::Unknown;
        Self { lifespan: if is_unstated { Lifespan::Lasts(Duration::ZERO) } else { self.lifespan }, ..self }
    }
}

/// The token endpoint's answer to a code or a refresh token.
#[derive(Clone, Debug)]
pub enum TokenAnswer {
    /// A pair.
    Issued(IssuedPair),
    /// The code or the refresh token is dead.
    Rejected,
    /// Our client or its secret is wrong.
    Misconfigured,
    /// It refused for now; what was sent is unspent.
    Unknown(ProviderFailure),
    /// What was sent may be spent, and the answer is lost.
    Lost(ProviderFailure),
}

/// The owner of a token, as the provider says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// The client that the token was issued to.
    pub client_id: String,
    /// The user; `None` for an app's own token.
    pub subject_id: Option<String>,
    /// The user's name.
    pub display_name: Option<String>,
    /// Remaining lifetime of the token.
    pub lifespan: Lifespan,
    /// The granted scopes.
    pub scopes: Vec<String>,
}

impl Proof {
    /// The user's name, without characters that do not show as themselves, and cut. None if the
    /// provider says none.
    pub fn name(&self) -> Option<String> {
        let shown = self.display_name.as_deref()?.chars().filter(|c| shows_itself(*c));
        let name: String = shown.take(limits::DISPLAY_NAME_CHARS).collect();
        (!name.is_empty()).then_some(name)
    }
}

/// The provider's answer to a validation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ValidateAnswer {
    /// The token is good, and belongs to this user.
    Valid(Proof),
    /// The token is dead. The answer does not say whether it expired, was revoked, or the user
    /// disconnected.
    Rejected,
    /// Nothing is proven.
    Unknown(ProviderFailure),
}

/// The provider's answer to a revocation (RFC 7009).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RevokeAnswer {
    /// The token is dead, now or already before.
    Done,
    /// Our client is wrong.
    Misconfigured,
    /// The token may be alive: ask again.
    Unknown(ProviderFailure),
}

/// What a 401 of the provider's API is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApiRefusal {
    /// The access token is dead.
    DeadToken,
    /// Perhaps the token; only a validation can tell.
    Unclear,
    /// Something else, such as a missing scope or a wrong client. It is passed on to the caller.
    NotTheToken,
}

impl ValidateAnswer {
    /// Returns whether the question was certainly not sent.
    pub const fn was_not_sent(&self) -> bool {
        matches!(self, Self::Unknown(ProviderFailure { kind: FailureKind::NotSent, .. }))
    }

    /// Returns the verdict on a token that should belong to this client and, if known, to this
    /// user.
    ///
    /// Every stored token was once proven to be our client's. If it is another client's now, the
    /// operator changed the client id, which must not end every session (docs/decisions/0008).
    pub fn verdict(&self, client_id: &str, subject_id: Option<&str>) -> Verdict {
        match self {
            Self::Valid(proof) => {
                let user = proof.subject_id.as_deref();
                if user.is_none() || subject_id.is_some_and(|id| user != Some(id)) {
                    Verdict::Rejected
                } else if proof.client_id == client_id {
                    Verdict::Valid
                } else {
                    Verdict::Misconfigured
                }
            }
            Self::Rejected => Verdict::Rejected,
            Self::Unknown(_) => Verdict::Unknown,
        }
    }
}

/// What follows from a validation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterValidate {
    /// Record the proof of this pair.
    Prove(Version),
    /// The pair belongs to another user: end this row and raise an alarm.
    End(EndReason),
    /// Mark this pair's row as suspect.
    Suspect(Version),
    /// Alert the operator; nothing is proven.
    Alarm,
    /// Nothing is proven.
    Nothing(ProviderFailure),
}

/// Decides what follows from a validation of the pair with this generation.
pub fn after_validate(
    session: &Session,
    generation: Version,
    client_id: &str,
    answer: &ValidateAnswer,
) -> AfterValidate {
    match (answer, answer.verdict(client_id, Some(&session.subject.id))) {
        (ValidateAnswer::Valid(_), Verdict::Valid) => AfterValidate::Prove(generation),
        (ValidateAnswer::Valid(_), Verdict::Misconfigured) => AfterValidate::Alarm,
        // The token is good, but for another user or for nobody.
        (ValidateAnswer::Valid(_), _) => AfterValidate::End(EndReason::TokenOfAnotherSubject),
        (ValidateAnswer::Rejected, _) => AfterValidate::Suspect(generation),
        (ValidateAnswer::Unknown(failure), _) => AfterValidate::Nothing(*failure),
    }
}

/// What follows from a refresh.
#[derive(Clone, Debug)]
pub enum AfterRefresh {
    /// Commit this pair.
    Commit(IssuedPair),
    /// End this row, if a second read shows the same claim on the same pair.
    End(EndReason),
    /// Release the row; nothing was spent. Try again after the pause.
    Release(ProviderFailure),
    /// Release the row and alert the operator; nothing was spent.
    ReleaseAndAlarm,
    /// Keep the claim and mark its answer as lost.
    MarkLost {
        /// What happened.
        failure: ProviderFailure,
        /// Whether the token may be sent a second time.
        replay_left: bool,
        /// Whether to alert the operator that our own credentials are wrong.
        alarm: bool,
    },
}

/// Decides what follows from a refresh.
pub fn after_refresh(answer: TokenAnswer, replay: bool, habits: &ProviderHabits) -> AfterRefresh {
    // If refreshes do not spend a token, a second sending is like the first.
    if replay && habits.rotation != Rotation::None {
        return after_replay(answer, habits);
    }
    match answer {
        TokenAnswer::Issued(pair) => AfterRefresh::Commit(pair),
        TokenAnswer::Rejected => AfterRefresh::End(EndReason::RefreshTokenRejected),
        TokenAnswer::Misconfigured => AfterRefresh::ReleaseAndAlarm,
        TokenAnswer::Unknown(failure)
            if failure.may_follow_success(habits) && habits.rotation != Rotation::None =>
        {
            AfterRefresh::MarkLost { failure, replay_left: true, alarm: false }
        }
        TokenAnswer::Unknown(failure) => AfterRefresh::Release(failure),
        TokenAnswer::Lost(failure) => AfterRefresh::MarkLost { failure, replay_left: true, alarm: false },
    }
}

/// Decides what follows from the replay of a refresh token after a lost answer.
///
/// A dead token proves only that the lost answer held its successor. It is no theft, so the row
/// stays (TRANSIENT) until the user signs in again. A replay that the provider refused to process
/// is not used up; one whose answer is lost too is (SPENT).
fn after_replay(answer: TokenAnswer, habits: &ProviderHabits) -> AfterRefresh {
    let lost = |failure, replay_left| AfterRefresh::MarkLost { failure, replay_left, alarm: false };
    match answer {
        TokenAnswer::Issued(pair) => AfterRefresh::Commit(pair.replayed()),
        TokenAnswer::Rejected => lost(ProviderFailure::new(FailureKind::NoAnswer), false),
        TokenAnswer::Misconfigured => {
            let failure = ProviderFailure::new(FailureKind::NoAnswer);
            AfterRefresh::MarkLost { failure, replay_left: true, alarm: true }
        }
        TokenAnswer::Unknown(failure) => lost(failure, !failure.may_follow_success(habits)),
        TokenAnswer::Lost(failure) => lost(failure, false),
    }
}

/// What to do before a refresh token is sent a second time, after its answer was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BeforeReplay {
    /// Send it again.
    Replay,
    /// Not now: the provider does not answer, and a replay must not be wasted on that.
    Later(ProviderFailure),
    /// Never: it is spent, and sending it again would do harm.
    Spent,
}

/// Decides by a validation of the old access token, which expires at `expiry` by itself.
pub fn before_replay(
    old_access: &ValidateAnswer,
    expiry: Expiry,
    now: Timestamp,
    habits: &ProviderHabits,
) -> BeforeReplay {
    match old_access {
        ValidateAnswer::Unknown(failure) => BeforeReplay::Later(*failure),
        ValidateAnswer::Rejected
            if !habits.old_access_token_survives && habits.reuse_is_harmful() && !expiry.passed(now) =>
        {
            BeforeReplay::Spent
        }
        ValidateAnswer::Rejected | ValidateAnswer::Valid(_) => BeforeReplay::Replay,
    }
}

#[cfg(test)]
mod tests;
