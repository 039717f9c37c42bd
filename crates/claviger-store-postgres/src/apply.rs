//! Writes changes of sessions: a compare-and-set on the version, and exactly the columns of the
//! change's kind.
//!
//! Each change is one statement. It begins with the compare-and-set on `pulse`, which also locks
//! the session until the statement ends. The rest of the statement takes effect only if the
//! compare-and-set succeeded.

use claviger_core::{Change, ChangeKind};
use claviger_store::{
    StoreError,
    codec::{ColumnReader as _, PairColumns, end_columns},
    corrupt,
};
use tokio_postgres::Row;

use crate::{
    database::{PooledConnection, bounds},
    error::Fault,
    notify::{CHANNEL, IDS_A_MESSAGE},
    row::{Pulse, RevocationColumns, pair_bounds},
    values::{Columns, text_column},
};

// The compare-and-set.
macro_rules! moved {
    ($columns:literal) => {
        concat!(
            "UPDATE claviger.pulse SET version = $2",
            $columns,
            " WHERE id = $1 AND version = $2 - 1 AND state < 3"
        )
    };
}

// Every part of a statement costs time, even one that changes nothing. So each kind has its own.
const CLAIM: &str = moved!(
    ", attempt = $3, fingerprint = $4, taken_at = $5, lease_until = $6, replay = $7, answer_lost = $8"
);
const PAIR: &str = concat!(
    "WITH moved AS (",
    moved!(
        ", attempt = $3, fingerprint = $4, taken_at = $5, lease_until = $6, replay = $7, answer_lost = $8,
        state = $9, proven_at = $10"
    ),
    " RETURNING id)
    UPDATE claviger.session SET generation = $11, access = $12, refresh = $13, expiry = $14, expires_at = $15
    WHERE id = $1 AND end_reason IS NULL AND EXISTS (SELECT FROM moved)"
);
const PROOF: &str = moved!(", proven_at = $3");
const NAME: &str = concat!(
    "WITH moved AS (",
    moved!(""),
    " RETURNING id),
    body AS (
        UPDATE claviger.session SET display_name = $3
        WHERE id = $1 AND end_reason IS NULL AND EXISTS (SELECT FROM moved)),
    told AS MATERIALIZED (SELECT pg_notify($4, encode(uuid_send(id), 'hex')) FROM moved)
    SELECT (SELECT count(*) FROM moved), (SELECT count(*) FROM told)"
);
const END: &str = concat!(
    "WITH moved AS (",
    moved!(
        ", state = 3, proven_at = NULL, attempt = NULL, fingerprint = NULL, taken_at = NULL, lease_until = NULL,
        replay = NULL, answer_lost = NULL"
    ),
    " RETURNING id),
    body AS (
        UPDATE claviger.session SET generation = NULL, access = NULL, refresh = NULL, expiry = NULL, expires_at = NULL,
            end_reason = $3, ended_at = $4
        WHERE id = $1 AND EXISTS (SELECT FROM moved)),
    owing AS (
        INSERT INTO claviger.owed (session, generation, provider, access, refresh, expiry, expires_at, owed_at, due_at)
        SELECT $5, $6, $7, $8, $9, $10, $11, $12, $12 FROM moved WHERE $5 IS NOT NULL),
    told AS MATERIALIZED (
        SELECT pg_notify($13, encode(uuid_send(id), 'hex')) FROM moved WHERE $13 IS NOT NULL)
    SELECT (SELECT count(*) FROM moved), (SELECT count(*) FROM told)"
);
// Claims and pairs of several sessions. Locked rows are skipped, so one locked row delays no other.
// All values come from one row source. PostgreSQL guesses its length, and would scan a second one
// once for each row of the first.
// A claim has no state here and keeps the stored one.
const CLAIMS_AND_PAIRS: &str = "WITH free AS MATERIALIZED (
        SELECT n.* FROM unnest($1::uuid[], $2::bigint[],
                $3::uuid[], $4::uuid[], $5::bigint[], $6::bigint[], $7::boolean[], $8::boolean[],
                $9::smallint[], $10::bigint[],
                $11::bigint[], $12::bytea[], $13::bytea[], $14::text[], $15::bigint[]) WITH ORDINALITY
            AS n (id, version, attempt, fingerprint, taken_at, lease_until, replay, answer_lost, state, proven_at,
                generation, access, refresh, expiry, expires_at, place)
        JOIN claviger.pulse AS p ON p.id = n.id AND p.version = n.version - 1 AND p.state < 3
        FOR UPDATE OF p SKIP LOCKED),
    moved AS (
        UPDATE claviger.pulse AS p SET version = n.version, attempt = n.attempt, fingerprint = n.fingerprint,
            taken_at = n.taken_at, lease_until = n.lease_until, replay = n.replay, answer_lost = n.answer_lost,
            state = coalesce(n.state, p.state), proven_at = coalesce(n.proven_at, p.proven_at)
        FROM free AS n WHERE p.id = n.id
        RETURNING n.*),
    bodies AS (
        UPDATE claviger.session AS s SET generation = n.generation, access = n.access, refresh = n.refresh,
            expiry = n.expiry, expires_at = n.expires_at
        FROM moved AS n WHERE s.id = n.id AND n.state IS NOT NULL AND s.end_reason IS NULL
        RETURNING n.place)
    SELECT place FROM moved WHERE state IS NULL UNION ALL SELECT place FROM bodies";
