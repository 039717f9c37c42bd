//! The sweep: every live session is validated once a period, and never many at once.
//!
//! The period is divided into [`SLOTS`] equal parts. Each session has one of them by the random
//! bits of its id. A slot is visited once a period, at its own time. A visit validates every live
//! session of the slot, unless its proof [stays](Schedule::stays_proven) recent enough until the
//! next visit. Scheduling a session writes nothing, and sessions that signed in together are
//! validated evenly over the period.
//!
//! A [`RateLimit`] is the budget of all instances together.

mod rate_limit;
mod turns;

use std::time::Duration;

use crate::{Lifetimes, SessionId, Timestamp, limits};

pub use rate_limit::{RATE_LIMIT_BYTES, RateLimit, RateLimitBounds, Reservation};
pub use turns::{Purpose, Turns};

/// Number of slots in a period. In 55 minutes one lasts 3.2 seconds, and of 100,000 sessions it has
/// about 100.
pub const SLOTS: u16 = 1024;

/// One of the [`SLOTS`] equal parts of a period.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(u16);

impl Slot {
    /// Returns the slot with this number, counted from 0.
    pub const fn new(number: u16) -> Option<Self> {
        if number < SLOTS { Some(Self(number)) } else { None }
    }

    /// Returns the slot of a session: the upper ten of the bits of [`SessionId::fraction`].
    pub fn of(id: SessionId) -> Self {
        let number = (u64::from(id.spread()) * u64::from(SLOTS)) >> 32;
        // The number is below SLOTS, since the bits are below 2^32.
        Self(u16::try_from(number).unwrap_or(SLOTS - 1))
    }

    /// Returns all slots, in the order of their visits.
    pub fn all() -> impl DoubleEndedIterator<Item = Self> + ExactSizeIterator {
        (0..SLOTS).map(Self)
    }

    /// Returns the number, from 0.
    pub const fn number(self) -> u16 {
        self.0
    }

    /// Returns how long after the start of a period the slot is visited.
    pub fn offset(self, period: Duration) -> Duration {
        let millis = u128::from(millis(period).unsigned_abs()) * u128::from(self.0) / u128::from(SLOTS);
        Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
    }

    /// Returns the first visit after `now`, never `now` itself. Periods count from the epoch, so
    /// all instances agree, and no restart moves them. Missed visits are not repeated: the next one
    /// covers them.
    pub fn next_visit(self, period: Duration, now: Timestamp) -> Timestamp {
        let into_period = now.as_millis().rem_euclid(millis(period));
        let visit =
            Timestamp::from_millis(now.as_millis().saturating_sub(into_period)).after(self.offset(period));
        if visit > now { visit } else { visit.after(Duration::from_millis(millis(period).unsigned_abs())) }
    }
}

/// Returns a period in milliseconds, at least one.
fn millis(period: Duration) -> i64 {
    i64::try_from(period.as_millis()).unwrap_or(i64::MAX).max(1)
}

/// How often sessions are validated, and how old a proof may grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// Time in which every slot is visited once.
    pub period: Duration,
    /// How long a proof counts ([`Lifetimes::proof`]).
    pub proof: Duration,
    /// Maximum lateness of a visit.
    pub slack: Duration,
}

impl Default for Schedule {
    fn default() -> Self {
        Self::of(Lifetimes::default().proof)
    }
}

impl Schedule {
    /// Returns the default schedule where each token has to be validated once in this interval. It
    /// leaves time for a late visit, and for a second one.
    pub fn of(check_interval: Duration) -> Self {
        let slack = limits::SWEEP_SLACK;
        let period = check_interval.saturating_sub(limits::VISIT_AGAIN + slack);
        Self { period, proof: check_interval, slack }
    }

    /// Returns whether a proof is still recent enough at the slot's next visit, so that this visit
    /// may skip the session. A proof from the future proves nothing.
    pub fn stays_proven(&self, proven_at: Timestamp, now: Timestamp, next_visit: Timestamp) -> bool {
        proven_at.age(now).is_some() && next_visit.since(proven_at) < self.oldest()
    }

    /// Returns whether a proof can outlast a period. If not, sessions are unproven for a part of
    /// each.
    pub fn holds(&self) -> bool {
        self.period < self.oldest()
    }

    /// The age from which on a proof is renewed: in time before it counts no longer, and soon after
    /// each period, so that a shorter period means more validations.
    fn oldest(&self) -> Duration {
        let soon_after_period = self.period.saturating_add(limits::VISIT_AGAIN);
        self.proof.saturating_sub(self.slack).min(soon_after_period)
    }
}

/// Returns the validations per second that this many live sessions need.
pub fn needed_per_second(live: u64, period: Duration) -> f64 {
    // Above 2^53 sessions the last digits are lost.
    live as f64 / period.as_secs_f64().max(0.001)
}

/// Returns a sufficient budget per second for this many live sessions: what they need and a fifth
/// more ([`limits::SWEEP_HEAD_ROOM`]). It catches up after an outage in five times its length, and
/// always within a period ([`catch_up`]). Random unevenness needs no extra budget: a busy minute is
/// late by seconds.
pub fn sufficient_budget(live: u64, period: Duration) -> f64 {
    needed_per_second(live, period) * limits::SWEEP_HEAD_ROOM
}

/// Returns the time until no proof is older than a period, for `live` sessions of which `overdue`
/// have an older one. `None` if that never happens.
///
/// The budget must also serve sessions that fall due meanwhile. After `live / budget_per_second`
/// each session has been validated once, and from then on each is validated again within a period.
/// That is a bound at the full rate. The first bound assumes that the ages of proofs were evenly
/// spread before, which holds except in the hour after an earlier catch-up.
pub fn catch_up(overdue: u64, live: u64, period: Duration, budget_per_second: f64) -> Option<Duration> {
    if overdue == 0 {
        return Some(Duration::ZERO);
    }
    let gained_per_second = budget_per_second - needed_per_second(live, period);
    if gained_per_second > 0.0 {
        let (one_by_one, each_once) = (overdue as f64 / gained_per_second, live as f64 / budget_per_second);
        Duration::try_from_secs_f64(one_by_one.min(each_once)).ok()
    } else {
        None
    }
}

#[cfg(test)]
mod tests;
