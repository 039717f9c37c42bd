//! The tables of sessions: `session` for columns that seldom change, `pulse` for those that often
//! do.

use claviger_core::{Change, Claim, EndReason, Session, SessionId, Slot, Subject, Timestamp};
use claviger_store::{
    Applied, KeyIdCount, Placement, Selection, SessionCounts, StoreError, SweepKind,
    archive::{Count, Found, Key, Record},
    codec::{self, ClaimColumns, PairColumns, end_columns, state_columns, version_column},
    id_is_taken,
};
use rusqlite::{Connection, Params, params};

use crate::{
    apply,
    error::Fault,
    values::{Columns, count_by, page_of, rows},
};

#[cfg(test)]
pub(crate) const STATEMENTS: &[&str] = &[
    LOAD,
    OPEN_OF_SUBJECT,
    CREATED_BEFORE,
    INSERT_BODY,
    INSERT_PULSE,
    TOUCH,
    OVERDUE,
    DISTRUSTED,
    OLD_TOMBSTONES,
    DELETE_BODY,
    DELETE_PULSE,
    LIVE_IN_SLOT,
    OPEN_IN_SLOT,
    CENSUS,
    HEADS,
    PAGE,
    COUNT,
];

macro_rules! select {
    ($from:literal) => {
        concat!(
            "SELECT s.id, p.version, s.provider, s.subject_id, s.display_name, s.secret_hash, s.custody, s.device,
                p.created_at, p.last_seen_at, p.state, p.proven_at,
                s.generation, s.access, s.refresh, s.expiry, s.expires_at,
                s.claim_attempt, s.claim_taken_at, s.claim_lease_until, s.claim_fingerprint, s.claim_replay,
                s.claim_answer_lost, s.end_reason, s.ended_at
            FROM ",
            $from
        )
    };
}

const LOAD: &str =
    select!("pulse AS p JOIN session AS s ON s.id = p.id WHERE p.slot = slot(?1) AND p.id = ?1");
// CROSS JOIN fixes the order: the user's rows first. The other order would read the rows of all
// users.
const OPEN_OF_SUBJECT: &str = select!(
    "session AS s CROSS JOIN pulse AS p ON p.slot = slot(s.id) AND p.id = s.id
    WHERE s.provider = ?1 AND s.subject_id = ?2 AND p.state < 3
    ORDER BY p.last_seen_at DESC, p.id DESC LIMIT ?3"
);
const CREATED_BEFORE: &str = select!(
    "session AS s CROSS JOIN pulse AS p ON p.slot = slot(s.id) AND p.id = s.id
    WHERE s.provider = ?1 AND s.subject_id = ?2 AND p.state < 3 AND p.created_at < ?3 AND p.id IS NOT ?4
    ORDER BY p.id"
);
const INSERT_BODY: &str = "INSERT INTO session
    (id, provider, subject_id, display_name, secret_hash, custody, device,
     generation, access, refresh, expiry, expires_at,
     claim_attempt, claim_taken_at, claim_lease_until, claim_fingerprint, claim_replay, claim_answer_lost,
     end_reason, ended_at)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20)";
const INSERT_PULSE: &str = "INSERT INTO pulse (slot, id, version, state, created_at, last_seen_at, proven_at)
    VALUES (slot(?1), ?1, ?2, ?3, ?4, ?5, ?6)";
const TOUCH: &str = "UPDATE pulse SET last_seen_at = ?2
    WHERE slot = slot(?1) AND id = ?1 AND state < 3 AND last_seen_at < ?2";
const OVERDUE: &str = "SELECT id FROM (
        SELECT * FROM (SELECT id, 0 AS kind, last_seen_at AS since FROM pulse
            WHERE state < 3 AND last_seen_at <= ?1 ORDER BY last_seen_at, id LIMIT ?3)
        UNION ALL
        SELECT * FROM (SELECT id, 1 AS kind, created_at AS since FROM pulse
            WHERE state < 3 AND created_at <= ?2 AND last_seen_at > ?1 ORDER BY created_at, id LIMIT ?3)
    ) ORDER BY kind, since, id LIMIT ?3";
