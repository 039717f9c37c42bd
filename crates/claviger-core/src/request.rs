//! What a request needs before it may be served.

use std::time::Duration;

use crate::{
    ids::SessionId,
    policy::Lifetimes,
    session::{EndReason, Holding, SealedPair, Session, State},
    time::{Expiry, Timestamp},
};

/// Who vouches for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Assurance {
    /// The sealed cookie, and the list of sessions whose cookie alone is not to be believed. No store is read.
    Cookie,
    /// The row: it is live and was proven within the period.
    #[default]
    Session,
    /// The provider, asked not longer ago than this.
    Provider {
        /// The greatest age of its answer; zero asks now.
        max_age: Duration,
    },
}

/// What a request needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Nothing: serve it.
    Nothing,
    /// The provider's word on the access token.
    Proof,
    /// A fresh pair.
    Refresh,
    /// Nothing yet: serve it, and refresh the pair beside it, while the old access token still works.
    RefreshEarly,
    /// A new sign-in: there is no token to prove or to refresh with.
    SignIn,
    /// The session to be ended first: its time is over.
    End(EndReason),
    /// Nothing helps: the session has ended.
    Refuse(EndReason),
}

/// Decides what a request with this session needs.
pub fn need(session: &Session, now: Timestamp, assurance: Assurance, lifetimes: &Lifetimes) -> Need {
    let holding = match &session.state {
        State::Ended { reason, .. } => return Need::Refuse(*reason),
        State::Live(holding) | State::Parked(holding) | State::Suspect(holding) => holding,
    };
    if let Some(reason) = time_is_over(session, now, lifetimes) {
        return Need::End(reason);
    }
    let proof_age = now.since(holding.proven_at);
    let Some(pair) = &holding.pair else {
        return match assurance {
            Assurance::Provider { max_age } if proof_age > max_age => Need::SignIn,
            _ => Need::Nothing,
        };
    };
    let worn = !matches!(session.state, State::Live(_)) || pair.expiry.within(now, lifetimes.refresh_margin);
    if worn {
        return if pair.refresh.is_some() { Need::Refresh } else { Need::SignIn };
    }
    let oldest_proof = match assurance {
        Assurance::Cookie | Assurance::Session => lifetimes.proof,
        // Never laxer than the others, whatever is asked for.
        Assurance::Provider { max_age } => max_age.min(lifetimes.proof),
    };
    if proof_age >= oldest_proof {
        Need::Proof
    } else if pair.refresh.is_some() && pair.expiry.within(now, early(session.id, holding, pair, lifetimes)) {
        Need::RefreshEarly
    } else {
        Need::Nothing
    }
}

/// How long before its expiry a pair that is in use is refreshed: each session at its own moment, so that those who signed
/// in together do not come back together.
///
/// A token that lives shortly is not refreshed all the time: a quarter of what it had left when it was last proven is
/// the most.
fn early(id: SessionId, holding: &Holding, pair: &SealedPair, lifetimes: &Lifetimes) -> Duration {
    let Expiry::At(expires_at) = pair.expiry else { return Duration::ZERO };
    let window = lifetimes.refresh_spread.min(expires_at.since(holding.proven_at) / 4);
    lifetimes.refresh_margin + window.mul_f64(id.fraction())
}

/// Why a session's time is over, if it is. Only the user's own requests count as use.
pub fn time_is_over(session: &Session, now: Timestamp, lifetimes: &Lifetimes) -> Option<EndReason> {
    if now.since(session.created_at) >= lifetimes.absolute {
        return Some(EndReason::TooOld);
    }
    (now.since(session.last_seen_at) >= lifetimes.idle).then_some(EndReason::Idle)
}

/// Whether a request may be served on a pair that the provider neither confirmed nor rejected.
pub fn may_serve_unproven(
    session: &Session,
    now: Timestamp,
    assurance: Assurance,
    lifetimes: &Lifetimes,
) -> bool {
    let State::Live(holding) = &session.state else { return false };
    let alive = holding.pair.as_ref().is_none_or(|pair| !pair.expiry.passed(now));
    alive
        && !matches!(assurance, Assurance::Provider { .. })
        && now.since(holding.proven_at) < lifetimes.max_unverified
}

/// Whether a cookie of this session is too old whatever the row says.
pub fn cookie_is_over(id: SessionId, now: Timestamp, lifetimes: &Lifetimes) -> bool {
    now.since(id.created_at()) >= lifetimes.absolute
}

#[cfg(test)]
mod tests;
