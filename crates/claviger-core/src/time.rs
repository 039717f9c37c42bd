//! Points in time as milliseconds since the Unix epoch. Arithmetic saturates.

use std::time::Duration;

/// A point in time: milliseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The first millisecond of the epoch.
    pub const EPOCH: Self = Self(0);
    /// Later than any time that a clock shows.
    pub const MAX: Self = Self(i64::MAX);

    /// Wraps milliseconds since the epoch.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Returns the milliseconds since the epoch.
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// Returns the whole seconds since the epoch, rounded down.
    pub const fn as_secs(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// Returns the time `span` later.
    #[must_use]
    pub fn after(self, span: Duration) -> Self {
        Self(self.0.saturating_add(millis(span)))
    }

    /// Returns the time `span` earlier.
    #[must_use]
    pub fn before(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(millis(span)))
    }

    /// Returns how long ago `earlier` was; zero if it is in the future, since clocks of two
    /// machines may differ.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

fn millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

/// When a token expires, as far as the provider said (RFC 6749 section 5.1: `expires_in` is only
/// recommended).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Expiry {
    /// At this time.
    At(Timestamp),
    /// The provider did not say.
    Unknown,
    /// Never, says the provider (such as with `expires_in: 0`).
    Never,
}

impl Expiry {
    /// Returns whether the token has certainly expired.
    pub fn passed(self, now: Timestamp) -> bool {
        matches!(self, Self::At(at) if at <= now)
    }

    /// Returns whether the token will certainly have expired `margin` from now.
    pub fn within(self, now: Timestamp, margin: Duration) -> bool {
        self.passed(now.after(margin))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates() {
        let end = Timestamp::from_millis(i64::MAX);
        assert_eq!(end.after(Duration::MAX), end);
        assert_eq!(Timestamp::from_millis(i64::MIN).before(Duration::MAX).as_millis(), i64::MIN);
        assert_eq!(Timestamp::EPOCH.since(end), Duration::ZERO);
    }

    #[test]
    fn only_a_known_expiry_passes() {
        let now = Timestamp::from_millis(10);
        assert!(Expiry::At(now).passed(now));
        assert!(!Expiry::At(Timestamp::from_millis(11)).passed(now));
        assert!(Expiry::At(Timestamp::from_millis(11)).within(now, Duration::from_millis(1)));
        assert!(!Expiry::Unknown.passed(now) && !Expiry::Never.passed(now));
    }
}
