//! Backoff: a session whose refresh failed is not refreshed again at once, whatever the other
//! sessions do.

use std::time::Duration;

use claviger_core::{SessionId, Timestamp, Version, limits};

use crate::{BySession, Denied, by_session::cache, retry::doubled_pause};

/// The backoffs of sessions whose last refresh failed.
pub(super) struct Backoffs(BySession<Backoff>);

#[derive(Clone)]
struct Backoff {
    /// The pair that could not be refreshed. A newer one starts without a backoff.
    generation: Version,
    until: Timestamp,
    tries: u32,
    /// What the last try came to. Callers get it until the backoff ends.
    denied: Denied,
}

impl Backoffs {
    pub(super) fn new() -> Self {
        Self(cache(limits::REFRESH_PAUSES))
    }

    /// What to answer instead of another try, if it is too early for one.
    pub(super) fn denial(&self, id: SessionId, generation: Version, now: Timestamp) -> Option<Denied> {
        let backoff = self.0.get(&id).filter(|backoff| backoff.generation == generation)?;
        let left = backoff.until.since(now);
        // More than the longest pause means that the clock was set back.
        if left.is_zero() || left > limits::PROVIDER_PAUSE_MAX {
            return None;
        }
        Some(match backoff.denied {
            Denied::ProviderUnavailable { .. } => Denied::ProviderUnavailable { retry_after: left },
            denied => denied,
        })
    }

    /// Notes that a refresh failed, and gives the denial back.
    pub(super) fn note(&self, id: SessionId, generation: Version, now: Timestamp, denied: Denied) -> Denied {
        let before = self.0.get(&id).filter(|backoff| backoff.generation == generation);
        let tries = before.map_or(0, |backoff| backoff.tries.saturating_add(1));
        let until = now.after(pause_after(tries));
        self.0.insert(id, Backoff { generation, until, tries, denied: denied.clone() });
        denied
    }
}

/// The first failure may be chance, and somebody may be waiting. So it causes no pause.
fn pause_after(tries: u32) -> Duration {
    match tries.checked_sub(1) {
        None => Duration::ZERO,
        Some(doublings) => doubled_pause(limits::REFRESH_PAUSE, doublings, limits::PROVIDER_PAUSE_MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T0: Timestamp = Timestamp::from_millis(1_000_000);
    const PAIR: Version = Version(3);

    fn failure(secs: u64) -> Denied {
        Denied::ProviderUnavailable { retry_after: Duration::from_secs(secs) }
    }

    #[test]
    fn a_backoff_doubles_up_to_a_limit_and_says_how_much_is_left() {
        let backoffs = Backoffs::new();
        let id = SessionId::new(T0, [1; 10]);
        let mut now = T0;
        assert_eq!(backoffs.note(id, PAIR, now, failure(5)), failure(5));
        assert_eq!(backoffs.denial(id, PAIR, now), None, "once may be chance");
        for pause_secs in [1, 2, 4, 8, 16, 30, 30] {
            assert_eq!(backoffs.denial(id, PAIR, now), None);
            assert_eq!(backoffs.note(id, PAIR, now, failure(5)), failure(5));
            assert_eq!(backoffs.denial(id, PAIR, now), Some(failure(pause_secs)));
            now = now.after(Duration::from_secs(pause_secs));
        }
    }

    #[test]
    fn a_backoff_concerns_one_pair_of_one_session() {
        let backoffs = Backoffs::new();
        let id = SessionId::new(T0, [1; 10]);
        for _ in 0..2 {
            backoffs.note(id, PAIR, T0, Denied::Misconfigured);
        }
        assert_eq!(backoffs.denial(id, PAIR, T0), Some(Denied::Misconfigured));
        assert_eq!(backoffs.denial(id, PAIR.next(), T0), None, "a newer pair");
        assert_eq!(backoffs.denial(SessionId::new(T0, [2; 10]), PAIR, T0), None, "another session");
        let set_back = T0.before(limits::PROVIDER_PAUSE_MAX);
        assert_eq!(backoffs.denial(id, PAIR, set_back), None, "a clock set back");
    }
}
