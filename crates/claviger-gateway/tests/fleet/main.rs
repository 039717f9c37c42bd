//! Three gateway processes on one real PostgreSQL, behind a round-robin front, under the load of
//! 2,000 sessions. The provider accepts each refresh token once and ends everything at its second
//! use. Gateways are killed and stopped, the database is killed, and connections are cut or fall
//! silent. Every commit, answer and sending is recorded and judged.
//!
//! With the same setup a standby takes over from the database, keys roll over, and the fleet goes
//! from the previous release to this one and back.
//!
//! `cargo xtask fleet --minutes 10` makes the long run; the tests make one of a minute.
//! `FLEET_TEST_SEED` draws the faults of another run.

#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a helper of a test may fail as a test does, and a long run tells how far it is"
)]

#[path = "../common/mod.rs"]
mod common;
mod failover;
mod front;
mod instances;
mod journal;
mod judge;
mod random;
mod releases;
mod rotation;
#[allow(dead_code, unreachable_pub, reason = "each test uses its part")]
#[path = "../../../claviger-store-postgres/tests/common/server.rs"]
mod server;
mod standstill;
mod start;
mod storm;

use std::{sync::Arc, time::Duration};

use claviger_mock::{Endpoint, Fault, FaultKind, Rotation};
use futures_util::future::join_all;
use tokio::sync::{Mutex, MutexGuard};

use crate::{
    common::{
        history::History,
        operations::{Answer, Operations},
        users::{Device, Load, chosen},
    },
    instances::{Fleet, ours},
    judge::HEARD_WITHIN,
    storm::{ProviderFailure, Storm, Tally},
};

const MINUTES: u64 = 1;
/// Minimum minutes of a run in which every fault must happen.
const LONG: u64 = 5;
const SEED: u64 = 1;
const INSTANCES: usize = 3;
const SESSIONS: usize = 2_000;
const WORKERS: usize = 32;
/// Longer than a claim's lease of 30 seconds, for which an interrupted refresh waits, and longer
/// than 2,000 refreshes take.
const RECOVERY: Duration = Duration::from_secs(180);
/// Time after which the front gives up an instance.
const FRONT_PATIENCE: Duration = Duration::from_secs(2);
/// The provider's time for a refresh, so that some are in progress whenever something happens.
const ANSWER: Duration = Duration::from_millis(100);
const STRICT: &str = "provider.rotation = \"one_time\"
    provider.replay_window = \"0s\"
    provider.reuse_kills_connection = true";

/// The fleet tests run one after the other, so that none suffers from another's load.
async fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::const_new(());
    TURN.lock().await
}

