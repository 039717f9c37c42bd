//! Carries out what the rules decide: load a row, let [`claviger_core`] decide, commit by compare-and-set, then act.
//!
//! | module | what it does |
//! |---|---|
//! | `login` | begins a sign-in, and finishes it with a new session |
//! | `authenticate` | says who is calling and whether the session is still good; hands on the access token |
//! | `refresh` | replaces a pair: claim, send once, commit |
//! | `repair` | gives a session a new pair by a new authorization, where no refresh can |
//! | `prove` | asks the provider about an access token |
//! | `sweep`, `turns` | the hourly validation of every live token, within a budget that instances share |
//! | `visits` | leases on slots, and the order of visits to them |
//! | `disconnect`, `notices` | whether a user disconnected the app: suspicions, the probe, the provider's webhook |
//! | `app_token` | the app's own access token, shared by all instances |
//! | `load` | how much the sweep has to do, and whether its budget suffices |
//! | `report` | how things are, for metrics and for people |
//! | `ending` | ends sessions because somebody asked, or their time is over |
//! | `hearing` | what other instances change |
//! | `outbox` | carries out the revocations that are owed |
//! | `keys`, `reseal` | the keys in force, and what older ones sealed is sealed anew |
//! | `background` | writes down uses, ends what is overdue, purges tombstones |
//! | `known` | what memory holds of sessions: a bounded cache, and the list of those whose cookie alone is not believed |
//! | `by_session` | the bounded caches |
//! | `breaker`, `pauses` | leave a provider alone that is in trouble, and a session whose refresh came to nothing |
//! | `meter` | what is counted and measured |
//! | `ports` | what the engine needs of the world: a clock, random bytes, a way to the provider |
//!
//! Several engines may share one store: no lock of this process is needed for correctness. What is shared within the
//! process (flights, cache) only saves work.

mod amend;
mod app_token;
mod authenticate;
mod background;
mod breaker;
mod by_session;
mod client;
mod disconnect;
mod ending;
mod errors;
mod flights;
mod hearing;
mod keys;
mod known;
mod load;
mod login;
mod meter;
mod notices;
mod outbox;
mod pauses;
mod ports;
mod prove;
mod refresh;
mod repair;
mod report;
mod reseal;
mod sweep;
mod touches;
mod turns;
mod visits;
mod witness;

use std::{
    sync::{Arc, Mutex, atomic::AtomicUsize},
    time::Duration,
};

use claviger_core::{
    breaker::BreakerState,
    ids::SessionId,
    pacer::{Budget, Pacer},
    policy::{Cascade, Custody, Lifetimes, limits},
    time::Timestamp,
};
use claviger_provider::Provider;
use claviger_seal::{Keyring, Nonce};
use claviger_store::{Store, StoreError};
use tokio::sync::{Notify, Semaphore, broadcast};
use tokio_util::task::TaskTracker;

pub use authenticate::{Caller, Grant};
pub use client::HttpClient;
pub use ending::{Ending, Target};
pub use errors::{Denied, EndError, LoginError};
pub use keys::{KeyRole, KeyRows, KeysRefused, Rows};
pub use load::Load;
pub use login::{Callback, LoginStarted, SignedIn, login_tag};
pub use meter::{Kind as MetricKind, METRICS, Metric};
pub use notices::{NoticeError, NoticeSettings, NoticeTaken};
pub use ports::{Clock, Entropy, OsEntropy, ProviderHttp, SystemClock};
pub use report::{Report, Subscribed};
pub use reseal::Resealing;

use app_token::AppToken;
use breaker::SharedBreaker;
use disconnect::Probes;
use flights::Flights;
use hearing::Hearing;
use keys::InForce;
use known::Known;
use load::Measured;
use pauses::Pauses;
use report::LastSubscribed;
use touches::Touches;
use turns::Turns;

