//! An app in memory: the routes, their engine, a store, a provider, and a clock under control.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use axum::{Router, body::Body};
use claviger_axum::{Claviger, Site};
use claviger_core::{ClientSecret, EndReason, SessionId, Timestamp};
use claviger_engine::{
    AssertionSettings, Clock, Engine, OsEntropy, Parts, Settings, Target, WebhookSettings,
};
use claviger_mock::{DEMO_CLIENT_ID, DEMO_CLIENT_SECRET};
use claviger_provider::{Registration, WebhookSecret, twitch};
use claviger_seal::{KeyId, Keyring, RootKey};
use claviger_store::{MemoryStore, Queue, Store, StoreError};
use http::Request;
use tower::ServiceExt as _;

use crate::{answer::Answer, browser::Browser, twitch::Twitch};

pub(crate) const ORIGIN: &str = "https://app.example";
/// The secret of the provider's webhook signatures.
pub(crate) const WEBHOOK_SECRET: &str = "canary-of-the-webhook";
pub(crate) const START: Timestamp = Timestamp::from_millis(1_800_000_000_000);
/// Lifetime of the mock's access tokens.
pub(crate) const TOKEN_LIFE: Duration = Duration::from_secs(14_000);
pub(crate) const SECOND: Duration = Duration::from_secs(1);
pub(crate) const MINUTE: Duration = Duration::from_secs(60);
pub(crate) const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A clock that follows tokio's time, and jumps when a test says so.
pub(crate) struct ManualClock {
    begun: tokio::time::Instant,
    jumped_ms: AtomicI64,
}

impl ManualClock {
    #[expect(clippy::disallowed_methods, reason = "tokio's paused time is part of the clock of tests")]
    fn new() -> Self {
        Self { begun: tokio::time::Instant::now(), jumped_ms: AtomicI64::new(0) }
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        let jumped = self.jumped_ms.load(Ordering::SeqCst);
        Timestamp::from_millis(START.as_millis() + jumped).after(self.begun.elapsed())
    }
}

/// What a test can change before the app starts.
pub(crate) struct Setup {
    pub(crate) site: Site,
    pub(crate) settings: Settings,
    /// Ids of the server's keys, newest first.
    pub(crate) keys: Vec<u32>,
    /// Whether the provider sends webhook events.
    pub(crate) webhook: bool,
    /// For whom assertions are signed.
    pub(crate) assertions: Option<AssertionSettings>,
    /// Wraps the routes into an app.
    pub(crate) pages: fn(&Claviger) -> Router,
}

/// The app and its surroundings.
pub(crate) struct App {
    pub(crate) claviger: Claviger,
    pub(crate) store: Arc<MemoryStore>,
    pub(crate) twitch: Arc<Twitch>,
    clock: Arc<ManualClock>,
    router: Router,
}

