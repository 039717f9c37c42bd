//! Computes how many validations and refreshes a number of users needs, and whether a budget
//! suffices.
//!
//! It assumes:
//!
//! - Every device is used once a day, in one stretch of the given hours. The stretches begin over
//!   the day by [`DAY_CURVE`].
//! - A stretch begins with a refresh, since the token from the day before has expired, and
//!   continues with one in each lifetime of a token. So a device is live from its first use until
//!   its last token expires: on average half a lifetime beyond its last use, and for at least one
//!   lifetime.
//! - Every live device is validated once a period ([`sweep`]). A refresh proves as well, so the
//!   real number is a little lower.
//! - Users who never come back have no live token and do not count.
//!
//! Devices that are used in several short stretches, hours apart, are live for longer. Users in
//! many time zones make the day flatter.

use std::{fmt, ops::RangeInclusive, time::Duration};

use crate::{SLOTS, sweep};

/// Devices per thousand whose use begins in each hour of the day, from midnight. This is not
/// measured: it has the shape of a site for leisure, with a quiet night and a peak from seven to
/// nine in the evening.
pub const DAY_CURVE: [u32; 24] =
    [25, 15, 10, 7, 5, 6, 12, 22, 30, 34, 36, 40, 46, 46, 46, 50, 58, 68, 80, 92, 94, 80, 60, 38];

/// The sum of [`DAY_CURVE`].
const DAY_CURVE_SUM: f64 = 1000.0;

const HOURS_PER_DAY: f64 = 24.0;

/// Steps per hour in the search for the peak: one every five minutes.
const STEPS_PER_HOUR: u32 = 12;

/// The expected use, and the settings to plan for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Demand {
    /// Users per day.
    pub users: u64,
    /// Devices with a session, per user on average.
    pub devices_per_user: f64,
    /// Use of each device per day, in hours.
    pub active_hours_per_day: f64,
    /// Lifetime of an access token.
    pub token_lifetime: Duration,
    /// Time in which every live session is validated once.
    pub period: Duration,
    /// Maximum validations per second.
    pub budget_per_second: f64,
    /// The outage to prepare for, in which nothing can be validated.
    pub outage: Duration,
}

/// The result for a [`Demand`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Plan {
    /// All devices, live or not.
    pub devices: u64,
    /// How long each device is live per day, in hours.
    pub live_hours_per_day: f64,
    /// Live tokens, on average over the day.
    pub mean_live: u64,
    /// Live tokens at the busiest time.
    pub peak_live: u64,
    /// Validations due per second, on average over the day.
    pub mean_validations_per_second: f64,
    /// Validations due per second at the busiest time.
    pub peak_validations_per_second: f64,
    /// Expected ratio of the busiest minute of a period to the average one, at the busiest time.
    pub busiest_minute_over_mean: f64,
    /// Refreshes per second, on average over the day.
    pub mean_refreshes_per_second: f64,
    /// Refreshes per second in the busiest hour.
    pub peak_refreshes_per_second: f64,
    /// Whether the budget suffices.
    pub fit: Fit,
    /// The sufficient budget in validations per second: for the busiest time, with head-room.
    /// Rounded up, since budgets are whole numbers from 1.
    pub sufficient_budget_per_second: u64,
    /// Overdue validations after the outage, if it ends at the busiest time.
    pub overdue_after_outage: u64,
    /// Time to catch up with them with the given budget, at the load of the busiest time
    /// ([`sweep::catch_up`]). `None` if the budget has nothing to spare.
    pub catch_up: Option<Duration>,
    /// The same with the sufficient budget.
    pub catch_up_with_sufficient_budget: Option<Duration>,
    /// The hours of the day, from midnight.
    pub hours: [HourLoad; 24],
}

/// One hour of the day, on average.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub struct HourLoad {
    /// Live tokens.
    pub live: f64,
    /// Validations due per second.
    pub validations_per_second: f64,
    /// Refreshes per second.
    pub refreshes_per_second: f64,
}

/// Whether a budget suffices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// It suffices for the busiest time, with head-room.
    Ample,
    /// It suffices for the busiest time with little to spare: after a short outage it may need a
    /// whole period to catch up.
    Tight,
    /// It does not suffice at the busiest time.
    Short,
}

/// A quantity of a [`Demand`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "they are the fields of Demand")]
pub enum Quantity {
    Users,
    DevicesPerUser,
    ActiveHoursPerDay,
    TokenLifetime,
    Period,
    BudgetPerSecond,
    Outage,
}

