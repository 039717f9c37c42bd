//! A circuit breaker: leaves a provider alone that is in trouble, so that requests do not wait for it one by one, and it can
//! recover.
//!
//! | state | who may ask | leads to |
//! |---|---|---|
//! | closed | everybody | open, after trouble twice in a row or a word on when to come back |
//! | open | nobody, until the pause is over | half-open |
//! | half-open | one, the others wait for its answer | closed after an answer, open for twice as long after trouble |
//!
//! It concerns everybody, so it takes more than what one user's token could bring about, and its pauses are short.

use std::time::Duration;

use crate::{policy::limits, time::Timestamp, verdict::Trouble};

/// One provider's breaker for one kind of question.
#[derive(Clone, Copy, Debug, Default)]
pub struct Breaker {
    /// Trouble in a row, not counting what was asked before the last pause began.
    in_a_row: u32,
    /// Until when nobody asks; while a probe is out, until when its answer is awaited.
    until: Option<Timestamp>,
    probing: bool,
}

/// Where a breaker stands, for metrics and people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// All is well.
    Closed,
    /// One question is out to see whether the provider is back, or may be asked.
    HalfOpen,
    /// The provider is left alone.
    Open,
}

impl Breaker {
    /// Asks to send one question, and says whether it is the probe. The answer to it must be told by [`Breaker::answered`] or
    /// [`Breaker::troubled`]; that a probe was not sent, by [`Breaker::unasked`].
    ///
    /// # Errors
    /// How long to wait, if the provider is to be left alone.
    pub fn ask(&mut self, now: Timestamp) -> Result<bool, Duration> {
        if let Some(left) = self.left(now) {
            return Err(left);
        }
        let probe = self.until.is_some();
        if probe {
            self.probing = true;
            self.until = Some(now.after(limits::PROVIDER_CONNECT + limits::PROVIDER_ANSWER));
        }
        Ok(probe)
    }

    /// How long nobody may ask yet, if so.
    pub fn left(&self, now: Timestamp) -> Option<Duration> {
        let left = self.until?.since(now);
        // More than the longest pause is a clock that was set back.
        (!left.is_zero() && left <= limits::PROVIDER_PAUSE_ASKED_MAX).then_some(left)
    }

    /// The provider answered.
    pub fn answered(&mut self) {
        *self = Self::default();
    }

    /// The probe was not sent after all.
    pub fn unasked(&mut self, now: Timestamp) {
        if self.probing {
            self.probing = false;
            self.until = Some(now);
        }
    }

    /// The provider did not answer, or not what was asked.
    pub fn troubled(&mut self, now: Timestamp, trouble: &Trouble) {
        if !trouble.is_the_providers() {
            return self.unasked(now);
        }
        if !self.probing && self.left(now).is_some() {
            // It was asked before the pause began, and tells nothing new but when to come back.
            self.until = self.until.max(trouble.retry_after.map(|pause| now.after(asked(pause))));
            return;
        }
        self.probing = false;
        self.in_a_row = self.in_a_row.saturating_add(1);
        let pause = match trouble.retry_after {
            Some(pause) => asked(pause),
            None if self.in_a_row < 2 => return self.until = self.until.map(|_| now),
            None => own_pause(self.in_a_row),
        };
        self.until = Some(now.after(pause));
    }

    /// Where it stands.
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
    use crate::verdict::TroubleKind;

    const T0: Timestamp = Timestamp::from_millis(1_000_000);

    fn at(secs: u64) -> Timestamp {
        T0.after(Duration::from_secs(secs))
    }

    fn trouble(kind: TroubleKind, retry_after_secs: Option<u64>) -> Trouble {
        Trouble { kind, retry_after: retry_after_secs.map(Duration::from_secs) }
    }

    const NO_ANSWER: Trouble = Trouble::new(TroubleKind::NoAnswer);

    fn opened() -> Breaker {
        let mut breaker = Breaker::default();
        breaker.troubled(T0, &NO_ANSWER);
        breaker.troubled(T0, &NO_ANSWER);
        breaker
    }

    #[test]
    fn trouble_twice_in_a_row_is_left_alone_for_a_moment() {
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
    fn after_the_pause_one_asks_and_the_others_wait_for_its_answer() {
        let mut breaker = opened();
        assert_eq!(breaker.state(at(5)), BreakerState::HalfOpen);
        assert_eq!(breaker.ask(at(5)), Ok(true));
        assert_eq!(breaker.ask(at(5)), Err(Duration::from_secs(15)), "a probe is out");
        assert_eq!(breaker.state(at(6)), BreakerState::HalfOpen);
        breaker.answered();
        assert_eq!(breaker.ask(at(6)), Ok(false));
        assert_eq!(breaker.ask(at(6)), Ok(false));
        assert_eq!(breaker.state(at(6)), BreakerState::Closed);
    }

    #[test]
    fn a_probe_that_is_never_answered_makes_room_for_another() {
        let mut breaker = opened();
        breaker.ask(at(5)).unwrap();
        assert_eq!(breaker.ask(at(20)), Ok(true));
    }

    #[test]
    fn a_probe_that_was_not_sent_makes_room_at_once() {
        let mut breaker = opened();
        breaker.ask(at(5)).unwrap();
        breaker.unasked(at(5));
        assert_eq!(breaker.ask(at(5)), Ok(true));
        let mut closed = Breaker::default();
        closed.unasked(T0);
        assert_eq!(closed.state(T0), BreakerState::Closed);
    }

    #[test]
    fn pauses_double_up_to_a_bound() {
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
    fn answers_to_what_was_asked_before_the_pause_do_not_lengthen_it() {
        let mut breaker = opened();
        for _ in 0..100 {
            breaker.troubled(at(1), &NO_ANSWER);
        }
        assert_eq!(breaker.left(at(1)), Some(Duration::from_secs(4)));
        breaker.troubled(at(1), &trouble(TroubleKind::Status(503), Some(20)));
        assert_eq!(
            breaker.left(at(1)),
            Some(Duration::from_secs(20)),
            "but a word on when to come back does"
        );
        breaker.troubled(at(1), &trouble(TroubleKind::Status(503), Some(2)));
        assert_eq!(breaker.left(at(1)), Some(Duration::from_secs(20)));
    }

    #[test]
    fn a_word_on_when_to_come_back_counts_at_once_within_reason() {
        for (asked, left) in [(7, 7), (60, 60), (3600, 60)] {
            let mut breaker = Breaker::default();
            breaker.troubled(T0, &trouble(TroubleKind::Status(429), Some(asked)));
            assert_eq!(breaker.left(T0), Some(Duration::from_secs(left)));
        }
    }

    #[test]
    fn what_one_token_may_bring_about_silences_nobody() {
        for kind in [TroubleKind::Unreadable, TroubleKind::Status(400), TroubleKind::Status(404)] {
            let mut breaker = Breaker::default();
            for _ in 0..3 {
                breaker.troubled(T0, &trouble(kind, Some(60)));
            }
            assert_eq!(breaker.state(T0), BreakerState::Closed, "{kind:?}");
            let mut probed = opened();
            probed.ask(at(5)).unwrap();
            probed.troubled(at(5), &trouble(kind, None));
            assert_eq!(probed.ask(at(5)), Ok(true), "{kind:?}: it proved nothing, so another may ask");
        }
    }

    #[test]
    fn a_clock_that_is_set_back_silences_nobody() {
        let mut breaker = Breaker::default();
        breaker.troubled(at(86_400), &trouble(TroubleKind::Status(503), Some(30)));
        assert_eq!(breaker.left(T0), None);
    }
}
