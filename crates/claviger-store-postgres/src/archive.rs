//! Reads and adds all rows of the database, and keeps gateways and other copies away meanwhile.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use claviger_store::{
    ItemId, Queue, Store as _, StoreError, SweepKind,
    archive::{
        Archive, Count, Found, Key, MaintenanceLock, MaintenanceLockError, MaintenanceLockGuard, Record,
        Side, Table,
    },
};
use futures_util::future::try_join_all;

use crate::{
    database::{Database, LOOK_AGAIN, PooledConnection, Work, gateways},
    error::Fault,
    logins, queues,
    row::count_by,
    sessions, shared_entries,
    store::{PostgresStore, joined},
};

const COUNT_REVOCATIONS: &str = "SELECT count(*), 0::bigint FROM claviger.owed";
const COUNT_LOGINS: &str = "SELECT count(*), 0::bigint FROM claviger.spent_login";
const COUNT_SUSPICIONS: &str = "SELECT count(*), 0::bigint FROM claviger.suspicion";
const COUNT_SHARED_ENTRIES: &str = "SELECT count(*), 0::bigint FROM claviger.memo";

/// Advisory lock that a copy holds. The number is "Clav" and a 2.
const LOCK: i64 = 0x436c_6176_0000_0002;
/// Advisory lock that transactions share while they add rows. The number is "Clav" and a 3.
const ADDING: i64 = 0x436c_6176_0000_0003;
/// Time limit for a statement of a copy.
const LONGEST_COPY: Duration = Duration::from_secs(7 * 24 * 60 * 60);

// This connection is idle during the copy, and its locks must last until the copy ends.
const HOLD: &str = "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL idle_in_transaction_session_timeout = 0;
    SET LOCAL lock_timeout = '5s'";
/// Blocks writers and lets readers through.
const KEEP_STILL: &str =
    "LOCK TABLE claviger.session, claviger.pulse, claviger.owed, claviger.spent_login, claviger.slot,
    claviger.suspicion, claviger.memo IN SHARE MODE";
/// Without fresh statistics the first queries are planned for empty tables.
const ANALYZE: &str =
    "ANALYZE claviger.session, claviger.pulse, claviger.owed, claviger.spent_login, claviger.slot,
    claviger.suspicion, claviger.memo";

#[async_trait]
impl Archive for PostgresStore {
    /// Keeps every other copy away while the lock is held, and blocks all changes to a source.
    /// Refuses if a gateway is connected. It recognises gateways by their application name, as far
    /// as the database shows their connections to our role.
    async fn lock_for_maintenance(&self, side: Side) -> Result<MaintenanceLock, MaintenanceLockError> {
        let database = patient(self)?;
        let connection = database.connection(Work::Read).await.map_err(StoreError::from)?;
        take_locks(&connection, side).await?;
        Ok(MaintenanceLock::guarded_by(LockingTransaction { connection, _database: database }))
    }

    async fn count(&self, table: Table) -> Result<Count, StoreError> {
        patient(self)?.read("count", |connection| count(connection, table)).await
    }

    async fn page(&self, table: Table, after: Option<&Key>, limit: usize) -> Result<Vec<Found>, StoreError> {
        self.survey().read("page", |connection| page(connection, table, after, limit)).await
    }

    async fn add(&self, records: Vec<Record>) -> Result<(), StoreError> {
        let (database, records) = (self.survey().clone(), Arc::new(records));
        let opening = format!("BEGIN; SELECT pg_advisory_xact_lock_shared({ADDING})");
        let transaction = async move {
            database.transact("add", &opening, |connection| add_all(connection, Arc::clone(&records))).await
        };
        joined(tokio::spawn(transaction).await)
    }

    async fn prepare_to_serve(&self) -> Result<(), StoreError> {
        patient(self)?
            .write("analyze", async |connection: PooledConnection| connection.run(ANALYZE).await)
            .await?;
        self.check().await
    }
}

/// A connection with a time limit that suits a scan of a whole table.
fn patient(store: &PostgresStore) -> Result<Database, StoreError> {
    Database::new(store.address(), 1, store.is_pooled(), LONGEST_COPY)
}

/// Holds the transaction whose locks keep others away.
struct LockingTransaction {
    connection: PooledConnection,
    _database: Database,
}

#[async_trait]
impl MaintenanceLockGuard for LockingTransaction {
    async fn check_held(&self) -> Result<(), MaintenanceLockError> {
        self.connection.run(LOOK_AGAIN).await.map_err(|fault| MaintenanceLockError::Lost(fault.into()))
    }

