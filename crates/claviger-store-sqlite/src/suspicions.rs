//! The table of suspicions that a user disconnected the app.

use claviger_core::{
    ids::{AttemptId, ProviderName, Subject},
    suspicion::{Cause, Suspicion},
    time::Timestamp,
};
use claviger_store::{
    StoreError, Suspected, SuspicionKey,
    archive::{Found, Key, Record},
};
use rusqlite::{Connection, params};

use crate::{
    archive::page_of,
    error::Fault,
    sessions::rows,
    values::{Columns, millis},
};

#[cfg(test)]
pub(crate) const STATEMENTS: &[&str] = &[NOTE, DUE, LEASE, SETTLE, POSTPONE, FORGET, PAGE, ADD];

const NOTE: &str = "INSERT INTO suspicion (key, provider, subject_id, at, cause, noted_at, due_at)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6) ON CONFLICT DO NOTHING";
const DUE: &str = "SELECT key, provider, subject_id, at, cause, tries
    FROM suspicion WHERE due_at <= ?1 ORDER BY due_at, key LIMIT ?2";
const LEASE: &str = "UPDATE suspicion SET due_at = ?2, holder = ?3 WHERE key = ?1";
const SETTLE: &str = "UPDATE suspicion SET due_at = NULL, holder = NULL WHERE key = ?1 AND holder = ?2";
const POSTPONE: &str =
    "UPDATE suspicion SET due_at = ?3, holder = NULL, tries = tries + 1 WHERE key = ?1 AND holder = ?2";
const FORGET: &str = "DELETE FROM suspicion WHERE key IN
    (SELECT key FROM suspicion WHERE due_at IS NULL AND noted_at <= ?1 ORDER BY noted_at, key LIMIT ?2)";

const PAGE: &str = "SELECT key, provider, subject_id, at, cause, tries, noted_at, due_at, holder
    FROM suspicion WHERE key > ?1 ORDER BY key LIMIT ?2";
const ADD: &str =
    "INSERT INTO suspicion (key, provider, subject_id, at, cause, tries, noted_at, due_at, holder)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";

pub(crate) fn note(
    connection: &Connection,
    key: SuspicionKey,
    suspicion: &Suspicion,
    noted_at: Timestamp,
) -> Result<bool, Fault> {
    let noted = connection.prepare_cached(NOTE)?.execute(params![
        key.0,
        suspicion.subject.provider.0,
        suspicion.subject.id,
        suspicion.at.as_millis(),
        suspicion.cause.name(),
        noted_at.as_millis(),
    ])?;
    Ok(noted == 1)
}

pub(crate) fn take(
    connection: &Connection,
    attempt: AttemptId,
    now: Timestamp,
    lease_until: Timestamp,
    limit: usize,
) -> Result<Vec<Suspected>, Fault> {
    let mut statement = connection.prepare_cached(DUE)?;
    let mut found = statement.query(params![now.as_millis(), rows(limit)])?;
    let mut due = Vec::new();
    let mut keys: Vec<[u8; 32]> = Vec::new();
    while let Some(row) = found.next()? {
        keys.push(row.get(0)?);
        match decode(&mut Columns::of(row)) {
            Ok(suspected) => due.push(suspected),
            // It is passed over for the length of a lease, so that it holds up no other.
            Err(Fault(error @ StoreError::Corrupt(_))) => {
                tracing::error!(%error, "a suspicion of a disconnect cannot be read");
            }
            Err(fault) => return Err(fault),
        }
    }
    let mut lease = connection.prepare_cached(LEASE)?;
    for key in keys {
        lease.execute(params![key, lease_until.as_millis(), attempt.0])?;
    }
    Ok(due)
}

fn decode(columns: &mut Columns<'_>) -> Result<Suspected, Fault> {
    let key = SuspicionKey(columns.take()?);
    let suspicion = Suspicion {
        subject: Subject { provider: ProviderName(columns.take()?), id: columns.take()? },
        at: columns.time()?,
        cause: columns.read(|name: String| Cause::from_name(&name))?,
    };
    Ok(Suspected { key, suspicion, tries: columns.take()? })
}

pub(crate) fn settle(connection: &Connection, key: SuspicionKey, attempt: AttemptId) -> Result<bool, Fault> {
    Ok(connection.prepare_cached(SETTLE)?.execute(params![key.0, attempt.0])? == 1)
}

pub(crate) fn postpone(
    connection: &Connection,
    key: SuspicionKey,
    attempt: AttemptId,
    due_at: Timestamp,
) -> Result<bool, Fault> {
    let postponed = params![key.0, attempt.0, due_at.as_millis()];
    Ok(connection.prepare_cached(POSTPONE)?.execute(postponed)? == 1)
}

pub(crate) fn forget(connection: &Connection, noted_until: Timestamp, limit: usize) -> Result<usize, Fault> {
    Ok(connection.prepare_cached(FORGET)?.execute(params![noted_until.as_millis(), rows(limit)])?)
}

/// All rows in the order of their keys, from the one after `after` on.
pub(crate) fn page(
    connection: &Connection,
    after: Option<SuspicionKey>,
    limit: usize,
) -> Result<Vec<Found>, Fault> {
    let after = after.as_ref().map_or(&[][..], |SuspicionKey(key)| key.as_slice());
    page_of(connection, PAGE, params![after, rows(limit)], |columns| {
        Ok((Key::Suspicion(SuspicionKey(columns.peek()?)), decode_whole(columns)))
    })
}

fn decode_whole(columns: &mut Columns<'_>) -> Result<Record, Fault> {
    let suspected = decode(columns)?;
    let (noted_at, due_at) = (columns.time()?, columns.take::<Option<i64>>()?.map(millis));
    Ok(Record::Suspicion { suspected, noted_at, due_at, holder: columns.holder()? })
}

/// Adds a row as it is.
pub(crate) fn add(
    connection: &Connection,
    suspected: &Suspected,
    noted_at: Timestamp,
    due_at: Option<Timestamp>,
    holder: Option<AttemptId>,
) -> Result<(), Fault> {
    let Suspected { key, suspicion, tries } = suspected;
    connection.prepare_cached(ADD)?.execute(params![
        key.0,
        suspicion.subject.provider.0,
        suspicion.subject.id,
        suspicion.at.as_millis(),
        suspicion.cause.name(),
        tries,
        noted_at.as_millis(),
        due_at.map(Timestamp::as_millis),
        holder.map(|holder| holder.0),
    ])?;
    Ok(())
}