/// What an operator decides. The defaults are safe.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How long sessions and proofs live.
    pub lifetimes: Lifetimes,
    /// Who can open a refresh token of a session that begins now.
    pub custody: Custody,
    /// So many devices may a user have; the one used least recently makes room.
    pub devices_per_user: u32,
    /// Whether the browser also carries its access token, sealed, as a hint that saves reading the store.
    pub carry_access_token: bool,
    /// So many sessions are kept in memory.
    pub cached_sessions: usize,
    /// So many refreshes are sent in a second in the long run, and twice as many at once after a pause.
    pub refreshes_per_second: u32,
    /// How tokens are validated.
    pub sweep: Sweep,
    /// What a dead token of one session means for the user's others.
    pub cascade: Cascade,
}

/// How tokens are validated that nobody uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sweep {
    /// Every live session's token is validated once in this time.
    pub period: Duration,
    /// So many validations are sent in a second at most, by all instances together.
    pub validations_per_second: u32,
    /// Whether pairs in the server's custody are refreshed before they expire, though nobody uses them. Others are parked.
    pub keep_alive: bool,
    /// Each user without a living token is asked about once in this time.
    pub probe_period: Duration,
}

impl Default for Sweep {
    fn default() -> Self {
        Self {
            period: limits::SWEEP_PERIOD,
            validations_per_second: limits::VALIDATIONS_PER_SECOND,
            keep_alive: false,
            probe_period: limits::PROBE_PERIOD,
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            lifetimes: Lifetimes::default(),
            custody: Custody::Device,
            devices_per_user: limits::DEVICES_PER_USER,
            carry_access_token: false,
            cached_sessions: limits::CACHED_SESSIONS,
            refreshes_per_second: limits::REFRESHES_PER_SECOND,
            sweep: Sweep::default(),
            cascade: Cascade::default(),
        }
    }
}

/// Which kinds of questions the provider is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Breakers {
    /// Refreshes.
    pub refreshes: BreakerState,
    /// Questions about access tokens.
    pub proofs: BreakerState,
}

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
    /// The server's keys, to begin with: see [`Engine::use_keys`].
    pub keyring: Keyring,
    /// Whom users sign in with.
    pub provider: Provider,
    /// What the operator decided.
    pub settings: Settings,
    /// Where the provider sends its notices, if it is to send any.
    pub notices: Option<NoticeSettings>,
}

/// Those of the [`Parts`] that stay as they are.
struct FixedParts {
    store: Arc<dyn Store>,
    http: Arc<dyn ProviderHttp>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    settings: Settings,
    notices: Option<NoticeSettings>,
}

/// Keeps the sessions of one app. Cheap to clone; all clones are the same engine.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

struct Inner {
    parts: FixedParts,
    in_force: InForce,
    known: Known,
    touches: Touches,
    refreshes: Flights<refresh::Outcome>,
    /// Claims that were not sent are taken back. Meanwhile the session is not claimed again, so that no two of these are under way.
    releases: Flights<()>,
    proofs: Flights<prove::Outcome>,
    /// Of questions about access tokens.
    proof_breaker: SharedBreaker,
    refresh_breaker: SharedBreaker,
    refresh_pacer: Mutex<Pacer>,
    refresh_pauses: Pauses,
    /// Sign-ins that may ask the provider at the same time: anybody can begin one.
    sign_ins: Semaphore,
    /// Tokens that the sweep asks about at the same time.
    validating: Semaphore,
    /// Refreshes that the sweep begins at the same time: whoever somebody waits for shares their budget.
    refreshing: Semaphore,
    /// So many rows the slot had that was validated last.
    rows_in_slot: AtomicUsize,
    tasks: TaskTracker,
    turns: Turns,
    app_token: AppToken,
    probes: Probes,
    measured: Measured,
    last_subscribed: LastSubscribed,
    owed: Notify,
    /// A suspicion was noted.
    suspected: Notify,
    /// The provider ended the subscription to its notices.
    unsubscribed: Notify,
    /// Writes that may have ended sessions unheard, since the store was last asked which ended.
    unheard_endings: AtomicUsize,
    ended: broadcast::Sender<Ending>,
    hearing: Hearing,
}

