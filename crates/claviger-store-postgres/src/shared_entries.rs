//! The table of named values that all instances share.

use claviger_core::Version;
use claviger_store::{
    SharedEntry, StoreError,
    archive::{Found, Key, Record},
    codec::{ColumnReader as _, version_column},
};

use crate::{
    database::{PooledConnection, bounds},
    error::Fault,
    row::page_of,
    values::{Columns, rows},
};

const READ: &str = "SELECT version, value FROM claviger.memo WHERE name = $1";
const FIRST: &str =
    "INSERT INTO claviger.memo (name, version, value) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";
const NEXT: &str = "UPDATE claviger.memo SET version = $2, value = $3 WHERE name = $1 AND version = $2 - 1";

// Ordered by octets, whatever the database's collation.
const PAGE: &str = r#"SELECT name, version, value FROM claviger.memo
    WHERE name > $1 COLLATE "C" ORDER BY name COLLATE "C" LIMIT $2"#;

pub(crate) async fn read(connection: PooledConnection, name: &str) -> Result<Option<SharedEntry>, Fault> {
    let found = connection.query(READ, &bounds![TEXT: name]).await?;
    let Some(row) = found.first() else { return Ok(None) };
    Ok(Some(decode(&mut Columns::of(row, "a shared entry"))?))
}

pub(crate) async fn put(
    connection: PooledConnection,
    name: &str,
    entry: &SharedEntry,
) -> Result<bool, Fault> {
    let sql = if entry.version == Version::FIRST { FIRST } else { NEXT };
    write(&connection, sql, name, entry).await
}

/// Adds a row unchanged. False if one with this name exists.
pub(crate) async fn add(
    connection: &PooledConnection,
    name: &str,
    entry: &SharedEntry,
) -> Result<bool, Fault> {
    write(connection, FIRST, name, entry).await
}

async fn write(
    connection: &PooledConnection,
    sql: &str,
    name: &str,
    entry: &SharedEntry,
) -> Result<bool, Fault> {
    let bounds = bounds![TEXT: name, INT8: version_column(entry.version)?, BYTEA: entry.value];
    Ok(connection.execute(sql, &bounds).await? == 1)
}

fn decode(columns: &mut Columns<'_>) -> Result<SharedEntry, StoreError> {
    Ok(SharedEntry { version: columns.version()?, value: columns.take()? })
}

/// All rows in the order of their names, from the one after `after` on.
pub(crate) async fn page(
    connection: PooledConnection,
    after: Option<&str>,
    limit: usize,
) -> Result<Vec<Found>, Fault> {
    // No entry has an empty name.
    let bounds = bounds![TEXT: after.unwrap_or_default(), INT8: rows(limit)];
    page_of(&connection, PAGE, &bounds, "a shared entry", |columns| {
        let name: String = columns.take()?;
        let entry = decode(columns);
        Ok((Key::SharedEntry(name.clone()), entry.map(|entry| Record::SharedEntry { name, entry })))
    })
    .await
}
