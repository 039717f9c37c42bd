//! What a stored time is worth, and whether our own clock is right.
//!
//! A clock can be wrong when a time is stored and right when it is read, or the other way round.
//! So two rules hold (invariant CLOCK):
//!
//! * A stored time that only a clock that was ahead can have written vouches for nothing.
//!   [`Timestamp::age`] and [`Timestamp::left`] say so; nothing else compares stored times with
//!   now.
//! * A session ends by age or idleness only by a clock that the provider's `Date` header has
//!   confirmed. [`ClockCheck`] says whether it has.
//!
//! | our clock | a time that may end sessions |
//! |---|---|
//! | has just started, or has jumped | none, until the provider has named its time |
//! | agrees with the provider's | now |
//! | is ahead of the provider's | the provider's time |
//! | is behind the provider's | now |
//! | the provider names no time, for a day without a jump | now |

use std::time::Duration;

use crate::{Timestamp, limits};

impl Timestamp {
    /// Returns how old a stored time is. `None` if it lies in the future: then it vouches for
    /// nothing.
    pub fn age(self, now: Self) -> Option<Duration> {
        (!self.is_ahead_of(now)).then(|| now.since(self))
    }

    /// Returns how much is left until a stored deadline that was at most `longest` ahead when it
    /// was set. `None` if it has passed, or is further ahead than that.
    pub fn left(self, now: Self, longest: Duration) -> Option<Duration> {
        let left = self.since(now);
        (!left.is_zero() && !self.is_ahead_of(now.after(longest))).then_some(left)
    }

    /// Whether only a clock that was ahead can have written this time, which is to be `latest` at
    /// the latest. The clocks of instances may differ a little.
    fn is_ahead_of(self, latest: Self) -> bool {
        self > latest.after(limits::CLOCK_SKEW)
    }
}

/// How wrong a date is that has no fractions of a second, if it is taken as the middle of its
/// second.
const DATE_ERROR: Duration = Duration::from_millis(500);

/// Compares our clock with a monotonic one, and with the provider's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockCheck {
    /// Our clock minus the monotonic one at the last look, in milliseconds.
    base_ms: i64,
    told: Told,
    jumps: u64,
    last_jump: Option<ClockJump>,
}

/// What the provider has said of the time since the start and the last jump.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Nothing,
    /// It answers without naming a time, since this point of the monotonic clock.
    NoTime(Duration),
    /// How far its clock is ahead of ours, by the best measurement.
    Ahead(Measured),
}

/// How far the provider's clock is ahead of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Measured {
    /// In milliseconds. Zero if a date cannot show it.
    ahead_ms: i64,
    /// How wrong that may be.
    error: Duration,
}

impl Measured {
    /// Whether the clocks cannot have moved against each other between this measurement and one
    /// that is no better.
    fn stands_against(self, later: Self) -> bool {
        let apart = self.ahead_ms.abs_diff(later.ahead_ms);
        later.error >= self.error && Duration::from_millis(apart) <= self.error + later.error
    }
}

/// A jump of our clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockJump {
    /// What the clock showed after it.
    pub at: Timestamp,
    /// How far it jumped, in milliseconds. Less than zero if it jumped back.
    pub by_ms: i64,
}

/// The moment at which the provider was asked something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    at: Timestamp,
    monotonic: Duration,
    jumps: u64,
}

/// How our clock is doing, for operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockState {
    /// Whether it may end sessions.
    pub confirmed: bool,
    /// How far the provider's clock is ahead of ours, in milliseconds. Zero if they agree. `None`
    /// if the provider has not named its time since the start or the last jump.
    pub provider_ahead_ms: Option<i64>,
    /// Number of jumps since the start.
    pub jumps: u64,
    /// The last of them.
    pub last_jump: Option<ClockJump>,
}

impl ClockCheck {
    /// Creates a check of a clock that has just started.
    pub fn new(now: Timestamp, monotonic: Duration) -> Self {
        Self { base_ms: base_ms(now, monotonic), told: Told::Nothing, jumps: 0, last_jump: None }
    }

