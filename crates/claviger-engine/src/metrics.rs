//! What the engine counts and measures, through the facade of the `metrics` crate: the program that
//! runs the engine chooses an exporter.
//!
//! Labels have few values, all known beforehand, and never name a user, a session or an address.
//! This module takes plain values and knows no part of the engine, so that every part may use it.

use std::time::Duration;

use claviger_core::{
    BreakerState, Cause, ClockState, EndReason, FailureKind, ProviderFailure, Timestamp, TokenAnswer,
    ValidateAnswer,
};
use claviger_provider::{ConnectionsAnswer, MessageKind, Refused};
use claviger_store::{Backlog, SessionCounts};
use metrics::{counter, gauge, histogram};

/// How a metric behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// It only grows.
    Counter,
    /// It goes up and down.
    Gauge,
    /// The distribution of durations, in seconds.
    Histogram,
}

/// One metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// How it behaves.
    pub kind: MetricKind,
    /// Its labels with their values, in words.
    pub labels: &'static str,
    /// What it says, and what to do about it.
    pub help: &'static str,
}

/// Declares the metrics: a constant with the name of each, and the table of all. The doc comment is
/// the help text.
macro_rules! metrics {
    ($(
        $(#[doc = $help:literal])+
        $constant:ident: $kind:ident = $name:literal $(, labels $labels:literal)?;
    )*) => {
        $(const $constant: &str = $name;)*

        /// Every metric there is.
        pub const METRICS: &[Metric] = &[$(Metric {
            name: $constant,
            kind: MetricKind::$kind,
            labels: concat!($($labels)?),
            help: concat!($($help),+).trim_ascii_start(),
        }),*];
    };
}

metrics! {
    /// Answers to refreshes. `misconfigured` needs an operator: the provider refuses the client id
    /// or secret. `lost` leaves a session ambiguous.
    REFRESHES: Counter = "claviger_refreshes_total",
        labels "outcome: rotated, rejected, misconfigured, unknown, lost";

    /// Requests about one user's tokens that the provider did not grant: `code` and `identity` of
    /// sign-ins, and refreshes. The log has its words.
    PROVIDER_REFUSALS: Counter = "claviger_provider_refusals_total",
        labels "request: code, identity, refresh; cause: rejected, misconfigured, rate_limited, client_error, server_error, not_sent, no_answer, unreadable";

    /// Time from sending a refresh to its answer or timeout.
    REFRESH_SECONDS: Histogram = "claviger_refresh_seconds";

    /// Refresh tokens sent a second time because the first answer was lost.
    REPLAYS: Counter = "claviger_refresh_replays_total";

    /// Answers to validations of access tokens.
    VALIDATIONS: Counter = "claviger_validations_total", labels "verdict: valid, rejected, unknown";

    /// Sessions ended by this process. Look into a jump of `refresh_token_rejected` or
    /// `token_of_another_subject`.
    SESSIONS_ENDED: Counter = "claviger_sessions_ended_total",
        labels "reason: as the devices page and JSON name it";

    /// Sign-ins that returned from the provider.
    SIGN_INS: Counter = "claviger_sign_ins_total", labels "outcome: signed_in, repeated, repaired, failed";

    /// Attempts to revoke tokens of ended sessions. `settled`: confirmed. `postponed`: to be
    /// retried.
    REVOCATIONS: Counter = "claviger_revocations_total", labels "outcome: settled, postponed";

    /// Revocations that the provider has not confirmed yet.
    OUTBOX: Gauge = "claviger_outbox_revocations";

    /// Age of the oldest pending revocation. Hours mean that the provider accepts none.
    OUTBOX_OLDEST: Gauge = "claviger_outbox_oldest_seconds";

    /// Sessions with a refresh in flight, and sessions whose refresh token may be spent because the
    /// answer was lost. Counted once a minute. Ambiguous ones recover with their user's next
    /// request.
    CLAIMS: Gauge = "claviger_claims", labels "state: in_flight, ambiguous";

    /// 0: closed, requests are sent. 1: half open, one request tries whether the provider is back.
    /// 2: open, no requests are sent.
    BREAKER: Gauge = "claviger_provider_breaker", labels "question: refresh, validate";

    /// Sessions that have not ended. Live ones are validated; parked ones wait for their user.
    SESSIONS: Gauge = "claviger_sessions", labels "state: live, parked, suspect";

    /// Age of the oldest proof of a live session. Over `session.proof` means that the sweep is
    /// behind or the provider is down.
    OLDEST_PROOF: Gauge = "claviger_oldest_proof_seconds";

    /// How long the most overdue slot has waited. It grows when the budget is too small.
    SWEEP_LAG: Gauge = "claviger_sweep_lag_seconds";

    /// Validations per second: allowed by the configuration, allowed after the provider's last
    /// 429s, and needed by the live sessions.
    BUDGET: Gauge = "claviger_validations_per_second", labels "kind: configured, allowed, needed";

    /// Validations that the provider answered with 429.
    RATE_LIMITED: Counter = "claviger_validations_rate_limited_total";

    /// Requests that ask the provider whether users are still connected, ten users each.
    CONNECTION_CHECKS: Counter = "claviger_connection_checks_total",
        labels "outcome: known, token_dead, misconfigured, unknown";

    /// Suspicions that a user disconnected the app. Each is investigated.
    SUSPICIONS: Counter = "claviger_suspicions_total",
        labels "cause: notice, access_token_rejected, refresh_token_rejected, probe";

    /// Messages at the webhook. `forged`: the sender does not know the secret, or the provider was
    /// given another one.
    WEBHOOK_EVENTS: Counter = "claviger_webhook_events_total",
        labels "kind: challenge, revoked, granted, subscription_ended, other, too_large, malformed, forged, stale";

    /// 1 while the provider's webhook subscription works, else 0.
    SUBSCRIBED: Gauge = "claviger_webhook_subscribed";

    /// 1 while this instance receives the changes that other instances make in the shared database,
    /// else 0. While it is 0, every request with assurance `session` reads the database.
    CHANGE_FEED: Gauge = "claviger_change_feed_connected";

    /// 1 while calls of this kind to the session store fail, else 0. Requests that need one
    /// wait up to `store.wait`, and then get 503.
    STORE_FAILS: Gauge = "claviger_store_fails", labels "access: read, write";

    /// 1 while the provider's time confirms our clock, else 0. While it is 0, no session ends by
    /// age or idleness, and nothing is purged.
    CLOCK_CONFIRMED: Gauge = "claviger_clock_confirmed";

    /// How far the provider's clock is ahead of ours, in seconds. 0 if they agree or nothing is
    /// known. Anything else needs an operator.
    CLOCK_OFFSET: Gauge = "claviger_clock_provider_ahead_seconds";

    /// Jumps of our clock since the start.
    CLOCK_JUMPS: Counter = "claviger_clock_jumps_total";

    /// Rows by the key that sealed them, at the last count. Rows are counted while there are older
    /// keys. `claviger keys list` says when an older key without rows may go. `missing` needs an
    /// operator.
    KEY_ROWS: Gauge = "claviger_key_rows", labels "key: the id of a key; role: next, seals, older, missing";

    /// Rows sealed again after a change of keys.
    RESEALED: Counter = "claviger_resealed_total";

    /// Session cookies of older keys that were replaced in the browser.
    COOKIES_RESEALED: Counter = "claviger_cookies_resealed_total";
}

/// Names that changed: the old one, and what it is called now. For one release a metric is exported
/// under both; then its line here goes.
pub const RENAMED: [(&str, &str); 5] = [
    ("claviger_probes_total", CONNECTION_CHECKS),
    ("claviger_notices_total", WEBHOOK_EVENTS),
    ("claviger_notices_subscribed", SUBSCRIBED),
    ("claviger_others_heard", CHANGE_FEED),
    ("claviger_validations_too_many_total", RATE_LIMITED),
];

/// Records under the name of a metric, and under its old name if it was renamed.
fn each_name(name: &'static str, record: impl Fn(&'static str)) {
    record(name);
    RENAMED.iter().filter(|(_, new)| *new == name).for_each(|(old, _)| record(old));
}

