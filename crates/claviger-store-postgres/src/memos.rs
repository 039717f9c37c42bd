//! The table of what all who share the store keep under a name.

use claviger_core::ids::Version;
use claviger_store::Memo;

use crate::{
    database::{Link, bounds},
    error::Fault,
    values::{Columns, version_column},
};

const READ: &str = "SELECT version, value FROM claviger.memo WHERE name = $1";
const FIRST: &str =
    "INSERT INTO claviger.memo (name, version, value) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";
const NEXT: &str = "UPDATE claviger.memo SET version = $2, value = $3 WHERE name = $1 AND version = $2 - 1";

pub(crate) async fn read(link: Link, name: &str) -> Result<Option<Memo>, Fault> {
    let found = link.query(READ, &bounds![TEXT: name]).await?;
    let Some(row) = found.first() else { return Ok(None) };
    let mut columns = Columns::of(row, "a memo");
    Ok(Some(Memo { version: columns.version()?, value: columns.take()? }))
}

pub(crate) async fn put(link: Link, name: &str, memo: &Memo) -> Result<bool, Fault> {
    let sql = if memo.version == Version::FIRST { FIRST } else { NEXT };
    let bounds = bounds![TEXT: name, INT8: version_column(memo.version)?, BYTEA: memo.value];
    Ok(link.execute(sql, &bounds).await? == 1)
}
