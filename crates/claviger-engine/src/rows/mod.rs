//! The one door to session rows: read, update with compare-and-set, end.
//!
//! Whatever changes a row takes note of it here, so that memory is never trusted more than the
//! store.
//!
//! | to | call |
//! |---|---|
//! | read a row | [`Rows::load`] from memory if possible, [`Rows::load_stored`] from the store |
//! | change a row | [`Rows::update`], with a rule that makes the next row of the row as it is |
//! | change it for something that must not be lost | [`Rows::update_until_stored`] |
//! | end sessions | [`Rows::end_one`], [`Rows::end_by`], [`Rows::end_selection`], or a rule of [`Rows::update`] that ends the row |
//! | store a new session | [`Rows::insert`], which ends those that it replaces |

mod cache;
mod denylist;

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use claviger_core::{
    Change, EndReason, Refused, Session, SessionId, Slot, State, Subject, Timestamp, Version, limits,
};
use claviger_seal::SessionCookie;
use claviger_store::{Applied, Placement, Selection, Store, StoreError, SweepKind};
use tokio::sync::{Notify, broadcast};

use crate::{Denied, EndError, Env, Lock, metrics, retry::until_stored};
use cache::SessionCache;

/// A session that ended, for streams and pages that are open for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// This session ended.
    Of(SessionId),
    /// Sessions may have ended without a message. `Engine::doubts` says which.
    Unheard,
}

/// Makes a change of the row as it is.
pub(crate) trait Rule: Fn(Session) -> Result<Change, Refused> + Send + Sync {}

impl<F: Fn(Session) -> Result<Change, Refused> + Send + Sync> Rule for F {}

/// What became of an update.
#[derive(Debug)]
pub(crate) enum Updated {
    /// The row is changed.
    Done(Arc<Session>),
    /// The rule refused the row as it is now.
    Refused(Refused, Arc<Session>),
    /// There is no such row.
    Missing,
}

/// Where a row may be read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReadFrom {
    /// Memory if it may be trusted, else the store.
    Memory,
    /// The store.
    Store,
}

/// The rows of all sessions, in the store and in memory.
pub(crate) struct Rows {
    env: Env,
    store: Arc<dyn Store>,
    cache: SessionCache,
    /// A write may have added a revocation to the outbox.
    revocation_added: Notify,
    /// Number of writes that may have ended sessions, since the store was last asked which ended.
    unknown_endings: AtomicUsize,
    /// When the streams of all sessions were last closed because this instance was cut off.
    streams_closed_at: Lock<Timestamp>,
    endings: broadcast::Sender<Ending>,
}

impl Rows {
    /// Opens the rows, and learns from the store which sessions ended lately. Memory may be trusted
    /// until `trusted_until`.
    pub(crate) async fn open(
        env: Env,
        store: Arc<dyn Store>,
        trusted_until: Timestamp,
    ) -> Result<Arc<Self>, StoreError> {
        let cache = SessionCache::new(env.settings().cached_sessions, trusted_until);
        let asked_at = env.now();
        cache.deny_all(store.denylist(limits::DISTRUSTED_SESSIONS).await?);
        cache.heard_all_until(asked_at.max(trusted_until));
        Ok(Arc::new(Self {
            env,
            store,
            cache,
            revocation_added: Notify::new(),
            unknown_endings: AtomicUsize::new(0),
            streams_closed_at: Lock::new(Timestamp::EPOCH),
            endings: broadcast::channel(limits::ENDINGS_BUFFERED).0,
        }))
    }

    /// What memory holds of sessions.
    pub(crate) fn cache(&self) -> &SessionCache {
        &self.cache
    }

    /// Whether changes have not been delivered for longer than cookies are believed without them.
    pub(crate) fn is_cut_off(&self, now: Timestamp) -> bool {
        self.cache.cut_off_for(now) > self.env.settings().cookie_when_cut_off
    }

    /// Whether the session may have ended.
    pub(crate) fn doubts(&self, id: SessionId) -> bool {
        self.cache.denies(id) || self.is_cut_off(self.env.now())
    }

    /// Closes the open streams of all sessions while this instance is cut off, and those opened
    /// since when the same time has passed again.
    pub(crate) fn close_streams_if_cut_off(&self) {
        let now = self.env.now();
        if !self.is_cut_off(now) {
            return;
        }
        let mut closed_at = self.streams_closed_at.lock();
        if now.since(*closed_at) > self.env.settings().cookie_when_cut_off {
            *closed_at = now;
            tracing::warn!(
                "changes of other instances are not received; open streams of sessions are closed"
            );
            // It fails only while nobody subscribes. Then no stream is open.
            let _ = self.endings.send(Ending::Unheard);
        }
    }

