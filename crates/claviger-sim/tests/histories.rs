//! What the simulator finds and what it does not, and that it can be believed.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a helper of a test may fail as a test does"
)]

use std::{collections::BTreeMap, time::Duration};

use claviger_core::policy::{ProviderHabits, Rotation};
use claviger_mock::FaultKind;
use claviger_sim::{Act, Asks, Plan, Step, Tab, Variant, coverage, run};

const HISTORIES: u64 = 40;

#[test]
fn histories_violate_nothing_and_reach_what_matters() {
    let mut counts = BTreeMap::<&str, u64>::new();
    for seed in 1..=HISTORIES {
        let outcome = run(&Plan::new(seed), Variant::Shipped, false).unwrap();
        assert_eq!(outcome.violations, [], "replay: cargo run --release -p claviger-sim -- --seed {seed}");
        for (name, count) in outcome.counts {
            *counts.entry(name).or_default() += count;
        }
    }
    let missing = coverage::missing(&counts);
    assert!(missing.len() <= 8, "so few histories need not reach everything, but most of it: {missing:?}");
}

#[test]
fn a_seed_has_one_history() {
    for seed in [3, 30, 41] {
        let plan = Plan::new(seed);
        let first = run(&plan, Variant::Shipped, true).unwrap();
        let again = run(&plan, Variant::Shipped, true).unwrap();
        assert_eq!(first.trace, again.trace, "seed {seed}");
        assert_eq!(first.digest, run(&plan, Variant::Shipped, false).unwrap().digest, "seed {seed}");
    }
    assert_ne!(run(&Plan::new(3), Variant::Shipped, false).unwrap().digest, 0);
}

/// Each variant breaks what the engine relies on, and is found out by an invariant that it must violate.
#[test]
fn every_broken_variant_is_caught() {
    let table = [
        (Variant::SkipsReRead, &["LIVE", "TRANSIENT", "SPENT", "OTHERS", "ENDED"][..]),
        (Variant::ShortLease, &["SPENT"]),
        (Variant::RetriesLostAnswer, &["SPENT"]),
        (Variant::ClearsCookieForLoser, &["LOSER"]),
        (Variant::NoCompareAndSet, &["SPENT", "STRAND", "TRANSIENT"]),
        (Variant::DropsWithCaller, &["STRAND"]),
    ];
    for (variant, invariants) in table {
        let caught = (1..=300).find(|seed| {
            let violations = run(&Plan::new(*seed), variant, false).unwrap().violations;
            violations.iter().any(|violation| invariants.contains(&violation.invariant))
        });
        assert!(caught.is_some(), "{variant:?} is not caught");
    }
}

#[test]
fn what_never_happened_is_named() {
    assert!(coverage::missing(&BTreeMap::new()).contains(&"crash: claim unheard"));
    assert!(
        !coverage::missing(&BTreeMap::from([("crash: claim unheard", 1)])).contains(&"crash: claim unheard")
    );
}

fn step(after_secs: u64, act: Act) -> Step {
    Step { after: Duration::from_secs(after_secs), act }
}

fn asks(asks: Asks) -> Act {
    Act::Ask { device: 0, tabs: vec![Tab { instance: 0, asks, gives_up_after: None }] }
}

/// Found by seed 30: where no refresh spends a token, its replay was refused for ever after the user had disconnected the app,
/// and the row neither recovered nor ended.
#[test]
fn a_token_that_no_refresh_spends_may_die_after_its_answer_was_lost() {
    let plan = Plan {
        seed: 1,
        instances: 1,
        devices: vec![1],
        habits: ProviderHabits { rotation: Rotation::None, ..ProviderHabits::TWITCH },
        custody_server: false,
        skews_ms: vec![0],
        steps: vec![
            step(1, Act::SignIn { device: 0, instance: 0 }),
            step(960, Act::TokenFault { kind: FaultKind::CloseBefore }),
            step(1, asks(Asks::Session)),
            step(1, Act::Disconnect { user: 0 }),
        ],
    };
    let outcome = run(&plan, Variant::Shipped, true).unwrap();
    assert_eq!(outcome.violations, [], "{}", outcome.trace.join("\n"));
    assert_eq!(outcome.counts.get("row: ended, rejected"), Some(&1), "{}", outcome.trace.join("\n"));
}
