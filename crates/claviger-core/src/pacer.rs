//! A budget of requests: so many a second, and a few more at once after a pause.
//!
//! A [`Pacer`] keeps it for one process. [`Pace`](crate::sweep::Pace) keeps one that several processes share, and learns.

use std::time::Duration;

use crate::{policy::limits, time::Timestamp};

/// How much may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// So many a second in the long run; at least one.
    pub per_second: u32,
    /// So many at once after a pause; at least one.
    pub burst: u32,
}

impl Budget {
    /// So many a second, and what two seconds bring at once.
    pub const fn per_second(per_second: u32) -> Self {
        Self { per_second, burst: per_second.saturating_mul(2) }
    }
}

/// Keeps a [`Budget`]: over any `t` seconds not more than `burst + t * per_second` are let go.
#[derive(Clone, Copy, Debug)]
pub struct Pacer {
    budget: Budget,
    cells: Gcra,
}

impl Pacer {
    /// Starts with a whole budget.
    pub const fn new(budget: Budget) -> Self {
        Self { budget, cells: Gcra::WHOLE }
    }

    /// How long who takes a place now has to wait for it.
    pub fn wait(&self, now: Timestamp) -> Duration {
        // Taking one in a copy takes none.
        { *self }.take(now, Duration::MAX).unwrap_or(Duration::MAX)
    }

    /// Takes a place, and says how long to wait for it. None if the wait would be longer than `patience`, or than
    /// [`limits::ADOPTION_WAIT`]; then no place is taken.
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

/// The generic cell rate algorithm (ITU-T I.371): one point in time is all it keeps, however many wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gcra {
    /// When the budget is whole again, in microseconds since the epoch.
    pub(crate) whole_at_micros: i64,
}

/// How close together requests may follow each other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spacing {
    /// One in so many microseconds in the long run.
    pub(crate) interval_micros: i64,
    /// How much of the budget a pause may save up, as the microseconds in which it comes: one interval or more.
    pub(crate) saved_micros: i64,
}

impl Gcra {
    /// Nothing was taken yet.
    pub(crate) const WHOLE: Self = Self { whole_at_micros: i64::MIN };

    /// When the next request may go: not before `now`.
    pub(crate) fn next_at(self, now_micros: i64, spacing: Spacing) -> i64 {
        let whole_at = self.whole_at_micros.max(now_micros).saturating_add(spacing.interval_micros);
        whole_at.saturating_sub(spacing.saved_micros).max(now_micros)
    }

    /// Notes that so many requests go, an interval apart, the first of them at `from`, which is [`Gcra::next_at`] or later.
    #[must_use]
    pub(crate) fn taken(self, from_micros: i64, count: u32, spacing: Spacing) -> Self {
        let taken = spacing.interval_micros.saturating_mul(i64::from(count));
        Self { whole_at_micros: self.whole_at_micros.max(from_micros).saturating_add(taken) }
    }

    /// Starts anew if the clock was set back: nobody was let go further than `ahead` before their time.
    #[must_use]
    pub(crate) fn unless_beyond(self, now_micros: i64, saved_micros: i64, ahead: Duration) -> Self {
        let ahead_micros = i64::try_from(ahead.as_micros()).unwrap_or(i64::MAX);
        let farthest = now_micros.saturating_add(saved_micros).saturating_add(ahead_micros);
        if self.whole_at_micros > farthest { Self::WHOLE } else { self }
    }
}

/// Microseconds since the epoch.
pub(crate) fn micros(at: Timestamp) -> i64 {
    at.as_millis().saturating_mul(1000)
}

/// The microseconds from one request to the next at so many thousandths of a request a second, rounded up so that the
/// rate is never passed.
pub(crate) fn interval_micros(milli_per_second: u64) -> i64 {
    i64::try_from(1_000_000_000_u64.div_ceil(milli_per_second.max(1))).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const T0: Timestamp = Timestamp::from_millis(1_000_000);
    const LONG: Duration = Duration::from_secs(10);

    fn pacer() -> Pacer {
        Pacer::new(Budget { per_second: 10, burst: 3 })
    }

    #[test]
    fn a_burst_goes_at_once_and_the_rest_one_by_one() {
        let mut pacer = pacer();
        let waits: Vec<_> = (0..6).map(|_| pacer.take(T0, LONG).unwrap().as_millis()).collect();
        assert_eq!(waits, [0, 0, 0, 100, 200, 300]);
    }

    #[test]
    fn who_does_not_want_to_wait_takes_no_place() {
        let mut pacer = pacer();
        for _ in 0..3 {
            pacer.take(T0, Duration::ZERO).unwrap();
        }
        assert_eq!(pacer.take(T0, Duration::from_millis(99)), None);
        assert_eq!(pacer.take(T0, LONG), Some(Duration::from_millis(100)), "no place was taken");
    }

    #[test]
    fn any_window_stays_within_the_budget() {
        let mut pacer = pacer();
        let mut let_go = Vec::new();
        for millis in 0..5_000 {
            let now = T0.after(Duration::from_millis(millis));
            // Crowds come in turns, with a pause between.
            if millis % 1_300 < 700
                && let Some(wait) = pacer.take(now, Duration::from_secs(1))
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
    fn a_clock_that_is_set_back_holds_nobody_up() {
        let mut pacer = pacer();
        pacer.take(T0.after(Duration::from_secs(86_400)), LONG).unwrap();
        assert_eq!(pacer.take(T0, Duration::ZERO), Some(Duration::ZERO));
    }
}
