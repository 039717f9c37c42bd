//! Everything that takes part in a history: instances, devices, provider and judges.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use claviger_core::{
    ClientSecret, Custody, Lifetimes, ProviderHabits, RateLimitBounds, Rotation, Session, limits,
};
use claviger_engine::{Denied, Engine, Grant, Parts, Settings, Sweep, WebhookSettings};
use claviger_mock::{DEMO_CLIENT_ID, DEMO_CLIENT_SECRET, DEMO_REDIRECT_URI, LiveTokenLimit};
use claviger_provider::{Provider as ProviderConfig, Registration, WebhookSecret, twitch};
use claviger_seal::{KeyId, Keyring, RootKey, SessionCookie};
use tokio_util::sync::CancellationToken;

use crate::{
    fate::{Fate, MachineClock, START},
    faulty_store::FaultyStore,
    ledger::Ledger,
    plan::{Offers, Plan, TOKEN_LIFE},
    record::Record,
    rng::Rng,
    spread::Spread,
    variant::Variant,
    wire::{Provider, Wire},
};

/// The users' ids at the mock.
pub(crate) const USERS: [&str; 2] = ["100000001", "100000002"];

/// Tokens of histories are short-lived, so the sweep is fast.
pub(crate) const PERIOD: Duration = Duration::from_secs(150);
pub(crate) const CONNECTION_CHECK_PERIOD: Duration = Duration::from_secs(15 * 60);
pub(crate) const PROOF: Duration = Duration::from_secs(5 * 60);

/// Everything that takes part.
pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) variant: Variant,
    pub(crate) record: Arc<Record>,
    pub(crate) rng: Arc<Rng>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) provider: Arc<Provider>,
    clocks: Vec<Arc<MachineClock>>,
    /// When a clock was set last.
    clock_set_at: Mutex<Option<Duration>>,
    instances: Mutex<Vec<Option<Instance>>>,
    devices: Mutex<Vec<Device>>,
}

/// One life of an engine.
#[derive(Clone)]
pub(crate) struct Instance {
    pub(crate) engine: Engine,
    pub(crate) fate: Arc<Fate>,
}

/// The state of a device.
#[derive(Clone, Default)]
pub(crate) struct Device {
    pub(crate) cookie: Option<SessionCookie>,
}

impl World {
    pub(crate) fn new(plan: &Plan, variant: Variant, verbose: bool) -> Self {
        let record = Arc::new(Record::new(verbose));
        let rng = Arc::new(Rng::new(plan.seed));
        let settings = claviger_mock::Settings {
            token_lifetime_secs: u32::try_from(TOKEN_LIFE.as_secs()).unwrap_or(u32::MAX),
            rotation: rotation(&plan.habits),
            refresh_kills_old_access_token: !plan.habits.old_access_token_survives,
            live_token_limit: LiveTokenLimit::Off,
            ..claviger_mock::Settings::default()
        };
        let ledger = Arc::new(Ledger::new(Arc::clone(&record), keyring(), plan.habits));
        let provider = Provider::new(
            plan,
            settings,
            spread(plan),
            Arc::clone(&ledger),
            Arc::clone(&record),
            Arc::clone(&rng),
        );
        Self {
            plan: plan.clone(),
            variant,
            ledger,
            provider: Arc::new(provider),
            record,
            rng,
            clocks: plan.skews_ms.iter().map(|skew_ms| Arc::new(MachineClock::new(*skew_ms))).collect(),
            clock_set_at: Mutex::default(),
            instances: Mutex::new(vec![None; plan.instances]),
            devices: Mutex::new(vec![Device::default(); plan.device_count()]),
        }
    }

    /// Starts an instance that does not run. It fails without its store.
    pub(crate) async fn start(&self, who: usize) {
        let Some(clock) = self.clocks.get(who).cloned() else { return };
        let fate = Arc::new(Fate::new(who, Arc::clone(&self.record), Arc::clone(&self.rng), clock));
        let store = FaultyStore::new(Arc::clone(&self.ledger), Arc::clone(&fate), self.variant);
        let wire = Wire {
            provider: Arc::clone(&self.provider),
            ledger: Arc::clone(&self.ledger),
            fate: Arc::clone(&fate),
            variant: self.variant,
        };
        let parts = Parts {
            store: Arc::new(store),
            http: Arc::new(wire),
            clock: Arc::clone(&fate) as _,
            entropy: Arc::clone(&self.rng) as _,
            keyring: keyring(),
            provider: provider_config(self.plan.habits, self.plan.offers),
            settings: settings(&self.plan),
            webhook: self.plan.webhook.then(webhook),
            assertions: None,
        };
        let Ok(engine) = Engine::start(parts).await else { return };
        let background = engine.clone();
        tokio::spawn(async move { background.run(CancellationToken::new()).await });
        self.record.count("instance started", who);
        if let Some(place) = self.instances().get_mut(who) {
            *place = Some(Instance { engine, fate });
        }
    }

