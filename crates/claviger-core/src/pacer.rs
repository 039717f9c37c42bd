//! A budget of requests: so many a second, and a few more at once after a pause.
//!
//! It is the generic cell rate algorithm (ITU-T I.371): one point in time is all it keeps, however many wait.

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
    /// When the budget is whole again, in microseconds since the epoch.
    whole_at_micros: i64,
}

impl Pacer {
    /// Starts with a whole budget.
    pub const fn new(budget: Budget) -> Self {
        Self { budget, whole_at_micros: i64::MIN }
    }

    /// Takes a place, and says how long to wait for it. None if the wait would be longer than `patience`, or than
    /// [`limits::ADOPTION_WAIT`]; then no place is taken.
    pub fn take(&mut self, now: Timestamp, patience: Duration) -> Option<Duration> {
        let now_micros = now.as_millis().saturating_mul(1000);
        let interval = 1_000_000 / i64::from(self.budget.per_second.max(1));
        let allowed = interval.saturating_mul(i64::from(self.budget.burst.max(1)));
        let longest = i64::try_from(limits::ADOPTION_WAIT.as_micros()).unwrap_or(i64::MAX);
        if self.whole_at_micros > now_micros.saturating_add(allowed).saturating_add(longest) {
            // Nobody was let go so far ahead: the clock was set back.
            self.whole_at_micros = now_micros;
        }
        let whole_at = self.whole_at_micros.max(now_micros).saturating_add(interval);
        let over = whole_at.saturating_sub(now_micros).saturating_sub(allowed);
        let wait = Duration::from_micros(u64::try_from(over).unwrap_or(0));
        if wait > patience.min(limits::ADOPTION_WAIT) {
            return None;
        }
        self.whole_at_micros = whole_at;
        Some(wait)
    }
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
