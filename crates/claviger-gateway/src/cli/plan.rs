//! `claviger plan`

use std::{fmt::Write as _, time::Duration};

use anyhow::anyhow;
use claviger_core::{
    plan::{Demand, Fit, HourLoad, Plan, Quantity},
    policy::limits,
    sweep::Schedule,
};
use claviger_provider::{PRESETS, Preset};

use super::print;

/// Maximum width of a line of text.
const COLUMNS: usize = 80;
/// Width of the longest bar of the chart.
const BAR_COLUMNS: u32 = 40;

/// The expected load, and the plan for it.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP, allow_negative_numbers = true)]
pub(super) struct Args {
    /// Users per day
    #[arg(long, value_name = "NUMBER", value_parser = count, allow_hyphen_values = true)]
    users: u64,
    /// Average number of devices per user
    #[arg(long, value_name = "NUMBER", default_value_t = 2.0)]
    devices: f64,
    /// Average hours per day in which a device is used
    #[arg(long, value_name = "HOURS", default_value_t = 3.0)]
    active_hours: f64,
    /// Lifetime of an access token
    #[arg(long, value_name = "TIME", default_value = "4h", value_parser = span, allow_hyphen_values = true)]
    token_lifetime: Duration,
    /// Time in which every live token is validated once [default: 5m less than the check interval]
    #[arg(long, value_name = "TIME", value_parser = span, allow_hyphen_values = true)]
    period: Option<Duration>,
    /// Maximum number of validations per second
    #[arg(long, value_name = "NUMBER", default_value_t = f64::from(limits::VALIDATIONS_PER_SECOND))]
    budget: f64,
    /// Duration of an outage to prepare for, in which no token can be validated
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = span, allow_hyphen_values = true)]
    outage: Duration,
    /// The provider, as in the setting provider.preset
    #[arg(long, value_name = "NAME", default_value = PRESETS.first().map(|preset| preset.name), value_parser = preset)]
    preset: &'static Preset,
}

const HELP: &str = "\
A provider may demand that the access token of every signed-in user is validated once in its check interval. The gateway
spreads validations evenly over the period, and never exceeds its budget. This command estimates live tokens, validations
and refreshes over a day, and the time to catch up after an outage. It reads no file and sends no request.

Example:
  claviger plan --users 100000 --devices 2.3 --active-hours 3 --token-lifetime 4h --period 55m --budget 20 --outage 2h

Assumptions:
  Each device is used in one stretch per day. Most stretches begin in the evening, few at night; the chart shows them in
  your users' time. A device is live from the start of its stretch until its last token expires: on average half a token
  lifetime beyond its last use, and at least one lifetime in all. For devices that are used several times a day, hours
  apart, give more hours.

  The gateway sends validations evenly, and slower after each 429, with any budget.";

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    print(&answer(args)?)
}

fn preset(name: &str) -> Result<&'static Preset, &'static str> {
    Preset::named(name).ok_or("expected a name that the setting provider.preset takes")
}

fn count(text: &str) -> Result<u64, &'static str> {
    text.parse().map_err(|_| "expected a whole number, such as 100000")
}

fn span(text: &str) -> Result<Duration, &'static str> {
    humantime::parse_duration(text).map_err(|_| "expected a span of time, such as 55m or \"1h 30m\"")
}

fn answer(args: &Args) -> anyhow::Result<String> {
    let Preset { display_name: provider, check_interval, .. } = *args.preset;
    let Some(check_interval) = check_interval else {
        return Ok(format!("{provider} validates no tokens, so no budget is needed.\n"));
    };
    let mut schedule = Schedule::of(check_interval);
    schedule.period = args.period.unwrap_or(schedule.period);
    let demand = Demand {
        users: args.users,
        devices_per_user: args.devices,
        active_hours_per_day: args.active_hours,
        token_lifetime: args.token_lifetime,
        period: schedule.period,
        budget_per_second: args.budget,
        outage: args.outage,
    };
    let plan = demand
        .plan()
        .map_err(|out_of_bounds| anyhow!("{} is {out_of_bounds}", option(&demand, out_of_bounds.0)))?;
    let wanted = format!("the {} that {provider} demands", in_words(check_interval));
    let paragraphs = [
        load(&demand, &plan),
        verdict(&demand, &plan, &wanted),
        outage(&demand, &plan),
        warnings(&plan, schedule),
    ];
    let mut text = String::new();
    for sentences in paragraphs.iter().filter(|sentences| !sentences.is_empty()) {
        text.push_str(&filled(sentences));
        text.push('\n');
    }
    text.push_str(&chart(&demand, &plan));
    Ok(text)
}

