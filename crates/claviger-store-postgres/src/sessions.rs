//! The tables of sessions: `session` for what seldom changes, `pulse` for what often does.
//!
//! A change is one statement. It begins with the compare-and-set on `pulse`, which also locks the session for the rest of the
//! statement; everything else in it happens only where that succeeded.

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
use futures_util::future::try_join_all;
use tokio_postgres::Row;
use uuid::Uuid;

use crate::{
    archive, changes,
    database::{Bound, Link, bounds},
    error::Fault,
    slots::slot_column,
    values::{
        Columns, attempt_column, custody, custody_column, expiry_columns, hour_column, rows, session_column,
        text_column, version, version_column,
    },
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
            (id, provider, subject_id, display_name, secret_hash, custody, device,
             generation, access, refresh, expiry, expires_at, end_reason, ended_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14))
    INSERT INTO claviger.pulse (id, slot, version, state, created_at, last_seen_at, seen_hour, proven_at,
        attempt, fingerprint, taken_at, lease_until, replay, answer_lost)
    VALUES ($1, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24, $25, $26, $27)";

// The compare-and-set.
macro_rules! moved {
    () => {
        "UPDATE claviger.pulse SET version = $2, state = $3, proven_at = $4,
            attempt = $5, fingerprint = $6, taken_at = $7, lease_until = $8, replay = $9, answer_lost = $10
        WHERE id = $1 AND version = $11 AND state < 3"
    };
}

// Each part of a statement costs time, also one that does nothing. A claim and a new pair are most changes there are. Neither is of a
// session that ended or ends.
const CLAIM: &str = moved!();
const NEW_PAIR: &str = concat!(
    "WITH moved AS (",
    moved!(),
    " RETURNING id)
    UPDATE claviger.session SET display_name = $12, secret_hash = $13, custody = $14, device = $15,
        generation = $16, access = $17, refresh = $18, expiry = $19, expires_at = $20
    WHERE id = $1 AND end_reason IS NULL AND EXISTS (SELECT FROM moved)"
);
// Claims and new pairs of several sessions. A row that somebody has locked is passed over, so that nobody waits for whoever locked
// another's. All values are one row source: the database guesses its length, and a second one to join it with would be gone
// through once for each row of the first.
const CHANGE_ALL: &str = "WITH free AS MATERIALIZED (
        SELECT n.* FROM unnest($1::uuid[], $2::bigint[], $3::smallint[], $4::bigint[],
                $5::uuid[], $6::uuid[], $7::bigint[], $8::bigint[], $9::boolean[], $10::boolean[],
                $11::text[], $12::bytea[], $13::text[], $14::text[],
                $15::bigint[], $16::bytea[], $17::bytea[], $18::text[], $19::bigint[]) WITH ORDINALITY
            AS n (id, version, state, proven_at, attempt, fingerprint, taken_at, lease_until, replay, answer_lost,
                display_name, secret_hash, custody, device, generation, access, refresh, expiry, expires_at, place)
        JOIN claviger.pulse AS p ON p.id = n.id AND p.version = n.version - 1 AND p.state < 3
        FOR UPDATE OF p SKIP LOCKED),
    moved AS (
        UPDATE claviger.pulse AS p SET version = n.version, state = n.state, proven_at = n.proven_at, attempt = n.attempt,
            fingerprint = n.fingerprint, taken_at = n.taken_at, lease_until = n.lease_until, replay = n.replay,
            answer_lost = n.answer_lost
        FROM free AS n WHERE p.id = n.id
        RETURNING n.*),
    bodies AS (
        UPDATE claviger.session AS s SET display_name = n.display_name, secret_hash = n.secret_hash, custody = n.custody,
            device = n.device, generation = n.generation, access = n.access, refresh = n.refresh, expiry = n.expiry,
            expires_at = n.expires_at
        FROM moved AS n WHERE s.id = n.id AND n.generation IS NOT NULL AND s.end_reason IS NULL)
    SELECT place FROM moved";
