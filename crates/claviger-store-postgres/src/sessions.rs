//! The tables of sessions: `session` for what seldom changes, `pulse` for what often does. `apply`
//! changes rows.

use claviger_core::{Change, Claim, EndReason, Session, SessionId, Slot, Subject, Timestamp};
use claviger_store::{
    Applied, KeyIdCount, Placement, Selection, SessionCounts, StoreError, SweepKind,
    archive::{Count, Found, Key, Record},
    codec::{self, ColumnReader as _, PairColumns, end_columns, version_column},
    corrupt, id_is_taken,
};
use futures_util::future::try_join_all;
use tokio_postgres::Row;
use uuid::Uuid;

use crate::{
    apply,
    database::{Bound, PooledConnection, bounds},
    error::Fault,
    notify::notify,
    row::{Pulse, count_by, decode, pair_bounds},
    values::{Columns, hour_column, rows, session_column, slot_column, text_column},
};

macro_rules! select {
    ($from:literal) => {
        concat!(
            "SELECT s.id, p.version, s.provider, s.subject_id, s.display_name, s.secret_hash, s.custody, s.device,
                p.created_at, p.last_seen_at, p.state, p.proven_at,
                s.generation, s.access, s.refresh, s.expiry, s.expires_at,
                p.attempt, p.taken_at, p.lease_until, p.fingerprint, p.replay, p.answer_lost,
                s.end_reason, s.ended_at
            FROM claviger.pulse AS p JOIN claviger.session AS s ON s.id = p.id
            WHERE ",
            $from
        )
    };
}

const LOAD: &str = select!("p.id = $1");
const LOAD_ALL: &str = select!("p.id = ANY($1) AND p.state < 3 ORDER BY p.id");
const DEVICES: &str = select!(
    "s.provider = $1 AND s.subject_id = $2 AND p.state < 3 ORDER BY p.last_seen_at DESC, p.id DESC LIMIT $3"
);
const LIVE_IN_SLOT: &str = select!("p.slot = $1 AND p.id > $2 AND p.state = 0 ORDER BY p.id LIMIT $3");
const OPEN_IN_SLOT: &str = select!("p.slot = $1 AND p.id > $2 AND p.state < 3 ORDER BY p.id LIMIT $3");

// First the ids, then their rows. Both tables get bounds, since PostgreSQL does not derive one's
// from the other's. So it walks each by its index, even right after a bulk load into a table that
// counts as empty.
const IDS_AFTER: &str = "SELECT id FROM claviger.session WHERE id > $1 ORDER BY id LIMIT $2";
const PAGE: &str = select!("p.id > $1 AND p.id <= $2 AND s.id > $1 AND s.id <= $2 ORDER BY p.id");
const COUNT: &str = "SELECT (SELECT count(*) FROM claviger.session),
    (SELECT count(*) FROM claviger.pulse AS p WHERE NOT EXISTS (SELECT FROM claviger.session AS s WHERE s.id = p.id))";

const INSERT: &str = "WITH body AS (
        INSERT INTO claviger.session
            (id, generation, access, refresh, expiry, expires_at, display_name, secret_hash, custody, device,
             end_reason, ended_at, provider, subject_id)
        VALUES ($1, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23))
    INSERT INTO claviger.pulse (id, version, attempt, fingerprint, taken_at, lease_until, replay, answer_lost, state, proven_at,
        slot, created_at, last_seen_at, seen_hour)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $24, $25, $26, $27)";

const OPEN_IDS: &str = "SELECT p.id FROM claviger.session AS s JOIN claviger.pulse AS p ON p.id = s.id
    WHERE s.provider = $1 AND s.subject_id = $2 AND p.state < 3";
