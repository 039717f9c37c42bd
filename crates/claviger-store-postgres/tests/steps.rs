//! Steps of the schema on databases that are in use: rows of an older program's, and programs that know fewer steps.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may panic, and so may what it calls"
)]

use std::time::Duration;

use claviger_core::{
    ids::AttemptId,
    secret::Fingerprint,
    session::{Claim, EndReason, SealedPair, Session},
};
use claviger_store::{Replaced, Store};
use claviger_store_postgres::{Options, PostgresStore};
use common::{ROOMY, server::Server, session, t};
use tokio_postgres::Client;
use uuid::Uuid;

mod common;

/// The first step as programs did it that knew no other.
const FIRST: &str = concat!(
    "CREATE SCHEMA claviger;
    CREATE TABLE claviger.schema_step (number integer PRIMARY KEY, name text NOT NULL, kind text NOT NULL, needs integer NOT NULL,
        applied_at timestamptz NOT NULL DEFAULT now());
    INSERT INTO claviger.schema_step (number, name, kind, needs) VALUES (1, 'sessions', 'expand', 0);",
    include_str!("../migrations/0001_sessions.sql")
);

/// What the programs did that knew the first step only.
mod older {
    use super::{Client, Uuid};

    pub(super) const INSERT: &str =
        "WITH body AS (
            INSERT INTO claviger.session (id, provider, subject_id, display_name, secret_hash, custody, device)
            VALUES ($1, 'twitch', '7', 'user 7', decode(repeat('07', 32), 'hex'), 'device', 'Firefox on Linux'))
        INSERT INTO claviger.pulse (id, slot, version, state, created_at, last_seen_at, proven_at)
        VALUES ($1, 0, 1, 0, 1790000007000, 1790000007000, 1790000007000)";
    pub(super) const CLAIM: &str = "WITH moved AS (
            UPDATE claviger.pulse SET version = version + 1 WHERE id = $1 AND state < 3 RETURNING id)
        INSERT INTO claviger.claim AS c (id, attempt, fingerprint, taken_at, lease_until, replay, answer_lost)
        SELECT id, $2, id, 1790000008000, 1790000038000, false, false FROM moved
        ON CONFLICT (id) DO UPDATE SET attempt = excluded.attempt, fingerprint = excluded.fingerprint,
            taken_at = excluded.taken_at, lease_until = excluded.lease_until, replay = excluded.replay,
            answer_lost = excluded.answer_lost
        WHERE c.* IS DISTINCT FROM excluded.*";
    pub(super) const RELEASE: &str = "WITH moved AS (
            UPDATE claviger.pulse SET version = version + 1 WHERE id = $1 AND state < 3 RETURNING id)
        DELETE FROM claviger.claim WHERE id = $1 AND EXISTS (SELECT FROM moved)";
    pub(super) const END: &str =
        "WITH moved AS (
            UPDATE claviger.pulse SET version = version + 1, state = 3, proven_at = NULL
            WHERE id = $1 AND state < 3 RETURNING id),
        body AS (
            UPDATE claviger.session SET generation = NULL, access = NULL, refresh = NULL, expiry = NULL, expires_at = NULL,
                end_reason = 'signed_out', ended_at = 1790000009000
            WHERE id = $1 AND EXISTS (SELECT FROM moved))
        DELETE FROM claviger.claim WHERE id = $1 AND EXISTS (SELECT FROM moved)";

    /// Who holds the session, as they see it.
    pub(super) async fn claimed_by(client: &Client, id: Uuid) -> Option<Uuid> {
        let found =
            client.query_opt("SELECT attempt FROM claviger.claim WHERE id = $1", &[&id]).await.unwrap();
        found.map(|row| row.get(0))
    }
}

fn column(row: &Session) -> Uuid {
    Uuid::from_bytes(*row.id.as_bytes())
}

fn claim(attempt: u8) -> Claim {
    Claim {
        attempt: AttemptId([attempt; 16]),
        taken_at: t(8),
        lease_until: t(38),
        fingerprint: Fingerprint([attempt; 16]),
        replay: false,
        answer_lost: false,
    }
}

fn claimed_by(row: &Session) -> Option<Uuid> {
    Some(Uuid::from_bytes(row.holding()?.claim?.attempt.0))
}

#[tokio::test]
async fn a_refresh_that_was_in_flight_before_a_step_is_in_flight_after_it() {
    let server = Server::start("");
    let database = server.database().await;
    let client = server.client(&database).await;
    client.batch_execute(FIRST).await.unwrap();
    let (row, attempt) = (session(7), Uuid::from_bytes([1; 16]));
    client.execute(older::INSERT, &[&column(&row)]).await.unwrap();
    client.execute(older::CLAIM, &[&column(&row), &attempt]).await.unwrap();

    let store = PostgresStore::open(&server.address(&database), &Options::default()).await.unwrap();
    let found = store.load(row.id).await.unwrap().unwrap();
    let held = found.holding().unwrap().claim.unwrap();
    assert_eq!((held.attempt.0, held.taken_at, held.lease_until), ([1; 16], t(8), t(38)));
    let released = found.release(AttemptId([1; 16])).unwrap();
    assert_eq!(store.replace(&released, None).await, Ok(Replaced::Done));
    assert_eq!(store.load(row.id).await.unwrap().unwrap(), released);
}

