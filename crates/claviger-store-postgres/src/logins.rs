//! The table of sign-ins' states that were used up.

use claviger_core::time::Timestamp;

use crate::{
    database::{Link, bounds},
    error::Fault,
    values::rows,
};

const SPEND: &str =
    "INSERT INTO claviger.spent_login (state_hash, expires_at) VALUES ($1, $2) ON CONFLICT DO NOTHING";
const FORGET: &str = "DELETE FROM claviger.spent_login WHERE state_hash IN
    (SELECT state_hash FROM claviger.spent_login WHERE expires_at <= $1
     ORDER BY expires_at, state_hash LIMIT $2 FOR UPDATE SKIP LOCKED)";

pub(crate) async fn spend(link: Link, state_hash: &[u8; 32], expires_at: Timestamp) -> Result<bool, Fault> {
    let bounds = bounds![BYTEA: state_hash.as_slice(), INT8: expires_at.as_millis()];
    Ok(link.execute(SPEND, &bounds).await? == 1)
}

pub(crate) async fn forget(link: Link, now: Timestamp, limit: usize) -> Result<usize, Fault> {
    let forgotten = link.execute(FORGET, &bounds![INT8: now.as_millis(), INT8: rows(limit)]).await?;
    Ok(usize::try_from(forgotten).unwrap_or(usize::MAX))
}
