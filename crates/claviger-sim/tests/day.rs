//! Smaller versions of the simulated day and restart: a few hours, and fewer sessions.

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
fn an_evening_violates_nothing() {
    let report = evening(20_000).run(|_| ()).unwrap();
    assert_eq!(report.violated, 0, "{report}");
    assert!(report.samples.len() > 170 && report.by_minute.iter().sum::<u64>() > 10_000, "{report}");
    assert!(report.turned_away > 0 && report.catch_ups.iter().all(|one| one.took.is_some()), "{report}");
    assert!(report.chart().ends_with("</svg>\n"));
}

/// Shows that HOURLY is checked: a third of the needed budget lets proofs grow too old.
#[test]
fn a_budget_that_is_too_small_violates_hourly() {
    let day = Day { budget_per_second: Some(1), outage: None, storm: None, ..evening(20_000) };
    let report = day.run(|_| ()).unwrap();
    assert!(report.violations.iter().any(|violation| violation.starts_with("HOURLY")), "{report}");
}

#[test]
fn an_evening_is_deterministic() {
    let run = || evening(1_000).run(|_| ()).unwrap();
    let (first, again) = (run(), run());
    assert_eq!(first.to_string(), again.to_string());
    assert_eq!(first.by_minute, again.by_minute);
}

/// The instances come back at three different parts of a sweep period.
#[test]
fn a_restart_catches_up_as_forecast() {
    for down_minutes in [55, 85, 120] {
        let down_for = down_minutes * MINUTE;
        let report = Restart { sessions: 10_000, seed: 1, down_for }.run(|_, _| ()).unwrap();
        assert_eq!(report.violations, [] as [String; 0], "down for {down_minutes} minutes: {report}");
        assert!(report.validations >= 10_000, "{report}");
    }
}
