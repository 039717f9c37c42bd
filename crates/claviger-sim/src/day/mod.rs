//! A day with very many sessions: three instances of the shipped engine on one store. People come
//! and go as on a real day, an instance dies each hour, and the provider has an outage and a storm
//! of 429s.
//!
//! HOURLY and SPREAD are judged by what reaches the provider, TRANSIENT by the answers to people
//! and by the final rows.

mod chart;
mod instance;
mod people;
mod provider;
mod report;
mod restart;
mod settle;
mod watch;

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::Context as _;
use claviger_core::{Schedule, Timestamp, plan::Demand, plan::Plan as Forecast};
use claviger_mock::{Config, LiveTokenLimit, MockTwitch, Rotation};
use claviger_seal::Keyring;
use claviger_store::{MemoryStore, Queue, Store as _, SweepKind};

use crate::{rng::Rng, world};

use instance::{Ground, Instance};
use people::People;
use provider::{Out, Provider};
use watch::Incident;

pub use report::{Report, Sample};
pub use restart::{Restart, RestartReport};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);
const INSTANCES: usize = 3;
/// Nothing counts as overdue within this time: slots are being visited, and older proofs are being
/// renewed.
const ON_TIME: Duration = Duration::from_secs(30);
/// Lifetime of an access token, as at Twitch.
const TOKEN_LIFE: Duration = Duration::from_secs(4 * 60 * 60);
/// Lifetime of an access token in a restart, where none must expire.
const LONG_TOKEN_LIFE: Duration = Duration::from_secs(60 * 60 * 60);

/// A part of the day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Start, since the beginning of the simulation.
    pub from: Duration,
    /// Length.
    pub lasts: Duration,
}

impl Span {
    fn holds(&self, at: Duration) -> bool {
        (self.from..self.from + self.lasts).contains(&at)
    }
}

/// The parameters of a simulated day.
#[derive(Clone, Debug)]
pub struct Day {
    /// Number of sessions, each of a person with one device.
    pub sessions: usize,
    /// All random numbers follow from it.
    pub seed: u64,
    /// Hour at which the simulation begins.
    pub from_hour: u32,
    /// Hour at which it ends, at most 24.
    pub to_hour: u32,
    /// When the provider cannot be reached, and in the second half answers only 503.
    pub outage: Option<Span>,
    /// When the provider answers most validations with 429.
    pub storm: Option<Span>,
    /// Maximum validations per second. `None` takes what the planning calls sufficient.
    pub budget_per_second: Option<u32>,
}

impl Day {
    /// Returns a whole day with an outage of two hours and ten minutes of 429s.
    pub fn whole(sessions: usize, seed: u64) -> Self {
        Self {
            sessions,
            seed,
            from_hour: 0,
            to_hour: 24,
            outage: Some(Span { from: 9 * HOUR, lasts: 2 * HOUR }),
            storm: Some(Span { from: 16 * HOUR, lasts: 10 * MINUTE }),
            budget_per_second: None,
        }
    }

    /// Runs the simulation and calls `tell` each hour.
    ///
    /// # Errors
    /// If no runtime can be created, or the simulation cannot be set up.
    pub fn run(&self, tell: impl Fn(&Sample) + Send + Sync + 'static) -> anyhow::Result<Report> {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?;
        runtime.block_on(self.pass(tell))
    }

    /// Returns the planning's forecast for as many people.
    fn forecast(&self) -> anyhow::Result<Forecast> {
        let demand = Demand {
            users: self.sessions as u64,
            devices_per_user: 1.0,
            active_hours_per_day: 3.0,
            token_lifetime: TOKEN_LIFE,
            period: Schedule::default().period,
            budget_per_second: 1.0,
            outage: self.outage.map_or(Duration::ZERO, |outage| outage.lasts),
        };
        let sufficient = demand.plan()?.sufficient_budget_per_second as f64;
        let budget_per_second = self.budget_per_second.map_or(sufficient, f64::from);
        Ok(Demand { budget_per_second, ..demand }.plan()?)
    }

