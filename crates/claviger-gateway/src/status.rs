//! The answer to `GET /status` on the metrics socket, which `claviger status` prints.

use std::time::Duration;

use claviger_core::{BreakerState, ClockState, Timestamp};
use claviger_engine::{CookieUse, KeyRows, Load, Report, Resealing, Subscribed};
use serde::{Deserialize, Serialize};

/// The state of a gateway.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The gateway's version.
    pub version: String,
    /// What fails at the session store, if anything does. The release before does not say it.
    #[serde(default)]
    pub store_fails: Vec<StoreFails>,
    /// What the operator must mend at the session store although it works.
    #[serde(default)]
    pub store_trouble: Option<String>,
    /// The sessions and the sweep. None before the first count.
    pub counted: Option<Counted>,
    /// Revocations that the provider has not confirmed yet. None if the store cannot be read.
    pub revocations_owed: Option<u64>,
    /// The age of the oldest of them.
    pub oldest_owed_seconds: Option<u64>,
    /// Whether refreshes are sent to the provider.
    pub refreshes: Asked,
    /// Whether validations are sent to the provider.
    pub validations: Asked,
    /// The state of the webhook subscription.
    pub webhook: Webhook,
    /// The key that seals, and what older ones sealed.
    pub keys: Keys,
    /// The clock. The release before does not tell of it.
    pub clock: Option<Clock>,
}

/// The gateway's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clock {
    /// Whether the provider's time confirms it.
    pub confirmed: bool,
    /// How far the provider's clock is ahead, in seconds; less than zero if it is behind. Zero if
    /// they agree, and None if the provider has not named its time since the start or the last
    /// jump.
    pub provider_ahead_seconds: Option<i64>,
    /// Jumps since the start.
    pub jumps: u64,
    /// How far it jumped last, in seconds; less than zero if back.
    pub last_jump_seconds: Option<i64>,
    /// How long ago that was.
    pub last_jump_seconds_ago: Option<u64>,
}

/// A kind of calls to the session store that fails.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StoreFails {
    /// `read` or `write`.
    pub access: String,
    /// For how long.
    pub seconds: u64,
    /// The last error, in words.
    pub error: String,
}

/// The key that seals, and what older ones sealed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Keys {
    /// The key that seals.
    pub sealing: u32,
    /// Keys of the keyring that are older than that one.
    pub older_keys: u32,
    /// Rows that these sealed, at the last count.
    pub older_rows: Option<u64>,
    /// Rows that this gateway sealed again since its start.
    pub resealed: u64,
    /// Progress of the round through all rows, in thousandths. None if this gateway runs no round.
    pub round_permille: Option<u16>,
}

/// A key with the number of rows that it sealed, as `GET /keys` on the metrics socket answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Key {
    /// Its id.
    pub id: u32,
    /// Its role: `next`, `seals`, `older` or `missing`.
    pub role: String,
    /// Sessions that need it.
    pub sessions: u64,
    /// Pending revocations that need it.
    pub owed: u64,
    /// Until when browsers may show cookies that it sealed, in Unix seconds. None if they may not,
    /// or if that is not known.
    #[serde(default)]
    pub cookies_until: Option<i64>,
    /// Whether nothing needs it any more, so it may be removed.
    #[serde(default)]
    pub may_go: bool,
}

impl From<KeyRows> for Key {
    fn from(key: KeyRows) -> Self {
        let KeyRows { key: id, role, rows, cookies } = key;
        Self {
            id: id.0,
            role: role.name().to_owned(),
            sessions: rows.sessions,
            owed: rows.revocations,
            cookies_until: match cookies {
                CookieUse::Until(at) => Some(at.as_millis() / 1_000),
                CookieUse::Unknown | CookieUse::Over => None,
            },
            may_go: key.may_go(),
        }
    }
}

impl From<Resealing> for Keys {
    fn from(resealing: Resealing) -> Self {
        let Resealing { sealing, older_keys, left, done, round_permille } = resealing;
        let older_rows = left.map(claviger_engine::SealedRows::count);
        Self { sealing: sealing.0, older_keys, older_rows, resealed: done, round_permille }
    }
}

