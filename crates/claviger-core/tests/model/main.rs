//! The refresh protocol explored exhaustively over the rules themselves: two instances, two devices
//! of one user, up to three generations, a crash of each instance, lost requests and answers,
//! gateways' errors, a sign-out and a disconnect at any moment.
//!
//! The steps are those of `claviger-engine`'s `refresh.rs`, cut at every await; what is decided in
//! them is decided by the shipped functions of this crate. Safety is checked in every state; what
//! must be possible is looked for and must be found. Each [`Scope`] is one exploration: what the
//! provider is known to do, and what it does.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a helper of a test may fail as a test does"
)]

mod provider;
mod steps;
mod world;

use std::{
    collections::{BTreeSet, HashSet, VecDeque},
    hash::{DefaultHasher, Hash, Hasher as _},
    time::Duration,
};

use claviger_core::{ProviderHabits, Rotation, limits};

use crate::{
    provider::Kind,
    steps::successors,
    world::{
        ADOPTED, CASCADE_RACES, COMMITTED_LATE, GIVEN_UP, NOT_BELIEVED, OWED, RECOVERED, RECOVERED_BY_REPLAY,
        REPLAY_REJECTED, Seen, World,
    },
};

/// One exploration: what it knows of the provider, what is broken on purpose, and how far it goes.
#[derive(Clone, Copy, Debug)]
struct Scope {
    habits: ProviderHabits,
    provider: Kind,
    planted: Planted,
    /// Number of devices that begin refreshes, at most two.
    devices: usize,
    /// Number of refreshes that begin.
    starts: u8,
    /// Number of processes that die.
    crashes: usize,
    /// How many times the length of a lease passes.
    ticks: u8,
    /// Maximum number of new pairs for each device.
    new_pairs: u8,
}

impl Scope {
    /// Whether it matters when a refresh token was first sent.
    fn has_a_window(&self) -> bool {
        matches!(self.provider, Kind::OneTime { window_ticks: 1.., .. })
    }
}

/// What is broken on purpose, to see that the explorer notices.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Planted {
    Nothing,
    CommitsOverAnEnd,
    SendsWithoutClaiming,
    /// Whatever the provider's habits.
    ReplaysAlways,
    /// As often as it takes.
    ReplaysAgain,
    /// Without another look at the clock after the wait for the provider's word.
    ReplaysLate,
    /// A gateway's error is taken for the word that nothing was done.
    BelievesGateways,
    /// As after the first time.
    EndsAfterRejectedReplay,
}

/// A provider that takes a refresh token once, and kills the connection for a second use. Three
/// generations of two devices.
const STRICT: Scope = Scope {
    habits: ProviderHabits {
        rotation: Rotation::OneTime,
        replay_window: Duration::ZERO,
        reuse_kills_connection: true,
        old_access_token_survives: true,
    },
    provider: Kind::OneTime { window_ticks: 0, kills: true },
    planted: Planted::Nothing,
    devices: 2,
    starts: 3,
    crashes: 2,
    ticks: 1,
    new_pairs: 2,
};

/// The same, but it forgives one replay within the length of two leases.
const WINDOWED: Scope = Scope {
    habits: ProviderHabits { replay_window: limits::CLAIM_LEASE.saturating_mul(2), ..STRICT.habits },
    provider: Kind::OneTime { window_ticks: 2, kills: true },
    devices: 1,
    crashes: 1,
    ticks: 2,
    ..STRICT
};

/// The same, and a refresh kills the old access token, which tells that a lost answer held a pair.
const TELLING: Scope =
    Scope { habits: ProviderHabits { old_access_token_survives: false, ..WINDOWED.habits }, ..WINDOWED };

/// A forgiving provider: the old refresh token goes on.
const FORGIVING: Scope =
    Scope { habits: ProviderHabits::FORGIVING, provider: Kind::Rotates, devices: 1, ticks: 2, ..STRICT };

/// The same, where the provider is in truth stricter than is known.
const MISJUDGED: Scope = Scope { provider: Kind::OneTime { window_ticks: 0, kills: false }, ..FORGIVING };