// The large row is written only if something in it changes.
const REPLACE: &str = concat!(
    "WITH moved AS (",
    moved!(),
    " RETURNING id),
    body AS (
        UPDATE claviger.session SET display_name = $12, secret_hash = $13, custody = $14, device = $15,
            generation = $16, access = $17, refresh = $18, expiry = $19, expires_at = $20,
            end_reason = $21, ended_at = $22
        WHERE id = $1 AND EXISTS (SELECT FROM moved)
            AND (display_name, secret_hash, custody, device, generation, access, refresh, expiry, expires_at,
                end_reason) IS DISTINCT FROM ($12, $13, $14, $15, $16, $17, $18, $19, $20, $21)),
    owing AS (
        INSERT INTO claviger.owed (session, generation, provider, access, refresh, expiry, expires_at, owed_at, due_at)
        SELECT $23, $24, $25, $26, $27, $28, $29, $30, $30 FROM moved WHERE $23 IS NOT NULL),
    told AS MATERIALIZED (
        SELECT pg_notify($31, encode(uuid_send(id), 'hex')) FROM moved WHERE $31 IS NOT NULL)
    SELECT (SELECT count(*) FROM moved), (SELECT count(*) FROM told)"
);

// What a proof changes.
const PROVE: &str =
    "UPDATE claviger.pulse SET version = $2, proven_at = $3 WHERE id = $1 AND version = $4 AND state = 0";
const REPLACE_ALL: &str = "WITH moved AS (
        UPDATE claviger.pulse AS p SET version = n.version, state = n.state, proven_at = n.proven_at
        FROM unnest($1::uuid[], $2::bigint[], $3::smallint[], $4::bigint[]) WITH ORDINALITY
            AS n (id, version, state, proven_at, place)
        WHERE p.id = n.id AND p.version = n.version - 1 AND p.state < 3 AND n.state < 3
        RETURNING n.place, p.id, p.state),
    told AS MATERIALIZED (
        SELECT pg_notify($5, string_agg(encode(uuid_send(id), 'hex'), ','))
        FROM (SELECT id, (row_number() OVER () - 1) / $6 AS batch FROM moved WHERE state >= 2) AS suspect GROUP BY batch)
    SELECT place, (SELECT count(*) FROM told) FROM moved";

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

const LIVE: i16 = 0;
const PARKED: i16 = 1;
const SUSPECT: i16 = 2;
const ENDED: i16 = 3;

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

pub(crate) async fn replace(
    link: Link,
    next: &Session,
    owed: Option<&OwedRevocation>,
) -> Result<Replaced, Fault> {
    let written = change(&link, next, Extent::All { owed, tell: is_distrusted(next) }).await?;
    replaced(link, next, written).await
}

/// Writes a row that differs from the one that it was made from in its claim, or has a new pair. Nobody else is told.
pub(crate) async fn change_one(link: Link, next: &Session) -> Result<Replaced, Fault> {
    let extent = if has_new_pair(next) { Extent::NewPair } else { Extent::Claim };
    let written = change(&link, next, extent).await?;
    replaced(link, next, written).await
}

/// Writes such rows, but not those that somebody has locked, and none if the database refuses one. If a row comes twice, one of the
/// two is written.
pub(crate) async fn change_all(link: Link, next: &[Session]) -> Result<Vec<bool>, Fault> {
    let rows: Vec<Change<'_>> = next.iter().map(Change::of).collect::<Result<_, Fault>>()?;
    let bounds = bounds![
        UUID_ARRAY: column(&rows, |row| session_column(row.next.id)),
        INT8_ARRAY: column(&rows, |row| row.version),
        INT2_ARRAY: column(&rows, |row| row.state),
        INT8_ARRAY: column(&rows, |row| row.proven_at),
        UUID_ARRAY: column(&rows, |row| row.claim.attempt),
        UUID_ARRAY: column(&rows, |row| row.claim.fingerprint),
        INT8_ARRAY: column(&rows, |row| row.claim.taken_at),
        INT8_ARRAY: column(&rows, |row| row.claim.lease_until),
        BOOL_ARRAY: column(&rows, |row| row.claim.replay),
        BOOL_ARRAY: column(&rows, |row| row.claim.answer_lost),
        TEXT_ARRAY: column(&rows, |row| row.body.as_ref().map(|_| text_column(&row.next.display_name))),
        BYTEA_ARRAY: column(&rows, |row| row.body.as_ref().map(|_| row.next.secret_hash.0.as_slice())),
        TEXT_ARRAY: column(&rows, |row| row.body.as_ref().map(|_| custody_column(row.next.custody))),
        TEXT_ARRAY: column(&rows, |row| row.body.as_ref().map(|_| text_column(row.next.device.as_str()))),
        INT8_ARRAY: column(&rows, |row| row.body.as_ref()?.generation),
        BYTEA_ARRAY: column(&rows, |row| row.body.as_ref()?.access),
        BYTEA_ARRAY: column(&rows, |row| row.body.as_ref()?.refresh),
        TEXT_ARRAY: column(&rows, |row| row.body.as_ref()?.expiry),
        INT8_ARRAY: column(&rows, |row| row.body.as_ref()?.expires_at),
    ];
    match link.query(CHANGE_ALL, &bounds).await {
        Ok(places) => written(&places, next.len()),
        Err(fault) if fault.is_refusal() => Ok(vec![false; next.len()]),
        Err(fault) => Err(fault),
    }
}