/// What is counted once a minute, since it means to go through all sessions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names say it; docs/metrics.md has them in words")]
pub struct Counted {
    pub seconds_ago: u64,
    pub live: u64,
    pub parked: u64,
    pub suspect: u64,
    // The release before tells these two elsewhere.
    pub refreshes_in_flight: Option<u64>,
    pub refreshes_ambiguous: Option<u64>,
    pub oldest_proof_seconds: Option<u64>,
    pub sweep_lag_seconds: u64,
    pub budget_per_second: f64,
    pub allowed_per_second: f64,
    pub needed_per_second: f64,
    pub sufficient_per_second: f64,
    pub budget_suffices: bool,
}

/// Whether requests are sent to the provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Asked {
    /// They are.
    Yes,
    /// One request, to try whether the provider is back.
    OneRequest,
    /// None for a moment, because the provider fails.
    No,
}

/// The state of the webhook subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Webhook {
    /// There is no secret in the configuration.
    NotConfigured,
    /// The provider has not answered yet.
    Waiting,
    /// The provider refuses the subscription.
    Refused,
    /// Another instance subscribed with another secret or address.
    OtherSettings,
    /// The subscription works.
    Subscribed,
}

impl From<BreakerState> for Asked {
    fn from(state: BreakerState) -> Self {
        match state {
            BreakerState::Closed => Self::Yes,
            BreakerState::HalfOpen => Self::OneRequest,
            BreakerState::Open => Self::No,
        }
    }
}

impl From<Subscribed> for Webhook {
    fn from(subscribed: Subscribed) -> Self {
        match subscribed {
            Subscribed::Unwanted => Self::NotConfigured,
            Subscribed::Waiting => Self::Waiting,
            Subscribed::Refused => Self::Refused,
            Subscribed::Elsewhere => Self::OtherSettings,
            Subscribed::Works => Self::Subscribed,
        }
    }
}

impl From<&Report> for Status {
    fn from(report: &Report) -> Self {
        let since = |at| report.now.since(at);
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            store_fails: StoreFails::of(report),
            store_trouble: report.store.trouble.clone(),
            counted: report.load.as_ref().map(|load| Counted::of(load, since(load.now))),
            revocations_owed: report.outbox.map(|outbox| outbox.count),
            oldest_owed_seconds: report.outbox.and_then(|outbox| outbox.oldest).map(|at| since(at).as_secs()),
            refreshes: report.breakers.refreshes.into(),
            validations: report.breakers.proofs.into(),
            webhook: report.subscribed.into(),
            keys: report.resealing.into(),
            clock: Some(Clock::of(&report.clock, report.now)),
        }
    }
}

impl Clock {
    fn of(clock: &ClockState, now: Timestamp) -> Self {
        Self {
            confirmed: clock.confirmed,
            provider_ahead_seconds: clock.provider_ahead_ms.map(|ms| ms / 1000),
            jumps: clock.jumps,
            last_jump_seconds: clock.last_jump.map(|jump| jump.by_ms / 1000),
            last_jump_seconds_ago: clock.last_jump.map(|jump| now.since(jump.at).as_secs()),
        }
    }
}

impl StoreFails {
    fn of(report: &Report) -> Vec<Self> {
        let kinds = [("read", &report.store.reads), ("write", &report.store.writes)];
        let failing = kinds.into_iter().filter_map(|(access, failing)| Some((access, failing.as_ref()?)));
        let fails = failing.map(|(access, failing)| Self {
            access: access.to_owned(),
            seconds: report.now.since(failing.since).as_secs(),
            error: failing.error.to_string(),
        });
        fails.collect()
    }
}

impl Counted {
    fn of(load: &Load, age: Duration) -> Self {
        let census = load.census;
        Self {
            seconds_ago: age.as_secs(),
            live: census.live,
            parked: census.parked,
            suspect: census.suspect,
            refreshes_in_flight: Some(census.claims.in_flight),
            refreshes_ambiguous: Some(census.claims.ambiguous),
            oldest_proof_seconds: census.oldest_proof.map(|at| (load.now.since(at) + age).as_secs()),
            sweep_lag_seconds: load.lag.as_secs(),
            budget_per_second: load.configured_per_second,
            allowed_per_second: load.allowed_per_second,
            needed_per_second: load.needed_per_second,
            sufficient_per_second: load.sufficient_per_second,
            budget_suffices: load.budget_suffices(),
        }
    }
}
