//! A day of very many sessions: the shipped engine, three instances of it on one store, with people who come and go as on a real
//! day, an instance that dies each hour, an outage and a storm of 429s.
//!
//! HOURLY and SPREAD are judged by what reaches the provider, TRANSIENT by what people are told and by the rows at the end.

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
use claviger_core::{
    plan::{Demand, Plan as Foretold},
    policy::limits,
    time::Timestamp,
};
use claviger_mock::{Config, LiveTokenLimit, MockTwitch, Rotation};
use claviger_seal::Keyring;
use claviger_store::{MemoryStore, Store as _, Wheel};

use crate::{history, rng::Rng};

use instance::{Ground, Instance};
use people::People;
use provider::{Out, Provider};
use watch::Trouble;

pub use report::{Report, Sample};
pub use restart::{Restart, RestartReport};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);
const INSTANCES: usize = 3;
/// The slots that are due for no longer than this are being visited, and proofs that are older than a period by no more are being
/// renewed: nothing is overdue.
const ON_TIME: Duration = Duration::from_secs(30);
/// Access tokens live so long, as Twitch's do.
const TOKEN_LIFE: Duration = Duration::from_secs(4 * 60 * 60);
/// A restart is about the sweep alone, so no token expires.
const LONG_TOKEN_LIFE: Duration = Duration::from_secs(60 * 60 * 60);

/// A part of the day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// From then on, since the simulation began.
    pub from: Duration,
    /// For so long.
    pub lasts: Duration,
}

impl Span {
    fn holds(&self, at: Duration) -> bool {
        (self.from..self.from + self.lasts).contains(&at)
    }
}

/// What is simulated.
#[derive(Clone, Debug)]
pub struct Day {
    /// So many sessions, each of a person with one device.
    pub sessions: usize,
    /// All numbers follow from it.
    pub seed: u64,
    /// It begins at this hour.
    pub from_hour: u32,
    /// It ends at this one, at midnight at the latest.
    pub to_hour: u32,
    /// The provider cannot be reached, and then answers nothing but 503.
    pub outage: Option<Span>,
    /// The provider turns most questions away.
    pub storm: Option<Span>,
    /// Validations that may be sent in a second; what the planning calls sufficient, if it is not given.
    pub budget_per_second: Option<u32>,
}

impl Day {
    /// A whole day with a two-hour outage and ten minutes of 429s.
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

    /// Lets it pass. `tell` hears of each hour.
    ///
    /// # Errors
    /// If no runtime can be had, or the simulation cannot be set up.
    pub fn run(&self, tell: impl Fn(&Sample) + Send + Sync + 'static) -> anyhow::Result<Report> {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?;
        runtime.block_on(self.pass(tell))
    }

    /// What the planning says of as many people.
    fn foretold(&self) -> anyhow::Result<Foretold> {
        let demand = Demand {
            users: self.sessions as u64,
            devices_per_user: 1.0,
            active_hours_per_day: 3.0,
            token_lifetime: TOKEN_LIFE,
            period: limits::SWEEP_PERIOD,
            budget_per_second: 1.0,
            outage: self.outage.map_or(Duration::ZERO, |outage| outage.lasts),
        };
        let sufficient = demand.plan()?.sufficient_budget_per_second as f64;
        let budget_per_second = self.budget_per_second.map_or(sufficient, f64::from);
        Ok(Demand { budget_per_second, ..demand }.plan()?)
    }

    async fn pass(&self, tell: impl Fn(&Sample) + Send + Sync + 'static) -> anyhow::Result<Report> {
        let foretold = self.foretold()?;
        let calendar = Calendar { outage: self.outage, storm: self.storm };
        let sufficient = u32::try_from(foretold.sufficient_budget_per_second)?;
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
        Ok(world.report(samples, foretold, self))
    }
}

/// So often it is looked how things stand.
const STEP: Duration = Duration::from_secs(10);

/// Takes a sample each minute, and notes when trouble begins and is over.
async fn look_around(world: &World, samples: &mut Vec<Sample>) -> anyhow::Result<()> {
    let (now, elapsed) = (world.clock.at(), world.clock.elapsed());
    let due = world.store.longest_due(Wheel::Validation).await?;
    let lag = due.map_or(Duration::ZERO, |due| now.since(due));
    let in_trouble = world.calendar.out(elapsed).is_some() || world.calendar.storms(elapsed);
    note_trouble(world, in_trouble, lag);
    if elapsed.as_secs().is_multiple_of(60) {
        let census = world.store.census(now).await?;
        let validations = world.provider.watch().by_minute.iter().sum();
        samples.push(Sample { elapsed, live: census.live, parked: census.parked, lag, validations });
    }
    Ok(())
}

/// The probe keeps up, too: users away are asked about once a day, an outage later at the most.
async fn check_probes(world: &World) -> anyhow::Result<()> {
    let due = world.store.longest_due(Wheel::Probe).await?;
    let lag = due.map_or(Duration::ZERO, |due| world.clock.at().since(due));
    if lag > HOUR {
        world.provider.watch().violate("LIVE", format!("users away are asked about {lag:?} late"));
    }
    Ok(())
}

/// Trouble begins, ends, or has been made up for.
fn note_trouble(world: &World, in_trouble: bool, lag: Duration) {
    let now = world.clock.at();
    let mut watch = world.provider.watch();
    let open = watch.troubles.last().copied().filter(|trouble| trouble.until.is_none());
    let next = match open {
        None if in_trouble => return watch.troubles.push(Trouble::beginning(now)),
        None => return,
        Some(_) if in_trouble => return,
        Some(trouble) if trouble.ended.is_none() => {
            let (living, overdue) = watch.living(now, world.period);
            Trouble { ended: Some(now), living, overdue, ..trouble }
        }
        Some(trouble) if lag <= ON_TIME => Trouble { until: Some(now), ..trouble },
        Some(_) => return,
    };
    if let Some(last) = watch.troubles.last_mut() {
        *last = next;
    }
}

/// An instance dies each hour, and is back after a minute.
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

/// When the provider is in trouble.
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

/// The time of the day. All instances have the same.
struct Clock {
    begun: tokio::time::Instant,
    from_hour: u32,
}

/// Midnight of the day that is simulated.
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

/// A number of times.
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
    /// Up to when the sweep had kept up before the simulation began.
    wheels_stood_at: Timestamp,
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
        stood_at: Option<Timestamp>,
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
        let (store, period) = (Arc::new(MemoryStore::new()), limits::SWEEP_PERIOD);
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
            wheels_stood_at: stood_at.unwrap_or_else(|| clock.start()),
            calendar,
            clock,
            rng,
            keyring: history::keyring(),
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
