//! The store that all instances share, and a record of every row ever committed.
//!
//! The record says what really happened. Each commit is checked against MONO, ENDED, BLAST,
//! TRANSIENT and SPENT.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use claviger_core::{
    Change, EndReason, PendingRevocation, ProviderHabits, RefreshToken, Session, SessionId, State, Timestamp,
    Version,
};
use claviger_seal::{Keyring, PairBinding};
use claviger_store::{Applied, MemoryStore, Store as _, StoreError};

use crate::{
    fate::{CLOCKS_APART, START},
    record::Record,
    spent::{Heard, Sends, Sent},
};

pub(crate) struct Ledger {
    pub(crate) memory: MemoryStore,
    record: Arc<Record>,
    keyring: Keyring,
    facts: Mutex<Facts>,
    sends: Mutex<Sends>,
}

#[derive(Default)]
struct Facts {
    /// Each row as last committed.
    rows: BTreeMap<SessionId, Session>,
    /// Every access token ever committed, and its row.
    tokens: BTreeMap<String, SessionId>,
    /// When each access token was issued, since the history began.
    issued: BTreeMap<String, Duration>,
    /// The last access token of each row.
    last_tokens: BTreeMap<SessionId, String>,
    /// Every access token whose revocation was ever pending.
    owed: BTreeSet<String>,
    /// Why each row may end.
    causes: BTreeMap<SessionId, Vec<EndReason>>,
    /// The instance that ended each row.
    ended_by: BTreeMap<SessionId, usize>,
    /// Rows whose cookie reached a browser.
    delivered: BTreeSet<SessionId>,
    /// When each user disconnected the app, since the history began.
    disconnected: Vec<(String, Duration)>,
    /// When each row was first committed, since the history began.
    begun: BTreeMap<SessionId, Duration>,
    /// Last use of each row by its user, at the latest.
    used_at: BTreeMap<SessionId, Timestamp>,
}

impl Ledger {
    pub(crate) fn new(record: Arc<Record>, keyring: Keyring, habits: ProviderHabits) -> Self {
        let sends = Mutex::new(Sends::new(habits));
        Self { memory: MemoryStore::new(), record, keyring, facts: Mutex::default(), sends }
    }

    /// Returns the row as stored, without an instance in between.
    pub(crate) async fn row(&self, id: SessionId) -> Option<Session> {
        self.memory.load(id).await.ok().flatten()
    }

    /// Returns all rows ever committed, as last committed.
    pub(crate) fn rows(&self) -> Vec<Session> {
        self.facts().rows.values().cloned().collect()
    }

    pub(crate) fn last(&self, id: SessionId) -> Option<Session> {
        self.facts().rows.get(&id).cloned()
    }

    /// Returns the row of an access token, if it was ever committed.
    pub(crate) fn owner(&self, token: &str) -> Option<SessionId> {
        self.facts().tokens.get(token).copied()
    }

    /// Returns every access token ever committed, with its row.
    pub(crate) fn tokens(&self) -> Vec<(String, SessionId)> {
        self.facts().tokens.iter().map(|(token, id)| (token.clone(), *id)).collect()
    }

    /// Returns whether this is the last token of the row.
    pub(crate) fn was_last(&self, token: &str, id: SessionId) -> bool {
        self.facts().last_tokens.get(&id).is_some_and(|last| last == token)
    }

    pub(crate) fn was_owed(&self, token: &str) -> bool {
        self.facts().owed.contains(token)
    }

    /// Returns whether this instance ended the row, in any of its lives.
    pub(crate) fn ended_by(&self, who: usize, id: SessionId) -> bool {
        self.facts().ended_by.get(&id) == Some(&who)
    }

    /// Allows this row to end for this reason from now on.
    pub(crate) fn may_end(&self, id: SessionId, reason: EndReason) {
        self.facts().causes.entry(id).or_default().push(reason);
    }

    /// Allows every row of this user to end for these reasons from now on.
    pub(crate) fn all_may_end(&self, user: &str, reasons: &[EndReason]) {
        let mut facts = self.facts();
        let of_user: Vec<_> =
            facts.rows.values().filter(|row| row.subject.id == user).map(|row| row.id).collect();
        for id in of_user {
            facts.causes.entry(id).or_default().extend(reasons);
        }
    }

    /// Notes that the cookie of a new row reached its browser.
    pub(crate) fn delivered(&self, id: SessionId) {
        self.facts().delivered.insert(id);
    }

    /// Notes that a user disconnected the app. Tokens issued before are dead, even those of rows
    /// not yet inserted.
    pub(crate) fn disconnected(&self, user: &str) {
        let at = self.record.elapsed();
        self.facts().disconnected.push((user.to_owned(), at));
    }

