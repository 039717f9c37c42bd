//! The report of a day.

use std::{fmt, time::Duration};

use claviger_core::{Schedule, Timestamp, plan::Plan as Forecast, plan::busiest_minute_over_mean, sweep};

use super::{Day, Span, World, chart};

/// Maximum change of the number of live sessions in an hour of steady load.
const STEADY: f64 = 1.05;
/// SPREAD: maximum of the busiest minute over the mean in such an hour.
const BUSIEST: f64 = 1.2;
/// Allowance for chance, which matters with few sessions.
const CHANCE: f64 = 1.1;
const HOUR: Duration = Duration::from_secs(60 * 60);

/// The state at one minute.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Time since the simulation began.
    pub elapsed: Duration,
    /// Live sessions.
    pub live: u64,
    /// Parked sessions.
    pub parked: u64,
    /// How overdue the most overdue slot is.
    pub lag: Duration,
    /// Validations so far.
    pub validations: u64,
}

/// The recovery after an incident.
#[derive(Clone, Copy, Debug)]
pub struct CatchUp {
    /// When the provider answered again, since the simulation began.
    pub from: Duration,
    /// Living tokens at that time.
    pub living: u64,
    /// Those of them whose proof was older than a period.
    pub overdue: u64,
    /// Time until nothing was overdue. `None` if that never happened.
    pub took: Option<Duration>,
    /// Expected time. After 429s the rate limit also has to recover.
    pub forecast: Option<Duration>,
}

/// The report of a day.
#[derive(Clone, Debug)]
pub struct Report {
    /// The parameters.
    pub day: Day,
    /// The planning's forecast for as many people.
    pub forecast: Forecast,
    /// Maximum validations per second.
    pub budget: u32,
    /// One sample a minute.
    pub samples: Vec<Sample>,
    /// Validations sent in each minute.
    pub by_minute: Vec<u64>,
    /// Validations answered with 429.
    pub turned_away: u64,
    /// Validations by the age of the previous proof, in steps of five minutes. The last is an hour
    /// and more.
    pub by_age: [u64; 13],
    /// Validations per live session and hour.
    pub per_live_hour: f64,
    /// Busiest minute over the mean, in the steady hour that comes closest to the limit.
    pub busiest_over_mean: f64,
    /// Number of steady hours examined. One begins every ten minutes.
    pub steady_hours: usize,
    /// The limit: 1.2, or more where few sessions make chance matter.
    pub busiest_allowed: f64,
    /// Highest use of the budget in any window, where 1 is the limit.
    pub fullest: f64,
    /// Largest gap between two proofs of a living token, outside of incidents and the recovery from
    /// them.
    pub largest_gap: Duration,
    /// Largest such gap in incidents.
    pub largest_gap_in_incident: Duration,
    /// The recoveries after the outage and the storm.
    pub catch_ups: Vec<CatchUp>,
    /// What people did, with counts.
    pub counts: Vec<(&'static str, u64)>,
    /// The first violations.
    pub violations: Vec<String>,
    /// Number of violations.
    pub violated: usize,
}

impl World {
    pub(super) fn report(&self, samples: Vec<Sample>, forecast: Forecast, day: &Day) -> Report {
        let mut watch = self.provider.watch();
        watch.judge_all(self.clock.at());
        let start = self.clock.start();
        let catch_ups = watch.incidents.iter().filter_map(|incident| {
            let ended = incident.ended?;
            Some(CatchUp {
                from: ended.since(start),
                living: incident.living,
                overdue: incident.overdue,
                took: incident.until.map(|until| until.since(ended)),
                forecast: sweep::catch_up(
                    incident.overdue,
                    incident.living,
                    self.period,
                    f64::from(self.ground.budget),
                ),
            })
        });
        let catch_ups = catch_ups.collect();
        let in_incident = |from: Timestamp, to: Timestamp| {
            watch.incidents.iter().any(|one| one.from < to && one.until.is_none_or(|until| until > from))
        };
        let in_incident = |from, to| in_incident(start.after(from), start.after(to));
        let steady = steady_hours(&samples, &watch.by_minute, self.period, in_incident);
        let (busiest_over_mean, busiest_allowed) = most_uneven(&steady);
        let live_hours: f64 = samples.iter().map(|sample| sample.live as f64 / 60.0).sum();
        let validations: u64 = watch.by_minute.iter().sum();
        let mut report = Report {
            day: day.clone(),
            forecast,
            budget: self.ground.budget,
            by_minute: watch.by_minute.clone(),
            turned_away: watch.turned_away,
            by_age: watch.by_age,
            per_live_hour: validations as f64 / live_hours.max(1.0),
            busiest_over_mean,
            steady_hours: steady.len(),
            busiest_allowed,
            fullest: self.provider.fullest(),
            largest_gap: watch.largest_gap,
            largest_gap_in_incident: watch.largest_gap_in_incident,
            catch_ups,
            counts: self.counted(watch.sign_ins, watch.issued - watch.sign_ins),
            violations: watch.violations.clone(),
            violated: watch.violated,
            samples,
        };
        if report.busiest_over_mean > report.busiest_allowed {
            report.violated += 1;
            report
                .violations
                .push(format!("SPREAD: {:.2} in an hour of steady load", report.busiest_over_mean));
        }
        report
    }

