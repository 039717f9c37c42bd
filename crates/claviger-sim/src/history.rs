//! Carries a plan out.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use claviger_core::{
    policy::{Custody, Lifetimes, ProviderHabits, Rotation},
    request::Assurance,
    return_to::ReturnTo,
    secret::ClientSecret,
    session::{EndReason, Session},
    verdict::ApiRefusal,
};
use claviger_engine::{
    Clock as _, Denied, Engine, Grant, LoginError, LoginStarted, Parts, Settings, SignedIn, Target,
};
use claviger_mock::{DEMO_CLIENT_ID, DEMO_CLIENT_SECRET, DEMO_REDIRECT_URI, Endpoint, LiveTokenLimit};
use claviger_provider::{Endpoints, Provider as ProviderConfig};
use claviger_seal::{KeyId, Keyring, RootKey, SessionCookie};
use tokio_util::sync::CancellationToken;

use crate::{
    Act, Asks, Outcome, Plan, Tab, Variant,
    fate::{Fate, START},
    ledger::Ledger,
    plan::TOKEN_LIFE,
    record::Record,
    rng::Rng,
    settle,
    shelf::Shelf,
    wire::{Provider, Wire},
};

/// The users, by the ids that the mock knows them by.
const USERS: [&str; 2] = ["100000001", "100000002"];

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
        let provider = Provider::new(settings, plan.habits, Arc::clone(&record), Arc::clone(&rng), plan.seed);
        Self {
            plan: plan.clone(),
            variant,
            ledger: Arc::new(Ledger::new(Arc::clone(&record), keyring())),
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
        let wire =
            Wire { provider: Arc::clone(&self.provider), fate: Arc::clone(&fate), variant: self.variant };
        let parts = Parts {
            store: Arc::new(shelf),
            http: Arc::new(wire),
            clock: Arc::clone(&fate) as _,
            entropy: Arc::clone(&self.rng) as _,
            keyring: keyring(),
            provider: provider_config(self.plan.habits),
            settings: settings(self.plan.custody_server),
            notices: None,
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
        if clears {
            self.clear_cookie(device, cookie);
        } else if outcome.is_err() && self.variant == Variant::ClearsCookieForLoser {
            if !over {
                self.record.violate("LOSER", format!("the cookie of {} was cleared", cookie.session));
            }
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
    fn check_renewal(&self, cookie: &SessionCookie, before: Option<&Session>) {
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

fn keyring() -> Keyring {
    #[expect(clippy::expect_used, reason = "one key is a keyring")]
    Keyring::new(vec![RootKey::new(KeyId(1), [1; 32])]).expect("one key is a keyring")
}

fn provider_config(habits: ProviderHabits) -> ProviderConfig {
    #[expect(clippy::expect_used, reason = "a constant that parses")]
    let at = "http://mock.test/".parse().expect("a constant that parses");
    let secret = ClientSecret::new(DEMO_CLIENT_SECRET);
    let endpoints = Endpoints::twitch_at(&at);
    let mut provider =
        ProviderConfig::twitch(DEMO_CLIENT_ID, secret, DEMO_REDIRECT_URI, Vec::new(), endpoints);
    provider.habits = habits;
    provider
}

fn settings(custody_server: bool) -> Settings {
    Settings {
        lifetimes: Lifetimes {
            proof: Duration::from_secs(5 * 60),
            max_unverified: Duration::from_secs(8 * 60),
            refresh_spread: Duration::from_secs(2 * 60),
            ..Lifetimes::default()
        },
        custody: if custody_server { Custody::Server } else { Custody::Device },
        ..Settings::default()
    }
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
        Act::Disconnect { user } => disconnect(world, user),
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
            world.provider.fails_once(Endpoint::Token, kind);
        }
        Act::Outage { .. } | Act::Network { .. } | Act::StoreDown { .. } | Act::StoreTrouble { .. } => {
            tokio::spawn(weather(own, act));
        }
    }
}

/// Something is wrong for a while.
async fn weather(world: Arc<World>, act: Act) {
    match act {
        Act::Outage { kind, lasts } => {
            world.record.count("fault: outage", 8);
            for endpoint in [Endpoint::Token, Endpoint::Validate, Endpoint::Revoke] {
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

async fn ask(world: Arc<World>, device: usize, tab: Tab) {
    let (Some(instance), Some(cookie)) = (world.instance(tab.instance), world.device(device).cookie) else {
        return;
    };
    let who = instance.fate.who;
    let work = asked(&world, &instance, &cookie, tab.asks);
    let before = world.ledger.last(cookie.session);
    let patience = tab.gives_up_after.unwrap_or(Duration::from_secs(24 * 60 * 60));
    let outcome = tokio::select! {
        biased;
        () = instance.fate.died() => None,
        outcome = tokio::time::timeout(patience, work) => Some(outcome),
    };
    // A use may count at any moment until the answer.
    world.ledger.used(cookie.session, instance.fate.now());
    match outcome {
        None => world.record.count("caller: connection lost", who),
        Some(Ok(outcome)) => {
            if outcome == Err(Denied::SignInAgain) {
                world.check_renewal(&cookie, before.as_ref());
            }
            world.judge(who, device, &cookie, &outcome);
        }
        Some(Err(_)) => {
            world.record.count("caller: went away", who);
            instance.fate.caller_goes();
        }
    }
}

/// Asks, and checks what is handed out.
pub(crate) async fn asked(
    world: &World,
    instance: &Instance,
    cookie: &SessionCookie,
    asks: Asks,
) -> Result<(), Denied> {
    let engine = &instance.engine;
    let assurance = match asks {
        Asks::Cookie => Assurance::Cookie,
        Asks::Session => Assurance::Session,
        Asks::Provider => Assurance::Provider { max_age: Duration::ZERO },
        Asks::Grant | Asks::GrantDead | Asks::GrantUnclear => {
            let grant = engine.grant(cookie, None).await?;
            world.check_grant(cookie, &grant);
            let refusal = match asks {
                Asks::GrantDead => ApiRefusal::DeadToken,
                Asks::GrantUnclear => ApiRefusal::Unclear,
                _ => return Ok(()),
            };
            if let Some(newer) = engine.grant_after_refusal(cookie, &grant, refusal).await? {
                world.check_grant(cookie, &newer);
                if newer.generation <= grant.generation {
                    world.record.violate("MONO", "a refused token was handed out again");
                }
            }
            return Ok(());
        }
    };
    let caller = engine.authenticate(cookie.clone(), assurance).await?;
    let owner = world.ledger.last(cookie.session).map(|row| row.subject);
    if caller.session() != cookie.session || owner.as_ref() != Some(caller.subject()) {
        world.record.violate("ISO", format!("{} was taken for somebody else", cookie.session));
    }
    Ok(())
}

async fn sign_in(world: &World, device: usize, instance: usize) {
    let Some(instance) = world.instance(instance) else { return };
    let shown = world.device(device).cookie;
    if let Some(shown) = &shown {
        world.ledger.may_end(shown.session, EndReason::ReplacedBySignIn);
    }
    let started = instance.engine.begin_login(ReturnTo::root(), false);
    if let Some(Ok(signed_in)) = come_back(world, device, &instance, &started, shown.as_ref()).await
        && let Some(Ok(cookie)) = signed_in.cookie.map(|value| instance.engine.open_cookie(&value))
    {
        world.record.count("device: signed in", device);
        world.ledger.delivered(cookie.session);
        world.set_cookie(device, Some(cookie));
    }
}

/// The browser goes to the provider and comes back. None if the instance died meanwhile.
pub(crate) async fn come_back(
    world: &World,
    device: usize,
    instance: &Instance,
    started: &LoginStarted,
    shown: Option<&SessionCookie>,
) -> Option<Result<SignedIn, LoginError>> {
    tokio::time::sleep(world.rng.span(Duration::from_millis(50), Duration::from_secs(3))).await;
    let callback = world.provider.authorize(world.user(device), &started.location)?;
    tokio::select! {
        biased;
        () = instance.fate.died() => None,
        outcome = instance.engine.finish_login(callback, Some(&started.cookie), shown, "sim") => Some(outcome),
    }
}

/// Whether the device's session goes on with a new pair.
pub(crate) async fn repair(world: &World, device: usize, instance: usize) -> bool {
    let (Some(instance), Some(cookie)) = (world.instance(instance), world.device(device).cookie) else {
        return false;
    };
    let begun = tokio::select! {
        biased;
        () = instance.fate.died() => return false,
        begun = instance.engine.begin_repair(&cookie, ReturnTo::root()) => begun,
    };
    let Ok(Some(started)) = begun else { return false };
    match come_back(world, device, &instance, &started, Some(&cookie)).await {
        Some(Ok(_)) => {
            world.record.count("device: repaired", device);
            true
        }
        Some(Err(LoginError::SessionEnded))
            if !world.ledger.last(cookie.session).is_some_and(|row| row.ended()) =>
        {
            world.record.violate("TRANSIENT", "a repair found an end that is none");
            false
        }
        Some(Err(LoginError::AnotherUser)) => {
            world.record.violate("ISO", "a repair found another user");
            false
        }
        _ => false,
    }
}

async fn sign_out(world: &World, device: usize, instance: usize) {
    let (Some(instance), Some(cookie)) = (world.instance(instance), world.device(device).cookie) else {
        return;
    };
    world.ledger.may_end(cookie.session, EndReason::SignedOut);
    let ended = tokio::select! {
        biased;
        () = instance.fate.died() => return,
        ended = instance.engine.end_own(&cookie, EndReason::SignedOut) => ended,
    };
    if ended.is_ok() {
        world.record.count("device: signed out", device);
        if world.ledger.last(cookie.session).is_some_and(|row| !row.ended()) {
            world.record.violate("ENDED", "a sign-out that succeeded left the session in force");
        }
        world.clear_cookie(device, &cookie);
    }
}

async fn end_other(world: &World, device: usize, other: usize, instance: usize) {
    let (Some(instance), Some(target)) = (world.instance(instance), world.device(other).cookie) else {
        return;
    };
    let Some(row) = world.ledger.last(target.session).filter(|row| row.subject.id == world.user(device))
    else {
        return;
    };
    world.ledger.may_end(target.session, EndReason::SignedOutFromAnotherDevice);
    let target = Target::DeviceOf(row.subject, target.session);
    tokio::select! {
        biased;
        () = instance.fate.died() => {}
        _ = instance.engine.end(target, EndReason::SignedOutFromAnotherDevice) => {}
    }
}

async fn end_others(world: &World, device: usize, instance: usize) {
    let (Some(instance), Some(own)) = (world.instance(instance), world.device(device).cookie) else {
        return;
    };
    let user = world.user(device);
    let Some(row) = world.ledger.last(own.session) else { return };
    world.ledger.all_may_end(user, &[EndReason::SignedOutFromAnotherDevice]);
    // Sign-ins of the last moments may be on either side, since clocks differ.
    let before = instance.fate.now().before(Duration::from_secs(5));
    let target = Target::Others(row.subject, own.session);
    let ended = tokio::select! {
        biased;
        () = instance.fate.died() => return,
        ended = instance.engine.end(target, EndReason::SignedOutFromAnotherDevice) => ended,
    };
    if ended.is_err() {
        return;
    }
    world.record.count("device: ended the others", device);
    for row in world.ledger.rows() {
        let meant = row.subject.id == user && row.id != own.session && row.created_at < before;
        if meant && !row.ended() {
            world.record.violate("OTHERS", format!("{} was left in force", row.id));
        }
    }
}

fn disconnect(world: &World, user: usize) {
    let Some(user) = USERS.get(user) else { return };
    if world.provider.mock().disconnect(user, DEMO_CLIENT_ID) {
        world.record.count("user: disconnected", 8);
        world.ledger.disconnected(user);
    }
}

fn kill_access_token(world: &World, device: usize) {
    let Some(cookie) = world.device(device).cookie else { return };
    let token = world.ledger.last(cookie.session).and_then(|row| world.ledger.token_of(&row));
    if token.is_some_and(|token| world.provider.mock().kill_token(&token)) {
        world.record.count("fault: access token died early", device);
    }
}
