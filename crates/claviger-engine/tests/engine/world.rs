//! One provider, one store, a clock under control, and any number of engine instances.

use std::{
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use claviger_core::{
    Assurance, AuthorizationCode, ClientSecret, Custody, EndReason, Presence, ProviderHabits, ProviderName,
    ReturnTo, Rotation, SealedBlob, Session, SessionId, State, Subject, Timestamp, limits,
};
use claviger_engine::{
    AssertionSettings, Callback, Caller, Clock, Denied, Engine, Entropy, FinishedSignIn, Grant, LoginError,
    LoginStarted, Parts, Settings,
};
use claviger_mock::{DEMO_CLIENT_ID, DEMO_CLIENT_SECRET, DEMO_REDIRECT_URI};
use claviger_provider::{Provider, Registration, twitch};
use claviger_seal::{KeyId, Keyring, PairBinding, RefreshLock, RootKey, SessionCookie};
use claviger_store::{MemoryStore, Queue, Store};

use crate::{faulty_store::FaultyStore, twitch::Twitch};

pub(crate) const ADA: &str = "100000001";
pub(crate) const GRACE: &str = "100000002";
pub(crate) const SCOPE: &str = "user:read:email";
/// The start of every test.
pub(crate) const START: Timestamp = Timestamp::from_millis(1_800_000_000_000);
/// Lifetime of the mock's access tokens.
pub(crate) const TOKEN_LIFE: Duration = Duration::from_secs(14_000);
pub(crate) const SECOND: Duration = Duration::from_secs(1);
pub(crate) const MINUTE: Duration = Duration::from_secs(60);
pub(crate) const HOUR: Duration = Duration::from_secs(60 * 60);
pub(crate) const DAY: Duration = Duration::from_secs(24 * 60 * 60);
pub(crate) const NOW: Assurance = Assurance::Provider { max_age: Duration::ZERO };

/// A refresh token is good for one refresh, and a second one is refused.
pub(crate) const ONE_TIME: ProviderHabits = ProviderHabits {
    rotation: Rotation::OneTime,
    replay_window: Duration::ZERO,
    reuse_kills_connection: true,
    old_access_token_survives: true,
};
/// A refresh issues a new refresh token, and the old one still works for a while.
pub(crate) const ROTATES: ProviderHabits = ProviderHabits::FORGIVING;

/// A clock that follows tokio's time, and jumps when a test says so.
pub(crate) struct ManualClock {
    begun: tokio::time::Instant,
    jumped_ms: AtomicI64,
    /// How far the engines' clock is ahead of the provider's.
    wrong_ms: AtomicI64,
}

impl ManualClock {
    #[expect(clippy::disallowed_methods, reason = "tokio's paused time is part of the clock of tests")]
    fn new() -> Self {
        Self { begun: tokio::time::Instant::now(), jumped_ms: AtomicI64::new(0), wrong_ms: AtomicI64::new(0) }
    }

    /// Lets time pass. Timers do not notice.
    pub(crate) fn jump(&self, by: Duration) {
        self.jumped_ms.fetch_add(i64::try_from(by.as_millis()).unwrap(), Ordering::SeqCst);
    }

    /// Lets time pass until then.
    pub(crate) fn jump_to(&self, at: Timestamp) {
        assert!(at >= self.now(), "time goes forward");
        self.jump(at.since(self.now()));
    }
}

impl ManualClock {
    /// Sets the engines' clock wrong by this much. The provider's stays right.
    pub(crate) fn set_wrong(&self, ahead: Duration) {
        self.wrong_ms.store(i64::try_from(ahead.as_millis()).unwrap(), Ordering::SeqCst);
    }

    /// Sets the engines' clock this much behind. The provider's stays right.
    pub(crate) fn set_back(&self, behind: Duration) {
        self.wrong_ms.store(-i64::try_from(behind.as_millis()).unwrap(), Ordering::SeqCst);
    }

    /// The time of the provider.
    pub(crate) fn true_now(&self) -> Timestamp {
        let jumped = self.jumped_ms.load(Ordering::SeqCst);
        Timestamp::from_millis(START.as_millis() + jumped).after(self.begun.elapsed())
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        let wrong = self.wrong_ms.load(Ordering::SeqCst);
        Timestamp::from_millis(self.true_now().as_millis() + wrong)
    }

    fn monotonic(&self) -> Duration {
        self.true_now().since(START)
    }
}

/// Bytes that follow from a seed (SplitMix64).
pub(crate) struct Seeded(AtomicU64);

impl Seeded {
    pub(crate) fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }
}