    fn counted(&self, codes: u64, refreshes: u64) -> Vec<(&'static str, u64)> {
        let counts = &self.counts;
        vec![
            ("requests of people", counts.requests.get()),
            ("requests answered with 503", counts.put_off.get()),
            ("requests cut off by a crash", counts.cut_off.get()),
            ("sign-ins", counts.sign_ins.get()),
            ("codes exchanged", codes),
            ("tokens refreshed", refreshes),
            ("sign-outs", counts.sign_outs.get()),
            ("repairs at the provider", counts.repairs.get()),
            ("connection checks", self.provider.calls(claviger_mock::Endpoint::HelixAuthorizationUsers)),
            ("instances killed", counts.kills.get()),
        ]
    }
}

/// Returns the busiest minute over the mean of each steady hour, and its limit.
fn steady_hours(
    samples: &[Sample],
    by_minute: &[u64],
    period: Duration,
    in_incident: impl Fn(Duration, Duration) -> bool,
) -> Vec<(f64, f64)> {
    let hours = samples.windows(61).zip(by_minute.windows(60)).step_by(10);
    let steady = hours.filter_map(|(samples, minutes)| {
        let (from, to) = (samples.first()?.elapsed, samples.last()?.elapsed);
        let lives = || samples.iter().map(|sample| sample.live);
        let (least, most) = (lives().min()?, lives().max()?);
        if in_incident(from, to) || most as f64 > least as f64 * STEADY {
            return None;
        }
        let mean = minutes.iter().sum::<u64>() as f64 / 60.0;
        let allowed = BUSIEST.max(CHANCE * busiest_minute_over_mean(least, period));
        Some((minutes.iter().copied().max()? as f64 / mean.max(1.0), allowed))
    });
    steady.collect()
}

/// Returns the hour that comes closest to its limit.
fn most_uneven(hours: &[(f64, f64)]) -> (f64, f64) {
    let against = |(busiest, allowed): &(f64, f64)| busiest / allowed;
    let worst = hours.iter().copied().max_by(|one, other| against(one).total_cmp(&against(other)));
    worst.unwrap_or((1.0, BUSIEST))
}

impl Report {
    /// Draws the load over the day as an SVG.
    pub fn chart(&self) -> String {
        chart::draw(self)
    }

    /// Returns the provider's incidents with their names.
    pub(super) fn incidents(&self) -> impl Iterator<Item = (&'static str, Span)> {
        let outage = self.day.outage.map(|span| ("outage", span));
        outage.into_iter().chain(self.day.storm.map(|span| ("429s", span)))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: u64 = self.by_minute.iter().sum();
        let plan = &self.forecast;
        let peak = self.samples.iter().map(|sample| sample.live).max().unwrap_or(0);
        let line = |f: &mut fmt::Formatter<'_>, name: &str, value: String| writeln!(f, "{name:<44} {value}");
        line(f, "sessions", self.day.sessions.to_string())?;
        line(f, "live at the busiest time", format!("{peak}, forecast {}", plan.peak_live))?;
        line(f, "budget, validations a second", self.budget.to_string())?;
        line(f, "validations", format!("{all}, of which answered with 429: {}", self.turned_away))?;
        let least = HOUR.div_duration_f64(Schedule::default().period);
        line(
            f,
            "validations per live session and hour",
            format!("{:.3}, one a period is {least:.3}", self.per_live_hour),
        )?;
        let hours = self.steady_hours;
        let [younger @ .., _, _, hour] = self.by_age;
        let early: u64 = younger.iter().sum();
        let share = |count: u64| format!("{:.1} %", 100.0 * count as f64 / all.max(1) as f64);
        let ages = [share(early), share(all.saturating_sub(early + hour)), share(hour)];
        line(f, "proofs before: to 50 min, to 60 min, older", ages.join(", "))?;
        line(
            f,
            "busiest minute over mean, steady load",
            format!("{:.3} in {hours} hours, allowed {:.2}", self.busiest_over_mean, self.busiest_allowed),
        )?;
        line(f, "fullest window, of what the budget allows", format!("{:.3}", self.fullest))?;
        line(f, "largest gap between proofs", minutes(self.largest_gap))?;
        line(f, "largest gap in incidents and after them", minutes(self.largest_gap_in_incident))?;
        for one in &self.catch_ups {
            let CatchUp { from, living, overdue, took, forecast } = one;
            let name = format!("caught up after {:.2} h of the day", from.as_secs_f64() / 3600.0);
            let took = took.map_or("not yet".to_owned(), minutes);
            let forecast = forecast.map_or("never".to_owned(), minutes);
            line(f, &name, format!("{took}, forecast {forecast} for {overdue} overdue of {living}"))?;
        }
        let worst = plan.catch_up.map_or("never".to_owned(), minutes);
        line(
            f,
            "the same at the busiest time, forecast",
            format!("{worst} for {}", plan.overdue_after_outage),
        )?;
        for (name, count) in &self.counts {
            line(f, name, count.to_string())?;
        }
        line(f, "violations", self.violated.to_string())?;
        self.violations.iter().try_for_each(|violation| writeln!(f, "  {violation}"))
    }
}

fn minutes(span: Duration) -> String {
    format!("{:.1} min", span.as_secs_f64() / 60.0)
}