pub(crate) fn clock(state: &ClockState) {
    gauge!(CLOCK_CONFIRMED).set(f64::from(u8::from(state.confirmed)));
    gauge!(CLOCK_OFFSET).set(state.provider_ahead_ms.unwrap_or(0) as f64 / 1000.0);
}

pub(crate) fn clock_jumped() {
    counter!(CLOCK_JUMPS).increment(1);
}

pub(crate) fn refresh_answered(answer: &TokenAnswer, replay: bool, took: Duration) {
    let outcome = match answer {
        TokenAnswer::Issued(_) => "rotated",
        TokenAnswer::Rejected => "rejected",
        TokenAnswer::Misconfigured => "misconfigured",
        TokenAnswer::Unknown(_) => "unknown",
        TokenAnswer::Lost(_) => "lost",
    };
    counter!(REFRESHES, "outcome" => outcome).increment(1);
    histogram!(REFRESH_SECONDS).record(took.as_secs_f64());
    if replay {
        counter!(REPLAYS).increment(1);
    }
}

/// Counts a request that the provider did not grant, if there is a cause.
pub(crate) fn provider_refused(request: &'static str, cause: Option<&'static str>) {
    if let Some(cause) = cause {
        counter!(PROVIDER_REFUSALS, "request" => request, "cause" => cause).increment(1);
    }
}