const DISTRUSTED: &str = "SELECT id FROM pulse WHERE state >= 2 ORDER BY id DESC LIMIT ?1";
const OLD_TOMBSTONES: &str =
    "SELECT id FROM pulse WHERE state = 3 AND created_at <= ?1 ORDER BY created_at, id LIMIT ?2";
const DELETE_BODY: &str = "DELETE FROM session WHERE id = ?1";
const DELETE_PULSE: &str = "DELETE FROM pulse WHERE slot = slot(?1) AND id = ?1";
const LIVE_IN_SLOT: &str = select!(
    "pulse AS p INDEXED BY pulse_live CROSS JOIN session AS s ON s.id = p.id
    WHERE p.slot = ?1 AND p.id > ?2 AND p.state = 0 ORDER BY p.id"
);
const OPEN_IN_SLOT: &str = select!(
    "pulse AS p INDEXED BY pulse_open CROSS JOIN session AS s ON s.id = p.id
    WHERE p.slot = ?1 AND p.id > ?2 AND p.state < 3 ORDER BY p.id"
);
const CENSUS: &str = "SELECT * FROM (SELECT
            count(*) FILTER (WHERE state = 0), count(*) FILTER (WHERE state = 1), count(*) FILTER (WHERE state = 2),
            min(proven_at) FILTER (WHERE state = 0)
        FROM pulse), (SELECT
            count(*) FILTER (WHERE claim_answer_lost = 0 AND claim_lease_until > ?1 AND claim_lease_until <= ?2),
            count(*) FILTER (WHERE claim_answer_lost = 1 OR claim_lease_until <= ?1 OR claim_lease_until > ?2)
        FROM session INDEXED BY session_claimed WHERE claim_attempt IS NOT NULL)";

// This reads both tables. It runs only after a change of keys.
const HEADS: &str =
    "SELECT head, count(*) FILTER (WHERE of_session), count(*) FILTER (WHERE NOT of_session) FROM (
        SELECT substr(access, 1, 5) AS head, true AS of_session FROM session WHERE access IS NOT NULL
        UNION ALL
        SELECT substr(refresh, 1, 5), true FROM session WHERE substr(refresh, 1, 5) <> substr(access, 1, 5)
        UNION ALL
        SELECT substr(access, 1, 5), false FROM owed
        UNION ALL
        SELECT substr(refresh, 1, 5), false FROM owed WHERE substr(refresh, 1, 5) <> substr(access, 1, 5)
    ) GROUP BY head ORDER BY head";

// A row of `session` without its row of `pulse` is returned too, so that it is reported and not
// skipped.
const PAGE: &str = select!(
    "session AS s LEFT JOIN pulse AS p ON p.slot = slot(s.id) AND p.id = s.id
    WHERE s.id > ?1 ORDER BY s.id LIMIT ?2"
);
const COUNT: &str = "SELECT (SELECT count(*) FROM session),
    (SELECT count(*) FROM pulse AS p WHERE NOT EXISTS (SELECT 1 FROM session AS s WHERE s.id = p.id))";

pub(crate) fn load(connection: &Connection, id: SessionId) -> Result<Option<Session>, Fault> {
    Ok(select(connection, LOAD, params![id.as_bytes()])?.pop())
}

pub(crate) fn apply(connection: &Connection, change: &Change) -> Result<Applied, Fault> {
    if apply::write(connection, change)? {
        return Ok(Applied::Done);
    }
    Ok(Applied::Conflict(load(connection, change.next().id)?.map(Box::new)))
}

pub(crate) fn devices(
    connection: &Connection,
    subject: &Subject,
    limit: usize,
) -> Result<Vec<Session>, Fault> {
    select(connection, OPEN_OF_SUBJECT, params![subject.provider.0, subject.id, rows(limit)])
}

