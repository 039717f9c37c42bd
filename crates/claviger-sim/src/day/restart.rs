//! A restart with all sessions overdue, as after an outage of our own.

use std::{fmt, sync::Arc, time::Duration};

use claviger_core::{Schedule, sweep};

use super::{Calendar, Clock, LONG_TOKEN_LIFE, ON_TIME, STEP, World, settle, watch::Incident};

/// Tolerance over the forecast, besides a minute for the start.
const TOLERANCE: f64 = 0.05;
const START: Duration = Duration::from_secs(60);
/// Twelve slots are visited at a time, and rows finish in the order of the answers.
const OUT_OF_ORDER: Duration = Duration::from_secs(2 * 60);

/// The parameters of a restart.
#[derive(Clone, Copy, Debug)]
pub struct Restart {
    /// Number of sessions. All are live and overdue.
    pub sessions: usize,
    /// All random numbers follow from it.
    pub seed: u64,
    /// How long the instances were down: a period or more.
    pub down_for: Duration,
}

/// The report of a restart.
#[derive(Clone, Debug, Default)]
pub struct RestartReport {
    /// Maximum validations per second.
    pub budget: u32,
    /// Forecast of `took`.
    pub forecast: Duration,
    /// Time until no proof was older than a period.
    pub took: Duration,
    /// Validations until then.
    pub validations: u64,
    /// Largest time by which a session was validated before one with an older proof.
    pub out_of_order: Duration,
    /// Highest use of the budget in any window, where 1 is the limit.
    pub fullest: f64,
    /// Violations.
    pub violations: Vec<String>,
}

impl fmt::Display for RestartReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let minutes = |span: Duration| format!("{:.1} min", span.as_secs_f64() / 60.0);
        let most = format!("{} % and {:?}", TOLERANCE * 100.0, START);
        let lines = [
            ("budget, validations a second", self.budget.to_string()),
            ("no proof older than a period after", minutes(self.took)),
            ("forecast", format!("{}, with a tolerance of {most}", minutes(self.forecast))),
            ("validations by then", self.validations.to_string()),
            ("fullest window, of what the budget allows", format!("{:.3}", self.fullest)),
            ("validated out of order, at most by", format!("{:?}", self.out_of_order)),
            ("violations", self.violations.len().to_string()),
        ];
        lines.iter().try_for_each(|(name, value)| writeln!(f, "{name:<44} {value}"))?;
        self.violations.iter().try_for_each(|violation| writeln!(f, "  {violation}"))
    }
}

impl Restart {
    /// Runs the simulation. Calls `tell` every half hour with the number of overdue sessions.
    ///
    /// # Errors
    /// If no runtime can be created, or the simulation cannot be set up.
    pub fn run(&self, tell: impl Fn(Duration, u64)) -> anyhow::Result<RestartReport> {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?;
        runtime.block_on(self.pass(tell))
    }

    async fn pass(&self, tell: impl Fn(Duration, u64)) -> anyhow::Result<RestartReport> {
        let (live, period) = (self.sessions as u64, Schedule::default().period);
        // A float becomes the nearest number that fits.
        let budget = (sweep::sufficient_budget(live, period).ceil() as u32).max(1);
        let forecast = sweep::catch_up(live, live, period, f64::from(budget)).unwrap_or_default();
        let clock = Arc::new(Clock::new(0));
        let swept_until = Some(clock.start().before(self.down_for));
        let calendar = Calendar::default();
        let world =
            World::new(self.sessions, self.seed, calendar, budget, LONG_TOKEN_LIFE, clock, swept_until);
        settle::all_overdue(&world, self.down_for).await?;
        world
            .provider
            .watch()
            .incidents
            .push(Incident::beginning(world.clock.start().before(self.down_for * 2)));
        world.start_all().await?;
        let most = forecast.mul_f64(1.0 + TOLERANCE) + START;
        let mut report = RestartReport { budget, forecast, ..RestartReport::default() };
        while report.took.is_zero() && world.clock.elapsed() < most * 2 {
            tokio::time::sleep(STEP).await;
            self.look(&world, &mut report, &tell);
        }
        if report.took.is_zero() || report.took > most {
            let took = report.took;
            world
                .provider
                .watch()
                .violate("HOURLY", format!("caught up after {took:?}, not within {most:?}"));
        }
        // From now on every proof is renewed within the hour again.
        tokio::time::sleep(period * 2).await;
        let mut watch = world.provider.watch();
        watch.judge_all(world.clock.at());
        report.out_of_order = watch.out_of_order;
        report.violations.clone_from(&watch.violations);
        drop(watch);
        report.fullest = world.provider.fullest();
        if report.out_of_order > OUT_OF_ORDER {
            let by = report.out_of_order;
            report.violations.push(format!("HOURLY: the most overdue were not asked about first, by {by:?}"));
        }
        Ok(report)
    }

    fn look(&self, world: &World, report: &mut RestartReport, tell: &impl Fn(Duration, u64)) {
        let (now, elapsed) = (world.clock.at(), world.clock.elapsed());
        let mut watch = world.provider.watch();
        let (_, overdue) = watch.living(now, world.period + ON_TIME);
        if overdue == 0 {
            report.took = elapsed;
            report.validations = watch.by_minute.iter().sum();
            watch.incidents.iter_mut().for_each(|incident| incident.until = Some(now));
        }
        drop(watch);
        if elapsed.as_secs().is_multiple_of(30 * 60) {
            tell(elapsed, overdue);
        }
    }
}