/// A row that is written together with others. `body` is there if it has a new pair.
struct Change<'a> {
    next: &'a Session,
    version: i64,
    state: i16,
    proven_at: Option<i64>,
    claim: ClaimColumns,
    body: Option<Body<'a>>,
}

impl<'a> Change<'a> {
    fn of(next: &'a Session) -> Result<Self, Fault> {
        let (state, proven_at) = state_columns(&next.state);
        let body = has_new_pair(next).then(|| Body::of(next)).transpose()?;
        // No row has a version that is out of range.
        let version = version_column(next.version).unwrap_or(0);
        Ok(Self { next, version, state, proven_at, claim: ClaimColumns::of(next), body })
    }
}

/// Which of so many rows were written, by the places of those that were.
fn written(places: &[Row], count: usize) -> Result<Vec<bool>, Fault> {
    let mut written = vec![false; count];
    for row in places {
        let place =
            Columns::of(row, "a change").read(|place: i64| usize::try_from(place).ok()?.checked_sub(1))?;
        if let Some(written) = written.get_mut(place) {
            *written = true;
        }
    }
    Ok(written)
}

/// A column of several rows.
fn column<'a, R, T>(rows: &'a [R], of: impl Fn(&'a R) -> T) -> Vec<T> {
    rows.iter().map(of).collect()
}

async fn replaced(link: Link, next: &Session, written: bool) -> Result<Replaced, Fault> {
    if written {
        return Ok(Replaced::Done);
    }
    Ok(Replaced::Conflict(load(link, next.id).await?.map(Box::new)))
}

/// Whether others may not trust what they remember of the row: it ended, or is suspect.
fn is_distrusted(next: &Session) -> bool {
    matches!(next.state, State::Suspect(_) | State::Ended { .. })
}

/// Whether this change brings another pair, and nothing that others must be told of at once.
pub(crate) fn has_new_pair(next: &Session) -> bool {
    !is_distrusted(next) && next.pair().is_some_and(|pair| pair.generation == next.version)
}

/// Tells all instances that these changed.
pub(crate) async fn tell(link: &Link, ids: &[Uuid]) -> Result<(), Fault> {
    let bounds = bounds![TEXT: changes::CHANNEL, UUID_ARRAY: ids, INT8: changes::IDS_A_MESSAGE];
    link.query(TELL, &bounds).await?;
    Ok(())
}

/// How far a change reaches. Each has a statement of its own.
enum Extent<'a> {
    /// The claim, beside version, state and proof.
    Claim,
    /// And the pair, which is a new one.
    NewPair,
    /// All that may change; and a revocation is owed, and others are told.
    All { owed: Option<&'a OwedRevocation>, tell: bool },
}

