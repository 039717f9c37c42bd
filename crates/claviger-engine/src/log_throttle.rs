//! Limits a log line that anybody on the network can cause to one a minute.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicI64, Ordering},
    time::Duration,
};

use claviger_core::Timestamp;

use crate::Lock;

const PAUSE: Duration = Duration::from_secs(60);

/// When the line was logged last.
#[derive(Debug, Default)]
pub struct LogThrottle(AtomicI64);

impl LogThrottle {
    /// Returns whether to log now; if so, this counts as logged.
    pub fn allows(&self, now: Timestamp) -> bool {
        let last = self.0.load(Ordering::Relaxed);
        let due = Timestamp::from_millis(last).age(now).is_none_or(|age| age >= PAUSE);
        due && self.0.compare_exchange(last, now.as_millis(), Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

/// One throttle for each kind of a line. Kinds are few and fixed.
#[derive(Default)]
pub(crate) struct LogThrottles(Lock<BTreeMap<&'static str, Line>>);

#[derive(Debug, Default)]
struct Line {
    throttle: LogThrottle,
    left_out: u64,
}

impl LogThrottles {
    /// Returns whether to log a line of this kind now; if so, the number of lines that were left
    /// out since the last.
    pub(crate) fn allows(&self, kind: &'static str, now: Timestamp) -> Option<u64> {
        let mut lines = self.0.lock();
        let line = lines.entry(kind).or_default();
        if line.throttle.allows(now) {
            return Some(std::mem::take(&mut line.left_out));
        }
        line.left_out += 1;
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_logs_once_a_minute() {
        let (log_throttle, now) = (LogThrottle::default(), Timestamp::from_millis(1_790_000_000_000));
        assert!(log_throttle.allows(now));
        assert!(!log_throttle.allows(now.after(PAUSE - Duration::from_millis(1))));
        assert!(log_throttle.allows(now.after(PAUSE)));
    }

    #[test]
    fn each_kind_has_its_own_line_which_says_how_many_were_left_out() {
        let (throttles, now) = (LogThrottles::default(), Timestamp::from_millis(1_790_000_000_000));
        assert_eq!(throttles.allows("a", now), Some(0));
        assert_eq!(throttles.allows("a", now), None);
        assert_eq!(throttles.allows("a", now), None);
        assert_eq!(throttles.allows("b", now), Some(0));
        assert_eq!(throttles.allows("a", now.after(PAUSE)), Some(2));
        assert_eq!(throttles.allows("a", now.after(2 * PAUSE)), Some(0));
    }
}