    /// Whether only this process uses the store.
    pub(crate) fn is_exclusive(&self) -> bool {
        self.store.is_exclusive()
    }

    /// Subscribes to the sessions that end.
    pub(crate) fn endings(&self) -> broadcast::Receiver<Ending> {
        self.endings.subscribe()
    }

    /// Is notified when a write may have added a revocation to the outbox.
    pub(crate) fn revocation_added(&self) -> &Notify {
        &self.revocation_added
    }

    /// The row: from memory if possible, else from the store.
    pub(crate) async fn load(&self, id: SessionId) -> Result<Option<Arc<Session>>, StoreError> {
        match self.cache.row(id, self.env.now()) {
            Some(session) => Ok(Some(session)),
            None => self.load_stored(id).await,
        }
    }

    /// The row as the store has it.
    pub(crate) async fn load_stored(&self, id: SessionId) -> Result<Option<Arc<Session>>, StoreError> {
        let mark = self.cache.mark();
        let session = self.store.load(id).await?.map(Arc::new);
        if let Some(session) = &session {
            self.cache.note_read(session);
            self.cache.keep(session, mark);
        }
        Ok(session)
    }

    /// The row as the store has it, for background work: memory is left as it is.
    pub(crate) async fn peek_stored(&self, id: SessionId) -> Result<Option<Session>, StoreError> {
        self.store.load(id).await
    }

    /// The row that this cookie opens.
    ///
    /// # Errors
    /// [`Denied::NoSession`] if there is none, or the cookie has another secret.
    pub(crate) async fn load_own(
        &self,
        cookie: &SessionCookie,
        from: ReadFrom,
    ) -> Result<Arc<Session>, Denied> {
        let row = match from {
            ReadFrom::Memory => self.load(cookie.session).await?,
            ReadFrom::Store => self.load_stored(cookie.session).await?,
        };
        row.filter(|row| row.secret_hash.matches(&cookie.secret)).ok_or(Denied::NoSession)
    }

    /// The sessions of a user that have not ended, last used first.
    pub(crate) async fn devices(&self, subject: &Subject) -> Result<Vec<Session>, StoreError> {
        self.store.devices(subject, limits::DEVICES_LISTED).await
    }

    /// A page of the slot's rows, in the order of their ids. A page shorter than
    /// [`limits::BATCH_ROWS`] is the last.
    pub(crate) async fn in_slot(
        &self,
        kind: SweepKind,
        slot: Slot,
        after: Option<SessionId>,
    ) -> Result<Vec<Session>, StoreError> {
        self.store.in_slot(kind, slot, after, limits::BATCH_ROWS).await
    }

    /// Changes a row by a rule. After each lost race the rule is asked again, for the row as it is.
    pub(crate) async fn update(
        self: &Arc<Self>,
        id: SessionId,
        rule: impl Rule,
    ) -> Result<Updated, StoreError> {
        let Some(row) = self.store.load(id).await? else { return Ok(Updated::Missing) };
        self.cache.note_read(&row);
        self.update_row(row, &rule).await
    }

    /// Changes a row for something that must not be lost, such as a new pair. It retries while the
    /// store fails.
    pub(crate) async fn update_until_stored(self: &Arc<Self>, id: SessionId, rule: impl Rule) -> Updated {
        until_stored(|| self.update(id, &rule)).await
    }

    /// The same for a row that this process wrote last. It is read again only if another writer was
    /// first.
    pub(crate) async fn update_own_until_stored(self: &Arc<Self>, row: &Session, rule: impl Rule) -> Updated {
        let failed = AtomicBool::new(false);
        let write = || async {
            if failed.swap(true, Ordering::Relaxed) {
                self.update(row.id, &rule).await
            } else {
                self.update_row(row.clone(), &rule).await
            }
        };
        until_stored(write).await
    }

    async fn update_row(self: &Arc<Self>, mut row: Session, rule: &impl Rule) -> Result<Updated, StoreError> {
        for _ in 0..limits::COMPARE_AND_SET_TRIES {
            let change = match rule(row.clone()) {
                Ok(change) => change,
                Err(refused) => return Ok(Updated::Refused(refused, Arc::new(row))),
            };
            match self.apply(&change).await? {
                Applied::Done => return Ok(Updated::Done(Arc::new(change.into_next()))),
                Applied::Conflict(Some(current)) => row = *current,
                Applied::Conflict(None) => return Ok(Updated::Missing),
            }
        }
        Err(StoreError::Unavailable("one row is changed by too many writers at once".to_owned()))
    }

