//! A budget of requests that several instances share, and that learns what the provider bears.
//!
//! It is a small value in the store. Who wants to send takes places in it and writes the new value by compare-and-set; who
//! loses the race reads and tries again. It is written before anything is sent, so no restart and no crash brings a burst.
//!
//! The rate falls to half with a 429 and grows evenly with time (additive increase, multiplicative decrease). The growth is
//! worked out when it is asked for and never written, so rounding cannot eat it.

use std::time::Duration;

use crate::{
    pacer::{Gcra, Spacing, interval_micros, micros},
    policy::limits,
    time::Timestamp,
};

/// The first byte of a [`Pace`] as bytes.
const FORMAT: u8 = 1;

/// A [`Pace`] has so many bytes.
pub const PACE_BYTES: usize = 29;

const NEVER: Timestamp = Timestamp::from_millis(i64::MIN);

/// Between which bounds a [`Pace`] may move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PaceLimits {
    /// So many a second if all goes well; at least one.
    pub ceiling_per_second: u32,
    /// So many a second whatever the provider answers, unless it asks for a pause; from one to the ceiling.
    pub floor_per_second: u32,
    /// So many at once after a pause, by all instances together; at least one. One instance alone sends evenly.
    pub burst: u32,
}

impl PaceLimits {
    /// So many a second at most, and what a quarter of a second brings at once.
    pub const fn per_second(ceiling_per_second: u32) -> Self {
        Self {
            ceiling_per_second,
            floor_per_second: limits::PACE_FLOOR_PER_SECOND,
            burst: ceiling_per_second.div_ceil(4),
        }
    }

    fn ceiling_milli(&self) -> u64 {
        u64::from(self.ceiling_per_second.max(1)) * 1000
    }

    fn floor_milli(&self) -> u64 {
        (u64::from(self.floor_per_second.max(1)) * 1000).min(self.ceiling_milli())
    }

    /// The spacing at this rate. What a pause saves up is counted at the ceiling: it does not grow when the rate falls.
    fn spacing(&self, milli_per_second: u64) -> Spacing {
        let interval = interval_micros(milli_per_second);
        let burst = i64::from(self.burst.max(1)).saturating_mul(interval_micros(self.ceiling_milli()));
        Spacing { interval_micros: interval, saved_micros: burst.max(interval) }
    }
}

/// A shared budget as it stands.
///
/// Over any `t` seconds not more than `burst + (t + late) * ceiling_per_second` are let go, `late` being
/// [`limits::PACE_LATE`], as far as the clocks of the instances agree; at a lower rate accordingly less.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    cells: Gcra,
    /// The rate at `slowed_at`, in thousandths of a request a second.
    rate_milli_per_second: u32,
    /// When the rate was last halved.
    slowed_at: Timestamp,
    /// Nothing is sent before this, as the provider asked.
    silent_until: Timestamp,
}

/// Places in a [`Pace`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reservation {
    /// When the first may be sent. Where there is none: when to ask again.
    pub from: Timestamp,
    /// So many may be sent; 0 if there is no place within [`limits::PACE_AHEAD`], and then nothing needs to be written.
    pub count: u32,
    /// From one to the next.
    pub interval: Duration,
}

impl Reservation {
    /// When each may be sent, or up to [`limits::PACE_LATE`] after it. Those that are past this are lost: they would come on
    /// top of others.
    pub fn places(self, now: Timestamp) -> impl Iterator<Item = Timestamp> {
        let interval_micros = i64::try_from(self.interval.as_micros()).unwrap_or(i64::MAX);
        (0..self.count)
            .map(move |nth| {
                let after_micros = interval_micros.saturating_mul(i64::from(nth));
                millis_up(micros(self.from).saturating_add(after_micros))
            })
            .filter(move |at| at.after(limits::PACE_LATE) >= now)
    }
}

impl Default for Pace {
    fn default() -> Self {
        Self::NEW
    }
}

impl Pace {
    /// Nothing was sent and nothing was learnt: it goes at its ceiling.
    pub const NEW: Self =
        Self { cells: Gcra::WHOLE, rate_milli_per_second: u32::MAX, slowed_at: NEVER, silent_until: NEVER };