    /// Compares the two clocks. Returns a jump since the last look. Then what the provider said
    /// counts no longer.
    pub fn look(&mut self, now: Timestamp, monotonic: Duration) -> Option<ClockJump> {
        let base_ms = base_ms(now, monotonic);
        let by_ms = base_ms.saturating_sub(std::mem::replace(&mut self.base_ms, base_ms));
        if Duration::from_millis(by_ms.unsigned_abs()) < limits::CLOCK_JUMP {
            return None;
        }
        let jump = ClockJump { at: now, by_ms };
        (self.told, self.last_jump) = (Told::Nothing, Some(jump));
        self.jumps = self.jumps.saturating_add(1);
        Some(jump)
    }

    /// Marks the moment at which the provider is asked something, after a look.
    pub fn asks(&self, at: Timestamp, monotonic: Duration) -> Asked {
        Asked { at, monotonic, jumps: self.jumps }
    }

    /// Takes in the time that an answer names, which came after a look. An answer that was under
    /// way during a jump, or for long, says nothing. Returns how far the provider's clock is ahead,
    /// zero if they agree, if that is news to an operator.
    pub fn answers(&mut self, asked: Asked, date: Option<Timestamp>, monotonic: Duration) -> Option<i64> {
        let took = monotonic.saturating_sub(asked.monotonic);
        if asked.jumps != self.jumps || took > limits::CLOCK_ANSWER {
            return None;
        }
        let before = self.told;
        let Some(date) = date else {
            if before == Told::Nothing {
                self.told = Told::NoTime(monotonic);
            }
            return None;
        };
        // A date has no fractions of a second, and was written somewhere on the way.
        let theirs = date.after(DATE_ERROR);
        let ours = asked.at.after(took / 2);
        let ahead_ms = theirs.as_millis().saturating_sub(ours.as_millis());
        let later = Measured { ahead_ms: beyond(ahead_ms, DATE_ERROR), error: DATE_ERROR + took / 2 };
        if matches!(before, Told::Ahead(known) if known.stands_against(later)) {
            return None;
        }
        self.told = Told::Ahead(later);
        let wrong_by_ms = wrong_by(later);
        let agrees = wrong_by_ms == 0;
        let known = matches!(before, Told::Ahead(known) if (wrong_by(known) == 0) == agrees);
        (!known && (!agrees || self.last_jump.is_some() || before != Told::Nothing)).then_some(wrong_by_ms)
    }

    /// Returns the time that may end sessions, if there is one: the earlier of our time and the
    /// provider's.
    pub fn confirmed(&self, now: Timestamp, monotonic: Duration) -> Option<Timestamp> {
        match self.told {
            Told::Nothing => None,
            Told::NoTime(since) => {
                (monotonic.saturating_sub(since) >= limits::CLOCK_TRUSTED_AFTER).then_some(now)
            }
            Told::Ahead(measured) => Some(now.min(shifted(now, wrong_by(measured)))),
        }
    }

    /// Returns the time for claims, on which all instances agree however wrong their clocks are:
    /// the provider's, as far as it is known.
    pub fn of_provider(&self, now: Timestamp) -> Timestamp {
        match self.told {
            Told::Ahead(measured) => shifted(now, measured.ahead_ms),
            Told::Nothing | Told::NoTime(_) => now,
        }
    }

    /// Returns a time on which all instances agree: the provider's, or ours if the provider names
    /// none. `None` if our clock is not confirmed.
    pub fn agreed(&self, now: Timestamp, monotonic: Duration) -> Option<Timestamp> {
        self.confirmed(now, monotonic).map(|_| self.of_provider(now))
    }

    /// Whether the provider has not answered since the start or the last jump.
    pub fn is_untold(&self) -> bool {
        self.told == Told::Nothing
    }

    /// Returns the state.
    pub fn state(&self, now: Timestamp, monotonic: Duration) -> ClockState {
        ClockState {
            confirmed: self.confirmed(now, monotonic).is_some(),
            provider_ahead_ms: match self.told {
                Told::Ahead(measured) => Some(wrong_by(measured)),
                Told::Nothing | Told::NoTime(_) => None,
            },
            jumps: self.jumps,
            last_jump: self.last_jump,
        }
    }
}

/// How far the provider's clock is ahead, zero if that needs no operator: then the clocks agree.
fn wrong_by(measured: Measured) -> i64 {
    beyond(measured.ahead_ms, limits::CLOCK_SKEW)
}

/// A difference in milliseconds. Zero if it is not larger than what is allowed.
fn beyond(difference_ms: i64, allowed: Duration) -> i64 {
    let larger = Duration::from_millis(difference_ms.unsigned_abs()) > allowed;
    if larger { difference_ms } else { 0 }
}

