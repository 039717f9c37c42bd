//! Carries out what the rules decide: load a row, let [`claviger_core`] decide, commit by
//! compare-and-set, then act.
//!
//! [`Engine`] is a facade over parts. Each part owns its fields and takes the parts that it needs
//! in its constructor, so its signature says what it depends on. `wiring.rs` makes them in order,
//! and a part uses only parts that are made before it. ARCHITECTURE.md has the table of parts, at
//! "The parts of the engine".
//!
//! Below the parts stand helpers: `breaker`, `budget` (shares of
//! clients), `by_session` (bounded caches), `errors`, `lock`,
//! `log_throttle`, `metrics`, `part` (declares parts), `ports` (what the engine needs of the
//! world), `retry`, `settings` and `singleflight`. Above them stand `wiring`, `background` (the
//! table of jobs), `report` and `engine`.
//!
//! Several engines may share one store. No lock of this process is needed for correctness; what is
//! shared within the process only saves work.
//!
//! # How to add
//!
//! - **A part**: a module with a struct that `part!` declares: what it needs, mostly an `Env` and
//!   other parts, and what it owns. Make it in `wiring.rs`, add it to the table in ARCHITECTURE.md,
//!   and delegate its public calls in `engine.rs`. If two parts need each other, move what both use
//!   into a part below them.
//! - **A background job**: a method of a part that does the work once, and one line in `JOBS` of
//!   `background.rs`. The part must be a field of `Wiring`.
//! - **A metric**: an entry in the table `metrics!` and a function, both in `metrics.rs`; call the
//!   function where the thing happens. Then run `cargo test -p claviger-gateway --lib metrics`,
//!   which rewrites `docs/metrics.md`.
//! - **A setting of the engine**: a field of [`Settings`], with the same default as the gateway's
//!   setting, which passes it on in its `config/derived.rs`. What no engine can work with is
//!   refused in `settings.rs`.
//! - **A rule**: not here. Rules are pure functions of [`claviger_core`].

mod app_token;
mod assertions;
mod authenticator;
mod background;
mod breaker;
mod budget;
mod by_session;
mod change_feed;
mod checked_clock;
mod client;
mod clock_watch;
mod control_user;
mod destinations;
mod disconnects;
mod engine;
mod env;
mod errors;
mod housekeeping;
mod jobs_watch;
mod keys;
mod last_seen;
mod lock;
mod log_throttle;
mod metrics;
mod outbox;
mod part;
mod ports;
mod provider_client;
mod refresher;
mod report;
mod resealer;
mod retry;
mod rows;
mod settings;
mod sign_ins;
mod sign_out;
mod singleflight;
mod slots;
mod store_health;
mod sweep;
mod validator;
mod wiring;

pub use self::metrics::{METRICS, Metric, MetricKind, RENAMED as RENAMED_METRICS};
pub use app_token::AppGrant;
pub use assertions::{Assertion, AssertionSettings};
pub use authenticator::{AtOnce, Caller};
pub use client::HttpClient;
pub use disconnects::{
    subscription::{Subscribed, WebhookSettings},
    webhook_events::{WebhookError, WebhookReply},
};
pub use engine::Engine;
pub use errors::{Denied, DestinationError, EndError, LoginError, StartError};
pub use keys::{CookieUse, Grant, KeyRole, KeyRows, KeysRefused, SealedRows};
pub use log_throttle::LogThrottle;
pub use ports::{Clock, Entropy, OsEntropy, ProviderHttp, SystemClock};
pub use report::{Breakers, Report};
pub use resealer::Resealing;
pub use rows::Ending;
pub use settings::{Settings, SettingsError, Sweep, registration_problems};
pub use sign_ins::{Callback, FinishedSignIn, LoginStarted, login_cookie_suffix};
pub use sign_out::Target;
pub use store_health::{Failing, StoreState};
pub use sweep::load::Load;
pub use wiring::Parts;

// The parts, and what several of them use, for the modules of this crate.
use app_token::{AppToken, NoToken};
use assertions::Assertions;
use authenticator::Authenticator;
use breaker::SharedBreaker;
use budget::SharedBudget;
use by_session::BySession;
use change_feed::ChangeFeed;
use checked_clock::CheckedClock;
use clock_watch::ClockWatch;
use control_user::ControlUser;
use destinations::Destinations;
use disconnects::{
    Disconnects, connection_checks::ConnectionChecks, connection_sweep::ConnectionSweep,
    subscription::Subscriber, webhook_events::WebhookEvents,
};
use env::Env;
use housekeeping::Housekeeping;
use keys::Keys;
use last_seen::LastSeen;
use lock::Lock;
use log_throttle::LogThrottles;
use outbox::Outbox;
use provider_client::{Answered, ProviderClient};
use refresher::Refresher;
use resealer::Resealer;
use rows::{ReadFrom, Rows, Updated};
use sign_ins::SignIns;
use sign_out::SignOut;
use singleflight::Singleflight;
use slots::Slots;
use sweep::load::LoadMeter;
use validator::{Asked, ForWhom, Validated, Validator, rate_limit::SharedRateLimit};
use wiring::Wiring;
