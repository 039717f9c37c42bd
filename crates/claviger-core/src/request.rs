//! What a request needs before it is served.
//!
//! | module | the question it answers |
//! |---|---|
//! | [`path`] | in which ways can a path be read |
//! | [`routes`] | which assurance does a path need |
//! | [`navigation`] | who shows the answer: a window, a frame, or a program |
//! | [`host`] | whose host does the request name |
//! | [`network`] | which addresses are in a network |
//! | [`peer`] | who is the client, behind which proxies |

pub mod host;
pub mod navigation;
pub mod network;
pub mod path;
pub mod peer;
pub mod routes;

use std::time::Duration;

use crate::{
    ActiveState, EndReason, Expiry, Lifetimes, SealedPair, Session, SessionId, State, Timestamp, limits,
};

/// Who vouches for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Assurance {
    /// The sealed cookie, unless its session is on the denylist. No store is read.
    Cookie,
    /// The sealed cookie, or else the row: the session has not ended. The provider is not asked.
    Row,
    /// The row: it is live and was proven within the period.
    #[default]
    Session,
    /// The provider, asked at most this long ago.
    Provider {
        /// Maximum age of its answer. Zero asks now.
        max_age: Duration,
    },
}

impl Assurance {
    /// The provider's word, asked at most this long ago, for a client that says how long. A
    /// `max_age` below [`limits::MAX_AGE_FLOOR`] counts as that, so that no client makes each
    /// request a question.
    pub fn asked_by_client(max_age: Duration) -> Self {
        Self::Provider { max_age: max_age.max(limits::MAX_AGE_FLOOR) }
    }
}

/// Whether a request shows that its user is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Presence {
    /// It is a use of the session, which is then not idle.
    #[default]
    Active,
    /// A script asks by itself, such as a page that polls. The session stays as idle as it was.
    Passive,
}

/// What a request asks of its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Ask {
    /// Who must vouch for it.
    pub assurance: Assurance,
    /// Whether it is a use.
    pub presence: Presence,
}

impl From<Assurance> for Ask {
    fn from(assurance: Assurance) -> Self {
        Self { assurance, presence: Presence::Active }
    }
}

/// What a request needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Nothing: serve it.
    Nothing,
    /// A validation of the access token.
    Proof,
    /// A new pair.
    Refresh,
    /// Nothing: serve it, and refresh the pair in the background while the old access token works.
    RefreshEarly,
    /// A new sign-in: there is no token to validate or to refresh with.
    SignIn,
    /// Ending the session first, because its time is over.
    End(EndReason),
    /// A refusal: the session has ended.
    Refuse(EndReason),
}

/// Decides what a request with this session needs.
pub fn need(session: &Session, now: Timestamp, assurance: Assurance, lifetimes: &Lifetimes) -> Need {
    match time_is_over(session, now, lifetimes) {
        Some(reason) if !session.ended() => Need::End(reason),
        _ => need_in_time(session, now, assurance, lifetimes),
    }
}

/// Decides the same of a session whose time is not over, whatever our clock says.
pub fn need_in_time(session: &Session, now: Timestamp, assurance: Assurance, lifetimes: &Lifetimes) -> Need {
    let active = match &session.state {
        State::Ended { reason, .. } => return Need::Refuse(*reason),
        State::Live(active) | State::Parked(active) | State::Suspect(active) => active,
    };
    if assurance == Assurance::Row {
        return Need::Nothing;
    }
    // A proof from the future proves nothing.
    let proof_age = active.proven_at.age(now).unwrap_or(Duration::MAX);
    let Some(pair) = &active.pair else {
        return match assurance {
            Assurance::Provider { max_age } if proof_age > max_age => Need::SignIn,
            _ => Need::Nothing,
        };
    };
    let must_refresh =
        !matches!(session.state, State::Live(_)) || pair.expiry.within(now, lifetimes.refresh_margin);
    if must_refresh {
        return if pair.refresh.is_some() { Need::Refresh } else { Need::SignIn };
    }
    let oldest_proof = match assurance {
        Assurance::Cookie | Assurance::Row | Assurance::Session => lifetimes.proof,
        // Never laxer than the others, whatever `max_age` is.
        Assurance::Provider { max_age } => max_age.min(lifetimes.proof),
    };
    if proof_age >= oldest_proof {
        Need::Proof
    } else if pair.refresh.is_some() && pair.expiry.within(now, early(session.id, active, pair, lifetimes)) {
        Need::RefreshEarly
    } else {
        Need::Nothing
    }
}