/// An option as it was given.
fn option(demand: &Demand, quantity: Quantity) -> String {
    match quantity {
        Quantity::Users => format!("--users {}", demand.users),
        Quantity::DevicesPerUser => format!("--devices {}", demand.devices_per_user),
        Quantity::ActiveHoursPerDay => format!("--active-hours {}", demand.active_hours_per_day),
        Quantity::TokenLifetime => format!("--token-lifetime {}", in_words(demand.token_lifetime)),
        Quantity::Period => format!("--period {}", in_words(demand.period)),
        Quantity::BudgetPerSecond => format!("--budget {}", demand.budget_per_second),
        Quantity::Outage => format!("--outage {}", in_words(demand.outage)),
    }
}

fn load(demand: &Demand, plan: &Plan) -> Vec<String> {
    // With very few sessions this ratio says nothing.
    let by_chance = if plan.busiest_minute_over_mean < 2.0 {
        let percent = 100.0 * (plan.busiest_minute_over_mean - 1.0);
        format!(", and about {percent:.0} % more in the busiest minute by chance")
    } else {
        String::new()
    };
    vec![
        format!(
            "Users: {}. Devices: {}, or {} for each user. A device is used for {} hours a day and live for {}, until its access token of {} has expired.",
            grouped(demand.users),
            grouped(plan.devices),
            demand.devices_per_user,
            demand.active_hours_per_day,
            rate(plan.live_hours_per_day),
            in_words(demand.token_lifetime),
        ),
        format!(
            "Live tokens: {} on average, {} at the busiest time of day.",
            grouped(plan.mean_live),
            grouped(plan.peak_live)
        ),
        format!(
            "Validations, one of each live token in {}: {} a second on average, {} at the busiest time of day{by_chance}.",
            in_words(demand.period),
            rate(plan.mean_validations_per_second),
            rate(plan.peak_validations_per_second),
        ),
        format!(
            "Refreshes: {} a second on average, {} in the busiest hour.",
            rate(plan.mean_refreshes_per_second),
            rate(plan.peak_refreshes_per_second)
        ),
    ]
}

fn verdict(demand: &Demand, plan: &Plan, wanted: &str) -> Vec<String> {
    let (budget, suffices) = (given(demand.budget_per_second), grouped(plan.sufficient_budget_per_second));
    match plan.fit {
        Fit::Ample => vec![format!(
            "The budget of {budget} validations a second suffices, with headroom. {suffices} would be enough."
        )],
        Fit::Tight => vec![format!(
            "The budget of {budget} validations a second barely suffices: little is left for catching up after an outage. A budget of {suffices} has headroom."
        )],
        Fit::Short => {
            let busy = plan.hours.iter().filter(|hour| is_over(hour, demand)).count();
            let when = match busy {
                0 => "At the busiest time of day".to_owned(),
                1 => "In one hour of the day".to_owned(),
                _ => format!("In {busy} hours of the day"),
            };
            vec![
                format!("The budget of {budget} validations a second does NOT suffice."),
                format!(
                    "{when} more validations fall due than the budget allows, and proofs grow older than {wanted}."
                ),
                format!(
                    "A budget of {suffices} would suffice: it covers the busiest time of day, with a fifth more for catching up."
                ),
            ]
        }
    }
}

