//! How a change of a session is written: one compare-and-set on `pulse`, then the columns of its
//! kind in `session`.

use claviger_core::{Change, ChangeKind, Session};
use claviger_store::{
    codec::{ClaimColumns, PairColumns, end_columns, state_columns, version_column},
    corrupt,
};
use rusqlite::{Connection, params};

use crate::{error::Fault, queues};

#[cfg(test)]
pub(crate) const STATEMENTS: &[&str] = &[MOVE, PROVE, SET_STATE, SET_CLAIM, SET_PAIR, SET_NAME, SET_END];

// The compare-and-set. A statement that does not write the state has no index to update.
macro_rules! moved {
    ($columns:literal) => {
        concat!(
            "UPDATE pulse SET version = ?2",
            $columns,
            " WHERE slot = slot(?1) AND id = ?1 AND version = ?2 - 1 AND state < 3"
        )
    };
}

const MOVE: &str = moved!("");
const PROVE: &str = moved!(", proven_at = ?3");
const SET_STATE: &str = moved!(", proven_at = ?3, state = ?4");

macro_rules! body {
    ($columns:literal) => {
        concat!("UPDATE session SET ", $columns, " WHERE id = ?1 AND end_reason IS NULL")
    };
}

const SET_CLAIM: &str = body!(
    "claim_attempt = ?2, claim_taken_at = ?3, claim_lease_until = ?4, claim_fingerprint = ?5,
    claim_replay = ?6, claim_answer_lost = ?7"
);
const SET_PAIR: &str = body!(
    "claim_attempt = ?2, claim_taken_at = ?3, claim_lease_until = ?4, claim_fingerprint = ?5,
    claim_replay = ?6, claim_answer_lost = ?7,
    generation = ?8, access = ?9, refresh = ?10, expiry = ?11, expires_at = ?12"
);
const SET_NAME: &str = body!("display_name = ?2");
const SET_END: &str = body!(
    "claim_attempt = NULL, claim_taken_at = NULL, claim_lease_until = NULL, claim_fingerprint = NULL,
    claim_replay = NULL, claim_answer_lost = NULL,
    generation = NULL, access = NULL, refresh = NULL, expiry = NULL, expires_at = NULL,
    end_reason = ?2, ended_at = ?3"
);

/// Writes each change whose row is still the one that it was made from. Returns for each whether it
/// was written.
pub(crate) fn apply_all(connection: &Connection, changes: &[Change]) -> Result<Vec<bool>, Fault> {
    changes.iter().map(|change| write(connection, change)).collect()
}

/// Writes a change and its pending revocation. Returns false if the row has ended or has another
/// version.
pub(crate) fn write(connection: &Connection, change: &Change) -> Result<bool, Fault> {
    if !write_pulse(connection, change)? {
        return Ok(false);
    }
    if write_body(connection, change)?.is_some_and(|rows| rows != 1) {
        return Err(Fault(corrupt("the tables session and pulse disagree")));
    }
    if let Some(revocation) = change.revocation() {
        queues::add_revocation(connection, revocation)?;
    }
    Ok(true)
}

fn write_pulse(connection: &Connection, change: &Change) -> Result<bool, Fault> {
    let Session { id, version, state, .. } = change.next();
    // No row has the version before 0, so a version out of range is a conflict.
    let (id, version) = (id.as_bytes(), version_column(*version).unwrap_or(0));
    let (state, proven_at) = state_columns(state);
    let written = match change.kind() {
        ChangeKind::Claim | ChangeKind::Name => {
            connection.prepare_cached(MOVE)?.execute(params![id, version])
        }
        ChangeKind::Proof => connection.prepare_cached(PROVE)?.execute(params![id, version, proven_at]),
        ChangeKind::State | ChangeKind::Pair | ChangeKind::End { .. } => {
            connection.prepare_cached(SET_STATE)?.execute(params![id, version, proven_at, state])
        }
    };
    Ok(written? == 1)
}

/// Returns the number of rows of `session` that were written. `None` if the change concerns only
/// `pulse`.
fn write_body(connection: &Connection, change: &Change) -> Result<Option<usize>, Fault> {
    let next = change.next();
    let (id, claim) = (next.id.as_bytes(), ClaimColumns::of(next));
    let written = match change.kind() {
        ChangeKind::Proof | ChangeKind::State => return Ok(None),
        ChangeKind::Claim => connection.prepare_cached(SET_CLAIM)?.execute(params![
            id,
            claim.attempt,
            claim.taken_at,
            claim.lease_until,
            claim.fingerprint,
            claim.replay,
            claim.answer_lost,
        ]),
        ChangeKind::Pair => {
            let pair = PairColumns::of(next)?;
            connection.prepare_cached(SET_PAIR)?.execute(params![
                id,
                claim.attempt,
                claim.taken_at,
                claim.lease_until,
                claim.fingerprint,
                claim.replay,
                claim.answer_lost,
                pair.generation,
                pair.access,
                pair.refresh,
                pair.expiry,
                pair.expires_at,
            ])
        }
        ChangeKind::Name => connection.prepare_cached(SET_NAME)?.execute(params![id, next.display_name]),
        ChangeKind::End { .. } => {
            let (Some(reason), Some(at)) = end_columns(&next.state) else {
                return Err(Fault(corrupt("an end without a reason")));
            };
            connection.prepare_cached(SET_END)?.execute(params![id, reason, at])
        }
    };
    Ok(Some(written?))
}
