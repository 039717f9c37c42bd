//! SPREAD: in no window are more validations sent than the budget allows.

use std::time::Duration;

/// Checks requests as they leave, for windows of every length at once: in any `t` seconds at most
/// `burst + (t + slack) * per_second` may be sent. A leaky bucket that must not overflow checks
/// exactly that.
#[derive(Debug)]
pub(crate) struct Spread {
    per_second: f64,
    capacity: f64,
    level: f64,
    last: Duration,
    /// The fullest that the bucket ever was, as a share of its capacity.
    pub(crate) fullest: f64,
}

impl Spread {
    /// `slack` is how far two requests with the same reservation may be apart: their lateness, and
    /// the difference of the instances' clocks.
    pub(crate) fn new(per_second: u32, burst: u32, slack: Duration) -> Self {
        let rate = f64::from(per_second);
        let capacity = f64::from(burst) + slack.as_secs_f64() * rate;
        Self { per_second: rate, capacity, level: 0.0, last: Duration::ZERO, fullest: 0.0 }
    }

    /// Forgets what was sent.
    pub(crate) fn forget(&mut self) {
        self.level = 0.0;
    }

    /// Records a request. Returns whether the budget allows it.
    pub(crate) fn sent(&mut self, at: Duration) -> bool {
        let leaked = at.saturating_sub(self.last).as_secs_f64() * self.per_second;
        self.level = (self.level - leaked).max(0.0) + 1.0;
        self.last = at;
        self.fullest = self.fullest.max(self.level / self.capacity);
        // Less than a thousandth of a request is a rounding error.
        self.level <= self.capacity + 0.001
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks each window by the definition.
    fn within(sent: &[Duration], per_second: f64, allowed_at_once: f64) -> bool {
        sent.iter().enumerate().all(|(first, from)| {
            sent.iter().enumerate().skip(first).all(|(last, to)| {
                let count = (last - first + 1) as f64;
                count <= allowed_at_once + (*to - *from).as_secs_f64() * per_second + 0.001
            })
        })
    }

    #[test]
    fn every_window_is_watched() {
        let rng = crate::rng::Rng::new(7);
        let (mut good, mut bad) = (0, 0);
        for _ in 0..300 {
            let mut at = Duration::ZERO;
            let sent: Vec<_> = (0..40)
                .map(|_| {
                    at += rng.span(Duration::ZERO, Duration::from_millis(420));
                    at
                })
                .collect();
            let mut spread = Spread::new(5, 3, Duration::from_millis(200));
            let refused = sent.iter().filter(|at| !spread.sent(**at)).count();
            let allowed = refused == 0;
            assert_eq!(allowed, within(&sent, 5.0, 4.0), "{sent:?}");
            if allowed { good += 1 } else { bad += 1 }
        }
        assert!(good > 30 && bad > 30, "{good} {bad}");
    }
}
