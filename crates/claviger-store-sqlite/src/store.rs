//! The store: each method of the trait is one read or one write.

use std::{path::Path, sync::Arc};

use async_trait::async_trait;
use claviger_core::{
    ids::{AttemptId, SessionId, Subject},
    session::{EndReason, OwedRevocation, Session},
    suspicion::Suspicion,
    sweep::Slot,
    time::Timestamp,
};
use claviger_store::{
    Backlog, Census, HeadCount, Memo, Owed, OwedId, Placement, Replaced, Selection, Store, StoreError,
    Suspected, SuspicionKey, Visit, Wheel,
    archive::{MARKER, Side, is_unfinished},
};
use rusqlite::Connection;

use crate::{
    error::{Fault, OpenError},
    file, logins, memos, owed,
    pool::{self, Pool},
    schema, sessions, slots, suspicions,
    writer::Writer,
};

/// The first SQLite without the WAL-reset bug, 3.51.3.
const OLDEST_SQLITE: i32 = 3_051_003;

/// How the store uses the machine. The defaults are right for most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// So many reads run at a time. At least one.
    pub readers: usize,
    /// Each connection keeps so many KiB of the file in memory; there is one more than there are readers.
    pub cache_kib: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self { readers: 4, cache_kib: 2048 }
    }
}

/// Sessions in one SQLite file.
pub struct SqliteStore {
    pool: Arc<Pool>,
    writer: Writer,
}

impl SqliteStore {
    /// Opens the file, makes it if it is not there, and brings it to the newest schema. Blocks meanwhile.
    ///
    /// # Errors
    /// [`OpenError`]; each says what the operator can do.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        Self::open_with(path, &Options::default())
    }

    /// [`SqliteStore::open`] with other options.
    ///
    /// # Errors
    /// [`OpenError`]; each says what the operator can do.
    pub fn open_with(path: &Path, options: &Options) -> Result<Self, OpenError> {
        let store = Self::open_unasked(path, options)?;
        let marker = store.pool.read(|connection| memos::read(connection, MARKER));
        match marker {
            Ok(marker) if is_unfinished(marker.as_ref()) => Err(OpenError::Unfinished(path.to_owned())),
            Ok(_) => Ok(store),
            Err(source) => Err(OpenError::Store { path: path.to_owned(), source }),
        }
    }

    /// Opens the file without asking whether a copy into it was finished.
    fn open_unasked(path: &Path, options: &Options) -> Result<Self, OpenError> {
        if rusqlite::version_number() < OLDEST_SQLITE {
            return Err(OpenError::OldSqlite(rusqlite::version()));
        }
        let path = &file::real(path)?;
        let hold = file::hold(path)?;
        file::create(path)?;
        let mut connection = pool::writing_connection(path, options)?;
        let found = schema::inspect(&connection, path)?;
        pool::make_durable(&connection, path)?;
        schema::migrate(&mut connection, path, found)?;
        let pool = Arc::new(Pool::open(path, options)?);
        let writer = Writer::start(connection, hold).map_err(|error| OpenError::io(path, &error))?;
        Ok(Self { pool, writer })
    }

    /// Opens a file to copy all that is in it, or to copy into it: one that is not there is made as a destination only, and a
    /// destination is opened although a copy into it was not finished. Blocks meanwhile.
    ///
    /// # Errors
    /// [`OpenError`]; each says what the operator can do.
    pub fn open_archive(path: &Path, side: Side) -> Result<Self, OpenError> {
        if side == Side::Source && !path.is_file() {
            return Err(OpenError::NoFile(path.to_owned()));
        }
        Self::open_unasked(path, &Options::default())
    }

    /// Opens a file to compare all that is in it. Nothing is made and nothing is changed: a file that is not there, or has an older
    /// schema, is refused. Blocks meanwhile.
    ///
    /// # Errors
    /// [`OpenError`]; each says what the operator can do.
    pub fn open_to_compare(path: &Path) -> Result<Self, OpenError> {
        if !path.is_file() {
            return Err(OpenError::NoFile(path.to_owned()));
        }
        let (path, options) = (&file::real(path)?, &Options::default());
        let hold = file::hold(path)?;
        let connection = pool::writing_connection(path, options)?;
        schema::require_newest(path, schema::inspect(&connection, path)?)?;
        pool::make_unchangeable(&connection, path)?;
        let pool = Arc::new(Pool::open(path, options)?);
        let writer = Writer::start(connection, hold).map_err(|error| OpenError::io(path, &error))?;
        Ok(Self { pool, writer })
    }

    /// Reads in a thread of its own, since it takes long.
    pub(crate) async fn survey<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, StoreError> {
        let pool = Arc::clone(&self.pool);
        let read = tokio::task::spawn_blocking(move || pool.read(work));
        read.await.unwrap_or_else(|_| Err(StoreError::Unavailable("the read was cut short".to_owned())))
    }

    /// Has `work` done and committed.
    pub(crate) async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.writer.write(work).await
    }
}