    /// Writes a change if the store still has the row that it was made from, and takes note of it.
    pub(crate) async fn apply(self: &Arc<Self>, change: &Change) -> Result<Applied, StoreError> {
        let (rows, change) = (Arc::clone(self), change.clone());
        let write = async move {
            let applied = rows.store.apply(&change).await;
            rows.note_applied(change.next(), &applied);
            if change.revocation().is_some() {
                rows.revocation_added.notify_one();
            }
            applied
        };
        self.env.detached(write).await
    }

    /// Writes many rows that were proven or parked, in one step. A row that another writer changed
    /// in the meantime is changed by the same rule as it is now.
    pub(crate) async fn record_checks(self: &Arc<Self>, changes: Vec<Change>) -> Result<(), StoreError> {
        if changes.is_empty() {
            return Ok(());
        }
        let rows = Arc::clone(self);
        let write = async move {
            let mark = rows.cache.mark();
            let written = rows.store.apply_all(&changes).await?;
            for (row, written) in changes.into_iter().map(Change::into_next).zip(written) {
                match (&row.state, row.generation()) {
                    (State::Live(_), _) if written => rows.cache.note_proof(row, mark),
                    _ if written => rows.note_change(&row),
                    (_, Some(generation)) => rows.record_again(&row, generation).await?,
                    _ => {}
                }
            }
            Ok(())
        };
        self.env.detached(write).await
    }

    async fn record_again(self: &Arc<Self>, next: &Session, generation: Version) -> Result<(), StoreError> {
        let updated = self.update(next.id, |row: Session| match (&next.state, &row.state) {
            (State::Live(active), State::Live(_)) => row.prove(generation, active.proven_at),
            (State::Parked(_), State::Live(_)) => row.park(generation),
            // What others learnt of it in the meantime is younger.
            _ => Err(Refused::Superseded),
        });
        updated.await.map(drop)
    }

    /// Gives all of the user's sessions the name that the provider has just said, if this one has
    /// another. Nobody waits for that. If it fails, the next answer brings the name again.
    pub(crate) fn note_name(self: &Arc<Self>, row: &Session, name: Option<String>) {
        let Some(name) = name.filter(|name| row.display_name != *name) else { return };
        let (rows, subject) = (Arc::clone(self), row.subject.clone());
        self.env.spawn(async move {
            let renamed = async {
                for row in rows.devices(&subject).await? {
                    rows.update(row.id, |row: Session| row.rename(&name)).await?;
                }
                Ok::<_, StoreError>(())
            };
            if let Err(error) = renamed.await {
                tracing::warn!(%error, "the new name of a user was not written down");
            }
        });
    }

    /// Adds a session that just began, and takes note of the ones that it ended. Gives their
    /// number.
    pub(crate) async fn insert(
        self: &Arc<Self>,
        row: Session,
        placement: Placement,
    ) -> Result<usize, StoreError> {
        let ended = self.store.insert(row, placement).await;
        let ended = ended.inspect_err(|error| self.note_unknown_endings(error))?;
        self.note_endings(&ended);
        Ok(ended.len())
    }

    /// Ends a session if `meant` says so of the row as it is. Gives how many had not ended before.
    ///
    /// # Errors
    /// [`EndError::NotFound`] if there is no such row, or another one was meant.
    pub(crate) async fn end_one(
        self: &Arc<Self>,
        id: SessionId,
        reason: EndReason,
        meant: impl Fn(&Session) -> bool + Send + Sync,
    ) -> Result<usize, EndError> {
        let at = self.env.now();
        let rule = |row: Session| if meant(&row) { row.end(reason, at) } else { Err(Refused::Superseded) };
        self.end_by(id, rule).await
    }

    /// Ends a row by a rule. Gives how many had not ended before.
    ///
    /// # Errors
    /// [`EndError::NotFound`] if there is no such row, or the rule refused it.
    pub(crate) async fn end_by(self: &Arc<Self>, id: SessionId, rule: impl Rule) -> Result<usize, EndError> {
        match self.update(id, rule).await? {
            Updated::Done(_) => Ok(1),
            // It may be our own end, of which the store's answer was lost.
            Updated::Refused(Refused::Ended, row) => {
                self.note_change(&row);
                Ok(0)
            }
            Updated::Refused(..) | Updated::Missing => Err(EndError::NotFound),
        }
    }