    /// Notes that the provider issued an access token.
    pub(crate) fn issued(&self, token: String) {
        let at = self.record.elapsed();
        self.facts().issued.insert(token, at);
    }

    /// Returns when the row was first committed, since the history began. No clock was asked.
    pub(crate) fn begun(&self, row: &Session) -> Duration {
        self.facts().begun.get(&row.id).copied().unwrap_or_default()
    }

    /// Returns when this user last disconnected the app.
    pub(crate) fn last_disconnect(&self, user: &str) -> Option<Duration> {
        let facts = self.facts();
        facts.disconnected.iter().filter(|(own, _)| own == user).map(|(_, at)| *at).max()
    }

    pub(crate) fn used(&self, id: SessionId, at: Timestamp) {
        let mut facts = self.facts();
        let used_at = facts.used_at.entry(id).or_insert(at);
        *used_at = at.max(*used_at);
    }

    /// IDLE: only a use moves the idle clock.
    pub(crate) fn check_idle_clocks(&self, rows: &[Session]) {
        let facts = self.facts();
        for row in rows {
            let used_at = facts.used_at.get(&row.id).copied().unwrap_or(row.created_at).max(row.created_at);
            if row.last_seen_at > used_at {
                self.record.violate("IDLE", format!("{} was last seen after its last use", row.id));
            }
        }
    }

    /// Replaces a row for an instance.
    pub(crate) async fn apply(&self, who: usize, change: &Change) -> Result<Applied, StoreError> {
        let applied = self.memory.apply(change).await?;
        if applied == Applied::Done {
            self.committed(who, change.next());
            if let Some(owed) = change.revocation() {
                self.owes(owed);
            }
        }
        Ok(applied)
    }

    /// Records and checks a committed row.
    pub(crate) fn committed(&self, who: usize, next: &Session) {
        let token = self.token_of(next);
        let elapsed = self.record.elapsed();
        let mut facts = self.facts();
        facts.begun.entry(next.id).or_insert(elapsed);
        let before = facts.rows.insert(next.id, next.clone());
        if let Some(token) = token {
            facts.last_tokens.insert(next.id, token.clone());
            facts.tokens.insert(token, next.id);
        }
        if next.ended() {
            facts.ended_by.entry(next.id).or_insert(who);
        }
        let causes = facts.causes_of(next);
        let away = facts.away(next);
        drop(facts);
        match before {
            None => self.check_first(next),
            Some(before) => {
                self.check_step(&before, next, &causes, away);
                if let Some(against) = self.sends().committed(who, &before, next, self.now()) {
                    self.record.violate("SPENT", against);
                }
            }
        }
        self.record.say(who, || format!("{} is {:?} at version {}", next.id, Short(next), next.version.0));
    }

    /// SPENT: records that a request with this refresh token leaves an instance.
    pub(crate) fn leaves(&self, who: usize, token: &str) -> Option<Sent> {
        let fingerprint = self.keyring.fingerprint(&RefreshToken::new(token));
        let sent = self.sends().leaves(who, fingerprint, self.now());
        if let Err(against) = sent {
            self.record.violate("SPENT", against);
        }
        sent.ok()
    }

    /// Records the answer as its sender received it.
    pub(crate) fn heard(&self, sent: Sent, heard: Heard) {
        self.sends().heard(sent.attempt, heard);
    }

    pub(crate) fn owes(&self, owed: &PendingRevocation) {
        let at = PairBinding { provider: &owed.provider, session: owed.session, generation: owed.generation };
        if let Ok(plain) = self.keyring.open_access(at, &owed.access) {
            self.facts().owed.insert(plain.token.expose().to_owned());
        }
    }

    pub(crate) fn owes_token(&self, token: String) {
        self.facts().owed.insert(token);
    }

    /// Returns the access token of a row.
    pub(crate) fn token_of(&self, row: &Session) -> Option<String> {
        let pair = row.pair()?;
        let at =
            PairBinding { provider: &row.subject.provider, session: row.id, generation: pair.generation };
        let plain = self.keyring.open_access(at, &pair.access).ok()?;
        Some(plain.token.expose().to_owned())
    }

    fn check_first(&self, row: &Session) {
        if row.version != Version::FIRST {
            self.record.violate("MONO", format!("{} begins at version {}", row.id, row.version.0));
        }
    }