impl Engine {
    /// Makes an engine, and learns from the store which sessions ended lately.
    ///
    /// # Errors
    /// If the store cannot be read and written.
    pub async fn start(parts: Parts) -> Result<Self, StoreError> {
        let Parts { store, http, clock, entropy, keyring, provider, settings, notices } = parts;
        let parts = FixedParts { store, http, clock, entropy, settings, notices };
        parts.store.check().await?;
        let (hearing, trusted_until) = Hearing::of(parts.store.others());
        let known = Known::new(parts.settings.cached_sessions, trusted_until);
        known.distrust_all(parts.store.distrusted(limits::DISTRUSTED_SESSIONS).await?);
        let tasks = TaskTracker::new();
        let inner = Inner {
            in_force: InForce::new(keyring, provider),
            known,
            touches: Touches::new(parts.settings.cached_sessions),
            refreshes: Flights::new(tasks.clone()),
            releases: Flights::new(tasks.clone()),
            proofs: Flights::new(tasks.clone()),
            proof_breaker: SharedBreaker::default(),
            refresh_breaker: SharedBreaker::default(),
            refresh_pacer: Mutex::new(Pacer::new(Budget::per_second(parts.settings.refreshes_per_second))),
            refresh_pauses: Pauses::new(),
            sign_ins: Semaphore::new(limits::SIGN_INS_AT_ONCE),
            validating: Semaphore::new(limits::VALIDATIONS_AT_ONCE),
            refreshing: Semaphore::new(limits::UNASKED_REFRESHES_AT_ONCE),
            rows_in_slot: AtomicUsize::new(0),
            tasks,
            turns: Turns::default(),
            app_token: AppToken::default(),
            probes: Probes::default(),
            measured: Measured::default(),
            last_subscribed: LastSubscribed::default(),
            owed: Notify::new(),
            suspected: Notify::new(),
            unsubscribed: Notify::new(),
            unheard_endings: AtomicUsize::new(0),
            ended: broadcast::channel(limits::ENDINGS_BUFFERED).0,
            hearing,
            parts,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Whom users sign in with, and our credentials there as they are now.
    pub fn provider(&self) -> Arc<Provider> {
        self.inner.in_force.provider.load_full()
    }

    /// What the operator decided.
    pub fn settings(&self) -> &Settings {
        &self.inner.parts.settings
    }

    /// The store, for health checks and lists.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.inner.parts.store
    }

    /// The time.
    pub fn now(&self) -> Timestamp {
        self.inner.parts.clock.now()
    }

    /// Where the breakers stand: for refreshes, and for questions about access tokens.
    pub fn breakers(&self) -> Breakers {
        let now = self.now();
        Breakers {
            refreshes: self.inner.refresh_breaker.state(now),
            proofs: self.inner.proof_breaker.state(now),
        }
    }

    /// Tells of each session that ends, so that open streams of it can be closed. A receiver that fell behind is told
    /// so and must take every session for ended until it has asked.
    pub fn endings(&self) -> broadcast::Receiver<Ending> {
        self.inner.ended.subscribe()
    }

    /// Whether the session may have ended: it did, is suspect, or is too old for memory to know.
    pub fn doubts(&self, session: SessionId) -> bool {
        self.inner.known.distrusts(session)
    }

    /// The keys as they are now. On the way of every request: neither a lock nor an allocation. Not to be held while waiting.
    pub(crate) fn keyring(&self) -> arc_swap::Guard<Arc<Keyring>> {
        self.inner.in_force.keyring.load()
    }

    pub(crate) fn nonce(&self) -> Nonce {
        self.random()
    }

    pub(crate) fn random<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        self.inner.parts.entropy.fill(&mut bytes);
        bytes
    }
}
