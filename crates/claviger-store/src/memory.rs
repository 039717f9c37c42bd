//! A store in memory: the plainest reading of the trait, for tests, for the simulator, and to judge other stores by.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use claviger_core::{
    ids::{AttemptId, SessionId, Subject},
    session::{EndReason, OwedRevocation, Session, over_limit},
    time::Timestamp,
};

use crate::{Backlog, Claims, Owed, OwedId, Placement, Replaced, Selection, Store, StoreError, id_is_taken};

/// Keeps everything in memory and forgets it when dropped. It counts its calls and fails when told to.
#[derive(Debug, Default)]
pub struct MemoryStore {
    shelf: Mutex<Shelf>,
}

/// The methods of [`Store`], by which calls are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "each is named after its method")]
pub enum Method {
    Check,
    Insert,
    Load,
    Replace,
    Devices,
    EndAll,
    Touch,
    Overdue,
    Distrusted,
    Purge,
    SpendLogin,
    ForgetLogins,
    Owe,
    TakeOwed,
    SettleOwed,
    PostponeOwed,
    OwedBacklog,
    Claims,
}

impl Method {
    /// Whether the method changes nothing.
    pub fn reads(self) -> bool {
        matches!(
            self,
            Self::Check
                | Self::Load
                | Self::Devices
                | Self::Overdue
                | Self::Distrusted
                | Self::OwedBacklog
                | Self::Claims
        )
    }
}

#[derive(Debug, Default)]
struct Shelf {
    sessions: BTreeMap<SessionId, Session>,
    logins: BTreeMap<[u8; 32], Timestamp>,
    owed: BTreeMap<OwedId, Debt>,
    last_owed: i64,
    calls: BTreeMap<Method, u64>,
    failure: Option<StoreError>,
}

/// A lease is a debt that is due again when the lease ends, and remembers its holder until then and after.
#[derive(Debug)]
struct Debt {
    revocation: OwedRevocation,
    tries: u32,
    due_at: Timestamp,
    holder: Option<AttemptId>,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets every method fail with this error, and change nothing, until it is cleared with `None`.
    pub fn fail_with(&self, failure: Option<StoreError>) {
        self.shelf().failure = failure;
    }

    /// How often this method was called, failures included.
    pub fn calls(&self, method: Method) -> u64 {
        self.shelf().calls.get(&method).copied().unwrap_or(0)
    }

    /// How often a method was called that changes nothing.
    pub fn reads(&self) -> u64 {
        self.count(Method::reads)
    }

    /// How often a method was called that may change something.
    pub fn writes(&self) -> u64 {
        self.count(|method| !method.reads())
    }

    fn count(&self, counts: impl Fn(Method) -> bool) -> u64 {
        self.shelf().calls.iter().filter(|(method, _)| counts(**method)).map(|(_, calls)| calls).sum()
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, method: Method) -> Result<MutexGuard<'_, Shelf>, StoreError> {
        let mut shelf = self.shelf();
        *shelf.calls.entry(method).or_default() += 1;
        match &shelf.failure {
            Some(failure) => Err(failure.clone()),
            None => Ok(shelf),
        }
    }
}

impl Shelf {
    /// The sessions that have not ended, in the order of their ids.
    fn open(&self) -> impl Iterator<Item = &Session> {
        self.sessions.values().filter(|session| !session.ended())
    }

    fn open_of(&self, subject: &Subject) -> Vec<Session> {
        self.open().filter(|session| session.subject == *subject).cloned().collect()
    }

    /// Ends the row, unless it is unknown or ended, and owes its revocation.
    fn end(&mut self, id: SessionId, reason: EndReason, at: Timestamp) -> Option<Session> {
        let (ended, owed) = self.sessions.get(&id)?.clone().end(reason, at).ok()?;
        self.sessions.insert(id, ended.clone());
        if let Some(owed) = owed {
            self.owe(owed);
        }
        Some(ended)
    }

    fn owe(&mut self, revocation: OwedRevocation) {
        self.last_owed = self.last_owed.saturating_add(1);
        let due_at = revocation.owed_at;
        self.owed.insert(OwedId(self.last_owed), Debt { revocation, tries: 0, due_at, holder: None });
    }

    fn held(&mut self, id: OwedId, attempt: AttemptId) -> Option<&mut Debt> {
        self.owed.get_mut(&id).filter(|debt| debt.holder == Some(attempt))
    }