fn shifted(time: Timestamp, by_ms: i64) -> Timestamp {
    Timestamp::from_millis(time.as_millis().saturating_add(by_ms))
}

fn base_ms(now: Timestamp, monotonic: Duration) -> i64 {
    now.before(monotonic).as_millis()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);
    const SECOND: Duration = Duration::from_secs(1);
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    const SKEW: Duration = limits::CLOCK_SKEW;

    #[test]
    fn a_time_from_the_future_has_no_age() {
        let table = [
            ("a day ago", NOW.before(DAY), Some(DAY)),
            ("now", NOW, Some(Duration::ZERO)),
            ("within the allowance", NOW.after(SKEW), Some(Duration::ZERO)),
            ("beyond it", NOW.after(SKEW + Duration::from_millis(1)), None),
            ("a year ahead", NOW.after(365 * DAY), None),
        ];
        for (name, at, expected) in table {
            assert_eq!(at.age(NOW), expected, "{name}");
        }
    }

    #[test]
    fn a_deadline_that_nobody_can_have_set_has_passed() {
        let longest = 30 * SECOND;
        let table = [
            ("passed", NOW.before(SECOND), None),
            ("this moment", NOW, None),
            ("soon", NOW.after(SECOND), Some(SECOND)),
            ("just set", NOW.after(longest), Some(longest)),
            ("set by a clock that differs a little", NOW.after(longest + SKEW), Some(longest + SKEW)),
            ("beyond that", NOW.after(longest + SKEW + SECOND), None),
            ("a year ahead", NOW.after(365 * DAY), None),
        ];
        for (name, until, expected) in table {
            assert_eq!(until.left(NOW, longest), expected, "{name}");
        }
    }

    /// A check that ran for an hour, after the provider named a time this far ahead of ours.
    fn told(ahead_ms: i64) -> ClockCheck {
        let mut check = ClockCheck::new(NOW, Duration::ZERO);
        let asked = check.asks(NOW, Duration::ZERO);
        check.answers(asked, Some(Timestamp::from_millis(NOW.as_millis() + ahead_ms)), Duration::ZERO);
        check
    }

    const AGREES: ClockState =
        ClockState { confirmed: true, provider_ahead_ms: Some(0), jumps: 0, last_jump: None };

    #[test]
    fn only_a_confirmed_clock_may_end_sessions_and_never_before_the_provider_would() {
        let day_ms = 24 * 60 * 60 * 1000;
        let silent = |answered_at| {
            let mut check = ClockCheck::new(NOW, Duration::ZERO);
            check.answers(check.asks(NOW, answered_at), None, answered_at);
            check
        };
        let table = [
            ("just started", ClockCheck::new(NOW, Duration::ZERO), None),
            ("they agree", told(0), Some(NOW)),
            ("within the allowance", told(9_000), Some(NOW)),
            ("ours is behind", told(day_ms), Some(NOW)),
            ("ours is ahead", told(-15 * day_ms), Some(NOW.before(15 * DAY).after(SECOND / 2))),
            ("no time is named", silent(SECOND), None),
            ("no time is named for a day", silent(Duration::ZERO), Some(NOW)),
        ];
        for (name, check, expected) in table {
            assert_eq!(check.confirmed(NOW, limits::CLOCK_TRUSTED_AFTER), expected, "{name}");
        }
        assert_eq!(told(day_ms).of_provider(NOW), NOW.after(DAY + SECOND / 2), "claims go by it");
        let agreed = |check: ClockCheck| check.agreed(NOW, limits::CLOCK_TRUSTED_AFTER);
        assert_eq!(agreed(ClockCheck::new(NOW, Duration::ZERO)), None, "not confirmed");
        assert_eq!(agreed(told(day_ms)), Some(NOW.after(DAY + SECOND / 2)), "ours is behind");
        assert_eq!(agreed(told(-day_ms)), Some(NOW.before(DAY).after(SECOND / 2)), "ours is ahead");
        assert_eq!(silent(SECOND).of_provider(NOW), NOW);
    }

    #[test]
    fn clocks_that_need_no_operator_agree_on_claims() {
        let a_lease = limits::CLAIM_LEASE;
        // To one the provider seems to be behind, to the other ahead.
        for (theirs_ms, ours_ms) in [(-9_500, 9_000), (9_000, -9_500), (-9_500, -500), (0, 0)] {
            let (theirs, ours) = (told(theirs_ms), told(ours_ms));
            assert_eq!((theirs.state(NOW, SECOND), ours.state(NOW, SECOND)), (AGREES, AGREES));
            let at = |ahead_ms: i64| Timestamp::from_millis(NOW.as_millis() - ahead_ms);
            let lease_until = theirs.of_provider(at(theirs_ms)).after(a_lease);
            let now = ours.of_provider(at(ours_ms));
            assert_eq!(lease_until.left(now, a_lease), Some(a_lease), "{theirs_ms} and {ours_ms}");
        }
    }

    #[test]
    fn a_slow_answer_does_not_replace_a_better_measurement() {
        let slow = limits::CLOCK_ANSWER;
        // The date of a slow answer was written at its begin, at its end, or by another clock.
        let table =
            [("begin", 0, NOW), ("end", 5_000, NOW), ("changed", 60_000, NOW.after(Duration::from_secs(58)))];
        for (name, date_ms, expected) in table {
            let mut check = told(0);
            let asked = check.asks(NOW, Duration::ZERO);
            check.answers(asked, Some(Timestamp::from_millis(NOW.as_millis() + date_ms)), slow);
            assert_eq!(check.of_provider(NOW), expected, "{name}");
        }
        let mut check = ClockCheck::new(NOW, Duration::ZERO);
        check.answers(check.asks(NOW, Duration::ZERO), Some(NOW), slow);
        assert_eq!(check.of_provider(NOW), NOW.before(Duration::from_secs(2)));
        check.answers(check.asks(NOW, Duration::ZERO), Some(NOW), Duration::ZERO);
        assert_eq!(check.of_provider(NOW), NOW, "a better one replaces it");
    }

    #[test]
    fn a_jump_is_noticed_once_and_makes_the_provider_name_its_time_again() {
        let hour = 3_600_000;
        for by_ms in [5_000, -5_000, hour, -hour, 365 * 24 * hour, -365 * 24 * hour] {
            let mut check = told(0);
            assert_eq!(check.look(NOW.after(SECOND), SECOND), None, "time passes");
            let asked = check.asks(NOW.after(SECOND), SECOND);
            let jumped = Timestamp::from_millis(NOW.as_millis() + 2000 + by_ms);
            assert_eq!(check.look(jumped, 2 * SECOND), Some(ClockJump { at: jumped, by_ms }));
            assert_eq!(check.look(jumped.after(SECOND), 3 * SECOND), None, "once");
            assert_eq!(check.confirmed(jumped, 3 * SECOND), None);
            check.answers(asked, Some(NOW), 3 * SECOND);
            assert_eq!(check.confirmed(jumped, 3 * SECOND), None, "it was asked before the jump");
            check.answers(check.asks(jumped, 3 * SECOND), Some(jumped), 3 * SECOND);
            assert_eq!(check.confirmed(jumped, 3 * SECOND), Some(jumped));
        }
    }

    #[test]
    fn an_answer_that_took_long_says_nothing_of_the_time() {
        for (took, expected) in [(limits::CLOCK_ANSWER, Some(NOW)), (limits::CLOCK_ANSWER + SECOND, None)] {
            let mut check = ClockCheck::new(NOW, Duration::ZERO);
            check.answers(check.asks(NOW, Duration::ZERO), Some(NOW), took);
            assert_eq!(check.confirmed(NOW, took), expected, "{took:?}");
        }
    }

    #[test]
    fn small_steps_are_no_jump() {
        let mut check = told(0);
        for n in 1..100_u32 {
            let now = NOW.after(n * (SECOND + Duration::from_millis(500)));
            assert_eq!(check.look(now, n * SECOND), None, "step {n}");
        }
    }

    #[test]
    fn a_wrong_clock_is_news_once() {
        let mut check = ClockCheck::new(NOW, Duration::ZERO);
        let ahead = |by: Duration| Some(NOW.after(by));
        let mut answer = |date| check.answers(check.asks(NOW, Duration::ZERO), date, Duration::ZERO);
        assert_eq!(answer(ahead(SECOND)), None, "all is well");
        let wrong_ms = 86_400_500;
        assert_eq!(answer(ahead(DAY)), Some(wrong_ms));
        assert_eq!(answer(ahead(DAY)), None, "once");
        assert_eq!(answer(ahead(SECOND)), Some(0), "it is right again");
    }
}
