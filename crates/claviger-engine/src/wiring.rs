//! Wires the parts: makes each with the parts that it needs, the lowest first.

use std::sync::Arc;

use claviger_provider::Provider;
use claviger_seal::Keyring;
use claviger_store::{Store, StoreError};

use crate::{
    AppToken, AssertionSettings, Assertions, Authenticator, ChangeFeed, CheckedClock, Clock, ClockWatch,
    ConnectionChecks, ConnectionSweep, ControlUser, Destinations, Disconnects, Entropy, Env, Housekeeping,
    Keys, LastSeen, LoadMeter, Outbox, ProviderClient, ProviderHttp, Refresher, Resealer, Rows, Settings,
    SharedRateLimit, SignIns, SignOut, Slots, Subscriber, Validator, WebhookEvents, WebhookSettings,
    change_feed::trusted_at_start, store_health::WatchedStore, sweep::Sweep,
};

/// What the engine works with.
pub struct Parts {
    /// Where sessions are kept.
    pub store: Arc<dyn Store>,
    /// The way to the provider.
    pub http: Arc<dyn ProviderHttp>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Random bytes.
    pub entropy: Arc<dyn Entropy>,
    /// The server's keys at the start. `Engine::use_keys` replaces them.
    pub keyring: Keyring,
    /// The provider that users sign in with.
    pub provider: Provider,
    /// What the operator decided.
    pub settings: Settings,
    /// Where the provider sends its webhook events, if it is to send any.
    pub webhook: Option<WebhookSettings>,
    /// For whom assertions are signed, if any are.
    pub assertions: Option<AssertionSettings>,
}

/// The engine's parts.
pub(crate) struct Wiring {
    pub(crate) env: Env,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) store_health: Arc<WatchedStore>,
    pub(crate) clock_watch: Arc<ClockWatch>,
    pub(crate) provider: Arc<ProviderClient>,
    pub(crate) rows: Arc<Rows>,
    pub(crate) change_feed: ChangeFeed,
    pub(crate) last_seen: Arc<LastSeen>,
    pub(crate) keys: Arc<Keys>,
    pub(crate) app_token: Arc<AppToken>,
    pub(crate) resealer: Arc<Resealer>,
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) validator: Arc<Validator>,
    pub(crate) disconnects: Arc<Disconnects>,
    pub(crate) connection_sweep: Arc<ConnectionSweep>,
    pub(crate) webhook_events: Arc<WebhookEvents>,
    pub(crate) subscriber: Arc<Subscriber>,
    pub(crate) refresher: Arc<Refresher>,
    pub(crate) sweep: Arc<Sweep>,
    pub(crate) load: Arc<LoadMeter>,
    pub(crate) sign_ins: Arc<SignIns>,
    pub(crate) sign_out: Arc<SignOut>,
    pub(crate) destinations: Arc<Destinations>,
    pub(crate) authenticator: Arc<Authenticator>,
    pub(crate) assertions: Arc<Assertions>,
    pub(crate) housekeeping: Arc<Housekeeping>,
}

impl Wiring {
    pub(crate) async fn new(parts: Parts) -> Result<Self, StoreError> {
        let Parts { store, http, clock, entropy, keyring, provider, settings, webhook, assertions } = parts;
        let store_health = WatchedStore::new(store, clock.clone(), settings.store_wait);
        let store: Arc<dyn Store> = store_health.clone();
        let env = Env::new(clock, entropy, settings);
        let clock_watch = ClockWatch::new(env.clone());
        let provider = ProviderClient::new(env.clone(), clock_watch.clone(), http, provider);
        let clock = CheckedClock::new(&env, &clock_watch, &provider);
        let feed = store.change_feed();
        let rows = Rows::open(env.clone(), store.clone(), trusted_at_start(&feed)).await?;
        let last_seen = LastSeen::new(&env, &store);
        let keys = Keys::new(env.clone(), store.clone(), rows.clone(), provider.clone(), keyring);
        let assertions = Assertions::open(&env, &store, &keys, &clock, assertions).await?;
        let app_token = AppToken::new(&env, &store, &keys, &provider);
        let resealer = Resealer::new(&env, &store, &rows, &keys, &app_token, &assertions);
        let outbox = Outbox::new(&env, &store, &rows, &keys, &clock, &provider);
        let control_user = ControlUser::new(&env, &store, &provider);
        let rate_limit = SharedRateLimit::new(&env, &store);
        let validator = Validator::new(&env, &rows, &keys, &provider, &control_user, &rate_limit);

        let slots = Slots::new(&env, &store);
        let checks = ConnectionChecks::new(&provider, &app_token, &control_user);
        let disconnects = Disconnects::new(&env, &store, &rows, &clock, &validator, &checks);
        let connection_sweep =
            ConnectionSweep::new(&env, &rows, &clock, &slots, &provider, &checks, &disconnects);
        let subscriber = Subscriber::new(&env, &store, &webhook, &provider, &app_token);
        let webhook_events = WebhookEvents::new(&env, &webhook, &provider, &disconnects, &subscriber);

        let refresher = Refresher::new(
            &env,
            &rows,
            &keys,
            &clock,
            &provider,
            &outbox,
            &control_user,
            &validator,
            &disconnects,
        );
        Ok(Self {
            assertions,
            sign_ins: SignIns::new(&env, &store, &rows, &keys, &clock, &outbox, &provider, &control_user),
            destinations: Destinations::new(&env, &store),
            sign_out: SignOut::new(&env, &rows, &keys, &clock),
            authenticator: Authenticator::new(
                &env, &rows, &keys, &clock, &provider, &last_seen, &validator, &refresher,
            ),
            housekeeping: Housekeeping::new(&env, &store, &rows, &clock, &last_seen),
            load: LoadMeter::new(&env, &store, &provider, &rate_limit),
            sweep: Sweep::new(&env, &rows, &slots, &validator, &disconnects, &refresher),
            env,
            store,
            store_health,
            clock_watch,
            provider,
            change_feed: ChangeFeed::new(rows.clone(), feed),
            rows,
            last_seen,
            keys,
            app_token,
            resealer,
            outbox,
            validator,
            disconnects,
            connection_sweep,
            webhook_events,
            subscriber,
            refresher,
        })
    }
}
