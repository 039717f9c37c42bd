//! A budget of requests that several instances share, and that adapts to the provider.
//!
//! It is a small value in the store. An instance reserves permits in it and writes the new value by
//! compare-and-set; after a lost race it reads the value and tries again. The write precedes the
//! sending, so no restart or crash causes a burst.
//!
//! A 429 halves the rate, and the rate grows evenly with time (additive increase, multiplicative
//! decrease). The growth is computed when needed and never written, so rounding cannot lose it.

use std::time::Duration;

use crate::{
    Timestamp, limits,
    token_bucket::{Gcra, Spacing, interval_micros, micros},
};

/// The first byte of an encoded [`RateLimit`].
const FORMAT: u8 = 1;

/// Length of an encoded [`RateLimit`] in bytes.
pub const RATE_LIMIT_BYTES: usize = 29;

const NEVER: Timestamp = Timestamp::from_millis(i64::MIN);

/// The bounds of a [`RateLimit`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimitBounds {
    /// Maximum rate per second; at least one.
    pub ceiling_per_second: u32,
    /// Minimum rate per second, except in a pause that the provider asks for; from one to the
    /// ceiling.
    pub floor_per_second: u32,
    /// Maximum burst after a pause, by all instances together; at least one. A single instance
    /// sends evenly.
    pub burst: u32,
}

impl RateLimitBounds {
    /// Returns bounds with this ceiling, and a burst of a quarter of a second.
    pub const fn per_second(ceiling_per_second: u32) -> Self {
        Self {
            ceiling_per_second,
            floor_per_second: limits::RATE_LIMIT_FLOOR_PER_SECOND,
            burst: ceiling_per_second.div_ceil(4),
        }
    }

    fn ceiling_milli(&self) -> u64 {
        u64::from(self.ceiling_per_second.max(1)) * 1000
    }

    fn floor_milli(&self) -> u64 {
        (u64::from(self.floor_per_second.max(1)) * 1000).min(self.ceiling_milli())
    }

    /// Returns the spacing at this rate. What a pause saves up is computed at the ceiling, so it
    /// does not grow when the rate falls.
    fn spacing(&self, milli_per_second: u64) -> Spacing {
        let interval = interval_micros(milli_per_second);
        let burst = i64::from(self.burst.max(1)).saturating_mul(interval_micros(self.ceiling_milli()));
        Spacing { interval_micros: interval, saved_micros: burst.max(interval) }
    }
}

/// The state of a shared budget.
///
/// In any `t` seconds at most `burst + (t + late) * ceiling_per_second` requests are sent, where
/// `late` is [`limits::RATE_LIMIT_LATE`], if the clocks of the instances agree. At a lower rate it
/// is accordingly less.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    cells: Gcra,
    /// The rate at `slowed_at`, in thousandths of a request per second.
    rate_milli_per_second: u32,
    /// When the rate was last halved.
    slowed_at: Timestamp,
    /// No request is sent before this, because the provider asked for it.
    silent_until: Timestamp,
}

/// Permits reserved in a [`RateLimit`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reservation {
    /// When the first may be sent. Without any, when to ask again.
    pub from: Timestamp,
    /// Number of permits. 0 if none is free within [`limits::RATE_LIMIT_AHEAD`]; then there is
    /// nothing to write.
    pub count: u32,
    /// Time from one to the next.
    pub interval: Duration,
}

impl Reservation {
    /// Returns when each may be sent, or up to [`limits::RATE_LIMIT_LATE`] later. Permits that are
    /// older are lost: they would come on top of others.
    pub fn places(self, now: Timestamp) -> impl Iterator<Item = Timestamp> {
        let interval_micros = i64::try_from(self.interval.as_micros()).unwrap_or(i64::MAX);
        (0..self.count)
            .map(move |nth| {
                let after_micros = interval_micros.saturating_mul(i64::from(nth));
                millis_up(micros(self.from).saturating_add(after_micros))
            })
            .filter(move |at| at.after(limits::RATE_LIMIT_LATE) >= now)
    }
}

impl RateLimit {
    /// The initial state: nothing was sent, and the rate is at its ceiling.
    pub const NEW: Self =
        Self { cells: Gcra::WHOLE, rate_milli_per_second: u32::MAX, slowed_at: NEVER, silent_until: NEVER };

    /// Reserves up to `want` permits, evenly spaced and at most [`limits::RATE_LIMIT_AHEAD`] ahead.
    /// Use them after the new value is written.
    ///
    /// An instance whose clock is behind sees permits too far ahead while others are busy, and
    /// leaves the work to them.
    #[must_use]
    pub fn reserve(&self, now: Timestamp, bounds: &RateLimitBounds, want: u32) -> (Self, Reservation) {
        let rate_limit = self.by_this_clock(now, bounds);
        let spacing = bounds.spacing(rate_limit.rate_milli(now, bounds));
        let earliest = now.max(rate_limit.silent_until);
        let from = millis_up(rate_limit.cells.next_at(micros(earliest), spacing));
        let room_micros = micros(now.after(limits::RATE_LIMIT_AHEAD)).saturating_sub(micros(from));
        let fitting = if room_micros < 0 { 0 } else { room_micros / spacing.interval_micros + 1 };
        let count = want.min(u32::try_from(fitting).unwrap_or(u32::MAX));
        let interval = Duration::from_micros(spacing.interval_micros.unsigned_abs());
        let cells =
            if count == 0 { rate_limit.cells } else { rate_limit.cells.taken(micros(from), count, spacing) };
        (Self { cells, ..rate_limit }, Reservation { from, count, interval })
    }

