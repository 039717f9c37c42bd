//! Says something once a minute at most, where anybody on the network could have it said.

use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::Duration,
};

use claviger_core::time::Timestamp;

const PAUSE: Duration = Duration::from_secs(60);

/// When it was said last.
#[derive(Debug, Default)]
pub(crate) struct Seldom(AtomicI64);

impl Seldom {
    /// Whether it may be said now; if so, it counts as said.
    pub(crate) fn may_say(&self, now: Timestamp) -> bool {
        let last = self.0.load(Ordering::Relaxed);
        let due = now.since(Timestamp::from_millis(last)) >= PAUSE;
        due && self.0.compare_exchange(last, now.as_millis(), Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_said_once_a_minute() {
        let (seldom, now) = (Seldom::default(), Timestamp::from_millis(1_790_000_000_000));
        assert!(seldom.may_say(now));
        assert!(!seldom.may_say(now.after(PAUSE - Duration::from_millis(1))));
        assert!(seldom.may_say(now.after(PAUSE)));
    }
}
