//! What the engine counts and measures, by the facade of the `metrics` crate: whoever runs the engine chooses where it goes.
//!
//! Labels have few values, all known beforehand, and never name a user, a session or an address.

use std::time::Duration;

use claviger_core::{
    breaker::BreakerState,
    session::{Session, State},
    suspicion::Cause,
    verdict::{TokenAnswer, Trouble, TroubleKind, ValidateAnswer},
};
use claviger_provider::{MessageKind, ProbeAnswer, Refused};
use metrics::{counter, gauge, histogram};

use crate::{Breakers, KeyRole, KeyRows, Subscribed, load::Load, report::Report};

/// How a metric behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It only grows.
    Counter,
    /// It goes up and down.
    Gauge,
    /// How often each size occurred, in seconds.
    Histogram,
}

/// One metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// How it behaves.
    pub kind: Kind,
    /// Its labels with their values, in words.
    pub labels: &'static str,
    /// What it says, and what to do about it.
    pub help: &'static str,
}

const fn metric(name: &'static str, kind: Kind, labels: &'static str, help: &'static str) -> Metric {
    Metric { name, kind, labels, help }
}

const REFRESHES: &str = "claviger_refreshes_total";
const REFRESH_SECONDS: &str = "claviger_refresh_seconds";
const REPLAYS: &str = "claviger_refresh_replays_total";
const VALIDATIONS: &str = "claviger_validations_total";
const SESSIONS_ENDED: &str = "claviger_sessions_ended_total";
const OTHERS_HEARD: &str = "claviger_others_heard";
const SIGN_INS: &str = "claviger_sign_ins_total";
const REVOCATIONS: &str = "claviger_revocations_total";
const OUTBOX: &str = "claviger_outbox_revocations";
const OUTBOX_OLDEST: &str = "claviger_outbox_oldest_seconds";
const CLAIMS: &str = "claviger_claims";
const BREAKER: &str = "claviger_provider_breaker";
const SESSIONS: &str = "claviger_sessions";
const OLDEST_PROOF: &str = "claviger_oldest_proof_seconds";
const SWEEP_LAG: &str = "claviger_sweep_lag_seconds";
const BUDGET: &str = "claviger_validations_per_second";
const TOO_MANY: &str = "claviger_validations_too_many_total";
const PROBES: &str = "claviger_probes_total";
const SUSPICIONS: &str = "claviger_suspicions_total";
const NOTICES: &str = "claviger_notices_total";
const SUBSCRIBED: &str = "claviger_notices_subscribed";
const KEY_ROWS: &str = "claviger_key_rows";
const RESEALED: &str = "claviger_resealed_total";
const COOKIES_RESEALED: &str = "claviger_cookies_resealed_total";

