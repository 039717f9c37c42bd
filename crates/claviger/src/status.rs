//! What `GET /status` on the metrics socket says, and `claviger status` prints.

use std::time::Duration;

use claviger_core::breaker::BreakerState;
use claviger_engine::{KeyRows, Load, Report, Resealing, Subscribed};
use serde::{Deserialize, Serialize};

/// How a gateway is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The gateway's version.
    pub version: String,
    /// The sessions and the sweep. None before they were counted for the first time.
    pub counted: Option<Counted>,
    /// Revocations that the provider is owed.
    pub revocations_owed: u64,
    /// How long the oldest of them has been owed.
    pub oldest_owed_seconds: Option<u64>,
    /// Whether the provider is asked to refresh.
    pub refreshes: Asked,
    /// Whether it is asked about access tokens.
    pub validations: Asked,
    /// Whether the provider's notices come.
    pub webhook: Webhook,
    /// The key that seals, and what older ones sealed.
    pub keys: Keys,
}

/// The key that seals, and what older ones sealed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Keys {
    /// The key that seals.
    pub sealing: u32,
    /// Keys of the keyring that are older than that one.
    pub older_keys: u32,
    /// Rows that these sealed, as they were counted last.
    pub older_rows: Option<u64>,
    /// Rows that this gateway sealed anew since its start.
    pub resealed: u64,
    /// How far it is in a round through all rows, in thousandths; none while another gateway is at it, or none is.
    pub round_permille: Option<u16>,
}

/// A key with the rows that it sealed, as `GET /keys` on the metrics socket says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Key {
    /// Its id.
    pub id: u32,
    /// What it is there for: `next`, `seals`, `older` or `missing`.
    pub role: String,
    /// Sessions that need it.
    pub sessions: u64,
    /// Owed revocations that need it.
    pub owed: u64,
}

impl From<KeyRows> for Key {
    fn from(key: KeyRows) -> Self {
        let KeyRows { key, role, rows } = key;
        Self { id: key.0, role: role.name().to_owned(), sessions: rows.sessions, owed: rows.owed }
    }
}

impl From<Resealing> for Keys {
    fn from(resealing: Resealing) -> Self {
        let Resealing { sealing, older_keys, left, done, round_permille } = resealing;
        let older_rows = left.map(claviger_engine::Rows::count);
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

/// Whether the provider is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Asked {
    /// It is.
    Yes,
    /// By one request, to see whether it is back.
    OneRequest,
    /// It is left alone for a moment.
    No,
}

/// Whether the provider's notices come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Webhook {
    /// There is no secret in the configuration.
    NotConfigured,
    /// The provider was not heard yet.
    Waiting,
    /// The provider refuses the subscription.
    Refused,
    /// They come.
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
            Subscribed::Works => Self::Subscribed,
        }
    }
}

impl From<&Report> for Status {
    fn from(report: &Report) -> Self {
        let since = |at| report.now.since(at);
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            counted: report.load.as_ref().map(|load| Counted::of(load, since(load.now))),
            revocations_owed: report.outbox.count,
            oldest_owed_seconds: report.outbox.oldest.map(|at| since(at).as_secs()),
            refreshes: report.breakers.refreshes.into(),
            validations: report.breakers.proofs.into(),
            webhook: report.subscribed.into(),
            keys: report.resealing.into(),
        }
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
