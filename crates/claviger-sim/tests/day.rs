//! A few hours of a smaller day, and a smaller restart, as the simulator runs them with a million sessions.

#![allow(clippy::unwrap_used, reason = "a helper of a test may fail as a test does")]

use std::time::Duration;

use claviger_sim::day::{Day, Restart, Span};

const MINUTE: Duration = Duration::from_secs(60);

fn evening(sessions: usize) -> Day {
    Day {
        sessions,
        seed: 1,
        from_hour: 17,
        to_hour: 20,
        outage: Some(Span { from: 30 * MINUTE, lasts: 30 * MINUTE }),
        storm: Some(Span { from: 105 * MINUTE, lasts: 5 * MINUTE }),
        budget_per_second: None,
    }
}

#[test]
fn an_evening_keeps_what_is_promised() {
    let report = evening(20_000).run(|_| ()).unwrap();
    assert_eq!(report.violated, 0, "{report}");
    assert!(report.samples.len() > 170 && report.by_minute.iter().sum::<u64>() > 10_000, "{report}");
    assert!(report.turned_away > 0 && report.catch_ups.iter().all(|one| one.took.is_some()), "{report}");
    assert!(report.chart().ends_with("</svg>\n"));
}

/// The checks would notice: with a third of what is needed, proofs grow too old.
#[test]
fn an_evening_with_too_small_a_budget_violates_the_hour() {
    let day = Day { budget_per_second: Some(1), outage: None, storm: None, ..evening(20_000) };
    let report = day.run(|_| ()).unwrap();
    assert!(report.violations.iter().any(|violation| violation.starts_with("HOURLY")), "{report}");
}

#[test]
fn a_seed_has_one_evening() {
    let run = || evening(1_000).run(|_| ()).unwrap();
    let (first, again) = (run(), run());
    assert_eq!(first.to_string(), again.to_string());
    assert_eq!(first.by_minute, again.by_minute);
}

/// Whatever part of a period the wheel stands at when the instances come back.
#[test]
fn a_restart_catches_up_as_foretold() {
    for down_minutes in [55, 85, 120] {
        let down_for = down_minutes * MINUTE;
        let report = Restart { sessions: 10_000, seed: 1, down_for }.run(|_, _| ()).unwrap();
        assert_eq!(report.violations, [] as [String; 0], "down for {down_minutes} minutes: {report}");
        assert!(report.validations >= 10_000, "{report}");
    }
}
