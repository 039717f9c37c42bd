//! The tables of sessions: `session` for what seldom changes, `pulse` for what often does.

use claviger_core::{
    device::DeviceLabel,
    ids::{AttemptId, ProviderName, SessionId, Subject, Version},
    secret::{Fingerprint, SecretHash},
    session::{
        Claim, EndReason, Holding, OwedRevocation, SealedBlob, SealedPair, Session, State, over_limit,
    },
    sweep::Slot,
    time::Timestamp,
};
use claviger_store::{
    Census, Claims, HeadCount, Placement, Replaced, Selection, StoreError, Wheel,
    archive::{Count, Found, Key, Record},
    corrupt, id_is_taken,
};
use rusqlite::{Connection, Params, params};

use crate::{
    archive::{count_by, page_of},
    error::Fault,
    owed,
    values::{Columns, custody, custody_column, expiry_columns, millis, version, version_column},
};

#[cfg(test)]
pub(crate) const STATEMENTS: &[&str] = &[
    LOAD,
    OPEN_OF_SUBJECT,
    CREATED_BEFORE,
    INSERT_BODY,
    UPDATE_BODY,
    INSERT_PULSE,
    UPDATE_PULSE,
    PROVE,
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
// CROSS JOIN keeps the order: the user's rows first. The other way round all users' rows would be gone through.
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
const UPDATE_BODY: &str = "UPDATE session SET
    display_name = ?4, secret_hash = ?5, custody = ?6, device = ?7,
    generation = ?8, access = ?9, refresh = ?10, expiry = ?11, expires_at = ?12,
    claim_attempt = ?13, claim_taken_at = ?14, claim_lease_until = ?15, claim_fingerprint = ?16,
    claim_replay = ?17, claim_answer_lost = ?18, end_reason = ?19, ended_at = ?20
    WHERE id = ?1 AND end_reason IS NULL";
const INSERT_PULSE: &str = "INSERT INTO pulse (slot, id, version, state, created_at, last_seen_at, proven_at)
    VALUES (slot(?1), ?1, ?2, ?3, ?4, ?5, ?6)";
const UPDATE_PULSE: &str = "UPDATE pulse SET version = ?2, state = ?3, proven_at = ?4
    WHERE slot = slot(?1) AND id = ?1 AND version = ?5 AND state < 3";
// What a proof changes. The state is not among it, so that no index has to be looked after.
const PROVE: &str = "UPDATE pulse SET version = ?2, proven_at = ?3
    WHERE slot = slot(?1) AND id = ?1 AND version = ?4 AND state = 0";
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
            count(*) FILTER (WHERE claim_answer_lost = 0 AND claim_lease_until > ?1),
            count(*) FILTER (WHERE claim_answer_lost = 1 OR claim_lease_until <= ?1)
        FROM session INDEXED BY session_claimed WHERE claim_attempt IS NOT NULL)";

// It goes through both tables, which is done after a change of keys only.
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

// A body without its pulse comes too, so that it is told and not passed over.
const PAGE: &str = select!(
    "session AS s LEFT JOIN pulse AS p ON p.slot = slot(s.id) AND p.id = s.id
    WHERE s.id > ?1 ORDER BY s.id LIMIT ?2"
);
const COUNT: &str = "SELECT (SELECT count(*) FROM session),
    (SELECT count(*) FROM pulse AS p WHERE NOT EXISTS (SELECT 1 FROM session AS s WHERE s.id = p.id))";

const LIVE: i64 = 0;
const PARKED: i64 = 1;
const SUSPECT: i64 = 2;
const ENDED: i64 = 3;

pub(crate) fn load(connection: &Connection, id: SessionId) -> Result<Option<Session>, Fault> {
    Ok(select(connection, LOAD, params![id.as_bytes()])?.pop())
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
    write_body(connection, INSERT_BODY, session)?;
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
    let mut ended = Vec::new();
    if let Some(id) = placement.replaces.filter(|id| *id != newcomer.id)
        && let Some(replaced) = load(connection, id)?
    {
        ended.extend(end(connection, replaced, EndReason::ReplacedBySignIn, newcomer.created_at)?);
    }
    let mut open = devices(connection, &newcomer.subject, usize::MAX)?;
    for id in over_limit(&open, newcomer.id, placement.limit) {
        if let Some(surplus) = open.iter().position(|session| session.id == id) {
            let surplus = open.swap_remove(surplus);
            ended.extend(end(connection, surplus, EndReason::DeviceLimit, newcomer.created_at)?);
        }
    }
    Ok(ended)
}

