//! The tables of sessions: `session` for what seldom changes, `pulse` for what often does. How a row is changed is in `replace`.

use claviger_core::{
    ids::{SessionId, Subject},
    session::{EndReason, SealedBlob, Session, over_limit},
    sweep::Slot,
    time::Timestamp,
};
use claviger_store::{
    Census, Claims, HeadCount, Placement, Selection, StoreError, Wheel,
    archive::{Count, Found, Key, Record},
    corrupt, id_is_taken,
};
use futures_util::future::try_join_all;
use tokio_postgres::Row;
use uuid::Uuid;

use crate::{
    archive, changes,
    database::{Bound, Link, bounds},
    error::Fault,
    replace::{Extent, change},
    row::{Body, Pulse, decode},
    slots::slot_column,
    values::{Columns, hour_column, rows, session_column, text_column, version_column},
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

// First the ids, then their rows. The bounds of both tables are given, since the database does not take those of one for the
// other's; so each is walked by its index, also right after a million rows came into a table that counted as empty.
const IDS_AFTER: &str = "SELECT id FROM claviger.session WHERE id > $1 ORDER BY id LIMIT $2";
const PAGE: &str = select!("p.id > $1 AND p.id <= $2 AND s.id > $1 AND s.id <= $2 ORDER BY p.id");
const COUNT: &str = "SELECT (SELECT count(*) FROM claviger.session),
    (SELECT count(*) FROM claviger.pulse AS p WHERE NOT EXISTS (SELECT FROM claviger.session AS s WHERE s.id = p.id))";

const INSERT: &str = "WITH body AS (
        INSERT INTO claviger.session
            (id, display_name, secret_hash, custody, device, generation, access, refresh, expiry, expires_at,
             end_reason, ended_at, provider, subject_id)
        VALUES ($1, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23))
    INSERT INTO claviger.pulse (id, version, state, proven_at, attempt, fingerprint, taken_at, lease_until, replay, answer_lost,
        slot, created_at, last_seen_at, seen_hour)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $24, $25, $26, $27)";

const TELL: &str = "SELECT pg_notify($1, string_agg(encode(uuid_send(id), 'hex'), ','))
    FROM (SELECT id, (place - 1) / $3 AS batch FROM unnest($2::uuid[]) WITH ORDINALITY AS n (id, place)) AS ended
    GROUP BY batch";

const OPEN_IDS: &str = "SELECT p.id FROM claviger.session AS s JOIN claviger.pulse AS p ON p.id = s.id
    WHERE s.provider = $1 AND s.subject_id = $2 AND p.state < 3";
// Always in the order of ids, so that two who lock several rows do not wait for each other.
const LOCK: &str = "SELECT id FROM claviger.pulse WHERE id = ANY($1) AND state < 3 ORDER BY id FOR UPDATE";
const LOCK_CREATED_BEFORE: &str =
    "SELECT p.id FROM claviger.session AS s JOIN claviger.pulse AS p ON p.id = s.id
    WHERE s.provider = $1 AND s.subject_id = $2 AND p.state < 3 AND p.created_at < $3 AND p.id IS DISTINCT FROM $4
    ORDER BY p.id FOR UPDATE OF p";

const TOUCH: &str = "UPDATE claviger.pulse AS p SET last_seen_at = n.at, seen_hour = n.hour
    FROM unnest($1::uuid[], $2::bigint[], $3::integer[]) AS n (id, at, hour)
    WHERE p.id = n.id AND p.state < 3 AND p.last_seen_at < n.at";
// The hour comes first in the order because it is what the index has. It does not contradict the exact time, or is too early.
const OVERDUE: &str = "SELECT id FROM (
        (SELECT id, 0 AS kind, last_seen_at AS since FROM claviger.pulse
            WHERE state < 3 AND seen_hour <= $4 AND last_seen_at <= $1
            ORDER BY seen_hour, last_seen_at, id LIMIT $3)
        UNION ALL
        (SELECT id, 1 AS kind, created_at AS since FROM claviger.pulse
            WHERE state < 3 AND created_at <= $2 AND last_seen_at > $1 ORDER BY created_at, id LIMIT $3)
    ) AS overdue ORDER BY kind, since, id LIMIT $3";