impl App {
    /// Starts the routes alone, with the default settings.
    pub(crate) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut Setup)) -> Self {
        let mut setup = Setup {
            site: Site::new(ORIGIN),
            settings: Settings::default(),
            keys: vec![1],
            webhook: true,
            assertions: None,
            pages: |claviger| claviger.routes().merge(claviger.health_routes()),
        };
        change(&mut setup);
        let clock = Arc::new(ManualClock::new());
        let redirect_uri = format!("{}/auth/callback", setup.site.origin);
        let twitch = Arc::new(Twitch::new(&redirect_uri, Arc::clone(&clock)));
        Self::over(setup, Arc::new(MemoryStore::new()), twitch, clock).await
    }

    /// Returns the same app after a restart with other keys.
    pub(crate) async fn restarted_with_keys(&self, keys: &[u32]) -> Self {
        let setup = Setup {
            site: self.claviger.site().clone(),
            settings: *self.claviger.engine().settings(),
            keys: keys.to_vec(),
            webhook: self.claviger.engine().wants_webhook_events(),
            assertions: None,
            pages: |claviger| claviger.routes().merge(claviger.health_routes()),
        };
        Self::over(setup, Arc::clone(&self.store), Arc::clone(&self.twitch), Arc::clone(&self.clock)).await
    }

    async fn over(
        setup: Setup,
        store: Arc<MemoryStore>,
        twitch: Arc<Twitch>,
        clock: Arc<ManualClock>,
    ) -> Self {
        let redirect_uri = format!("{}/auth/callback", setup.site.origin);
        let secret = ClientSecret::new(DEMO_CLIENT_SECRET);
        let scopes = vec!["user:read:email".to_owned()];
        let registration = Registration::new(DEMO_CLIENT_ID, secret, redirect_uri, scopes);
        let root = |id: &u32| RootKey::new(KeyId(*id), [u8::try_from(*id).unwrap(); 32]);
        let engine = Engine::start(Parts {
            store: Arc::clone(&store) as _,
            http: Arc::clone(&twitch) as _,
            clock: Arc::clone(&clock) as _,
            entropy: Arc::new(OsEntropy),
            keyring: Keyring::new(setup.keys.iter().map(root).collect()).unwrap(),
            provider: twitch::PRESET.mock_at(&"http://mock.test/".parse().unwrap(), registration),
            settings: setup.settings,
            webhook: setup.webhook.then(|| WebhookSettings {
                callback: format!("{ORIGIN}/auth/webhook").parse().unwrap(),
                secret: WebhookSecret::new(WEBHOOK_SECRET).unwrap(),
            }),
            assertions: setup.assertions,
        })
        .await
        .unwrap();
        let claviger = Claviger::new(engine, setup.site);
        let router = (setup.pages)(&claviger);
        Self { claviger, store, twitch, clock, router }
    }

    /// Answers a request, and checks what must hold for every answer.
    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        let asked = format!("{} {}", request.method(), request.uri());
        let path = request.uri().path().to_owned();
        let response = self.router.clone().oneshot(request).await.unwrap();
        let answer = Answer::of(response).await;
        answer.assert_sound(&asked, &path);
        answer
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Moves the clock.
    pub(crate) fn pass(&self, by: Duration) {
        self.clock.jumped_ms.fetch_add(i64::try_from(by.as_millis()).unwrap(), Ordering::SeqCst);
    }

    /// Changes the keys while the app runs.
    pub(crate) async fn uses_keys(&self, keys: &[u32]) {
        let root = |id: &u32| RootKey::new(KeyId(*id), [u8::try_from(*id).unwrap(); 32]);
        let keyring = Keyring::new(keys.iter().map(root).collect()).unwrap();
        self.claviger.engine().use_keys(keyring).await.unwrap();
    }

    /// Makes every store call fail, or work again.
    pub(crate) fn store_fails(&self, fails: bool) {
        self.store.fail_with(fails.then(|| StoreError::Unavailable("a test".to_owned())));
    }

    /// Lets access tokens expire, and makes every refresh fail.
    pub(crate) fn provider_fails_when_needed(&self) {
        self.pass(TOKEN_LIFE);
        self.twitch.breaks(claviger_mock::Endpoint::Token, 503);
    }

    /// Returns why a session ended, if it did.
    pub(crate) async fn end_reason(&self, session: SessionId) -> Option<EndReason> {
        match self.store.load(session).await.unwrap().unwrap().state {
            claviger_core::session::State::Ended { reason, .. } => Some(reason),
            _ => None,
        }
    }

    /// Returns when a session was last used, by its row.
    pub(crate) async fn last_seen(&self, session: SessionId) -> Timestamp {
        self.store.load(session).await.unwrap().unwrap().last_seen_at
    }

    /// Returns the number of pending revocations.
    pub(crate) async fn store_owed(&self) -> u64 {
        self.store.backlog(Queue::Revocations).await.unwrap().count
    }

    /// Ends a session for any reason.
    pub(crate) async fn end(&self, session: SessionId, reason: EndReason) {
        self.claviger.engine().end(Target::One(session), reason).await.unwrap();
    }

    /// Returns a browser in which this user is signed in.
    pub(crate) async fn signed_in(&self, user: &str) -> Browser {
        let mut browser = Browser::new();
        browser.signs_in(self, user).await;
        browser
    }
}
