//! A circuit breaker. It leaves a failing provider alone, so that requests do not wait for it one
//! by one and it can recover.
//!
//! | state | who may send | next state |
//! |---|---|---|
//! | closed | every request | open, after two failures in a row or a Retry-After |
//! | open | none, until the pause is over | half-open |
//! | half-open | one trial; the others wait for its answer | closed after an answer, open for twice as long after a failure |
//!
//! It affects all sessions, so one user's token alone cannot open it, and its pauses are short.

use std::time::Duration;

use crate::{ProviderFailure, Timestamp, limits};

/// The breaker of one provider for one kind of request.
#[derive(Clone, Copy, Debug, Default)]
pub struct Breaker {
    /// Failures in a row, not counting requests from before the last pause.
    in_a_row: u32,
    /// Until when no request is sent; during a trial, until when its answer is awaited.
    until: Option<Timestamp>,
    probing: bool,
}

/// The state of a breaker, for metrics and people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// Requests are sent.
    Closed,
    /// A trial is out or may be sent, to see whether the provider is back.
    HalfOpen,
    /// No request is sent.
    Open,
}

impl Breaker {
    /// Asks to send one request, and returns whether it is the trial. Report its answer with
    /// [`Breaker::answered`] or [`Breaker::troubled`], and a trial that was not sent with
    /// [`Breaker::unasked`].
    ///
    /// # Errors
    /// How long to wait, if the provider must be left alone.
    pub fn ask(&mut self, now: Timestamp) -> Result<bool, Duration> {
        if let Some(left) = self.left(now) {
            return Err(left);
        }
        let trial = self.until.is_some();
        if trial {
            self.probing = true;
            self.until = Some(now.after(limits::PROVIDER_CONNECT + limits::PROVIDER_ANSWER));
        }
        Ok(trial)
    }

    /// Returns how long no request may be sent, if so.
    pub fn left(&self, now: Timestamp) -> Option<Duration> {
        let left = self.until?.since(now);
        // More than the longest pause comes from a clock that was set back.
        (!left.is_zero() && left <= limits::PROVIDER_PAUSE_ASKED_MAX).then_some(left)
    }

    /// The provider answered.
    pub fn answered(&mut self) {
        *self = Self::default();
    }

    /// The trial was not sent.
    pub fn unasked(&mut self, now: Timestamp) {
        if self.probing {
            self.probing = false;
            self.until = Some(now);
        }
    }

    /// The provider did not answer, or not what was asked.
    pub fn troubled(&mut self, now: Timestamp, failure: &ProviderFailure) {
        if !failure.is_the_providers() {
            return self.unasked(now);
        }
        if !self.probing && self.left(now).is_some() {
            // It was sent before the pause began, so only its Retry-After is new.
            self.until = self.until.max(failure.retry_after.map(|pause| now.after(asked(pause))));
            return;
        }
        self.probing = false;
        self.in_a_row = self.in_a_row.saturating_add(1);
        let pause = match failure.retry_after {
            Some(pause) => asked(pause),
            None if self.in_a_row < 2 => return self.until = self.until.map(|_| now),
            None => own_pause(self.in_a_row),
        };
        self.until = Some(now.after(pause));
    }

    /// Returns the state.
    pub fn state(&self, now: Timestamp) -> BreakerState {
        match self.until {
            None => BreakerState::Closed,
            Some(_) if self.probing => BreakerState::HalfOpen,
            Some(_) if self.left(now).is_some() => BreakerState::Open,
            Some(_) => BreakerState::HalfOpen,
        }
    }
}

fn asked(pause: Duration) -> Duration {
    pause.min(limits::PROVIDER_PAUSE_ASKED_MAX)
}