pub(crate) fn end_all(
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

/// Ends the row and owes its revocation. None if it had ended.
fn end(
    connection: &Connection,
    current: Session,
    reason: EndReason,
    at: Timestamp,
) -> Result<Option<Session>, Fault> {
    let Ok((next, owed)) = current.clone().end(reason, at) else { return Ok(None) };
    if !write(connection, &current, &next)? {
        return Ok(None);
    }
    if let Some(owed) = owed {
        owed::owe(connection, &owed)?;
    }
    Ok(Some(next))
}

pub(crate) fn replace(
    connection: &Connection,
    next: &Session,
    owed: Option<&OwedRevocation>,
) -> Result<Replaced, Fault> {
    let Some(current) = load(connection, next.id)? else { return Ok(Replaced::Conflict(None)) };
    if current.version.next() != next.version || !write(connection, &current, next)? {
        return Ok(Replaced::Conflict(Some(Box::new(current))));
    }
    if let Some(owed) = owed {
        owed::owe(connection, owed)?;
    }
    Ok(Replaced::Done)
}

/// Writes `next` over `current`, unless the row has ended or another version is stored. The large table is written only
/// if something in it changes: a proof or a change of state touches the narrow one alone.
fn write(connection: &Connection, current: &Session, next: &Session) -> Result<bool, Fault> {
    let written = connection.prepare_cached(UPDATE_PULSE)?.execute(pulse_update(next, current.version)?)?;
    if written == 1 && !same_body(current, next) && write_body(connection, UPDATE_BODY, next)? != 1 {
        return Err(Fault(corrupt("the tables session and pulse disagree")));
    }
    Ok(written == 1)
}

fn same_body(current: &Session, next: &Session) -> bool {
    fn body(session: &Session) -> impl PartialEq {
        let Session { display_name, secret_hash, custody, device, .. } = session;
        let claim = session.holding().and_then(|holding| holding.claim);
        (display_name, secret_hash, custody, device, session.pair(), claim)
    }
    // An end is always a change of the body.
    !next.ended() && body(current) == body(next)
}

fn write_body(connection: &Connection, sql: &str, session: &Session) -> Result<usize, Fault> {
    let pair = session.pair();
    let claim = session.holding().and_then(|holding| holding.claim);
    let (expiry, expires_at) = pair.map(|pair| expiry_columns(pair.expiry)).unzip();
    let (reason, ended_at) = match session.state {
        State::Ended { reason, at } => (Some(reason.name()), Some(at.as_millis())),
        State::Live(_) | State::Parked(_) | State::Suspect(_) => (None, None),
    };
    let written = connection.prepare_cached(sql)?.execute(params![
        session.id.as_bytes(),
        session.subject.provider.0,
        session.subject.id,
        session.display_name,
        session.secret_hash.0,
        custody_column(session.custody),
        session.device.as_str(),
        pair.map(|pair| version_column(pair.generation)).transpose()?,
        pair.map(|pair| &pair.access.0),
        pair.and_then(|pair| pair.refresh.as_ref()).map(|refresh| &refresh.0),
        expiry,
        expires_at.flatten(),
        claim.map(|claim| claim.attempt.0),
        claim.map(|claim| claim.taken_at.as_millis()),
        claim.map(|claim| claim.lease_until.as_millis()),
        claim.map(|claim| claim.fingerprint.0),
        claim.map(|claim| claim.replay),
        claim.map(|claim| claim.answer_lost),
        reason,
        ended_at,
    ])?;
    Ok(written)
}

/// The parameters of [`UPDATE_PULSE`].
fn pulse_update(next: &Session, before: Version) -> Result<impl Params, Fault> {
    let (state, proven_at) = state_columns(&next.state);
    let (id, version, before) = (*next.id.as_bytes(), version_column(next.version)?, version_column(before)?);
    Ok((id, version, state, proven_at, before))
}

fn state_columns(state: &State) -> (i64, Option<i64>) {
    let (number, holding) = match state {
        State::Live(holding) => (LIVE, holding),
        State::Parked(holding) => (PARKED, holding),
        State::Suspect(holding) => (SUSPECT, holding),
        State::Ended { .. } => return (ENDED, None),
    };
    (number, Some(holding.proven_at.as_millis()))
}

pub(crate) fn touch(connection: &Connection, seen: &[(SessionId, Timestamp)]) -> Result<(), Fault> {
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

pub(crate) fn distrusted(connection: &Connection, limit: usize) -> Result<Vec<SessionId>, Fault> {
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

/// The slot's sessions that the wheel is for, from the one after `after` on.
pub(crate) fn in_slot(
    connection: &Connection,
    wheel: Wheel,
    slot: Slot,
    after: Option<SessionId>,
    limit: usize,
) -> Result<Vec<Session>, Fault> {
    let sql = match wheel {
        Wheel::Validation => LIVE_IN_SLOT,
        Wheel::Probe => OPEN_IN_SLOT,
    };
    let after = after.as_ref().map_or(&[][..], |id| id.as_bytes());
    let mut statement = connection.prepare_cached(sql)?;
    let mut found = statement.query(params![slot.number(), after])?;
    let mut sessions = Vec::new();
    while sessions.len() < limit
        && let Some(row) = found.next()?
    {
        match decode(&mut Columns::of(row)) {
            Ok(session) => sessions.push(session),
            // One damaged row must not keep the others of its slot.
            Err(Fault(error @ StoreError::Corrupt(_))) => {
                tracing::error!(%error, "a session cannot be read, so its token is not validated");
            }
            Err(fault) => return Err(fault),
        }
    }
    Ok(sessions)
}

/// Writes the rows that are still those that `next` were made from. Nothing but the narrow table is touched.
pub(crate) fn replace_all(connection: &Connection, next: &[Session]) -> Result<Vec<bool>, Fault> {
    let mut prove = connection.prepare_cached(PROVE)?;
    let mut update = connection.prepare_cached(UPDATE_PULSE)?;
    let mut written = Vec::with_capacity(next.len());
    for next in next {
        let before =
            next.version.0.checked_sub(1).map(Version).ok_or_else(|| corrupt("a version of zero"))?;
        let stayed_live = match &next.state {
            State::Live(holding) => {
                let (id, at) = (next.id.as_bytes(), holding.proven_at.as_millis());
                prove.execute(params![id, version_column(next.version)?, at, version_column(before)?])? == 1
            }
            _ => false,
        };
        written.push(stayed_live || update.execute(pulse_update(next, before)?)? == 1);
    }
    Ok(written)
}

pub(crate) fn census(connection: &Connection, now: Timestamp) -> Result<Census, Fault> {
    let mut statement = connection.prepare_cached(CENSUS)?;
    let mut found = statement.query(params![now.as_millis()])?;
    let row = found.next()?.ok_or(rusqlite::Error::QueryReturnedNoRows)?;
    let mut columns = Columns::of(row);
    let count = |columns: &mut Columns<'_>| columns.read(|count: i64| u64::try_from(count).ok());
    Ok(Census {
        live: count(&mut columns)?,
        parked: count(&mut columns)?,
        suspect: count(&mut columns)?,
        oldest_proof: columns.take::<Option<i64>>()?.map(millis),
        claims: Claims { in_flight: count(&mut columns)?, ambiguous: count(&mut columns)? },
    })
}

/// How many rows hold blobs that begin alike.
pub(crate) fn heads(connection: &Connection) -> Result<Vec<HeadCount>, Fault> {
    let mut statement = connection.prepare_cached(HEADS)?;
    let mut found = statement.query([])?;
    let mut counts = Vec::new();
    while let Some(row) = found.next()? {
        let mut columns = Columns::of(row);
        let head = SealedBlob(columns.take()?).head();
        let mut count = || columns.read(|count: i64| u64::try_from(count).ok());
        counts.push(HeadCount { head, sessions: count()?, owed: count()? });
    }
    Ok(counts)
}

/// All rows in the order of their ids, from the one after `after` on.
pub(crate) fn page(
    connection: &Connection,
    after: Option<SessionId>,
    limit: usize,
) -> Result<Vec<Found>, Fault> {
    let after = after.as_ref().map_or(&[][..], |id| id.as_bytes());
    page_of(connection, PAGE, params![after, rows(limit)], |columns| {
        let key = Key::Session(SessionId::from_bytes(columns.peek()?));
        Ok((key, decode(columns).map(Record::Session)))
    })
}

pub(crate) fn count(connection: &Connection) -> Result<Count, Fault> {
    count_by(connection, COUNT)
}

/// A limit as SQLite takes it.
pub(crate) fn rows(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

fn select(connection: &Connection, sql: &str, bounds: impl Params) -> Result<Vec<Session>, Fault> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut found = statement.query(bounds)?;
    let mut sessions = Vec::new();
    while let Some(row) = found.next()? {
        sessions.push(decode(&mut Columns::of(row))?);
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

fn decode(columns: &mut Columns<'_>) -> Result<Session, Fault> {
    Ok(Session {
        id: SessionId::from_bytes(columns.take()?),
        version: columns.version()?,
        subject: Subject { provider: ProviderName(columns.take()?), id: columns.take()? },
        display_name: columns.take()?,
        secret_hash: SecretHash(columns.take()?),
        custody: columns.read(|name: String| custody(&name))?,
        device: DeviceLabel::new(&columns.take::<String>()?),
        created_at: columns.time()?,
        last_seen_at: columns.time()?,
        state: decode_state(columns)?,
    })
}

fn decode_state(columns: &mut Columns<'_>) -> Result<State, Fault> {
    type Wrap = fn(Holding) -> State;
    let open: Option<Wrap> = columns.read(|number| match number {
        LIVE => Some(Some(State::Live as Wrap)),
        PARKED => Some(Some(State::Parked as Wrap)),
        SUSPECT => Some(Some(State::Suspect as Wrap)),
        ENDED => Some(None),
        _ => None,
    })?;
    let proven = columns.position();
    let proven_at: Option<i64> = columns.take()?;
    let pair = decode_pair(columns)?;
    let claim = decode_claim(columns)?;
    let end = columns.position();
    let reason = columns.read(|name: Option<String>| match name {
        None => Some(None),
        Some(name) => EndReason::from_name(&name).map(Some),
    })?;
    let at: Option<i64> = columns.take()?;
    match (open, proven_at, reason, at) {
        (Some(wrap), Some(proven_at), None, None) => {
            Ok(wrap(Holding { pair, proven_at: millis(proven_at), claim }))
        }
        (None, None, Some(reason), Some(at)) => Ok(State::Ended { reason, at: millis(at) }),
        (Some(_), None, ..) | (None, Some(_), ..) => Err(columns.damage(proven)),
        _ => Err(columns.damage(end)),
    }
}

fn decode_pair(columns: &mut Columns<'_>) -> Result<Option<SealedPair>, Fault> {
    let first = columns.position();
    let generation = columns.read(|number: Option<i64>| match number {
        None => Some(None),
        Some(number) => version(number).map(Some),
    })?;
    let access: Option<Vec<u8>> = columns.take()?;
    let refresh: Option<Vec<u8>> = columns.take()?;
    let expiry = columns.maybe_expiry()?;
    match (generation, access, expiry) {
        (Some(generation), Some(access), Some(expiry)) => Ok(Some(SealedPair {
            generation,
            access: SealedBlob(access),
            refresh: refresh.map(SealedBlob),
            expiry,
        })),
        (None, None, None) if refresh.is_none() => Ok(None),
        _ => Err(columns.damage(first)),
    }
}

fn decode_claim(columns: &mut Columns<'_>) -> Result<Option<Claim>, Fault> {
    let first = columns.position();
    let attempt: Option<[u8; 16]> = columns.take()?;
    let taken_at: Option<i64> = columns.take()?;
    let lease_until: Option<i64> = columns.take()?;
    let fingerprint: Option<[u8; 16]> = columns.take()?;
    let replay: Option<bool> = columns.take()?;
    let answer_lost: Option<bool> = columns.take()?;
    match (attempt, taken_at, lease_until, fingerprint, replay, answer_lost) {
        (Some(attempt), Some(taken_at), Some(lease_until), Some(fingerprint), Some(replay), Some(lost)) => {
            Ok(Some(Claim {
                attempt: AttemptId(attempt),
                taken_at: millis(taken_at),
                lease_until: millis(lease_until),
                fingerprint: Fingerprint(fingerprint),
                replay,
                answer_lost: lost,
            }))
        }
        (None, None, None, None, None, None) => Ok(None),
        _ => Err(columns.damage(first)),
    }
}