    /// Takes up to `want` places, an even interval apart and not further ahead than [`limits::PACE_AHEAD`]. They may be used
    /// once the new value is written.
    ///
    /// An instance whose clock is behind finds places too far ahead while others are busy, and leaves the work to them.
    #[must_use]
    pub fn reserve(&self, now: Timestamp, bounds: &PaceLimits, want: u32) -> (Self, Reservation) {
        let pace = self.by_this_clock(now, bounds);
        let spacing = bounds.spacing(pace.rate_milli(now, bounds));
        let earliest = now.max(pace.silent_until);
        let from = millis_up(pace.cells.next_at(micros(earliest), spacing));
        let room_micros = micros(now.after(limits::PACE_AHEAD)).saturating_sub(micros(from));
        let fitting = if room_micros < 0 { 0 } else { room_micros / spacing.interval_micros + 1 };
        let count = want.min(u32::try_from(fitting).unwrap_or(u32::MAX));
        let interval = Duration::from_micros(spacing.interval_micros.unsigned_abs());
        let cells = if count == 0 { pace.cells } else { pace.cells.taken(micros(from), count, spacing) };
        (Self { cells, ..pace }, Reservation { from, count, interval })
    }

    /// Notes a 429: half the rate, but once for all that come within [`limits::PACE_SLOWS_EVERY`], and silence for as long as
    /// the provider asked, up to [`limits::PROVIDER_PAUSE_ASKED_MAX`]. Places that are taken already are within a second.
    #[must_use]
    pub fn troubled(&self, now: Timestamp, bounds: &PaceLimits, retry_after: Option<Duration>) -> Self {
        let mut pace = self.by_this_clock(now, bounds);
        if let Some(asked) = retry_after {
            let until = now.after(asked.min(limits::PROVIDER_PAUSE_ASKED_MAX));
            pace.silent_until = pace.silent_until.max(until);
        }
        if now.since(pace.slowed_at) >= limits::PACE_SLOWS_EVERY {
            let half = (pace.rate_milli(now, bounds) / 2).max(bounds.floor_milli());
            pace.rate_milli_per_second = u32::try_from(half).unwrap_or(u32::MAX);
            pace.slowed_at = now;
        }
        pace
    }

    /// The rate now, in requests a second.
    pub fn per_second(&self, now: Timestamp, bounds: &PaceLimits) -> f64 {
        // At most u32::MAX thousandfold, which a f64 holds exactly.
        self.rate_milli(now, bounds) as f64 / 1000.0
    }

    /// How long the provider asked for silence yet, if so.
    pub fn silent_for(&self, now: Timestamp) -> Option<Duration> {
        let left = self.silent_until.since(now);
        (!left.is_zero() && left <= limits::PROVIDER_PAUSE_ASKED_MAX + limits::CLOCK_SKEW).then_some(left)
    }

    /// The value as the store keeps it.
    pub fn to_bytes(&self) -> [u8; PACE_BYTES] {
        let fields = [FORMAT]
            .into_iter()
            .chain(self.cells.whole_at_micros.to_be_bytes())
            .chain(self.rate_milli_per_second.to_be_bytes())
            .chain(self.slowed_at.as_millis().to_be_bytes())
            .chain(self.silent_until.as_millis().to_be_bytes());
        let mut bytes = [0; PACE_BYTES];
        for (place, byte) in bytes.iter_mut().zip(fields) {
            *place = byte;
        }
        bytes
    }

    /// The value that was kept; None if it is of another format.
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

    /// Drops what lies further ahead than anybody can have written: the clock was set back, which must hold nobody up.
    fn by_this_clock(&self, now: Timestamp, bounds: &PaceLimits) -> Self {
        let silent_until = if self.silent_for(now).is_some() { self.silent_until } else { NEVER };
        let from_micros = micros(now.max(silent_until));
        // The places may have been taken at the lowest rate.
        let saved_micros = bounds.spacing(bounds.floor_milli()).saved_micros;
        let ahead = limits::PACE_AHEAD + limits::CLOCK_SKEW;
        Self {
            cells: self.cells.unless_beyond(from_micros, saved_micros, ahead),
            slowed_at: self.slowed_at.min(now),
            silent_until,
            ..*self
        }
    }

    fn rate_milli(&self, now: Timestamp, bounds: &PaceLimits) -> u64 {
        let ceiling = bounds.ceiling_milli();
        let passed = now.since(self.slowed_at).min(limits::PACE_RECOVERY).as_millis();
        let grown = u128::from(ceiling) * passed / limits::PACE_RECOVERY.as_millis();
        let kept = u64::from(self.rate_milli_per_second).max(bounds.floor_milli());
        kept.saturating_add(u64::try_from(grown).unwrap_or(u64::MAX)).min(ceiling)
    }
}

/// The first whole millisecond that is not before these microseconds.
fn millis_up(micros: i64) -> Timestamp {
    let whole = micros.div_euclid(1000);
    Timestamp::from_millis(if micros.rem_euclid(1000) == 0 { whole } else { whole.saturating_add(1) })
}

#[cfg(test)]
mod tests;