    async fn check_no_gateways(&self) -> Result<(), MaintenanceLockError> {
        self.check_held().await?;
        refuse_gateways(&self.connection).await
    }
}

async fn take_locks(connection: &PooledConnection, side: Side) -> Result<(), MaintenanceLockError> {
    let of = |fault: Fault| MaintenanceLockError::from(StoreError::from(fault));
    connection.run(HOLD).await.map_err(of)?;
    // The database notices only after a moment that an earlier copy is gone, and may still be
    // adding rows that it sent.
    let alone = format!(
        "SELECT pg_advisory_xact_lock({LOCK}); SAVEPOINT adding; SELECT pg_advisory_xact_lock({ADDING});
         ROLLBACK TO SAVEPOINT adding"
    );
    connection.run(&alone).await.map_err(|fault| match fault.is_kept_waiting() {
        true => MaintenanceLockError::InUse(
            "another copy is using it, or it is both the source and the destination".to_owned(),
        ),
        false => of(fault),
    })?;
    refuse_gateways(connection).await?;
    if side == Side::Source {
        connection.run(KEEP_STILL).await.map_err(of)?;
    }
    Ok(())
}

async fn refuse_gateways(connection: &PooledConnection) -> Result<(), MaintenanceLockError> {
    let of = |fault: Fault| MaintenanceLockError::from(StoreError::from(fault));
    match gateways(connection).await.map_err(of)? {
        0 => Ok(()),
        connected => Err(MaintenanceLockError::InUse(format!(
            "a gateway is connected to the database ({connected} connections); stop the gateway first, every instance of it"
        ))),
    }
}

async fn count(connection: PooledConnection, table: Table) -> Result<Count, Fault> {
    let sql = match table {
        Table::Sessions => return sessions::count(connection).await,
        Table::Slots => queues::COUNT_SLOTS,
        Table::Revocations => COUNT_REVOCATIONS,
        Table::Logins => COUNT_LOGINS,
        Table::Suspicions => COUNT_SUSPICIONS,
        Table::SharedEntries => COUNT_SHARED_ENTRIES,
    };
    count_by(&connection, sql).await
}

async fn page(
    connection: PooledConnection,
    table: Table,
    after: Option<&Key>,
    limit: usize,
) -> Result<Vec<Found>, Fault> {
    match table {
        Table::Sessions => sessions::page(connection, after.and_then(Key::session), limit).await,
        Table::Revocations => {
            queues::page(connection, Queue::Revocations, after.and_then(Key::item), limit).await
        }
        Table::Logins => logins::page(connection, after.and_then(Key::login), limit).await,
        Table::Suspicions => {
            queues::page(connection, Queue::Suspicions, after.and_then(Key::item), limit).await
        }
        Table::Slots => {
            let slots = Queue::Slots(SweepKind::Validation);
            queues::page(connection, slots, after.and_then(Key::item), limit).await
        }
        Table::SharedEntries => {
            shared_entries::page(connection, after.and_then(Key::shared_entry), limit).await
        }
    }
}

/// One step of a transaction.
async fn add_all(connection: PooledConnection, records: Arc<Vec<Record>>) -> Result<(), Fault> {
    // The first goes alone, so that its statement is prepared once. The others are pipelined.
    let Some((first, others)) = records.split_first() else { return Ok(()) };
    add(&connection, first).await?;
    try_join_all(others.iter().map(|record| add(&connection, record))).await?;
    let revocations = records.iter().filter_map(|record| match record.key() {
        Key::Item(ItemId::Revocation(id)) => Some(id),
        _ => None,
    });
    match revocations.max() {
        Some(highest) => queues::reserve_revocation_ids(&connection, highest).await,
        None => Ok(()),
    }
}

async fn add(connection: &PooledConnection, record: &Record) -> Result<(), Fault> {
    let added = match record {
        Record::Session(session) => sessions::add(connection, session).await.map(|()| true),
        Record::Item(stored) => queues::add(connection, stored).await,
        Record::Login { state_hash, expires_at } => logins::add(connection, state_hash, *expires_at).await,
        Record::SharedEntry { name, entry } => shared_entries::add(connection, name, entry).await,
    }?;
    let taken = || StoreError::Unavailable("a row of this key is there already".to_owned());
    added.then_some(()).ok_or_else(|| taken().into())
}
