//! The table of revocations that providers are owed.

use claviger_core::{
    ids::{AttemptId, ProviderName},
    session::{OwedRevocation, SealedBlob},
    time::Timestamp,
};
use claviger_store::{
    Backlog, Owed, OwedId, StoreError,
    archive::{Found, Key, Record},
};
use tokio_postgres::Row;

use crate::{
    database::{Link, bounds},
    error::Fault,
    values::{Columns, attempt_column, expiry_columns, rows, session_column, text_column, version_column},
};

const OWE: &str = "INSERT INTO claviger.owed
    (session, generation, provider, access, refresh, expiry, expires_at, owed_at, due_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $8)";
// What others are just taking is passed over.
const TAKE: &str = "WITH due AS MATERIALIZED (
        SELECT id, due_at FROM claviger.owed WHERE due_at <= $1 ORDER BY due_at, id LIMIT $2 FOR UPDATE SKIP LOCKED)
    UPDATE claviger.owed AS o SET due_at = $3, holder = $4 FROM due WHERE o.id = due.id
    RETURNING o.id, o.session, o.generation, o.provider, o.access, o.refresh, o.expiry, o.expires_at, o.owed_at, o.tries,
        due.due_at";
const SETTLE: &str = "DELETE FROM claviger.owed WHERE id = $1 AND holder = $2";
const POSTPONE: &str = "UPDATE claviger.owed SET due_at = $3, holder = NULL, tries = tries + 1
    WHERE id = $1 AND holder = $2";
const BACKLOG: &str = "SELECT count(*), min(owed_at) FROM claviger.owed";

const PAGE: &str = "SELECT id, session, generation, provider, access, refresh, expiry, expires_at, owed_at, tries, due_at, holder
    FROM claviger.owed WHERE id > $1 ORDER BY id LIMIT $2";
const ADD: &str = "INSERT INTO claviger.owed
    (session, generation, provider, access, refresh, expiry, expires_at, owed_at, id, tries, due_at, holder)
    OVERRIDING SYSTEM VALUE VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)";
// Setting it is not undone with the transaction, and need not be: names that were never given are many. It never goes back.
const NAMES_GIVEN: &str = "SELECT setval(pg_get_serial_sequence('claviger.owed', 'id'), greatest($1,
    (SELECT last_value FROM pg_sequences WHERE schemaname = 'claviger'
        AND format('%I.%I', schemaname, sequencename) = pg_get_serial_sequence('claviger.owed', 'id'))))";

pub(crate) async fn owe(link: Link, owed: &OwedRevocation) -> Result<(), Fault> {
    let (expiry, expires_at) = expiry_columns(owed.expiry);
    let bounds = bounds![
        UUID: session_column(owed.session),
        INT8: version_column(owed.generation)?,
        TEXT: text_column(&owed.provider.0),
        BYTEA: owed.access.0,
        BYTEA: owed.refresh.as_ref().map(|refresh| &refresh.0),
        TEXT: expiry,
        INT8: expires_at,
        INT8: owed.owed_at.as_millis(),
    ];
    link.execute(OWE, &bounds).await?;
    Ok(())
}

pub(crate) async fn take(
    link: Link,
    attempt: AttemptId,
    now: Timestamp,
    lease_until: Timestamp,
    limit: usize,
) -> Result<Vec<Owed>, Fault> {
    let bounds = bounds![
        INT8: now.as_millis(),
        INT8: rows(limit),
        INT8: lease_until.as_millis(),
        UUID: attempt_column(attempt),
    ];
    let mut due = Vec::new();
    for row in link.query(TAKE, &bounds).await? {
        match decode(&row) {
            Ok(taken) => due.push(taken),
            // It is passed over for the length of a lease, so that it holds up no other.
            Err(Fault::Store(error @ StoreError::Corrupt(_))) => {
                tracing::error!(%error, "a revocation cannot be read");
            }
            Err(fault) => return Err(fault),
        }
    }
    due.sort_by_key(|(due_at, owed)| (*due_at, owed.id));
    Ok(due.into_iter().map(|(_, owed)| owed).collect())
}