    fn check_step(&self, before: &Session, next: &Session, causes: &[EndReason], away: Away) {
        if before.version.next() != next.version {
            let (from, to) = (before.version.0, next.version.0);
            self.record.violate("MONO", format!("{} went from version {from} to {to}", next.id));
        }
        if before.ended() {
            self.record.violate("ENDED", format!("{} was changed after its end", next.id));
        }
        if before.subject != next.subject || before.secret_hash != next.secret_hash {
            self.record.violate("ISO", format!("{} changed its owner", next.id));
        }
        if let State::Ended { reason, .. } = next.state
            && !causes.contains(&reason)
        {
            let invariant = match (reason.user_wide(), away) {
                (false, _) | (true, Away::Nobody) => "TRANSIENT",
                (true, Away::Another) => "BLAST",
                (true, Away::Before) => "OTHERS",
            };
            self.record.violate(invariant, format!("{} ended without a cause: {}", next.id, reason.name()));
        }
        self.record.count(kind_of(before, next), 9);
    }

    fn now(&self) -> Timestamp {
        START.after(self.record.elapsed())
    }

    fn sends(&self) -> MutexGuard<'_, Sends> {
        self.sends.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn facts(&self) -> MutexGuard<'_, Facts> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who disconnected the app, for a row that ends without a cause.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Away {
    /// No user.
    Nobody,
    /// Other users.
    Another,
    /// The row's own user, before the row began.
    Before,
}

impl Facts {
    fn away(&self, row: &Session) -> Away {
        let own = self.disconnected.iter().any(|(user, _)| *user == row.subject.id);
        match (self.disconnected.is_empty(), own) {
            (true, _) => Away::Nobody,
            (false, false) => Away::Another,
            (false, true) => Away::Before,
        }
    }

    fn causes_of(&self, row: &Session) -> Vec<EndReason> {
        let mut causes = self.causes.get(&row.id).cloned().unwrap_or_default();
        if !self.delivered.contains(&row.id) {
            // A failed sign-in takes its row back.
            causes.push(EndReason::ReplacedBySignIn);
        }
        // A clock that was ahead may have written the one.
        let begun = self.begun.get(&row.id).copied().unwrap_or_default();
        let created_at = row.created_at.since(START).min(begun);
        let issued = self.last_tokens.get(&row.id).and_then(|token| self.issued.get(token)).copied();
        let own = self.disconnected.iter().filter(|(user, _)| *user == row.subject.id);
        for at in own.map(|(_, at)| *at) {
            // A sign-in in progress may bring a token that the disconnect killed.
            let has_dead_token = issued.is_some_and(|issued| issued <= at);
            if created_at < at + CLOCKS_APART || has_dead_token {
                causes.extend([EndReason::DisconnectedAtProvider, EndReason::AccountGone]);
            }
            // A sign-in in progress may bring a token that is already dead.
            if created_at <= at + Duration::from_secs(60) {
                causes.push(EndReason::RefreshTokenRejected);
            }
        }
        causes
    }
}

/// Names what a commit did, for the coverage.
fn kind_of(before: &Session, next: &Session) -> &'static str {
    let claim = |row: &Session| row.active().and_then(|active| active.claim);
    match (&next.state, claim(before), claim(next)) {
        (State::Ended { reason: EndReason::RefreshTokenRejected, .. }, ..) => "row: ended, rejected",
        (State::Ended { reason: EndReason::DisconnectedAtProvider, .. }, ..) => "row: ended, disconnected",
        (State::Ended { reason: EndReason::AccountGone, .. }, ..) => "row: ended, account gone",
        (State::Ended { .. }, Some(_), _) => "row: ended while in flight",
        (State::Ended { .. }, ..) => "row: ended",
        _ if next.generation() == Some(next.version) => match claim(before) {
            Some(own) if own.answer_lost => "row: repaired",
            Some(own) if own.replay => "row: recovered by replay",
            Some(_) => "row: rotated",
            None => "row: repaired",
        },
        (_, Some(old), Some(new)) if old.attempt != new.attempt && new.replay => "row: claimed for a replay",
        (_, None, Some(_)) => "row: claimed",
        (_, Some(old), Some(new)) if !old.answer_lost && new.answer_lost => "row: answer lost",
        (_, Some(_), None) => "row: released",
        (State::Suspect(_), ..) => "row: suspected",
        (State::Parked(_), ..) => "row: parked",
        _ => "row: proven",
    }
}

/// A row in a few words.
struct Short<'a>(&'a Session);

impl std::fmt::Debug for Short<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = match self.0.state {
            State::Live(_) => "Live",
            State::Parked(_) => "Parked",
            State::Suspect(_) => "Suspect",
            State::Ended { reason, .. } => reason.name(),
        };
        f.write_str(state)?;
        if let Some(claim) = self.0.active().and_then(|active| active.claim) {
            write!(f, " claimed (replay {}, lost {})", claim.replay, claim.answer_lost)?;
        }
        Ok(())
    }
}
