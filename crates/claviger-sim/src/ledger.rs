//! The one store that all instances share, and what is known of every row that was ever committed.
//!
//! Whatever an instance believes, this is what happened: MONO, ENDED, BLAST, TRANSIENT and SPENT are checked with each commit.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use claviger_core::{
    ids::{SessionId, Version},
    policy::ProviderHabits,
    secret::RefreshToken,
    session::{EndReason, OwedRevocation, Session, State},
    time::Timestamp,
};
use claviger_seal::{Keyring, PairBinding};
use claviger_store::{MemoryStore, Replaced, Store as _, StoreError};

use crate::{
    fate::START,
    record::Record,
    spent::{Heard, Sends, Sent},
};

/// Clocks of instances differ by less than this; whatever happens closer together may have happened in either order.
pub(crate) const CLOCKS_APART: Duration = Duration::from_secs(5);

pub(crate) struct Ledger {
    pub(crate) memory: MemoryStore,
    record: Arc<Record>,
    keyring: Keyring,
    facts: Mutex<Facts>,
    sends: Mutex<Sends>,
}

#[derive(Default)]
struct Facts {
    /// Each row as it was committed last.
    rows: BTreeMap<SessionId, Session>,
    /// Every access token that was ever committed, and its row.
    tokens: BTreeMap<String, SessionId>,
    /// The access token that each row held last.
    last_tokens: BTreeMap<SessionId, String>,
    /// Every access token whose revocation was ever owed.
    owed: BTreeSet<String>,
    /// Why each row may end.
    causes: BTreeMap<SessionId, Vec<EndReason>>,
    /// Which instance ended each row.
    ended_by: BTreeMap<SessionId, usize>,
    /// Rows whose cookie reached a browser.
    delivered: BTreeSet<SessionId>,
    /// When each user disconnected the app, since the history began.
    disconnected: Vec<(String, Duration)>,
    /// When its user last used each row, at the latest.
    used_at: BTreeMap<SessionId, Timestamp>,
}

impl Ledger {
    pub(crate) fn new(record: Arc<Record>, keyring: Keyring, habits: ProviderHabits) -> Self {
        let sends = Mutex::new(Sends::new(habits));
        Self { memory: MemoryStore::new(), record, keyring, facts: Mutex::default(), sends }
    }

    /// The row as it is now, without any instance in between.
    pub(crate) async fn row(&self, id: SessionId) -> Option<Session> {
        self.memory.load(id).await.ok().flatten()
    }

    /// All rows that were ever committed, as they were last.
    pub(crate) fn rows(&self) -> Vec<Session> {
        self.facts().rows.values().cloned().collect()
    }

    pub(crate) fn last(&self, id: SessionId) -> Option<Session> {
        self.facts().rows.get(&id).cloned()
    }

    /// Whose access token it is, if it was ever committed.
    pub(crate) fn owner(&self, token: &str) -> Option<SessionId> {
        self.facts().tokens.get(token).copied()
    }

    /// Every access token that was ever committed, with its row.
    pub(crate) fn tokens(&self) -> Vec<(String, SessionId)> {
        self.facts().tokens.iter().map(|(token, id)| (token.clone(), *id)).collect()
    }

    /// Whether no younger token of the row was committed.
    pub(crate) fn was_last(&self, token: &str, id: SessionId) -> bool {
        self.facts().last_tokens.get(&id).is_some_and(|last| last == token)
    }

    pub(crate) fn was_owed(&self, token: &str) -> bool {
        self.facts().owed.contains(token)
    }

    /// Whether this instance ended the row, in this life or another.
    pub(crate) fn ended_by(&self, who: usize, id: SessionId) -> bool {
        self.facts().ended_by.get(&id) == Some(&who)
    }

    /// From now on this row may end for this reason.
    pub(crate) fn may_end(&self, id: SessionId, reason: EndReason) {
        self.facts().causes.entry(id).or_default().push(reason);
    }

    /// From now on every row of this user may end for these reasons.
    pub(crate) fn all_may_end(&self, user: &str, reasons: &[EndReason]) {
        let mut facts = self.facts();
        let of_user: Vec<_> =
            facts.rows.values().filter(|row| row.subject.id == user).map(|row| row.id).collect();
        for id in of_user {
            facts.causes.entry(id).or_default().extend(reasons);
        }
    }

