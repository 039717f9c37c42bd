//! The table of used-up states of sign-ins.

use claviger_core::Timestamp;
use claviger_store::{
    archive::{Found, Key, Record},
    codec::ColumnReader as _,
};
use rusqlite::{Connection, params};

use crate::{
    error::Fault,
    values::{page_of, rows},
};

#[cfg(test)]
pub(crate) const STATEMENTS: &[&str] = &[SPEND, FORGET, PAGE];

const SPEND: &str = "INSERT INTO spent_login (state_hash, expires_at) VALUES (?1, ?2) ON CONFLICT DO NOTHING";
const FORGET: &str = "DELETE FROM spent_login WHERE state_hash IN
    (SELECT state_hash FROM spent_login WHERE expires_at <= ?1 ORDER BY expires_at, state_hash LIMIT ?2)";

const PAGE: &str =
    "SELECT state_hash, expires_at FROM spent_login WHERE state_hash > ?1 ORDER BY state_hash LIMIT ?2";

pub(crate) fn spend(
    connection: &Connection,
    state_hash: &[u8; 32],
    expires_at: Timestamp,
) -> Result<bool, Fault> {
    let inserted = connection.prepare_cached(SPEND)?.execute(params![state_hash, expires_at.as_millis()])?;
    Ok(inserted == 1)
}

pub(crate) fn forget(connection: &Connection, now: Timestamp, limit: usize) -> Result<usize, Fault> {
    Ok(connection.prepare_cached(FORGET)?.execute(params![now.as_millis(), rows(limit)])?)
}

/// Returns all rows in the order of their hashes, starting after `after`.
pub(crate) fn page(
    connection: &Connection,
    after: Option<[u8; 32]>,
    limit: usize,
) -> Result<Vec<Found>, Fault> {
    let after = after.as_ref().map_or(&[][..], |hash| hash.as_slice());
    page_of(connection, PAGE, params![after, rows(limit)], |columns| {
        let state_hash = columns.take()?;
        let record = columns.time().map(|expires_at| Record::Login { state_hash, expires_at });
        Ok((Key::Login(state_hash), record))
    })
}
