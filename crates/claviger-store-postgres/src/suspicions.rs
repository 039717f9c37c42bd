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
use tokio_postgres::Row;

use crate::{
    database::{Link, bounds},
    error::Fault,
    values::{Columns, attempt_column, rows, text_column},
};

const NOTE: &str = "INSERT INTO claviger.suspicion (key, provider, subject_id, at, cause, noted_at, due_at)
    VALUES ($1, $2, $3, $4, $5, $6, $6) ON CONFLICT DO NOTHING";
// What others are just taking is passed over.
const TAKE: &str = "WITH due AS MATERIALIZED (
        SELECT key, due_at FROM claviger.suspicion WHERE due_at <= $1
        ORDER BY due_at, key LIMIT $2 FOR UPDATE SKIP LOCKED)
    UPDATE claviger.suspicion AS s SET due_at = $3, holder = $4 FROM due WHERE s.key = due.key
    RETURNING s.key, s.provider, s.subject_id, s.at, s.cause, s.tries, due.due_at";
const SETTLE: &str =
    "UPDATE claviger.suspicion SET due_at = NULL, holder = NULL WHERE key = $1 AND holder = $2";
const POSTPONE: &str = "UPDATE claviger.suspicion SET due_at = $3, holder = NULL, tries = tries + 1
    WHERE key = $1 AND holder = $2";
// As in the table of sign-ins, it is asked once.
const FORGET: &str = "WITH old AS MATERIALIZED (
        SELECT key FROM claviger.suspicion WHERE due_at IS NULL AND noted_at <= $1
        ORDER BY noted_at, key LIMIT $2 FOR UPDATE SKIP LOCKED)
    DELETE FROM claviger.suspicion WHERE key IN (SELECT key FROM old)";
const PAGE: &str = "SELECT key, provider, subject_id, at, cause, tries, noted_at, due_at, holder
    FROM claviger.suspicion WHERE key > $1 ORDER BY key LIMIT $2";
const ADD: &str =
    "INSERT INTO claviger.suspicion (key, provider, subject_id, at, cause, tries, noted_at, due_at, holder)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";

pub(crate) async fn note(
    link: Link,
    key: SuspicionKey,
    suspicion: &Suspicion,
    noted_at: Timestamp,
) -> Result<bool, Fault> {
    let bounds = bounds![
        BYTEA: key.0.as_slice(),
        TEXT: text_column(&suspicion.subject.provider.0),
        TEXT: text_column(&suspicion.subject.id),
        INT8: suspicion.at.as_millis(),
        TEXT: suspicion.cause.name(),
        INT8: noted_at.as_millis(),
    ];
    Ok(link.execute(NOTE, &bounds).await? == 1)
}

pub(crate) async fn take(
    link: Link,
    attempt: AttemptId,
    now: Timestamp,
    lease_until: Timestamp,
    limit: usize,
) -> Result<Vec<Suspected>, Fault> {
    let bounds = bounds![
        INT8: now.as_millis(),
        INT8: rows(limit),
        INT8: lease_until.as_millis(),
        UUID: attempt_column(attempt),
    ];
    let mut due = Vec::new();
    for row in link.query(TAKE, &bounds).await? {
        match decode_taken(&row) {
            Ok(taken) => due.push(taken),
            // It is passed over for the length of a lease, so that it holds up no other.
            Err(Fault::Store(error @ StoreError::Corrupt(_))) => {
                tracing::error!(%error, "a suspicion of a disconnect cannot be read");
            }
            Err(fault) => return Err(fault),
        }
    }
    due.sort_by_key(|(due_at, suspected)| (*due_at, suspected.key));
    Ok(due.into_iter().map(|(_, suspected)| suspected).collect())
}

/// With when it was due.
fn decode_taken(row: &Row) -> Result<(Timestamp, Suspected), Fault> {
    let mut columns = Columns::of(row, "a suspicion");
    let suspected = decode(&mut columns)?;
    Ok((columns.time()?, suspected))
}

fn decode(columns: &mut Columns<'_>) -> Result<Suspected, Fault> {
    let key = SuspicionKey(columns.octets()?);
    let suspicion = Suspicion {
        subject: Subject { provider: ProviderName(columns.text()?), id: columns.text()? },
        at: columns.time()?,
        cause: columns.read(Cause::from_name)?,
    };
    let tries = columns.read(|tries: i64| u32::try_from(tries).ok())?;
    Ok(Suspected { key, suspicion, tries })
}

pub(crate) async fn settle(link: Link, key: SuspicionKey, attempt: AttemptId) -> Result<bool, Fault> {
    let bounds = bounds![BYTEA: key.0.as_slice(), UUID: attempt_column(attempt)];
    Ok(link.execute(SETTLE, &bounds).await? == 1)
}

pub(crate) async fn postpone(
    link: Link,
    key: SuspicionKey,
    attempt: AttemptId,
    due_at: Timestamp,
) -> Result<bool, Fault> {
    let bounds = bounds![BYTEA: key.0.as_slice(), UUID: attempt_column(attempt), INT8: due_at.as_millis()];
    Ok(link.execute(POSTPONE, &bounds).await? == 1)
}

pub(crate) async fn forget(link: Link, noted_until: Timestamp, limit: usize) -> Result<usize, Fault> {
    let forgotten = link.execute(FORGET, &bounds![INT8: noted_until.as_millis(), INT8: rows(limit)]).await?;
    Ok(usize::try_from(forgotten).unwrap_or(usize::MAX))
}

/// All rows in the order of their keys, from the one after `after` on.
pub(crate) async fn page(link: Link, after: Option<SuspicionKey>, limit: usize) -> Result<Vec<Found>, Fault> {
    let after = after.as_ref().map_or(&[][..], |SuspicionKey(key)| key.as_slice());
    let found = link.query(PAGE, &bounds![BYTEA: after, INT8: rows(limit)]).await?;
    let whole = |row: &Row| {
        let key = SuspicionKey(Columns::of(row, "a suspicion").octets()?);
        Ok(Found::of(Key::Suspicion(key), decode_whole(row).map_err(StoreError::from))?)
    };
    found.iter().map(whole).collect()
}

fn decode_whole(row: &Row) -> Result<Record, Fault> {
    let mut columns = Columns::of(row, "a suspicion");
    let suspected = decode(&mut columns)?;
    let (noted_at, due_at) = (columns.time()?, columns.take::<Option<i64>>()?.map(Timestamp::from_millis));
    Ok(Record::Suspicion { suspected, noted_at, due_at, holder: columns.holder()? })
}

/// Adds a row as it is.
pub(crate) async fn add(
    link: &Link,
    suspected: &Suspected,
    noted_at: Timestamp,
    due_at: Option<Timestamp>,
    holder: Option<AttemptId>,
) -> Result<(), Fault> {
    let Suspected { key, suspicion, tries } = suspected;
    let bounds = bounds![
        BYTEA: key.0.as_slice(),
        TEXT: text_column(&suspicion.subject.provider.0),
        TEXT: text_column(&suspicion.subject.id),
        INT8: suspicion.at.as_millis(),
        TEXT: suspicion.cause.name(),
        INT8: i64::from(*tries),
        INT8: noted_at.as_millis(),
        INT8: due_at.map(Timestamp::as_millis),
        UUID: holder.map(attempt_column),
    ];
    link.execute(ADD, &bounds).await?;
    Ok(())
}