pub(crate) fn insert(
    connection: &Connection,
    session: &Session,
    placement: Placement,
) -> Result<Vec<Session>, Fault> {
    if load(connection, session.id)?.is_some() {
        return Err(Fault(id_is_taken()));
    }
    add(connection, session)?;
    make_room(connection, session, placement)
}

/// Adds the row as it is.
pub(crate) fn add(connection: &Connection, session: &Session) -> Result<(), Fault> {
    insert_body(connection, session)?;
    let (state, proven_at) = state_columns(&session.state);
    connection.prepare_cached(INSERT_PULSE)?.execute(params![
        session.id.as_bytes(),
        version_column(session.version)?,
        state,
        session.created_at.as_millis(),
        session.last_seen_at.as_millis(),
        proven_at,
    ])?;
    Ok(())
}

fn make_room(
    connection: &Connection,
    newcomer: &Session,
    placement: Placement,
) -> Result<Vec<Session>, Fault> {
    let mut candidates = devices(connection, &newcomer.subject, usize::MAX)?;
    if let Some(replaced) = placement.replaces {
        candidates.extend(load(connection, replaced)?);
    }
    let mut ended = Vec::new();
    for (id, reason) in placement.ends(newcomer, &candidates) {
        if let Some(row) = candidates.iter().find(|row| row.id == id) {
            ended.extend(end(connection, row.clone(), reason, newcomer.created_at)?);
        }
    }
    Ok(ended)
}

pub(crate) fn end_sessions(
    connection: &Connection,
    selection: &Selection,
    reason: EndReason,
    at: Timestamp,
) -> Result<Vec<Session>, Fault> {
    let Selection { subject, except, created_before } = selection;
    let except = except.as_ref().map(SessionId::as_bytes);
    let bounds = params![subject.provider.0, subject.id, created_before.as_millis(), except];
    let chosen = select(connection, CREATED_BEFORE, bounds)?;
    let ended = chosen.into_iter().filter_map(|session| end(connection, session, reason, at).transpose());
    ended.collect()
}

/// Ends the row. Returns `None` if it had already ended.
fn end(
    connection: &Connection,
    row: Session,
    reason: EndReason,
    at: Timestamp,
) -> Result<Option<Session>, Fault> {
    let Ok(change) = row.end(reason, at) else { return Ok(None) };
    Ok(apply::write(connection, &change)?.then(|| change.into_next()))
}

fn insert_body(connection: &Connection, session: &Session) -> Result<(), Fault> {
    let (pair, claim) = (PairColumns::of(session)?, ClaimColumns::of(session));
    let (end_reason, ended_at) = end_columns(&session.state);
    connection.prepare_cached(INSERT_BODY)?.execute(params![
        session.id.as_bytes(),
        session.subject.provider.0,
        session.subject.id,
        session.display_name,
        session.secret_hash.0,
        session.custody.name(),
        session.device.as_str(),
        pair.generation,
        pair.access,
        pair.refresh,
        pair.expiry,
        pair.expires_at,
        claim.attempt,
        claim.taken_at,
        claim.lease_until,
        claim.fingerprint,
        claim.replay,
        claim.answer_lost,
        end_reason,
        ended_at,
    ])?;
    Ok(())
}

pub(crate) fn record_last_seen(
    connection: &Connection,
    seen: &[(SessionId, Timestamp)],
) -> Result<(), Fault> {
    let mut statement = connection.prepare_cached(TOUCH)?;
    for (id, at) in seen {
        statement.execute(params![id.as_bytes(), at.as_millis()])?;
    }
    Ok(())
}

pub(crate) fn overdue(
    connection: &Connection,
    idle_since: Timestamp,
    created_until: Timestamp,
    limit: usize,
) -> Result<Vec<SessionId>, Fault> {
    select_ids(connection, OVERDUE, params![idle_since.as_millis(), created_until.as_millis(), rows(limit)])
}

