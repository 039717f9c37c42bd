//! The provider's view of each user's token: when it was proven, and until when it lives. HOURLY is
//! judged by it.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use claviger_core::Timestamp;

/// The provider's requirement.
const HOUR: Duration = Duration::from_secs(60 * 60);
/// Maximum number of violations kept.
const KEPT: usize = 20;

/// The token of a user's session.
#[derive(Clone, Copy, Default)]
struct Token {
    proven_at: Timestamp,
    /// In the past if the user has no living token.
    dies_at: Timestamp,
}

/// A time in which the provider answers badly, and the recovery after it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Incident {
    pub(super) from: Timestamp,
    /// When the provider answered again.
    pub(super) ended: Option<Timestamp>,
    /// Living tokens at that time, and those of them whose proof was older than a period.
    pub(super) living: u64,
    pub(super) overdue: u64,
    /// When nothing was overdue any more.
    pub(super) until: Option<Timestamp>,
}

impl Incident {
    pub(super) fn beginning(from: Timestamp) -> Self {
        Self { from, ended: None, living: 0, overdue: 0, until: None }
    }
}

pub(super) struct Watch {
    begun: Timestamp,
    tokens: Vec<Token>,
    pub(super) incidents: Vec<Incident>,
    pub(super) largest_gap: Duration,
    pub(super) largest_gap_in_incident: Duration,
    pub(super) violations: Vec<String>,
    pub(super) violated: usize,
    /// Validations sent, by minute.
    pub(super) by_minute: Vec<u64>,
    pub(super) turned_away: u64,
    /// Validations by the age of the previous proof, in steps of five minutes. The last is an hour
    /// and more.
    pub(super) by_age: [u64; 13],
    /// Tokens of sign-ins until their first validation.
    new: BTreeMap<String, ()>,
    pub(super) sign_ins: u64,
    /// Tokens issued, including those of sign-ins.
    pub(super) issued: u64,
    /// How far out of order proofs from before the start were renewed.
    pub(super) out_of_order: Duration,
    youngest_asked: Timestamp,
}

impl Watch {
    pub(super) fn new(people: usize, begun: Timestamp) -> Self {
        Self {
            begun,
            tokens: vec![Token::default(); people],
            incidents: Vec::new(),
            largest_gap: Duration::ZERO,
            largest_gap_in_incident: Duration::ZERO,
            violations: Vec::new(),
            violated: 0,
            by_minute: Vec::new(),
            turned_away: 0,
            by_age: [0; 13],
            new: BTreeMap::new(),
            sign_ins: 0,
            issued: 0,
            out_of_order: Duration::ZERO,
            youngest_asked: Timestamp::EPOCH,
        }
    }

    pub(super) fn violate(&mut self, invariant: &str, what: impl AsRef<str>) {
        self.violated += 1;
        if self.violations.len() < KEPT {
            self.violations.push(format!("{invariant}: {}", what.as_ref()));
        }
    }

    /// Sets a token at the start of the day.
    pub(super) fn begins(&mut self, user: usize, proven_at: Timestamp, dies_at: Timestamp) {
        if let Some(token) = self.tokens.get_mut(user) {
            *token = Token { proven_at, dies_at };
        }
    }

    pub(super) fn sent(&mut self, elapsed: Duration) {
        let minute = usize::try_from(elapsed.as_secs() / 60).unwrap_or(0);
        if self.by_minute.len() <= minute {
            self.by_minute.resize(minute + 1, 0);
        }
        if let Some(count) = self.by_minute.get_mut(minute) {
            *count += 1;
        }
    }

    pub(super) fn answered(&mut self, turned_away: bool) {
        self.turned_away += u64::from(turned_away);
    }

    pub(super) fn proven(&mut self, user: usize, now: Timestamp) {
        let Some(token) = self.tokens.get(user).copied() else { return };
        let age = now.since(token.proven_at).as_secs() / 300;
        if let Some(count) = self.by_age.get_mut(usize::try_from(age).unwrap_or(12).min(12)) {
            *count += 1;
        }
        // Proofs from before the start have an order; newer ones do not.
        if token.proven_at < self.begun {
            self.out_of_order = self.out_of_order.max(self.youngest_asked.since(token.proven_at));
            self.youngest_asked = self.youngest_asked.max(token.proven_at);
        }
        self.judge(user, token, now);
        self.set(user, Token { proven_at: now, ..token });
    }

    /// A new token counts as proven.
    pub(super) fn issued(&mut self, user: usize, now: Timestamp, dies_at: Timestamp) {
        let Some(token) = self.tokens.get(user).copied() else { return };
        self.issued += 1;
        self.judge(user, token, now);
        self.set(user, Token { proven_at: now, dies_at });
    }

    /// The user signed out, so the token no longer needs proofs.
    pub(super) fn left(&mut self, user: usize, now: Timestamp) {
        let Some(token) = self.tokens.get(user).copied() else { return };
        self.judge(user, token, now);
        self.set(user, Token { dies_at: Timestamp::EPOCH, ..token });
    }

    /// HOURLY at the end: checks every user's proof.
    pub(super) fn judge_all(&mut self, now: Timestamp) {
        for user in 0..self.tokens.len() {
            if let Some(token) = self.tokens.get(user).copied() {
                self.judge(user, token, now);
            }
        }
    }

    /// Counts living tokens, and those of them whose proof is older than a period.
    pub(super) fn living(&self, now: Timestamp, period: Duration) -> (u64, u64) {
        let living = self.tokens.iter().filter(|token| token.dies_at > now);
        living.fold((0, 0), |(all, overdue), token| {
            (all + 1, overdue + u64::from(now.since(token.proven_at) > period))
        })
    }

    fn judge(&mut self, user: usize, token: Token, now: Timestamp) {
        let until = now.min(token.dies_at);
        let gap = until.since(token.proven_at);
        let overlaps = |incident: &Incident| {
            incident.from < until && incident.until.is_none_or(|over| over > token.proven_at)
        };
        if self.incidents.iter().any(overlaps) {
            self.largest_gap_in_incident = self.largest_gap_in_incident.max(gap);
            return;
        }
        self.largest_gap = self.largest_gap.max(gap);
        if gap > HOUR {
            let at = now.since(self.begun);
            self.violate("HOURLY", format!("user {user}, after {at:?}: {gap:?} between two proofs"));
        }
    }

    fn set(&mut self, user: usize, token: Token) {
        if let Some(place) = self.tokens.get_mut(user) {
            *place = token;
        }
    }

    /// Remembers the token that a sign-in's code was exchanged for.
    pub(super) fn signs_in(&mut self, body: &Bytes) {
        let body = serde_json::from_slice::<serde_json::Value>(body).unwrap_or_default();
        if let Some(token) = body.get("access_token").and_then(|token| token.as_str()) {
            self.sign_ins += 1;
            self.new.insert(token.to_owned(), ());
        }
    }

    /// Returns whether this is a sign-in's own validation of its token.
    pub(super) fn identifies(&mut self, token: &str) -> bool {
        self.new.remove(token).is_some()
    }
}
