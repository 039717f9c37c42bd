//! Leaves a provider alone that is in trouble, so that requests do not wait for it one by one, and it can recover.

use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::Duration,
};

use claviger_core::{time::Timestamp, verdict::Trouble};

/// Until when one kind of question is not asked.
#[derive(Default)]
pub(crate) struct Quiet(AtomicI64);

impl Quiet {
    /// How long the provider is to be left alone yet, if at all.
    pub(crate) fn left(&self, now: Timestamp) -> Option<Duration> {
        let left = Timestamp::from_millis(self.0.load(Ordering::Relaxed)).since(now);
        (!left.is_zero()).then_some(left)
    }

    /// Leaves the provider alone for as long as it asked, or a moment.
    pub(crate) fn keep(&self, now: Timestamp, trouble: &Trouble) {
        self.0.fetch_max(now.after(trouble.pause()).as_millis(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use claviger_core::{policy::limits, verdict::TroubleKind};

    use super::*;

    #[test]
    fn a_provider_in_trouble_is_left_alone_for_as_long_as_it_asked() {
        let quiet = Quiet::default();
        let now = Timestamp::from_millis(1_000_000);
        assert_eq!(quiet.left(now), None);
        quiet.keep(now, &Trouble::new(TroubleKind::NoAnswer));
        assert_eq!(quiet.left(now), Some(limits::RETRY_AFTER));
        let asked =
            Trouble { retry_after: Some(Duration::from_secs(60)), ..Trouble::new(TroubleKind::Status(429)) };
        quiet.keep(now, &asked);
        quiet.keep(now, &Trouble::new(TroubleKind::NoAnswer));
        assert_eq!(quiet.left(now), Some(Duration::from_secs(60)), "the longer pause counts");
        assert_eq!(quiet.left(now.after(Duration::from_secs(60))), None);
    }
}