impl Drop for SqliteStore {
    /// The readers go first: the last connection to close tidies the log away, and only the writer can.
    fn drop(&mut self) {
        if let Some(pool) = Arc::get_mut(&mut self.pool) {
            pool.close();
        }
        self.writer.close();
    }
}

impl std::fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqliteStore").finish_non_exhaustive()
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn check(&self) -> Result<(), StoreError> {
        self.pool.read(|connection| sessions::distrusted(connection, 1))?;
        self.write(|connection| Ok(schema::rewrite(connection)?)).await
    }

    async fn insert(&self, session: Session, placement: Placement) -> Result<Vec<Session>, StoreError> {
        self.write(move |connection| sessions::insert(connection, &session, placement)).await
    }

    async fn load(&self, id: SessionId) -> Result<Option<Session>, StoreError> {
        self.pool.read(|connection| sessions::load(connection, id))
    }

    async fn replace(&self, next: &Session, owed: Option<&OwedRevocation>) -> Result<Replaced, StoreError> {
        let (next, owed) = (next.clone(), owed.cloned());
        self.write(move |connection| sessions::replace(connection, &next, owed.as_ref())).await
    }

    async fn devices(&self, subject: &Subject, limit: usize) -> Result<Vec<Session>, StoreError> {
        self.pool.read(|connection| sessions::devices(connection, subject, limit))
    }

    async fn end_all(
        &self,
        selection: &Selection,
        reason: EndReason,
        at: Timestamp,
    ) -> Result<Vec<Session>, StoreError> {
        let selection = selection.clone();
        self.write(move |connection| sessions::end_all(connection, &selection, reason, at)).await
    }

    async fn touch(&self, seen: &[(SessionId, Timestamp)]) -> Result<(), StoreError> {
        if seen.is_empty() {
            return Ok(());
        }
        let mut seen = seen.to_vec();
        // Neighbours share pages.
        seen.sort_unstable();
        self.write(move |connection| sessions::touch(connection, &seen)).await
    }

    async fn overdue(
        &self,
        idle_since: Timestamp,
        created_until: Timestamp,
        limit: usize,
    ) -> Result<Vec<SessionId>, StoreError> {
        self.pool.read(|connection| sessions::overdue(connection, idle_since, created_until, limit))
    }

    async fn distrusted(&self, limit: usize) -> Result<Vec<SessionId>, StoreError> {
        self.pool.read(|connection| sessions::distrusted(connection, limit))
    }

    async fn purge(&self, created_until: Timestamp, limit: usize) -> Result<usize, StoreError> {
        self.write(move |connection| sessions::purge(connection, created_until, limit)).await
    }

    async fn spend_login(&self, state_hash: [u8; 32], expires_at: Timestamp) -> Result<bool, StoreError> {
        self.write(move |connection| logins::spend(connection, &state_hash, expires_at)).await
    }

    async fn forget_logins(&self, now: Timestamp, limit: usize) -> Result<usize, StoreError> {
        self.write(move |connection| logins::forget(connection, now, limit)).await
    }

    async fn owe(&self, owed: &OwedRevocation) -> Result<(), StoreError> {
        let owed = owed.clone();
        self.write(move |connection| owed::owe(connection, &owed)).await
    }

    async fn take_owed(
        &self,
        attempt: AttemptId,
        now: Timestamp,
        lease_until: Timestamp,
        limit: usize,
    ) -> Result<Vec<Owed>, StoreError> {
        self.write(move |connection| owed::take(connection, attempt, now, lease_until, limit)).await
    }

    async fn settle_owed(&self, id: OwedId, attempt: AttemptId) -> Result<bool, StoreError> {
        self.write(move |connection| owed::settle(connection, id, attempt)).await
    }

    async fn postpone_owed(
        &self,
        id: OwedId,
        attempt: AttemptId,
        due_at: Timestamp,
    ) -> Result<bool, StoreError> {
        self.write(move |connection| owed::postpone(connection, id, attempt, due_at)).await
    }

    async fn owed_backlog(&self) -> Result<Backlog, StoreError> {
        self.pool.read(owed::backlog)
    }

    async fn take_slots(
        &self,
        wheel: Wheel,
        attempt: AttemptId,
        now: Timestamp,
        lease_until: Timestamp,
        limit: usize,
    ) -> Result<Vec<Visit>, StoreError> {
        self.write(move |connection| slots::take(connection, wheel, attempt, now, lease_until, limit)).await
    }

    async fn in_slot(
        &self,
        wheel: Wheel,
        slot: Slot,
        after: Option<SessionId>,
        limit: usize,
    ) -> Result<Vec<Session>, StoreError> {
        self.pool.read(|connection| sessions::in_slot(connection, wheel, slot, after, limit))
    }

    async fn hold_slot(
        &self,
        wheel: Wheel,
        slot: Slot,
        attempt: AttemptId,
        lease_until: Timestamp,
    ) -> Result<bool, StoreError> {
        self.write(move |connection| slots::hold(connection, wheel, slot, attempt, lease_until)).await
    }

    async fn leave_slot(
        &self,
        wheel: Wheel,
        slot: Slot,
        attempt: AttemptId,
        due_at: Timestamp,
    ) -> Result<bool, StoreError> {
        self.write(move |connection| slots::leave(connection, wheel, slot, attempt, due_at)).await
    }

    async fn longest_due(&self, wheel: Wheel) -> Result<Option<Timestamp>, StoreError> {
        self.pool.read(|connection| slots::longest_due(connection, wheel))
    }

    async fn replace_all(&self, next: &[Session]) -> Result<Vec<bool>, StoreError> {
        if next.is_empty() {
            return Ok(Vec::new());
        }
        let next = next.to_vec();
        self.write(move |connection| sessions::replace_all(connection, &next)).await
    }

    /// It goes through the narrow table, 60 MB for a million sessions, so it does not run among the tasks that answer requests.
    async fn census(&self, now: Timestamp) -> Result<Census, StoreError> {
        self.survey(move |connection| sessions::census(connection, now)).await
    }

    /// It goes through all sessions, so it does not run among the tasks that answer requests.
    async fn heads(&self) -> Result<Vec<HeadCount>, StoreError> {
        self.survey(sessions::heads).await
    }

    async fn suspect(
        &self,
        key: SuspicionKey,
        suspicion: &Suspicion,
        noted_at: Timestamp,
    ) -> Result<bool, StoreError> {
        let suspicion = suspicion.clone();
        self.write(move |connection| suspicions::note(connection, key, &suspicion, noted_at)).await
    }

    async fn take_suspicions(
        &self,
        attempt: AttemptId,
        now: Timestamp,
        lease_until: Timestamp,
        limit: usize,
    ) -> Result<Vec<Suspected>, StoreError> {
        self.write(move |connection| suspicions::take(connection, attempt, now, lease_until, limit)).await
    }

    async fn settle_suspicion(&self, key: SuspicionKey, attempt: AttemptId) -> Result<bool, StoreError> {
        self.write(move |connection| suspicions::settle(connection, key, attempt)).await
    }

    async fn postpone_suspicion(
        &self,
        key: SuspicionKey,
        attempt: AttemptId,
        due_at: Timestamp,
    ) -> Result<bool, StoreError> {
        self.write(move |connection| suspicions::postpone(connection, key, attempt, due_at)).await
    }

    async fn forget_suspicions(&self, noted_until: Timestamp, limit: usize) -> Result<usize, StoreError> {
        self.write(move |connection| suspicions::forget(connection, noted_until, limit)).await
    }

    async fn memo(&self, name: &str) -> Result<Option<Memo>, StoreError> {
        self.pool.read(|connection| memos::read(connection, name))
    }

    async fn put_memo(&self, name: &str, memo: &Memo) -> Result<bool, StoreError> {
        let (name, memo) = (name.to_owned(), memo.clone());
        self.write(move |connection| memos::put(connection, &name, &memo)).await
    }
}