    /// Restarts dead instances after a while, or one at once if none is left.
    pub(crate) async fn restart_some(&self) {
        let none_left = self.alive().is_empty();
        for (n, who) in self.dead().into_iter().enumerate() {
            if (none_left && n == 0) || self.rng.chance(300) {
                self.start(who).await;
            }
        }
    }

    pub(crate) async fn restart_all(&self) {
        for who in self.dead() {
            self.start(who).await;
        }
    }

    fn dead(&self) -> Vec<usize> {
        let instances = self.instances();
        let dead = |instance: &Option<Instance>| instance.as_ref().is_none_or(|own| !own.fate.alive());
        instances.iter().enumerate().filter(|(_, instance)| dead(instance)).map(|(who, _)| who).collect()
    }

    pub(crate) fn alive(&self) -> Vec<Instance> {
        self.instances().iter().flatten().filter(|instance| instance.fate.alive()).cloned().collect()
    }

    /// Returns this instance, or another one if it does not run.
    pub(crate) fn instance(&self, who: usize) -> Option<Instance> {
        let alive = self.alive();
        let own = alive.iter().find(|instance| instance.fate.who == who).cloned();
        own.or_else(|| alive.first().cloned())
    }

    pub(crate) fn device(&self, device: usize) -> Device {
        self.devices().get(device).cloned().unwrap_or_default()
    }

    pub(crate) fn user(&self, device: usize) -> &'static str {
        USERS.get(self.plan.user_of(device)).copied().unwrap_or(USERS[0])
    }

    /// Sets or clears a cookie, as an answer says.
    pub(crate) fn set_cookie(&self, device: usize, cookie: Option<SessionCookie>) {
        if let Some(place) = self.devices().get_mut(device) {
            place.cookie = cookie;
        }
    }

    /// Clears the cookie of this session, as an answer says.
    pub(crate) fn clear_cookie(&self, device: usize, cookie: &SessionCookie) {
        if let Some(place) = self.devices().get_mut(device)
            && place.cookie.as_ref().is_some_and(|current| current.session == cookie.session)
        {
            place.cookie = None;
            // LOSER: a device loses its cookie only with its session.
            if self.ledger.last(cookie.session).is_some_and(|row| !row.ended()) {
                let lost =
                    format!("device {device} lost its cookie of {}, which is in force", cookie.session);
                self.record.violate("LOSER", lost);
            }
        }
    }

    /// Sets the clock of one machine or of all wrong by this much, or right with zero.
    pub(crate) fn set_clocks(&self, instance: Option<usize>, by_ms: i64) {
        let chosen = self.clocks.iter().enumerate().filter(|(who, _)| instance.is_none_or(|own| own == *who));
        chosen.for_each(|(_, clock)| clock.set_wrong(by_ms));
        *self.clock_set_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(self.record.elapsed());
        self.provider.watch_spread(self.clocks.iter().all(|clock| clock.is_right()));
    }

    /// Whether all clocks have been right for longer than anything lasts that a wrong one began.
    pub(crate) fn clocks_are_right(&self) -> bool {
        let set_at = *self.clock_set_at.lock().unwrap_or_else(PoisonError::into_inner);
        let lasts = limits::CLAIM_LEASE * 2;
        let is_long_ago = set_at.is_none_or(|at| self.record.elapsed().saturating_sub(at) > lasts);
        is_long_ago && self.clocks.iter().all(|clock| clock.is_right())
    }

    fn instances(&self) -> MutexGuard<'_, Vec<Option<Instance>>> {
        self.instances.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn devices(&self) -> MutexGuard<'_, Vec<Device>> {
        self.devices.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts an answer and checks it.
    pub(crate) fn judge(
        &self,
        who: usize,
        device: usize,
        cookie: &SessionCookie,
        outcome: &Result<(), Denied>,
    ) {
        let name = match outcome {
            Ok(()) => "caller: served",
            Err(Denied::ProviderUnavailable { .. }) => "caller: told to come back",
            Err(Denied::Misconfigured) => "caller: told of our own mistake",
            Err(Denied::ClockUnconfirmed { .. }) => "caller: the clock is not confirmed",
            Err(Denied::Store(_)) => "caller: store trouble",
            Err(Denied::SignInAgain) => "caller: asked to renew",
            Err(Denied::NoSession | Denied::Ended(_)) => "caller: signed out",
            Err(Denied::UnknownKey(_)) => "caller: key missing",
        };
        self.record.count(name, who);
        let over = self.ledger.last(cookie.session).is_none_or(|row| row.ended());
        let clears = matches!(outcome, Err(Denied::NoSession | Denied::Ended(_)));
        if clears && !over {
            self.record.violate("TRANSIENT", format!("{} was reported as ended and is not", cookie.session));
        }
        if matches!(outcome, Err(Denied::UnknownKey(_))) {
            self.record.violate("TRANSIENT", "a key is missing");
        }
        if clears || (outcome.is_err() && self.variant == Variant::ClearsCookieForLoser) {
            self.clear_cookie(device, cookie);
        }
    }

    /// STRAND: a row in force with a spent refresh token has a claim that says so.
    pub(crate) fn check_rows_in_force(&self) {
        for row in self.ledger.rows() {
            let Some(active) = row.active().filter(|active| active.claim.is_none()) else { continue };
            let spent = self.ledger.token_of(&row).is_some_and(|access| self.provider.spent(&access));
            if spent && active.pair.is_some() {
                self.record.violate("STRAND", format!("{} holds a spent token and does not say so", row.id));
            }
        }
    }

    /// LOSER: nobody must renew a session whose pair a refresh can save, or that another refresh is
    /// about to save.
    pub(crate) fn check_renewal(&self, cookie: &SessionCookie, before: Option<&Session>) {
        let (Some(before), Some(row)) = (before, self.ledger.last(cookie.session)) else { return };
        // A row that changed meanwhile may have been beyond a refresh for a moment.
        let is_judged = self.clocks_are_right() && before.version == row.version;
        if is_judged && self.can_be_saved(&row) {
            self.record.violate("LOSER", format!("{} was asked to renew without need", cookie.session));
        }
    }

    /// Whether a refresh can save the pair of this row, by the clocks of all instances.
    pub(crate) fn can_be_saved(&self, row: &Session) -> bool {
        let about_now = START.after(self.record.elapsed() + Duration::from_secs(5));
        !row.beyond_refresh(about_now, &self.plan.habits)
    }

    /// ISO: a session is given only its own tokens.
    pub(crate) fn check_grant(&self, cookie: &SessionCookie, grant: &Grant) {
        if self.ledger.owner(grant.token.expose()) != Some(cookie.session) {
            self.record.violate("ISO", format!("{} was given another row's token", cookie.session));
        }
    }
}

