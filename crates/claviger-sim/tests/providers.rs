//! Histories with a provider that lacks a capability. HOURLY and CASCADE say what then holds, and
//! CAPABILITY that the endpoint it lacks is never called.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a helper of a test may fail as a test does"
)]

use claviger_sim::{Offers, Plan, Variant, run};

const HISTORIES: u64 = 20;

/// Runs the histories of a few seeds at a provider that offers this. Gives how often each thing
/// happened in all of them together.
fn histories(offers: Offers) -> impl Fn(&str) -> u64 {
    let mut counts = std::collections::BTreeMap::<&str, u64>::new();
    for seed in 1..=HISTORIES {
        let outcome = run(&Plan { offers, ..Plan::new(seed) }, Variant::Shipped, false).unwrap();
        assert_eq!(outcome.violations, [], "seed {seed} with {offers:?}");
        for (name, count) in outcome.counts {
            *counts.entry(name).or_default() += count;
        }
    }
    move |name| counts.get(name).copied().unwrap_or_default()
}

#[test]
fn a_provider_without_validation() {
    let happened = histories(Offers { validation: false, ..Offers::ALL });
    for name in ["row: rotated", "row: parked", "row: ended, disconnected", "outbox: acknowledged"] {
        assert!(happened(name) > 0, "{name}");
    }
}

#[test]
fn a_provider_without_revocation() {
    let happened = histories(Offers { revocation: false, ..Offers::ALL });
    for name in ["row: proven", "row: rotated", "row: ended", "outbox: acknowledged"] {
        assert!(happened(name) > 0, "{name}");
    }
    assert_eq!(happened("outbox: rescheduled"), 0, "what is not owed waits for nobody");
}

#[test]
fn a_provider_with_neither() {
    let happened = histories(Offers { validation: false, revocation: false });
    for name in ["row: rotated", "row: parked", "row: ended"] {
        assert!(happened(name) > 0, "{name}");
    }
}

#[test]
fn some_seeds_draw_a_provider_that_lacks_something() {
    let drawn: Vec<_> = (1..=100).map(|seed| Plan::new(seed).offers).collect();
    for validation in [true, false] {
        assert!(drawn.iter().any(|offers| offers.validation == validation));
    }
    assert!(drawn.iter().any(|offers| !offers.revocation));
    assert!(drawn.iter().filter(|offers| **offers == Offers::ALL).count() > 60);
}