pub(crate) fn denylist(connection: &Connection, limit: usize) -> Result<Vec<SessionId>, Fault> {
    select_ids(connection, DISTRUSTED, params![rows(limit)])
}

pub(crate) fn purge(connection: &Connection, created_until: Timestamp, limit: usize) -> Result<usize, Fault> {
    let old = select_ids(connection, OLD_TOMBSTONES, params![created_until.as_millis(), rows(limit)])?;
    let (mut bodies, mut pulses) =
        (connection.prepare_cached(DELETE_BODY)?, connection.prepare_cached(DELETE_PULSE)?);
    for id in &old {
        bodies.execute([id.as_bytes()])?;
        pulses.execute([id.as_bytes()])?;
    }
    Ok(old.len())
}

/// Returns the slot's sessions that the sweep is for, starting after `after`.
pub(crate) fn in_slot(
    connection: &Connection,
    sweep: SweepKind,
    slot: Slot,
    after: Option<SessionId>,
    limit: usize,
) -> Result<Vec<Session>, Fault> {
    let sql = match sweep {
        SweepKind::Validation => LIVE_IN_SLOT,
        SweepKind::Connections => OPEN_IN_SLOT,
    };
    let after = after.as_ref().map_or(&[][..], |id| id.as_bytes());
    let mut statement = connection.prepare_cached(sql)?;
    let mut found = statement.query(params![slot.number(), after])?;
    let mut sessions = Vec::new();
    while sessions.len() < limit
        && let Some(row) = found.next()?
    {
        match codec::session(&mut Columns::of(row)) {
            Ok(session) => sessions.push(session),
            // One damaged row must not block the others of its slot.
            Err(error @ StoreError::Corrupt(_)) => {
                tracing::error!(%error, "a session cannot be read, so its token is not validated");
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(sessions)
}

pub(crate) fn session_counts(connection: &Connection, now: Timestamp) -> Result<SessionCounts, Fault> {
    let mut statement = connection.prepare_cached(CENSUS)?;
    let mut found = statement.query(params![now.as_millis(), Claim::latest_lease(now).as_millis()])?;
    let row = found.next()?.ok_or(rusqlite::Error::QueryReturnedNoRows)?;
    Ok(codec::session_counts(&mut Columns::of(row))?)
}

/// Counts the rows whose blobs begin alike.
pub(crate) fn key_id_counts(connection: &Connection) -> Result<Vec<KeyIdCount>, Fault> {
    let mut statement = connection.prepare_cached(HEADS)?;
    let mut found = statement.query([])?;
    let mut counts = Vec::new();
    while let Some(row) = found.next()? {
        counts.push(codec::key_id_count(&mut Columns::of(row))?);
    }
    Ok(counts)
}

/// Returns all rows in the order of their ids, starting after `after`.
pub(crate) fn page(
    connection: &Connection,
    after: Option<SessionId>,
    limit: usize,
) -> Result<Vec<Found>, Fault> {
    let after = after.as_ref().map_or(&[][..], |id| id.as_bytes());
    page_of(connection, PAGE, params![after, rows(limit)], |columns| {
        let key = Key::Session(SessionId::from_bytes(columns.peek()?));
        Ok((key, codec::session(columns).map(Record::Session)))
    })
}

pub(crate) fn count(connection: &Connection) -> Result<Count, Fault> {
    count_by(connection, COUNT)
}

fn select(connection: &Connection, sql: &str, bounds: impl Params) -> Result<Vec<Session>, Fault> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut found = statement.query(bounds)?;
    let mut sessions = Vec::new();
    while let Some(row) = found.next()? {
        sessions.push(codec::session(&mut Columns::of(row))?);
    }
    Ok(sessions)
}

fn select_ids(connection: &Connection, sql: &str, bounds: impl Params) -> Result<Vec<SessionId>, Fault> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut found = statement.query(bounds)?;
    let mut ids = Vec::new();
    while let Some(row) = found.next()? {
        ids.push(SessionId::from_bytes(Columns::of(row).take()?));
    }
    Ok(ids)
}
