//! Implements the store's trait. Each method is one statement or one transaction. A change that
//! meets a conflict also loads the stored row.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use claviger_core::{AttemptId, Change, ChangeKind, EndReason, Session, SessionId, Slot, Subject, Timestamp};
use claviger_store::{
    Applied, Backlog, ChangeFeed, Item, ItemId, KeyIdCount, Lease, LeaseTerms, LeaseUpdate, Leftover,
    Placement, Queue, Selection, SessionCounts, SharedEntry, Store, StoreError, SweepKind,
    archive::{MARKER, is_unfinished},
};
use futures_util::future::try_join_all;
use tokio::task::JoinHandle;

use crate::{
    address::Address,
    apply,
    changes::{Changes, PairTeller},
    clock::DatabaseClock,
    coalescer::WriteCoalescer,
    database::{self, Database, PooledConnection, bounds},
    error::OpenError,
    logins, queues,
    schema::{self, Occasion, Plan},
    sessions, shared_entries,
    values::session_column,
};

/// Time limit for a migration, including the wait for another instance's.
const MIGRATION: Duration = Duration::from_secs(10 * 60);
/// Time limit for what scans all or many sessions.
const SURVEY: Duration = Duration::from_secs(60);

/// How the store uses the database. The defaults suit most deployments.
#[derive(Clone, Debug)]
pub struct Options {
    /// Maximum number of connections, without the one that listens. A quarter is kept for reads.
    /// The sum over all instances must be below the database's `max_connections`.
    pub connections: usize,
    /// Whether the address leads to a pooler in transaction mode.
    pub transaction_pooler: bool,
    /// Address that is used to listen for changes. Needed only behind a pooler.
    pub listen_address: Option<Address>,
    /// Maximum number of concurrent statements that write claims and new pairs. Changes that arrive
    /// meanwhile share the next one. With [`usize::MAX`] each is written alone.
    pub writers: usize,
    /// Time limit for each attempt of a call, for its wait for a free connection, and for the wait
    /// of a claim or new pair for its turn.
    pub patience: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            connections: 16,
            transaction_pooler: false,
            listen_address: None,
            writers: 2,
            patience: Duration::from_secs(10),
        }
    }
}

/// Sessions in a PostgreSQL database that several instances share.
pub struct PostgresStore {
    database: Database,
    /// With a longer time limit, for scans of all sessions.
    survey: Database,
    clock: DatabaseClock,
    clock_keeper: JoinHandle<()>,
    pair_teller: PairTeller,
    coalescer: Arc<WriteCoalescer>,
    listen_address: Option<Address>,
    address: Address,
    transaction_pooler: bool,
}

impl PostgresStore {
    /// Connects, and brings the database to the newest schema.
    ///
    /// # Errors
    /// [`OpenError`]; each says what the operator can do.
    pub async fn open(address: &Address, options: &Options) -> Result<Self, OpenError> {
        let store = Self::open_unasked(address, options).await?;
        let marker = store.shared_entry(MARKER).await?;
        if is_unfinished(marker.as_ref()) { Err(OpenError::Unfinished) } else { Ok(store) }
    }

    /// Connects to copy from or into the database, even if an earlier copy into it was not
    /// finished. Its connections have an application name of their own.
    ///
    /// # Errors
    /// [`OpenError`]; each says what the operator can do.
    pub async fn open_archive(address: &Address, options: &Options) -> Result<Self, OpenError> {
        Self::open_unasked(&address.of_copy(), &of_copy(options)).await
    }

    /// Connects to compare the database's content. Changes nothing: refuses a database without our
    /// tables or with an older schema.
    ///
    /// # Errors
    /// [`OpenError`]; each says what the operator can do.
    pub async fn open_to_compare(address: &Address, options: &Options) -> Result<Self, OpenError> {
        let (address, options) = (address.of_copy(), of_copy(options));
        let plan = Self::plan(&address, &options).await?;
        if !plan.steps.is_empty() {
            return Err(OpenError::Older { found: plan.found });
        }
        Self::open_unasked(&address, &options).await
    }

    /// Connects without checking that a copy into the database was finished.
    async fn open_unasked(address: &Address, options: &Options) -> Result<Self, OpenError> {
        let Options { connections, transaction_pooler, listen_address, writers, patience } = options;
        let pooler = *transaction_pooler;
        let listen_address = listen_address.clone().or_else(|| (!pooler).then(|| address.clone()));
        if let Some(address) = &listen_address
            && database::is_pooled(&address.of_opening())
                .await
                .map_err(|fault| database::not_asked(address, fault))?
        {
            return Err(OpenError::Pooler);
        }
        let migrating = Database::new(&address.of_opening(), 1, pooler, MIGRATION)?;
        schema::migrate(&migrating, Occasion::Start).await?;
        let database = Database::new(address, *connections, pooler, *patience)?;
        let clock = DatabaseClock::read(&database).await?;
        let clock_keeper = tokio::spawn(clock.clone().keep(database.clone()));
        let survey = Database::new(address, 1, pooler, SURVEY)?;
        let pair_teller = PairTeller::start(database.clone());
        let coalescer = WriteCoalescer::new(database.clone(), *writers, *patience);
        let (address, transaction_pooler) = (address.clone(), pooler);
        Ok(Self {
            database,
            survey,
            clock,
            clock_keeper,
            pair_teller,
            coalescer,
            listen_address,
            address,
            transaction_pooler,
        })
    }