/// Every metric there is.
pub const METRICS: &[Metric] = &[
    metric(
        REFRESHES,
        Kind::Counter,
        "outcome: rotated, rejected, misconfigured, unknown, lost",
        "Answers to refreshes. `misconfigured` is yours to mend: the provider refuses the client id or secret. `lost` leaves a session ambiguous.",
    ),
    metric(
        REFRESH_SECONDS,
        Kind::Histogram,
        "",
        "From sending a refresh to its answer, or to giving up on it.",
    ),
    metric(
        REPLAYS,
        Kind::Counter,
        "",
        "Refresh tokens sent a second time, because the first answer was lost.",
    ),
    metric(
        VALIDATIONS,
        Kind::Counter,
        "verdict: valid, rejected, unknown",
        "Answers to questions about access tokens.",
    ),
    metric(
        SESSIONS_ENDED,
        Kind::Counter,
        "reason: as the devices page and JSON name it",
        "Sessions that ended in this process. A jump of `refresh_token_rejected` or `token_of_another_subject` wants a look.",
    ),
    metric(
        SIGN_INS,
        Kind::Counter,
        "outcome: signed_in, repaired, failed",
        "Sign-ins that came back from the provider.",
    ),
    metric(
        REVOCATIONS,
        Kind::Counter,
        "outcome: settled, postponed",
        "Tries to revoke tokens of sessions that ended.",
    ),
    metric(OUTBOX, Kind::Gauge, "", "Revocations that the provider is still owed."),
    metric(
        OUTBOX_OLDEST,
        Kind::Gauge,
        "",
        "How long the oldest of them has been owed. Hours mean that the provider takes none.",
    ),
    metric(
        CLAIMS,
        Kind::Gauge,
        "state: in_flight, ambiguous",
        "Sessions with a refresh under way, and those of which nobody can say whether their refresh token is spent, counted once a minute. Ambiguous ones recover with their user's next request.",
    ),
    metric(
        BREAKER,
        Kind::Gauge,
        "question: refresh, validate",
        "0: the provider is asked. 1: one request looks whether it is back. 2: it is left alone for a moment.",
    ),
    metric(
        SESSIONS,
        Kind::Gauge,
        "state: live, parked, suspect",
        "Sessions that have not ended. Live ones are validated; parked ones wait for their user.",
    ),
    metric(
        OLDEST_PROOF,
        Kind::Gauge,
        "",
        "How long ago the live session was proven whose proof is the oldest. Over an hour means that the sweep is behind, or the provider away.",
    ),
    metric(
        SWEEP_LAG,
        Kind::Gauge,
        "",
        "How long the slot that is due longest has waited for its visit. It grows where the budget is too small.",
    ),
    metric(
        BUDGET,
        Kind::Gauge,
        "kind: configured, allowed, needed",
        "Validations a second: what the configuration allows, what is allowed after the provider's last 429s, and what the live sessions need.",
    ),
    metric(TOO_MANY, Kind::Counter, "", "Validations that the provider answered with 429."),
    metric(
        PROBES,
        Kind::Counter,
        "outcome: known, token_dead, misconfigured, unknown",
        "Questions whether users are still connected, ten users at a time.",
    ),
    metric(
        SUSPICIONS,
        Kind::Counter,
        "cause: notice, access_token_rejected, refresh_token_rejected, probe",
        "Suspicions that a user disconnected the app. Each is looked into.",
    ),
    metric(
        NOTICES,
        Kind::Counter,
        "kind: challenge, revoked, granted, subscription_ended, other, too_large, malformed, forged, stale",
        "Messages at the webhook. `forged` are of somebody who does not know the secret, or of a provider that was given another one.",
    ),
    metric(SUBSCRIBED, Kind::Gauge, "", "1 while the provider's subscription to its notices works, else 0."),
    metric(
        OTHERS_HEARD,
        Kind::Gauge,
        "",
        "1 while this instance hears what others change in the database that they share, else 0: then each request with assurance `session` reads it.",
    ),
    metric(
        KEY_ROWS,
        Kind::Gauge,
        "key: the id of a key; role: next, seals, older, missing",
        "Rows by the key that sealed them, as they were counted last, which is done while there are older keys. An older key that has none left may be retired. `missing` is yours to mend.",
    ),
    metric(RESEALED, Kind::Counter, "", "Rows that were sealed anew after a change of keys."),
    metric(
        COOKIES_RESEALED,
        Kind::Counter,
        "",
        "Session cookies of older keys in whose place a browser was given a new one.",
    ),
];

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

pub(crate) fn validation_answered(answer: &ValidateAnswer) {
    let verdict = match answer {
        ValidateAnswer::Valid(_) => "valid",
        ValidateAnswer::Rejected => "rejected",
        ValidateAnswer::Unknown(_) => "unknown",
    };
    counter!(VALIDATIONS, "verdict" => verdict).increment(1);
    if let ValidateAnswer::Unknown(Trouble { kind: TroubleKind::Status(429), .. }) = answer {
        counter!(TOO_MANY).increment(1);
    }
}

pub(crate) fn probe_answered(answer: &ProbeAnswer) {
    let outcome = match answer {
        ProbeAnswer::Known(_) => "known",
        ProbeAnswer::TokenDead => "token_dead",
        ProbeAnswer::Misconfigured => "misconfigured",
        ProbeAnswer::Unknown(_) => "unknown",
    };
    counter!(PROBES, "outcome" => outcome).increment(1);
}

pub(crate) fn suspected(cause: Cause) {
    counter!(SUSPICIONS, "cause" => cause.name()).increment(1);
}

