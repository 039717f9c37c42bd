//! The table of sign-ins' states that were used up.

use claviger_core::time::Timestamp;
use claviger_store::{
    StoreError,
    archive::{Found, Key, Record},
};
use tokio_postgres::Row;

use crate::{
    database::{Link, bounds},
    error::Fault,
    values::{Columns, rows},
};

const SPEND: &str =
    "INSERT INTO claviger.spent_login (state_hash, expires_at) VALUES ($1, $2) ON CONFLICT DO NOTHING";
// What others are just forgetting is passed over. MATERIALIZED, since it would otherwise be asked again for each row, and pass over
// the rows that it gave before: more than the limit would be forgotten.
const FORGET: &str = "WITH old AS MATERIALIZED (
        SELECT state_hash FROM claviger.spent_login WHERE expires_at <= $1
        ORDER BY expires_at, state_hash LIMIT $2 FOR UPDATE SKIP LOCKED)
    DELETE FROM claviger.spent_login WHERE state_hash IN (SELECT state_hash FROM old)";
const PAGE: &str = "SELECT state_hash, expires_at FROM claviger.spent_login
    WHERE state_hash > $1 ORDER BY state_hash LIMIT $2";

pub(crate) async fn spend(link: Link, state_hash: &[u8; 32], expires_at: Timestamp) -> Result<bool, Fault> {
    add(&link, state_hash, expires_at).await
}

/// Adds a row. False if there is one of this hash.
pub(crate) async fn add(link: &Link, state_hash: &[u8; 32], expires_at: Timestamp) -> Result<bool, Fault> {
    let bounds = bounds![BYTEA: state_hash.as_slice(), INT8: expires_at.as_millis()];
    Ok(link.execute(SPEND, &bounds).await? == 1)
}

pub(crate) async fn forget(link: Link, now: Timestamp, limit: usize) -> Result<usize, Fault> {
    let forgotten = link.execute(FORGET, &bounds![INT8: now.as_millis(), INT8: rows(limit)]).await?;
    Ok(usize::try_from(forgotten).unwrap_or(usize::MAX))
}

/// All rows in the order of their hashes, from the one after `after` on.
pub(crate) async fn page(link: Link, after: Option<[u8; 32]>, limit: usize) -> Result<Vec<Found>, Fault> {
    let after = after.as_ref().map_or(&[][..], |hash| hash.as_slice());
    let found = link.query(PAGE, &bounds![BYTEA: after, INT8: rows(limit)]).await?;
    let whole = |row: &Row| {
        let mut columns = Columns::of(row, "a used-up sign-in");
        let state_hash = columns.octets()?;
        let record = columns.time().map(|expires_at| Record::Login { state_hash, expires_at });
        Ok(Found::of(Key::Login(state_hash), record.map_err(StoreError::from))?)
    };
    found.iter().map(whole).collect()
}