/// The same refresh token is good again and again.
const REUSABLE: Scope = Scope {
    habits: ProviderHabits { rotation: Rotation::None, ..ProviderHabits::FORGIVING },
    provider: Kind::Reusable,
    ..FORGIVING
};

/// Visits every state, or stops at the first that violates something. Of the states that were
/// visited it keeps hashes of 64 bits, of which no two of some millions are likely to be the same.
fn explore(scope: &'static Scope) -> Seen {
    let mut seen = Seen::default();
    let mut visited = HashSet::new();
    let mut waiting = VecDeque::from([World::new(scope)]);
    while let Some(world) = waiting.pop_front() {
        for next in successors(&world, &mut seen) {
            next.check(&mut seen);
            let mut hasher = DefaultHasher::new();
            next.key().hash(&mut hasher);
            if visited.insert(hasher.finish()) {
                waiting.push_back(next);
            }
        }
        if !seen.violated.is_empty() {
            break;
        }
    }
    seen.states = visited.len();
    seen
}

fn assert_sound(name: &str, scope: &'static Scope, reached: &[&str]) {
    let seen = explore(scope);
    println!("{name}: {} states, {:?}", seen.states, seen.reached);
    assert_eq!(seen.violated, BTreeSet::new(), "{name}");
    for wanted in reached {
        assert!(seen.reached.contains(wanted), "{name}: never reached: {wanted}");
    }
}

#[test]
fn a_provider_that_forgives_nothing() {
    assert_sound("strict", &STRICT, &[RECOVERED, CASCADE_RACES, OWED, NOT_BELIEVED, ADOPTED]);
}

#[test]
fn a_provider_that_forgives_one_replay_within_a_window() {
    assert_sound("windowed", &WINDOWED, &[RECOVERED_BY_REPLAY, RECOVERED, OWED, ADOPTED, COMMITTED_LATE]);
    assert_sound("telling", &TELLING, &[RECOVERED, GIVEN_UP, RECOVERED_BY_REPLAY]);
}

#[test]
fn a_forgiving_provider_and_one_that_is_stricter_than_is_known() {
    assert_sound(
        "forgiving",
        &FORGIVING,
        &[RECOVERED_BY_REPLAY, OWED, ADOPTED, COMMITTED_LATE, REPLAY_REJECTED],
    );
    assert_sound("misjudged", &MISJUDGED, &[RECOVERED_BY_REPLAY, RECOVERED, REPLAY_REJECTED, COMMITTED_LATE]);
}

#[test]
fn a_provider_that_spends_no_token() {
    assert_sound("reusable", &REUSABLE, &[RECOVERED_BY_REPLAY, OWED, ADOPTED, COMMITTED_LATE]);
}

#[test]
fn planted_faults_are_found() {
    macro_rules! planted {
        ($scope:ident, $planted:ident) => {{
            static SCOPE: Scope = Scope { planted: Planted::$planted, ..$scope };
            explore(&SCOPE).violated
        }};
    }
    let table = [
        ("commits over an end", planted!(STRICT, CommitsOverAnEnd), &["ENDED"][..]),
        ("sends without claiming", planted!(STRICT, SendsWithoutClaiming), &["SPENT", "STRAND"]),
        ("replays always", planted!(STRICT, ReplaysAlways), &["SPENT"]),
        ("replays again", planted!(WINDOWED, ReplaysAgain), &["SPENT"]),
        ("replays again", planted!(FORGIVING, ReplaysAgain), &["SPENT"]),
        ("replays late", planted!(WINDOWED, ReplaysLate), &["SPENT"]),
        ("believes gateways", planted!(STRICT, BelievesGateways), &["SPENT", "STRAND"]),
        ("ends after a rejected replay", planted!(MISJUDGED, EndsAfterRejectedReplay), &["TRANSIENT"]),
    ];
    for (planted, violated, names) in table {
        assert!(violated.iter().any(|name| names.contains(name)), "{planted}: {violated:?}");
    }
}