    /// Records a 429. It halves the rate, once for all 429s within
    /// [`limits::RATE_LIMIT_SLOWS_EVERY`], and pauses for as long as the provider asked, up to
    /// [`limits::PROVIDER_PAUSE_ASKED_MAX`]. Permits reserved earlier are at most a second ahead.
    #[must_use]
    pub fn troubled(&self, now: Timestamp, bounds: &RateLimitBounds, retry_after: Option<Duration>) -> Self {
        let mut rate_limit = self.by_this_clock(now, bounds);
        if let Some(asked) = retry_after {
            let until = now.after(asked.min(limits::PROVIDER_PAUSE_ASKED_MAX));
            rate_limit.silent_until = rate_limit.silent_until.max(until);
        }
        if now.since(rate_limit.slowed_at) >= limits::RATE_LIMIT_SLOWS_EVERY {
            let half = (rate_limit.rate_milli(now, bounds) / 2).max(bounds.floor_milli());
            rate_limit.rate_milli_per_second = u32::try_from(half).unwrap_or(u32::MAX);
            rate_limit.slowed_at = now;
        }
        rate_limit
    }

    /// Returns the current rate, in requests per second.
    pub fn per_second(&self, now: Timestamp, bounds: &RateLimitBounds) -> f64 {
        // At most a thousand times u32::MAX, which an f64 holds exactly.
        self.rate_milli(now, bounds) as f64 / 1000.0
    }

    /// Returns the rest of a pause that the provider asked for, if there is one.
    pub fn silent_for(&self, now: Timestamp) -> Option<Duration> {
        self.silent_until.left(now, limits::PROVIDER_PAUSE_ASKED_MAX)
    }

    /// Encodes the value for the store.
    pub fn to_bytes(&self) -> [u8; RATE_LIMIT_BYTES] {
        let fields = [FORMAT]
            .into_iter()
            .chain(self.cells.whole_at_micros.to_be_bytes())
            .chain(self.rate_milli_per_second.to_be_bytes())
            .chain(self.slowed_at.as_millis().to_be_bytes())
            .chain(self.silent_until.as_millis().to_be_bytes());
        let mut bytes = [0; RATE_LIMIT_BYTES];
        for (place, byte) in bytes.iter_mut().zip(fields) {
            *place = byte;
        }
        bytes
    }

    /// Decodes a stored value. `None` if it has another format.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (&[FORMAT], rest) = bytes.split_first_chunk::<1>()? else { return None };
        let (whole_at, rest) = rest.split_first_chunk::<8>()?;
        let (rate, rest) = rest.split_first_chunk::<4>()?;
        let (slowed_at, rest) = rest.split_first_chunk::<8>()?;
        let silent_until = <[u8; 8]>::try_from(rest).ok()?;
        Some(Self {
            cells: Gcra { whole_at_micros: i64::from_be_bytes(*whole_at) },
            rate_milli_per_second: u32::from_be_bytes(*rate),
            slowed_at: Timestamp::from_millis(i64::from_be_bytes(*slowed_at)),
            silent_until: Timestamp::from_millis(i64::from_be_bytes(silent_until)),
        })
    }

    /// Drops times further ahead than any instance can have written. The clock was set back, which
    /// must delay no request.
    fn by_this_clock(&self, now: Timestamp, bounds: &RateLimitBounds) -> Self {
        let silent_until = if self.silent_for(now).is_some() { self.silent_until } else { NEVER };
        let from_micros = micros(now.max(silent_until));
        // The permits may have been reserved at the lowest rate.
        let saved_micros = bounds.spacing(bounds.floor_milli()).saved_micros;
        let ahead = limits::RATE_LIMIT_AHEAD + limits::CLOCK_SKEW;
        Self {
            cells: self.cells.unless_beyond(from_micros, saved_micros, ahead),
            slowed_at: self.slowed_at.min(now),
            silent_until,
            ..*self
        }
    }

    fn rate_milli(&self, now: Timestamp, bounds: &RateLimitBounds) -> u64 {
        let ceiling = bounds.ceiling_milli();
        let passed = now.since(self.slowed_at).min(limits::RATE_LIMIT_RECOVERY).as_millis();
        let grown = u128::from(ceiling) * passed / limits::RATE_LIMIT_RECOVERY.as_millis();
        let kept = u64::from(self.rate_milli_per_second).max(bounds.floor_milli());
        kept.saturating_add(u64::try_from(grown).unwrap_or(u64::MAX)).min(ceiling)
    }
}

/// Rounds microseconds up to a whole millisecond.
fn millis_up(micros: i64) -> Timestamp {
    let whole = micros.div_euclid(1000);
    Timestamp::from_millis(if micros.rem_euclid(1000) == 0 { whole } else { whole.saturating_add(1) })
}

#[cfg(test)]
mod tests;
