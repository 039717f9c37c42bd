//! The store: each method of the trait is one read or one write.

use std::{path::Path, sync::Arc, time::Duration};

use async_trait::async_trait;
use claviger_core::{AttemptId, Change, EndReason, Session, SessionId, Slot, Subject, Timestamp};
use claviger_store::{
    Applied, Backlog, ChangeFeed, Item, ItemId, KeyIdCount, Lease, LeaseTerms, LeaseUpdate, Leftover,
    Placement, Queue, Selection, SessionCounts, SharedEntry, Store, StoreError, SweepKind,
    archive::{MARKER, Side, is_unfinished},
};
use rusqlite::Connection;
use tokio::{sync::Semaphore, time::timeout};

use crate::{
    apply,
    error::{Fault, OpenError},
    file::{self, Hold, Identity},
    logins,
    pool::{self, Options, Pool},
    queues, schema, sessions, shared_entries,
    writer::{HANGS, Writer},
};

/// The first SQLite without the WAL-reset bug, 3.51.3.
const OLDEST_SQLITE: i32 = 3_051_003;

/// Sessions in one SQLite file.
pub struct SqliteStore {
    pool: Arc<Pool>,
    pub(crate) writer: Writer,
    patience: Duration,
    file: Identity,
    /// Bounds the threads that wait for a disk that does not answer.
    threads: Arc<Semaphore>,
}

impl SqliteStore {
    /// Opens the file, creates it if it does not exist, and upgrades it to the newest schema.
    /// Blocks the thread.
    ///
    /// # Errors
    /// [`OpenError`]; each says what the operator can do.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        Self::open_with(path, &Options::default())
    }

    /// As [`SqliteStore::open`], with other options.
    ///
    /// # Errors
    /// [`OpenError`]; each says what the operator can do.
    pub fn open_with(path: &Path, options: &Options) -> Result<Self, OpenError> {
        let store = Self::open_unasked(path, options)?;
        let marker = store.pool.read(|connection| shared_entries::read(connection, MARKER));
        match marker {
            Ok(marker) if is_unfinished(marker.as_ref()) => Err(OpenError::Unfinished(path.to_owned())),
            Ok(_) => Ok(store),
            Err(source) => Err(OpenError::Store { path: path.to_owned(), source }),
        }
    }

    /// Opens the file without checking that a copy into it was finished.
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
        Self::of(path, options, connection, hold)
    }

    fn of(path: &Path, options: &Options, connection: Connection, hold: Hold) -> Result<Self, OpenError> {
        let pool = Arc::new(Pool::open(path, options)?);
        let file = Identity::of(path).map_err(|error| OpenError::io(path, &error))?;
        let patience = options.patience;
        let writer =
            Writer::start(connection, hold, patience).map_err(|error| OpenError::io(path, &error))?;
        let threads = Arc::new(Semaphore::new(options.readers.max(1)));
        Ok(Self { pool, writer, patience, file, threads })
    }

    /// Opens a file as the source or the destination of a copy. A missing file is created only as a
    /// destination. A destination is opened even if a copy into it was not finished. Blocks the
    /// thread.
    ///
    /// # Errors
    /// [`OpenError`]; each says what the operator can do.
    pub fn open_archive(path: &Path, side: Side) -> Result<Self, OpenError> {
        if side == Side::Source && !path.is_file() {
            return Err(OpenError::NoFile(path.to_owned()));
        }
        Self::open_unasked(path, &Options::default())
    }

    /// Opens a file to compare its rows. Creates and changes nothing: a missing file or an older
    /// schema is refused. Blocks the thread.
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
        Self::of(path, options, connection, hold)
    }

    /// Runs a long read in a thread of its own.
    pub(crate) async fn survey<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, StoreError> {
        let pool = Arc::clone(&self.pool);
        let read = tokio::task::spawn_blocking(move || pool.read(work));
        read.await.unwrap_or_else(|_| Err(StoreError::Unavailable("the read was cut short".to_owned())))
    }

    /// Runs a short read. It runs in this task, unless the disk does not answer or all readers are
    /// busy: then in a thread of its own, for which the task waits for limited time.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, StoreError> {
        if !self.writer.hangs()
            && let Some(reader) = self.pool.free()
        {
            return work(&reader).map_err(|Fault(error)| error);
        }
        let read = timeout(self.patience, async {
            // It is never closed. A thread keeps its permit when nobody waits for it any more.
            let permit = Arc::clone(&self.threads).acquire_owned().await;
            self.survey(move |connection| {
                let _permit = permit;
                work(connection)
            })
            .await
        });
        read.await.unwrap_or_else(|_| Err(StoreError::Unavailable(HANGS.to_owned())))
    }

    /// Runs and commits `work`.
    pub(crate) async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.writer.write(work).await
    }
}

