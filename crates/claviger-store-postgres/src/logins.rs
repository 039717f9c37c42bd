//! The table of used sign-in states.

use claviger_core::Timestamp;
use claviger_store::{
    archive::{Found, Key, Record},
    codec::ColumnReader as _,
};

use crate::{
    database::{PooledConnection, bounds},
    error::Fault,
    row::page_of,
    values::rows,
};

const SPEND: &str =
    "INSERT INTO claviger.spent_login (state_hash, expires_at) VALUES ($1, $2) ON CONFLICT DO NOTHING";
// Skips rows that another instance is deleting. MATERIALIZED, since PostgreSQL would otherwise
// repeat the subquery for each row, skip the rows it returned before, and delete more than the
// limit.
const FORGET: &str = "WITH old AS MATERIALIZED (
        SELECT state_hash FROM claviger.spent_login WHERE expires_at <= $1
        ORDER BY expires_at, state_hash LIMIT $2 FOR UPDATE SKIP LOCKED)
    DELETE FROM claviger.spent_login WHERE state_hash IN (SELECT state_hash FROM old)";
const PAGE: &str = "SELECT state_hash, expires_at FROM claviger.spent_login
    WHERE state_hash > $1 ORDER BY state_hash LIMIT $2";

pub(crate) async fn spend(
    connection: PooledConnection,
    state_hash: &[u8; 32],
    expires_at: Timestamp,
) -> Result<bool, Fault> {
    add(&connection, state_hash, expires_at).await
}

/// Adds a row. False if one with this hash exists.
pub(crate) async fn add(
    connection: &PooledConnection,
    state_hash: &[u8; 32],
    expires_at: Timestamp,
) -> Result<bool, Fault> {
    let bounds = bounds![BYTEA: state_hash.as_slice(), INT8: expires_at.as_millis()];
    Ok(connection.execute(SPEND, &bounds).await? == 1)
}

pub(crate) async fn forget(
    connection: PooledConnection,
    now: Timestamp,
    limit: usize,
) -> Result<usize, Fault> {
    let forgotten = connection.execute(FORGET, &bounds![INT8: now.as_millis(), INT8: rows(limit)]).await?;
    Ok(usize::try_from(forgotten).unwrap_or(usize::MAX))
}

/// All rows in the order of their hashes, from the one after `after` on.
pub(crate) async fn page(
    connection: PooledConnection,
    after: Option<[u8; 32]>,
    limit: usize,
) -> Result<Vec<Found>, Fault> {
    let after = after.as_ref().map_or(&[][..], |hash| hash.as_slice());
    let bounds = bounds![BYTEA: after, INT8: rows(limit)];
    page_of(&connection, PAGE, &bounds, "a used-up sign-in", |columns| {
        let state_hash = columns.octets()?;
        let record = columns.time().map(|expires_at| Record::Login { state_hash, expires_at });
        Ok((Key::Login(state_hash), record))
    })
    .await
}
