//! What a provider's answer proves, and what follows from it. Decided here and nowhere else.
//!
//! An answer has one of four verdicts. *Unknown never signs anybody out*, and neither does our own misconfiguration.
//!
//! | answer | verdict | what follows |
//! |---|---|---|
//! | validate 200, our client and user | Valid | the proof is recorded |
//! | validate 200, another user or none | Rejected | this row ends, alarm |
//! | validate 200, our user but another client | Misconfigured | alarm; nobody is signed out |
//! | validate 401 | Rejected, the access token only | the row is suspect |
//! | refresh 200 | Valid | the new pair is committed |
//! | refresh says that the token is dead | Rejected | this row ends, if it still holds that pair |
//! | the same, to a replay after a lost answer, where a refresh spends the token | Unknown | the row stays, the user has to sign in again |
//! | a word about our client or its secret | Misconfigured | alarm; nobody is signed out |
//! | 404, 408, 429, 5xx, no connection, not understood | Unknown | nobody is signed out; later again |
//! | 500, 502, 504 and above to a refresh, where it may have spent the token; 503 too, where reuse does harm and nothing is said of coming back | ambiguous | as for a lost answer |
//! | a refresh was sent and its answer lost | ambiguous | the row says so; see [`Session::refresh_step`] and [`before_replay`] |

use std::time::Duration;

use crate::{
    ids::Version,
    policy::{ProviderHabits, Rotation, limits},
    secret::{AccessToken, RefreshToken},
    session::{EndReason, Session},
    time::{Expiry, Timestamp},
};

/// What an answer proves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// The token is good.
    Valid,
    /// The token is dead.
    Rejected,
    /// Nothing: the provider could not be asked, or its answer says nothing of the token.
    Unknown,
    /// Nothing about the token: our own credentials are wrong, and the operator must act.
    Misconfigured,
}

/// Why an answer proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Trouble {
    /// What happened.
    pub kind: TroubleKind,
    /// How long the provider asked us to wait (RFC 9110 section 10.2.3).
    pub retry_after: Option<Duration>,
}

/// The kinds of trouble with a provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TroubleKind {
    /// It answered with this status.
    Status(u16),
    /// The request certainly never left: no name, no connection, no TLS.
    NotSent,
    /// The request left, or may have, and no whole answer came.
    NoAnswer,
    /// It answered 200 with something that is not understood.
    Unreadable,
}

impl Trouble {
    /// Trouble without a word on when to come back.
    pub const fn new(kind: TroubleKind) -> Self {
        Self { kind, retry_after: None }
    }

    /// Whether a gateway before the provider may have answered so after the provider did what was asked.
    ///
    /// Of all 5xx, 501 and 503 are the word of somebody who did nothing (RFC 9110 section 15.6.4). But some gateways also say 503
    /// when they lose the provider after they passed the request on. One that says when to come back means itself; of the
    /// others it is believed only where a mistake does no harm.
    pub fn may_follow_success(&self, habits: &ProviderHabits) -> bool {
        match self.kind {
            TroubleKind::Status(503) => self.retry_after.is_none() && habits.reuse_is_harmful(),
            TroubleKind::Status(status) => matches!(status, 500 | 502 | 504..=599),
            _ => false,
        }
    }

    /// Whether the trouble is with the provider, and not with one token.
    pub const fn is_the_providers(&self) -> bool {
        matches!(
            self.kind,
            TroubleKind::NotSent | TroubleKind::NoAnswer | TroubleKind::Status(408 | 429 | 500..)
        )
    }

    /// When to come back: as asked, within reason, else the default pause.
    pub fn pause(&self) -> Duration {
        self.retry_after.unwrap_or(limits::RETRY_AFTER).min(limits::RETRY_AFTER_MAX)
    }
}

/// A life span as providers state it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifespan {
    /// So long from now.
    Lasts(Duration),
    /// Not stated.
    Unknown,
    /// Without end.
    Endless,
}

impl Lifespan {
    /// The point in time that it leads to.
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
    /// The refresh token. A refresh that brings none keeps the old one (RFC 6749 section 6).
    pub refresh: Option<RefreshToken>,
    /// How long the access token lives.
    pub lifespan: Lifespan,
    /// The granted scopes, where the provider named them.
    pub scopes: Option<Vec<String>>,
}

/// What the token endpoint answered to a code or a refresh token.
#[derive(Clone, Debug)]
pub enum TokenAnswer {
    /// A pair.
    Issued(IssuedPair),
    /// The code or the refresh token is dead.
    Rejected,
    /// Our client or its secret is wrong.
    Misconfigured,
    /// It refused for now; what was sent is unspent.
    Unknown(Trouble),
    /// What was sent may be spent, and the answer is lost.
    Lost(Trouble),
}

/// Who a token belongs to, as the provider says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// The app that the token was issued to.
    pub client_id: String,
    /// The user; none for an app's own token.
    pub subject_id: Option<String>,
    /// What the user is called.
    pub display_name: Option<String>,
    /// How long the token lives on.
    pub lifespan: Lifespan,
    /// The granted scopes.
    pub scopes: Vec<String>,
}