    pub(crate) fn address(&self) -> &Address {
        &self.address
    }

    pub(crate) fn is_pooled(&self) -> bool {
        self.transaction_pooler
    }

    /// With a longer time limit, for scans of many rows.
    pub(crate) fn survey(&self) -> &Database {
        &self.survey
    }

    /// Returns what [`PostgresStore::migrate`] would do, and changes nothing.
    ///
    /// # Errors
    /// [`OpenError`]; each says what the operator can do.
    pub async fn plan(address: &Address, options: &Options) -> Result<Plan, OpenError> {
        let database = Database::new(address, 1, options.transaction_pooler, options.patience)?;
        schema::plan(&database).await
    }

    /// Brings the database to the newest schema, and returns the steps taken. Any number of
    /// instances may do so at once. A step that would break gateways more than one release old runs
    /// only here, and only while no gateway is connected.
    ///
    /// # Errors
    /// [`OpenError`]; each says what the operator can do.
    pub async fn migrate(address: &Address, options: &Options) -> Result<Plan, OpenError> {
        let database = Database::new(&address.of_opening(), 1, options.transaction_pooler, MIGRATION)?;
        schema::migrate(&database, Occasion::Command).await
    }

    /// The clock that all instances share. Give the store only times of this clock, so that leases
    /// mean the same to every instance.
    pub fn clock(&self) -> DatabaseClock {
        self.clock.clone()
    }

    /// Listens to the changes of all instances, including this one, on a connection of its own.
    /// None if the only address leads through a pooler.
    pub fn changes(&self) -> Option<Changes> {
        Some(Changes::listen(self.listen_address.clone()?, self.clock()))
    }
}

/// Options of a copy.
fn of_copy(options: &Options) -> Options {
    Options { connections: 2, patience: SURVEY, listen_address: None, ..options.clone() }
}

impl Drop for PostgresStore {
    fn drop(&mut self) {
        self.clock_keeper.abort();
    }
}

impl std::fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PostgresStore").finish_non_exhaustive()
    }
}

/// Unwraps the result of a spawned task.
pub(crate) fn joined<T>(
    done: Result<Result<T, StoreError>, tokio::task::JoinError>,
) -> Result<T, StoreError> {
    done.unwrap_or_else(|_| Err(StoreError::Unavailable("the transaction was interrupted".to_owned())))
}

#[async_trait]
impl Store for PostgresStore {
    async fn check(&self) -> Result<(), StoreError> {
        const LIGHT: &str =
            "UPDATE claviger.beacon SET lit_at = floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint";
        let light = async |connection: PooledConnection| connection.execute(LIGHT, &bounds![]).await;
        match self.database.write("check", light).await? {
            1 => Ok(()),
            _ => Err(claviger_store::corrupt("the table beacon")),
        }
    }

    async fn insert(&self, session: Session, placement: Placement) -> Result<Vec<Session>, StoreError> {
        let database = self.database.clone();
        let transaction = async move {
            let work = |connection| sessions::insert(connection, &session, placement);
            database.transact("insert", &sessions::opening(&session.subject), work).await
        };
        joined(tokio::spawn(transaction).await)
    }

    async fn load(&self, id: SessionId) -> Result<Option<Session>, StoreError> {
        self.database.read("load", |connection| sessions::load(connection, id)).await
    }

    async fn apply(&self, change: &Change) -> Result<Applied, StoreError> {
        // Other changes are rare or urgent: a claim that is given back late looks like a lost
        // answer.
        let applied = if change.has_new_pair() || change.takes_claim() {
            self.coalescer.write(change).await?
        } else {
            self.database.write("apply", |connection| sessions::apply(connection, change)).await?
        };
        if change.has_new_pair() && applied == Applied::Done {
            self.pair_teller.of(session_column(change.next().id));
        }
        Ok(applied)
    }

    async fn apply_all(&self, changes: &[Change]) -> Result<Vec<bool>, StoreError> {
        let goes_together = |change: &Change| matches!(change.kind(), ChangeKind::Proof | ChangeKind::State);
        if !changes.iter().all(goes_together) {
            let applied = try_join_all(changes.iter().map(|change| self.apply(change))).await?;
            return Ok(applied.into_iter().map(|applied| applied == Applied::Done).collect());
        }
        if changes.is_empty() {
            return Ok(Vec::new());
        }
        let work = async |connection| apply::proofs_and_states(&connection, changes).await;
        self.database.write("apply all", work).await
    }

