//! How many validations and refreshes so many users will need, and whether a budget suffices for them.
//!
//! It is arithmetic on these assumptions:
//!
//! - Every device is used once a day, in one stretch of the given hours. The stretches begin over the day as [`DAY_CURVE`] says.
//! - A stretch begins with a refresh, as the token from the day before has expired, and goes on with one in each lifetime
//!   of a token. So a device is live from its first use until its last token expires: on average half a lifetime beyond
//!   its last use, and for one lifetime at least.
//! - Every live device is validated once a period ([`sweep`]). A refresh proves as well, so it is a little less.
//! - Who never comes back has no live token, so only users that come count.
//!
//! Devices that are used in several short stretches, hours apart, are live for longer. Users in many time zones make the
//! day flatter.

use std::{fmt, ops::RangeInclusive, time::Duration};

use crate::sweep::{self, SLOTS};

/// Of a thousand devices so many begin to be used in each hour of the day, from midnight on. It is no measurement, but the
/// shape of a place that people visit in their free time: a quiet night, and a peak from seven to nine in the evening.
pub const DAY_CURVE: [u32; 24] =
    [25, 15, 10, 7, 5, 6, 12, 22, 30, 34, 36, 40, 46, 46, 46, 50, 58, 68, 80, 92, 94, 80, 60, 38];

/// The sum of [`DAY_CURVE`].
const DAY_CURVE_SUM: f64 = 1000.0;

const HOURS_PER_DAY: f64 = 24.0;

/// The peak is looked for in steps of five minutes.
const STEPS_PER_HOUR: u32 = 12;

/// What is expected of users, and what is planned for them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Demand {
    /// Users that come every day.
    pub users: u64,
    /// Devices with a session, for each user on average.
    pub devices_per_user: f64,
    /// How long each device is used on a day, in hours.
    pub active_hours_per_day: f64,
    /// How long an access token lives.
    pub token_lifetime: Duration,
    /// Every live session is validated once in this time.
    pub period: Duration,
    /// Validations that may be sent in a second.
    pub budget_per_second: f64,
    /// An outage to prepare for: nothing can be validated for so long.
    pub outage: Duration,
}

/// What follows from a [`Demand`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Plan {
    /// All devices, live or not.
    pub devices: u64,
    /// How long each device is live on a day, in hours.
    pub live_hours_per_day: f64,
    /// Live tokens, on average over the day.
    pub mean_live: u64,
    /// Live tokens at the busiest time of day.
    pub peak_live: u64,
    /// Validations that fall due in a second, on average over the day.
    pub mean_validations_per_second: f64,
    /// Validations that fall due in a second at the busiest time of day.
    pub peak_validations_per_second: f64,
    /// By how much the busiest minute of a period is expected to surpass the average one, at the busiest time of day.
    pub busiest_minute_over_mean: f64,
    /// Refreshes in a second, on average over the day.
    pub mean_refreshes_per_second: f64,
    /// Refreshes in a second in the busiest hour.
    pub peak_refreshes_per_second: f64,
    /// Whether the budget suffices.
    pub fit: Fit,
    /// The budget that would suffice, in validations a second: for the busiest time of day, with head-room. It is rounded up, as
    /// budgets are whole numbers from 1.
    pub sufficient_budget_per_second: u64,
    /// Validations that are overdue after the outage, if it ends at the busiest time of day.
    pub overdue_after_outage: u64,
    /// How long they take with the budget that is given, while the load is as at the busiest time of day ([`sweep::catch_up`]).
    /// None if it has nothing to spare for them.
    pub catch_up: Option<Duration>,
    /// The same with the budget that would suffice.
    pub catch_up_with_sufficient_budget: Option<Duration>,
    /// The hours of the day, from midnight on.
    pub hours: [HourLoad; 24],
}

/// One hour of the day, on average.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub struct HourLoad {
    /// Live tokens.
    pub live: f64,
    /// Validations that fall due in a second.
    pub validations_per_second: f64,
    /// Refreshes in a second.
    pub refreshes_per_second: f64,
}

/// Whether a budget suffices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// For the busiest time of day, with head-room.
    Ample,
    /// For the busiest time of day, but with little to spare: what a short outage leaves may take a whole period.
    Tight,
    /// Not at the busiest time of day.
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
    /// The least and the greatest value that is planned for; spans of time in seconds.
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

/// A quantity that nobody can plan with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not {0}")]
pub struct OutOfBounds(pub Quantity);

impl Demand {
    /// Works out what follows.
    ///
    /// # Errors
    /// If a quantity is out of its [bounds](Quantity::bounds), or no number.
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

/// By how much the busiest minute of a period is expected to surpass the average one, where so many sessions have their
/// slots by chance.
///
/// A minute's share is a Poisson variable, and the greatest of `n` lies below `sqrt(2 ln n)` deviations above the mean. And
/// minutes have whole slots, some of them one more than others. With a few sessions in a minute it is a rough guide.
pub fn busiest_minute_over_mean(live: u64, period: Duration) -> f64 {
    let minutes = (period.as_secs_f64() / 60.0).max(1.0);
    let slots = f64::from(SLOTS) / minutes;
    let in_a_minute = live.max(1) as f64 / minutes;
    slots.ceil() / slots * (1.0 + (2.0 * minutes.ln() / in_a_minute).sqrt())
}

/// The devices over the day. Times are hours from midnight, and every day is like the other.
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

    /// Those that began to be used not longer ago than a device is live.
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

    /// The refreshes between two times: the first of a device when its use begins, the others a lifetime apart, the last
    /// only for a part of the devices.
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
            // Between two steps the curve is almost straight, so the middle stands for the step.
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

/// The share of devices that begin to be used between two times.
fn begun(from: f64, to: f64) -> f64 {
    begun_before(to) - begun_before(from)
}

/// The share that begins between midnight of the first day and a time; one more with each day. Within an hour they begin evenly.
fn begun_before(time: f64) -> f64 {
    let days = (time / HOURS_PER_DAY).floor();
    let hour_of_day = time - days * HOURS_PER_DAY;
    let permille: f64 = (0..)
        .zip(DAY_CURVE)
        .map(|(hour, weight)| f64::from(weight) * (hour_of_day - f64::from(hour)).clamp(0.0, 1.0))
        .sum();
    days + permille / DAY_CURVE_SUM
}

/// To the nearest whole number; none of ours is negative.
fn whole(number: f64) -> u64 {
    number.round() as u64
}

#[cfg(test)]
mod tests;
