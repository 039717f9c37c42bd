//! Load a row, let a rule make the next one, write it by compare-and-set; again if another writer was first.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use claviger_core::{
    ids::SessionId,
    policy::limits,
    session::{OwedRevocation, Refused, Session},
};
use claviger_store::{Replaced, StoreError};

use crate::{Ending, Engine, meter};

/// The next row, with the revocation that is owed for the one before.
pub(crate) type Next = (Session, Option<OwedRevocation>);

/// Makes the next row from the row as it is.
pub(crate) trait Rule: Fn(Session) -> Result<Next, Refused> + Send + Sync {}

impl<F: Fn(Session) -> Result<Next, Refused> + Send + Sync> Rule for F {}

/// What became of a change.
#[derive(Debug)]
pub(crate) enum Amended {
    /// The row is changed.
    Done(Arc<Session>),
    /// The rule refused the row as it is now.
    Refused(Refused, Arc<Session>),
    /// There is no such row.
    Missing,
}

impl Engine {
    /// The row: from memory where it is known, else from the store.
    pub(crate) async fn row(&self, id: SessionId) -> Result<Option<Arc<Session>>, StoreError> {
        match self.inner.known.row(id, self.now()) {
            Some(session) => Ok(Some(session)),
            None => self.fresh_row(id).await,
        }
    }

    /// The row as the store has it.
    pub(crate) async fn fresh_row(&self, id: SessionId) -> Result<Option<Arc<Session>>, StoreError> {
        let reading = self.inner.known.reading();
        let session = self.inner.parts.store.load(id).await?.map(Arc::new);
        if let Some(session) = &session {
            self.inner.known.learned(session);
            self.inner.known.keep(session, reading);
        }
        Ok(session)
    }

    /// Changes a row by a rule. The rule is asked anew for the row as it is after each lost race.
    pub(crate) async fn amend(&self, id: SessionId, rule: impl Rule) -> Result<Amended, StoreError> {
        let Some(row) = self.inner.parts.store.load(id).await? else { return Ok(Amended::Missing) };
        self.inner.known.learned(&row);
        self.amend_row(row, &rule).await
    }

    /// Changes a row by a rule for something that must not be lost, such as a pair in hand: where the store fails it
    /// tries again, and ends only with the process.
    pub(crate) async fn amend_surely(&self, id: SessionId, rule: impl Rule) -> Amended {
        self.surely(|| self.amend(id, &rule)).await
    }

    /// The same, of a row that this instance wrote last: it is read again only if somebody else changed it since.
    pub(crate) async fn amend_surely_ours(&self, row: &Session, rule: impl Rule) -> Amended {
        let failed = AtomicBool::new(false);
        let write = || async {
            if failed.swap(true, Ordering::Relaxed) {
                self.amend(row.id, &rule).await
            } else {
                self.amend_row(row.clone(), &rule).await
            }
        };
        self.surely(write).await
    }