/// Writes `next` over the row that it was made from, unless that has ended or another version is stored.
async fn change(link: &Link, next: &Session, extent: Extent<'_>) -> Result<bool, Fault> {
    // No row has a version that is out of range.
    let (Some(before), Ok(version)) = (next.version.0.checked_sub(1), version_column(next.version)) else {
        return Ok(false);
    };
    let (state, proven_at) = state_columns(&next.state);
    let claim = ClaimColumns::of(next);
    let moved = bounds![
        UUID: session_column(next.id),
        INT8: version,
        INT2: state,
        INT8: proven_at,
        UUID: claim.attempt,
        UUID: claim.fingerprint,
        INT8: claim.taken_at,
        INT8: claim.lease_until,
        BOOL: claim.replay,
        BOOL: claim.answer_lost,
        INT8: version_column(Version(before))?,
    ];
    if matches!(extent, Extent::Claim) {
        return Ok(link.execute(CLAIM, &moved).await? == 1);
    }
    let columns = Body::of(next)?;
    let body = bounds![
        TEXT: text_column(&next.display_name),
        BYTEA: next.secret_hash.0.as_slice(),
        TEXT: custody_column(next.custody),
        TEXT: text_column(next.device.as_str()),
        INT8: columns.generation,
        BYTEA: columns.access,
        BYTEA: columns.refresh,
        TEXT: columns.expiry,
        INT8: columns.expires_at,
    ];
    let Extent::All { owed, tell } = extent else {
        return Ok(link.execute(NEW_PAIR, &[&moved[..], &body].concat()).await? == 1);
    };
    let (expiry, expires_at) = owed.map(|owed| expiry_columns(owed.expiry)).unzip();
    let end_and_aside = bounds![
        TEXT: columns.end_reason,
        INT8: columns.ended_at,
        UUID: owed.map(|owed| session_column(owed.session)),
        INT8: owed.map(|owed| version_column(owed.generation)).transpose()?,
        TEXT: owed.map(|owed| text_column(&owed.provider.0)),
        BYTEA: owed.map(|owed| &owed.access.0),
        BYTEA: owed.and_then(|owed| owed.refresh.as_ref()).map(|refresh| &refresh.0),
        TEXT: expiry,
        INT8: expires_at.flatten(),
        INT8: owed.map(|owed| owed.owed_at.as_millis()),
        TEXT: tell.then_some(changes::CHANNEL),
    ];
    let row = link.query_one(REPLACE, &[&moved[..], &body, &end_and_aside].concat()).await?;
    Ok(Columns::of(&row, "a change").count()? == 1)
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
    let (state, proven_at) = state_columns(&session.state);
    let body = Body::of(session)?;
    let claim = ClaimColumns::of(session);
    let bounds = bounds![
        UUID: session_column(session.id),
        TEXT: text_column(&session.subject.provider.0),
        TEXT: text_column(&session.subject.id),
        TEXT: text_column(&session.display_name),
        BYTEA: session.secret_hash.0.as_slice(),
        TEXT: custody_column(session.custody),
        TEXT: text_column(session.device.as_str()),
        INT8: body.generation,
        BYTEA: body.access,
        BYTEA: body.refresh,
        TEXT: body.expiry,
        INT8: body.expires_at,
        TEXT: body.end_reason,
        INT8: body.ended_at,
        INT2: slot_column(Slot::of(session.id)),
        INT8: version_column(session.version)?,
        INT2: state,
        INT8: session.created_at.as_millis(),
        INT8: session.last_seen_at.as_millis(),
        INT4: hour_column(session.last_seen_at),
        INT8: proven_at,
        UUID: claim.attempt,
        UUID: claim.fingerprint,
        INT8: claim.taken_at,
        INT8: claim.lease_until,
        BOOL: claim.replay,
        BOOL: claim.answer_lost,
    ];
    link.execute(INSERT, &bounds).await?;
    Ok(())
}

/// The columns of `session` that a change may write.
#[derive(Default)]
struct Body<'a> {
    generation: Option<i64>,
    access: Option<&'a Vec<u8>>,
    refresh: Option<&'a Vec<u8>>,
    expiry: Option<&'static str>,
    expires_at: Option<i64>,
    end_reason: Option<&'static str>,
    ended_at: Option<i64>,
}

impl<'a> Body<'a> {
    fn of(session: &'a Session) -> Result<Self, Fault> {
        let ended = match session.state {
            State::Ended { reason, at } => Some((reason.name(), at.as_millis())),
            State::Live(_) | State::Parked(_) | State::Suspect(_) => None,
        };
        let (end_reason, ended_at) = ended.unzip();
        let Some(pair) = session.pair() else { return Ok(Self { end_reason, ended_at, ..Self::default() }) };
        let (expiry, expires_at) = expiry_columns(pair.expiry);
        Ok(Self {
            generation: Some(version_column(pair.generation)?),
            access: Some(&pair.access.0),
            refresh: pair.refresh.as_ref().map(|refresh| &refresh.0),
            expiry: Some(expiry),
            expires_at,
            end_reason,
            ended_at,
        })
    }
}

/// The columns of a claim, all or none.
#[derive(Default)]
struct ClaimColumns {
    attempt: Option<Uuid>,
    fingerprint: Option<Uuid>,
    taken_at: Option<i64>,
    lease_until: Option<i64>,
    replay: Option<bool>,
    answer_lost: Option<bool>,
}

impl ClaimColumns {
    fn of(session: &Session) -> Self {
        let Some(claim) = session.holding().and_then(|holding| holding.claim) else { return Self::default() };
        Self {
            attempt: Some(attempt_column(claim.attempt)),
            fingerprint: Some(Uuid::from_bytes(claim.fingerprint.0)),
            taken_at: Some(claim.taken_at.as_millis()),
            lease_until: Some(claim.lease_until.as_millis()),
            replay: Some(claim.replay),
            answer_lost: Some(claim.answer_lost),
        }
    }
}

