//! The table of what all who share the store keep under a name.

use claviger_core::ids::Version;
use claviger_store::{
    Memo,
    archive::{Found, Key, Record},
};
use rusqlite::{Connection, params};

use crate::{
    archive::page_of,
    error::Fault,
    sessions::rows,
    values::{Columns, version_column},
};

#[cfg(test)]
pub(crate) const STATEMENTS: &[&str] = &[READ, FIRST, NEXT, PAGE];

const READ: &str = "SELECT version, value FROM memo WHERE name = ?1";
const FIRST: &str = "INSERT INTO memo (name, version, value) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING";
const NEXT: &str = "UPDATE memo SET version = ?2, value = ?3 WHERE name = ?1 AND version = ?2 - 1";

const PAGE: &str = "SELECT name, version, value FROM memo WHERE name > ?1 ORDER BY name LIMIT ?2";

pub(crate) fn read(connection: &Connection, name: &str) -> Result<Option<Memo>, Fault> {
    let mut statement = connection.prepare_cached(READ)?;
    let mut found = statement.query([name])?;
    let Some(row) = found.next()? else { return Ok(None) };
    decode(&mut Columns::of(row)).map(Some)
}

pub(crate) fn put(connection: &Connection, name: &str, memo: &Memo) -> Result<bool, Fault> {
    let sql = if memo.version == Version::FIRST { FIRST } else { NEXT };
    write(connection, sql, name, memo)
}

/// All rows in the order of their names, from the one after `after` on.
pub(crate) fn page(connection: &Connection, after: Option<&str>, limit: usize) -> Result<Vec<Found>, Fault> {
    // No memo has an empty name.
    page_of(connection, PAGE, params![after.unwrap_or_default(), rows(limit)], |columns| {
        let name: String = columns.take()?;
        Ok((Key::Memo(name.clone()), decode(columns).map(|memo| Record::Memo { name, memo })))
    })
}

/// Adds a row as it is. False if there is one of this name.
pub(crate) fn add(connection: &Connection, name: &str, memo: &Memo) -> Result<bool, Fault> {
    write(connection, FIRST, name, memo)
}

fn write(connection: &Connection, sql: &str, name: &str, memo: &Memo) -> Result<bool, Fault> {
    let bounds = params![name, version_column(memo.version)?, memo.value];
    Ok(connection.prepare_cached(sql)?.execute(bounds)? == 1)
}

fn decode(columns: &mut Columns<'_>) -> Result<Memo, Fault> {
    Ok(Memo { version: columns.version()?, value: columns.take()? })
}