// Proofs and changes of state of several sessions. A proof has no state here and keeps the stored
// one.
const PROOFS_AND_STATES: &str = "WITH moved AS (
        UPDATE claviger.pulse AS p SET version = n.version, state = coalesce(n.state, p.state), proven_at = n.proven_at
        FROM unnest($1::uuid[], $2::bigint[], $3::smallint[], $4::bigint[]) WITH ORDINALITY
            AS n (id, version, state, proven_at, place)
        WHERE p.id = n.id AND p.version = n.version - 1 AND p.state < 3
        RETURNING n.place, p.id, p.state),
    told AS MATERIALIZED (
        SELECT pg_notify($5, string_agg(encode(uuid_send(id), 'hex'), ','))
        FROM (SELECT id, (row_number() OVER () - 1) / $6 AS batch FROM moved WHERE state >= 2) AS suspect GROUP BY batch)
    SELECT place, (SELECT count(*) FROM told) FROM moved";

/// Writes a change, if the row is still the one that it was made from. If the row ended, became
/// suspect or has another name, notifies the other instances.
pub(crate) async fn write(connection: &PooledConnection, change: &Change) -> Result<bool, Fault> {
    match change.kind() {
        ChangeKind::Claim => claim(connection, change).await,
        ChangeKind::Pair => pair(connection, change).await,
        ChangeKind::Proof => proof(connection, change).await,
        ChangeKind::State => Ok(proofs_and_states(connection, std::slice::from_ref(change)).await? == [true]),
        ChangeKind::Name => name(connection, change).await,
        ChangeKind::End { .. } => end(connection, change, Tell::Others).await,
    }
}

async fn claim(connection: &PooledConnection, change: &Change) -> Result<bool, Fault> {
    let pulse = Pulse::of(change.next());
    Ok(connection.execute(CLAIM, &[&pulse.version()[..], &pulse.claim()].concat()).await? == 1)
}

async fn pair(connection: &PooledConnection, change: &Change) -> Result<bool, Fault> {
    let (pulse, pair) = (Pulse::of(change.next()), PairColumns::of(change.next())?);
    let bounds = [&pulse.version()[..], &pulse.claim(), &pulse.state(), &pair_bounds(&pair)].concat();
    Ok(connection.execute(PAIR, &bounds).await? == 1)
}

async fn proof(connection: &PooledConnection, change: &Change) -> Result<bool, Fault> {
    let Pulse { id, version, proven_at, .. } = Pulse::of(change.next());
    Ok(connection.execute(PROOF, &bounds![UUID: id, INT8: version, INT8: proven_at]).await? == 1)
}

async fn name(connection: &PooledConnection, change: &Change) -> Result<bool, Fault> {
    let pulse = Pulse::of(change.next());
    let bounds =
        [&pulse.version()[..], &bounds![TEXT: text_column(&change.next().display_name), TEXT: CHANNEL]];
    let row = connection.query_one(NAME, &bounds.concat()).await?;
    Ok(Columns::of(&row, "a change").count()? == 1)
}

/// Whether the statement notifies other instances of the end.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tell {
    Others,
    /// The caller notifies them, of several ends at once.
    Nobody,
}

