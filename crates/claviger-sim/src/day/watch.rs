//! What the provider knows of each user's token: when it was proven, until when it lives. HOURLY is judged by that.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use claviger_core::time::Timestamp;

/// The hour that the provider asks for.
const HOUR: Duration = Duration::from_secs(60 * 60);
/// So many violations are kept; the first tell enough.
const KEPT: usize = 20;

/// The token that a user's session holds.
#[derive(Clone, Copy, Default)]
struct Token {
    proven_at: Timestamp,
    /// Past for a user without a living token.
    dies_at: Timestamp,
}

/// A time in which the provider does not answer, or hardly, and what it takes to catch up after it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trouble {
    pub(super) from: Timestamp,
    /// When the provider answers again; None until then.
    pub(super) ended: Option<Timestamp>,
    /// Living tokens at that time, and those of them whose proof is older than a period.
    pub(super) living: u64,
    pub(super) overdue: u64,
    /// When nothing is overdue any more; None until then.
    pub(super) until: Option<Timestamp>,
}

impl Trouble {
    pub(super) fn beginning(from: Timestamp) -> Self {
        Self { from, ended: None, living: 0, overdue: 0, until: None }
    }
}

pub(super) struct Watch {
    begun: Timestamp,
    tokens: Vec<Token>,
    pub(super) troubles: Vec<Trouble>,
    pub(super) largest_gap: Duration,
    pub(super) largest_gap_in_trouble: Duration,
    pub(super) violations: Vec<String>,
    pub(super) violated: usize,
    /// Validations sent, by the minute since the beginning.
    pub(super) by_minute: Vec<u64>,
    pub(super) turned_away: u64,
    /// Validations by the age of the proof before, in steps of five minutes; the last is an hour and more.
    pub(super) by_age: [u64; 13],
    /// Tokens of sign-ins, until they are asked about for the first time.
    new: BTreeMap<String, ()>,
    pub(super) sign_ins: u64,
    /// Tokens issued, those of sign-ins among them.
    pub(super) issued: u64,
    /// How far out of order those were asked about whose proof is from before the beginning.
    pub(super) out_of_order: Duration,
    youngest_asked: Timestamp,
}

impl Watch {
    pub(super) fn new(people: usize, begun: Timestamp) -> Self {
        Self {
            begun,
            tokens: vec![Token::default(); people],
            troubles: Vec::new(),
            largest_gap: Duration::ZERO,
            largest_gap_in_trouble: Duration::ZERO,
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

    /// Where things stand when the day begins.
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
        // Who was asked about since the beginning is in no order with those who were not.
        if token.proven_at < self.begun {
            self.out_of_order = self.out_of_order.max(self.youngest_asked.since(token.proven_at));
            self.youngest_asked = self.youngest_asked.max(token.proven_at);
        }
        self.judge(user, token, now);
        self.set(user, Token { proven_at: now, ..token });
    }

    /// A new token is a proof as well.
    pub(super) fn issued(&mut self, user: usize, now: Timestamp, dies_at: Timestamp) {
        let Some(token) = self.tokens.get(user).copied() else { return };
        self.issued += 1;
        self.judge(user, token, now);
        self.set(user, Token { proven_at: now, dies_at });
    }

    /// The user signed out: nothing is owed to the token any more.
    pub(super) fn left(&mut self, user: usize, now: Timestamp) {
        let Some(token) = self.tokens.get(user).copied() else { return };
        self.judge(user, token, now);
        self.set(user, Token { dies_at: Timestamp::EPOCH, ..token });
    }

    /// HOURLY at the end: nobody's proof is older.
    pub(super) fn judge_all(&mut self, now: Timestamp) {
        for user in 0..self.tokens.len() {
            if let Some(token) = self.tokens.get(user).copied() {
                self.judge(user, token, now);
            }
        }
    }

    /// Living tokens, and those of them whose proof is older than a period.
    pub(super) fn living(&self, now: Timestamp, period: Duration) -> (u64, u64) {
        let living = self.tokens.iter().filter(|token| token.dies_at > now);
        living.fold((0, 0), |(all, overdue), token| {
            (all + 1, overdue + u64::from(now.since(token.proven_at) > period))
        })
    }

    fn judge(&mut self, user: usize, token: Token, now: Timestamp) {
        let until = now.min(token.dies_at);
        let gap = until.since(token.proven_at);
        let overlaps = |trouble: &Trouble| {
            trouble.from < until && trouble.until.is_none_or(|over| over > token.proven_at)
        };
        if self.troubles.iter().any(overlaps) {
            self.largest_gap_in_trouble = self.largest_gap_in_trouble.max(gap);
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

    /// The answer to the code of a sign-in.
    pub(super) fn signs_in(&mut self, body: &Bytes) {
        let body = serde_json::from_slice::<serde_json::Value>(body).unwrap_or_default();
        if let Some(token) = body.get("access_token").and_then(|token| token.as_str()) {
            self.sign_ins += 1;
            self.new.insert(token.to_owned(), ());
        }
    }

    /// Whether this is the question of a sign-in whose its token is.
    pub(super) fn identifies(&mut self, token: &str) -> bool {
        self.new.remove(token).is_some()
    }
}