/// With when it was due.
fn decode(row: &Row) -> Result<(Timestamp, Owed), Fault> {
    let mut columns = Columns::of(row, "owed revocation");
    let id = OwedId(columns.take()?);
    let revocation = OwedRevocation {
        session: columns.session()?,
        generation: columns.version()?,
        provider: ProviderName(columns.text()?),
        access: SealedBlob(columns.take()?),
        refresh: columns.take::<Option<Vec<u8>>>()?.map(SealedBlob),
        expiry: columns.expiry()?,
        owed_at: columns.time()?,
    };
    let tries = columns.read(|tries: i64| u32::try_from(tries).ok())?;
    Ok((columns.time()?, Owed { id, revocation, tries }))
}

pub(crate) async fn settle(link: Link, id: OwedId, attempt: AttemptId) -> Result<bool, Fault> {
    Ok(link.execute(SETTLE, &bounds![INT8: id.0, UUID: attempt_column(attempt)]).await? == 1)
}

pub(crate) async fn postpone(
    link: Link,
    id: OwedId,
    attempt: AttemptId,
    due_at: Timestamp,
) -> Result<bool, Fault> {
    let bounds = bounds![INT8: id.0, UUID: attempt_column(attempt), INT8: due_at.as_millis()];
    Ok(link.execute(POSTPONE, &bounds).await? == 1)
}

pub(crate) async fn backlog(link: Link) -> Result<Backlog, Fault> {
    let row = link.query_one(BACKLOG, &bounds![]).await?;
    let mut columns = Columns::of(&row, "the backlog");
    let count = columns.count()?;
    Ok(Backlog { count, oldest: columns.take::<Option<i64>>()?.map(Timestamp::from_millis) })
}

/// All rows in the order of their ids, from the one after `after` on.
pub(crate) async fn page(link: Link, after: Option<OwedId>, limit: usize) -> Result<Vec<Found>, Fault> {
    let after = after.map_or(i64::MIN, |OwedId(id)| id);
    let found = link.query(PAGE, &bounds![INT8: after, INT8: rows(limit)]).await?;
    let whole = |row: &Row| {
        let id = OwedId(Columns::of(row, "owed revocation").take()?);
        Ok(Found::of(Key::Owed(id), decode_whole(row).map_err(StoreError::from))?)
    };
    found.iter().map(whole).collect()
}

fn decode_whole(row: &Row) -> Result<Record, Fault> {
    let (due_at, owed) = decode(row)?;
    let holder = Columns::last_of(row, "owed revocation").holder()?;
    Ok(Record::Owed { owed, due_at, holder })
}

/// Adds a row as it is.
pub(crate) async fn add(
    link: &Link,
    owed: &Owed,
    due_at: Timestamp,
    holder: Option<AttemptId>,
) -> Result<(), Fault> {
    let Owed { id, revocation, tries } = owed;
    let (expiry, expires_at) = expiry_columns(revocation.expiry);
    let bounds = bounds![
        UUID: session_column(revocation.session),
        INT8: version_column(revocation.generation)?,
        TEXT: text_column(&revocation.provider.0),
        BYTEA: revocation.access.0,
        BYTEA: revocation.refresh.as_ref().map(|refresh| &refresh.0),
        TEXT: expiry,
        INT8: expires_at,
        INT8: revocation.owed_at.as_millis(),
        INT8: id.0,
        INT8: i64::from(*tries),
        INT8: due_at.as_millis(),
        UUID: holder.map(attempt_column),
    ];
    link.execute(ADD, &bounds).await?;
    Ok(())
}

/// Has no name up to this one given to a revocation to come.
pub(crate) async fn keep_names(link: &Link, OwedId(highest): OwedId) -> Result<(), Fault> {
    link.query(NAMES_GIVEN, &bounds![INT8: highest]).await?;
    Ok(())
}