    /// Ends all of the user's sessions that were created before a time, except one. Gives how many
    /// had not ended before.
    pub(crate) async fn end_selection(
        self: &Arc<Self>,
        subject: Subject,
        except: Option<SessionId>,
        created_before: Timestamp,
        reason: EndReason,
    ) -> Result<usize, StoreError> {
        debug_assert!(except.is_some() || reason.user_wide(), "BLAST");
        let selection = Selection { subject, except, created_before };
        let rows = Arc::clone(self);
        let write = async move {
            match rows.store.end_sessions(&selection, reason, rows.env.now()).await {
                Ok(ended) => {
                    rows.note_endings(&ended);
                    // The others may have been ended before, by a write of ours whose answer was
                    // lost.
                    rows.learn_unknown_endings().await?;
                    Ok(ended.len())
                }
                Err(error) => {
                    rows.note_unknown_endings(&error);
                    Err(error)
                }
            }
        };
        self.env.detached(write).await
    }

    /// Takes note of a row that changed, here or elsewhere.
    pub(crate) fn note_change(&self, session: &Session) {
        self.cache.note_change(session);
        if session.ended() {
            // It fails only while nobody subscribes. Then no stream of it is open.
            let _ = self.endings.send(Ending::Of(session.id));
        }
    }

    /// Takes note of sessions some of which may have ended without a message.
    pub(crate) fn note_possible_endings(&self, distrusted: Vec<SessionId>) {
        self.cache.deny_all(distrusted);
        // It fails only while nobody subscribes. Then no stream is open.
        let _ = self.endings.send(Ending::Unheard);
    }

    /// Learns which sessions ended without a message. It retries while the store fails.
    pub(crate) async fn learn_endings_until_read(&self) {
        let distrusted = until_stored(|| self.store.denylist(limits::DISTRUSTED_SESSIONS)).await;
        self.note_possible_endings(distrusted);
    }

    fn note_applied(self: &Arc<Self>, next: &Session, applied: &Result<Applied, StoreError>) {
        match applied {
            Ok(Applied::Done) => {
                note_end(next);
                self.note_change(next);
            }
            Ok(Applied::Conflict(Some(current))) => self.note_change(current),
            Ok(Applied::Conflict(None)) => self.cache.forget(next.id),
            Err(error) => {
                self.cache.forget(next.id);
                if next.ended() {
                    self.note_unknown_endings(error);
                }
            }
        }
    }

    /// Takes note of rows that the store ended in one step.
    fn note_endings(&self, ended: &[Session]) {
        for session in ended {
            note_end(session);
            self.note_change(session);
        }
        if !ended.is_empty() {
            self.revocation_added.notify_one();
        }
    }

    /// Takes note of a write that may have ended sessions, but whose outcome is unknown. Learns
    /// from the store what ended as soon as it can be read.
    fn note_unknown_endings(self: &Arc<Self>, error: &StoreError) {
        if !matches!(error, StoreError::Unavailable(_))
            || self.unknown_endings.fetch_add(1, Ordering::SeqCst) > 0
        {
            return;
        }
        let rows = Arc::clone(self);
        self.env.spawn(async move {
            let mut answered = 0;
            while rows.unknown_endings.fetch_sub(answered, Ordering::SeqCst) > answered {
                answered = rows.unknown_endings.load(Ordering::SeqCst);
                rows.learn_endings_until_read().await;
                // A write that got no answer may still be made. A write that succeeds after it says
                // that it was made or never will be.
                until_stored(|| rows.store.check()).await;
                rows.learn_endings_until_read().await;
            }
        });
    }

    /// Learns at once what such writes ended.
    async fn learn_unknown_endings(&self) -> Result<(), StoreError> {
        if self.unknown_endings.load(Ordering::SeqCst) > 0 {
            let distrusted = self.store.denylist(limits::DISTRUSTED_SESSIONS).await?;
            self.note_possible_endings(distrusted);
        }
        Ok(())
    }
}

/// Counts and logs a row that this process ended. Nothing happens for one that goes on.
fn note_end(committed: &Session) {
    let State::Ended { reason, .. } = committed.state else { return };
    metrics::ended(reason);
    let user = &committed.subject.id;
    tracing::info!(session = %committed.id, user, reason = reason.name(), "a session ended");
}
