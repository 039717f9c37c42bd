//! Carries a plan out.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use claviger_core::{
    policy::{Custody, Lifetimes, ProviderHabits, Rotation, limits},
    secret::ClientSecret,
    session::Session,
    sweep::PaceLimits,
};
use claviger_engine::{Denied, Engine, Grant, NoticeSettings, Parts, Settings, Sweep};
use claviger_mock::{DEMO_CLIENT_ID, DEMO_CLIENT_SECRET, DEMO_REDIRECT_URI, Endpoint, LiveTokenLimit};
use claviger_provider::{Endpoints, Provider as ProviderConfig, WebhookSecret};
use claviger_seal::{KeyId, Keyring, RootKey, SessionCookie};
use tokio_util::sync::CancellationToken;

use crate::{
    Act, Outcome, Plan, Variant,
    devices::{ask, end_other, end_others, kill_access_token, repair, sign_in, sign_out},
    fate::{Fate, START},
    ledger::Ledger,
    mail,
    plan::TOKEN_LIFE,
    record::Record,
    rng::Rng,
    settle,
    shelf::Shelf,
    spread::Spread,
    wire::{Provider, Wire},
};

/// The users, by the ids that the mock knows them by.
pub(crate) const USERS: [&str; 2] = ["100000001", "100000002"];

/// Tokens of histories live shortly, so their sweep is quick.
pub(crate) const PERIOD: Duration = Duration::from_secs(150);
pub(crate) const PROBE_PERIOD: Duration = Duration::from_secs(15 * 60);
pub(crate) const PROOF: Duration = Duration::from_secs(5 * 60);

/// Everything that takes part.
pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) variant: Variant,
    pub(crate) record: Arc<Record>,
    pub(crate) rng: Arc<Rng>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) provider: Arc<Provider>,
    instances: Mutex<Vec<Option<Instance>>>,
    devices: Mutex<Vec<Device>>,
}

/// One life of one engine.
#[derive(Clone)]
pub(crate) struct Instance {
    pub(crate) engine: Engine,
    pub(crate) fate: Arc<Fate>,
}

/// What a device holds.
#[derive(Clone, Default)]
pub(crate) struct Device {
    pub(crate) cookie: Option<SessionCookie>,
}