    /// Repeats a write until the store takes it.
    pub(crate) async fn surely<T, F>(&self, write: impl Fn() -> F) -> T
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let mut pause = limits::COMMIT_PAUSE;
        loop {
            match write().await {
                Ok(done) => return done,
                Err(error) => {
                    tracing::error!(%error, "a change that must not be lost waits for the session store")
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(limits::COMMIT_PAUSE_MAX);
        }
    }

    async fn amend_row(&self, mut row: Session, rule: &impl Rule) -> Result<Amended, StoreError> {
        for _ in 0..limits::COMPARE_AND_SET_TRIES {
            let (next, owed) = match rule(row.clone()) {
                Ok(next) => next,
                Err(refused) => return Ok(Amended::Refused(refused, Arc::new(row))),
            };
            match self.replace(&next, owed.as_ref()).await? {
                Replaced::Done => return Ok(Amended::Done(Arc::new(next))),
                Replaced::Conflict(Some(current)) => row = *current,
                Replaced::Conflict(None) => return Ok(Amended::Missing),
            }
        }
        Err(StoreError::Unavailable("one row is changed by too many writers at once".to_owned()))
    }

    /// Writes a row if it is still the one that `next` was made from, and takes note of it.
    pub(crate) async fn replace(
        &self,
        next: &Session,
        owed: Option<&OwedRevocation>,
    ) -> Result<Replaced, StoreError> {
        let (engine, next, owed) = (self.clone(), next.clone(), owed.cloned());
        self.detached(async move {
            let replaced = engine.inner.parts.store.replace(&next, owed.as_ref()).await;
            engine.note_replaced(&next, &replaced);
            if owed.is_some() {
                engine.inner.owed.notify_one();
            }
            replaced
        })
        .await
    }

    /// The same for a row that has a claim more.
    pub(crate) async fn replace_claim(&self, next: &Session) -> Result<Replaced, StoreError> {
        let (engine, next) = (self.clone(), next.clone());
        self.detached(async move {
            let replaced = engine.inner.parts.store.replace_claim(&next).await;
            engine.note_replaced(&next, &replaced);
            replaced
        })
        .await
    }

    fn note_replaced(&self, next: &Session, replaced: &Result<Replaced, StoreError>) {
        match replaced {
            Ok(Replaced::Done) => {
                meter::ended(next);
                self.note_change(next);
            }
            Ok(Replaced::Conflict(Some(current))) => self.note_change(current),
            Ok(Replaced::Conflict(None)) => self.inner.known.forget(next.id),
            Err(error) => {
                self.inner.known.forget(next.id);
                if next.ended() {
                    self.note_unknown(error);
                }
            }
        }
    }

    /// Does a write and takes note of it, even if the caller goes away in between: else memory would vouch for a row
    /// that the store no longer has.
    pub(crate) async fn detached<T, E>(
        &self,
        work: impl Future<Output = Result<T, E>> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let lost = |_| Err(StoreError::Unavailable("a task ended without an outcome".to_owned()).into());
        self.inner.tasks.spawn(work).await.unwrap_or_else(lost)
    }

    /// Takes note of a write that may have ended sessions, of which nobody can say: learns from the store what ended,
    /// as soon as it can be read.
    pub(crate) fn note_unknown(&self, error: &StoreError) {
        if !matches!(error, StoreError::Unavailable(_))
            || self.inner.unheard_endings.fetch_add(1, Ordering::SeqCst) > 0
        {
            return;
        }
        let engine = self.clone();
        self.inner.tasks.spawn(async move {
            let mut answered = 0;
            while engine.inner.unheard_endings.fetch_sub(answered, Ordering::SeqCst) > answered {
                answered = engine.inner.unheard_endings.load(Ordering::SeqCst);
                engine.surely_hear_of_endings().await;
            }
        });
    }

    /// Learns at once what is still to be learned of such writes.
    pub(crate) async fn hear_of_endings(&self) -> Result<(), StoreError> {
        if self.inner.unheard_endings.load(Ordering::SeqCst) > 0 {
            let distrusted = self.inner.parts.store.distrusted(limits::DISTRUSTED_SESSIONS).await?;
            self.note_unheard(distrusted);
        }
        Ok(())
    }

    /// Learns what ended unheard, however long the store takes to answer.
    pub(crate) async fn surely_hear_of_endings(&self) {
        let distrusted = self.surely(|| self.inner.parts.store.distrusted(limits::DISTRUSTED_SESSIONS)).await;
        self.note_unheard(distrusted);
    }

    /// Takes note of sessions some of which ended unheard.
    pub(crate) fn note_unheard(&self, distrusted: Vec<SessionId>) {
        self.inner.known.distrust_all(distrusted);
        // Nobody listening is fine: then no stream is open.
        let _ = self.inner.ended.send(Ending::Unheard);
    }

    /// Takes note of a row that changed, here or elsewhere.
    pub(crate) fn note_change(&self, session: &Session) {
        self.inner.known.changed(session);
        if session.ended() {
            // Nobody listening is fine: then no stream of it is open.
            let _ = self.inner.ended.send(Ending::Of(session.id));
        }
    }
}
