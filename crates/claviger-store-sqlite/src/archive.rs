//! All that the file holds, row by row. Who has the file open has it for itself, so nobody else has to be kept away.

use std::sync::Arc;

use async_trait::async_trait;
use claviger_store::{
    StoreError,
    archive::{Archive, Count, Found, Key, Record, Reservation, ReserveError, Side, Table},
};
use rusqlite::{Connection, Params};

use crate::{SqliteStore, error::Fault, logins, memos, owed, sessions, slots, suspicions, values::Columns};

#[cfg(test)]
pub(crate) const STATEMENTS: &[&str] = &[COUNT_OWED, COUNT_LOGINS, COUNT_SUSPICIONS, COUNT_MEMOS];

const COUNT_OWED: &str = "SELECT count(*), 0 FROM owed";
const COUNT_LOGINS: &str = "SELECT count(*), 0 FROM spent_login";
const COUNT_SUSPICIONS: &str = "SELECT count(*), 0 FROM suspicion";
const COUNT_MEMOS: &str = "SELECT count(*), 0 FROM memo";

#[async_trait]
impl Archive for SqliteStore {
    async fn reserve(&self, _side: Side) -> Result<Reservation, ReserveError> {
        Ok(Reservation::inherent())
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
        Table::Slots => return slots::count(connection),
        Table::Owed => COUNT_OWED,
        Table::Logins => COUNT_LOGINS,
        Table::Suspicions => COUNT_SUSPICIONS,
        Table::Memos => COUNT_MEMOS,
    };
    count_by(connection, sql)
}

/// The answer of a statement that counts rows, and parts of rows that belong to none.
pub(crate) fn count_by(connection: &Connection, sql: &str) -> Result<Count, Fault> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut found = statement.query([])?;
    let row = found.next()?.ok_or(rusqlite::Error::QueryReturnedNoRows)?;
    let mut columns = Columns::of(row);
    let mut count = || columns.read(|count: i64| u64::try_from(count).ok());
    Ok(Count { rows: count()?, strays: count()? })
}

fn page(
    connection: &Connection,
    table: Table,
    after: Option<&Key>,
    limit: usize,
) -> Result<Vec<Found>, Fault> {
    match table {
        Table::Sessions => sessions::page(connection, after.and_then(Key::session), limit),
        Table::Owed => owed::page(connection, after.and_then(Key::owed), limit),
        Table::Logins => logins::page(connection, after.and_then(Key::login), limit),
        Table::Suspicions => suspicions::page(connection, after.and_then(Key::suspicion), limit),
        Table::Slots => slots::page(connection, after.and_then(Key::slot), limit),
        Table::Memos => memos::page(connection, after.and_then(Key::memo), limit),
    }
}

/// The rows of a statement's answer. `decode` gives the key of each, and what became of reading it.
pub(crate) fn page_of(
    connection: &Connection,
    sql: &str,
    bounds: impl Params,
    decode: impl Fn(&mut Columns<'_>) -> Result<(Key, Result<Record, Fault>), Fault>,
) -> Result<Vec<Found>, Fault> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut found = statement.query(bounds)?;
    let mut page = Vec::new();
    while let Some(row) = found.next()? {
        let (key, record) = decode(&mut Columns::of(row))?;
        page.push(Found::of(key, record.map_err(|Fault(error)| error))?);
    }
    Ok(page)
}

fn add(connection: &Connection, record: &Record) -> Result<(), Fault> {
    let added = match record {
        Record::Session(session) => sessions::add(connection, session).map(|()| true),
        Record::Owed { owed, due_at, holder } => owed::add(connection, owed, *due_at, *holder).map(|()| true),
        Record::Login { state_hash, expires_at } => logins::spend(connection, state_hash, *expires_at),
        Record::Suspicion { suspected, noted_at, due_at, holder } => {
            suspicions::add(connection, suspected, *noted_at, *due_at, *holder).map(|()| true)
        }
        Record::Slot { wheel, slot, due_at, lease_until, holder } => {
            slots::add(connection, (*wheel, *slot), *due_at, *lease_until, *holder)
        }
        Record::Memo { name, memo } => memos::add(connection, name, memo),
    }?;
    let taken = || Fault(StoreError::Unavailable("a row of this key is there already".to_owned()));
    added.then_some(()).ok_or_else(taken)
}
