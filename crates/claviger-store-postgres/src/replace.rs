//! Puts a row in the place of the one that it was made from, if that is still the stored one: compare-and-set.
//!
//! Each is one statement. It begins with the compare-and-set on `pulse`, which also locks the session for the rest of the statement;
//! everything else in it happens only where that succeeded.

use claviger_core::session::{OwedRevocation, Session, State};
use claviger_store::Replaced;
use tokio_postgres::Row;

use crate::{
    changes,
    database::{Link, bounds},
    error::Fault,
    row::{Body, Pulse},
    sessions::load,
    values::{Columns, expiry_columns, session_column, text_column, version_column},
};

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
        FROM moved AS n WHERE s.id = n.id AND n.generation IS NOT NULL AND s.end_reason IS NULL
        RETURNING n.place)
    SELECT place FROM moved WHERE generation IS NULL UNION ALL SELECT place FROM bodies";
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

/// Writes such rows, but not those that somebody has locked, and none if the database refuses the values of one. If a row comes twice, one of the
/// two is written.
pub(crate) async fn change_all(link: Link, next: &[Session]) -> Result<Vec<bool>, Fault> {
    let pulses: Vec<Pulse> = next.iter().map(Pulse::of).collect();
    let of_new_pair = |next| has_new_pair(next).then(|| Body::of(next)).transpose();
    let bodies: Vec<Option<Body<'_>>> = next.iter().map(of_new_pair).collect::<Result<_, Fault>>()?;
    let bounds = bounds![
        UUID_ARRAY: column(&pulses, |pulse| pulse.id),
        INT8_ARRAY: column(&pulses, |pulse| pulse.version),
        INT2_ARRAY: column(&pulses, |pulse| pulse.state),
        INT8_ARRAY: column(&pulses, |pulse| pulse.proven_at),
        UUID_ARRAY: column(&pulses, |pulse| pulse.attempt),
        UUID_ARRAY: column(&pulses, |pulse| pulse.fingerprint),
        INT8_ARRAY: column(&pulses, |pulse| pulse.taken_at),
        INT8_ARRAY: column(&pulses, |pulse| pulse.lease_until),
        BOOL_ARRAY: column(&pulses, |pulse| pulse.replay),
        BOOL_ARRAY: column(&pulses, |pulse| pulse.answer_lost),
        TEXT_ARRAY: column(&bodies, |body| Some(body.as_ref()?.display_name.as_ref())),
        BYTEA_ARRAY: column(&bodies, |body| Some(body.as_ref()?.secret_hash)),
        TEXT_ARRAY: column(&bodies, |body| Some(body.as_ref()?.custody)),
        TEXT_ARRAY: column(&bodies, |body| Some(body.as_ref()?.device.as_ref())),
        INT8_ARRAY: column(&bodies, |body| body.as_ref()?.generation),
        BYTEA_ARRAY: column(&bodies, |body| body.as_ref()?.access),
        BYTEA_ARRAY: column(&bodies, |body| body.as_ref()?.refresh),
        TEXT_ARRAY: column(&bodies, |body| body.as_ref()?.expiry),
        INT8_ARRAY: column(&bodies, |body| body.as_ref()?.expires_at),
    ];
    match link.query(CHANGE_ALL, &bounds).await {
        Ok(places) => written(&places, next.len()),
        Err(fault) if fault.is_refusal_of_values() => Ok(vec![false; next.len()]),
        Err(fault) => Err(fault),
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

/// How far a change reaches. Each has a statement of its own.
pub(crate) enum Extent<'a> {
    /// The claim, beside version, state and proof.
    Claim,
    /// And the pair, which is a new one.
    NewPair,
    /// All that may change; and a revocation is owed, and others are told.
    All { owed: Option<&'a OwedRevocation>, tell: bool },
}

/// Writes `next` over the row that it was made from, unless that has ended or another version is stored.
pub(crate) async fn change(link: &Link, next: &Session, extent: Extent<'_>) -> Result<bool, Fault> {
    let pulse = Pulse::of(next);
    let before = bounds![INT8: pulse.version - 1];
    let moved = [&pulse.bounds()[..], &before].concat();
    if matches!(extent, Extent::Claim) {
        return Ok(link.execute(CLAIM, &moved).await? == 1);
    }
    let body = Body::of(next)?;
    let written = [&moved[..], &body.bounds()].concat();
    let Extent::All { owed, tell } = extent else {
        return Ok(link.execute(NEW_PAIR, &written).await? == 1);
    };
    let (expiry, expires_at) = owed.map(|owed| expiry_columns(owed.expiry)).unzip();
    let end_and_aside = bounds![
        TEXT: body.end_reason,
        INT8: body.ended_at,
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
    let row = link.query_one(REPLACE, &[&written[..], &end_and_aside].concat()).await?;
    Ok(Columns::of(&row, "a change").count()? == 1)
}

/// Writes the rows that are still those that `next` were made from. Nothing but the narrow table is touched. If a row comes
/// twice, one of the two is written.
pub(crate) async fn replace_all(link: Link, next: &[Session]) -> Result<Vec<bool>, Fault> {
    if let [only] = next
        && prove(&link, only).await?
    {
        return Ok(vec![true]);
    }
    let pulses: Vec<Pulse> = next.iter().map(Pulse::of).collect();
    let bounds = bounds![
        UUID_ARRAY: column(&pulses, |pulse| pulse.id),
        INT8_ARRAY: column(&pulses, |pulse| pulse.version),
        INT2_ARRAY: column(&pulses, |pulse| pulse.state),
        INT8_ARRAY: column(&pulses, |pulse| pulse.proven_at),
        TEXT: changes::CHANNEL,
        INT8: changes::IDS_A_MESSAGE,
    ];
    written(&link.query(REPLACE_ALL, &bounds).await?, next.len())
}

/// Writes a live row that is the stored one but for a proof. False: it is not, and nothing was written.
async fn prove(link: &Link, next: &Session) -> Result<bool, Fault> {
    if !matches!(next.state, State::Live(_)) {
        return Ok(false);
    }
    let Pulse { id, version, proven_at, .. } = Pulse::of(next);
    let bounds = bounds![UUID: id, INT8: version, INT8: proven_at, INT8: version - 1];
    Ok(link.execute(PROVE, &bounds).await? == 1)
}