/// What the provider answered when asked about an access token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ValidateAnswer {
    /// The token is good, and this is whose it is.
    Valid(Proof),
    /// The token is dead. Whether it expired, was revoked or the user disconnected, the answer does not tell.
    Rejected,
    /// Nothing is proven.
    Unknown(Trouble),
}

/// What the provider answered to a revocation (RFC 7009).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RevokeAnswer {
    /// The token is dead, now or already before.
    Done,
    /// Our client is wrong.
    Misconfigured,
    /// The token may live on: ask again.
    Unknown(Trouble),
}

/// What a 401 of the provider's API is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApiRefusal {
    /// The access token is dead.
    DeadToken,
    /// Perhaps the token; only the provider's validation can tell.
    Unclear,
    /// Something else, such as a missing scope or a wrong client: the caller's business.
    NotTheToken,
}

impl ValidateAnswer {
    /// The verdict on a token that should be of this client and, where known, of this user.
    ///
    /// Every stored token was once proven to be our client's. One that is another client's by now means that the
    /// operator changed the client id, which must not sign everybody out (docs/decisions/0008).
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
    /// The pair belongs to somebody else: end this row and raise an alarm.
    End(EndReason),
    /// Mark this pair's row as suspect.
    Suspect(Version),
    /// Tell the operator; nothing is proven.
    Alarm,
    /// Nothing is proven.
    Nothing(Trouble),
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
        (ValidateAnswer::Valid(_), _) => AfterValidate::End(EndReason::TokenOfAnotherSubject),
        (ValidateAnswer::Rejected, _) => AfterValidate::Suspect(generation),
        (ValidateAnswer::Unknown(trouble), _) => AfterValidate::Nothing(*trouble),
    }
}

/// What follows from a refresh.
#[derive(Clone, Debug)]
pub enum AfterRefresh {
    /// Commit this pair.
    Commit(IssuedPair),
    /// End this row, if reading it again shows the same claim on the same pair.
    End(EndReason),
    /// Give the row back; nothing was spent. Try again after the pause.
    Release(Trouble),
    /// Give the row back and tell the operator; nothing was spent.
    ReleaseAndAlarm,
    /// Keep the claim and mark its answer as lost.
    MarkLost {
        /// What happened.
        trouble: Trouble,
        /// Whether the token may still be sent a second time.
        replay_left: bool,
        /// Whether the operator must be told that our own credentials are wrong.
        alarm: bool,
    },
}

/// Decides what follows from a refresh.
pub fn after_refresh(answer: TokenAnswer, replay: bool, habits: &ProviderHabits) -> AfterRefresh {
    // Where no refresh spends a token, sending it again is as good as the first time.
    if replay && habits.rotation != Rotation::None {
        return after_replay(answer, habits);
    }
    match answer {
        TokenAnswer::Issued(pair) => AfterRefresh::Commit(pair),
        TokenAnswer::Rejected => AfterRefresh::End(EndReason::RefreshTokenRejected),
        TokenAnswer::Misconfigured => AfterRefresh::ReleaseAndAlarm,
        TokenAnswer::Unknown(trouble)
            if trouble.may_follow_success(habits) && habits.rotation != Rotation::None =>
        {
            AfterRefresh::MarkLost { trouble, replay_left: true, alarm: false }
        }
        TokenAnswer::Unknown(trouble) => AfterRefresh::Release(trouble),
        TokenAnswer::Lost(trouble) => AfterRefresh::MarkLost { trouble, replay_left: true, alarm: false },
    }
}

/// Decides what follows from sending a refresh token again whose answer was lost.
///
/// A dead token proves only that the lost answer held its successor. It is nobody's fault and no theft, so the row stays
/// (invariant TRANSIENT) until the user signs in again. A replay that the provider turned away did nothing and is not used up;
/// one whose answer is lost as well is (invariant SPENT).
fn after_replay(answer: TokenAnswer, habits: &ProviderHabits) -> AfterRefresh {
    let lost = |trouble, replay_left| AfterRefresh::MarkLost { trouble, replay_left, alarm: false };
    match answer {
        TokenAnswer::Issued(pair) => AfterRefresh::Commit(pair),
        TokenAnswer::Rejected => lost(Trouble::new(TroubleKind::NoAnswer), false),
        TokenAnswer::Misconfigured => {
            let trouble = Trouble::new(TroubleKind::NoAnswer);
            AfterRefresh::MarkLost { trouble, replay_left: true, alarm: true }
        }
        TokenAnswer::Unknown(trouble) => lost(trouble, !trouble.may_follow_success(habits)),
        TokenAnswer::Lost(trouble) => lost(trouble, false),
    }
}

/// What to do about a refresh token whose answer was lost, before it is sent a second time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BeforeReplay {
    /// Send it again.
    Replay,
    /// Not now: the provider does not answer, and a replay must not be wasted on that.
    Later(Trouble),
    /// Do not: it is spent, and sending it again would do harm.
    Spent,
}

/// Decides by what the provider says of the old access token. It expires at `expiry` by itself.
pub fn before_replay(
    old_access: &ValidateAnswer,
    expiry: Expiry,
    now: Timestamp,
    habits: &ProviderHabits,
) -> BeforeReplay {
    match old_access {
        ValidateAnswer::Unknown(trouble) => BeforeReplay::Later(*trouble),
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