impl Drop for SqliteStore {
    /// Closes the readers first: the last connection to close removes the log, and only the writer
    /// can.
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
        self.read(|connection| sessions::denylist(connection, 1)).await?;
        self.write(|connection| Ok(schema::rewrite(connection)?)).await
    }

    async fn insert(&self, session: Session, placement: Placement) -> Result<Vec<Session>, StoreError> {
        self.write(move |connection| sessions::insert(connection, &session, placement)).await
    }

    async fn load(&self, id: SessionId) -> Result<Option<Session>, StoreError> {
        self.read(move |connection| sessions::load(connection, id)).await
    }

    async fn apply(&self, change: &Change) -> Result<Applied, StoreError> {
        let change = change.clone();
        self.write(move |connection| sessions::apply(connection, &change)).await
    }

    async fn apply_all(&self, changes: &[Change]) -> Result<Vec<bool>, StoreError> {
        if changes.is_empty() {
            return Ok(Vec::new());
        }
        let changes = changes.to_vec();
        self.write(move |connection| apply::apply_all(connection, &changes)).await
    }

    async fn devices(&self, subject: &Subject, limit: usize) -> Result<Vec<Session>, StoreError> {
        let subject = subject.clone();
        self.read(move |connection| sessions::devices(connection, &subject, limit)).await
    }

    async fn end_sessions(
        &self,
        selection: &Selection,
        reason: EndReason,
        at: Timestamp,
    ) -> Result<Vec<Session>, StoreError> {
        let selection = selection.clone();
        self.write(move |connection| sessions::end_sessions(connection, &selection, reason, at)).await
    }

    async fn record_last_seen(&self, seen: &[(SessionId, Timestamp)]) -> Result<(), StoreError> {
        if seen.is_empty() {
            return Ok(());
        }
        let mut seen = seen.to_vec();
        // Rows with neighbouring ids share pages.
        seen.sort_unstable();
        self.write(move |connection| sessions::record_last_seen(connection, &seen)).await
    }

    async fn overdue(
        &self,
        idle_since: Timestamp,
        created_until: Timestamp,
        limit: usize,
    ) -> Result<Vec<SessionId>, StoreError> {
        self.read(move |connection| sessions::overdue(connection, idle_since, created_until, limit)).await
    }

    async fn denylist(&self, limit: usize) -> Result<Vec<SessionId>, StoreError> {
        self.read(move |connection| sessions::denylist(connection, limit)).await
    }

    async fn purge(&self, what: Leftover, until: Timestamp, limit: usize) -> Result<usize, StoreError> {
        let purge = match what {
            Leftover::Tombstones => sessions::purge,
            Leftover::SpentLogins => logins::forget,
            Leftover::ClosedSuspicions => queues::forget_suspicions,
        };
        self.write(move |connection| purge(connection, until, limit)).await
    }

    async fn spend_login(&self, state_hash: [u8; 32], expires_at: Timestamp) -> Result<bool, StoreError> {
        self.write(move |connection| logins::spend(connection, &state_hash, expires_at)).await
    }

    async fn enqueue(&self, item: &Item) -> Result<bool, StoreError> {
        let item = item.clone();
        self.write(move |connection| queues::enqueue(connection, &item)).await
    }

    async fn take(
        &self,
        queue: Queue,
        terms: LeaseTerms,
        limit: usize,
    ) -> Result<Vec<Lease<Item>>, StoreError> {
        self.write(move |connection| queues::take(connection, queue, terms, limit)).await
    }

    async fn update_lease(
        &self,
        id: ItemId,
        holder: AttemptId,
        update: LeaseUpdate,
    ) -> Result<bool, StoreError> {
        self.write(move |connection| queues::update_lease(connection, id, holder, update)).await
    }

    async fn backlog(&self, queue: Queue) -> Result<Backlog, StoreError> {
        match queue {
            Queue::Revocations | Queue::Suspicions => {
                self.read(move |connection| queues::backlog(connection, queue)).await
            }
            // It looks for a session in each slot.
            Queue::Slots(_) => self.survey(move |connection| queues::backlog(connection, queue)).await,
        }
    }

    async fn in_slot(
        &self,
        sweep: SweepKind,
        slot: Slot,
        after: Option<SessionId>,
        limit: usize,
    ) -> Result<Vec<Session>, StoreError> {
        self.read(move |connection| sessions::in_slot(connection, sweep, slot, after, limit)).await
    }

    /// This reads the whole narrow table, 60 MB for a million sessions, so it does not run in the
    /// tasks that answer requests.
    async fn session_counts(&self, now: Timestamp) -> Result<SessionCounts, StoreError> {
        self.survey(move |connection| sessions::session_counts(connection, now)).await
    }

    /// This reads all sessions, so it does not run in the tasks that answer requests.
    async fn key_id_counts(&self) -> Result<Vec<KeyIdCount>, StoreError> {
        self.survey(sessions::key_id_counts).await
    }

    async fn shared_entry(&self, name: &str) -> Result<Option<SharedEntry>, StoreError> {
        let name = name.to_owned();
        self.read(move |connection| shared_entries::read(connection, &name)).await
    }

    /// The file is open only in this process, and once.
    fn is_exclusive(&self) -> bool {
        true
    }

    /// The file is open only in this process.
    fn change_feed(&self) -> ChangeFeed {
        ChangeFeed::SoleWriter
    }

    /// Says so if the file is no longer at its path.
    async fn trouble(&self) -> Option<String> {
        let file = self.file.clone();
        let look = tokio::task::spawn_blocking(move || file.trouble());
        // A disk that does not answer shows in all calls.
        timeout(self.patience, look).await.ok()?.ok()?
    }

    async fn put_shared_entry(&self, name: &str, entry: &SharedEntry) -> Result<bool, StoreError> {
        let (name, entry) = (name.to_owned(), entry.clone());
        self.write(move |connection| shared_entries::put(connection, &name, &entry)).await
    }
}