    /// The ids that sort first by `key` and then by id, at most `limit`.
    fn first_by_key<K: Ord>(
        &self,
        limit: usize,
        key: impl Fn(&Session) -> Option<(K, Timestamp)>,
    ) -> Vec<SessionId> {
        let mut found: Vec<_> = self.sessions.values().filter_map(|s| key(s).map(|k| (k, s.id))).collect();
        found.sort();
        found.into_iter().take(limit).map(|(_, id)| id).collect()
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn check(&self) -> Result<(), StoreError> {
        self.enter(Method::Check).map(drop)
    }

    async fn insert(&self, session: Session, placement: Placement) -> Result<Vec<Session>, StoreError> {
        let mut shelf = self.enter(Method::Insert)?;
        let Session { id, created_at, .. } = session;
        if shelf.sessions.contains_key(&id) {
            return Err(id_is_taken());
        }
        let subject = session.subject.clone();
        shelf.sessions.insert(id, session);
        let mut ended = Vec::new();
        if let Some(replaced) = placement.replaces.filter(|replaced| *replaced != id) {
            ended.extend(shelf.end(replaced, EndReason::ReplacedBySignIn, created_at));
        }
        for surplus in over_limit(&shelf.open_of(&subject), id, placement.limit) {
            ended.extend(shelf.end(surplus, EndReason::DeviceLimit, created_at));
        }
        Ok(ended)
    }

    async fn load(&self, id: SessionId) -> Result<Option<Session>, StoreError> {
        Ok(self.enter(Method::Load)?.sessions.get(&id).cloned())
    }

    async fn replace(&self, next: &Session, owed: Option<&OwedRevocation>) -> Result<Replaced, StoreError> {
        let mut shelf = self.enter(Method::Replace)?;
        let Some(current) = shelf.sessions.get_mut(&next.id) else {
            return Ok(Replaced::Conflict(None));
        };
        if current.ended() || current.version.next() != next.version {
            return Ok(Replaced::Conflict(Some(Box::new(current.clone()))));
        }
        *current = Session {
            subject: current.subject.clone(),
            created_at: current.created_at,
            last_seen_at: current.last_seen_at,
            ..next.clone()
        };
        if let Some(owed) = owed {
            shelf.owe(owed.clone());
        }
        Ok(Replaced::Done)
    }

    async fn devices(&self, subject: &Subject, limit: usize) -> Result<Vec<Session>, StoreError> {
        let mut devices = self.enter(Method::Devices)?.open_of(subject);
        devices.sort_by_key(|session| std::cmp::Reverse((session.last_seen_at, session.id)));
        devices.truncate(limit);
        Ok(devices)
    }

    async fn end_all(
        &self,
        selection: &Selection,
        reason: EndReason,
        at: Timestamp,
    ) -> Result<Vec<Session>, StoreError> {
        let mut shelf = self.enter(Method::EndAll)?;
        let mut chosen = shelf.open_of(&selection.subject);
        chosen.retain(|session| {
            selection.except != Some(session.id) && session.created_at < selection.created_before
        });
        Ok(chosen.into_iter().filter_map(|session| shelf.end(session.id, reason, at)).collect())
    }

    async fn touch(&self, seen: &[(SessionId, Timestamp)]) -> Result<(), StoreError> {
        let mut shelf = self.enter(Method::Touch)?;
        for (id, at) in seen {
            if let Some(session) = shelf.sessions.get_mut(id).filter(|session| !session.ended()) {
                session.last_seen_at = session.last_seen_at.max(*at);
            }
        }
        Ok(())
    }

    async fn overdue(
        &self,
        idle_since: Timestamp,
        created_until: Timestamp,
        limit: usize,
    ) -> Result<Vec<SessionId>, StoreError> {
        let shelf = self.enter(Method::Overdue)?;
        Ok(shelf.first_by_key(limit, |session| {
            if session.ended() {
                None
            } else if session.last_seen_at <= idle_since {
                Some((0, session.last_seen_at))
            } else {
                (session.created_at <= created_until).then_some((1, session.created_at))
            }
        }))
    }

    async fn distrusted(&self, limit: usize) -> Result<Vec<SessionId>, StoreError> {
        use claviger_core::session::State::{Ended, Suspect};
        let shelf = self.enter(Method::Distrusted)?;
        let youngest_first = shelf.sessions.values().rev();
        let distrusted = youngest_first.filter(|session| matches!(session.state, Suspect(_) | Ended { .. }));
        Ok(distrusted.take(limit).map(|session| session.id).collect())
    }

    async fn purge(&self, created_until: Timestamp, limit: usize) -> Result<usize, StoreError> {
        let mut shelf = self.enter(Method::Purge)?;
        let chosen = shelf.first_by_key(limit, |session| {
            (session.ended() && session.created_at <= created_until).then_some(((), session.created_at))
        });
        for id in &chosen {
            shelf.sessions.remove(id);
        }
        Ok(chosen.len())
    }

    async fn spend_login(&self, state_hash: [u8; 32], expires_at: Timestamp) -> Result<bool, StoreError> {
        let mut shelf = self.enter(Method::SpendLogin)?;
        if shelf.logins.contains_key(&state_hash) {
            return Ok(false);
        }
        shelf.logins.insert(state_hash, expires_at);
        Ok(true)
    }

    async fn forget_logins(&self, now: Timestamp, limit: usize) -> Result<usize, StoreError> {
        let mut shelf = self.enter(Method::ForgetLogins)?;
        let expired = shelf.logins.iter().filter(|(_, expires_at)| **expires_at <= now);
        let mut chosen: Vec<_> = expired.map(|(hash, expires_at)| (*expires_at, *hash)).collect();
        chosen.sort_unstable();
        chosen.truncate(limit);
        for (_, hash) in &chosen {
            shelf.logins.remove(hash);
        }
        Ok(chosen.len())
    }

    async fn owe(&self, owed: &OwedRevocation) -> Result<(), StoreError> {
        self.enter(Method::Owe)?.owe(owed.clone());
        Ok(())
    }

    async fn take_owed(
        &self,
        attempt: AttemptId,
        now: Timestamp,
        lease_until: Timestamp,
        limit: usize,
    ) -> Result<Vec<Owed>, StoreError> {
        let mut shelf = self.enter(Method::TakeOwed)?;
        let mut due: Vec<_> = shelf.owed.iter_mut().filter(|(_, debt)| debt.due_at <= now).collect();
        due.sort_by_key(|(id, debt)| (debt.due_at, **id));
        due.truncate(limit);
        let taken = due.into_iter().map(|(id, debt)| {
            debt.due_at = lease_until;
            debt.holder = Some(attempt);
            Owed { id: *id, revocation: debt.revocation.clone(), tries: debt.tries }
        });
        Ok(taken.collect())
    }

    async fn settle_owed(&self, id: OwedId, attempt: AttemptId) -> Result<bool, StoreError> {
        let mut shelf = self.enter(Method::SettleOwed)?;
        let held = shelf.held(id, attempt).is_some();
        if held {
            shelf.owed.remove(&id);
        }
        Ok(held)
    }

    async fn postpone_owed(
        &self,
        id: OwedId,
        attempt: AttemptId,
        due_at: Timestamp,
    ) -> Result<bool, StoreError> {
        let mut shelf = self.enter(Method::PostponeOwed)?;
        let Some(debt) = shelf.held(id, attempt) else { return Ok(false) };
        debt.tries = debt.tries.saturating_add(1);
        debt.due_at = due_at;
        debt.holder = None;
        Ok(true)
    }

    async fn claims(&self, now: Timestamp) -> Result<Claims, StoreError> {
        let shelf = self.enter(Method::Claims)?;
        let claims = shelf.open().filter_map(|session| session.holding()?.claim);
        let (ambiguous, in_flight): (Vec<_>, Vec<_>) = claims.partition(|claim| claim.ambiguous(now));
        let count = |claims: Vec<_>| u64::try_from(claims.len()).unwrap_or(u64::MAX);
        Ok(Claims { in_flight: count(in_flight), ambiguous: count(ambiguous) })
    }

    async fn owed_backlog(&self) -> Result<Backlog, StoreError> {
        let shelf = self.enter(Method::OwedBacklog)?;
        Ok(Backlog {
            count: u64::try_from(shelf.owed.len()).unwrap_or(u64::MAX),
            oldest: shelf.owed.values().map(|debt| debt.revocation.owed_at).min(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::conformance::{Harness, conformance};

    struct Memory;

    impl Harness for Memory {
        async fn fresh(&self) -> Arc<dyn Store> {
            Arc::new(MemoryStore::new())
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn the_memory_store_conforms() {
        conformance(&Memory).await;
    }

    #[tokio::test]
    async fn calls_are_counted_by_method() {
        let store = MemoryStore::new();
        store.check().await.unwrap();
        store.touch(&[]).await.unwrap();
        store.owed_backlog().await.unwrap();
        assert_eq!((store.reads(), store.writes()), (2, 1));
        assert_eq!((store.calls(Method::Touch), store.calls(Method::Load)), (1, 0));
    }

    #[tokio::test]
    async fn a_failing_store_fails_until_it_is_cleared() {
        let store = MemoryStore::new();
        let failure = StoreError::Full("a test".to_owned());
        store.fail_with(Some(failure.clone()));
        assert_eq!(store.spend_login([1; 32], Timestamp::EPOCH).await, Err(failure));
        store.fail_with(None);
        assert_eq!(
            store.spend_login([1; 32], Timestamp::EPOCH).await,
            Ok(true),
            "a failed call changed nothing"
        );
    }
}