fn setting(name: &str, default: u64) -> u64 {
    let set = std::env::var(name).ok();
    set.map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// Half of the sessions are of users with one device, the others of users with four.
fn people() -> impl Iterator<Item = usize> {
    let half = SESSIONS / 2;
    (0..SESSIONS).map(move |n| if n < half { n } else { half + (n - half) / 4 })
}

/// A piece of load. Three of four are calls with a token that has just expired, one is an identity
/// request that needs none. Now and then a user signs out, and continues to send requests.
/// then somebody signs out, and goes on to ask.
async fn turn(fleet: &Fleet, devices: &[Arc<Device>], n: usize) {
    let (users, device) = (&fleet.users, chosen(devices, n));
    if n % 61 == 60 {
        leave(fleet, device).await;
    } else if n.is_multiple_of(4) {
        users.look(device).await;
    } else {
        users.call_expired(device).await;
    }
}

/// Signs a user out, and asks each instance as soon as it must know of that.
async fn leave(fleet: &Fleet, device: &Device) {
    if fleet.users.sign_out(device).await == Answer::Done {
        tokio::time::sleep(Duration::from_millis(HEARD_WITHIN.unsigned_abs())).await;
        join_all(fleet.instances.iter().map(|instance| fleet.users.look_at(instance.address, device))).await;
    }
}

fn load(fleet: &Arc<Fleet>, devices: &[Arc<Device>]) -> Load {
    let (fleet, devices) = (Arc::clone(fleet), Arc::<[_]>::from(devices));
    Load::start(WORKERS, move |n| {
        let (fleet, devices) = (Arc::clone(&fleet), Arc::clone(&devices));
        async move { turn(&fleet, &devices, n).await }
    })
}

/// Does something. Meanwhile it reads the provider's log before it overflows, and shows progress.
async fn watching<T>(fleet: &Fleet, work: impl Future<Output = T>) -> T {
    let looks = async {
        let mut ticks = tokio::time::interval(Duration::from_secs(1));
        for look in 1_u64.. {
            ticks.tick().await;
            fleet.users.sends();
            if look.is_multiple_of(30) {
                let asked = fleet.users.operations().count();
                eprintln!("{look} s: {asked} requests, {} refreshes", fleet.users.refreshes());
            }
        }
    };
    tokio::select! {
        done = work => done,
        () = looks => unreachable!("it goes on for ever"),
    }
}

fn tell(operations: &Operations, history: &History, fleet: &Fleet, tally: &Tally) {
    let count = |like: fn(&Answer) -> bool| operations.count_of(|operation| like(&operation.answer));
    eprintln!(
        "{} requests: {} served, {} unanswered, {} told to come back, {} to renew, {} that they are signed out",
        operations.count(),
        count(|answer| matches!(answer, Answer::Served(_))),
        count(|answer| matches!(answer, Answer::None)),
        count(|answer| matches!(answer, Answer::Later)),
        count(|answer| matches!(answer, Answer::RenewalNeeded)),
        count(|answer| matches!(answer, Answer::Over(_))),
    );
    eprintln!(
        "{} commits, {} refreshes; {} times a row was ambiguous, {} sessions renewed; {} sign-outs",
        history.commits,
        fleet.users.refreshes(),
        history.ambiguities(),
        fleet.users.repairs().values().sum::<usize>(),
        operations.leaving().filter(|(_, leaving)| leaving.done.is_some()).count(),
    );
    eprintln!("{tally:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crashes_and_stalls_of_a_fleet_lose_no_session() {
    let _alone = alone().await;
    let (minutes, seed) = (setting("FLEET_TEST_MINUTES", MINUTES), setting("FLEET_TEST_SEED", SEED));
    eprintln!("seed {seed}");
    let fleet = Fleet::of(&vec![ours(); INSTANCES], Rotation::OneTimeKillsConnection, STRICT).await;
    let fleet = Arc::new(fleet);
    fleet.start().await;
    let devices = watching(&fleet, fleet.users.sign_in(people())).await;
    fleet.stop().await;
    journal::begin(&fleet.server, &fleet.database).await;
    let before = fleet.rows(&devices).await;
    fleet.start().await;
    eprintln!("{} sessions", devices.len());

    fleet.front.give_up_after(FRONT_PATIENCE);
    let slow = Fault::always(Endpoint::Token, FaultKind::delay(ANSWER)).grant_type("refresh_token");
    fleet.users.mock.with(|mock| mock.add_fault(slow));
    let (load, storm) = (load(&fleet, &devices), Storm::begin(&fleet, seed));
    watching(&fleet, tokio::time::sleep(Duration::from_secs(minutes * 60))).await;
    let tally = watching(&fleet, storm.end()).await;
    load.stop().await;
    eprintln!("the faults are over");
    watching(&fleet, fleet.users.all_recover(&devices, RECOVERY)).await;
    let stays = devices.iter().find(|device| !device.leaves()).expect("not everybody left");
    for instance in &fleet.instances {
        instance.require_serving(&fleet.users, stays).await;
    }
    fleet.stop().await;

    let operations = std::mem::take(&mut *fleet.users.operations());
    let (violations, history) = judge::record(&fleet, &devices, before, &operations).await.judge();
    tell(&operations, &history, &fleet, &tally);
    assert!(
        violations.is_empty(),
        "{} violations: {:#?}\n{}",
        violations.len(),
        first(&violations),
        fleet.logs()
    );
    require_enough(&operations, &fleet, &tally);
    if minutes >= LONG {
        let never =
            ProviderFailure::ALL.iter().filter(|fault| tally.get(fault).is_none_or(|times| *times == 0));
        assert_eq!(never.collect::<Vec<_>>(), Vec::<&ProviderFailure>::new(), "these faults never happened");
    }
}

/// A run in which little happened proves little.
fn require_enough(operations: &Operations, fleet: &Fleet, tally: &Tally) {
    let served = operations.count_of(|operation| matches!(operation.answer, Answer::Served(_)));
    assert!(served * 3 > operations.count(), "{served} of {} requests were served", operations.count());
    assert!(fleet.users.refreshes() > 500, "{} refreshes", fleet.users.refreshes());
    let left = operations.leaving().filter(|(_, leaving)| leaving.done.is_some()).count();
    assert!(left > 10, "{left} sign-outs");
    let of_database = [ProviderFailure::DatabaseKilled, ProviderFailure::Terminated];
    let times = |fault| tally.get(fault).copied().unwrap_or_default();
    let database: usize = of_database.iter().map(times).sum();
    let instances: usize =
        ProviderFailure::ALL.iter().filter(|fault| !of_database.contains(fault)).map(times).sum();
    assert!(database > 0 && instances >= INSTANCES, "{tally:?}");
}

/// Enough to understand a failure.
fn first<T>(all: &[T]) -> &[T] {
    &all[..all.len().min(20)]
}