impl Entropy for Seeded {
    fn fill(&self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let mut z = self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::SeqCst);
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            let word = (z ^ (z >> 31)).to_be_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
    }
}

/// What a test can change before the world starts.
pub(crate) struct Setup {
    pub(crate) settings: Settings,
    pub(crate) provider: Provider,
    pub(crate) mock: claviger_mock::Settings,
    pub(crate) assertions: Option<AssertionSettings>,
}

/// Everything but the engines.
pub(crate) struct World {
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) twitch: Arc<Twitch>,
    /// The store itself. Its counters cover all instances.
    pub(crate) memory: Arc<MemoryStore>,
    pub(crate) provider: Provider,
    pub(crate) settings: Settings,
    pub(crate) assertions: Option<AssertionSettings>,
    pub(crate) entropy: Arc<Seeded>,
}

/// One engine with its own way to the store.
pub(crate) struct Instance {
    pub(crate) engine: Engine,
    pub(crate) faulty_store: Arc<FaultyStore>,
}

impl Deref for Instance {
    type Target = Engine;

    fn deref(&self) -> &Engine {
        &self.engine
    }
}

/// What a browser has after a sign-in.
#[derive(Clone, Debug)]
pub(crate) struct Browser {
    pub(crate) session: SessionId,
    pub(crate) value: String,
    pub(crate) cached: Option<String>,
    pub(crate) cookie: SessionCookie,
}