fn rotation(habits: &ProviderHabits) -> claviger_mock::Rotation {
    match habits.rotation {
        Rotation::None => claviger_mock::Rotation::None,
        Rotation::Rotates => claviger_mock::Rotation::Rotates,
        Rotation::OneTime if habits.reuse_kills_connection => claviger_mock::Rotation::OneTimeKillsConnection,
        Rotation::OneTime => claviger_mock::Rotation::OneTime,
    }
}

pub(crate) fn keyring() -> Keyring {
    #[expect(clippy::expect_used, reason = "one key is a keyring")]
    Keyring::new(vec![RootKey::new(KeyId(1), [1; 32])]).expect("one key is a keyring")
}

pub(crate) fn provider_config(habits: ProviderHabits, offers: Offers) -> ProviderConfig {
    #[expect(clippy::expect_used, reason = "a constant that parses")]
    let at = "http://mock.test/".parse().expect("a constant that parses");
    let secret = ClientSecret::new(DEMO_CLIENT_SECRET);
    let registration = Registration::new(DEMO_CLIENT_ID, secret, DEMO_REDIRECT_URI, Vec::new());
    let mut provider = ProviderConfig { habits, ..twitch::PRESET.mock_at(&at, registration) };
    let capabilities = &mut provider.capabilities;
    capabilities.validation.take_if(|_| !offers.validation);
    capabilities.revocation.take_if(|_| !offers.revocation);
    provider
}

fn settings(plan: &Plan) -> Settings {
    Settings {
        lifetimes: Lifetimes {
            proof: PROOF,
            max_unverified: Duration::from_secs(8 * 60),
            refresh_spread: Duration::from_secs(2 * 60),
            ..Lifetimes::default()
        },
        custody: if plan.custody_server { Custody::Server } else { Custody::Device },
        sweep: Sweep {
            period: PERIOD,
            validations_per_second: plan.validations_per_second,
            keep_alive: plan.keep_alive,
            connection_check_period: CONNECTION_CHECK_PERIOD,
        },
        // What follows from a failure of the store is seen best if no call waits for it.
        store_wait: if plan.seed.is_multiple_of(2) { Duration::ZERO } else { limits::STORE_WAIT },
        ..Settings::default()
    }
}

fn webhook() -> WebhookSettings {
    #[expect(clippy::expect_used, reason = "constants that parse")]
    let (callback, secret) = (
        "http://localhost:3000/auth/notices".parse().expect("an address that parses"),
        WebhookSecret::new("a webhook secret".replace(' ', "-")).expect("a secret that fits"),
    );
    WebhookSettings { callback, secret }
}

/// Creates the judge of the common budget. Clocks that differ may shift requests against each other
/// by as much.
fn spread(plan: &Plan) -> Spread {
    let bounds = RateLimitBounds::per_second(plan.validations_per_second);
    let (least, most) = (plan.skews_ms.iter().min(), plan.skews_ms.iter().max());
    let apart_ms = most.zip(least).map_or(0, |(most, least)| most.abs_diff(*least));
    let slack = limits::RATE_LIMIT_LATE + Duration::from_millis(apart_ms);
    Spread::new(bounds.ceiling_per_second, bounds.burst, slack)
}