/// What a message at the webhook was.
pub(crate) struct Notice(&'static str);

impl From<&MessageKind> for Notice {
    fn from(kind: &MessageKind) -> Self {
        Self(match kind {
            MessageKind::Challenge(_) => "challenge",
            MessageKind::Revoked { .. } => "revoked",
            MessageKind::Granted { .. } => "granted",
            MessageKind::SubscriptionEnded { .. } => "subscription_ended",
            MessageKind::OtherClient | MessageKind::Other => "other",
        })
    }
}

impl From<&Refused> for Notice {
    fn from(refused: &Refused) -> Self {
        Self(match refused {
            Refused::TooLarge => "too_large",
            Refused::Malformed => "malformed",
            Refused::Forged => "forged",
            Refused::Stale => "stale",
        })
    }
}

pub(crate) fn notice(notice: Notice) {
    counter!(NOTICES, "kind" => notice.0).increment(1);
}

pub(crate) fn subscribed(subscribed: Subscribed) {
    gauge!(SUBSCRIBED).set(if subscribed == Subscribed::Works { 1.0 } else { 0.0 });
}

pub(crate) fn others_heard(heard: bool) {
    gauge!(OTHERS_HEARD).set(if heard { 1.0 } else { 0.0 });
}

pub(crate) fn load(load: &Load) {
    let Load { census, now, .. } = load;
    gauge!(SESSIONS, "state" => "live").set(to_f64(census.live));
    gauge!(SESSIONS, "state" => "parked").set(to_f64(census.parked));
    gauge!(SESSIONS, "state" => "suspect").set(to_f64(census.suspect));
    gauge!(CLAIMS, "state" => "in_flight").set(to_f64(census.claims.in_flight));
    gauge!(CLAIMS, "state" => "ambiguous").set(to_f64(census.claims.ambiguous));
    gauge!(OLDEST_PROOF).set(census.oldest_proof.map_or(0.0, |at| now.since(at).as_secs_f64()));
    gauge!(SWEEP_LAG).set(load.lag.as_secs_f64());
    gauge!(BUDGET, "kind" => "configured").set(load.configured_per_second);
    gauge!(BUDGET, "kind" => "allowed").set(load.allowed_per_second);
    gauge!(BUDGET, "kind" => "needed").set(load.needed_per_second);
}

/// A row was committed: counts it if that ended it.
pub(crate) fn ended(committed: &Session) {
    if let State::Ended { reason, .. } = committed.state {
        counter!(SESSIONS_ENDED, "reason" => reason.name()).increment(1);
    }
}

/// How a sign-in that came back from the provider went.
#[derive(Clone, Copy, Debug)]
pub(crate) enum SignIn {
    SignedIn,
    Repaired,
    Failed,
}

pub(crate) fn sign_in(outcome: SignIn) {
    let outcome = match outcome {
        SignIn::SignedIn => "signed_in",
        SignIn::Repaired => "repaired",
        SignIn::Failed => "failed",
    };
    counter!(SIGN_INS, "outcome" => outcome).increment(1);
}

pub(crate) fn revocation_tried(settled: bool) {
    counter!(REVOCATIONS, "outcome" => if settled { "settled" } else { "postponed" }).increment(1);
}

pub(crate) fn report(report: &Report) {
    let Report { outbox, now, .. } = report;
    gauge!(OUTBOX).set(to_f64(outbox.count));
    gauge!(OUTBOX_OLDEST).set(outbox.oldest.map_or(0.0, |oldest| now.since(oldest).as_secs_f64()));
}

pub(crate) fn breakers(breakers: Breakers) {
    let number = |state| match state {
        BreakerState::Closed => 0.0,
        BreakerState::HalfOpen => 1.0,
        BreakerState::Open => 2.0,
    };
    gauge!(BREAKER, "question" => "refresh").set(number(breakers.refreshes));
    gauge!(BREAKER, "question" => "validate").set(number(breakers.proofs));
}

/// A key's rows in its role; none in those that it had before.
pub(crate) fn key_rows(keys: &[KeyRows]) {
    for key in keys {
        let id = key.key.to_string();
        for role in [KeyRole::Next, KeyRole::Seals, KeyRole::Older, KeyRole::Missing] {
            let rows = if role == key.role { to_f64(key.rows.count()) } else { 0.0 };
            gauge!(KEY_ROWS, "key" => id.clone(), "role" => role.name()).set(rows);
        }
    }
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
