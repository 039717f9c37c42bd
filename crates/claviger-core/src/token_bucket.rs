//! A budget of requests: a rate per second, and a burst after a pause.
//!
//! A [`TokenBucket`] keeps it for one process. A [`RateLimit`](crate::sweep::RateLimit) is shared
//! by several processes and adapts.

use std::time::Duration;

use crate::{Timestamp, limits};

/// A rate and a burst.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Long-term rate per second; at least one.
    pub per_second: u32,
    /// Maximum burst after a pause; at least one.
    pub burst: u32,
}

impl Budget {
    /// Returns this rate, with a burst of two seconds.
    pub const fn per_second(per_second: u32) -> Self {
        Self { per_second, burst: per_second.saturating_mul(2) }
    }
}

/// Keeps a [`Budget`]: in any `t` seconds it lets at most `burst + t * per_second` requests pass.
#[derive(Clone, Copy, Debug)]
pub struct TokenBucket {
    budget: Budget,
    cells: Gcra,
}

impl TokenBucket {
    /// Creates a full bucket.
    pub const fn new(budget: Budget) -> Self {
        Self { budget, cells: Gcra::WHOLE }
    }

    /// Returns how long a caller that takes a permit now has to wait.
    pub fn wait(&self, now: Timestamp) -> Duration {
        // A permit taken from a copy does not count.
        { *self }.take(now, Duration::MAX).unwrap_or(Duration::MAX)
    }

    /// Takes a permit, and returns how long to wait for it. If the wait would exceed `patience` or
    /// [`limits::ADOPTION_WAIT`], it takes none and returns `None`.
    pub fn take(&mut self, now: Timestamp, patience: Duration) -> Option<Duration> {
        let now_micros = micros(now);
        let interval_micros = interval_micros(u64::from(self.budget.per_second) * 1000);
        let saved_micros = interval_micros.saturating_mul(i64::from(self.budget.burst.max(1)));
        let spacing = Spacing { interval_micros, saved_micros };
        self.cells = self.cells.unless_beyond(now_micros, saved_micros, limits::ADOPTION_WAIT);
        let at_micros = self.cells.next_at(now_micros, spacing);
        let wait = Duration::from_micros(at_micros.saturating_sub(now_micros).max(0).unsigned_abs());
        if wait > patience.min(limits::ADOPTION_WAIT) {
            return None;
        }
        self.cells = self.cells.taken(at_micros, 1, spacing);
        Some(wait)
    }
}

/// The generic cell rate algorithm (ITU-T I.371). Its only state is one point in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gcra {
    /// When the budget is full again, in microseconds since the epoch.
    pub(crate) whole_at_micros: i64,
}

/// The spacing of requests.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spacing {
    /// Long-term interval between requests, in microseconds.
    pub(crate) interval_micros: i64,
    /// How much a pause may save up, in microseconds of the rate: at least one interval.
    pub(crate) saved_micros: i64,
}

impl Gcra {
    /// The initial state.
    pub(crate) const WHOLE: Self = Self { whole_at_micros: i64::MIN };

    /// Returns when the next request may be sent: `now` at the earliest.
    pub(crate) fn next_at(self, now_micros: i64, spacing: Spacing) -> i64 {
        let whole_at = self.whole_at_micros.max(now_micros).saturating_add(spacing.interval_micros);
        whole_at.saturating_sub(spacing.saved_micros).max(now_micros)
    }

    /// Records `count` requests, one interval apart, the first at `from_micros`, which is
    /// [`Gcra::next_at`] or later.
    #[must_use]
    pub(crate) fn taken(self, from_micros: i64, count: u32, spacing: Spacing) -> Self {
        let taken = spacing.interval_micros.saturating_mul(i64::from(count));
        Self { whole_at_micros: self.whole_at_micros.max(from_micros).saturating_add(taken) }
    }

    /// Starts over if the clock was set back: no request was allowed further than `ahead` in
    /// advance.
    #[must_use]
    pub(crate) fn unless_beyond(self, now_micros: i64, saved_micros: i64, ahead: Duration) -> Self {
        let ahead_micros = i64::try_from(ahead.as_micros()).unwrap_or(i64::MAX);
        let farthest = now_micros.saturating_add(saved_micros).saturating_add(ahead_micros);
        if self.whole_at_micros > farthest { Self::WHOLE } else { self }
    }
}

/// Returns microseconds since the epoch.
pub(crate) fn micros(at: Timestamp) -> i64 {
    at.as_millis().saturating_mul(1000)
}

/// Returns the microseconds between requests at this rate, in thousandths of a request per second.
/// Rounded up, so that the rate is never exceeded.
pub(crate) fn interval_micros(milli_per_second: u64) -> i64 {
    i64::try_from(1_000_000_000_u64.div_ceil(milli_per_second.max(1))).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const T0: Timestamp = Timestamp::from_millis(1_000_000);
    const LONG: Duration = Duration::from_secs(10);

    fn token_bucket() -> TokenBucket {
        TokenBucket::new(Budget { per_second: 10, burst: 3 })
    }

    #[test]
    fn a_burst_passes_at_once_and_the_rest_one_by_one() {
        let mut token_bucket = token_bucket();
        let waits: Vec<_> = (0..6).map(|_| token_bucket.take(T0, LONG).unwrap().as_millis()).collect();
        assert_eq!(waits, [0, 0, 0, 100, 200, 300]);
    }

    #[test]
    fn an_impatient_caller_takes_no_permit() {
        let mut token_bucket = token_bucket();
        for _ in 0..3 {
            token_bucket.take(T0, Duration::ZERO).unwrap();
        }
        assert_eq!(token_bucket.take(T0, Duration::from_millis(99)), None);
        assert_eq!(token_bucket.take(T0, LONG), Some(Duration::from_millis(100)), "no place was taken");
    }

    #[test]
    fn any_window_stays_within_the_budget() {
        let mut token_bucket = token_bucket();
        let mut let_go = Vec::new();
        for millis in 0..5_000 {
            let now = T0.after(Duration::from_millis(millis));
            // Crowds come in waves, with a pause between.
            if millis % 1_300 < 700
                && let Some(wait) = token_bucket.take(now, Duration::from_secs(1))
            {
                let_go.push(now.after(wait).as_millis());
            }
        }
        for window_millis in [1, 100, 1_000, 3_000] {
            let most = let_go
                .iter()
                .map(|from| let_go.iter().filter(|at| (*from..*from + window_millis).contains(at)).count())
                .max()
                .unwrap();
            let bound = 3 + usize::try_from(window_millis).unwrap() / 100;
            assert!(most <= bound, "{most} in {window_millis} ms");
        }
    }

    #[test]
    fn a_clock_that_is_set_back_delays_nobody() {
        let mut token_bucket = token_bucket();
        token_bucket.take(T0.after(Duration::from_secs(86_400)), LONG).unwrap();
        assert_eq!(token_bucket.take(T0, Duration::ZERO), Some(Duration::ZERO));
    }
}