impl Quantity {
    /// Returns the smallest and largest value allowed. Times are in seconds.
    pub const fn bounds(self) -> RangeInclusive<f64> {
        const DAY_SECS: f64 = 86_400.0;
        match self {
            Self::Users => 1.0..=1e10,
            Self::DevicesPerUser => 0.01..=1000.0,
            Self::ActiveHoursPerDay => 0.01..=HOURS_PER_DAY,
            Self::TokenLifetime => 60.0..=366.0 * DAY_SECS,
            Self::Period => 60.0..=DAY_SECS,
            Self::BudgetPerSecond => 0.01..=1e6,
            Self::Outage => 0.0..=30.0 * DAY_SECS,
        }
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Users => "a number of users from 1 to 10,000,000,000",
            Self::DevicesPerUser => "a number of devices for each user from 0.01 to 1,000",
            Self::ActiveHoursPerDay => "a number of hours from 0.01 to 24",
            Self::TokenLifetime => "a lifetime of access tokens from 1 minute to 366 days",
            Self::Period => "a period from 1 minute to 1 day",
            Self::BudgetPerSecond => "a number of validations a second from 0.01 to 1,000,000",
            Self::Outage => "an outage of up to 30 days",
        })
    }
}

/// The error for a quantity out of its bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not {0}")]
pub struct OutOfBounds(pub Quantity);

impl Demand {
    /// Computes the plan.
    ///
    /// # Errors
    /// A quantity is out of its [bounds](Quantity::bounds), or not a number.
    pub fn plan(&self) -> Result<Plan, OutOfBounds> {
        self.check()?;
        let day = Day::of(self);
        let (mean_live, peak_live) = (whole(day.mean_live()), whole(day.peak_live()));
        let needed = sweep::needed_per_second(peak_live, self.period);
        let sufficient = sweep::sufficient_budget(peak_live, self.period);
        let rounded_up = whole(sufficient.ceil()).max(1);
        let hours = day.hours(self.period);
        let overdue = whole(day.peak_live() * self.outage.div_duration_f64(self.period).min(1.0));
        Ok(Plan {
            devices: whole(day.devices),
            live_hours_per_day: day.live_hours,
            mean_live,
            peak_live,
            mean_validations_per_second: sweep::needed_per_second(mean_live, self.period),
            peak_validations_per_second: needed,
            busiest_minute_over_mean: busiest_minute_over_mean(peak_live, self.period),
            mean_refreshes_per_second: day.mean_refreshes_per_second(),
            peak_refreshes_per_second: hours.iter().map(|hour| hour.refreshes_per_second).fold(0.0, f64::max),
            fit: fit(self.budget_per_second, needed, sufficient),
            sufficient_budget_per_second: rounded_up,
            overdue_after_outage: overdue,
            catch_up: sweep::catch_up(overdue, peak_live, self.period, self.budget_per_second),
            catch_up_with_sufficient_budget: sweep::catch_up(
                overdue,
                peak_live,
                self.period,
                rounded_up as f64,
            ),
            hours,
        })
    }

    fn check(&self) -> Result<(), OutOfBounds> {
        let given = [
            // Above 2^53 users the last digits are lost, but that is out of bounds.
            (Quantity::Users, self.users as f64),
            (Quantity::DevicesPerUser, self.devices_per_user),
            (Quantity::ActiveHoursPerDay, self.active_hours_per_day),
            (Quantity::TokenLifetime, self.token_lifetime.as_secs_f64()),
            (Quantity::Period, self.period.as_secs_f64()),
            (Quantity::BudgetPerSecond, self.budget_per_second),
            (Quantity::Outage, self.outage.as_secs_f64()),
        ];
        match given.into_iter().find(|(quantity, value)| !quantity.bounds().contains(value)) {
            Some((quantity, _)) => Err(OutOfBounds(quantity)),
            None => Ok(()),
        }
    }
}

fn fit(budget_per_second: f64, needed_per_second: f64, sufficient_per_second: f64) -> Fit {
    if budget_per_second >= sufficient_per_second {
        Fit::Ample
    } else if budget_per_second >= needed_per_second {
        Fit::Tight
    } else {
        Fit::Short
    }
}