fn state_columns(state: &State) -> (i16, Option<i64>) {
    let (number, holding) = match state {
        State::Live(holding) => (LIVE, holding),
        State::Parked(holding) => (PARKED, holding),
        State::Suspect(holding) => (SUSPECT, holding),
        State::Ended { .. } => return (ENDED, None),
    };
    (number, Some(holding.proven_at.as_millis()))
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

/// Writes the rows that are still those that `next` were made from. Nothing but the narrow table is touched. If a row comes
/// twice, one of the two is written.
pub(crate) async fn replace_all(link: Link, next: &[Session]) -> Result<Vec<bool>, Fault> {
    if let [only] = next
        && prove(&link, only).await?
    {
        return Ok(vec![true]);
    }
    let (mut ids, mut versions) = (Vec::with_capacity(next.len()), Vec::with_capacity(next.len()));
    let (mut states, mut proofs) = (Vec::with_capacity(next.len()), Vec::with_capacity(next.len()));
    for next in next {
        let (state, proven_at) = state_columns(&next.state);
        ids.push(session_column(next.id));
        // No row has a version that is out of range.
        versions.push(version_column(next.version).unwrap_or(0));
        states.push(state);
        proofs.push(proven_at);
    }
    let bounds = bounds![
        UUID_ARRAY: ids,
        INT8_ARRAY: versions,
        INT2_ARRAY: states,
        INT8_ARRAY: proofs,
        TEXT: changes::CHANNEL,
        INT8: changes::IDS_A_MESSAGE,
    ];
    written(&link.query(REPLACE_ALL, &bounds).await?, next.len())
}

/// Writes a live row that is the stored one but for a proof. False: it is not, and nothing was written.
async fn prove(link: &Link, next: &Session) -> Result<bool, Fault> {
    let (State::Live(holding), Some(before)) = (&next.state, next.version.0.checked_sub(1)) else {
        return Ok(false);
    };
    let (Ok(version), Ok(before)) = (version_column(next.version), version_column(Version(before))) else {
        return Ok(false);
    };
    let bounds = bounds![
        UUID: session_column(next.id),
        INT8: version,
        INT8: holding.proven_at.as_millis(),
        INT8: before,
    ];
    Ok(link.execute(PROVE, &bounds).await? == 1)
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

fn decode(row: &Row) -> Result<Session, Fault> {
    let mut columns = Columns::of(row, "session");
    Ok(Session {
        id: columns.session()?,
        version: columns.version()?,
        subject: Subject { provider: ProviderName(columns.text()?), id: columns.text()? },
        display_name: columns.text()?,
        secret_hash: SecretHash(columns.octets()?),
        custody: columns.read(custody)?,
        device: DeviceLabel::new(&columns.text()?),
        created_at: columns.time()?,
        last_seen_at: columns.time()?,
        state: decode_state(&mut columns)?,
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
    let reason = columns.read(|name: Option<&str>| match name {
        None => Some(None),
        Some(name) => EndReason::from_name(name).map(Some),
    })?;
    let at: Option<i64> = columns.take()?;
    match (open, proven_at, reason, at) {
        (Some(wrap), Some(proven_at), None, None) => {
            Ok(wrap(Holding { pair, proven_at: Timestamp::from_millis(proven_at), claim }))
        }
        (None, None, Some(reason), Some(at)) => Ok(State::Ended { reason, at: Timestamp::from_millis(at) }),
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

/// The columns are all there or all missing.
fn decode_claim(columns: &mut Columns<'_>) -> Result<Option<Claim>, Fault> {
    let first = columns.position();
    let attempt: Option<Uuid> = columns.take()?;
    let taken_at: Option<i64> = columns.take()?;
    let lease_until: Option<i64> = columns.take()?;
    let fingerprint: Option<Uuid> = columns.take()?;
    let replay: Option<bool> = columns.take()?;
    let answer_lost: Option<bool> = columns.take()?;
    match (attempt, taken_at, lease_until, fingerprint, replay, answer_lost) {
        (Some(attempt), Some(taken_at), Some(lease_until), Some(fingerprint), Some(replay), Some(lost)) => {
            Ok(Some(Claim {
                attempt: AttemptId(attempt.into_bytes()),
                taken_at: Timestamp::from_millis(taken_at),
                lease_until: Timestamp::from_millis(lease_until),
                fingerprint: Fingerprint(fingerprint.into_bytes()),
                replay,
                answer_lost: lost,
            }))
        }
        (None, None, None, None, None, None) => Ok(None),
        _ => Err(columns.damage(first)),
    }
}
