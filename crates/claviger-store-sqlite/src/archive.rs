//! Reads and adds all rows of the file. Only one process can have the file open, so no others need
//! to be kept away.

use std::sync::Arc;

use async_trait::async_trait;
use claviger_store::{
    Queue, StoreError, SweepKind,
    archive::{Archive, Count, Found, Key, MaintenanceLock, MaintenanceLockError, Record, Side, Table},
};
use rusqlite::Connection;

use crate::{error::Fault, logins, queues, sessions, shared_entries, store::SqliteStore, values::count_by};

#[cfg(test)]
pub(crate) const STATEMENTS: &[&str] =
    &[COUNT_REVOCATIONS, COUNT_LOGINS, COUNT_SUSPICIONS, COUNT_SHARED_ENTRIES];

const COUNT_REVOCATIONS: &str = "SELECT count(*), 0 FROM owed";
const COUNT_LOGINS: &str = "SELECT count(*), 0 FROM spent_login";
const COUNT_SUSPICIONS: &str = "SELECT count(*), 0 FROM suspicion";
const COUNT_SHARED_ENTRIES: &str = "SELECT count(*), 0 FROM memo";

#[async_trait]
impl Archive for SqliteStore {
    async fn lock_for_maintenance(&self, _side: Side) -> Result<MaintenanceLock, MaintenanceLockError> {
        Ok(MaintenanceLock::implicit())
    }

    async fn count(&self, table: Table) -> Result<Count, StoreError> {
        self.survey(move |connection| count(connection, table)).await
    }

    async fn page(&self, table: Table, after: Option<&Key>, limit: usize) -> Result<Vec<Found>, StoreError> {
        let after = after.cloned();
        self.survey(move |connection| page(connection, table, after.as_ref(), limit)).await
    }

    async fn add(&self, records: Vec<Record>) -> Result<(), StoreError> {
        let records = Arc::new(records);
        self.write(move |connection| records.iter().try_for_each(|record| add(connection, record))).await
    }
}

fn count(connection: &Connection, table: Table) -> Result<Count, Fault> {
    let sql = match table {
        Table::Sessions => return sessions::count(connection),
        Table::Slots => queues::COUNT_SLOTS,
        Table::Revocations => COUNT_REVOCATIONS,
        Table::Logins => COUNT_LOGINS,
        Table::Suspicions => COUNT_SUSPICIONS,
        Table::SharedEntries => COUNT_SHARED_ENTRIES,
    };
    count_by(connection, sql)
}

fn page(
    connection: &Connection,
    table: Table,
    after: Option<&Key>,
    limit: usize,
) -> Result<Vec<Found>, Fault> {
    match table {
        Table::Sessions => sessions::page(connection, after.and_then(Key::session), limit),
        Table::Revocations => queues::page(connection, Queue::Revocations, after.and_then(Key::item), limit),
        Table::Logins => logins::page(connection, after.and_then(Key::login), limit),
        Table::Suspicions => queues::page(connection, Queue::Suspicions, after.and_then(Key::item), limit),
        Table::Slots => {
            let slots = Queue::Slots(SweepKind::Validation);
            queues::page(connection, slots, after.and_then(Key::item), limit)
        }
        Table::SharedEntries => shared_entries::page(connection, after.and_then(Key::shared_entry), limit),
    }
}

fn add(connection: &Connection, record: &Record) -> Result<(), Fault> {
    let added = match record {
        Record::Session(session) => sessions::add(connection, session).map(|()| true),
        Record::Item(stored) => queues::add(connection, stored),
        Record::Login { state_hash, expires_at } => logins::spend(connection, state_hash, *expires_at),
        Record::SharedEntry { name, entry } => shared_entries::add(connection, name, entry),
    }?;
    let taken = || Fault(StoreError::Unavailable("a row of this key is there already".to_owned()));
    added.then_some(()).ok_or_else(taken)
}
