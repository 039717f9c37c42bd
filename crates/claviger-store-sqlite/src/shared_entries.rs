//! The table of shared entries.

use claviger_core::Version;
use claviger_store::{
    SharedEntry, StoreError,
    archive::{Found, Key, Record},
    codec::{ColumnReader as _, version_column},
};
use rusqlite::{Connection, params};

use crate::{
    error::Fault,
    values::{Columns, page_of, rows},
};

#[cfg(test)]
pub(crate) const STATEMENTS: &[&str] = &[READ, FIRST, NEXT, PAGE];

const READ: &str = "SELECT version, value FROM memo WHERE name = ?1";
const FIRST: &str = "INSERT INTO memo (name, version, value) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING";
const NEXT: &str = "UPDATE memo SET version = ?2, value = ?3 WHERE name = ?1 AND version = ?2 - 1";

const PAGE: &str = "SELECT name, version, value FROM memo WHERE name > ?1 ORDER BY name LIMIT ?2";

pub(crate) fn read(connection: &Connection, name: &str) -> Result<Option<SharedEntry>, Fault> {
    let mut statement = connection.prepare_cached(READ)?;
    let mut found = statement.query([name])?;
    let Some(row) = found.next()? else { return Ok(None) };
    Ok(Some(decode(&mut Columns::of(row))?))
}

pub(crate) fn put(connection: &Connection, name: &str, entry: &SharedEntry) -> Result<bool, Fault> {
    let sql = if entry.version == Version::FIRST { FIRST } else { NEXT };
    write(connection, sql, name, entry)
}

/// Returns all rows in the order of their names, starting after `after`.
pub(crate) fn page(connection: &Connection, after: Option<&str>, limit: usize) -> Result<Vec<Found>, Fault> {
    // No entry has an empty name.
    page_of(connection, PAGE, params![after.unwrap_or_default(), rows(limit)], |columns| {
        let name: String = columns.take()?;
        Ok((Key::SharedEntry(name.clone()), decode(columns).map(|entry| Record::SharedEntry { name, entry })))
    })
}

/// Adds a row as it is. Returns false if there is one of this name.
pub(crate) fn add(connection: &Connection, name: &str, entry: &SharedEntry) -> Result<bool, Fault> {
    write(connection, FIRST, name, entry)
}

fn write(connection: &Connection, sql: &str, name: &str, entry: &SharedEntry) -> Result<bool, Fault> {
    let bounds = params![name, version_column(entry.version)?, entry.value];
    Ok(connection.prepare_cached(sql)?.execute(bounds)? == 1)
}

fn decode(columns: &mut Columns<'_>) -> Result<SharedEntry, StoreError> {
    Ok(SharedEntry { version: columns.version()?, value: columns.take()? })
}