// Always in the order of ids, so that two transactions that lock several rows do not deadlock.
const LOCK: &str = "SELECT id FROM claviger.pulse WHERE id = ANY($1) AND state < 3 ORDER BY id FOR UPDATE";
const LOCK_CREATED_BEFORE: &str =
    "SELECT p.id FROM claviger.session AS s JOIN claviger.pulse AS p ON p.id = s.id
    WHERE s.provider = $1 AND s.subject_id = $2 AND p.state < 3 AND p.created_at < $3 AND p.id IS DISTINCT FROM $4
    ORDER BY p.id FOR UPDATE OF p";

const TOUCH: &str = "UPDATE claviger.pulse AS p SET last_seen_at = n.at, seen_hour = n.hour
    FROM unnest($1::uuid[], $2::bigint[], $3::integer[]) AS n (id, at, hour)
    WHERE p.id = n.id AND p.state < 3 AND p.last_seen_at < n.at";
// The hour comes first because the index holds it. It never is later than the exact time.
const OVERDUE: &str = "SELECT id FROM (
        (SELECT id, 0 AS kind, last_seen_at AS since FROM claviger.pulse
            WHERE state < 3 AND seen_hour <= $4 AND last_seen_at <= $1
            ORDER BY seen_hour, last_seen_at, id LIMIT $3)
        UNION ALL
        (SELECT id, 1 AS kind, created_at AS since FROM claviger.pulse
            WHERE state < 3 AND created_at <= $2 AND last_seen_at > $1 ORDER BY created_at, id LIMIT $3)
    ) AS overdue ORDER BY kind, since, id LIMIT $3";
const DISTRUSTED: &str = "SELECT id FROM claviger.pulse WHERE state >= 2 ORDER BY id DESC LIMIT $1";
// Skips rows that another instance is purging.
const PURGE: &str = "WITH old AS MATERIALIZED (
        SELECT id FROM claviger.pulse WHERE state = 3 AND created_at <= $1
        ORDER BY created_at, id LIMIT $2 FOR UPDATE SKIP LOCKED),
    pulses AS (DELETE FROM claviger.pulse WHERE id IN (SELECT id FROM old)),
    bodies AS (DELETE FROM claviger.session WHERE id IN (SELECT id FROM old))
    SELECT count(*) FROM old";
const CENSUS: &str = "SELECT
    count(*) FILTER (WHERE state = 0), count(*) FILTER (WHERE state = 1), count(*) FILTER (WHERE state = 2),
    min(proven_at) FILTER (WHERE state = 0),
    count(*) FILTER (WHERE NOT answer_lost AND lease_until > $1 AND lease_until <= $2),
    count(*) FILTER (WHERE answer_lost OR lease_until <= $1 OR lease_until > $2)
    FROM claviger.pulse";

// It scans both tables, but runs only after a change of keys.
const HEADS: &str = "SELECT head, count(*) FILTER (WHERE of_session), count(*) FILTER (WHERE NOT of_session) FROM (
        SELECT substring(access FROM 1 FOR 5) AS head, true AS of_session FROM claviger.session WHERE access IS NOT NULL
        UNION ALL
        SELECT substring(refresh FROM 1 FOR 5), true FROM claviger.session
        WHERE substring(refresh FROM 1 FOR 5) <> substring(access FROM 1 FOR 5)
        UNION ALL
        SELECT substring(access FROM 1 FOR 5), false FROM claviger.owed
        UNION ALL
        SELECT substring(refresh FROM 1 FOR 5), false FROM claviger.owed
        WHERE substring(refresh FROM 1 FOR 5) <> substring(access FROM 1 FOR 5)
    ) AS heads GROUP BY head ORDER BY head";

pub(crate) async fn load(connection: PooledConnection, id: SessionId) -> Result<Option<Session>, Fault> {
    let found = connection.query(LOAD, &bounds![UUID: session_column(id)]).await?;
    Ok(found.first().map(decode).transpose()?)
}

