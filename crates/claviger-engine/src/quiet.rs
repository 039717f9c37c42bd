//! Leaves a provider alone that is in trouble, so that requests do not wait for it one by one, and it can recover.

use std::{
    sync::atomic::{AtomicI64, AtomicU32, Ordering},
    time::Duration,
};

use claviger_core::{
    policy::limits,
    time::Timestamp,
    verdict::{Trouble, TroubleKind},
};

/// Until when one kind of question is not asked.
///
/// It concerns everybody, so it takes more than what one user's token could bring about: a word of the provider on when to
/// come back, or trouble twice in a row. And it is short.
#[derive(Default)]
pub(crate) struct Quiet {
    until: AtomicI64,
    in_a_row: AtomicU32,
}

impl Quiet {
    /// How long the provider is to be left alone yet, if at all.
    pub(crate) fn left(&self, now: Timestamp) -> Option<Duration> {
        let left = Timestamp::from_millis(self.until.load(Ordering::Relaxed)).since(now);
        // More than the longest pause is a clock that was set back.
        (!left.is_zero() && left <= limits::QUIET_MAX).then_some(left)
    }

    /// The provider answered.
    pub(crate) fn over(&self) {
        self.in_a_row.store(0, Ordering::Relaxed);
    }

    /// The provider did not answer, or not what was asked.
    pub(crate) fn keep(&self, now: Timestamp, trouble: &Trouble) {
        if !is_the_providers(trouble.kind) {
            return;
        }
        let again = self.in_a_row.fetch_add(1, Ordering::Relaxed) > 0;
        if again || trouble.retry_after.is_some() {
            let until = now.after(trouble.pause().min(limits::QUIET_MAX));
            self.until.store(until.as_millis(), Ordering::Relaxed);
        }
    }
}

/// Whether the trouble is with the provider, and not with one token.
fn is_the_providers(kind: TroubleKind) -> bool {
    matches!(kind, TroubleKind::NotSent | TroubleKind::NoAnswer | TroubleKind::Status(408 | 429 | 500..))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_000_000);

    fn trouble(kind: TroubleKind, retry_after_secs: Option<u64>) -> Trouble {
        Trouble { kind, retry_after: retry_after_secs.map(Duration::from_secs) }
    }

    #[test]
    fn trouble_twice_in_a_row_is_left_alone_for_a_moment() {
        let quiet = Quiet::default();
        let no_answer = trouble(TroubleKind::NoAnswer, None);
        quiet.keep(NOW, &no_answer);
        assert_eq!(quiet.left(NOW), None, "once may be chance");
        quiet.over();
        quiet.keep(NOW, &no_answer);
        assert_eq!(quiet.left(NOW), None, "not in a row");
        quiet.keep(NOW, &no_answer);
        assert_eq!(quiet.left(NOW), Some(limits::RETRY_AFTER));
        assert_eq!(quiet.left(NOW.after(limits::RETRY_AFTER)), None);
    }

    #[test]
    fn a_word_on_when_to_come_back_counts_at_once_within_reason() {
        for (asked, left) in [(7, 7), (60, 60), (3600, 60)] {
            let quiet = Quiet::default();
            quiet.keep(NOW, &trouble(TroubleKind::Status(429), Some(asked)));
            assert_eq!(quiet.left(NOW), Some(Duration::from_secs(left)));
        }
    }

    #[test]
    fn what_one_token_may_bring_about_silences_nobody() {
        for kind in [TroubleKind::Unreadable, TroubleKind::Status(400), TroubleKind::Status(404)] {
            let quiet = Quiet::default();
            for _ in 0..3 {
                quiet.keep(NOW, &trouble(kind, Some(60)));
            }
            assert_eq!(quiet.left(NOW), None, "{kind:?}");
        }
    }

    #[test]
    fn a_clock_that_is_set_back_silences_nobody() {
        let quiet = Quiet::default();
        quiet.keep(NOW.after(Duration::from_secs(86_400)), &trouble(TroubleKind::Status(503), Some(30)));
        assert_eq!(quiet.left(NOW), None);
    }
}