/// Returns the expected ratio of the busiest minute of a period to the average one, for this many
/// sessions with random slots.
///
/// A minute's share is a Poisson variable, and the greatest of `n` lies below `sqrt(2 ln n)`
/// deviations above the mean. Minutes also have whole slots, some of them one more than others.
/// With only a few sessions a minute it is a rough guide.
pub fn busiest_minute_over_mean(live: u64, period: Duration) -> f64 {
    let minutes = (period.as_secs_f64() / 60.0).max(1.0);
    let slots = f64::from(SLOTS) / minutes;
    let in_a_minute = live.max(1) as f64 / minutes;
    slots.ceil() / slots * (1.0 + (2.0 * minutes.ln() / in_a_minute).sqrt())
}

/// The devices over the day. Times are in hours since midnight, and every day is the same.
struct Day {
    devices: f64,
    /// From the first use until the last token expires.
    live_hours: f64,
    lifetime_hours: f64,
}

impl Day {
    fn of(demand: &Demand) -> Self {
        let lifetime_hours = demand.token_lifetime.as_secs_f64() / 3600.0;
        let live_hours = (demand.active_hours_per_day + lifetime_hours / 2.0).max(lifetime_hours);
        Self {
            devices: demand.users as f64 * demand.devices_per_user,
            live_hours: live_hours.min(HOURS_PER_DAY),
            lifetime_hours,
        }
    }

    fn mean_live(&self) -> f64 {
        self.devices * self.live_hours / HOURS_PER_DAY
    }

    fn peak_live(&self) -> f64 {
        (0..24 * STEPS_PER_HOUR).map(|step| self.live_at(hours_of(step))).fold(0.0, f64::max)
    }

    /// Returns the devices whose use began within the last `live_hours`.
    fn live_at(&self, time: f64) -> f64 {
        self.devices * begun(time - self.live_hours, time)
    }

    /// Each refresh makes a device live for one lifetime.
    fn refreshes_per_device(&self) -> f64 {
        self.live_hours / self.lifetime_hours
    }

    fn mean_refreshes_per_second(&self) -> f64 {
        self.devices * self.refreshes_per_device() / (HOURS_PER_DAY * 3600.0)
    }

    /// Returns the refreshes between two times: the first when a device's use begins, the others
    /// one lifetime apart, the last for only a part of the devices.
    fn refreshes(&self, from: f64, to: f64) -> f64 {
        let mut left = self.refreshes_per_device();
        let mut later = 0.0;
        let mut sum = 0.0;
        while left > 0.0 {
            sum += left.min(1.0) * begun(from - later, to - later);
            left -= 1.0;
            later += self.lifetime_hours;
        }
        self.devices * sum
    }

    fn hours(&self, period: Duration) -> [HourLoad; 24] {
        let mut hours = [HourLoad::default(); 24];
        for (hour, load) in (0..).zip(&mut hours) {
            let steps = hour * STEPS_PER_HOUR..(hour + 1) * STEPS_PER_HOUR;
            // Within a step the curve is almost straight, so the middle represents it.
            let middle = 0.5 / f64::from(STEPS_PER_HOUR);
            let live: f64 = steps.map(|step| self.live_at(hours_of(step) + middle)).sum();
            let from = f64::from(hour);
            load.live = live / f64::from(STEPS_PER_HOUR);
            load.validations_per_second = load.live / period.as_secs_f64();
            load.refreshes_per_second = self.refreshes(from, from + 1.0) / 3600.0;
        }
        hours
    }
}

fn hours_of(step: u32) -> f64 {
    f64::from(step) / f64::from(STEPS_PER_HOUR)
}

/// Returns the share of devices whose use begins between two times.
fn begun(from: f64, to: f64) -> f64 {
    begun_before(to) - begun_before(from)
}

/// Returns the share whose use begins between midnight of the first day and a time; it grows by one
/// a day. Within an hour it is even.
fn begun_before(time: f64) -> f64 {
    let days = (time / HOURS_PER_DAY).floor();
    let hour_of_day = time - days * HOURS_PER_DAY;
    let permille: f64 = (0..)
        .zip(DAY_CURVE)
        .map(|(hour, weight)| f64::from(weight) * (hour_of_day - f64::from(hour)).clamp(0.0, 1.0))
        .sum();
    days + permille / DAY_CURVE_SUM
}

/// Rounds to the nearest whole number. None of ours is negative.
fn whole(number: f64) -> u64 {
    number.round() as u64
}

#[cfg(test)]
mod tests;
