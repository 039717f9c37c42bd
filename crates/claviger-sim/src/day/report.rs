//! What a day came to.

use std::{fmt, time::Duration};

use claviger_core::{
    plan::{Plan as Foretold, busiest_minute_over_mean},
    policy::limits,
    sweep::catch_up,
    time::Timestamp,
};

use super::{Day, Span, World, chart};

/// In an hour of steady load the number of live sessions changes by no more than this.
const STEADY: f64 = 1.05;
/// SPREAD: the busiest minute of such an hour over its mean.
const BUSIEST: f64 = 1.2;
/// With few sessions chance alone brings more; so much of that is allowed for.
const CHANCE: f64 = 1.1;
const HOUR: Duration = Duration::from_secs(60 * 60);

/// How things stood at one minute.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Since the simulation began.
    pub elapsed: Duration,
    /// Live sessions.
    pub live: u64,
    /// Parked ones.
    pub parked: u64,
    /// How long the slot that is due longest has waited.
    pub lag: Duration,
    /// Validations until then.
    pub validations: u64,
}

/// How it was after trouble.
#[derive(Clone, Copy, Debug)]
pub struct CatchUp {
    /// When the provider answered again, since the simulation began.
    pub from: Duration,
    /// Living tokens then, and those of them whose proof was older than a period.
    pub living: u64,
    /// See there.
    pub overdue: u64,
    /// How long it took. None if it was not over at the end.
    pub took: Option<Duration>,
    /// How long it should take with so many overdue. After 429s the pace has to recover besides.
    pub foretold: Option<Duration>,
}

/// What a day came to.
#[derive(Clone, Debug)]
pub struct Report {
    /// What was simulated.
    pub day: Day,
    /// What the planning says of as many people.
    pub foretold: Foretold,
    /// Validations that may be sent in a second.
    pub budget: u32,
    /// One sample a minute.
    pub samples: Vec<Sample>,
    /// Validations sent in each minute.
    pub by_minute: Vec<u64>,
    /// Those that a 429 answered.
    pub turned_away: u64,
    /// Validations by the age of the proof before, in steps of five minutes; the last is an hour and more.
    pub by_age: [u64; 13],
    /// Validations for each live session and hour.
    pub per_live_hour: f64,
    /// The busiest minute over the mean, in the hour of steady load in which it comes closest to what is allowed.
    pub busiest_over_mean: f64,
    /// So many hours of steady load were looked at, one beginning each ten minutes.
    pub steady_hours: usize,
    /// What is allowed of it: a fifth, and with few sessions what chance alone brings.
    pub busiest_allowed: f64,
    /// The fullest that the budget ever was, of all that any window allows.
    pub fullest: f64,
    /// The largest gap between two proofs of a living token, but for trouble and what it takes to catch up.
    pub largest_gap: Duration,
    /// The largest one in trouble.
    pub largest_gap_in_trouble: Duration,
    /// How it was after the outage, and after the storm.
    pub catch_ups: Vec<CatchUp>,
    /// What people did and met with: a name and a number.
    pub counts: Vec<(&'static str, u64)>,
    /// What did not hold: the first of them, and how many there are.
    pub violations: Vec<String>,
    /// See there.
    pub violated: usize,
}

impl World {
    pub(super) fn report(&self, samples: Vec<Sample>, foretold: Foretold, day: &Day) -> Report {
        let mut watch = self.provider.watch();
        watch.judge_all(self.clock.at());
        let start = self.clock.start();
        let catch_ups = watch.troubles.iter().filter_map(|trouble| {
            let ended = trouble.ended?;
            Some(CatchUp {
                from: ended.since(start),
                living: trouble.living,
                overdue: trouble.overdue,
                took: trouble.until.map(|until| until.since(ended)),
                foretold: catch_up(
                    trouble.overdue,
                    trouble.living,
                    self.period,
                    f64::from(self.ground.budget),
                ),
            })
        });
        let catch_ups = catch_ups.collect();
        let in_trouble = |from: Timestamp, to: Timestamp| {
            watch.troubles.iter().any(|one| one.from < to && one.until.is_none_or(|until| until > from))
        };
        let in_trouble = |from, to| in_trouble(start.after(from), start.after(to));
        let steady = steady_hours(&samples, &watch.by_minute, self.period, in_trouble);
        let (busiest_over_mean, busiest_allowed) = most_uneven(&steady);
        let live_hours: f64 = samples.iter().map(|sample| sample.live as f64 / 60.0).sum();
        let validations: u64 = watch.by_minute.iter().sum();
        let mut report = Report {
            day: day.clone(),
            foretold,
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
            largest_gap_in_trouble: watch.largest_gap_in_trouble,
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
            ("requests told to come back", counts.put_off.get()),
            ("requests cut off by a death", counts.cut_off.get()),
            ("sign-ins", counts.sign_ins.get()),
            ("codes exchanged", codes),
            ("tokens refreshed", refreshes),
            ("sign-outs", counts.sign_outs.get()),
            ("repairs by the provider", counts.repairs.get()),
            (
                "questions about users away",
                self.provider.calls(claviger_mock::Endpoint::HelixAuthorizationUsers),
            ),
            ("instances killed", counts.kills.get()),
        ]
    }
}

/// The busiest minute over the mean of each hour of steady load, and what is allowed.
fn steady_hours(
    samples: &[Sample],
    by_minute: &[u64],
    period: Duration,
    in_trouble: impl Fn(Duration, Duration) -> bool,
) -> Vec<(f64, f64)> {
    let hours = samples.windows(61).zip(by_minute.windows(60)).step_by(10);
    let steady = hours.filter_map(|(samples, minutes)| {
        let (from, to) = (samples.first()?.elapsed, samples.last()?.elapsed);
        let lives = || samples.iter().map(|sample| sample.live);
        let (least, most) = (lives().min()?, lives().max()?);
        if in_trouble(from, to) || most as f64 > least as f64 * STEADY {
            return None;
        }
        let mean = minutes.iter().sum::<u64>() as f64 / 60.0;
        let allowed = BUSIEST.max(CHANCE * busiest_minute_over_mean(least, period));
        Some((minutes.iter().copied().max()? as f64 / mean.max(1.0), allowed))
    });
    steady.collect()
}

/// The hour that comes closest to what is allowed.
fn most_uneven(hours: &[(f64, f64)]) -> (f64, f64) {
    let against = |(busiest, allowed): &(f64, f64)| busiest / allowed;
    let worst = hours.iter().copied().max_by(|one, other| against(one).total_cmp(&against(other)));
    worst.unwrap_or((1.0, BUSIEST))
}

impl Report {
    /// The load over the day, as a picture.
    pub fn chart(&self) -> String {
        chart::draw(self)
    }