fn own_pause(in_a_row: u32) -> Duration {
    let doublings = in_a_row.saturating_sub(2).min(16);
    (limits::RETRY_AFTER * 2u32.pow(doublings)).min(limits::PROVIDER_PAUSE_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FailureKind;

    const T0: Timestamp = Timestamp::from_millis(1_000_000);

    fn at(secs: u64) -> Timestamp {
        T0.after(Duration::from_secs(secs))
    }

    fn failure(kind: FailureKind, retry_after_secs: Option<u64>) -> ProviderFailure {
        ProviderFailure { kind, retry_after: retry_after_secs.map(Duration::from_secs) }
    }

    const NO_ANSWER: ProviderFailure = ProviderFailure::new(FailureKind::NoAnswer);

    fn opened() -> Breaker {
        let mut breaker = Breaker::default();
        breaker.troubled(T0, &NO_ANSWER);
        breaker.troubled(T0, &NO_ANSWER);
        breaker
    }

    #[test]
    fn two_failures_in_a_row_open_the_breaker() {
        let mut breaker = Breaker::default();
        breaker.troubled(T0, &NO_ANSWER);
        assert_eq!(breaker.ask(T0), Ok(false), "once may be chance");
        breaker.answered();
        breaker.troubled(T0, &NO_ANSWER);
        assert_eq!(breaker.ask(T0), Ok(false), "not in a row");
        breaker.troubled(T0, &NO_ANSWER);
        assert_eq!(breaker.ask(T0), Err(limits::RETRY_AFTER));
        assert_eq!(breaker.state(T0), BreakerState::Open);
    }

    #[test]
    fn after_the_pause_one_trial_is_sent() {
        let mut breaker = opened();
        assert_eq!(breaker.state(at(5)), BreakerState::HalfOpen);
        assert_eq!(breaker.ask(at(5)), Ok(true));
        assert_eq!(breaker.ask(at(5)), Err(Duration::from_secs(15)), "a trial is out");
        assert_eq!(breaker.state(at(6)), BreakerState::HalfOpen);
        breaker.answered();
        assert_eq!(breaker.ask(at(6)), Ok(false));
        assert_eq!(breaker.ask(at(6)), Ok(false));
        assert_eq!(breaker.state(at(6)), BreakerState::Closed);
    }

    #[test]
    fn an_unanswered_trial_is_replaced() {
        let mut breaker = opened();
        breaker.ask(at(5)).unwrap();
        assert_eq!(breaker.ask(at(20)), Ok(true));
    }

    #[test]
    fn an_unsent_trial_is_replaced_at_once() {
        let mut breaker = opened();
        breaker.ask(at(5)).unwrap();
        breaker.unasked(at(5));
        assert_eq!(breaker.ask(at(5)), Ok(true));
        let mut closed = Breaker::default();
        closed.unasked(T0);
        assert_eq!(closed.state(T0), BreakerState::Closed);
    }

    #[test]
    fn pauses_double_up_to_a_limit() {
        let mut breaker = opened();
        let mut now = at(5);
        for pause_secs in [10, 20, 30, 30] {
            breaker.ask(now).unwrap();
            breaker.troubled(now, &NO_ANSWER);
            assert_eq!(breaker.left(now), Some(Duration::from_secs(pause_secs)));
            now = now.after(Duration::from_secs(pause_secs));
        }
    }

    #[test]
    fn late_answers_do_not_lengthen_the_pause() {
        let mut breaker = opened();
        for _ in 0..100 {
            breaker.troubled(at(1), &NO_ANSWER);
        }
        assert_eq!(breaker.left(at(1)), Some(Duration::from_secs(4)));
        breaker.troubled(at(1), &failure(FailureKind::Status(503), Some(20)));
        assert_eq!(
            breaker.left(at(1)),
            Some(Duration::from_secs(20)),
            "but a word on when to come back does"
        );
        breaker.troubled(at(1), &failure(FailureKind::Status(503), Some(2)));
        assert_eq!(breaker.left(at(1)), Some(Duration::from_secs(20)));
    }

    #[test]
    fn retry_after_counts_at_once_within_limits() {
        for (asked, left) in [(7, 7), (60, 60), (3600, 60)] {
            let mut breaker = Breaker::default();
            breaker.troubled(T0, &failure(FailureKind::Status(429), Some(asked)));
            assert_eq!(breaker.left(T0), Some(Duration::from_secs(left)));
        }
    }

    #[test]
    fn failures_of_one_token_do_not_open_the_breaker() {
        for kind in [FailureKind::Unreadable, FailureKind::Status(400), FailureKind::Status(404)] {
            let mut breaker = Breaker::default();
            for _ in 0..3 {
                breaker.troubled(T0, &failure(kind, Some(60)));
            }
            assert_eq!(breaker.state(T0), BreakerState::Closed, "{kind:?}");
            let mut tried = opened();
            tried.ask(at(5)).unwrap();
            tried.troubled(at(5), &failure(kind, None));
            assert_eq!(tried.ask(at(5)), Ok(true), "{kind:?}: it proved nothing, so another may ask");
        }
    }

    #[test]
    fn a_clock_that_is_set_back_keeps_no_breaker_open() {
        let mut breaker = Breaker::default();
        breaker.troubled(at(86_400), &failure(FailureKind::Status(503), Some(30)));
        assert_eq!(breaker.left(T0), None);
    }
}