impl World {
    /// The default world with one instance.
    pub(crate) async fn start() -> (Self, Instance) {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut Setup)) -> (Self, Instance) {
        let mut setup = Setup {
            // Most tests are about what follows from a failure.
            settings: Settings { store_wait: Duration::ZERO, ..Settings::default() },
            provider: twitch::PRESET.mock_at(
                &"http://mock.test/".parse().unwrap(),
                Registration::new(
                    DEMO_CLIENT_ID,
                    ClientSecret::new(DEMO_CLIENT_SECRET),
                    DEMO_REDIRECT_URI,
                    vec![SCOPE.to_owned()],
                ),
            ),
            // The strictest that is common: a refresh token works once.
            mock: claviger_mock::Settings {
                rotation: claviger_mock::Rotation::OneTime,
                ..claviger_mock::Settings::default()
            },
            assertions: None,
        };
        change(&mut setup);
        let clock = Arc::new(ManualClock::new());
        let world = Self {
            twitch: Arc::new(Twitch::new(setup.mock, Arc::clone(&clock))),
            clock,
            memory: Arc::new(MemoryStore::new()),
            provider: setup.provider,
            settings: setup.settings,
            assertions: setup.assertions,
            entropy: Arc::new(Seeded::new(7)),
        };
        let app = world.instance().await;
        (world, app)
    }

    /// Adds an engine on the same store, or restarts one.
    pub(crate) async fn instance(&self) -> Instance {
        self.instance_with(&[1]).await
    }

    /// Adds an engine with these keys, newest first.
    pub(crate) async fn instance_with(&self, keys: &[u32]) -> Instance {
        let faulty_store = Arc::new(FaultyStore::new(Arc::clone(&self.memory)));
        let engine = Engine::start(self.parts(Arc::clone(&faulty_store), keys)).await.unwrap();
        Instance { engine, faulty_store }
    }

    pub(crate) fn parts(&self, faulty_store: Arc<FaultyStore>, keys: &[u32]) -> Parts {
        Parts {
            store: faulty_store,
            http: Arc::clone(&self.twitch) as _,
            clock: Arc::clone(&self.clock) as _,
            entropy: Arc::clone(&self.entropy) as _,
            keyring: keyring(keys),
            provider: self.provider.clone(),
            settings: self.settings,
            webhook: None,
            assertions: self.assertions.clone(),
        }
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Moves only the clock.
    pub(crate) fn pass(&self, by: Duration) {
        self.clock.jump(by);
    }

    /// Lets tasks run that wait only for their turn, or for a timer within `by`.
    pub(crate) async fn run_for(&self, by: Duration) {
        tokio::time::sleep(by).await;
    }

    /// Lets spawned tasks settle.
    pub(crate) async fn rest(&self) {
        self.run_for(Duration::from_millis(1)).await;
    }

    /// Lets suspicions be noted, and investigates those that are due.
    pub(crate) async fn look_into_suspicions(&self, app: &Instance) -> usize {
        self.rest().await;
        app.investigate_suspicions().await.unwrap()
    }

    /// Returns the row as stored.
    pub(crate) async fn row(&self, id: SessionId) -> Session {
        self.memory.load(id).await.unwrap().expect("the row is there")
    }

    /// Returns why the row ended, if it did.
    pub(crate) async fn end_reason(&self, id: SessionId) -> Option<EndReason> {
        match self.row(id).await.state {
            State::Ended { reason, .. } => Some(reason),
            _ => None,
        }
    }

    /// Returns the number of pending revocations.
    pub(crate) async fn owed(&self) -> u64 {
        self.memory.backlog(Queue::Revocations).await.unwrap().count
    }

    /// Returns the access token of a row.
    pub(crate) async fn access_token(&self, id: SessionId) -> String {
        self.token_of(&self.row(id).await)
    }

    pub(crate) fn token_of(&self, row: &Session) -> String {
        let pair = row.pair().expect("the row holds a pair");
        let at =
            PairBinding { provider: &row.subject.provider, session: row.id, generation: pair.generation };
        keyring(&[1, 2]).open_access(at, &pair.access).unwrap().token.expose().to_owned()
    }

    /// Returns the app's own token, which all instances share.
    pub(crate) async fn app_token(&self) -> String {
        let entry = self.memory.shared_entry("app-token").await.unwrap().expect("there is one");
        let nobody = SessionId::from_bytes([0; 16]);
        let at = PairBinding { provider: &self.provider.name, session: nobody, generation: entry.version };
        let sealed = SealedBlob(entry.value[8..].to_vec());
        keyring(&[1, 2]).open_access(at, &sealed).unwrap().token.expose().to_owned()
    }

    /// Returns the refresh token of a row in the server's custody.
    pub(crate) fn refresh_token_of(&self, row: &Session) -> String {
        let pair = row.pair().expect("the row holds a pair");
        let at =
            PairBinding { provider: &row.subject.provider, session: row.id, generation: pair.generation };
        let sealed = pair.refresh.as_ref().expect("the pair has a refresh token");
        keyring(&[1, 2]).open_refresh(at, RefreshLock::Server, sealed).unwrap().expose().to_owned()
    }

    /// Sends the browser to the provider, where this user agrees at once.
    pub(crate) fn agree(&self, user: &str, started: &LoginStarted) -> Callback {
        self.twitch.mock().settings_mut().authorize_at_once_as = Some(user.to_owned());
        self.twitch.authorize(&started.location)
    }

    pub(crate) async fn sign_in(&self, app: &Instance, user: &str) -> Browser {
        self.sign_in_again(app, user, None).await.unwrap()
    }

    /// Signs in from a browser that may show an older session.
    pub(crate) async fn sign_in_again(
        &self,
        app: &Instance,
        user: &str,
        shown: Option<&SessionCookie>,
    ) -> Result<Browser, LoginError> {
        let started = app.begin_login(ReturnTo::root(), false);
        let callback = self.agree(user, &started);
        let signed_in = app.finish_login(callback, Some(&started.cookie), shown, "curl/8").await?;
        Ok(Browser::of(app, &signed_in))
    }

    /// Signs in on several devices, one second apart.
    pub(crate) async fn sign_in_on(&self, app: &Instance, devices: usize) -> Vec<Browser> {
        let mut browsers = Vec::new();
        for _ in 0..devices {
            browsers.push(self.sign_in(app, ADA).await);
            self.pass(SECOND);
        }
        browsers
    }

    /// Ends every failure of the provider and the instances' ways to it, and the backoff after the
    /// last one.
    pub(crate) fn mend(&self) {
        self.twitch.mend();
        self.pass(MINUTE);
    }

    /// Lets every backoff after a failure of the provider pass.
    pub(crate) fn wait_out(&self) {
        self.pass(limits::PROVIDER_PAUSE_MAX);
    }

    /// Lets the access token of every session expire.
    pub(crate) fn expire_tokens(&self) {
        self.pass(TOKEN_LIFE);
    }

    /// SPENT: checks that no spent refresh token was ever sent.
    pub(crate) fn assert_nothing_spent_twice(&self) {
        assert_eq!(self.twitch.mock().counters().reused_refresh_tokens, 0, "SPENT");
    }

    /// CASCADE: checks that this access token is dead at the provider after the outbox has run.
    pub(crate) async fn assert_revoked(&self, app: &Instance, token: &str) {
        self.rest().await;
        app.carry_out_revocations().await.unwrap();
        assert!(!self.twitch.lives(token), "CASCADE");
        assert_eq!(self.owed().await, 0, "CASCADE");
    }
}