    async fn pass(&self, tell: impl Fn(&Sample) + Send + Sync + 'static) -> anyhow::Result<Report> {
        let forecast = self.forecast()?;
        let calendar = Calendar { outage: self.outage, storm: self.storm };
        let sufficient = u32::try_from(forecast.sufficient_budget_per_second)?;
        let budget = self.budget_per_second.unwrap_or(sufficient);
        let clock = Arc::new(Clock::new(self.from_hour));
        let world = World::new(self.sessions, self.seed, calendar, budget, TOKEN_LIFE, clock, None);
        settle::people_of_a_day(&world).await?;
        world.start_all().await?;
        tokio::spawn(people::live(Arc::clone(&world)));
        tokio::spawn(kill_each_hour(Arc::clone(&world)));
        let ends = HOUR * self.to_hour.min(24).saturating_sub(self.from_hour);
        let mut samples = Vec::new();
        while world.clock.elapsed() < ends {
            look_around(&world, &mut samples).await?;
            let now = world.clock.elapsed();
            let of_the_hour = |sample: &&Sample| sample.elapsed == now && now.as_secs().is_multiple_of(3600);
            samples.last().filter(of_the_hour).into_iter().for_each(&tell);
            tokio::time::sleep(STEP).await;
        }
        people::check_rows(&world).await;
        check_probes(&world).await?;
        Ok(world.report(samples, forecast, self))
    }
}

/// Time between two looks at the state.
const STEP: Duration = Duration::from_secs(10);

/// Takes a sample each minute, and notes when an incident begins or ends.
async fn look_around(world: &World, samples: &mut Vec<Sample>) -> anyhow::Result<()> {
    let (now, elapsed) = (world.clock.at(), world.clock.elapsed());
    let due = world.store.backlog(Queue::Slots(SweepKind::Validation)).await?.oldest;
    let lag = due.map_or(Duration::ZERO, |due| now.since(due));
    let in_incident = world.calendar.out(elapsed).is_some() || world.calendar.storms(elapsed);
    note_incident(world, in_incident, lag);
    if elapsed.as_secs().is_multiple_of(60) {
        let census = world.store.session_counts(now).await?;
        let validations = world.provider.watch().by_minute.iter().sum();
        samples.push(Sample { elapsed, live: census.live, parked: census.parked, lag, validations });
    }
    Ok(())
}

/// Checks that the connection check keeps up: users away are checked once a day, or an outage
/// later.
async fn check_probes(world: &World) -> anyhow::Result<()> {
    let due = world.store.backlog(Queue::Slots(SweepKind::Connections)).await?.oldest;
    let lag = due.map_or(Duration::ZERO, |due| world.clock.at().since(due));
    if lag > HOUR {
        world.provider.watch().violate("LIVE", format!("users away were checked {lag:?} late"));
    }
    Ok(())
}

/// Notes that an incident begins, ends, or has been caught up with.
fn note_incident(world: &World, in_incident: bool, lag: Duration) {
    let now = world.clock.at();
    let mut watch = world.provider.watch();
    let open = watch.incidents.last().copied().filter(|incident| incident.until.is_none());
    let next = match open {
        None if in_incident => return watch.incidents.push(Incident::beginning(now)),
        None => return,
        Some(_) if in_incident => return,
        Some(incident) if incident.ended.is_none() => {
            let (living, overdue) = watch.living(now, world.period);
            Incident { ended: Some(now), living, overdue, ..incident }
        }
        Some(incident) if lag <= ON_TIME => Incident { until: Some(now), ..incident },
        Some(_) => return,
    };
    if let Some(last) = watch.incidents.last_mut() {
        *last = next;
    }
}

/// Kills an instance each hour and restarts it after a minute.
async fn kill_each_hour(world: Arc<World>) {
    for n in 0.. {
        tokio::time::sleep(HOUR - MINUTE).await;
        let place = n % INSTANCES;
        if let Some(instance) = world.instances().get(place) {
            instance.kill();
        }
        world.counts.kills.add();
        tokio::time::sleep(MINUTE).await;
        if let Ok(instance) = Instance::start(&world.ground).await
            && let Some(old) = world.instances().get_mut(place)
        {
            *old = instance;
        }
    }
}

/// The provider's incidents.
#[derive(Clone, Copy, Debug, Default)]
struct Calendar {
    outage: Option<Span>,
    storm: Option<Span>,
}

