//! What the operator decides.

use std::time::Duration;

use claviger_core::{Cascade, Custody, Lifetimes, Schedule, limits};
use claviger_provider::{Client, Provider};

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

/// Why an engine does not start with its settings. The operator must act.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// A session would always end by its age first.
    #[error("`lifetimes.idle` is longer than `lifetimes.absolute`")]
    IdleTooLong,
    /// A session would be denied while its proof still counts.
    #[error("`lifetimes.max_unverified` is shorter than `lifetimes.proof`")]
    MaxUnverifiedTooShort,
    /// A proof would expire before the token is validated again.
    #[error(
        "`sweep.period` is not shorter than `lifetimes.proof` by more than {} s, the time that a validation may be \
         late",
        limits::SWEEP_SLACK.as_secs()
    )]
    PeriodTooLong,
    /// Nobody but the user could open the refresh tokens that are to be kept alive.
    #[error("`sweep.keep_alive` needs `Custody::Server`")]
    KeepAliveWithoutCustody,
    /// Nothing would be allowed, or done.
    #[error("`{0}` is zero")]
    Zero(&'static str),
    /// The provider could not tell who we are.
    #[error("the client id is empty, or holds spaces or characters outside of ASCII")]
    ClientId,
    /// The provider would read another scope, or several.
    #[error("a scope is empty, or holds spaces or characters outside of ASCII")]
    Scope,
}

impl Settings {
    /// What is wrong with settings, in themselves and together.
    pub fn problems(&self) -> Vec<SettingsError> {
        use SettingsError::{
            IdleTooLong, KeepAliveWithoutCustody, MaxUnverifiedTooShort, PeriodTooLong, Zero,
        };
        let (lifetimes, sweep) = (&self.lifetimes, &self.sweep);
        let table = [
            (lifetimes.idle > lifetimes.absolute, IdleTooLong),
            (lifetimes.max_unverified < lifetimes.proof, MaxUnverifiedTooShort),
            (sweep.period + limits::SWEEP_SLACK >= lifetimes.proof, PeriodTooLong),
            (sweep.keep_alive && self.custody != Custody::Server, KeepAliveWithoutCustody),
            (lifetimes.idle.is_zero(), Zero("lifetimes.idle")),
            (sweep.period.is_zero(), Zero("sweep.period")),
            (sweep.validations_per_second == 0, Zero("sweep.validations_per_second")),
            (sweep.connection_check_period.is_zero(), Zero("sweep.connection_check_period")),
            (self.refreshes_per_second == 0, Zero("refreshes_per_second")),
            (self.devices_per_user == 0, Zero("devices_per_user")),
            (self.cached_sessions == 0, Zero("cached_sessions")),
        ];
        table.into_iter().filter(|(is_wrong, _)| *is_wrong).map(|(_, problem)| problem).collect()
    }
}

/// What is wrong with our registration at the provider.
pub fn registration_problems(id: &str, scopes: &[String]) -> Vec<SettingsError> {
    let plain = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
    let table = [
        (!plain(id), SettingsError::ClientId),
        (!scopes.iter().all(|scope| plain(scope)), SettingsError::Scope),
    ];
    table.into_iter().filter(|(is_wrong, _)| *is_wrong).map(|(_, problem)| problem).collect()
}

/// Refuses what no engine can work with.
pub(crate) fn check(settings: &Settings, client: &Client) -> Result<(), SettingsError> {
    let problems = settings.problems().into_iter().chain(registration_problems(&client.id, &client.scopes));
    problems.into_iter().next().map_or(Ok(()), Err)
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