/// Writes an end and its pending revocation.
pub(crate) async fn end(connection: &PooledConnection, change: &Change, tell: Tell) -> Result<bool, Fault> {
    let (Some(reason), Some(at)) = end_columns(&change.next().state) else {
        return Err(corrupt("an end without a reason").into());
    };
    let (pulse, revocation) = (Pulse::of(change.next()), RevocationColumns::of(change.revocation())?);
    let end = bounds![TEXT: reason, INT8: at];
    let channel = bounds![TEXT: (tell == Tell::Others).then_some(CHANNEL)];
    let bounds = [&pulse.version()[..], &end, &revocation.bounds(), &channel].concat();
    let row = connection.query_one(END, &bounds).await?;
    Ok(Columns::of(&row, "a change").count()? == 1)
}

/// Writes claims and pairs, except those of locked rows. Writes none if the database refuses a
/// value. If a row is given twice, one of the two is written.
pub(crate) async fn claims_and_pairs(
    connection: PooledConnection,
    changes: &[Change],
) -> Result<Vec<bool>, Fault> {
    let pulses: Vec<Pulse> = changes.iter().map(|change| Pulse::of(change.next())).collect();
    let is_pair = |change: &Change| *change.kind() == ChangeKind::Pair;
    let pair_of = |change| is_pair(change).then(|| PairColumns::of(change.next())).transpose();
    let pairs: Vec<Option<PairColumns<'_>>> =
        changes.iter().map(pair_of).collect::<Result<_, StoreError>>()?;
    let of_pairs = || pulses.iter().zip(changes).map(|(pulse, change)| is_pair(change).then_some(pulse));
    let bounds = bounds![
        UUID_ARRAY: column(&pulses, |pulse| pulse.id),
        INT8_ARRAY: column(&pulses, |pulse| pulse.version),
        UUID_ARRAY: column(&pulses, |pulse| pulse.attempt),
        UUID_ARRAY: column(&pulses, |pulse| pulse.fingerprint),
        INT8_ARRAY: column(&pulses, |pulse| pulse.claim.taken_at),
        INT8_ARRAY: column(&pulses, |pulse| pulse.claim.lease_until),
        BOOL_ARRAY: column(&pulses, |pulse| pulse.claim.replay),
        BOOL_ARRAY: column(&pulses, |pulse| pulse.claim.answer_lost),
        INT2_ARRAY: of_pairs().map(|pulse| Some(pulse?.state)).collect::<Vec<_>>(),
        INT8_ARRAY: of_pairs().map(|pulse| pulse?.proven_at).collect::<Vec<_>>(),
        INT8_ARRAY: column(&pairs, |pair| pair.as_ref()?.generation),
        BYTEA_ARRAY: column(&pairs, |pair| pair.as_ref()?.access),
        BYTEA_ARRAY: column(&pairs, |pair| pair.as_ref()?.refresh),
        TEXT_ARRAY: column(&pairs, |pair| pair.as_ref()?.expiry),
        INT8_ARRAY: column(&pairs, |pair| pair.as_ref()?.expires_at),
    ];
    match connection.query(CLAIMS_AND_PAIRS, &bounds).await {
        Ok(places) => written(&places, changes.len()),
        Err(fault) if fault.is_refusal_of_values() => Ok(vec![false; changes.len()]),
        Err(fault) => Err(fault),
    }
}

/// Writes proofs and changes of state. Their rows are never locked for long, so this waits for
/// locks. It touches only the narrow table. If a row is given twice, one of the two is written.
pub(crate) async fn proofs_and_states(
    connection: &PooledConnection,
    changes: &[Change],
) -> Result<Vec<bool>, Fault> {
    if let [only] = changes
        && *only.kind() == ChangeKind::Proof
    {
        return Ok(vec![proof(connection, only).await?]);
    }
    let pulses: Vec<Pulse> = changes.iter().map(|change| Pulse::of(change.next())).collect();
    let states = pulses.iter().zip(changes);
    let states = states.map(|(pulse, change)| (*change.kind() == ChangeKind::State).then_some(pulse.state));
    let bounds = bounds![
        UUID_ARRAY: column(&pulses, |pulse| pulse.id),
        INT8_ARRAY: column(&pulses, |pulse| pulse.version),
        INT2_ARRAY: states.collect::<Vec<_>>(),
        INT8_ARRAY: column(&pulses, |pulse| pulse.proven_at),
        TEXT: CHANNEL,
        INT8: IDS_A_MESSAGE,
    ];
    written(&connection.query(PROOFS_AND_STATES, &bounds).await?, changes.len())
}

/// Turns the places of the written rows into one flag for each of `count` rows.
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