const DISTRUSTED: &str = "SELECT id FROM claviger.pulse WHERE state >= 2 ORDER BY id DESC LIMIT $1";
// What others are just purging is passed over.
const PURGE: &str = "WITH old AS MATERIALIZED (
        SELECT id FROM claviger.pulse WHERE state = 3 AND created_at <= $1
        ORDER BY created_at, id LIMIT $2 FOR UPDATE SKIP LOCKED),
    pulses AS (DELETE FROM claviger.pulse WHERE id IN (SELECT id FROM old)),
    bodies AS (DELETE FROM claviger.session WHERE id IN (SELECT id FROM old))
    SELECT count(*) FROM old";
const CENSUS: &str = "SELECT
    count(*) FILTER (WHERE state = 0), count(*) FILTER (WHERE state = 1), count(*) FILTER (WHERE state = 2),
    min(proven_at) FILTER (WHERE state = 0),
    count(*) FILTER (WHERE NOT answer_lost AND lease_until > $1),
    count(*) FILTER (WHERE answer_lost OR lease_until <= $1)
    FROM claviger.pulse";

// It goes through both tables, which is done after a change of keys only.
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

pub(crate) async fn load(link: Link, id: SessionId) -> Result<Option<Session>, Fault> {
    let found = link.query(LOAD, &bounds![UUID: session_column(id)]).await?;
    found.first().map(decode).transpose()
}

pub(crate) async fn devices(link: Link, subject: &Subject, limit: usize) -> Result<Vec<Session>, Fault> {
    let bounds =
        bounds![TEXT: text_column(&subject.provider.0), TEXT: text_column(&subject.id), INT8: rows(limit)];
    select(&link, DEVICES, &bounds).await
}

/// One step of a transaction that holds [`opening`]'s lock on the newcomer's user.
pub(crate) async fn insert(
    link: Link,
    session: &Session,
    placement: Placement,
) -> Result<Vec<Session>, Fault> {
    let Session { id, subject, .. } = session;
    add(&link, session).await.map_err(|fault| if fault.is_taken() { id_is_taken().into() } else { fault })?;
    let open = link
        .query(OPEN_IDS, &bounds![TEXT: text_column(&subject.provider.0), TEXT: text_column(&subject.id)])
        .await?;
    let replaces = placement.replaces.filter(|replaced| replaced != id);
    let limit = usize::try_from(placement.limit.max(1)).unwrap_or(usize::MAX);
    if replaces.is_none() && open.len() <= limit {
        return Ok(Vec::new());
    }
    let mut ids = ids(&open)?;
    ids.extend(replaces.map(session_column));
    link.query(LOCK, &bounds![UUID_ARRAY: ids]).await?;
    let mut rows = select(&link, LOAD_ALL, &bounds![UUID_ARRAY: ids]).await?;
    let mut take = |id| Some(rows.swap_remove(rows.iter().position(|row| row.id == id)?));
    let replaced = replaces.and_then(&mut take);
    let mut open = rows;
    open.retain(|row| row.subject == *subject);
    let surplus = over_limit(&open, *id, placement.limit);
    let mut take = |id| Some(open.swap_remove(open.iter().position(|row| row.id == id)?));
    let surplus = surplus.into_iter().filter_map(&mut take);
    let ends = replaced
        .into_iter()
        .map(|row| (row, EndReason::ReplacedBySignIn))
        .chain(surplus.map(|row| (row, EndReason::DeviceLimit)));
    end(&link, ends.collect(), session.created_at).await
}

/// One step of a transaction that holds [`opening`]'s lock on the user.
pub(crate) async fn end_all(
    link: Link,
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
    let chosen = ids(&link.query(LOCK_CREATED_BEFORE, &bounds).await?)?;
    if chosen.is_empty() {
        return Ok(Vec::new());
    }
    let rows = select(&link, LOAD_ALL, &bounds![UUID_ARRAY: chosen]).await?;
    end(&link, rows.into_iter().map(|row| (row, reason)).collect(), at).await
}

