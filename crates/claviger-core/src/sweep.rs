//! The sweep: every live session is validated once a period, and never many at once.
//!
//! The period is divided into [`SLOTS`] equal parts, and each session has one of them by the random bits of its id. A slot
//! is visited once a period, at its own time. At a visit every live session of the slot is validated, unless its proof
//! [stays](Schedule::stays_proven) young enough until the next visit. Nothing is written for a session to get its turn, and a
//! crowd that signs in together is validated evenly over the period.
//!
//! A [`Pace`] is the budget of all instances together.

mod pace;

use std::time::Duration;

use crate::{
    ids::SessionId,
    policy::{Lifetimes, limits},
    time::Timestamp,
};

pub use pace::{PACE_BYTES, Pace, PaceLimits, Reservation};

/// A period has so many parts. In 55 minutes one lasts 3.2 seconds, and of 100,000 sessions it has about 100.
pub const SLOTS: u16 = 1024;

/// One of the [`SLOTS`] equal parts of a period.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(u16);

impl Slot {
    /// The slot with this number, if there is one: they count from 0.
    pub const fn new(number: u16) -> Option<Self> {
        if number < SLOTS { Some(Self(number)) } else { None }
    }

    /// The slot of a session: the upper ten of the bits that [`SessionId::fraction`] is made of.
    pub fn of(id: SessionId) -> Self {
        let number = (u64::from(id.spread()) * u64::from(SLOTS)) >> 32;
        // The number is below SLOTS, as the bits are below 2^32.
        Self(u16::try_from(number).unwrap_or(SLOTS - 1))
    }

    /// All slots, in the order of their visits.
    pub fn all() -> impl DoubleEndedIterator<Item = Self> + ExactSizeIterator {
        (0..SLOTS).map(Self)
    }

    /// The number, from 0.
    pub const fn number(self) -> u16 {
        self.0
    }

    /// How long after the start of a period the slot is visited.
    pub fn offset(self, period: Duration) -> Duration {
        let millis = u128::from(millis(period).unsigned_abs()) * u128::from(self.0) / u128::from(SLOTS);
        Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
    }

    /// The first visit after `now`, never `now` itself. Periods are counted from the epoch, so all instances agree on it
    /// and no restart moves it. Visits that were missed are not made up for: the next one serves for all of them.
    pub fn next_visit(self, period: Duration, now: Timestamp) -> Timestamp {
        let into_period = now.as_millis().rem_euclid(millis(period));
        let visit =
            Timestamp::from_millis(now.as_millis().saturating_sub(into_period)).after(self.offset(period));
        if visit > now { visit } else { visit.after(Duration::from_millis(millis(period).unsigned_abs())) }
    }
}

/// A period in milliseconds; it lasts at least one.
fn millis(period: Duration) -> i64 {
    i64::try_from(period.as_millis()).unwrap_or(i64::MAX).max(1)
}

/// How often sessions are validated, and how old a proof may grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// Every slot is visited once in this time.
    pub period: Duration,
    /// A proof counts for so long ([`Lifetimes::proof`]).
    pub proof: Duration,
    /// What a visit may be late.
    pub slack: Duration,
}

impl Default for Schedule {
    fn default() -> Self {
        Self { period: limits::SWEEP_PERIOD, proof: Lifetimes::default().proof, slack: limits::SWEEP_SLACK }
    }
}

impl Schedule {
    /// Whether a proof is still young enough at the slot's next visit, so that this visit may pass the session by.
    pub fn stays_proven(&self, proven_at: Timestamp, next_visit: Timestamp) -> bool {
        // A proof from after the next visit is from a clock that was set back, and tells nothing.
        proven_at <= next_visit && next_visit.since(proven_at) < self.oldest()
    }

    /// Whether a proof can outlive a period. If not, sessions are unproven for a part of each.
    pub fn holds(&self) -> bool {
        self.period < self.oldest()
    }

    fn oldest(&self) -> Duration {
        self.proof.saturating_sub(self.slack)
    }
}

/// Validations a second that so many live sessions need.
pub fn needed_per_second(live: u64, period: Duration) -> f64 {
    // Above 2^53 sessions the last digits are lost.
    live as f64 / period.as_secs_f64().max(0.001)
}

/// A budget a second that suffices for so many live sessions: what is needed and a fifth more
/// ([`limits::SWEEP_HEAD_ROOM`]). With it an outage is made up for in five times its length, and always within a period
/// ([`catch_up`]). The unevenness of chance needs no budget of its own: a busy minute is late by seconds.
pub fn sufficient_budget(live: u64, period: Duration) -> f64 {
    needed_per_second(live, period) * limits::SWEEP_HEAD_ROOM
}

/// How long it takes until no proof is older than a period any more, of `live` sessions of which `overdue` have an older one. The
/// budget has to serve those that fall due meanwhile too; but once each has been asked about, which takes it `live / budget_per_second`,
/// it comes back to each in less than a period. That is a bound at full pace; the first is one where the ages of proofs were spread
/// evenly before, which they are but for the hour after another catching up. None where that never comes.
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
