//! The table of what all who share the store keep under a name.

use claviger_core::ids::Version;
use claviger_store::Memo;
use rusqlite::{Connection, params};

use crate::{
    error::Fault,
    values::{Columns, version_column},
};

#[cfg(test)]
pub(crate) const STATEMENTS: &[&str] = &[READ, FIRST, NEXT];

const READ: &str = "SELECT version, value FROM memo WHERE name = ?1";
const FIRST: &str = "INSERT INTO memo (name, version, value) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING";
const NEXT: &str = "UPDATE memo SET version = ?2, value = ?3 WHERE name = ?1 AND version = ?2 - 1";

pub(crate) fn read(connection: &Connection, name: &str) -> Result<Option<Memo>, Fault> {
    let mut statement = connection.prepare_cached(READ)?;
    let mut found = statement.query([name])?;
    let Some(row) = found.next()? else { return Ok(None) };
    let mut columns = Columns::of(row);
    Ok(Some(Memo { version: columns.version()?, value: columns.take()? }))
}

pub(crate) fn put(connection: &Connection, name: &str, memo: &Memo) -> Result<bool, Fault> {
    let sql = if memo.version == Version::FIRST { FIRST } else { NEXT };
    let bounds = params![name, version_column(memo.version)?, memo.value];
    Ok(connection.prepare_cached(sql)?.execute(bounds)? == 1)
}
