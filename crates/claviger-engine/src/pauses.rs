//! A refresh of one session that came to nothing is not tried again at once, whatever the other sessions do.

use std::time::Duration;

use claviger_core::{
    ids::{SessionId, Version},
    policy::limits,
    time::Timestamp,
};

use crate::{
    by_session::{BySession, cache},
    errors::Denied,
};

pub(crate) struct Pauses(BySession<Pause>);

#[derive(Clone)]
struct Pause {
    /// Which pair could not be refreshed. A newer one owes nothing to it.
    generation: Version,
    until: Timestamp,
    tries: u32,
    /// What came of the last try, and is told until the pause is over.
    denied: Denied,
}

impl Pauses {
    pub(crate) fn new() -> Self {
        Self(cache(limits::REFRESH_PAUSES))
    }

    /// What to answer instead of another try, if it is too early for one.
    pub(crate) fn left(&self, id: SessionId, generation: Version, now: Timestamp) -> Option<Denied> {
        let pause = self.0.get(&id).filter(|pause| pause.generation == generation)?;
        let left = pause.until.since(now);
        // More than the longest pause is a clock that was set back.
        if left.is_zero() || left > limits::PROVIDER_PAUSE_MAX {
            return None;
        }
        Some(match pause.denied {
            Denied::ProviderTrouble { .. } => Denied::ProviderTrouble { retry_after: left },
            denied => denied,
        })
    }

    /// Notes that a refresh came to nothing, and gives the denial back.
    pub(crate) fn note(&self, id: SessionId, generation: Version, now: Timestamp, denied: Denied) -> Denied {
        let before = self.0.get(&id).filter(|pause| pause.generation == generation);
        let tries = before.map_or(0, |pause| pause.tries.saturating_add(1));
        let until = now.after(pause_after(tries));
        self.0.insert(id, Pause { generation, until, tries, denied: denied.clone() });
        denied
    }
}

/// Once may be chance, and somebody may be waiting.
fn pause_after(tries: u32) -> Duration {
    match tries.checked_sub(1) {
        None => Duration::ZERO,
        Some(doublings) => {
            (limits::REFRESH_PAUSE * 2u32.pow(doublings.min(16))).min(limits::PROVIDER_PAUSE_MAX)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T0: Timestamp = Timestamp::from_millis(1_000_000);
    const PAIR: Version = Version(3);

    fn trouble(secs: u64) -> Denied {
        Denied::ProviderTrouble { retry_after: Duration::from_secs(secs) }
    }

    #[test]
    fn a_pause_doubles_up_to_a_bound_and_says_how_much_is_left() {
        let pauses = Pauses::new();
        let id = SessionId::new(T0, [1; 10]);
        let mut now = T0;
        assert_eq!(pauses.note(id, PAIR, now, trouble(5)), trouble(5));
        assert_eq!(pauses.left(id, PAIR, now), None, "once may be chance");
        for pause_secs in [1, 2, 4, 8, 16, 30, 30] {
            assert_eq!(pauses.left(id, PAIR, now), None);
            assert_eq!(pauses.note(id, PAIR, now, trouble(5)), trouble(5));
            assert_eq!(pauses.left(id, PAIR, now), Some(trouble(pause_secs)));
            now = now.after(Duration::from_secs(pause_secs));
        }
    }

    #[test]
    fn a_pause_concerns_one_pair_of_one_session() {
        let pauses = Pauses::new();
        let id = SessionId::new(T0, [1; 10]);
        for _ in 0..2 {
            pauses.note(id, PAIR, T0, Denied::Misconfigured);
        }
        assert_eq!(pauses.left(id, PAIR, T0), Some(Denied::Misconfigured));
        assert_eq!(pauses.left(id, PAIR.next(), T0), None, "a newer pair");
        assert_eq!(pauses.left(SessionId::new(T0, [2; 10]), PAIR, T0), None, "another session");
        assert_eq!(pauses.left(id, PAIR, T0.before(limits::PROVIDER_PAUSE_MAX)), None, "a clock set back");
    }
}