/// Writes a change. If the row ended or became suspect, notifies the other instances.
pub(crate) async fn apply(connection: PooledConnection, change: &Change) -> Result<Applied, Fault> {
    if apply::write(&connection, change).await? {
        return Ok(Applied::Done);
    }
    Ok(Applied::Conflict(load(connection, change.next().id).await?.map(Box::new)))
}

pub(crate) async fn devices(
    connection: PooledConnection,
    subject: &Subject,
    limit: usize,
) -> Result<Vec<Session>, Fault> {
    let bounds =
        bounds![TEXT: text_column(&subject.provider.0), TEXT: text_column(&subject.id), INT8: rows(limit)];
    select(&connection, DEVICES, &bounds).await
}

/// Part of a transaction that holds [`opening`]'s lock on the new session's user.
pub(crate) async fn insert(
    connection: PooledConnection,
    session: &Session,
    placement: Placement,
) -> Result<Vec<Session>, Fault> {
    let Session { id, subject, .. } = session;
    add(&connection, session)
        .await
        .map_err(|fault| if fault.is_taken() { id_is_taken().into() } else { fault })?;
    let open = connection
        .query(OPEN_IDS, &bounds![TEXT: text_column(&subject.provider.0), TEXT: text_column(&subject.id)])
        .await?;
    if placement.has_room(*id, open.len()) {
        return Ok(Vec::new());
    }
    let mut ids = ids(&open)?;
    ids.extend(placement.replaces.map(session_column));
    connection.query(LOCK, &bounds![UUID_ARRAY: ids]).await?;
    let candidates = select(&connection, LOAD_ALL, &bounds![UUID_ARRAY: ids]).await?;
    let row = |id| candidates.iter().find(|row| row.id == id).cloned();
    let ends = placement.ends(session, &candidates).into_iter();
    let ends = ends.filter_map(|(id, reason)| Some((row(id)?, reason))).collect();
    end(&connection, ends, session.created_at).await
}

/// Part of a transaction that holds [`opening`]'s lock on the user.
pub(crate) async fn end_sessions(
    connection: PooledConnection,
    selection: &Selection,
    reason: EndReason,
    at: Timestamp,
) -> Result<Vec<Session>, Fault> {
    let Selection { subject, except, created_before } = selection;
    let bounds = bounds![
        TEXT: text_column(&subject.provider.0),
        TEXT: text_column(&subject.id),
        INT8: created_before.as_millis(),
        UUID: except.map(session_column),
    ];
    let chosen = ids(&connection.query(LOCK_CREATED_BEFORE, &bounds).await?)?;
    if chosen.is_empty() {
        return Ok(Vec::new());
    }
    let rows = select(&connection, LOAD_ALL, &bounds![UUID_ARRAY: chosen]).await?;
    end(&connection, rows.into_iter().map(|row| (row, reason)).collect(), at).await
}

