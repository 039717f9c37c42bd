//! The table of what all who share the store keep under a name.

use claviger_core::ids::Version;
use claviger_store::{
    Memo, StoreError,
    archive::{Found, Key, Record},
};
use tokio_postgres::Row;

use crate::{
    database::{Link, bounds},
    error::Fault,
    values::{Columns, rows, version_column},
};

const READ: &str = "SELECT version, value FROM claviger.memo WHERE name = $1";
const FIRST: &str =
    "INSERT INTO claviger.memo (name, version, value) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";
const NEXT: &str = "UPDATE claviger.memo SET version = $2, value = $3 WHERE name = $1 AND version = $2 - 1";

// In the order of octets, whatever the database's language.
const PAGE: &str = r#"SELECT name, version, value FROM claviger.memo
    WHERE name > $1 COLLATE "C" ORDER BY name COLLATE "C" LIMIT $2"#;

pub(crate) async fn read(link: Link, name: &str) -> Result<Option<Memo>, Fault> {
    let found = link.query(READ, &bounds![TEXT: name]).await?;
    let Some(row) = found.first() else { return Ok(None) };
    decode(&mut Columns::of(row, "a memo")).map(Some)
}

pub(crate) async fn put(link: Link, name: &str, memo: &Memo) -> Result<bool, Fault> {
    let sql = if memo.version == Version::FIRST { FIRST } else { NEXT };
    write(&link, sql, name, memo).await
}

/// Adds a row as it is. False if there is one of this name.
pub(crate) async fn add(link: &Link, name: &str, memo: &Memo) -> Result<bool, Fault> {
    write(link, FIRST, name, memo).await
}

async fn write(link: &Link, sql: &str, name: &str, memo: &Memo) -> Result<bool, Fault> {
    let bounds = bounds![TEXT: name, INT8: version_column(memo.version)?, BYTEA: memo.value];
    Ok(link.execute(sql, &bounds).await? == 1)
}

fn decode(columns: &mut Columns<'_>) -> Result<Memo, Fault> {
    Ok(Memo { version: columns.version()?, value: columns.take()? })
}

/// All rows in the order of their names, from the one after `after` on.
pub(crate) async fn page(link: Link, after: Option<&str>, limit: usize) -> Result<Vec<Found>, Fault> {
    // No memo has an empty name.
    let found = link.query(PAGE, &bounds![TEXT: after.unwrap_or_default(), INT8: rows(limit)]).await?;
    let whole = |row: &Row| {
        let mut columns = Columns::of(row, "a memo");
        let name: String = columns.take()?;
        let memo = decode(&mut columns).map_err(StoreError::from);
        Ok(Found::of(Key::Memo(name.clone()), memo.map(|memo| Record::Memo { name, memo }))?)
    };
    found.iter().map(whole).collect()
}