/// Begins a transaction that concerns all of a user's sessions, one at a time for each user.
pub(crate) fn opening(subject: &Subject) -> String {
    // FNV-1a. Two users of one number wait for each other without need, and that is all.
    let octets = subject.provider.0.bytes().chain([0]).chain(subject.id.bytes());
    let number = octets.fold(0xcbf2_9ce4_8422_2325_u64, |number, octet| {
        (number ^ u64::from(octet)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    format!(
        "BEGIN ISOLATION LEVEL READ COMMITTED; SELECT pg_advisory_xact_lock({})",
        i64::from_ne_bytes(number.to_ne_bytes())
    )
}

/// Ends rows that are locked, owes their revocations, and tells all instances.
async fn end(link: &Link, rows: Vec<(Session, EndReason)>, at: Timestamp) -> Result<Vec<Session>, Fault> {
    let mut ended = Vec::with_capacity(rows.len());
    for (row, reason) in rows {
        if let Ok(end) = row.end(reason, at) {
            ended.push(end);
        }
    }
    if ended.is_empty() {
        return Ok(Vec::new());
    }
    // Sent one behind the other, without waiting for the answers in between.
    let written = try_join_all(
        ended.iter().map(|(next, owed)| change(link, next, Extent::All { owed: owed.as_ref(), tell: false })),
    )
    .await?;
    if !written.into_iter().all(|written| written) {
        return Err(corrupt("a locked session was changed").into());
    }
    let ended: Vec<Session> = ended.into_iter().map(|(next, _)| next).collect();
    let ids: Vec<Uuid> = ended.iter().map(|row| session_column(row.id)).collect();
    tell(link, &ids).await?;
    Ok(ended)
}

/// Tells all instances that these changed.
pub(crate) async fn tell(link: &Link, ids: &[Uuid]) -> Result<(), Fault> {
    let bounds = bounds![TEXT: changes::CHANNEL, UUID_ARRAY: ids, INT8: changes::IDS_A_MESSAGE];
    link.query(TELL, &bounds).await?;
    Ok(())
}

/// All rows in the order of their ids, from the one after `after` on.
pub(crate) async fn page(link: Link, after: Option<SessionId>, limit: usize) -> Result<Vec<Found>, Fault> {
    // No session has the id of zeros.
    let after = after.map_or(Uuid::nil(), session_column);
    let ids = ids(&link.query(IDS_AFTER, &bounds![UUID: after, INT8: rows(limit)]).await?)?;
    let Some(last) = ids.last() else { return Ok(Vec::new()) };
    let found = link.query(PAGE, &bounds![UUID: after, UUID: last]).await?;
    let mut found = found.iter().peekable();
    let mut page = Vec::with_capacity(ids.len());
    for id in ids {
        let key = SessionId::from_bytes(id.into_bytes());
        let row = found.next_if(|row| row.try_get::<_, Uuid>(0).is_ok_and(|own| own == id));
        let read = match row {
            Some(row) => decode(row).map(Record::Session).map_err(StoreError::from),
            // A body without its pulse is told, and not passed over.
            None => Err(corrupt("its row of the table pulse is missing")),
        };
        page.push(Found::of(Key::Session(key), read)?);
    }
    Ok(page)
}

pub(crate) async fn count(link: Link) -> Result<Count, Fault> {
    archive::count_by(&link, COUNT).await
}

/// Adds the row as it is.
pub(crate) async fn add(link: &Link, session: &Session) -> Result<(), Fault> {
    // Whatever is added has a version of its own.
    version_column(session.version)?;
    let (pulse, body) = (Pulse::of(session), Body::of(session)?);
    let beside = bounds![
        TEXT: body.end_reason,
        INT8: body.ended_at,
        TEXT: text_column(&session.subject.provider.0),
        TEXT: text_column(&session.subject.id),
        INT2: slot_column(Slot::of(session.id)),
        INT8: session.created_at.as_millis(),
        INT8: session.last_seen_at.as_millis(),
        INT4: hour_column(session.last_seen_at),
    ];
    let bounds = [&pulse.bounds()[..], &body.bounds(), &beside].concat();
    link.execute(INSERT, &bounds).await?;
    Ok(())
}

/// `seen` is sorted.
pub(crate) async fn touch(link: Link, seen: &[(SessionId, Timestamp)]) -> Result<(), Fault> {
    // Of several uses of one session the last counts.
    let last = || seen.chunk_by(|one, next| one.0 == next.0).filter_map(<[_]>::last);
    let ids: Vec<Uuid> = last().map(|(id, _)| session_column(*id)).collect();
    let times: Vec<i64> = last().map(|(_, at)| at.as_millis()).collect();
    let hours: Vec<i32> = last().map(|(_, at)| hour_column(*at)).collect();
    link.execute(TOUCH, &bounds![UUID_ARRAY: ids, INT8_ARRAY: times, INT4_ARRAY: hours]).await?;
    Ok(())
}

pub(crate) async fn overdue(
    link: Link,
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
    session_ids(&link.query(OVERDUE, &bounds).await?)
}

pub(crate) async fn distrusted(link: Link, limit: usize) -> Result<Vec<SessionId>, Fault> {
    session_ids(&link.query(DISTRUSTED, &bounds![INT8: rows(limit)]).await?)
}

pub(crate) async fn purge(link: Link, created_until: Timestamp, limit: usize) -> Result<usize, Fault> {
    let row = link.query_one(PURGE, &bounds![INT8: created_until.as_millis(), INT8: rows(limit)]).await?;
    let purged = Columns::of(&row, "a purge").count()?;
    Ok(usize::try_from(purged).unwrap_or(usize::MAX))
}

/// The slot's sessions that the wheel is for, from the one after `after` on.
pub(crate) async fn in_slot(
    link: Link,
    wheel: Wheel,
    slot: Slot,
    after: Option<SessionId>,
    limit: usize,
) -> Result<Vec<Session>, Fault> {
    let sql = match wheel {
        Wheel::Validation => LIVE_IN_SLOT,
        Wheel::Probe => OPEN_IN_SLOT,
    };
    // No session has the id of zeros.
    let mut after = after.map_or(Uuid::nil(), session_column);
    let mut sessions = Vec::new();
    loop {
        let wanted = limit.saturating_sub(sessions.len());
        let found =
            link.query(sql, &bounds![INT2: slot_column(slot), UUID: after, INT8: rows(wanted)]).await?;
        for row in &found {
            match decode(row) {
                Ok(session) => sessions.push(session),
                // One damaged row must not keep the others of its slot.
                Err(Fault::Store(error @ StoreError::Corrupt(_))) => {
                    tracing::error!(%error, "a session cannot be read, so its token is not validated");
                }
                Err(fault) => return Err(fault),
            }
        }
        match found.last() {
            Some(last) if sessions.len() < limit && found.len() == wanted => after = last.try_get("id")?,
            _ => return Ok(sessions),
        }
    }
}

pub(crate) async fn census(link: Link, now: Timestamp) -> Result<Census, Fault> {
    let row = link.query_one(CENSUS, &bounds![INT8: now.as_millis()]).await?;
    let mut columns = Columns::of(&row, "the census");
    Ok(Census {
        live: columns.count()?,
        parked: columns.count()?,
        suspect: columns.count()?,
        oldest_proof: columns.take::<Option<i64>>()?.map(Timestamp::from_millis),
        claims: Claims { in_flight: columns.count()?, ambiguous: columns.count()? },
    })
}

/// How many rows hold blobs that begin alike.
pub(crate) async fn heads(link: Link) -> Result<Vec<HeadCount>, Fault> {
    let count = |row: &Row| {
        let mut columns = Columns::of(row, "the keys of rows");
        let head = SealedBlob(columns.take()?).head();
        Ok(HeadCount { head, sessions: columns.count()?, owed: columns.count()? })
    };
    link.query(HEADS, &bounds![]).await?.iter().map(count).collect()
}

async fn select(link: &Link, sql: &str, bounds: &[Bound<'_>]) -> Result<Vec<Session>, Fault> {
    link.query(sql, bounds).await?.iter().map(decode).collect()
}

fn ids(rows: &[Row]) -> Result<Vec<Uuid>, Fault> {
    rows.iter().map(|row| Columns::of(row, "a session").take()).collect()
}

fn session_ids(rows: &[Row]) -> Result<Vec<SessionId>, Fault> {
    rows.iter().map(|row| Columns::of(row, "a session").session()).collect()
}
