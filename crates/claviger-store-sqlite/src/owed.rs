//! The table of revocations that providers are owed.

use claviger_core::{
    ids::{AttemptId, ProviderName, SessionId},
    session::{OwedRevocation, SealedBlob},
    time::Timestamp,
};
use claviger_store::{
    Backlog, Owed, OwedId, StoreError,
    archive::{Found, Key, Record},
};
use rusqlite::{Connection, params};

use crate::{
    archive::page_of,
    error::Fault,
    sessions::rows,
    values::{Columns, expiry_columns, millis, version_column},
};

#[cfg(test)]
pub(crate) const STATEMENTS: &[&str] = &[OWE, DUE, LEASE, SETTLE, POSTPONE, BACKLOG, PAGE, ADD];

const OWE: &str =
    "INSERT INTO owed (session, generation, provider, access, refresh, expiry, expires_at, owed_at, due_at)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?8)";
const DUE: &str =
    "SELECT id, session, generation, provider, access, refresh, expiry, expires_at, owed_at, tries
    FROM owed WHERE due_at <= ?1 ORDER BY due_at, id LIMIT ?2";
const LEASE: &str = "UPDATE owed SET due_at = ?2, holder = ?3 WHERE id = ?1";
const SETTLE: &str = "DELETE FROM owed WHERE id = ?1 AND holder = ?2";
const POSTPONE: &str =
    "UPDATE owed SET due_at = ?3, holder = NULL, tries = tries + 1 WHERE id = ?1 AND holder = ?2";
const BACKLOG: &str = "SELECT count(*), min(owed_at) FROM owed";

const PAGE: &str =
    "SELECT id, session, generation, provider, access, refresh, expiry, expires_at, owed_at, tries, due_at, holder
    FROM owed WHERE id > ?1 ORDER BY id LIMIT ?2";
const ADD: &str =
    "INSERT INTO owed (session, generation, provider, access, refresh, expiry, expires_at, owed_at, id, tries, due_at, holder)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)";

pub(crate) fn owe(connection: &Connection, owed: &OwedRevocation) -> Result<(), Fault> {
    let (expiry, expires_at) = expiry_columns(owed.expiry);
    connection.prepare_cached(OWE)?.execute(params![
        owed.session.as_bytes(),
        version_column(owed.generation)?,
        owed.provider.0,
        owed.access.0,
        owed.refresh.as_ref().map(|refresh| &refresh.0),
        expiry,
        expires_at,
        owed.owed_at.as_millis(),
    ])?;
    Ok(())
}

pub(crate) fn take(
    connection: &Connection,
    attempt: AttemptId,
    now: Timestamp,
    lease_until: Timestamp,
    limit: usize,
) -> Result<Vec<Owed>, Fault> {
    let mut statement = connection.prepare_cached(DUE)?;
    let mut found = statement.query(params![now.as_millis(), rows(limit)])?;
    let mut due = Vec::new();
    let mut ids: Vec<i64> = Vec::new();
    while let Some(row) = found.next()? {
        let id = row.get(0)?;
        ids.push(id);
        match decode(&mut Columns::of(row)) {
            Ok(owed) => due.push(owed),
            // It is passed over for the length of a lease, so that it holds up no other.
            Err(Fault(error @ StoreError::Corrupt(_))) => {
                tracing::error!(id, %error, "a revocation cannot be read");
            }
            Err(fault) => return Err(fault),
        }
    }
    let mut lease = connection.prepare_cached(LEASE)?;
    for id in ids {
        lease.execute(params![id, lease_until.as_millis(), attempt.0])?;
    }
    Ok(due)
}

fn decode(columns: &mut Columns<'_>) -> Result<Owed, Fault> {
    let id = OwedId(columns.take()?);
    let revocation = OwedRevocation {
        session: SessionId::from_bytes(columns.take()?),
        generation: columns.version()?,
        provider: ProviderName(columns.take()?),
        access: SealedBlob(columns.take()?),
        refresh: columns.take::<Option<Vec<u8>>>()?.map(SealedBlob),
        expiry: columns.expiry()?,
        owed_at: columns.time()?,
    };
    Ok(Owed { id, revocation, tries: columns.take()? })
}

pub(crate) fn settle(connection: &Connection, id: OwedId, attempt: AttemptId) -> Result<bool, Fault> {
    Ok(connection.prepare_cached(SETTLE)?.execute(params![id.0, attempt.0])? == 1)
}

pub(crate) fn postpone(
    connection: &Connection,
    id: OwedId,
    attempt: AttemptId,
    due_at: Timestamp,
) -> Result<bool, Fault> {
    let postponed = params![id.0, attempt.0, due_at.as_millis()];
    Ok(connection.prepare_cached(POSTPONE)?.execute(postponed)? == 1)
}

pub(crate) fn backlog(connection: &Connection) -> Result<Backlog, Fault> {
    let mut statement = connection.prepare_cached(BACKLOG)?;
    let mut found = statement.query([])?;
    let row = found.next()?.ok_or(rusqlite::Error::QueryReturnedNoRows)?;
    let mut columns = Columns::of(row);
    let count = columns.read(|count: i64| u64::try_from(count).ok())?;
    Ok(Backlog { count, oldest: columns.take::<Option<i64>>()?.map(millis) })
}

/// All rows in the order of their ids, from the one after `after` on.
pub(crate) fn page(
    connection: &Connection,
    after: Option<OwedId>,
    limit: usize,
) -> Result<Vec<Found>, Fault> {
    let after = after.map_or(i64::MIN, |OwedId(id)| id);
    page_of(connection, PAGE, params![after, rows(limit)], |columns| {
        Ok((Key::Owed(OwedId(columns.peek()?)), decode_whole(columns)))
    })
}

fn decode_whole(columns: &mut Columns<'_>) -> Result<Record, Fault> {
    let owed = decode(columns)?;
    Ok(Record::Owed { owed, due_at: columns.time()?, holder: columns.holder()? })
}

/// Adds a row as it is. Its name is never given to another.
pub(crate) fn add(
    connection: &Connection,
    owed: &Owed,
    due_at: Timestamp,
    holder: Option<AttemptId>,
) -> Result<(), Fault> {
    let Owed { id, revocation, tries } = owed;
    let (expiry, expires_at) = expiry_columns(revocation.expiry);
    connection.prepare_cached(ADD)?.execute(params![
        revocation.session.as_bytes(),
        version_column(revocation.generation)?,
        revocation.provider.0,
        revocation.access.0,
        revocation.refresh.as_ref().map(|refresh| &refresh.0),
        expiry,
        expires_at,
        revocation.owed_at.as_millis(),
        id.0,
        tries,
        due_at.as_millis(),
        holder.map(|holder| holder.0),
    ])?;
    Ok(())
}