    async fn devices(&self, subject: &Subject, limit: usize) -> Result<Vec<Session>, StoreError> {
        self.database.read("devices", |connection| sessions::devices(connection, subject, limit)).await
    }

    async fn end_sessions(
        &self,
        selection: &Selection,
        reason: EndReason,
        at: Timestamp,
    ) -> Result<Vec<Session>, StoreError> {
        let (database, selection) = (self.database.clone(), selection.clone());
        let transaction = async move {
            let work = |connection| sessions::end_sessions(connection, &selection, reason, at);
            database.transact("end sessions", &sessions::opening(&selection.subject), work).await
        };
        joined(tokio::spawn(transaction).await)
    }

    async fn record_last_seen(&self, seen: &[(SessionId, Timestamp)]) -> Result<(), StoreError> {
        if seen.is_empty() {
            return Ok(());
        }
        let mut seen = seen.to_vec();
        seen.sort_unstable();
        self.database.write("touch", |connection| sessions::record_last_seen(connection, &seen)).await
    }

    async fn overdue(
        &self,
        idle_since: Timestamp,
        created_until: Timestamp,
        limit: usize,
    ) -> Result<Vec<SessionId>, StoreError> {
        let work = |connection| sessions::overdue(connection, idle_since, created_until, limit);
        self.database.read("overdue", work).await
    }

    async fn denylist(&self, limit: usize) -> Result<Vec<SessionId>, StoreError> {
        self.database.read("distrusted", |connection| sessions::denylist(connection, limit)).await
    }

    async fn purge(&self, what: Leftover, until: Timestamp, limit: usize) -> Result<usize, StoreError> {
        let work = async |connection| match what {
            Leftover::Tombstones => sessions::purge(connection, until, limit).await,
            Leftover::SpentLogins => logins::forget(connection, until, limit).await,
            Leftover::ClosedSuspicions => queues::forget_suspicions(connection, until, limit).await,
        };
        self.database.write("purge", work).await
    }

    async fn spend_login(&self, state_hash: [u8; 32], expires_at: Timestamp) -> Result<bool, StoreError> {
        let work = |connection| logins::spend(connection, &state_hash, expires_at);
        self.database.write("spend login", work).await
    }

    async fn enqueue(&self, item: &Item) -> Result<bool, StoreError> {
        self.database.write("enqueue", |connection| queues::enqueue(connection, item)).await
    }

    async fn take(
        &self,
        queue: Queue,
        terms: LeaseTerms,
        limit: usize,
    ) -> Result<Vec<Lease<Item>>, StoreError> {
        self.database
            .write(queues::label(queue), |connection| queues::take(connection, queue, terms, limit))
            .await
    }

    async fn update_lease(
        &self,
        id: ItemId,
        holder: AttemptId,
        update: LeaseUpdate,
    ) -> Result<bool, StoreError> {
        let work = |connection| queues::update_lease(connection, id, holder, update);
        self.database.write(queues::label(id.queue()), work).await
    }

    async fn backlog(&self, queue: Queue) -> Result<Backlog, StoreError> {
        let database = match queue {
            Queue::Revocations | Queue::Suspicions => &self.database,
            // It looks for a session in each slot.
            Queue::Slots(_) => &self.survey,
        };
        database.read("backlog", |connection| queues::backlog(connection, queue)).await
    }

    async fn in_slot(
        &self,
        sweep: SweepKind,
        slot: Slot,
        after: Option<SessionId>,
        limit: usize,
    ) -> Result<Vec<Session>, StoreError> {
        let work = |connection| sessions::in_slot(connection, sweep, slot, after, limit);
        self.database.read("in slot", work).await
    }

    /// It scans the narrow table, 100 MB for a million sessions.
    async fn session_counts(&self, now: Timestamp) -> Result<SessionCounts, StoreError> {
        self.survey.read("census", |connection| sessions::session_counts(connection, now)).await
    }

    async fn key_id_counts(&self) -> Result<Vec<KeyIdCount>, StoreError> {
        self.survey.read("heads", sessions::key_id_counts).await
    }

    async fn shared_entry(&self, name: &str) -> Result<Option<SharedEntry>, StoreError> {
        self.database.read("shared entry", |connection| shared_entries::read(connection, name)).await
    }

    async fn put_shared_entry(&self, name: &str, entry: &SharedEntry) -> Result<bool, StoreError> {
        self.database
            .write("put shared entry", |connection| shared_entries::put(connection, name, entry))
            .await
    }

    fn change_feed(&self) -> ChangeFeed {
        self.changes().map_or(ChangeFeed::Silent, |changes| ChangeFeed::Subscriber(Box::new(changes)))
    }
}