pub(crate) async fn run(plan: &Plan, variant: Variant, verbose: bool) -> Outcome {
    let world = Arc::new(World::new(plan, variant, verbose));
    tokio::spawn(mail::carry(Arc::clone(&world)));
    for instance in 0..plan.instances {
        world.start(instance).await;
    }
    for step in &plan.steps {
        tokio::time::sleep(step.after).await;
        world.restart_some().await;
        world.check_rows_in_force();
        act(&world, step.act.clone());
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    settle::settle(&world).await;
    world.record.take()
}

impl World {
    fn new(plan: &Plan, variant: Variant, verbose: bool) -> Self {
        let record = Arc::new(Record::new(verbose));
        let rng = Arc::new(Rng::new(plan.seed));
        let settings = claviger_mock::Settings {
            token_lifetime_secs: u32::try_from(TOKEN_LIFE.as_secs()).unwrap_or(u32::MAX),
            rotation: rotation(&plan.habits),
            refresh_kills_old_access_token: !plan.habits.old_access_token_survives,
            live_token_limit: LiveTokenLimit::Off,
            ..claviger_mock::Settings::default()
        };
        let provider = Provider::new(
            settings,
            plan.habits,
            spread(plan),
            Arc::clone(&record),
            Arc::clone(&rng),
            plan.seed,
        );
        Self {
            plan: plan.clone(),
            variant,
            ledger: Arc::new(Ledger::new(Arc::clone(&record), keyring(), plan.habits)),
            provider: Arc::new(provider),
            record,
            rng,
            instances: Mutex::new(vec![None; plan.instances]),
            devices: Mutex::new(vec![Device::default(); plan.device_count()]),
        }
    }

    /// Starts an instance that does not run. Without its store it cannot.
    pub(crate) async fn start(&self, who: usize) {
        let skew_ms = self.plan.skews_ms.get(who).copied().unwrap_or(0);
        let fate = Arc::new(Fate::new(who, Arc::clone(&self.record), Arc::clone(&self.rng), skew_ms));
        let shelf = Shelf::new(Arc::clone(&self.ledger), Arc::clone(&fate), self.variant);
        let wire = Wire {
            provider: Arc::clone(&self.provider),
            ledger: Arc::clone(&self.ledger),
            fate: Arc::clone(&fate),
            variant: self.variant,
        };
        let parts = Parts {
            store: Arc::new(shelf),
            http: Arc::new(wire),
            clock: Arc::clone(&fate) as _,
            entropy: Arc::clone(&self.rng) as _,
            keyring: keyring(),
            provider: provider_config(self.plan.habits),
            settings: settings(&self.plan),
            notices: self.plan.notices.then(notices),
        };
        let Ok(engine) = Engine::start(parts).await else { return };
        let background = engine.clone();
        tokio::spawn(async move { background.run(CancellationToken::new()).await });
        self.record.count("instance started", who);
        if let Some(place) = self.instances().get_mut(who) {
            *place = Some(Instance { engine, fate });
        }
    }

    /// Dead instances come back after a while, and one of them at once if none is left.
    async fn restart_some(&self) {
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

    /// The instance of this number, or another one if it does not run.
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

    /// Of the browser's own accord nothing happens to a cookie; an answer sets or clears it.
    pub(crate) fn set_cookie(&self, device: usize, cookie: Option<SessionCookie>) {
        if let Some(place) = self.devices().get_mut(device) {
            place.cookie = cookie;
        }
    }

    /// An answer clears the cookie of this session.
    pub(crate) fn clear_cookie(&self, device: usize, cookie: &SessionCookie) {
        if let Some(place) = self.devices().get_mut(device)
            && place.cookie.as_ref().is_some_and(|current| current.session == cookie.session)
        {
            place.cookie = None;
            // LOSER: whatever the answer was, a device loses its cookie only with its session.
            if self.ledger.last(cookie.session).is_some_and(|row| !row.ended()) {
                let lost =
                    format!("device {device} lost its cookie of {}, which is in force", cookie.session);
                self.record.violate("LOSER", lost);
            }
        }
    }

    fn instances(&self) -> MutexGuard<'_, Vec<Option<Instance>>> {
        self.instances.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn devices(&self) -> MutexGuard<'_, Vec<Device>> {
        self.devices.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the browser and the invariants make of an answer.
    pub(crate) fn judge(
        &self,
        who: usize,
        device: usize,
        cookie: &SessionCookie,
        outcome: &Result<(), Denied>,
    ) {
        let name = match outcome {
            Ok(()) => "caller: served",
            Err(Denied::ProviderTrouble { .. }) => "caller: told to come back",
            Err(Denied::Misconfigured) => "caller: told of our own mistake",
            Err(Denied::Store(_)) => "caller: store trouble",
            Err(Denied::SignInAgain) => "caller: asked to renew",
            Err(Denied::NoSession | Denied::Ended(_)) => "caller: signed out",
            Err(Denied::UnknownKey(_)) => "caller: key missing",
        };
        self.record.count(name, who);
        let over = self.ledger.last(cookie.session).is_none_or(|row| row.ended());
        let clears = matches!(outcome, Err(Denied::NoSession | Denied::Ended(_)));
        if clears && !over {
            self.record.violate("TRANSIENT", format!("{} was told to be over and is not", cookie.session));
        }
        if matches!(outcome, Err(Denied::UnknownKey(_))) {
            self.record.violate("TRANSIENT", "a key is missing");
        }
        if clears || (outcome.is_err() && self.variant == Variant::ClearsCookieForLoser) {
            self.clear_cookie(device, cookie);
        }
    }

    /// STRAND: a row in force whose refresh token is spent says so by its claim.
    pub(crate) fn check_rows_in_force(&self) {
        for row in self.ledger.rows() {
            let Some(holding) = row.holding().filter(|holding| holding.claim.is_none()) else { continue };
            let spent = self.ledger.token_of(&row).is_some_and(|access| self.provider.spent(&access));
            if spent && holding.pair.is_some() {
                self.record.violate("STRAND", format!("{} holds a spent token and does not say so", row.id));
            }
        }
    }

    /// LOSER: nobody is asked to renew a session whose pair a refresh can save, or that another refresh is about to.
    pub(crate) fn check_renewal(&self, cookie: &SessionCookie, before: Option<&Session>) {
        let (Some(before), Some(row)) = (before, self.ledger.last(cookie.session)) else { return };
        // Clocks differ, and a row that changed meanwhile may have been beyond it for a moment.
        let about_now = START.after(self.record.elapsed() + Duration::from_secs(5));
        if before.version == row.version && !row.beyond_refresh(about_now, &self.plan.habits) {
            self.record.violate("LOSER", format!("{} was asked to renew without need", cookie.session));
        }
    }

    /// ISO: a token that is handed out is one of the session's own.
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

pub(crate) fn provider_config(habits: ProviderHabits) -> ProviderConfig {
    #[expect(clippy::expect_used, reason = "a constant that parses")]
    let at = "http://mock.test/".parse().expect("a constant that parses");
    let secret = ClientSecret::new(DEMO_CLIENT_SECRET);
    let endpoints = Endpoints::twitch_at(&at);
    let mut provider =
        ProviderConfig::twitch(DEMO_CLIENT_ID, secret, DEMO_REDIRECT_URI, Vec::new(), endpoints);
    provider.habits = habits;
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
            probe_period: PROBE_PERIOD,
        },
        ..Settings::default()
    }
}

fn notices() -> NoticeSettings {
    #[expect(clippy::expect_used, reason = "constants that parse")]
    let (callback, secret) = (
        "http://localhost:3000/auth/notices".parse().expect("an address that parses"),
        WebhookSecret::new("a webhook secret".replace(' ', "-")).expect("a secret that fits"),
    );
    NoticeSettings { callback, secret }
}

/// What the instances together may send. As far as their clocks differ, so far may what they send at the same time on these
/// be moved against each other.
fn spread(plan: &Plan) -> Spread {
    let bounds = PaceLimits::per_second(plan.validations_per_second);
    let (least, most) = (plan.skews_ms.iter().min(), plan.skews_ms.iter().max());
    let apart_ms = most.zip(least).map_or(0, |(most, least)| most.abs_diff(*least));
    let slack = limits::PACE_LATE + Duration::from_millis(apart_ms);
    Spread::new(bounds.ceiling_per_second, bounds.burst, slack)
}

/// Lets something happen. What takes time goes on beside what follows.
fn act(world: &Arc<World>, act: Act) {
    let own = Arc::clone(world);
    match act {
        Act::Ask { device, tabs } => {
            for tab in tabs {
                tokio::spawn(ask(Arc::clone(world), device, tab));
            }
        }
        Act::SignIn { device, instance } => {
            drop(tokio::spawn(async move { sign_in(&own, device, instance).await }))
        }
        Act::Repair { device, instance } => {
            drop(tokio::spawn(async move { repair(&own, device, instance).await }))
        }
        Act::SignOut { device, instance } => {
            drop(tokio::spawn(async move { sign_out(&own, device, instance).await }));
        }
        Act::EndOther { device, other, instance } => {
            drop(tokio::spawn(async move { end_other(&own, device, other, instance).await }));
        }
        Act::EndOthers { device, instance } => {
            drop(tokio::spawn(async move { end_others(&own, device, instance).await }));
        }
        Act::Disconnect { user } => mail::disconnect(world, user),
        Act::Reconnect { device, instance, gap_ms } => {
            drop(tokio::spawn(mail::reconnect(own, device, instance, gap_ms)));
        }
        Act::DeleteAccount { user } => mail::delete_account(world, user),
        Act::Mail { mail } => mail::set_mail(world, mail),
        Act::ReleaseMail { newest_first } => mail::release(world, newest_first),
        Act::KillAccessToken { device } => kill_access_token(world, device),
        Act::Trap { instance, point, trap } => {
            if let Some(instance) = world.instance(instance) {
                instance.fate.set_trap(point, trap);
            }
        }
        Act::Crash { instance } => {
            if let Some(instance) = world.instance(instance) {
                instance.fate.crash();
            }
        }
        Act::TokenFault { kind } => {
            world.record.count("fault: token endpoint", 8);
            world.provider.fails(Endpoint::Token, kind, 1);
        }
        Act::ValidateFault { kind, calls } => {
            world.record.count("fault: validation", 8);
            world.provider.fails(Endpoint::Validate, kind, calls);
        }
        Act::Outage { .. } | Act::Network { .. } | Act::StoreDown { .. } | Act::StoreTrouble { .. } => {
            tokio::spawn(weather(own, act));
        }
    }
}

/// What an outage concerns.
const OUT: [Endpoint; 5] = [
    Endpoint::Token,
    Endpoint::Validate,
    Endpoint::Revoke,
    Endpoint::HelixAuthorizationUsers,
    Endpoint::HelixEventsubSubscriptions,
];

/// Something is wrong for a while.
async fn weather(world: Arc<World>, act: Act) {
    match act {
        Act::Outage { kind, lasts } => {
            world.record.count("fault: outage", 8);
            for endpoint in OUT {
                world.provider.fails_until_mended(endpoint, kind.clone());
            }
            tokio::time::sleep(lasts).await;
            world.provider.mock().clear_faults();
        }
        Act::Network { unplugged, slow, loses_permille, lasts } => {
            world.record.count("fault: network", 8);
            world.provider.set_network(|network| {
                network.unplugged |= unplugged;
                network.slow |= slow;
                network.loses_permille = network.loses_permille.max(loses_permille);
            });
            tokio::time::sleep(lasts).await;
            world.provider.set_network(|network| *network = crate::wire::Network::default());
        }
        Act::StoreDown { instance, lasts } => {
            let Some(instance) = world.instance(instance) else { return };
            instance.fate.set_store_down(true);
            tokio::time::sleep(lasts).await;
            instance.fate.set_store_down(false);
        }
        Act::StoreTrouble { instance, permille, lasts } => {
            let Some(instance) = world.instance(instance) else { return };
            instance.fate.set_store_trouble(permille);
            tokio::time::sleep(lasts).await;
            instance.fate.set_store_trouble(0);
        }
        _ => {}
    }
}