fn outage(demand: &Demand, plan: &Plan) -> Vec<String> {
    if plan.overdue_after_outage == 0 {
        return Vec::new();
    }
    let budget = given(demand.budget_per_second);
    let mut sentence = format!(
        "After an outage of {} that ends at the busiest time of day, {} validations are overdue. ",
        in_words(demand.outage),
        grouped(plan.overdue_after_outage)
    );
    sentence.push_str(&match plan.catch_up {
        Some(span) => format!("With the budget of {budget} it takes {}", spent(span)),
        None => format!("The budget of {budget} cannot catch up before the load drops"),
    });
    if let (Fit::Tight | Fit::Short, Some(span)) = (plan.fit, plan.catch_up_with_sufficient_budget) {
        let sufficient = grouped(plan.sufficient_budget_per_second);
        sentence.push_str(&format!("; with {sufficient} it takes {}", spent(span)));
    }
    sentence.push_str(" to catch up.");
    vec![sentence]
}

fn warnings(plan: &Plan, schedule: Schedule) -> Vec<String> {
    let mut sentences = Vec::new();
    if !schedule.holds() {
        sentences.push(format!(
            "A period of {} is too long: a proof counts for {}, and a validation may be {} late.",
            in_words(schedule.period),
            in_words(schedule.proof),
            in_words(schedule.slack)
        ));
    }
    if plan.peak_refreshes_per_second > f64::from(limits::REFRESHES_PER_SECOND) {
        sentences.push(format!(
            "The busiest hour has more refreshes than the {} per second that a gateway sends by default; raise provider.refreshes_per_second.",
            limits::REFRESHES_PER_SECOND
        ));
    }
    sentences
}

/// The validations of each hour as bars.
fn chart(demand: &Demand, plan: &Plan) -> String {
    let highest = plan.hours.iter().map(|hour| hour.validations_per_second).fold(f64::MIN_POSITIVE, f64::max);
    let mut text = "Validations a second over the day:\n".to_owned();
    for (hour, load) in plan.hours.iter().enumerate() {
        let bar = bar(load.validations_per_second / highest);
        let over = if is_over(load, demand) { "  over the budget" } else { "" };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{hour:02}:00 {bar} {}{over}", rate(load.validations_per_second));
    }
    text
}

fn is_over(hour: &HourLoad, demand: &Demand) -> bool {
    hour.validations_per_second > demand.budget_per_second
}

/// A bar with this share of the longest one, exact to an eighth of a column.
fn bar(share: f64) -> String {
    const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    // From 0 to eight times the columns.
    let eighths = (share.clamp(0.0, 1.0) * f64::from(BAR_COLUMNS * 8)).round() as usize;
    let rest = EIGHTHS.get(eighths % 8).copied().unwrap_or_default();
    format!("{}{rest}", "█".repeat(eighths / 8))
}

/// Wraps sentences. Each begins a new line.
fn filled(sentences: &[String]) -> String {
    let mut text = String::new();
    for sentence in sentences {
        let mut column = 0;
        for word in sentence.split(' ') {
            let width = word.chars().count();
            if column > 0 && column + 1 + width > COLUMNS {
                text.push('\n');
                column = 0;
            } else if column > 0 {
                text.push(' ');
                column += 1;
            }
            text.push_str(word);
            column += width;
        }
        text.push('\n');
    }
    text
}

pub(super) fn in_words(span: Duration) -> String {
    humantime::format_duration(span).to_string()
}

/// A duration, to the minute.
fn spent(span: Duration) -> String {
    match span.as_secs() {
        0..60 => "less than a minute".to_owned(),
        secs => in_words(Duration::from_secs(secs / 60 * 60)),
    }
}

/// A number with its significant digits.
pub(super) fn rate(number: f64) -> String {
    if number > 0.0 && number < 0.01 {
        return "less than 0.01".to_owned();
    }
    if number >= 100.0 {
        // Rounded on purpose, and never negative.
        return grouped(number.round() as u64);
    }
    let text = if number >= 1.0 { format!("{number:.1}") } else { format!("{number:.2}") };
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A number as it was given.
fn given(number: f64) -> String {
    // The limit of budgets is far below the greatest whole number.
    if number.fract() == 0.0 { grouped(number as u64) } else { number.to_string() }
}

/// Digits in groups of three.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests;