#[tokio::test]
async fn programs_that_know_one_step_and_two_see_each_others_refreshes() {
    let server = Server::start("");
    let database = server.database().await;
    let client = server.client(&database).await;
    let store = PostgresStore::open(&server.address(&database), &Options::default()).await.unwrap();
    let row = session(7);
    let (id, theirs) = (column(&row), Uuid::from_bytes([1; 16]));
    store.insert(row.clone(), ROOMY).await.unwrap();

    // Ours, which they see, and take over.
    let ours = row.claim(claim(2)).unwrap();
    assert_eq!(store.replace_claim(&ours).await, Ok(Replaced::Done));
    assert_eq!(older::claimed_by(&client, id).await, claimed_by(&ours));
    assert_eq!(client.execute(older::CLAIM, &[&id, &theirs]).await.unwrap(), 1);
    let found = store.load(ours.id).await.unwrap().unwrap();
    assert_eq!(claimed_by(&found), Some(theirs));

    // Theirs, which they give back.
    assert_eq!(client.execute(older::RELEASE, &[&id]).await.unwrap(), 1);
    let found = store.load(ours.id).await.unwrap().unwrap();
    assert_eq!(claimed_by(&found), None);

    // Ours, which brings a new pair.
    let ours = found.claim(claim(3)).unwrap();
    assert_eq!(store.replace_claim(&ours).await, Ok(Replaced::Done));
    let pair = ours.pair().unwrap().clone();
    let new = |generation| SealedPair { generation, ..pair };
    let rotated = ours.rotate(AttemptId([3; 16]), None, t(20), new).unwrap();
    assert_eq!(store.replace(&rotated, None).await, Ok(Replaced::Done));
    assert_eq!(older::claimed_by(&client, id).await, None);

    // One that came in with a claim, as a copy brings it.
    let elsewhere = Session { id: session(8).id, ..rotated.clone().claim(claim(4)).unwrap() };
    store.insert(elsewhere.clone(), ROOMY).await.unwrap();
    assert_eq!(older::claimed_by(&client, column(&elsewhere)).await, claimed_by(&elsewhere));

    // A session that they end in the middle of our refresh.
    let ours = rotated.claim(claim(5)).unwrap();
    assert_eq!(store.replace_claim(&ours).await, Ok(Replaced::Done));
    client.execute(older::END, &[&id]).await.unwrap();
    let ended = store.load(ours.id).await.unwrap().unwrap();
    assert!(ended.ended(), "{ended:?}");
    let left = "SELECT attempt IS NULL AND lease_until IS NULL FROM claviger.pulse WHERE id = $1";
    assert!(client.query_one(left, &[&id]).await.unwrap().get::<_, bool>(0), "a tombstone has no claim");

    // And one that we end in the middle of theirs.
    client.execute(older::CLAIM, &[&column(&elsewhere), &theirs]).await.unwrap();
    let found = store.load(elsewhere.id).await.unwrap().unwrap();
    assert_eq!(claimed_by(&found), Some(theirs));
    let (ended, owed) = found.end(EndReason::SignedOut, t(30)).unwrap();
    assert_eq!(store.replace(&ended, owed.as_ref()).await, Ok(Replaced::Done));
    assert_eq!(older::claimed_by(&client, column(&elsewhere)).await, None);
}

#[tokio::test]
async fn ended_is_for_good_whatever_a_statement_says() {
    let server = Server::start("");
    let database = server.database().await;
    let client = server.client(&database).await;
    let store = PostgresStore::open(&server.address(&database), &Options::default()).await.unwrap();
    let row = session(7);
    store.insert(row.clone(), ROOMY).await.unwrap();
    let (ended, owed) = row.end(EndReason::SignedOut, t(30)).unwrap();
    store.replace(&ended, owed.as_ref()).await.unwrap();
    for statement in [
        "UPDATE claviger.pulse SET state = 0, proven_at = 1, version = version + 1",
        "UPDATE claviger.pulse SET last_seen_at = 1",
        "UPDATE claviger.session SET display_name = 'nobody'",
        "UPDATE claviger.session SET end_reason = NULL, ended_at = NULL",
    ] {
        let refused = client.batch_execute(statement).await.unwrap_err();
        let told = refused.as_db_error().unwrap().message().to_owned();
        assert_eq!(told, "an ended session does not change", "ENDED: {statement}");
    }
    let open = session(8);
    store.insert(open, ROOMY).await.unwrap();
    let leak = "UPDATE claviger.session SET end_reason = 'signed_out', ended_at = 1 WHERE end_reason IS NULL";
    let refused = client.batch_execute(leak).await.unwrap_err();
    assert_eq!(refused.code().unwrap().code(), "23514", "a tombstone holds no tokens");
    assert_eq!(store.load(ended.id).await, Ok(Some(ended)));
}

#[tokio::test]
async fn a_step_lets_others_by_while_a_table_is_held_and_is_done_when_it_is_free() {
    let server = Server::start("");
    let database = server.database().await;
    let client = server.client(&database).await;
    client.batch_execute(FIRST).await.unwrap();
    client.batch_execute("BEGIN; SELECT count(*) FROM claviger.pulse").await.unwrap();
    let address = server.address(&database);
    let migrating = tokio::spawn(async move { PostgresStore::migrate(&address, &Options::default()).await });
    let other = server.client(&database).await;
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()";
    common::server::eventually("the step waits", async || {
        (other.query_one(waits, &[]).await.unwrap().get::<_, i64>(0) > 0).then_some(())
    })
    .await;
    // Who comes after it gets through within the time that it waits.
    let by = other.query_one("SELECT count(*) FROM claviger.pulse", &[]);
    tokio::time::timeout(Duration::from_secs(8), by).await.expect("nobody is kept for long").unwrap();
    client.batch_execute("COMMIT").await.unwrap();
    assert!(!migrating.await.unwrap().unwrap().steps.is_empty());
}