pub(crate) fn cause_of_token(answer: &TokenAnswer) -> Option<&'static str> {
    match answer {
        TokenAnswer::Issued(_) => None,
        TokenAnswer::Rejected => Some("rejected"),
        TokenAnswer::Misconfigured => Some("misconfigured"),
        TokenAnswer::Unknown(failure) | TokenAnswer::Lost(failure) => Some(cause_of(failure)),
    }
}

pub(crate) fn cause_of_validation(answer: &ValidateAnswer) -> Option<&'static str> {
    match answer {
        ValidateAnswer::Valid(_) => None,
        ValidateAnswer::Rejected => Some("rejected"),
        ValidateAnswer::Unknown(failure) => Some(cause_of(failure)),
    }
}

fn cause_of(failure: &ProviderFailure) -> &'static str {
    match failure.kind {
        FailureKind::Status(429) => "rate_limited",
        FailureKind::Status(500..) => "server_error",
        FailureKind::Status(_) => "client_error",
        FailureKind::NotSent => "not_sent",
        FailureKind::NoAnswer => "no_answer",
        FailureKind::Unreadable => "unreadable",
    }
}

pub(crate) fn validation_answered(answer: &ValidateAnswer) {
    let verdict = match answer {
        ValidateAnswer::Valid(_) => "valid",
        ValidateAnswer::Rejected => "rejected",
        ValidateAnswer::Unknown(_) => "unknown",
    };
    counter!(VALIDATIONS, "verdict" => verdict).increment(1);
    if let ValidateAnswer::Unknown(ProviderFailure { kind: FailureKind::Status(429), .. }) = answer {
        each_name(RATE_LIMITED, |name| counter!(name).increment(1));
    }
}

pub(crate) fn connection_check_answered(answer: &ConnectionsAnswer) {
    let outcome = match answer {
        ConnectionsAnswer::Known(_) => "known",
        ConnectionsAnswer::TokenDead => "token_dead",
        ConnectionsAnswer::Misconfigured => "misconfigured",
        ConnectionsAnswer::Unknown(_) => "unknown",
    };
    each_name(CONNECTION_CHECKS, |name| counter!(name, "outcome" => outcome).increment(1));
}

pub(crate) fn suspected(cause: Cause) {
    counter!(SUSPICIONS, "cause" => cause.name()).increment(1);
}

pub(crate) fn webhook_event(message: Result<&MessageKind, &Refused>) {
    let kind = match message {
        Ok(kind) => kind_of_event(kind),
        Err(Refused::TooLarge) => "too_large",
        Err(Refused::Malformed) => "malformed",
        Err(Refused::Forged) => "forged",
        Err(Refused::Stale) => "stale",
    };
    each_name(WEBHOOK_EVENTS, |name| counter!(name, "kind" => kind).increment(1));
}

pub(crate) fn kind_of_event(kind: &MessageKind) -> &'static str {
    match kind {
        MessageKind::Challenge(_) => "challenge",
        MessageKind::Revoked { .. } => "revoked",
        MessageKind::Granted { .. } => "granted",
        MessageKind::SubscriptionEnded { .. } => "subscription_ended",
        MessageKind::OtherClient | MessageKind::Other => "other",
    }
}