impl Browser {
    pub(crate) fn of(app: &Engine, signed_in: &FinishedSignIn) -> Self {
        let value = signed_in.cookie.clone().expect("a new session comes with its cookie");
        Self {
            session: signed_in.session,
            cached: signed_in.cached_token_cookie.clone(),
            cookie: app.open_cookie(&value).unwrap(),
            value,
        }
    }

    /// Sends a request of this browser with assurance `session`.
    pub(crate) async fn asks(&self, app: &Engine) -> Result<Caller, Denied> {
        self.asks_with(app, Assurance::Session).await
    }

    pub(crate) async fn asks_with(&self, app: &Engine, assurance: Assurance) -> Result<Caller, Denied> {
        app.authenticate(self.cookie.clone(), assurance).await
    }

    /// Gets the access token for a call of this browser.
    pub(crate) async fn grant(&self, app: &Engine) -> Result<Grant, Denied> {
        app.grant(&self.cookie, None, Presence::Active).await
    }
}

pub(crate) fn subject(user: &str) -> Subject {
    Subject { provider: ProviderName("twitch".to_owned()), id: user.to_owned() }
}

pub(crate) fn keyring(keys: &[u32]) -> Keyring {
    let root = |id: &u32| RootKey::new(KeyId(*id), [u8::try_from(*id).unwrap(); 32]);
    Keyring::new(keys.iter().map(root).collect()).unwrap()
}

pub(crate) fn code(value: &str) -> AuthorizationCode {
    AuthorizationCode::new(value)
}

pub(crate) fn custody(custody: Custody) -> impl FnOnce(&mut Setup) {
    move |setup| setup.settings.custody = custody
}

pub(crate) fn habits(habits: ProviderHabits) -> impl FnOnce(&mut Setup) {
    move |setup| setup.provider.habits = habits
}

/// Returns whether the request failed because of the provider or the store, without signing the
/// user out.
pub(crate) fn passing<T>(outcome: &Result<T, Denied>) -> bool {
    matches!(outcome, Err(Denied::ProviderUnavailable { .. } | Denied::Misconfigured | Denied::Store(_)))
}
