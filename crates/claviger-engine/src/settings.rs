//! What the operator decides.

use std::time::Duration;

use claviger_core::{Cascade, Custody, Lifetimes, Schedule, limits};
use claviger_provider::Provider;

/// What an operator decides. The defaults are safe.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How long sessions and proofs live.
    pub lifetimes: Lifetimes,
    /// Who can open the refresh token of a session that begins now.
    pub custody: Custody,
    /// Maximum number of devices per user. The one used least recently makes room for a new one.
    pub devices_per_user: u32,
    /// Whether the browser also carries its access token, sealed, in a cookie that saves reading
    /// the store.
    pub carry_access_token: bool,
    /// How long an instance that no longer receives the changes of others believes cookies with
    /// assurance `cookie`, and keeps streams open.
    pub cookie_when_cut_off: Duration,
    /// How long a call waits for a store that cannot be used for a moment, as in a failover. With
    /// zero it fails at once.
    pub store_wait: Duration,
    /// Maximum number of sessions held in memory.
    pub cached_sessions: usize,
    /// Number of refreshes per second in the long run. After a pause, at most twice as many are
    /// sent at once.
    pub refreshes_per_second: u32,
    /// How the tokens of idle users are validated.
    pub sweep: Sweep,
    /// What a dead token of one session means for the user's other sessions.
    pub cascade: Cascade,
}

/// How tokens are validated while nobody uses them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sweep {
    /// The token of every live session is validated once in this time.
    pub period: Duration,
    /// Maximum number of validations per second, by all instances together.
    pub validations_per_second: u32,
    /// Whether pairs in the server's custody are refreshed before they expire although nobody uses
    /// them. Otherwise their sessions are parked.
    pub keep_alive: bool,
    /// Each user without a living token is checked once in this time.
    pub connection_check_period: Duration,
}

impl Settings {
    /// The defaults at a provider: a proof counts for the provider's check interval.
    pub fn at(provider: &Provider) -> Self {
        let mut settings = Self::default();
        if let Some(validation) = &provider.capabilities.validation {
            let schedule = Schedule::of(validation.interval);
            settings.lifetimes.proof = schedule.proof;
            settings.sweep.period = schedule.period;
        }
        settings
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            lifetimes: Lifetimes::default(),
            custody: Custody::Device,
            devices_per_user: limits::DEVICES_PER_USER,
            carry_access_token: false,
            cookie_when_cut_off: limits::COOKIE_WHEN_CUT_OFF,
            store_wait: limits::STORE_WAIT,
            cached_sessions: limits::CACHED_SESSIONS,
            refreshes_per_second: limits::REFRESHES_PER_SECOND,
            sweep: Sweep {
                period: Schedule::default().period,
                validations_per_second: limits::VALIDATIONS_PER_SECOND,
                keep_alive: false,
                connection_check_period: limits::CONNECTION_CHECK_PERIOD,
            },
            cascade: Cascade::default(),
        }
    }
}