pub(crate) fn subscription_works(works: bool) {
    each_name(SUBSCRIBED, |name| gauge!(name).set(if works { 1.0 } else { 0.0 }));
}

pub(crate) fn change_feed_works(works: bool) {
    each_name(CHANGE_FEED, |name| gauge!(name).set(if works { 1.0 } else { 0.0 }));
}

/// The sessions by state, as they were counted at `now`.
pub(crate) fn sessions(census: &SessionCounts, now: Timestamp) {
    gauge!(SESSIONS, "state" => "live").set(to_f64(census.live));
    gauge!(SESSIONS, "state" => "parked").set(to_f64(census.parked));
    gauge!(SESSIONS, "state" => "suspect").set(to_f64(census.suspect));
    gauge!(CLAIMS, "state" => "in_flight").set(to_f64(census.claims.in_flight));
    gauge!(CLAIMS, "state" => "ambiguous").set(to_f64(census.claims.ambiguous));
    gauge!(OLDEST_PROOF).set(census.oldest_proof.map_or(0.0, |at| now.since(at).as_secs_f64()));
}

pub(crate) fn sweep_lag(lag: Duration) {
    gauge!(SWEEP_LAG).set(lag.as_secs_f64());
}

/// Validations per second.
pub(crate) fn validation_budget(configured: f64, allowed: f64, needed: f64) {
    gauge!(BUDGET, "kind" => "configured").set(configured);
    gauge!(BUDGET, "kind" => "allowed").set(allowed);
    gauge!(BUDGET, "kind" => "needed").set(needed);
}

/// A row was committed: counts it if that ended it.
pub(crate) fn ended(reason: EndReason) {
    counter!(SESSIONS_ENDED, "reason" => reason.name()).increment(1);
}

/// Whether calls of this kind to the store fail.
pub(crate) fn store_fails(access: &'static str, fails: bool) {
    gauge!(STORE_FAILS, "access" => access).set(if fails { 1.0 } else { 0.0 });
}

/// How a sign-in that came back from the provider went.
#[derive(Clone, Copy, Debug)]
pub(crate) enum SignIn {
    SignedIn,
    /// The same callback again.
    Repeated,
    Repaired,
    Failed,
}

pub(crate) fn sign_in(outcome: SignIn) {
    let outcome = match outcome {
        SignIn::SignedIn => "signed_in",
        SignIn::Repeated => "repeated",
        SignIn::Repaired => "repaired",
        SignIn::Failed => "failed",
    };
    counter!(SIGN_INS, "outcome" => outcome).increment(1);
}

pub(crate) fn revocation_tried(settled: bool) {
    counter!(REVOCATIONS, "outcome" => if settled { "settled" } else { "postponed" }).increment(1);
}

pub(crate) fn outbox(backlog: &Backlog, now: Timestamp) {
    gauge!(OUTBOX).set(to_f64(backlog.count));
    gauge!(OUTBOX_OLDEST).set(backlog.oldest.map_or(0.0, |oldest| now.since(oldest).as_secs_f64()));
}

pub(crate) fn breakers(refreshes: BreakerState, validations: BreakerState) {
    let number = |state| match state {
        BreakerState::Closed => 0.0,
        BreakerState::HalfOpen => 1.0,
        BreakerState::Open => 2.0,
    };
    gauge!(BREAKER, "question" => "refresh").set(number(refreshes));
    gauge!(BREAKER, "question" => "validate").set(number(validations));
}

/// The rows that a key sealed, in one of its roles.
pub(crate) fn key_rows(key: &str, role: &'static str, rows: u64) {
    gauge!(KEY_ROWS, "key" => key.to_owned(), "role" => role).set(to_f64(rows));
}

pub(crate) fn resealed(rows: u64) {
    counter!(RESEALED).increment(rows);
}

pub(crate) fn cookie_resealed() {
    counter!(COOKIES_RESEALED).increment(1);
}

/// Gauges are floating-point numbers, exact up to 2^53.
#[expect(clippy::cast_precision_loss, reason = "nobody has 2^53 sessions")]
fn to_f64(count: u64) -> f64 {
    count as f64
}
