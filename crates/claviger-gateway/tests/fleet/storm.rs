//! The faults of the instances and their database: drawn from a seed, counted when they happened,
//! and healed in the end.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::{
    instances::{Fleet, Instance},
    journal,
    random::Random,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ProviderFailure {
    /// An instance is killed (SIGKILL) and restarted.
    Killed,
    /// An instance is stopped for a while (SIGSTOP, SIGCONT).
    Paused,
    /// It is stopped for longer than a claim's lease.
    PausedForLong,
    /// An instance's connections to the database are cut.
    Cut,
    /// They carry nothing for a while, and are then cut.
    Silenced,
    /// All processes of the database are killed (SIGKILL), and it is restarted.
    DatabaseKilled,
    /// The database ends all connections.
    Terminated,
}

impl ProviderFailure {
    pub(crate) const ALL: [Self; 7] = [
        Self::Killed,
        Self::Paused,
        Self::PausedForLong,
        Self::Cut,
        Self::Silenced,
        Self::DatabaseKilled,
        Self::Terminated,
    ];
    /// The faults of an instance, the frequent ones repeated.
    const OF_INSTANCE: [Self; 10] = [
        Self::Killed,
        Self::Killed,
        Self::Killed,
        Self::Paused,
        Self::Paused,
        Self::Paused,
        Self::Cut,
        Self::Cut,
        Self::Silenced,
        Self::PausedForLong,
    ];
    const OF_DATABASE: [Self; 2] = [Self::DatabaseKilled, Self::Terminated];
}

/// How often each fault happened.
pub(crate) type Tally = BTreeMap<ProviderFailure, usize>;

/// Faults that last until they are ended: of each instance, and of the database.
pub(crate) struct Storm {
    stop: CancellationToken,
    victims: Vec<JoinHandle<Tally>>,
}

impl Storm {
    pub(crate) fn begin(fleet: &Arc<Fleet>, seed: u64) -> Self {
        let stop = CancellationToken::new();
        let mut seeds = Random::new(seed);
        let mut drawn = || Random::new(seeds.between(0, u64::MAX));
        let mut victims: Vec<_> = (0..fleet.instances.len())
            .map(|n| tokio::spawn(afflict(Arc::clone(fleet), Some(n), drawn(), stop.clone())))
            .collect();
        victims.push(tokio::spawn(afflict(Arc::clone(fleet), None, drawn(), stop.clone())));
        Self { stop, victims }
    }

    /// Starts no new faults, and heals everything.
    pub(crate) async fn end(self) -> Tally {
        self.stop.cancel();
        let mut tally = Tally::new();
        for victim in self.victims {
            for (fault, times) in victim.await.unwrap() {
                *tally.entry(fault).or_default() += times;
            }
        }
        tally
    }
}

/// Applies one fault after the other, to an instance or to the database.
async fn afflict(
    fleet: Arc<Fleet>,
    instance: Option<usize>,
    mut random: Random,
    stop: CancellationToken,
) -> Tally {
    let mut tally = Tally::new();
    let (faults, pause_secs): (&[ProviderFailure], _) = match instance {
        Some(_) => (&ProviderFailure::OF_INSTANCE, (2, 8)),
        None => (&ProviderFailure::OF_DATABASE, (5, 15)),
    };
    loop {
        let pause = Duration::from_millis(random.between(pause_secs.0 * 1000, pause_secs.1 * 1000));
        if tokio::time::timeout(pause, stop.clone().cancelled_owned()).await.is_ok() {
            return tally;
        }
        let fault = random.one_of(faults);
        let happened = match instance {
            Some(n) => befall(&fleet.instances[n], fault, &mut random, &stop).await,
            None => befall_database(&fleet, fault).await,
        };
        *tally.entry(fault).or_default() += usize::from(happened);
    }
}

/// Applies it. Returns whether it happened.
async fn befall(
    instance: &Instance,
    fault: ProviderFailure,
    random: &mut Random,
    stop: &CancellationToken,
) -> bool {
    let lasts = match fault {
        ProviderFailure::PausedForLong => random.between(31_000, 40_000),
        _ => random.between(200, 8_000),
    };
    let over = tokio::time::timeout(Duration::from_millis(lasts), stop.clone().cancelled_owned());
    match fault {
        ProviderFailure::Killed => {
            instance.require_running();
            instance.kill();
            instance.start().await;
            true
        }
        ProviderFailure::Paused | ProviderFailure::PausedForLong => {
            instance.tell("STOP");
            let lasted = over.await.is_err();
            instance.tell("CONT");
            lasted
        }
        ProviderFailure::Silenced => {
            instance.way.fall_silent(true);
            let _lasted = over.await;
            let cut = instance.way.cut();
            instance.way.fall_silent(false);
            cut > 0
        }
        ProviderFailure::Cut => instance.way.cut() > 0,
        ProviderFailure::DatabaseKilled | ProviderFailure::Terminated => {
            unreachable!("{fault:?} befalls no instance")
        }
    }
}

/// Applies it. Returns whether it happened.
async fn befall_database(fleet: &Fleet, fault: ProviderFailure) -> bool {
    if fault == ProviderFailure::Terminated {
        let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
            WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()";
        let client = fleet.server.client(&fleet.database).await;
        return !client.query(cut, &[]).await.unwrap().is_empty();
    }
    let settled = journal::settled(&fleet.server, &fleet.database).await;
    let server = Arc::clone(&fleet.server);
    let kill_and_resume = move || {
        server.kill();
        server.resume();
    };
    tokio::task::spawn_blocking(kill_and_resume).await.unwrap();
    journal::require(&fleet.server, &fleet.database, &settled).await;
    true
}