impl Calendar {
    fn out(&self, elapsed: Duration) -> Option<Out> {
        let outage = self.outage.filter(|outage| outage.holds(elapsed))?;
        let first_half = elapsed < outage.from + outage.lasts / 2;
        Some(if first_half { Out::Unreachable } else { Out::Unavailable })
    }

    fn storms(&self, elapsed: Duration) -> bool {
        self.storm.is_some_and(|storm| storm.holds(elapsed))
    }
}

/// The clock of all instances.
struct Clock {
    begun: tokio::time::Instant,
    from_hour: u32,
}

/// Midnight at the start of the simulated day.
const MIDNIGHT: Timestamp = Timestamp::from_millis(1_799_971_200_000);

impl Clock {
    #[expect(clippy::disallowed_methods, reason = "tokio's paused time is the clock of the simulation")]
    fn new(from_hour: u32) -> Self {
        Self { begun: tokio::time::Instant::now(), from_hour }
    }

    fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }

    fn at(&self) -> Timestamp {
        self.start().after(self.elapsed())
    }

    fn start(&self) -> Timestamp {
        MIDNIGHT.after(HOUR * self.from_hour)
    }

    fn midnight(&self) -> Timestamp {
        MIDNIGHT
    }
}

impl claviger_engine::Clock for Clock {
    fn now(&self) -> Timestamp {
        self.at()
    }
}

/// A counter.
#[derive(Default)]
struct Count(AtomicU64);

impl Count {
    fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Default)]
struct Counts {
    requests: Count,
    put_off: Count,
    cut_off: Count,
    sign_ins: Count,
    sign_outs: Count,
    repairs: Count,
    kills: Count,
}

/// Everything that takes part.
struct World {
    sessions: usize,
    period: Duration,
    token_life: Duration,
    /// Until when the sweep was on time before the simulation began.
    swept_until: Timestamp,
    calendar: Calendar,
    clock: Arc<Clock>,
    rng: Arc<Rng>,
    keyring: Keyring,
    store: Arc<MemoryStore>,
    provider: Arc<Provider>,
    ground: Ground,
    people: People,
    counts: Counts,
    instances: Mutex<Vec<Instance>>,
}

impl World {
    fn new(
        sessions: usize,
        seed: u64,
        calendar: Calendar,
        budget: u32,
        token_life: Duration,
        clock: Arc<Clock>,
        swept_until: Option<Timestamp>,
    ) -> Arc<Self> {
        let rng = Arc::new(Rng::new(seed ^ 0x0da7_0da7_0da7_0da7));
        let config = Config::strict().settings(|settings| {
            settings.token_lifetime_secs = u32::try_from(token_life.as_secs()).unwrap_or(u32::MAX);
            settings.rotation = Rotation::Rotates;
            settings.live_token_limit = LiveTokenLimit::KillsOldest(50);
        });
        let mock = MockTwitch::new(config, seed);
        let provider =
            Arc::new(Provider::new(mock, calendar, budget, sessions, Arc::clone(&clock), Arc::clone(&rng)));
        let (store, period) = (Arc::new(MemoryStore::new()), Schedule::default().period);
        let ground = Ground {
            store: Arc::clone(&store),
            provider: Arc::clone(&provider),
            clock: Arc::clone(&clock),
            rng: Arc::clone(&rng),
            budget,
            period,
        };
        Arc::new(Self {
            sessions,
            period,
            token_life,
            swept_until: swept_until.unwrap_or_else(|| clock.start()),
            calendar,
            clock,
            rng,
            keyring: world::keyring(),
            store,
            provider,
            ground,
            people: People::default(),
            counts: Counts::default(),
            instances: Mutex::default(),
        })
    }

    async fn start_all(&self) -> anyhow::Result<()> {
        for _ in 0..INSTANCES {
            let instance = Instance::start(&self.ground).await.context("an instance cannot start")?;
            self.instances().push(instance);
        }
        Ok(())
    }

    fn instances(&self) -> std::sync::MutexGuard<'_, Vec<Instance>> {
        self.instances.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn any_instance(&self) -> Option<Instance> {
        let instances = self.instances();
        let first = self.rng.below(INSTANCES);
        let turns = instances.iter().cycle().skip(first).take(INSTANCES);
        turns.into_iter().find(|instance| instance.alive()).cloned()
    }

    fn random<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        claviger_engine::Entropy::fill(&*self.rng, &mut bytes);
        bytes
    }
}