    /// The parts of the day in which the provider was in trouble, with their names.
    pub(super) fn troubles(&self) -> impl Iterator<Item = (&'static str, Span)> {
        let outage = self.day.outage.map(|span| ("outage", span));
        outage.into_iter().chain(self.day.storm.map(|span| ("429s", span)))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: u64 = self.by_minute.iter().sum();
        let plan = &self.foretold;
        let peak = self.samples.iter().map(|sample| sample.live).max().unwrap_or(0);
        let line = |f: &mut fmt::Formatter<'_>, name: &str, value: String| writeln!(f, "{name:<44} {value}");
        line(f, "sessions", self.day.sessions.to_string())?;
        line(f, "live at the busiest time", format!("{peak}, foretold {}", plan.peak_live))?;
        line(f, "budget, validations a second", self.budget.to_string())?;
        line(f, "validations", format!("{all}, of which turned away by a 429: {}", self.turned_away))?;
        let least = HOUR.div_duration_f64(limits::SWEEP_PERIOD);
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
        line(f, "of proofs younger than 50 min, to an hour, older", ages.join(", "))?;
        line(
            f,
            "busiest minute over mean, steady load",
            format!("{:.3} in {hours} hours, allowed {:.2}", self.busiest_over_mean, self.busiest_allowed),
        )?;
        line(f, "fullest window, of what the budget allows", format!("{:.3}", self.fullest))?;
        line(f, "largest gap between proofs", minutes(self.largest_gap))?;
        line(f, "largest gap in trouble and after it", minutes(self.largest_gap_in_trouble))?;
        for one in &self.catch_ups {
            let CatchUp { from, living, overdue, took, foretold } = one;
            let name = format!("caught up after {:.2} h of the day", from.as_secs_f64() / 3600.0);
            let took = took.map_or("not yet".to_owned(), minutes);
            let foretold = foretold.map_or("never".to_owned(), minutes);
            line(f, &name, format!("{took}, foretold {foretold} for {overdue} overdue of {living}"))?;
        }
        let worst = plan.catch_up.map_or("never".to_owned(), minutes);
        line(
            f,
            "the same at the busiest time, foretold",
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