/// Returns whether a session is due for a proof, whatever a request asks for.
pub fn is_proof_due(session: &Session, now: Timestamp, lifetimes: &Lifetimes) -> bool {
    match &session.state {
        State::Live(active) => active.proven_at.age(now).is_none_or(|age| age >= lifetimes.proof),
        State::Parked(_) | State::Suspect(_) | State::Ended { .. } => true,
    }
}

/// Returns whether the last proof is so young that it may stand in for another one, where a user's
/// requests asked for more than their share.
pub fn may_serve_over_share(session: &Session, now: Timestamp) -> bool {
    let is_young = |at: Timestamp| at.age(now).is_some_and(|age| age <= limits::MAX_AGE_FLOOR);
    matches!(&session.state, State::Live(active) if is_young(active.proven_at))
}

/// Decides what a request that needs a proof needs where the provider has no validation.
///
/// A refresh proves as much. Without a refresh token the last proof counts for as long as it would
/// while the provider does not answer.
pub fn need_without_validation(
    session: &Session,
    now: Timestamp,
    assurance: Assurance,
    lifetimes: &Lifetimes,
) -> Need {
    if session.pair().is_some_and(|pair| pair.refresh.is_some()) {
        Need::Refresh
    } else if may_serve_unproven(session, now, assurance, lifetimes) {
        Need::Nothing
    } else {
        Need::SignIn
    }
}

/// Returns how long before its expiry a pair in use is refreshed. Each session has its own moment,
/// so that sessions that signed in together do not refresh together.
///
/// For a short-lived token it is at most a quarter of what was left at its last proof, so that it
/// is not refreshed all the time.
fn early(id: SessionId, active: &ActiveState, pair: &SealedPair, lifetimes: &Lifetimes) -> Duration {
    let Expiry::At(expires_at) = pair.expiry else { return Duration::ZERO };
    let window = lifetimes.refresh_spread.min(expires_at.since(active.proven_at) / 4);
    lifetimes.refresh_margin + window.mul_f64(id.fraction())
}

/// Returns why a session's time is over, if it is. Only the user's own requests count as use. A
/// time in the future says nothing, and so ends nothing.
pub fn time_is_over(session: &Session, now: Timestamp, lifetimes: &Lifetimes) -> Option<EndReason> {
    let over = |at: Timestamp, limit| at.age(now).is_some_and(|age| age >= limit);
    if over(session.created_at, lifetimes.absolute) {
        return Some(EndReason::TooOld);
    }
    over(session.last_seen_at, lifetimes.idle).then_some(EndReason::Idle)
}

/// Returns whether to serve a request on a pair that the provider neither confirmed nor rejected.
pub fn may_serve_unproven(
    session: &Session,
    now: Timestamp,
    assurance: Assurance,
    lifetimes: &Lifetimes,
) -> bool {
    let State::Live(active) = &session.state else { return false };
    let alive = active.pair.as_ref().is_none_or(|pair| !pair.expiry.passed(now));
    alive
        && !matches!(assurance, Assurance::Provider { .. })
        && active.proven_at.age(now).is_some_and(|age| age < lifetimes.max_unverified)
}

/// Returns whether to serve a request on a pair that is being refreshed: its access token is good
/// as yet, and its proof still counts.
pub fn may_serve_unrefreshed(
    session: &Session,
    now: Timestamp,
    assurance: Assurance,
    lifetimes: &Lifetimes,
) -> bool {
    let is_proven = |active: &ActiveState| active.proven_at.age(now).is_some_and(|age| age < lifetimes.proof);
    session.active().is_some_and(is_proven) && may_serve_unproven(session, now, assurance, lifetimes)
}

/// Returns whether a cookie of this session is too old, whatever the row says. One from the future
/// does not count without the row either.
pub fn cookie_is_over(id: SessionId, now: Timestamp, lifetimes: &Lifetimes) -> bool {
    id.created_at().age(now).is_none_or(|age| age >= lifetimes.absolute)
}

#[cfg(test)]
mod tests;