/// Begins a transaction on all of a user's sessions. One such transaction runs at a time for each
/// user.
pub(crate) fn opening(subject: &Subject) -> String {
    // FNV-1a. Two users with the same hash wait for each other, which is harmless.
    let octets = subject.provider.0.bytes().chain([0]).chain(subject.id.bytes());
    let number = octets.fold(0xcbf2_9ce4_8422_2325_u64, |number, octet| {
        (number ^ u64::from(octet)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    format!(
        "BEGIN ISOLATION LEVEL READ COMMITTED; SELECT pg_advisory_xact_lock({})",
        i64::from_ne_bytes(number.to_ne_bytes())
    )
}

/// Ends locked rows, adds their revocations, and notifies all instances.
async fn end(
    connection: &PooledConnection,
    rows: Vec<(Session, EndReason)>,
    at: Timestamp,
) -> Result<Vec<Session>, Fault> {
    let mut ended = Vec::with_capacity(rows.len());
    for (row, reason) in rows {
        if let Ok(end) = row.end(reason, at) {
            ended.push(end);
        }
    }
    if ended.is_empty() {
        return Ok(Vec::new());
    }
    // Pipelined.
    let written =
        try_join_all(ended.iter().map(|change| apply::end(connection, change, apply::Tell::Nobody))).await?;
    if !written.into_iter().all(|written| written) {
        return Err(corrupt("a locked session was changed").into());
    }
    let ended: Vec<Session> = ended.into_iter().map(Change::into_next).collect();
    let ids: Vec<Uuid> = ended.iter().map(|row| session_column(row.id)).collect();
    notify(connection, &ids).await?;
    Ok(ended)
}

/// All rows in the order of their ids, from the one after `after` on.
pub(crate) async fn page(
    connection: PooledConnection,
    after: Option<SessionId>,
    limit: usize,
) -> Result<Vec<Found>, Fault> {
    // No session has the id of zeros.
    let after = after.map_or(Uuid::nil(), session_column);
    let ids = ids(&connection.query(IDS_AFTER, &bounds![UUID: after, INT8: rows(limit)]).await?)?;
    let Some(last) = ids.last() else { return Ok(Vec::new()) };
    let found = connection.query(PAGE, &bounds![UUID: after, UUID: last]).await?;
    let mut found = found.iter().peekable();
    let mut page = Vec::with_capacity(ids.len());
    for id in ids {
        let key = SessionId::from_bytes(id.into_bytes());
        let row = found.next_if(|row| row.try_get::<_, Uuid>(0).is_ok_and(|own| own == id));
        let read = match row {
            Some(row) => decode(row).map(Record::Session),
            // Report a session without its pulse row instead of skipping it.
            None => Err(corrupt("its row of the table pulse is missing")),
        };
        page.push(Found::of(Key::Session(key), read)?);
    }
    Ok(page)
}

pub(crate) async fn count(connection: PooledConnection) -> Result<Count, Fault> {
    count_by(&connection, COUNT).await
}

/// Adds a row unchanged.
pub(crate) async fn add(connection: &PooledConnection, session: &Session) -> Result<(), Fault> {
    // Every added row keeps its own version, which must be in range.
    version_column(session.version)?;
    let (pulse, pair) = (Pulse::of(session), PairColumns::of(session)?);
    let (end_reason, ended_at) = end_columns(&session.state);
    let beside = bounds![
        TEXT: text_column(&session.display_name),
        BYTEA: session.secret_hash.0.as_slice(),
        TEXT: session.custody.name(),
        TEXT: text_column(session.device.as_str()),
        TEXT: end_reason,
        INT8: ended_at,
        TEXT: text_column(&session.subject.provider.0),
        TEXT: text_column(&session.subject.id),
        INT2: slot_column(Slot::of(session.id)),
        INT8: session.created_at.as_millis(),
        INT8: session.last_seen_at.as_millis(),
        INT4: hour_column(session.last_seen_at),
    ];
    let bounds =
        [&pulse.version()[..], &pulse.claim(), &pulse.state(), &pair_bounds(&pair), &beside].concat();
    connection.execute(INSERT, &bounds).await?;
    Ok(())
}

/// Records last uses. `seen` must be sorted.
pub(crate) async fn record_last_seen(
    connection: PooledConnection,
    seen: &[(SessionId, Timestamp)],
) -> Result<(), Fault> {
    // If a session was used several times, the last use counts.
    let last = || seen.chunk_by(|one, next| one.0 == next.0).filter_map(<[_]>::last);
    let ids: Vec<Uuid> = last().map(|(id, _)| session_column(*id)).collect();
    let times: Vec<i64> = last().map(|(_, at)| at.as_millis()).collect();
    let hours: Vec<i32> = last().map(|(_, at)| hour_column(*at)).collect();
    connection.execute(TOUCH, &bounds![UUID_ARRAY: ids, INT8_ARRAY: times, INT4_ARRAY: hours]).await?;
    Ok(())
}

pub(crate) async fn overdue(
    connection: PooledConnection,
    idle_since: Timestamp,
    created_until: Timestamp,
    limit: usize,
) -> Result<Vec<SessionId>, Fault> {
    let bounds = bounds![
        INT8: idle_since.as_millis(),
        INT8: created_until.as_millis(),
        INT8: rows(limit),
        INT4: hour_column(idle_since),
    ];
    session_ids(&connection.query(OVERDUE, &bounds).await?)
}

pub(crate) async fn denylist(connection: PooledConnection, limit: usize) -> Result<Vec<SessionId>, Fault> {
    session_ids(&connection.query(DISTRUSTED, &bounds![INT8: rows(limit)]).await?)
}

pub(crate) async fn purge(
    connection: PooledConnection,
    created_until: Timestamp,
    limit: usize,
) -> Result<usize, Fault> {
    let row =
        connection.query_one(PURGE, &bounds![INT8: created_until.as_millis(), INT8: rows(limit)]).await?;
    let purged = Columns::of(&row, "a purge").count()?;
    Ok(usize::try_from(purged).unwrap_or(usize::MAX))
}

/// The sessions of a slot that this sweep visits, from the one after `after` on.
pub(crate) async fn in_slot(
    connection: PooledConnection,
    sweep: SweepKind,
    slot: Slot,
    after: Option<SessionId>,
    limit: usize,
) -> Result<Vec<Session>, Fault> {
    let sql = match sweep {
        SweepKind::Validation => LIVE_IN_SLOT,
        SweepKind::Connections => OPEN_IN_SLOT,
    };
    // No session has the id of zeros.
    let mut after = after.map_or(Uuid::nil(), session_column);
    let mut sessions = Vec::new();
    loop {
        let wanted = limit.saturating_sub(sessions.len());
        let found =
            connection.query(sql, &bounds![INT2: slot_column(slot), UUID: after, INT8: rows(wanted)]).await?;
        for row in &found {
            match decode(row) {
                Ok(session) => sessions.push(session),
                // One damaged row must not keep the others of its slot.
                Err(error @ StoreError::Corrupt(_)) => {
                    tracing::error!(%error, "a session cannot be read, so its token is not validated");
                }
                Err(error) => return Err(error.into()),
            }
        }
        match found.last() {
            Some(last) if sessions.len() < limit && found.len() == wanted => after = last.try_get("id")?,
            _ => return Ok(sessions),
        }
    }
}

pub(crate) async fn session_counts(
    connection: PooledConnection,
    now: Timestamp,
) -> Result<SessionCounts, Fault> {
    let bounds = bounds![INT8: now.as_millis(), INT8: Claim::latest_lease(now).as_millis()];
    let row = connection.query_one(CENSUS, &bounds).await?;
    Ok(codec::session_counts(&mut Columns::of(&row, "the census"))?)
}

/// Counts rows by the first octets of their blobs, which name the key.
pub(crate) async fn key_id_counts(connection: PooledConnection) -> Result<Vec<KeyIdCount>, Fault> {
    let count = |row: &Row| Ok(codec::key_id_count(&mut Columns::of(row, "the keys of rows"))?);
    connection.query(HEADS, &bounds![]).await?.iter().map(count).collect()
}

async fn select(
    connection: &PooledConnection,
    sql: &str,
    bounds: &[Bound<'_>],
) -> Result<Vec<Session>, Fault> {
    Ok(connection.query(sql, bounds).await?.iter().map(decode).collect::<Result<_, StoreError>>()?)
}

fn ids(rows: &[Row]) -> Result<Vec<Uuid>, Fault> {
    rows.iter().map(|row| Ok(Columns::of(row, "a session").take()?)).collect()
}

fn session_ids(rows: &[Row]) -> Result<Vec<SessionId>, Fault> {
    rows.iter().map(|row| Ok(Columns::of(row, "a session").session_id()?)).collect()
}