    /// The cookie of a new row reached its browser.
    pub(crate) fn delivered(&self, id: SessionId) {
        self.facts().delivered.insert(id);
    }

    /// A user disconnected the app: tokens that were issued before are dead, also of rows that are just being made.
    pub(crate) fn disconnected(&self, user: &str) {
        let at = self.record.elapsed();
        self.facts().disconnected.push((user.to_owned(), at));
    }

    /// When this user disconnected the app for the last time.
    pub(crate) fn last_disconnect(&self, user: &str) -> Option<Duration> {
        let facts = self.facts();
        facts.disconnected.iter().filter(|(own, _)| own == user).map(|(_, at)| *at).max()
    }

    pub(crate) fn used(&self, id: SessionId, at: Timestamp) {
        let mut facts = self.facts();
        let used_at = facts.used_at.entry(id).or_insert(at);
        *used_at = at.max(*used_at);
    }

    /// IDLE: nothing but a use moves the idle clock.
    pub(crate) fn check_idle_clocks(&self, rows: &[Session]) {
        let facts = self.facts();
        for row in rows {
            let used_at = facts.used_at.get(&row.id).copied().unwrap_or(row.created_at).max(row.created_at);
            if row.last_seen_at > used_at {
                self.record.violate("IDLE", format!("{} was last seen after its last use", row.id));
            }
        }
    }

    /// Changes a row for an instance.
    pub(crate) async fn replace(
        &self,
        who: usize,
        next: &Session,
        owed: Option<&OwedRevocation>,
    ) -> Result<Replaced, StoreError> {
        let replaced = self.memory.replace(next, owed).await?;
        if replaced == Replaced::Done {
            self.committed(who, next);
            if let Some(owed) = owed {
                self.owes(owed);
            }
        }
        Ok(replaced)
    }

    /// A row was committed.
    pub(crate) fn committed(&self, who: usize, next: &Session) {
        let token = self.token_of(next);
        let mut facts = self.facts();
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

    /// SPENT: a request with this refresh token leaves an instance.
    pub(crate) fn leaves(&self, who: usize, token: &str) -> Option<Sent> {
        let fingerprint = self.keyring.fingerprint(&RefreshToken::new(token));
        let sent = self.sends().leaves(who, fingerprint, self.now());
        if let Err(against) = sent {
            self.record.violate("SPENT", against);
        }
        sent.ok()
    }

    /// What the request came to, as its sender heard it.
    pub(crate) fn heard(&self, sent: Sent, heard: Heard) {
        self.sends().heard(sent.attempt, heard);
    }

    pub(crate) fn owes(&self, owed: &OwedRevocation) {
        let at = PairBinding { provider: &owed.provider, session: owed.session, generation: owed.generation };
        if let Ok(plain) = self.keyring.open_access(at, &owed.access) {
            self.facts().owed.insert(plain.token.expose().to_owned());
        }
    }

    pub(crate) fn owes_token(&self, token: String) {
        self.facts().owed.insert(token);
    }

    /// The access token that a row holds.
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

/// Who disconnected the app, where a row ends for it that should not.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Away {
    /// No user.
    Nobody,
    /// Other users.
    Another,
    /// The row's own, before it began.
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
            // A sign-in that came to nothing takes its row back.
            causes.push(EndReason::ReplacedBySignIn);
        }
        let created_at = row.created_at.since(START);
        let own = self.disconnected.iter().filter(|(user, _)| *user == row.subject.id);
        for at in own.map(|(_, at)| *at) {
            if created_at < at + CLOCKS_APART {
                causes.extend([EndReason::DisconnectedAtProvider, EndReason::AccountGone]);
            }
            // A sign-in that was on its way brings a token that is dead already.
            if created_at <= at + Duration::from_secs(60) {
                causes.push(EndReason::RefreshTokenRejected);
            }
        }
        causes
    }
}

/// What a commit did, for the coverage.
fn kind_of(before: &Session, next: &Session) -> &'static str {
    let claim = |row: &Session| row.holding().and_then(|holding| holding.claim);
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
        if let Some(claim) = self.0.holding().and_then(|holding| holding.claim) {
            write!(f, " claimed (replay {}, lost {})", claim.replay, claim.answer_lost)?;
        }
        Ok(())
    }
}
